//! What the guest left under each name that it changed, and whether it still lies
//! there.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::os::unix::fs::DirEntryExt;
use std::path::{Path, PathBuf};

use rustix::fs::FileType;

use crate::attributes::{Attributes, OwnAttributes, Stamp};
use crate::entry::Change;
use crate::file::{FileId, Look, Place, locate};
use crate::journal::Journal;

impl Journal {
    /// Whether the guest has changed what lies under a path. A link is not followed.
    #[must_use]
    pub fn wrote(&self, path: &Path) -> bool {
        self.expected(path).is_some()
    }

    /// Whether the guest changed what lies under a path and somebody else has changed it
    /// since, or while the guest was at it. A write that overlaps with one of the
    /// guest's may show only once both have closed the file.
    pub fn foreign(&mut self, path: &Path) -> bool {
        self.provenance.drain();
        let Some((place, expected)) = self.expected(path) else {
            return false;
        };
        let found = match Look::at(&place, false) {
            Ok(look) => look.map(|look| look.id),
            Err(_) => return true,
        };
        let tracked = found.and_then(|id| self.provenance.get(id));
        found != expected || tracked.is_some_and(|file| file.foreign.is_some())
    }

    /// The names that the guest changed and somebody else has changed since. Looks at
    /// each of them.
    pub fn changed_by_others(&mut self) -> Vec<PathBuf> {
        let names: Vec<PathBuf> = self.names.keys().cloned().collect();
        names
            .into_iter()
            .filter(|name| self.foreign(name))
            .collect()
    }

    /// Whether the file under a path is one that the guest has written to, by this
    /// or another of its names, and nobody else has.
    pub fn wrote_file(&mut self, path: &Path) -> bool {
        self.provenance.drain();
        let Ok(Some(look)) = Look::at(path, false) else {
            return false;
        };
        let file = self.provenance.get(look.id);
        file.is_some_and(|file| file.unwatched.is_none() && file.foreign.is_none())
    }

    /// Whether a file has names in folders that the guest has not written in: nothing tells
    /// there of a close.
    pub(crate) fn has_unknown_names(&mut self, path: &Path, look: &Look) -> bool {
        if !look.is_regular() || look.links <= 1 {
            return false;
        }
        let names = self.names.iter().filter(|(_, id)| **id == Some(look.id));
        let folders: HashSet<PathBuf> = names
            .filter_map(|(name, _)| name.parent())
            .chain(path.parent())
            .map(Path::to_owned)
            .collect();
        let (_, inode) = look.id.numbers();
        let mut counted = HashSet::new();
        let mut known = 0;
        for folder in folders {
            // Another one may lie there by now, or the same by another path.
            let there = Look::at(&folder, true).ok().flatten();
            if there.is_none_or(|there| !counted.insert(there.id))
                || self.provenance.watch_folder(&folder).is_err()
            {
                continue;
            }
            let entries = fs::read_dir(&folder).into_iter().flatten().flatten();
            known += entries.filter(|entry| entry.ino() == inode).count();
        }
        known < look.links as usize
    }

    /// What the guest did to the mode and times of the file under a path whose bytes it
    /// left alone. A link is not followed.
    #[must_use]
    pub fn own_attributes(&self, path: &Path) -> Option<OwnAttributes> {
        if self.own_attributes.is_empty() {
            return None;
        }
        let look = Look::at(path, false).ok()??;
        self.own_attributes.get(&look.id).copied()
    }

    pub(crate) fn note_attributes(&mut self, id: FileId, before: &Attributes, after: &Attributes) {
        let after = Stamp::of(&after.look);
        let noted = self.own_attributes.entry(id).or_insert(OwnAttributes {
            before: Stamp::of(&before.look),
            after,
        });
        noted.after = after;
    }

    /// The guest's name that a path leads to, and what it left there.
    fn expected(&self, path: &Path) -> Option<(PathBuf, Option<FileId>)> {
        if let Some(expected) = self.names.get(path) {
            return Some((path.to_owned(), *expected));
        }
        // By another way to the same name, not by a link that leads to it: that is
        // somebody's own.
        let place: Place = locate(path, false).ok()??;
        let expected = *self.names.get(&place.path)?;
        Some((place.path, expected))
    }

    /// Names and attributes as the remaining entries leave them.
    pub(crate) fn rebuild_names(&mut self) {
        self.names = self.old_names.clone();
        self.own_attributes.clear();
        let entries = std::mem::take(&mut self.entries);
        for entry in &entries {
            note_names(&mut self.names, &entry.change);
            if let Change::Attributes {
                id, before, after, ..
            } = &entry.change
            {
                self.note_attributes(*id, before, after);
            }
        }
        self.entries = entries;
    }
}

/// What a change leaves under which names. With a folder go the names in it.
pub(crate) fn note_names(names: &mut HashMap<PathBuf, Option<FileId>>, change: &Change) {
    let folder = FileType::Directory;
    let moves: &[(&Path, &Path)] = match change {
        Change::Renamed {
            from, to, moved, ..
        } if moved.kind == folder => &[(from, to)],
        Change::Exchanged { a, b } => match (a.1.kind == folder, b.1.kind == folder) {
            (true, true) => &[(&a.0, &b.0), (&b.0, &a.0)],
            (true, false) => &[(&a.0, &b.0)],
            (false, true) => &[(&b.0, &a.0)],
            (false, false) => &[],
        },
        _ => &[],
    };
    let mut moved = Vec::new();
    for (path, id) in names.iter_mut() {
        let to = moves.iter().find_map(|(from, to)| {
            let name = path.strip_prefix(from).ok()?;
            (!name.as_os_str().is_empty()).then(|| to.join(name))
        });
        if let Some(to) = to {
            moved.push((to, id.take()));
        }
    }
    names.extend(moved);
    let own = change.names();
    names.extend(own.map(|(path, id)| (path.clone(), id)));
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::entry::Moved;
    use crate::file::test_id;

    fn folder() -> Moved {
        Moved {
            id: test_id(9),
            kind: FileType::Directory,
            copy: None,
            tree: None,
        }
    }

    /// They stayed where they had been: each look at one said that somebody had removed
    /// it, and the guest was resumed again and again.
    #[test]
    fn the_names_in_a_folder_go_with_it() {
        let mut names = HashMap::new();
        for (path, id) in [("/d/a", Some(1)), ("/d/e/b", None), ("/dd", Some(3))] {
            names.insert(PathBuf::from(path), id.map(test_id));
        }
        let renamed = Change::Renamed {
            from: "/d".into(),
            to: "/x".into(),
            moved: folder(),
            replaced: None,
        };
        note_names(&mut names, &renamed);
        let mut left: Vec<_> = names.iter().collect();
        left.sort();
        let left: Vec<_> = left
            .into_iter()
            .map(|(path, id)| (path.to_str().unwrap_or_default(), *id))
            .collect();
        let (a, d) = (Some(test_id(1)), Some(test_id(9)));
        let expected = [
            ("/d", None),
            ("/d/a", None),
            ("/d/e/b", None),
            ("/dd", Some(test_id(3))),
            ("/x", d),
            ("/x/a", a),
            ("/x/e/b", None),
        ];
        assert_eq!(left, expected);
    }

    #[test]
    fn the_names_in_exchanged_folders_are_exchanged() {
        let mut names = HashMap::new();
        for (path, id) in [("/a/n", 1), ("/b/n", 2), ("/b/m", 3)] {
            names.insert(PathBuf::from(path), Some(test_id(id)));
        }
        let exchanged = Change::Exchanged {
            a: ("/a".into(), folder()),
            b: ("/b".into(), folder()),
        };
        note_names(&mut names, &exchanged);
        let at = |path: &str| names.get(Path::new(path)).copied().flatten();
        let expected = [2, 3, 1].map(|id| Some(test_id(id)));
        assert_eq!([at("/a/n"), at("/a/m"), at("/b/n")], expected);
        assert_eq!(at("/b/m"), None);
    }
}
