//! Whether anybody is left who reads what forkmon and the guest print: in
//! `forkmon … | head`, nobody is once `head` has had enough.
//!
//! A program finds that out when it writes next, by SIGPIPE. Forkmon itself need not
//! write anything for hours, and nobody sees what a further run would print.

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

/// Whether standard output is a pipe without a name, which nobody can open to read once
/// its readers are gone.
fn is_pipe(output: BorrowedFd<'_>) -> bool {
    use std::os::fd::AsRawFd as _;
    let link = std::fs::read_link(Path::new("/proc/self/fd").join(output.as_raw_fd().to_string()));
    link.is_ok_and(|target| target.to_string_lossy().starts_with("pipe:["))
}

/// Waits until an open pipe has no reader, or the time is over; whether it has none.
fn has_no_reader(output: BorrowedFd<'_>, time: Option<&Timespec>) -> bool {
    // Nothing is asked for: the lack of a reader is told all the same (poll(2), POLLERR).
    let mut pipe = [PollFd::from_borrowed_fd(output, PollFlags::empty())];
    while poll(&mut pipe, time) == Err(rustix::io::Errno::INTR) {}
    pipe[0].revents().contains(PollFlags::ERR)
}

/// Whether standard output is a pipe that nobody reads any more.
#[must_use]
pub fn is_gone() -> bool {
    let output = io::stdout();
    is_pipe(output.as_fd()) && has_no_reader(output.as_fd(), Some(&Timespec::default()))
}

/// Has it told when the last reader of standard output goes, if that is a pipe.
///
/// # Errors
///
/// When no thread can be had.
pub fn watch(tell: impl FnOnce() + Send + 'static) -> io::Result<()> {
    if !is_pipe(io::stdout().as_fd()) {
        return Ok(());
    }
    let watching = move || {
        if has_no_reader(io::stdout().as_fd(), None) {
            tell();
        }
    };
    let thread = std::thread::Builder::new().name("reader".into());
    thread.spawn(watching).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pipe_is_told_from_a_file_and_its_reader_is_missed() {
        let (reader, writer) = io::pipe().unwrap();
        let at_once = Timespec::default();
        assert!(is_pipe(writer.as_fd()));
        assert!(!has_no_reader(writer.as_fd(), Some(&at_once)));
        drop(reader);
        assert!(has_no_reader(writer.as_fd(), None));
        assert!(!is_pipe(tempfile::tempfile().unwrap().as_fd()));
    }
}
