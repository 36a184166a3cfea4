//! What is known of one file that the guest writes, and what each event of it means.

use std::cmp::Ordering;
use std::sync::{Arc, Weak};

use rustix::fs::inotify::ReadFlags;

use crate::store::Copy;
use crate::{Mark, Why};

/// What is known of one file that the guest writes.
#[derive(Default, Debug)]
pub(crate) struct Tracked {
    pub(crate) watch: Option<i32>,
    /// Closes that the guest's opens have not had yet.
    pub(crate) owed: u64,
    /// Calls under way that modify the file by its path.
    pub(crate) calls: u32,
    /// All that have begun so far, and the closes and modifications that have come.
    opens: u64,
    closes: u64,
    modifications: u64,
    /// A task was killed in its open, and it is not known whether it has closed the file
    /// or somebody else.
    doubtful: bool,
    /// Why the bytes are not the guest's alone.
    pub(crate) foreign: Option<Why>,
    /// Somebody else's bytes may be in it, and no copy has been taken of them since: so
    /// far the guest has acted on its names alone.
    pub(crate) theirs: bool,
    /// Somebody else had it open for writing before the guest opened it.
    pub(crate) shared: bool,
    /// It had names that the guest does not know, when the guest opened it.
    pub(crate) linked: bool,
    /// Opens for writing of the guest's that are under way.
    under_way: u64,
    /// As many of them as have not shown as events, where opens are watched.
    opening: u64,
    /// Somebody else may have opened it, or given it another name, while the guest had it
    /// open.
    pub(crate) visited: bool,
    /// Why nobody can tell.
    pub(crate) unwatched: Option<Arc<str>>,
    /// The mark after which the guest made the file.
    pub(crate) birth: Option<Mark>,
    /// The mark since which the bytes are saved.
    pub(crate) saved: Option<Mark>,
    /// The latest copy, for as long as an entry needs it.
    pub(crate) copy: Weak<Copy>,
}

impl Tracked {
    /// Whether somebody else may have written by a name that the guest does not know, and
    /// their close may have become one with the guest's.
    pub(crate) fn may_be_shared(&self, has_unknown_names: bool) -> bool {
        let linked = self.linked || has_unknown_names;
        self.doubtful || linked && (self.visited || self.shared)
    }

    /// What is in it is accounted for.
    pub(crate) fn settle(&mut self) {
        self.visited = false;
        self.doubtful = false;
    }

    /// Takes in what inotify tells of it. `is_over`: the guest has ended; `opens_are_ours`:
    /// nobody is to be taken for somebody else.
    pub(crate) fn happened(&mut self, what: ReadFlags, is_over: bool, opens_are_ours: bool) {
        let nobodys = is_over || self.owed == 0 && self.calls == 0;
        if what.contains(ReadFlags::MODIFY) {
            self.modifications += 1;
            if nobodys {
                self.foreign.get_or_insert(Why::Written);
            }
        }
        if what.contains(ReadFlags::OPEN) && self.owed > 0 && !opens_are_ours {
            match self.opening.checked_sub(1) {
                Some(opening) => self.opening = opening,
                None => self.visited = true,
            }
        }
        // Its names may be others.
        if what.contains(ReadFlags::ATTRIB) && self.owed > 0 {
            self.visited = true;
        }
        if what.contains(ReadFlags::CLOSE_WRITE) {
            self.closes += 1;
            match self.owed.checked_sub(1) {
                Some(owed) => self.owed = owed,
                None => drop(self.foreign.get_or_insert(Why::Written)),
            }
        }
    }

    /// The guest is about to open it for writing.
    pub(crate) fn begin_open(&mut self) -> Opening {
        self.under_way += 1;
        self.opening += u64::from(self.linked);
        self.opened()
    }

    /// The guest has opened it before it was known.
    pub(crate) fn opened(&mut self) -> Opening {
        let alone = self.owed == 0;
        self.owed += 1;
        self.opens += 1;
        Opening {
            opens: self.opens,
            closes: self.closes,
            modifications: self.modifications,
            alone,
        }
    }

    /// It has opened it, or could not; whatever events came of that have been read.
    pub(crate) fn end_open(&mut self, done: bool) {
        if !done {
            self.owed = self.owed.saturating_sub(1);
            // The one event that was taken for it was somebody else's.
            self.visited |= self.linked && self.opening < self.under_way;
        }
        self.under_way = self.under_way.saturating_sub(1);
        // Of two opens at once only one event may have come.
        self.opening = self.opening.min(self.under_way);
    }

    /// The process is gone of which a task was killed in its open.
    pub(crate) fn end_cut_off(&mut self, opening: Opening) {
        if self.closes == opening.closes {
            // It did not happen, or was over before the file was watched.
            self.owed = self.owed.saturating_sub(1);
        } else {
            // The close may be its own, which has written nothing.
            self.doubtful |= !opening.alone
                || self.opens != opening.opens
                || self.modifications != opening.modifications;
        }
    }

    /// The images of a mark go on: they have it open `owed` times.
    pub(crate) fn rewind(&mut self, mark: Mark, owed: u64) {
        if self.owed != owed {
            self.owed = owed;
            self.foreign.get_or_insert(Why::Written);
        }
        self.calls = 0;
        self.under_way = 0;
        self.opening = 0;
        self.birth = self.birth.filter(|birth| *birth < mark);
        self.saved = self.saved.filter(|saved| *saved < mark);
    }

    /// Whether the bytes are the guest's alone, as far as events tell, when the
    /// frozen images hold `held` of its descriptions open.
    pub(crate) fn proven(&self, held: u64) -> Result<(), Why> {
        if let Some(why) = &self.unwatched {
            return Err(Why::Unproven(why.clone()));
        }
        if let Some(why) = &self.foreign {
            return Err(why.clone());
        }
        match self.owed.cmp(&held) {
            Ordering::Equal => Ok(()),
            Ordering::Less => Err(Why::Written),
            Ordering::Greater => Err(Why::Open),
        }
    }
}

/// An open before it happens.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Opening {
    /// The guest's opens up to this one, and the closes and modifications so far.
    opens: u64,
    closes: u64,
    modifications: u64,
    /// The guest does not have the file open otherwise.
    alone: bool,
}
