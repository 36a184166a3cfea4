//! Two connected Unix sockets, both of whose ends are in the guest: a pair that
//! event loops wake themselves with, or a client of a listening socket of the
//! guest's own.

use super::address;
use super::diag::{RECEIVE_SHUT, SEND_SHUT, UnixFacts};
use super::message::{Files, Message, memory_under_way, peek_messages, peek_stream};
use super::name::{Name, Rebound};
use super::options::{Options, make_room};
use super::view::{Kind, View, dress};
use crate::fds::source::Source;
use crate::fds::{Entry, Fresh, close};
use crate::{Refusal, sys};
use rustix::event::PollFlags;
use rustix::net::{AddressFamily, Shutdown, SocketFlags, SocketType, shutdown, socketpair};
use std::os::fd::{AsFd, OwnedFd};
use tracee::{Remote, Tid};

/// One end of a pair.
#[derive(Clone, Debug)]
struct End {
    entries: Vec<Entry>,
    options: Options,
    mode: u32,
    /// What can be read here.
    contents: Vec<Message>,
    shutdown: u8,
}

/// How the two came together.
#[derive(Clone, Debug)]
enum Bond {
    /// By socketpair(2).
    Pair,
    /// The first end was accepted by a listening socket with this address, which
    /// is both ends' view of it. The client may have a name of its own.
    Accepted {
        address: Vec<u8>,
        listener: Listener,
        client: Option<Name>,
    },
}

/// Who listens at the address now.
#[derive(Clone, Debug)]
enum Listener {
    /// The guest, by this fd.
    Open(i32),
    /// Nobody: an abstract name is free to be taken for a moment.
    Closed(Kind),
}

/// A listening Unix socket of the guest's.
#[derive(Clone, Debug)]
pub(super) struct Listens {
    pub(super) address: Vec<u8>,
    pub(super) fd: i32,
}

/// A pair, as it was.
#[derive(Clone, Debug)]
pub(super) struct Pair {
    kind: Kind,
    bond: Bond,
    first: End,
    /// `None` if it is closed.
    second: Option<End>,
}

/// What a pair is looked at with.
#[derive(Copy, Clone)]
pub(super) struct Around<'a> {
    pub(super) process: Tid,
    pub(super) files: Files<'a>,
    pub(super) listening: &'a [Listens],
    pub(super) rebound: &'a Rebound,
}

impl Pair {
    /// `inode` is of `first`; `second` is the socket that the first one says it
    /// is connected to, if the guest has it open.
    pub(super) fn capture(
        first: (View, UnixFacts),
        second: Option<(View, UnixFacts)>,
        around: Around<'_>,
    ) -> Result<Self, Refusal> {
        let (view, facts) = &first;
        let inode = view.inode();
        let closed = match &second {
            Some((_, facts)) if facts.peer.map(u64::from) == Some(inode) => false,
            Some(_) => return Err(view.connected()),
            // A stream's end that outlives the other is shut down both ways. One
            // whose peer has not been accepted yet looks the same but for that,
            // and for the name of the listening socket.
            None => {
                if facts.peer != Some(0) || facts.shutdown != RECEIVE_SHUT | SEND_SHUT {
                    return Err(view.connected());
                }
                true
            }
        };
        if closed && view.kind.kind == libc::SOCK_DGRAM {
            return Err(view.unsupported("has lost its peer"));
        }
        let (first, second, bond) = bond(first, second, around)?;
        let kind = first.0.kind;
        let ends = match second {
            Some((view, facts)) => {
                let under_way = [&first.0, &view].map(|v| memory_under_way(v.handle.as_fd()));
                let first = End::capture(first.0, &first.1, around.files)?;
                let second = End::capture(view, &facts, around.files)?;
                check_by_trial(kind, &second, &first, under_way[1])?;
                check_by_trial(kind, &first, &second, under_way[0])?;
                (first, Some(second))
            }
            None => {
                let first = End::capture(first.0, &first.1, around.files)?;
                if first.has_rights() {
                    return Err(Refusal::unsupported(
                        "socket",
                        "a Unix socket has open files waiting in it, and its peer is closed",
                    ));
                }
                (first, None)
            }
        };
        Ok(Self {
            kind,
            bond,
            first: ends.0,
            second: ends.1,
        })
    }

    fn ends(&self) -> impl Iterator<Item = &End> {
        std::iter::once(&self.first).chain(&self.second)
    }

    pub(super) fn lowest(&self) -> i32 {
        self.ends().map(End::lowest).min().unwrap_or(0)
    }

    /// Whether it is made through an address that only one run has at a time.
    pub(super) fn is_accepted(&self) -> bool {
        matches!(self.bond, Bond::Accepted { .. })
    }

    /// The name that the client is bound to.
    pub(super) fn name(&self) -> Option<&Name> {
        match &self.bond {
            Bond::Accepted { client, .. } => client.as_ref(),
            Bond::Pair => None,
        }
    }

    /// Whether its contents can be sent only when all files are there.
    pub(super) fn waits(&self) -> bool {
        self.ends().any(End::has_rights)
    }

    pub(super) fn restore(
        &self,
        source: &Source,
        remote: &mut Remote<'_>,
        above: i32,
    ) -> Result<(), Refusal> {
        let mut fresh = match &self.bond {
            Bond::Pair => self.make(remote)?,
            Bond::Accepted {
                address,
                listener,
                client,
            } => self.meet(source, remote, above, address, listener, client.as_ref())?,
        };
        let handles = [
            source.duplicate(fresh[0].fd)?,
            source.duplicate(fresh[1].fd)?,
        ];
        for (end, handle) in self.ends().zip(&handles) {
            let flags = end.entries[0].status_flags();
            dress(handle.as_fd(), &end.options, end.mode, flags)?;
        }
        if !self.waits() {
            self.fill(source, &handles)?;
        }
        drop(handles);
        let in_place = |end: &End, fresh: Fresh| end.entries.iter().any(|e| e.fd == fresh.fd);
        match &self.second {
            None => {
                close(remote, fresh[1].fd)?;
                if !in_place(&self.first, fresh[0]) {
                    fresh[0] = fresh[0].lift(remote, above)?;
                }
            }
            Some(second) => {
                if !in_place(&self.first, fresh[0]) || !in_place(second, fresh[1]) {
                    fresh[0] = fresh[0].lift(remote, above)?;
                    fresh[1] = fresh[1].lift(remote, above)?;
                }
            }
        }
        for (end, fresh) in self.ends().zip(fresh) {
            fresh.place(remote, &end.entries)?;
        }
        Ok(())
    }

    /// Sends what has to come after all else.
    pub(super) fn finish(&self, source: &Source) -> Result<(), Refusal> {
        if !self.waits() {
            return Ok(());
        }
        let Some(second) = &self.second else {
            return Ok(());
        };
        let handles = [
            source.duplicate(self.first.lowest())?,
            source.duplicate(second.lowest())?,
        ];
        self.fill(source, &handles)
    }

    fn make(&self, remote: &mut Remote<'_>) -> Result<[Fresh; 2], Refusal> {
        let mut fresh = self.kind.make_pair(remote)?;
        // The two ends are alike, so the one with the lower number is the one
        // that is to have it.
        if let Some(second) = &self.second
            && second.lowest() < self.first.lowest()
        {
            fresh.swap(0, 1);
        }
        Ok(fresh)
    }

    /// Connects and accepts. The copy does it by itself, since the two see each
    /// other's credentials (SO_PEERCRED).
    fn meet(
        &self,
        source: &Source,
        remote: &mut Remote<'_>,
        above: i32,
        address: &[u8],
        listener: &Listener,
        client_name: Option<&Name>,
    ) -> Result<[Fresh; 2], Refusal> {
        let socket = |remote: &mut Remote<'_>, kind: Kind| kind.make(remote)?.lift(remote, above);
        let (listening, passing) = match listener {
            Listener::Open(fd) => (*fd, None),
            Listener::Closed(kind) => {
                let fresh = socket(remote, *kind)?;
                let handle = source.duplicate(fresh.fd)?;
                sys::socket::bind(handle.as_fd(), address).map_err(|e| lost(address, &e))?;
                remote.call("listen", libc::SYS_listen, &[fresh.fd as u64, 1])?;
                (fresh.fd, Some(fresh))
            }
        };
        let client = socket(remote, self.kind)?;
        let handle = source.duplicate(client.fd)?;
        if let Some(name) = client_name {
            name.bind(remote, client.fd, handle.as_fd())?;
        }
        let at = remote.scratch()?.0;
        remote.memory().write(at, address)?;
        remote
            .call(
                "connect",
                libc::SYS_connect,
                &[client.fd as u64, at.0, address.len() as u64],
            )
            .map_err(|e| match e {
                tracee::Error::Call { source, .. } => lost(address, &source),
                e => e.into(),
            })?;
        let mine = inode(&handle)?;
        let diag = super::diag::Diag::open()?;
        loop {
            let fd = remote.call(
                "accept4",
                libc::SYS_accept4,
                &[listening as u64, 0, 0, libc::SOCK_CLOEXEC as u64],
            )?;
            let accepted = Fresh { fd: fd as i32 }.lift(remote, above)?;
            let other = diag.unix(inode(&source.duplicate(accepted.fd)?)?)?;
            if other.peer.map(u64::from) == Some(mine) {
                if let Some(passing) = passing {
                    close(remote, passing.fd)?;
                }
                return Ok([accepted, client]);
            }
            // Somebody else was faster. He sees the server gone, as it was.
            close(remote, accepted.fd)?;
        }
    }

    /// What is queued is sent from the other side; ends are shut down last, since
    /// nothing can be sent after that.
    fn fill(&self, source: &Source, handles: &[OwnedFd; 2]) -> Result<(), Refusal> {
        if self.second.is_none() {
            // What the closed end had set is not known.
            let bytes = self.first.contents.iter().map(|m| m.bytes.len()).sum();
            make_room(handles[1].as_fd(), 2usize.saturating_mul(bytes));
        }
        for (end, other) in self.ends().zip([&handles[1], &handles[0]]) {
            for message in &end.contents {
                message.send(source, other.as_fd(), &[])?;
            }
        }
        if self.second.is_none() {
            return Ok(());
        }
        for (end, handle) in self.ends().zip(handles) {
            let how = match end.shutdown {
                0 => continue,
                RECEIVE_SHUT => Shutdown::Read,
                SEND_SHUT => Shutdown::Write,
                _ => Shutdown::Both,
            };
            shutdown(handle, how)
                .map_err(|e| Refusal::proc("shut down a socket again")(e.into()))?;
        }
        Ok(())
    }
}

fn inode(socket: &OwnedFd) -> Result<u64, Refusal> {
    let metadata =
        rustix::fs::fstat(socket).map_err(|e| Refusal::proc("look at a new socket")(e.into()))?;
    Ok(metadata.st_ino)
}

fn lost(address: &[u8], e: &std::io::Error) -> Refusal {
    let name = address::describe(address);
    Refusal::unsupported(
        "socket-rebind",
        format!("the guest's connection with itself through {name} cannot be made again: {e}"),
    )
}

type Seen = (View, UnixFacts);

/// Tells how two ends came together, and puts the accepted one first.
fn bond(
    first: Seen,
    second: Option<Seen>,
    around: Around<'_>,
) -> Result<(Seen, Option<Seen>, Bond), Refusal> {
    let named = |seen: &Seen| seen.1.named;
    let peer_named = |seen: &Seen| {
        seen.0
            .peer()
            .is_some_and(|peer| !address::is_unbound(&peer))
    };
    let any = named(&first)
        || peer_named(&first)
        || second.as_ref().is_some_and(|s| named(s) || peer_named(s));
    if !any {
        return Ok((first, second, Bond::Pair));
    }
    let Some(second) = second else {
        return Err(first.0.connected());
    };
    let listener = |seen: &Seen| -> Result<Option<(Vec<u8>, Listener)>, Refusal> {
        if !named(seen) {
            return Ok(None);
        }
        let address = seen.0.name()?;
        let open = around.listening.iter().find(|l| l.address == address);
        Ok(open.map(|l| (address, Listener::Open(l.fd))))
    };
    let (accepted, client, (address, listener)) = if let Some(found) = listener(&first)? {
        (first, second, found)
    } else if let Some(found) = listener(&second)? {
        (second, first, found)
    } else {
        // Nobody listens any more. A client seldom has a name.
        let (accepted, client) = if named(&first) {
            (first, second)
        } else {
            (second, first)
        };
        let address = accepted.0.name()?;
        let is_abstract = address::unix_name(&address).first() == Some(&0);
        if named(&client) || !is_abstract {
            return Err(accepted.0.connected());
        }
        let listener = Listener::Closed(accepted.0.kind);
        (accepted, client, (address, listener))
    };
    let client_name = if named(&client) {
        let name = client.0.name()?;
        Some(Name::unix(
            around.process,
            name,
            client.1.file,
            around.rebound,
        )?)
    } else {
        None
    };
    let bond = Bond::Accepted {
        address,
        listener,
        client: client_name,
    };
    Ok((accepted, Some(client), bond))
}

/// Checks that nothing was overlooked in what one end has sent to the other: the
/// same messages take the same memory.
fn check_by_trial(
    kind: Kind,
    sender: &End,
    receiver: &End,
    under_way: Option<u32>,
) -> Result<(), Refusal> {
    let step = "try out what waits in a socket";
    let overlooked = || {
        Refusal::unsupported(
            "socket",
            format!(
                "a Unix socket has messages{} waiting that cannot be looked at (fd {})",
                if receiver.has_rights() {
                    " or open files"
                } else {
                    ""
                },
                receiver.lowest()
            ),
        )
    };
    if kind.kind == libc::SOCK_STREAM && !receiver.has_rights() {
        // Bytes are all that matters.
        return Ok(());
    }
    if receiver.contents.is_empty() {
        return match under_way {
            Some(0) => Ok(()),
            _ => Err(overlooked()),
        };
    }
    let (one, other) = socketpair(
        AddressFamily::UNIX,
        SocketType::from_raw(kind.kind as u32),
        SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
        None,
    )
    .map_err(|e| Refusal::proc(step)(e.into()))?;
    sender.options.prepare(one.as_fd());
    for message in &receiver.contents {
        message.try_out(one.as_fd()).map_err(Refusal::proc(step))?;
    }
    let needed = memory_under_way(one.as_fd());
    drop(other);
    if needed == under_way {
        Ok(())
    } else {
        Err(overlooked())
    }
}

impl End {
    fn capture(view: View, facts: &UnixFacts, files: Files<'_>) -> Result<Self, Refusal> {
        if view.ready.contains(PollFlags::ERR) {
            return Err(view.unsupported("has an error waiting"));
        }
        if view.ready.contains(PollFlags::PRI) {
            return Err(view.unsupported("has out-of-band data waiting"));
        }
        let contents = if view.kind.kind == libc::SOCK_STREAM {
            peek_stream(&view, files)?
        } else if view.ready.contains(PollFlags::IN) {
            peek_messages(&view, files)?
        } else {
            Vec::new()
        };
        Ok(Self {
            entries: view.entries,
            options: view.options,
            mode: view.mode,
            contents,
            shutdown: facts.shutdown,
        })
    }

    fn lowest(&self) -> i32 {
        Entry::lowest(&self.entries)
    }

    fn has_rights(&self) -> bool {
        self.contents.iter().any(Message::has_rights)
    }
}
