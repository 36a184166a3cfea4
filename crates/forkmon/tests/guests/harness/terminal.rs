//! A terminal that a program is started on: a pseudo-terminal, whose other side is
//! the test's.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Command, Stdio};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{Termios, Winsize, tcgetattr, tcsetwinsize};

use super::PATIENCE;

/// Both sides of a terminal.
pub struct Terminal {
    /// The test's side.
    master: File,
    /// The program's side, until it is started.
    slave: Option<OwnedFd>,
}

impl Terminal {
    /// What a command is started through to have the terminal as its controlling one.
    pub const COMMAND: [&str; 2] = ["setsid", "--ctty"];

    /// A terminal of so many rows and columns.
    pub fn new(rows: u16, columns: u16) -> Terminal {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let master = openpt(flags).expect("a pseudo-terminal can be made");
        grantpt(&master).expect("it is ours");
        unlockpt(&master).expect("it is ours");
        let slave = ioctl_tiocgptpeer(&master, flags).expect("it has another side");
        let flags = fcntl_getfl(&master).expect("it has flags");
        fcntl_setfl(&master, flags | OFlags::NONBLOCK).expect("it can be unblocked");
        let terminal = Terminal {
            master: File::from(master),
            slave: Some(slave),
        };
        terminal.resize(rows, columns);
        terminal
    }

    /// Makes it a command's standard input, output and error.
    pub(super) fn give_to(&self, command: &mut Command) {
        let slave = self.slave.as_ref().expect("it is given once");
        let side = || Stdio::from(slave.try_clone().expect("it can be duplicated"));
        command.stdin(side()).stdout(side()).stderr(side());
    }

    /// The command has it: what comes out of it.
    pub(super) fn started(&mut self) -> File {
        self.slave = None;
        self.master.try_clone().expect("it can be duplicated")
    }

    /// Everything that comes out of it until nobody has it any more.
    pub(super) fn read_to_end(&mut self) -> Vec<u8> {
        self.slave = None;
        let timeout = Timespec::try_from(PATIENCE).expect("a minute fits");
        let mut all = Vec::new();
        loop {
            let ready = poll(
                &mut [PollFd::new(&self.master, PollFlags::IN)],
                Some(&timeout),
            );
            assert_eq!(ready, Ok(1), "the program goes on for ever");
            let mut piece = [0; 4096];
            match self.master.read(&mut piece) {
                Ok(count @ 1..) => all.extend(&piece[..count]),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                // EIO: the other side is closed.
                _ => return all,
            }
        }
    }

    /// Gives it another size, as a person who drags the window.
    pub fn resize(&self, rows: u16, columns: u16) {
        let size = Winsize {
            ws_row: rows,
            ws_col: columns,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        tcsetwinsize(self.master.as_fd(), size).expect("a terminal has a size");
    }

    /// Types.
    pub fn type_in(&self, keys: &[u8]) {
        let mut master = &self.master;
        master
            .write_all(keys)
            .expect("there is room for a few keys");
    }

    /// Its modes.
    pub fn modes(&self) -> Termios {
        tcgetattr(&self.master).expect("a terminal has modes")
    }
}
