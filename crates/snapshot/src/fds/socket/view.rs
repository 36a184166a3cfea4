//! A socket that is looked at: what it is, what it has, and how to call it.

use super::address;
use super::options::Options;
use crate::fds::source::Source;
use crate::fds::{Entry, Fresh};
use crate::{Refusal, sys};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use tracee::Remote;

/// What socket(2) takes.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub(super) struct Kind {
    pub(super) family: i32,
    pub(super) kind: i32,
    pub(super) protocol: i32,
}

impl Kind {
    pub(super) fn of(socket: BorrowedFd<'_>) -> io::Result<Self> {
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

    /// Makes one in a copy (socket(2)).
    pub(super) fn make(self, remote: &mut Remote<'_>) -> Result<Fresh, Refusal> {
        let fd = remote.call("socket", libc::SYS_socket, &self.arguments())?;
        Ok(Fresh { fd: fd as i32 })
    }

    /// Makes two that are connected (socketpair(2)).
    pub(super) fn make_pair(self, remote: &mut Remote<'_>) -> Result<[Fresh; 2], Refusal> {
        let at = remote.scratch()?.0;
        let [family, kind, protocol] = self.arguments();
        let arguments = [family, kind, protocol, at.0];
        remote.call("socketpair", libc::SYS_socketpair, &arguments)?;
        Fresh::pair_at(remote, at)
    }

    fn arguments(self) -> [u64; 3] {
        [self.family, self.kind | libc::SOCK_CLOEXEC, self.protocol].map(|word| word as u64)
    }

    /// What to call it, for people.
    pub(super) fn describe(self) -> String {
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
pub(super) struct View {
    pub(super) entries: Vec<Entry>,
    pub(super) handle: OwnedFd,
    pub(super) kind: Kind,
    pub(super) options: Options,
    pub(super) ready: PollFlags,
    /// Of the socket itself, not of a name that it is bound to.
    pub(super) mode: u32,
}

impl View {
    pub(super) fn of(source: &Source, entries: Vec<Entry>) -> Result<Self, Refusal> {
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

    pub(super) fn name(&self) -> Result<Vec<u8>, Refusal> {
        sys::socket::local_name(self.handle.as_fd())
            .map_err(Refusal::proc("ask a socket for its address"))
    }

    /// Its number in the kernel's lists.
    pub(super) fn inode(&self) -> u64 {
        self.entries[0].inode
    }

    /// The address that it is connected to.
    pub(super) fn peer(&self) -> Option<Vec<u8>> {
        sys::socket::peer_name(self.handle.as_fd()).ok()
    }

    /// Lets the address of a TCP connection be taken by the next run. The kernel keeps it
    /// for a minute after a connection has ended (TIME_WAIT) from whoever did not set this
    /// while it lasted. The guest could only notice by asking for the option, which stays
    /// set in its copies, too.
    pub(super) fn share_address(&self) -> Result<(), Refusal> {
        sys::socket::set_reuse(self.handle.as_fd(), 1)
            .map_err(Refusal::proc("let a socket reuse its address"))
    }

    /// It is something that cannot be made anew.
    pub(super) fn unsupported(&self, what: impl AsRef<str>) -> Refusal {
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
    pub(super) fn connection(&self, what: impl AsRef<str>) -> Refusal {
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
    pub(super) fn connected(&self) -> Refusal {
        let peer = self
            .peer()
            .filter(|peer| !address::is_unbound(peer))
            .or_else(|| self.name().ok())
            .map_or_else(String::new, |a| address::describe(&a));
        self.connection(format!("to {peer}"))
    }
}

/// Gives a new socket what it has beside its name and contents.
pub(super) fn dress(
    handle: BorrowedFd<'_>,
    options: &Options,
    mode: u32,
    flags: i32,
) -> Result<(), Refusal> {
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
    let now = rustix::fs::fcntl_getfl(handle).map_err(|e| Refusal::proc(step)(e.into()))?;
    let settable = crate::fds::SETTABLE;
    if now.bits() as i32 & settable != flags {
        let flags = rustix::fs::OFlags::from_bits_retain(flags as u32);
        rustix::fs::fcntl_setfl(handle, flags).map_err(|e| Refusal::proc(step)(e.into()))?;
    }
    Ok(())
}
