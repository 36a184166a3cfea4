//! The second half of each effect: what is written into the log once the call has
//! returned. What was there before is `prepare`'s part.

use std::path::{Path, PathBuf};

use crate::file::{FileId, Look, open_path};
use crate::journal::{Change, Journal};
use crate::prepare::{Making, Pending};
use crate::{Obstacle, Unjournaled, Why};

impl Journal {
    /// Writes down what has happened.
    pub(crate) fn conclude(
        &mut self,
        pending: Pending,
        succeeded: bool,
    ) -> Result<(), Unjournaled> {
        match pending {
            Pending::Nothing => Ok(()),
            Pending::Refused(path) if succeeded => Err(Obstacle::Unexpected.at(path)),
            Pending::Refused(_) => Ok(()),
            Pending::Beyond {
                unjournaled,
                writes,
            } => {
                if let Some((id, opens)) = writes {
                    self.conclude_write(id, opens, None, succeeded);
                }
                if succeeded {
                    self.push_beyond(unjournaled);
                }
                Ok(())
            }
            Pending::Make { path, by } if succeeded => self.conclude_make(path, by),
            Pending::Write { id, opens, change } => {
                self.conclude_write(id, opens, change.filter(|_| succeeded), succeeded);
                Ok(())
            }
            Pending::Names(change) if succeeded => {
                self.conclude_names(change);
                Ok(())
            }
            // What was saved for it goes as it is dropped.
            Pending::Make { .. } | Pending::Names(_) => Ok(()),
        }
    }

    fn conclude_write(&mut self, id: FileId, opens: bool, change: Option<Change>, done: bool) {
        if let Some(file) = self.provenance.get_mut(id) {
            if !opens {
                file.calls = file.calls.saturating_sub(1);
            } else if !done {
                file.owed = file.owed.saturating_sub(1);
            }
            if change.is_some() {
                file.saved = Some(self.current);
            }
        }
        if let Some(change) = change {
            self.push(change);
        }
    }

    fn conclude_make(&mut self, path: PathBuf, by: Making) -> Result<(), Unjournaled> {
        let found = open_path(&path, false).and_then(|fd| Ok((Look::of(&fd)?, fd)));
        let Ok((look, fd)) = found else {
            // Gone again already, by another of the guest's threads or by somebody else.
            return Ok(());
        };
        let current = self.current;
        match by {
            Making::Link(id) if id != look.id => return Err(Obstacle::Unexpected.at(path)),
            Making::Open if !look.is_regular() => return Ok(()),
            Making::Open => {
                let known = self.provenance.get(look.id).is_some();
                let file = self.provenance.track(look.id, &fd, path.parent());
                file.owed += 1;
                if known {
                    // Another of the guest's threads made it at the same time.
                    return Ok(());
                }
                file.birth = Some(current);
                if look.size > 0 {
                    // Nobody of the guest's can have written yet.
                    file.foreign = Some(Why::Written);
                }
            }
            Making::Other if look.is_folder() => {
                self.folders.insert(look.id, current);
            }
            Making::Other if look.is_regular() => {
                let file = self.provenance.track(look.id, &fd, path.parent());
                file.birth = Some(current);
            }
            Making::Link(_) | Making::Other => {}
        }
        let unwatched = self
            .provenance
            .get(look.id)
            .and_then(|f| f.unwatched.clone());
        self.push(Change::Made {
            path: path.clone(),
            id: look.id,
            kind: look.kind,
            linked: matches!(by, Making::Link(_)),
        });
        match unwatched {
            Some(why) if by == Making::Open => Err(Obstacle::Unwatched(why).at(path)),
            _ => Ok(()),
        }
    }

    fn conclude_names(&mut self, change: Change) {
        let there = |path: &Path| Look::at(path, false).ok().flatten().map(|look| look.id);
        // A task that died in its call leaves open whether the call was made.
        let happened = match &change {
            Change::Removed { path, id, .. } => there(path) != Some(*id),
            Change::Renamed { from, id, .. } => there(from) != Some(*id),
            Change::Exchanged { a, .. } => there(&a.0) != Some(a.1),
            Change::Made { .. } | Change::Content { .. } | Change::Beyond(..) => true,
        };
        if happened {
            self.push(change);
        }
    }
}
