//! A new open file description in a copy, and how it gets to the numbers that the
//! guest knows it by.

use super::Entry;
use crate::Refusal;
use tracee::{Remote, RemoteAddr};

/// A new open file description in a copy, on its way to the numbers that the
/// guest knows it by. It is closed by exec, and has a number of its own until it is
/// [placed](Self::place).
#[derive(Copy, Clone, Debug)]
pub(super) struct Fresh {
    pub(super) fd: i32,
}

impl Fresh {
    /// The two whose numbers a call has written there (pipe2(2), socketpair(2)).
    pub(super) fn pair_at(remote: &Remote<'_>, at: RemoteAddr) -> Result<[Self; 2], Refusal> {
        let mut pair = [0; 8];
        remote.memory().read(at, &mut pair)?;
        let half = |n: usize| std::array::from_fn(|i| pair[4 * n + i]);
        Ok([0, 1].map(|n| Self {
            fd: i32::from_ne_bytes(half(n)),
        }))
    }

    /// Moves it out of the way of the numbers that are still to be filled.
    pub(super) fn lift(self, remote: &mut Remote<'_>, above: i32) -> Result<Self, Refusal> {
        if self.fd >= above {
            return Ok(self);
        }
        let fd = remote.call(
            "fcntl",
            libc::SYS_fcntl,
            &[self.fd as u64, libc::F_DUPFD_CLOEXEC as u64, above as u64],
        )?;
        close(remote, self.fd)?;
        Ok(Self { fd: fd as i32 })
    }

    /// Puts it under all its numbers, out of whose way it is moved before.
    pub(super) fn settle(
        self,
        remote: &mut Remote<'_>,
        above: i32,
        entries: &[Entry],
    ) -> Result<(), Refusal> {
        let in_place = entries.iter().any(|e| e.fd == self.fd);
        let fresh = if in_place {
            self
        } else {
            self.lift(remote, above)?
        };
        fresh.place(remote, entries)
    }

    /// Puts it under all its numbers, and only those.
    pub(super) fn place(self, remote: &mut Remote<'_>, entries: &[Entry]) -> Result<(), Refusal> {
        let mut stays = false;
        for entry in entries {
            if entry.fd == self.fd {
                stays = true;
                if !entry.closes_on_exec() {
                    remote.call(
                        "fcntl",
                        libc::SYS_fcntl,
                        &[self.fd as u64, libc::F_SETFD as u64, 0],
                    )?;
                }
            } else {
                let flags = entry.info.flags & libc::O_CLOEXEC;
                remote.call(
                    "dup3",
                    libc::SYS_dup3,
                    &[self.fd as u64, entry.fd as u64, flags as u64],
                )?;
            }
        }
        if !stays {
            close(remote, self.fd)?;
        }
        Ok(())
    }
}

pub(super) fn close(remote: &mut Remote<'_>, fd: i32) -> Result<(), Refusal> {
    remote.call("close", libc::SYS_close, &[fd as u64])?;
    Ok(())
}

/// Sets the status flags of an open file description (F_SETFL).
pub(super) fn set_flags(remote: &mut Remote<'_>, fd: i32, flags: i32) -> Result<(), Refusal> {
    remote.call(
        "fcntl",
        libc::SYS_fcntl,
        &[fd as u64, libc::F_SETFL as u64, flags as u64],
    )?;
    Ok(())
}

/// Adds to them.
pub(super) fn add_flags(remote: &mut Remote<'_>, fd: i32, flags: i32) -> Result<(), Refusal> {
    let now = remote.call("fcntl", libc::SYS_fcntl, &[fd as u64, libc::F_GETFL as u64])?;
    set_flags(remote, fd, now as i32 | flags)
}
