//! What entries had saved and nobody needs any more. Of files that were there before the
//! journal and that nobody but the guest has changed, nothing is left. What somebody has
//! saved meanwhile, and the guest has written over or removed, stays: the last version of
//! each path, since they have superseded the others themselves.

use std::collections::hash_map::Entry;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use crate::entry::{Change, Moved};
use crate::file::Look;
use crate::journal::Journal;
use crate::shelf::{Item, Reason, called_like};
use crate::store::{Copy, Saved, SavedKind, begins, is_same};

/// What somebody saved, and the guest has only added to since: it is not lost yet.
#[derive(Debug)]
pub(crate) struct AddedTo {
    /// In the keep.
    lies: PathBuf,
    taken: SystemTime,
}

fn remove(lies: &Path) {
    // Should it stay there, it is one file too many.
    let _ = fs::remove_file(lies);
}

impl Journal {
    /// What the guest has written over or removed after somebody else had written it.
    pub(crate) fn written_over(&self) -> impl Iterator<Item = Item> {
        let changes = self.entries.iter().map(|entry| &entry.change);
        let changed = changes.filter_map(|change| match change {
            Change::Content { path, copy, .. } => {
                copy.persons.then_some((path.as_path(), &copy.path))
            }
            change => {
                let saved = change.saved().filter(|saved| saved.is_persons())?;
                Some((change.path(), &saved.path))
            }
        });
        let added_to = self.added_to.iter();
        let added_to = added_to.map(|(path, added)| (path.as_path(), &added.lies));
        let cut = added_to.filter(|(path, lies)| !begins(lies, path));
        changed.chain(cut).filter_map(|(path, lies)| {
            // Of a file with other names nothing lies there.
            let look = Look::at(lies, false).ok()??;
            let mut item = Item::new(path, look.size, Reason::ByTheGuest, lies.clone());
            item.stays = true;
            Some(item)
        })
    }

    /// What an entry had saved is not needed any more. What somebody else had written
    /// and the guest wrote over or removed stays all the same.
    pub(crate) fn retire(&mut self, change: Change) {
        match change {
            Change::Content { path, copy, .. } => {
                self.retire_copy(copy, &path);
            }
            Change::Removed { path, saved, .. } => self.retire_saved(saved, &path),
            Change::Renamed {
                to,
                moved,
                replaced,
                ..
            } => {
                self.retire_moved(moved, &to);
                self.retire_saved(replaced.and_then(|(_, saved)| saved), &to);
            }
            Change::Exchanged { a, b } => {
                self.retire_moved(a.1, &b.0);
                self.retire_moved(b.1, &a.0);
            }
            Change::Made { .. } | Change::Attributes { .. } | Change::Beyond { .. } => {}
        }
    }

    /// An entry about what was in the file later may have had the same copy.
    fn retire_moved(&mut self, moved: Moved, path: &Path) {
        if let Some(copy) = moved.copy {
            self.retire_copy(copy, path);
        }
    }

    /// The same of a copy, unless others need it.
    pub(crate) fn retire_copy(&mut self, copy: Arc<Copy>, path: &Path) {
        if !copy.persons || Arc::strong_count(&copy) > 1 {
            return;
        }
        if begins(&copy.path, path) {
            // In the keep it lies already, and takes no room there.
            copy.let_stay();
            let lies = copy.path.clone();
            let taken = copy.taken;
            self.note_added_to(path.to_owned(), AddedTo { lies, taken });
        } else if !self.is_saved_since(path, copy.taken) {
            self.keep_last(path, copy.taken, |journal| {
                journal.keep_copy(&copy, path, Reason::ByTheGuest);
            });
        }
    }

    fn note_added_to(&mut self, path: PathBuf, added: AddedTo) {
        match self.added_to.entry(path) {
            Entry::Occupied(mut known) if known.get().taken < added.taken => {
                remove(&known.insert(added).lies);
            }
            Entry::Occupied(_) => remove(&added.lies),
            Entry::Vacant(free) => drop(free.insert(added)),
        }
    }

    /// At the end the guest does not cut any more what it has added to.
    pub(crate) fn retire_added_to(&mut self) {
        for (path, AddedTo { lies, taken }) in std::mem::take(&mut self.added_to) {
            let is_there = begins(&lies, &path) || self.is_saved_since(&path, taken);
            if is_there || !self.shelf.supersede(&path, taken) {
                remove(&lies);
            } else {
                self.keep(lies, &path, Reason::ByTheGuest);
                self.shelf.note_taken(&path, taken);
            }
        }
    }

    /// Whether somebody has saved a later version than what was taken from a path then.
    fn is_saved_since(&self, path: &Path, taken: SystemTime) -> bool {
        let there = Look::at(path, false).ok().flatten();
        there.is_some_and(|there| {
            // Where they have it open besides the guest, the last close is anybody's.
            let file = self.provenance.get(there.id);
            let shared = file.is_some_and(|file| file.shared);
            // By a person, and not by an undo.
            !shared && self.is_persons(path, &there) && there.modified_at() >= taken
        })
    }

    pub(crate) fn retire_saved(&mut self, saved: Option<Saved>, path: &Path) {
        let Some(saved) = saved else {
            return;
        };
        match &saved.kind {
            // Its other names hold what it holds, as long as it has any.
            SavedKind::Handle { handle, .. }
                if Look::of(handle).is_ok_and(|look| look.links > 0) => {}
            _ if saved.is_persons() => {
                self.keep_last(path, saved.taken, |journal| {
                    journal.keep_saved(saved, path, Reason::ByTheGuest);
                });
            }
            SavedKind::Plain | SavedKind::Persons | SavedKind::Handle { .. } => {}
            SavedKind::Folder => {
                let mut names = fs::read_dir(&saved.path).into_iter().flatten();
                if names.next().is_some() {
                    // Somebody who stood in it has put something there.
                    self.keep_saved(saved, path, Reason::ByTheGuest);
                }
            }
        }
    }

    /// Keeps what was taken from a path, unless a later version of it is kept.
    fn keep_last(&mut self, path: &Path, taken: SystemTime, keep: impl FnOnce(&mut Journal)) {
        if self.shelf.supersede(path, taken) {
            keep(self);
            self.shelf.note_taken(path, taken);
        }
    }

    /// Lets a removed file outlive the journal.
    pub(crate) fn keep_saved(&mut self, saved: Saved, path: &Path, why: Reason) {
        if let Ok(to) = self.stores.fresh_in_keep(&called_like(&saved.path, path))
            && saved.put_at(&to).is_ok()
        {
            self.keep(to, path, why);
        }
    }

    /// Lets a copy outlive the journal, unless the file is as it was copied.
    pub(crate) fn keep_copy(&mut self, copy: &Copy, path: &Path, why: Reason) {
        if copy.look.size == 0 || is_same(&copy.path, path) {
            return;
        }
        let Ok(to) = self.stores.fresh_in_keep(&called_like(&copy.path, path)) else {
            return;
        };
        // By a copy, since others may need this one; a link needs no room.
        if self.with_room(|| copy.put_at(&to)).is_ok() || fs::hard_link(&copy.path, &to).is_ok() {
            self.keep(to, path, why);
        } else if copy.persons {
            // In the keep it lies already.
            copy.let_stay();
            self.keep(copy.path.clone(), path, why);
        }
    }
}
