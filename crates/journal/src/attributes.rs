//! What is kept of an inode besides its bytes: mode, owner, times and extended
//! attributes (access control lists are some). Taken and set through a handle
//! (`O_PATH`) of the inode itself, so that nobody can put another file in between.

use std::collections::BTreeMap;
use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::OwnedFd;

use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;

use crate::file::{Look, proc_path};

/// The most bytes that a value or the list of names can have (xattr(7)).
const MOST_BYTES: usize = 64 << 10;

/// The attributes of one inode at one time.
#[derive(Clone, Debug)]
pub(crate) struct Attributes {
    pub(crate) look: Look,
    /// By name; `None` where we may not read the value.
    extended: BTreeMap<CString, Option<Vec<u8>>>,
}

/// What somebody else has changed, so that it is not put back.
#[derive(Debug)]
pub(crate) enum Refused {
    Changed(&'static str),
    Io(&'static str, io::Error),
}

impl Attributes {
    pub(crate) fn of(handle: &OwnedFd) -> io::Result<Attributes> {
        Ok(Attributes {
            look: Look::of(handle)?,
            extended: extended_of(handle)?,
        })
    }

    /// Whether there are extended attributes that could not be read.
    pub(crate) fn has_unreadable(&self) -> bool {
        self.extended.values().any(Option::is_none)
    }

    /// Whether nothing differs that could be put back.
    pub(crate) fn are(&self, other: &Attributes) -> bool {
        self.look.mode == other.look.mode
            && self.look.owner == other.look.owner
            && self.look.modified == other.look.modified
            && self.look.accessed == other.look.accessed
            && self.differing(other).next().is_none()
    }

    /// The extended attributes that are not the same in both, by name.
    fn differing<'a>(&'a self, other: &'a Attributes) -> impl Iterator<Item = &'a CString> {
        let unread = |name: &CString| {
            let is = |of: &Attributes| matches!(of.extended.get(name), Some(None));
            is(self) || is(other)
        };
        let ours = self
            .extended
            .iter()
            .filter(|(name, value)| other.extended.get(*name) != Some(*value))
            .map(|(name, _)| name);
        let theirs = other
            .extended
            .keys()
            .filter(|name| !self.extended.contains_key(*name));
        ours.chain(theirs).filter(move |name| !unread(name))
    }

    /// Undoes the step from these to `after`, where what is there now is what the
    /// step left. `written`: the bytes were written since, by the guest alone, so
    /// that the times are others. Answers whether there was anything to do.
    ///
    /// # Errors
    /// The first thing that is neither as before nor as after, and then nothing has
    /// been changed yet; or what the kernel refuses.
    pub(crate) fn put_back(
        &self,
        after: &Attributes,
        handle: &OwnedFd,
        written: bool,
    ) -> Result<bool, Refused> {
        let looking = |cause| Refused::Io("look at its attributes", cause);
        let now = Attributes::of(handle).map_err(looking)?;
        // The set-user-id bits go when a file is written to or given away.
        let modes = [self.look.mode, after.look.mode, now.look.mode];
        let mode = due(modes, |a, b| a == b || written && a & 0o1777 == b & 0o1777)
            .ok_or(Refused::Changed("mode"))?;
        let owner = due(
            [self.look.owner, after.look.owner, now.look.owner],
            |a, b| a == b,
        )
        .ok_or(Refused::Changed("owner"))?;
        let mut extended = Vec::new();
        for name in self.differing(after) {
            let values = [self, after, &now].map(|of| of.extended.get(name));
            if due(values, |a, b| a == b).ok_or(Refused::Changed("extended attributes"))? {
                extended.push(name);
            }
        }
        // Other times are from a later change, of names in a folder or of bytes, and
        // tell of that; no fresh run would find the times from before it.
        let (then, left, found) = (&self.look, &after.look, &now.look);
        let changed = (then.accessed, then.modified) != (left.accessed, left.modified);
        let times = changed && (found.modified == left.modified || written);
        if owner {
            set_owner(handle, self.look.owner)
                .map_err(|cause| Refused::Io("give it back to its owner", cause))?;
        }
        if (mode || owner) && self.look.kind != FileType::Symlink {
            set_mode(handle, self.look.mode)
                .map_err(|cause| Refused::Io("put its mode back", cause))?;
        }
        for name in &extended {
            set_extended(handle, name, self.extended.get(*name))
                .map_err(|cause| Refused::Io("put an extended attribute back", cause))?;
        }
        if times {
            set_times(handle, &self.look)
                .map_err(|cause| Refused::Io("put its times back", cause))?;
        }
        Ok(owner || mode || !extended.is_empty() || times)
    }

    /// Makes another inode look like this one, as far as we may.
    pub(crate) fn lend_to(&self, handle: &OwnedFd) -> io::Result<()> {
        let there = extended_of(handle)?;
        // A label that the kernel gives by itself need not be ours to set or remove.
        for (name, value) in &self.extended {
            if value.is_some() && there.get(name) != Some(value) {
                let _ = set_extended(handle, name, Some(value));
            }
        }
        for name in there
            .keys()
            .filter(|name| !self.extended.contains_key(*name))
        {
            let _ = set_extended(handle, name, None);
        }
        self.look.lend_to(handle)
    }
}

/// Whether a value has to be set that was changed from the first to the second and
/// is the third now; `None` if it is neither of the two.
fn due<T>([before, after, now]: [T; 3], same: impl Fn(&T, &T) -> bool) -> Option<bool> {
    if same(&before, &after) || same(&now, &before) {
        return Some(false);
    }
    same(&now, &after).then_some(true)
}

fn set_owner(handle: &OwnedFd, (owner, group): (u32, u32)) -> io::Result<()> {
    let (owner, group) = (Uid::from_raw(owner), Gid::from_raw(group));
    let itself = AtFlags::EMPTY_PATH;
    Ok(rustix::fs::chownat(
        handle,
        c"",
        Some(owner),
        Some(group),
        itself,
    )?)
}

// A link of /proc leads to the inode itself and no further, so that what is set through
// it is not of what a symbolic link leads to (`nd_jump_link` in `fs/namei.c`).
fn set_mode(handle: &OwnedFd, mode: u32) -> io::Result<()> {
    Ok(rustix::fs::chmodat(
        CWD,
        proc_path(handle),
        Mode::from_raw_mode(mode),
        AtFlags::empty(),
    )?)
}

fn set_times(handle: &OwnedFd, look: &Look) -> io::Result<()> {
    let times = look.times();
    Ok(rustix::fs::utimensat(
        handle,
        c"",
        &times,
        AtFlags::EMPTY_PATH,
    )?)
}

fn set_extended(handle: &OwnedFd, name: &CStr, value: Option<&Option<Vec<u8>>>) -> io::Result<()> {
    let path = proc_path(handle);
    match value {
        Some(Some(value)) => rustix::fs::setxattr(path, name, value, XattrFlags::empty())?,
        Some(None) => {}
        None => match rustix::fs::removexattr(path, name) {
            Ok(()) | Err(Errno::NODATA) => {}
            Err(cause) => return Err(cause.into()),
        },
    }
    Ok(())
}

fn extended_of(handle: &OwnedFd) -> io::Result<BTreeMap<CString, Option<Vec<u8>>>> {
    let path = proc_path(handle);
    let mut buffer = vec![0; 256];
    let names = loop {
        match rustix::fs::listxattr(&path, &mut buffer) {
            Ok(length) => break &buffer[..length],
            Err(Errno::RANGE) if buffer.len() < MOST_BYTES => buffer.resize(MOST_BYTES, 0),
            // The file system has none, or nobody may ask.
            Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::ACCESS | Errno::PERM) => {
                return Ok(BTreeMap::new());
            }
            Err(cause) => return Err(cause.into()),
        }
    };
    let mut extended = BTreeMap::new();
    for name in names.split_inclusive(|&byte| byte == 0) {
        let Ok(name) = CStr::from_bytes_with_nul(name) else {
            continue;
        };
        let mut value = vec![0; 256];
        let read = loop {
            match rustix::fs::getxattr(&path, name, &mut value) {
                Err(Errno::RANGE) if value.len() < MOST_BYTES => value.resize(MOST_BYTES, 0),
                other => break other,
            }
        };
        match read {
            Ok(length) => {
                value.truncate(length);
                value.shrink_to_fit();
                extended.insert(name.to_owned(), Some(value));
            }
            // Removed meanwhile.
            Err(Errno::NODATA) => {}
            Err(_) => drop(extended.insert(name.to_owned(), None)),
        }
    }
    Ok(extended)
}

impl Look {
    /// Makes an inode have this mode, owner and times, as far as we may.
    pub(crate) fn lend_to(&self, handle: &OwnedFd) -> io::Result<()> {
        if Look::of(handle)?.owner != self.owner {
            // Nobody but root can give a file away.
            let _ = set_owner(handle, self.owner);
        }
        set_mode(handle, self.mode)?;
        set_times(handle, self)
    }

    pub(crate) fn times(&self) -> Timestamps {
        Timestamps {
            last_access: self.accessed,
            last_modification: self.modified,
        }
    }
}

/// Mode and times as whoever keeps account of a file's state sees them.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub struct Stamp {
    /// Permission bits, with set-user-id and the like (07777).
    pub mode: u32,
    /// The time of the last modification, in nanoseconds since 1970.
    pub modified_ns: i128,
    /// The time of the last change, in nanoseconds since 1970.
    pub changed_ns: i128,
}

impl Stamp {
    pub(crate) fn of(look: &Look) -> Stamp {
        let time = |t: Timespec| i128::from(t.tv_sec) * 1_000_000_000 + i128::from(t.tv_nsec);
        Stamp {
            mode: look.mode,
            modified_ns: time(look.modified),
            changed_ns: time(look.changed),
        }
    }
}

/// What the guest did to the mode and times of a file whose bytes it left alone.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub struct OwnAttributes {
    /// Before the guest's first change.
    pub before: Stamp,
    /// After its last one.
    pub after: Stamp,
}
