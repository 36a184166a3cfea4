//! The journal itself: the log of what would undo each effect, the marks in it, and
//! the two calls around each effect that write it. Undoing is in `undo`.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::conclude::End;
use crate::entry::{Change, Entry};
use crate::file::{FileId, Look};
use crate::names::note_names;
use crate::prepare::{Pending, Prepared};
use crate::provenance::Provenance;
use crate::retire::AddedTo;
use crate::shelf::Shelf;
use crate::stamps::Stamps;
use crate::store::{NewFolder, OnFolder, Room, Saved, Stores};
use crate::{Effect, Mark, Obstacle, OwnAttributes, Unjournaled};

/// What a journal may do.
pub struct Options {
    /// Whether effects are undone. If not, nothing is saved, and all that is known is
    /// what the guest changed.
    pub undo: bool,
    /// The most bytes that all copies together have, in files that share their blocks
    /// with others too.
    pub limit: u64,
    /// The most bytes of one file that are copied again and again, at each checkpoint
    /// and before each new name, where the file system cannot share blocks.
    pub hold_limit: u64,
    /// A copy is used again for an unchanged file only if the file's last change was
    /// this much older than the copy: a file's times are as coarse as a clock tick.
    pub settle: Duration,
    /// Folders that are tried first for what goes with the journal, if they lie on the
    /// right mount.
    pub places: Vec<PathBuf>,
    /// Folders that are tried first for what outlives it; they are made if need be.
    pub lasting_places: Vec<PathBuf>,
    /// Files (`st_dev`, `st_ino`) that the guest has inherited open: what is in them comes
    /// by descriptors that nobody follows, and is never undone.
    pub inherited: Vec<(u64, u64)>,
    /// Called with each folder just before it is made, so that somebody else can
    /// remove it should this process be killed.
    pub on_folder: Box<dyn FnMut(NewFolder<'_>) + Send>,
}

impl Default for Options {
    fn default() -> Options {
        let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
        Options {
            undo: true,
            limit: 1 << 30,
            hold_limit: 64 << 20,
            settle: Duration::from_millis(20),
            places: runtime.into_iter().chain([std::env::temp_dir()]).collect(),
            lasting_places: Vec::new(),
            inherited: Vec::new(),
            on_folder: Box::new(|_| ()),
        }
    }
}

/// Records what undoes a guest's file effects, and undoes them. See the crate's
/// documentation for the rules.
pub struct Journal {
    pub(crate) undoes: bool,
    pub(crate) hold_limit: u64,
    pub(crate) settle: Duration,
    pub(crate) room: Arc<Room>,
    inherited: Vec<(u64, u64)>,
    pub(crate) entries: Vec<Entry>,
    pub(crate) current: Mark,
    last: Mark,
    /// The time of the first mark.
    pub(crate) began: Option<SystemTime>,
    /// The closes that the image of each mark owes.
    pub(crate) marks: BTreeMap<Mark, BTreeMap<FileId, u64>>,
    pub(crate) provenance: Provenance,
    /// Folders that the guest made, and after which mark.
    pub(crate) folders: HashMap<FileId, Mark>,
    /// What the guest left under each name that it changed.
    pub(crate) names: HashMap<PathBuf, Option<FileId>>,
    /// The same for what `forget_before` took out of the log.
    pub(crate) old_names: HashMap<PathBuf, Option<FileId>>,
    /// What the guest did to modes and times of files whose bytes are not its own.
    pub(crate) own_attributes: HashMap<FileId, OwnAttributes>,
    /// One for each removed file that is saved by a handle, and this one.
    pub(crate) handles: Arc<()>,
    /// Names, in the store, of files that images hold and that had none.
    pub(crate) anchors: HashMap<FileId, Saved>,
    /// Files that an undo has put back, whose times of change are our doing.
    pub(crate) put_back: HashSet<FileId>,
    pub(crate) stamps: Stamps,
    /// The last that somebody saved to each path, where the guest has only added to it.
    pub(crate) added_to: HashMap<PathBuf, AddedTo>,
    pub(crate) shelf: Shelf,
    // Last, so that what lies in the stores goes first.
    pub(crate) stores: Stores,
}

impl Journal {
    /// An empty journal. It touches no file until an effect needs it to.
    #[must_use]
    pub fn new(options: Options) -> Journal {
        let Options {
            undo,
            limit,
            hold_limit,
            settle,
            places,
            lasting_places,
            inherited,
            on_folder,
        } = options;
        let on_folder: OnFolder = on_folder;
        Journal {
            undoes: undo,
            hold_limit,
            settle,
            room: Room::new(limit),
            inherited,
            entries: Vec::new(),
            current: Mark(0),
            last: Mark(0),
            began: None,
            marks: BTreeMap::new(),
            provenance: Provenance::default(),
            folders: HashMap::new(),
            names: HashMap::new(),
            old_names: HashMap::new(),
            own_attributes: HashMap::new(),
            handles: Arc::default(),
            anchors: HashMap::new(),
            put_back: HashSet::new(),
            stamps: Stamps::default(),
            added_to: HashMap::new(),
            shelf: Shelf::default(),
            stores: Stores::new(places, lasting_places, on_folder),
        }
    }

    /// Marks this point. Call it at the guest's start and at each checkpoint, while
    /// all of the guest is stopped, and then [`Journal::hold`] for what it has open.
    pub fn mark(&mut self) -> Mark {
        self.provenance.drain();
        self.began.get_or_insert_with(SystemTime::now);
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
        self.provenance.goes_on();
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
        let only_attributes = matches!(prepared.pending, Pending::Attributes(_));
        let end = if succeeded { End::Done } else { End::Failed };
        let done = self.conclude(prepared.pending, end);
        if let Err(unjournaled) = &done {
            self.push_beyond(unjournaled.clone(), only_attributes);
        }
        self.if_undoing(done)
    }

    /// A task was killed in the middle of a call: whether it took effect only its
    /// traces tell. `process` is any number of its own for its process, of which
    /// [`process_ended`](Self::process_ended) tells when all of it is gone; none where all
    /// of the guest is killed for an undo.
    ///
    /// # Errors
    /// As [`after`](Self::after).
    pub fn after_kill(
        &mut self,
        prepared: Prepared,
        process: Option<u32>,
    ) -> Result<(), Unjournaled> {
        if let Pending::Nothing = prepared.pending {
            return Ok(());
        }
        self.provenance.drain();
        let only_attributes = matches!(prepared.pending, Pending::Attributes(_));
        match self.conclude(prepared.pending, End::CutOff(process)) {
            // It would have failed, had it come that far.
            Err(Unjournaled {
                why: Obstacle::Unexpected,
                ..
            }) => Ok(()),
            Err(unjournaled) => {
                self.push_beyond(unjournaled.clone(), only_attributes);
                self.if_undoing(Err(unjournaled))
            }
            Ok(()) => Ok(()),
        }
    }

    /// Where nothing is undone, nothing is in the way of it.
    pub(crate) fn if_undoing(&self, done: Result<(), Unjournaled>) -> Result<(), Unjournaled> {
        done.or_else(|why| if self.undoes { Err(why) } else { Ok(()) })
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
    /// [let go](Self::let_go). [`Journal::has_opened_anew`] must follow.
    pub fn opens_anew(&mut self, device: u64, inode: u64) {
        self.provenance.set_opens_are_ours(true);
        self.provenance.owe(|id| id.is(device, inode));
    }

    /// A copy of an image has opened what it had to.
    pub fn has_opened_anew(&mut self) {
        self.provenance.set_opens_are_ours(false);
    }

    /// No image holds a file (`st_dev`, `st_ino`) open any more, as far as it was open
    /// for writing at its mark.
    pub fn released(&mut self, device: u64, inode: u64) {
        for owed in self.marks.values_mut() {
            owed.retain(|id, _| !id.is(device, inode));
        }
    }

    /// Right before an undo to a mark, when the guest and the images of later marks are
    /// dead: how many open file descriptions that could write a file (`st_dev`, `st_ino`)
    /// the images hold that are left, if not so many as are given third. At the mark,
    /// those counted as well that only an image held which has been dropped since.
    pub fn recount(&mut self, mark: Mark, held: impl Fn(u64, u64, u64) -> u64) {
        if let Some(owed) = self.marks.get_mut(&mark) {
            for (id, owed) in owed.iter_mut() {
                let (device, inode) = id.numbers();
                *owed = held(device, inode, *owed).min(*owed);
            }
            owed.retain(|_, owed| *owed > 0);
        }
    }

    /// The files (`st_dev`, `st_ino`) whose bytes an undo to a mark puts back. If no
    /// image has one of them open meanwhile, everybody can be kept out of it. Those are
    /// left out that images have mapped.
    #[must_use]
    pub fn to_restore(&self, mark: Mark) -> Vec<(u64, u64)> {
        let first = self.entries.partition_point(|entry| entry.mark < mark);
        let contents = |entries: &[Entry], is: fn(bool) -> bool| -> BTreeSet<FileId> {
            let ids = entries.iter().filter_map(|entry| match &entry.change {
                Change::Content {
                    id, mapped, held, ..
                } => is(*mapped && *held).then_some(*id),
                _ => None,
            });
            ids.collect()
        };
        let mapped = contents(&self.entries, |mapped| mapped);
        let restored = contents(&self.entries[first..], |_| true);
        restored.difference(&mapped).map(FileId::numbers).collect()
    }

    /// Whether the guest has inherited a file.
    pub(crate) fn is_inherited(&self, id: FileId) -> bool {
        self.inherited.contains(&id.numbers())
    }

    /// The folders in which things are kept. The guest should not see them.
    pub fn folders(&self) -> impl Iterator<Item = &Path> {
        self.stores.folders()
    }

    pub(crate) fn push(&mut self, change: Change) {
        note_names(&mut self.names, &change);
        if let Change::Attributes {
            id, before, after, ..
        } = &change
        {
            self.note_attributes(*id, before, after);
        }
        if self.undoes {
            self.entries.push(Entry {
                mark: self.current,
                change,
                lost: None,
            });
        }
    }

    pub(crate) fn push_beyond(&mut self, unjournaled: Unjournaled, only_attributes: bool) {
        let look = Look::at(&unjournaled.path, false).ok().flatten();
        self.push(Change::Beyond {
            unjournaled,
            id: look.map(|look| look.id),
            only_attributes,
        });
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
        let mut held = BTreeMap::new();
        for (id, owed) in self.marks.values().flatten() {
            *held.entry(*id).or_default() += owed;
        }
        self.provenance.is_over(&held);
    }

    /// A process of the guest's is gone, with all its tasks.
    pub fn process_ended(&mut self, process: u32) {
        self.provenance.process_ended(process);
    }

    /// Takes in the file events so far. Never blocks.
    pub fn drain(&mut self) {
        self.provenance.drain();
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        self.finish();
    }
}
