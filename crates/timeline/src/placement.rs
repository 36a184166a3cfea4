//! When a checkpoint is due, and the shelf that holds the checkpoints.
//!
//! The [`Shelf`] holds the checkpoints of the current timeline in order. It
//! knows their positions, costs and sizes, and how many of the paths that were
//! first touched after each had been edited before, but not the accesses between
//! them: what it does costs the same in a long timeline as in a short one.
//!
//! Which path the next edit may be to is left to `odds`, which checkpoint costs
//! least to lose to `thinning`.

use std::path::Path;
use std::time::Duration;

use crate::access::AccessIndex;
use crate::checkpoint::{Checkpoint, CheckpointId, Limits};
use crate::odds::Edits;
use crate::placed::{Place, Placed};
use crate::thinning::{self, Candidate};

/// Between the newest checkpoint and the end of the run there is no telling what
/// the guest will touch: the next edit may well be to that.
const ODDS_OF_NEWEST: f64 = 1.0;

/// The checkpoints of a timeline, oldest first.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Shelf {
    limits: Limits,
    placed: Vec<Placed>,
    edits: Edits,
    /// What the checkpoints of this timeline have cost, the dropped ones too.
    spent: Duration,
    /// The sum of their memory.
    memory: u64,
}

impl Shelf {
    pub(crate) fn new(limits: Limits) -> Self {
        Self {
            limits,
            placed: Vec::new(),
            edits: Edits::default(),
            spent: Duration::ZERO,
            memory: 0,
        }
    }

    pub(crate) fn iter(&self) -> impl DoubleEndedIterator<Item = &Checkpoint> {
        self.placed.iter().map(|placed| &placed.checkpoint)
    }

    pub(crate) fn get(&self, id: CheckpointId) -> Option<&Checkpoint> {
        self.find(id).map(|at| &self.placed[at].checkpoint)
    }

    pub(crate) fn position(&self, id: CheckpointId) -> Option<AccessIndex> {
        self.find(id).map(|at| self.placed[at].place.position)
    }

    /// Searches from the end, so that a rewind costs what it drops.
    fn find(&self, id: CheckpointId) -> Option<usize> {
        self.placed
            .iter()
            .rposition(|placed| placed.checkpoint.id == id)
    }

    /// Whether a checkpoint is always due before this path.
    fn is_hot(&self, path: &Path) -> bool {
        // The other half of the room is for what nobody has edited yet.
        let room = (self.limits.max_checkpoints / 2).max(1);
        let batch = self.edits.batch_of(path);
        batch.is_some_and(|batch| self.edits.is_hot(batch, room))
    }

    /// Somebody edited a path, which the guest first touched at `first`. Those
    /// that are marked between two rewinds count as one edit.
    pub(crate) fn mark_hot(&mut self, path: &Path, first: Option<AccessIndex>) {
        let Some(moved) = self.edits.add(path) else {
            return;
        };
        for placed in &mut self.placed {
            if placed.checkpoint.path.as_deref() == Some(path) {
                placed.batch = Some(moved.to);
            }
        }
        if let Some(at) = first.and_then(|first| self.before(first)) {
            if let Some(from) = moved.from {
                self.placed[at].uncount_edited(from);
            }
            self.placed[at].count_edited(moved.to);
        }
    }

    /// The guest touched a path for the first time, at the end of the timeline.
    pub(crate) fn touched(&mut self, path: &Path) {
        if let Some(newest) = self.placed.last_mut()
            && let Some(batch) = self.edits.batch_of(path)
        {
            newest.count_edited(batch);
        }
    }

    /// Whether a checkpoint pays before the first touch of `path`.
    pub(crate) fn due(
        &self,
        path: &Path,
        place: Place,
        guest_time: Duration,
        predicted_cost: Duration,
    ) -> bool {
        let hot = self.is_hot(path);
        let (worked, paid) = self.earned(guest_time, predicted_cost);
        (worked && paid || hot) && self.is_free(place) && self.would_stay(hot, guest_time, place)
    }

    /// Whether one pays before the next piece of a file is read. There can be many
    /// pieces before the one that was edited, so that even there the guest has to have
    /// worked for it.
    pub(crate) fn due_within(
        &self,
        hot: bool,
        place: Place,
        guest_time: Duration,
        predicted_cost: Duration,
    ) -> bool {
        let (worked, paid) = self.earned(guest_time, predicted_cost);
        worked && (paid || hot) && self.is_free(place) && self.would_stay(hot, guest_time, place)
    }

    /// Whether one may be taken at all, and none stands in the same place.
    fn is_free(&self, place: Place) -> bool {
        if self.limits.max_checkpoints == 0 || self.limits.max_memory == 0 {
            return false;
        }
        let newest = self.placed.last();
        newest.is_none_or(|newest| newest.place.position != place.position)
    }

    /// Whether the guest has worked long enough since the newest checkpoint, and
    /// whether all that they cost stays within its share.
    fn earned(&self, guest_time: Duration, predicted_cost: Duration) -> (bool, bool) {
        let newest = self.placed.last();
        let since = guest_time
            .saturating_sub(newest.map_or(Duration::ZERO, |newest| newest.checkpoint.guest_time));
        let budget = self.limits.share.max(0.0) * guest_time.as_secs_f64()
            + self.limits.allowance.as_secs_f64();
        let spent = self.spent.saturating_add(predicted_cost);
        let worked = since >= predicted_cost.saturating_mul(2);
        (worked, spent.as_secs_f64() <= budget)
    }

    /// Whether one that is taken now is not dropped at once. As far as the memory
    /// goes, it is taken to be like the newest.
    fn would_stay(&self, hot: bool, guest_time: Duration, place: Place) -> bool {
        let alike = self.placed.last().map_or(0, |last| last.checkpoint.memory);
        let has_room = self.placed.len() < self.limits.max_checkpoints
            && self.memory.saturating_add(alike) <= self.limits.max_memory;
        if has_room {
            return true;
        }
        let mut candidates = self.candidates(self.placed.len() + 1, Some(place.paths));
        candidates.push(Candidate {
            time: guest_time.as_secs_f64(),
            odds: ODDS_OF_NEWEST,
            ancestor: false,
            keep: hot,
        });
        thinning::least_loss(&candidates) != Some(self.placed.len())
    }

    /// Puts a checkpoint at the end; returns those that the limits cost, which
    /// are no longer here.
    pub(crate) fn add(&mut self, checkpoint: Checkpoint, place: Place) -> Vec<CheckpointId> {
        self.spent = self.spent.saturating_add(checkpoint.cost);
        if checkpoint.memory > self.limits.max_memory || self.limits.max_checkpoints == 0 {
            return vec![checkpoint.id];
        }
        self.memory = self.memory.saturating_add(checkpoint.memory);
        let path = checkpoint.path.as_deref();
        let batch = path.and_then(|path| self.edits.batch_of(path));
        self.placed
            .push(Placed::new(checkpoint, place, batch, self.spent));
        let mut dropped = Vec::new();
        while self.placed.len() > self.limits.max_checkpoints
            || self.memory > self.limits.max_memory
        {
            let Some(id) = self.evict() else {
                break;
            };
            dropped.push(id);
        }
        dropped
    }

    /// The newest checkpoint at or before an access.
    pub(crate) fn at_or_before(&self, access: AccessIndex) -> Option<CheckpointId> {
        self.before(access).map(|at| self.placed[at].checkpoint.id)
    }

    fn before(&self, access: AccessIndex) -> Option<usize> {
        let after = self
            .placed
            .partition_point(|placed| placed.place.position <= access);
        after.checked_sub(1)
    }

    /// The length of the log at the newest checkpoint; 0 if there is none.
    pub(crate) fn mark_of_newest(&self) -> usize {
        self.placed.last().map_or(0, |newest| newest.place.mark)
    }

    /// Drops all checkpoints after `to`, and forgets what they cost. Returns
    /// the length that the log had at `to`, and the dropped ones.
    pub(crate) fn rewind(&mut self, to: CheckpointId) -> Option<(usize, Vec<CheckpointId>)> {
        let at = self.find(to)?;
        let dropped = self.placed.split_off(at + 1);
        for placed in &dropped {
            self.memory = self.memory.saturating_sub(placed.checkpoint.memory);
        }
        self.placed[at].forget_edited();
        self.edits.close_batch();
        self.spent = self.placed[at].spent;
        let ids = dropped.iter().map(|placed| placed.checkpoint.id).collect();
        Some((self.placed[at].place.mark, ids))
    }

    /// Drops all checkpoints. What they have cost stays spent.
    pub(crate) fn clear(&mut self) -> Vec<CheckpointId> {
        self.memory = 0;
        self.placed
            .drain(..)
            .map(|placed| placed.checkpoint.id)
            .collect()
    }

    /// Forgets what the checkpoints have cost: the run starts over.
    pub(crate) fn restart(&mut self) -> Vec<CheckpointId> {
        self.spent = Duration::ZERO;
        self.edits.close_batch();
        self.clear()
    }

    pub(crate) fn drop_one(&mut self, id: CheckpointId) -> Option<Checkpoint> {
        self.find(id).map(|at| self.remove(at))
    }

    /// Drops the checkpoint that costs least to lose.
    pub(crate) fn evict(&mut self) -> Option<CheckpointId> {
        let candidates = self.candidates(self.placed.len(), None);
        thinning::least_loss(&candidates).map(|at| self.remove(at).id)
    }

    fn remove(&mut self, at: usize) -> Checkpoint {
        if self.has_living_descendants(at) {
            for later in &mut self.placed[at + 1..] {
                later.checkpoint.depth = later.checkpoint.depth.saturating_sub(1);
            }
        }
        let gone = self.placed.remove(at);
        // What resumed from it resumes from the one before it.
        if let Some(before) = at.checked_sub(1) {
            self.placed[before].take_over(&gone);
        }
        self.memory = self.memory.saturating_sub(gone.checkpoint.memory);
        gone.checkpoint
    }

    /// Whether the run was resumed from this one: then all later ones are
    /// copies of a copy of it, which is seen in the depth of the next.
    fn has_living_descendants(&self, at: usize) -> bool {
        self.placed
            .get(at + 1)
            .is_some_and(|next| next.checkpoint.depth > self.placed[at].checkpoint.depth)
    }

    /// What `thinning` has to know of each checkpoint, where there are `count` of
    /// them, with the one that is about to be taken. That one comes when the guest
    /// has touched `end` paths.
    fn candidates(&self, count: usize, end: Option<usize>) -> Vec<Candidate> {
        // Be the limits what they may, half of what there is may be cold.
        let room = (count / 2).max(1);
        let all = end.or_else(|| self.placed.last().map(|newest| newest.place.paths));
        let all = all.unwrap_or(0);
        let candidate = |(at, placed): (usize, &Placed)| {
            let next = self.placed.get(at + 1).map(|next| next.place.paths).or(end);
            Candidate {
                time: placed.checkpoint.guest_time.as_secs_f64(),
                odds: next.map_or(ODDS_OF_NEWEST, |next| placed.odds(next, all, &self.edits)),
                ancestor: self.has_living_descendants(at),
                keep: placed.checkpoint.wanted
                    || placed
                        .batch
                        .is_some_and(|batch| self.edits.is_hot(batch, room)),
            }
        };
        self.placed.iter().enumerate().map(candidate).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::PathBuf;

    use proptest::prelude::*;

    use super::*;

    const ROOMY: Limits = Limits {
        share: 0.05,
        max_checkpoints: 8,
        max_memory: u64::MAX,
        allowance: Duration::from_millis(5),
    };

    fn checkpoint(id: u32, seconds: u64) -> Checkpoint {
        Checkpoint {
            id: CheckpointId(id),
            path: Some(PathBuf::from(format!("/p/{id}"))),
            wanted: false,
            guest_time: Duration::from_secs(seconds),
            cost: Duration::from_millis(1),
            memory: 10,
            depth: 0,
        }
    }

    /// A place after this many accesses, each of another path.
    fn after(accesses: u64) -> Place {
        Place {
            position: AccessIndex(accesses),
            mark: accesses as usize,
            paths: accesses as usize,
        }
    }

    fn ids(shelf: &Shelf) -> Vec<u32> {
        shelf.iter().map(|checkpoint| checkpoint.id.0).collect()
    }

    #[test]
    fn a_checkpoint_is_due_once_the_guest_has_worked_for_it() {
        let mut shelf = Shelf::new(ROOMY);
        let path = Path::new("/p/x");
        let (at, ms) = (after(1), Duration::from_millis);
        // 5 ms are allowed at the start, but the guest must have worked 2 × 4 ms.
        assert!(!shelf.due(path, at, ms(7), ms(4)));
        assert!(shelf.due(path, at, ms(8), ms(4)));
        assert!(!shelf.due(path, at, ms(19), ms(6)));
        assert!(shelf.due(path, at, ms(20), ms(6)));
        let mut first = checkpoint(0, 0);
        first.guest_time = ms(20);
        first.cost = ms(6);
        assert_eq!(shelf.add(first, at), []);
        // One stands here already, even for a hot file.
        shelf.mark_hot(path, None);
        assert!(!shelf.due(path, at, ms(1000), ms(1)));
        assert!(shelf.due(path, after(2), ms(20), ms(500)));
        let cold = Path::new("/p/cold");
        assert!(!shelf.due(cold, after(2), ms(21), ms(1)));
        assert!(shelf.due(cold, after(2), ms(40), ms(1)));
    }

    #[test]
    fn strange_shares_are_harmless() {
        let due = |share: f64| {
            let limits = Limits {
                share,
                allowance: Duration::ZERO,
                ..ROOMY
            };
            let (path, second) = (Path::new("/p"), Duration::from_secs(1));
            Shelf::new(limits).due(path, after(0), second, second / 2)
        };
        assert!(due(10.0) && due(0.5) && due(f64::INFINITY));
        assert!(!due(0.4) && !due(0.0) && !due(-1.0) && !due(f64::NAN));
    }

    #[test]
    fn nothing_is_due_where_nothing_may_be_kept() {
        for limits in [
            Limits {
                max_checkpoints: 0,
                ..ROOMY
            },
            Limits {
                max_memory: 0,
                ..ROOMY
            },
        ] {
            let mut shelf = Shelf::new(limits);
            shelf.mark_hot(Path::new("/p/1"), None);
            let hour = Duration::from_secs(3600);
            assert!(!shelf.due(Path::new("/p/1"), after(0), hour, Duration::ZERO));
            assert_eq!(shelf.add(checkpoint(1, 1), after(0)), [CheckpointId(1)]);
            assert_eq!(ids(&shelf), []);
        }
    }

    #[test]
    fn old_checkpoints_are_thinned_out() {
        let mut shelf = Shelf::new(ROOMY);
        for second in 1..=5000 {
            let place = after(u64::from(second));
            let new = checkpoint(second, u64::from(second));
            let path = new.path.clone().unwrap_or_default();
            if shelf.due(&path, place, new.guest_time, new.cost) {
                // What is due is worth more than something else.
                assert!(!shelf.add(new, place).contains(&CheckpointId(second)));
            }
            let kept = ids(&shelf);
            if second < 50 {
                continue;
            }
            let ages: Vec<u32> = kept.iter().map(|kept| second - kept).collect();
            // The oldest saves a good part of the run whatever is edited, the
            // newest are close together, and in between the age grows by a factor.
            assert!(ages[0] * 3 >= second, "{ages:?}");
            let even = |pair: &[u32]| pair[0] <= 30 * pair[1].max(1);
            assert!(ages.windows(2).all(even), "{ages:?}");
        }
    }

    #[test]
    fn the_last_edited_stays_and_a_cold_newcomer_goes_where_there_is_room_for_one() {
        let mut shelf = Shelf::new(Limits {
            max_checkpoints: 1,
            ..ROOMY
        });
        shelf.mark_hot(Path::new("/p/1"), None);
        shelf.restart();
        assert_eq!(shelf.add(checkpoint(1, 1), after(0)), []);
        let (cold, hour) = (Path::new("/p/3"), Duration::from_secs(3600));
        assert!(!shelf.due(cold, after(9), hour, Duration::ZERO));
        assert_eq!(shelf.add(checkpoint(3, 3600), after(9)), [CheckpointId(3)]);
        // The one that is edited next takes its place.
        shelf.mark_hot(Path::new("/p/4"), None);
        assert!(shelf.due(Path::new("/p/4"), after(9), hour, Duration::ZERO));
        assert_eq!(shelf.add(checkpoint(4, 3600), after(9)), [CheckpointId(1)]);
        assert_eq!(ids(&shelf), [4]);
    }

    #[test]
    fn a_hot_path_that_was_touched_already_counts_for_the_checkpoint_before_it() {
        let mut shelf = Shelf::new(ROOMY);
        for id in 0..3 {
            shelf.add(checkpoint(id, 1 + u64::from(id)), after(u64::from(id) * 10));
        }
        let (one, other) = (Path::new("/p/x"), Path::new("/p/y"));
        shelf.mark_hot(one, Some(AccessIndex(15)));
        shelf.mark_hot(other, Some(AccessIndex(3)));
        let counts = |shelf: &Shelf| -> Vec<usize> {
            shelf
                .placed
                .iter()
                .map(|placed| placed.edited().values().sum())
                .collect()
        };
        assert_eq!(counts(&shelf), [1, 1, 0]);
        // Edited once more, it is counted once; without its checkpoint, it counts
        // for the one before; and a rewind leaves what it leaves.
        shelf.rewind(CheckpointId(2));
        shelf.mark_hot(one, Some(AccessIndex(15)));
        assert_eq!(counts(&shelf), [1, 1, 0]);
        shelf.touched(Path::new("/p/z"));
        assert_eq!(counts(&shelf), [1, 1, 0]);
        shelf.drop_one(CheckpointId(1));
        assert_eq!(counts(&shelf), [2, 0]);
        shelf.rewind(CheckpointId(0));
        assert_eq!(counts(&shelf), [0]);
        shelf.touched(one);
        assert_eq!(counts(&shelf), [1]);
    }

    #[test]
    fn one_that_alone_exceeds_the_memory_costs_no_other() {
        let mut shelf = Shelf::new(Limits {
            max_memory: 25,
            ..ROOMY
        });
        assert_eq!(shelf.add(checkpoint(1, 1), after(0)), []);
        assert_eq!(shelf.add(checkpoint(2, 2), after(1)), []);
        let mut large = checkpoint(3, 3);
        large.memory = 26;
        assert_eq!(shelf.add(large, after(2)), [CheckpointId(3)]);
        assert_eq!(ids(&shelf), [1, 2]);
        let mut full = checkpoint(4, 4);
        full.memory = 25;
        assert_eq!(shelf.add(full, after(3)).len(), 2);
        assert_eq!(ids(&shelf), [4]);
    }

    #[test]
    fn a_living_ancestor_goes_first_and_lightens_the_rest() {
        let mut shelf = Shelf::new(ROOMY);
        for (id, depth) in [(1, 0), (2, 0), (3, 1), (4, 1)] {
            let mut one = checkpoint(id, 100);
            one.depth = depth;
            shelf.add(one, after(u64::from(id)));
        }
        // 2, 3 and 4 lie at the same time as the one before them: a tie at no
        // loss. The run was resumed from 2, so the later two descend from it.
        assert_eq!(shelf.evict(), Some(CheckpointId(2)));
        assert!(shelf.iter().all(|checkpoint| checkpoint.depth == 0));
        while shelf.evict().is_some() {}
        assert_eq!(ids(&shelf), []);
    }

    #[derive(Clone, Debug)]
    enum Op {
        Touch(u8),
        Edit(u8),
        Checkpoint,
        Rewind(usize),
        Drop(usize),
    }

    fn op() -> impl Strategy<Value = Op> {
        prop_oneof![
            6 => (0..30_u8).prop_map(Op::Touch),
            4 => (0..30_u8).prop_map(Op::Edit),
            3 => Just(Op::Checkpoint),
            1 => (0..10_usize).prop_map(Op::Rewind),
            1 => (0..10_usize).prop_map(Op::Drop),
        ]
    }

    proptest! {
        /// The paths of an edit are counted where they are first touched, whatever
        /// was rewound, dropped and edited again in between.
        #[test]
        fn each_edited_path_counts_for_the_checkpoint_before_it(
            ops in proptest::collection::vec(op(), 1..120),
        ) {
            let mut shelf = Shelf::new(Limits { max_checkpoints: 200, ..ROOMY });
            let mut touched: Vec<PathBuf> = Vec::new();
            for (n, op) in ops.into_iter().enumerate() {
                match op {
                    Op::Touch(path) => {
                        let path = PathBuf::from(format!("/p/{path}"));
                        if !touched.contains(&path) {
                            shelf.touched(&path);
                            touched.push(path);
                        }
                    }
                    Op::Edit(path) => {
                        let path = PathBuf::from(format!("/p/{path}"));
                        let first = touched.iter().position(|one| *one == path);
                        shelf.mark_hot(&path, first.map(|at| AccessIndex(at as u64)));
                    }
                    Op::Checkpoint => {
                        shelf.add(checkpoint(n as u32, n as u64), after(touched.len() as u64));
                    }
                    Op::Rewind(nth) => match ids(&shelf).get(nth) {
                        Some(id) => {
                            let (mark, _) = shelf.rewind(CheckpointId(*id)).unwrap();
                            touched.truncate(mark);
                        }
                        None => {
                            shelf.restart();
                            touched.clear();
                        }
                    },
                    Op::Drop(nth) => {
                        if let Some(id) = ids(&shelf).get(nth) {
                            shelf.drop_one(CheckpointId(*id));
                        }
                    }
                }
                for (at, placed) in shelf.placed.iter().enumerate() {
                    let end = shelf.placed.get(at + 1).map_or(touched.len(), |next| next.place.mark);
                    let mut expected = BTreeMap::new();
                    for path in &touched[placed.place.mark..end] {
                        if let Some(batch) = shelf.edits.batch_of(path) {
                            *expected.entry(batch).or_default() += 1;
                        }
                    }
                    prop_assert_eq!(placed.edited(), &expected);
                }
            }
        }
    }

    #[test]
    fn what_was_spent_is_taken_back_with_the_timeline() {
        let mut shelf = Shelf::new(ROOMY);
        shelf.add(checkpoint(1, 1), after(0));
        shelf.add(checkpoint(2, 2), after(1));
        shelf.drop_one(CheckpointId(2));
        assert_eq!(shelf.spent, Duration::from_millis(2));
        assert_eq!(shelf.rewind(CheckpointId(1)), Some((0, vec![])));
        assert_eq!(shelf.spent, Duration::from_millis(1));
        assert_eq!(shelf.restart(), [CheckpointId(1)]);
        assert_eq!((shelf.spent, shelf.memory), (Duration::ZERO, 0));
    }
}
