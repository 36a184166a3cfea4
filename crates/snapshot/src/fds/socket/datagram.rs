//! Sockets of datagrams: UDP, and Unix ones that are no pair. They are bound and
//! connected again by their addresses; what is queued is sent again by who sent
//! it, or by a passing socket that has his address.

use super::diag::UnixFacts;
use super::message::{Files, Message, peek_messages};
use super::name::{Name, Rebound};
use super::options::Options;
use super::view::{Kind, View, dress};
use super::{address, multicast};
use crate::fds::Entry;
use crate::fds::source::Source;
use crate::{Refusal, sys};
use rustix::event::PollFlags;
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use std::os::fd::{AsFd, OwnedFd};
use tracee::{Remote, Tid};

/// A socket of datagrams, as it was.
#[derive(Clone, Debug)]
pub(super) struct Datagram {
    entries: Vec<Entry>,
    kind: Kind,
    options: Options,
    mode: u32,
    name: Option<Name>,
    peer: Option<Vec<u8>>,
    messages: Vec<Message>,
}

impl Datagram {
    /// A UDP socket. `inside`: whether an address is one of the guest's own;
    /// `anybody`: it may be connected to others, too.
    pub(super) fn udp(
        view: View,
        inside: &dyn Fn(&[u8]) -> bool,
        anybody: bool,
        files: Files<'_>,
    ) -> Result<Self, Refusal> {
        let name = view.name()?;
        let peer = view.peer();
        if let Some(peer) = &peer
            && !anybody
            && !inside(peer)
        {
            return Err(view.connected());
        }
        if view.ready.intersects(PollFlags::RDHUP | PollFlags::HUP) {
            return Err(view.unsupported("is shut down"));
        }
        if multicast::is_member(&view) {
            return Err(view.unsupported("is in a multicast group"));
        }
        let name = (!address::is_unbound(&name)).then(|| Name::plain(name));
        Self::new(view, name, peer, files)
    }

    /// A Unix socket of datagrams. `peer` is the address of a socket of the
    /// guest's that it is connected to.
    pub(super) fn unix(
        process: Tid,
        view: View,
        facts: &UnixFacts,
        peer: Option<Vec<u8>>,
        rebound: &Rebound,
        files: Files<'_>,
    ) -> Result<Self, Refusal> {
        if facts.shutdown != 0 {
            return Err(view.unsupported("is shut down"));
        }
        let name = match facts.named {
            true => Some(Name::unix(process, view.name()?, facts.file, rebound)?),
            false => None,
        };
        Self::new(view, name, peer, files)
    }

    fn new(
        view: View,
        name: Option<Name>,
        peer: Option<Vec<u8>>,
        files: Files<'_>,
    ) -> Result<Self, Refusal> {
        if view.ready.contains(PollFlags::ERR) {
            return Err(view.unsupported("has an error waiting"));
        }
        let waits = view.ready.contains(PollFlags::IN);
        let messages = if waits {
            peek_messages(&view, files)?
        } else {
            Vec::new()
        };
        if waits && messages.is_empty() {
            return Err(view.unsupported("has a message waiting that cannot be looked at"));
        }
        for message in &messages {
            let local = match view.kind.family {
                libc::AF_UNIX => {
                    let from = address::unix_name(&message.from);
                    from.is_empty() || from.first() == Some(&0)
                }
                _ => address::internet(&message.from).is_some_and(|a| a.ip().is_loopback()),
            };
            if !local || message.has_rights() {
                return Err(view.unsupported(format!(
                    "has messages waiting from {}",
                    address::describe(&message.from)
                )));
            }
        }
        if !messages.is_empty() && name.is_none() {
            return Err(view.unsupported("has messages waiting and no address"));
        }
        Ok(Self {
            entries: view.entries,
            kind: view.kind,
            options: view.options,
            mode: view.mode,
            name,
            peer,
            messages,
        })
    }

    pub(super) fn name(&self) -> Option<&Name> {
        self.name.as_ref()
    }

    pub(super) fn lowest(&self) -> i32 {
        Entry::lowest(&self.entries)
    }

    /// Makes and binds it.
    pub(super) fn create(
        &self,
        source: &Source,
        remote: &mut Remote<'_>,
        above: i32,
    ) -> Result<(), Refusal> {
        let fresh = self.kind.make(remote)?;
        let handle = source.duplicate(fresh.fd)?;
        let flags = self.entries[0].status_flags();
        dress(handle.as_fd(), &self.options, self.mode, flags)?;
        if let Some(name) = &self.name {
            name.bind(remote, fresh.fd, handle.as_fd())?;
        }
        drop(handle);
        fresh.settle(remote, above, &self.entries)
    }

    /// Connects it, once all are bound.
    pub(super) fn connect(&self, source: &Source, remote: &mut Remote<'_>) -> Result<(), Refusal> {
        let Some(peer) = &self.peer else {
            return Ok(());
        };
        let connected = if self.kind.family == libc::AF_UNIX {
            let at = remote.scratch()?.0;
            remote.memory().write(at, peer)?;
            let arguments = [self.lowest() as u64, at.0, peer.len() as u64];
            match remote.call("connect", libc::SYS_connect, &arguments) {
                Ok(_) => Ok(()),
                Err(tracee::Error::Call { source, .. }) => Err(source),
                Err(e) => return Err(e.into()),
            }
        } else {
            sys::socket::connect(source.duplicate(self.lowest())?.as_fd(), peer)
        };
        connected.map_err(|e| {
            Refusal::unsupported(
                "socket-rebind",
                format!(
                    "a {} cannot be connected to {} again: {e}",
                    self.kind.describe(),
                    address::describe(peer)
                ),
            )
        })
    }

    /// Has what was queued sent again. `all` are the sockets of datagrams that the
    /// guest has.
    pub(super) fn fill(&self, process: Tid, source: &Source, all: &[&Self]) -> Result<(), Refusal> {
        let Some(name) = &self.name else {
            return Ok(());
        };
        for message in &self.messages {
            let from = self.sender(source, message, all)?;
            let to = address::reached_from(name.address(), &message.from);
            let to = address::seen_from_outside(&to, process);
            message.send(source, from.as_fd(), &to)?;
        }
        Ok(())
    }

    fn sender(
        &self,
        source: &Source,
        message: &Message,
        all: &[&Self],
    ) -> Result<OwnedFd, Refusal> {
        let own = all.iter().find(|other| {
            let name = other.name.as_ref().map(Name::address);
            other.kind.family == self.kind.family && name == Some(&message.from)
        });
        if let Some(own) = own {
            return source.duplicate(own.lowest());
        }
        let step = "send again what was queued";
        let socket = rustix::net::socket_with(
            AddressFamily::from_raw(self.kind.family as u16),
            SocketType::DGRAM,
            SocketFlags::CLOEXEC,
            None,
        )
        .map_err(|e| Refusal::proc(step)(e.into()))?;
        let unnamed =
            self.kind.family == libc::AF_UNIX && address::unix_name(&message.from).is_empty();
        if !unnamed {
            sys::socket::bind(socket.as_fd(), &message.from).map_err(|e| {
                Refusal::unsupported(
                    "socket-contents",
                    format!(
                        "a message from {} cannot be queued again: {e}",
                        address::describe(&message.from)
                    ),
                )
            })?;
        }
        Ok(socket)
    }
}
