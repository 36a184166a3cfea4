//! Bringing a frozen guest back.

use crate::thread::ThreadState;
use crate::{Guest, Image, Refusal, procfs, sys};
use std::fs;
use tracee::{Program, Remote, Stopped, Tid, Tracer};

/// A guest that was brought back: all its threads are stopped where they were.
#[derive(Debug)]
pub struct Resumed {
    /// What is known of it.
    pub guest: Guest,
    /// Its threads, the first one first, ready to be let go.
    pub threads: Vec<Stopped>,
}

const THREAD: u64 = (libc::CLONE_VM
    | libc::CLONE_FS
    | libc::CLONE_FILES
    | libc::CLONE_SIGHAND
    | libc::CLONE_THREAD
    | libc::CLONE_SYSVSEM) as u64;

impl Image {
    /// Makes a copy of the image that no longer shares anything with the run
    /// before it, which must be dead and reaped: its open files are reset here.
    /// `identity_calls` is a filter that traces the calls that take or answer
    /// ids; it is installed once in a line of copies.
    ///
    /// # Errors
    ///
    /// [`Refusal`]; the image is as it was, or lost if it died.
    pub fn resume(
        &mut self,
        tracer: &mut Tracer,
        identity_calls: &Program,
    ) -> Result<Resumed, Refusal> {
        let copy = match self.prepared.take() {
            Some(copy) => copy,
            None => self.copy(tracer)?,
        };
        let process = copy.tid();
        // The threads that are made are born where the first one is kept; each
        // gets its own processors back when it is done.
        let own = sys::share_processor(process);
        let built = self.build(tracer, copy, identity_calls);
        if let Some(own) = own {
            // It was the mask before, and nobody else changes it.
            let _ = sys::set_affinity(Tid::new(0), &own);
        }
        if built.is_err() {
            destroy(tracer, process);
        }
        built
    }

    /// Makes the copy that the next [`resume`](Self::resume) goes on with, while
    /// the run before it is still dying: tearing down a large one takes longer
    /// than the copy does.
    ///
    /// # Errors
    ///
    /// As [`resume`](Self::resume), which may still succeed later.
    pub fn prepare(&mut self, tracer: &mut Tracer) -> Result<(), Refusal> {
        if self.prepared.is_none() {
            self.prepared = Some(self.copy(tracer)?);
        }
        Ok(())
    }

    /// A new process from the frozen one, which stays.
    fn copy(&mut self, tracer: &mut Tracer) -> Result<Stopped, Refusal> {
        let task = self.task.take().ok_or(Refusal::Died)?;
        let site = self.guest.call_site()?;
        let mut remote = Remote::enter(tracer, self.tid, task, site)?;
        let copy = remote.clone(libc::CLONE_PARENT as u64, 0, 0);
        self.task = Some(remote.leave()?);
        Ok(copy?)
    }

    fn build(
        &mut self,
        tracer: &mut Tracer,
        copy: Stopped,
        identity_calls: &Program,
    ) -> Result<Resumed, Refusal> {
        let process = copy.tid();
        let site = self.guest.call_site()?;
        let mut guest = self.guest.clone();
        guest.process = process;
        guest.depth += 1;
        guest.ids = crate::Ids::default();
        guest.facts.clear();
        if let Some(score) = &self.oom_score {
            // Lowering to what it was before needs no privilege.
            let _ = fs::write(format!("/proc/{process}/oom_score_adj"), score.trim());
        }
        let mut leader = Remote::enter(tracer, process, copy, site)?;
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
        if !guest.translates {
            install(&mut leader, identity_calls)?;
            guest.translates = true;
        }
        self.files.restore(&mut leader)?;
        let mut newborn = Vec::new();
        for _ in &self.threads[1..] {
            newborn.push(leader.clone(THREAD, 0, 0)?);
        }
        let (first, others) = self.threads.split_first().ok_or(Refusal::Died)?;
        bind(&mut guest, first, process);
        let mut threads = Vec::with_capacity(self.threads.len());
        let signalled = &self.shared_pending;
        for (state, task) in others.iter().zip(newborn) {
            bind(&mut guest, state, task.tid());
            let remote = Remote::enter(leader.tracer(), process, task, site)?;
            threads.push(state.restore(remote, process, Some(first), signalled)?);
        }
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
        threads.insert(0, first.restore(leader, process, None, signalled)?);
        Ok(Resumed { guest, threads })
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

/// Adds a filter to the process and all its threads (seccomp(2)).
fn install(remote: &mut Remote<'_>, program: &Program) -> Result<(), Refusal> {
    let at = remote.scratch()?.0;
    // `struct sock_fprog`: a length, padding, and a pointer to what follows.
    let mut memory = (program.length() as u64).to_ne_bytes().to_vec();
    memory.extend((at.0 + 16).to_ne_bytes());
    memory.extend(program.bytes());
    remote.memory().write(at, &memory)?;
    remote.call(
        "seccomp",
        libc::SYS_seccomp,
        &[
            u64::from(libc::SECCOMP_SET_MODE_FILTER),
            libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW,
            at.0,
        ],
    )?;
    Ok(())
}
