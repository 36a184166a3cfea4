//! A tracer and the task that makes calls for it on one processor: a stop across
//! processors costs ten times one on the same.

use crate::sys;
use tracee::Tid;

/// Keeps the tracer's thread where it runs and a task there with it. When this is
/// dropped the tracer is free again; the task stays until it is given its
/// processors back, and so do threads that it makes meanwhile.
pub(crate) struct Neighbours {
    /// The tracer's own processors; `None` where the two cannot be brought together.
    own: Option<Vec<u8>>,
}

impl Neighbours {
    pub(crate) fn with(task: Tid) -> Self {
        Self {
            own: sys::share_processor(task),
        }
    }
}

impl Drop for Neighbours {
    fn drop(&mut self) {
        if let Some(own) = &self.own {
            // It was the mask before, and nobody else changes it.
            let _ = sys::set_affinity(Tid::new(0), own);
        }
    }
}
