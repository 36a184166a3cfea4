//! What other threads tell the tracer: the one way into its loop.
//!
//! The tracer's thread waits for the guest only. File events, signals and
//! deadlines are put here by other threads, which then ring its bell.

use crate::control::Asked;
use crate::output::Told;
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};
use signal_hook::iterator::SignalsInfo;
use signal_hook::iterator::exfiltrator::WithOrigin;
use signal_hook::low_level::siginfo::{Cause, Origin};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tracee::Ringer;

/// Something to be handled between two stops of the guest.
#[derive(Debug)]
pub(super) enum News {
    /// Settled file events.
    Files(watch::Batch),
    /// The first event of a burst on a path.
    Noticed(PathBuf),
    /// Somebody wants forkmon to end.
    Quit {
        signal: i32,
        /// The kernel sent it to the whole foreground group: the guest has it.
        by_terminal: bool,
    },
    /// Somebody asks for something.
    Control(Asked),
    /// All file events from before the nth wait was asked for are handed over.
    Delivered(u64),
    /// All that a run has read is hashed, and all file events from before its end are
    /// handed over, as the nth wait wanted to know.
    Known { nth: u64, run: u64 },
    /// Something became known of a destination of the guest's output, the nth.
    Output(usize, Told),
    /// Nobody reads forkmon's standard output any more.
    Unread,
    /// Some of the guest's input cannot be given to it again, and why.
    InputLost(String),
    /// A time has passed.
    Timed(Timed),
}

/// What a time was waited for.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub(super) enum Timed {
    /// The time that a guest has to end by itself, the nth that was set.
    Deadline(u64),
    /// The time after which whoever waits for that is told so.
    Lingering(u64),
    /// The time in which changes are gathered.
    Gathered,
    /// The time for which file events are held back by a call under way.
    Held,
    /// The time after which a wanted checkpoint is tried again.
    Wanted,
    /// The time after which a server is looked at, which was this long.
    Idle { run: u64, wait: Duration },
}

/// Where other threads put their news.
#[derive(Clone, Debug)]
pub(super) struct Doorbell {
    sender: Sender<News>,
    ringer: Arc<Mutex<Ringer>>,
    /// A signal that ends forkmon has arrived.
    signalled: Arc<AtomicBool>,
}

impl Doorbell {
    pub(super) fn new(ringer: Ringer) -> (Self, Receiver<News>) {
        let (sender, receiver) = channel();
        let bell = Self {
            sender,
            ringer: Arc::new(Mutex::new(ringer)),
            signalled: Arc::default(),
        };
        (bell, receiver)
    }

    /// Hands news over and wakes the tracer.
    pub(super) fn send(&self, news: News) {
        // The receiver is gone only while forkmon ends.
        if self.sender.send(news).is_ok() {
            self.ringer
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .ring();
        }
    }

    /// Another process is the bell now.
    pub(super) fn replace(&self, ringer: Ringer) {
        *self.ringer.lock().unwrap_or_else(PoisonError::into_inner) = ringer;
    }

    /// Hands news over after a while.
    pub(super) fn after(&self, time: Duration, news: Timed) {
        let bell = self.clone();
        let spawned = std::thread::Builder::new().name("deadline".into()).spawn({
            let news = News::Timed(news);
            move || {
                std::thread::sleep(time);
                bell.send(news);
            }
        });
        if spawned.is_err() {
            // Without a thread to wait in, the time is over at once.
            self.send(News::Timed(news));
        }
    }

    /// Whether a signal that ends forkmon has arrived, also if its news are still on
    /// their way. Ctrl-C goes to all of the foreground group at once, and the tracer's
    /// thread is the one that the kernel prefers: it knows this before it can see that
    /// the guest has died of the same.
    pub(super) fn is_signalled(&self) -> bool {
        self.signalled.load(Ordering::SeqCst)
    }

    /// Hands over the signals that end forkmon.
    pub(super) fn listen_for_signals(&self) -> std::io::Result<()> {
        let mut wanted = vec![SIGINT, SIGTERM, SIGQUIT];
        // Under nohup a hangup is to be ignored, by the guest too.
        if !crate::sys::is_ignored(SIGHUP) {
            wanted.push(SIGHUP);
        }
        let mut signals = SignalsInfo::<WithOrigin>::new(&wanted)?;
        for signal in &wanted {
            signal_hook::flag::register(*signal, Arc::clone(&self.signalled))?;
        }
        let bell = self.clone();
        let hand_over = move |origin: Origin| {
            // One that came between the two has not been noted by itself.
            bell.signalled.store(true, Ordering::SeqCst);
            bell.send(News::Quit {
                signal: origin.signal,
                // Of a hangup only the leader of the session is told.
                by_terminal: origin.cause == Cause::Kernel && origin.signal != SIGHUP,
            });
        };
        signals.pending().for_each(&hand_over);
        std::thread::Builder::new()
            .name("signals".into())
            .spawn(move || {
                // Forkmon may have been started with them blocked, and its guest
                // inherits that; this thread does not.
                crate::sys::unblock(&wanted);
                signals.forever().for_each(hand_over);
            })?;
        Ok(())
    }
}
