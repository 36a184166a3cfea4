//! The one question to the kernel that rustix has no safe face for: is a file
//! open for writing anywhere, right now? A read lease is granted only if not.
//!
//! Source: fcntl(2), "Leases"; `check_conflicting_open` in the kernel's
//! `fs/locks.c`.

use std::os::fd::{AsRawFd, BorrowedFd};

/// `F_SETSIG` of `include/uapi/asm-generic/fcntl.h`, which the libc crate lacks.
const F_SETSIG: libc::c_int = 10;

/// Whether anyone has the file open for writing, or `None` where the file
/// system or the owner does not let us ask.
///
/// `fd` must be open for reading only. The lease is given up again at once.
pub(crate) fn open_for_writing(fd: BorrowedFd<'_>) -> Option<bool> {
    let fd = fd.as_raw_fd();
    // Somebody who opens the file in the moment while the lease is held makes the
    // kernel signal us, by default with SIGIO, which kills. SIGURG is ignored
    // unless a program asks for it.
    // SAFETY: F_SETSIG takes an integer; `fd` is open for the whole call.
    if unsafe { libc::fcntl(fd, F_SETSIG, libc::SIGURG) } != 0 {
        return None;
    }
    // SAFETY: F_SETLEASE takes an integer; `fd` is open for the whole call.
    if unsafe { libc::fcntl(fd, libc::F_SETLEASE, libc::F_RDLCK) } == 0 {
        // SAFETY: as above.
        unsafe { libc::fcntl(fd, libc::F_SETLEASE, libc::F_UNLCK) };
        return Some(false);
    }
    let refused = std::io::Error::last_os_error().raw_os_error() == Some(libc::EAGAIN);
    refused.then_some(true)
}
