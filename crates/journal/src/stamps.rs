//! Whose doing an inode's last change was: its names, mode, owner and attributes change
//! no time but that of the last change, and so does somebody who moves an old file to
//! where the guest writes. So that time is noted of each file on which the guest, or an
//! undo, does such a thing; a later one is somebody else's.

use std::collections::HashMap;
use std::path::Path;
use std::time::SystemTime;

use crate::entry::Change;
use crate::file::{FileId, Look};
use crate::journal::Journal;
use crate::store::Saved;

/// The times of last change that the guest and undos have left.
#[derive(Debug, Default)]
pub(crate) struct Stamps {
    left: HashMap<FileId, SystemTime>,
}

impl Stamps {
    /// A file is as the guest or an undo has left it, or as somebody else has (`persons`).
    fn note(&mut self, look: &Look, persons: bool) {
        if persons {
            self.left.remove(&look.id);
        } else {
            self.left.insert(look.id, look.changed_at());
        }
    }

    /// A file is about to be gone.
    pub(crate) fn forget(&mut self, id: FileId) {
        self.left.remove(&id);
    }

    /// An undo has put back what lies under a name now; `id`, if that is known.
    pub(crate) fn put_back(&mut self, path: &Path, id: Option<FileId>, persons: bool) {
        if let Ok(Some(look)) = Look::at(path, false)
            && id.is_none_or(|id| id == look.id)
        {
            self.note(&look, persons);
        }
    }
}

impl Journal {
    /// Whether somebody else has changed a file since this began, as far as its times
    /// tell.
    pub(crate) fn is_changed_by_others(&self, look: &Look) -> bool {
        let since = |time| self.began.is_some_and(|began| time >= began);
        let left = self.stamps.left.get(&look.id);
        since(look.modified_at())
            || since(look.changed_at()) && left.is_none_or(|left| *left != look.changed_at())
    }

    /// The guest, or an undo, is about to change what a file's time of last change
    /// tells of.
    pub(crate) fn before_change(&mut self, look: &Look) {
        let persons = self.is_changed_by_others(look);
        self.stamps.note(look, persons);
    }

    /// It has done so.
    pub(crate) fn after_change(&mut self, look: &Look) {
        if let Some(left) = self.stamps.left.get_mut(&look.id) {
            *left = look.changed_at();
        }
    }

    /// The same where a name was removed, changed or exchanged.
    pub(crate) fn after_names_changed(&mut self, change: &Change) {
        let removed = change.saved().and_then(Saved::handle);
        let removed = removed.and_then(|handle| Look::of(handle).ok());
        let there = change
            .names()
            .filter_map(|(path, _)| Look::at(path, false).ok()?);
        for look in there.chain(removed) {
            self.after_change(&look);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Effect, Options};
    use std::fs;

    /// What is made anew in each run was remembered for ever.
    #[test]
    fn nothing_is_noted_of_what_an_undo_has_removed() {
        let base = tempfile::tempdir().unwrap();
        let (first, second) = (base.path().join("first"), base.path().join("second"));
        let mut journal = Journal::new(Options {
            places: vec![base.path().to_owned()],
            ..Options::default()
        });
        let mark = journal.mark();
        for _ in 0..3 {
            let open = journal.before(Effect::OpenWrite {
                path: first.clone(),
                create: true,
                exclusive: false,
                follow: true,
            });
            let file = fs::File::create(&first).unwrap();
            journal.after(open, true).unwrap();
            drop(file);
            let rename = journal.before(Effect::Rename {
                from: first.clone(),
                to: second.clone(),
                no_replace: false,
                exchange: false,
                in_use: false,
            });
            fs::rename(&first, &second).unwrap();
            journal.after(rename, true).unwrap();
            let undo = journal.undo_to(mark);
            assert!(undo.complete, "{undo:?}");
            assert!(journal.stamps.left.is_empty() && journal.put_back.is_empty());
        }
    }
}
