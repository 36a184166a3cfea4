//! A folder with files that a guest works on, and what a person does to them.
//!
//! The project remembers the files as the test made and edited them, apart
//! from whatever the guest does on the disk, so that a fresh run can be made
//! from the same beginning in another folder.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use tempfile::TempDir;

/// What the test put at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Node {
    File { bytes: Vec<u8>, mode: u32 },
    Folder,
    Link(PathBuf),
}

/// How an edited file is saved.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Save {
    /// The file is cut to nothing and written again, as VS Code and nano do.
    InPlace,
    /// A new file is written beside it and renamed over it, as gedit does.
    ByRename,
    /// The file is renamed to a backup, written new, the backup removed.
    LikeVim,
    /// The file is removed and created again.
    DeleteAndCreate,
}

/// A folder that is the root of a project, with some room beside it.
pub struct Project {
    base: TempDir,
    pub(super) nodes: BTreeMap<PathBuf, Node>,
    prepare: Option<fn(&Path)>,
}

impl Project {
    /// An empty project.
    pub fn new(name: &str) -> Project {
        let base = tempfile::Builder::new()
            .prefix(&format!("guests-{name}-"))
            .tempdir()
            .expect("the temporary folder can be written");
        for folder in ["project/.git", "home", "tmp", "beside"] {
            fs::create_dir_all(base.path().join(folder)).expect("a folder can be made");
        }
        Project {
            base,
            nodes: BTreeMap::new(),
            prepare: None,
        }
    }

    /// The root: what is below it is in scope.
    pub fn root(&self) -> PathBuf {
        self.base.path().join("project")
    }

    /// A folder outside the scope, for programs and for talking to the guest.
    pub fn beside(&self) -> PathBuf {
        self.base.path().join("beside")
    }

    /// The folder for temporary files of the guest and of forkmon.
    pub fn temporary(&self) -> PathBuf {
        self.base.path().join("tmp")
    }

    /// What is the guest's home folder.
    pub fn home(&self) -> PathBuf {
        self.base.path().join("home")
    }

    /// The folder that holds all of them.
    pub fn base(&self) -> &Path {
        self.base.path()
    }

    /// The absolute path of a file of the project.
    pub fn path(&self, name: &str) -> PathBuf {
        self.root().join(name)
    }

    /// Adds a file.
    pub fn file(mut self, name: &str, text: &str) -> Project {
        self.put(
            name,
            Node::File {
                bytes: text.into(),
                mode: 0o644,
            },
        );
        self
    }

    /// Adds an executable file.
    pub fn program(mut self, name: &str, text: &str) -> Project {
        self.put(
            name,
            Node::File {
                bytes: text.into(),
                mode: 0o755,
            },
        );
        self
    }

    /// Adds an empty folder.
    pub fn folder(mut self, name: &str) -> Project {
        self.put(name, Node::Folder);
        self
    }

    /// Adds a symbolic link.
    pub fn link(mut self, name: &str, target: &str) -> Project {
        self.put(name, Node::Link(target.into()));
        self
    }

    /// Does more to the files, which are all there, in the root and in each copy of it.
    pub fn prepared(mut self, more: fn(&Path)) -> Project {
        more(&self.root());
        self.prepare = Some(more);
        self
    }

    fn put(&mut self, name: &str, node: Node) {
        make(&self.root(), Path::new(name), &node);
        self.nodes.insert(name.into(), node);
    }

    /// Makes the files of the project, as they should be by now, elsewhere.
    pub(super) fn copy_to(&self, root: &Path) {
        fs::create_dir_all(root.join(".git")).expect("a folder can be made");
        for (name, node) in &self.nodes {
            make(root, name, node);
        }
        if let Some(more) = self.prepare {
            more(root);
        }
    }

    /// Saves new contents.
    pub fn save(&mut self, name: &str, text: &str, how: Save) {
        let path = self.path(name);
        self.note(name, text);
        write_as(&path, text.as_bytes(), how);
    }

    /// Saves many files as fast as can be, as a change of branches does: each
    /// by a rename, when all have been written.
    pub fn replace_all(&mut self, files: impl Iterator<Item = (String, String)>) {
        let files: Vec<(String, String)> = files.collect();
        let staged = |number: usize| self.root().join(format!(".git/staged-{number}"));
        for (number, (_, text)) in files.iter().enumerate() {
            fs::write(staged(number), text).expect("a file can be made");
        }
        for (number, (name, _)) in files.iter().enumerate() {
            fs::rename(staged(number), self.path(name)).expect("a file can be replaced");
        }
        for (name, text) in &files {
            self.note(name, text);
        }
    }

    /// Says what a file holds now, when the test saves it by itself.
    pub fn note(&mut self, name: &str, text: &str) {
        let mode = match self.nodes.get(Path::new(name)) {
            Some(Node::File { mode, .. }) => *mode,
            _ => 0o644,
        };
        self.nodes.insert(
            name.into(),
            Node::File {
                bytes: text.into(),
                mode,
            },
        );
    }

    /// Creates a file that was not there.
    pub fn create(&mut self, name: &str, text: &str) {
        self.note(name, text);
        let path = self.path(name);
        fs::create_dir_all(path.parent().expect("a name in the project"))
            .expect("a folder can be made");
        fs::write(path, text).expect("a file can be created");
    }

    /// Removes a file.
    pub fn remove(&mut self, name: &str) {
        self.nodes.remove(Path::new(name));
        fs::remove_file(self.path(name)).expect("the file can be removed");
    }

    /// Gives a file another mode.
    pub fn set_mode(&mut self, name: &str, new: u32) {
        match self.nodes.get_mut(Path::new(name)) {
            Some(Node::File { mode, .. }) => *mode = new,
            other => panic!("{name} is not a file of the project: {other:?}"),
        }
        chmod(&self.path(name), new);
    }

    /// Lets a symbolic link point elsewhere, in one step.
    pub fn retarget(&mut self, name: &str, target: &str) {
        let temporary = self.root().join(".git/new-link");
        symlink(target, &temporary).expect("a link can be made");
        fs::rename(&temporary, self.path(name)).expect("a link can be replaced");
        self.nodes.insert(name.into(), Node::Link(target.into()));
    }

    /// What is in the project now, by name: the kind, mode and bytes of each.
    pub fn tree(&self) -> BTreeMap<PathBuf, String> {
        tree(&self.root())
    }
}

/// What is below a folder: kinds, modes, bytes, owners other than ourselves, extended
/// attributes, and which names are of one file. Version control is left out, and of
/// Python's byte code only the names count, since it holds the time of its source.
pub(super) fn tree(root: &Path) -> BTreeMap<PathBuf, String> {
    type Links = BTreeMap<(u64, u64), PathBuf>;
    fn walk(root: &Path, below: &Path, into: &mut BTreeMap<PathBuf, String>, links: &mut Links) {
        let entries = fs::read_dir(root.join(below)).expect("a folder can be listed");
        let mut entries: Vec<_> = entries
            .map(|entry| entry.expect("a folder can be listed"))
            .collect();
        // So that the first name of a file is the same one each time.
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            let name = below.join(entry.file_name());
            if name == Path::new(".git") {
                continue;
            }
            let path = entry.path();
            let meta = fs::symlink_metadata(&path).expect("a file can be looked at");
            let mode = meta.permissions().mode() & 0o7777;
            let mut what = if meta.is_dir() {
                walk(root, &name, into, links);
                format!("folder {mode:o}")
            } else if meta.is_symlink() {
                format!(
                    "link to {:?}",
                    fs::read_link(&path).expect("a link can be read")
                )
            } else if !meta.is_file() {
                format!("{:?} {mode:o}", meta.file_type())
            } else if path.extension().is_some_and(|e| e == "pyc") {
                format!("byte code {mode:o}")
            } else {
                let bytes = fs::read(&path).expect("a file can be read");
                match String::from_utf8(bytes) {
                    Ok(text) => format!("file {mode:o} {text:?}"),
                    Err(odd) => format!("file {mode:o} {}", blake3::hash(odd.as_bytes())),
                }
            };
            if meta.uid() != rustix::process::geteuid().as_raw() {
                what += &format!(" of {}:{}", meta.uid(), meta.gid());
            }
            what += &extended(&path);
            if !meta.is_dir() && meta.nlink() > 1 {
                let first = links
                    .entry((meta.dev(), meta.ino()))
                    .or_insert(name.clone());
                what += &format!(", as {}", first.display());
            }
            into.insert(name, what);
        }
    }
    let mut all = BTreeMap::new();
    walk(root, Path::new(""), &mut all, &mut Links::new());
    all
}

/// The extended attributes of a file, as text.
fn extended(path: &Path) -> String {
    let mut names = vec![0; 4096];
    let length = rustix::fs::llistxattr(path, &mut names).unwrap_or(0);
    let names = String::from_utf8_lossy(&names[..length]).into_owned();
    let mut names: Vec<&str> = names.split_terminator('\0').collect();
    names.sort_unstable();
    let value = |name: &str| {
        let mut value = vec![0; 4096];
        let length = rustix::fs::lgetxattr(path, name, &mut value).unwrap_or(0);
        format!(", {name} {:?}", String::from_utf8_lossy(&value[..length]))
    };
    names.into_iter().map(value).collect()
}

fn make(root: &Path, name: &Path, node: &Node) {
    let path = root.join(name);
    fs::create_dir_all(path.parent().expect("a name in the project"))
        .expect("a folder can be made");
    match node {
        Node::File { bytes, mode } => {
            fs::write(&path, bytes).expect("a file can be made");
            chmod(&path, *mode);
        }
        Node::Folder => fs::create_dir_all(&path).expect("a folder can be made"),
        Node::Link(target) => symlink(target, &path).expect("a link can be made"),
    }
}

pub(super) fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("a mode can be set");
}

fn write_as(path: &Path, bytes: &[u8], how: Save) {
    let name = path
        .file_name()
        .expect("a file")
        .to_string_lossy()
        .into_owned();
    match how {
        Save::InPlace => {
            // Two writes, so that there is a moment with half of the file.
            let mut file = fs::File::create(path).expect("the file can be written");
            let (first, second) = bytes.split_at(bytes.len() / 2);
            file.write_all(first).expect("the file can be written");
            file.write_all(second).expect("the file can be written");
        }
        Save::ByRename => {
            let mode = fs::metadata(path).map_or(0o644, |meta| meta.permissions().mode());
            let temporary = path.with_file_name(".goutputstream-A1B2C3");
            fs::write(&temporary, bytes).expect("a file can be made");
            chmod(&temporary, mode & 0o7777);
            fs::rename(&temporary, path).expect("the file can be replaced");
        }
        Save::LikeVim => {
            let backup = path.with_file_name(format!("{name}~"));
            let mode = fs::metadata(path).map_or(0o644, |meta| meta.permissions().mode());
            fs::rename(path, &backup).expect("the file can be renamed");
            fs::write(path, bytes).expect("the file can be written");
            chmod(path, mode & 0o7777);
            fs::remove_file(&backup).expect("the backup can be removed");
        }
        Save::DeleteAndCreate => {
            fs::remove_file(path).expect("the file can be removed");
            fs::write(path, bytes).expect("the file can be written");
        }
    }
}
