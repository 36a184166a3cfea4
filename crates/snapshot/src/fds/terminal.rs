//! The terminal that a guest uses and others, too: it stays open in the image. Its
//! modes are the dropped run's when a copy comes to it, and are put back; so is the
//! group in its foreground where the dropped run has taken that with it.
//!
//! The size of the window is a person's. It is left alone, and a copy that knows
//! another one is told of the change (SIGWINCH).

use super::Entry;
use super::source::Source;
use crate::sys::terminal::{self, Modes, Size};
use crate::{Guest, procfs};
use std::os::fd::AsFd;
use tracee::Remote;

/// A terminal, as it was.
#[derive(Clone, Debug)]
pub(super) struct Terminal {
    fd: i32,
    modes: Modes,
    size: Option<Size>,
    /// Known if it is the controlling terminal, of this process as of the guest.
    foreground: Option<i32>,
    /// The guest's process, and whether it had a group of its own.
    process: i32,
    own_group: bool,
}

/// Whether a device is a terminal, by its number (admin-guide/devices.txt): the
/// virtual consoles and serial lines, /dev/tty and its like, pseudo-terminals.
pub(super) fn is_terminal(device: u64) -> bool {
    matches!(libc::major(device), 4 | 5 | 136..=143)
}

impl Terminal {
    /// `None` if it does not answer as a terminal does: it is hung up, or this
    /// process may not look at it.
    pub(super) fn capture(source: &Source, entry: &Entry, guest: &Guest) -> Option<Self> {
        let handle = source.duplicate(entry.fd).ok()?;
        let process = guest.process.raw();
        Some(Self {
            fd: entry.fd,
            modes: terminal::modes(handle.as_fd()).ok()?,
            size: terminal::size(handle.as_fd()).ok(),
            foreground: terminal::foreground(handle.as_fd()).ok(),
            process,
            own_group: procfs::stat(guest.process).is_ok_and(|stat| stat.group == process),
        })
    }

    /// Gives it back to a copy, which is in its process group already.
    pub(super) fn reset(&self, source: &Source, remote: &Remote<'_>) {
        // One that is hung up by now cannot be reset, and need not be.
        let Ok(handle) = source.duplicate(self.fd) else {
            return;
        };
        let handle = handle.as_fd();
        // A person may have put the guest in the background: the modes are those of
        // somebody else then, such as a shell that edits its command line.
        let group = procfs::stat(remote.tid()).map(|stat| stat.group);
        let is_others = terminal::foreground(handle).is_ok_and(|now| {
            group.as_ref().is_ok_and(|own| *own != now) && terminal::group_exists(now)
        });
        if !is_others && terminal::modes(handle).is_ok_and(|now| now != self.modes) {
            let _ = terminal::set_modes(handle, &self.modes);
        }
        if let Some(foreground) = self.foreground
            && let Ok(now) = terminal::foreground(handle)
        {
            let wanted = if self.own_group && foreground == self.process {
                remote.tid().raw()
            } else {
                foreground
            };
            // A group that is there has it by right: a person may have put another
            // program there, or the guest in the background.
            if now != wanted && !terminal::group_exists(now) {
                let _ = terminal::set_foreground(handle, wanted);
            }
        }
        if self.foreground.is_some()
            && self.size.is_some()
            && terminal::size(handle).ok() != self.size
        {
            terminal::tell_of_size(remote.tid());
        }
    }
}
