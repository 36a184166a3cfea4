//! What waits in a socket to be received: bytes of a stream, or messages, with
//! the open files that come with them. It is peeked at, piece by piece
//! (`SO_PEEK_OFF` in socket(7)), and sent again.

use super::view::View;
use crate::Refusal;
use crate::fds::epoll::Candidates;
use crate::fds::source::Source;
use crate::sys::socket::{Peeked, option, peek, send, set_option};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use tracee::Tid;

/// The guest's open files, by which one that is under way is known.
#[derive(Copy, Clone)]
pub(super) struct Files<'a> {
    pub(super) process: Tid,
    pub(super) open: &'a Candidates,
}

/// An open file that is under way.
#[derive(Clone, Debug)]
enum Right {
    /// The guest has it open, too.
    Open(i32),
    /// Nobody else may have it: it is held here, at this offset. Only what can be
    /// read and nobody sees the end of.
    Held(Arc<OwnedFd>, u64),
}

/// A message, or a piece of a stream.
#[derive(Clone, Debug)]
pub(super) struct Message {
    pub(super) bytes: Vec<u8>,
    /// The sender's address.
    pub(super) from: Vec<u8>,
    rights: Vec<Right>,
}

/// More than any kind of socket takes as one message by default.
const LONGEST: usize = 1 << 20;

/// Messages that are looked at in one socket.
const MOST: usize = 1 << 16;

/// Puts a socket's peek offset where it was.
struct PeekOffset<'a>(BorrowedFd<'a>);

impl<'a> PeekOffset<'a> {
    fn set(socket: BorrowedFd<'a>, offset: i32) -> io::Result<()> {
        set_option(
            socket,
            libc::SOL_SOCKET,
            libc::SO_PEEK_OFF,
            &offset.to_ne_bytes(),
        )
    }

    fn at_start(socket: BorrowedFd<'a>) -> io::Result<Self> {
        Self::set(socket, 0)?;
        Ok(Self(socket))
    }
}

impl Drop for PeekOffset<'_> {
    fn drop(&mut self) {
        // Only a guest without one is looked at.
        let _ = Self::set(self.0, -1);
    }
}

fn failed(e: io::Error) -> Refusal {
    Refusal::proc("look into a socket")(e)
}

fn check(view: &View) -> Result<(), Refusal> {
    if view.options.names_senders() {
        return Err(view.unsupported("has data waiting with credentials"));
    }
    if view.options.peeks_from_an_offset() {
        return Err(view.unsupported("has data waiting and a peek offset"));
    }
    Ok(())
}

/// What is queued in a stream, in pieces that end after a message with open files.
/// What was sent right before such a message without any looks like a part of it,
/// however little is peeked at: that it is one message shows in the memory that it
/// takes.
pub(super) fn peek_stream(view: &View, files: Files<'_>) -> Result<Vec<Message>, Refusal> {
    let socket = view.handle.as_fd();
    let waiting = rustix::io::ioctl_fionread(socket).map_err(|e| failed(e.into()))?;
    let Some(waiting) = usize::try_from(waiting).ok().filter(|n| *n > 0) else {
        return Ok(Vec::new());
    };
    check(view)?;
    let mut buffer = vec![0; waiting];
    let whole = peek(socket, &mut buffer).map_err(failed)?;
    if whole.more {
        return Err(view.unsupported("has data waiting with other things than open files"));
    }
    if whole.rights.is_empty() && whole.length == waiting {
        return Ok(vec![Message::of(buffer, Vec::new())]);
    }
    let mut pieces = Vec::new();
    let _offset = PeekOffset::at_start(socket).map_err(failed)?;
    let mut at = 0;
    while at < waiting {
        let piece = peek_at(socket, &mut buffer, at)?;
        if piece.length == 0 || piece.more || piece.length > waiting - at {
            return Err(view.unsupported("has data waiting that cannot be looked at"));
        }
        let rights = rights(view, piece.rights, files)?;
        pieces.push(Message::of(buffer[..piece.length].to_vec(), rights));
        at += piece.length;
    }
    Ok(pieces)
}

fn peek_at(socket: BorrowedFd<'_>, buffer: &mut [u8], at: usize) -> Result<Peeked, Refusal> {
    let offset = i32::try_from(at).map_err(|_| failed(io::ErrorKind::InvalidData.into()))?;
    PeekOffset::set(socket, offset).map_err(failed)?;
    peek(socket, buffer).map_err(failed)
}

/// The messages that are queued.
pub(super) fn peek_messages(view: &View, files: Files<'_>) -> Result<Vec<Message>, Refusal> {
    let socket = view.handle.as_fd();
    let mut buffer = vec![0; LONGEST];
    let mut messages = Vec::new();
    check(view)?;
    let _offset = PeekOffset::at_start(socket).map_err(failed)?;
    loop {
        let peeked = match peek(socket, &mut buffer) {
            Ok(peeked) => peeked,
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(messages),
            Err(e) => return Err(failed(e)),
        };
        if peeked.cut || messages.len() == MOST {
            return Err(view.unsupported("has more waiting than can be looked at"));
        }
        if peeked.more {
            return Err(view.unsupported("has messages waiting with more than data"));
        }
        if peeked.length == 0 && view.kind.kind == libc::SOCK_SEQPACKET {
            // It may be the end, which looks the same.
            return Ok(messages);
        }
        messages.push(Message {
            bytes: buffer[..peeked.length].to_vec(),
            from: peeked.from,
            rights: rights(view, peeked.rights, files)?,
        });
    }
}

/// Finds the files that are under way among those that the guest has open.
fn rights(view: &View, found: Vec<OwnedFd>, files: Files<'_>) -> Result<Vec<Right>, Refusal> {
    let own = crate::sys::own_id();
    found
        .into_iter()
        .map(|file| {
            let metadata = rustix::fs::fstat(&file).map_err(|e| failed(e.into()))?;
            let open = files
                .open
                .iter()
                .filter(|(_, candidate)| candidate.inode == metadata.st_ino)
                .find(|(fd, _)| {
                    tracee::same_open_file((own, file.as_raw_fd()), (files.process, **fd))
                        .unwrap_or(false)
                });
            if let Some((fd, _)) = open {
                return Ok(Right::Open(*fd));
            }
            let flags = rustix::fs::fcntl_getfl(&file).map_err(|e| failed(e.into()))?;
            let reads_only = !flags.intersects(rustix::fs::OFlags::RWMODE);
            let kind = metadata.st_mode & libc::S_IFMT;
            if !reads_only || !matches!(kind, libc::S_IFREG | libc::S_IFDIR) {
                return Err(view.unsupported(
                    "has open files waiting in it that nobody else in the guest has",
                ));
            }
            let offset = rustix::fs::tell(&file).map_err(|e| failed(e.into()))?;
            Ok(Right::Held(Arc::new(file), offset))
        })
        .collect()
}

impl Message {
    fn of(bytes: Vec<u8>, rights: Vec<Right>) -> Self {
        Self {
            bytes,
            from: Vec::new(),
            rights,
        }
    }

    /// Whether open files come with it, so that all of the copy's have to be there
    /// before it is sent.
    pub(super) fn has_rights(&self) -> bool {
        !self.rights.is_empty()
    }

    /// Sends something that takes the same memory.
    pub(super) fn try_out(&self, from: BorrowedFd<'_>) -> io::Result<()> {
        let rights = vec![from; self.rights.len()];
        let sent = send(from, &self.bytes, &[], &rights)?;
        if sent < self.bytes.len() {
            send(from, &self.bytes[sent..], &[], &[])?;
        }
        Ok(())
    }

    /// Sends it from one end of a connection, or to an address.
    pub(super) fn send(
        &self,
        source: &Source,
        from: BorrowedFd<'_>,
        to: &[u8],
    ) -> Result<(), Refusal> {
        let mut rights = Vec::new();
        for right in &self.rights {
            rights.push(match right {
                Right::Open(fd) => Arc::new(source.duplicate(*fd)?),
                Right::Held(file, offset) => {
                    rustix::fs::seek(file, rustix::fs::SeekFrom::Start(*offset))
                        .map_err(|e| refused(&e.into()))?;
                    Arc::clone(file)
                }
            });
        }
        let mut rights: Vec<BorrowedFd<'_>> = rights.iter().map(|right| right.as_fd()).collect();
        let mut bytes = &self.bytes[..];
        loop {
            let sent = send(from, bytes, to, &rights).map_err(|e| refused(&e))?;
            bytes = &bytes[sent..];
            rights.clear();
            if bytes.is_empty() {
                return Ok(());
            }
        }
    }
}

fn refused(e: &io::Error) -> Refusal {
    Refusal::unsupported(
        "socket-contents",
        format!("what was queued in a socket cannot be queued again: {e}"),
    )
}

/// The memory that a Unix socket's messages under way take (`SO_MEMINFO`): it shows
/// an empty message, which no peeking does unless it is the first.
pub(super) fn memory_under_way(sender: BorrowedFd<'_>) -> Option<u32> {
    const SO_MEMINFO: i32 = 55;
    const WRITE_MEMORY: usize = 2;
    let memory = option(sender, libc::SOL_SOCKET, SO_MEMINFO).ok()?;
    let at = 4 * WRITE_MEMORY;
    Some(u32::from_ne_bytes(memory.get(at..at + 4)?.try_into().ok()?))
}
