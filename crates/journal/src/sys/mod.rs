//! Leases, which rustix has no safe face for: who has a file open right now, and
//! keeping all others out of it for a moment.
//!
//! A read lease is granted only if nobody has the file open for writing, a write lease
//! only if nobody else has it open at all; while it is held, whoever opens or truncates
//! the file waits, by whatever name. `O_PATH` handles and watches do not count.
//!
//! Source: fcntl(2), "Leases"; `check_conflicting_open` and `__break_lease` in the
//! kernel's `fs/locks.c`.

use std::os::fd::{AsRawFd, BorrowedFd};

/// `F_SETSIG` of `include/uapi/asm-generic/fcntl.h`, which the libc crate lacks.
const F_SETSIG: libc::c_int = 10;

/// Whether anyone has the file open for writing, or `None` where the file
/// system or the owner does not let us ask.
///
/// `fd` must be open for reading only. The lease is given up again at once.
pub(crate) fn open_for_writing(fd: BorrowedFd<'_>) -> Option<bool> {
    let granted = lease(fd, libc::F_RDLCK)?;
    if granted {
        // SAFETY: F_SETLEASE takes an integer; `fd` is open for the whole call.
        unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETLEASE, libc::F_UNLCK) };
    }
    Some(!granted)
}

/// Keeps everybody else out of a file until `fd`, which is open for reading and writing,
/// is closed. False where somebody has it open, or where there are no leases.
pub(crate) fn keep_out_others(fd: BorrowedFd<'_>) -> bool {
    lease(fd, libc::F_WRLCK) == Some(true)
}

/// Whether a lease was granted; `None` where nobody can tell.
fn lease(fd: BorrowedFd<'_>, kind: libc::c_int) -> Option<bool> {
    let fd = fd.as_raw_fd();
    // Somebody who opens the file while the lease is held makes the kernel signal us,
    // by default with SIGIO, which kills. SIGURG is ignored unless a program asks for
    // it.
    // SAFETY: F_SETSIG takes an integer; `fd` is open for the whole call.
    if unsafe { libc::fcntl(fd, F_SETSIG, libc::SIGURG) } != 0 {
        return None;
    }
    // SAFETY: F_SETLEASE takes an integer; `fd` is open for the whole call.
    if unsafe { libc::fcntl(fd, libc::F_SETLEASE, kind) } == 0 {
        return Some(true);
    }
    let refused = std::io::Error::last_os_error().raw_os_error() == Some(libc::EAGAIN);
    refused.then_some(false)
}
