//! The words of control: what can be asked of a running forkmon, and what it
//! answers, each as one JSON object on a line of its own.
//!
//! Pure data, and how it is read and written. Whoever reads a line bounds its
//! length by [`MAX_LINE`] first.

use std::path::PathBuf;
use std::sync::mpsc::Sender;

use serde::{Deserialize, Serialize};

/// The most bytes that a request may have, without the end of its line.
pub const MAX_LINE: usize = 64 << 10;

/// What is asked of a running forkmon: `{"action":"resume","id":3}`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(tag = "action", rename_all = "lowercase")]
pub enum Request {
    /// Freeze the guest wherever it is.
    Checkpoint,
    /// Let a copy of a checkpoint run instead of the present run.
    Resume {
        /// The checkpoint; the newest one if it is not said.
        #[serde(skip_serializing_if = "Option::is_none")]
        id: Option<u64>,
    },
    /// Start the guest from its beginning instead of the present run.
    Restart,
    /// Wait until all that was saved before is acted upon and the run has ended.
    Wait,
    /// Tell what there is.
    Status,
    /// Tell what rewinds have taken away, and where it lies.
    Journal,
    /// End the guest and forkmon.
    Quit,
}

/// A request as it may come: nothing else may stand in the object.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Typed {
    action: String,
    id: Option<u64>,
}

/// A line that is no request: what is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Malformed(String);

impl Request {
    /// Reads a request from a line, with or without its end.
    ///
    /// # Errors
    ///
    /// What is not exactly one object with an action that there is, or has more
    /// in it than the action needs.
    pub fn parse(line: &[u8]) -> Result<Self, Malformed> {
        if line.len() > MAX_LINE + 1 {
            return Err(Malformed::too_long());
        }
        let typed: Typed = serde_json::from_slice(line)
            .map_err(|error| Malformed(format!("this is no request: {error}")))?;
        let request = match typed.action.as_str() {
            "resume" => return Ok(Self::Resume { id: typed.id }),
            "checkpoint" => Self::Checkpoint,
            "restart" => Self::Restart,
            "wait" => Self::Wait,
            "status" => Self::Status,
            "journal" => Self::Journal,
            "quit" => Self::Quit,
            _ => {
                return Err(Malformed(
                    "there is no such action; there are checkpoint, resume, restart, wait, \
                     status, journal and quit"
                        .to_owned(),
                ));
            }
        };
        if typed.id.is_some() {
            return Err(Malformed(format!("\"{}\" takes no id", typed.action)));
        }
        Ok(request)
    }

    /// The request as a line.
    #[must_use]
    pub fn to_line(&self) -> String {
        to_line(self)
    }
}

impl Malformed {
    /// For a line that does not end in time.
    #[must_use]
    pub fn too_long() -> Self {
        Self(format!("a request has at most {MAX_LINE} bytes"))
    }
}

/// What forkmon answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "reply", rename_all = "lowercase")]
pub enum Reply {
    /// The guest was frozen, and runs on.
    Checkpoint {
        /// The new checkpoint.
        id: u64,
    },
    /// A copy of a checkpoint runs.
    Resumed {
        /// The checkpoint.
        from: u64,
        /// The guest's running time that need not be repeated, in milliseconds.
        kept_ms: f64,
    },
    /// The guest was started from its beginning.
    Restarted,
    /// Nothing is left to be done, and this is how the guest has ended.
    Settled {
        /// The number of the run.
        run: u64,
        /// Its exit status, if it exited; exactly one of the two is a number.
        code: Option<i32>,
        /// The signal that ended it.
        signal: Option<i32>,
    },
    /// What there is.
    Status(Status),
    /// What rewinds have taken away, the oldest first.
    Journal {
        /// One for each file.
        items: Vec<JournalItem>,
    },
    /// Forkmon is about to end.
    Quitting,
    /// Nothing was done.
    Refused {
        /// Why, for programs: a word that stays the same.
        code: String,
        /// Why, for people: one line.
        message: String,
    },
}

impl Reply {
    /// Nothing was done, and why.
    #[must_use]
    pub fn refused(code: &str, message: impl Into<String>) -> Self {
        Self::Refused {
            code: code.to_owned(),
            message: message.into(),
        }
    }

    /// Reads a reply from a line, with or without its end.
    ///
    /// # Errors
    ///
    /// What is no reply.
    pub fn parse(line: &[u8]) -> Result<Self, Malformed> {
        serde_json::from_slice(line)
            .map_err(|error| Malformed(format!("this is no reply: {error}")))
    }

    /// The reply as a line.
    #[must_use]
    pub fn to_line(&self) -> String {
        to_line(self)
    }
}

/// The state of a forkmon.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// The number of the present run, or of the last one; the first is 0.
    pub run: u64,
    /// The process of forkmon itself.
    pub pid: u32,
    /// The guest's first process; `None` when no process of the guest is alive.
    pub guest: Option<u32>,
    /// The project root.
    #[serde(with = "lossy_path")]
    pub root: PathBuf,
    /// The guest's command; what is not UTF-8 in it is replaced.
    pub argv: Vec<String>,
    /// The checkpoints there are, in the order of the guest's running time.
    pub checkpoints: Vec<CheckpointStatus>,
}

/// One checkpoint.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CheckpointStatus {
    /// What it is called in requests and events.
    pub id: u64,
    /// The path before whose first access it stands; `None` if it was taken by
    /// hand.
    #[serde(with = "lossy_path::optional")]
    pub path: Option<PathBuf>,
    /// The time since it was taken, in milliseconds.
    pub age_ms: f64,
    /// The guest's running time when it was taken, in milliseconds.
    pub guest_ms: f64,
    /// The threads in it, of all its processes.
    pub threads: u32,
    /// Its resident memory, in bytes, most of it shared with others.
    pub resident_bytes: u64,
    /// Its proportional share of that (proc(5), `Pss`), in bytes, if it is known.
    pub own_bytes: Option<u64>,
}

/// A file that a rewind has taken away or written over.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JournalItem {
    /// Where it lay.
    #[serde(with = "lossy_path")]
    pub path: PathBuf,
    /// When it was taken away, in milliseconds since 1970 (UTC).
    pub at_ms: u64,
    /// In bytes.
    pub size: u64,
    /// Why, for people.
    pub why: String,
    /// Where it lies now.
    #[serde(with = "lossy_path")]
    pub lies: PathBuf,
    /// It may be somebody's: it still lies there when forkmon has ended.
    pub stays: bool,
}

/// A request, with where its answer goes.
///
/// What was done is said on forkmon's own standard error by the supervisor, like
/// after an edit; the answer is for the one who asked.
#[derive(Debug)]
pub struct Asked {
    /// What is asked for.
    pub request: Request,
    /// Takes one answer. If it is dropped without one, whoever asked learns that
    /// forkmon has ended. That nobody listens any more is no error.
    pub answer: Sender<Reply>,
}

fn to_line<T: Serialize>(value: &T) -> String {
    // Only maps with keys that are no strings, and failing writers, have errors.
    let mut line = serde_json::to_string(value).unwrap_or_default();
    line.push('\n');
    line
}

/// A path need not be UTF-8, JSON must be: what is not is replaced.
mod lossy_path {
    use std::path::{Path, PathBuf};

    use serde::{Deserialize as _, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(path: &Path, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&path.to_string_lossy())
    }

    pub(super) fn deserialize<'d, D: Deserializer<'d>>(from: D) -> Result<PathBuf, D::Error> {
        String::deserialize(from).map(PathBuf::from)
    }

    pub(super) mod optional {
        use std::path::PathBuf;

        use serde::{Deserialize as _, Deserializer, Serializer};

        pub(crate) fn serialize<S: Serializer>(
            path: &Option<PathBuf>,
            to: S,
        ) -> Result<S::Ok, S::Error> {
            match path {
                Some(path) => to.serialize_some(&path.to_string_lossy()),
                None => to.serialize_none(),
            }
        }

        pub(crate) fn deserialize<'d, D: Deserializer<'d>>(
            from: D,
        ) -> Result<Option<PathBuf>, D::Error> {
            Ok(Option::<String>::deserialize(from)?.map(PathBuf::from))
        }
    }
}
