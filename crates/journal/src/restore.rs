//! Undoing a change of bytes: the inode stays the same, since a frozen image may hold
//! it, and gets its bytes back while nobody can reach it by its name.

use std::fs::{self, File, OpenOptions};
use std::io::ErrorKind;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::file::{FileId, Look, open_path, proc_path};
use crate::journal::Journal;
use crate::store::{Copy, exchange};
use crate::undo::{Step, Undoing, is_being_written, left, look};
use crate::{Left, Why};

impl Journal {
    /// Puts a file's bytes back into the inode that the images may hold. The copy is
    /// exchanged in first: from then on nobody reaches the inode by its name any more,
    /// and whoever looks sees the bytes that are going to be there.
    pub(crate) fn restore(
        &mut self,
        undoing: &Undoing,
        path: PathBuf,
        id: FileId,
        copy: &Copy,
        mapped: bool,
    ) -> Step {
        match look(&path)? {
            None => return Err(left(&path, Why::Removed)),
            Some(found) if found.id != id => return Err(left(&path, Why::Replaced)),
            Some(found) if !mapped && copy.is_of(&found, self.settle) => {
                // Opened and not written to.
                return match self.prove(undoing, id) {
                    Ok(()) => Ok(None),
                    Err(why) => Err(left(&path, why)),
                };
            }
            Some(_) => {}
        }
        if copy.is_spoilt() {
            let why = "its copy was written to by somebody else".into();
            return Err(left(&path, Why::Unproven(why)));
        }
        if let Err(why) = self.prove(undoing, id) {
            return Err(left(&path, why));
        }
        let here = |why| left(&path, why);
        let stand_in = open_path(&copy.path, false)
            .and_then(|fd| Ok((Look::of(&fd)?.id, fd)))
            .map_err(|cause| here(Why::io("find its copy")(cause)))?;
        let bytes =
            File::open(&copy.path).map_err(|cause| here(Why::io("open its copy")(cause)))?;
        self.provenance.track(stand_in.0, &stand_in.1, None);
        let swapped = exchange(&path, &copy.path)
            .map_err(|cause| here(Why::io("exchange it for its copy")(cause)));
        let step = swapped.and_then(|()| {
            let isolated = match Look::at(&copy.path, false) {
                Ok(Some(there)) if there.id == id => self.prove_isolated(undoing, &copy.path, id),
                _ => Err(Why::Replaced),
            };
            let written = isolated.and_then(|()| {
                self.write_back(id, &copy.path, copy, &bytes)?;
                self.prove(undoing, id)
            });
            self.swap_back(&path, copy, stand_in.0, written)
        });
        self.provenance.forget(stand_in.0);
        step.map(|()| Some(path))
    }

    /// Puts the inode back under its name, unless a person saved to the copy that
    /// stood in for it: then the person's stays.
    fn swap_back(
        &mut self,
        path: &Path,
        copy: &Copy,
        stand_in: FileId,
        written: Result<(), Why>,
    ) -> Result<(), Left> {
        let swap = |step| {
            exchange(path, &copy.path).map_err(|cause| {
                copy.spoil();
                left(path, Why::io(step)(cause))
            })
        };
        // It fails if a person has removed the copy meanwhile; that is how it stays.
        swap("exchange it for its copy again")?;
        let there = Look::at(&copy.path, false)
            .ok()
            .flatten()
            .map(|look| look.id);
        self.provenance.drain();
        let events = self.provenance.get(stand_in).map(|file| file.proven(0));
        let untouched = there == Some(stand_in)
            && matches!(events, Some(Ok(())))
            && !is_being_written(&copy.path);
        if !untouched {
            copy.spoil();
            swap("put somebody else's file back")?;
            return Err(left(path, Why::Replaced));
        }
        written.map_err(|why| left(path, why))
    }

    /// For an inode that an image holds and that had no name: nobody else can reach it.
    pub(crate) fn restore_unnamed(
        &mut self,
        undoing: &Undoing,
        path: PathBuf,
        id: FileId,
        copy: &Copy,
        pin: &OwnedFd,
    ) -> Step {
        let restored = self.prove(undoing, id).and_then(|()| {
            let bytes = File::open(&copy.path).map_err(Why::io("open its copy"))?;
            self.write_back(id, &proc_path(&pin.as_fd()), copy, &bytes)?;
            self.prove(undoing, id)
        });
        match restored {
            Ok(()) => Ok(Some(path)),
            Err(why) => Err(left(&path, why)),
        }
    }

    /// Writes a copy into the inode itself, and keeps account of our own open.
    fn write_back(
        &mut self,
        id: FileId,
        path: &Path,
        copy: &Copy,
        bytes: &File,
    ) -> Result<(), Why> {
        let file = open_to_write(path).map_err(Why::io("open it to restore it"))?;
        if let Some(tracked) = self.provenance.get_mut(id) {
            tracked.owed += 1;
        }
        let done = copy.write_into(bytes, &file);
        drop(file);
        self.provenance.drain();
        done.map_err(Why::io("write its bytes back"))
    }
}

/// Opens a file for writing, a read-only one of ours too: the guest may have written
/// to it through a descriptor that is older than the mode.
fn open_to_write(path: &Path) -> std::io::Result<File> {
    let open = || OpenOptions::new().write(true).open(path);
    match open() {
        Err(cause) if cause.kind() == ErrorKind::PermissionDenied => {
            let mode = fs::metadata(path)?.permissions();
            let mut writable = mode.clone();
            writable.set_mode(mode.mode() | 0o200);
            fs::set_permissions(path, writable)?;
            let opened = open();
            fs::set_permissions(path, mode)?;
            opened
        }
        other => other,
    }
}
