//! What the tests share: a temporary folder, and a watcher whose batches can
//! be waited for. Nothing here sleeps: "settled by now" is shown by the
//! delivery of a sentinel that was touched later.
#![expect(dead_code, reason = "each test program uses a part of it")]
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

use std::cell::{Cell, RefCell};
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use watch::{Batch, Options, Touch, Watcher};

/// Only reached when something hangs.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// A bound on open files that no test ever reaches.
pub const NEVER: Duration = Duration::from_secs(3600);

pub fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// Settles as the program does by default, but never gives up on a close, so
/// that no slow machine makes a held file be delivered.
pub fn patient() -> Options {
    Options {
        settle: ms(5),
        open_write_bound: NEVER,
    }
}

/// As [`patient`], but a file is given up on after a moment. For files that may
/// be closed before their folder is watched: then nothing says so.
pub fn brisk() -> Options {
    Options {
        settle: ms(5),
        open_write_bound: ms(50),
    }
}

/// A batch, and what its paths contained when it was delivered.
pub struct Seen {
    pub batch: Batch,
    pub contents: Vec<Option<Vec<u8>>>,
}

impl Seen {
    pub fn touch(&self, path: &Path) -> Option<&Touch> {
        self.batch.touches.iter().find(|touch| touch.path == path)
    }
}

pub struct World {
    pub dir: TempDir,
    pub watcher: Watcher,
    batches: Receiver<Seen>,
    sentinels: Cell<u32>,
    /// Everything delivered so far, sentinels left out.
    pub seen: RefCell<Vec<Seen>>,
}

impl World {
    pub fn new(options: Options) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (send, batches) = channel();
        let watcher = Watcher::start(options, move |batch: Batch| {
            let contents = batch
                .touches
                .iter()
                .map(|touch| fs::read(&touch.path).ok())
                .collect();
            // The test may have ended already.
            let _ = send.send(Seen { batch, contents });
        })
        .unwrap();
        Self {
            dir,
            watcher,
            batches,
            sentinels: Cell::new(0),
            seen: RefCell::default(),
        }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn watch(&self, name: &str) -> PathBuf {
        let path = self.path(name);
        self.watcher.watch(&path).unwrap();
        path
    }

    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, text).unwrap();
        path
    }

    pub fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }

    /// Waits for the next batch.
    pub fn next(&self) {
        let seen = self
            .batches
            .recv_timeout(DEADLINE)
            .expect("no batch was delivered");
        assert!(seen.batch.error.is_none(), "{:?}", seen.batch.error);
        self.seen.borrow_mut().push(seen);
    }

    /// Waits until `done` holds for what was delivered.
    pub fn wait(&self, what: &str, done: impl Fn(&[Seen]) -> bool) {
        let end = Instant::now() + DEADLINE;
        while !done(&self.seen.borrow()) {
            assert!(
                Instant::now() < end,
                "not delivered: {what}; delivered: {:?}",
                self.touches()
            );
            self.next();
        }
    }

    /// Waits until `path` is delivered, and returns what it contained then.
    pub fn wait_for(&self, path: &Path) -> Option<Vec<u8>> {
        self.wait(&path.display().to_string(), |seen| {
            seen.iter().any(|seen| seen.touch(path).is_some())
        });
        self.last_content(path)
    }

    /// Saves a file outside of the paths under test and waits until that is
    /// delivered: whatever settled before is delivered then, too.
    pub fn settle(&self) {
        let n = self.sentinels.get();
        self.sentinels.set(n + 1);
        let sentinel = self.watch(&format!(".sentinel-{n}"));
        fs::write(&sentinel, "x").unwrap();
        self.wait("the sentinel", |seen| {
            seen.iter().any(|seen| seen.touch(&sentinel).is_some())
        });
    }

    /// All touched paths so far in order, without the sentinels.
    pub fn touches(&self) -> Vec<PathBuf> {
        self.seen
            .borrow()
            .iter()
            .flat_map(|seen| seen.batch.touches.iter())
            .map(|touch| touch.path.clone())
            .filter(|path| !path.to_string_lossy().contains(".sentinel-"))
            .collect()
    }

    /// Takes in what was delivered by now, without waiting for more; all touched
    /// paths so far, as in [`touches`](Self::touches).
    pub fn delivered(&self) -> Vec<PathBuf> {
        while let Ok(seen) = self.batches.try_recv() {
            self.seen.borrow_mut().push(seen);
        }
        self.touches()
    }

    /// How often `path` was delivered so far.
    pub fn count(&self, path: &Path) -> usize {
        self.touches().iter().filter(|other| *other == path).count()
    }

    /// What `path` contained at its latest delivery.
    pub fn last_content(&self, path: &Path) -> Option<Vec<u8>> {
        let seen = self.seen.borrow();
        seen.iter().rev().find_map(|seen| {
            let at = seen.batch.touches.iter().position(|t| t.path == path)?;
            Some(seen.contents[at].clone())
        })?
    }

    /// Forgets what was delivered.
    pub fn clear(&self) {
        self.seen.borrow_mut().clear();
    }
}

/// Replaces a file as most editors do: a temporary file and a rename.
pub fn save_by_rename(path: &Path, text: &str) {
    let mut name = path.as_os_str().to_owned();
    name.push(".tmp");
    let temporary = PathBuf::from(name);
    fs::write(&temporary, text).unwrap();
    fs::rename(&temporary, path).unwrap();
}

/// Opens a file for writing, cutting it, and leaves it open.
pub fn truncate(path: &Path) -> File {
    File::create(path).unwrap()
}

pub fn put(file: &mut File, text: &str) {
    file.write_all(text.as_bytes()).unwrap();
}

/// Set in the child of [`in_own_namespace`].
const CHILD: &str = "WATCH_TEST_IN_OWN_NAMESPACE";

/// Runs `body` of the test called `name` in a child with a user namespace of
/// its own, after the shell command `before`. Skipped, visibly, where such a
/// namespace cannot be made.
pub fn in_own_namespace(name: &str, before: &str, body: impl FnOnce()) {
    if std::env::var_os(CHILD).is_some() {
        body();
        eprintln!("the body was run");
        return;
    }
    let script = format!("{before} && echo entered && exec \"$0\" \"$@\"");
    let child = Command::new("unshare")
        .args(["--user", "--map-root-user", "--mount"])
        .args(["sh", "-c", &script])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture", "--test-threads=1"])
        .env(CHILD, "1")
        .output();
    let Ok(child) = child else {
        eprintln!("skipped: unshare is not installed");
        return;
    };
    let output = String::from_utf8_lossy(&child.stdout).into_owned()
        + &String::from_utf8_lossy(&child.stderr);
    if !output.starts_with("entered") {
        eprintln!("skipped: no user namespace can be made here: {output}");
        return;
    }
    assert!(child.status.success(), "{output}");
    assert!(output.contains("the body was run"), "{output}");
}
