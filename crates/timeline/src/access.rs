//! What a guest can learn from the file system, and what a path is now.
//!
//! These are plain values that the caller fills in: [`Observation`] at the stop
//! of the guest's system call, [`Current`] after a file event. Whether the one
//! still agrees with the other is decided in `rules`.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;

/// The position of an access in the timeline. It starts at 0 and grows by one
/// with each recorded access; a rewind takes it back.
#[derive(Copy, Clone, Eq, PartialEq, Ord, PartialOrd, Hash, Debug)]
pub struct AccessIndex(pub u64);

impl fmt::Display for AccessIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A hash of all bytes of a file. The caller chooses the function; two files
/// with the same fingerprint are taken to have the same bytes.
pub type Fingerprint = [u8; 32];

/// Which bytes a file had, without reading them: what `stat(2)` says of them.
///
/// The same identity is taken to mean the same bytes where nothing better is
/// known. It can be wrong only for a write within one tick of the file system's
/// clock that keeps the size; a fingerprint on both sides overrules it.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub struct Identity {
    /// `st_dev`.
    pub device: u64,
    /// `st_ino`.
    pub inode: u64,
    /// `st_size`, in bytes.
    pub size: u64,
    /// `st_mtim`, in nanoseconds since the epoch.
    pub mtime_ns: i128,
    /// `st_ctim`, in nanoseconds since the epoch.
    pub ctime_ns: i128,
}

/// The type of a file, as far as the rules tell them apart.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub enum FileKind {
    /// A regular file.
    Regular,
    /// A directory.
    Folder,
    /// A symbolic link that was not followed.
    Link,
    /// A device, a FIFO or a socket.
    Other,
}

/// What the guest got from one of the `stat` calls, as far as it counts.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub struct Metadata {
    /// The type of the file.
    pub kind: FileKind,
    /// `st_mode`. Whether the bits of the type are in it does not matter, as
    /// long as it is the same in observations and in [`Current`].
    pub mode: u32,
    /// Its size and times.
    pub identity: Identity,
}

/// One fact that the guest learned, as the caller saw it at the stop.
///
/// The path of a fact is the one it is about: that of the link itself for
/// [`Observation::Link`], that of the final target for a file that was opened
/// through the link.
#[derive(Clone, Eq, PartialEq, Debug)]
pub enum Observation {
    /// The guest opened the file for reading. Its fingerprint comes later, by
    /// [`Timeline::set_fingerprint`](crate::Timeline::set_fingerprint).
    Content {
        /// The file at the moment of the stop.
        identity: Identity,
    },
    /// The guest executed the file. Its fingerprint comes later, too.
    Program {
        /// The file at the moment of the stop.
        identity: Identity,
    },
    /// The guest has read the file up to here, and nothing of what comes after; see
    /// [`Timeline::read_up_to`](crate::Timeline::read_up_to).
    Piece {
        /// The file, as at its open.
        identity: Identity,
        /// How many of its first bytes are known to the guest; `u64::MAX` if its
        /// end is, too.
        end: u64,
    },
    /// The guest learned that it is there, and how it may be used.
    Presence {
        /// Its type.
        kind: FileKind,
        /// As in [`Metadata`].
        mode: u32,
    },
    /// The guest asked for the file's metadata.
    Metadata(Metadata),
    /// The guest looked for the path, and there was nothing.
    Missing,
    /// The guest read the names in a folder; only those in scope are here.
    Listing(BTreeSet<OsString>),
    /// The guest read or followed a symbolic link with this target.
    Link(PathBuf),
}

impl Observation {
    /// Which kind of access this is.
    #[must_use]
    pub fn kind(&self) -> AccessKind {
        match self {
            Self::Content { .. } => AccessKind::Content,
            Self::Program { .. } => AccessKind::Program,
            Self::Piece { .. } => AccessKind::Piece,
            Self::Presence { .. } => AccessKind::Presence,
            Self::Metadata(_) => AccessKind::Metadata,
            Self::Missing => AccessKind::Missing,
            Self::Listing(_) => AccessKind::Listing,
            Self::Link(_) => AccessKind::Link,
        }
    }

    /// The regular file whose bytes stand behind this fact: the one that is
    /// worth a fingerprint.
    pub(crate) fn bytes_of(&self) -> Option<&Identity> {
        match self {
            Self::Content { identity }
            | Self::Program { identity }
            | Self::Piece { identity, .. } => Some(identity),
            Self::Metadata(metadata) if metadata.kind == FileKind::Regular => {
                Some(&metadata.identity)
            }
            _ => None,
        }
    }

    /// Whether the guest took in the bytes themselves.
    pub(crate) fn reads_bytes(&self) -> bool {
        matches!(
            self,
            Self::Content { .. } | Self::Program { .. } | Self::Piece { .. }
        )
    }
}

/// The kind of an [`Observation`], without what was seen.
#[derive(Copy, Clone, Eq, PartialEq, Hash, Debug)]
pub enum AccessKind {
    /// [`Observation::Content`].
    Content,
    /// [`Observation::Program`].
    Program,
    /// [`Observation::Piece`].
    Piece,
    /// [`Observation::Presence`].
    Presence,
    /// [`Observation::Metadata`].
    Metadata,
    /// [`Observation::Missing`].
    Missing,
    /// [`Observation::Listing`].
    Listing,
    /// [`Observation::Link`].
    Link,
}

/// A set of [`AccessKind`]s, so that the hot path needs no search.
#[derive(Copy, Clone, Eq, PartialEq, Debug, Default)]
pub(crate) struct AccessKinds(u16);

impl AccessKinds {
    pub(crate) fn contains(self, kind: AccessKind) -> bool {
        self.0 & (1 << kind as u8) != 0
    }

    pub(crate) fn with(self, kind: AccessKind) -> Self {
        Self(self.0 | 1 << kind as u8)
    }

    /// Metadata that was asked for to read the file later.
    pub(crate) fn has_look(self) -> bool {
        self.0 & Self::LOOK != 0
    }

    pub(crate) fn with_look(self) -> Self {
        Self(self.0 | Self::LOOK)
    }

    const LOOK: u16 = 1 << 15;
}

/// The path of a fact as it is now, after an edit.
#[derive(Clone, Eq, PartialEq, Debug)]
pub enum Current {
    /// There is nothing at the path.
    Missing,
    /// A regular file.
    File {
        /// Its metadata.
        metadata: Metadata,
        /// The hash of its bytes. `None` if it could not be read or was not
        /// asked for; see
        /// [`Timeline::wants_content`](crate::Timeline::wants_content).
        fingerprint: Option<Fingerprint>,
        /// What its bytes were compared with, one by one: the file as it once was,
        /// and how many bytes from the beginning are still the same. `None` if
        /// nobody has kept them.
        agrees: Option<(Identity, u64)>,
    },
    /// A directory.
    Folder {
        /// Its metadata.
        metadata: Metadata,
        /// Its names in scope. `None` if they could not be read or were not
        /// asked for; see
        /// [`Timeline::wants_names`](crate::Timeline::wants_names).
        names: Option<BTreeSet<OsString>>,
    },
    /// A symbolic link, not followed.
    Link {
        /// The metadata of the link itself.
        metadata: Metadata,
        /// What it points to, as written in it.
        target: PathBuf,
    },
    /// A device, a FIFO or a socket.
    Other {
        /// Its metadata.
        metadata: Metadata,
    },
}

impl Current {
    /// The type and the metadata of what is there; `None` if nothing is. The
    /// variant decides the type, whatever the metadata says.
    pub(crate) fn metadata(&self) -> Option<(FileKind, &Metadata)> {
        match self {
            Self::Missing => None,
            Self::File { metadata, .. } => Some((FileKind::Regular, metadata)),
            Self::Folder { metadata, .. } => Some((FileKind::Folder, metadata)),
            Self::Link { metadata, .. } => Some((FileKind::Link, metadata)),
            Self::Other { metadata } => Some((FileKind::Other, metadata)),
        }
    }

    /// The hash of the bytes, if there is a regular file and it was hashed.
    pub(crate) fn fingerprint(&self) -> Option<&Fingerprint> {
        match self {
            Self::File { fingerprint, .. } => fingerprint.as_ref(),
            _ => None,
        }
    }

    /// How many bytes are as they were in the file with this identity, as far as that
    /// is known.
    pub(crate) fn agreement(&self, with: &Identity) -> u64 {
        match self {
            Self::File {
                agrees: Some((then, bytes)),
                ..
            } if then == with => *bytes,
            _ => 0,
        }
    }
}
