//! A pseudo-terminal that the guest has made for itself: its master, and what is
//! open of its other side. Made anew under the same number, once the run before has
//! given that back.

use super::pipe::{access, open, set_rest};
use super::source::Source;
use super::{Entry, Fresh, close};
use crate::sys::terminal::{self, Modes, Size};
use crate::{Guest, Refusal};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tracee::Remote;

/// A pseudo-terminal, as it was.
#[derive(Clone, Debug)]
pub(super) struct Pty {
    index: u32,
    /// What was opened to make it, and its other side.
    multiplexer: PathBuf,
    path: PathBuf,
    mode: u32,
    master: Vec<Entry>,
    /// The fds of each open file description of the other side.
    slaves: Vec<Vec<Entry>>,
    modes: Modes,
    size: Size,
    packets: bool,
    locked: bool,
    /// The other side was open once, and is closed.
    hung_up: bool,
}

/// How long the kernel may take to give a number back.
const PATIENCE: Duration = Duration::from_millis(500);

/// Numbers that are tried for the right one.
const MOST: usize = 256;

fn refusal(what: impl std::fmt::Display) -> Refusal {
    Refusal::unsupported(
        "pseudo-terminal",
        format!("the guest made a pseudo-terminal, {what}"),
    )
}

/// The other side's place beside the multiplexer's: `/dev/pts/ptmx` has it in its
/// own folder, `/dev/ptmx` in the one beside it.
fn other_side(multiplexer: &Path, index: u32) -> PathBuf {
    let folder = multiplexer.parent().unwrap_or(Path::new("/dev"));
    if folder.ends_with("pts") {
        folder.join(index.to_string())
    } else {
        folder.join("pts").join(index.to_string())
    }
}

impl Pty {
    /// `slaves` are all fds that may be of its other side.
    pub(super) fn capture(
        source: &Source,
        multiplexer: PathBuf,
        master: Vec<Entry>,
        slaves: &[(PathBuf, Vec<Entry>)],
        guest: &Guest,
    ) -> Result<Self, Refusal> {
        let handle = source.duplicate(master[0].fd)?;
        let failed = |e: io::Error| refusal(format!("which cannot be looked at: {e}"));
        let index = terminal::index(handle.as_fd()).map_err(failed)?;
        let path = other_side(&multiplexer, index);
        let metadata = fs::metadata(&path).map_err(failed)?;
        if controls(guest, metadata.rdev()) {
            return Err(refusal("which controls its session"));
        }
        let slaves: Vec<Vec<Entry>> = slaves
            .iter()
            .filter(|(name, _)| *name == path)
            .map(|(_, entries)| entries.clone())
            .collect();
        let hung_up = look(&handle)?;
        for entries in &slaves {
            look(&source.duplicate(entries[0].fd)?)?;
        }
        let (packets, locked) = terminal::master_state(handle.as_fd()).map_err(failed)?;
        Ok(Self {
            index,
            path,
            mode: metadata.mode() & 0o7777,
            modes: terminal::modes(handle.as_fd()).map_err(failed)?,
            size: terminal::size(handle.as_fd()).map_err(failed)?,
            multiplexer,
            master,
            hung_up: hung_up && slaves.is_empty(),
            slaves,
            packets,
            locked,
        })
    }

    /// All fds of its other side.
    pub(super) fn slaves(&self) -> impl Iterator<Item = &Entry> {
        self.slaves.iter().flatten()
    }

    pub(super) fn restore(
        &self,
        source: &Source,
        remote: &mut Remote<'_>,
        above: i32,
    ) -> Result<(), Refusal> {
        let failed = |e: io::Error| refusal(format!("which cannot be made again: {e}"));
        let (fresh, handle) = self.make(source, remote, above)?;
        terminal::lock(handle.as_fd(), false).map_err(failed)?;
        if fs::metadata(&self.path).map_err(failed)?.mode() & 0o7777 != self.mode {
            let mode = fs::Permissions::from_mode(self.mode);
            fs::set_permissions(&self.path, mode).map_err(failed)?;
        }
        terminal::set_size(handle.as_fd(), self.size).map_err(failed)?;
        let path = self.path.as_os_str().as_encoded_bytes();
        if self.hung_up {
            let passing = open(remote, path, libc::O_RDWR)?;
            close(remote, passing.fd)?;
        }
        for entries in &self.slaves {
            let flags = access(entries) | entries[0].status_flags() & libc::O_NONBLOCK;
            open(remote, path, flags)?.settle(remote, above, entries)?;
            set_rest(remote, entries, flags)?;
        }
        // The first opening sets them to what is usual.
        if terminal::modes(handle.as_fd()).map_err(failed)? != self.modes {
            terminal::set_modes(handle.as_fd(), &self.modes).map_err(failed)?;
        }
        terminal::set_packets(handle.as_fd(), self.packets).map_err(failed)?;
        terminal::lock(handle.as_fd(), self.locked).map_err(failed)?;
        drop(handle);
        fresh.place(remote, &self.master)?;
        set_rest(remote, &self.master, 0)
    }

    /// A new master with the same number. The lowest one that is free is given, so
    /// that lower ones are held until it is.
    fn make(
        &self,
        source: &Source,
        remote: &mut Remote<'_>,
        above: i32,
    ) -> Result<(Fresh, OwnedFd), Refusal> {
        let deadline = Instant::now() + PATIENCE;
        let multiplexer = self.multiplexer.as_os_str().as_encoded_bytes();
        let mut others: Vec<Fresh> = Vec::new();
        let found = loop {
            let fresh = open(remote, multiplexer, libc::O_RDWR)?.lift(remote, above)?;
            let handle = source.duplicate(fresh.fd)?;
            let index = terminal::index(handle.as_fd())
                .map_err(|e| refusal(format!("which cannot be made again: {e}")))?;
            if index == self.index {
                break Some((fresh, handle));
            }
            if index < self.index && others.len() < MOST {
                others.push(fresh);
                continue;
            }
            close(remote, fresh.fd)?;
            if Instant::now() > deadline {
                break None;
            }
            // It is given back some time after the last one that had it is closed.
            std::thread::sleep(Duration::from_millis(1));
        };
        for other in others {
            close(remote, other.fd)?;
        }
        found.ok_or_else(|| {
            refusal(format!(
                "and {} belongs to somebody else by now",
                self.path.display()
            ))
        })
    }
}

/// Refuses one with something in it, which cannot be peeked at; answers whether it
/// is hung up.
fn look(side: &OwnedFd) -> Result<bool, Refusal> {
    let failed = |e: rustix::io::Errno| refusal(format!("which cannot be looked at: {e}"));
    // Asking for readiness brings in what is still on its way.
    let mut polled = [PollFd::new(side, PollFlags::IN)];
    poll(&mut polled, Some(&Timespec::default())).map_err(failed)?;
    let ready = polled[0].revents();
    if ready.contains(PollFlags::HUP) {
        return Ok(true);
    }
    if ready.contains(PollFlags::IN) || rustix::io::ioctl_fionread(side).map_err(failed)? > 0 {
        return Err(refusal("and something waits in it to be read"));
    }
    Ok(false)
}

/// Whether a terminal is the controlling one of the guest's session.
fn controls(guest: &Guest, device: u64) -> bool {
    let Ok(text) = fs::read_to_string(format!("/proc/{}/stat", guest.process)) else {
        return true;
    };
    // After the name: state, ppid, pgrp, session, tty_nr.
    text.rsplit_once(')')
        .and_then(|(_, rest)| rest.split_ascii_whitespace().nth(4)?.parse::<i32>().ok())
        .is_none_or(|terminal| {
            // `new_encode_dev`: the low 8 bits of the minor number come first.
            let terminal = terminal as u32;
            let major = (terminal >> 8) & 0xfff;
            let minor = terminal & 0xff | (terminal >> 12) & 0xf_ff00;
            terminal != 0 && libc::makedev(major, minor) == device
        })
}
