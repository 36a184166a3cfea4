//! The words of the interface: the effects that a guest can have, what is in the
//! way of undoing one, and what an undo did and left. Plain data.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

/// A point of the timeline that effects can be undone to. Later ones are greater.
#[derive(Copy, Clone, Eq, PartialEq, Ord, PartialOrd, Hash, Debug)]
pub struct Mark(pub(crate) u64);

/// One change that the guest is about to make to the file system.
///
/// All paths are absolute: resolved against the working directory or `dirfd`,
/// with `/proc/self`, `/dev/fd` and `/dev/stdout` spelled as `/proc/PID/fd/N`, since
/// the guest's `self` is not ours. Symbolic links are not resolved.
#[derive(Clone, Eq, PartialEq, Debug)]
#[non_exhaustive]
pub enum Effect {
    /// An open for writing in any form, `creat` too. Whether it truncates or appends
    /// makes no difference: `F_SETFL` clears `O_APPEND`.
    OpenWrite {
        /// The file.
        path: PathBuf,
        /// `O_CREAT`
        create: bool,
        /// `O_EXCL`
        exclusive: bool,
        /// Whether the last component is followed if it is a symbolic link (no
        /// `O_NOFOLLOW`).
        follow: bool,
    },
    /// `truncate` by path.
    Truncate {
        /// The file; links are followed.
        path: PathBuf,
    },
    /// `unlink`
    Unlink {
        /// The name.
        path: PathBuf,
    },
    /// `rmdir`
    RemoveFolder {
        /// The folder.
        path: PathBuf,
        /// Whether a process of the guest has it open, or as its working folder.
        in_use: bool,
    },
    /// `rename` in any form.
    Rename {
        /// The old name.
        from: PathBuf,
        /// The new name.
        to: PathBuf,
        /// `RENAME_NOREPLACE`
        no_replace: bool,
        /// `RENAME_EXCHANGE`
        exchange: bool,
        /// Whether a process of the guest has a folder at the new name open, or as its
        /// working folder.
        in_use: bool,
    },
    /// `mkdir`
    MakeFolder {
        /// The folder.
        path: PathBuf,
    },
    /// `link`
    Link {
        /// The existing name, or the `/proc/PID/fd/N` of a file that may have none.
        from: PathBuf,
        /// The new name.
        to: PathBuf,
        /// Whether `from` is followed if it is a symbolic link, of `/proc` or another.
        follow: bool,
    },
    /// `symlink`
    SymbolicLink {
        /// The new name (not what the link says).
        to: PathBuf,
    },
    /// `mknod`, or the `bind` of a unix socket.
    MakeNode {
        /// The new name.
        path: PathBuf,
    },
    /// `chmod`, `chown`, `utimes`, `setxattr` in any form.
    Attributes {
        /// The file, or the `/proc/PID/fd/N` of one.
        path: PathBuf,
        /// Whether the last component is followed if it is a symbolic link.
        follow: bool,
        /// Whether it is about extended attributes.
        extended: bool,
    },
    /// A change of anything else, as of an inode's flags (`chattr`). It can be undone
    /// only together with the creation of the file.
    Other {
        /// What it changes, if known.
        path: Option<PathBuf>,
        /// The kind of change, for the message.
        what: &'static str,
    },
}

impl Effect {
    /// The names that it is about.
    pub fn names(&self) -> impl Iterator<Item = &PathBuf> {
        let (first, second) = match self {
            Effect::OpenWrite { path, .. }
            | Effect::Truncate { path }
            | Effect::Unlink { path }
            | Effect::RemoveFolder { path, .. }
            | Effect::MakeFolder { path }
            | Effect::SymbolicLink { to: path }
            | Effect::MakeNode { path }
            | Effect::Attributes { path, .. } => (Some(path), None),
            Effect::Rename { from, to, .. } | Effect::Link { from, to, .. } => {
                (Some(from), Some(to))
            }
            Effect::Other { path, .. } => (path.as_ref(), None),
        };
        first.into_iter().chain(second)
    }
}

/// An effect that cannot be undone: checkpoints before it cannot be resumed.
#[derive(Clone, Debug, thiserror::Error)]
#[error("the change to {} cannot be undone: {why}", path.display())]
pub struct Unjournaled {
    /// What was changed.
    pub path: PathBuf,
    /// What is in the way.
    pub why: Obstacle,
    /// Only checkpoints later than this one are lost, since the guest made the file
    /// after it: going back there removes the file. `None`: all are lost.
    pub after: Option<Mark>,
}

/// Why an effect cannot be undone.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Obstacle {
    /// A folder that the guest itself has open or works in.
    #[error("the program has this folder open or works in it")]
    InUse,
    /// A folder with very much in it was moved.
    #[error("there are more than {most} names in the folder")]
    TooManyNames {
        /// So many are looked at.
        most: usize,
    },
    /// Something like a file's flags.
    #[error("{0} of a file that was there before cannot be put back")]
    Other(&'static str),
    /// Nobody can tell what an extended attribute was.
    #[error("it has extended attributes that cannot be read")]
    Unreadable,
    /// There is no room for its copy.
    #[error("its {size} bytes do not fit into the {limit} that may be copied in all")]
    TooLarge {
        /// Of the file, in bytes.
        size: u64,
        /// The option that was exceeded, in bytes.
        limit: u64,
    },
    /// It would have to be copied at every checkpoint.
    #[error("copying it at each checkpoint takes too long")]
    TooLong,
    /// No place on the file's mount takes hard links, exchanges and new folders.
    #[error("no folder on its mount can hold the journal")]
    NoStore,
    /// The file's folder is gone.
    #[error("its folder is gone")]
    NoFolder,
    /// Names in the file's folder cannot be changed by us.
    #[error("its folder is not writable")]
    FolderNotWritable,
    /// The file is a mount point of its own.
    #[error("it is mounted on its own")]
    MountPoint,
    /// The guest changes what is needed to undo.
    #[error("it is part of the journal itself")]
    OwnStore,
    /// Nobody can tell whose bytes it holds.
    #[error("the guest's writes to it cannot be told from others': {0}")]
    Unwatched(Arc<str>),
    /// A call that could not succeed did.
    #[error("the call succeeded where nothing was there to act on")]
    Unexpected,
    /// A system call of ours failed.
    #[error("failed to {step}: {cause}")]
    Io {
        /// What we were about to do.
        step: &'static str,
        /// The kernel's answer.
        cause: Arc<io::Error>,
    },
}

impl Obstacle {
    pub(crate) fn io(step: &'static str, cause: impl Into<io::Error>) -> Obstacle {
        Obstacle::Io {
            step,
            cause: Arc::new(cause.into()),
        }
    }

    pub(crate) fn at(self, path: impl Into<PathBuf>) -> Unjournaled {
        Unjournaled {
            path: path.into(),
            why: self,
            after: None,
        }
    }
}

/// What an undo did.
#[derive(Clone, Debug, Default)]
#[must_use]
pub struct Undo {
    /// Whether everything is as it was at the mark. If not, use an earlier
    /// checkpoint or start over.
    pub complete: bool,
    /// What was removed or put back.
    pub restored: Vec<PathBuf>,
    /// What was not touched.
    pub left: Vec<Left>,
}

/// Something that an undo did not touch.
#[derive(Clone, Debug)]
pub struct Left {
    /// Where it lies.
    pub path: PathBuf,
    /// Why it was not touched.
    pub why: Why,
}

/// Why an undo left something alone.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Why {
    /// Somebody else wrote into the file.
    #[error("somebody else has written to it")]
    Written,
    /// Another file lies under the name.
    #[error("somebody else has put another file there")]
    Replaced,
    /// Nothing lies under the name.
    #[error("somebody else has renamed or removed it")]
    Removed,
    /// A folder of the guest's with something of somebody else's in it.
    #[error("there is something in it that is not the guest's")]
    NotEmpty,
    /// Another process has it open for writing.
    #[error("another process has it open for writing")]
    Open,
    /// Its mode, owner or attributes are neither as the guest left them nor as they were.
    #[error("somebody else has changed its {0}")]
    Changed(&'static str),
    /// Somebody else made a new file while this one was being checked: both are kept.
    #[error("somebody else has put another file at {} meanwhile", taken.display())]
    Displaced {
        /// The name that it had.
        taken: PathBuf,
    },
    /// Not known to be the guest's.
    #[error("its bytes cannot be proven to be the guest's: {0}")]
    Unproven(Arc<str>),
    /// The effect could not be undone from the beginning.
    #[error(transparent)]
    Unjournaled(Obstacle),
    /// A system call of ours failed.
    #[error("failed to {step}: {cause}")]
    Io {
        /// What we were about to do.
        step: &'static str,
        /// The kernel's answer.
        cause: Arc<io::Error>,
    },
}

impl Why {
    pub(crate) fn io(step: &'static str) -> impl FnOnce(io::Error) -> Why {
        move |cause| Why::Io {
            step,
            cause: Arc::new(cause),
        }
    }
}
