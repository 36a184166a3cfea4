//! File events that come while a call of the guest's is under way which may have
//! caused them. The kernel queues an event inside of the call; that the call is the
//! guest's own doing is written down only when it has returned, and on a busy machine
//! the event is here first. So it is held back until then.

use super::Supervisor;
use super::inbox::Timed;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// A call that takes longer waits for something itself, as for the other end of a FIFO,
/// and must not keep an edit from being seen.
const LONGEST: Duration = Duration::from_millis(250);

/// What is held back, and since when.
#[derive(Debug, Default)]
pub(super) struct Held {
    touches: Vec<(Instant, watch::Touch)>,
    /// A time was set after which they are looked at in any case.
    timed: bool,
}

impl Held {
    pub(super) fn is_empty(&self) -> bool {
        self.touches.is_empty()
    }
}

/// Whether a call that is about a name may have changed what is at a path: the thing
/// itself, what is in it, or the names in the folder that it is in.
fn concerns(name: &Path, path: &Path) -> bool {
    path.starts_with(name) || name.parent() == Some(path)
}

impl Supervisor<'_> {
    /// Whether a call is under way that may change what is at a path.
    pub(super) fn is_under_way(&self, path: &Path) -> bool {
        // By a link, or by a descriptor: neither need be there.
        let real = |path: &Path| fs::canonicalize(path).ok();
        let mut place: Option<Option<PathBuf>> = None;
        self.run.names_under_way().any(|name| {
            if concerns(name, path) {
                return true;
            }
            let place = place.get_or_insert_with(|| real(path)).as_deref();
            let name = place.and_then(|_| real(name));
            place
                .zip(name)
                .is_some_and(|(path, name)| concerns(&name, path))
        })
    }

    /// Keeps those that are to wait for a call, and answers the others.
    pub(super) fn hold_back(&mut self, touches: Vec<watch::Touch>) -> Vec<watch::Touch> {
        let (held, now): (Vec<_>, Vec<_>) = touches
            .into_iter()
            .partition(|touch| self.is_under_way(&touch.path));
        let since = Instant::now();
        let held = held.into_iter().map(|touch| (since, touch));
        self.held.touches.extend(held);
        self.set_time();
        now
    }

    /// A call has returned, or its task is dead.
    pub(super) fn call_is_over(&mut self) {
        if !self.held.is_empty() {
            // Not here, where a run may be half killed.
            self.rung_meanwhile = true;
        }
    }

    fn set_time(&mut self) {
        if let Some((since, _)) = self.held.touches.first()
            && !self.held.timed
        {
            self.held.timed = true;
            let left = LONGEST.saturating_sub(since.elapsed());
            self.bell.after(left, Timed::Held);
        }
    }

    /// The time that was set has passed.
    pub(super) fn held_for_long(&mut self) -> anyhow::Result<()> {
        self.held.timed = false;
        self.judge_held()
    }

    /// Judges what was held back and need not be any more.
    pub(super) fn judge_held(&mut self) -> anyhow::Result<()> {
        let held = std::mem::take(&mut self.held.touches);
        let (over, waiting): (Vec<_>, Vec<_>) = held.into_iter().partition(|(since, touch)| {
            since.elapsed() >= LONGEST || !self.is_under_way(&touch.path)
        });
        self.held.touches = waiting;
        self.set_time();
        let over: Vec<watch::Touch> = over.into_iter().map(|(_, touch)| touch).collect();
        self.touched(&over)
    }
}
