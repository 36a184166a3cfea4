//! Which path the next edit may be to.
//!
//! A guess, made of three parts that add up to at most one:
//!
//! - **What was edited is edited again.** The paths of the last edit count most;
//!   those of the one before it a third as much, then a sixth, a tenth: the
//!   power law by which people come back to things. Files that were saved
//!   together (a formatter, a branch switch) are one edit and share its odds: a
//!   burst of 200 says little about each of them.
//! - **What was read last is edited.** The odds fall with the number of paths
//!   that the guest has touched since.
//! - **Anything is edited.** No path ever has less than its even share of these
//!   odds, however many others are edited: it is what a long part of a run
//!   before rarely edited files is kept for.
//!
//! Which checkpoint such odds are worth is left to `thinning`.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// The odds that the next edit is to paths of an earlier one.
const EDITED: f64 = 0.5;
/// The odds that it is to one that was read of late.
const READ: f64 = 0.45;
/// The odds that it is to any. Little, so that checkpoints still lie closest
/// where the guest has read last; far back they come to lie evenly.
const ANY: f64 = 0.05;

/// How many of the paths that were read last have half of their part's odds. A
/// module looked up in a few folders is that many paths.
const READ_OF_LATE: f64 = 4.0;

/// Edits older than this many have odds that do not tell: 1 in 2,000 each.
const REMEMBERED: usize = 32;

/// The edits that were acted upon at once, by the order in which they came.
#[derive(Copy, Clone, Eq, PartialEq, Ord, PartialOrd, Hash, Debug)]
pub(crate) struct BatchId(u64);

#[derive(Clone, Debug, PartialEq)]
struct Batch {
    id: BatchId,
    /// Those that were edited again later are not among them.
    paths: usize,
}

/// The edits so far. Each path belongs to the last batch that it was in.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Edits {
    last: HashMap<PathBuf, BatchId>,
    /// Oldest first; none is empty.
    batches: Vec<Batch>,
    next: u64,
    /// Whether the newest batch takes further paths.
    open: bool,
}

/// A path went from one batch to another.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Moved {
    pub(crate) from: Option<BatchId>,
    pub(crate) to: BatchId,
}

impl Edits {
    /// Adds a path to the newest batch; `None` if it is there already.
    pub(crate) fn add(&mut self, path: &Path) -> Option<Moved> {
        let newest = self.batches.last().map(|batch| batch.id);
        let from = self.last.get(path).copied();
        if self.open && from.is_some() && from == newest {
            return None;
        }
        // The new batch comes first, so that it is there if the old one goes.
        let to = match newest {
            Some(newest) if self.open => newest,
            _ => self.open_batch(),
        };
        if let Some(from) = from {
            self.leave(from);
        }
        if let Some(batch) = self.batches.last_mut() {
            batch.paths += 1;
        }
        self.last.insert(path.to_owned(), to);
        self.forget_the_oldest();
        Some(Moved { from, to })
    }

    fn open_batch(&mut self) -> BatchId {
        let id = BatchId(self.next);
        self.next += 1;
        self.open = true;
        self.batches.push(Batch { id, paths: 0 });
        id
    }

    fn leave(&mut self, batch: BatchId) {
        if let Some(at) = self.find(batch) {
            self.batches[at].paths = self.batches[at].paths.saturating_sub(1);
            if self.batches[at].paths == 0 && at + 1 < self.batches.len() {
                self.batches.remove(at);
            }
        }
    }

    fn forget_the_oldest(&mut self) {
        if self.batches.len() > REMEMBERED {
            let oldest = self.batches.remove(0).id;
            self.last.retain(|_, batch| *batch != oldest);
        }
    }

    /// What was added since the last call was acted upon: paths that come from
    /// here on are another edit.
    pub(crate) fn close_batch(&mut self) {
        self.open = false;
    }

    pub(crate) fn batch_of(&self, path: &Path) -> Option<BatchId> {
        self.last.get(path).copied()
    }

    fn find(&self, batch: BatchId) -> Option<usize> {
        self.batches.binary_search_by_key(&batch, |one| one.id).ok()
    }

    /// Whether a batch is *hot*: among the newest with `room` paths together. One
    /// with more paths than are left is passed over, so that a burst does not
    /// push out the files that somebody is at work on.
    pub(crate) fn is_hot(&self, batch: BatchId, room: usize) -> bool {
        let mut room = room;
        for one in self.batches.iter().rev() {
            let fits = one.paths <= room;
            if one.id == batch {
                return fits;
            }
            if fits {
                room -= one.paths;
            }
        }
        false
    }

    /// The odds that the next edit is to one certain path of this batch because
    /// it was edited then.
    pub(crate) fn again(&self, batch: BatchId) -> f64 {
        let Some(at) = self.find(batch) else {
            return 0.0;
        };
        let rank = (self.batches.len() - at) as f64;
        EDITED / (rank * (rank + 1.0)) / self.batches[at].paths.max(1) as f64
    }
}

/// The odds that the next edit is to one of the paths from the `from`-th to
/// before the `to`-th, of `all` that the guest has touched, without regard to
/// what was edited before.
pub(crate) fn of_touched(from: usize, to: usize, all: usize) -> f64 {
    if from >= to || to > all {
        return 0.0;
    }
    let older_than = |nth: usize| READ_OF_LATE / ((all - nth) as f64 + READ_OF_LATE);
    READ * (older_than(to) - older_than(from)) + ANY * (to - from) as f64 / all as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn path(n: usize) -> PathBuf {
        PathBuf::from(format!("/p/{n}"))
    }

    proptest! {
        /// Whatever was edited and touched, the odds are odds: none below zero,
        /// together no more than one, and no path below its even share.
        #[test]
        fn odds_add_up_to_at_most_one(
            edits in proptest::collection::vec(proptest::collection::vec(0..40_usize, 0..12), 0..90),
            all in 1..500_usize,
        ) {
            let mut known = Edits::default();
            let mut newest = None;
            for batch in &edits {
                for n in batch {
                    known.add(&path(*n));
                    newest = Some(*n);
                }
                known.close_batch();
            }
            let again: Vec<f64> = (0..40)
                .map(|n| known.batch_of(&path(n)).map_or(0.0, |batch| known.again(batch)))
                .collect();
            let touched: Vec<f64> = (0..all).map(|nth| of_touched(nth, nth + 1, all)).collect();
            let sum = again.iter().chain(&touched).sum::<f64>();
            prop_assert!(sum <= 1.0 + 1e-9, "{sum}");
            prop_assert!((touched.iter().sum::<f64>() - of_touched(0, all, all)).abs() < 1e-9);
            prop_assert!(again.iter().all(|&odds| odds >= 0.0));
            prop_assert!(touched.iter().all(|&odds| odds >= ANY / all as f64));
            prop_assert!(touched.windows(2).all(|pair| pair[0] <= pair[1]));
            // Every path counts in the batch that it is said to be in, and only there.
            for batch in &known.batches {
                let paths = known.last.values().filter(|id| **id == batch.id).count();
                prop_assert_eq!(paths, batch.paths);
                prop_assert!(paths > 0);
            }
            prop_assert!(known.batches.len() <= REMEMBERED);
            if let Some(batch) = newest.and_then(|n| known.batch_of(&path(n))) {
                prop_assert_eq!(known.find(batch), Some(known.batches.len() - 1));
            }
        }
    }

    #[test]
    fn a_burst_is_one_edit_and_does_not_push_out_the_others() {
        let mut edits = Edits::default();
        edits.add(&path(1000));
        edits.close_batch();
        for n in 0..200 {
            edits.add(&path(n));
        }
        edits.close_batch();
        let batch = |edits: &Edits, n| edits.batch_of(&path(n)).unwrap();
        assert_eq!(batch(&edits, 0), batch(&edits, 199));
        assert!(!edits.is_hot(batch(&edits, 0), 16));
        assert!(edits.is_hot(batch(&edits, 1000), 16));
        assert!(edits.again(batch(&edits, 1000)) > 10.0 * edits.again(batch(&edits, 0)));
        // One of the burst is edited by itself: now it is the hottest of all.
        edits.add(&path(7));
        assert!(edits.is_hot(batch(&edits, 7), 1));
        assert!(!edits.is_hot(batch(&edits, 1000), 1));
        assert!(edits.is_hot(batch(&edits, 1000), 2));
        assert!(edits.again(batch(&edits, 7)) > edits.again(batch(&edits, 1000)));
    }
}
