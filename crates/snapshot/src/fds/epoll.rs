//! An epoll instance. A shared one would keep the registrations of the dead run
//! and lose those of files that are made anew, so it is rebuilt each time.

use super::{Entry, Fresh};
use crate::Refusal;
use crate::procfs::EpollTarget;
use crate::sys;
use std::collections::BTreeMap;
use tracee::{Remote, Tid};

/// An epoll instance, as it was.
#[derive(Clone, Debug)]
pub(super) struct Epoll {
    entries: Vec<Entry>,
    targets: Vec<EpollTarget>,
}

impl Epoll {
    /// `files` are the process's open files with their inodes.
    pub(super) fn capture(
        process: Tid,
        entries: Vec<Entry>,
        files: &BTreeMap<i32, u64>,
    ) -> Result<Self, Refusal> {
        let targets = entries[0].info.targets.clone();
        let mut seen: BTreeMap<i32, u32> = BTreeMap::new();
        for target in &targets {
            let nth = seen.entry(target.fd).or_default();
            let current = files
                .get(&target.fd)
                .is_some_and(|inode| target.inode.is_none_or(|registered| registered == *inode))
                && sys::is_epoll_target(process, entries[0].fd, target.fd, *nth).unwrap_or(true);
            *nth += 1;
            if !current {
                return Err(Refusal::unsupported(
                    "stale-epoll",
                    "an epoll instance watches a file under a number that is closed",
                ));
            }
        }
        Ok(Self { entries, targets })
    }

    /// Its lowest fd.
    pub(super) fn lowest(&self) -> i32 {
        self.entries.iter().map(|e| e.fd).min().unwrap_or(0)
    }

    /// Makes the instance, still empty.
    pub(super) fn create(&self, remote: &mut Remote<'_>, above: i32) -> Result<(), Refusal> {
        let fd = remote.call(
            "epoll_create1",
            libc::SYS_epoll_create1,
            &[libc::EPOLL_CLOEXEC as u64],
        )?;
        Fresh { fd: fd as i32 }.settle(remote, above, &self.entries)
    }

    /// Registers the files, once all of them are there.
    pub(super) fn fill(&self, remote: &mut Remote<'_>) -> Result<(), Refusal> {
        let at = remote.scratch()?.0;
        for target in &self.targets {
            // `struct epoll_event` is packed on x86-64.
            let mut event = [0; 12];
            event[..4].copy_from_slice(&target.events.to_ne_bytes());
            event[4..].copy_from_slice(&target.data.to_ne_bytes());
            remote.memory().write(at, &event)?;
            remote.call(
                "epoll_ctl",
                libc::SYS_epoll_ctl,
                &[
                    self.entries[0].fd as u64,
                    libc::EPOLL_CTL_ADD as u64,
                    target.fd as u64,
                    at.0,
                ],
            )?;
        }
        Ok(())
    }
}
