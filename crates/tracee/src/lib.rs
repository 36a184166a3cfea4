//! A safe, typed face on ptrace and seccomp.
//!
//! # Theory of operation
//!
//! A [`Tracer`] belongs to one thread, since the kernel answers ptrace requests
//! of the attaching thread only. It spawns a guest under a seccomp [`Filter`]
//! and then hears of it through [`Tracer::wait`], the only place where this
//! crate waits for anything:
//!
//! ```text
//!    Tracer::wait ──► Report::Stop(Stopped, Event) ──► read, change, inject
//!         ▲                      │
//!         └── task runs ◄── Stopped::resume (consumes it)
//! ```
//!
//! A [`Stopped`] is a linear value: it is handed out when the kernel reports a
//! stop and consumed by whatever lets the task run on, so that no request can
//! be made of a running task by mistake. Requests that only read or change a
//! stopped task borrow it.
//!
//! # Invariants
//!
//! - Every task can die at any moment, by SIGKILL or by `exit_group` in another
//!   thread; every request can answer [`Error::Died`], and that is its only
//!   meaning. The death itself arrives as [`Report::End`], exactly once.
//! - All tracees are killed by the kernel when the tracer ends in whatever way
//!   (`PTRACE_O_EXITKILL`); nothing is ever detached.
//! - This crate knows what a task is. It does not know what a checkpoint is.
//!
//! Sources: ptrace(2), seccomp(2), and the kernel's `kernel/ptrace.c`.

mod arch;
mod batch;
mod bell;
mod error;
mod filter;
mod memory;
mod remote;
mod spawn;
mod stop;
mod sys;
mod tracer;

pub use arch::{ARCHITECTURE, Registers, SYSCALL_LENGTH, vdso_syscall_offset};
pub use batch::{Argument, Calls, Placed, Routine};
pub use bell::Ringer;
pub use error::{Error, Result};
pub use filter::{Action, Condition, Filter, Program, Rule};
pub use memory::{AddressSpace, RemoteAddr};
pub use remote::{CallSite, Remote, ScratchGuard};
pub use spawn::{Command, SpawnError, Spawned};
pub use stop::{End, Event, RawSignal, RseqConfiguration, Stopped, SyscallStop, Tid};
pub use sys::process::{
    become_subreaper, children_of_task, kernel_version, kill_task, robust_list, same_open_file,
};
pub use tracer::{Report, Tracer};

/// What the kernel leaves in the return register of a system call that a stop
/// interrupted: it restarts the call, or turns the value into `EINTR`, when the
/// task returns to user mode (`include/linux/errno.h`).
pub mod restart {
    /// Restart if no handler runs, or if its action has `SA_RESTART`.
    pub const SYS: i64 = -512;
    /// Restart always.
    pub const NO_INTR: i64 = -513;
    /// Restart if no handler runs.
    pub const NO_HAND: i64 = -514;
    /// Restart through `restart_syscall`, with state that fork does not copy.
    pub const BLOCK: i64 = -516;

    /// Whether a return value is one of the four.
    #[must_use]
    pub fn is_restart(value: i64) -> bool {
        matches!(value, SYS | NO_INTR | NO_HAND | BLOCK)
    }
}
