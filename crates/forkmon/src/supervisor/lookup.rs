//! From a path argument to a path: absolute, without links, and known to be in scope
//! or not.
//!
//! Most paths are looked up again and again, so that a path that was resolved
//! once costs one hash lookup. The way itself is `walk`'s concern.

use super::calls::At;
use super::run::Process;
use super::walk::{Last, Links, Met, Walk, Whose};
use crate::scope::Scope;
use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use tracee::{AddressSpace, RemoteAddr, Tid};

/// A looked-up path.
#[derive(Debug)]
pub(super) struct Name {
    walk: Walk,
    /// Whether accesses of it count.
    pub(super) in_scope: bool,
    /// What counts of that which was met on the way.
    pub(super) met: Vec<Met>,
}

impl Name {
    fn new(scope: &Scope, walk: Walk) -> Self {
        let mut met = walk.met.clone();
        met.retain(|met| scope.contains(met.at()));
        Self {
            in_scope: scope.contains(&walk.path)
                || walk.spelled != walk.path && scope.contains(&walk.spelled),
            met,
            walk,
        }
    }

    /// Absolute; without dots, and without links but for a last one that is not
    /// followed.
    pub(super) fn path(&self) -> &Path {
        &self.walk.path
    }

    /// Whether a call gets to what the path names. If not, it fails because of what
    /// is at `path`, which is something on the way.
    pub(super) fn is_reached(&self) -> bool {
        self.walk.arrived
    }
}

/// What a path argument turned out to be.
pub(super) enum Found {
    Name(Rc<Name>),
    /// An empty path: the call is about the fd.
    Empty,
    /// The call will fail, whatever files there are.
    Fails,
    /// Nobody but the kernel may look into the process.
    Hidden,
}

/// The longest path that the kernel takes, with its zero byte.
const PATH_MAX: usize = 4096;

/// Resolved paths, by the folder that they are relative to (none for absolute ones).
type Known = HashMap<Option<Rc<Path>>, HashMap<OsString, Rc<Name>>>;

/// The resolved paths so far.
#[derive(Debug, Default)]
pub(super) struct Lookups {
    /// By what becomes of a last link.
    known: [Known; 3],
    links: Links,
    /// Folders that lie out of scope and were entered by a link in scope, with the
    /// name that they have there.
    entered: HashMap<PathBuf, PathBuf>,
}

impl Lookups {
    /// Reads a path argument of a stopped task and looks it up.
    pub(super) fn find(
        &mut self,
        scope: &Scope,
        task: Tid,
        process: Tid,
        of: &mut Process,
        at: At,
        last: Last,
    ) -> Found {
        if of.empty_strings.contains(&at.path.0) {
            return Found::Empty;
        }
        let text = match read_path(task, at.path) {
            Ok(text) => text,
            Err(found) => return found,
        };
        if text.is_empty() {
            if is_read_only(process, at.path.0) {
                of.empty_strings.insert(at.path.0);
            }
            return Found::Empty;
        }
        let whose = Whose {
            task,
            process,
            root: Path::new("/"),
        };
        match base(process, of, &text, at.folder) {
            Ok(base) => Found::Name(self.name(scope, whose, base, text, last)),
            Err(found) => found,
        }
    }

    /// The same for openat2 with RESOLVE_IN_ROOT: the folder is the root, too.
    pub(super) fn find_in_root(
        &mut self,
        scope: &Scope,
        task: Tid,
        process: Tid,
        of: &mut Process,
        at: At,
        last: Last,
    ) -> Found {
        let text = match read_path(task, at.path) {
            Ok(text) if text.is_empty() => return Found::Empty,
            Ok(text) => text,
            Err(found) => return found,
        };
        let root = match base(process, of, OsStr::new("."), at.folder) {
            Ok(Some(root)) => root,
            Ok(None) => return Found::Fails,
            Err(found) => return found,
        };
        let whose = Whose {
            task,
            process,
            root: &root,
        };
        let start = Walk::from(&root, self.entered.get(&*root).map(PathBuf::as_path));
        let walk = start.on(&text, last, whose, &mut self.links, scope);
        Found::Name(Rc::new(Name::new(scope, walk)))
    }

    /// Looks up a path that the kernel takes from elsewhere than an argument.
    pub(super) fn name(
        &mut self,
        scope: &Scope,
        whose: Whose<'_>,
        base: Option<Rc<Path>>,
        text: OsString,
        last: Last,
    ) -> Rc<Name> {
        let known = &self.known[last as usize];
        if let Some(name) = known.get(&base).and_then(|known| known.get(&text)) {
            return Rc::clone(name);
        }
        // The folder that it is in is looked up by itself: others in it will follow.
        let walk = match split(&text) {
            Some((folder, name)) => {
                let folder = folder.to_owned();
                let parent = match self.get(base.as_ref(), &folder) {
                    Some(parent) => parent,
                    None => {
                        let walk = self.walk(scope, whose, base.as_deref(), &folder, Last::Follow);
                        self.keep(scope, base.clone(), folder, Last::Follow, walk)
                    }
                };
                if parent.is_reached() {
                    let start = parent.walk.clone();
                    start.on(name, last, whose, &mut self.links, scope)
                } else {
                    parent.walk.clone()
                }
            }
            None => self.walk(scope, whose, base.as_deref(), &text, last),
        };
        self.keep(scope, base, text, last, walk)
    }

    fn get(&self, base: Option<&Rc<Path>>, folder: &OsStr) -> Option<Rc<Name>> {
        let known = &self.known[Last::Follow as usize];
        known.get(&base.cloned())?.get(folder).map(Rc::clone)
    }

    fn walk(
        &mut self,
        scope: &Scope,
        whose: Whose<'_>,
        base: Option<&Path>,
        text: &OsStr,
        last: Last,
    ) -> Walk {
        let folder = base.unwrap_or(whose.root);
        let known_as = self.entered.get(folder).map(PathBuf::as_path);
        Walk::from(folder, known_as).on(text, last, whose, &mut self.links, scope)
    }

    fn keep(
        &mut self,
        scope: &Scope,
        base: Option<Rc<Path>>,
        text: OsString,
        last: Last,
        walk: Walk,
    ) -> Rc<Name> {
        let fleeting = walk.fleeting;
        let name = Rc::new(Name::new(scope, walk));
        if !fleeting {
            let known = &mut self.known[last as usize];
            let known = known.entry(base).or_default();
            known.insert(text, Rc::clone(&name));
        }
        name
    }

    /// The guest opened a folder or made it its working folder: what it looks up
    /// from there counts, if the name that it used is in scope.
    pub(super) fn entered(&mut self, scope: &Scope, name: &Name) {
        if name.in_scope
            && name.walk.spelled != name.walk.path
            && !scope.contains(&name.walk.path)
            && name.path().is_dir()
        {
            let spelled = name.walk.spelled.clone();
            if self.entered.insert(name.walk.path.clone(), spelled.clone()) != Some(spelled) {
                self.known = Default::default();
            }
        }
    }

    /// The name in scope of a folder that lies out of it, if it was entered by one.
    pub(super) fn name_in_scope(&self, folder: &Path) -> Option<&Path> {
        self.entered.get(folder).map(PathBuf::as_path)
    }

    /// The guest changed a path: what was known of it may not hold any more.
    pub(super) fn changed(&mut self, path: &Path) {
        if self.links.has_changed(path) {
            self.forget();
        }
    }

    /// Files were put back: nothing that was known need hold any more.
    pub(super) fn forget(&mut self) {
        self.known = Default::default();
        self.links.forget();
    }
}

/// Splits a path before its last component, unless that is one of dots or has a
/// slash behind it.
fn split(text: &OsStr) -> Option<(&OsStr, &OsStr)> {
    let bytes = text.as_bytes();
    let slash = bytes.iter().rposition(|&byte| byte == b'/')?;
    let (folder, name) = (&bytes[..=slash], &bytes[slash + 1..]);
    let plain = !matches!(name, b"" | b"." | b"..");
    plain.then(|| (OsStr::from_bytes(folder), OsStr::from_bytes(name)))
}

fn read_path(task: Tid, at: RemoteAddr) -> Result<OsString, Found> {
    match AddressSpace::of(task).read_string(at, PATH_MAX) {
        Ok(Some(text)) => Ok(text),
        Err(error) if error.errno() == Some(libc::EPERM) => Err(Found::Hidden),
        // Too long, not mapped, or the task is dead.
        Ok(None) | Err(_) => Err(Found::Fails),
    }
}

/// The folder that a path is relative to; `None` for an absolute one.
fn base(
    process: Tid,
    of: &mut Process,
    text: &OsStr,
    folder: i32,
) -> Result<Option<Rc<Path>>, Found> {
    if text.as_bytes().first() == Some(&b'/') {
        return Ok(None);
    }
    if folder == libc::AT_FDCWD {
        return folder_of(process, of).map(Some);
    }
    match fs::read_link(format!("/proc/{process}/fd/{folder}")) {
        Ok(folder) if folder.is_absolute() => Ok(Some(Rc::from(folder))),
        Err(error) if error.kind() == ErrorKind::PermissionDenied => Err(Found::Hidden),
        _ => Err(Found::Fails),
    }
}

/// The working folder of a process.
pub(super) fn folder_of(process: Tid, of: &mut Process) -> Result<Rc<Path>, Found> {
    if let Some(folder) = &of.folder {
        return Ok(Rc::clone(folder));
    }
    match fs::read_link(format!("/proc/{process}/cwd")) {
        Ok(folder) => {
            let folder: Rc<Path> = Rc::from(folder);
            of.folder = Some(Rc::clone(&folder));
            Ok(folder)
        }
        Err(error) if error.kind() == ErrorKind::PermissionDenied => Err(Found::Hidden),
        Err(_) => Err(Found::Fails),
    }
}

/// Whether an address lies in a mapping that the process cannot write to.
fn is_read_only(process: Tid, address: u64) -> bool {
    let Ok(maps) = fs::read(format!("/proc/{process}/maps")) else {
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
    fn a_path_is_split_before_a_plain_name() {
        let halves = |text: &'static str| {
            split(OsStr::new(text)).map(|(a, b)| (a.to_str().unwrap(), b.to_str().unwrap()))
        };
        assert_eq!(halves("a/b/c"), Some(("a/b/", "c")));
        assert_eq!(halves("/c"), Some(("/", "c")));
        for whole in ["c", "a/", "a/.", "a/..", "", "/"] {
            assert_eq!(halves(whole), None, "{whole}");
        }
    }

    #[test]
    fn a_literal_cannot_be_written_and_a_variable_can() {
        let own = Tid::new(std::process::id() as i32);
        let variable = 5_u8;
        assert!(is_read_only(own, "literal".as_ptr() as u64));
        assert!(!is_read_only(own, &raw const variable as u64));
    }
}
