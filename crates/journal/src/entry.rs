//! One entry of the log: an effect that happened, and what its undoing needs.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::FileType;

use crate::attributes::Attributes;
use crate::file::FileId;
use crate::store::{Copy, Saved};
use crate::tree::Tree;
use crate::{Mark, Unjournaled, Why};

/// One effect that happened, and how it is undone.
#[derive(Debug)]
pub(crate) struct Entry {
    /// The mark it came after.
    pub(crate) mark: Mark,
    pub(crate) change: Change,
    /// Set when somebody else's change came after it and the guest's next one on
    /// top: what it saved is not what was there last.
    pub(crate) lost: Option<Why>,
}

#[derive(Debug)]
pub(crate) enum Change {
    /// A name was made.
    Made {
        path: PathBuf,
        id: FileId,
        kind: FileType,
        naming: Naming,
    },
    /// Bytes may have been overwritten or cut. `pin`: the inode, where it may have
    /// no name. `mapped`: it may change without its times changing. `held`: saved at
    /// the mark itself, so that it is needed for as long as the mark is.
    Content {
        path: PathBuf,
        id: FileId,
        copy: Arc<Copy>,
        pin: Option<Arc<OwnedFd>>,
        mapped: bool,
        held: bool,
    },
    /// Mode, owner, times or extended attributes were changed. `pin`: as above.
    Attributes {
        path: PathBuf,
        id: FileId,
        before: Box<Attributes>,
        after: Box<Attributes>,
        pin: Option<OwnedFd>,
    },
    /// A name was removed. Nothing is saved of what the guest made after the
    /// latest mark: every undo that comes here removes it anyway.
    Removed {
        path: PathBuf,
        id: FileId,
        kind: FileType,
        saved: Option<Saved>,
    },
    /// A name was changed, perhaps over another one.
    Renamed {
        from: PathBuf,
        to: PathBuf,
        moved: Moved,
        replaced: Option<(FileId, Option<Saved>)>,
    },
    /// Two names were exchanged; what lay there before.
    Exchanged {
        a: (PathBuf, Moved),
        b: (PathBuf, Moved),
    },
    /// Something that cannot be undone, and what it left there.
    Beyond {
        unjournaled: Unjournaled,
        id: Option<FileId>,
        /// It left what lies under the name as it was.
        only_attributes: bool,
    },
}

/// What a new name is to its inode.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub(crate) enum Naming {
    /// The inode was made with it.
    New,
    /// The inode has others, which were there before.
    Another,
    /// The inode was there, and had none (`O_TMPFILE`).
    First,
}

/// What was renamed, as it was then.
#[derive(Debug)]
pub(crate) struct Moved {
    pub(crate) id: FileId,
    pub(crate) kind: FileType,
    /// The bytes of a file that was there before: should somebody write to it under
    /// its new name, they go back under the old one.
    pub(crate) copy: Option<Arc<Copy>>,
    /// What lay in a folder that was there before.
    pub(crate) tree: Option<Tree>,
}

impl Entry {
    /// A copy that was taken at a mark, once more: undoing to that mark keeps it, since
    /// the next run writes through the same descriptions.
    pub(crate) fn kept_at(&self, mark: Mark) -> Option<(FileId, Entry)> {
        match &self.change {
            Change::Content {
                path,
                id,
                copy,
                pin,
                mapped,
                held: true,
            } if self.mark == mark && self.lost.is_none() => {
                let change = Change::Content {
                    path: path.clone(),
                    id: *id,
                    copy: copy.clone(),
                    pin: pin.clone(),
                    mapped: *mapped,
                    held: true,
                };
                let entry = Entry {
                    mark,
                    change,
                    lost: None,
                };
                Some((*id, entry))
            }
            _ => None,
        }
    }
}

impl Change {
    /// The name that it is about, or the one that it left.
    pub(crate) fn path(&self) -> &Path {
        match self {
            Change::Made { path, .. }
            | Change::Content { path, .. }
            | Change::Attributes { path, .. }
            | Change::Removed { path, .. } => path,
            Change::Renamed { to, .. } => to,
            Change::Exchanged { a, .. } => &a.0,
            Change::Beyond { unjournaled, .. } => &unjournaled.path,
        }
    }

    /// The removed or replaced file that it has saved, from where `path` says.
    pub(crate) fn saved(&self) -> Option<&Saved> {
        match self {
            Change::Removed { saved, .. } => saved.as_ref(),
            Change::Renamed { replaced, .. } => replaced.as_ref()?.1.as_ref(),
            _ => None,
        }
    }

    /// The inodes whose bytes, attributes or names it is about.
    pub(crate) fn ids(&self) -> impl Iterator<Item = FileId> {
        let (first, second) = match self {
            Change::Made { id, .. }
            | Change::Content { id, .. }
            | Change::Attributes { id, .. }
            | Change::Removed { id, .. } => (Some(*id), None),
            Change::Renamed {
                moved, replaced, ..
            } => (Some(moved.id), replaced.as_ref().map(|(id, _)| *id)),
            Change::Exchanged { a, b } => (Some(a.1.id), Some(b.1.id)),
            Change::Beyond { id, .. } => (*id, None),
        };
        first.into_iter().chain(second)
    }

    /// What it left under which names (`None`: nothing).
    pub(crate) fn names(&self) -> impl Iterator<Item = (&PathBuf, Option<FileId>)> {
        let (first, second) = match self {
            Change::Made { path, id, .. } | Change::Content { path, id, .. } => {
                (Some((path, Some(*id))), None)
            }
            Change::Removed { path, .. } => (Some((path, None)), None),
            Change::Renamed {
                from, to, moved, ..
            } => (Some((from, None)), Some((to, Some(moved.id)))),
            Change::Exchanged { a, b } => (Some((&a.0, Some(b.1.id))), Some((&b.0, Some(a.1.id)))),
            // A new mode or time leaves what lies under the name as it was.
            Change::Attributes { .. } => (None, None),
            Change::Beyond {
                only_attributes: true,
                ..
            } => (None, None),
            Change::Beyond {
                unjournaled, id, ..
            } => (Some((&unjournaled.path, *id)), None),
        };
        first.into_iter().chain(second)
    }
}
