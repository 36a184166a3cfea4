//! Births: how a new task of the guest becomes known.
//!
//! Two things tell of it, in either order: its parent's event, and its own first
//! stop. A parent that is killed inside of its call gives no event at all
//! (`ptrace_stop` in the kernel's `signal.c` does not stop a task that has a fatal
//! signal), or one that is gone before it is read. So a task is known from its
//! first stop on, by what `/proc` says of it, and the parent's event only tells
//! of it earlier.

use super::Supervisor;
use tracee::{Event, Stopped, Tid};

/// What a new task is.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub(super) struct Birth {
    /// Its process: itself, unless it is a thread.
    pub(super) process: Tid,
    /// The parent of its process, which need not be the one that made it: that one
    /// may be dead by now.
    pub(super) parent: Tid,
}

impl Birth {
    /// Asks about a task. `None` if it has ended, or if its id is somebody else's
    /// by now.
    pub(super) fn of(task: Tid) -> Option<Self> {
        // The name in it may be of any bytes.
        let status = std::fs::read(format!("/proc/{task}/status")).ok()?;
        let own = rustix::thread::gettid().as_raw_nonzero().get();
        parse(&String::from_utf8_lossy(&status), Tid::new(own))
    }
}

/// Parses `/proc/TID/status` of a task of this tracer.
fn parse(status: &str, tracer: Tid) -> Option<Birth> {
    let field = |name: &str| {
        status
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
            .map(str::trim)
    };
    let id = |name| field(name)?.parse().ok().map(Tid::new);
    let has_ended = field("State")?.starts_with(['Z', 'X']);
    if has_ended || id("TracerPid")? != tracer {
        return None;
    }
    Some(Birth {
        process: id("Tgid")?,
        parent: id("PPid")?,
    })
}

impl Supervisor<'_> {
    /// A stop of a task that nobody has told of: new, or of the guest's making in a
    /// way that is never let run.
    pub(super) fn unknown(&mut self, task: Stopped, event: &Event) -> anyhow::Result<()> {
        let tid = task.tid();
        match event {
            Event::Interrupted | Event::GroupStop(_) => self.first_stop(task, event),
            // exec by another thread than the first: the task has the id of its
            // process from now on.
            Event::Exec { former } => {
                let process = self.run.process_of(*former).unwrap_or(tid);
                let cut_off = self.run.executed(process);
                self.cut_off(process, cut_off);
                Ok(task.resume(None)?)
            }
            _ => {
                tracee::kill_task(tid, libc::SIGKILL);
                Ok(())
            }
        }
    }

    fn first_stop(&mut self, task: Stopped, event: &Event) -> anyhow::Result<()> {
        let tid = task.tid();
        if self.tracer.is_lost_copy(&task)? {
            // A copy of the guest that nobody asked for any more.
            tracee::kill_task(tid, libc::SIGKILL);
            return Ok(());
        }
        let own = Tid::new(rustix::process::getpid().as_raw_nonzero().get());
        let ours = |birth: &Birth| {
            let knows = |process| self.run.processes.contains_key(&process);
            // Orphans are given to this process. They are of this run, if those of
            // earlier ones could be found before it began.
            knows(birth.process)
                || knows(birth.parent)
                || birth.parent == own && self.tracer.strays().is_ok()
        };
        match Birth::of(tid).filter(ours) {
            Some(birth) => {
                self.note_collision(tid);
                self.run.adopt(tid, birth);
                match event {
                    Event::GroupStop(_) => Ok(task.listen()?),
                    _ => Ok(task.resume(None)?),
                }
            }
            // Its parent's event may still tell of it.
            None => {
                self.run.keep_unborn(task);
                Ok(())
            }
        }
    }

    /// A task tells of one that it has made.
    pub(super) fn told_of(&mut self, child: Tid, parent: Tid) -> anyhow::Result<()> {
        self.note_collision(child);
        match self.run.born(child, parent) {
            Some(child) => super::or_death(child.resume(None).map_err(Into::into)),
            None => Ok(()),
        }
    }

    /// A new task of a resumed run may have an id that the guest knows another task
    /// by. The kernel would have to count through all ids for that.
    fn note_collision(&mut self, child: Tid) {
        if self.run.guest.ids().collides(child) && !self.run.knows(child) {
            self.warn(
                "id-collision",
                &format!(
                    "a new process has an id that is in use ({child}); its signals may go astray"
                ),
            );
            self.run.barred = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATUS: &str = "Name:\tPPid: 9\nState:\tt (tracing stop)\nTgid:\t70\nNgid:\t0\nPid:\t71\n\
                          PPid:\t60\nTracerPid:\t5\n";

    #[test]
    fn a_thread_and_its_process() {
        assert_eq!(
            parse(STATUS, Tid::new(5)),
            Some(Birth {
                process: Tid::new(70),
                parent: Tid::new(60)
            })
        );
    }

    #[test]
    fn a_dead_task_and_another_ones_are_none() {
        assert_eq!(parse(STATUS, Tid::new(6)), None);
        let dead = STATUS.replace("t (tracing stop)", "Z (zombie)");
        assert_eq!(parse(&dead, Tid::new(5)), None);
        assert_eq!(parse("", Tid::new(5)), None);
    }
}
