//! A guest that is this process itself: each of its calls is a real one, made
//! between the two halves of its effect. Nothing else is simulated.

#![expect(dead_code, reason = "each test binary uses a part of it")]

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use journal::{Effect, Journal, Mark, Options, Unjournaled};
use rustix::fs::{CWD, RenameFlags};
use tempfile::TempDir;

/// A tree of files to work in, a folder for the store, and a journal.
pub struct Guest {
    pub journal: Journal,
    pub base: TempDir,
}

/// What lies under one name.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Node {
    pub kind: &'static str,
    pub mode: u32,
    pub inode: u64,
    pub bytes: Vec<u8>,
    pub modified: (i64, i64),
}

pub type Tree = BTreeMap<PathBuf, Node>;

impl Guest {
    pub fn new() -> Guest {
        Guest::with(|_| ())
    }

    pub fn with(change: impl FnOnce(&mut Options)) -> Guest {
        Guest::on(tempfile::tempdir().unwrap(), change)
    }

    pub fn on(base: TempDir, change: impl FnOnce(&mut Options)) -> Guest {
        fs::create_dir(base.path().join("tree")).unwrap();
        fs::create_dir(base.path().join("store")).unwrap();
        let mut options = Options {
            places: vec![base.path().join("store")],
            lasting_places: vec![base.path().join("keep")],
            ..Options::default()
        };
        change(&mut options);
        Guest {
            journal: Journal::new(options),
            base,
        }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.base.path().join("tree").join(name)
    }

    /// Puts a file there as somebody who is not the guest.
    pub fn put(&self, name: &str, bytes: &str) {
        fs::write(self.path(name), bytes).unwrap();
    }

    pub fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }

    /// The time since the last change of a file.
    pub fn age(&self, name: &str) -> std::time::Duration {
        let found = fs::symlink_metadata(self.path(name)).unwrap();
        let changed = std::time::Duration::new(
            found.ctime().try_into().unwrap(),
            found.ctime_nsec().try_into().unwrap(),
        );
        let now = std::time::SystemTime::now();
        now.duration_since(std::time::UNIX_EPOCH).unwrap() - changed
    }

    pub fn inode(&self, name: &str) -> u64 {
        fs::symlink_metadata(self.path(name)).unwrap().ino()
    }

    /// One call of the guest's, with what comes before and after it.
    pub fn call<T>(
        &mut self,
        effect: Effect,
        call: impl FnOnce() -> io::Result<T>,
    ) -> (io::Result<T>, Result<(), Unjournaled>) {
        let prepared = self.journal.before(effect);
        let undoable = prepared.undoable.clone();
        let result = call();
        let after = self.journal.after(prepared, result.is_ok());
        (result, undoable.and(after))
    }

    pub fn open(&mut self, name: &str, how: &OpenOptions, effect: Effect) -> File {
        let path = self.path(name);
        let (file, undoable) = self.call(effect, || how.open(path));
        undoable.unwrap();
        file.unwrap()
    }

    pub fn open_effect(&self, name: &str, create: bool) -> Effect {
        Effect::OpenWrite {
            path: self.path(name),
            create,
            exclusive: false,
            follow: true,
        }
    }

    /// `open(O_CREAT | O_TRUNC)`
    pub fn create(&mut self, name: &str) -> File {
        let effect = self.open_effect(name, true);
        let mut how = OpenOptions::new();
        how.write(true).create(true).truncate(true);
        self.open(name, &how, effect)
    }

    /// `open(O_RDWR)`
    pub fn open_existing(&mut self, name: &str) -> File {
        let effect = self.open_effect(name, false);
        let mut how = OpenOptions::new();
        how.read(true).write(true);
        self.open(name, &how, effect)
    }

    /// `open(O_CREAT | O_APPEND)`
    pub fn append(&mut self, name: &str) -> File {
        let effect = Effect::OpenWrite {
            path: self.path(name),
            create: true,
            exclusive: false,
            follow: true,
        };
        let mut how = OpenOptions::new();
        how.append(true).create(true);
        self.open(name, &how, effect)
    }

    pub fn write(&mut self, name: &str, bytes: &str) {
        self.create(name).write_all(bytes.as_bytes()).unwrap();
    }

    pub fn truncate(&mut self, name: &str, length: u64) {
        let path = self.path(name);
        let effect = Effect::Truncate { path: path.clone() };
        let (result, undoable) = self.call(effect, || {
            use std::os::unix::ffi::OsStrExt;
            let path = std::ffi::CString::new(path.as_os_str().as_bytes())?;
            // SAFETY: `path` is a string that ends with a zero and lives through the call.
            match unsafe { libc::truncate(path.as_ptr(), length.try_into().unwrap()) } {
                0 => Ok(()),
                _ => Err(io::Error::last_os_error()),
            }
        });
        undoable.unwrap();
        result.unwrap();
    }

    pub fn unlink(&mut self, name: &str) {
        let path = self.path(name);
        let effect = Effect::Unlink { path: path.clone() };
        let (result, undoable) = self.call(effect, || fs::remove_file(path));
        undoable.unwrap();
        result.unwrap();
    }

    pub fn rename_effect(&self, from: &str, to: &str, exchange: bool) -> Effect {
        Effect::Rename {
            from: self.path(from),
            to: self.path(to),
            no_replace: false,
            exchange,
            in_use: false,
        }
    }

    pub fn rename(&mut self, from: &str, to: &str) {
        let (a, b) = (self.path(from), self.path(to));
        let effect = self.rename_effect(from, to, false);
        let (result, undoable) = self.call(effect, || fs::rename(a, b));
        undoable.unwrap();
        result.unwrap();
    }

    pub fn exchange(&mut self, from: &str, to: &str) {
        let (a, b) = (self.path(from), self.path(to));
        let effect = self.rename_effect(from, to, true);
        let (result, undoable) = self.call(effect, || {
            Ok(rustix::fs::renameat_with(
                CWD,
                a,
                CWD,
                b,
                RenameFlags::EXCHANGE,
            )?)
        });
        undoable.unwrap();
        result.unwrap();
    }

    pub fn make_folder(&mut self, name: &str) {
        let path = self.path(name);
        let effect = Effect::MakeFolder { path: path.clone() };
        let (result, undoable) = self.call(effect, || fs::create_dir(path));
        undoable.unwrap();
        result.unwrap();
    }

    pub fn remove_folder(&mut self, name: &str) -> Result<(), Unjournaled> {
        let path = self.path(name);
        let effect = Effect::RemoveFolder {
            path: path.clone(),
            in_use: false,
        };
        let (result, undoable) = self.call(effect, || fs::remove_dir(path));
        result.unwrap();
        undoable
    }

    pub fn link(&mut self, from: &str, to: &str) {
        let (from, to) = (self.path(from), self.path(to));
        let effect = Effect::Link {
            from: from.clone(),
            to: to.clone(),
            follow: false,
        };
        let (result, undoable) = self.call(effect, || fs::hard_link(from, to));
        undoable.unwrap();
        result.unwrap();
    }

    pub fn symbolic_link(&mut self, target: &str, to: &str) {
        let to = self.path(to);
        let effect = Effect::SymbolicLink { to: to.clone() };
        let (result, undoable) = self.call(effect, || std::os::unix::fs::symlink(target, to));
        undoable.unwrap();
        result.unwrap();
    }

    /// A change of attributes, made by `call`.
    pub fn change<T>(
        &mut self,
        name: &str,
        follow: bool,
        call: impl FnOnce(&Path) -> io::Result<T>,
    ) -> Result<(), Unjournaled> {
        let path = self.path(name);
        let effect = Effect::Attributes {
            path: path.clone(),
            follow,
            extended: true,
        };
        let (result, undoable) = self.call(effect, || call(&path));
        result.unwrap();
        undoable
    }

    pub fn make_fifo(&mut self, name: &str) {
        let path = self.path(name);
        let effect = Effect::MakeNode { path: path.clone() };
        let (result, undoable) = self.call(effect, || {
            let mode = rustix::fs::Mode::from_raw_mode(0o600);
            Ok(rustix::fs::mkfifoat(CWD, path, mode)?)
        });
        undoable.unwrap();
        result.unwrap();
    }

    pub fn hold(&mut self, mark: Mark, file: &File, name: &str) {
        let fd = PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()));
        let path = self.path(name);
        self.journal.hold(mark, &fd, &path, false).unwrap();
    }

    /// Undoes, insists that nothing was left, and tells what was restored.
    pub fn undo(&mut self, mark: Mark) -> Vec<PathBuf> {
        let undo = self.journal.undo_to(mark);
        assert!(undo.complete && undo.left.is_empty(), "{undo:?}");
        undo.restored
    }

    pub fn tree(&self) -> Tree {
        let mut tree = Tree::new();
        walk(&self.base.path().join("tree"), &mut tree);
        tree
    }

    /// What lies in the stores that there are and is there to be put back.
    pub fn stored(&mut self) -> usize {
        let mut tree = Tree::new();
        walk(&self.base.path().join("store"), &mut tree);
        for item in self.journal.taken_away() {
            tree.remove(&item.lies);
        }
        tree.values().filter(|node| node.kind != "folder").count()
    }

    /// What the journal says that it has taken away: bytes by path.
    pub fn taken_away(&mut self) -> Vec<(PathBuf, String)> {
        let items = self.journal.taken_away();
        let read = |lies: &Path| fs::read_to_string(lies).unwrap();
        items
            .iter()
            .map(|item| (item.path.clone(), read(&item.lies)))
            .collect()
    }
}

/// A person's save in place, as a plain editor does it.
pub fn save_in_place(path: &Path, bytes: &str) {
    fs::write(path, bytes).unwrap();
}

/// A person's save by a temporary file and a rename.
pub fn save_by_rename(path: &Path, bytes: &str) {
    let temporary = path.with_extension("saving");
    fs::write(&temporary, bytes).unwrap();
    fs::rename(temporary, path).unwrap();
}

fn walk(folder: &Path, tree: &mut Tree) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let found = fs::symlink_metadata(&path).unwrap();
        let kind = found.file_type();
        let (name, bytes) = if kind.is_dir() {
            walk(&path, tree);
            ("folder", Vec::new())
        } else if kind.is_symlink() {
            let target = fs::read_link(&path).unwrap();
            ("link", target.into_os_string().into_encoded_bytes())
        } else if kind.is_fifo() {
            ("pipe", Vec::new())
        } else {
            let read = OpenOptions::new()
                .read(true)
                .custom_flags(libc::O_NONBLOCK)
                .open(&path);
            let mut bytes = Vec::new();
            io::Read::read_to_end(&mut read.unwrap(), &mut bytes).unwrap();
            ("file", bytes)
        };
        // A folder's times change with its names, which is not undone.
        let times = name == "file";
        let node = Node {
            kind: name,
            mode: found.mode(),
            inode: found.ino(),
            bytes,
            modified: if times {
                (found.mtime(), found.mtime_nsec())
            } else {
                (0, 0)
            },
        };
        tree.insert(path, node);
    }
}

/// What the journal's end leaves for people.
pub fn kept(mut guest: Guest) -> Vec<String> {
    let kept = guest.journal.finish();
    let read = |lies: &PathBuf| fs::read_to_string(lies).unwrap();
    kept.iter().map(|item| read(&item.lies)).collect()
}

/// Somebody who is not the guest adds to a file.
pub fn append(path: &Path, bytes: &str) {
    let mut file = OpenOptions::new().append(true).open(path).unwrap();
    file.write_all(bytes.as_bytes()).unwrap();
}

/// The journal's beginning, and a tick of the clock that files have.
pub fn begin(guest: &mut Guest) -> Mark {
    let mark = guest.journal.mark();
    guest.put("tick", "");
    while guest.age("tick") < Duration::from_millis(25) {}
    fs::remove_file(guest.path("tick")).unwrap();
    mark
}
