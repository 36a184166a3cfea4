//! A checkpoint and its limits, as the caller gives them. Where one is put and
//! which one goes is decided in `placement`.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

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
    /// The path that the guest was about to touch when it was taken; `None` if it
    /// was taken somewhere else.
    pub path: Option<PathBuf>,
    /// Somebody asked for it: it is given up last.
    pub wanted: bool,
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
