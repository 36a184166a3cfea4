//! System calls made in the place of a stopped task.
//!
//! A task at a stop is pointed at a system call instruction (the vDSO's), run
//! over it, and in the end put back exactly where it was. All signals are blocked
//! meanwhile: one that is pending would be reported in place of the injected
//! call, and a handler's own calls would be taken for it.
//!
//! Running over the instruction is a single step, which costs one stop: the
//! SIGTRAP at its end, which the task never gets. The kernel forces that signal,
//! and where it is blocked or ignored it takes the guest's action for it away
//! (`force_sig_info_to_task` in the kernel's `signal.c`); where one is pending
//! already, the second one is lost. So it is left unblocked meanwhile, and a task
//! that blocks or ignores it is run over the call by two PTRACE_SYSCALL instead.

use crate::arch::{Registers, SYSCALL_LENGTH};
use crate::batch::{Placed, Routine};
use crate::memory::{AddressSpace, RemoteAddr};
use crate::stop::{Event, RawSignal, Stopped, Tid};
use crate::sys::process::kill_thread;
use crate::{Error, Report, Result, Tracer, restart};
use std::io;

/// All signals blocked; the kernel leaves SIGKILL and SIGSTOP out by itself.
const ALL_BLOCKED: u64 = u64::MAX;

/// SIGTRAP in a signal mask.
const TRAP: u64 = 1 << (libc::SIGTRAP - 1);

/// Where and how calls are made in the tasks of a process.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub struct CallSite {
    /// The address of a system call instruction in the process's memory.
    pub instruction: RemoteAddr,
    /// Whether the process ignores SIGTRAP, or any of its threads blocks it.
    pub ignores_trap: bool,
}

impl CallSite {
    /// The signals that are blocked in a task that only makes calls.
    #[must_use]
    pub fn blocked(&self) -> u64 {
        if self.ignores_trap {
            ALL_BLOCKED
        } else {
            ALL_BLOCKED & !TRAP
        }
    }
}

/// A task that makes system calls for its tracer until [`Remote::leave`].
#[derive(Debug)]
pub struct Remote<'t> {
    tracer: &'t mut Tracer,
    tid: Tid,
    process: Tid,
    task: Option<Stopped>,
    registers: Registers,
    mask: u64,
    site: CallSite,
    /// A SIGTRAP that somebody sent meanwhile, to be sent again.
    stash: Vec<RawSignal>,
    /// A stop signal came meanwhile, so that the task may have to take part in a
    /// group stop when it is let go.
    stopping: bool,
    saved: Option<(RemoteAddr, Vec<u8>)>,
}

/// A piece of the task's own memory, to pass structures through; what was there
/// before is put back by [`Remote::leave`].
#[derive(Copy, Clone, Debug)]
pub struct ScratchGuard(pub RemoteAddr);

const SCRATCH: usize = 2048;

impl<'t> Remote<'t> {
    /// Takes over a stopped task. A task that stood before a system call will
    /// make it again when it is let go, and stop before it again.
    ///
    /// # Errors
    ///
    /// [`Error::Died`].
    pub fn enter(
        tracer: &'t mut Tracer,
        process: Tid,
        task: Stopped,
        site: CallSite,
    ) -> Result<Self> {
        let mut registers = task.registers()?;
        let mask = task.signal_mask()?;
        let tid = task.tid();
        let site = CallSite {
            ignores_trap: site.ignores_trap || mask & TRAP != 0,
            ..site
        };
        task.set_signal_mask(site.blocked())?;
        let before_call = task.is_before_call();
        let mut remote = Self {
            tracer,
            tid,
            process,
            task: None,
            registers: registers.clone(),
            mask,
            site,
            stash: Vec::new(),
            stopping: false,
            saved: None,
        };
        if before_call {
            let call = registers.call().unwrap_or_default();
            registers.set_call(None);
            task.set_registers(&registers)?;
            remote.run_to_syscall(task)?;
            registers.rewind_call(call);
            remote.registers = registers;
        } else {
            remote.task = Some(task);
        }
        Ok(remote)
    }

    /// The task was in a group stop: it goes back to it when it is let go.
    pub fn was_in_group_stop(&mut self) {
        self.stopping = true;
    }

    /// The registers that the task will have when it is let go.
    #[must_use]
    pub fn registers(&self) -> &Registers {
        &self.registers
    }

    /// The signal mask that the task will have when it is let go.
    #[must_use]
    pub fn signal_mask(&self) -> u64 {
        self.mask
    }

    /// The task's memory.
    #[must_use]
    pub fn memory(&self) -> AddressSpace {
        AddressSpace::of(self.tid)
    }

    /// The task.
    #[must_use]
    pub fn tid(&self) -> Tid {
        self.tid
    }

    /// The stopped task itself, for requests that need no system call.
    ///
    /// # Errors
    ///
    /// [`Error::Died`] if an injected call ended in its death.
    pub fn task(&self) -> Result<&Stopped> {
        self.task.as_ref().ok_or(Error::Died(self.tid))
    }

    /// Up to 2 KiB of the task's memory near its stack pointer, to pass
    /// structures through.
    ///
    /// # Errors
    ///
    /// EFAULT if the task has no stack; [`Error::Died`].
    pub fn scratch(&mut self) -> Result<ScratchGuard> {
        if let Some((at, _)) = &self.saved {
            return Ok(ScratchGuard(*at));
        }
        // The lower or the upper half of the page that the stack pointer points
        // into is mapped as it is; what is in it does not matter, since it is
        // put back.
        let at = RemoteAddr(self.registers.stack_pointer() & !0xfff);
        let mut before = vec![0; SCRATCH];
        self.memory().read(at, &mut before)?;
        self.saved = Some((at, before));
        Ok(ScratchGuard(at))
    }

    /// Makes a system call.
    ///
    /// # Errors
    ///
    /// [`Error::Call`] with its error number; [`Error::Died`].
    pub fn call(&mut self, name: &'static str, number: i64, arguments: &[u64]) -> Result<u64> {
        let mut all = [0; 6];
        all[..arguments.len()].copy_from_slice(arguments);
        self.make(name, number, all)
    }

    /// Makes a call until it has run: with a stop signal on its way the kernel
    /// answers some with a restart code, which the task's own return to user mode
    /// would have dealt with.
    fn make(&mut self, name: &'static str, number: i64, arguments: [u64; 6]) -> Result<u64> {
        const TRIES: u32 = 16;
        let mut value = 0;
        for _ in 0..TRIES {
            self.begin(number, arguments)?;
            value = self.task()?.registers()?.return_value();
            if !restart::is_restart(value) {
                break;
            }
        }
        if (-4095..0).contains(&value) {
            return Err(Error::Call {
                call: name,
                tid: self.tid,
                source: io::Error::from_raw_os_error(-value as i32),
            });
        }
        Ok(value as u64)
    }

    /// Makes a clone call, whose child is traced, and answers the child at its
    /// first stop. The word at `cleared` is set to 0 and woken when the child ends
    /// (set_tid_address(2)); there is none if it is 0.
    ///
    /// # Errors
    ///
    /// As [`call`](Self::call): EAGAIN without processes, ENOMEM without memory.
    pub fn clone(&mut self, flags: u64, cleared: u64) -> Result<Stopped> {
        // The x86-64 order of arguments: flags, stack, parent_tid, child_tid, tls.
        // A child with memory of its own must not get what was passed through
        // this one's.
        self.put_scratch_back()?;
        let flags = flags | libc::CLONE_CHILD_CLEARTID as u64;
        let arguments = [flags, 0, 0, cleared, 0, 0];
        let made = self.make("clone", libc::SYS_clone, arguments);
        if matches!(made, Err(Error::Died(_))) {
            self.tracer
                .lost_copy_at(self.site.instruction.0 + SYSCALL_LENGTH);
        }
        let child = Tid::new(i32::try_from(made?).unwrap_or_default());
        let (stopped, _) = self.tracer.wait_for(child, None)?;
        self.tracer.made(child);
        Ok(stopped)
    }

    /// Makes a batch of calls that was placed in the task's memory; their answers.
    ///
    /// # Errors
    ///
    /// The first call's that failed; [`Error::Died`].
    pub fn make_all(&mut self, routine: &Routine, calls: &Placed<'_>) -> Result<Vec<u64>> {
        let task = self.task.take().ok_or(Error::Died(self.tid))?;
        routine.begin(task, &self.registers, calls)?;
        let task = routine.finish(self.tracer, self.tid)?;
        let answers = calls.answers(&task);
        self.task = Some(task);
        answers
    }

    /// Makes a batch of clone calls, whose children are traced; the children at
    /// their first stops.
    ///
    /// # Errors
    ///
    /// As [`clone`](Self::clone).
    pub fn clone_all(&mut self, routine: &Routine, calls: &Placed<'_>) -> Result<Vec<Stopped>> {
        let mut children = Vec::new();
        for child in self.make_all(routine, calls)? {
            let child = Tid::new(i32::try_from(child).unwrap_or_default());
            let (stopped, _) = self.tracer.wait_for(child, None)?;
            self.tracer.made(child);
            children.push(stopped);
        }
        Ok(children)
    }

    fn begin(&mut self, number: i64, arguments: [u64; 6]) -> Result<()> {
        let task = self.task.take().ok_or(Error::Died(self.tid))?;
        let mut registers = self.registers.clone();
        registers.prepare_call(self.site.instruction.0, number as u64, arguments);
        task.set_registers(&registers)?;
        if !self.site.ignores_trap {
            return self.step_over(task);
        }
        self.run_to_syscall(task)?;
        let task = self.task.take().ok_or(Error::Died(self.tid))?;
        self.run_to_syscall(task)
    }

    /// Lets the task run over one instruction, which is a system call.
    fn step_over(&mut self, task: Stopped) -> Result<()> {
        let mut task = task;
        loop {
            task.step()?;
            let (stopped, event) = self.tracer.wait_for(self.tid, None)?;
            if matches!(event, Event::Signal(RawSignal(libc::SIGTRAP))) {
                let stepped = is_step(&stopped)?;
                self.task = Some(stopped);
                if stepped {
                    return Ok(());
                }
                // Somebody else's, in whose place the one of the step was lost.
                self.stash.push(RawSignal(libc::SIGTRAP));
                return Err(Error::Unexpected {
                    tid: self.tid,
                    what: "it got a SIGTRAP while it made a call for its tracer".into(),
                });
            }
            task = self.pass(stopped, &event)?;
        }
    }

    /// Lets the task run to its next entry to or exit from a system call.
    fn run_to_syscall(&mut self, task: Stopped) -> Result<()> {
        let mut task = task;
        loop {
            task.resume_to_syscall()?;
            let (stopped, event) = self.tracer.wait_for(self.tid, None)?;
            if matches!(event, Event::SyscallExit) {
                self.task = Some(stopped);
                return Ok(());
            }
            task = self.pass(stopped, &event)?;
        }
    }

    /// Deals with a stop on the way to the one that is waited for.
    fn pass(&mut self, stopped: Stopped, event: &Event) -> Result<Stopped> {
        match event {
            // SIGSTOP cannot be blocked. It takes effect now: sent again later, it
            // would outlive a SIGCONT that came meanwhile.
            Event::Signal(signal @ RawSignal(libc::SIGSTOP)) => {
                self.stopping = true;
                return Ok(stopped.with_signal(*signal));
            }
            Event::Signal(signal) => self.stash.push(*signal),
            Event::GroupStop(_) => self.stopping = true,
            Event::Exec { .. } => {
                return Err(Error::Unexpected {
                    tid: self.tid,
                    what: "it executed a program while it made a call for its tracer".into(),
                });
            }
            // The filter's stop for an injected call that it traces comes after
            // the entry; a clone tells of its child; a group stop or an
            // interruption is looked at again when the task is let go.
            Event::Seccomp | Event::SyscallExit | Event::Child { .. } | Event::Interrupted => {}
        }
        Ok(stopped)
    }

    /// Puts the task back where it was and gives it back, stopped.
    ///
    /// # Errors
    ///
    /// [`Error::Died`].
    pub fn leave(mut self) -> Result<Stopped> {
        let registers = self.registers.clone();
        let mask = self.mask;
        self.restore(&registers, mask)
    }

    /// Gives the task back, stopped, with other registers and another signal
    /// mask than it had: a copy, which is to start somewhere else.
    ///
    /// # Errors
    ///
    /// [`Error::Died`].
    pub fn leave_as(mut self, registers: &Registers, mask: u64) -> Result<Stopped> {
        self.restore(registers, mask)
    }

    fn put_scratch_back(&mut self) -> Result<()> {
        match self.saved.take() {
            Some((at, before)) => self.memory().write(at, &before),
            None => Ok(()),
        }
    }

    fn restore(&mut self, registers: &Registers, mask: u64) -> Result<Stopped> {
        self.put_scratch_back()?;
        let task = self.task.take().ok_or(Error::Died(self.tid))?;
        let mut task = task.place(registers, mask)?;
        task.reinterrupt |= self.stopping;
        for signal in self.stash.drain(..) {
            kill_thread(self.process, self.tid, signal.0);
        }
        Ok(task)
    }

    /// The tracer, for what must be done to other tasks meanwhile.
    pub fn tracer(&mut self) -> &mut Tracer {
        self.tracer
    }

    /// Keeps a report of another task for later.
    pub fn postpone(&mut self, report: Report) {
        self.tracer.postpone(report);
    }
}

/// Whether a SIGTRAP is the end of a single step, not one that somebody sent.
fn is_step(task: &Stopped) -> Result<bool> {
    const TRAP_BRKPT: i32 = 1;
    const TRAP_TRACE: i32 = 2;
    let code = task.signal_info()?.si_code;
    Ok(code == TRAP_BRKPT || code == TRAP_TRACE)
}
