//! A file that the image keeps open: the live run moves it on, and a copy puts it
//! back.

use super::entry::{Entry, SETTABLE};
use super::fresh::set_flags;
use super::lock::Locks;
use crate::{Refusal, procfs};
use tracee::Remote;

/// A file that the image keeps open.
#[derive(Clone, Debug)]
pub(super) struct Kept {
    pub(super) entry: Entry,
    /// To be sought back to, where there is an offset and it is the guest's own.
    position: Option<i64>,
    /// It can be closed and opened anew.
    pub(super) reopens: bool,
    locks: Locks,
}

impl Kept {
    /// `mode` is of the file, as stat(2) tells it.
    pub(super) fn of(entry: &Entry, mode: u32) -> Self {
        let seekable = matches!(
            mode & libc::S_IFMT,
            libc::S_IFREG | libc::S_IFDIR | libc::S_IFBLK
        );
        // What others wrote to an inherited file meanwhile is not overwritten.
        let own = !(entry.inherited && entry.is_writable());
        let kind = mode & libc::S_IFMT;
        Self {
            position: (seekable && own && entry.info.flags & libc::O_PATH == 0)
                .then_some(entry.info.position),
            reopens: matches!(kind, libc::S_IFREG | libc::S_IFDIR),
            locks: Locks::of(entry).unwrap_or_default(),
            entry: entry.clone(),
        }
    }

    /// Whether it is the guest's own open file of this inode, with an open file
    /// description that can be locked.
    pub(super) fn is(&self, device: u64, inode: u64) -> bool {
        let entry = &self.entry;
        (entry.device, entry.inode) == (device, inode)
            && !entry.inherited
            && entry.info.flags & libc::O_PATH == 0
    }

    pub(super) fn reset(&self, remote: &mut Remote<'_>) -> Result<(), Refusal> {
        let fd = self.entry.fd;
        let now = procfs::fdinfo(remote.tid(), fd)
            .map_err(Refusal::proc("read /proc/PID/fdinfo of a copy"))?;
        if let Some(position) = self.position
            && position != now.position
        {
            remote.call(
                "lseek",
                libc::SYS_lseek,
                &[fd as u64, position as u64, libc::SEEK_SET as u64],
            )?;
        }
        if now.flags & SETTABLE != self.entry.status_flags() {
            set_flags(remote, fd, self.entry.status_flags())?;
        }
        // What others have locked through an inherited file is theirs.
        if !now.locks.is_empty() && !self.entry.inherited || self.locks.stay() {
            let now = Locks::from(&now);
            self.locks.set(remote, fd, &now)?;
        }
        Ok(())
    }
}
