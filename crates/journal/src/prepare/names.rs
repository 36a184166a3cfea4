//! Before names change: a removal, a rename, a new name. An inode that is about to
//! lose its last name gets another one in the store.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use rustix::fs::{AtFlags, CWD};

use super::{Making, Outcome, Pending, RenameKind};
use crate::attributes::Attributes;
use crate::entry::{Change, Moved};
use crate::file::{FileId, Look, Place, open_path};
use crate::journal::Journal;
use crate::store::{Saved, SavedKind, copy_to};
use crate::tree::Tree;
use crate::{Obstacle, Unjournaled};

/// The most removed files with other names that are saved by a handle: a process may
/// have no more than 1024 files open, as a rule.
const MOST_HANDLES: usize = 128;

impl Journal {
    /// A second name in the store for an inode that is about to lose one.
    fn save(&mut self, path: &Path, look: &Look) -> Result<Option<Saved>, Obstacle> {
        if look.is_regular() {
            let shared = self.may_hold_others(look.id, path, look);
            self.look_for_writers(look.id, path);
            if let Some(file) = self.provenance.get_mut(look.id) {
                file.theirs |= shared;
            }
        }
        if self.is_new(look.id) || !self.undoes {
            return Ok(None);
        }
        let persons = self.is_persons(path, look);
        self.before_change(look);
        if !look.is_folder() && look.links > 1 && Arc::strong_count(&self.handles) <= MOST_HANDLES {
            let handle = open_path(path, false).and_then(|fd| Ok((Look::of(&fd)?, fd)));
            return match handle {
                Ok((there, handle)) if there.id == look.id => Ok(Some(Saved {
                    path: self.stores.fresh(path, Some(look))?,
                    taken: SystemTime::now(),
                    kind: SavedKind::Handle {
                        handle,
                        persons,
                        _count: self.handles.clone(),
                    },
                })),
                Ok(_) => Err(Obstacle::Unexpected),
                Err(cause) => Err(Obstacle::io("look at it", cause)),
            };
        }
        let (to, kind) = if persons {
            // Should we be killed, it is there for the person.
            (self.stores.fresh_in_keep(path)?, SavedKind::Persons)
        } else {
            (self.stores.fresh(path, Some(look))?, SavedKind::Plain)
        };
        // This finds out whether there are links here.
        self.stores.fresh(path, Some(look))?;
        if !self.stores.has_links(look.mount) {
            return self.save_copy(path, look, to, kind).map(Some);
        }
        rustix::fs::linkat(CWD, path, CWD, &to, AtFlags::empty())
            .map_err(|cause| Obstacle::io("keep it by a hard link", cause))?;
        let saved = Saved {
            path: to,
            taken: SystemTime::now(),
            kind,
        };
        match Look::at(&saved.path, false) {
            Ok(Some(there)) if there.id == look.id => {
                self.after_change(&there);
                Ok(Some(saved))
            }
            _ => Err(Obstacle::Unexpected),
        }
    }

    /// Where there are no hard links, a copy does for a file that nobody holds.
    fn save_copy(
        &mut self,
        path: &Path,
        look: &Look,
        to: PathBuf,
        kind: SavedKind,
    ) -> Result<Saved, Obstacle> {
        let step = "keep a copy of it";
        let refused = || Obstacle::io(step, io::Error::from(io::ErrorKind::Unsupported));
        let held = self.provenance.get(look.id).is_some_and(|f| f.owed > 0);
        let us = rustix::process::geteuid().as_raw();
        if !look.is_regular() || look.links > 1 || held || (us != 0 && us != look.owner.0) {
            return Err(refused());
        }
        let share = self.share(look.size)?;
        let from = fs::File::open(path).map_err(|cause| Obstacle::io(step, cause))?;
        copy_to(&from, look.size, &to, u64::MAX)?;
        let saved = Saved {
            path: to,
            taken: SystemTime::now(),
            kind,
        };
        let same = open_path(path, false).and_then(|original| {
            Attributes::of(&original)?.lend_to(&open_path(&saved.path, false)?)
        });
        same.map_err(|cause| Obstacle::io(step, cause))?;
        // It has the file's place on the disk from now on.
        drop(share);
        Ok(saved)
    }

    pub(super) fn prepare_unlink(&mut self, path: &Path) -> Outcome {
        match self.place(path, false)? {
            Ok(Place {
                path,
                look: Some(look),
            }) if !look.is_folder() => match self.save(&path, &look) {
                Ok(saved) => Ok(Pending::Names {
                    change: Change::Removed {
                        path,
                        id: look.id,
                        kind: look.kind,
                        saved,
                    },
                    lent: None,
                }),
                Err(why) => Err(self.unjournaled(why, path, look.id)),
            },
            Ok(place) => Ok(Pending::Refused(place.path)),
            Err(pending) => Ok(pending),
        }
    }

    pub(super) fn prepare_remove_folder(&mut self, path: &Path, in_use: bool) -> Outcome {
        let place = match self.place(path, false)? {
            Ok(place) => place,
            Err(pending) => return Ok(pending),
        };
        let Some(look) = place.look.filter(Look::is_folder) else {
            return Ok(Pending::Refused(place.path));
        };
        let path = place.path;
        if is_full(&path) {
            return Ok(Pending::Refused(path));
        }
        let (saved, lent) = self.save_folder(&path, &look, in_use)?;
        Ok(Pending::Names {
            change: Change::Removed {
                path,
                id: look.id,
                kind: look.kind,
                saved,
            },
            lent,
        })
    }

    /// The same as [`save`](Self::save), of an empty folder.
    fn save_folder(
        &mut self,
        path: &Path,
        look: &Look,
        in_use: bool,
    ) -> Result<(Option<Saved>, Option<FileId>), Unjournaled> {
        if self.is_new(look.id) || !self.undoes {
            return Ok((None, None));
        }
        match self.lend_twin(path, look, in_use) {
            Ok((saved, twin)) => Ok((Some(saved), Some(twin))),
            Err(why) => Err(self.unjournaled(why, path.to_owned(), look.id)),
        }
    }

    pub(super) fn prepare_rename(&mut self, from: &Path, to: &Path, how: RenameKind) -> Outcome {
        let (from, to) = match (self.place(from, false)?, self.place(to, false)?) {
            (Ok(from), Ok(to)) => (from, to),
            (Err(pending), _) | (_, Err(pending)) => return Ok(pending),
        };
        let Some(moved) = from.look else {
            return Ok(Pending::Refused(from.path));
        };
        match to.look {
            Some(_) if how.no_replace => return Ok(Pending::Refused(to.path)),
            None if how.exchange => return Ok(Pending::Refused(to.path)),
            // Two names of one inode: rename(2) does nothing.
            Some(other) if other.id == moved.id => return Ok(Pending::Nothing),
            Some(other) if !how.exchange && other.is_folder() != moved.is_folder() => {
                return Ok(Pending::Refused(to.path));
            }
            Some(other) if !how.exchange && other.is_folder() && is_full(&to.path) => {
                return Ok(Pending::Refused(to.path));
            }
            _ => {}
        }
        let moved = self.prepare_move(&from.path, &to.path, &moved)?;
        let (replaced, lent) = match to.look {
            Some(other) if how.exchange => {
                let other = self.prepare_move(&to.path, &from.path, &other)?;
                return Ok(Pending::Names {
                    change: Change::Exchanged {
                        a: (from.path, moved),
                        b: (to.path, other),
                    },
                    lent: None,
                });
            }
            Some(other) if other.is_folder() => {
                let (saved, lent) = self.save_folder(&to.path, &other, how.in_use)?;
                (Some((other.id, saved)), lent)
            }
            Some(other) => match self.save(&to.path, &other) {
                Ok(saved) => (Some((other.id, saved)), None),
                Err(why) => return Err(why.at(to.path)),
            },
            None => (None, None),
        };
        Ok(Pending::Names {
            change: Change::Renamed {
                from: from.path,
                to: to.path,
                moved,
                replaced,
            },
            lent,
        })
    }

    /// A file is about to have another name: from now on, whoever writes to it must be
    /// known, so that an undo does not take the name away from under a person.
    fn prepare_move(&mut self, path: &Path, to: &Path, look: &Look) -> Result<Moved, Unjournaled> {
        let mut moved = Moved {
            id: look.id,
            kind: look.kind,
            copy: None,
            tree: None,
        };
        if look.is_folder() {
            if !self.folders.contains_key(&look.id) && self.undoes {
                let tree = Tree::of(path, self.settle, &mut self.provenance);
                moved.tree = Some(tree.map_err(|why| why.at(path))?);
            }
            return Ok(moved);
        }
        if !look.is_regular() {
            return Ok(moved);
        }
        let found = open_path(path, false).and_then(|fd| Ok((Look::of(&fd)?, fd)));
        let handle = match found {
            Ok((now, handle)) if now.id == look.id => handle,
            Ok(_) => return Err(Obstacle::Unexpected.at(path)),
            Err(cause) => return Err(Obstacle::io("look at it", cause).at(path)),
        };
        self.provenance.track(look.id, &handle, path.parent());
        let persons = self.take_over(path, &handle, look);
        self.before_change(look);
        let file = self.provenance.track(look.id, &handle, to.parent());
        let reuse = file.owed == 0;
        if self.undoes && !self.is_new(look.id) {
            // Without a copy it can still be renamed back, as long as nobody else
            // writes to it.
            let most = self.hold_limit;
            moved.copy = self.copy(path, &handle, look, most, reuse, persons).ok();
        }
        Ok(moved)
    }

    pub(super) fn prepare_make(&mut self, path: &Path, by: Making) -> Outcome {
        match self.place(path, false)? {
            Ok(Place { path, look: None }) => Ok(Pending::Make { path, by }),
            Ok(place) => Ok(Pending::Refused(place.path)),
            Err(pending) => Ok(pending),
        }
    }

    /// `follow` is set where `from` names an open file, in `/proc`.
    pub(super) fn prepare_link(&mut self, from: &Path, to: &Path, follow: bool) -> Outcome {
        let found = open_path(from, follow).and_then(|fd| Ok((Look::of(&fd)?, fd)));
        let Ok((look, handle)) = found else {
            return Ok(Pending::Refused(from.to_owned()));
        };
        if look.is_folder() {
            return Ok(Pending::Refused(from.to_owned()));
        }
        let ours = u32::from(self.anchors.contains_key(&look.id));
        let first = look.links == ours;
        let prepared = self.prepare_make(to, Making::Link { id: look.id, first })?;
        if let Pending::Refused(_) = prepared {
            return Ok(prepared);
        }
        if look.is_regular() {
            let folder = from.parent().filter(|_| !follow);
            self.provenance.track(look.id, &handle, folder);
            self.provenance.track(look.id, &handle, to.parent());
            self.take_over(from, &handle, &look);
        }
        self.before_change(&look);
        Ok(prepared)
    }
}

fn is_full(folder: &Path) -> bool {
    fs::read_dir(folder).is_ok_and(|mut names| names.next().is_some())
}
