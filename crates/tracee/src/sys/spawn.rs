//! Starting the guest: fork, be seized, install the filter, exec.
//!
//! Between fork and exec only async-signal-safe calls are made and nothing is
//! allocated: everything is prepared before.

use crate::stop::Tid;
use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Where the child failed, as it reports it to the parent.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub(crate) enum Stage {
    NoNewPrivileges = 1,
    Filter = 2,
    Exec = 3,
    Streams = 4,
}

impl Stage {
    pub(crate) fn from_byte(byte: u8) -> Option<Self> {
        [
            Stage::NoNewPrivileges,
            Stage::Filter,
            Stage::Exec,
            Stage::Streams,
        ]
        .into_iter()
        .find(|stage| *stage as u8 == byte)
    }
}

/// What the child needs.
pub(crate) struct Plan<'a> {
    /// The program's path.
    pub program: CString,
    /// Its arguments.
    pub arguments: Vec<CString>,
    /// What a file without a known format is run by, arguments included; the
    /// same that execvp(3) does.
    pub shell: Vec<CString>,
    /// `NAME=value`.
    pub environment: Vec<CString>,
    /// Its standard streams, where it does not inherit them.
    pub streams: [Option<BorrowedFd<'a>>; 3],
    /// The filter.
    pub filter: &'a [libc::sock_filter],
    /// Readable once the child may go on; at its end the child gives up.
    pub go: BorrowedFd<'a>,
    /// Where a failure is told.
    pub failure: BorrowedFd<'a>,
}

fn pointers(strings: &[CString]) -> Vec<*const libc::c_char> {
    let mut all: Vec<_> = strings.iter().map(|s| s.as_ptr()).collect();
    all.push(std::ptr::null());
    all
}

/// Every handler becomes the default action, as exec(2) will have it: until then they
/// would run in the child, on a copy of what they are for, and swallow the signal.
///
/// # Safety
///
/// For a child that is about to exec. Async-signal-safe.
unsafe fn drop_handlers() {
    for signal in 1..=64 {
        // SAFETY: all bytes zero is a valid action, the default one. The two that only
        // the C library uses are refused, and nothing changes.
        unsafe {
            let default: libc::sigaction = std::mem::zeroed();
            let mut action: libc::sigaction = std::mem::zeroed();
            if libc::sigaction(signal, std::ptr::null(), &raw mut action) == 0
                && action.sa_sigaction != libc::SIG_IGN
            {
                libc::sigaction(signal, &raw const default, std::ptr::null_mut());
            }
        }
    }
}

/// Forks the child. It waits for a byte on `go` before it does anything, and no signal
/// but SIGKILL does anything to it until then.
pub(crate) fn fork(plan: &Plan<'_>) -> io::Result<Tid> {
    let arguments = pointers(&plan.arguments);
    let shell = pointers(&plan.shell);
    let environment = pointers(&plan.environment);
    let program = libc::sock_fprog {
        len: u16::try_from(plan.filter.len()).map_err(|_| io::ErrorKind::InvalidInput)?,
        filter: plan.filter.as_ptr().cast_mut(),
    };
    let go = plan.go.as_raw_fd();
    let failure = plan.failure.as_raw_fd();
    let streams = plan.streams.map(|stream| stream.map(|fd| fd.as_raw_fd()));
    // SAFETY: the child makes async-signal-safe calls only, on memory that was
    // prepared above and is copied by fork, and ends by exec or _exit.
    unsafe {
        let mut all: libc::sigset_t = std::mem::zeroed();
        let mut mask: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&raw mut all);
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const all, &raw mut mask);
        let pid = libc::fork();
        if pid != 0 {
            let failure = io::Error::last_os_error();
            libc::pthread_sigmask(libc::SIG_SETMASK, &raw const mask, std::ptr::null_mut());
            return match pid {
                ..0 => Err(failure),
                _ => Ok(Tid::new(pid)),
            };
        }
        let mut byte = 0u8;
        loop {
            let n = libc::read(go, (&raw mut byte).cast(), 1);
            if n == 1 {
                break;
            }
            if n < 0 && *libc::__errno_location() == libc::EINTR {
                continue;
            }
            libc::_exit(127);
        }
        let fail = |stage: Stage| -> ! {
            let errno = (*libc::__errno_location()).to_ne_bytes();
            let report = [stage as u8, errno[0], errno[1], errno[2], errno[3]];
            libc::write(failure, report.as_ptr().cast(), report.len());
            libc::_exit(127)
        };
        for (number, stream) in (0..).zip(streams) {
            // One that is there already would keep its close-on-exec flag.
            if let Some(fd) = stream
                && (fd == number || libc::dup2(fd, number) < 0)
            {
                fail(Stage::Streams);
            }
        }
        drop_handlers();
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const mask, std::ptr::null_mut());
        // The standard library ignores SIGPIPE, which is inherited over exec.
        libc::signal(libc::SIGPIPE, libc::SIG_DFL);
        if libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 {
            fail(Stage::NoNewPrivileges);
        }
        if libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW,
            &raw const program,
        ) < 0
        {
            fail(Stage::Filter);
        }
        libc::execve(
            plan.program.as_ptr(),
            arguments.as_ptr(),
            environment.as_ptr(),
        );
        if *libc::__errno_location() == libc::ENOEXEC {
            libc::execve(shell[0], shell.as_ptr(), environment.as_ptr());
        }
        fail(Stage::Exec)
    }
}
