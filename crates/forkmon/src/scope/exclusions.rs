//! What is out of scope unless somebody names it: the names of files and folders
//! that no person edits.
//!
//! | class | names |
//! |---|---|
//! | version control | `.git` `.hg` `.jj` `.svn` |
//! | dependencies and caches | `node_modules` `.venv` `venv` `site-packages` `__pycache__` |
//! | editors' backup and swap files | `*~` (so `*.tmp~`, too) `.*.swp` `.*.swo` `.*.swx` and the further letters of vim, `4913` (vim's probe), `.#*` `#*#` (Emacs), `.*.kate-swp`, `.goutputstream-*` (GLib), `*___jb_tmp___` `*___jb_old___` (JetBrains) |
//!
//! A `-w` that names one, or something inside of one, lifts its whole class for
//! what that `-w` adds: `-w node_modules` brings the `node_modules` inside in,
//! too, but no swap file.

use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path};

/// How the names of forkmon's own stores begin; no option brings them in.
const STORE: &[u8] = crate::guardian::STORE_PREFIX.as_bytes();

/// A class of names that are out by default.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Class {
    VersionControl = 1,
    Dependencies = 2,
    Editors = 4,
}

/// Which classes somebody named, and which therefore are not out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Lifted(u8);

impl Lifted {
    pub(super) const NONE: Self = Self(0);

    /// The classes that the components of a path or glob belong to, by its text.
    pub(super) fn by(path: &Path) -> Self {
        let named = components(path).filter_map(class_of);
        Self(named.fold(0, |all, class| all | class as u8))
    }

    fn lifts(self, class: Class) -> bool {
        self.0 & class as u8 != 0
    }
}

/// Whether some component of the relative path `below` takes it out.
pub(super) fn excludes(below: &Path, lifted: Lifted) -> bool {
    components(below).any(|name| {
        name.starts_with(STORE) || class_of(name).is_some_and(|class| !lifted.lifts(class))
    })
}

/// Whether `path` is or lies in a store of forkmon's.
pub(super) fn is_in_store(path: &Path) -> bool {
    components(path).any(|name| name.starts_with(STORE))
}

/// Whether no option can bring `path` in, since inotify cannot watch it.
pub(super) fn is_never_in_scope(path: &Path) -> bool {
    path.starts_with("/proc")
        || path.starts_with("/sys")
        || (path.starts_with("/dev") && !path.starts_with("/dev/shm"))
}

fn components(path: &Path) -> impl Iterator<Item = &[u8]> {
    path.components().filter_map(|component| match component {
        Component::Normal(name) => Some(name.as_bytes()),
        _ => None,
    })
}

fn class_of(name: &[u8]) -> Option<Class> {
    match name {
        b".git" | b".hg" | b".jj" | b".svn" => Some(Class::VersionControl),
        b"node_modules" | b".venv" | b"venv" | b"site-packages" | b"__pycache__" => {
            Some(Class::Dependencies)
        }
        b"4913" | [.., b'~'] | [b'.', b'#', ..] | [b'#', .., b'#'] => Some(Class::Editors),
        // Vim counts its swap files down from .swp when one is taken; .swx is
        // its probe.
        [b'.', .., b'.', b's', b'w', b'a'..=b'p' | b'x'] => Some(Class::Editors),
        [b'.', ..] if name.ends_with(b".kate-swp") => Some(Class::Editors),
        _ if name.starts_with(b".goutputstream-")
            || name.ends_with(b"___jb_tmp___")
            || name.ends_with(b"___jb_old___") =>
        {
            Some(Class::Editors)
        }
        _ => None,
    }
}
