//! The one place that waits.
//!
//! One `waitpid` a stop would starve tasks, since the kernel looks through the
//! tracees in the same order each time (strace's `next_event` tells of it). So
//! all reports that are there are taken out first, then handled one by one.

use crate::bell::{RING, Ringer};
use crate::stop::{End, Event, Position, RawSignal, Stopped, Tid};
use crate::sys::process::{Waited, wait};
use crate::sys::ptrace;
use crate::{Error, Result};
use std::collections::{HashSet, VecDeque};
use std::io;
use std::marker::PhantomData;
use std::time::{Duration, Instant};

/// What the tracer hears.
#[derive(Debug)]
pub enum Report {
    /// A task has stopped.
    Stop(Stopped, Event),
    /// A task has ended and is reaped; its id may be used again by others.
    End(Tid, End),
    /// Somebody rang the bell.
    Rung,
    /// The process that was the bell is gone: attach another.
    BellLost,
    /// There is nothing left to wait for.
    NoTasks,
}

/// A thread's hold on its tracees. Neither `Send` nor `Sync`: the kernel answers
/// ptrace requests of the attaching thread only.
#[derive(Debug)]
pub struct Tracer {
    ready: VecDeque<Report>,
    bell: Option<Tid>,
    /// Whether more than one task may have something to report, so that looking
    /// for more reports pays.
    many: bool,
    /// The tasks that were made by [`Remote::clone`](crate::Remote::clone) and live.
    copies: HashSet<Tid>,
    /// Where such a task stands at first whose maker died before it could name it.
    lost: HashSet<u64>,
    not_send: PhantomData<*const ()>,
}

const OPTIONS: libc::c_int = libc::PTRACE_O_TRACESYSGOOD
    | libc::PTRACE_O_TRACECLONE
    | libc::PTRACE_O_TRACEFORK
    | libc::PTRACE_O_TRACEVFORK
    | libc::PTRACE_O_TRACEEXEC
    | libc::PTRACE_O_TRACESECCOMP
    | libc::PTRACE_O_EXITKILL;

const SYSCALL_STOP: i32 = libc::SIGTRAP | 0x80;

impl Default for Tracer {
    fn default() -> Self {
        Self::new()
    }
}

impl Tracer {
    /// A tracer of the calling thread, without tracees.
    #[must_use]
    pub fn new() -> Self {
        Self {
            ready: VecDeque::new(),
            bell: None,
            many: false,
            copies: HashSet::new(),
            lost: HashSet::new(),
            not_send: PhantomData,
        }
    }

    /// Traces an idle process as the bell (see [`Ringer`]). It is not killed
    /// when the tracer ends.
    ///
    /// # Errors
    ///
    /// The kernel's, if it refuses ptrace or pidfd_open.
    pub fn attach_bell(&mut self, process: Tid) -> io::Result<Ringer> {
        ptrace::seize(process.raw(), 0)?;
        self.bell = Some(process);
        Ringer::new(process)
    }

    pub(crate) fn seize(&mut self, task: Tid) -> io::Result<()> {
        ptrace::seize(task.raw(), OPTIONS)
    }

    pub(crate) fn made(&mut self, copy: Tid) {
        self.copies.insert(copy);
    }

    pub(crate) fn lost_copy_at(&mut self, instruction: u64) {
        self.lost.insert(instruction);
    }

    /// Whether a task at its first stop is not the guest's own work: a copy that
    /// was being made for the tracer when its maker died.
    ///
    /// # Errors
    ///
    /// [`Error::Died`].
    pub fn is_lost_copy(&self, task: &Stopped) -> Result<bool> {
        Ok(!self.lost.is_empty() && self.lost.contains(&task.registers()?.instruction_pointer()))
    }

    /// The children of the calling thread, dead ones included, that are neither
    /// the bell nor copies made by [`Remote::clone`](crate::Remote::clone): when all
    /// tasks of a guest have ended, those that they left behind.
    ///
    /// # Errors
    ///
    /// On a kernel without `/proc/PID/task/TID/children` (`CONFIG_PROC_CHILDREN`).
    pub fn strays(&self) -> io::Result<Vec<Tid>> {
        let text = std::fs::read_to_string("/proc/thread-self/children")?;
        Ok(text
            .split_ascii_whitespace()
            .filter_map(|id| id.parse().ok().map(Tid::new))
            .filter(|tid| self.bell != Some(*tid) && !self.copies.contains(tid))
            .collect())
    }

    /// Says whether more than one task runs, so that a report of one may hide
    /// those of others. With one, a stop costs a single wait.
    pub fn expect_many(&mut self, many: bool) {
        self.many = many;
    }

    /// Asks a running task to stop; [`Event::Interrupted`] follows, unless
    /// another stop or its end comes first. A stopped task stops once more when
    /// it is resumed.
    ///
    /// # Errors
    ///
    /// [`Error::Died`].
    pub fn interrupt(&self, task: Tid) -> Result<()> {
        ptrace::interrupt(task.raw()).map_err(|e| Error::of_request("interrupt", task, e))
    }

    /// The next report, in the order in which they came.
    ///
    /// # Errors
    ///
    /// [`Error::Tracer`] if `waitpid` itself fails.
    pub fn wait(&mut self) -> Result<Report> {
        loop {
            if let Some(report) = self.ready.pop_front() {
                return Ok(report);
            }
            match wait(None, true).map_err(waiting)? {
                Waited::Status(tid, status) => self.take(tid, status),
                Waited::Nothing => {}
                Waited::NoChild => return Ok(Report::NoTasks),
            }
            while self.many {
                match wait(None, false).map_err(waiting)? {
                    Waited::Status(tid, status) => self.take(tid, status),
                    Waited::Nothing | Waited::NoChild => break,
                }
            }
        }
    }

    /// The next report of one task, others' being kept for [`wait`](Self::wait).
    /// An end is kept too, and answered as [`Error::Died`].
    ///
    /// # Errors
    ///
    /// [`Error::Died`]; [`Error::Late`] if a time was given and has passed.
    pub fn wait_for(&mut self, task: Tid, deadline: Option<Instant>) -> Result<(Stopped, Event)> {
        let mut waits = 0u32;
        loop {
            let found = self.ready.iter().position(|report| match report {
                Report::Stop(stopped, _) => stopped.tid() == task,
                Report::End(tid, _) => *tid == task,
                _ => false,
            });
            if let Some(index) = found {
                if matches!(self.ready[index], Report::End(..)) {
                    return Err(Error::Died(task));
                }
                if let Some(Report::Stop(stopped, event)) = self.ready.remove(index) {
                    return Ok((stopped, event));
                }
            }
            // That of one may have to wait for others: a process's first thread that
            // was killed says nothing before the ends of all other threads were taken.
            let whom = if deadline.is_none() && self.many {
                None
            } else {
                Some(task)
            };
            match wait(whom, deadline.is_none()).map_err(waiting)? {
                Waited::Status(tid, status) => self.take(tid, status),
                Waited::NoChild => return Err(Error::Died(task)),
                Waited::Nothing => {
                    if deadline.is_some_and(|at| Instant::now() >= at) {
                        return Err(Error::Late(task));
                    }
                    // A running task answers within microseconds; one that the
                    // processor has to come to first gets it.
                    waits += 1;
                    if waits < 50 {
                        std::thread::yield_now();
                    } else {
                        std::thread::sleep(Duration::from_micros(50));
                    }
                }
            }
        }
    }

    /// Keeps a report for later.
    pub fn postpone(&mut self, report: Report) {
        self.ready.push_back(report);
    }

    /// Takes the reports that are kept of tasks that `of` names, for those who
    /// have just killed them and want no more of them.
    pub fn discard(&mut self, of: impl Fn(Tid) -> bool) {
        self.ready.retain(|report| match report {
            Report::Stop(stopped, _) => !of(stopped.tid()),
            Report::End(tid, _) => !of(*tid),
            _ => true,
        });
    }

    /// Waits until a task that has been killed is reaped; its reports are gone
    /// after that.
    ///
    /// # Errors
    ///
    /// [`Error::Tracer`] if `waitpid` itself fails.
    pub fn reap(&mut self, task: Tid) -> Result<()> {
        let ended = self
            .ready
            .iter()
            .any(|r| matches!(r, Report::End(tid, _) if *tid == task));
        let mut gone = ended;
        while !gone {
            match wait(Some(task), true).map_err(waiting)? {
                Waited::Status(_, status) => {
                    gone = libc::WIFEXITED(status) || libc::WIFSIGNALED(status);
                }
                Waited::NoChild => gone = true,
                Waited::Nothing => {}
            }
        }
        self.copies.remove(&task);
        self.discard(|tid| tid == task);
        Ok(())
    }

    fn take(&mut self, tid: Tid, status: i32) {
        if let Some(report) = self.decode(tid, status) {
            self.ready.push_back(report);
        }
    }

    /// What a wait status means (ptrace(2)). `None` where nothing is to be told.
    fn decode(&mut self, tid: Tid, status: i32) -> Option<Report> {
        if self.bell == Some(tid) {
            return self.decode_bell(tid, status);
        }
        if libc::WIFEXITED(status) || libc::WIFSIGNALED(status) {
            self.copies.remove(&tid);
        }
        if libc::WIFEXITED(status) {
            return Some(Report::End(tid, End::Exited(libc::WEXITSTATUS(status))));
        }
        if libc::WIFSIGNALED(status) {
            let signal = RawSignal(libc::WTERMSIG(status));
            return Some(Report::End(tid, End::Killed(signal)));
        }
        if !libc::WIFSTOPPED(status) {
            return None;
        }
        let signal = (status >> 8) & 0xff;
        let stop = |position, event| Some(Report::Stop(Stopped::new(tid, position), event));
        match status >> 16 {
            0 if signal == SYSCALL_STOP => stop(Position::Elsewhere, Event::SyscallExit),
            0 => stop(Position::Elsewhere, Event::Signal(RawSignal(signal))),
            libc::PTRACE_EVENT_SECCOMP => stop(Position::BeforeCall, Event::Seccomp),
            libc::PTRACE_EVENT_STOP if signal == libc::SIGTRAP => {
                stop(Position::Elsewhere, Event::Interrupted)
            }
            libc::PTRACE_EVENT_STOP => {
                stop(Position::Elsewhere, Event::GroupStop(RawSignal(signal)))
            }
            what => {
                // A task that is killed here has no message any more; its end
                // follows.
                let message = ptrace::event_message(tid.raw()).ok()?;
                let other = Tid::new(i32::try_from(message).ok()?);
                match what {
                    libc::PTRACE_EVENT_EXEC => {
                        stop(Position::Elsewhere, Event::Exec { former: other })
                    }
                    libc::PTRACE_EVENT_CLONE
                    | libc::PTRACE_EVENT_FORK
                    | libc::PTRACE_EVENT_VFORK => stop(
                        Position::Elsewhere,
                        Event::Child {
                            child: other,
                            vfork: what == libc::PTRACE_EVENT_VFORK,
                        },
                    ),
                    _ => stop(Position::Elsewhere, Event::Interrupted),
                }
            }
        }
    }

    fn decode_bell(&mut self, tid: Tid, status: i32) -> Option<Report> {
        if !libc::WIFSTOPPED(status) {
            self.bell = None;
            return Some(Report::BellLost);
        }
        // Whatever signal it is, the bell does not get it; if it has just died
        // its end is reported next.
        let _ = ptrace::cont(tid.raw(), 0);
        ((status >> 8) == RING).then_some(Report::Rung)
    }
}

fn waiting(source: io::Error) -> Error {
    Error::Tracer {
        step: "wait for the guest",
        source,
    }
}
