//! The handle: starts the reader thread, takes paths to watch and to forget,
//! and ends the thread when it is dropped.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::{self, JoinHandle};
use std::time::Instant;

use rustix::event::{EventfdFlags, eventfd};

use crate::Error;
use crate::inotify::Inotify;
use crate::pending::{Batch, Options};
use crate::reader::{Reader, Shared};
use crate::state::State;

/// Watches paths and delivers settled touches of them.
///
/// One thread named `watch` reads the events and calls back. It ends when the
/// watcher is dropped; dropping waits for a callback that is running, so a
/// callback must not wait for whoever drops the watcher.
///
/// A watcher can be shared between threads. Its methods may be called from a
/// callback, and never wait for one.
#[derive(Debug)]
pub struct Watcher {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Watcher {
    /// Starts to watch nothing yet. `deliver` is called on the reader thread,
    /// with paths that have settled; while it runs, events wait in the kernel.
    ///
    /// # Errors
    ///
    /// [`Error::TooManyInstances`], or [`Error::Start`] if the kernel refuses
    /// a descriptor or the thread.
    pub fn start(
        options: Options,
        deliver: impl FnMut(Batch) + Send + 'static,
    ) -> Result<Self, Error> {
        Self::start_with(options, None::<fn(&Path)>, deliver)
    }

    /// As [`start`](Self::start); `noticed` is called with a path as soon as
    /// the first event of a burst on it was read, before it settles.
    ///
    /// # Errors
    ///
    /// As [`start`](Self::start).
    pub fn start_noticing(
        options: Options,
        noticed: impl FnMut(&Path) + Send + 'static,
        deliver: impl FnMut(Batch) + Send + 'static,
    ) -> Result<Self, Error> {
        Self::start_with(options, Some(noticed), deliver)
    }

    fn start_with(
        options: Options,
        noticed: Option<impl FnMut(&Path) + Send + 'static>,
        deliver: impl FnMut(Batch) + Send + 'static,
    ) -> Result<Self, Error> {
        let inotify = Arc::new(Inotify::new()?);
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).map_err(|errno| {
            Error::Start {
                step: "eventfd",
                source: errno.into(),
            }
        })?;
        let state = State::new(options, Arc::clone(&inotify), noticed.is_some());
        let shared = Arc::new(Shared::new(state, inotify, wake));
        let mut noticed = noticed;
        let reader = Reader {
            shared: Arc::clone(&shared),
            noticed: move |path: &Path| {
                if let Some(noticed) = &mut noticed {
                    noticed(path);
                }
            },
            deliver,
        };
        let thread = thread::Builder::new()
            .name("watch".to_owned())
            .spawn(move || reader.run())
            .map_err(|source| Error::Start {
                step: "start the reader thread",
                source,
            })?;
        Ok(Self {
            shared,
            thread: Some(thread),
        })
    }

    /// Watches a path as it was looked up: absolute, existing or missing, a
    /// file or a folder, `..` and symbolic links included. A folder is touched
    /// when it is exchanged or its attributes change, not when names in it
    /// come and go: see [`watch_listing`](Self::watch_listing).
    ///
    /// When it returns, the kernel's watches are in place: watch first, record
    /// afterwards, and any change after the record is delivered. For a path
    /// that is watched already it takes no system call, for another one in a
    /// known folder one.
    ///
    /// # Errors
    ///
    /// [`Error::TableFull`] names the sysctl to raise; [`Error::NotAbsolute`];
    /// [`Error::Look`] for what else the kernel may answer. The path is then
    /// not watched.
    pub fn watch(&self, path: &Path) -> Result<(), Error> {
        self.shared.lock().watch(path, false)
    }

    /// Watches a folder as [`watch`](Self::watch) does, and touches it also
    /// when a name in it is added or removed.
    ///
    /// # Errors
    ///
    /// As [`watch`](Self::watch).
    pub fn watch_listing(&self, folder: &Path) -> Result<(), Error> {
        self.shared.lock().watch(folder, true)
    }

    /// Stops watching the paths for which `keep` is false. Touches of them
    /// that were not delivered yet are dropped. `keep` may use the watcher.
    pub fn forget(&self, keep: impl Fn(&Path) -> bool) {
        let paths = self.shared.lock().watched_paths();
        for path in paths.iter().filter(|path| !keep(path)) {
            self.shared.lock().forget(path);
        }
    }

    /// The latest instant of which it is known that all events queued before
    /// it have been read: whatever was touched before it was already noted (or
    /// delivered). Asks the kernel, with one system call, whether that is now.
    pub fn drained_at(&self) -> Instant {
        let mut state = self.shared.lock();
        let now = Instant::now();
        if self.shared.inotify.is_drained() {
            state.drained(now);
        }
        state.drained_at()
    }

    /// Calls `then` on the reader thread once every change that was made before
    /// this call, and that inotify shows, has been delivered: after the
    /// callback with it has returned. At once, if nothing is to be delivered.
    ///
    /// It is not called if the watcher is dropped before, or has delivered the
    /// error that is its end.
    pub fn after_delivery(&self, then: impl FnOnce() + Send + 'static) {
        self.shared.fences().add(Box::new(then));
        self.shared.wake();
    }

    /// How many watches the kernel holds for this watcher at the moment.
    pub fn watch_count(&self) -> usize {
        self.shared.lock().watch_count()
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::Release);
        self.shared.wake();
        let Some(thread) = self.thread.take() else {
            return;
        };
        // Dropped by a callback: the thread ends when that returns.
        if thread.thread().id() != thread::current().id() {
            // A callback that panicked has said so itself.
            let _ = thread.join();
        }
    }
}
