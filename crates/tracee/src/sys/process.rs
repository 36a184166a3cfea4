//! Waiting for, signalling and asking about tasks.

use crate::RemoteAddr;
use crate::arch::{AUDIT_ARCHITECTURE, FOREIGN_CALL_BIT};
use crate::stop::{SyscallStop, Tid};
use std::io;
use std::path::Path;

/// What `waitpid` answered.
pub(crate) enum Waited {
    /// A task changed its state.
    Status(Tid, i32),
    /// `WNOHANG` was given and no task has anything to report.
    Nothing,
    /// There is no child and no tracee at all.
    NoChild,
}

/// Waits for any child or tracee of the calling thread (`None`) or for one task.
pub(crate) fn wait(who: Option<Tid>, block: bool) -> io::Result<Waited> {
    let flags = libc::__WALL | libc::__WNOTHREAD | if block { 0 } else { libc::WNOHANG };
    loop {
        let mut status = 0;
        // SAFETY: `status` is valid for writes of an int.
        let tid = unsafe { libc::waitpid(who.map_or(-1, Tid::raw), &raw mut status, flags) };
        if tid > 0 {
            return Ok(Waited::Status(Tid::new(tid), status));
        }
        if tid == 0 {
            return Ok(Waited::Nothing);
        }
        let error = io::Error::last_os_error();
        match error.raw_os_error() {
            Some(libc::EINTR) => {}
            Some(libc::ECHILD) => return Ok(Waited::NoChild),
            _ => return Err(error),
        }
    }
}

/// Sends a signal to a whole process. A process that is gone is no error.
pub fn kill_task(process: Tid, signal: i32) {
    // 0 and negative ids are whole groups.
    if process.raw() <= 0 {
        return;
    }
    // SAFETY: kill takes no pointer. The id is of a task that this tracer has
    // not reaped yet, so that it cannot have been given to another.
    unsafe { libc::kill(process.raw(), signal) };
}

/// Sends a signal to one thread. A thread that is gone is no error.
pub(crate) fn kill_thread(process: Tid, thread: Tid, signal: i32) {
    // SAFETY: tgkill takes no pointer.
    unsafe { libc::syscall(libc::SYS_tgkill, process.raw(), thread.raw(), signal) };
}

/// Makes the calling process the one that orphans among its descendants are
/// given to (prctl(2), `PR_SET_CHILD_SUBREAPER`).
///
/// # Errors
///
/// The kernel's, if it refuses.
pub fn become_subreaper() -> io::Result<()> {
    // SAFETY: this prctl takes no pointer.
    if unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Whether two fds of two tasks are the same open file description
/// (kcmp(2), `KCMP_FILE`).
///
/// # Errors
///
/// EPERM or ENOSYS where a container's profile refuses the call, ESRCH when a
/// task is gone, EBADF when an fd is.
pub fn same_open_file(a: (Tid, i32), b: (Tid, i32)) -> io::Result<bool> {
    const KCMP_FILE: libc::c_int = 0;
    // SAFETY: kcmp with KCMP_FILE takes no pointer.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_kcmp,
            a.0.raw(),
            b.0.raw(),
            KCMP_FILE,
            a.1 as libc::c_ulong,
            b.1 as libc::c_ulong,
        )
    };
    if answer < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(answer == 0)
}

/// The head of a thread's list of robust futexes and its length
/// (get_robust_list(2)).
///
/// # Errors
///
/// The kernel's: ESRCH when the thread is gone.
pub fn robust_list(thread: Tid) -> io::Result<(u64, u64)> {
    let mut head: usize = 0;
    let mut length: usize = 0;
    // SAFETY: both pointers are valid for writes of a pointer-sized value.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_get_robust_list,
            thread.raw(),
            &raw mut head,
            &raw mut length,
        )
    };
    if answer < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok((head as u64, length as u64))
}

/// Whether any thread of a process has a child, dead or alive, that nobody has
/// waited for. Reads `/proc/PID/task/*/children`.
///
/// # Errors
///
/// When the process is gone or `/proc` cannot be read.
pub fn children_of_task(process: Tid) -> io::Result<Vec<Tid>> {
    let mut children = Vec::new();
    for task in std::fs::read_dir(Path::new(&format!("/proc/{process}/task")))? {
        let task = task?;
        let is_first = task.file_name().to_str() == Some(process.to_string().as_str());
        let path = task.path().join("children");
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            // A thread that has just ended; or a kernel without the file
            // (CONFIG_PROC_CHILDREN), which then says nothing of the first one.
            Err(e) if e.kind() == io::ErrorKind::NotFound && !is_first => continue,
            Err(e) => return Err(e),
        };
        children.extend(
            text.split_ascii_whitespace()
                .filter_map(|id| id.parse().ok().map(Tid::new)),
        );
    }
    Ok(children)
}

/// The running kernel's version, major and minor, from uname(2). A version that
/// cannot be read counts as 0.0.
#[must_use]
pub fn kernel_version() -> (u32, u32) {
    let uname = rustix::system::uname();
    let release = uname.release().to_string_lossy().into_owned();
    let mut numbers = release
        .split(|c: char| !c.is_ascii_digit())
        .map(|n| n.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

/// Reads the union of a filter's stop; `None` if it is another kind of stop.
pub(crate) fn syscall_stop(info: &libc::ptrace_syscall_info) -> Option<SyscallStop> {
    if info.op != libc::PTRACE_SYSCALL_INFO_SECCOMP {
        return None;
    }
    // SAFETY: `op` says that this is the member that the kernel filled in.
    let seccomp = unsafe { info.u.seccomp };
    let foreign_bit = u64::from(FOREIGN_CALL_BIT.unwrap_or(0));
    Some(SyscallStop {
        architecture: info.arch,
        native: info.arch == AUDIT_ARCHITECTURE && seccomp.nr & foreign_bit == 0,
        instruction_pointer: RemoteAddr(info.instruction_pointer),
        call: seccomp.nr,
        arguments: seccomp.args,
        data: seccomp.ret_data as u16,
    })
}

/// Empty signal details, to be filled in.
pub(crate) fn no_signals<const N: usize>() -> [libc::siginfo_t; N] {
    // SAFETY: siginfo_t is a plain C structure of numbers and padding, for which
    // all bytes zero is a valid value.
    [unsafe { std::mem::zeroed() }; N]
}
