//! Whose bytes a file holds. Each open file description that can write gives
//! exactly one `IN_CLOSE_WRITE` when it is closed for good, and the guest's opens
//! are all seen: a close that no open of the guest's owes is somebody else's, and so
//! is a modification while the guest owes none. Deciding what follows from that is
//! the undo's part.
//!
//! inotify merges an event into the one before it if both are equal, and two closes
//! in a row would count as one. So the folder is watched too, by the same instance:
//! each close then gives two events, the folder's and the file's, and no two equal
//! ones follow each other (`fsnotify_handle_event` in the kernel's
//! `fs/notify/fsnotify.c` sends the parent's first). What remains is two closes on two
//! processors within the same few hundred nanoseconds.
//!
//! By a hard link in a folder that is not watched a close gives the file's event alone, and
//! right after the guest's it gives none. So of such a file the opens are watched as well:
//! somebody else's, while the guest has it open, leaves open whose its bytes are.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags};
use rustix::io::Errno;

use crate::file::{FileId, proc_path};
use crate::tracked::{Opening, Tracked};
use crate::{Mark, Why};

/// What is watched of a file.
const OF_FILES: WatchFlags = WatchFlags::CLOSE_WRITE
    .union(WatchFlags::MODIFY)
    .union(WatchFlags::ATTRIB);

/// The watches, and what came of them.
#[derive(Default)]
pub(crate) struct Provenance {
    inotify: Option<OwnedFd>,
    files: HashMap<FileId, Tracked>,
    by_watch: HashMap<i32, FileId>,
    folders: HashSet<i32>,
    /// The guest has ended: only images hold its files, and they write nothing.
    is_over: bool,
    /// Opens are ours, or those of copies that are made.
    opens_are_ours: bool,
    /// Opens that were cut off by the end of these processes, which are not quite gone.
    cut_off: Vec<(u32, FileId, Opening)>,
}

impl Provenance {
    pub(crate) fn get(&self, id: FileId) -> Option<&Tracked> {
        self.files.get(&id)
    }

    pub(crate) fn get_mut(&mut self, id: FileId) -> Option<&mut Tracked> {
        self.files.get_mut(&id)
    }

    /// What is known of a file, or going to be.
    pub(crate) fn file(&mut self, id: FileId) -> &mut Tracked {
        self.files.entry(id).or_default()
    }

    /// The queue's descriptor, readable when there is something to drain.
    pub(crate) fn queue(&self) -> Option<BorrowedFd<'_>> {
        self.inotify.as_ref().map(AsFd::as_fd)
    }

    /// Watches a file, and the folder it is in if others may write it there. Where
    /// that fails, the file is marked so.
    pub(crate) fn track(
        &mut self,
        id: FileId,
        fd: &OwnedFd,
        folder: Option<&Path>,
    ) -> &mut Tracked {
        let mut failure = None;
        if self.files.get(&id).is_none_or(|file| file.watch.is_none()) {
            match self.watch(&proc_path(fd), OF_FILES) {
                Ok(watch) => {
                    self.by_watch.insert(watch, id);
                    self.file(id).watch = Some(watch);
                }
                Err(cause) => failure = Some(cause),
            }
        }
        if let Some(folder) = folder {
            match self.watch_folder(folder) {
                // Nobody writes in a folder that is not there.
                Ok(()) | Err(Errno::NOENT | Errno::NOTDIR) => {}
                Err(cause) => failure = Some(cause),
            }
        }
        let file = self.file(id);
        if let Some(cause) = failure {
            let why = match cause.raw_os_error() {
                libc::ENOSPC => "the limit of fs.inotify.max_user_watches is reached".into(),
                libc::EMFILE => "the limit of fs.inotify.max_user_instances is reached".into(),
                _ => format!("inotify: {}", std::io::Error::from(cause)),
            };
            file.unwatched.get_or_insert(why.into());
        }
        file
    }

    /// Watches the closes in a folder. Another one may lie there than was watched; one that
    /// is watched stays so.
    pub(crate) fn watch_folder(&mut self, folder: &Path) -> rustix::io::Result<()> {
        let watch = self.watch(folder, WatchFlags::CLOSE_WRITE | WatchFlags::ONLYDIR)?;
        self.folders.insert(watch);
        Ok(())
    }

    /// Watches the opens of a file as well, which the guest has under other names than it
    /// knows.
    pub(crate) fn watch_opens(&mut self, id: FileId, fd: &OwnedFd) {
        if let Some(file) = self.files.get(&id)
            && file.watch.is_some()
        {
            // It is a watch already, of which only the mask changes.
            let _ = self.watch(&proc_path(fd), OF_FILES | WatchFlags::OPEN);
        }
    }

    fn watch(&mut self, path: &Path, mask: WatchFlags) -> rustix::io::Result<i32> {
        let inotify = match &self.inotify {
            Some(inotify) => inotify,
            None => {
                let made = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
                self.inotify.insert(made)
            }
        };
        inotify::add_watch(inotify, path, mask)
    }

    /// Reads what has happened so far.
    pub(crate) fn drain(&mut self) {
        let Some(inotify) = &self.inotify else {
            return;
        };
        let mut buffer = [MaybeUninit::uninit(); 8192];
        let mut events = Reader::new(inotify, &mut buffer);
        loop {
            let (watch, what) = match events.next() {
                Ok(event) => (event.wd(), event.events()),
                Err(rustix::io::Errno::INTR) => continue,
                Err(rustix::io::Errno::AGAIN) => return,
                Err(cause) => {
                    let why: Arc<str> = format!("inotify: {cause}").into();
                    return doubt_all(&mut self.files, &why);
                }
            };
            if what.contains(ReadFlags::QUEUE_OVERFLOW) {
                doubt_all(&mut self.files, &"the inotify queue overflowed".into());
                continue;
            }
            if what.contains(ReadFlags::IGNORED) {
                if let Some(id) = self.by_watch.remove(&watch) {
                    if let Some(file) = self.files.get_mut(&id) {
                        file.watch = None;
                    }
                } else {
                    self.folders.remove(&watch);
                }
                continue;
            }
            let file = self.by_watch.get(&watch);
            let Some(file) = file.and_then(|id| self.files.get_mut(id)) else {
                continue;
            };
            file.happened(what, self.is_over, self.opens_are_ours);
        }
    }

    /// The guest begins to run again.
    pub(crate) fn goes_on(&mut self) {
        if self.is_over {
            self.drain();
            self.is_over = false;
        }
    }

    /// The guest has ended, and its last events are in the queue. `held`: the closes that
    /// all images owe together.
    pub(crate) fn is_over(&mut self, held: &BTreeMap<FileId, u64>) {
        self.drain();
        self.is_over = true;
        self.guest_is_dead(held);
    }

    /// Opens files, or lets it be done, while nobody is taken for somebody else.
    pub(crate) fn set_opens_are_ours(&mut self, are_ours: bool) {
        self.drain();
        self.opens_are_ours = are_ours;
    }

    /// The closes owed now, of the files that owe any.
    pub(crate) fn owed(&self) -> BTreeMap<FileId, u64> {
        let owing = self.files.iter().filter(|(_, file)| file.owed > 0);
        owing.map(|(id, file)| (*id, file.owed)).collect()
    }

    /// The guest is about to open a file for writing.
    pub(crate) fn begin_open(&mut self, id: FileId) -> Opening {
        // What we have opened ourselves has shown before.
        self.drain();
        self.file(id).begin_open()
    }

    /// A task of a process was killed in an open: whether it happened shows when all of
    /// the process is gone, and with it what it had open.
    pub(crate) fn cut_off(&mut self, process: u32, id: FileId, opening: Opening) {
        self.cut_off.push((process, id, opening));
    }

    /// All of a process is gone.
    pub(crate) fn process_ended(&mut self, process: u32) {
        let is_its = |(of, ..): &mut (u32, FileId, Opening)| *of == process;
        let cut_off: Vec<_> = self.cut_off.extract_if(.., is_its).collect();
        if cut_off.is_empty() {
            return;
        }
        self.drain();
        for (_, id, opening) in cut_off {
            if let Some(file) = self.files.get_mut(&id) {
                file.end_cut_off(opening);
            }
        }
    }

    /// The guest opens files once more.
    pub(crate) fn owe(&mut self, opens: impl Fn(FileId) -> bool) {
        for (_, file) in self.files.iter_mut().filter(|(id, _)| opens(**id)) {
            file.owed += 1;
        }
    }

    /// We have just opened a file for writing, and are about to close it.
    pub(crate) fn owe_our_own(&mut self, id: FileId) {
        self.drain();
        if let Some(file) = self.files.get_mut(&id) {
            file.owed += 1;
        }
    }

    /// The guest is dead and its closes have come: those that are owed still, beyond the
    /// descriptions that images hold, never will. A task that died in its open either
    /// did not open, or had closed before the file was watched.
    pub(crate) fn guest_is_dead(&mut self, held: &BTreeMap<FileId, u64>) {
        for (_, id, opening) in std::mem::take(&mut self.cut_off) {
            if let Some(file) = self.files.get_mut(&id) {
                file.end_cut_off(opening);
            }
        }
        for (id, file) in &mut self.files {
            file.owed = file.owed.min(held.get(id).copied().unwrap_or(0));
        }
    }

    /// Puts everything back to a mark: files made or saved after it no longer are,
    /// and the closes owed are those of the descriptions that its image holds.
    pub(crate) fn rewind(&mut self, mark: Mark, owed: &BTreeMap<FileId, u64>) {
        for (id, file) in &mut self.files {
            file.rewind(mark, owed.get(id).copied().unwrap_or(0));
        }
    }

    /// What came after one mark now counts as coming after an earlier one.
    pub(crate) fn merge(&mut self, mark: Mark, into: Mark) {
        for file in self.files.values_mut() {
            for known in [&mut file.birth, &mut file.saved] {
                if *known == Some(mark) {
                    *known = Some(into);
                }
            }
        }
    }

    /// Forgets one file.
    pub(crate) fn forget(&mut self, id: FileId) {
        let file = self.files.remove(&id);
        if let Some(watch) = file.and_then(|file| file.watch)
            && let Some(inotify) = &self.inotify
        {
            self.by_watch.remove(&watch);
            // It fails when the file is gone, and the watch with it.
            let _ = inotify::remove_watch(inotify, watch);
        }
    }

    /// Forgets the files that are not to be kept (and that the guest has closed), unless
    /// what somebody else wrote is in them.
    pub(crate) fn retain(&mut self, keep: impl Fn(FileId) -> bool) {
        let unneeded = |(id, file): (&FileId, &Tracked)| {
            let theirs = file.theirs || matches!(file.foreign, Some(Why::Written));
            let is_used = file.owed > 0 || file.calls > 0;
            (!is_used && !theirs && !keep(*id)).then_some(*id)
        };
        let unneeded: Vec<FileId> = self.files.iter().filter_map(unneeded).collect();
        for id in unneeded {
            self.forget(id);
        }
    }
}

fn doubt_all(files: &mut HashMap<FileId, Tracked>, why: &Arc<str>) {
    for file in files.values_mut() {
        file.foreign.get_or_insert(Why::Unproven(why.clone()));
    }
}
