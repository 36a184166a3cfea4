//! A pipe with both its ends inside the guest.

use super::{Entry, Fresh, close, set_flags};
use crate::Refusal;
use crate::sys;
use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use tracee::{Remote, Tid};

/// A pipe, as it was.
#[derive(Clone, Debug)]
pub(super) struct Pipe {
    /// The fds of each open file description: a pipe has usually one for
    /// reading and one for writing, and may lack either.
    ends: Vec<Vec<Entry>>,
    contents: Vec<u8>,
    capacity: i32,
}

const DEFAULT_CAPACITY: i32 = 65536;

impl Pipe {
    pub(super) fn capture(process: Tid, ends: Vec<Vec<Entry>>) -> Result<Self, Refusal> {
        for writable in [false, true] {
            if ends
                .iter()
                .filter(|e| e[0].is_writable() == writable)
                .count()
                > 1
            {
                return Err(Refusal::unsupported(
                    "pipe-reopened",
                    "a pipe was opened again through /proc",
                ));
            }
        }
        let fd = ends[0][0].fd;
        let step = "look into a pipe";
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NONBLOCK)
            .open(format!("/proc/{process}/fd/{fd}"))
            .map_err(Refusal::proc(step))?;
        let (capacity, contents) = sys::peek_pipe(&file).map_err(Refusal::proc(step))?;
        let packets = ends.iter().any(|e| e[0].info.flags & libc::O_DIRECT != 0);
        if packets && !contents.is_empty() {
            return Err(Refusal::unsupported("packet-pipe", "a pipe holds packets"));
        }
        Ok(Self {
            ends,
            contents,
            capacity,
        })
    }

    /// Its lowest fd.
    pub(super) fn lowest(&self) -> i32 {
        self.ends.iter().flatten().map(|e| e.fd).min().unwrap_or(0)
    }

    fn end(&self, writable: bool) -> Option<&Vec<Entry>> {
        self.ends.iter().find(|e| e[0].is_writable() == writable)
    }

    pub(super) fn restore(&self, remote: &mut Remote<'_>, above: i32) -> Result<(), Refusal> {
        let process = remote.tid();
        let at = remote.scratch()?.0;
        // Most have the same flags on both ends.
        let common = self
            .ends
            .iter()
            .map(|entries| entries[0].status_flags())
            .reduce(|a, b| a & b)
            .unwrap_or(0)
            & (libc::O_NONBLOCK | libc::O_DIRECT);
        let flags = (libc::O_CLOEXEC | common) as u64;
        remote.call("pipe2", libc::SYS_pipe2, &[at.0, flags])?;
        let mut pair = [0; 8];
        remote.memory().read(at, &mut pair)?;
        let number = |half: usize| i32::from_ne_bytes(std::array::from_fn(|i| pair[4 * half + i]));
        let (mut reader, mut writer) = (Fresh { fd: number(0) }, Fresh { fd: number(1) });
        let step = "fill a pipe again";
        let mut file = OpenOptions::new()
            .write(true)
            .custom_flags(libc::O_NONBLOCK)
            .open(format!("/proc/{process}/fd/{}", writer.fd))
            .map_err(Refusal::proc(step))?;
        if self.capacity != DEFAULT_CAPACITY {
            sys::set_pipe_capacity(&file, self.capacity).map_err(Refusal::proc(step))?;
        }
        file.write_all(&self.contents)
            .map_err(Refusal::proc(step))?;
        drop(file);
        let in_place = |end: Option<&Vec<Entry>>, fresh: Fresh| {
            end.is_some_and(|entries| entries.iter().any(|e| e.fd == fresh.fd))
        };
        if !in_place(self.end(false), reader) || !in_place(self.end(true), writer) {
            reader = reader.lift(remote, above)?;
            writer = writer.lift(remote, above)?;
        }
        for (writable, fresh) in [(false, reader), (true, writer)] {
            let Some(entries) = self.end(writable) else {
                close(remote, fresh.fd)?;
                continue;
            };
            fresh.place(remote, entries)?;
            let flags = entries[0].status_flags();
            if flags != common {
                set_flags(remote, entries[0].fd, flags)?;
            }
        }
        Ok(())
    }
}
