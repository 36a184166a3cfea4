//! The store: one hidden folder per mount where saved links and copies lie until
//! an undo needs them. It knows where such a folder can be and removes it at the
//! end; what lies in it, and why, is the journal's business.

use std::collections::HashMap;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::hash::{BuildHasher, RandomState};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use rustix::fs::{Access, AtFlags, CWD, Mode, RenameFlags, Timestamps, fchmod, futimens};

use crate::Obstacle;
use crate::file::Look;

/// Called with the path of each store before it is made.
pub(crate) type OnStore = Box<dyn FnMut(&Path) + Send>;

/// The stores of one journal.
pub(crate) struct Stores {
    preferred: Vec<PathBuf>,
    on_store: OnStore,
    by_mount: HashMap<u64, Result<Store, Obstacle>>,
    next: u64,
}

struct Store {
    folder: PathBuf,
    has_links: bool,
}

impl Stores {
    pub(crate) fn new(preferred: Vec<PathBuf>, on_store: OnStore) -> Stores {
        Stores {
            preferred,
            on_store,
            by_mount: HashMap::new(),
            next: 0,
        }
    }

    /// A free name in the store of the mount that `name` lies on. `look` is of
    /// the file itself: one that is mounted on its own cannot be linked or renamed.
    pub(crate) fn fresh(&mut self, name: &Path, look: Option<&Look>) -> Result<PathBuf, Obstacle> {
        let parent = name.parent().unwrap_or(Path::new("/"));
        let folder = Look::at(parent, true)
            .map_err(|cause| Obstacle::io("look at the folder", cause))?
            .ok_or(Obstacle::NoFolder)?;
        if look.is_some_and(|look| look.mount != folder.mount) {
            return Err(Obstacle::MountPoint);
        }
        if !can_rename_in(parent, &folder, look) {
            return Err(Obstacle::FolderNotWritable);
        }
        let store = self.store(parent, folder.mount)?.folder.clone();
        self.next += 1;
        Ok(store.join(self.next.to_string()))
    }

    /// Whether hard links work where `name` lies (asked after [`Stores::fresh`]).
    pub(crate) fn has_links(&self, mount: u64) -> bool {
        matches!(self.by_mount.get(&mount), Some(Ok(store)) if store.has_links)
    }

    /// Whether a path lies in one of the stores.
    pub(crate) fn contain(&self, path: &Path) -> bool {
        self.by_mount
            .values()
            .flatten()
            .any(|store| path.starts_with(&store.folder))
    }

    fn store(&mut self, parent: &Path, mount: u64) -> Result<&Store, Obstacle> {
        if !self.by_mount.contains_key(&mount) {
            let made = self.make(parent, mount);
            self.by_mount.insert(mount, made);
        }
        match self.by_mount.get(&mount) {
            Some(Ok(store)) => Ok(store),
            Some(Err(obstacle)) => Err(obstacle.clone()),
            None => Err(Obstacle::NoStore),
        }
    }

    /// Makes the store of a mount: in a preferred folder if one lies on it, else
    /// in the top-most ancestor of `parent` that can be written, where a guest's
    /// listings are least likely to meet it.
    fn make(&mut self, parent: &Path, mount: u64) -> Result<Store, Obstacle> {
        let on_mount = |folder: &&Path| matches!(Look::at(folder, true), Ok(Some(look)) if look.mount == mount);
        let mut folders: Vec<&Path> = parent.ancestors().take_while(on_mount).collect();
        folders.reverse();
        let preferred = self.preferred.iter().map(PathBuf::as_path);
        let candidates: Vec<PathBuf> = preferred
            .filter(on_mount)
            .chain(folders)
            .filter(|folder| writable(folder))
            .map(Path::to_owned)
            .collect();
        for candidate in candidates {
            if let Some(store) = self.make_in(&candidate, mount) {
                return Ok(store);
            }
        }
        Err(Obstacle::NoStore)
    }

    fn make_in(&mut self, place: &Path, mount: u64) -> Option<Store> {
        let random = RandomState::new().hash_one(place);
        let folder = place.join(format!(".forkmon-{}-{random:016x}", std::process::id()));
        // Reported first: whoever removes it after a SIGKILL must not miss it.
        (self.on_store)(&folder);
        DirBuilder::new().mode(0o700).create(&folder).ok()?;
        let mut store = Store {
            folder,
            has_links: false,
        };
        let mounted =
            matches!(Look::at(&store.folder, true), Ok(Some(look)) if look.mount == mount);
        (mounted && store.probe().is_ok()).then_some(store)
    }
}

impl Store {
    /// Undoing rests on exchanging two names and on renaming without replacing;
    /// some file systems have neither.
    fn probe(&mut self) -> io::Result<()> {
        let (a, b, c) = (
            self.folder.join("a"),
            self.folder.join("b"),
            self.folder.join("c"),
        );
        File::create_new(&a)?;
        File::create_new(&b)?;
        exchange(&a, &b)?;
        rename_new(&a, &c)?;
        self.has_links = fs::hard_link(&b, &a).is_ok();
        let _ = fs::remove_file(&a);
        fs::remove_file(&b)?;
        fs::remove_file(&c)
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        // Nothing can be done about a failure; the guardian tries again.
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// Renames `from` to `to` unless `to` exists.
pub(crate) fn rename_new(from: &Path, to: &Path) -> io::Result<()> {
    Ok(rustix::fs::renameat_with(
        CWD,
        from,
        CWD,
        to,
        RenameFlags::NOREPLACE,
    )?)
}

/// Exchanges what lies under two names, in one step.
pub(crate) fn exchange(a: &Path, b: &Path) -> io::Result<()> {
    Ok(rustix::fs::renameat_with(
        CWD,
        a,
        CWD,
        b,
        RenameFlags::EXCHANGE,
    )?)
}

fn writable(folder: &Path) -> bool {
    let access = Access::WRITE_OK | Access::EXEC_OK;
    rustix::fs::accessat(CWD, folder, access, AtFlags::EACCESS).is_ok()
}

/// Whether names in a folder can be renamed: in a sticky one (as `/tmp`) only
/// those of files of our own.
fn can_rename_in(path: &Path, folder: &Look, file: Option<&Look>) -> bool {
    let us = rustix::process::geteuid().as_raw();
    let sticky = folder.mode & 0o1000 != 0 && us != 0 && folder.owner.0 != us;
    writable(path) && !(sticky && file.is_some_and(|file| file.owner.0 != us))
}

/// A second name of a removed inode, in the store; gone when dropped.
#[derive(Debug)]
pub(crate) struct Saved {
    pub(crate) path: PathBuf,
}

impl Drop for Saved {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// The bytes that a file once had, in the store; gone when dropped.
#[derive(Debug)]
pub(crate) struct Copy {
    pub(crate) path: PathBuf,
    /// The original, at the time of the copy.
    pub(crate) look: Look,
    taken: SystemTime,
    spoilt: AtomicBool,
}

impl Drop for Copy {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

impl Copy {
    /// Copies what `from` reads, sharing the blocks where the file system can.
    pub(crate) fn take(from: &File, look: &Look, path: PathBuf) -> io::Result<Arc<Copy>> {
        let taken = SystemTime::now();
        let to = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)?;
        // From here on, dropping the copy removes the file.
        let copy = Arc::new(Copy {
            path,
            look: *look,
            taken,
            spoilt: AtomicBool::new(false),
        });
        copy_bytes(from, &to, look.size)?;
        // The copy stands in for the file for a moment during an undo, so it has to
        // look like it. As an ordinary user the owner is ours already or stays ours.
        let (owner, group) = look.owner;
        let _ = std::os::unix::fs::fchown(&to, Some(owner), Some(group));
        fchmod(&to, Mode::from_raw_mode(look.mode))?;
        set_times(&to, look)?;
        Ok(copy)
    }

    /// Whether this is still a copy of the file that `look` shows. Times are only
    /// as fine as the kernel's clock tick, so a version counts as settled when it
    /// was older than `settle` as it was copied.
    pub(crate) fn is_of(&self, look: &Look, settle: std::time::Duration) -> bool {
        let changed = self.look.changed;
        let since = u64::try_from(changed.tv_sec).ok().and_then(|seconds| {
            let nanos = u32::try_from(changed.tv_nsec).ok()?;
            let at = SystemTime::UNIX_EPOCH + std::time::Duration::new(seconds, nanos);
            self.taken.duration_since(at).ok()
        });
        !self.is_spoilt() && self.look.same_version(look) && since.is_some_and(|s| s >= settle)
    }

    /// Somebody else got hold of it.
    pub(crate) fn spoil(&self) {
        self.spoilt.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_spoilt(&self) -> bool {
        self.spoilt.load(Ordering::Relaxed)
    }

    /// Writes the bytes, the length and the times into an open file.
    pub(crate) fn write_into(&self, bytes: &File, to: &File) -> io::Result<()> {
        let now = Look::of(to)?;
        if now.size > self.look.size {
            rustix::fs::ftruncate(to, self.look.size)?;
        }
        copy_bytes(bytes, to, self.look.size)?;
        // A write takes the set-user-id bits away; other bits only a person can have
        // changed meanwhile, and they are left as they are.
        if now.mode & 0o777 == self.look.mode & 0o777 && Look::of(to)?.mode != self.look.mode {
            fchmod(to, Mode::from_raw_mode(self.look.mode))?;
        }
        set_times(to, &self.look)
    }
}

fn set_times(file: &File, look: &Look) -> io::Result<()> {
    let times = Timestamps {
        last_access: look.accessed,
        last_modification: look.modified,
    };
    Ok(futimens(file, &times)?)
}

fn copy_bytes(from: &File, to: &File, size: u64) -> io::Result<()> {
    if size == 0 || rustix::fs::ioctl_ficlone(to, from).is_ok() {
        return Ok(());
    }
    // Uses copy_file_range and falls back to reading and writing.
    io::copy(&mut from.take(size), &mut &*to)?;
    Ok(())
}
