//! The way from a path's text to the file that it names: component by component,
//! as the kernel goes (path_resolution(7)), with what was met on it.
//!
//! Links are read once and remembered, since most paths share their folders; who
//! changes one says so ([`Links::has_changed`]). Which of the names met count, and
//! where the text comes from, is `lookup`'s concern.

use crate::scope::Scope;
use std::collections::{HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use tracee::Tid;

/// What becomes of a link that a path ends in.
#[derive(Copy, Clone, Eq, PartialEq, Hash, Debug)]
pub(super) enum Last {
    /// It is followed.
    Follow,
    /// It is meant itself, unless a slash follows it.
    Keep,
    /// It is meant itself, since the call is about the name.
    Name,
}

/// A name on the way whose own state decides where the way leads.
#[derive(Clone, Eq, PartialEq, Debug)]
pub(super) enum Met {
    /// A link that was followed, and its target.
    Link { at: PathBuf, target: PathBuf },
    /// Something that `..` was looked up in, which has to be a folder.
    Left { at: PathBuf },
}

impl Met {
    /// Where it is.
    pub(super) fn at(&self) -> &Path {
        let (Met::Link { at, .. } | Met::Left { at }) = self;
        at
    }
}

/// The way so far.
#[derive(Clone, Debug, Default)]
pub(super) struct Walk {
    /// Where it is: absolute, with neither dots nor links in it, but for a last one
    /// that is not followed.
    pub(super) path: PathBuf,
    /// The same place as the text has it: links are not replaced.
    pub(super) spelled: PathBuf,
    pub(super) met: Vec<Met>,
    /// Whether it got to the end of the text. If not, the call fails because of
    /// what is (or is not) at `path`.
    pub(super) arrived: bool,
    /// The text means another file next time, or in another process.
    pub(super) fleeting: bool,
}

/// Whose path it is.
#[derive(Copy, Clone, Debug)]
pub(super) struct Whose<'a> {
    pub(super) task: Tid,
    pub(super) process: Tid,
    /// What `/` stands for.
    pub(super) root: &'a Path,
}

/// Links that are followed before the kernel gives up (path_resolution(7)).
const MOST_LINKS: u32 = 40;

impl Walk {
    /// A way that begins in a folder, which the guest knows by a name of its own if
    /// it came there by a link.
    pub(super) fn from(folder: &Path, known_as: Option<&Path>) -> Self {
        Self {
            path: folder.to_owned(),
            spelled: known_as.unwrap_or(folder).to_owned(),
            met: Vec::new(),
            arrived: true,
            fleeting: false,
        }
    }

    /// Goes on from here.
    pub(super) fn on(
        mut self,
        text: &OsStr,
        last: Last,
        whose: Whose<'_>,
        links: &mut Links,
        scope: &Scope,
    ) -> Self {
        let mut rest = text.as_bytes().to_vec();
        // How much of the rest is of the text itself, and not of a link's target.
        let mut own = rest.len();
        let mut followed = 0;
        // Whether what `..` comes next to is there for sure: where it began, and what
        // holds a link that was followed or a folder that was left.
        let mut sure = true;
        if rest.first() == Some(&b'/') {
            self.go_to_root(whose);
            self.spelled.clone_from(&self.path);
        }
        while self.arrived
            && let Some((name, after)) = next_component(&rest)
        {
            let is_own = rest.len() - (after - name.len()) <= own;
            let tail = rest.split_off(after);
            if name == ".." {
                if !sure {
                    if !links.is_folder(&self.path) {
                        self.arrived = false;
                        break;
                    }
                    self.met.push(Met::Left {
                        at: self.path.clone(),
                    });
                }
                sure = true;
                if self.path != whose.root {
                    self.path.pop();
                }
                if is_own {
                    self.spelled.clone_from(&self.path);
                }
                rest = tail;
                continue;
            }
            if is_own {
                self.spelled.push(&name);
            }
            let is_last = match last {
                Last::Follow => false,
                Last::Keep => tail.is_empty(),
                Last::Name => next_component(&tail).is_none(),
            };
            if self.path.starts_with("/proc") && self.step_in_proc(&name, is_last, whose) {
                sure = false;
                rest = tail;
                continue;
            }
            let target = if is_last || self.path.starts_with("/sys") {
                None
            } else {
                links.target(&self.path, &name, scope)
            };
            let Some(target) = target else {
                self.path.push(&name);
                sure = false;
                rest = tail;
                continue;
            };
            sure = true;
            followed += 1;
            let at = self.path.join(&name);
            if followed > MOST_LINKS {
                self.path = at;
                self.arrived = false;
                break;
            }
            own = own.min(tail.len());
            rest = target.as_os_str().as_bytes().to_vec();
            rest.extend_from_slice(&tail);
            if target.is_absolute() {
                self.go_to_root(whose);
            }
            self.met.push(Met::Link { at, target });
        }
        self
    }

    fn go_to_root(&mut self, whose: Whose<'_>) {
        self.path.clear();
        self.path.push(whose.root);
    }

    /// A name in `/proc`: what is the reader's own there is the guest's, and the
    /// links of a process lead to files, whatever they say. False for a plain name.
    fn step_in_proc(&mut self, name: &OsStr, is_last: bool, whose: Whose<'_>) -> bool {
        let process = whose.process;
        if self.path == Path::new("/proc") {
            let is_number = name.as_bytes().iter().all(u8::is_ascii_digit);
            self.fleeting |= is_number || name == "self" || name == "thread-self";
            if is_number || is_last && self.fleeting {
                self.path.push(name);
            } else if name == "self" {
                self.path.push(process.to_string());
            } else if name == "thread-self" {
                self.path.push(format!("{process}/task/{}", whose.task));
            } else {
                return false;
            }
            return true;
        }
        if !self.fleeting && !is_of_a_process(&self.path) {
            return false;
        }
        self.fleeting = true;
        self.path.push(name);
        if !is_last && let Some(file) = file_behind(&self.path) {
            self.spelled.clone_from(&file);
            self.path = file;
        }
        true
    }
}

fn is_of_a_process(path: &Path) -> bool {
    path.strip_prefix("/proc")
        .ok()
        .and_then(|below| below.iter().next())
        .is_some_and(|name| name.as_bytes().iter().all(u8::is_ascii_digit))
}

/// The file that a link of a process leads to (`cwd`, `root`, `exe`, `fd/3`); `None`
/// if it has no name any more, or is no file.
fn file_behind(link: &Path) -> Option<PathBuf> {
    let name = fs::read_link(link).ok()?;
    if !name.is_absolute() {
        return None;
    }
    let (meant, named) = (fs::metadata(link).ok()?, fs::symlink_metadata(&name).ok()?);
    ((meant.dev(), meant.ino()) == (named.dev(), named.ino())).then_some(name)
}

/// The next component that is not empty and not `.`, and where what follows it
/// begins.
fn next_component(rest: &[u8]) -> Option<(OsString, usize)> {
    let mut at = 0;
    while at < rest.len() {
        let from = at;
        at = rest[from..]
            .iter()
            .position(|&byte| byte == b'/')
            .map_or(rest.len(), |length| from + length);
        let name = &rest[from..at];
        if !name.is_empty() && name != b"." {
            return Some((OsString::from_vec(name.to_vec()), at));
        }
        at += 1;
    }
    None
}

/// After so many names in a folder out of scope it is listed instead of asking for
/// the next.
const ASK_AT_MOST: u32 = 8;

/// A folder with more entries than that is not listed.
const LIST_AT_MOST: usize = 8192;

/// Which names are links, as far as it was asked for.
#[derive(Debug, Default)]
pub(super) struct Links {
    folders: HashMap<PathBuf, Names>,
    /// What `..` was looked up in, and whether it was a folder.
    left: HashMap<PathBuf, bool>,
}

/// The names in one folder.
#[derive(Debug, Default)]
struct Names {
    asked: HashMap<OsString, Option<PathBuf>>,
    /// How many more are asked for before the folder is listed; `None` if it is
    /// not to be.
    patience: Option<u32>,
    /// All links in it, once it has been listed.
    listed: Option<HashSet<OsString>>,
}

impl Names {
    fn of(folder: &Path, scope: &Scope) -> Self {
        Self {
            // In scope, a listing could be out of date before anybody notices.
            patience: (!scope.may_contain_below(folder)).then_some(ASK_AT_MOST),
            ..Self::default()
        }
    }
}

impl Links {
    /// Where a link leads; `None` if it is none.
    fn target(&mut self, folder: &Path, name: &OsStr, scope: &Scope) -> Option<PathBuf> {
        if !self.folders.contains_key(folder) {
            let names = Names::of(folder, scope);
            self.folders.insert(folder.to_owned(), names);
        }
        let names = self.folders.get_mut(folder)?;
        if let Some(target) = names.asked.get(name) {
            return target.clone();
        }
        if let Some(links) = &names.listed
            && !links.contains(name)
        {
            return None;
        }
        if let Some(left) = &mut names.patience {
            *left = left.saturating_sub(1);
            if *left == 0 {
                names.patience = None;
                names.listed = links_in(folder);
            }
        }
        let target = fs::read_link(folder.join(name)).ok();
        names.asked.insert(name.to_owned(), target.clone());
        target
    }

    fn is_folder(&mut self, path: &Path) -> bool {
        if let Some(is_folder) = self.left.get(path) {
            return *is_folder;
        }
        let is_folder = fs::symlink_metadata(path).is_ok_and(|found| found.is_dir());
        self.left.insert(path.to_owned(), is_folder);
        is_folder
    }

    /// Whether a path that somebody changed is not any more what was said of it.
    pub(super) fn has_changed(&self, path: &Path) -> bool {
        let said = || {
            let names = self.folders.get(path.parent()?)?;
            let name = path.file_name()?;
            let unasked = names.listed.is_some().then_some(&None);
            names.asked.get(name).or(unasked)
        };
        said().is_some_and(|target| *target != fs::read_link(path).ok())
            || self.left.get(path).is_some_and(|was_folder| {
                *was_folder != fs::symlink_metadata(path).is_ok_and(|found| found.is_dir())
            })
    }

    /// Forgets all of it.
    pub(super) fn forget(&mut self) {
        self.folders.clear();
        self.left.clear();
    }
}

/// The links in a folder; `None` if it cannot be listed or is too large.
fn links_in(folder: &Path) -> Option<HashSet<OsString>> {
    let mut links = HashSet::new();
    for (count, entry) in fs::read_dir(folder).ok()?.enumerate() {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scope::Request;
    use std::os::unix::fs::symlink;

    /// A folder with `a/b/`, `a/c`, `file` and some links, and walks in it.
    struct Place {
        root: PathBuf,
        scope: Scope,
        _folder: tempfile::TempDir,
    }

    impl Place {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let root = folder.path().canonicalize().unwrap();
            fs::create_dir_all(root.join("a/b")).unwrap();
            for file in ["a/c", "file"] {
                fs::write(root.join(file), "").unwrap();
            }
            for (link, target) in [
                ("link", "a/b"),
                ("absolute", root.join("a").to_str().unwrap()),
                ("chain", "link/"),
                ("loop", "loop"),
                ("dangling", "missing/x"),
                ("a/up", "../file"),
            ] {
                symlink(target, root.join(link)).unwrap();
            }
            let scope = Scope::new(&Request {
                cwd: root.clone(),
                ..Request::default()
            })
            .unwrap();
            Self {
                root,
                scope,
                _folder: folder,
            }
        }

        fn walk_as(&self, text: &str, last: Last, root: &Path) -> Walk {
            let own = Tid::new(std::process::id() as i32);
            let whose = Whose {
                task: own,
                process: own,
                root,
            };
            Walk::from(&self.root, None).on(
                OsStr::new(text),
                last,
                whose,
                &mut Links::default(),
                &self.scope,
            )
        }

        fn walk(&self, text: &str, last: Last) -> Walk {
            self.walk_as(text, last, Path::new("/"))
        }

        /// Where it ends, the links on it and what was left by `..`.
        fn way(&self, text: &str, last: Last) -> (String, Vec<String>, bool) {
            let walk = self.walk(text, last);
            let below = |path: &Path| {
                let below = path.strip_prefix(&self.root).unwrap_or(path);
                below.to_str().unwrap().to_owned()
            };
            let met = walk.met.iter().map(|met| match met {
                Met::Link { at, .. } => below(at),
                Met::Left { at } => below(at) + "/..",
            });
            (below(&walk.path), met.collect(), walk.arrived)
        }
    }

    fn way(path: &str, met: &[&str]) -> (String, Vec<String>, bool) {
        let met = met.iter().map(|&name| name.to_owned()).collect();
        (path.to_owned(), met, true)
    }

    fn fails_at(path: &str, met: &[&str]) -> (String, Vec<String>, bool) {
        let (path, met, _) = way(path, met);
        (path, met, false)
    }

    #[test]
    fn it_goes_where_the_kernel_goes() {
        let place = Place::new();
        let follow = |text| place.way(text, Last::Follow);
        assert_eq!(follow("./x//y/."), way("x/y", &[]));
        assert_eq!(follow("link"), way("a/b", &["link"]));
        assert_eq!(follow("link/z"), way("a/b/z", &["link"]));
        assert_eq!(follow("link/../c"), way("a/c", &["link", "a/b/.."]));
        assert_eq!(follow("chain/z"), way("a/b/z", &["chain", "link"]));
        assert_eq!(follow("absolute/up"), way("file", &["absolute", "a/up"]));
        assert_eq!(follow("dangling"), way("missing/x", &["dangling"]));
        assert_eq!(follow("missing/../c"), fails_at("missing", &[]));
        assert_eq!(follow("file/../c"), fails_at("file", &[]));
        assert_eq!(follow("/etc/./passwd"), way("/etc/passwd", &[]));
        assert_eq!(follow("/.."), way("/", &[]));
        let (path, _, arrived) = follow("loop/x");
        assert_eq!((path.as_str(), arrived), ("loop", false));
    }

    #[test]
    fn a_last_link_is_followed_by_those_who_follow_and_before_a_slash() {
        let place = Place::new();
        assert_eq!(place.way("link", Last::Keep), way("link", &[]));
        assert_eq!(place.way("link/", Last::Keep), way("a/b", &["link"]));
        assert_eq!(place.way("link/.", Last::Keep), way("a/b", &["link"]));
        assert_eq!(place.way("link/", Last::Name), way("link", &[]));
        assert_eq!(
            place.way("chain/z", Last::Name),
            way("a/b/z", &["chain", "link"])
        );
    }

    #[test]
    fn what_the_kernel_finds_is_found() {
        let place = Place::new();
        for text in [
            "a/c",
            "link/../c",
            "absolute/../file",
            "chain/../up",
            "a/b/../up",
        ] {
            let there = place.root.join(text).canonicalize().unwrap();
            assert_eq!(place.walk(text, Last::Follow).path, there, "{text}");
        }
    }

    #[test]
    fn another_root_is_not_left() {
        let place = Place::new();
        let walk = place.walk_as("/../a/./c", Last::Follow, &place.root);
        assert_eq!(walk.path, place.root.join("a/c"));
        let walk = place.walk_as("absolute", Last::Follow, &place.root);
        assert!(walk.path.starts_with(&place.root) && walk.path != place.root.join("a"));
    }

    #[test]
    fn links_are_spelled_as_they_were_typed() {
        let place = Place::new();
        let spelled = |text| place.walk(text, Last::Follow).spelled;
        assert_eq!(spelled("chain/z"), place.root.join("chain/z"));
        assert_eq!(spelled("link/../c"), place.root.join("a/c"));
        assert_eq!(spelled("absolute/up"), place.root.join("absolute/up"));
    }

    #[test]
    fn what_is_the_guests_own_in_proc_is_found() {
        let place = Place::new();
        let own = std::process::id();
        let file = fs::File::open(place.root.join("file")).unwrap();
        let fd = std::os::fd::AsRawFd::as_raw_fd(&file);
        for text in [
            format!("/proc/self/fd/{fd}"),
            format!("/proc/{own}/fd/{fd}"),
            format!("/dev/fd/{fd}"),
            format!("/proc/thread-self/root{}/file", place.root.display()),
        ] {
            let walk = place.walk(&text, Last::Follow);
            assert_eq!(walk.path, place.root.join("file"), "{text}");
            assert!(walk.fleeting, "{text}");
        }
        let here = std::env::current_dir().unwrap();
        let walk = place.walk("/proc/self/cwd/x", Last::Follow);
        assert_eq!(walk.path, here.join("x"));
        // A file without a name, and no file at all.
        fs::remove_file(place.root.join("file")).unwrap();
        let walk = place.walk(&format!("/dev/fd/{fd}"), Last::Follow);
        assert_eq!(walk.path, Path::new(&format!("/proc/{own}/fd/{fd}")));
        let walk = place.walk("/proc/self/maps", Last::Follow);
        assert_eq!(walk.path, Path::new(&format!("/proc/{own}/maps")));
        assert!(!place.walk("/proc/version", Last::Follow).fleeting);
    }

    #[test]
    fn a_change_of_what_was_said_is_noticed() {
        let place = Place::new();
        let own = Tid::new(std::process::id() as i32);
        let whose = Whose {
            task: own,
            process: own,
            root: Path::new("/"),
        };
        let mut links = Links::default();
        let start = Walk::from(&place.root, None);
        start.on(
            OsStr::new("link/../c"),
            Last::Follow,
            whose,
            &mut links,
            &place.scope,
        );
        let path = |name: &str| place.root.join(name);
        for name in ["link", "a", "a/b", "a/c", "file"] {
            assert!(!links.has_changed(&path(name)), "{name}");
        }
        fs::remove_file(path("link")).unwrap();
        fs::remove_dir(path("a/b")).unwrap();
        fs::remove_file(path("a/c")).unwrap();
        assert!(links.has_changed(&path("link")));
        assert!(links.has_changed(&path("a/b")));
        // It is no link, as before.
        assert!(!links.has_changed(&path("a/c")));
    }
}
