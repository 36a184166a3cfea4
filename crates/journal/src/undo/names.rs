//! Undoing changes of names: what the guest made is removed, what it removed comes
//! back, what it renamed has its old name again.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rustix::fs::FileType;

use super::{Step, Undoing, left, look};
use crate::entry::{Moved, Naming};
use crate::file::{FileId, Look, open_path};
use crate::journal::Journal;
use crate::shelf::Reason;
use crate::store::{Copy, Saved, SavedKind, begins, rename_new};
use crate::{Left, Why};

impl Journal {
    /// Removes a name that the guest made, and what it made with it.
    pub(super) fn unmake(
        &mut self,
        undoing: &Undoing,
        path: PathBuf,
        id: FileId,
        kind: FileType,
        naming: Naming,
    ) -> Step {
        let Some(found) = look(&path)? else {
            return Ok(None);
        };
        if found.id != id {
            return Err(left(&path, Why::Replaced));
        }
        if kind == FileType::Directory {
            return remove_folder(&path).map(|()| Some(path));
        }
        // Of a file that keeps another name, no bytes go with this one.
        let last_name_stays = naming == Naming::Another && !undoing.made.contains(&id);
        let regular = kind == FileType::RegularFile && !last_name_stays;
        if regular {
            self.prove(undoing, id).map_err(|why| left(&path, why))?;
        }
        let shared = regular && self.may_hold_others(id, &path, &found);
        self.before_change(&found);
        let isolated = self.isolate(&path).map_err(|why| left(&path, why))?;
        let checked = match Look::at(&isolated, false) {
            Ok(Some(there)) if there.id != id => Err(Why::Replaced),
            Ok(Some(there)) if last_name_stays && there.links < 2 => {
                // Somebody has saved another file under the name that it had before: what
                // was in it then is here alone.
                self.keep(isolated, &path, Reason::Displaced);
                return Ok(Some(path));
            }
            Ok(Some(_)) if regular => self.prove_isolated(undoing, &isolated, id),
            Ok(Some(_)) => Ok(()),
            Ok(None) => return Ok(Some(path)),
            Err(cause) => Err(Why::io("look at it again")(cause)),
        };
        if let Err(why) = checked {
            return Err(self.return_to(isolated, path, why));
        }
        if naming == Naming::First && undoing.held(id) > 0 {
            // Without a name, it could not be given one again (`vfs_link` in the
            // kernel's `fs/namei.c`).
            let anchor = self.stores.fresh(&isolated, None).ok();
            let anchor = anchor.filter(|anchor| rename_new(&isolated, anchor).is_ok());
            let anchor = Saved {
                path: anchor.unwrap_or(isolated),
                taken: SystemTime::now(),
                kind: SavedKind::Plain,
            };
            self.anchors.insert(id, anchor);
        } else if regular && shared && undoing.held(id) == 0 {
            self.keep(isolated, &path, Reason::Removed);
        } else if regular && undoing.held(id) == 0 {
            self.shelve(isolated, &path, Reason::Removed);
        } else {
            // The inode has another name, or an image has it without any.
            let handle = open_path(&isolated, false).ok();
            fs::remove_file(&isolated).map_err(|cause| {
                self.return_to(isolated, path.clone(), Why::io("remove it")(cause))
            })?;
            if let Some(look) = handle.and_then(|handle| Look::of(handle).ok()) {
                self.after_change(&look);
            }
        }
        Ok(Some(path))
    }

    /// Puts a removed name back: the same inode, from the store.
    pub(super) fn put_back(
        &mut self,
        undoing: &mut Undoing,
        path: PathBuf,
        kind: FileType,
        saved: Option<Saved>,
    ) -> Step {
        let Some(saved) = saved else {
            if kind == FileType::Directory {
                fs::create_dir(&path)
                    .map_err(|cause| left(&path, Why::io("make the folder again")(cause)))?;
            }
            undoing.gone.insert(path);
            return Ok(None);
        };
        match saved.put_at(&path) {
            Ok(()) => {
                self.stamps.put_back(&path, None, saved.is_persons());
                Ok(Some(path))
            }
            Err(cause) => {
                self.leave_saved(Some(saved), &path);
                Err(left(
                    &path,
                    match cause.kind() {
                        ErrorKind::AlreadyExists => Why::Replaced,
                        _ => Why::io("put it back")(cause),
                    },
                ))
            }
        }
    }

    /// A removed file cannot have its name back: it stays for people to find. They may
    /// not even know that it is not what lies there now.
    pub(super) fn leave_saved(&mut self, saved: Option<Saved>, path: &Path) {
        match saved {
            Some(saved)
                if matches!(saved.kind, SavedKind::Folder) || begins(&saved.readable(), path) =>
            {
                self.retire_saved(Some(saved), path);
            }
            Some(saved) => self.keep_saved(saved, path, Reason::Before),
            None => {}
        }
    }

    /// Gives what was renamed its old name. Where somebody else has written to it under
    /// its new name, that stays, and what it held before goes back under the old one.
    pub(super) fn rename_back(
        &mut self,
        undoing: &Undoing,
        to: &Path,
        from: &Path,
        moved: &Moved,
    ) -> Result<(), Left> {
        let renamed = self.try_rename_back(undoing, to, from, moved);
        if renamed.is_ok() {
            self.moved_back(from, moved);
        }
        // What the guest made after the mark is not to be there under any name.
        let is_new = undoing.made.contains(&moved.id);
        renamed.map_err(|found| match is_new {
            true => found,
            false => self.put_copy_back(from, moved, found),
        })
    }

    fn try_rename_back(
        &mut self,
        undoing: &Undoing,
        to: &Path,
        from: &Path,
        moved: &Moved,
    ) -> Result<(), Left> {
        match look(to)? {
            None => return Err(left(to, Why::Removed)),
            Some(found) if found.id != moved.id => return Err(left(to, Why::Replaced)),
            Some(_) => {}
        }
        self.prove_moved(undoing, to, moved)
            .map_err(|why| left(to, why))?;
        if moved.kind == FileType::RegularFile {
            // Under its old name already it could be taken for what a person knows there.
            let isolated = self.isolate(to).map_err(|why| left(to, why))?;
            if let Err(why) = self.prove_out(undoing, &isolated, moved) {
                return Err(self.return_to(isolated, to.to_owned(), why));
            }
            return match rename_new(&isolated, from) {
                Ok(()) => Ok(()),
                Err(cause) if cause.kind() == ErrorKind::AlreadyExists => {
                    // Somebody has made another one there, which stays.
                    self.keep(isolated, from, Reason::Displaced);
                    Ok(())
                }
                Err(_) => {
                    let found = self.return_to(isolated, to.to_owned(), Why::Replaced);
                    Err(match found.why {
                        Why::Replaced => left(from, Why::Replaced),
                        _ => found,
                    })
                }
            };
        }
        rename_new(to, from).map_err(|cause| match cause.kind() {
            ErrorKind::AlreadyExists => left(from, Why::Replaced),
            ErrorKind::NotFound => left(to, Why::Removed),
            _ => left(to, Why::io("rename it back")(cause)),
        })?;
        match self.prove_out(undoing, from, moved) {
            Ok(()) => Ok(()),
            Err(why) => Err(self.return_to(from.to_owned(), to.to_owned(), why)),
        }
    }

    /// Whether what was taken from its name is what it was taken for, and the guest's.
    pub(super) fn prove_out(
        &mut self,
        undoing: &Undoing,
        at: &Path,
        moved: &Moved,
    ) -> Result<(), Why> {
        match Look::at(at, false) {
            Ok(Some(there)) if there.id == moved.id => self.prove_moved(undoing, at, moved),
            _ => Err(Why::Replaced),
        }
    }

    /// What an undo has given its old name is whose it was.
    pub(super) fn moved_back(&mut self, path: &Path, moved: &Moved) {
        let persons = moved.copy.as_ref().is_some_and(|copy| copy.persons);
        self.stamps.put_back(path, Some(moved.id), persons);
    }

    fn put_copy_back(&mut self, from: &Path, moved: &Moved, found: Left) -> Left {
        let Some(copy) = &moved.copy else {
            return found;
        };
        let made = matches!(Look::at(from, false), Ok(None)) && self.make_again(from, copy).is_ok();
        if !made && !begins(&copy.path, from) {
            // They may not even know that the guest has moved it.
            self.keep_copy(copy, from, Reason::Before);
        }
        found
    }

    /// Makes a file that lost its bytes to a person's save anew.
    pub(super) fn make_again(&mut self, path: &Path, copy: &Copy) -> Result<(), Why> {
        let step = "make it anew";
        let fresh = self.stores.fresh_in_keep(path).map_err(Why::Unjournaled)?;
        self.with_room(|| copy.put_at(&fresh))
            .map_err(|cause| Why::Unjournaled(cause.into()))?;
        let made = open_path(&fresh, false)
            .and_then(|handle| copy.look.lend_to(&handle))
            .and_then(|()| rename_new(&fresh, path));
        made.map_err(|cause| {
            let _ = fs::remove_file(&fresh);
            Why::io(step)(cause)
        })
    }

    /// A file's name changes with all that it holds: if a person has put bytes there,
    /// they are to be found where the person put them.
    pub(super) fn prove_moved(
        &mut self,
        undoing: &Undoing,
        path: &Path,
        moved: &Moved,
    ) -> Result<(), Why> {
        match moved.kind {
            FileType::RegularFile => self.prove_isolated(undoing, path, moved.id),
            FileType::Directory => self.prove_folder(undoing, path, moved.tree.as_ref()),
            _ => Ok(()),
        }
    }

    /// Puts somebody else's file back where it was. If even that name is taken by now,
    /// it stays out of its place, and people are told.
    pub(super) fn return_to(&mut self, from: PathBuf, path: PathBuf, why: Why) -> Left {
        match rename_new(&from, &path) {
            Ok(()) => Left { path, why },
            Err(cause) if cause.kind() == ErrorKind::AlreadyExists => {
                let found = left(
                    &from,
                    Why::Displaced {
                        taken: path.clone(),
                    },
                );
                self.keep(from, &path, Reason::Displaced);
                found
            }
            Err(cause) => {
                let found = left(&from, Why::io("put it back")(cause));
                self.keep(from, &path, Reason::Displaced);
                found
            }
        }
    }
}

/// It comes to the making of what the guest removed again.
pub(super) fn remove_gone(path: &Path, kind: FileType) -> Result<(), Left> {
    match look(path)? {
        None => Ok(()),
        Some(_) if kind == FileType::Directory => remove_folder(path),
        Some(_) => Err(left(path, Why::Replaced)),
    }
}

/// Something had another name when the guest removed it.
pub(super) fn move_gone(to: &Path, from: &Path, kind: FileType) -> Result<(), Left> {
    if kind == FileType::Directory {
        rename_new(to, from).map_err(|cause| left(to, Why::io("rename it back")(cause)))?;
    }
    Ok(())
}

fn remove_folder(path: &Path) -> Result<(), Left> {
    fs::remove_dir(path).map_err(|cause| match cause.kind() {
        ErrorKind::DirectoryNotEmpty => left(path, Why::NotEmpty),
        _ => left(path, Why::io("remove the folder")(cause)),
    })
}
