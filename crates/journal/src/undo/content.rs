//! Undoing a change of bytes: the inode stays the same, since a frozen image may hold
//! it. While it gets its bytes back everybody else is kept out of it by a lease, by
//! whatever name they open it. Where there is none to be had, since somebody reads the
//! file or an image has it mapped, a twin of what is going to be there stands in for it,
//! and nobody gets to the file by its name.

use std::fs::{self, File, OpenOptions};
use std::io::ErrorKind;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::{Step, Undoing, is_being_written, left, look};
use crate::attributes::Attributes;
use crate::file::{FileId, Look, open_path, proc_path};
use crate::journal::Journal;
use crate::shelf::Reason;
use crate::store::{Copy, exchange};
use crate::sys::keep_out_others;
use crate::writers::others_write;
use crate::{Left, Why};

impl Journal {
    /// Puts a file's bytes back into the inode that the images may hold.
    pub(super) fn restore(
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
        self.prove(undoing, id).map_err(|why| left(&path, why))?;
        let here = |why| left(&path, why);
        let file = open_to_write(&path, libc::O_NOFOLLOW)
            .map_err(|cause| here(Why::io("open it to restore it")(cause)))?;
        if Look::of(&file).is_ok_and(|there| there.id != id) {
            return Err(here(Why::Replaced));
        }
        if !keep_out_others(file.as_fd()) {
            self.provenance.owe_our_own(id);
            drop(file);
            return self.restore_isolated(undoing, path, id, copy);
        }
        // All events of others have come: `__fput` in `fs/file_table.c` tells of a close
        // before the file stops to count as open.
        match self.prove(undoing, id) {
            Ok(()) => self.write_back(undoing, id, &path, copy, file, true),
            Err(why) => {
                self.provenance.owe_our_own(id);
                drop(file);
                Err(why)
            }
        }
        .map_err(here)?;
        Ok(Some(path))
    }

    fn restore_isolated(
        &mut self,
        undoing: &Undoing,
        path: PathBuf,
        id: FileId,
        copy: &Copy,
    ) -> Step {
        let here = |why| left(&path, why);
        let (twin, stand_in) = self.make_twin(&path, id, copy).map_err(here)?;
        let swapped = exchange(&path, &twin)
            .map_err(|cause| left(&path, Why::io("exchange it for its copy")(cause)));
        let step = swapped.and_then(|()| {
            let isolated = match Look::at(&twin, false) {
                Ok(Some(there)) if there.id == id => self.prove_isolated(undoing, &twin, id),
                _ => Err(Why::Replaced),
            };
            let written = isolated.and_then(|()| {
                let file = open_to_write(&twin, libc::O_NOFOLLOW)
                    .map_err(Why::io("open it to restore it"))?;
                self.write_back(undoing, id, &path, copy, file, false)
            });
            self.swap_back(&path, &twin, stand_in, written)
        });
        match step {
            Ok(()) => {
                // Somebody may have looked it up when it stood in, and write to it yet.
                self.shelve(twin, &path, Reason::StoodIn);
                Ok(Some(path))
            }
            Err(found) => {
                self.put_twin_away(twin, &path, stand_in);
                Err(found)
            }
        }
    }

    /// A file that looks like another one, with the bytes that are going to be in it.
    fn make_twin(
        &mut self,
        path: &Path,
        id: FileId,
        copy: &Copy,
    ) -> Result<(PathBuf, FileId), Why> {
        let twin = self.stores.fresh_in_keep(path).map_err(Why::Unjournaled)?;
        self.with_room(|| copy.put_at(&twin))
            .map_err(|cause| Why::Unjournaled(cause.into()))?;
        let made = open_path(path, false).and_then(|original| {
            let attributes = Attributes::of(&original)?;
            let handle = open_path(&twin, false)?;
            if attributes.look.id == id {
                attributes.lend_to(&handle)?;
            }
            copy.look.lend_to(&handle)?;
            Ok((Look::of(&handle)?.id, handle))
        });
        match made {
            Ok((stand_in, handle)) => {
                self.provenance.track(stand_in, &handle, None);
                Ok((twin, stand_in))
            }
            Err(cause) => {
                let _ = fs::remove_file(&twin);
                Err(Why::io("make a twin of it")(cause))
            }
        }
    }

    /// Puts the inode back under its name, unless a person saved to the twin that stood
    /// in for it: then the person's stays.
    fn swap_back(
        &mut self,
        path: &Path,
        twin: &Path,
        stand_in: FileId,
        written: Result<(), Why>,
    ) -> Result<(), Left> {
        let swap = |step| exchange(path, twin).map_err(|cause| left(path, Why::io(step)(cause)));
        // It fails if a person has removed the twin meanwhile; that is how it stays.
        swap("exchange it for its copy again")?;
        if !self.is_untouched(twin, stand_in) {
            swap("put somebody else's file back")?;
            return Err(left(path, Why::Replaced));
        }
        written.map_err(|why| left(path, why))
    }

    fn is_untouched(&mut self, twin: &Path, stand_in: FileId) -> bool {
        let there = Look::at(twin, false).ok().flatten();
        self.provenance.drain();
        let events = self.provenance.get(stand_in).map(|file| file.proven(0));
        there.is_some_and(|look| look.id == stand_in)
            && matches!(events, Some(Ok(())))
            && !is_being_written(twin)
    }

    /// What lies at a twin's name after a failure: the twin, or what it stood in for.
    fn put_twin_away(&mut self, twin: PathBuf, path: &Path, stand_in: FileId) {
        if self.is_untouched(&twin, stand_in) {
            self.shelve(twin, path, Reason::StoodIn);
        } else if matches!(Look::at(&twin, false), Ok(Some(_))) {
            self.keep(twin, path, Reason::Displaced);
        }
    }

    /// For an inode that an image holds and that had no name: nobody else can reach it.
    pub(super) fn restore_unnamed(
        &mut self,
        undoing: &Undoing,
        path: PathBuf,
        id: FileId,
        copy: &Copy,
        pin: &OwnedFd,
    ) -> Step {
        let restored = self.prove(undoing, id).and_then(|()| {
            let file = open_to_write(&proc_path(&pin.as_fd()), 0)
                .map_err(Why::io("open it to restore it"))?;
            self.write_back(undoing, id, &path, copy, file, false)
        });
        match restored {
            Ok(()) => Ok(Some(path)),
            Err(why) => Err(left(&path, why)),
        }
    }

    /// Writes a copy into the inode itself, after setting aside what it holds. With the
    /// file a lease on it ends (`alone`).
    fn write_back(
        &mut self,
        undoing: &Undoing,
        id: FileId,
        path: &Path,
        copy: &Copy,
        file: File,
        alone: bool,
    ) -> Result<(), Why> {
        let aside = self.set_aside(&file, path);
        // What we write and close gives events, too.
        let held = undoing.held(id);
        self.provenance.owe_our_own(id);
        let shared = self.may_be_shared(undoing, id, path, &file);
        if shared && aside.is_none() && Look::of(&file).is_ok_and(|look| look.size > 0) {
            return Err(Why::Open);
        }
        let mut written = self
            .with_room(|| copy.write_into(&file))
            .map_err(Why::io("write its bytes back"))
            .and_then(|()| self.proven(id, held + 1));
        drop(file);
        if !alone {
            // With a lease, whoever writes from here on writes to what is back.
            written = written.and_then(|()| self.proven(id, held));
        }
        if written.is_ok()
            && let Some(file) = self.provenance.get_mut(id)
        {
            file.settle();
        }
        match (aside, &written) {
            (Some(aside), Ok(())) if !shared => self.shelve_aside(aside),
            (Some(aside), _) => self.keep_aside(aside),
            (None, _) => {}
        }
        written
    }

    /// Whether somebody else may have written to a file that is about to get its bytes
    /// back, though the count of its closes is right.
    fn may_be_shared(&mut self, undoing: &Undoing, id: FileId, path: &Path, open: &File) -> bool {
        // By a descriptor that they have not closed, they write without a trace as long
        // as an image has one, too.
        let held = undoing.held(id) > 0 && others_write(id);
        let look = Look::of(open);
        let others = look.is_ok_and(|look| self.may_hold_others(id, path, &look));
        let file = self.provenance.get(id);
        others || held || undoing.held(id) > 0 && file.is_some_and(|file| file.shared)
    }
}

/// Opens a file for reading and writing, a read-only one of ours too: the guest may have
/// written to it through a descriptor that is older than the mode.
fn open_to_write(path: &Path, flags: i32) -> std::io::Result<File> {
    let open = || {
        let mut options = OpenOptions::new();
        options.read(true).write(true);
        options.custom_flags(flags | libc::O_NONBLOCK | libc::O_CLOEXEC);
        options.open(path)
    };
    match open() {
        Err(cause) if cause.kind() == ErrorKind::PermissionDenied => {
            let mode = fs::metadata(path)?.permissions();
            let mut writable = mode.clone();
            writable.set_mode(mode.mode() | 0o600);
            fs::set_permissions(path, writable)?;
            let opened = open();
            fs::set_permissions(path, mode)?;
            opened
        }
        other => other,
    }
}
