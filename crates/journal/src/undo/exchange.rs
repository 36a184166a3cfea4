//! Undoing an exchange of two names (`RENAME_EXCHANGE`). Where somebody else has written
//! to one of the two since, that one stays, and the other name gets back what it had.

use std::path::{Path, PathBuf};

use rustix::fs::FileType;

use super::{Step, Undoing, left, look};
use crate::entry::Moved;
use crate::journal::Journal;
use crate::shelf::Reason;
use crate::store::{begins, exchange};
use crate::{Left, Why};

impl Journal {
    pub(super) fn exchange_back(
        &mut self,
        undoing: &mut Undoing,
        a: (PathBuf, Moved),
        b: (PathBuf, Moved),
    ) -> Step {
        // What lies at the one name now is what lay at the other.
        let (a_gone, b_gone) = (undoing.gone.remove(&a.0), undoing.gone.remove(&b.0));
        if a_gone || b_gone {
            for (gone, path) in [(a_gone, &b.0), (b_gone, &a.0)] {
                if gone {
                    undoing.gone.insert(path.clone());
                }
            }
            let a_lies = !a_gone || b.1.kind == FileType::Directory;
            let b_lies = !b_gone || a.1.kind == FileType::Directory;
            return match (a_lies, b_lies) {
                (true, true) => exchange(&a.0, &b.0)
                    .map(|()| Some(a.0.clone()))
                    .map_err(|cause| left(&a.0, Why::io("exchange the names back")(cause))),
                (true, false) => self
                    .rename_back(undoing, &a.0, &b.0, &b.1)
                    .map(|()| Some(b.0)),
                (false, true) => self
                    .rename_back(undoing, &b.0, &a.0, &a.1)
                    .map(|()| Some(a.0)),
                (false, false) => Ok(None),
            };
        }
        let first = self.prove_exchanged(undoing, &a, &b);
        if let Err(found) = first {
            self.leave_exchanged(undoing, &a, &b);
            return Err(found);
        }
        let files = a.1.kind == FileType::RegularFile && b.1.kind == FileType::RegularFile;
        let exchanged = if files {
            self.exchange_files(undoing, &a, &b)
        } else {
            self.exchange_in_place(undoing, &a, &b)
        };
        match exchanged {
            Ok(()) => {
                self.moved_back(&a.0, &a.1);
                self.moved_back(&b.0, &b.1);
                Ok(Some(a.0))
            }
            Err(found) => {
                self.leave_exchanged(undoing, &a, &b);
                Err(found)
            }
        }
    }

    /// Exchanges two files while nobody gets to them by their names.
    fn exchange_files(
        &mut self,
        undoing: &Undoing,
        a: &(PathBuf, Moved),
        b: &(PathBuf, Moved),
    ) -> Result<(), Left> {
        let from_a = self.isolate(&a.0).map_err(|why| left(&a.0, why))?;
        let from_b = match self.isolate(&b.0) {
            Ok(isolated) => isolated,
            Err(why) => {
                self.return_to(from_a, a.0.clone(), Why::Replaced);
                return Err(left(&b.0, why));
            }
        };
        let proven = self
            .prove_out(undoing, &from_a, &b.1)
            .map_err(|why| left(&a.0, why))
            .and_then(|()| {
                self.prove_out(undoing, &from_b, &a.1)
                    .map_err(|why| left(&b.0, why))
            });
        let (to_a, to_b) = match &proven {
            Ok(()) => (from_b, from_a),
            Err(_) => (from_a, from_b),
        };
        // Where somebody has made a file meanwhile, that stays.
        let put = [(to_a, &a.0), (to_b, &b.0)]
            .map(|(isolated, path)| self.return_to(isolated, path.clone(), Why::Replaced));
        proven?;
        match put
            .into_iter()
            .find(|put| matches!(put.why, Why::Displaced { .. } | Why::Io { .. }))
        {
            Some(displaced) => Err(displaced),
            None => Ok(()),
        }
    }

    /// The same of anything else.
    fn exchange_in_place(
        &mut self,
        undoing: &Undoing,
        a: &(PathBuf, Moved),
        b: &(PathBuf, Moved),
    ) -> Result<(), Left> {
        exchange(&a.0, &b.0)
            .map_err(|cause| left(&a.0, Why::io("exchange the names back")(cause)))?;
        let checked = self
            .prove_one(undoing, &a.0, &a.1)
            .and_then(|()| self.prove_one(undoing, &b.0, &b.1));
        checked.or_else(|found| {
            exchange(&a.0, &b.0)
                .map_err(|cause| left(&a.0, Why::io("exchange the names again")(cause)))?;
            Err(found)
        })
    }

    /// Whether each lies under the other's name, as the guest left it.
    fn prove_exchanged(
        &mut self,
        undoing: &Undoing,
        a: &(PathBuf, Moved),
        b: &(PathBuf, Moved),
    ) -> Result<(), Left> {
        self.prove_one(undoing, &a.0, &b.1)?;
        self.prove_one(undoing, &b.0, &a.1)
    }

    fn prove_one(&mut self, undoing: &Undoing, path: &Path, moved: &Moved) -> Result<(), Left> {
        match look(path)? {
            None => Err(left(path, Why::Removed)),
            Some(found) if found.id != moved.id => Err(left(path, Why::Replaced)),
            Some(_) => self
                .prove_moved(undoing, path, moved)
                .map_err(|why| left(path, why)),
        }
    }

    /// Somebody else has written to one of two files that the guest exchanged: that one
    /// stays, and the other name gets back what it had, which lies here no more.
    fn leave_exchanged(&mut self, undoing: &Undoing, a: &(PathBuf, Moved), b: &(PathBuf, Moved)) {
        let by_others = [(a, b), (b, a)].map(|((path, _), (_, is))| {
            // The one lies where the other did.
            self.prove_one(undoing, path, is).is_err()
        });
        for (by_others, (_, was), (other, is)) in [(by_others[0], a, b), (by_others[1], b, a)] {
            let Some(copy) = is.copy.as_ref().filter(|_| by_others) else {
                continue;
            };
            // The other name has what was here, and it is the guest's doing that it has.
            if self.prove_one(undoing, other, was).is_ok()
                && let Ok(isolated) = self.isolate(other)
            {
                match self.make_again(other, copy) {
                    Ok(()) => self.keep(isolated, other, Reason::Displaced),
                    Err(why) => drop(self.return_to(isolated, other.clone(), why)),
                }
            }
            if !begins(&copy.path, other) {
                // They may not even know that the guest has moved it.
                self.keep_copy(copy, other, Reason::Before);
            }
        }
    }
}
