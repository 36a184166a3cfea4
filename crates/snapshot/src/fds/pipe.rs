//! A pipe with all its ends inside the guest.

use super::source::Source;
use super::{Entry, Fresh, close, set_flags};
use crate::Refusal;
use crate::sys::{self, PipeContents};
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use tracee::{Remote, Tid};

/// A pipe, as it was.
#[derive(Clone, Debug)]
pub(super) struct Pipe {
    /// The fds of the end for reading, and of that for writing, as pipe(2) made
    /// them; either may be closed.
    ends: [Option<Vec<Entry>>; 2],
    /// Those of further open file descriptions, made by opening the pipe again
    /// through `/proc`.
    others: Vec<Vec<Entry>>,
    contents: PipeContents,
    packets: bool,
    capacity: i32,
}

const DEFAULT_CAPACITY: i32 = 65536;

/// O_LARGEFILE as the kernel has it, which it sets for all that is opened by a
/// name (`force_o_largefile`).
const OPENED: i32 = 0o100_000;

/// The fds of an open file description for reading and writing or for one of them.
pub(super) fn access(entries: &[Entry]) -> i32 {
    entries[0].info.flags & libc::O_ACCMODE
}

impl Pipe {
    pub(super) fn capture(process: Tid, descriptions: Vec<Vec<Entry>>) -> Result<Self, Refusal> {
        let fd = descriptions[0][0].fd;
        let step = "look into a pipe";
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NONBLOCK)
            .open(format!("/proc/{process}/fd/{fd}"))
            .map_err(Refusal::proc(step))?;
        let (capacity, contents) = sys::peek_pipe(&file).map_err(Refusal::proc(step))?;
        let packets = has_packets(&descriptions, &contents);
        let mut ends = [None, None];
        let mut others = Vec::new();
        for entries in descriptions {
            let opened = entries[0].info.flags & OPENED != 0;
            let end = match access(&entries) {
                libc::O_RDONLY if !opened => Some(&mut ends[0]),
                libc::O_WRONLY if !opened => Some(&mut ends[1]),
                _ => None,
            };
            match end {
                Some(end @ None) => *end = Some(entries),
                _ => others.push(entries),
            }
        }
        Ok(Self {
            ends,
            others,
            contents,
            packets,
            capacity,
        })
    }

    /// Its lowest fd.
    pub(super) fn lowest(&self) -> i32 {
        let all = self.ends.iter().flatten().chain(&self.others);
        all.flatten().map(|e| e.fd).min().unwrap_or(0)
    }

    pub(super) fn restore(&self, remote: &mut Remote<'_>, above: i32) -> Result<(), Refusal> {
        let at = remote.scratch()?.0;
        let made_with = self.made_with();
        let flags = (libc::O_CLOEXEC | made_with) as u64;
        remote.call("pipe2", libc::SYS_pipe2, &[at.0, flags])?;
        let mut fresh = Fresh::pair_at(remote, at)?;
        self.fill(remote, fresh[1])?;
        let in_place = |end: &Option<Vec<Entry>>, fresh: Fresh| {
            end.as_ref()
                .is_some_and(|entries| entries.iter().any(|e| e.fd == fresh.fd))
        };
        if !in_place(&self.ends[0], fresh[0]) || !in_place(&self.ends[1], fresh[1]) {
            for fresh in &mut fresh {
                *fresh = fresh.lift(remote, above)?;
            }
        }
        for entries in &self.others {
            let path = format!("/proc/self/fd/{}", fresh[0].fd);
            let flags = access(entries) | entries[0].status_flags() & libc::O_NONBLOCK;
            open(remote, path.as_bytes(), flags)?.settle(remote, above, entries)?;
            set_rest(remote, entries, flags)?;
        }
        for (end, fresh) in self.ends.iter().zip(fresh) {
            let Some(entries) = end else {
                close(remote, fresh.fd)?;
                continue;
            };
            fresh.place(remote, entries)?;
            set_rest(remote, entries, made_with)?;
        }
        Ok(())
    }

    /// The flags that both ends are made with: most have the same.
    fn made_with(&self) -> i32 {
        if self.packets && !self.contents.is_empty() {
            return libc::O_NONBLOCK | libc::O_DIRECT;
        }
        self.ends
            .iter()
            .flatten()
            .map(|entries| entries[0].status_flags())
            .reduce(|a, b| a & b)
            .unwrap_or(0)
            & (libc::O_NONBLOCK | libc::O_DIRECT)
    }

    fn fill(&self, remote: &Remote<'_>, writer: Fresh) -> Result<(), Refusal> {
        let step = "fill a pipe again";
        let process = remote.tid();
        let mut file = if self.packets && !self.contents.is_empty() {
            // Another open file description would not write packets.
            File::from(Source::of(process)?.duplicate(writer.fd)?)
        } else {
            OpenOptions::new()
                .write(true)
                .custom_flags(libc::O_NONBLOCK)
                .open(format!("/proc/{process}/fd/{}", writer.fd))
                .map_err(Refusal::proc(step))?
        };
        if self.capacity != DEFAULT_CAPACITY {
            sys::set_pipe_capacity(&file, self.capacity).map_err(Refusal::proc(step))?;
        }
        for piece in &self.contents {
            file.write_all(piece).map_err(Refusal::proc(step))?;
        }
        Ok(())
    }
}

/// Whether what is in a pipe is packets.
pub(super) fn has_packets(descriptions: &[Vec<Entry>], contents: &PipeContents) -> bool {
    contents.len() > 1
        || descriptions
            .iter()
            .any(|entries| entries[0].info.flags & libc::O_DIRECT != 0)
}

/// Sets the status flags that an open file description was not made with.
pub(super) fn set_rest(
    remote: &mut Remote<'_>,
    entries: &[Entry],
    made_with: i32,
) -> Result<(), Refusal> {
    let flags = entries[0].status_flags();
    if flags != made_with & !libc::O_ACCMODE {
        set_flags(remote, entries[0].fd, flags)?;
    }
    Ok(())
}

/// Has a copy open a path.
pub(super) fn open(remote: &mut Remote<'_>, path: &[u8], flags: i32) -> Result<Fresh, Refusal> {
    let at = remote.scratch()?.0;
    remote.memory().write(at, &[path, b"\0"].concat())?;
    let fd = remote.call(
        "openat",
        libc::SYS_openat,
        &[
            libc::AT_FDCWD as u64,
            at.0,
            (flags | libc::O_CLOEXEC | libc::O_NOCTTY) as u64,
        ],
    )?;
    Ok(Fresh { fd: fd as i32 })
}
