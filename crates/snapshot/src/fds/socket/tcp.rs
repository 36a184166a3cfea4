//! A TCP connection of the guest with itself. Both ends are closed in the image,
//! and made anew once the run before is dead: a socket listens at the one address
//! for a moment, and the other end connects to it from its own.

use super::address;
use super::message::{Files, Message, peek_stream};
use super::options::Options;
use super::view::{Kind, View, dress};
use crate::fds::source::Source;
use crate::fds::{Entry, Fresh, close};
use crate::{Refusal, sys};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::Shutdown;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};
use tracee::Remote;

/// States of a TCP socket (net/tcp_states.h).
pub(super) const ESTABLISHED: u8 = 1;
const FIN_WAIT_1: u8 = 4;
const FIN_WAIT_2: u8 = 5;
pub(super) const CLOSE: u8 = 7;
const CLOSE_WAIT: u8 = 8;
pub(super) const LISTEN: u8 = 10;

/// How long an address may be taken by what is left of the run before, and how
/// long a connection within one machine may take.
const PATIENCE: Duration = Duration::from_millis(1500);

/// `struct tcp_info`, as far as it matters here.
#[derive(Copy, Clone, Debug)]
pub(super) struct TcpFacts {
    pub(super) state: u8,
    /// Of a listening socket: connections that wait to be accepted, and the
    /// backlog.
    pub(super) queue: (u32, u32),
    /// Bytes that were received, and bytes that were sent for the first time.
    received: u64,
    sent: u64,
}

impl TcpFacts {
    pub(super) fn of(socket: BorrowedFd<'_>) -> io::Result<Self> {
        let info = sys::socket::option(socket, libc::IPPROTO_TCP, libc::TCP_INFO)?;
        Self::parse(&info).ok_or_else(|| io::ErrorKind::InvalidData.into())
    }

    /// The offsets are of `struct tcp_info` in linux/tcp.h, which only grows.
    fn parse(info: &[u8]) -> Option<Self> {
        let u32_at = |at: usize| Some(u32::from_ne_bytes(info.get(at..at + 4)?.try_into().ok()?));
        let u64_at = |at: usize| Some(u64::from_ne_bytes(info.get(at..at + 8)?.try_into().ok()?));
        Some(Self {
            state: *info.first()?,
            // tcpi_unacked, tcpi_sacked.
            queue: (u32_at(24)?, u32_at(28)?),
            // tcpi_bytes_received, tcpi_bytes_sent less tcpi_bytes_retrans.
            received: u64_at(128)?,
            sent: u64_at(200)?.saturating_sub(u64_at(208)?),
        })
    }

    /// Whether it has said that it sends nothing more.
    fn has_finished(&self) -> bool {
        matches!(self.state, FIN_WAIT_1 | FIN_WAIT_2)
    }
}

/// One end.
#[derive(Clone, Debug)]
struct End {
    entries: Vec<Entry>,
    kind: Kind,
    options: Options,
    mode: u32,
    address: Vec<u8>,
    /// What can be read here.
    contents: Vec<Message>,
    /// Sends nothing more, and wants to receive nothing more.
    shut: (bool, bool),
}

/// A connection, as it was.
#[derive(Clone, Debug)]
pub(super) struct Connection {
    /// The one that accepted it, as far as can be told: to the two it makes no
    /// difference.
    accepted: End,
    client: End,
}

/// A TCP socket that is looked at.
pub(super) type Seen = (View, TcpFacts);

/// Whether two sockets are the ends of one connection.
pub(super) fn are_ends(one: &View, other: &View) -> bool {
    let plain = |address: Option<Vec<u8>>| address.as_deref().and_then(address::internet);
    let (a, b) = (plain(one.name().ok()), plain(one.peer()));
    a.is_some() && b.is_some() && a == plain(other.peer()) && b == plain(other.name().ok())
}

impl Connection {
    /// `listening` are the ports at which the guest listens.
    pub(super) fn capture(
        one: Seen,
        other: Seen,
        listening: &[u16],
        files: Files<'_>,
    ) -> Result<Self, Refusal> {
        check(&one, &other.1)?;
        check(&other, &one.1)?;
        let is_server = |seen: &Seen| -> Result<bool, Refusal> {
            let port = address::internet(&seen.0.name()?).map(|a| a.port());
            Ok(port.is_some_and(|port| listening.contains(&port)))
        };
        // The accepted socket is the younger one.
        let one_accepted =
            is_server(&one)? || !is_server(&other)? && one.0.inode() > other.0.inode();
        let (accepted, client) = if one_accepted {
            (one, other)
        } else {
            (other, one)
        };
        for (view, _) in [&accepted, &client] {
            view.share_address()?;
        }
        let finished = (accepted.1.has_finished(), client.1.has_finished());
        Ok(Self {
            accepted: End::capture(accepted, finished.1, files)?,
            client: End::capture(client, finished.0, files)?,
        })
    }

    pub(super) fn lowest(&self) -> i32 {
        Entry::lowest(&self.accepted.entries).min(Entry::lowest(&self.client.entries))
    }

    /// Makes the two, while nobody listens at their addresses.
    pub(super) fn connect(
        &self,
        source: &Source,
        remote: &mut Remote<'_>,
        above: i32,
    ) -> Result<(), Refusal> {
        let listener = self.accepted.socket(source, remote, above)?;
        let client = self.client.socket(source, remote, above)?;
        rustix::net::listen(&listener.1, 1).map_err(|e| self.failed(&e.into()))?;
        for handle in [&listener.1, &client.1] {
            rustix::io::ioctl_fionbio(handle, true).map_err(|e| self.failed(&e.into()))?;
        }
        self.reach(&client.1).map_err(|e| self.failed(&e))?;
        let accepted = self.accept(source, remote, above, &listener)?;
        close(remote, listener.0.fd)?;
        drop((listener.1, client.1));
        accepted.place(remote, &self.accepted.entries)?;
        client.0.place(remote, &self.client.entries)
    }

    fn reach(&self, client: &OwnedFd) -> io::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match sys::socket::connect(client.as_fd(), &self.accepted.address) {
                Ok(()) => return Ok(()),
                Err(e) if e.raw_os_error() == Some(libc::EINPROGRESS) => break,
                // The connection of the run before ended in good order, and is
                // kept from being made again for a second (TIME_WAIT).
                Err(e)
                    if e.raw_os_error() == Some(libc::EADDRNOTAVAIL)
                        && Instant::now() < deadline =>
                {
                    std::thread::sleep(Duration::from_millis(10));
                }
                Err(e) => return Err(e),
            }
        }
        let mut polled = [PollFd::new(client, PollFlags::OUT)];
        let patience = Timespec::try_from(PATIENCE).map_err(io::Error::other)?;
        poll(&mut polled, Some(&patience))?;
        match rustix::net::sockopt::socket_error(client)? {
            Ok(()) if polled[0].revents().contains(PollFlags::OUT) => Ok(()),
            Ok(()) => Err(io::ErrorKind::TimedOut.into()),
            Err(e) => Err(e.into()),
        }
    }

    fn accept(
        &self,
        source: &Source,
        remote: &mut Remote<'_>,
        above: i32,
        listener: &(Fresh, OwnedFd),
    ) -> Result<Fresh, Refusal> {
        let deadline = Instant::now() + PATIENCE;
        let wanted = address::internet(&self.client.address);
        loop {
            let fd = match remote.call(
                "accept4",
                libc::SYS_accept4,
                &[
                    listener.0.fd as u64,
                    0,
                    0,
                    (libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK) as u64,
                ],
            ) {
                Err(tracee::Error::Call { source, .. })
                    if source.kind() == io::ErrorKind::WouldBlock && Instant::now() < deadline =>
                {
                    std::thread::yield_now();
                    continue;
                }
                answer => answer?,
            };
            let accepted = Fresh { fd: fd as i32 }.lift(remote, above)?;
            let handle = source.duplicate(accepted.fd)?;
            let peer = sys::socket::peer_name(handle.as_fd()).unwrap_or_default();
            if address::internet(&peer) == wanted {
                return Ok(accepted);
            }
            // Somebody else: for him the guest is not there just now.
            let _ = sys::socket::reset_at_close(handle.as_fd());
            drop(handle);
            close(remote, accepted.fd)?;
        }
    }

    /// Gives the two what they have, once all addresses are taken that their
    /// options could keep from it.
    pub(super) fn finish(&self, source: &Source) -> Result<(), Refusal> {
        let ends = [&self.accepted, &self.client];
        let handles = [
            source.duplicate(Entry::lowest(&self.accepted.entries))?,
            source.duplicate(Entry::lowest(&self.client.entries))?,
        ];
        for ((end, to), from) in ends.iter().zip(&handles).zip([&handles[1], &handles[0]]) {
            for message in &end.contents {
                message.send(source, from.as_fd(), &[])?;
            }
            let expected: usize = end.contents.iter().map(|m| m.bytes.len()).sum();
            arrived(to, expected).map_err(|e| self.failed(&e))?;
        }
        for (end, handle) in ends.iter().zip(&handles) {
            let how = match end.shut {
                (true, true) => Shutdown::Both,
                (true, false) => Shutdown::Write,
                (false, true) => Shutdown::Read,
                (false, false) => continue,
            };
            rustix::net::shutdown(handle, how).map_err(|e| self.failed(&e.into()))?;
        }
        for (end, handle) in ends.iter().zip(&handles) {
            let flags = end.entries[0].status_flags();
            dress(handle.as_fd(), &end.options, end.mode, flags)?;
        }
        Ok(())
    }

    fn failed(&self, e: &io::Error) -> Refusal {
        Refusal::unsupported(
            "socket-rebind",
            format!(
                "the guest's connection with itself from {} to {} cannot be made again: {e}",
                address::describe(&self.client.address),
                address::describe(&self.accepted.address)
            ),
        )
    }
}

/// Waits until so many bytes can be read.
fn arrived(socket: &OwnedFd, expected: usize) -> io::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let waiting = usize::try_from(rustix::io::ioctl_fionread(socket)?).unwrap_or(0);
        if waiting == expected {
            return Ok(());
        }
        if Instant::now() > deadline {
            return Err(io::ErrorKind::TimedOut.into());
        }
        std::thread::yield_now();
    }
}

/// Refuses what cannot be brought back: data that is on its way, and states that
/// pass by themselves.
fn check(seen: &Seen, peer: &TcpFacts) -> Result<(), Refusal> {
    let (view, facts) = seen;
    if view.kind.protocol != libc::IPPROTO_TCP {
        return Err(view.connected());
    }
    if !matches!(
        facts.state,
        ESTABLISHED | FIN_WAIT_1 | FIN_WAIT_2 | CLOSE_WAIT
    ) {
        return Err(view.connected());
    }
    if view.ready.contains(PollFlags::ERR) {
        return Err(view.unsupported("has an error waiting"));
    }
    if view.ready.contains(PollFlags::PRI) {
        return Err(view.unsupported("has urgent data waiting"));
    }
    let unsent = sys::socket::unsent(view.handle.as_fd())
        .map_err(Refusal::proc("ask a TCP socket for its state"))?;
    // The end of a stream counts as one that is received.
    let end = u64::from(facts.has_finished());
    if unsent > 0 || peer.received < facts.sent || peer.received > facts.sent + end {
        return Err(view.unsupported("has sent data that has not arrived yet"));
    }
    Ok(())
}

impl End {
    fn capture(seen: Seen, peer_has_finished: bool, files: Files<'_>) -> Result<Self, Refusal> {
        let (view, facts) = seen;
        let receives_nothing = view.ready.contains(PollFlags::RDHUP) && !peer_has_finished;
        Ok(Self {
            contents: peek_stream(&view, files)?,
            address: view.name()?,
            shut: (facts.has_finished(), receives_nothing),
            options: view.options.of_connection(),
            kind: view.kind,
            mode: view.mode,
            entries: view.entries,
        })
    }

    /// A new socket with its address.
    fn socket(
        &self,
        source: &Source,
        remote: &mut Remote<'_>,
        above: i32,
    ) -> Result<(Fresh, OwnedFd), Refusal> {
        let fresh = self.kind.make(remote)?.lift(remote, above)?;
        let handle = source.duplicate(fresh.fd)?;
        self.options.prepare(handle.as_fd());
        sys::socket::set_reuse(handle.as_fd(), 1)
            .map_err(Refusal::proc("let a socket reuse its address"))?;
        sys::socket::bind(handle.as_fd(), &self.address).map_err(|e| {
            Refusal::unsupported(
                "socket-rebind",
                format!(
                    "{} cannot be bound again: {e}",
                    address::describe(&self.address)
                ),
            )
        })?;
        Ok((fresh, handle))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn what_was_sent_and_received_is_told() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (accepted, _) = listener.accept().unwrap();
        client.write_all(b"seven b").unwrap();
        client.shutdown(std::net::Shutdown::Write).unwrap();
        let (one, other) = (
            TcpFacts::of(client.as_fd()).unwrap(),
            TcpFacts::of(accepted.as_fd()).unwrap(),
        );
        assert_eq!((one.sent, one.received), (7, 0));
        assert!(other.received == 7 || other.received == 8, "{other:?}");
        assert!(one.has_finished());
        assert_eq!(other.state, CLOSE_WAIT);
        assert_eq!(TcpFacts::of(listener.as_fd()).unwrap().state, LISTEN);
    }
}
