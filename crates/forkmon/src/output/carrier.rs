//! What carries the guest's output to forkmon: a pipe, or where a terminal is to be
//! expected a pseudo-terminal (made by `terminal`).
//!
//! Forkmon holds both ends for as long as it lives, so that every run and every
//! frozen copy has the same one, and nobody waits for its end.

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::pipe::{PipeFlags, fcntl_getpipe_size, pipe_with};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;

/// Both ends, as they are made.
#[derive(Debug)]
pub(super) struct Carrier {
    /// Forkmon's, which never blocks.
    pub(super) reader: File,
    /// The guest's.
    pub(super) guest: OwnedFd,
}

impl Carrier {
    /// A pipe.
    pub(super) fn pipe() -> io::Result<Self> {
        let (reader, guest) = pipe_with(PipeFlags::CLOEXEC)?;
        fcntl_setfl(&reader, fcntl_getfl(&reader)? | OFlags::NONBLOCK)?;
        Ok(Self {
            reader: File::from(reader),
            guest,
        })
    }
}

/// More than the kernel lets wait in a pseudo-terminal: 8 KiB on the way
/// (`pty_common_install` in drivers/tty/pty.c) and 4 KiB at its end.
const PSEUDO_TERMINAL: usize = 64 * 1024;

/// The most that can be in a carrier: what was in it before is out of it when so
/// much was read.
pub(super) fn capacity(reader: &File) -> usize {
    // It fails for what is no pipe.
    fcntl_getpipe_size(reader).unwrap_or(PSEUDO_TERMINAL)
}

/// What [`take_in`] found.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// So many bytes.
    Some(usize),
    /// Everything that was written so far has been read.
    Nothing,
}

/// Reads once, without waiting.
///
/// A pseudo-terminal hands bytes over by a worker of the kernel's. A read that would
/// find nothing waits for that first (`tty_buffer_flush_work` in `n_tty_read`,
/// drivers/tty/n_tty.c), so that nothing means nothing: no marker needs to be sent
/// after what was written.
pub(super) fn take_in(mut reader: &File, piece: &mut [u8]) -> Found {
    loop {
        match reader.read(piece) {
            Ok(count @ 1..) => return Found::Some(count),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // It never ends: forkmon has the guest's end, too.
            Ok(0) | Err(_) => return Found::Nothing,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::terminal::Terminal;
    use super::*;
    use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};
    use std::io::Write;
    use std::sync::mpsc::channel;

    /// Has another thread write pieces of all sizes, and requires each to be found
    /// whole, by one look, once the write has returned.
    fn find_everything(carrier: Carrier, room: usize) {
        let Carrier { reader, guest } = carrier;
        let mut guest = File::from(guest);
        let (wants, wanted) = channel::<Vec<u8>>();
        let (tells, told) = channel();
        let writer = std::thread::spawn(move || {
            for bytes in wanted {
                guest.write_all(&bytes).unwrap();
                tells.send(()).unwrap();
            }
        });
        let mut dice = fastrand::Rng::with_seed(7);
        for _ in 0..2_000 {
            let most = [2, 100, room / 2, room][dice.usize(..4)];
            let mut bytes = vec![0; dice.usize(1..most)];
            dice.fill(&mut bytes);
            wants.send(bytes.clone()).unwrap();
            told.recv().unwrap();
            let (mut found, mut piece) = (Vec::<u8>::new(), vec![0; 3_000]);
            while let Found::Some(count) = take_in(&reader, &mut piece) {
                found.extend(&piece[..count]);
            }
            assert_eq!(found.len(), bytes.len());
            assert!(found == bytes, "other bytes came out");
        }
        drop(wants);
        writer.join().unwrap();
    }

    #[test]
    fn a_pipe_has_everything_that_was_written() {
        find_everything(Carrier::pipe().unwrap(), 64 * 1024);
    }

    /// The kernel hands it over some time after the write.
    #[test]
    fn a_pseudo_terminal_has_everything_that_was_written() {
        // In the place of a real terminal, whose line ends are not processed.
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let other = openpt(flags).unwrap();
        grantpt(&other).unwrap();
        unlockpt(&other).unwrap();
        let real = ioctl_tiocgptpeer(&other, flags).unwrap();
        let mut modes = rustix::termios::tcgetattr(&real).unwrap();
        modes.make_raw();
        let now = rustix::termios::OptionalActions::Now;
        rustix::termios::tcsetattr(&real, now, &modes).unwrap();
        let (terminal, carrier) = Terminal::like(real).unwrap();
        assert!(!terminal.processes());
        find_everything(carrier, 8 * 1024);
    }
}
