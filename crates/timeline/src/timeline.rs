//! The timeline: the order of the accesses, and going back in it.
//!
//! A log says in which order paths were touched and written; what was learned
//! about each is in its history, so that an access and a verdict look at one
//! path only. What holds for a path is left to `knowledge`, the choice of
//! checkpoints to `placement`.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::access::{AccessIndex, AccessKind, Current, Fingerprint, Identity, Observation};
use crate::checkpoint::{Checkpoint, CheckpointId, Limits};
use crate::history::History;
use crate::knowledge::Knowledge;
use crate::placed::Place;
use crate::placement::Shelf;
use crate::rules::Verdict;

/// One step of the log; undone from its end.
#[derive(Clone, Debug, PartialEq)]
enum Step {
    /// A fact was added to the history of this path.
    Learned(Arc<Path>),
    /// The guest wrote this path for the first time.
    Wrote(Arc<Path>),
}

/// One recorded access, as [`Timeline::accesses`] shows it.
#[derive(Copy, Clone, Debug, PartialEq)]
pub struct Access<'a> {
    /// Its position.
    pub index: AccessIndex,
    /// What it is about.
    pub path: &'a Path,
    /// What the guest learned.
    pub seen: &'a Observation,
}

/// The accesses of the current run, in order, with the checkpoints between them.
///
/// Paths are absolute and free of `.` and `..`, as the caller resolved them.
#[derive(Clone, Debug, PartialEq)]
pub struct Timeline {
    knowledge: Knowledge,
    log: Vec<Step>,
    /// The index of the next access.
    next: AccessIndex,
    shelf: Shelf,
}

impl Timeline {
    /// An empty timeline.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self {
            knowledge: Knowledge::default(),
            log: Vec::new(),
            next: AccessIndex(0),
            shelf: Shelf::new(limits),
        }
    }

    // ---- Accesses ----

    /// Whether an access of this kind needs no record any more: one is there
    /// already, or the guest itself wrote the path. One hash look-up; nothing
    /// is allocated.
    #[must_use]
    pub fn knows(&self, path: &Path, what: AccessKind) -> bool {
        self.knowledge
            .of(path)
            .is_some_and(|history| history.knows(what))
    }

    /// Whether another look at the size and times of a path tells nothing new to who
    /// asks for them [before reading](Self::record_before_reading).
    #[must_use]
    pub fn knows_before_reading(&self, path: &Path) -> bool {
        self.knowledge.of(path).is_some_and(History::knows_look)
    }

    /// Whether any access of this path is recorded.
    #[must_use]
    pub fn touched(&self, path: &Path) -> bool {
        self.knowledge.of(path).is_some_and(History::touched)
    }

    /// Whether the guest has seen that a file, or a link, is at this path, and not its
    /// own work.
    #[must_use]
    pub fn knows_file(&self, path: &Path) -> bool {
        self.knowledge.of(path).is_some_and(History::knows_file)
    }

    /// The first access of a path.
    #[must_use]
    pub fn first_touch(&self, path: &Path) -> Option<AccessIndex> {
        let facts = self.knowledge.of(path)?.facts();
        facts.first().map(|fact| fact.index)
    }

    /// Records what the guest learned about a path; returns its position.
    ///
    /// What is known already is not recorded twice: the position is then that of
    /// the first access that learned the same. An observation that differs from
    /// the earlier ones of its kind is a further fact. After
    /// [`wrote`](Self::wrote) nothing is recorded but the listing of a folder,
    /// since the guest then sees its own work; the position is then that of the
    /// write.
    pub fn record(&mut self, path: &Path, seen: Observation) -> AccessIndex {
        self.learn(path, seen, false)
    }

    /// The same for a guest whose first process asks for the size and times of a file
    /// that it reads later for no other purpose: once it has read the file, these do
    /// not count any more.
    pub fn record_before_reading(&mut self, path: &Path, seen: Observation) -> AccessIndex {
        self.learn(path, seen, true)
    }

    fn learn(&mut self, path: &Path, seen: Observation, before_reading: bool) -> AccessIndex {
        let known = self.knowledge.of(path);
        if let Some(history) = known {
            if let Some(at) = history.wrote()
                && seen.kind() != AccessKind::Listing
            {
                return at;
            }
            if let Some(first) = history.find(&seen, before_reading, |name| {
                self.knowledge.is_own(path, name)
            }) {
                return first;
            }
        }
        if !known.is_some_and(History::touched) {
            self.shelf.touched(path);
        }
        self.add(path, seen, before_reading)
    }

    fn add(&mut self, path: &Path, seen: Observation, before_reading: bool) -> AccessIndex {
        let index = self.next;
        self.next.0 += 1;
        let path = self
            .knowledge
            .extend(path, |history| history.push(index, seen, before_reading));
        self.log.push(Step::Learned(path));
        index
    }

    // ---- Reading in pieces ----

    /// The one read of a file whose whole content was [recorded](Self::record) when it
    /// was opened turns out to be in pieces, of which every one is seen: so far the
    /// guest knows its first `end` bytes. False, and no change, if the file was opened
    /// more than once.
    pub fn narrow(&mut self, path: &Path, of: &Identity, end: u64) -> bool {
        self.knowledge
            .of_mut(path)
            .is_some_and(|history| history.narrow(of, end))
    }

    /// The guest is about to know the first `end` bytes of a file that it reads in
    /// pieces (`u64::MAX`: its end, too), which can be fewer than before: those that it
    /// gives back it will read again before it uses them. Each read is an access of its
    /// own, also one that tells nothing new; but several with nothing in between are one.
    /// Its position; `None` if the file is not read in pieces.
    pub fn read_up_to(&mut self, path: &Path, end: u64) -> Option<AccessIndex> {
        let (identity, _) = self.read_of(path)?;
        let is_last = matches!(self.log.last(), Some(Step::Learned(last)) if **last == *path)
            && self.shelf.mark_of_newest() < self.log.len();
        if is_last
            && let Some(history) = self.knowledge.of_mut(path)
            && let Some(at) = history.read_on(end)
        {
            return Some(at);
        }
        Some(self.add(path, Observation::Piece { identity, end }, true))
    }

    /// Which file is read in pieces at this path, and how many of its first bytes the
    /// guest knows.
    #[must_use]
    pub fn read_of(&self, path: &Path) -> Option<(Identity, u64)> {
        let history = self.knowledge.of(path)?;
        history.read().filter(|_| history.wrote().is_none())
    }

    /// What was read of a file from an access on need not be of any one state of it.
    pub fn spoil_from(&mut self, path: &Path, from: AccessIndex) {
        if let Some(history) = self.knowledge.of_mut(path) {
            history.spoil_from(from);
        }
    }

    /// Whether a run that is resumed from a checkpoint can go on with this path as it
    /// is now. Asked of those at or before the contradiction: what a guest had read
    /// there, and gave back later, may be other bytes by now.
    #[must_use]
    pub fn holds_at(&self, id: CheckpointId, path: &Path, now: &Current) -> bool {
        let (Some(position), Some(history)) = (self.position_of(id), self.knowledge.of(path))
        else {
            return true;
        };
        history.holds_before(position, now, |name| self.knowledge.is_own(path, name))
    }

    /// From now on, a file is as it is now to all facts that are left: it differs only
    /// in what the guest did not read. Checkpoints that do not
    /// [hold](Self::holds_at) are of no use any more, and returned, to be dropped.
    pub fn accept(&mut self, path: &Path, now: &Current) -> Vec<CheckpointId> {
        let Current::File {
            metadata,
            fingerprint: Some(fingerprint),
            ..
        } = now
        else {
            return Vec::new();
        };
        let useless: Vec<CheckpointId> = self
            .checkpoints()
            .map(|checkpoint| checkpoint.id)
            .filter(|id| !self.holds_at(*id, path, now))
            .collect();
        for id in &useless {
            self.shelf.drop_one(*id);
        }
        if let Some(history) = self.knowledge.of_mut(path) {
            history.accept(metadata.identity, *fingerprint);
        }
        useless
    }

    /// Says what bytes the file with this identity had when the guest learned
    /// about it. The caller makes sure that the file had this identity before
    /// and after it was hashed. Ignored if no fact is about that file any more,
    /// or if it was [spoiled](Self::spoil) meanwhile.
    pub fn set_fingerprint(&mut self, path: &Path, of: &Identity, fingerprint: Fingerprint) {
        if let Some(history) = self.knowledge.of_mut(path) {
            history.set_fingerprint(of, fingerprint);
        }
    }

    /// Whether the regular file that the guest saw last at this path still waits
    /// for its fingerprint, be it for its content or for its metadata.
    #[must_use]
    pub fn needs_fingerprint(&self, path: &Path) -> bool {
        self.knowledge
            .of(path)
            .is_some_and(History::needs_fingerprint)
    }

    /// The file was changed while the guest had it open, or before it was
    /// hashed: whatever its final bytes are, its content accesses so far are
    /// contradicted. Holds until a rewind takes those accesses back.
    pub fn spoil(&mut self, path: &Path) {
        if let Some(history) = self.knowledge.of_mut(path) {
            history.spoil();
        }
    }

    /// The guest itself changed, created or removed this path: from here on its
    /// state is the guest's own work, until a rewind to before this point.
    ///
    /// A change that keeps a part of what was there (an append, a write in the
    /// middle, a new mode) depends on it: record that as an access first.
    /// A folder in which the guest creates or removes a name is not itself
    /// written; the name is.
    pub fn wrote(&mut self, path: &Path) {
        let at = self.next;
        let mut first = false;
        let path = self
            .knowledge
            .extend(path, |history| first = history.set_wrote(at));
        if first {
            self.log.push(Step::Wrote(path));
        }
    }

    /// Where the guest first changed a path, if it did.
    #[must_use]
    pub fn wrote_at(&self, path: &Path) -> Option<AccessIndex> {
        self.knowledge.of(path).and_then(History::wrote)
    }

    // ---- Verdicts ----

    /// Whether [`judge`](Self::judge) can make use of the fingerprint of what is
    /// at this path now.
    #[must_use]
    pub fn wants_content(&self, path: &Path) -> bool {
        self.knowledge.of(path).is_some_and(History::wants_content)
    }

    /// Whether [`judge`](Self::judge) needs the names in this folder.
    #[must_use]
    pub fn wants_names(&self, path: &Path) -> bool {
        self.knowledge.of(path).is_some_and(History::wants_names)
    }

    /// What the state of a path contradicts. What the guest itself wrote there
    /// contradicts nothing, nor do names in a folder that it wrote.
    #[must_use]
    pub fn judge(&self, path: &Path, now: &Current) -> Verdict {
        self.knowledge.judge(path, now)
    }

    /// What the state of a path contradicts that somebody else changed after the
    /// guest wrote it. A fresh run would find that state where this run first
    /// touched the path, or first listed its folder, and then write over it: so
    /// it is contradicted there, whatever the state is. If the guest wrote it
    /// without any look at it, nothing is contradicted.
    #[must_use]
    pub fn judge_foreign(&self, path: &Path, now: &Current) -> Verdict {
        self.knowledge.judge_foreign(path, now)
    }

    /// The first access that saw other times of a path than it has now, though the
    /// bytes are the same. That alone is no edit; but a run that is resumed after it
    /// sees both times, and can compare them with those of what it made in between. So
    /// the next resume goes back before it, and a run that asks for them again
    /// contradicts it.
    #[must_use]
    pub fn outdated(&self, path: &Path, now: &Current) -> Option<AccessIndex> {
        self.knowledge.of(path)?.first_outdated(now)
    }

    // ---- Checkpoints ----

    /// The path was edited, and will be again: the sooner, the fewer edits there
    /// have been of others since. The paths that are marked between two rewinds
    /// are one edit and share its odds. Those of the last edits, as many as half
    /// the limit, are *hot*: they always get a checkpoint before them, which is
    /// dropped last. Outlives rewinds and restarts.
    pub fn mark_hot(&mut self, path: &Path) {
        self.shelf.mark_hot(path, self.first_touch(path));
    }

    /// Whether to take a checkpoint before the guest touches `path`.
    ///
    /// `guest_time` is how long this run has been running, with the kept part
    /// before its resume and without the time it spent frozen. Never due are a
    /// second one in the same place, one before a path that was touched or
    /// written already (a contradiction of it lies before that), and one that
    /// would be the first to go.
    #[must_use]
    pub fn checkpoint_due(
        &self,
        path: &Path,
        guest_time: Duration,
        predicted_cost: Duration,
    ) -> bool {
        self.knowledge.of(path).is_none()
            && self
                .shelf
                .due(path, self.place(), guest_time, predicted_cost)
    }

    /// The same before the guest reads a path of which it has asked for the size and
    /// times [before](Self::record_before_reading).
    #[must_use]
    pub fn checkpoint_due_before_reading(
        &self,
        path: &Path,
        guest_time: Duration,
        predicted_cost: Duration,
    ) -> bool {
        self.knowledge
            .of(path)
            .is_some_and(History::is_only_looked_at)
            && self
                .shelf
                .due(path, self.place(), guest_time, predicted_cost)
    }

    /// The same before the guest reads on in a file that it reads in pieces. `hot`: it is
    /// about to read what was edited there last.
    #[must_use]
    pub fn checkpoint_due_within(
        &self,
        hot: bool,
        guest_time: Duration,
        predicted_cost: Duration,
    ) -> bool {
        self.shelf
            .due_within(hot, self.place(), guest_time, predicted_cost)
    }

    /// Puts a checkpoint at the end of the timeline. Returns those that the
    /// limits cost; the timeline has let go of them already. The new one is
    /// among them if it alone exceeds the memory, or if its loss costs least.
    pub fn add_checkpoint(&mut self, checkpoint: Checkpoint) -> Vec<CheckpointId> {
        self.shelf.add(checkpoint, self.place())
    }

    fn place(&self) -> Place {
        Place {
            position: self.next,
            mark: self.log.len(),
            paths: self.knowledge.paths(),
        }
    }

    /// The newest checkpoint at or before an access: where to resume when that
    /// access is the first contradicted one. `None` is a restart.
    #[must_use]
    pub fn resume_point(&self, first: AccessIndex) -> Option<CheckpointId> {
        self.shelf.at_or_before(first)
    }

    /// Goes back to a checkpoint, or to the start with `None`: drops all
    /// accesses and checkpoints after it. Returns the dropped checkpoints. The
    /// one resumed from stays and can be resumed again. With a checkpoint that
    /// is not in the timeline nothing happens.
    pub fn rewind(&mut self, to: Option<CheckpointId>) -> Vec<CheckpointId> {
        let Some(id) = to else {
            self.knowledge.clear();
            self.log.clear();
            self.next = AccessIndex(0);
            return self.shelf.restart();
        };
        let Some((mark, dropped)) = self.shelf.rewind(id) else {
            return Vec::new();
        };
        while self.log.len() > mark {
            self.undo_step();
        }
        dropped
    }

    fn undo_step(&mut self) {
        match self.log.pop() {
            Some(Step::Learned(path)) => {
                self.next.0 -= 1;
                self.knowledge.shorten(&path, History::pop);
            }
            Some(Step::Wrote(path)) => self.knowledge.shorten(&path, History::unset_wrote),
            None => {}
        }
    }

    /// Lets go of a checkpoint whose image is gone; false if it was not here.
    pub fn drop_checkpoint(&mut self, id: CheckpointId) -> bool {
        self.shelf.drop_one(id).is_some()
    }

    /// The checkpoints, oldest first.
    pub fn checkpoints(&self) -> impl DoubleEndedIterator<Item = &Checkpoint> {
        self.shelf.iter()
    }

    /// One checkpoint by its name.
    #[must_use]
    pub fn checkpoint(&self, id: CheckpointId) -> Option<&Checkpoint> {
        self.shelf.get(id)
    }

    /// The access that a checkpoint stands before.
    #[must_use]
    pub fn position_of(&self, id: CheckpointId) -> Option<AccessIndex> {
        self.shelf.position(id)
    }

    /// An effect that cannot be undone happened now: no checkpoint up to here
    /// can be resumed any more. Returns them all, to be dropped; later ones are
    /// usable again.
    pub fn bar(&mut self) -> Vec<CheckpointId> {
        self.shelf.clear()
    }

    /// Gives up the least valuable checkpoint, since processes or memory ran
    /// out; `None` if there is none.
    pub fn evict_one(&mut self) -> Option<CheckpointId> {
        self.shelf.evict()
    }

    // ---- Looking at it ----

    /// The index that the next access will have: how many there are.
    #[must_use]
    pub fn end(&self) -> AccessIndex {
        self.next
    }

    /// All accesses, in order.
    pub fn accesses(&self) -> impl Iterator<Item = Access<'_>> {
        let learned = self.log.iter().filter_map(|step| match step {
            Step::Learned(path) => Some(path),
            Step::Wrote(_) => None,
        });
        (0..).zip(learned).filter_map(|(index, path)| {
            let index = AccessIndex(index);
            let facts = self.knowledge.of(path)?.facts();
            let at = facts.binary_search_by_key(&index, |fact| fact.index).ok()?;
            Some(Access {
                index,
                path,
                seen: &facts[at].seen,
            })
        })
    }
}
