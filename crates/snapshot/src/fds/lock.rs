//! Locks on files (flock(2), fcntl(2)).
//!
//! A lock of an open file description would be held by the image, too, and not
//! be free once the live run closes the file: such a description is closed in the
//! image, which keeps a handle of the file (`O_PATH`) that holds nothing, and a copy
//! opens the file anew and locks it again. A lock of a process goes with the process.

use super::reopen::reopen;
use super::{Entry, close, set_flags};
use crate::Refusal;
use crate::procfs::{self, FdInfo};
use tracee::Remote;

/// Who holds a lock.
#[derive(Copy, Clone, Eq, PartialEq, Ord, PartialOrd, Debug)]
enum Holder {
    /// The open file description, of the whole file.
    Flock,
    /// The open file description, of a range.
    Description,
    /// The process, of a range.
    Process,
    /// A lease, or what is not known.
    Other,
}

/// A lock, by a line of `/proc/PID/fdinfo/FD`.
#[derive(Copy, Clone, Eq, PartialEq, Ord, PartialOrd, Debug)]
pub(crate) struct Lock {
    holder: Holder,
    exclusive: bool,
    start: u64,
    /// 0 where it reaches to the end of the file, whatever that will be.
    length: u64,
}

/// Parses what follows `lock:` in fdinfo; `None` if it is malformed.
pub(crate) fn parse_lock(text: &str) -> Option<Lock> {
    // `1: FLOCK  ADVISORY  WRITE 9 fe:00:7 0 EOF`
    let mut words = text.split_ascii_whitespace().skip(1);
    let holder = match words.next()? {
        "FLOCK" => Holder::Flock,
        "OFDLCK" => Holder::Description,
        "POSIX" => Holder::Process,
        _ => Holder::Other,
    };
    let mut words = words.skip(1);
    let exclusive = words.next()? == "WRITE";
    let mut words = words.skip(2);
    let start = words.next()?.parse().ok()?;
    let length = match words.next()? {
        "EOF" => 0,
        end => end
            .parse::<u64>()
            .ok()?
            .checked_sub(start)?
            .checked_add(1)?,
    };
    Some(Lock {
        holder,
        exclusive,
        start,
        length,
    })
}

/// All locks of one open file description, and those of its process that were made
/// through it.
#[derive(Clone, Default, Eq, PartialEq, Debug)]
pub(super) struct Locks(Vec<Lock>);

impl Locks {
    /// # Errors
    ///
    /// `file-lock` for a lease.
    pub(super) fn of(entry: &Entry) -> Result<Self, Refusal> {
        if entry.info.locks.iter().any(|l| l.holder == Holder::Other) {
            return Err(Refusal::unsupported(
                "file-lock",
                format!("there is a lease on fd {}", entry.fd),
            ));
        }
        Ok(Self::from(&entry.info))
    }

    /// What is held now.
    pub(super) fn from(info: &FdInfo) -> Self {
        let mut locks = info.locks.clone();
        locks.sort_unstable();
        Self(locks)
    }

    fn held_by(&self, holder: Holder) -> impl Iterator<Item = &Lock> {
        self.0.iter().filter(move |lock| lock.holder == holder)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether any stays with the open file description.
    pub(super) fn stay(&self) -> bool {
        self.0.iter().any(|lock| lock.holder != Holder::Process)
    }

    /// Makes the locks of an open file description these, and no others.
    pub(super) fn set(&self, remote: &mut Remote<'_>, fd: i32, now: &Self) -> Result<(), Refusal> {
        let wanted = self.held_by(Holder::Flock).next();
        if wanted != now.held_by(Holder::Flock).next() {
            let operation = match wanted {
                Some(lock) if lock.exclusive => libc::LOCK_EX,
                Some(_) => libc::LOCK_SH,
                None => libc::LOCK_UN,
            };
            let arguments = [fd as u64, (operation | libc::LOCK_NB) as u64];
            taken(remote.call("flock", libc::SYS_flock, &arguments), fd)?;
        }
        let description = Holder::Description;
        if !self.held_by(description).eq(now.held_by(description)) {
            set_range(remote, fd, libc::F_OFD_SETLK, libc::F_UNLCK, 0, 0)?;
            for lock in self.held_by(description) {
                lock.set(remote, fd, libc::F_OFD_SETLK)?;
            }
        }
        Ok(())
    }

    /// Gives a copy the locks of its process.
    pub(super) fn set_of_process(&self, remote: &mut Remote<'_>, fd: i32) -> Result<(), Refusal> {
        for lock in self.held_by(Holder::Process) {
            lock.set(remote, fd, libc::F_SETLK)?;
        }
        Ok(())
    }
}

impl Lock {
    fn set(&self, remote: &mut Remote<'_>, fd: i32, command: i32) -> Result<(), Refusal> {
        let kind = if self.exclusive {
            libc::F_WRLCK
        } else {
            libc::F_RDLCK
        };
        set_range(remote, fd, command, kind, self.start, self.length)
    }
}

fn set_range(
    remote: &mut Remote<'_>,
    fd: i32,
    command: i32,
    kind: i32,
    start: u64,
    length: u64,
) -> Result<(), Refusal> {
    // `struct flock`: type and whence of two bytes each, padding, start, length, and
    // a process id that must be 0.
    let mut bytes = [0; 32];
    bytes[..2].copy_from_slice(&(kind as i16).to_ne_bytes());
    bytes[2..4].copy_from_slice(&(libc::SEEK_SET as i16).to_ne_bytes());
    bytes[8..16].copy_from_slice(&start.to_ne_bytes());
    bytes[16..24].copy_from_slice(&length.to_ne_bytes());
    let at = remote.scratch()?.0;
    remote.memory().write(at, &bytes)?;
    let arguments = [fd as u64, command as u64, at.0];
    taken(remote.call("fcntl", libc::SYS_fcntl, &arguments), fd)
}

/// A lock that cannot be had is somebody else's by now.
fn taken(answer: tracee::Result<u64>, fd: i32) -> Result<(), Refusal> {
    match answer {
        Ok(_) => Ok(()),
        Err(tracee::Error::Call { source, .. })
            if matches!(source.raw_os_error(), Some(libc::EAGAIN | libc::EACCES)) =>
        {
            Err(Refusal::unsupported(
                "lock-taken",
                format!("somebody else has locked the file of fd {fd}"),
            ))
        }
        Err(e) => Err(e.into()),
    }
}

/// An open file description that is closed in the image for its locks.
#[derive(Clone, Debug)]
pub(super) struct Locked {
    /// Its fds.
    entries: Vec<Entry>,
    locks: Locks,
}

impl Locked {
    /// The fds of one open file description.
    pub(super) fn capture(entries: Vec<Entry>) -> Result<Self, Refusal> {
        Ok(Self {
            locks: Locks::of(&entries[0])?,
            entries,
        })
    }

    pub(super) fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Whether a copy will be able to open it anew.
    pub(super) fn check(process: tracee::Tid, entry: &Entry) -> Result<(), Refusal> {
        use rustix::fs::{Access, AtFlags, CWD, accessat};
        let access = match entry.info.flags & libc::O_ACCMODE {
            libc::O_RDONLY => Access::READ_OK,
            libc::O_WRONLY => Access::WRITE_OK,
            _ => Access::READ_OK | Access::WRITE_OK,
        };
        let path = format!("/proc/{process}/fd/{}", entry.fd);
        accessat(CWD, path, access, AtFlags::EACCESS).map_err(|e| {
            Refusal::unsupported(
                "file-lock",
                format!(
                    "fd {} is locked, and could not be opened anew: {e}",
                    entry.fd
                ),
            )
        })
    }

    /// Gives an image a handle of the file, under this number.
    pub(super) fn put_aside(&self, remote: &mut Remote<'_>, handle: i32) -> Result<(), Refusal> {
        let fresh = reopen(remote, self.entries[0].fd, libc::O_PATH)?;
        if fresh.fd != handle {
            let (fd, to) = (fresh.fd as u64, handle as u64);
            remote.call("dup3", libc::SYS_dup3, &[fd, to, libc::O_CLOEXEC as u64])?;
            close(remote, fresh.fd)?;
        }
        Ok(())
    }

    /// Opens it in a copy under its numbers and locks it.
    pub(super) fn restore(&self, remote: &mut Remote<'_>, handle: i32) -> Result<(), Refusal> {
        let first = &self.entries[0];
        reopen(remote, handle, first.info.flags)?.place(remote, &self.entries)?;
        close(remote, handle)?;
        let position = first.info.position as u64;
        if position != 0 {
            let whence = libc::SEEK_SET as u64;
            remote.call(
                "lseek",
                libc::SYS_lseek,
                &[first.fd as u64, position, whence],
            )?;
        }
        let now = procfs::fdinfo(remote.tid(), first.fd)
            .map_err(Refusal::proc("read /proc/PID/fdinfo of a copy"))?;
        if now.flags & super::SETTABLE != first.status_flags() {
            set_flags(remote, first.fd, first.status_flags())?;
        }
        self.locks.set(remote, first.fd, &Locks::default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locks_of_every_kind() {
        let lock = parse_lock("1: FLOCK  ADVISORY  WRITE 9 fe:00:7 0 EOF").unwrap();
        assert_eq!((lock.holder, lock.exclusive), (Holder::Flock, true));
        assert_eq!((lock.start, lock.length), (0, 0));
        let lock = parse_lock("2: POSIX  ADVISORY  READ  9 fe:00:7 10 19").unwrap();
        assert_eq!((lock.holder, lock.exclusive), (Holder::Process, false));
        assert_eq!((lock.start, lock.length), (10, 10));
        let lock = parse_lock("1: OFDLCK ADVISORY  READ -1 fe:00:7 5 5").unwrap();
        assert_eq!((lock.holder, lock.length), (Holder::Description, 1));
        let lock = parse_lock("1: LEASE  ACTIVE    WRITE 9 fe:00:7 0 EOF").unwrap();
        assert_eq!(lock.holder, Holder::Other);
        for malformed in [
            "",
            "1:",
            "1: POSIX ADVISORY READ 9 a:b:7 x EOF",
            "1: POSIX ADVISORY READ 9 a:b:7 9 3",
            "1: POSIX ADVISORY READ 9 a:b:7 0 18446744073709551615",
        ] {
            assert_eq!(parse_lock(malformed), None, "{malformed}");
        }
    }
}
