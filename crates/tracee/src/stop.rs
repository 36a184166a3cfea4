//! A stopped task, and why it stopped.

use crate::arch::Registers;
use crate::sys::ptrace;
use crate::{Error, RemoteAddr, Result};
use std::fmt;

/// The kernel's id of a task: of a thread, or of a process by its first thread.
#[derive(Copy, Clone, Eq, PartialEq, Ord, PartialOrd, Hash, Debug)]
pub struct Tid(i32);

impl Tid {
    /// From the kernel's number.
    #[must_use]
    pub fn new(raw: i32) -> Self {
        Self(raw)
    }

    /// The kernel's number.
    #[must_use]
    pub fn raw(self) -> i32 {
        self.0
    }
}

impl fmt::Display for Tid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A signal's number, real-time signals included.
#[derive(Copy, Clone, Eq, PartialEq, Ord, PartialOrd, Hash, Debug)]
pub struct RawSignal(pub i32);

/// How a task ended.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub enum End {
    /// By exit, with this status.
    Exited(i32),
    /// By a signal.
    Killed(RawSignal),
}

/// Why a task stopped (ptrace(2), "Stopped tracees").
#[derive(Clone, Debug)]
pub enum Event {
    /// PTRACE_EVENT_SECCOMP: the filter answered "trace"; the system call has
    /// not run.
    Seccomp,
    /// The exit stop of a system call that was let run by
    /// [`Stopped::resume_to_syscall`] (or its entry stop, which this crate's own
    /// use of it never shows to others).
    SyscallExit,
    /// A signal is about to be delivered; whoever resumes the task passes it on.
    Signal(RawSignal),
    /// The task takes part in a group stop by this signal: it is to be left
    /// stopped by [`Stopped::listen`] until SIGCONT.
    GroupStop(RawSignal),
    /// PTRACE_EVENT_STOP without a signal: the first stop of a new task, or the
    /// answer to [`Tracer::interrupt`](crate::Tracer::interrupt).
    Interrupted,
    /// The task made a new one, by clone, fork or vfork, which is traced and
    /// stops by itself. Its stop may have been reported before this.
    Child {
        /// The new task.
        child: Tid,
        /// Made by vfork, or clone with CLONE_VFORK: the task cannot be stopped
        /// until the child has called execve or ended.
        vfork: bool,
    },
    /// The task has executed a program. It has the id of its process from here
    /// on; `former` is the id of the thread that made the call.
    Exec {
        /// The caller's id before.
        former: Tid,
    },
}

/// What a task is about to ask of the kernel, at [`Event::Seccomp`].
#[derive(Copy, Clone, Debug)]
pub struct SyscallStop {
    /// AUDIT_ARCH_… of the call.
    pub architecture: u32,
    /// Whether the call is one of this machine's first ABI.
    pub native: bool,
    /// The address behind the system call instruction.
    pub instruction_pointer: RemoteAddr,
    /// The number of the call.
    pub call: u64,
    /// Its arguments.
    pub arguments: [u64; 6],
    /// The number that the filter's rule carries.
    pub data: u16,
}

/// The restartable sequences registration of a thread (rseq(2)).
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub struct RseqConfiguration {
    /// The address of the thread's `struct rseq`; 0 if there is none.
    pub address: RemoteAddr,
    /// Its size in bytes.
    pub size: u32,
    /// The signature before abort handlers.
    pub signature: u32,
    /// The flags it was registered with.
    pub flags: u32,
}

/// Where in its path through the kernel a stopped task is; what decides how a
/// system call can be injected into it and how it must be let go.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub(crate) enum Position {
    /// Before a system call, at the filter's stop.
    BeforeCall,
    /// Anywhere else.
    Elsewhere,
}

/// A task in a ptrace stop. Letting it run consumes the value.
#[derive(Debug)]
#[must_use = "a stopped task that is dropped stays stopped for ever"]
pub struct Stopped {
    tid: Tid,
    pub(crate) position: Position,
    /// The kernel is to restart an interrupted system call, which it forgets
    /// after an injected one unless the task is interrupted once more.
    pub(crate) reinterrupt: bool,
    /// A signal to deliver when it is run on to a system call or by a step.
    signal: i32,
    /// However it is let go, it stops at the exit of the call that it is before.
    until_exit: bool,
}

impl Stopped {
    pub(crate) fn new(tid: Tid, position: Position) -> Self {
        Self {
            tid,
            position,
            reinterrupt: false,
            signal: 0,
            until_exit: false,
        }
    }

    /// The task's id.
    #[must_use]
    pub fn tid(&self) -> Tid {
        self.tid
    }

    /// Whether the task is at a system call that has not run.
    #[must_use]
    pub fn is_before_call(&self) -> bool {
        self.position == Position::BeforeCall
    }

    /// The same stop, from which the task gets a signal.
    pub(crate) fn with_signal(mut self, signal: RawSignal) -> Self {
        self.signal = signal.0;
        self
    }

    /// The same stop before a call, from which the task is let go so that it stops
    /// at the call's exit ([`Event::SyscallExit`]), also by [`resume`](Self::resume).
    pub fn stopping_at_exit(mut self) -> Self {
        self.until_exit = true;
        self
    }

    fn request<T>(&self, step: &'static str, answer: std::io::Result<T>) -> Result<T> {
        answer.map_err(|e| Error::of_request(step, self.tid, e))
    }

    /// Gives the task other registers and another signal mask, wherever it is. A call
    /// that they show as interrupted is restarted by the kernel when it is let go.
    ///
    /// # Errors
    ///
    /// [`Error::Died`].
    pub fn place(mut self, registers: &Registers, mask: u64) -> Result<Self> {
        self.set_registers(registers)?;
        self.set_signal_mask(mask)?;
        self.position = Position::Elsewhere;
        self.reinterrupt =
            registers.call().is_some() && crate::restart::is_restart(registers.return_value());
        Ok(self)
    }

    /// Lets the task run on, with a signal delivered if it stopped for one.
    ///
    /// # Errors
    ///
    /// [`Error::Died`].
    pub fn resume(self, signal: Option<RawSignal>) -> Result<()> {
        if self.reinterrupt {
            self.request("interrupt", ptrace::interrupt(self.tid.raw()))?;
        }
        if self.until_exit && signal.is_none() {
            return self.resume_to_syscall();
        }
        self.request(
            "continue",
            ptrace::cont(self.tid.raw(), signal.map_or(0, |s| s.0)),
        )
    }

    /// Lets the task run on until the next entry to or exit from a system call:
    /// from a stop before a call, to that call's exit.
    ///
    /// # Errors
    ///
    /// [`Error::Died`].
    pub fn resume_to_syscall(self) -> Result<()> {
        self.request(
            "continue to a system call",
            ptrace::cont_to_syscall(self.tid.raw(), self.signal),
        )
    }

    /// Lets the task execute one instruction; a SIGTRAP tells of its end.
    ///
    /// # Errors
    ///
    /// [`Error::Died`].
    pub(crate) fn step(self) -> Result<()> {
        self.request("step", ptrace::single_step(self.tid.raw(), self.signal))
    }

    /// Leaves a task of a group stop stopped, but hears of its end by SIGCONT.
    ///
    /// # Errors
    ///
    /// [`Error::Died`].
    pub fn listen(self) -> Result<()> {
        self.request("listen", ptrace::listen(self.tid.raw()))
    }

    /// Has the task make its call again if nothing but an interruption by the
    /// tracer ended it: these calls answer EINTR then instead of being restarted
    /// by the kernel (signal(7), "Interruption of system calls … by stop signals").
    /// Their timeouts start over.
    ///
    /// # Errors
    ///
    /// [`Error::Died`].
    pub fn forget_interruption(&self) -> Result<()> {
        const CALLS: [i64; 7] = [
            libc::SYS_epoll_wait,
            libc::SYS_epoll_pwait,
            libc::SYS_epoll_pwait2,
            libc::SYS_rt_sigtimedwait,
            libc::SYS_recvfrom,
            libc::SYS_recvmsg,
            libc::SYS_accept4,
        ];
        let mut registers = self.registers()?;
        let Some(call) = registers.call() else {
            return Ok(());
        };
        if registers.return_value() != -i64::from(libc::EINTR) || !CALLS.contains(&(call as i64)) {
            return Ok(());
        }
        let mask = self.signal_mask()?;
        for shared in [false, true] {
            for signal in self.pending_signals(shared)? {
                if mask & (1 << (signal.si_signo - 1)) == 0 {
                    return Ok(());
                }
            }
        }
        registers.rewind_call(call);
        self.set_registers(&registers)
    }

    /// The system call that the task is about to make.
    ///
    /// # Errors
    ///
    /// [`Error::Died`]; [`Error::Unexpected`] at another kind of stop.
    pub fn syscall(&self) -> Result<SyscallStop> {
        let info = self.request("ask for the call", ptrace::syscall_info(self.tid.raw()))?;
        crate::sys::process::syscall_stop(&info).ok_or_else(|| Error::Unexpected {
            tid: self.tid,
            what: format!("not at a filter's stop (kind {})", info.op),
        })
    }

    /// The general registers.
    ///
    /// # Errors
    ///
    /// [`Error::Died`].
    pub fn registers(&self) -> Result<Registers> {
        self.request("get the registers", ptrace::registers(self.tid.raw()))
            .map(Registers)
    }

    /// Sets the general registers.
    ///
    /// # Errors
    ///
    /// [`Error::Died`].
    pub fn set_registers(&self, registers: &Registers) -> Result<()> {
        self.request(
            "set the registers",
            ptrace::set_registers(self.tid.raw(), &registers.0),
        )
    }

    /// FPU, vector and protection-key registers, in the processor's layout.
    ///
    /// # Errors
    ///
    /// [`Error::Died`].
    pub fn extended_state(&self) -> Result<Vec<u8>> {
        self.request(
            "get the vector registers",
            ptrace::extended_state(self.tid.raw()),
        )
    }

    /// Sets what [`extended_state`](Self::extended_state) read.
    ///
    /// # Errors
    ///
    /// [`Error::Died`].
    pub fn set_extended_state(&self, state: &[u8]) -> Result<()> {
        self.request(
            "set the vector registers",
            ptrace::set_extended_state(self.tid.raw(), state),
        )
    }

    /// The blocked signals, one bit each, signal 1 lowest.
    ///
    /// # Errors
    ///
    /// [`Error::Died`].
    pub fn signal_mask(&self) -> Result<u64> {
        self.request("get the signal mask", ptrace::signal_mask(self.tid.raw()))
    }

    /// Sets the blocked signals.
    ///
    /// # Errors
    ///
    /// [`Error::Died`].
    pub fn set_signal_mask(&self, mask: u64) -> Result<()> {
        self.request(
            "set the signal mask",
            ptrace::set_signal_mask(self.tid.raw(), mask),
        )
    }

    /// The pending signals, of the thread itself or those shared by its process.
    ///
    /// # Errors
    ///
    /// [`Error::Died`].
    pub fn pending_signals(&self, shared: bool) -> Result<Vec<libc::siginfo_t>> {
        let mut all = Vec::new();
        loop {
            let mut some = crate::sys::process::no_signals::<8>();
            let n = self.request(
                "peek at the signals",
                ptrace::peek_signals(self.tid.raw(), shared, all.len() as u64, &mut some),
            )?;
            all.extend_from_slice(&some[..n]);
            if n < some.len() {
                return Ok(all);
            }
        }
    }

    /// The details of the signal that the task stopped for.
    ///
    /// # Errors
    ///
    /// [`Error::Died`]; EINVAL in a group stop.
    pub fn signal_info(&self) -> Result<libc::siginfo_t> {
        self.request("get the signal", ptrace::siginfo(self.tid.raw()))
    }

    /// Changes the details of the signal that is about to be delivered.
    ///
    /// # Errors
    ///
    /// [`Error::Died`].
    pub fn set_signal_info(&self, info: &libc::siginfo_t) -> Result<()> {
        self.request("set the signal", ptrace::set_siginfo(self.tid.raw(), info))
    }

    /// The thread's restartable sequences registration.
    ///
    /// # Errors
    ///
    /// [`Error::Died`].
    pub fn rseq(&self) -> Result<RseqConfiguration> {
        let raw = self.request("get the rseq", ptrace::rseq_configuration(self.tid.raw()))?;
        Ok(RseqConfiguration {
            address: RemoteAddr(raw.rseq_abi_pointer),
            size: raw.rseq_abi_size,
            signature: raw.signature,
            flags: raw.flags,
        })
    }
}
