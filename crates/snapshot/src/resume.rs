//! Bringing a frozen guest back.

use crate::filter::install;
use crate::neighbours::Neighbours;
use crate::thread::ThreadState;
use crate::threads;
use crate::{Guest, Image, Moved, Refusal, procfs, sys};
use std::fs;
use tracee::{CallSite, Program, Remote, Stopped, Tid, Tracer};

/// A guest that was brought back: all its threads are stopped where they were.
#[derive(Debug)]
pub struct Resumed {
    /// What is known of it.
    pub guest: Guest,
    /// Its threads, the first one first, ready to be let go.
    pub threads: Vec<Stopped>,
    /// A signal had stopped it (SIGSTOP and its kind): it is to be sent one again,
    /// or goes on.
    pub was_stopped: bool,
}

/// Up to so many threads are made before it pays to make them all at once.
const FEW: usize = 3;

/// A copy of an image, built as far as it can be while another run is alive: its
/// memory, its threads and the files that are its own. What the two runs share
/// and its timers come last.
#[derive(Debug)]
pub(crate) struct Prepared {
    guest: Guest,
    leader: Stopped,
    /// In the order of the image's threads after the first.
    others: Vec<Stopped>,
}

impl Image {
    /// Makes a copy of the image that no longer shares anything with the run
    /// before it, which must be dead and reaped: its open files are reset here.
    /// `identity_calls` is a filter that traces the calls that take or answer
    /// ids; it is installed once in a line of copies. Files that have `moved` are
    /// opened anew, where the guest had them open.
    ///
    /// # Errors
    ///
    /// [`Refusal`]; the image is as it was, or lost if it died.
    pub fn resume(
        &mut self,
        tracer: &mut Tracer,
        identity_calls: &Program,
        moved: &[Moved],
    ) -> Result<Resumed, Refusal> {
        if let Some(prepared) = self.prepared.take() {
            match self.complete(tracer, prepared, moved) {
                // It had to wait, and somebody has killed it meanwhile.
                Err(Refusal::Died) => {}
                outcome => return outcome,
            }
        }
        let prepared = self.build(tracer, identity_calls)?;
        self.complete(tracer, prepared, moved)
    }

    /// Makes most of the copy that the next [`resume`](Self::resume) goes on with,
    /// in time that is there anyway: while the run before it still runs or dies.
    ///
    /// # Errors
    ///
    /// As [`resume`](Self::resume), which may still succeed later.
    pub fn prepare(
        &mut self,
        tracer: &mut Tracer,
        identity_calls: &Program,
    ) -> Result<(), Refusal> {
        if self.prepared.is_none() {
            self.prepared = Some(self.build(tracer, identity_calls)?);
        }
        Ok(())
    }

    /// A new process from the frozen one, which stays.
    fn copy(&mut self, tracer: &mut Tracer) -> Result<Stopped, Refusal> {
        let task = self.task.take().ok_or(Refusal::Died)?;
        let site = self.guest.copy_site()?;
        let mut remote = Remote::enter(tracer, self.tid, task, site)?;
        let cleared = self.threads.first().map_or(0, ThreadState::clear_child_tid);
        let copy = remote.clone(libc::CLONE_PARENT as u64, cleared);
        self.task = Some(remote.leave()?);
        Ok(copy?)
    }

    /// How calls are made in a copy while it is built: from the moment on that its
    /// pending signals are queued, a SIGTRAP may be among them.
    fn site(&mut self) -> Result<CallSite, Refusal> {
        let site = self.guest.copy_site()?;
        let mut pending = self
            .threads
            .iter()
            .flat_map(ThreadState::pending)
            .chain(&self.shared_pending);
        Ok(CallSite {
            ignores_trap: site.ignores_trap || pending.any(|info| info.si_signo == libc::SIGTRAP),
            ..site
        })
    }

    /// A copy with all its threads.
    fn build(
        &mut self,
        tracer: &mut Tracer,
        identity_calls: &Program,
    ) -> Result<Prepared, Refusal> {
        let neighbours = Neighbours::with(self.tid);
        let copy = self.copy(tracer)?;
        let process = copy.tid();
        let built = self.give_threads(tracer, copy, identity_calls);
        drop(neighbours);
        if built.is_err() {
            destroy(tracer, process);
        }
        built
    }

    fn give_threads(
        &mut self,
        tracer: &mut Tracer,
        copy: Stopped,
        identity_calls: &Program,
    ) -> Result<Prepared, Refusal> {
        let process = copy.tid();
        let site = self.site()?;
        let mut guest = self.guest.clone();
        guest.process = process;
        guest.depth += 1;
        guest.ids = crate::Ids::default();
        guest.facts.clear();
        let (first, states) = self.threads.split_first().ok_or(Refusal::Died)?;
        let mut leader = Remote::enter(tracer, process, copy, site)?;
        if !guest.translates {
            install(&mut leader, identity_calls)?;
            guest.translates = true;
        }
        bind(&mut guest, first, process);
        let mut others = Vec::with_capacity(states.len());
        let at_once = if site.ignores_trap || states.len() < FEW {
            None
        } else {
            threads::all_at_once(&mut leader, first, states)?
        };
        let stopped = match at_once {
            Some(stopped) => stopped,
            None => threads::one_by_one(&mut leader, site, first, states)?,
        };
        for (state, task) in states.iter().zip(stopped) {
            bind(&mut guest, state, task.tid());
            state.finish(&task)?;
            let (registers, mask) = state.place(&self.shared_pending);
            others.push(task.place(registers, mask)?);
        }
        self.files.make_own(&mut leader)?;
        Ok(Prepared {
            guest,
            leader: leader.leave()?,
            others,
        })
    }

    /// Gives a copy what only one run can have at a time, and lets its first
    /// thread be as it was.
    fn complete(
        &mut self,
        tracer: &mut Tracer,
        copy: Prepared,
        moved: &[Moved],
    ) -> Result<Resumed, Refusal> {
        let process = copy.guest.process;
        let neighbours = Neighbours::with(process);
        let completed = self.give_the_rest(tracer, copy, moved);
        drop(neighbours);
        if completed.is_err() {
            destroy(tracer, process);
        }
        completed
    }

    fn give_the_rest(
        &mut self,
        tracer: &mut Tracer,
        copy: Prepared,
        moved: &[Moved],
    ) -> Result<Resumed, Refusal> {
        let Prepared {
            guest,
            leader,
            mut others,
        } = copy;
        let process = guest.process;
        if let Some(score) = &self.oom_score {
            // Lowering to what it was before needs no privilege.
            let _ = fs::write(format!("/proc/{process}/oom_score_adj"), score.trim());
        }
        let mut leader = Remote::enter(tracer, process, leader, self.site()?)?;
        if self.group != 0 {
            // A group of the guest's own was named after its first process.
            let group = if self.group == self.guest.process.raw() {
                0
            } else {
                self.group
            };
            if !sys::set_group(process, group) {
                leader.call("setpgid", libc::SYS_setpgid, &[0, group as u64])?;
            }
        }
        self.files.reset_shared(&mut leader, moved)?;
        self.memory.restore(&mut leader, self.files.above())?;
        self.state.restore(&mut leader)?;
        for info in &self.shared_pending {
            let at = leader.scratch()?.0;
            leader.memory().write(at, sys::signal_bytes(info))?;
            leader.call(
                "rt_sigqueueinfo",
                libc::SYS_rt_sigqueueinfo,
                &[process.raw() as u64, info.si_signo as u64, at.0],
            )?;
        }
        self.timers.restore(&mut leader, &guest)?;
        let first = self.threads.first().ok_or(Refusal::Died)?;
        first.calls(process, process, None).make_each(&mut leader)?;
        first.finish(leader.task()?)?;
        let (registers, mask) = first.place(&self.shared_pending);
        let first = leader.leave_as(registers, mask)?;
        others.insert(0, first);
        Ok(Resumed {
            guest,
            threads: others,
            was_stopped: self.stopped,
        })
    }
}

impl Prepared {
    /// Kills and reaps it.
    pub(crate) fn discard(self, tracer: &mut Tracer) {
        destroy(tracer, self.guest.process);
    }
}

/// Kills and reaps a half-built copy. Its further threads come first: the end of
/// the first one is reported when no other is left.
fn destroy(tracer: &mut Tracer, process: Tid) {
    tracee::kill_task(process, libc::SIGKILL);
    let threads = procfs::threads(process).unwrap_or_default();
    let others = threads.into_iter().filter(|tid| *tid != process);
    for tid in others.chain([process]) {
        // Only waitpid itself could fail, and then nothing can be reaped.
        let _ = tracer.reap(tid);
    }
}

fn bind(guest: &mut Guest, state: &ThreadState, real: Tid) {
    guest.ids.bind(state.id, real);
    guest.facts.insert(real, state.facts());
}
