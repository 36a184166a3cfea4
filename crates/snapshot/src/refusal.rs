//! Why a checkpoint was not taken or could not be resumed.

use std::io;

/// The guest goes on undisturbed after each of these.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// The guest, or the task that was to make the call, died meanwhile.
    #[error("the guest died")]
    Died,
    /// A task did not stop in time: it is in vfork or in an uninterruptible call.
    #[error("a task did not stop in time (it is in vfork or in an uninterruptible call)")]
    Late,
    /// A task was in a step that is over at once: a thread's birth, a new program, the
    /// return of a call.
    #[error("a task was in the middle of a step that is over at once")]
    Passing,
    /// There are no processes or there is no memory left for one more copy.
    #[error("no room for one more copy: {0}")]
    NoRoom(#[source] io::Error),
    /// The guest holds something that a resume could not bring back.
    #[error("{what}")]
    Unsupported {
        /// A short name, the same for all cases of one kind.
        code: &'static str,
        /// What it holds, for people.
        what: String,
    },
    /// A step failed that should not.
    #[error("{0}")]
    Failed(tracee::Error),
    /// `/proc` did not say what was asked.
    #[error("{step}: {source}")]
    Proc {
        /// What was asked.
        step: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
}

impl Refusal {
    /// Something that cannot be restored yet.
    pub(crate) fn unsupported(code: &'static str, what: impl Into<String>) -> Self {
        Self::Unsupported {
            code,
            what: what.into(),
        }
    }

    /// A failure to read something of `/proc`; a process that is gone is dead.
    pub(crate) fn proc(step: &'static str) -> impl Fn(io::Error) -> Self {
        move |source| match source.raw_os_error() {
            Some(libc::ESRCH) => Self::Died,
            _ => Self::Proc { step, source },
        }
    }

    /// A short name for the kind of refusal, in kebab case.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Refusal::Died => "guest-died",
            Refusal::Late | Refusal::Passing => "guest-busy",
            Refusal::NoRoom(_) => "no-room",
            Refusal::Unsupported { code, .. } => code,
            Refusal::Failed(_) | Refusal::Proc { .. } => "checkpoint-failed",
        }
    }
}

impl From<tracee::Error> for Refusal {
    fn from(error: tracee::Error) -> Self {
        match error {
            tracee::Error::Died(_) => Self::Died,
            tracee::Error::Late(_) => Self::Late,
            tracee::Error::Call {
                call: "clone",
                source,
                ..
            } if matches!(
                source.raw_os_error(),
                Some(libc::EAGAIN | libc::ENOMEM | libc::ENOSPC)
            ) =>
            {
                Self::NoRoom(source)
            }
            other => Self::Failed(other),
        }
    }
}
