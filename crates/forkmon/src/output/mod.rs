//! What becomes of the guest's output.
//!
//! With [`Mode::Live`] the guest writes straight to where forkmon does, and after a
//! resume only what is new appears. With [`Mode::Replay`] its output goes through
//! forkmon, and after a resume the part that was written before the checkpoint is
//! shown again, so that what is on the screen is the whole output of the run.
//!
//! ```text
//!   guest ──write──► carrier ──► channel (a thread) ──► forkmon's stdout or stderr
//!                                  └─ script: what is written, in which order
//!   messages ──────────────────────►    └─ kept: the run's output so far
//! ```
//!
//! Where standard output and standard error are the same file, the guest has one
//! carrier for both, so that their order stays. What a checkpoint has to know is a
//! [`Position`]: how many bytes the guest had written. What is written of a run that
//! is then dropped is written as it comes, since a person watches; what was not
//! written when it is dropped never is.

mod carrier;
mod channel;
mod kept;
pub mod reader;
mod script;
mod terminal;

use anyhow::Context as _;
use carrier::Carrier;
use channel::Channel;
use rustix::fs::FileType;
use rustix::process::Pid;
use signal_hook::consts::SIGWINCH;
use signal_hook::iterator::Signals;
use std::io::IsTerminal as _;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use terminal::Terminal;
use tracee::Tid;

pub use channel::Told;
pub use terminal::Size;

/// Where the guest's output goes, as `--output` says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Mode {
    /// Straight to where forkmon's goes; after a resume only the new part appears
    #[default]
    Live,
    /// Through forkmon; after a resume the kept part is shown again before the new one
    Replay,
}

/// How much of a terminal to clear before a run's output, as `--clear` says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Clear {
    /// The screen
    Screen,
    /// The screen and what has scrolled out of it
    All,
}

impl Clear {
    /// Attributes off, the cursor to the corner, the screen erased (ECMA-48), and
    /// with it what xterm calls the saved lines.
    fn sequence(self) -> &'static [u8] {
        match self {
            Self::Screen => b"\x1b[m\x1b[H\x1b[2J",
            Self::All => b"\x1b[m\x1b[H\x1b[2J\x1b[3J",
        }
    }
}

/// How much a run has written to its standard output and its standard error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Position([u64; 2]);

/// What is wanted of the output.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Where it goes.
    pub mode: Mode,
    /// What to clear before a resume's or a restart's output.
    pub clear: Option<Clear>,
    /// How many bytes of each destination are kept for the next resume.
    pub limit: usize,
}

/// The guest's output.
pub struct Output {
    /// Of standard output and standard error; `None` if the guest has forkmon's own.
    channels: Option<[Arc<Channel>; 2]>,
    clear: Option<Clear>,
}

/// What can be told of a channel: 0 is that of standard output, also where it is the
/// one of both, 1 that of standard error.
pub type Teller = Arc<dyn Fn(usize, Told) + Send + Sync>;

/// Where messages are passed that stand between the guest's lines.
#[derive(Clone)]
pub struct Voice(Arc<Channel>);

impl std::fmt::Debug for Voice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Voice").finish_non_exhaustive()
    }
}

impl Voice {
    /// Has a whole line written to standard error, in its place; false if that does
    /// not happen any more.
    #[must_use]
    pub fn say(&self, line: &[u8]) -> bool {
        self.0.say(line)
    }
}

impl Output {
    /// Gets ready for the guest's first run.
    ///
    /// # Errors
    ///
    /// When something cannot be made that is needed for it.
    pub fn start(options: Options, tell: &Teller) -> anyhow::Result<Self> {
        let channels = match options.mode {
            Mode::Live => None,
            Mode::Replay => Some(channels(options.limit, tell)?),
        };
        let output = Self {
            channels,
            clear: options.clear,
        };
        if output.is_terminal() {
            output
                .follow_size()
                .context("cannot follow the size of the terminal")?;
        }
        Ok(output)
    }

    /// What the guest has as its standard output and standard error instead of
    /// forkmon's.
    #[must_use]
    pub fn guest_ends(&self) -> [Option<BorrowedFd<'_>>; 2] {
        let end = |index: usize| Some(self.channels.as_ref()?[index].guest_end());
        [end(0), end(1)]
    }

    /// Where messages are to go, if not straight to standard error.
    #[must_use]
    pub fn voice(&self) -> Option<Voice> {
        let [_, error] = self.channels.as_ref()?;
        Some(Voice(Arc::clone(error)))
    }

    /// How much the run has written so far. It must stand still.
    #[must_use]
    pub fn position(&self) -> Position {
        Position(match &self.channels {
            Some(channels) => channels.each_ref().map(|channel| channel.position()),
            None => [0; 2],
        })
    }

    /// Whether so much waits for a slow reader that no checkpoint can be taken.
    #[must_use]
    pub fn is_backed_up(&self) -> bool {
        self.each().any(|(_, channel)| channel.is_backed_up())
    }

    /// The run is dead, and the next one begins at a checkpoint's position or at the
    /// beginning. What of it is kept is shown after [`Output::show`]. Answers how many
    /// bytes were to be shown again and are not kept.
    pub fn rewind(&self, position: Option<Position>) -> u64 {
        let Position(positions) = position.unwrap_or_default();
        if self.channels.is_none() {
            self.clear_at_once();
        }
        let clear = self.clear.map(Clear::sequence);
        self.each()
            .map(|(index, channel)| channel.rewind(positions[index], clear))
            .sum()
    }

    /// What is said of the next run was said: its output may follow.
    pub fn show(&self) {
        for (_, channel) in self.each() {
            channel.show();
        }
    }

    /// The run has ended. Whether [`Told::Reached`] comes of each destination, once
    /// all that it wrote is there.
    pub fn ended(&self, run: u64) -> bool {
        for (_, channel) in self.each() {
            channel.ended(run);
        }
        self.channels.is_some()
    }

    /// Whether the guest writes to a pseudo-terminal of forkmon's.
    #[must_use]
    pub fn is_terminal(&self) -> bool {
        self.size().is_some()
    }

    /// The size of the terminal that the guest writes to through forkmon.
    #[must_use]
    pub fn size(&self) -> Option<Size> {
        self.each().find_map(|(_, channel)| channel.size())
    }

    /// Gives the guest's terminal the size of the real one. To be called before the
    /// guest gets to know of a change.
    pub fn copy_size(&self) {
        for (_, channel) in self.each() {
            channel.copy_size();
        }
    }

    /// Keeps the size as it is for those who ask without being told of changes.
    fn follow_size(&self) -> std::io::Result<()> {
        let channels: Vec<Arc<Channel>> = self.each().map(|(_, one)| Arc::clone(one)).collect();
        let mut signals = Signals::new([SIGWINCH])?;
        std::thread::Builder::new()
            .name("window size".into())
            .spawn(move || {
                crate::sys::unblock(&[SIGWINCH]);
                for _ in signals.forever() {
                    for channel in &channels {
                        channel.copy_size();
                    }
                }
            })?;
        Ok(())
    }

    /// A run is about to begin, with the modes of the real terminal.
    pub fn begin(&self) {
        for (_, channel) in self.each() {
            channel.begin();
        }
    }

    /// A copy in this group is about to go on, with the modes that it has brought.
    pub fn goes_on(&self, group: Option<Pid>) {
        for (_, channel) in self.each() {
            channel.goes_on(group);
        }
    }

    /// The guest is about to change the modes of a terminal. If that is one of those
    /// that have to be alike, what it wrote before is written out, as far as that does
    /// not take long, and [`Output::after_modes`] is to follow.
    #[must_use]
    pub fn before_modes(&self, device: u64) -> bool {
        self.each().fold(false, |is_ours, (_, channel)| {
            channel.before_modes(device) || is_ours
        })
    }

    /// A process of the guest in this group has changed a terminal's modes.
    pub fn after_modes(&self, device: u64, group: Option<Pid>) {
        for (_, channel) in self.each() {
            channel.after_modes(device, group);
        }
    }

    /// Of how many destinations there is something to be told.
    #[must_use]
    pub fn destinations(&self) -> usize {
        self.each().count()
    }

    /// Has everything written that is left. [`Told::Finished`] comes of each
    /// destination.
    pub fn finish(&self) {
        for (_, channel) in self.each() {
            channel.finish();
        }
    }

    fn each(&self) -> impl Iterator<Item = (usize, &Arc<Channel>)> {
        let all = self.channels.iter().flat_map(|[first, second]| {
            let both = !Arc::ptr_eq(first, second);
            [Some((0, first)), both.then_some((1, second))]
        });
        all.flatten()
    }

    /// Clears the terminal that the guest writes to by itself.
    fn clear_at_once(&self) {
        let Some(clear) = self.clear else {
            return;
        };
        let (output, error) = (std::io::stdout(), std::io::stderr());
        // Nobody may be reading any more; that is no reason to stop.
        let _ = if output.is_terminal() {
            rustix::io::write(&output, clear.sequence())
        } else if error.is_terminal() {
            rustix::io::write(&error, clear.sequence())
        } else {
            Ok(0)
        };
    }
}

fn channels(limit: usize, tell: &Teller) -> anyhow::Result<[Arc<Channel>; 2]> {
    let (output, error) = (std::io::stdout(), std::io::stderr());
    let first = channel(output.as_fd(), 0, limit, tell)?;
    let second = if is_same(output.as_fd(), error.as_fd()) {
        Arc::clone(&first)
    } else {
        channel(error.as_fd(), 1, limit, tell)?
    };
    Ok([first, second])
}

fn channel(
    destination: BorrowedFd<'_>,
    index: usize,
    limit: usize,
    tell: &Teller,
) -> anyhow::Result<Arc<Channel>> {
    let own = || duplicate(destination).context("cannot duplicate an open file");
    let (terminal, carrier) = if destination.is_terminal() {
        let (terminal, carrier) = Terminal::like(own()?).context(
            "cannot make a pseudo-terminal for --output replay; mount devpts at /dev/pts, or use \
             --output live",
        )?;
        (Some(terminal), carrier)
    } else {
        let carrier = Carrier::pipe().context("cannot make a pipe for the guest's output")?;
        (None, carrier)
    };
    let tell = Arc::clone(tell);
    let tell = Box::new(move |told| tell(index, told));
    Channel::start(own()?, carrier, limit, terminal, tell)
        .context("cannot begin to carry the guest's output")
}

fn duplicate(fd: BorrowedFd<'_>) -> rustix::io::Result<OwnedFd> {
    rustix::io::fcntl_dupfd_cloexec(fd, 3)
}

/// Whether two of this process's files are one: bytes that go to both stay in the
/// order in which they are written.
fn is_same(one: BorrowedFd<'_>, other: BorrowedFd<'_>) -> bool {
    let (Ok(first), Ok(second)) = (rustix::fs::fstat(one), rustix::fs::fstat(other)) else {
        return false;
    };
    if (first.st_dev, first.st_ino) != (second.st_dev, second.st_ino) {
        return false;
    }
    if !FileType::from_raw_mode(first.st_mode).is_file() {
        return true;
    }
    // Two openings of a regular file have an offset each.
    let own = Tid::new(rustix::process::getpid().as_raw_nonzero().get());
    let number = |fd: BorrowedFd<'_>| std::os::fd::AsRawFd::as_raw_fd(&fd);
    tracee::same_open_file((own, number(one)), (own, number(other))).unwrap_or(true)
}
