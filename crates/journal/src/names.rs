//! What the guest left under each name that it changed, and whether it still lies
//! there.

use std::path::{Path, PathBuf};

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
            for (path, id) in entry.change.names() {
                self.names.insert(path.clone(), id);
            }
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
