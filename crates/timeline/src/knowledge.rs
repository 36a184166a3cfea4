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
            Some((first, change)) => Verdict::Contradicted { first, change },
            None if own => Verdict::Untouched,
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
            Some((first, change)) => Verdict::Contradicted { first, change },
            None => Verdict::Untouched,
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
