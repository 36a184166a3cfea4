//! What can go wrong between a tracer and its tracees.

use crate::Tid;
use std::io;

/// The result of a request.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a request was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The task died, by SIGKILL or by `exit_group` or `execve` in a sibling.
    /// Its [`Report::End`](crate::Report::End) follows or has been given out.
    #[error("task {0} died")]
    Died(Tid),
    /// The kernel refused a request.
    #[error("{step} of task {tid}: {source}")]
    Refused {
        /// What was asked.
        step: &'static str,
        /// Of whom.
        tid: Tid,
        /// The kernel's answer.
        source: io::Error,
    },
    /// An injected system call answered with an error.
    #[error("{call} in task {tid}: {source}")]
    Call {
        /// The name of the system call.
        call: &'static str,
        /// The task that made it.
        tid: Tid,
        /// Its error number.
        source: io::Error,
    },
    /// A task did not do what its state demands, such as an exit stop without
    /// an entry stop.
    #[error("task {tid}: {what}")]
    Unexpected {
        /// The task.
        tid: Tid,
        /// What it did instead.
        what: String,
    },
    /// A task did not stop within its time.
    #[error("task {0} did not stop in time: it is in vfork or in an uninterruptible call")]
    Late(Tid),
    /// The tracer itself failed.
    #[error("{step}: {source}")]
    Tracer {
        /// What was tried.
        step: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
}

impl Error {
    /// Whether the task of the request is gone.
    #[must_use]
    pub fn is_death(&self) -> bool {
        matches!(self, Error::Died(_))
    }

    /// The error number of a refused request or failed call.
    #[must_use]
    pub fn errno(&self) -> Option<i32> {
        match self {
            Error::Refused { source, .. }
            | Error::Call { source, .. }
            | Error::Tracer { source, .. } => source.raw_os_error(),
            _ => None,
        }
    }

    /// Turns the error number of a ptrace request into an error: ESRCH means
    /// that the task died, always.
    pub(crate) fn of_request(step: &'static str, tid: Tid, source: io::Error) -> Error {
        if source.raw_os_error() == Some(libc::ESRCH) {
            Error::Died(tid)
        } else {
            Error::Refused { step, tid, source }
        }
    }
}
