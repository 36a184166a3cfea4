//! What a guest has open from the start: it goes out of the guest.

use super::inotify::Found;
use super::socket::Rebound;
use crate::procfs;
use crate::sys::own_id;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;
use tracee::Tid;

/// The open files of this process that a guest inherits when it is started, to
/// tell them from its own later: what happens to those is seen by others.
#[derive(Debug, Default)]
pub struct Inherited {
    files: Vec<(i32, u64, u64)>,
    /// What all copies of the guest know of each other's sockets.
    pub(super) rebound: Rebound,
    /// Where files are that it watches.
    pub(crate) found: Found,
}

impl Inherited {
    /// The files that a child started now would inherit.
    ///
    /// # Errors
    ///
    /// When `/proc/self/fd` cannot be read.
    pub fn of_this_process() -> io::Result<Self> {
        let own = own_id();
        let mut files = Vec::new();
        for entry in fs::read_dir("/proc/self/fd")? {
            let Some(fd) = entry?.file_name().to_str().and_then(|n| n.parse().ok()) else {
                continue;
            };
            // The one that lists the folder is gone by now.
            let Ok(info) = procfs::fdinfo(own, fd) else {
                continue;
            };
            if info.flags & libc::O_CLOEXEC == 0
                && let Ok(metadata) = fs::metadata(format!("/proc/self/fd/{fd}"))
            {
                files.push((fd, metadata.dev(), metadata.ino()));
            }
        }
        Ok(Self {
            files,
            rebound: Rebound::default(),
            found: Found::default(),
        })
    }

    /// Adds a file of this process that a guest gets in another way: as one of its
    /// standard streams. It has to stay open here.
    ///
    /// # Errors
    ///
    /// When the file cannot be looked at.
    pub fn add(&mut self, file: BorrowedFd<'_>) -> io::Result<()> {
        let stat = rustix::fs::fstat(file)?;
        self.files
            .push((file.as_raw_fd(), stat.st_dev, stat.st_ino));
        Ok(())
    }

    /// Whether a guest's fd is one of these, by the open file description.
    pub(super) fn has(&self, process: Tid, fd: i32, device: u64, inode: u64) -> bool {
        self.files
            .iter()
            .filter(|(_, d, i)| (*d, *i) == (device, inode))
            .any(|&(own, ..)| {
                // Where kcmp is refused, the same file counts as the same
                // description: less is reset then, and nothing of others is.
                tracee::same_open_file((own_id(), own), (process, fd)).unwrap_or(true)
            })
    }

    /// Whether any inherited fd is of this file, such as the other end of a pipe.
    pub(super) fn has_file(&self, device: u64, inode: u64) -> bool {
        self.files
            .iter()
            .any(|(_, d, i)| (*d, *i) == (device, inode))
    }

    /// The same of a mapped file, whose device is known by its numbers.
    pub(crate) fn has_mapped(&self, device: (u32, u32), inode: u64) -> bool {
        self.files.iter().any(|(_, d, i)| {
            (rustix::fs::major(*d), rustix::fs::minor(*d)) == device && *i == inode
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn standard_output_is_inherited_and_a_file_of_ours_is_not() {
        let inherited = Inherited::of_this_process().unwrap();
        let file = fs::File::open("/proc/self/stat").unwrap();
        let metadata = file.metadata().unwrap();
        let fd = std::os::fd::AsRawFd::as_raw_fd(&file);
        assert!(!inherited.has(own_id(), fd, metadata.dev(), metadata.ino()));
        let stdout = fs::metadata("/proc/self/fd/1").unwrap();
        assert!(inherited.has(own_id(), 1, stdout.dev(), stdout.ino()));
    }
}
