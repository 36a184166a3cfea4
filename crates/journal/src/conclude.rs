//! The second half of each effect: what is written into the log once the call has
//! returned. What was there before is `prepare`'s part.

use std::path::{Path, PathBuf};

use crate::attributes::Attributes;
use crate::entry::{Change, Naming};
use crate::file::{FileId, Look, open_path};
use crate::journal::Journal;
use crate::prepare::{Making, OldAttributes, Pending};
use crate::tracked::Opening;
use crate::{Obstacle, Unjournaled, Why};

/// How a call ended.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// It did what it was to do.
    Done,
    /// It did nothing.
    Failed,
    /// The task was killed in it: nobody knows. With the process.
    CutOff(Option<u32>),
}

impl Journal {
    /// Writes down what has happened.
    pub(crate) fn conclude(&mut self, pending: Pending, end: End) -> Result<(), Unjournaled> {
        let succeeded = end != End::Failed;
        match pending {
            Pending::Nothing => Ok(()),
            Pending::Refused(path) if succeeded => Err(Obstacle::Unexpected.at(path)),
            Pending::Refused(_) => Ok(()),
            Pending::Beyond {
                unjournaled,
                writes,
                only_attributes,
            } => {
                if let Some((id, opening)) = writes {
                    self.conclude_write(id, opening, None, end);
                }
                if succeeded {
                    self.push_beyond(unjournaled, only_attributes);
                }
                Ok(())
            }
            Pending::Make { path, by } if succeeded => self.conclude_make(path, by, end),
            Pending::Write {
                path,
                id,
                opening,
                change,
            } => {
                self.conclude_write(id, opening, change.filter(|_| succeeded), end);
                if succeeded && !self.undoes {
                    self.names.insert(path, Some(id));
                }
                Ok(())
            }
            Pending::Names { change, lent } => self.conclude_names(change, lent, succeeded),
            Pending::Attributes(old) => self.conclude_attributes(*old, succeeded),
            Pending::Make { .. } => Ok(()),
        }
    }

    fn conclude_write(
        &mut self,
        id: FileId,
        opening: Option<Opening>,
        change: Option<Change>,
        end: End,
    ) {
        if let (End::CutOff(Some(process)), Some(opening)) = (end, opening) {
            self.provenance.cut_off(process, id, opening);
        }
        if let Some(file) = self.provenance.get_mut(id) {
            if opening.is_some() {
                file.end_open(end != End::Failed);
            } else {
                file.calls = file.calls.saturating_sub(1);
            }
            if change.is_some() {
                file.saved = Some(self.current);
                file.theirs = false;
            }
        }
        if let Some(change) = change {
            self.push(change);
        }
    }

    fn conclude_make(&mut self, path: PathBuf, by: Making, end: End) -> Result<(), Unjournaled> {
        let found = open_path(&path, false).and_then(|fd| Ok((Look::of(&fd)?, fd)));
        let Ok((look, fd)) = found else {
            // Gone again already, by another of the guest's threads or by somebody else.
            return Ok(());
        };
        let current = self.current;
        let mut naming = Naming::New;
        match by {
            Making::Link { id, .. } if id != look.id => {
                return Err(Obstacle::Unexpected.at(path));
            }
            Making::Link { first: true, id } => {
                self.anchors.remove(&id);
                naming = Naming::First;
            }
            Making::Link { first: false, .. } => {
                self.after_change(&look);
                naming = Naming::Another;
            }
            Making::Open if !look.is_regular() => return Ok(()),
            Making::Open => {
                let known = self.provenance.get(look.id).is_some();
                self.provenance.track(look.id, &fd, path.parent());
                let opening = self.provenance.file(look.id).opened();
                if let End::CutOff(Some(process)) = end {
                    self.provenance.cut_off(process, look.id, opening);
                }
                let file = self.provenance.file(look.id);
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
            Making::Other => {}
        }
        let unwatched = self
            .provenance
            .get(look.id)
            .and_then(|f| f.unwatched.clone());
        self.push(Change::Made {
            path: path.clone(),
            id: look.id,
            kind: look.kind,
            naming,
        });
        match unwatched {
            Some(why) if by == Making::Open => Err(Obstacle::Unwatched(why).at(path)),
            _ => Ok(()),
        }
    }

    /// The guest has opened a new file that has no name (`O_TMPFILE`), and it is stopped
    /// after that. `fd_path` is `/proc/PID/fd/N`. It may get a name later.
    pub fn opened_nameless(&mut self, fd_path: &Path) {
        let Ok(handle) = open_path(fd_path, true) else {
            return;
        };
        let Ok(look) = Look::of(&handle) else {
            return;
        };
        if look.is_regular() {
            self.provenance.track(look.id, &handle, None);
            let file = self.provenance.file(look.id);
            file.opened();
            file.birth.get_or_insert(self.current);
        }
    }

    fn conclude_names(
        &mut self,
        change: Change,
        lent: Option<FileId>,
        succeeded: bool,
    ) -> Result<(), Unjournaled> {
        let there = |path: &Path| Look::at(path, false).ok().flatten().map(|look| look.id);
        // A task that died in its call leaves open whether the call was made.
        let happened = match &change {
            Change::Removed { path, id, .. } => there(path) != Some(lent.unwrap_or(*id)),
            Change::Renamed { from, moved, .. } => there(from) != Some(moved.id),
            Change::Exchanged { a, .. } => there(&a.0) != Some(a.1.id),
            _ => true,
        };
        if happened && succeeded {
            self.after_names_changed(&change);
            self.push(change);
            return Ok(());
        }
        let back = match (lent, change) {
            (Some(_), Change::Removed { path, saved, .. }) => saved.map(|saved| (path, saved)),
            (Some(_), Change::Renamed { to, replaced, .. }) => replaced
                .and_then(|(_, saved)| saved)
                .map(|saved| (to, saved)),
            (_, change) => {
                // What was saved for it goes as it is dropped.
                let path = change.saved().map(|_| change.path().to_owned());
                drop(change);
                if let Some(look) = path.and_then(|path| Look::at(&path, false).ok()?) {
                    self.after_change(&look);
                }
                None
            }
        };
        match back {
            Some((path, saved)) => self
                .take_twin_back(&path, saved)
                .map_err(|why| why.at(path)),
            None => Ok(()),
        }
    }

    fn conclude_attributes(
        &mut self,
        old: OldAttributes,
        succeeded: bool,
    ) -> Result<(), Unjournaled> {
        let OldAttributes {
            path,
            id,
            handle,
            named,
            before,
        } = old;
        if let Some(file) = self.provenance.get_mut(id) {
            file.calls = file.calls.saturating_sub(1);
        }
        if let Ok(look) = Look::of(&handle) {
            self.after_change(&look);
        }
        let Some(before) = before.filter(|_| succeeded) else {
            return Ok(());
        };
        let after = match Attributes::of(&handle) {
            Ok(after) => after,
            Err(cause) => {
                let why = Obstacle::io("read its attributes", cause);
                return Err(self.unjournaled(why, path, id));
            }
        };
        if !before.are(&after) {
            self.push(Change::Attributes {
                path,
                id,
                before: Box::new(before),
                after: Box::new(after),
                pin: (!named).then_some(handle),
            });
        }
        Ok(())
    }
}
