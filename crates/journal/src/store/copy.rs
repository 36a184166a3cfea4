//! What is saved in a store: second names of removed inodes, folders that were taken
//! out of the way, and copies of bytes.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, Read};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use rustix::fs::{AtFlags, CWD, Mode, SeekFrom, fchmod, futimens};

use super::rename_new;
use super::room::{NeedsRoom, Share};
use crate::attributes::Attributes;
use crate::file::{Look, open_path, proc_path};

/// How much is copied between two looks at the clock, in bytes.
const PIECE: u64 = 64 << 20;

/// Whoever opens a file that is being put back waits; the kernel lets them in after
/// `fs.lease-break-time`, 45 seconds, and then nothing may be written any more.
const LONGEST: Duration = Duration::from_secs(30);

/// A removed inode, under a name in the store; gone when dropped. A folder that is not
/// empty stays: nobody of the guest's put anything there.
#[derive(Debug)]
pub(crate) struct Saved {
    pub(crate) path: PathBuf,
    pub(crate) taken: SystemTime,
    pub(crate) kind: SavedKind,
}

/// What is saved of a removed inode.
#[derive(Debug)]
pub(crate) enum SavedKind {
    /// What nobody but the guest has changed since forkmon knows it.
    Plain,
    /// What somebody else wrote after the guest had written there.
    Persons,
    /// A handle alone, and nothing at the path yet: the inode has other names, and with
    /// one more the guest would see so.
    Handle {
        handle: OwnedFd,
        /// As above.
        persons: bool,
        /// There are as many of these as handles.
        _count: Arc<()>,
    },
    /// The folder itself, for which an empty twin lies under its name until the
    /// guest's call removes that.
    Folder,
}

impl Saved {
    /// Gives it a name, which it may have only in part.
    ///
    /// # Errors
    /// What the kernel says, `AlreadyExists` if something lies there.
    pub(crate) fn put_at(&self, path: &Path) -> io::Result<()> {
        let Some(handle) = self.handle() else {
            return rename_new(&self.path, path);
        };
        let link = proc_path(handle);
        match rustix::fs::linkat(CWD, &link, CWD, path, AtFlags::SYMLINK_FOLLOW) {
            Err(rustix::io::Errno::NOENT) if Look::of(handle)?.links == 0 => {
                // Somebody has removed the others, and no name can be had for the inode.
                self.copy_at(handle, path)
            }
            other => Ok(other?),
        }
    }

    fn copy_at(&self, handle: &OwnedFd, path: &Path) -> io::Result<()> {
        let attributes = Attributes::of(handle)?;
        let bytes = File::open(proc_path(handle))?;
        let copied = copy_to(&bytes, attributes.look.size, &self.path, u64::MAX);
        copied.map_err(|cause| match cause {
            NoCopy::TooLong => io::ErrorKind::TimedOut.into(),
            NoCopy::Io(cause) => cause,
        })?;
        attributes.lend_to(&open_path(&self.path, false)?)?;
        rename_new(&self.path, path)
    }

    /// Whether somebody else has written it.
    pub(crate) fn is_persons(&self) -> bool {
        matches!(
            self.kind,
            SavedKind::Persons | SavedKind::Handle { persons: true, .. }
        )
    }

    /// The inode, of what has other names.
    pub(crate) fn handle(&self) -> Option<&OwnedFd> {
        match &self.kind {
            SavedKind::Handle { handle, .. } => Some(handle),
            _ => None,
        }
    }

    /// A path by which its bytes can be read.
    pub(crate) fn readable(&self) -> PathBuf {
        self.handle().map_or_else(|| self.path.clone(), proc_path)
    }
}

impl Drop for Saved {
    fn drop(&mut self) {
        let _ = match self.kind {
            SavedKind::Folder => fs::remove_dir(&self.path),
            SavedKind::Plain | SavedKind::Persons => fs::remove_file(&self.path),
            SavedKind::Handle { .. } => Ok(()),
        };
    }
}

/// The bytes that a file once had, in the store; gone when dropped.
#[derive(Debug)]
pub(crate) struct Copy {
    pub(crate) path: PathBuf,
    /// The original, at the time of the copy.
    pub(crate) look: Look,
    /// Somebody else had written them after the guest.
    pub(crate) persons: bool,
    pub(crate) taken: SystemTime,
    /// It outlives the journal where it lies.
    stays: AtomicBool,
    _share: Share,
}

impl Drop for Copy {
    fn drop(&mut self) {
        if !self.stays.load(Ordering::Relaxed) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Why there is no copy.
#[derive(Debug)]
pub(crate) enum NoCopy {
    /// The file system cannot share blocks, and that many bytes take too long.
    TooLong,
    Io(io::Error),
}

impl NeedsRoom for NoCopy {
    fn needs_room(&self) -> bool {
        matches!(self, NoCopy::Io(cause) if cause.needs_room())
    }
}

impl Copy {
    /// What has been copied now.
    pub(crate) fn new(path: PathBuf, look: &Look, persons: bool, share: Share) -> Copy {
        Copy {
            path,
            look: *look,
            persons,
            taken: SystemTime::now(),
            stays: AtomicBool::new(false),
            _share: share,
        }
    }

    /// Whether this is still a copy of the file that `look` shows. Times are only
    /// as fine as the kernel's clock tick, so a version counts as settled when it
    /// was older than `settle` as it was copied.
    pub(crate) fn is_of(&self, look: &Look, settle: Duration) -> bool {
        self.look.same_version(look) && self.look.is_settled(self.taken, settle)
    }

    /// It is not removed any more.
    pub(crate) fn let_stay(&self) {
        self.stays.store(true, Ordering::Relaxed);
    }

    /// Writes the bytes, the length and the times into an open file.
    pub(crate) fn write_into(&self, to: &File) -> io::Result<()> {
        let bytes = File::open(&self.path)?;
        rustix::fs::seek(to, SeekFrom::Start(0))?;
        let now = Look::of(to)?;
        if now.size > self.look.size {
            rustix::fs::ftruncate(to, self.look.size)?;
        }
        if self.look.size > 0 && rustix::fs::ioctl_ficlone(to, &bytes).is_err() {
            copy_bytes(&bytes, to, self.look.size)?;
        }
        // A write takes the set-user-id bits away; other bits only a person can have
        // changed meanwhile, and they are left as they are.
        if now.mode & 0o777 == self.look.mode & 0o777 && Look::of(to)?.mode != self.look.mode {
            fchmod(to, Mode::from_raw_mode(self.look.mode))?;
        }
        Ok(futimens(to, &self.look.times())?)
    }

    /// Makes a new file with these bytes.
    pub(crate) fn put_at(&self, path: &Path) -> Result<(), NoCopy> {
        let bytes = File::open(&self.path).map_err(NoCopy::Io)?;
        copy_to(&bytes, self.look.size, path, u64::MAX)
    }
}

/// Whether a file begins with the bytes of another one; not where one cannot be read.
pub(crate) fn begins(with: &Path, path: &Path) -> bool {
    let open = |path| {
        let mut options = OpenOptions::new();
        options.read(true);
        options.custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC);
        let file = options.open(path)?;
        let look = Look::of(&file)?;
        Ok::<_, io::Error>((io::BufReader::with_capacity(1 << 16, file), look))
    };
    let (Ok((mut first, part)), Ok((mut second, whole))) = (open(with), open(path)) else {
        return false;
    };
    if !part.is_regular() || !whole.is_regular() || whole.size < part.size {
        return false;
    }
    loop {
        let (Ok(a), Ok(b)) = (first.fill_buf(), second.fill_buf()) else {
            return false;
        };
        if a.is_empty() {
            return true;
        }
        let length = a.len().min(b.len());
        if length == 0 || a[..length] != b[..length] {
            return false;
        }
        first.consume(length);
        second.consume(length);
    }
}

/// Whether two files hold the same bytes; not where one cannot be read.
pub(crate) fn is_same(a: &Path, b: &Path) -> bool {
    let size = |path| Look::at(path, true).ok().flatten().map(|look| look.size);
    size(a) == size(b) && begins(a, b)
}

/// Copies what `from` reads into a new file that nobody but us can open, sharing the
/// blocks where the file system can; where it cannot, no more than `most` bytes.
pub(crate) fn copy_to(from: &File, size: u64, path: &Path, most: u64) -> Result<(), NoCopy> {
    let mut options = OpenOptions::new();
    let to = options.write(true).create_new(true).mode(0o600).open(path);
    let to = to.map_err(NoCopy::Io)?;
    if size == 0 || rustix::fs::ioctl_ficlone(&to, from).is_ok() {
        return Ok(());
    }
    let copied = if size > most {
        Err(NoCopy::TooLong)
    } else {
        copy_bytes(from, &to, size).map_err(NoCopy::Io)
    };
    if copied.is_err() {
        // Nobody knows of it yet.
        let _ = fs::remove_file(path);
    }
    copied
}

/// From where the two stand on.
fn copy_bytes(from: &File, to: &File, size: u64) -> io::Result<()> {
    let began = Instant::now();
    let mut left = size;
    while left > 0 {
        // Uses copy_file_range and falls back to reading and writing.
        let copied = io::copy(&mut from.take(left.min(PIECE)), &mut &*to)?;
        if copied == 0 {
            break;
        }
        left -= copied;
        if began.elapsed() > LONGEST {
            return Err(io::ErrorKind::TimedOut.into());
        }
    }
    Ok(())
}
