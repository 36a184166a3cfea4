//! Taking a checkpoint.

use crate::fds::{FdTable, HeldFile};
use crate::image::{Image, ImageParts};
use crate::memory::SharedMemory;
use crate::neighbours::Neighbours;
use crate::process::ProcessState;
use crate::procfs;
use crate::scheduling::Scheduling;
use crate::thread::{self, ThreadState};
use crate::timers::Timers;
use crate::{Guest, Hazard, Refusal, sys};
use std::fs;
use std::time::{Duration, Instant};
use tracee::{Event, Remote, Report, Stopped, Tid, Tracer};

/// How long the guest's other threads get to stop.
const PATIENCE: Duration = Duration::from_millis(100);

/// What came of [`freeze`].
#[derive(Debug)]
pub struct Frozen {
    /// The task that the checkpoint was taken at, still stopped; `None` if it
    /// died, or if there was none. If it is no longer before its call
    /// ([`Stopped::is_before_call`]), it is to be let go and will stop before
    /// the same call again.
    pub task: Option<Stopped>,
    /// The image, or why there is none.
    pub outcome: Result<Image, Refusal>,
}

/// A thread that is stopped for a checkpoint, and the event it had stopped for.
struct Held {
    task: Stopped,
    event: Event,
    /// It was in a group stop, to which it goes back.
    in_group_stop: bool,
}

impl Held {
    fn new(task: Stopped, event: Event) -> Self {
        Self {
            task,
            in_group_stop: matches!(event, Event::GroupStop(_)),
            event,
        }
    }
}

/// Freezes a guest of one process. One of its threads may be stopped before a
/// system call (`task`). Its other threads are stopped wherever they are, and go
/// on afterwards as they would have: the events that they stopped for are
/// reported by [`Tracer::wait`].
///
/// A thread can have stopped because a call of its has returned. `is_mere_answer` says
/// whether the thread's memory and registers are as they are to be then, and all that is
/// left to do is to take note of it; otherwise the guest cannot be frozen now.
///
/// `hold` is called for each regular file whose bytes the image depends on and
/// that the guest can go on changing unseen.
pub fn freeze(
    tracer: &mut Tracer,
    guest: &mut Guest,
    task: Option<Stopped>,
    is_mere_answer: &dyn Fn(Tid) -> bool,
    hold: &mut dyn FnMut(&HeldFile) -> Result<(), String>,
) -> Frozen {
    let current = task.as_ref().map(Stopped::tid);
    let mut held: Vec<Held> = task
        .into_iter()
        .map(|task| Held::new(task, Event::Seccomp))
        .collect();
    let outcome = stop_others(tracer, guest, &mut held)
        .and_then(|()| check(guest, &held, is_mere_answer))
        .and_then(|()| freeze_stopped(tracer, guest, &mut held, hold));
    let mut task = None;
    for Held {
        task: stopped,
        event,
        ..
    } in held
    {
        if Some(stopped.tid()) == current {
            task = Some(stopped);
        } else {
            tracer.postpone(Report::Stop(stopped, event));
        }
    }
    Frozen { task, outcome }
}

/// Stops all threads of the guest that are not held yet, also those that are
/// born meanwhile.
fn stop_others(tracer: &mut Tracer, guest: &Guest, held: &mut Vec<Held>) -> Result<(), Refusal> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let threads =
            procfs::threads(guest.process).map_err(Refusal::proc("list the guest's threads"))?;
        let missing: Vec<Tid> = threads
            .into_iter()
            .filter(|tid| held.iter().all(|h| h.task.tid() != *tid))
            .collect();
        if missing.is_empty() {
            return Ok(());
        }
        if missing.contains(&guest.process) {
            // A first thread that has ended says nothing more until the last one
            // has, and would be waited for in vain.
            let stat = procfs::stat(guest.process)
                .map_err(Refusal::proc("read the state of the guest's first thread"))?;
            if stat.state == 'Z' {
                return Err(leader_ended());
            }
        }
        for tid in &missing {
            match tracer.interrupt(*tid) {
                // One that has not been seen yet is stopping by itself.
                Ok(()) | Err(tracee::Error::Died(_)) => {}
                Err(e) => return Err(e.into()),
            }
        }
        for tid in missing {
            match tracer.wait_for(tid, Some(deadline)) {
                Ok((task, event)) => {
                    let answer = match event {
                        Event::Interrupted => task.forget_interruption(),
                        _ => Ok(()),
                    };
                    held.push(Held::new(task, event));
                    answer?;
                }
                Err(tracee::Error::Died(_)) if tid != guest.process => {}
                Err(e) => return Err(e.into()),
            }
        }
    }
}

/// Refuses what is known to have no answer, before anything is done.
fn check(
    guest: &Guest,
    held: &[Held],
    is_mere_answer: &dyn Fn(Tid) -> bool,
) -> Result<(), Refusal> {
    for hazard in &guest.hazards {
        if let Some(refusal) = hazard.refusal() {
            return Err(refusal);
        }
    }
    for Held { task, event, .. } in held {
        match event {
            Event::SyscallExit if is_mere_answer(task.tid()) => {}
            Event::Child { .. } | Event::Exec { .. } | Event::SyscallExit => {
                return Err(Refusal::Passing);
            }
            Event::Seccomp | Event::Signal(_) | Event::Interrupted | Event::GroupStop(_) => {}
        }
    }
    let children = tracee::children_of_task(guest.process)
        .map_err(Refusal::proc("list the guest's children"))?;
    if !children.is_empty() {
        return Err(Refusal::unsupported(
            "child-alive",
            "the guest has a child process",
        ));
    }
    Ok(())
}

fn leader_ended() -> Refusal {
    Refusal::unsupported("leader-ended", "the guest's first thread has ended")
}

/// Makes a stopped thread call, and keeps it among those held. The event that a
/// thread had stopped for must not be lost: a signal is sent to it again, with
/// its details, and a call that it stood before is made again by itself.
fn with_remote<T>(
    tracer: &mut Tracer,
    guest: &mut Guest,
    held: &mut Vec<Held>,
    index: usize,
    act: impl FnOnce(&mut Remote<'_>, &mut Guest) -> Result<T, Refusal>,
) -> Result<T, Refusal> {
    let site = guest.call_site()?;
    let signal = match held[index].event {
        Event::Signal(_) => {
            let task = &held[index].task;
            // A thread that has overrun its stack has no place to pass its signal
            // through. It is left as it is.
            let stack = task.registers()?.stack_pointer() & !0xfff;
            tracee::AddressSpace::of(task.tid())
                .read_u64(tracee::RemoteAddr(stack))
                .map_err(|e| match e {
                    tracee::Error::Died(_) => Refusal::Died,
                    _ => Refusal::Late,
                })?;
            Some(task.signal_info()?)
        }
        _ => None,
    };
    let Held {
        task,
        in_group_stop,
        ..
    } = held.swap_remove(index);
    let (process, tid) = (guest.process, task.tid());
    let processors = sys::affinity(tid).map_err(Refusal::proc("read a thread's affinity"))?;
    let neighbours = Neighbours::with(tid);
    let mut remote = Remote::enter(tracer, process, task, site)?;
    if in_group_stop {
        remote.was_in_group_stop();
    }
    // It is blocked for now and waits.
    let sent = match &signal {
        Some(info) => send_again(&mut remote, process, tid, info),
        None => Ok(()),
    };
    let result = match sent {
        Ok(()) => act(&mut remote, guest),
        Err(e) => Err(e.into()),
    };
    let task = remote.leave()?;
    drop(neighbours);
    // They were its own a moment ago.
    let _ = sys::set_affinity(tid, &processors);
    held.push(Held {
        task,
        event: Event::Interrupted,
        in_group_stop,
    });
    result
}

fn send_again(
    remote: &mut Remote<'_>,
    process: Tid,
    tid: Tid,
    info: &libc::siginfo_t,
) -> tracee::Result<()> {
    let at = remote.scratch()?.0;
    remote.memory().write(at, sys::signal_bytes(info))?;
    remote.call(
        "rt_tgsigqueueinfo",
        libc::SYS_rt_tgsigqueueinfo,
        &[
            process.raw() as u64,
            tid.raw() as u64,
            info.si_signo as u64,
            at.0,
        ],
    )?;
    Ok(())
}

fn index_of(held: &[Held], tid: Tid) -> Result<usize, Refusal> {
    held.iter()
        .position(|h| h.task.tid() == tid)
        .ok_or(Refusal::Died)
}

fn freeze_stopped(
    tracer: &mut Tracer,
    guest: &mut Guest,
    held: &mut Vec<Held>,
    hold: &mut dyn FnMut(&HeldFile) -> Result<(), String>,
) -> Result<Image, Refusal> {
    guest.look_again()?;
    let process = guest.process;
    index_of(held, process).map_err(|_| leader_ended())?;
    for tid in held.iter().map(|h| h.task.tid()).collect::<Vec<_>>() {
        let attributes = guest.hazards.contains(&Hazard::Attributes);
        if thread::must_ask(guest.facts.entry(tid).or_default(), attributes) {
            let index = index_of(held, tid)?;
            // The event decides how the copy goes on; asking would lose it.
            capture_after_asking(tracer, guest, held, index)?;
        }
    }
    let mut threads = Vec::with_capacity(held.len());
    for Held { task, event, .. } in held.iter() {
        let tid = task.tid();
        let id = guest.ids.to_virtual(tid);
        let facts = guest.facts.entry(tid).or_default();
        // The call that a thread stands before after it was asked is rewound
        // already; its registers say so.
        let event = if task.is_before_call() {
            &Event::Seccomp
        } else {
            event
        };
        let state = thread::capture(process, id, task, event, facts, guest.caught)?;
        threads.push((tid == process, state));
    }
    guest.blocks_trap = threads.iter().any(|(_, state)| state.blocks_trap());
    // The first thread comes first.
    threads.sort_by_key(|(is_leader, _)| !is_leader);
    let threads: Vec<ThreadState> = threads.into_iter().map(|(_, state)| state).collect();
    let all = threads.iter().map(|state| &state.scheduling);
    Scheduling::check(process, &threads[0].scheduling, all)?;
    let files = FdTable::capture(guest)?;
    let mut memory = SharedMemory::find(guest, &files)?;
    // A file that is open and mapped is held once, as the mapping demands it.
    for file in memory.held.iter().chain(&files.held) {
        hold(file).map_err(|why| Refusal::unsupported("open-file-not-kept", why))?;
    }
    let stopped = held.iter().any(|h| h.in_group_stop);
    let leader = index_of(held, process)?;
    let (image, timers, shared_pending, state) =
        with_remote(tracer, guest, held, leader, |remote, guest| {
            let (timers, shared_pending) = timers_and_signals(remote, guest)?;
            let state = ProcessState::capture(remote, guest)?;
            memory.save(remote, guest)?;
            let child = remote.clone(libc::CLONE_PARENT as u64, 0)?;
            let image = settle(remote.tracer(), guest, child, &files)?;
            Ok((image, timers, shared_pending, state))
        })?;
    Ok(Image::new(ImageParts {
        task: image,
        guest: guest.clone(),
        threads,
        files,
        memory,
        state,
        shared_pending,
        timers,
        stopped,
    }))
}

fn capture_after_asking(
    tracer: &mut Tracer,
    guest: &mut Guest,
    held: &mut Vec<Held>,
    index: usize,
) -> Result<(), Refusal> {
    let tid = held[index].task.tid();
    with_remote(tracer, guest, held, index, |remote, guest| {
        let attributes = guest.hazards.contains(&Hazard::Attributes);
        thread::ask(remote, guest.facts.entry(tid).or_default(), attributes)
    })
}

/// The timers and the signals that wait for the whole process, at one moment: a
/// timer that goes off between looking at the one and at the other would be
/// there twice, or not at all.
fn timers_and_signals(
    remote: &mut Remote<'_>,
    guest: &Guest,
) -> Result<(Timers, Vec<libc::siginfo_t>), Refusal> {
    /// A timer that goes off faster than it can be read has no moment.
    const TRIES: u32 = 8;
    for _ in 0..TRIES {
        let before = remote.task()?.pending_signals(true)?;
        let timers = Timers::capture(remote, guest)?;
        if remote.task()?.pending_signals(true)?.len() == before.len() {
            return Ok((timers, before));
        }
    }
    Err(Refusal::Late)
}

/// Makes a frozen image of a new-born copy: out of the way of signals for the
/// guest's group, first to go when memory is short, and holding nothing open
/// that others wait for the end of.
fn settle(
    tracer: &mut Tracer,
    guest: &mut Guest,
    child: Stopped,
    files: &FdTable,
) -> Result<Stopped, Refusal> {
    let tid = child.tid();
    let settled = settle_child(tracer, guest, child, files);
    if settled.is_err() {
        tracee::kill_task(tid, libc::SIGKILL);
        let _ = tracer.reap(tid);
    }
    settled
}

fn settle_child(
    tracer: &mut Tracer,
    guest: &mut Guest,
    child: Stopped,
    files: &FdTable,
) -> Result<Stopped, Refusal> {
    let tid = child.tid();
    let step = "read a size in /proc/PID/statm";
    let (size, _) = procfs::memory_pages(guest.process).map_err(Refusal::proc(step))?;
    let (copied, _) = procfs::memory_pages(tid).map_err(Refusal::proc(step))?;
    if size != copied {
        return Err(Refusal::unsupported(
            "uncopied-memory",
            "the guest has memory that fork does not copy",
        ));
    }
    // Raising it needs no privilege; where it fails the image is just not first.
    let _ = fs::write(format!("/proc/{tid}/oom_score_adj"), "1000");
    let site = guest.copy_site()?;
    child.set_signal_mask(site.blocked())?;
    let grouped = sys::set_group(tid, tid.raw());
    if grouped && files.holds_nothing_to_close() {
        return Ok(child);
    }
    let mut remote = Remote::enter(tracer, tid, child, site)?;
    if !grouped {
        remote.call("setpgid", libc::SYS_setpgid, &[0, 0])?;
    }
    files.close_in_image(&mut remote)?;
    Ok(remote.leave()?)
}
