//! What a file is: its identity, what `statx` says of it, and where it really
//! lies once symbolic links are resolved. It changes nothing.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, StatxFlags, Timespec};
use rustix::io::Errno;

/// Symbolic links followed in one lookup before giving up, as the kernel does.
const MAX_LINKS: usize = 40;

/// One inode, told from a later one with the same number by its birth time
/// (zero where the file system records none).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) struct FileId {
    device: (u32, u32),
    inode: u64,
    born: (i64, u32),
}

impl FileId {
    /// Whether it is the file with these `st_dev` and `st_ino`, whenever it was made.
    pub(crate) fn is(&self, device: u64, inode: u64) -> bool {
        let device = (rustix::fs::major(device), rustix::fs::minor(device));
        (self.device, self.inode) == (device, inode)
    }

    /// `st_dev` and `st_ino`.
    pub(crate) fn numbers(&self) -> (u64, u64) {
        let (major, minor) = self.device;
        (rustix::fs::makedev(major, minor), self.inode)
    }
}

/// The file with this number.
#[cfg(test)]
pub(crate) fn test_id(inode: u64) -> FileId {
    FileId {
        device: (0, 0),
        inode,
        born: (0, 0),
    }
}

/// What one look at a file showed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Look {
    pub(crate) id: FileId,
    pub(crate) kind: FileType,
    /// Permission bits, with set-user-id and the like (07777).
    pub(crate) mode: u32,
    /// In bytes.
    pub(crate) size: u64,
    pub(crate) links: u32,
    pub(crate) owner: (u32, u32),
    pub(crate) accessed: Timespec,
    pub(crate) modified: Timespec,
    pub(crate) changed: Timespec,
    /// The mount through which it was reached: hard links and renames work only
    /// within one, even on the same device.
    pub(crate) mount: u64,
}

impl Look {
    /// Looks at `path`; `None` when there is nothing. `follow` is for the last
    /// component.
    pub(crate) fn at(path: &Path, follow: bool) -> io::Result<Option<Look>> {
        let flags = if follow {
            AtFlags::empty()
        } else {
            AtFlags::SYMLINK_NOFOLLOW
        };
        match statx(CWD, path, flags | AtFlags::NO_AUTOMOUNT) {
            Ok(look) => Ok(Some(look)),
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
            Err(cause) => Err(cause.into()),
        }
    }

    /// Looks at an open file, `O_PATH` included.
    pub(crate) fn of(fd: impl AsFd) -> io::Result<Look> {
        Ok(statx(fd, Path::new(""), AtFlags::EMPTY_PATH)?)
    }

    pub(crate) fn is_regular(&self) -> bool {
        self.kind == FileType::RegularFile
    }

    pub(crate) fn is_folder(&self) -> bool {
        self.kind == FileType::Directory
    }

    /// Whether bytes and times are as at the other look, as far as those tell.
    pub(crate) fn same_version(&self, other: &Look) -> bool {
        self.id == other.id
            && self.size == other.size
            && self.modified == other.modified
            && self.changed == other.changed
    }

    /// The time of the last modification.
    pub(crate) fn modified_at(&self) -> SystemTime {
        time_of(self.modified)
    }

    /// The time of the last change of anything about it, its names included.
    pub(crate) fn changed_at(&self) -> SystemTime {
        time_of(self.changed)
    }

    /// Whether a change after `now` would show in its times, which are only as fine as
    /// the kernel's clock tick (less than `settle`).
    pub(crate) fn is_settled(&self, now: SystemTime, settle: Duration) -> bool {
        let since = now.duration_since(time_of(self.changed)).ok();
        since.is_some_and(|since| since >= settle)
    }
}

/// Of times before 1970, the beginning of that year.
fn time_of(time: Timespec) -> SystemTime {
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let nanos = u32::try_from(time.tv_nsec).unwrap_or(0);
    SystemTime::UNIX_EPOCH + Duration::new(seconds, nanos)
}

fn statx(fd: impl AsFd, path: &Path, flags: AtFlags) -> rustix::io::Result<Look> {
    let mask = StatxFlags::BASIC_STATS | StatxFlags::BTIME | StatxFlags::MNT_ID;
    let found = rustix::fs::statx(fd, path, flags, mask)?;
    let time = |t: rustix::fs::StatxTimestamp| Timespec {
        tv_sec: t.tv_sec,
        tv_nsec: t.tv_nsec.into(),
    };
    let born = if found.stx_mask & StatxFlags::BTIME.bits() != 0 {
        (found.stx_btime.tv_sec, found.stx_btime.tv_nsec)
    } else {
        (0, 0)
    };
    Ok(Look {
        id: FileId {
            device: (found.stx_dev_major, found.stx_dev_minor),
            inode: found.stx_ino,
            born,
        },
        kind: FileType::from_raw_mode(found.stx_mode.into()),
        mode: u32::from(found.stx_mode) & 0o7777,
        size: found.stx_size,
        links: found.stx_nlink,
        owner: (found.stx_uid, found.stx_gid),
        accessed: time(found.stx_atime),
        modified: time(found.stx_mtime),
        changed: time(found.stx_ctime),
        mount: found.stx_mnt_id,
    })
}

/// A name that a system call is about to use, with its folder's symbolic links
/// resolved (and its own, where the call follows it).
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) path: PathBuf,
    pub(crate) look: Option<Look>,
}

/// Finds the name that a call on `path` would act on; `None` when it cannot
/// act on any (no such folder, no last component, too many links).
pub(crate) fn locate(path: &Path, follow: bool) -> io::Result<Option<Place>> {
    let mut path = path.to_owned();
    for _ in 0..MAX_LINKS {
        let look = Look::at(&path, follow)?;
        if look.is_some() && follow {
            let fd = open_path(&path, true)?;
            let look = Look::of(&fd)?;
            let path = real_path(&fd)?;
            return Ok(Some(Place {
                path,
                look: Some(look),
            }));
        }
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Ok(None);
        };
        let parent = match open_path(parent, true) {
            Ok(fd) => real_path(&fd)?,
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(cause) => return Err(cause),
        };
        let place = parent.join(name);
        if !follow || look.is_some() {
            return Ok(Some(Place { path: place, look }));
        }
        // Nothing there when followed: either free, or a link that leads nowhere,
        // whose target a creating open would make.
        match Look::at(&place, false)? {
            Some(link) if link.kind == FileType::Symlink => {
                path = parent.join(std::fs::read_link(&place)?);
            }
            _ => {
                return Ok(Some(Place {
                    path: place,
                    look: None,
                }));
            }
        }
    }
    Ok(None)
}

/// Opens a file without opening it: a handle on the inode that no event or
/// lease sees.
pub(crate) fn open_path(path: &Path, follow: bool) -> io::Result<OwnedFd> {
    let mut flags = OFlags::PATH | OFlags::CLOEXEC;
    if !follow {
        flags |= OFlags::NOFOLLOW;
    }
    Ok(rustix::fs::open(path, flags, Mode::empty())?)
}

/// The name of an open file through this process's own `/proc`.
pub(crate) fn proc_path(fd: &impl AsFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd()))
}

/// The name of an open file, as the kernel knows it.
pub(crate) fn real_path(fd: &OwnedFd) -> io::Result<PathBuf> {
    let link = rustix::fs::readlink(proc_path(fd), Vec::new())?;
    let path = PathBuf::from(OsString::from_vec(link.into_bytes()));
    if path.is_absolute() {
        Ok(path)
    } else {
        // Pipes, sockets and files of other mount namespaces have no path here.
        Err(io::ErrorKind::NotFound.into())
    }
}
