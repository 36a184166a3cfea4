//! The first half of each effect: what is there before the call, and saving it. Which
//! system call it is, is the caller's knowledge; what came of it is `conclude`'s part.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD};

use crate::file::{FileId, Look, Place, locate, open_path};
use crate::journal::{Change, Journal};
use crate::store::{Copy, Saved};
use crate::{Effect, Obstacle, Unjournaled};

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
    /// writing (true) or truncates (false).
    Beyond {
        unjournaled: Unjournaled,
        writes: Option<(FileId, bool)>,
    },
    /// Something is made under a free name.
    Make { path: PathBuf, by: Making },
    /// An existing file is opened for writing, or truncated by its path.
    Write {
        id: FileId,
        opens: bool,
        change: Option<Change>,
    },
    /// A name is removed, changed or exchanged.
    Names(Change),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Making {
    Open,
    Link(FileId),
    Other,
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
        let outcome = match effect {
            Effect::OpenWrite {
                path,
                create,
                exclusive,
                truncate,
                append: _,
                follow,
            } => {
                let kind = OpenKind {
                    create,
                    exclusive,
                    truncate,
                };
                self.prepare_open(&path, kind, follow && !exclusive, &mut writes)
            }
            Effect::Truncate { path } => self.prepare_truncate(&path, &mut writes),
            Effect::Unlink { path } => self.prepare_unlink(&path),
            Effect::RemoveFolder { path } => self.prepare_remove_folder(&path),
            Effect::Rename {
                from,
                to,
                no_replace,
                exchange,
            } => self.prepare_rename(&from, &to, no_replace, exchange),
            Effect::MakeFolder { path } | Effect::MakeNode { path } => {
                self.prepare_make(&path, Making::Other)
            }
            Effect::SymbolicLink { to } => self.prepare_make(&to, Making::Other),
            Effect::Link { from, to } => self.prepare_link(&from, &to),
            Effect::Other { path, what } => self.prepare_other(path, what),
        };
        match outcome {
            Ok(pending) => Prepared {
                undoable: Ok(()),
                pending,
            },
            Err(unjournaled) => Prepared {
                undoable: Err(unjournaled.clone()),
                pending: Pending::Beyond {
                    unjournaled,
                    writes,
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

    fn prepare_open(
        &mut self,
        path: &Path,
        kind: OpenKind,
        follow: bool,
        writes: &mut Option<(FileId, bool)>,
    ) -> Outcome {
        let place = match self.place(path, follow)? {
            Ok(place) => place,
            Err(pending) => return Ok(pending),
        };
        match place.look {
            None if kind.create => Ok(Pending::Make {
                path: place.path,
                by: Making::Open,
            }),
            Some(_) if !(kind.create && kind.exclusive) => {
                let limit = if kind.truncate {
                    self.save_limit
                } else {
                    self.hold_limit
                };
                self.prepare_write(&place.path, limit, true, writes)
            }
            _ => Ok(Pending::Refused(place.path)),
        }
    }

    fn prepare_truncate(&mut self, path: &Path, writes: &mut Option<(FileId, bool)>) -> Outcome {
        match self.place(path, true)? {
            Ok(Place {
                path,
                look: Some(look),
            }) if look.is_regular() => self.prepare_write(&path, self.save_limit, false, writes),
            Ok(place) => Ok(Pending::Refused(place.path)),
            Err(pending) => Ok(pending),
        }
    }

    /// Saves the bytes of an existing regular file, unless that is not needed.
    fn prepare_write(
        &mut self,
        path: &Path,
        limit: u64,
        opens: bool,
        writes: &mut Option<(FileId, bool)>,
    ) -> Outcome {
        if is_virtual(path) {
            return Ok(Pending::Nothing);
        }
        let found = open_path(path, false).and_then(|fd| Ok((Look::of(&fd)?, fd)));
        let (look, fd) = found.map_err(|cause| Obstacle::io("look at it", cause).at(path))?;
        if !look.is_regular() {
            return Ok(Pending::Refused(path.to_owned()));
        }
        self.provenance.track(look.id, &fd, path.parent());
        self.rebase(look.id);
        let current = Some(self.current);
        let file = self.provenance.track(look.id, &fd, path.parent());
        // With the guest's other descriptions open it may have it mapped, too: then
        // the file's times say nothing.
        let reuse = file.owed == 0;
        if opens {
            file.owed += 1;
        } else {
            file.calls += 1;
        }
        *writes = Some((look.id, opens));
        let mut change = None;
        if file.birth != current && file.saved != current {
            let unwatched = file.unwatched.clone();
            let copy = match unwatched {
                Some(why) => Err(Obstacle::Unwatched(why)),
                None => self.copy(path, &fd, &look, limit, reuse),
            };
            match copy {
                Ok(copy) => {
                    change = Some(Change::Content {
                        path: path.to_owned(),
                        id: look.id,
                        copy,
                        pin: None,
                        mapped: !reuse,
                        held: false,
                    });
                }
                Err(why) => return Err(self.unjournaled(why, path.to_owned(), look.id)),
            }
        }
        Ok(Pending::Write {
            id: look.id,
            opens,
            change,
        })
    }

    /// The guest is about to act on top of what somebody else wrote. What was saved
    /// earlier is no longer what was there before the guest, and what is there now has
    /// to be saved like a file that the guest never made.
    fn rebase(&mut self, id: FileId) {
        let Some(file) = self.provenance.get_mut(id) else {
            return;
        };
        let Some(why) = file.foreign.take() else {
            return;
        };
        file.birth = None;
        file.saved = None;
        for entry in &mut self.entries {
            let about_it = match &entry.change {
                Change::Made { id: other, .. }
                | Change::Content { id: other, .. }
                | Change::Renamed { id: other, .. } => *other == id,
                Change::Exchanged { a, b } => a.1 == id || b.1 == id,
                // The name comes back with whatever the inode holds.
                Change::Removed { .. } | Change::Beyond(..) => false,
            };
            if about_it {
                entry.lost.get_or_insert(why.clone());
            }
        }
    }

    /// An obstacle that matters only to checkpoints in which the file was there.
    fn unjournaled(&self, why: Obstacle, path: PathBuf, id: FileId) -> Unjournaled {
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
                    && file.foreign.is_none()
                    && file.unwatched.is_none()
            })
    }

    /// A second name in the store for an inode that is about to lose one.
    fn save(&mut self, path: &Path, look: &Look) -> Result<Option<Saved>, Obstacle> {
        if self.is_new(look.id) {
            return Ok(None);
        }
        let to = self.stores.fresh(path, Some(look))?;
        if !self.stores.has_links(look.mount) {
            return self.save_copy(path, look, to).map(Some);
        }
        rustix::fs::linkat(CWD, path, CWD, &to, AtFlags::empty())
            .map_err(|cause| Obstacle::io("keep it by a hard link", cause))?;
        let saved = Saved { path: to };
        match Look::at(&saved.path, false) {
            Ok(Some(there)) if there.id == look.id => Ok(Some(saved)),
            _ => Err(Obstacle::Unexpected),
        }
    }

    /// Where there are no hard links, a copy does for a file that nobody holds.
    fn save_copy(&mut self, path: &Path, look: &Look, to: PathBuf) -> Result<Saved, Obstacle> {
        let step = "keep a copy of it";
        let refused = || Obstacle::io(step, io::Error::from(io::ErrorKind::Unsupported));
        let held = self.provenance.get(look.id).is_some_and(|f| f.owed > 0);
        let us = rustix::process::geteuid().as_raw();
        if !look.is_regular() || look.links > 1 || held || (us != 0 && us != look.owner.0) {
            return Err(refused());
        }
        if look.size > self.save_limit {
            return Err(Obstacle::TooLarge {
                size: look.size,
                limit: self.save_limit,
            });
        }
        let from = fs::File::open(path).map_err(|cause| Obstacle::io(step, cause))?;
        let saved = Saved { path: to.clone() };
        let second = self.stores.fresh(path, Some(look))?;
        let copy = Copy::take(&from, look, second).map_err(|cause| Obstacle::io(step, cause))?;
        fs::rename(&copy.path, &to).map_err(|cause| Obstacle::io(step, cause))?;
        Ok(saved)
    }

    fn prepare_unlink(&mut self, path: &Path) -> Outcome {
        match self.place(path, false)? {
            Ok(Place {
                path,
                look: Some(look),
            }) if !look.is_folder() => match self.save(&path, &look) {
                Ok(saved) => Ok(Pending::Names(Change::Removed {
                    path,
                    id: look.id,
                    saved,
                })),
                Err(why) => Err(self.unjournaled(why, path, look.id)),
            },
            Ok(place) => Ok(Pending::Refused(place.path)),
            Err(pending) => Ok(pending),
        }
    }

    fn prepare_remove_folder(&mut self, path: &Path) -> Outcome {
        let place = match self.place(path, false)? {
            Ok(place) => place,
            Err(pending) => return Ok(pending),
        };
        let Some(look) = place.look.filter(Look::is_folder) else {
            return Ok(Pending::Refused(place.path));
        };
        let full = fs::read_dir(&place.path).is_ok_and(|mut entries| entries.next().is_some());
        if full {
            return Ok(Pending::Refused(place.path));
        }
        if !self.is_new(look.id) {
            return Err(self.unjournaled(Obstacle::Folder, place.path, look.id));
        }
        Ok(Pending::Names(Change::Removed {
            path: place.path,
            id: look.id,
            saved: None,
        }))
    }

    fn prepare_rename(
        &mut self,
        from: &Path,
        to: &Path,
        no_replace: bool,
        exchange: bool,
    ) -> Outcome {
        let (from, to) = match (self.place(from, false)?, self.place(to, false)?) {
            (Ok(from), Ok(to)) => (from, to),
            (Err(pending), _) | (_, Err(pending)) => return Ok(pending),
        };
        let Some(moved) = from.look else {
            return Ok(Pending::Refused(from.path));
        };
        match to.look {
            Some(_) if no_replace => return Ok(Pending::Refused(to.path)),
            None if exchange => return Ok(Pending::Refused(to.path)),
            // Two names of one inode: rename(2) does nothing.
            Some(other) if other.id == moved.id => return Ok(Pending::Nothing),
            Some(other) if !exchange && other.is_folder() != moved.is_folder() => {
                return Ok(Pending::Refused(to.path));
            }
            _ => {}
        }
        self.prepare_move(&from.path, &to.path, &moved)?;
        let Some(other) = to.look else {
            return Ok(Pending::Names(Change::Renamed {
                from: from.path,
                to: to.path,
                id: moved.id,
                kind: moved.kind,
                replaced: None,
            }));
        };
        if exchange {
            self.prepare_move(&to.path, &from.path, &other)?;
            return Ok(Pending::Names(Change::Exchanged {
                a: (from.path, moved.id),
                b: (to.path, other.id),
            }));
        }
        let saved = if other.is_folder() && !self.is_new(other.id) {
            Err(Obstacle::Folder)
        } else {
            self.save(&to.path, &other)
        };
        match saved {
            Ok(saved) => Ok(Pending::Names(Change::Renamed {
                from: from.path,
                to: to.path,
                id: moved.id,
                kind: moved.kind,
                replaced: Some((other.id, saved)),
            })),
            Err(why) => Err(why.at(to.path)),
        }
    }

    /// A file is about to have another name: from now on, whoever writes to it must be
    /// known, so that an undo does not take the name away from under a person.
    fn prepare_move(&mut self, path: &Path, to: &Path, look: &Look) -> Result<(), Unjournaled> {
        if look.is_folder() {
            return if self.folders.contains_key(&look.id) {
                Ok(())
            } else {
                Err(Obstacle::Folder.at(path))
            };
        }
        if !look.is_regular() {
            return Ok(());
        }
        let found = open_path(path, false).and_then(|fd| Ok((Look::of(&fd)?, fd)));
        match found {
            Ok((now, fd)) if now.id == look.id => {
                self.provenance.track(look.id, &fd, path.parent());
                self.provenance.track(look.id, &fd, to.parent());
                self.rebase(look.id);
                Ok(())
            }
            Ok(_) => Err(Obstacle::Unexpected.at(path)),
            Err(cause) => Err(Obstacle::io("look at it", cause).at(path)),
        }
    }

    fn prepare_make(&mut self, path: &Path, by: Making) -> Outcome {
        match self.place(path, false)? {
            Ok(Place { path, look: None }) => Ok(Pending::Make { path, by }),
            Ok(place) => Ok(Pending::Refused(place.path)),
            Err(pending) => Ok(pending),
        }
    }

    fn prepare_link(&mut self, from: &Path, to: &Path) -> Outcome {
        match Look::at(from, false) {
            Ok(Some(look)) if !look.is_folder() => {
                self.prepare_move(from, to, &look)?;
                self.prepare_make(to, Making::Link(look.id))
            }
            _ => Ok(Pending::Refused(from.to_owned())),
        }
    }

    fn prepare_other(&mut self, path: Option<PathBuf>, what: &'static str) -> Outcome {
        let Some(path) = path else {
            return Err(Obstacle::Other(what).at("a file"));
        };
        match Look::at(&path, true).or_else(|_| Look::at(&path, false)) {
            Ok(Some(look)) if self.is_new(look.id) => Ok(Pending::Nothing),
            Ok(Some(look)) => Err(self.unjournaled(Obstacle::Other(what), path, look.id)),
            Ok(None) => Ok(Pending::Refused(path)),
            Err(_) => Err(Obstacle::Other(what).at(path)),
        }
    }
}

#[derive(Clone, Copy)]
struct OpenKind {
    create: bool,
    exclusive: bool,
    truncate: bool,
}

/// Whether what looks like a regular file is a face of the kernel: writing to it
/// is a command, not an effect on a file.
fn is_virtual(path: &Path) -> bool {
    const KINDS: [u64; 9] = [
        0x9fa0,      // proc
        0x6265_6572, // sysfs
        0x0027_e0eb, // cgroup
        0x6367_7270, // cgroup2
        0x6462_6720, // debugfs
        0x7472_6163, // tracefs
        0x7363_6673, // securityfs
        0xcafe_4a11, // bpf
        0x6265_6570, // configfs
    ];
    rustix::fs::statfs(path)
        .is_ok_and(|fs| u64::try_from(fs.f_type).is_ok_and(|kind| KINDS.contains(&kind)))
}
