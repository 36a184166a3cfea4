//! The sockets of a process: which of them can be made anew, and as what.
//!
//! An image must hold no socket: a peer would not see its end, and a port would
//! stay taken. So all of the guest's own are closed in the image and made anew
//! in the copy: pairs with what is in them ([`pair`]), and what is not connected
//! at all: listening, bound or fresh ([`endpoint`]). A connection to the outside
//! cannot be made anew by one side alone, so it is a refusal that names it.
//!
//! A socket is looked at through a duplicate of the guest's fd (pidfd_getfd(2)),
//! so that the guest need not make a call for each of some hundred questions.
//! Duplicates are closed before the guest runs on.

mod address;
mod diag;
mod endpoint;
mod name;
mod options;
mod pair;

use super::Entry;
use super::source::Source;
use crate::{Refusal, sys};
use diag::{Diag, UnixFacts};
use endpoint::Endpoint;
use name::Name;
use options::Options;
use pair::Pair;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use tracee::{Remote, Tid};

pub(super) use name::Rebound;

/// What socket(2) takes.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
struct Kind {
    family: i32,
    kind: i32,
    protocol: i32,
}

impl Kind {
    fn of(socket: BorrowedFd<'_>) -> io::Result<Self> {
        let number = |name| {
            let value = sys::socket::option(socket, libc::SOL_SOCKET, name)?;
            let value: [u8; 4] = value.try_into().map_err(|_| io::ErrorKind::InvalidData)?;
            io::Result::Ok(i32::from_ne_bytes(value))
        };
        Ok(Self {
            family: number(libc::SO_DOMAIN)?,
            kind: number(libc::SO_TYPE)?,
            protocol: number(libc::SO_PROTOCOL)?,
        })
    }

    /// What to call it, for people.
    fn describe(self) -> String {
        let family = match self.family {
            libc::AF_UNIX => "Unix",
            libc::AF_INET | libc::AF_INET6 => match (self.kind, self.protocol) {
                (libc::SOCK_STREAM, libc::IPPROTO_TCP) => return "TCP socket".into(),
                (libc::SOCK_STREAM, libc::IPPROTO_MPTCP) => return "MPTCP socket".into(),
                (libc::SOCK_DGRAM, libc::IPPROTO_UDP) => return "UDP socket".into(),
                (libc::SOCK_RAW, protocol) => return format!("raw IP socket ({protocol})"),
                (_, protocol) => return format!("IP socket of protocol {protocol}"),
            },
            libc::AF_NETLINK => return format!("netlink socket ({})", self.protocol),
            libc::AF_PACKET => return "packet socket".into(),
            libc::AF_VSOCK => "VM",
            libc::AF_BLUETOOTH => "Bluetooth",
            libc::AF_CAN => "CAN",
            libc::AF_ALG => "kernel crypto",
            other => return format!("socket of address family {other}"),
        };
        let kind = match self.kind {
            libc::SOCK_STREAM => " stream",
            libc::SOCK_DGRAM => " datagram",
            libc::SOCK_SEQPACKET => " packet",
            _ => "",
        };
        format!("{family}{kind} socket")
    }
}

/// An open socket, under a magnifying glass.
struct View {
    entries: Vec<Entry>,
    handle: OwnedFd,
    kind: Kind,
    options: Options,
    ready: PollFlags,
    /// Of the socket itself, not of a name that it is bound to.
    mode: u32,
}

impl View {
    fn of(source: &Source, entries: Vec<Entry>) -> Result<Self, Refusal> {
        let handle = source.duplicate(entries[0].fd)?;
        let step = "look at a socket";
        let kind = Kind::of(handle.as_fd()).map_err(Refusal::proc(step))?;
        let mut polled = [PollFd::new(
            &handle,
            PollFlags::IN | PollFlags::PRI | PollFlags::RDHUP,
        )];
        let now = Timespec::default();
        poll(&mut polled, Some(&now)).map_err(|e| Refusal::proc(step)(e.into()))?;
        let ready = polled[0].revents();
        let view = Self {
            options: Options::capture(handle.as_fd(), kind),
            ready,
            mode: rustix::fs::fstat(&handle)
                .map_err(|e| Refusal::proc(step)(e.into()))?
                .st_mode
                & 0o7777,
            entries,
            handle,
            kind,
        };
        if sys::socket::filter_length(view.handle.as_fd()).map_or(true, |n| n > 0) {
            return Err(view.unsupported("has a packet filter"));
        }
        if let Some(obstacle) = view.options.obstacle() {
            return Err(view.unsupported(format!("has {obstacle}")));
        }
        Ok(view)
    }

    fn fd(&self) -> i32 {
        self.entries[0].fd
    }

    fn name(&self) -> Result<Vec<u8>, Refusal> {
        sys::socket::local_name(self.handle.as_fd())
            .map_err(Refusal::proc("ask a socket for its address"))
    }

    /// The address that it is connected to.
    fn peer(&self) -> Option<Vec<u8>> {
        sys::socket::peer_name(self.handle.as_fd()).ok()
    }

    /// It is something that cannot be made anew.
    fn unsupported(&self, what: impl AsRef<str>) -> Refusal {
        Refusal::unsupported(
            "socket",
            format!(
                "a {} {} (fd {})",
                self.kind.describe(),
                what.as_ref(),
                self.fd()
            ),
        )
    }

    /// It goes out of the guest.
    fn connection(&self, what: impl AsRef<str>) -> Refusal {
        Refusal::unsupported(
            "connection",
            format!(
                "a connection {} is open ({}, fd {})",
                what.as_ref(),
                self.kind.describe(),
                self.fd()
            ),
        )
    }

    /// It is connected to its peer.
    fn connected(&self) -> Refusal {
        let peer = self
            .peer()
            .filter(|peer| !address::is_unbound(peer))
            .or_else(|| self.name().ok())
            .map_or_else(String::new, |a| address::describe(&a));
        self.connection(format!("to {peer}"))
    }
}

#[derive(Clone, Debug)]
enum Socket {
    Pair(Box<Pair>),
    Endpoint(Box<Endpoint>),
}

impl Socket {
    fn lowest(&self) -> i32 {
        match self {
            Socket::Pair(pair) => pair.lowest(),
            Socket::Endpoint(endpoint) => endpoint.lowest(),
        }
    }
}

/// The sockets of a process, as they were.
#[derive(Clone, Debug, Default)]
pub(super) struct Sockets(Vec<Socket>);

impl Sockets {
    /// `entries` are all fds of sockets that the guest did not inherit.
    pub(super) fn capture(
        process: Tid,
        entries: Vec<Entry>,
        rebound: &Rebound,
    ) -> Result<Self, Refusal> {
        if entries.is_empty() {
            return Ok(Self::default());
        }
        // A socket has one open file description only (it cannot be opened
        // through /proc), so that its inode tells all: no kcmp is needed.
        let mut groups: BTreeMap<u64, Vec<Entry>> = BTreeMap::new();
        for entry in entries {
            groups.entry(entry.inode).or_default().push(entry);
        }
        let source = Source::of(process)?;
        let mut diag = None;
        let mut sockets = Vec::new();
        let mut ends: BTreeMap<u64, (View, UnixFacts)> = BTreeMap::new();
        for (inode, entries) in groups {
            let view = View::of(&source, entries)?;
            let endpoint = match view.kind.family {
                libc::AF_UNIX => {
                    let diag = match &diag {
                        Some(diag) => diag,
                        None => diag.insert(Diag::open()?),
                    };
                    let facts = diag.unix(inode)?;
                    if facts.state == diag::ESTABLISHED {
                        ends.insert(inode, (view, facts));
                        continue;
                    }
                    Endpoint::unix(process, view, &facts, rebound)?
                }
                libc::AF_INET | libc::AF_INET6 => Endpoint::internet(view)?,
                libc::AF_NETLINK => Endpoint::netlink(view)?,
                _ => return Err(view.unsupported("is open")),
            };
            sockets.push(Socket::Endpoint(Box::new(endpoint)));
        }
        while let Some((inode, end)) = ends.pop_first() {
            let peer = end.1.peer.and_then(|peer| ends.remove(&u64::from(peer)));
            let pair = Pair::capture(inode, end, peer)?;
            sockets.push(Socket::Pair(Box::new(pair)));
        }
        // In this order most numbers come out right by themselves.
        sockets.sort_by_key(Socket::lowest);
        Ok(Self(sockets))
    }

    fn names(&self) -> impl Iterator<Item = &Name> {
        self.0.iter().filter_map(|socket| match socket {
            Socket::Endpoint(endpoint) => endpoint.name(),
            Socket::Pair(_) => None,
        })
    }

    /// The files that sockets are bound to.
    pub(super) fn files(&self) -> impl Iterator<Item = &Path> {
        self.names().filter_map(Name::file)
    }

    /// Removes the file that a socket was bound to, if it still is that.
    pub(super) fn remove_file(&self, path: &Path) -> Result<(), Refusal> {
        match self.names().find(|name| name.file() == Some(path)) {
            Some(name) => name.clear(),
            None => Ok(()),
        }
    }

    /// Whether any has a name that only one run can have at a time.
    pub(super) fn take_addresses(&self) -> bool {
        self.names().next().is_some()
    }

    /// Makes the sockets anew in a copy that has none of them.
    pub(super) fn restore(&self, remote: &mut Remote<'_>, above: i32) -> Result<(), Refusal> {
        if self.0.is_empty() {
            return Ok(());
        }
        let source = Source::of(remote.tid())?;
        for socket in &self.0 {
            match socket {
                Socket::Pair(pair) => pair.restore(&source, remote, above)?,
                Socket::Endpoint(endpoint) => endpoint.restore(&source, remote, above)?,
            }
        }
        Ok(())
    }
}

/// Gives a new socket what it has beside its name and contents.
fn dress(handle: BorrowedFd<'_>, options: &Options, mode: u32, flags: i32) -> Result<(), Refusal> {
    options.restore(handle).map_err(|e| {
        Refusal::unsupported(
            "socket-option",
            format!("a socket cannot be given its options again: {e}"),
        )
    })?;
    let step = "set up a socket again";
    let now = rustix::fs::fstat(handle).map_err(|e| Refusal::proc(step)(e.into()))?;
    if now.st_mode & 0o7777 != mode {
        rustix::fs::fchmod(handle, rustix::fs::Mode::from_raw_mode(mode))
            .map_err(|e| Refusal::proc(step)(e.into()))?;
    }
    if flags != 0 {
        let flags = rustix::fs::OFlags::from_bits_retain(flags as u32);
        rustix::fs::fcntl_setfl(handle, flags).map_err(|e| Refusal::proc(step)(e.into()))?;
    }
    Ok(())
}
