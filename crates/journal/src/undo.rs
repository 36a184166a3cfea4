//! Undoing: from the last effect back to a mark. Each step first makes sure that what
//! it finds is what the guest left, takes it out of reach of others by a rename into
//! the store, makes sure once more, and puts it back if a person was faster. What it
//! cannot prove to be the guest's stays where it is. Putting bytes back into a file is
//! `restore`'s part.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fs::{self, OpenOptions};
use std::io::ErrorKind;
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::FileType;

use crate::file::{FileId, Look};
use crate::journal::{Change, Entry, Journal};
use crate::store::{Saved, exchange, rename_new};
use crate::sys::open_for_writing;
use crate::{Left, Mark, Undo, Why};

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
    /// Names whose file the guest removed and that was not worth saving.
    gone: HashSet<PathBuf>,
    result: Undo,
}

/// What one step did: the path that it put right, if there was anything to do.
pub(crate) type Step = Result<Option<PathBuf>, Left>;

impl Undoing {
    fn held(&self, id: FileId) -> u64 {
        self.held.get(&id).copied().unwrap_or(0)
    }
}

impl Journal {
    /// Undoes everything after a mark, the last effect first. The guest's processes and
    /// all frozen images of later marks must be dead and reaped. Later marks are void
    /// afterwards; the next effects count as coming after this one.
    pub fn undo_to(&mut self, mark: Mark) -> Undo {
        self.provenance.drain();
        self.provenance.set_over(false);
        let held = self.marks.get(&mark).cloned().unwrap_or_default();
        self.provenance.guest_is_dead(&held);
        let first = self.entries.partition_point(|entry| entry.mark < mark);
        let ids = self.entries.iter().flat_map(|entry| entry.change.ids());
        let mut undoing = Undoing {
            mark,
            held: self.marks.get(&mark).cloned().unwrap_or_default(),
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
                Change::Made { id, linked, .. } if !linked => drop(undoing.made.insert(*id)),
                Change::Content { id, .. } => {
                    undoing.first_copy.entry(*id).or_insert(index);
                }
                _ => {}
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
        self.provenance.drain();
        self.provenance.rewind(undoing.mark, &undoing.held);
        for (id, entry) in kept.into_iter().rev() {
            if let Some(file) = self.provenance.get_mut(id) {
                file.saved = Some(mark);
            }
            self.entries.push(entry);
        }
        self.folders.retain(|_, made| *made < mark);
        self.marks.retain(|known, _| *known <= mark);
        self.current = mark;
        self.rebuild_names();
        self.forget_files();
        undoing.result.complete = undoing.result.left.is_empty();
        undoing.result
    }

    fn undo_entry(&mut self, undoing: &mut Undoing, index: usize, entry: Entry) -> Step {
        let lost = |path: &Path| match &entry.lost {
            Some(why) => Err(left(path, why.clone())),
            None => Ok(()),
        };
        match entry.change {
            Change::Made {
                path,
                id,
                kind,
                linked,
            } => {
                lost(&path)?;
                if undoing.gone.remove(&path) {
                    return match look(&path)? {
                        None => Ok(None),
                        Some(_) => Err(left(&path, Why::Replaced)),
                    };
                }
                let last_name_stays = linked && !undoing.made.contains(&id);
                self.unmake(undoing, path, id, kind, last_name_stays)
            }
            Change::Content {
                path,
                id,
                copy,
                pin,
                mapped,
                held: _,
            } => {
                lost(&path)?;
                let later = undoing.first_copy.get(&id) != Some(&index);
                if later || undoing.made.contains(&id) || undoing.gone.contains(&path) {
                    return Ok(None);
                }
                match pin {
                    Some(pin) => self.restore_unnamed(undoing, path, id, &copy, &pin),
                    None => self.restore(undoing, path, id, &copy, mapped),
                }
            }
            Change::Removed { path, saved, .. } => {
                lost(&path)?;
                put_back(undoing, path, saved)
            }
            Change::Renamed {
                from,
                to,
                id,
                kind,
                replaced,
            } => {
                lost(&to)?;
                let mut restored = None;
                if undoing.gone.remove(&to) {
                    undoing.gone.insert(from);
                } else {
                    self.rename_back(undoing, &to, &from, id, kind)?;
                    restored = Some(from);
                }
                match replaced {
                    Some((_, saved)) => Ok(put_back(undoing, to, saved)?.or(restored)),
                    None => Ok(restored),
                }
            }
            Change::Exchanged { a, b } => {
                lost(&a.0)?;
                self.exchange_back(undoing, a, b)
            }
            Change::Beyond(unjournaled, _) if unjournaled.after >= Some(undoing.mark) => {
                // Going back this far removes the file itself.
                if look(&unjournaled.path)?.is_none() {
                    undoing.gone.insert(unjournaled.path);
                }
                Ok(None)
            }
            Change::Beyond(unjournaled, _) => Err(Left {
                path: unjournaled.path,
                why: Why::Unjournaled(unjournaled.why),
            }),
        }
    }

    /// Whether a file's bytes are the guest's, by the events up to now.
    pub(crate) fn prove(&mut self, undoing: &Undoing, id: FileId) -> Result<(), Why> {
        self.provenance.drain();
        match self.provenance.get(id) {
            Some(file) => file.proven(undoing.held(id)),
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

    /// Removes what the guest made.
    fn unmake(
        &mut self,
        undoing: &Undoing,
        path: PathBuf,
        id: FileId,
        kind: FileType,
        last_name_stays: bool,
    ) -> Step {
        let Some(found) = look(&path)? else {
            return Ok(None);
        };
        if found.id != id {
            return Err(left(&path, Why::Replaced));
        }
        if kind == FileType::Directory {
            return match fs::remove_dir(&path) {
                Ok(()) => Ok(Some(path)),
                Err(cause) if cause.kind() == ErrorKind::DirectoryNotEmpty => {
                    Err(left(&path, Why::NotEmpty))
                }
                Err(cause) => Err(left(&path, Why::io("remove the folder")(cause))),
            };
        }
        // Of a file that keeps another name, no bytes go with this one.
        let regular = kind == FileType::RegularFile && !last_name_stays;
        if regular && let Err(why) = self.prove(undoing, id) {
            return Err(left(&path, why));
        }
        let isolated = self.hideaway(&path);
        rename_new(&path, &isolated)
            .map_err(|cause| left(&path, Why::io("move it out of the way")(cause)))?;
        let checked = match Look::at(&isolated, false) {
            Ok(Some(there)) if there.id != id => Err(Why::Replaced),
            Ok(Some(there)) if last_name_stays && there.links < 2 => Err(Why::LastName),
            Ok(Some(_)) if regular => self.prove_isolated(undoing, &isolated, id),
            Ok(Some(_)) => Ok(()),
            Ok(None) => return Ok(Some(path)),
            Err(cause) => Err(Why::io("look at it again")(cause)),
        };
        if let Err(why) = checked {
            return Err(return_to(&isolated, path, why));
        }
        fs::remove_file(&isolated)
            .map_err(|cause| return_to(&isolated, path.clone(), Why::io("remove it")(cause)))?;
        Ok(Some(path))
    }

    /// A free name on the same mount: in the store, or if there is none next to it.
    fn hideaway(&mut self, path: &Path) -> PathBuf {
        self.stores
            .fresh(path, None)
            .unwrap_or_else(|_| sibling(path, "undone"))
    }

    fn rename_back(
        &mut self,
        undoing: &Undoing,
        to: &Path,
        from: &Path,
        id: FileId,
        kind: FileType,
    ) -> Result<(), Left> {
        match look(to)? {
            None => return Err(left(to, Why::Removed)),
            Some(found) if found.id != id => return Err(left(to, Why::Replaced)),
            Some(_) => {}
        }
        self.prove_moved(undoing, to, id, kind)
            .map_err(|why| left(to, why))?;
        rename_new(to, from).map_err(|cause| match cause.kind() {
            ErrorKind::AlreadyExists => left(from, Why::Replaced),
            _ => left(to, Why::io("rename it back")(cause)),
        })?;
        let checked = match Look::at(from, false) {
            Ok(Some(there)) if there.id == id => self.prove_moved(undoing, from, id, kind),
            _ => Err(Why::Replaced),
        };
        match checked {
            Ok(()) => Ok(()),
            Err(why) => Err(return_to(from, to.to_owned(), why)),
        }
    }

    /// A file's name changes with all that it holds: if a person has put bytes there,
    /// they are to be found where the person put them.
    fn prove_moved(
        &mut self,
        undoing: &Undoing,
        path: &Path,
        id: FileId,
        kind: FileType,
    ) -> Result<(), Why> {
        match kind {
            FileType::RegularFile => self.prove_isolated(undoing, path, id),
            FileType::Directory => self.prove_folder(undoing, path),
            _ => Ok(()),
        }
    }

    fn prove_folder(&mut self, undoing: &Undoing, path: &Path) -> Result<(), Why> {
        let looking = "look into the folder";
        for entry in fs::read_dir(path).map_err(Why::io(looking))? {
            let inner = entry.map_err(Why::io(looking))?.path();
            let Some(found) = Look::at(&inner, false).map_err(Why::io(looking))? else {
                continue;
            };
            if !undoing.known.contains(&found.id) {
                return Err(Why::NotEmpty);
            }
            if found.is_folder() {
                self.prove_folder(undoing, &inner)?;
            } else if found.is_regular() && self.provenance.get(found.id).is_some() {
                self.prove(undoing, found.id)?;
            }
        }
        Ok(())
    }

    fn exchange_back(
        &mut self,
        undoing: &mut Undoing,
        a: (PathBuf, FileId),
        b: (PathBuf, FileId),
    ) -> Step {
        match (undoing.gone.remove(&a.0), undoing.gone.remove(&b.0)) {
            (true, true) => {
                undoing.gone.extend([a.0, b.0]);
                return Ok(None);
            }
            // What lies at b now is what lay at a.
            (true, false) => {
                self.rename_back(undoing, &b.0, &a.0, a.1, kind_at(&b.0)?)?;
                undoing.gone.insert(b.0);
                return Ok(Some(a.0));
            }
            (false, true) => {
                self.rename_back(undoing, &a.0, &b.0, b.1, kind_at(&a.0)?)?;
                undoing.gone.insert(a.0);
                return Ok(Some(b.0));
            }
            (false, false) => {}
        }
        self.prove_exchange(undoing, (&a.0, b.1), (&b.0, a.1))?;
        exchange(&a.0, &b.0)
            .map_err(|cause| left(&a.0, Why::io("exchange the names back")(cause)))?;
        match self.prove_exchange(undoing, (&a.0, a.1), (&b.0, b.1)) {
            Ok(()) => Ok(Some(a.0)),
            Err(found) => {
                exchange(&a.0, &b.0)
                    .map_err(|cause| left(&a.0, Why::io("exchange the names again")(cause)))?;
                Err(found)
            }
        }
    }

    fn prove_exchange(
        &mut self,
        undoing: &Undoing,
        a: (&Path, FileId),
        b: (&Path, FileId),
    ) -> Result<(), Left> {
        for (path, id) in [a, b] {
            match look(path)? {
                None => return Err(left(path, Why::Removed)),
                Some(found) if found.id != id => return Err(left(path, Why::Replaced)),
                Some(found) => self
                    .prove_moved(undoing, path, id, found.kind)
                    .map_err(|why| left(path, why))?,
            }
        }
        Ok(())
    }
}

/// Puts a removed name back: the same inode, from the store.
fn put_back(undoing: &mut Undoing, path: PathBuf, saved: Option<Saved>) -> Step {
    let Some(saved) = saved else {
        undoing.gone.insert(path);
        return Ok(None);
    };
    match rename_new(&saved.path, &path) {
        Ok(()) => Ok(Some(path)),
        Err(cause) if cause.kind() == ErrorKind::AlreadyExists => Err(left(&path, Why::Replaced)),
        Err(cause) => Err(left(&path, Why::io("put it back")(cause))),
    }
}

/// Puts somebody else's file back where it was; if even that name is taken by now,
/// next to it.
fn return_to(from: &Path, path: PathBuf, why: Why) -> Left {
    match rename_new(from, &path) {
        Ok(()) => Left { path, why },
        Err(cause) if cause.kind() == ErrorKind::AlreadyExists => {
            let other = sibling(&path, "saved");
            match rename_new(from, &other) {
                Ok(()) => Left {
                    path: other,
                    why: Why::Displaced { taken: path },
                },
                Err(cause) => left(from, Why::io("put it back")(cause)),
            }
        }
        Err(cause) => left(from, Why::io("put it back")(cause)),
    }
}

/// A name next to a file that nothing has yet.
fn sibling(path: &Path, what: &str) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let pid = std::process::id();
    (0_u32..)
        .map(|n| path.with_file_name(format!("{name}.forkmon-{pid}-{what}-{n}")))
        .find(|other| !matches!(Look::at(other, false), Ok(Some(_))))
        .unwrap_or_else(|| path.with_extension("forkmon"))
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

fn kind_at(path: &Path) -> Result<FileType, Left> {
    match look(path)? {
        Some(found) => Ok(found.kind),
        None => Err(left(path, Why::Removed)),
    }
}

/// Whether anyone has a file open for writing now; no, where that cannot be told.
pub(crate) fn is_being_written(path: &Path) -> bool {
    let mut options = OpenOptions::new();
    options.read(true);
    options.custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_CLOEXEC);
    let file = options.open(path);
    file.is_ok_and(|file| open_for_writing(file.as_fd()) == Some(true))
}
