//! The pseudo-terminal that the guest has in the place of a real one, as far as the
//! two have to be alike: window size and modes.
//!
//! What the guest writes is processed twice on its way, as a terminal's output
//! modes say: by the pseudo-terminal, and by the real one. Both have to have those
//! modes, since programs ask for them and set them, at either. So the first one is
//! undone (`Unprocessed`). The only processing that a pseudo-terminal is left with
//! is that of line ends; the rest is the real one's alone.
//!
//! Nothing is ever typed into the pseudo-terminal: echo, line editing and signals
//! are the real one's. But programs like those that use curses set the modes for
//! input at the terminal that they write to. So what is set at one side is set at
//! the other, before the guest goes on.

use super::carrier::Carrier;
use crate::sys::without_terminal_stops;
use rustix::fs::{FileType, OFlags, fcntl_getfl, fcntl_setfl};
use rustix::process::Pid;
use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{
    OptionalActions, OutputModes, Termios, tcgetattr, tcgetpgrp, tcgetsid, tcgetwinsize, tcsetattr,
    tcsetwinsize,
};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

/// What is left of the pseudo-terminal's processing: a line feed becomes a carriage
/// return and a line feed.
const LINE_ENDS: OutputModes = OutputModes::OPOST.union(OutputModes::ONLCR);

/// The device that is every process's controlling terminal (tty(4)).
const CONTROLLING: u64 = libc::makedev(5, 0);

/// Both terminals, as forkmon has them open.
#[derive(Debug)]
pub(super) struct Terminal {
    real: OwnedFd,
    guests: OwnedFd,
}

/// Rows and columns, and the pixels of both.
pub type Size = [u16; 4];

/// One of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Real,
    Guests,
}

impl Terminal {
    /// Makes a pseudo-terminal like a real terminal.
    pub(super) fn like(real: OwnedFd) -> io::Result<(Self, Carrier)> {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let master = openpt(flags)?;
        grantpt(&master)?;
        unlockpt(&master)?;
        fcntl_setfl(&master, fcntl_getfl(&master)? | OFlags::NONBLOCK)?;
        let guest = ioctl_tiocgptpeer(&master, flags)?;
        let terminal = Self {
            real,
            guests: guest.as_fd().try_clone_to_owned()?,
        };
        let reader = File::from(master);
        terminal.copy_size();
        terminal.set_like(Side::Real);
        Ok((terminal, Carrier { reader, guest }))
    }

    /// Gives the pseudo-terminal the real one's size.
    pub(super) fn copy_size(&self) {
        // One that is hung up has no size, and needs none.
        if let Ok(size) = tcgetwinsize(&self.real)
            && tcgetwinsize(&self.guests).is_ok_and(|now| now != size)
        {
            let _ = tcsetwinsize(&self.guests, size);
        }
    }

    /// The size.
    pub(super) fn size(&self) -> Option<Size> {
        let size = tcgetwinsize(&self.guests).ok()?;
        Some([size.ws_row, size.ws_col, size.ws_xpixel, size.ws_ypixel])
    }

    /// Which of the two a device is.
    pub(super) fn side(&self, device: u64) -> Option<Side> {
        let is = |fd: &OwnedFd| {
            rustix::fs::fstat(fd).is_ok_and(|stat| {
                FileType::from_raw_mode(stat.st_mode).is_char_device() && stat.st_rdev == device
            })
        };
        if is(&self.guests) {
            Some(Side::Guests)
        } else if is(&self.real) || device == CONTROLLING && tcgetsid(&self.real).is_ok() {
            Some(Side::Real)
        } else {
            None
        }
    }

    /// Whether the real terminal is one from whose background this process group
    /// must not change it.
    pub(super) fn is_in_background(&self, group: Option<Pid>) -> bool {
        // It fails for any other than the controlling terminal.
        tcgetpgrp(&self.real).is_ok_and(|foreground| Some(foreground) != group)
    }

    /// Sets the modes of one side as they are at the other.
    pub(super) fn set_like(&self, side: Side) {
        let (Ok(real), Ok(guests)) = (tcgetattr(&self.real), tcgetattr(&self.guests)) else {
            // One of them is hung up, and needs no modes.
            return;
        };
        let (target, now, mut wanted) = match side {
            Side::Real => (&self.guests, &guests, real.clone()),
            Side::Guests => (&self.real, &real, guests.clone()),
        };
        wanted.control_modes = now.control_modes;
        wanted.output_modes = match side {
            Side::Real => real.output_modes & LINE_ENDS,
            Side::Guests => (real.output_modes - LINE_ENDS) | (guests.output_modes & LINE_ENDS),
        };
        if !is_same(now, &wanted) {
            // As above.
            let _ = without_terminal_stops(|| tcsetattr(target, OptionalActions::Now, &wanted));
        }
    }

    /// Whether what comes out of the pseudo-terminal has its line ends processed.
    pub(super) fn processes(&self) -> bool {
        tcgetattr(&self.guests).is_ok_and(|modes| modes.output_modes.contains(LINE_ENDS))
    }
}

fn is_same(one: &Termios, other: &Termios) -> bool {
    let all = |modes: &Termios| {
        (
            modes.input_modes,
            modes.output_modes,
            modes.control_modes,
            modes.local_modes,
            format!("{:?}", modes.special_codes),
        )
    };
    all(one) == all(other)
}

/// Turns what comes out of the pseudo-terminal into what the guest wrote.
///
/// With line ends processed, each line feed of the guest's comes as a carriage return
/// and a line feed, which the kernel hands over together (`do_output_char` in
/// drivers/tty/n_tty.c): a carriage return that nothing follows is one of the guest's.
#[derive(Debug, Default)]
pub(super) struct Unprocessed {
    held: bool,
}

impl Unprocessed {
    /// The next bytes, as the guest wrote them. A carriage return at their end is
    /// held.
    pub(super) fn next(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut written = Vec::with_capacity(bytes.len() + 1);
        for &byte in bytes {
            if std::mem::take(&mut self.held) && byte != b'\n' {
                written.push(b'\r');
            }
            if byte == b'\r' {
                self.held = true;
            } else {
                written.push(byte);
            }
        }
        written
    }

    /// Whether a carriage return is held, so that what follows has to be known.
    pub(super) fn is_holding(&self) -> bool {
        self.held
    }

    /// What is held and followed by nothing.
    pub(super) fn rest(&mut self) -> &'static [u8] {
        if std::mem::take(&mut self.held) {
            b"\r"
        } else {
            b""
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// However what comes out is cut into pieces, it is what was written.
        #[test]
        fn processing_is_undone(
            written in proptest::collection::vec(
                prop_oneof![Just(b'\r'), Just(b'\n'), any::<u8>()], 0..60,
            ),
            cuts in proptest::collection::vec(1..9_usize, 1..60),
        ) {
            let mut processed = Vec::new();
            for byte in &written {
                if *byte == b'\n' {
                    processed.push(b'\r');
                }
                processed.push(*byte);
            }
            let (mut undo, mut found) = (Unprocessed::default(), Vec::new());
            let mut left = &processed[..];
            for cut in cuts.iter().cycle() {
                if left.is_empty() {
                    break;
                }
                let (piece, rest) = left.split_at((*cut).min(left.len()));
                found.extend(undo.next(piece));
                left = rest;
            }
            found.extend(undo.rest());
            prop_assert_eq!(found, written);
        }
    }
}
