//! What becomes of the guest's standard input.
//!
//! A fresh run reads it from its beginning; so a rewind has to give back what the
//! dropped run read. What the guest had read up to the checkpoint counts as read,
//! what it read after that is given to it again.
//!
//! A regular file goes back by its offset. A pipe or a socket is read by forkmon,
//! which keeps what it reads (`record`) and gives it to the guest through a pipe of
//! its own (`feeder`). A terminal stays the guest's: what a person typed is typed.

mod feeder;
mod record;

use anyhow::{Context as _, bail};
use feeder::Feeder;
use rustix::fs::{FileType, SeekFrom};
use std::fs::File;
use std::io::{self, IsTerminal as _};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

/// Where the guest's input comes from, as `--stdin` says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Mode {
    /// Forkmon's own; what a dropped run read from a pipe is gone
    Inherit,
    /// A resumed program is given again what the dropped run read since
    Replay,
    /// /dev/null
    Null,
}

/// How much of its input a run has read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Position(u64);

/// The guest's input.
pub struct Input(Kind);

enum Kind {
    /// Forkmon's own.
    Inherited,
    /// The same, a regular file, which stood here.
    File(u64),
    Null(File),
    Fed(Arc<Feeder>),
}

impl Input {
    /// Gets ready for the guest's first run. Without a mode, input that is no terminal
    /// is replayed. `lost` is called if that turns out to be impossible.
    ///
    /// # Errors
    ///
    /// When a terminal is to be replayed, and when something cannot be made that is
    /// needed.
    pub fn start(
        mode: Option<Mode>,
        lost: impl Fn(&io::Error) + Send + Sync + 'static,
    ) -> anyhow::Result<Self> {
        let input = io::stdin();
        if mode == Some(Mode::Null) {
            let null = File::open("/dev/null").context("cannot open /dev/null")?;
            return Ok(Self(Kind::Null(null)));
        }
        if mode == Some(Mode::Replay) && input.is_terminal() {
            bail!(
                "--stdin replay is for input from a file or a pipe, and standard input is a \
                 terminal; leave the option out"
            );
        }
        let Ok(stat) = rustix::fs::fstat(&input) else {
            return Ok(Self(Kind::Inherited));
        };
        Ok(Self(match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => match rustix::fs::tell(&input) {
                Ok(position) => Kind::File(position),
                Err(_) => Kind::Inherited,
            },
            FileType::Fifo | FileType::Socket if mode != Some(Mode::Inherit) => {
                let source = input.as_fd().try_clone_to_owned();
                let source = source.context("cannot duplicate standard input")?;
                let feeder = Feeder::start(source, Box::new(lost))
                    .context("cannot keep the program's input; see --stdin")?;
                Kind::Fed(feeder)
            }
            _ => Kind::Inherited,
        }))
    }

    /// What the guest has as its standard input instead of forkmon's.
    #[must_use]
    pub fn guest_end(&self) -> Option<BorrowedFd<'_>> {
        match &self.0 {
            Kind::Inherited | Kind::File(_) => None,
            Kind::Null(null) => Some(null.as_fd()),
            Kind::Fed(feeder) => Some(feeder.guest_end()),
        }
    }

    /// How much the run has read so far. It must stand still.
    #[must_use]
    pub fn position(&self) -> Position {
        match &self.0 {
            Kind::Fed(feeder) => Position(feeder.position()),
            _ => Position::default(),
        }
    }

    /// The run is dead, and the next one begins at a checkpoint's position or at the
    /// beginning.
    ///
    /// # Errors
    ///
    /// When what it has to read is gone.
    pub fn rewind(&self, position: Option<Position>) -> anyhow::Result<()> {
        match &self.0 {
            Kind::Fed(feeder) => {
                let Position(position) = position.unwrap_or_default();
                feeder
                    .rewind(position)
                    .context("cannot give the program its input again; start forkmon anew")
            }
            Kind::File(start) if position.is_none() => {
                // It worked before; if it does not now, the input is gone. A copy gets
                // its offset back from its checkpoint.
                let _ = rustix::fs::seek(io::stdin(), SeekFrom::Start(*start));
                Ok(())
            }
            _ => Ok(()),
        }
    }
}
