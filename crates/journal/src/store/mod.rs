//! Where the journal keeps things: two folders per mount, made when first needed. In
//! the *store* lie saved links and copies until an undo needs them; it goes with the
//! journal. In the *keep* lies what is out of its place for a moment, while an undo
//! makes sure whose it is, and what may be somebody else's: that outlives the journal.
//! What lies in them, and why, is decided elsewhere.

mod copy;
mod room;

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::{self, DirBuilder, File};
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, AtFlags, CWD, RenameFlags};

use crate::Obstacle;
use crate::file::Look;

pub(crate) use copy::{Copy, NoCopy, Saved, SavedKind, begins, copy_to, is_same};
pub(crate) use room::{NeedsRoom, Room, Share};

/// How the names of the journal's folders begin.
pub const FOLDER_PREFIX: &str = ".forkmon-";

/// The most bytes that a kept file's own name has in its new one.
const LONGEST_NAME: usize = 200;

/// A folder that the journal is about to make.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub enum NewFolder<'a> {
    /// It can be removed with all that is in it when this process is gone.
    Store(&'a Path),
    /// It can be removed if it is empty then.
    Keep(&'a Path),
}

/// Called with each folder before it is made.
pub(crate) type OnFolder = Box<dyn FnMut(NewFolder<'_>) + Send>;

/// The folders of one journal.
pub(crate) struct Stores {
    preferred: Vec<PathBuf>,
    /// Of forkmon's own, made if need be.
    lasting: Vec<PathBuf>,
    on_folder: OnFolder,
    by_mount: HashMap<u64, Result<Store, Obstacle>>,
    keeps: HashMap<u64, PathBuf>,
    next: u64,
}

struct Store {
    folder: PathBuf,
    has_links: bool,
}

impl Stores {
    pub(crate) fn new(
        preferred: Vec<PathBuf>,
        lasting: Vec<PathBuf>,
        on_folder: OnFolder,
    ) -> Stores {
        Stores {
            preferred,
            lasting,
            on_folder,
            by_mount: HashMap::new(),
            keeps: HashMap::new(),
            next: 0,
        }
    }

    /// A free name in the store of the mount that `name` lies on. `look` is of
    /// the file itself: one that is mounted on its own cannot be linked or renamed.
    pub(crate) fn fresh(&mut self, name: &Path, look: Option<&Look>) -> Result<PathBuf, Obstacle> {
        let (parent, mount) = mount_of(name, look)?;
        let store = self.store(parent, mount)?.folder.clone();
        self.next += 1;
        Ok(store.join(self.next.to_string()))
    }

    /// A free name in the keep of that mount, by which a person knows the file.
    pub(crate) fn fresh_in_keep(&mut self, name: &Path) -> Result<PathBuf, Obstacle> {
        let (parent, mount) = mount_of(name, None)?;
        let keep = self.keep(parent, mount)?;
        self.next += 1;
        let own = name.file_name().unwrap_or_default().as_bytes();
        let own = &own[..own.len().min(LONGEST_NAME)];
        let mut new = format!("{}-", self.next).into_bytes();
        new.extend_from_slice(own);
        Ok(keep.join(OsStr::from_bytes(&new)))
    }

    /// Whether hard links work where `name` lies (asked after [`Stores::fresh`]).
    pub(crate) fn has_links(&self, mount: u64) -> bool {
        matches!(self.by_mount.get(&mount), Some(Ok(store)) if store.has_links)
    }

    /// All folders there are.
    pub(crate) fn folders(&self) -> impl Iterator<Item = &Path> {
        let stores = self.by_mount.values().flatten();
        stores
            .map(|store| store.folder.as_path())
            .chain(self.keeps.values().map(PathBuf::as_path))
    }

    /// Whether a path lies in one of the folders.
    pub(crate) fn contain(&self, path: &Path) -> bool {
        self.folders().any(|folder| path.starts_with(folder))
    }

    /// Removes the keeps that are empty.
    pub(crate) fn remove_empty_keeps(&mut self) {
        self.keeps.retain(|_, keep| {
            let kept = fs::remove_dir(&*keep).is_err();
            if !kept
                && let Some(place) = keep.parent()
                && self.lasting.iter().any(|p| p == place)
            {
                // It fails while another forkmon has something there.
                let _ = fs::remove_dir(place);
            }
            kept
        });
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
        let preferred = self.preferred.iter().map(PathBuf::as_path);
        let candidates = candidates(preferred, parent, mount);
        for candidate in candidates {
            if let Some(store) = self.make_in(&candidate, mount) {
                return Ok(store);
            }
        }
        Err(Obstacle::NoStore)
    }

    fn make_in(&mut self, place: &Path, mount: u64) -> Option<Store> {
        // As the kernel knows it, whatever links lead there.
        let place = &fs::canonicalize(place).ok()?;
        let folder = place.join(format!("{FOLDER_PREFIX}{}", unique_suffix(place)));
        // Reported first: whoever removes it after a SIGKILL must not miss it.
        (self.on_folder)(NewFolder::Store(&folder));
        DirBuilder::new().mode(0o700).create(&folder).ok()?;
        let mut store = Store {
            folder,
            has_links: false,
        };
        (lies_on(&store.folder, mount) && store.probe().is_ok()).then_some(store)
    }

    /// The keep of a mount: in forkmon's own folder if that lies on it, where people
    /// look and which a reboot does not empty; else as far up as can be written, and
    /// only then where temporary files lie.
    fn keep(&mut self, parent: &Path, mount: u64) -> Result<PathBuf, Obstacle> {
        if let Some(keep) = self.keeps.get(&mount)
            && keep.is_dir()
        {
            return Ok(keep.clone());
        }
        let lasting = self.lasting.clone();
        for place in &lasting {
            let name = format!("kept-{}", unique_suffix(place));
            if exists_on(place, mount)
                && DirBuilder::new()
                    .mode(0o700)
                    .recursive(true)
                    .create(place)
                    .is_ok()
                && let Some(keep) = self.make_keep(place.join(name), mount)
            {
                return Ok(keep);
            }
        }
        let preferred = self.preferred.clone();
        let above = candidates(std::iter::empty(), parent, mount);
        let temporary = candidates(
            preferred.iter().map(PathBuf::as_path),
            Path::new("/"),
            mount,
        );
        for place in above.into_iter().chain(temporary) {
            let name = format!("{FOLDER_PREFIX}kept-{}", unique_suffix(&place));
            if let Some(keep) = self.make_keep(place.join(name), mount) {
                return Ok(keep);
            }
        }
        Err(Obstacle::NoStore)
    }

    fn make_keep(&mut self, keep: PathBuf, mount: u64) -> Option<PathBuf> {
        let place = fs::canonicalize(keep.parent()?).ok()?;
        let keep = place.join(keep.file_name()?);
        (self.on_folder)(NewFolder::Keep(&keep));
        DirBuilder::new().mode(0o700).create(&keep).ok()?;
        if !lies_on(&keep, mount) {
            let _ = fs::remove_dir(&keep);
            return None;
        }
        self.keeps.insert(mount, keep.clone());
        Some(keep)
    }
}

/// The folder of a name, and the mount that both lie on, where names can be changed.
fn mount_of<'a>(name: &'a Path, look: Option<&Look>) -> Result<(&'a Path, u64), Obstacle> {
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
    Ok((parent, folder.mount))
}

/// Writable folders on a mount: the preferred ones, then the ancestors of `parent` from
/// the top.
fn candidates<'a>(
    preferred: impl Iterator<Item = &'a Path>,
    parent: &'a Path,
    mount: u64,
) -> Vec<PathBuf> {
    let on_mount = |folder: &&Path| lies_on(folder, mount);
    let mut above: Vec<&Path> = parent.ancestors().take_while(on_mount).collect();
    above.reverse();
    preferred
        .filter(on_mount)
        .chain(above)
        .filter(|folder| writable(folder))
        .map(Path::to_owned)
        .collect()
}

fn lies_on(folder: &Path, mount: u64) -> bool {
    matches!(Look::at(folder, true), Ok(Some(look)) if look.mount == mount)
}

/// Whether a folder, or the nearest one above it that there is, lies on a mount.
fn exists_on(place: &Path, mount: u64) -> bool {
    let found = place
        .ancestors()
        .find_map(|folder| Look::at(folder, true).ok().flatten());
    found.is_some_and(|look| look.mount == mount)
}

fn unique_suffix(place: &Path) -> String {
    let random = RandomState::new().hash_one(place);
    format!("{}-{random:016x}", std::process::id())
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
