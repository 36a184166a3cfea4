//! Scheduling policy, priorities and niceness of a thread: what a new thread of a
//! copy has of its first one, and what it must be given.

use crate::sys::scheduling::{self, Attributes};
use crate::{Refusal, procfs};
use std::io;
use tracee::Tid;

/// SCHED_FLAG_RESET_ON_FORK.
const RESET_ON_FORK: u64 = 1;
/// SCHED_DEADLINE.
const DEADLINE: u32 = 6;
const IDLE: u32 = libc::SCHED_IDLE as u32;
/// CAP_SYS_NICE.
const MAY_ALL: u32 = 23;

/// How a thread is scheduled.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub(crate) struct Scheduling {
    attributes: Attributes,
    io_priority: i32,
}

fn is_real_time(policy: u32) -> bool {
    policy == libc::SCHED_FIFO as u32 || policy == libc::SCHED_RR as u32
}

/// What a copy of a thread starts with (`sched_fork` in the kernel's `core.c`).
fn inherited(from: &Attributes) -> Attributes {
    let mut child = *from;
    if from.flags & RESET_ON_FORK != 0 {
        child.flags &= !RESET_ON_FORK;
        child.nice = if is_real_time(from.policy) {
            0
        } else {
            from.nice.max(0)
        };
        child.policy = libc::SCHED_OTHER as u32;
        child.priority = 0;
    }
    child
}

/// Whether it takes more than the limits on a nice value and on a real-time
/// priority allow to get from one to the other (sched(7)).
fn takes_privilege(from: &Attributes, to: &Attributes, limits: (u64, u64)) -> bool {
    if is_real_time(to.policy) {
        let before = if is_real_time(from.policy) {
            from.priority
        } else {
            0
        };
        let changes = to.policy != from.policy || to.priority > before;
        return changes && limits.1 < u64::from(to.priority);
    }
    let leaves_idle = from.policy == IDLE && to.policy != IDLE;
    let nicest = 20 - i64::try_from(limits.0).unwrap_or(i64::MAX).min(40);
    (to.nice < from.nice || leaves_idle) && i64::from(to.nice) < nicest
}

impl Scheduling {
    /// How a thread is scheduled; another process may ask.
    pub(crate) fn of(thread: Tid) -> Result<Self, Refusal> {
        let step = "read how a thread is scheduled";
        let attributes = scheduling::attributes(thread).map_err(Refusal::proc(step))?;
        if attributes.policy == DEADLINE {
            return Err(Refusal::unsupported(
                "scheduling",
                "a thread runs under SCHED_DEADLINE",
            ));
        }
        Ok(Self {
            attributes,
            io_priority: scheduling::io_priority(thread).map_err(Refusal::proc(step))?,
        })
    }

    /// Refuses what a copy of the first thread could not be given.
    pub(crate) fn check<'a>(
        process: Tid,
        first: &Self,
        all: impl Iterator<Item = &'a Self>,
    ) -> Result<(), Refusal> {
        let start = inherited(&first.attributes);
        let mut differing = all.filter(|s| s.attributes != start).peekable();
        if differing.peek().is_none() {
            return Ok(());
        }
        let step = "read the guest's limits on priorities";
        let limits = scheduling::priority_limits(process).map_err(Refusal::proc(step))?;
        if differing.any(|s| takes_privilege(&start, &s.attributes, limits))
            && !may_all().map_err(Refusal::proc(step))?
        {
            return Err(Refusal::unsupported(
                "scheduling",
                "a thread has a priority that a copy could not be given without privilege",
            ));
        }
        Ok(())
    }

    /// Gives it to a thread of a copy, from outside.
    pub(crate) fn restore(&self, thread: Tid) -> Result<(), Refusal> {
        let step = "set how a thread is scheduled";
        let now = Self::of(thread)?;
        if now.attributes != self.attributes {
            if self.attributes.policy == IDLE && now.attributes.nice != self.attributes.nice {
                // With this policy the nice value that comes with it is ignored.
                scheduling::set_nice(thread, self.attributes.nice).map_err(Refusal::proc(step))?;
            }
            scheduling::set_attributes(thread, &self.attributes).map_err(Refusal::proc(step))?;
        }
        if now.io_priority != self.io_priority {
            scheduling::set_io_priority(thread, self.io_priority).map_err(Refusal::proc(step))?;
        }
        Ok(())
    }
}

/// Whether this process has CAP_SYS_NICE.
fn may_all() -> io::Result<bool> {
    let status = procfs::status(crate::sys::own_id())?;
    Ok(status.capabilities & 1 << MAY_ALL != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIFO: i32 = libc::SCHED_FIFO;
    const OTHER: i32 = libc::SCHED_OTHER;

    #[test]
    fn what_takes_privilege() {
        let other = |nice| Attributes::new(OTHER, nice, 0, 0);
        let fifo = |priority| Attributes::new(FIFO, 0, priority, 0);
        let none = (0, 0);
        assert!(!takes_privilege(&other(0), &other(5), none));
        assert!(takes_privilege(&other(5), &other(0), none));
        assert!(!takes_privilege(&other(5), &other(0), (20, 0)));
        assert!(!takes_privilege(&other(5), &other(-20), (u64::MAX, 0)));
        assert!(takes_privilege(&other(0), &fifo(3), none));
        assert!(!takes_privilege(&other(0), &fifo(3), (0, 3)));
        assert!(!takes_privilege(&fifo(9), &fifo(3), none));
        assert!(!takes_privilege(&fifo(9), &other(0), none));
        let idle = Attributes::new(libc::SCHED_IDLE, 0, 0, 0);
        assert!(takes_privilege(&idle, &other(0), none));
        assert!(!takes_privilege(&other(0), &idle, none));
    }

    #[test]
    fn what_a_fork_resets() {
        let parent = Attributes::new(FIFO, 0, 9, RESET_ON_FORK);
        assert_eq!(inherited(&parent), Attributes::new(OTHER, 0, 0, 0));
        let parent = Attributes::new(OTHER, -5, 0, RESET_ON_FORK);
        assert_eq!(inherited(&parent).nice, 0);
        let parent = Attributes::new(OTHER, -5, 0, 0);
        assert_eq!(inherited(&parent), parent);
    }
}
