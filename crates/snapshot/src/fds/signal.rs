//! signalfd and pidfd: what tells of signals and of processes.

use super::{Entry, Fresh};
use crate::{Guest, Refusal, procfs};
use tracee::Remote;

/// A signalfd. What it tells waits in the process, not in it.
#[derive(Clone, Debug)]
pub(super) struct SignalFd {
    entries: Vec<Entry>,
    signals: u64,
}

impl SignalFd {
    pub(super) fn capture(entries: Vec<Entry>) -> Result<Self, Refusal> {
        let signals = entries[0].info.signals.ok_or_else(|| {
            Refusal::unsupported("open-file", "a signalfd does not tell its signals")
        })?;
        Ok(Self { entries, signals })
    }

    pub(super) fn entries(&self) -> &[Entry] {
        &self.entries
    }

    pub(super) fn create(&self, remote: &mut Remote<'_>, above: i32) -> Result<(), Refusal> {
        let at = remote.scratch()?.0;
        remote.memory().write(at, &self.signals.to_ne_bytes())?;
        let flags = libc::SFD_CLOEXEC | self.entries[0].status_flags() & libc::O_NONBLOCK;
        let fd = remote.call(
            "signalfd4",
            libc::SYS_signalfd4,
            &[u64::MAX, at.0, 8, flags as u64],
        )?;
        Fresh { fd: fd as i32 }.settle(remote, above, &self.entries)
    }
}

/// Whom a pidfd stands for.
pub(super) enum Whom {
    /// The guest's process, whose copy is another one.
    Guest,
    /// Another process, or one that is gone: it stays the same for all copies.
    Other,
}

/// Tells it, by its entry.
pub(super) fn whom(entry: &Entry, guest: &Guest) -> Result<Whom, Refusal> {
    let Some(pid) = entry.info.pid else {
        return Err(Refusal::unsupported(
            "pidfd",
            "a pidfd does not tell its process",
        ));
    };
    if pid == guest.process.raw() {
        return Ok(Whom::Guest);
    }
    let threads =
        procfs::threads(guest.process).map_err(Refusal::proc("list the guest's threads"))?;
    if threads.iter().any(|tid| tid.raw() == pid) {
        return Err(Refusal::unsupported(
            "pidfd",
            "a pidfd of one of the guest's threads is open",
        ));
    }
    Ok(Whom::Other)
}

/// A pidfd of the guest itself.
#[derive(Clone, Debug)]
pub(super) struct OwnPidFd {
    entries: Vec<Entry>,
}

impl OwnPidFd {
    pub(super) fn capture(entries: Vec<Entry>) -> Self {
        Self { entries }
    }

    pub(super) fn entries(&self) -> &[Entry] {
        &self.entries
    }

    pub(super) fn create(&self, remote: &mut Remote<'_>, above: i32) -> Result<(), Refusal> {
        // O_EXCL says that it stands for the thread only (PIDFD_THREAD).
        let flags = self.entries[0].info.flags & (libc::O_NONBLOCK | libc::O_EXCL);
        let process = remote.tid().raw() as u64;
        let fd = remote.call("pidfd_open", libc::SYS_pidfd_open, &[process, flags as u64])?;
        Fresh { fd: fd as i32 }.settle(remote, above, &self.entries)
    }
}
