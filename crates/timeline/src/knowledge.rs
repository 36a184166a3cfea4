//! All that the guest has learned and written: one history a path, and what the
//! state of a path, held against it and its folder's, contradicts.
//!
//! The order in which paths were touched is left to `timeline`, the rule for one
//! fact to `rules`.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::path::Path;
use std::sync::Arc;

use crate::access::{AccessIndex, Current, Observation};
use crate::history::History;
use crate::rules::{ChangeKind, Verdict};

/// The histories of the paths; none is empty.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Knowledge {
    histories: HashMap<Arc<Path>, History>,
}

impl Knowledge {
    pub(crate) fn of(&self, path: &Path) -> Option<&History> {
        self.histories.get(path)
    }

    pub(crate) fn of_mut(&mut self, path: &Path) -> Option<&mut History> {
        self.histories.get_mut(path)
    }

    /// How many paths were touched or written.
    pub(crate) fn paths(&self) -> usize {
        self.histories.len()
    }

    pub(crate) fn clear(&mut self) {
        self.histories.clear();
    }

    /// Adds to the history of a path, and returns the path for the log.
    pub(crate) fn extend(&mut self, path: &Path, add: impl FnOnce(&mut History)) -> Arc<Path> {
        if let Some((known, _)) = self.histories.get_key_value(path) {
            let known = Arc::clone(known);
            if let Some(history) = self.histories.get_mut(path) {
                add(history);
            }
            return known;
        }
        let path: Arc<Path> = Arc::from(path);
        add(self.histories.entry(Arc::clone(&path)).or_default());
        path
    }

    /// Takes something back from the history of a path.
    pub(crate) fn shorten(&mut self, path: &Path, take: impl FnOnce(&mut History)) {
        if let Some(history) = self.histories.get_mut(path) {
            take(history);
            if history.is_empty() {
                self.histories.remove(path);
            }
        }
    }

    /// Whether the guest wrote this name in a folder.
    pub(crate) fn is_own(&self, folder: &Path, name: &OsStr) -> bool {
        self.histories
            .get(folder.join(name).as_path())
            .is_some_and(|history| history.wrote().is_some())
    }

    /// What the state of a path contradicts; see
    /// [`Timeline::judge`](crate::Timeline::judge).
    pub(crate) fn judge(&self, path: &Path, now: &Current) -> Verdict {
        let Some(history) = self.of(path) else {
            return Verdict::Untouched;
        };
        if !history.touched() {
            return Verdict::Untouched;
        }
        let own = history.wrote().is_some();
        match history.first_contradiction(now, |name| self.is_own(path, name)) {
            Some((first, change)) => self.contradicted(path, now, first, change),
            None if own => Verdict::Untouched,
            None if history.is_unread(now) => Verdict::Unread,
            None => Verdict::Unchanged,
        }
    }

    /// The same for one that somebody else changed after the guest wrote it; see
    /// [`Timeline::judge_foreign`](crate::Timeline::judge_foreign).
    pub(crate) fn judge_foreign(&self, path: &Path, now: &Current) -> Verdict {
        let Some(history) = self.of(path) else {
            return Verdict::Untouched;
        };
        let Some(wrote) = history.wrote() else {
            return self.judge(path, now);
        };
        let there = !matches!(now, Current::Missing);
        let touched = history.facts().first().map(|fact| {
            let change = match (&fact.seen, there) {
                (_, false) => ChangeKind::Removed,
                (Observation::Missing, true) => ChangeKind::Created,
                (_, true) => ChangeKind::Modified,
            };
            (fact.index, change)
        });
        let listed = self.first_other_listing(path, there, wrote);
        let earliest = touched
            .into_iter()
            .chain(listed)
            .min_by_key(|(first, _)| *first);
        match earliest {
            Some((first, change)) => self.contradicted(path, now, first, change),
            None => Verdict::Untouched,
        }
    }

    /// What somebody put into a folder that the guest made or renamed is not there
    /// without the folder: a fresh run finds that, too, where this one made it.
    fn contradicted(
        &self,
        path: &Path,
        now: &Current,
        first: AccessIndex,
        change: ChangeKind,
    ) -> Verdict {
        let there = !matches!(now, Current::Missing);
        let own_folders = path
            .ancestors()
            .take_while(|_| there)
            .filter_map(|folder| self.of(folder))
            .filter(|history| history.wrote().is_some());
        let made = own_folders.filter_map(|history| Some(history.facts().first()?.index));
        Verdict::Contradicted {
            first: made.fold(first, AccessIndex::min),
            change,
        }
    }

    /// The first listing of the path's folder, before `until`, that did not show
    /// it as it is now.
    fn first_other_listing(
        &self,
        path: &Path,
        there: bool,
        until: AccessIndex,
    ) -> Option<(AccessIndex, ChangeKind)> {
        let (folder, name) = (path.parent()?, path.file_name()?);
        let change = if there {
            ChangeKind::Created
        } else {
            ChangeKind::Removed
        };
        let facts = self.histories.get(folder)?.facts();
        facts
            .iter()
            .take_while(|fact| fact.index < until)
            .find(|fact| match &fact.seen {
                Observation::Listing(names) => names.contains(name) != there,
                _ => false,
            })
            .map(|fact| (fact.index, change))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::{FileKind, Identity, Metadata};

    fn path(name: &str) -> Arc<Path> {
        Arc::from(Path::new(name))
    }

    /// A guest that finds no `/out`, makes it, and looks for `/out/x` in it.
    fn made_a_folder() -> Knowledge {
        let mut knowledge = Knowledge::default();
        for (index, name) in [(3, "/out"), (5, "/out/x"), (7, "/other/x")] {
            knowledge.extend(&path(name), |history| {
                history.push(AccessIndex(index), Observation::Missing, false);
            });
        }
        knowledge.extend(&path("/out"), |history| {
            history.set_wrote(AccessIndex(4));
        });
        knowledge
    }

    fn file() -> Current {
        let identity = Identity {
            device: 1,
            inode: 2,
            size: 3,
            mtime_ns: 4,
            ctime_ns: 5,
        };
        Current::File {
            metadata: Metadata {
                kind: FileKind::Regular,
                mode: 0o644,
                identity,
            },
            fingerprint: None,
            agrees: None,
        }
    }

    #[test]
    fn what_is_put_into_a_folder_of_the_guests_own_contradicts_its_making() {
        let knowledge = made_a_folder();
        let first = |name: &str| knowledge.judge(&path(name), &file()).contradiction();
        assert_eq!(first("/out/x"), Some(AccessIndex(3)));
        assert_eq!(first("/other/x"), Some(AccessIndex(7)));
    }
}
