//! Undoing: from the last effect back to a mark. Each step first makes sure that what
//! it finds is what the guest left, takes it out of reach of others, makes sure once
//! more, and puts it back if a person was faster. What it cannot prove to be the guest's
//! stays where it is. This file goes through the entries; how one kind is undone stands
//! in the file named after it.

mod attributes;
mod content;
mod exchange;
mod names;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fs::OpenOptions;
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::entry::{Change, Entry, Naming};
use crate::file::{FileId, Look};
use crate::journal::Journal;
use crate::shelf::Reason;
use crate::store::{Copy, begins};
use crate::sys::open_for_writing;
use crate::{Left, Mark, Undo, Why};
use names::{move_gone, remove_gone};

/// What one undo knows besides the journal.
pub(crate) struct Undoing {
    mark: Mark,
    /// The closes that the images up to the mark owe.
    held: BTreeMap<FileId, u64>,
    /// Files that the guest made after the mark: of those no bytes are restored, and
    /// they may lose their last name.
    made: HashSet<FileId>,
    /// The first entry after the mark that restores a file's bytes: later ones are
    /// for later marks.
    first_copy: HashMap<FileId, usize>,
    /// Everything that the guest has had its hands on.
    known: BTreeSet<FileId>,
    /// Names of what the guest removed and that was not worth saving. Folders are made
    /// anew until it comes to their own making: something may have lain in them.
    gone: HashSet<PathBuf>,
    result: Undo,
}

/// What one step did: the path that it put right, if there was anything to do.
pub(crate) type Step = Result<Option<PathBuf>, Left>;

impl Undoing {
    fn held(&self, id: FileId) -> u64 {
        self.held.get(&id).copied().unwrap_or(0)
    }

    /// Whether the guest has had its hands on a file.
    pub(crate) fn knows(&self, id: FileId) -> bool {
        self.known.contains(&id)
    }
}

impl Journal {
    /// Undoes everything after a mark, the last effect first. The guest's processes and
    /// all frozen images of later marks must be dead and reaped. Later marks are void
    /// afterwards; the next effects count as coming after this one.
    pub fn undo_to(&mut self, mark: Mark) -> Undo {
        self.provenance.goes_on();
        self.provenance.set_opens_are_ours(true);
        let held = self.marks.get(&mark).cloned().unwrap_or_default();
        self.provenance.guest_is_dead(&held);
        let (result, still_saved) = if self.undoes {
            self.undo_entries(mark, held.clone())
        } else {
            Default::default()
        };
        self.provenance.set_opens_are_ours(false);
        self.provenance.rewind(mark, &held);
        for id in still_saved {
            if let Some(file) = self.provenance.get_mut(id) {
                file.saved = Some(mark);
            }
        }
        self.folders.retain(|_, made| *made < mark);
        self.marks.retain(|known, _| *known <= mark);
        self.current = mark;
        if self.undoes {
            self.rebuild_names();
        }
        self.sweep();
        self.forget_files();
        Undo {
            complete: result.left.is_empty(),
            ..result
        }
    }

    /// Answers with the files, too, whose copies are needed for the next undo.
    fn undo_entries(&mut self, mark: Mark, held: BTreeMap<FileId, u64>) -> (Undo, Vec<FileId>) {
        let first = self.entries.partition_point(|entry| entry.mark < mark);
        let ids = self.entries.iter().flat_map(|entry| entry.change.ids());
        let mut undoing = Undoing {
            mark,
            held,
            made: HashSet::new(),
            first_copy: HashMap::new(),
            known: ids.chain(self.names.values().flatten().copied()).collect(),
            gone: HashSet::new(),
            result: Undo::default(),
        };
        let undone = self.entries.split_off(first);
        for (index, entry) in undone.iter().enumerate() {
            match &entry.change {
                _ if entry.lost.is_some() => {}
                Change::Made {
                    id,
                    naming: Naming::New,
                    ..
                } => drop(undoing.made.insert(*id)),
                Change::Content { id, .. } => {
                    undoing.first_copy.entry(*id).or_insert(index);
                }
                _ => {}
            }
        }
        for entry in &undone {
            match &entry.change {
                Change::Beyond { .. }
                | Change::Made {
                    naming: Naming::New,
                    ..
                } => {}
                change => self.put_back.extend(change.ids()),
            }
        }
        let mut kept = Vec::new();
        for (index, entry) in undone.into_iter().enumerate().rev() {
            let keep = entry.kept_at(mark);
            match self.undo_entry(&mut undoing, index, entry) {
                Ok(path) => {
                    undoing.result.restored.extend(path);
                    kept.extend(keep);
                }
                Err(left) => undoing.result.left.push(left),
            }
        }
        let mut still_saved = Vec::new();
        for (id, entry) in kept.into_iter().rev() {
            still_saved.push(id);
            self.entries.push(entry);
        }
        (undoing.result, still_saved)
    }

    fn undo_entry(&mut self, undoing: &mut Undoing, index: usize, entry: Entry) -> Step {
        if let Some(why) = entry.lost {
            let found = left(entry.change.path(), why);
            self.leave(entry.change);
            return Err(found);
        }
        match entry.change {
            Change::Made {
                path,
                id,
                kind,
                naming,
            } => {
                if matches!(naming, Naming::New) {
                    self.stamps.forget(id);
                    self.put_back.remove(&id);
                }
                if undoing.gone.remove(&path) {
                    return remove_gone(&path, kind).map(|()| None);
                }
                self.unmake(undoing, path, id, kind, naming)
            }
            Change::Content {
                path,
                id,
                copy,
                pin,
                mapped,
                held: _,
            } => {
                let later = undoing.first_copy.get(&id) != Some(&index);
                if later || undoing.made.contains(&id) || undoing.gone.contains(&path) {
                    self.retire_copy(copy, &path);
                    return Ok(None);
                }
                let restored = match pin {
                    Some(pin) => self.restore_unnamed(undoing, path.clone(), id, &copy, &pin),
                    None => self.restore(undoing, path.clone(), id, &copy, mapped),
                };
                if restored.is_err() {
                    self.leave_copy(&copy, &path);
                    return restored;
                }
                self.stamps.put_back(&path, Some(id), copy.persons);
                if copy.persons
                    && let Some(file) = self.provenance.get_mut(id)
                {
                    // It is theirs alone again.
                    file.theirs = true;
                }
                restored
            }
            Change::Attributes {
                path,
                id,
                before,
                after,
                pin,
            } => {
                let going = undoing.made.contains(&id) && !before.look.is_folder();
                if going || undoing.gone.contains(&path) {
                    return Ok(None);
                }
                self.restore_attributes(undoing, path, pin, &before, &after)
            }
            Change::Removed {
                path, kind, saved, ..
            } => self.put_back(undoing, path, kind, saved),
            Change::Renamed {
                from,
                to,
                moved,
                replaced,
            } => {
                let mut restored = None;
                if undoing.gone.remove(&to) {
                    move_gone(&to, &from, moved.kind)?;
                    undoing.gone.insert(from);
                } else {
                    let renamed = self.rename_back(undoing, &to, &from, &moved);
                    if let Err(found) = renamed {
                        let saved = replaced.and_then(|(_, saved)| saved);
                        self.leave_saved(saved, &to);
                        return Err(found);
                    }
                    restored = Some(from);
                }
                match replaced {
                    // A folder can only replace a folder.
                    Some((_, saved)) => {
                        let back = self.put_back(undoing, to, moved.kind, saved)?;
                        Ok(back.or(restored))
                    }
                    None => Ok(restored),
                }
            }
            Change::Exchanged { a, b } => self.exchange_back(undoing, a, b),
            Change::Beyond { unjournaled, .. } if unjournaled.after >= Some(undoing.mark) => {
                // Going back this far removes the file itself.
                if look(&unjournaled.path)?.is_none() {
                    undoing.gone.insert(unjournaled.path);
                }
                Ok(None)
            }
            Change::Beyond { unjournaled, .. } => Err(Left {
                path: unjournaled.path,
                why: Why::Unjournaled(unjournaled.why),
            }),
        }
    }

    /// What lies under a name stays as it is. What had been saved of it is nowhere else.
    fn leave(&mut self, change: Change) {
        match change {
            Change::Content { path, copy, .. } => self.leave_copy(&copy, &path),
            Change::Removed { path, saved, .. } => self.leave_saved(saved, &path),
            Change::Renamed {
                from,
                to,
                moved,
                replaced,
            } => {
                if let Some(copy) = &moved.copy {
                    self.leave_copy(copy, &from);
                }
                self.leave_saved(replaced.and_then(|(_, saved)| saved), &to);
            }
            Change::Exchanged { a, b } => {
                for (path, moved) in [&a, &b] {
                    if let Some(copy) = &moved.copy {
                        self.leave_copy(copy, path);
                    }
                }
            }
            Change::Made { .. } | Change::Attributes { .. } | Change::Beyond { .. } => {}
        }
    }

    fn leave_copy(&mut self, copy: &Copy, path: &Path) {
        if !begins(&copy.path, path) {
            self.keep_copy(copy, path, Reason::Before);
        }
    }

    /// Whether a file's bytes are the guest's, by the events up to now.
    pub(crate) fn prove(&mut self, undoing: &Undoing, id: FileId) -> Result<(), Why> {
        self.proven(id, undoing.held(id))
    }

    /// The same, where `open` descriptions that can write are known.
    fn proven(&mut self, id: FileId, open: u64) -> Result<(), Why> {
        self.provenance.drain();
        match self.provenance.get(id) {
            Some(file) => file.proven(open),
            None => Err(Why::Unproven("it was not watched".into())),
        }
    }

    /// The same for a file that was just taken out of reach, where a writer who has
    /// not written yet can be found too.
    pub(crate) fn prove_isolated(
        &mut self,
        undoing: &Undoing,
        path: &Path,
        id: FileId,
    ) -> Result<(), Why> {
        if undoing.held(id) == 0 && is_being_written(path) {
            return Err(Why::Open);
        }
        self.prove(undoing, id)
    }
}

pub(crate) fn left(path: &Path, why: Why) -> Left {
    Left {
        path: path.to_owned(),
        why,
    }
}

pub(crate) fn look(path: &Path) -> Result<Option<Look>, Left> {
    Look::at(path, false).map_err(|cause| left(path, Why::io("look at it")(cause)))
}

/// Whether anyone has a file open for writing now; no, where that cannot be told.
pub(crate) fn is_being_written(path: &Path) -> bool {
    let mut options = OpenOptions::new();
    options.read(true);
    options.custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_CLOEXEC);
    let file = options.open(path);
    file.is_ok_and(|file| open_for_writing(file.as_fd()) == Some(true))
}
