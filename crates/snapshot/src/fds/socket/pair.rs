//! A pair of connected Unix sockets, both of whose ends are in the guest: what
//! event loops wake themselves with.

use super::diag::{RECEIVE_SHUT, SEND_SHUT, UnixFacts};
use super::options::{Options, make_room};
use super::{Kind, View, address, dress};
use crate::Refusal;
use crate::fds::source::Source;
use crate::fds::{Entry, Fresh, close};
use rustix::event::PollFlags;
use rustix::net::{
    RecvAncillaryBuffer, RecvFlags, ReturnFlags, SendFlags, Shutdown, recvmsg, send, shutdown,
};
use std::io::{self, IoSliceMut};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use tracee::Remote;

/// One end of a pair.
#[derive(Clone, Debug)]
struct End {
    entries: Vec<Entry>,
    options: Options,
    mode: u32,
    /// What can be read here.
    contents: Vec<u8>,
    shutdown: u8,
}

/// A pair, as it was.
#[derive(Clone, Debug)]
pub(super) struct Pair {
    kind: Kind,
    first: End,
    /// `None` if it is closed.
    second: Option<End>,
}

impl Pair {
    /// `inode` is of `first`; `second` is the socket that the first one says it
    /// is connected to, if the guest has it open.
    pub(super) fn capture(
        inode: u64,
        first: (View, UnixFacts),
        second: Option<(View, UnixFacts)>,
    ) -> Result<Self, Refusal> {
        let (view, facts) = &first;
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
        if closed && view.kind.kind != libc::SOCK_STREAM {
            return Err(view.unsupported("has lost its peer"));
        }
        for (view, facts) in [Some(&first), second.as_ref()].into_iter().flatten() {
            let peer_is_named = view.peer().is_none_or(|peer| !address::is_unbound(&peer));
            if facts.named || peer_is_named {
                return Err(view.connected());
            }
        }
        Ok(Self {
            kind: view.kind,
            first: End::capture(first.0, &first.1)?,
            second: match second {
                Some((view, facts)) => Some(End::capture(view, &facts)?),
                None => None,
            },
        })
    }

    fn ends(&self) -> impl Iterator<Item = &End> {
        std::iter::once(&self.first).chain(&self.second)
    }

    pub(super) fn lowest(&self) -> i32 {
        self.ends()
            .flat_map(|end| &end.entries)
            .map(|e| e.fd)
            .min()
            .unwrap_or(0)
    }

    pub(super) fn restore(
        &self,
        source: &Source,
        remote: &mut Remote<'_>,
        above: i32,
    ) -> Result<(), Refusal> {
        let at = remote.scratch()?.0;
        remote.call(
            "socketpair",
            libc::SYS_socketpair,
            &[
                self.kind.family as u64,
                (self.kind.kind | libc::SOCK_CLOEXEC) as u64,
                self.kind.protocol as u64,
                at.0,
            ],
        )?;
        let mut pair = [0; 8];
        remote.memory().read(at, &mut pair)?;
        let number = |half: usize| i32::from_ne_bytes(std::array::from_fn(|i| pair[4 * half + i]));
        let mut fresh = [Fresh { fd: number(0) }, Fresh { fd: number(1) }];
        // The two ends are alike, so the one with the lower number is the one
        // that is to have it.
        if let Some(second) = &self.second
            && second.lowest() < self.first.lowest()
        {
            fresh.swap(0, 1);
        }
        let handles = [
            source.duplicate(fresh[0].fd)?,
            source.duplicate(fresh[1].fd)?,
        ];
        self.fill(&handles)?;
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

    /// Options first, since they say how much may be queued; then what is
    /// queued, which is sent from the other side; and shut down last, since
    /// nothing can be sent after that.
    fn fill(&self, handles: &[OwnedFd; 2]) -> Result<(), Refusal> {
        for (end, handle) in self.ends().zip(handles) {
            let flags = end.entries[0].status_flags();
            dress(handle.as_fd(), &end.options, end.mode, flags)?;
        }
        if self.second.is_none() {
            // What the closed end had set is not known.
            make_room(handles[1].as_fd(), 2 * self.first.contents.len());
        }
        for (end, other) in self.ends().zip([&handles[1], &handles[0]]) {
            send_all(other.as_fd(), &end.contents).map_err(|e| {
                Refusal::unsupported(
                    "socket-contents",
                    format!("what was queued in a socket pair cannot be queued again: {e}"),
                )
            })?;
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

impl End {
    fn capture(view: View, facts: &UnixFacts) -> Result<Self, Refusal> {
        if view.ready.contains(PollFlags::ERR) {
            return Err(view.unsupported("has an error waiting"));
        }
        if view.ready.contains(PollFlags::PRI) {
            return Err(view.unsupported("has out-of-band data waiting"));
        }
        let contents = if view.kind.kind == libc::SOCK_STREAM {
            peek(&view)?
        } else {
            if facts.shutdown != 0 {
                return Err(view.unsupported("is shut down"));
            }
            if view.ready.contains(PollFlags::IN) {
                return Err(view.unsupported("has messages waiting"));
            }
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
        self.entries.iter().map(|e| e.fd).min().unwrap_or(0)
    }
}

/// What is queued in a stream, which stays queued.
fn peek(view: &View) -> Result<Vec<u8>, Refusal> {
    let step = "look into a socket";
    let waiting =
        rustix::io::ioctl_fionread(&view.handle).map_err(|e| Refusal::proc(step)(e.into()))?;
    let Some(waiting) = usize::try_from(waiting).ok().filter(|n| *n > 0) else {
        return Ok(Vec::new());
    };
    if view.options.names_senders() {
        return Err(view.unsupported("has data waiting with credentials"));
    }
    if view.options.peeks_from_an_offset() {
        return Err(view.unsupported("has data waiting and a peek offset"));
    }
    let mut contents = vec![0; waiting];
    // Without room for control messages, those that there are show as cut off,
    // and no fd of the guest arrives here.
    let peeked = recvmsg(
        &view.handle,
        &mut [IoSliceMut::new(&mut contents)],
        &mut RecvAncillaryBuffer::default(),
        RecvFlags::PEEK | RecvFlags::DONTWAIT,
    )
    .map_err(|e| Refusal::proc(step)(e.into()))?;
    if peeked.flags.contains(ReturnFlags::CTRUNC) {
        return Err(view.unsupported("has open files waiting in it"));
    }
    if peeked.bytes != waiting {
        return Err(view.unsupported("has data waiting that cannot be looked at"));
    }
    Ok(contents)
}

fn send_all(from: BorrowedFd<'_>, mut contents: &[u8]) -> io::Result<()> {
    while !contents.is_empty() {
        let sent = send(from, contents, SendFlags::DONTWAIT | SendFlags::NOSIGNAL)?;
        contents = &contents[sent..];
    }
    Ok(())
}
