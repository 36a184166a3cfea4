//! Before mode, owner, times or extended attributes change: all of them are noted, and
//! what the call changed of them shows afterwards. A new time of modification alone
//! looks like a write to whoever watches the file (`fsnotify_change` in the kernel's
//! `include/linux/fsnotify.h`), so that the call is accounted for.

use std::path::{Path, PathBuf};

use super::{OldAttributes, Outcome, Pending};
use crate::Obstacle;
use crate::attributes::Attributes;
use crate::file::{Look, open_path, real_path};
use crate::journal::Journal;

impl Journal {
    pub(super) fn prepare_attributes(
        &mut self,
        path: &Path,
        follow: bool,
        extended: bool,
    ) -> Outcome {
        let found = open_path(path, follow).and_then(|fd| Ok((Look::of(&fd)?, fd)));
        let Ok((look, handle)) = found else {
            // What we may not look up, the guest may not either.
            return Ok(Pending::Refused(path.to_owned()));
        };
        let Ok(real) = real_path(&handle) else {
            // A pipe or a socket, which only the guest has.
            return Ok(Pending::Nothing);
        };
        if self.stores.contain(&real) {
            return Err(Obstacle::OwnStore.at(real));
        }
        // It goes, and its attributes with it. A folder has to be writable again for
        // what is in it to go first.
        let goes = self.is_new(look.id) && !look.is_folder();
        let before = match Attributes::of(&handle) {
            _ if goes => None,
            Ok(before) if extended && before.has_unreadable() => {
                return Err(self.unjournaled(Obstacle::Unreadable, real, look.id));
            }
            Ok(before) => Some(before),
            Err(cause) => {
                let why = Obstacle::io("read its attributes", cause);
                return Err(self.unjournaled(why, real, look.id));
            }
        };
        self.before_change(&look);
        let named = matches!(Look::at(&real, false), Ok(Some(there)) if there.id == look.id);
        if let Some(file) = self.provenance.get_mut(look.id) {
            file.calls += 1;
        }
        Ok(Pending::Attributes(Box::new(OldAttributes {
            path: real,
            id: look.id,
            handle,
            named,
            before,
        })))
    }

    pub(super) fn prepare_other(&mut self, path: Option<PathBuf>, what: &'static str) -> Outcome {
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
