//! The ptrace requests, one safe function each.
//!
//! The kernel checks that the caller traces the task and that the task is
//! stopped; a request that breaks either rule answers ESRCH. What a function
//! must see to is only that the pointers it passes are right for the request.

use crate::arch::RawRegisters;
use std::io;
use std::mem::{MaybeUninit, size_of};

const PTRACE_GET_RSEQ_CONFIGURATION: libc::c_uint = 0x420f;
const NT_PRSTATUS: usize = 1;
#[cfg(target_arch = "x86_64")]
const NT_XSTATE: usize = 0x202;

fn check(answer: libc::c_long) -> io::Result<libc::c_long> {
    if answer < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(answer)
    }
}

/// A request whose last two arguments are plain numbers.
fn plain(
    request: libc::c_uint,
    tid: libc::pid_t,
    addr: usize,
    data: usize,
) -> io::Result<libc::c_long> {
    // SAFETY: none of the requests that are made through this function takes a
    // pointer into this process.
    check(unsafe { libc::ptrace(request, tid, addr, data) })
}

pub(crate) fn seize(tid: libc::pid_t, options: libc::c_int) -> io::Result<()> {
    plain(libc::PTRACE_SEIZE, tid, 0, options as usize).map(drop)
}

pub(crate) fn interrupt(tid: libc::pid_t) -> io::Result<()> {
    plain(libc::PTRACE_INTERRUPT, tid, 0, 0).map(drop)
}

pub(crate) fn cont(tid: libc::pid_t, signal: i32) -> io::Result<()> {
    plain(libc::PTRACE_CONT, tid, 0, signal as usize).map(drop)
}

pub(crate) fn cont_to_syscall(tid: libc::pid_t, signal: i32) -> io::Result<()> {
    plain(libc::PTRACE_SYSCALL, tid, 0, signal as usize).map(drop)
}

pub(crate) fn single_step(tid: libc::pid_t, signal: i32) -> io::Result<()> {
    plain(libc::PTRACE_SINGLESTEP, tid, 0, signal as usize).map(drop)
}

pub(crate) fn listen(tid: libc::pid_t) -> io::Result<()> {
    plain(libc::PTRACE_LISTEN, tid, 0, 0).map(drop)
}

/// A request that fills in one value behind its data pointer.
fn filled<T>(request: libc::c_uint, tid: libc::pid_t, addr: usize) -> io::Result<T> {
    let mut value = MaybeUninit::<T>::zeroed();
    // SAFETY: `value` is valid for writes of a `T`, which is what the requests
    // made through this function fill in; `T` is a plain C structure or number
    // for which all bytes zero is a valid value.
    check(unsafe { libc::ptrace(request, tid, addr, value.as_mut_ptr()) })?;
    // SAFETY: zeroed above and then filled in by the kernel.
    Ok(unsafe { value.assume_init() })
}

pub(crate) fn event_message(tid: libc::pid_t) -> io::Result<u64> {
    filled::<libc::c_ulong>(libc::PTRACE_GETEVENTMSG, tid, 0)
}

pub(crate) fn siginfo(tid: libc::pid_t) -> io::Result<libc::siginfo_t> {
    filled(libc::PTRACE_GETSIGINFO, tid, 0)
}

pub(crate) fn set_siginfo(tid: libc::pid_t, info: &libc::siginfo_t) -> io::Result<()> {
    // SAFETY: `info` is valid for reads of a siginfo_t.
    check(unsafe { libc::ptrace(libc::PTRACE_SETSIGINFO, tid, 0, std::ptr::from_ref(info)) })
        .map(drop)
}

pub(crate) fn signal_mask(tid: libc::pid_t) -> io::Result<u64> {
    filled(libc::PTRACE_GETSIGMASK, tid, size_of::<u64>())
}

pub(crate) fn set_signal_mask(tid: libc::pid_t, mask: u64) -> io::Result<()> {
    // SAFETY: the data pointer is valid for reads of the eight bytes that the
    // address argument announces.
    check(unsafe {
        libc::ptrace(
            libc::PTRACE_SETSIGMASK,
            tid,
            size_of::<u64>(),
            std::ptr::from_ref(&mask),
        )
    })
    .map(drop)
}

pub(crate) fn rseq_configuration(tid: libc::pid_t) -> io::Result<libc::ptrace_rseq_configuration> {
    filled(
        PTRACE_GET_RSEQ_CONFIGURATION,
        tid,
        size_of::<libc::ptrace_rseq_configuration>(),
    )
}

pub(crate) fn syscall_info(tid: libc::pid_t) -> io::Result<libc::ptrace_syscall_info> {
    filled(
        libc::PTRACE_GET_SYSCALL_INFO,
        tid,
        size_of::<libc::ptrace_syscall_info>(),
    )
}

/// At most `signals.len()` pending signals, from the private queue of the task
/// or the one shared by its process.
pub(crate) fn peek_signals(
    tid: libc::pid_t,
    shared: bool,
    offset: u64,
    signals: &mut [libc::siginfo_t],
) -> io::Result<usize> {
    let args = libc::ptrace_peeksiginfo_args {
        off: offset,
        flags: if shared {
            libc::PTRACE_PEEKSIGINFO_SHARED
        } else {
            0
        },
        nr: i32::try_from(signals.len()).unwrap_or(i32::MAX),
    };
    // SAFETY: `args` is valid for reads, and `signals` for writes of as many
    // entries as `args.nr` allows.
    check(unsafe {
        libc::ptrace(
            libc::PTRACE_PEEKSIGINFO,
            tid,
            std::ptr::from_ref(&args),
            signals.as_mut_ptr(),
        )
    })
    .map(|n| n as usize)
}

pub(crate) fn registers(tid: libc::pid_t) -> io::Result<RawRegisters> {
    let mut registers = MaybeUninit::<RawRegisters>::zeroed();
    let mut area = libc::iovec {
        iov_base: registers.as_mut_ptr().cast(),
        iov_len: size_of::<RawRegisters>(),
    };
    // SAFETY: the iovec describes memory valid for writes of its length.
    check(unsafe {
        libc::ptrace(
            libc::PTRACE_GETREGSET,
            tid,
            NT_PRSTATUS,
            std::ptr::from_mut(&mut area),
        )
    })?;
    // SAFETY: a plain C structure, zeroed above and filled in by the kernel.
    Ok(unsafe { registers.assume_init() })
}

pub(crate) fn set_registers(tid: libc::pid_t, registers: &RawRegisters) -> io::Result<()> {
    let mut area = libc::iovec {
        iov_base: std::ptr::from_ref(registers).cast_mut().cast(),
        iov_len: size_of::<RawRegisters>(),
    };
    // SAFETY: the iovec describes memory valid for reads of its length; the
    // kernel does not write to it in this request.
    check(unsafe {
        libc::ptrace(
            libc::PTRACE_SETREGSET,
            tid,
            NT_PRSTATUS,
            std::ptr::from_mut(&mut area),
        )
    })
    .map(drop)
}

/// The extended register state (FPU, SSE, AVX, PKRU, …) in the processor's own
/// layout, as long as this machine's.
pub(crate) fn extended_state(tid: libc::pid_t) -> io::Result<Vec<u8>> {
    let mut state = vec![0u8; 16 * 1024];
    let mut area = libc::iovec {
        iov_base: state.as_mut_ptr().cast(),
        iov_len: state.len(),
    };
    // SAFETY: the iovec describes memory valid for writes of its length.
    check(unsafe {
        libc::ptrace(
            libc::PTRACE_GETREGSET,
            tid,
            NT_XSTATE,
            std::ptr::from_mut(&mut area),
        )
    })?;
    state.truncate(area.iov_len);
    Ok(state)
}

pub(crate) fn set_extended_state(tid: libc::pid_t, state: &[u8]) -> io::Result<()> {
    let mut area = libc::iovec {
        iov_base: state.as_ptr().cast_mut().cast(),
        iov_len: state.len(),
    };
    // SAFETY: the iovec describes memory valid for reads of its length; the
    // kernel does not write to it in this request.
    check(unsafe {
        libc::ptrace(
            libc::PTRACE_SETREGSET,
            tid,
            NT_XSTATE,
            std::ptr::from_mut(&mut area),
        )
    })
    .map(drop)
}
