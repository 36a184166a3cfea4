//! The inotify descriptor: which events are asked for on what, and what the
//! kernel's answers to that mean here. It leaves the meaning of watch
//! descriptors to `tree` and reading to `reader`.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use rustix::io::Errno;

use crate::Error;

/// A watch descriptor: names one watched inode. The kernel hands them out in
/// rising order and does not use one again before it has gone through all of
/// them, so an event that was queued for a removed watch meets nobody.
pub(crate) type Wd = i32;

/// The names of a folder and what is needed to notice that it is gone. Asked
/// for on folders that paths only pass through: these can be as busy as
/// `/tmp`, whose writes are of no interest.
const NAMES: WatchFlags = WatchFlags::CREATE
    .union(WatchFlags::DELETE)
    .union(WatchFlags::MOVED_FROM)
    .union(WatchFlags::MOVED_TO)
    .union(WatchFlags::ATTRIB)
    .union(WatchFlags::DELETE_SELF)
    .union(WatchFlags::MOVE_SELF)
    .union(WatchFlags::ONLYDIR)
    // A file that lost its name may still be written to by who has it open;
    // without this flag that would look like a write to its successor.
    .union(WatchFlags::EXCL_UNLINK);

const CONTENT: WatchFlags = WatchFlags::MODIFY.union(WatchFlags::CLOSE_WRITE);

const INODE: WatchFlags = CONTENT
    .union(WatchFlags::ATTRIB)
    .union(WatchFlags::DELETE_SELF)
    .union(WatchFlags::MOVE_SELF);

/// The answer to a request for a watch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Added {
    /// It is in place.
    Watch(Wd),
    /// Inotify needs read permission, and there is none.
    Denied,
    /// It is missing, or no folder (any more).
    Gone,
}

/// An inotify instance.
#[derive(Debug)]
pub(crate) struct Inotify {
    fd: OwnedFd,
}

impl Inotify {
    pub(crate) fn new() -> Result<Self, Error> {
        match inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK) {
            Ok(fd) => Ok(Self { fd }),
            Err(errno) => {
                let spare = eventfd(0, EventfdFlags::CLOEXEC).is_ok();
                Err(Error::from_init(errno, spare))
            }
        }
    }

    /// Watches a folder: its names, and with `content` also writes to the
    /// files in it. What was asked for before stays asked for.
    pub(crate) fn add_folder(&self, path: &Path, content: bool) -> Result<Added, Error> {
        let flags = if content { NAMES | CONTENT } else { NAMES };
        self.add(path, flags)
    }

    /// Watches an inode that is no folder, not following a symbolic link.
    pub(crate) fn add_inode(&self, path: &Path) -> Result<Added, Error> {
        self.add(path, INODE)
    }

    fn add(&self, path: &Path, flags: WatchFlags) -> Result<Added, Error> {
        let flags = flags | WatchFlags::DONT_FOLLOW | WatchFlags::MASK_ADD;
        loop {
            return match inotify::add_watch(&self.fd, path, flags) {
                Ok(wd) => Ok(Added::Watch(wd)),
                Err(Errno::INTR) => continue,
                Err(Errno::ACCESS | Errno::PERM) => Ok(Added::Denied),
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::STALE) => Ok(Added::Gone),
                Err(errno) => Err(Error::from_add(errno, path)),
            };
        }
    }

    /// Takes a watch away. That it is gone already (its inode was deleted) is
    /// no error.
    pub(crate) fn remove(&self, wd: Wd) {
        let _ = inotify::remove_watch(&self.fd, wd);
    }

    /// Whether no event waits to be read. An error counts as "no": the caller
    /// then knows less, not something wrong.
    pub(crate) fn is_drained(&self) -> bool {
        rustix::io::ioctl_fionread(&self.fd).is_ok_and(|bytes| bytes == 0)
    }
}

impl AsFd for Inotify {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
