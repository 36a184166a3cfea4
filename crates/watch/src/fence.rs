//! Fences: whoever asks is told when everything that was changed before is
//! delivered. Keeps those that were asked for, and tells which are reached;
//! waiting and calling back are left to the reader.
//!
//! The kernel queues an event in the system call that makes the change. So once
//! the queue was seen empty at some instant after the question, every change
//! made before it is among the pending touches, and the fence is reached as
//! soon as those have gone.

use std::fmt;
use std::time::Instant;

type Call = Box<dyn FnOnce() + Send>;

/// One question that was not answered yet.
struct Fence {
    asked: Instant,
    /// When all events from before the question were known to be read.
    read: Option<Instant>,
    call: Call,
}

/// All questions that were not answered yet, the oldest first.
#[derive(Default)]
pub(crate) struct Fences(Vec<Fence>);

impl fmt::Debug for Fences {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_tuple("Fences")
            .field(&self.0.len())
            .finish()
    }
}

impl Fences {
    pub(crate) fn add(&mut self, call: Call) {
        self.0.push(Fence {
            asked: Instant::now(),
            read: None,
            call,
        });
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Those that are reached, when the queue was last seen empty at
    /// `drained_at` and the first event of what is not delivered yet was read
    /// at `oldest`. No event that was read before `now` may be missing there.
    pub(crate) fn take_reached(
        &mut self,
        drained_at: Instant,
        oldest: Option<Instant>,
        now: Instant,
    ) -> Vec<Call> {
        let mut reached = Vec::new();
        for mut fence in std::mem::take(&mut self.0) {
            if fence.read.is_none() && drained_at >= fence.asked {
                fence.read = Some(now);
            }
            if fence
                .read
                .is_some_and(|read| oldest.is_none_or(|oldest| oldest > read))
            {
                reached.push(fence.call);
            } else {
                self.0.push(fence);
            }
        }
        reached
    }
}
