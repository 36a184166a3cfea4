//! Marks and files that nobody needs any more: what was saved for them is freed.

use std::collections::BTreeSet;

use crate::Mark;
use crate::entry::{Change, Entry, Naming};
use crate::file::FileId;
use crate::journal::Journal;
use crate::names::note_names;

impl Journal {
    /// Forgets how to undo to marks before this one, and frees what was saved for it.
    pub fn forget_before(&mut self, mark: Mark) {
        let keep = self.entries.partition_point(|entry| entry.mark < mark);
        let forgotten: Vec<Entry> = self.entries.drain(..keep).collect();
        for entry in forgotten {
            note_names(&mut self.old_names, &entry.change);
            self.retire(entry.change);
        }
        self.marks.retain(|known, _| *known >= mark);
        self.forget_files();
    }

    /// Forgets a mark whose checkpoint was dropped: nobody will undo to it. What was
    /// saved for it alone is freed; undoing to all others stays possible.
    pub fn forget(&mut self, mark: Mark) {
        self.marks.remove(&mark);
        let into = self.marks.range(..mark).next_back();
        let into = into.map_or(Mark(0), |(earlier, _)| *earlier);
        let from = self.entries.partition_point(|entry| entry.mark < into);
        let to = self.entries.partition_point(|entry| entry.mark <= mark);
        let mut saved = BTreeSet::new();
        let forgotten: Vec<Entry> = self
            .entries
            .extract_if(from..to, |entry| {
                let moved = entry.mark == mark;
                entry.mark = entry.mark.min(into);
                match &mut entry.change {
                    _ if entry.lost.is_some() => false,
                    Change::Made {
                        id,
                        naming: Naming::New,
                        ..
                    } => {
                        saved.insert(*id);
                        false
                    }
                    Change::Content { id, held, .. } => {
                        *held &= !moved;
                        // The earlier copy is the one that goes back now.
                        !saved.insert(*id)
                    }
                    _ => false,
                }
            })
            .collect();
        for entry in forgotten {
            self.retire(entry.change);
        }
        self.provenance.merge(mark, into);
        for made in self.folders.values_mut().filter(|made| **made == mark) {
            *made = into;
        }
        if self.current == mark {
            self.current = into;
        }
    }

    /// Stops watching files that nothing is known of any more.
    pub(crate) fn forget_files(&mut self) {
        let ids = self.entries.iter().flat_map(|entry| entry.change.ids());
        let named = self.names.values().flatten().copied();
        let needed: BTreeSet<FileId> = ids.chain(named).chain(self.shelf.ids()).collect();
        self.provenance.retain(|id| needed.contains(&id));
    }
}
