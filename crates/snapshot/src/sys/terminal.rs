//! What terminals are asked and told by ioctl(2) (ioctl_tty(2)), as the kernel's
//! bytes where nobody has to read them.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd};
use tracee::Tid;

/// `struct termios2`: modes, special characters and speeds.
pub(crate) type Modes = [u8; 44];

const TCGETS2: libc::Ioctl = 0x802c_542a;
const TCSETS2: libc::Ioctl = 0x402c_542b;
const TIOCPKT: libc::Ioctl = 0x5420;
const TIOCGPKT: libc::Ioctl = 0x8004_5438;
const TIOCGPTN: libc::Ioctl = 0x8004_5430;
const TIOCSPTLCK: libc::Ioctl = 0x4004_5431;
const TIOCGPTLCK: libc::Ioctl = 0x8004_5439;

fn check(answer: libc::c_int) -> io::Result<()> {
    if answer < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Makes a request of a background process's that would stop it (SIGTTOU) pass.
fn unstopped<T>(request: impl FnOnce() -> T) -> T {
    let mut before = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: the sets are valid for writes, and initialised by sigemptyset and by
    // pthread_sigmask before they are read.
    unsafe {
        let mut blocked = MaybeUninit::<libc::sigset_t>::uninit();
        libc::sigemptyset(blocked.as_mut_ptr());
        libc::sigaddset(blocked.as_mut_ptr(), libc::SIGTTOU);
        libc::pthread_sigmask(libc::SIG_BLOCK, blocked.as_ptr(), before.as_mut_ptr());
    }
    let answer = request();
    // SAFETY: the set is what pthread_sigmask has written.
    unsafe {
        libc::pthread_sigmask(libc::SIG_SETMASK, before.as_ptr(), std::ptr::null_mut());
    }
    answer
}

/// A terminal's modes; of a pseudo-terminal's master, those of its other side.
pub(crate) fn modes(terminal: BorrowedFd<'_>) -> io::Result<Modes> {
    let mut modes = [0; size_of::<Modes>()];
    // SAFETY: the third argument is valid for writes of a termios2.
    check(unsafe { libc::ioctl(terminal.as_raw_fd(), TCGETS2, modes.as_mut_ptr()) })?;
    Ok(modes)
}

/// Sets what [`modes`] read, at once.
pub(crate) fn set_modes(terminal: BorrowedFd<'_>, modes: &Modes) -> io::Result<()> {
    // SAFETY: the third argument is valid for reads of a termios2.
    unstopped(|| check(unsafe { libc::ioctl(terminal.as_raw_fd(), TCSETS2, modes.as_ptr()) }))
}

/// `struct winsize`: rows, columns, and pixels of both.
pub(crate) type Size = [u16; 4];

/// A terminal's window size.
pub(crate) fn size(terminal: BorrowedFd<'_>) -> io::Result<Size> {
    let mut size = Size::default();
    // SAFETY: the third argument is valid for writes of a winsize.
    check(unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCGWINSZ, size.as_mut_ptr()) })?;
    Ok(size)
}

/// Sets a terminal's window size.
pub(crate) fn set_size(terminal: BorrowedFd<'_>, size: Size) -> io::Result<()> {
    // SAFETY: the third argument is valid for reads of a winsize.
    check(unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSWINSZ, size.as_ptr()) })
}

fn number(terminal: BorrowedFd<'_>, request: libc::Ioctl) -> io::Result<i32> {
    let mut number: libc::c_int = 0;
    // SAFETY: the requests that this is called with write an int.
    check(unsafe { libc::ioctl(terminal.as_raw_fd(), request, &raw mut number) })?;
    Ok(number)
}

fn set_number(terminal: BorrowedFd<'_>, request: libc::Ioctl, number: i32) -> io::Result<()> {
    // SAFETY: the requests that this is called with read an int.
    unstopped(|| check(unsafe { libc::ioctl(terminal.as_raw_fd(), request, &raw const number) }))
}

/// The foreground process group of this process's controlling terminal.
pub(crate) fn foreground(terminal: BorrowedFd<'_>) -> io::Result<i32> {
    number(terminal, libc::TIOCGPGRP)
}

/// Sets the foreground process group of this process's controlling terminal.
pub(crate) fn set_foreground(terminal: BorrowedFd<'_>, group: i32) -> io::Result<()> {
    set_number(terminal, libc::TIOCSPGRP, group)
}

/// Whether there is any process in a group.
pub(crate) fn group_exists(group: i32) -> bool {
    // SAFETY: kill takes no pointer, and signal 0 is none.
    let answer = unsafe { libc::kill(-group, 0) };
    answer == 0 || io::Error::last_os_error().raw_os_error() != Some(libc::ESRCH)
}

/// Tells a process that the size of its window has changed.
pub(crate) fn tell_of_size(process: Tid) {
    // SAFETY: kill takes no pointer. A process that is gone need not know.
    unsafe {
        libc::kill(process.raw(), libc::SIGWINCH);
    }
}

/// The number of a pseudo-terminal, of its master.
pub(crate) fn index(master: BorrowedFd<'_>) -> io::Result<u32> {
    Ok(number(master, TIOCGPTN)? as u32)
}

/// Whether a pseudo-terminal's master reads packets (`TIOCPKT`), and whether its
/// other side is locked.
pub(crate) fn master_state(master: BorrowedFd<'_>) -> io::Result<(bool, bool)> {
    Ok((
        number(master, TIOCGPKT)? != 0,
        number(master, TIOCGPTLCK)? != 0,
    ))
}

/// Has a master read packets.
pub(crate) fn set_packets(master: BorrowedFd<'_>, on: bool) -> io::Result<()> {
    set_number(master, TIOCPKT, i32::from(on))
}

/// Locks or unlocks the other side of a master.
pub(crate) fn lock(master: BorrowedFd<'_>, on: bool) -> io::Result<()> {
    set_number(master, TIOCSPTLCK, i32::from(on))
}
