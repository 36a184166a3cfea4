//! The few calls that only C's interface offers, behind safe functions.

use std::os::unix::process::CommandExt as _;
use std::process::Command;

/// Lets every signal that can be ignored pass this process by.
pub(crate) fn ignore_signals() {
    for signal in 1..=64 {
        // SAFETY: SIG_IGN is a valid disposition and runs no code of ours. For
        // SIGKILL, SIGSTOP and the C library's own signals the call fails, and
        // that is all. SIGCHLD stays as it is: no child is waited for here.
        unsafe {
            if signal != libc::SIGCHLD {
                libc::signal(signal, libc::SIG_IGN);
            }
        }
    }
}

/// Lets these signals reach the calling thread, whatever mask it was started with.
pub(crate) fn unblock(signals: &[i32]) {
    // SAFETY: the set is initialised by sigemptyset before it is used, and lives
    // through the calls; a number that is no signal is refused and changes nothing.
    unsafe {
        let mut set = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        for signal in signals {
            libc::sigaddset(&raw mut set, *signal);
        }
        libc::pthread_sigmask(libc::SIG_UNBLOCK, &raw const set, std::ptr::null_mut());
    }
}

/// Closes every descriptor from 3 on.
///
/// Only for a process that has just begun and that holds no descriptor in any
/// Rust value beyond the standard ones.
pub(crate) fn close_inherited() {
    // SAFETY: as the documentation demands, no owner exists whose descriptor
    // could be closed under it. The call itself takes plain numbers.
    unsafe {
        libc::syscall(libc::SYS_close_range, 3_u32, u32::MAX, 0_u32);
    }
}

/// Makes the program of `command` get SIGTERM when the thread that spawned it
/// ends.
pub(crate) fn die_with_parent(command: &mut Command) -> &mut Command {
    // SAFETY: between fork and exec only this one system call is made, which is
    // async-signal-safe and touches no memory.
    unsafe {
        command.pre_exec(|| {
            let signal = rustix::process::Signal::TERM;
            Ok(rustix::process::set_parent_process_death_signal(Some(
                signal,
            ))?)
        })
    }
}

/// The process that sent a signal, for those that a process sends.
pub(crate) fn signal_sender(info: &libc::siginfo_t) -> i32 {
    // SAFETY: the structure is fully initialised by the kernel; the field is a
    // plain number in a union of plain numbers.
    unsafe { info.si_pid() }
}

/// Sets the process that seems to have sent a signal.
pub(crate) fn set_signal_sender(info: &mut libc::siginfo_t, sender: i32) {
    // `si_signo`, `si_errno`, `si_code`, and on 64 bits four bytes of padding
    // before the union that begins with `si_pid`.
    const OFFSET: usize = 16;
    // SAFETY: the offset is that of si_pid in the kernel's siginfo_t, inside of
    // the structure, and any bytes are a valid number.
    unsafe {
        std::ptr::from_mut(info)
            .cast::<u8>()
            .add(OFFSET)
            .cast::<i32>()
            .write_unaligned(sender);
    }
}

/// Lets this process change the terminal also from the background, where that
/// would stop it.
pub(crate) fn ignore_terminal_output_stop() {
    // SAFETY: SIG_IGN is a valid disposition and runs no code of ours.
    unsafe {
        libc::signal(libc::SIGTTOU, libc::SIG_IGN);
    }
}

/// Whether this process ignores a signal.
pub(crate) fn is_ignored(signal: i32) -> bool {
    // SAFETY: with no new action, sigaction only fills in the old one, for which
    // all bytes zero is a valid value to begin with.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        libc::sigaction(signal, std::ptr::null(), &raw mut action) == 0
            && action.sa_sigaction == libc::SIG_IGN
    }
}

/// Does something to the terminal that would stop this process while it is in
/// the background. There reading fails instead, and the rest succeeds.
pub(crate) fn without_terminal_stops<T>(work: impl FnOnce() -> T) -> T {
    // SAFETY: all bytes zero is a valid value for a signal set, which the calls
    // then fill in. Only this thread's mask changes, and it is put back below.
    let before = unsafe {
        let mut blocked: libc::sigset_t = std::mem::zeroed();
        let mut before: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut blocked);
        libc::sigaddset(&raw mut blocked, libc::SIGTTIN);
        libc::sigaddset(&raw mut blocked, libc::SIGTTOU);
        let changed = libc::pthread_sigmask(libc::SIG_BLOCK, &raw const blocked, &raw mut before);
        (changed == 0).then_some(before)
    };
    let done = work();
    if let Some(before) = before {
        // SAFETY: the set is one that the kernel gave out.
        unsafe {
            libc::pthread_sigmask(libc::SIG_SETMASK, &raw const before, std::ptr::null_mut());
        }
    }
    done
}

/// Stops this process as `signal` does by default, and returns when it goes on.
/// Where the kernel does not stop it, in an orphaned process group, at once.
pub(crate) fn stop_by(signal: i32) {
    // SAFETY: all bytes zero is a valid action: the default one, with no flags.
    // The action from before is put back as it was, and no signal runs code of
    // ours in between.
    unsafe {
        let default: libc::sigaction = std::mem::zeroed();
        let mut before: libc::sigaction = std::mem::zeroed();
        if libc::sigaction(signal, &raw const default, &raw mut before) == 0 {
            // To this thread, so that it is stopped before the call returns.
            libc::raise(signal);
            libc::sigaction(signal, &raw const before, std::ptr::null_mut());
        }
    }
}
