//! A connection to somebody outside the guest, which cannot be made again by one
//! side alone. Where the user wants it so, a copy has a socket of the same kind in
//! its place whose connection has been broken off by the other side.

use super::options::Options;
use super::view::{Kind, View};
use crate::fds::source::Source;
use crate::fds::{Entry, Fresh};
use crate::{Refusal, sys};
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::os::fd::{AsFd, OwnedFd};
use tracee::Remote;

/// What becomes of a guest's connections to others, which a resumed copy cannot
/// have.
#[derive(Copy, Clone, Default, Eq, PartialEq, Debug)]
pub enum OnConnection {
    /// While there is one, no checkpoint is taken.
    #[default]
    Skip,
    /// A checkpoint is taken, and the copy finds the connection broken off: the
    /// first read or write on a TCP connection answers ECONNRESET, and then there
    /// is the end of the stream, or EPIPE. poll(2) says POLLHUP and POLLERR. A Unix
    /// socket is one whose peer has closed it. A UDP socket, which has no
    /// connection that could break, is connected to the same address again.
    Reset,
}

/// A socket whose connection is lost.
#[derive(Clone, Debug)]
pub(super) struct Lost {
    entries: Vec<Entry>,
    kind: Kind,
    options: Options,
    address: Option<Vec<u8>>,
}

impl Lost {
    pub(super) fn of(view: &View) -> Self {
        Self {
            entries: view.entries.clone(),
            kind: view.kind,
            options: view.options.of_connection(),
            address: view.name().ok(),
        }
    }

    pub(super) fn lowest(&self) -> i32 {
        Entry::lowest(&self.entries)
    }

    /// Makes it, while nobody listens at the guest's addresses.
    pub(super) fn restore(
        &self,
        source: &Source,
        remote: &mut Remote<'_>,
        above: i32,
    ) -> Result<(), Refusal> {
        let fresh = match self.kind.family {
            libc::AF_UNIX => self.abandoned(remote, above)?,
            libc::AF_INET | libc::AF_INET6 if self.kind.kind == libc::SOCK_STREAM => {
                self.broken_off(source, remote, above)?
            }
            _ => {
                return Err(Refusal::unsupported(
                    "connection",
                    format!("a {} cannot be broken off", self.kind.describe()),
                ));
            }
        };
        let handle = source.duplicate(fresh.fd)?;
        // Some cannot be set any more.
        let _ = self.options.restore(handle.as_fd());
        let flags = rustix::fs::OFlags::from_bits_retain(self.entries[0].status_flags() as u32);
        rustix::fs::fcntl_setfl(&handle, flags)
            .map_err(|e| Refusal::proc("set up a socket again")(e.into()))?;
        drop(handle);
        fresh.place(remote, &self.entries)
    }

    /// A Unix socket whose peer is closed.
    fn abandoned(&self, remote: &mut Remote<'_>, above: i32) -> Result<Fresh, Refusal> {
        let [socket, peer] = self.kind.make_pair(remote)?;
        crate::fds::close(remote, peer.fd)?;
        socket.lift(remote, above)
    }

    /// A TCP socket whose peer has reset the connection.
    fn broken_off(
        &self,
        source: &Source,
        remote: &mut Remote<'_>,
        above: i32,
    ) -> Result<Fresh, Refusal> {
        let fresh = self.kind.make(remote)?.lift(remote, above)?;
        let handle = source.duplicate(fresh.fd)?;
        self.break_off(&handle)
            .map_err(Refusal::proc("break a connection off"))?;
        Ok(fresh)
    }

    fn break_off(&self, socket: &OwnedFd) -> io::Result<()> {
        let v6 = self.kind.family == libc::AF_INET6;
        // With the address that it had, if it can still have it: the guest may ask
        // for it.
        if let Some(address) = &self.address {
            let socket = socket.as_fd();
            sys::socket::set_reuse(socket, 1)?;
            let _ = sys::socket::bind(socket, address);
        }
        let connect = |listener: &TcpListener| {
            let port = listener.local_addr()?.port();
            let mapped = listener.local_addr()?.is_ipv4();
            let host: SocketAddr = match (v6, mapped) {
                (false, _) => (Ipv4Addr::LOCALHOST, port).into(),
                (true, false) => (Ipv6Addr::LOCALHOST, port).into(),
                (true, true) => (Ipv4Addr::LOCALHOST.to_ipv6_mapped(), port).into(),
            };
            rustix::net::connect(socket, &host).map_err(io::Error::from)
        };
        // An address of the one family may not reach the other.
        let mut hosts: Vec<SocketAddr> = vec![(Ipv4Addr::LOCALHOST, 0).into()];
        if v6 {
            hosts.insert(0, (Ipv6Addr::LOCALHOST, 0).into());
        }
        let mut outcome = Err(io::ErrorKind::AddrNotAvailable.into());
        for host in hosts {
            let Ok(listener) = TcpListener::bind(host) else {
                continue;
            };
            outcome = connect(&listener);
            if outcome.is_ok() {
                let (peer, _) = listener.accept()?;
                return sys::socket::reset_at_close(peer.as_fd());
            }
        }
        outcome
    }
}
