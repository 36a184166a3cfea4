//! A checkpoint in its place: where in the timeline it stands, and what would
//! resume from it.
//!
//! The checkpoints around it, and the limits for them all, are left to
//! `placement`.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::access::AccessIndex;
use crate::checkpoint::Checkpoint;
use crate::odds::{self, BatchId, Edits};

/// Where the run stands when a checkpoint is taken.
#[derive(Copy, Clone, Debug, PartialEq)]
pub(crate) struct Place {
    /// The index of the next access.
    pub(crate) position: AccessIndex,
    /// The length of the timeline's log.
    pub(crate) mark: usize,
    /// How many paths the guest has touched.
    pub(crate) paths: usize,
}

/// A checkpoint of the timeline.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Placed {
    pub(crate) checkpoint: Checkpoint,
    pub(crate) place: Place,
    /// What all checkpoints of the timeline had cost, up to this one.
    pub(crate) spent: Duration,
    /// The edit that its path was last in.
    pub(crate) batch: Option<BatchId>,
    /// How many paths that were last in each edit were first touched between this
    /// checkpoint and the next. No count is 0.
    edited: BTreeMap<BatchId, usize>,
}

impl Placed {
    pub(crate) fn new(
        checkpoint: Checkpoint,
        place: Place,
        batch: Option<BatchId>,
        spent: Duration,
    ) -> Self {
        Self {
            checkpoint,
            place,
            spent,
            batch,
            edited: BTreeMap::new(),
        }
    }

    #[cfg(test)]
    pub(crate) fn edited(&self) -> &BTreeMap<BatchId, usize> {
        &self.edited
    }

    pub(crate) fn count_edited(&mut self, batch: BatchId) {
        *self.edited.entry(batch).or_default() += 1;
    }

    pub(crate) fn uncount_edited(&mut self, batch: BatchId) {
        if let Some(paths) = self.edited.get_mut(&batch) {
            *paths -= 1;
            if *paths == 0 {
                self.edited.remove(&batch);
            }
        }
    }

    /// All that was touched after it was rewound.
    pub(crate) fn forget_edited(&mut self) {
        self.edited.clear();
    }

    /// The next checkpoint is gone: what resumed from that resumes from here.
    pub(crate) fn take_over(&mut self, next: &Self) {
        for (batch, paths) in &next.edited {
            *self.edited.entry(*batch).or_default() += paths;
        }
    }

    /// The odds that the next edit is to a path first touched between this
    /// checkpoint and the next, which came after `next` paths, of `all`.
    pub(crate) fn odds(&self, next: usize, all: usize, edits: &Edits) -> f64 {
        let again = |(batch, paths): (&BatchId, &usize)| edits.again(*batch) * *paths as f64;
        let edited: f64 = self.edited.iter().map(again).sum();
        edited + odds::of_touched(self.place.paths, next, all)
    }
}
