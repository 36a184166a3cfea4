//! The files of a project as a person has made them by now: those that it began
//! with, and every edit since. What the guest does to files plays no part, so
//! that a fresh run can be made from them at any time.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

/// What a person put at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Node {
    File { bytes: Vec<u8>, mode: u32 },
    Folder,
    Link(PathBuf),
}

/// All that a person put into a project, by relative paths.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Model {
    pub nodes: BTreeMap<PathBuf, Node>,
}

impl Model {
    /// Reads a project from a folder of plain files.
    pub fn load(folder: &Path) -> io::Result<Model> {
        fn walk(root: &Path, below: &Path, into: &mut Model) -> io::Result<()> {
            for entry in fs::read_dir(root.join(below))? {
                let name = below.join(entry?.file_name());
                let path = root.join(&name);
                let found = fs::symlink_metadata(&path)?;
                let node = if found.is_dir() {
                    walk(root, &name, into)?;
                    Node::Folder
                } else if found.is_symlink() {
                    Node::Link(fs::read_link(&path)?)
                } else {
                    // Only this bit of a mode is the same in every checkout.
                    let executable = found.permissions().mode() & 0o100 != 0;
                    Node::File {
                        bytes: fs::read(&path)?,
                        mode: if executable { 0o755 } else { 0o644 },
                    }
                };
                into.nodes.insert(name, node);
            }
            Ok(())
        }
        let mut model = Model {
            nodes: BTreeMap::new(),
        };
        walk(folder, Path::new(""), &mut model)?;
        Ok(model)
    }

    /// Makes the files below a new folder.
    pub fn write(&self, root: &Path) -> io::Result<()> {
        fs::create_dir_all(root)?;
        for (name, node) in &self.nodes {
            let path = root.join(name);
            match node {
                Node::Folder => fs::create_dir(&path)?,
                Node::Link(target) => symlink(target, &path)?,
                Node::File { bytes, mode } => {
                    fs::write(&path, bytes)?;
                    fs::set_permissions(&path, fs::Permissions::from_mode(*mode))?;
                }
            }
        }
        Ok(())
    }

    /// The bytes of a file, if there is one.
    pub fn bytes(&self, name: &Path) -> Option<&[u8]> {
        match self.nodes.get(name)? {
            Node::File { bytes, .. } => Some(bytes),
            _ => None,
        }
    }

    /// Puts bytes into a file, which keeps its mode, or is made.
    pub fn put(&mut self, name: &Path, bytes: Vec<u8>) {
        for folder in name.ancestors().skip(1) {
            if folder != Path::new("") {
                self.nodes.entry(folder.into()).or_insert(Node::Folder);
            }
        }
        let mode = match self.nodes.get(name) {
            Some(Node::File { mode, .. }) => *mode,
            _ => 0o644,
        };
        self.nodes.insert(name.into(), Node::File { bytes, mode });
    }

    /// The names of all files.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        let is_file = |node: &Node| matches!(node, Node::File { .. });
        let files = self.nodes.iter().filter(move |(_, node)| is_file(node));
        files.map(|(name, _)| name.as_path())
    }
}
