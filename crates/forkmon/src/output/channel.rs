//! One destination of the guest's output, with a thread of its own: it reads what
//! the guest writes and writes what its script says, so that a slow reader of
//! forkmon's output stops the guest, as it would without forkmon, but nothing else.
//!
//! Whoever has the lock may read from the guest: the thread does as long as there
//! is room, and the tracer's thread takes in all that is there when it has to know
//! how much the guest has written. Nobody writes with the lock held.

use super::carrier::{Carrier, Found, capacity, take_in};
use super::script::{Script, Step};
use super::terminal::{Side, Size, Terminal, Unprocessed};
use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::io::Errno;
use rustix::process::Pid;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// What is read from the guest at once.
const PIECE: usize = 64 * 1024;

/// How long the guest waits at most for its output to be written before it changes
/// the modes of the terminal that it is written to. On a busy machine whoever writes may
/// not have its turn for a while; a terminal that is held (Ctrl-S) must not hold forkmon.
const PATIENCE: Duration = Duration::from_millis(250);

/// Something that only the thread knows.
#[derive(Debug)]
pub enum Told {
    /// All of a run's output has been written, as these bytes of all that went to
    /// the destination.
    Reached {
        /// The run's number.
        run: u64,
        /// The first one.
        from: u64,
        /// The one after the last.
        to: u64,
    },
    /// Output that was kept had to be dropped, for the first time.
    Forgot,
    /// The destination takes nothing any more, and not because its reader is gone.
    Broken(io::Error),
    /// Everything has been written, and the thread ends.
    Finished,
}

/// One destination.
pub(super) struct Channel {
    state: Mutex<State>,
    /// Written when the thread has something to look at.
    wake: OwnedFd,
    guest: OwnedFd,
    /// The guest's flags of its end, to begin with.
    flags: OFlags,
    /// The two terminals, if the destination is one.
    terminal: Option<Terminal>,
    /// Rung when nothing is left to be written.
    rest: Condvar,
    tell: Box<dyn Fn(Told) + Send + Sync>,
}

struct State {
    script: Script,
    /// Gone when the destination's reader is: the guest is told so by the kernel.
    reader: Option<Arc<File>>,
    /// Set if a pseudo-terminal processes line ends.
    unprocessed: Option<Unprocessed>,
    forgot: bool,
    writing: bool,
    /// The thread ends when everything is written.
    over: bool,
    ended: bool,
}

impl Channel {
    /// Begins to carry output to a destination, of which up to `limit` bytes are
    /// kept.
    pub(super) fn start(
        destination: OwnedFd,
        carrier: Carrier,
        limit: usize,
        terminal: Option<Terminal>,
        tell: Box<dyn Fn(Told) + Send + Sync>,
    ) -> io::Result<Arc<Self>> {
        let Carrier { reader, guest } = carrier;
        let channel = Arc::new(Self {
            state: Mutex::new(State {
                script: Script::new(limit),
                reader: Some(Arc::new(reader)),
                unprocessed: unprocessed(terminal.as_ref()),
                forgot: false,
                writing: false,
                over: false,
                ended: false,
            }),
            wake: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
            flags: fcntl_getfl(&guest)?,
            guest,
            terminal,
            rest: Condvar::new(),
            tell,
        });
        let relay = Arc::clone(&channel);
        std::thread::Builder::new()
            .name("output".into())
            .spawn(move || relay.run(&destination))?;
        Ok(channel)
    }

    /// The end that the guest writes to.
    pub(super) fn guest_end(&self) -> BorrowedFd<'_> {
        self.guest.as_fd()
    }

    /// How much the run has written, which must stand still.
    pub(super) fn position(&self) -> u64 {
        let mut state = self.lock();
        state.take_in();
        self.wake();
        state.script.position()
    }

    /// Whether the destination's reader is so slow that nothing more can be taken
    /// in for it.
    pub(super) fn is_backed_up(&self) -> bool {
        self.lock().script.is_backed_up()
    }

    /// The run is dead, and the next one begins where so much was written. Answers how
    /// much of that is not shown again.
    pub(super) fn rewind(&self, position: u64, clear: Option<&'static [u8]>) -> u64 {
        let mut state = self.lock();
        state.take_in();
        let clear = clear.filter(|_| self.terminal.is_some());
        let lines = self.terminal.is_some();
        let left_out = state.script.rewind(position, clear, lines);
        if position == 0 {
            // A copy gets its flags back from its checkpoint.
            let _ = fcntl_setfl(&self.guest, self.flags);
        }
        self.wake();
        left_out
    }

    /// What is said of the next run was said.
    pub(super) fn show(&self) {
        self.lock().script.show();
        self.wake();
    }

    /// The run has ended: [`Told::Reached`] comes when all of it is written.
    pub(super) fn ended(&self, run: u64) {
        let mut state = self.lock();
        state.take_in();
        state.script.end(run);
        self.wake();
    }

    /// Has a line of forkmon's written in its place; false if nobody does so any
    /// more.
    pub(super) fn say(&self, line: &[u8]) -> bool {
        let mut state = self.lock();
        if state.ended {
            return false;
        }
        state.script.say(line.to_vec());
        self.wake();
        true
    }

    /// Has the thread end when everything is written.
    pub(super) fn finish(&self) {
        let mut state = self.lock();
        state.take_in();
        state.script.show();
        state.over = true;
        self.wake();
    }

    /// The terminal's size, if the destination is one.
    pub(super) fn size(&self) -> Option<Size> {
        self.terminal.as_ref()?.size()
    }

    /// Gives the guest's terminal the size of the real one.
    pub(super) fn copy_size(&self) {
        if let Some(terminal) = &self.terminal {
            terminal.copy_size();
        }
    }

    /// A run begins with the modes of the real terminal.
    pub(super) fn begin(&self) {
        self.copy_modes(Side::Real);
    }

    /// A copy in this group comes with its own modes, which the real terminal gets if
    /// it is for that group to change it.
    pub(super) fn goes_on(&self, group: Option<Pid>) {
        let Some(terminal) = &self.terminal else {
            return;
        };
        if terminal.is_in_background(group) {
            self.look_at_modes();
        } else {
            self.copy_modes(Side::Guests);
        }
    }

    /// Whether a device is one of the two terminals. Then its modes are about to be
    /// changed: what was written before is written out.
    pub(super) fn before_modes(&self, device: u64) -> bool {
        let is_ours = |terminal: &Terminal| terminal.side(device).is_some();
        if !self.terminal.as_ref().is_some_and(is_ours) {
            return false;
        }
        let mut state = self.lock();
        state.take_in();
        self.wake();
        let _ = self.rest.wait_timeout_while(state, PATIENCE, |state| {
            state.writing || !state.script.is_done()
        });
        true
    }

    /// A process of this group has changed a terminal's modes: the other one gets
    /// them, too.
    pub(super) fn after_modes(&self, device: u64, group: Option<Pid>) {
        let side = self.terminal.as_ref().and_then(|both| both.side(device));
        match side {
            Some(Side::Guests) => self.goes_on(group),
            Some(Side::Real) => self.copy_modes(Side::Real),
            None => {}
        }
    }

    fn copy_modes(&self, side: Side) {
        if let Some(terminal) = &self.terminal {
            terminal.set_like(side);
            self.look_at_modes();
        }
    }

    fn look_at_modes(&self) {
        let mut state = self.lock();
        state.take_in();
        state.unprocessed = unprocessed(self.terminal.as_ref());
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake(&self) {
        // A counter that cannot be raised any further is awake already.
        let _ = rustix::io::write(&self.wake, &1_u64.to_ne_bytes());
    }

    fn run(&self, destination: &OwnedFd) {
        loop {
            let mut state = self.lock();
            state.writing = false;
            if state.script.has_room() {
                state.take_a_piece();
                if state
                    .unprocessed
                    .as_ref()
                    .is_some_and(Unprocessed::is_holding)
                {
                    // What belongs to it is there already, or never comes.
                    state.take_a_piece();
                }
            }
            let step = state.script.next();
            let forgot = state.script.trim() && !std::mem::replace(&mut state.forgot, true);
            state.writing = matches!(step, Some(Step::Write(_)));
            if step.is_none() {
                self.rest.notify_all();
            }
            let over = state.over && step.is_none() && state.script.is_done();
            state.ended = over;
            let reader = state.reader.clone().filter(|_| state.script.has_room());
            let is_open = state.reader.is_some();
            drop(state);
            if forgot {
                (self.tell)(Told::Forgot);
            }
            match step {
                Some(Step::Write(bytes)) => {
                    if let Err(error) = write_all(destination, &bytes) {
                        drop(reader);
                        self.give_up(Some(error));
                    }
                }
                Some(Step::Reached { run, from, to }) => {
                    (self.tell)(Told::Reached { run, from, to });
                }
                None if over => {
                    (self.tell)(Told::Finished);
                    return;
                }
                None => {
                    let watched = is_open.then_some(destination);
                    if self.wait(reader.as_deref(), watched) {
                        drop(reader);
                        self.give_up(None);
                    }
                }
            }
        }
    }

    /// Waits for something to do; whether nobody reads the destination any more.
    fn wait(&self, reader: Option<&File>, destination: Option<&OwnedFd>) -> bool {
        let mut fds = vec![PollFd::new(&self.wake, PollFlags::IN)];
        // Without events to wait for, the end of a reader is still told.
        let at = destination.map(|destination| {
            fds.push(PollFd::new(destination, PollFlags::empty()));
            fds.len() - 1
        });
        if let Some(reader) = reader {
            fds.push(PollFd::new(reader, PollFlags::IN));
        }
        // An interrupted wait is as good as one that has ended.
        let _ = poll(&mut fds, None);
        let gone = PollFlags::ERR | PollFlags::HUP;
        let is_gone = at.is_some_and(|at| fds[at].revents().intersects(gone));
        let _ = rustix::io::read(&self.wake, &mut [0; 8]);
        is_gone
    }

    /// The destination takes nothing any more. The guest gets to know when it writes:
    /// there is no reader.
    fn give_up(&self, error: Option<io::Error>) {
        let mut state = self.lock();
        state.script.give_up();
        state.reader = None;
        drop(state);
        if let Some(error) = error.filter(|error| error.kind() != io::ErrorKind::BrokenPipe) {
            (self.tell)(Told::Broken(error));
        }
    }
}

impl State {
    /// Reads once from the guest.
    fn take_a_piece(&mut self) -> Found {
        let Some(reader) = &self.reader else {
            return Found::Nothing;
        };
        let mut piece = vec![0; PIECE];
        let found = take_in(reader, &mut piece);
        match (&found, &mut self.unprocessed) {
            (Found::Some(count), None) => self.script.guest_wrote(&piece[..*count]),
            (Found::Some(count), Some(undo)) => {
                self.script.guest_wrote(&undo.next(&piece[..*count]));
            }
            (Found::Nothing, None) => {}
            (Found::Nothing, Some(undo)) => self.script.guest_wrote(undo.rest()),
        }
        found
    }

    /// Reads all that the guest has written so far.
    fn take_in(&mut self) {
        let mut left = self.reader.as_deref().map_or(0, capacity);
        while left > 0
            && let Found::Some(count) = self.take_a_piece()
        {
            // What comes while this reads is somebody's who still runs.
            left = left.saturating_sub(count);
        }
    }
}

fn unprocessed(terminal: Option<&Terminal>) -> Option<Unprocessed> {
    terminal?.processes().then(Unprocessed::default)
}

/// Writes all of it, however long that takes.
fn write_all(destination: &OwnedFd, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match rustix::io::write(destination, bytes) {
            Ok(count) => bytes = &bytes[count..],
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => {
                // Somebody who shares the file does not want to block.
                let _ = poll(&mut [PollFd::new(destination, PollFlags::OUT)], None);
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}
