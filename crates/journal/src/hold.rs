//! Files that the guest has open for writing at a checkpoint: writes through them are
//! not seen, so that their bytes are saved at the checkpoint itself.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::SeekFrom;

use crate::entry::Change;
use crate::file::{FileId, Look, open_path, proc_path};
use crate::journal::Journal;
use crate::store::{Copy, NoCopy, copy_to};
use crate::tracked::Tracked;
use crate::undo::is_being_written;
use crate::{Mark, Obstacle, Unjournaled};

impl Journal {
    /// At a checkpoint, right after [`Journal::mark`]: saves the length and bytes of a
    /// regular file that the guest opened for writing, since writes through it are not
    /// seen. Undoing to this mark puts them back into the same inode. Not for files
    /// that the guest inherited.
    ///
    /// `fd_path` is `/proc/PID/fd/N` (or a file in `map_files`), `path` the file's name,
    /// `mapped` whether the guest has the file mapped shared and writable by any
    /// descriptor: its times do not tell of writes through memory, so that it is always
    /// copied anew.
    ///
    /// # Errors
    /// When it is too large or cannot be copied: the checkpoint is not usable.
    pub fn hold(
        &mut self,
        mark: Mark,
        fd_path: &Path,
        path: &Path,
        mapped: bool,
    ) -> Result<(), Unjournaled> {
        self.try_hold(mark, fd_path, path, mapped)
            .map_err(|why| why.at(path))
    }

    fn try_hold(
        &mut self,
        mark: Mark,
        fd_path: &Path,
        path: &Path,
        mapped: bool,
    ) -> Result<(), Obstacle> {
        let pin = open_path(fd_path, true)
            .map_err(|cause| Obstacle::io("find a file that the guest has open", cause))?;
        let look = Look::of(&pin)
            .map_err(|cause| Obstacle::io("look at a file that the guest has open", cause))?;
        if !look.is_regular() {
            return Ok(());
        }
        let named = matches!(Look::at(path, false), Ok(Some(there)) if there.id == look.id);
        let folder = path.parent().filter(|_| named);
        let known = self.provenance.get(look.id).is_some();
        let file = self.provenance.track(look.id, &pin, folder);
        if !known {
            // Opened in a way that was not seen: its close will come all the same.
            file.owed = 1;
            self.marks.entry(mark).or_default().insert(look.id, 1);
        }
        let file = self.provenance.file(look.id);
        if file.saved >= Some(mark) || !self.undoes {
            return Ok(());
        }
        let copy = self.copy(path, &pin, &look, self.hold_limit, !mapped, false)?;
        self.push(Change::Content {
            path: path.to_owned(),
            id: look.id,
            copy,
            pin: (!named).then(|| Arc::new(pin)),
            mapped,
            held: true,
        });
        if let Some(file) = self.provenance.get_mut(look.id) {
            file.saved = Some(mark);
        }
        Ok(())
    }

    /// A copy of a file as it is, or the last one if it still is (and `reuse`). `most`
    /// bytes are copied where no blocks can be shared. `persons`: somebody else wrote
    /// them after the guest.
    pub(crate) fn copy(
        &mut self,
        path: &Path,
        fd: &OwnedFd,
        look: &Look,
        most: u64,
        reuse: bool,
        persons: bool,
    ) -> Result<Arc<Copy>, Obstacle> {
        let last = self.provenance.get(look.id).and_then(|f| f.copy.upgrade());
        if let Some(last) = last
            && reuse
            && last.is_of(look, self.settle)
        {
            return Ok(last);
        }
        let to = if persons {
            // Should we be killed, it is there for the person.
            self.stores.fresh_in_keep(path)?
        } else {
            self.stores.fresh(path, Some(look))?
        };
        let share = self.share(look.size)?;
        self.provenance.set_opens_are_ours(true);
        let from = File::open(proc_path(fd));
        self.provenance.set_opens_are_ours(false);
        let from = from.map_err(NoCopy::Io)?;
        self.with_room(|| {
            rustix::fs::seek(&from, SeekFrom::Start(0))
                .map_err(|cause| NoCopy::Io(cause.into()))?;
            copy_to(&from, look.size, &to, most)
        })?;
        let copy = Arc::new(Copy::new(to, look, persons, share));
        if let Some(file) = self.provenance.get_mut(look.id) {
            file.copy = Arc::downgrade(&copy);
        }
        Ok(copy)
    }

    /// Whether what lies under a name is what somebody else has written since this began,
    /// or since the guest had its hands on it.
    pub(crate) fn is_persons(&self, path: &Path, look: &Look) -> bool {
        if self.is_inherited(look.id) {
            return false;
        }
        let file = self.provenance.get(look.id);
        let written = file.is_some_and(|file| file.theirs || file.foreign.is_some());
        // By another name than this one, if by any.
        let guests = file.is_some_and(|file| file.birth.is_some() || file.saved.is_some());
        let since = match self.names.get(path) {
            Some(left) => *left != Some(look.id),
            None => !guests && self.is_changed_by_others(look),
        };
        written || since
    }

    /// Whether somebody else may have written to a file though the count of its closes is
    /// right.
    pub(crate) fn may_hold_others(&mut self, id: FileId, path: &Path, look: &Look) -> bool {
        let has_unknown_names = self.has_unknown_names(path, look);
        let file = self.provenance.get(id);
        file.is_some_and(|file| file.may_be_shared(has_unknown_names))
    }

    /// Finds out, where the guest is not known to have a file open for writing, whether
    /// somebody else has. If it is the guest that has it open, somebody else has closed
    /// it in its stead.
    pub(crate) fn look_for_writers(&mut self, id: FileId, path: &Path) {
        let is_open = |file: &Tracked| file.owed > 0;
        if self.is_inherited(id) || self.provenance.get(id).is_none_or(is_open) {
            return;
        }
        let shared = is_being_written(path);
        if let Some(file) = self.provenance.get_mut(id) {
            file.theirs |= shared;
            file.shared = shared;
        }
    }
}
