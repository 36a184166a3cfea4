//! When a checkpoint is due, and which one to drop when there are too many.
//!
//! The [`Shelf`] holds the checkpoints of the current timeline in order. It
//! knows their positions, costs and sizes, but not the accesses between them.
//!
//! **Which to drop.** Without checkpoint *c*, an edit that would have resumed
//! from it resumes from the one before: it costs the guest time between the two
//! once more, at each such edit. So the expected loss is that time, weighed with
//! the odds that the next edit falls between *c* and the one after it. People
//! mostly edit what was read last, so the odds of an age *a* (guest time before
//! the newest checkpoint) are taken to fall as 1/*a*². This makes the spacing
//! that is left grow in proportion to the age: old checkpoints are thinned out
//! exponentially.

use std::cmp::Ordering;
use std::collections::HashSet;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::access::AccessIndex;

/// Ages below this are all alike: nobody sees so short a part of a run go by.
/// In seconds. It also keeps the odds finite.
const AGE_FLOOR: f64 = 0.01;

/// The name of a checkpoint, given by the caller; no two in a timeline share it.
#[derive(Copy, Clone, Eq, PartialEq, Ord, PartialOrd, Hash, Debug)]
pub struct CheckpointId(pub u32);

impl fmt::Display for CheckpointId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A frozen copy of the guest, as far as its placement goes.
#[derive(Clone, Eq, PartialEq, Debug)]
pub struct Checkpoint {
    /// Its name.
    pub id: CheckpointId,
    /// The path that the guest was about to touch when it was taken.
    pub path: PathBuf,
    /// How long the run had been running, with the kept part before its resume
    /// and without the time it spent frozen.
    pub guest_time: Duration,
    /// How long the guest stood still for it.
    pub cost: Duration,
    /// What it holds that nothing else does, in bytes.
    pub memory: u64,
    /// How many frozen images were living ancestors of it. Each of them makes
    /// later forks dearer. Lowered here as ancestors are dropped.
    pub depth: u32,
}

/// What the checkpoints may cost.
#[derive(Copy, Clone, PartialEq, Debug)]
pub struct Limits {
    /// The part of the guest's own time that may go into checkpoints: 0.05 is
    /// 5 %. It may exceed 1; below 0 or not a number counts as 0.
    pub share: f64,
    /// How many checkpoints there may be at once. With 0, none is ever due.
    pub max_checkpoints: usize,
    /// What they may hold together, in bytes. With 0, none is ever due.
    pub max_memory: u64,
    /// What may be spent beyond the share, so that a run that has just started
    /// gets its first checkpoints.
    pub allowance: Duration,
}

/// A checkpoint in its place.
#[derive(Clone, Debug, PartialEq)]
struct Placed {
    checkpoint: Checkpoint,
    /// The index that the next access had when it was taken.
    position: AccessIndex,
    /// The length of the timeline's log when it was taken.
    mark: usize,
    /// What all checkpoints of the timeline had cost, up to this one.
    spent: Duration,
    hot: bool,
}

/// The checkpoints of a timeline, oldest first.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Shelf {
    limits: Limits,
    placed: Vec<Placed>,
    hot: HashSet<PathBuf>,
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
            hot: HashSet::new(),
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
        self.find(id).map(|at| self.placed[at].position)
    }

    /// Searches from the end, so that a rewind costs what it drops.
    fn find(&self, id: CheckpointId) -> Option<usize> {
        self.placed
            .iter()
            .rposition(|placed| placed.checkpoint.id == id)
    }

    pub(crate) fn is_hot(&self, path: &Path) -> bool {
        self.hot.contains(path)
    }

    pub(crate) fn mark_hot(&mut self, path: &Path) {
        if self.hot.insert(path.to_owned()) {
            for placed in &mut self.placed {
                placed.hot |= placed.checkpoint.path == path;
            }
        }
    }

    /// Whether a checkpoint pays before the first touch of `path` at `position`.
    pub(crate) fn due(
        &self,
        path: &Path,
        position: AccessIndex,
        guest_time: Duration,
        predicted_cost: Duration,
    ) -> bool {
        if self.limits.max_checkpoints == 0 || self.limits.max_memory == 0 {
            return false;
        }
        let newest = self.placed.last();
        if newest.is_some_and(|newest| newest.position == position) {
            return false;
        }
        let since = guest_time
            .saturating_sub(newest.map_or(Duration::ZERO, |newest| newest.checkpoint.guest_time));
        let budget = self.limits.share.max(0.0) * guest_time.as_secs_f64()
            + self.limits.allowance.as_secs_f64();
        let spent = self.spent.saturating_add(predicted_cost);
        let pays = since >= predicted_cost.saturating_mul(2) && spent.as_secs_f64() <= budget;
        // One that would be dropped at once, for all others are hot, is wasted.
        let stays = || {
            self.placed.len() < self.limits.max_checkpoints
                || self.placed.iter().any(|placed| !placed.hot)
        };
        (pays && stays()) || self.is_hot(path)
    }

    /// Puts a checkpoint at the end; returns those that the limits cost, which
    /// are no longer here.
    pub(crate) fn add(
        &mut self,
        checkpoint: Checkpoint,
        position: AccessIndex,
        mark: usize,
    ) -> Vec<CheckpointId> {
        self.spent = self.spent.saturating_add(checkpoint.cost);
        if checkpoint.memory > self.limits.max_memory || self.limits.max_checkpoints == 0 {
            return vec![checkpoint.id];
        }
        self.memory = self.memory.saturating_add(checkpoint.memory);
        self.placed.push(Placed {
            position,
            mark,
            spent: self.spent,
            hot: self.is_hot(&checkpoint.path),
            checkpoint,
        });
        let mut dropped = Vec::new();
        while self.placed.len() > self.limits.max_checkpoints
            || self.memory > self.limits.max_memory
        {
            let Some(at) = self.least_valuable(true) else {
                break;
            };
            dropped.push(self.remove(at).id);
        }
        dropped
    }

    /// The newest checkpoint at or before an access.
    pub(crate) fn at_or_before(&self, access: AccessIndex) -> Option<CheckpointId> {
        let after = self
            .placed
            .partition_point(|placed| placed.position <= access);
        let newest = after.checked_sub(1)?;
        Some(self.placed[newest].checkpoint.id)
    }

    /// Drops all checkpoints after `to`, and forgets what they cost. Returns
    /// the length that the log had at `to`, and the dropped ones.
    pub(crate) fn rewind(&mut self, to: CheckpointId) -> Option<(usize, Vec<CheckpointId>)> {
        let at = self.find(to)?;
        let dropped = self.placed.split_off(at + 1);
        for placed in &dropped {
            self.memory = self.memory.saturating_sub(placed.checkpoint.memory);
        }
        self.spent = self.placed[at].spent;
        let ids = dropped.iter().map(|placed| placed.checkpoint.id).collect();
        Some((self.placed[at].mark, ids))
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
        self.clear()
    }

    pub(crate) fn drop_one(&mut self, id: CheckpointId) -> Option<Checkpoint> {
        self.find(id).map(|at| self.remove(at))
    }

    pub(crate) fn evict(&mut self) -> Option<CheckpointId> {
        self.least_valuable(false).map(|at| self.remove(at).id)
    }

    fn remove(&mut self, at: usize) -> Checkpoint {
        if self.has_living_descendants(at) {
            for later in &mut self.placed[at + 1..] {
                later.checkpoint.depth = later.checkpoint.depth.saturating_sub(1);
            }
        }
        let checkpoint = self.placed.remove(at).checkpoint;
        self.memory = self.memory.saturating_sub(checkpoint.memory);
        checkpoint
    }

    /// Whether the run was resumed from this one: then all later ones are
    /// copies of a copy of it, which is seen in the depth of the next.
    fn has_living_descendants(&self, at: usize) -> bool {
        self.placed
            .get(at + 1)
            .is_some_and(|next| next.checkpoint.depth > self.placed[at].checkpoint.depth)
    }

    /// The cold checkpoint that costs least to lose, else the hot one. With
    /// `keep_newest` the one just added only goes if it is cold and no other is.
    fn least_valuable(&self, keep_newest: bool) -> Option<usize> {
        let newest = self.placed.len().checked_sub(1)?;
        let cheapest = |hot: bool| {
            (0..self.placed.len())
                .filter(|&at| self.placed[at].hot == hot && !(keep_newest && at == newest))
                .min_by(|&a, &b| self.compare_loss(a, b))
        };
        let last_resort = || {
            if self.placed[newest].hot {
                cheapest(true)
            } else {
                Some(newest)
            }
        };
        cheapest(false).or_else(last_resort)
    }

    /// Which of two is the smaller loss. Losses within a factor of two count as
    /// a tie, since the odds are a guess. There a living ancestor goes first:
    /// without it, each later fork is cheaper.
    fn compare_loss(&self, a: usize, b: usize) -> Ordering {
        let (loss_a, loss_b) = (self.expected_loss(a), self.expected_loss(b));
        let magnitude = |loss: f64| loss.log2().floor() as i64;
        let ancestor = |at| self.has_living_descendants(at);
        magnitude(loss_a)
            .cmp(&magnitude(loss_b))
            .then(ancestor(b).cmp(&ancestor(a)))
            .then(loss_a.total_cmp(&loss_b))
            .then(a.cmp(&b))
    }

    /// What the loss of a checkpoint costs, in an arbitrary unit; see the top
    /// of this file.
    fn expected_loss(&self, at: usize) -> f64 {
        let time = |at: usize| self.placed[at].checkpoint.guest_time.as_secs_f64();
        let previous = at.checked_sub(1).map_or(0.0, time);
        let gap = (time(at) - previous).max(0.0);
        let newest = time(self.placed.len() - 1);
        let age = |at: usize| (newest - time(at)).max(0.0) + AGE_FLOOR;
        // Between the newest one and the end of the run there is no telling.
        let odds = if at + 1 < self.placed.len() {
            1.0 / age(at + 1) - 1.0 / age(at)
        } else {
            1.0 / AGE_FLOOR
        };
        gap * odds.max(0.0)
    }
}

#[cfg(test)]
mod tests {
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
            path: PathBuf::from(format!("/p/{id}")),
            guest_time: Duration::from_secs(seconds),
            cost: Duration::from_millis(1),
            memory: 10,
            depth: 0,
        }
    }

    fn ids(shelf: &Shelf) -> Vec<u32> {
        shelf.iter().map(|checkpoint| checkpoint.id.0).collect()
    }

    #[test]
    fn a_checkpoint_is_due_once_the_guest_has_worked_for_it() {
        let mut shelf = Shelf::new(ROOMY);
        let path = Path::new("/p/x");
        let (at, ms) = (AccessIndex(1), Duration::from_millis);
        // 5 ms are allowed at the start, but the guest must have worked 2 × 4 ms.
        assert!(!shelf.due(path, at, ms(7), ms(4)));
        assert!(shelf.due(path, at, ms(8), ms(4)));
        assert!(!shelf.due(path, at, ms(19), ms(6)));
        assert!(shelf.due(path, at, ms(20), ms(6)));
        let mut first = checkpoint(0, 0);
        first.guest_time = ms(20);
        first.cost = ms(6);
        assert_eq!(shelf.add(first, at, 1), []);
        // One stands here already, even for a hot file.
        shelf.mark_hot(path);
        assert!(!shelf.due(path, at, ms(1000), ms(1)));
        assert!(shelf.due(path, AccessIndex(2), ms(20), ms(500)));
        let cold = Path::new("/p/cold");
        assert!(!shelf.due(cold, AccessIndex(2), ms(21), ms(1)));
        assert!(shelf.due(cold, AccessIndex(2), ms(40), ms(1)));
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
            Shelf::new(limits).due(path, AccessIndex(0), second, second / 2)
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
            shelf.mark_hot(Path::new("/p/1"));
            let hour = Duration::from_secs(3600);
            assert!(!shelf.due(Path::new("/p/1"), AccessIndex(0), hour, Duration::ZERO));
            assert_eq!(
                shelf.add(checkpoint(1, 1), AccessIndex(0), 0),
                [CheckpointId(1)]
            );
            assert_eq!(ids(&shelf), []);
        }
    }

    #[test]
    fn old_checkpoints_are_thinned_out_exponentially() {
        let mut shelf = Shelf::new(ROOMY);
        for second in 1..=5000 {
            let at = AccessIndex(u64::from(second));
            shelf.add(checkpoint(second, u64::from(second)), at, 0);
            let kept = ids(&shelf);
            assert_eq!(kept.last(), Some(&second));
            if second < 50 {
                continue;
            }
            let ages: Vec<u32> = kept.iter().map(|kept| second - kept).collect();
            // The oldest still saves a good part of the run, the newest are
            // close together, and in between the age grows by a factor.
            assert!(ages[0] * 10 >= second, "{ages:?}");
            let even = |pair: &[u32]| pair[0] <= 10 * pair[1].max(1);
            assert!(ages.windows(2).all(even), "{ages:?}");
        }
    }

    #[test]
    fn hot_ones_stay_and_a_cold_newcomer_goes_when_all_are_hot() {
        let mut shelf = Shelf::new(Limits {
            max_checkpoints: 2,
            ..ROOMY
        });
        for id in 1..=2 {
            shelf.mark_hot(Path::new(&format!("/p/{id}")));
            assert_eq!(
                shelf.add(checkpoint(id, u64::from(id)), AccessIndex(0), 0),
                []
            );
        }
        let hour = Duration::from_secs(3600);
        assert!(!shelf.due(Path::new("/p/3"), AccessIndex(9), hour, Duration::ZERO));
        assert_eq!(
            shelf.add(checkpoint(3, 100), AccessIndex(9), 0),
            [CheckpointId(3)]
        );
        // A hot newcomer takes the place of the cheapest of its like.
        shelf.mark_hot(Path::new("/p/4"));
        assert!(shelf.due(Path::new("/p/4"), AccessIndex(9), hour, Duration::ZERO));
        assert_eq!(shelf.add(checkpoint(4, 101), AccessIndex(9), 0).len(), 1);
        assert_eq!(shelf.iter().next_back().map(|last| last.id.0), Some(4));
    }

    #[test]
    fn one_that_alone_exceeds_the_memory_costs_no_other() {
        let mut shelf = Shelf::new(Limits {
            max_memory: 25,
            ..ROOMY
        });
        assert_eq!(shelf.add(checkpoint(1, 1), AccessIndex(0), 0), []);
        assert_eq!(shelf.add(checkpoint(2, 2), AccessIndex(1), 0), []);
        let mut large = checkpoint(3, 3);
        large.memory = 26;
        assert_eq!(shelf.add(large, AccessIndex(2), 0), [CheckpointId(3)]);
        assert_eq!(ids(&shelf), [1, 2]);
        let mut full = checkpoint(4, 4);
        full.memory = 25;
        assert_eq!(shelf.add(full, AccessIndex(3), 0).len(), 2);
        assert_eq!(ids(&shelf), [4]);
    }

    #[test]
    fn a_living_ancestor_goes_first_and_lightens_the_rest() {
        let mut shelf = Shelf::new(ROOMY);
        for (id, depth) in [(1, 0), (2, 0), (3, 1), (4, 1)] {
            let mut one = checkpoint(id, 100);
            one.depth = depth;
            shelf.add(one, AccessIndex(u64::from(id)), 0);
        }
        // 2, 3 and 4 lie at the same time as the one before them: a tie at no
        // loss. The run was resumed from 2, so the later two descend from it.
        assert_eq!(shelf.evict(), Some(CheckpointId(2)));
        assert!(shelf.iter().all(|checkpoint| checkpoint.depth == 0));
        while shelf.evict().is_some() {}
        assert_eq!(ids(&shelf), []);
    }

    #[test]
    fn what_was_spent_is_taken_back_with_the_timeline() {
        let mut shelf = Shelf::new(ROOMY);
        shelf.add(checkpoint(1, 1), AccessIndex(0), 0);
        shelf.add(checkpoint(2, 2), AccessIndex(1), 1);
        shelf.drop_one(CheckpointId(2));
        assert_eq!(shelf.spent, Duration::from_millis(2));
        assert_eq!(shelf.rewind(CheckpointId(1)), Some((0, vec![])));
        assert_eq!(shelf.spent, Duration::from_millis(1));
        assert_eq!(shelf.restart(), [CheckpointId(1)]);
        assert_eq!((shelf.spent, shelf.memory), (Duration::ZERO, 0));
    }
}
