//! The keyboard: the requests of [`crate::control`], one key each.
//!
//! A program that runs must get what is typed for it, and nobody can know
//! whether it will read the terminal later. So, unless it was told otherwise,
//! forkmon reads keys only between runs, while no process of the guest is alive;
//! with `--keys on` it always does, and the guest has no terminal to read from.
//!
//! The terminal's modes are changed for it (`terminal`) and put back: before a
//! run begins, at forkmon's end, when it is stopped by Ctrl-Z, and by the
//! guardian if it is killed.

mod terminal;

use std::fs::File;
use std::io::{IsTerminal as _, Read as _};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use anyhow::{Context as _, bail};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use signal_hook::consts::{SIGCONT, SIGTSTP};

use crate::control::{Asked, Reply, Request, table};
use crate::messages::Messages;
use crate::sys;
use terminal::{Terminal, Typed};

pub use terminal::Memo;

/// How often a process in the background looks whether it is in the foreground:
/// nothing tells it.
const LOOK_AGAIN: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 500_000_000,
};

/// The most keys whose answers are waited for. More are typed in vain.
const MAX_WAITING: usize = 16;

/// What comes in one piece and is longer than this was pasted, and is no keys.
const MAX_TYPED: usize = 3;

/// When to read keys, as `--keys` says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum When {
    /// Between runs: a command that runs gets all that is typed
    #[default]
    Auto,
    /// Always; the command has /dev/null as its standard input
    On,
    /// Never
    Off,
}

/// What a key stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Key {
    /// `c`: take a checkpoint.
    Checkpoint,
    /// `r`: resume the newest checkpoint.
    Resume,
    /// `R`: restart.
    Restart,
    /// `s`: tell the state.
    Status,
    /// `q`: end.
    Quit,
    /// `?`: tell the keys.
    Help,
}

/// The keys, with what they do.
const KEYS: [(u8, Key, &str); 6] = [
    (b'c', Key::Checkpoint, "take a checkpoint"),
    (b'r', Key::Resume, "resume the newest checkpoint"),
    (b'R', Key::Restart, "restart"),
    (b's', Key::Status, "show the run and its checkpoints"),
    (b'q', Key::Quit, "quit"),
    (b'?', Key::Help, "show this list"),
];

impl Key {
    /// What it asks for; only the help is not asked for.
    #[must_use]
    pub fn request(self) -> Option<Request> {
        match self {
            Self::Checkpoint => Some(Request::Checkpoint),
            Self::Resume => Some(Request::Resume { id: None }),
            Self::Restart => Some(Request::Restart),
            Self::Status => Some(Request::Status),
            Self::Quit => Some(Request::Quit),
            Self::Help => None,
        }
    }
}

/// The keys in what was typed. Arrows, function keys and keys with Alt come as
/// several bytes from the escape character on, and are none of ours; nor is what
/// was pasted.
#[must_use]
pub fn keys(typed: &[u8]) -> Vec<Key> {
    let mut plain = Vec::new();
    let mut left = typed.iter().copied();
    while let Some(byte) = left.next() {
        if byte != 0x1b {
            plain.push(byte);
            continue;
        }
        match left.next() {
            // A control sequence: parameters, then one final byte (ECMA-48).
            Some(b'[') => {
                let _ = left.by_ref().find(|byte| (0x40..=0x7e).contains(byte));
            }
            Some(b'O') => {
                left.next();
            }
            _ => {}
        }
    }
    if plain.len() > MAX_TYPED {
        return Vec::new();
    }
    let known = |byte: &u8| KEYS.iter().find(|(known, ..)| known == byte);
    plain
        .iter()
        .filter_map(known)
        .map(|(_, key, _)| *key)
        .collect()
}

/// With [`When::On`], takes the terminal from the guest: standard input is
/// /dev/null afterwards. To be called before anything looks at it.
///
/// # Errors
///
/// When standard input is not the terminal that forkmon is controlled by.
pub fn take_input(when: When) -> anyhow::Result<()> {
    if when != When::On {
        return Ok(());
    }
    if !has_terminal() {
        bail!(
            "--keys on needs the terminal that it was started from as its standard input; use \
             `forkmon ctl` instead"
        );
    }
    File::open("/dev/null")
        .and_then(|null| Ok(rustix::stdio::dup2_stdin(null)?))
        .context("cannot make /dev/null the standard input")
}

/// Whether standard input is the controlling terminal.
fn has_terminal() -> bool {
    let input = std::io::stdin();
    // Asking for the session fails for any other terminal.
    input.is_terminal() && rustix::termios::tcgetsid(&input).is_ok()
}

/// Reads keys from the terminal until it is dropped.
#[derive(Debug)]
pub struct Keys {
    when: When,
    shared: Arc<Shared>,
    memo: Memo,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// Wakes the thread that reads.
    wake: OwnedFd,
}

#[derive(Debug)]
struct State {
    terminal: Terminal,
    wanted: bool,
    over: bool,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake(&self) {
        let _ = rustix::io::write(&self.wake, &1_u64.to_ne_bytes());
    }
}

impl Keys {
    /// Prepares to read keys: always, or with [`When::Auto`] while
    /// [`Keys::guest_alive`] was last told `false`. `None` where no key is ever
    /// read: with [`When::Off`], and when standard input is no terminal.
    ///
    /// The terminal's modes are not changed before the first call of
    /// [`Keys::guest_alive`], so that [`Keys::memo`] can be deposited first.
    ///
    /// # Errors
    ///
    /// When a thread or a descriptor cannot be had.
    pub fn start(
        when: When,
        messages: Messages,
        deliver: impl Fn(Asked) + Send + 'static,
    ) -> anyhow::Result<Option<Self>> {
        // With `On` it was a terminal, before `take_input`.
        if when == When::Off || (when == When::Auto && !has_terminal()) {
            return Ok(None);
        }
        let terminal = match Terminal::open() {
            Ok(terminal) => terminal,
            Err(_) if when == When::Auto => return Ok(None),
            Err(error) => return Err(error).context("cannot open the terminal, /dev/tty"),
        };
        let watched = terminal.descriptor().context("cannot watch the terminal")?;
        let signals = Signals::catch().context("cannot handle signals")?;
        let memo = terminal.memo().clone();
        let shared = Arc::new(Shared {
            state: Mutex::new(State {
                terminal,
                wanted: false,
                over: false,
            }),
            wake: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
                .context("cannot make an eventfd")?,
        });
        let messages = Arc::new(messages);
        let (queue, answers) = sync_channel(MAX_WAITING);
        let teller = Arc::clone(&messages);
        std::thread::Builder::new()
            .name("key answers".into())
            .spawn(move || tell_answers(&answers, &teller))
            .context("cannot start a thread")?;
        let reader = Reader {
            shared: Arc::clone(&shared),
            watched,
            signals,
            messages,
            queue,
            deliver,
        };
        let thread = std::thread::Builder::new()
            .name("keys".into())
            .spawn(move || reader.read())
            .context("cannot start a thread")?;
        Ok(Some(Self {
            when,
            shared,
            memo,
            thread: Some(thread),
        }))
    }

    /// What the guardian needs to know to put the terminal back.
    #[must_use]
    pub fn memo(&self) -> &Memo {
        &self.memo
    }

    /// A run is about to begin (`true`; to be told before its first process
    /// exists or is continued), or no process of it is alive any more (`false`).
    /// With [`When::Auto`], once the former returns the terminal is as the last
    /// run left it, or as somebody else has set it since.
    pub fn guest_alive(&self, alive: bool) {
        let mut state = self.shared.state();
        state.wanted = self.when == When::On || !alive;
        if state.wanted {
            state.terminal.enter();
        } else {
            state.terminal.hand_over();
        }
        drop(state);
        self.shared.wake();
    }
}

impl Drop for Keys {
    fn drop(&mut self) {
        let mut state = self.shared.state();
        state.over = true;
        state.terminal.leave();
        drop(state);
        self.shared.wake();
        if let Some(thread) = self.thread.take() {
            // It waits for nothing else.
            let _ = thread.join();
        }
    }
}

/// The signals of job control, as streams that become readable.
struct Signals {
    stopped: Option<UnixStream>,
    continued: UnixStream,
}

impl Signals {
    fn catch() -> std::io::Result<Self> {
        let stream = |signal| {
            let (reader, writer) = UnixStream::pair()?;
            reader.set_nonblocking(true)?;
            signal_hook::low_level::pipe::register(signal, writer)?;
            std::io::Result::Ok(reader)
        };
        Ok(Self {
            // Who has it ignored is not to be stopped, nor is the guest.
            stopped: (!sys::is_ignored(SIGTSTP))
                .then(|| stream(SIGTSTP))
                .transpose()?,
            continued: stream(SIGCONT)?,
        })
    }
}

fn drained(mut stream: &UnixStream) -> bool {
    let mut some = false;
    while matches!(stream.read(&mut [0; 64]), Ok(count) if count > 0) {
        some = true;
    }
    some
}

/// The thread that reads.
struct Reader<D> {
    shared: Arc<Shared>,
    watched: File,
    signals: Signals,
    messages: Arc<Messages>,
    queue: SyncSender<Receiver<Reply>>,
    deliver: D,
}

impl<D: Fn(Asked)> Reader<D> {
    fn read(self) {
        let mut is_gone = false;
        loop {
            let (reads, waits) = {
                let mut state = self.shared.state();
                if state.over {
                    return;
                }
                if state.wanted && !is_gone {
                    state.terminal.enter();
                }
                let reads = state.terminal.has_key_modes() && !is_gone;
                (reads, state.wanted && !reads && !is_gone)
            };
            let mut watched = vec![
                PollFd::new(&self.shared.wake, PollFlags::IN),
                PollFd::new(&self.signals.continued, PollFlags::IN),
            ];
            if let Some(stopped) = &self.signals.stopped {
                watched.push(PollFd::new(stopped, PollFlags::IN));
            }
            if reads {
                watched.push(PollFd::new(&self.watched, PollFlags::IN));
            }
            // A signal only makes for one more round.
            let _ = poll(&mut watched, waits.then_some(&LOOK_AGAIN));
            let typed = reads
                && watched
                    .last()
                    .is_some_and(|terminal| !terminal.revents().is_empty());
            drop(watched);
            let _ = rustix::io::read(&self.shared.wake, &mut [0; 8]);
            if self.signals.stopped.as_ref().is_some_and(drained) {
                self.shared.state().terminal.leave();
                sys::stop_by(SIGTSTP);
                continue;
            }
            if drained(&self.signals.continued) {
                self.shared.state().terminal.continued();
            }
            if typed {
                let read = {
                    let mut state = self.shared.state();
                    if state.over || !state.wanted {
                        continue;
                    }
                    state.terminal.read()
                };
                match read {
                    Typed::Bytes(bytes) => {
                        for key in keys(&bytes) {
                            self.pressed(key);
                        }
                    }
                    Typed::Nothing => {}
                    Typed::End => is_gone = true,
                }
            }
        }
    }

    fn pressed(&self, key: Key) {
        let Some(request) = key.request() else {
            self.messages.info("keys:");
            for (byte, _, meaning) in KEYS {
                self.messages
                    .info(&format!("  {}  {meaning}", char::from(byte)));
            }
            return;
        };
        let (answer, answered) = channel();
        if self.queue.try_send(answered).is_ok() {
            (self.deliver)(Asked { request, answer });
        }
    }
}

/// Says what was answered, in the order of the keys, as far as the supervisor
/// has not said it itself.
fn tell_answers(answers: &Receiver<Receiver<Reply>>, messages: &Messages) {
    for answered in answers {
        match answered.recv() {
            Ok(Reply::Checkpoint { id }) => messages.info(&format!("took checkpoint {id}")),
            Ok(Reply::Refused { message, .. }) => messages.info(&message),
            Ok(Reply::Status(status)) => {
                for line in table::lines(&status, None) {
                    messages.info(&line);
                }
            }
            Ok(
                Reply::Resumed { .. }
                | Reply::Restarted
                | Reply::Settled { .. }
                | Reply::Journal { .. }
                | Reply::Quitting,
            ) => {}
            // Forkmon ends.
            Err(_) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_key_has_its_meaning() {
        let all = [
            (b"c", Key::Checkpoint),
            (b"r", Key::Resume),
            (b"R", Key::Restart),
            (b"s", Key::Status),
            (b"q", Key::Quit),
            (b"?", Key::Help),
        ];
        for (typed, key) in all {
            assert_eq!(keys(typed), [key]);
        }
        assert_eq!(keys(b"cs"), [Key::Checkpoint, Key::Status]);
    }

    #[test]
    fn what_is_no_key_is_ignored() {
        for typed in [
            b"".as_slice(),
            b"x",
            b"\n",
            b"\x04",
            "ü".as_bytes(),
            b"\x1b",
            // F3, the up arrow, an arrow with Shift, Alt-q.
            b"\x1bOR",
            b"\x1b[A",
            b"\x1b[1;2R",
            b"\x1bq",
            // Pasted text.
            b"cargo run",
            b"quit",
        ] {
            assert_eq!(keys(typed), [], "{typed:?}");
        }
        assert_eq!(keys(b"\x1b[As"), [Key::Status]);
    }
}
