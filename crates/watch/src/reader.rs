//! The thread that reads the event queue: drains it, lets the state take the
//! events in, waits until something is due, and calls back. All waiting of the
//! crate happens in its one `poll`. What events mean is left to `state`.

use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify::Reader as EventReader;
use rustix::io::Errno;

use crate::Error;
use crate::fence::Fences;
use crate::inotify::Inotify;
use crate::pending::Batch;
use crate::state::{Heard, State};

/// Room for about two thousand events, which take well under a millisecond to
/// take in: for so long the state is locked at most.
const BUFFER: usize = 64 * 1024;

/// The size of `struct inotify_event`, and what a name is rounded up to in it
/// (`fs/notify/inotify/inotify_user.c`).
const EVENT: usize = 16;

/// An event with the longest name, and what the buffer may lose to alignment.
const LARGEST_EVENT: usize = EVENT + 256 + EVENT;

/// How many paths are walked again before others may have the lock.
const REFRESH: usize = 64;

/// While the queue never runs empty, what is due is delivered this often.
const STORM: Duration = Duration::from_millis(50);

/// In a row of events that are noise, the reader is woken no more often than
/// this. The kernel merges many of them meanwhile.
const NOISE_PAUSE: Duration = Duration::from_millis(1);

/// So long a row of noise it takes: a save makes some noise, too, and is not to
/// be delayed.
const NOISE_ROW: u32 = 32;

/// How often the reader stands back for somebody who wants the lock.
const YIELDS: usize = 100;

/// What the reader thread and the users of the watcher share.
#[derive(Debug)]
pub(crate) struct Shared {
    state: Mutex<State>,
    /// Threads other than the reader that want the lock.
    waiting: AtomicUsize,
    pub(crate) inotify: Arc<Inotify>,
    /// An eventfd that wakes the thread, to end or to look at the fences.
    pub(crate) wake: OwnedFd,
    pub(crate) fences: Mutex<Fences>,
    pub(crate) stopping: AtomicBool,
}

impl Shared {
    pub(crate) fn new(state: State, inotify: Arc<Inotify>, wake: OwnedFd) -> Self {
        Self {
            state: Mutex::new(state),
            waiting: AtomicUsize::new(0),
            inotify,
            wake,
            fences: Mutex::default(),
            stopping: AtomicBool::new(false),
        }
    }

    /// The state, for the watching thread.
    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        let guard = self.lock_as_reader();
        self.waiting.fetch_sub(1, Ordering::Relaxed);
        guard
    }

    fn lock_as_reader(&self) -> MutexGuard<'_, State> {
        // Nothing that runs under the lock calls back, and the state has no
        // half-made changes that a later event would not repair.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn fences(&self) -> MutexGuard<'_, Fences> {
        self.fences.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes the thread.
    pub(crate) fn wake(&self) {
        // Fails only when the counter is full, and then the thread is awake.
        let _ = rustix::io::write(&self.wake, &1u64.to_ne_bytes());
    }

    /// The standard mutex is not fair: in a storm of events the reader would
    /// take it again before a waiting thread has woken up.
    fn stand_back(&self) {
        for _ in 0..YIELDS {
            if self.waiting.load(Ordering::Relaxed) == 0 {
                return;
            }
            std::thread::yield_now();
        }
    }
}

/// The reader thread's own things.
pub(crate) struct Reader<N, D> {
    pub(crate) shared: Arc<Shared>,
    pub(crate) noticed: N,
    pub(crate) deliver: D,
}

impl<N: FnMut(&Path), D: FnMut(Batch)> Reader<N, D> {
    /// Runs until it is told to stop.
    pub(crate) fn run(mut self) {
        let mut buffer = vec![MaybeUninit::uninit(); BUFFER];
        let mut noise = 0;
        while !self.shared.stopping.load(Ordering::Acquire) {
            let pause = noise >= NOISE_ROW;
            let result = self.wait(pause).and_then(|()| self.drain(&mut buffer));
            noise = match result {
                Ok(Heard::Noise) => noise.saturating_add(1),
                _ => 0,
            };
            if let Err(error) = result {
                (self.deliver)(Batch {
                    touches: Vec::new(),
                    rescan: true,
                    error: Some(error),
                });
                return;
            }
            if self.shared.stopping.load(Ordering::Acquire) {
                return;
            }
            let due = self.shared.lock_as_reader().take_due(Instant::now());
            if let Some(batch) = due {
                (self.deliver)(batch);
            }
            self.pass_fences();
        }
    }

    /// Waits for an event, for the order to stop, or until something is due.
    /// With `pause` events are ignored for a moment.
    fn wait(&self, pause: bool) -> Result<(), Error> {
        let next = self.shared.lock_as_reader().next_plan();
        let next = next.map(|at| at.saturating_duration_since(Instant::now()));
        if pause && next.is_none_or(|next| next > NOISE_PAUSE) {
            return self.poll(false, Some(NOISE_PAUSE));
        }
        self.poll(true, next)
    }

    fn poll(&self, events: bool, wait: Option<Duration>) -> Result<(), Error> {
        let timeout = wait.map(|wait| {
            Timespec::try_from(wait).unwrap_or(Timespec {
                tv_sec: i64::from(u32::MAX),
                tv_nsec: 0,
            })
        });
        let mut fds = [
            PollFd::new(&self.shared.wake, PollFlags::IN),
            PollFd::new(&self.shared.inotify, PollFlags::IN),
        ];
        let asked = if events { &mut fds[..] } else { &mut fds[..1] };
        let polled = poll(asked, timeout.as_ref());
        if fds[0].revents().contains(PollFlags::IN) {
            // What it was written for is looked at after this.
            let _ = rustix::io::read(&self.shared.wake, &mut [0; 8]);
        }
        match polled {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(errno) => Err(Error::Start {
                step: "poll",
                source: errno.into(),
            }),
        }
    }

    /// Calls those back whose fences are reached.
    fn pass_fences(&self) {
        let reached = {
            let mut fences = self.shared.fences();
            if fences.is_empty() {
                return;
            }
            let state = self.shared.lock_as_reader();
            fences.take_reached(state.drained_at(), state.oldest_pending(), Instant::now())
        };
        for call in reached {
            call();
        }
    }

    /// Takes in events until none is left, or for a while.
    fn drain(&mut self, buffer: &mut [MaybeUninit<u8>]) -> Result<Heard, Error> {
        let begun = Instant::now();
        loop {
            let (empty, noticed) = {
                let mut state = self.shared.lock_as_reader();
                let empty = read_once(&self.shared.inotify, buffer, &mut state)?;
                (empty, state.take_noticed())
            };
            for path in noticed {
                (self.noticed)(&path);
            }
            loop {
                self.shared.stand_back();
                if !self.shared.lock_as_reader().refresh(REFRESH) {
                    break;
                }
            }
            if empty || begun.elapsed() > STORM || self.shared.stopping.load(Ordering::Acquire) {
                return Ok(self.shared.lock_as_reader().take_heard());
            }
        }
    }
}

/// Takes in what one read(2) yields; true if the queue was empty then. The lock is
/// held over the read, so that whoever finds the queue empty under the lock
/// knows that nothing is between the queue and the state.
fn read_once(
    inotify: &Inotify,
    buffer: &mut [MaybeUninit<u8>],
    state: &mut State,
) -> Result<bool, Error> {
    let before = Instant::now();
    let mut now = None;
    let mut used = 0;
    let mut events = EventReader::new(inotify.as_fd(), buffer);
    loop {
        match events.next() {
            Ok(event) => {
                let now = *now.get_or_insert_with(Instant::now);
                let name = event.file_name().map(std::ffi::CStr::to_bytes);
                used += EVENT + name.map_or(0, |name| name.len() + EVENT);
                state.event(event.wd(), event.events(), name, now);
            }
            Err(Errno::INTR) => continue,
            Err(Errno::AGAIN) => break,
            Err(errno) => {
                return Err(Error::Read {
                    source: errno.into(),
                });
            }
        }
        if events.is_buffer_empty() {
            // A read ends when the queue is empty or the next event does not
            // fit. Where the largest would have fitted, it was empty.
            if used + LARGEST_EVENT > BUFFER {
                return Ok(false);
            }
            break;
        }
    }
    state.drained(before);
    Ok(true)
}
