//! Who gets the signals of a file (fcntl(2): F_SETOWN, F_SETSIG, O_ASYNC).

use super::Entry;
use super::fresh::add_flags;
use super::source::Source;
use crate::sys;
use crate::{Guest, Refusal};
use std::os::fd::AsFd;
use tracee::Remote;

/// F_OWNER_TID, F_OWNER_PID and F_OWNER_PGRP.
const THREAD: i32 = 0;
const PROCESS: i32 = 1;
const GROUP: i32 = 2;

/// The owner of an open file description.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub(super) struct Owner {
    fd: i32,
    kind: i32,
    id: i32,
    /// The guest's process, as it was: the copy's is another.
    process: i32,
    group: i32,
    signal: i32,
    asynchronous: bool,
}

impl Owner {
    /// `None` if a file's signals go to nobody and it has none to send.
    pub(super) fn capture(
        source: &Source,
        entry: &Entry,
        guest: &Guest,
    ) -> Result<Option<Self>, Refusal> {
        let handle = source.duplicate(entry.fd)?;
        let step = "ask a file for its owner";
        let (kind, id) = sys::owner(handle.as_fd()).map_err(Refusal::proc(step))?;
        let signal = sys::owner_signal(handle.as_fd()).map_err(Refusal::proc(step))?;
        let asynchronous = entry.info.flags & libc::O_ASYNC != 0;
        if id == 0 && signal == 0 && !asynchronous {
            return Ok(None);
        }
        let process = guest.process.raw();
        if kind == THREAD && id != process && id != 0 {
            return Err(Refusal::unsupported(
                "signal-driven-io",
                format!("the signals of fd {} go to one thread", entry.fd),
            ));
        }
        Ok(Some(Self {
            fd: entry.fd,
            kind,
            id,
            process,
            group: crate::procfs::stat(guest.process).map_or(0, |stat| stat.group),
            signal,
            asynchronous,
        }))
    }

    /// Sets it in a copy, which is in its process group already.
    pub(super) fn restore(&self, remote: &mut Remote<'_>) -> Result<(), Refusal> {
        let fd = self.fd as u64;
        if self.id != 0 {
            let own = remote.tid().raw();
            let id = match self.kind {
                THREAD | PROCESS if self.id == self.process => own,
                // A group of the guest's own is named after its process.
                GROUP if self.id == self.process && self.group == self.process => own,
                _ => self.id,
            };
            let at = remote.scratch()?.0;
            let mut owner = [0; 8];
            owner[..4].copy_from_slice(&self.kind.to_ne_bytes());
            owner[4..].copy_from_slice(&id.to_ne_bytes());
            remote.memory().write(at, &owner)?;
            remote.call(
                "fcntl",
                libc::SYS_fcntl,
                &[fd, sys::F_SETOWN_EX as u64, at.0],
            )?;
        }
        if self.signal != 0 {
            remote.call(
                "fcntl",
                libc::SYS_fcntl,
                &[fd, sys::F_SETSIG as u64, self.signal as u64],
            )?;
        }
        if self.asynchronous {
            add_flags(remote, self.fd, libc::O_ASYNC)?;
        }
        Ok(())
    }
}
