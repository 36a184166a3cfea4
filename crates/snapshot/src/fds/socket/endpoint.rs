//! A socket without a connection: just made, bound, or listening.

use super::address;
use super::diag::{self, UnixFacts};
use super::lost::OnConnection;
use super::name::{Name, Rebound};
use super::options::Options;
use super::pair::Listens;
use super::tcp::{self, TcpFacts};
use super::view::{Kind, View, dress};
use crate::fds::Entry;
use crate::fds::source::Source;
use crate::{Refusal, sys};
use rustix::event::PollFlags;
use std::os::fd::{AsFd, BorrowedFd};
use tracee::{Remote, Tid};

/// A socket without a connection, as it was.
#[derive(Clone, Debug)]
pub(super) struct Endpoint {
    entries: Vec<Entry>,
    kind: Kind,
    options: Options,
    mode: u32,
    name: Option<Name>,
    /// Of a listening socket.
    backlog: Option<u32>,
}

/// What shows on a socket that has, or had, anything to do with another.
const USED: PollFlags = PollFlags::IN
    .union(PollFlags::PRI)
    .union(PollFlags::RDHUP)
    .union(PollFlags::ERR);

impl Endpoint {
    fn new(view: View, name: Option<Name>, backlog: Option<u32>) -> Self {
        Self {
            entries: view.entries,
            kind: view.kind,
            options: view.options,
            mode: view.mode,
            name,
            backlog,
        }
    }

    /// A Unix socket that is not connected.
    pub(super) fn unix(
        process: Tid,
        view: View,
        facts: &UnixFacts,
        rebound: &Rebound,
        on_connection: OnConnection,
    ) -> Result<Self, Refusal> {
        let listens = facts.state == diag::LISTEN;
        if !listens && facts.state != diag::CLOSE {
            return Err(view.unsupported(format!("is in state {}", facts.state)));
        }
        if facts.peer.is_some() {
            return Err(view.connected());
        }
        if facts.shutdown != 0 {
            return Err(view.unsupported("is shut down"));
        }
        let name = view.name()?;
        let (waiting, backlog) = facts.queue;
        if listens && waiting > 0 && on_connection == OnConnection::Skip {
            return Err(waits(&view, &name));
        }
        if !listens && view.ready.intersects(USED) {
            return Err(view.unsupported("has something waiting"));
        }
        let name = if facts.named {
            Some(Name::unix(process, name, facts.file, rebound)?)
        } else {
            None
        };
        Ok(Self::new(view, name, listens.then_some(backlog)))
    }

    /// A TCP socket that is not connected.
    pub(super) fn tcp(
        view: View,
        facts: TcpFacts,
        on_connection: OnConnection,
    ) -> Result<Self, Refusal> {
        let address = view.name()?;
        let (waiting, backlog) = facts.queue;
        match facts.state {
            tcp::LISTEN if waiting > 0 && on_connection == OnConnection::Skip => {
                Err(waits(&view, &address))
            }
            tcp::LISTEN => {
                let name = Name::plain(address);
                Ok(Self::new(view, Some(name), Some(backlog)))
            }
            // A new socket shows none of these, one whose connection has ended
            // at least one.
            tcp::CLOSE if view.ready.intersects(USED) => {
                Err(view.connection("that has ended, or was refused,"))
            }
            tcp::CLOSE => {
                let bound = !address::is_unbound(&address);
                Ok(Self::new(view, bound.then(|| Name::plain(address)), None))
            }
            _ => Err(view.connected()),
        }
    }

    /// A netlink socket. The kernel is at the other end, and has state of most
    /// kinds once it was asked something, except for routes.
    pub(super) fn netlink(view: View) -> Result<Self, Refusal> {
        let name = view.name()?;
        if view.peer().is_some_and(|peer| !address::is_unbound(&peer)) {
            return Err(view.unsupported("is connected"));
        }
        if view.ready.intersects(USED) {
            return Err(view.unsupported("has something waiting"));
        }
        if address::is_unbound(&name) {
            return Ok(Self::new(view, None, None));
        }
        // `struct sockaddr_nl`: family, padding, port id, groups.
        let in_groups = name.get(8..).unwrap_or(&[]).iter().any(|&b| b != 0);
        if in_groups || view.kind.protocol != libc::NETLINK_ROUTE || listens_to_groups(&view) {
            return Err(view.unsupported("is in use"));
        }
        Ok(Self::new(view, Some(Name::plain(name)), None))
    }

    pub(super) fn name(&self) -> Option<&Name> {
        self.name.as_ref()
    }

    pub(super) fn lowest(&self) -> i32 {
        Entry::lowest(&self.entries)
    }

    /// The port at which it listens.
    pub(super) fn listens_at_port(&self) -> Option<u16> {
        self.backlog?;
        Some(address::internet(self.name.as_ref()?.address())?.port())
    }

    /// The Unix address at which it listens.
    pub(super) fn listens(&self) -> Option<Listens> {
        self.backlog?;
        let address = self.name.as_ref()?.address();
        (self.kind.family == libc::AF_UNIX).then(|| Listens {
            address: address.to_vec(),
            fd: self.lowest(),
        })
    }

    pub(super) fn restore(
        &self,
        source: &Source,
        remote: &mut Remote<'_>,
        above: i32,
    ) -> Result<(), Refusal> {
        let fresh = self.kind.make(remote)?;
        let handle = source.duplicate(fresh.fd)?;
        dress(
            handle.as_fd(),
            &self.options,
            self.mode,
            self.entries[0].status_flags(),
        )?;
        if let Some(name) = &self.name {
            self.bind(name, remote, fresh.fd, handle.as_fd())?;
        }
        drop(handle);
        fresh.settle(remote, above, &self.entries)
    }

    fn bind(
        &self,
        name: &Name,
        remote: &mut Remote<'_>,
        fd: i32,
        handle: BorrowedFd<'_>,
    ) -> Result<(), Refusal> {
        let reuse = |value: i32| {
            sys::socket::set_reuse(handle, value)
                .map_err(Refusal::proc("let a socket reuse its address"))
        };
        let internet = matches!(self.kind.family, libc::AF_INET | libc::AF_INET6);
        if internet {
            // Connections of the run before may linger on the port.
            reuse(1)?;
        }
        name.bind(remote, fd, handle)?;
        if let Some(backlog) = self.backlog {
            // By the copy itself: who listens is who the peers see
            // (SO_PEERCRED).
            remote.call("listen", libc::SYS_listen, &[fd as u64, u64::from(backlog)])?;
        }
        if internet && !self.options.reuses_its_address() {
            reuse(0)?;
        }
        Ok(())
    }
}

fn waits(view: &View, address: &[u8]) -> Refusal {
    view.connection(format!(
        "that waits to be accepted at {}",
        address::describe(address)
    ))
}

fn listens_to_groups(view: &View) -> bool {
    const SOL_NETLINK: i32 = 270;
    const NETLINK_LIST_MEMBERSHIPS: i32 = 9;
    sys::socket::option(view.handle.as_fd(), SOL_NETLINK, NETLINK_LIST_MEMBERSHIPS)
        .map_or(true, |groups| groups.iter().any(|&b| b != 0))
}
