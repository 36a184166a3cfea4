//! The first half of each effect: what is there before the call, and saving it. Which
//! system call it is, is the caller's knowledge; what came of it is `conclude`'s part.

mod attributes;
mod bytes;
mod folder;
mod names;

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use crate::attributes::Attributes;
use crate::entry::Change;
use crate::file::{FileId, Look, Place, locate};
use crate::journal::Journal;
use crate::tracked::Opening;
use crate::{Effect, Obstacle, Unjournaled};
use bytes::OpenKind;

/// An effect between its two halves. Hand it to [`Journal::after`].
#[derive(Debug)]
#[must_use]
pub struct Prepared {
    /// Whether the effect can be undone.
    pub undoable: Result<(), Unjournaled>,
    pub(crate) pending: Pending,
}

/// What to do once the call has returned.
#[derive(Debug, Default)]
pub(crate) enum Pending {
    /// Nothing: it has no effect on a file.
    #[default]
    Nothing,
    /// Nothing either, since the call is going to fail.
    Refused(PathBuf),
    /// An effect that cannot be undone; `writes` is a file that it opens for
    /// writing, or truncates (`None`).
    Beyond {
        unjournaled: Unjournaled,
        writes: Option<(FileId, Option<Opening>)>,
        only_attributes: bool,
    },
    /// Something is made under a free name.
    Make { path: PathBuf, by: Making },
    /// An existing file is opened for writing, or truncated by its path.
    Write {
        path: PathBuf,
        id: FileId,
        opening: Option<Opening>,
        change: Option<Change>,
    },
    /// A name is removed, changed or exchanged. `lent`: what the twin is that lies
    /// in the place of a folder meanwhile.
    Names {
        change: Change,
        lent: Option<FileId>,
    },
    /// Mode, owner, times or extended attributes of an inode are changed.
    Attributes(Box<OldAttributes>),
}

/// What an inode was before its attributes are changed.
#[derive(Debug)]
pub(crate) struct OldAttributes {
    pub(crate) path: PathBuf,
    pub(crate) id: FileId,
    pub(crate) handle: OwnedFd,
    /// Whether `path` is its name.
    pub(crate) named: bool,
    /// `None` of what every undo removes.
    pub(crate) before: Option<Attributes>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Making {
    Open,
    /// One more name of an inode, or the `first` one.
    Link {
        id: FileId,
        first: bool,
    },
    Other,
}

/// The forms of `rename`.
#[derive(Clone, Copy)]
struct RenameKind {
    no_replace: bool,
    exchange: bool,
    in_use: bool,
}

type Outcome = Result<Pending, Unjournaled>;

impl Journal {
    pub(crate) fn prepare(&mut self, effect: Effect) -> Prepared {
        // Devices, pipes and terminals are opened most often and cost this one look.
        if let Effect::OpenWrite { path, follow, .. } = &effect
            && let Ok(Some(look)) = Look::at(path, *follow)
            && !look.is_regular()
        {
            return Prepared {
                undoable: Ok(()),
                pending: Pending::Nothing,
            };
        }
        self.provenance.drain();
        let mut writes = None;
        let only_attributes = matches!(effect, Effect::Attributes { .. } | Effect::Other { .. });
        let outcome = match effect {
            Effect::OpenWrite {
                path,
                create,
                exclusive,
                follow,
            } => {
                let kind = OpenKind { create, exclusive };
                self.prepare_open(&path, kind, follow && !exclusive, &mut writes)
            }
            Effect::Truncate { path } => self.prepare_truncate(&path, &mut writes),
            Effect::Unlink { path } => self.prepare_unlink(&path),
            Effect::RemoveFolder { path, in_use } => self.prepare_remove_folder(&path, in_use),
            Effect::Rename {
                from,
                to,
                no_replace,
                exchange,
                in_use,
            } => {
                let how = RenameKind {
                    no_replace,
                    exchange,
                    in_use,
                };
                self.prepare_rename(&from, &to, how)
            }
            Effect::MakeFolder { path } | Effect::MakeNode { path } => {
                self.prepare_make(&path, Making::Other)
            }
            Effect::SymbolicLink { to } => self.prepare_make(&to, Making::Other),
            Effect::Link { from, to, follow } => self.prepare_link(&from, &to, follow),
            Effect::Attributes {
                path,
                follow,
                extended,
            } => self.prepare_attributes(&path, follow, extended),
            Effect::Other { path, what } => self.prepare_other(path, what),
        };
        match outcome {
            Ok(pending) => Prepared {
                undoable: Ok(()),
                pending,
            },
            Err(unjournaled) => Prepared {
                undoable: self.if_undoing(Err(unjournaled.clone())),
                pending: Pending::Beyond {
                    unjournaled,
                    writes,
                    only_attributes,
                },
            },
        }
    }

    /// The place that a call acts on, or the call that will fail there.
    fn place(&self, path: &Path, follow: bool) -> Result<Result<Place, Pending>, Unjournaled> {
        match locate(path, follow) {
            Ok(Some(place)) if self.stores.contain(&place.path) => {
                Err(Obstacle::OwnStore.at(place.path))
            }
            Ok(Some(place)) => Ok(Ok(place)),
            // What we may not look up, the guest may not either.
            Ok(None) | Err(_) => Ok(Err(Pending::Refused(path.to_owned()))),
        }
    }

    /// An obstacle that matters only to checkpoints in which the file was there.
    pub(crate) fn unjournaled(&self, why: Obstacle, path: PathBuf, id: FileId) -> Unjournaled {
        let file = self.provenance.get(id);
        let birth = file.filter(|f| f.foreign.is_none() && f.unwatched.is_none());
        let after = birth.and_then(|f| f.birth);
        Unjournaled {
            path,
            why,
            after: after.or_else(|| self.folders.get(&id).copied()),
        }
    }

    /// Whether the guest made a file after the latest mark and it is its own alone.
    fn is_new(&self, id: FileId) -> bool {
        self.folders.get(&id) == Some(&self.current)
            || self.provenance.get(id).is_some_and(|file| {
                file.birth == Some(self.current)
                    && !file.theirs
                    && file.foreign.is_none()
                    && file.unwatched.is_none()
            })
    }
}
