//! From a path argument to a path: absolute, as it was looked up, and known to
//! be in scope or not.
//!
//! Most paths are looked up again and again, so that a path that was resolved
//! once costs one hash lookup.

use super::calls::At;
use super::run::Process;
use crate::scope::Scope;
use std::collections::{HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};
use std::rc::Rc;
use tracee::{AddressSpace, Tid};

/// A looked-up path.
#[derive(Debug)]
pub(super) struct Name {
    /// Absolute; without `.` and `..`.
    pub(super) path: PathBuf,
    pub(super) in_scope: bool,
}

/// What a path argument turned out to be.
pub(super) enum Found {
    Name(Rc<Name>),
    /// An empty path: the call is about the fd.
    Empty,
    /// The path cannot be read: the call will fail.
    Unreadable,
}

/// The longest path that the kernel takes, with its zero byte.
const PATH_MAX: usize = 4096;

/// The resolved paths so far.
#[derive(Debug, Default)]
pub(super) struct Lookups {
    /// By the folder that they are relative to (none for absolute ones).
    known: HashMap<Option<Rc<Path>>, HashMap<OsString, Rc<Name>>>,
    /// Folders out of scope, by the path that they were looked up by.
    outside: HashMap<PathBuf, Outside>,
}

/// A folder out of scope, from which links may lead into it.
#[derive(Debug)]
struct Outside {
    /// Where it really lies.
    real: PathBuf,
    /// Names in it that were asked for one by one.
    asked: u32,
    /// The links in it, once it has been listed.
    links: Option<HashSet<OsString>>,
}

/// After so many names in a folder it is listed instead of asking for the next.
const ASK_AT_MOST: u32 = 8;

/// A folder with more entries than that is not listed.
const LIST_AT_MOST: usize = 8192;

/// Kernel file systems, which hold nothing that anybody edits.
const NEVER: [&str; 3] = ["/proc", "/sys", "/dev"];

impl Lookups {
    /// Reads a path argument of a stopped task.
    pub(super) fn find(
        &mut self,
        scope: &Scope,
        task: Tid,
        process: Tid,
        of: &mut Process,
        at: At,
    ) -> Found {
        if of.empty_strings.contains(&at.path.0) {
            return Found::Empty;
        }
        let Ok(Some(text)) = AddressSpace::of(task).read_string(at.path, PATH_MAX) else {
            return Found::Unreadable;
        };
        if text.is_empty() {
            if is_read_only(process, at.path.0) {
                of.empty_strings.insert(at.path.0);
            }
            return Found::Empty;
        }
        let base = if text.as_bytes()[0] == b'/' {
            None
        } else if at.folder == libc::AT_FDCWD {
            match folder_of(process, of) {
                Some(folder) => Some(folder),
                None => return Found::Unreadable,
            }
        } else {
            match std::fs::read_link(format!("/proc/{process}/fd/{}", at.folder)) {
                Ok(folder) if folder.is_absolute() => Some(Rc::from(folder)),
                _ => return Found::Unreadable,
            }
        };
        let known = self.known.entry(base.clone()).or_default();
        if let Some(name) = known.get(&text) {
            return Found::Name(Rc::clone(name));
        }
        let name = Rc::new(self.resolve(scope, base.as_deref(), &text));
        self.known
            .entry(base)
            .or_default()
            .insert(text, Rc::clone(&name));
        Found::Name(name)
    }

    fn resolve(&mut self, scope: &Scope, base: Option<&Path>, text: &OsStr) -> Name {
        let path = normalise(base, Path::new(text));
        if NEVER.iter().any(|folder| path.starts_with(folder)) && !path.starts_with("/dev/shm") {
            return Name {
                path,
                in_scope: false,
            };
        }
        if scope.contains(&path) {
            return Name {
                path,
                in_scope: true,
            };
        }
        match self.really(scope, &path) {
            Some(real) => Name {
                path: real,
                in_scope: true,
            },
            None => Name {
                path,
                in_scope: false,
            },
        }
    }

    /// Where a path out of scope leads, by links on it, if that is in scope.
    fn really(&mut self, scope: &Scope, path: &Path) -> Option<PathBuf> {
        let (folder, name) = (path.parent()?, path.file_name()?);
        self.outside(folder).really(scope, name)
    }

    /// What is known of a folder out of scope. Folders above it are asked first,
    /// so that each costs one look.
    fn outside(&mut self, folder: &Path) -> &mut Outside {
        if !self.outside.contains_key(folder) {
            let real = match (folder.parent(), folder.file_name()) {
                (Some(parent), Some(name)) => {
                    let path = self.outside(parent).real.join(name);
                    if std::fs::read_link(&path).is_ok() {
                        std::fs::canonicalize(&path).unwrap_or(path)
                    } else {
                        path
                    }
                }
                _ => PathBuf::from("/"),
            };
            self.outside.insert(folder.to_owned(), Outside::at(real));
        }
        self.outside
            .entry(folder.to_owned())
            .or_insert_with(|| Outside::at(folder.to_owned()))
    }

    /// Names in a folder changed: what was known of it may not hold any more.
    pub(super) fn forget_folder(&mut self, folder: &Path) {
        if self.outside.remove(folder).is_some() {
            self.known.clear();
        }
    }

    /// Files were put back: nothing that was known need hold any more.
    pub(super) fn forget(&mut self) {
        self.known.clear();
        self.outside.clear();
    }
}

impl Outside {
    fn at(real: PathBuf) -> Self {
        Self {
            real,
            asked: 0,
            links: None,
        }
    }

    fn really(&mut self, scope: &Scope, name: &OsStr) -> Option<PathBuf> {
        let real = self.real.join(name);
        if scope.contains(&real) {
            return Some(real);
        }
        if let Some(links) = &self.links
            && !links.contains(name)
        {
            return None;
        }
        self.asked += 1;
        if self.asked == ASK_AT_MOST {
            self.links = links_in(&self.real);
        }
        target_in_scope(scope, &real)
    }
}

/// Where a link leads, if that is in scope.
fn target_in_scope(scope: &Scope, link: &Path) -> Option<PathBuf> {
    std::fs::read_link(link).ok()?;
    let target = std::fs::canonicalize(link).ok()?;
    scope.contains(&target).then_some(target)
}

/// The links in a folder; `None` if it cannot be listed or is too large.
fn links_in(folder: &Path) -> Option<HashSet<OsString>> {
    let mut links = HashSet::new();
    for (count, entry) in std::fs::read_dir(folder).ok()?.enumerate() {
        if count == LIST_AT_MOST {
            return None;
        }
        let entry = entry.ok()?;
        if entry.file_type().ok()?.is_symlink() {
            links.insert(entry.file_name());
        }
    }
    Some(links)
}

/// The working folder of a process.
pub(super) fn folder_of(process: Tid, of: &mut Process) -> Option<Rc<Path>> {
    if of.folder.is_none() {
        of.folder = std::fs::read_link(format!("/proc/{process}/cwd"))
            .ok()
            .map(Rc::from);
    }
    of.folder.clone()
}

/// Joins and removes `.` and `..`. What stands before a `..` is resolved first,
/// since it may be a link to somewhere else.
pub(super) fn normalise(base: Option<&Path>, path: &Path) -> PathBuf {
    let mut whole = base.unwrap_or(Path::new("/")).to_owned();
    for component in path.components() {
        match component {
            Component::RootDir | Component::Prefix(_) => whole = PathBuf::from("/"),
            Component::CurDir => {}
            Component::ParentDir => {
                if let Ok(real) = std::fs::canonicalize(&whole) {
                    whole = real;
                }
                whole.pop();
            }
            Component::Normal(name) => whole.push(name),
        }
    }
    whole
}

/// Whether an address lies in a mapping that the process cannot write to.
fn is_read_only(process: Tid, address: u64) -> bool {
    let Ok(maps) = std::fs::read(format!("/proc/{process}/maps")) else {
        return false;
    };
    String::from_utf8_lossy(&maps).lines().any(|line| {
        let Some((range, rest)) = line.split_once(' ') else {
            return false;
        };
        let Some((start, end)) = range.split_once('-') else {
            return false;
        };
        let (Ok(start), Ok(end)) = (u64::from_str_radix(start, 16), u64::from_str_radix(end, 16))
        else {
            return false;
        };
        (start..end).contains(&address) && rest.as_bytes().get(1) == Some(&b'-')
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dots_are_removed_where_the_kernel_would() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        std::fs::create_dir_all(root.join("a/b")).unwrap();
        std::os::unix::fs::symlink(root.join("a/b"), root.join("link")).unwrap();
        let normal = |path: &str| normalise(Some(&root), Path::new(path));
        assert_eq!(normal("./x//y/."), root.join("x/y"));
        assert_eq!(
            normal("link/../c"),
            root.join("a/c"),
            "the parent of the link's target"
        );
        assert_eq!(normal("missing/../c"), root.join("c"));
        assert_eq!(normal("/etc/./passwd"), Path::new("/etc/passwd"));
        assert_eq!(normal("/.."), Path::new("/"));
    }

    #[test]
    fn a_literal_cannot_be_written_and_a_variable_can() {
        let own = Tid::new(std::process::id() as i32);
        let variable = 5_u8;
        assert!(is_read_only(own, "literal".as_ptr() as u64));
        assert!(!is_read_only(own, &raw const variable as u64));
    }
}
