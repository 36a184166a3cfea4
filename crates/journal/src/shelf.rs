//! What undoing took away: it can be had back until the journal ends, and what may be
//! somebody else's also after that.
//!
//! ```text
//!   its place ──isolate──► keep ──proven to be the guest's──► store, with the journal
//!                           │ ▲
//!                           │ └── written to after all ◄────────┘ (watched)
//!                           └── not proven: stays there, is listed and named
//! ```
//!
//! A file that is out of its place can still be reached by whoever looked its name up
//! just before. So it stays watched for as long as it is here, and is moved to the
//! keep as soon as somebody else has written to it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rustix::fs::SeekFrom;

use crate::file::{FileId, Look, open_path};
use crate::journal::Journal;
use crate::store::{NeedsRoom, NoCopy, Share, copy_to, rename_new};
use crate::undo::is_being_written;
use crate::{Obstacle, Why};

/// The most things that are watched here; the oldest go first.
const MOST_ITEMS: usize = 4096;

/// The list in a keep, for whoever looks there after forkmon has ended.
const LIST: &str = "list.txt";

/// Something that was taken away, and where it can be had.
#[derive(Clone, Debug)]
pub struct Item {
    /// Where it lay.
    pub path: PathBuf,
    /// When it was taken away.
    pub at: SystemTime,
    /// In bytes.
    pub size: u64,
    /// Why it was taken away.
    pub why: Reason,
    /// Where it lies now.
    pub lies: PathBuf,
    /// It may be somebody else's, and outlives the journal.
    pub stays: bool,
}

/// Why something was taken from where it lay.
#[derive(Copy, Clone, Eq, PartialEq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Reason {
    /// An undo removed what the guest had made.
    #[error("the program had made it, and that was undone")]
    Removed,
    /// An undo put back what was there before the guest wrote.
    #[error("the program had written it, and that was undone")]
    Overwritten,
    /// It stood in for a file that was being put back, and somebody got hold of it.
    #[error("it was written to while its file was being put back")]
    StoodIn,
    /// Somebody wrote to it when it was out of its place already.
    #[error("it was written to while it was being taken away")]
    Written,
    /// Another file had taken its name before it was back.
    #[error("another file has taken its name")]
    Displaced,
    /// The guest wrote over it, or removed it.
    #[error("somebody had saved it, and the program has written over it or removed it since")]
    ByTheGuest,
    /// What a file had held before the guest wrote to it, and it was left.
    #[error("it is what was there before the program wrote to it, and could not be put back")]
    Before,
}

/// An item, and what keeps it.
#[derive(Debug)]
struct Shelved {
    item: Item,
    id: Option<FileId>,
    /// When the guest wrote over it, if it did.
    taken: Option<SystemTime>,
    _share: Option<Share>,
}

/// All that was taken away.
#[derive(Debug, Default)]
pub(crate) struct Shelf {
    shelved: Vec<Shelved>,
    /// What came to stay since somebody last asked.
    news: Vec<Item>,
}

impl Shelf {
    /// The files that have to stay watched.
    pub(crate) fn ids(&self) -> impl Iterator<Item = FileId> {
        let watched = self.shelved.iter().filter(|shelved| !shelved.item.stays);
        watched.filter_map(|shelved| shelved.id)
    }

    fn add(&mut self, item: Item, id: Option<FileId>, share: Option<Share>) {
        self.shelved.push(Shelved {
            item,
            id,
            taken: None,
            _share: share,
        });
    }

    /// Of what people have saved to one path and the guest has written over, only the
    /// last version stays. Answers whether that is the one that was taken then.
    pub(crate) fn supersede(&mut self, path: &Path, taken: SystemTime) -> bool {
        let shelved = &mut self.shelved;
        let is_it =
            |shelved: &Shelved| shelved.item.why == Reason::ByTheGuest && shelved.item.path == path;
        let Some(other) = shelved.iter().position(is_it) else {
            return true;
        };
        if shelved[other].taken > Some(taken) {
            return false;
        }
        let lies = shelved.remove(other).item.lies;
        let _ = fs::remove_file(&lies);
        self.news.retain(|item| item.lies != lies);
        true
    }

    /// Notes when it was taken what was kept last.
    pub(crate) fn note_taken(&mut self, path: &Path, taken: SystemTime) {
        if let Some(last) = self.shelved.last_mut()
            && last.item.path == path
        {
            last.taken = Some(taken);
        }
    }

    /// Something has come to stay.
    fn announce(&mut self, item: Item) {
        // Without the list the message still says where it lies.
        let _ = note(&item);
        self.news.push(item);
    }
}

impl Item {
    pub(crate) fn new(path: &Path, size: u64, why: Reason, lies: PathBuf) -> Item {
        Item {
            path: path.to_owned(),
            at: SystemTime::now(),
            size,
            why,
            lies,
            stays: false,
        }
    }
}

/// A copy of what is about to be written over. It lies in the keep, should we be killed
/// meanwhile.
#[derive(Debug)]
pub(crate) struct Aside {
    path: PathBuf,
    lies: PathBuf,
    size: u64,
    share: Share,
}

impl Journal {
    /// Everything that undoing has taken away and that can still be had, and what the
    /// guest has written over after somebody else; oldest first.
    #[must_use]
    pub fn taken_away(&mut self) -> Vec<Item> {
        self.provenance.drain();
        self.sweep();
        let shelved = self.shelf.shelved.iter();
        let items = shelved.map(|shelved| shelved.item.clone());
        let mut items: Vec<Item> = items.chain(self.written_over()).collect();
        items.sort_by_key(|item| item.at);
        items
    }

    /// What has come to stay since this was last asked: it may be somebody else's, and
    /// people have to be told where it lies.
    pub fn kept(&mut self) -> Vec<Item> {
        std::mem::take(&mut self.shelf.news)
    }

    /// The end: tells what stays of all that was taken away, and of what the guest
    /// wrote over that somebody else had written. The rest goes with the journal.
    pub fn finish(&mut self) -> Vec<Item> {
        self.provenance.drain();
        for entry in std::mem::take(&mut self.entries) {
            self.retire(entry.change);
        }
        self.retire_added_to();
        self.anchors.clear();
        self.sweep();
        for index in 0..self.shelf.shelved.len() {
            let item = &self.shelf.shelved[index].item;
            if !item.stays && is_being_written(&item.lies) {
                self.let_stay(index, Reason::Written);
            }
        }
        self.stores.remove_empty_keeps();
        self.kept()
    }

    /// Takes a file out of reach of all who do not know its name by now.
    pub(crate) fn isolate(&mut self, path: &Path) -> Result<PathBuf, Why> {
        let isolated = self.stores.fresh_in_keep(path).map_err(Why::Unjournaled)?;
        rename_new(path, &isolated).map_err(Why::io("move it out of the way"))?;
        Ok(isolated)
    }

    /// A file in the keep is the guest's: it goes when the journal does.
    pub(crate) fn shelve(&mut self, isolated: PathBuf, path: &Path, why: Reason) {
        let found = open_path(&isolated, false).and_then(|fd| Ok((Look::of(&fd)?, fd)));
        let Ok((look, handle)) = found else {
            return;
        };
        if !look.is_regular() {
            // A link, a socket, a pipe: the guest made it, and there are no bytes in it.
            let _ = fs::remove_file(&isolated);
            return;
        }
        self.provenance.track(look.id, &handle, isolated.parent());
        let share = self.share(look.size).ok();
        let store = self.stores.fresh(&isolated, Some(&look));
        if let Ok(store) = store
            && rename_new(&isolated, &store).is_ok()
        {
            let item = Item::new(path, look.size, why, store);
            self.shelf.add(item, Some(look.id), share);
            if self.shelf.ids().count() > MOST_ITEMS {
                self.evict();
            }
        } else {
            self.keep(isolated, path, why);
        }
    }

    /// A file in the keep may be somebody else's: there it stays.
    pub(crate) fn keep(&mut self, isolated: PathBuf, path: &Path, why: Reason) {
        let size = Look::at(&isolated, false).ok().flatten();
        let size = size.map_or(0, |look| look.size);
        let mut item = Item::new(path, size, why, isolated);
        item.stays = true;
        self.shelf.announce(item.clone());
        self.shelf.add(item, None, None);
    }

    /// Copies what an open file holds into the keep, before other bytes are written into
    /// it, and leaves it at its beginning. Where there is no room, there is no copy:
    /// whose the bytes are is known.
    pub(crate) fn set_aside(&mut self, file: &File, path: &Path) -> Option<Aside> {
        let size = Look::of(file).ok()?.size;
        if size == 0 {
            return None;
        }
        let lies = self.stores.fresh_in_keep(path).ok()?;
        let share = self.share(size).ok()?;
        let copied = copy_to(file, size, &lies, self.room.limit());
        rustix::fs::seek(file, SeekFrom::Start(0)).ok()?;
        copied.ok()?;
        let path = path.to_owned();
        Some(Aside {
            path,
            lies,
            size,
            share,
        })
    }

    /// What was set aside and written over was the guest's.
    pub(crate) fn shelve_aside(&mut self, aside: Aside) {
        let store = self.stores.fresh(&aside.lies, None);
        if let Ok(store) = store
            && rename_new(&aside.lies, &store).is_ok()
        {
            let item = Item::new(&aside.path, aside.size, Reason::Overwritten, store);
            self.shelf.add(item, None, Some(aside.share));
        } else {
            self.keep_aside(aside);
        }
    }

    /// What was set aside and written over may have been somebody else's.
    pub(crate) fn keep_aside(&mut self, aside: Aside) {
        self.keep(aside.lies, &aside.path, Reason::Overwritten);
    }

    /// Moves what somebody else has written to since to where it stays.
    pub(crate) fn sweep(&mut self) {
        for index in 0..self.shelf.shelved.len() {
            let shelved = &self.shelf.shelved[index];
            let file = shelved.id.and_then(|id| self.provenance.get(id));
            if !shelved.item.stays && file.is_some_and(|file| file.foreign.is_some()) {
                self.let_stay(index, Reason::Written);
            }
        }
    }

    fn let_stay(&mut self, index: usize, why: Reason) {
        let item = &self.shelf.shelved[index].item;
        let (path, lies) = (item.path.clone(), item.lies.clone());
        let Ok(to) = self.stores.fresh_in_keep(&called_like(&lies, &path)) else {
            return;
        };
        if rename_new(&lies, &to).is_err() {
            return;
        }
        let size = Look::at(&to, false).ok().flatten().map(|look| look.size);
        let item = &mut self.shelf.shelved[index].item;
        item.lies = to;
        item.why = why;
        item.stays = true;
        item.size = size.unwrap_or(item.size);
        let item = item.clone();
        self.shelf.announce(item);
    }

    /// Room for so many bytes; the oldest things that an undo took away make it.
    pub(crate) fn share(&mut self, bytes: u64) -> Result<Share, Obstacle> {
        loop {
            if let Some(share) = self.room.take(bytes) {
                return Ok(share);
            }
            let limit = self.room.limit();
            if bytes > limit || !self.evict() {
                return Err(Obstacle::TooLarge { size: bytes, limit });
            }
        }
    }

    /// Does something that needs room in a file system. While there is none, the oldest
    /// things that an undo took away make it.
    pub(crate) fn with_room<T, E: NeedsRoom>(
        &mut self,
        mut attempt: impl FnMut() -> Result<T, E>,
    ) -> Result<T, E> {
        loop {
            match attempt() {
                Err(cause) if cause.needs_room() && self.evict() => {}
                outcome => return outcome,
            }
        }
    }

    /// Removes the oldest thing that is the guest's; whether there was one.
    fn evict(&mut self) -> bool {
        self.provenance.drain();
        self.sweep();
        let oldest = self
            .shelf
            .shelved
            .iter()
            .position(|shelved| !shelved.item.stays && !is_being_written(&shelved.item.lies));
        let Some(oldest) = oldest else {
            return false;
        };
        let shelved = self.shelf.shelved.remove(oldest);
        let _ = fs::remove_file(&shelved.item.lies);
        true
    }
}

/// A file where this one lies, with the name of that one: the folder that it lay in may
/// be gone, but its mount is known by this.
pub(crate) fn called_like(lies: &Path, path: &Path) -> PathBuf {
    lies.with_file_name(path.file_name().unwrap_or_default())
}

/// Adds a line to the list that lies beside what is kept.
fn note(item: &Item) -> io::Result<()> {
    let Some(folder) = item.lies.parent() else {
        return Ok(());
    };
    let mut options = OpenOptions::new();
    let mut list = options.create(true).append(true).open(folder.join(LIST))?;
    let name = item
        .lies
        .file_name()
        .unwrap_or_default()
        .display()
        .to_string();
    let line = format!("{}\t{}\t{}\n", name, item.path.display(), item.why);
    list.write_all(line.as_bytes())
}

impl From<NoCopy> for Obstacle {
    fn from(cause: NoCopy) -> Obstacle {
        match cause {
            NoCopy::TooLong => Obstacle::TooLong,
            NoCopy::Io(cause) => Obstacle::io("copy its bytes", cause),
        }
    }
}
