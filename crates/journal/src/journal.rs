//! The journal itself: the log of what would undo each effect, the marks in it, and
//! the two calls around each effect that write it. Undoing is in `undo`.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::File;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::FileType;

use crate::file::{FileId, Look, Place, locate, open_path, proc_path};
use crate::prepare::{Pending, Prepared};
use crate::provenance::Provenance;
use crate::store::{Copy, OnStore, Saved, Stores};
use crate::{Effect, Mark, Obstacle, Unjournaled, Why};

/// What a journal may do.
pub struct Options {
    /// The most bytes that are copied of a file that the guest has open for writing
    /// at a checkpoint, or opens without truncating it.
    pub hold_limit: u64,
    /// The most bytes that are copied of a file that is truncated.
    pub save_limit: u64,
    /// A copy is used again for an unchanged file only if the file's last change was
    /// this much older than the copy: a file's times are as coarse as a clock tick.
    pub settle: Duration,
    /// Folders that are tried first for the store, if they lie on the right mount.
    pub places: Vec<PathBuf>,
    /// Called with the path of each store just before it is made, so that somebody
    /// else can remove it should this process be killed.
    pub on_store: Box<dyn FnMut(&Path) + Send>,
}

impl Default for Options {
    fn default() -> Options {
        let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
        Options {
            hold_limit: 64 << 20,
            save_limit: 1 << 30,
            settle: Duration::from_millis(20),
            places: runtime.into_iter().chain([std::env::temp_dir()]).collect(),
            on_store: Box::new(|_| ()),
        }
    }
}

/// One effect that happened, and how it is undone.
#[derive(Debug)]
pub(crate) struct Entry {
    /// The mark it came after.
    pub(crate) mark: Mark,
    pub(crate) change: Change,
    /// Set when somebody else's change came after it and the guest's next one on
    /// top: what it saved is not what was there last.
    pub(crate) lost: Option<Why>,
}

#[derive(Debug)]
pub(crate) enum Change {
    /// A name was made. `linked`: it is one more name of an existing file.
    Made {
        path: PathBuf,
        id: FileId,
        kind: FileType,
        linked: bool,
    },
    /// Bytes may have been overwritten or cut. `pin`: the inode, where it may have
    /// no name. `mapped`: it may change without its times changing. `held`: saved at
    /// the mark itself, so that it is needed for as long as the mark is.
    Content {
        path: PathBuf,
        id: FileId,
        copy: Arc<Copy>,
        pin: Option<Arc<OwnedFd>>,
        mapped: bool,
        held: bool,
    },
    /// A name was removed. Nothing is saved of what the guest made after the
    /// latest mark: every undo that comes here removes it anyway.
    Removed {
        path: PathBuf,
        id: FileId,
        saved: Option<Saved>,
    },
    /// A name was changed, perhaps over another one.
    Renamed {
        from: PathBuf,
        to: PathBuf,
        id: FileId,
        kind: FileType,
        replaced: Option<(FileId, Option<Saved>)>,
    },
    /// Two names were exchanged; the ids are those before.
    Exchanged {
        a: (PathBuf, FileId),
        b: (PathBuf, FileId),
    },
    /// Something that cannot be undone, and what it left there.
    Beyond(Unjournaled, Option<FileId>),
}

impl Entry {
    /// A copy that was taken at a mark, once more: undoing to that mark keeps it, since
    /// the next run writes through the same descriptions.
    pub(crate) fn kept_at(&self, mark: Mark) -> Option<(FileId, Entry)> {
        match &self.change {
            Change::Content {
                path,
                id,
                copy,
                pin,
                mapped,
                held: true,
            } if self.mark == mark && self.lost.is_none() => {
                let change = Change::Content {
                    path: path.clone(),
                    id: *id,
                    copy: copy.clone(),
                    pin: pin.clone(),
                    mapped: *mapped,
                    held: true,
                };
                let entry = Entry {
                    mark,
                    change,
                    lost: None,
                };
                Some((*id, entry))
            }
            _ => None,
        }
    }
}

impl Change {
    /// The inodes whose bytes or names it is about.
    pub(crate) fn ids(&self) -> impl Iterator<Item = FileId> {
        let (first, second) = match self {
            Change::Made { id, .. } | Change::Content { id, .. } | Change::Removed { id, .. } => {
                (Some(*id), None)
            }
            Change::Renamed { id, replaced, .. } => {
                (Some(*id), replaced.as_ref().map(|(id, _)| *id))
            }
            Change::Exchanged { a, b } => (Some(a.1), Some(b.1)),
            Change::Beyond(_, id) => (*id, None),
        };
        first.into_iter().chain(second)
    }

    /// What it left under which names (`None`: nothing).
    fn names(&self) -> impl Iterator<Item = (&PathBuf, Option<FileId>)> {
        let (first, second) = match self {
            Change::Made { path, id, .. } | Change::Content { path, id, .. } => {
                (Some((path, Some(*id))), None)
            }
            Change::Removed { path, .. } => (Some((path, None)), None),
            Change::Renamed { from, to, id, .. } => (Some((from, None)), Some((to, Some(*id)))),
            Change::Exchanged { a, b } => (Some((&a.0, Some(b.1))), Some((&b.0, Some(a.1)))),
            // A new mode or time leaves what lies under the name as it was.
            Change::Beyond(
                Unjournaled {
                    why: Obstacle::Other(_),
                    ..
                },
                _,
            ) => (None, None),
            Change::Beyond(unjournaled, id) => (Some((&unjournaled.path, *id)), None),
        };
        first.into_iter().chain(second)
    }
}

/// Records what undoes a guest's file effects, and undoes them. See the crate's
/// documentation for the rules.
pub struct Journal {
    pub(crate) hold_limit: u64,
    pub(crate) save_limit: u64,
    pub(crate) settle: Duration,
    pub(crate) entries: Vec<Entry>,
    pub(crate) current: Mark,
    last: Mark,
    /// The closes that the image of each mark owes.
    pub(crate) marks: BTreeMap<Mark, BTreeMap<FileId, u64>>,
    pub(crate) provenance: Provenance,
    /// Folders that the guest made, and after which mark.
    pub(crate) folders: HashMap<FileId, Mark>,
    /// What the guest left under each name that it changed.
    pub(crate) names: HashMap<PathBuf, Option<FileId>>,
    /// The same for what `forget_before` took out of the log.
    old_names: HashMap<PathBuf, Option<FileId>>,
    // Last, so that what lies in the stores goes first.
    pub(crate) stores: Stores,
}

impl Journal {
    /// An empty journal. It touches no file until an effect needs it to.
    #[must_use]
    pub fn new(options: Options) -> Journal {
        let Options {
            hold_limit,
            save_limit,
            settle,
            places,
            on_store,
        } = options;
        let on_store: OnStore = on_store;
        Journal {
            hold_limit,
            save_limit,
            settle,
            entries: Vec::new(),
            current: Mark(0),
            last: Mark(0),
            marks: BTreeMap::new(),
            provenance: Provenance::default(),
            folders: HashMap::new(),
            names: HashMap::new(),
            old_names: HashMap::new(),
            stores: Stores::new(places, on_store),
        }
    }

    /// Marks this point. Call it at the guest's start and at each checkpoint, while
    /// all of the guest is stopped, and then [`Journal::hold`] for what it has open.
    pub fn mark(&mut self) -> Mark {
        self.provenance.drain();
        self.last = Mark(self.last.0 + 1);
        self.current = self.last;
        self.marks.insert(self.current, self.provenance.owed());
        self.current
    }

    /// Prepares for an effect, while the call that has it is stopped before it runs:
    /// saves what undoing will need. When `undoable` of the answer is an error, the
    /// checkpoints so far are unusable; the call may run in any case.
    /// [`Journal::after`] must follow.
    pub fn before(&mut self, effect: Effect) -> Prepared {
        self.provenance.set_over(false);
        self.prepare(effect)
    }

    /// Concludes an effect, while the task that made the call is stopped after it.
    /// When it is not known whether the call succeeded (the task died in it), say
    /// that it did.
    ///
    /// # Errors
    /// When the effect turns out not to be undoable, as with `undoable` before.
    pub fn after(&mut self, prepared: Prepared, succeeded: bool) -> Result<(), Unjournaled> {
        if let Pending::Nothing = prepared.pending {
            return Ok(());
        }
        self.provenance.drain();
        let done = self.conclude(prepared.pending, succeeded);
        if let Err(unjournaled) = &done {
            self.push_beyond(unjournaled.clone());
        }
        done
    }

    /// The guest was killed in the middle of a call: whether it took effect only its
    /// traces tell.
    ///
    /// # Errors
    /// As [`after`](Self::after).
    pub fn after_kill(&mut self, prepared: Prepared) -> Result<(), Unjournaled> {
        if let Pending::Nothing = prepared.pending {
            return Ok(());
        }
        self.provenance.drain();
        match self.conclude(prepared.pending, true) {
            // It would have failed, had it come that far.
            Err(Unjournaled {
                why: Obstacle::Unexpected,
                ..
            }) => Ok(()),
            Err(unjournaled) => {
                self.push_beyond(unjournaled.clone());
                Err(unjournaled)
            }
            Ok(()) => Ok(()),
        }
    }

    /// The image of a mark does not hold one open file description of a file
    /// (`st_dev`, `st_ino`) that could write, which the guest had at the mark.
    pub fn let_go(&mut self, mark: Mark, device: u64, inode: u64) {
        if let Some(owed) = self.marks.get_mut(&mark) {
            for (_, owed) in owed.iter_mut().filter(|(id, _)| id.is(device, inode)) {
                *owed = owed.saturating_sub(1);
            }
            owed.retain(|_, owed| *owed > 0);
        }
    }

    /// A copy of an image is about to open a file for writing that the image
    /// [let go](Self::let_go).
    pub fn opens_anew(&mut self, device: u64, inode: u64) {
        self.provenance.drain();
        self.provenance.owe(|id| id.is(device, inode));
    }

    pub(crate) fn push(&mut self, change: Change) {
        for (path, id) in change.names() {
            self.names.insert(path.clone(), id);
        }
        self.entries.push(Entry {
            mark: self.current,
            change,
            lost: None,
        });
    }

    pub(crate) fn push_beyond(&mut self, unjournaled: Unjournaled) {
        let look = Look::at(&unjournaled.path, false).ok().flatten();
        self.push(Change::Beyond(unjournaled, look.map(|look| look.id)));
    }

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
        let file = self.provenance.track(look.id, &pin, folder);
        if file.saved >= Some(mark) {
            return Ok(());
        }
        let copy = self.copy(path, &pin, &look, self.hold_limit, !mapped)?;
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

    /// A copy of a file as it is, or the last one if it still is (and `reuse`).
    pub(crate) fn copy(
        &mut self,
        path: &Path,
        fd: &OwnedFd,
        look: &Look,
        limit: u64,
        reuse: bool,
    ) -> Result<Arc<Copy>, Obstacle> {
        let last = self.provenance.get(look.id).and_then(|f| f.copy.upgrade());
        if let Some(last) = last
            && reuse
            && last.is_of(look, self.settle)
        {
            return Ok(last);
        }
        if look.size > limit {
            return Err(Obstacle::TooLarge {
                size: look.size,
                limit,
            });
        }
        let to = self.stores.fresh(path, Some(look))?;
        let from =
            File::open(proc_path(fd)).map_err(|cause| Obstacle::io("open it to copy it", cause))?;
        let copy =
            Copy::take(&from, look, to).map_err(|cause| Obstacle::io("copy its bytes", cause))?;
        if let Some(file) = self.provenance.get_mut(look.id) {
            file.copy = Arc::downgrade(&copy);
        }
        Ok(copy)
    }

    /// Forgets how to undo to marks before this one, and frees what was saved for it.
    pub fn forget_before(&mut self, mark: Mark) {
        let keep = self.entries.partition_point(|entry| entry.mark < mark);
        for entry in self.entries.drain(..keep) {
            for (path, id) in entry.change.names() {
                self.old_names.insert(path.clone(), id);
            }
        }
        self.marks.retain(|known, _| *known >= mark);
        self.forget_files();
    }

    /// Forgets a mark whose checkpoint was dropped: nobody will undo to it. What was
    /// saved for it alone is freed; undoing to all others stays possible.
    pub fn forget(&mut self, mark: Mark) {
        self.marks.remove(&mark);
        let into = self.marks.range(..mark).next_back();
        let into = into.map_or(Mark(0), |(earlier, _)| *earlier);
        let from = self.entries.partition_point(|entry| entry.mark < into);
        let to = self.entries.partition_point(|entry| entry.mark <= mark);
        let mut saved = BTreeSet::new();
        let mut index = 0;
        self.entries.retain_mut(|entry| {
            index += 1;
            if !(from < index && index <= to) {
                return true;
            }
            let moved = entry.mark == mark;
            entry.mark = entry.mark.min(into);
            match &mut entry.change {
                _ if entry.lost.is_some() => true,
                Change::Made {
                    id, linked: false, ..
                } => {
                    saved.insert(*id);
                    true
                }
                Change::Content { id, held, .. } => {
                    *held &= !moved;
                    // The earlier copy is the one that goes back now.
                    saved.insert(*id)
                }
                _ => true,
            }
        });
        self.provenance.merge(mark, into);
        for made in self.folders.values_mut().filter(|made| **made == mark) {
            *made = into;
        }
        if self.current == mark {
            self.current = into;
        }
    }

    /// The names as the remaining entries leave them.
    pub(crate) fn rebuild_names(&mut self) {
        self.names = self.old_names.clone();
        for entry in &self.entries {
            for (path, id) in entry.change.names() {
                self.names.insert(path.clone(), id);
            }
        }
    }

    /// Stops watching files that nothing is known of any more.
    pub(crate) fn forget_files(&mut self) {
        let ids = self.entries.iter().flat_map(|entry| entry.change.ids());
        let named = self.names.values().flatten().copied();
        let needed: BTreeSet<FileId> = ids.chain(named).collect();
        self.provenance.retain(|id| needed.contains(&id));
    }

    /// Whether the guest has changed what lies under a path. A link is not followed.
    #[must_use]
    pub fn wrote(&self, path: &Path) -> bool {
        self.expected(path).is_some()
    }

    /// Whether the guest changed what lies under a path and somebody else has changed it
    /// since, or while the guest was at it. A write that overlaps with one of the
    /// guest's may show only once both have closed the file.
    pub fn foreign(&mut self, path: &Path) -> bool {
        self.provenance.drain();
        let Some((place, expected)) = self.expected(path) else {
            return false;
        };
        let found = match Look::at(&place, false) {
            Ok(look) => look.map(|look| look.id),
            Err(_) => return true,
        };
        let tracked = found.and_then(|id| self.provenance.get(id));
        found != expected || tracked.is_some_and(|file| file.foreign.is_some())
    }

    /// The names that the guest changed and somebody else has changed since. Looks at
    /// each of them.
    pub fn changed_by_others(&mut self) -> Vec<PathBuf> {
        let names: Vec<PathBuf> = self.names.keys().cloned().collect();
        names
            .into_iter()
            .filter(|name| self.foreign(name))
            .collect()
    }

    /// Whether the file under a path is one that the guest has written to, by this
    /// or another of its names, and nobody else has.
    pub fn wrote_file(&mut self, path: &Path) -> bool {
        self.provenance.drain();
        let Ok(Some(look)) = Look::at(path, false) else {
            return false;
        };
        let file = self.provenance.get(look.id);
        file.is_some_and(|file| file.unwatched.is_none() && file.foreign.is_none())
    }

    /// The guest's name that a path leads to, and what it left there.
    fn expected(&self, path: &Path) -> Option<(PathBuf, Option<FileId>)> {
        if let Some(expected) = self.names.get(path) {
            return Some((path.to_owned(), *expected));
        }
        // By another way to the same name, not by a link that leads to it: that is
        // somebody's own.
        let place: Place = locate(path, false).ok()??;
        let expected = *self.names.get(&place.path)?;
        Some((place.path, expected))
    }

    /// Becomes readable when there are file events to take in; then call
    /// [`Journal::drain`], so that the kernel's queue does not overflow. `None` until
    /// the first file is watched.
    #[must_use]
    pub fn queue(&self) -> Option<BorrowedFd<'_>> {
        self.provenance.queue()
    }

    /// The guest has ended: all of its processes are reaped. What is written from now
    /// on is somebody else's, also where an image holds a file open, until the next
    /// effect or undo.
    pub fn guest_ended(&mut self) {
        self.provenance.set_over(true);
    }

    /// Takes in the file events so far. Never blocks.
    pub fn drain(&mut self) {
        self.provenance.drain();
    }
}
