//! Before a folder goes that was there before, by `rmdir` or under a rename: it is taken
//! out of the way, and an empty twin of it lies there for the call to remove. So the
//! inode survives, and with it every image's working folder and open descriptor of it.
//!
//! Not where a process of the guest itself has the folder open or stands in it: there it
//! would not see that the folder is gone.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::time::SystemTime;

use crate::Obstacle;
use crate::attributes::Attributes;
use crate::file::{FileId, Look, open_path};
use crate::journal::Journal;
use crate::store::{Saved, SavedKind, exchange, rename_new};

impl Journal {
    /// Takes an empty folder out of the way. Answers where it is, and what lies in its
    /// place.
    pub(super) fn lend_twin(
        &mut self,
        path: &Path,
        look: &Look,
        in_use: bool,
    ) -> Result<(Saved, FileId), Obstacle> {
        if in_use {
            return Err(Obstacle::InUse);
        }
        // This finds out whether it is a mount of its own. Somebody may stand in it: where
        // it goes, it can still be found should we be killed.
        self.stores.fresh(path, Some(look))?;
        let to = self.stores.fresh_in_keep(path)?;
        let step = |step| move |cause| Obstacle::io(step, cause);
        let handle = open_path(path, false).map_err(step("look at the folder"))?;
        let attributes = Attributes::of(&handle).map_err(step("look at the folder"))?;
        fs::create_dir(&to).map_err(step("make a twin of the folder"))?;
        let twin = open_path(&to, false).and_then(|twin| {
            attributes.lend_to(&twin)?;
            Ok(Look::of(&twin)?.id)
        });
        let lent = twin.and_then(|twin| {
            exchange(path, &to)?;
            Ok(twin)
        });
        let twin = lent.map_err(|cause| {
            let _ = fs::remove_dir(&to);
            Obstacle::io("put a twin of the folder in its place", cause)
        })?;
        let saved = Saved {
            path: to,
            taken: SystemTime::now(),
            kind: SavedKind::Folder,
        };
        let out = Look::at(&saved.path, false).ok().flatten();
        let empty = fs::read_dir(&saved.path).is_ok_and(|mut names| names.next().is_none());
        if out.is_none_or(|out| out.id != look.id) || !empty {
            // Somebody was faster; the call will fail, or be about another folder.
            self.take_twin_back(path, saved)?;
            return Err(Obstacle::Unexpected);
        }
        Ok((saved, twin))
    }

    /// The call that was to remove a twin has failed: the folder itself lies there
    /// again, with what somebody has put into the twin meanwhile.
    pub(crate) fn take_twin_back(&mut self, path: &Path, saved: Saved) -> Result<(), Obstacle> {
        match exchange(path, &saved.path) {
            Ok(()) => {}
            // Somebody else has removed it.
            Err(cause) if cause.kind() == ErrorKind::NotFound => return Ok(()),
            Err(cause) => return Err(Obstacle::io("put the folder back in its place", cause)),
        }
        for name in fs::read_dir(&saved.path).into_iter().flatten().flatten() {
            // Nobody can have made the same name in both.
            let _ = rename_new(&name.path(), &path.join(name.file_name()));
        }
        // What could not be moved stays, for people to find.
        self.retire_saved(Some(saved), path);
        Ok(())
    }
}
