//! What `--events FILE` gets: one JSON object a line, flushed line by line.
//!
//! The shapes are a contract with other programs: `docs/events.md` explains
//! them, and `docs/events.schema.json` is what the tests hold every variant
//! against. When something is an event is decided by the supervisor; this file
//! knows only how it is written.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::{Serialize, Serializer};

/// One thing that happened. Every path is absolute.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
#[non_exhaustive]
pub enum Event {
    /// The guest was started from its beginning.
    Start {
        /// Process id of its first process.
        pid: u32,
        /// The command as it was executed.
        #[serde(serialize_with = "lossy_all")]
        argv: Vec<std::ffi::OsString>,
    },
    /// A checkpoint was taken.
    Checkpoint {
        /// Its number, never used twice by one forkmon.
        id: u64,
        /// The path before whose first access it stands; `None` if it was asked
        /// for, or taken while the guest waited.
        #[serde(serialize_with = "lossy_option")]
        path: Option<PathBuf>,
        /// For how long the guest was stopped for it, in milliseconds.
        #[serde(serialize_with = "milliseconds")]
        cost_ms: Duration,
        /// How many processes it holds.
        processes: u32,
        /// How many threads it holds, in all its processes together.
        threads: u32,
        /// Resident memory of the guest when it was taken, in bytes. Most of it
        /// is shared with the running guest.
        resident_bytes: u64,
    },
    /// Somebody changed files that the guest had accessed.
    Change {
        /// All that changed at once.
        paths: Vec<ChangedPath>,
    },
    /// Files that the guest had accessed were saved with the same bytes.
    Unchanged {
        /// The saved files.
        #[serde(serialize_with = "lossy_all")]
        paths: Vec<PathBuf>,
    },
    /// A new run began because of a change.
    Resume {
        /// The checkpoint that it continues; `None` if it is a restart.
        from: Option<u64>,
        /// The changed path that the guest had accessed first; `None` if the
        /// run was requested and nothing changed.
        #[serde(serialize_with = "lossy_option")]
        path: Option<PathBuf>,
        /// How much of the guest's own running time need not be repeated.
        #[serde(serialize_with = "milliseconds")]
        kept_ms: Duration,
        /// From reading the file event to the guest running.
        #[serde(serialize_with = "milliseconds")]
        latency_ms: Duration,
        /// Why it began there.
        reason: Reason,
    },
    /// The guest's run came to its end by itself.
    Exit {
        /// Its exit status, unless a signal ended it.
        code: Option<i32>,
        /// The number of the signal that ended it.
        signal: Option<i32>,
        /// Where the run's output is, if forkmon carries it.
        #[serde(skip_serializing_if = "Option::is_none")]
        shown: Option<Shown>,
    },
    /// Something works less well than it could, said once.
    Warning {
        /// A stable name for the kind of warning, in kebab-case.
        code: String,
        /// The same text as on standard error.
        message: String,
    },
}

/// Where the whole output of a run stands in what forkmon itself has written to its
/// standard output and its standard error, messages and all. Where those are one
/// file, both are the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Shown {
    /// In its standard output.
    pub stdout: Span,
    /// In its standard error.
    pub stderr: Span,
}

/// Bytes of a stream, counted from forkmon's start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Span {
    /// The first one.
    pub from: u64,
    /// The one after the last.
    pub to: u64,
}

/// One changed path of [`Event::Change`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ChangedPath {
    /// The path, as the guest looked it up.
    #[serde(serialize_with = "lossy")]
    pub path: PathBuf,
    /// How it differs from what the guest saw.
    pub kind: ChangeKind,
}

/// How a path differs from what the guest saw there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ChangeKind {
    /// Other bytes, another target of a link, or other names in a folder.
    Modified,
    /// It was missing and now is there.
    Created,
    /// It was there and now is missing.
    Removed,
    /// Only its mode, owner or kind is another.
    Metadata,
}

/// Why a run began where it did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Reason {
    /// A checkpoint before the first changed access was used.
    Edit,
    /// A restart: no checkpoint stood before the first changed access.
    NoCheckpoint,
    /// A restart: the checkpoints before it could not be brought to life.
    NotRestorable,
    /// A restart: the guest has since changed something that forkmon cannot put
    /// back as it was at those checkpoints.
    Effects,
    /// A restart that somebody asked for.
    RestartRequested,
    /// A resume of a checkpoint that somebody asked for.
    ResumeRequested,
}

impl Event {
    /// What stands in the field `event`.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Start { .. } => "start",
            Self::Checkpoint { .. } => "checkpoint",
            Self::Change { .. } => "change",
            Self::Unchanged { .. } => "unchanged",
            Self::Resume { .. } => "resume",
            Self::Exit { .. } => "exit",
            Self::Warning { .. } => "warning",
        }
    }
}

/// One line: what all events have, then the event's own fields.
#[derive(Serialize)]
struct Line<'a> {
    event: &'static str,
    #[serde(serialize_with = "milliseconds")]
    at_ms: Duration,
    run: u64,
    #[serde(flatten)]
    fields: &'a Event,
}

/// The events file, or nothing at all when none was asked for.
#[derive(Debug)]
pub struct Events {
    started: Instant,
    file: Option<File>,
}

impl Events {
    /// Opens `path` and empties it. `started` is what `at_ms` counts from.
    ///
    /// A named pipe works: the opening then waits for its reader, and so does a
    /// write while the pipe is full.
    ///
    /// # Errors
    ///
    /// When the file cannot be opened for writing.
    pub fn open(path: Option<&Path>, started: Instant) -> io::Result<Self> {
        Ok(Self {
            started,
            file: path.map(File::create).transpose()?,
        })
    }

    /// Whether anybody gets the events. If not, what only an event needs to know
    /// need not be found out.
    #[must_use]
    pub fn are_wanted(&self) -> bool {
        self.file.is_some()
    }

    /// Writes one event of run number `run`.
    ///
    /// # Errors
    ///
    /// The first failure to write; the file is then given up, and every later
    /// call does nothing. The guest goes on, so the caller needs only to say so.
    pub fn emit(&mut self, run: u64, event: &Event) -> io::Result<()> {
        let Some(file) = &mut self.file else {
            return Ok(());
        };
        let written = line(self.started.elapsed(), run, event)
            // In one call, so that a reader never sees half a line.
            .and_then(|line| file.write_all(&line));
        if written.is_err() {
            self.file = None;
        }
        written
    }
}

/// One event as it stands in the file, with the newline.
///
/// # Errors
///
/// None that is known of: every event can be written as JSON.
pub fn line(at: Duration, run: u64, event: &Event) -> io::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(&Line {
        event: event.name(),
        at_ms: at,
        run,
        fields: event,
    })?;
    line.push(b'\n');
    Ok(line)
}

/// Milliseconds with three decimals: finer than any of these times is known.
fn milliseconds<S: Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64((time.as_secs_f64() * 1e6).round() / 1e3)
}

/// JSON is UTF-8, paths need not be: what is not becomes U+FFFD.
fn lossy<S: Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&path.display())
}

fn lossy_option<S: Serializer>(path: &Option<PathBuf>, serializer: S) -> Result<S::Ok, S::Error> {
    match path {
        Some(path) => lossy(path, serializer),
        None => serializer.serialize_none(),
    }
}

fn lossy_all<S: Serializer, T: AsRef<Path>>(paths: &[T], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(paths.iter().map(|path| path.as_ref().to_string_lossy()))
}
