//! Files that the guest reads in pieces: how far it has read, and what the file was.
//!
//! An open counts as a read of the whole file. Where each read is seen (`reader`), it
//! turns out to be of the first piece only, and the timeline is told of each piece
//! before it is read. What the file held is kept, so that an edit can be compared with
//! it: one behind what was read contradicts nothing.

use super::Supervisor;
use super::edit::Touched;
use super::fingerprint::bytes_of;
use super::reader::Reader;
use crate::cli::{Precision, WithinFile};
use snapshot::Moved;
use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;
use timeline::{AccessIndex, AccessKind, CheckpointId, Current, Fingerprint, Identity, Verdict};
use tracee::Tid;

/// The largest file that is kept for comparing.
pub(super) const LARGEST: u64 = 16 << 20;

/// What is kept of all of them.
const MOST: u64 = 64 << 20;

/// What the kernel reads of a script to find its interpreter (`BINPRM_BUF_SIZE`).
const SCRIPT_HEAD: u64 = 256;

/// Whether a run's first process is stopped at its reads.
#[derive(Copy, Clone, Default, Debug)]
pub(super) enum Seen {
    /// It has opened nothing so far that it could read in pieces.
    #[default]
    NotAsked,
    /// It is not.
    No,
    /// It is.
    Yes(Reader),
}

impl Seen {
    fn reader(self) -> Option<Reader> {
        match self {
            Self::Yes(reader) => Some(reader),
            Self::NotAsked | Self::No => None,
        }
    }
}

/// A file that the guest has opened to read.
#[derive(Debug, Default)]
pub(super) struct Opened {
    /// When the first process opened it, as [`Pieces::opens`] tells it.
    pub(super) by_first: Vec<u64>,
    /// When any other process did.
    pub(super) by_others: Vec<u64>,
    /// The first process has asked for its size since it opened it.
    pub(super) sized: bool,
    /// More is known of it than its reads tell: it counts as read at its open.
    pub(super) refused: bool,
    /// From here on all of it may be known, and is perhaps read unseen.
    pub(super) whole: Option<AccessIndex>,
    /// A shell has it for its standard input, which its commands have, too, and it was
    /// not seen how far it was read in the end.
    pub(super) shared: Option<Shared>,
    pub(super) kept: Option<Kept>,
    /// The last reads, and where in the timeline.
    pub(super) reads: Vec<(Instant, AccessIndex)>,
}

/// A file that more than its reader's seen reads may have moved on in.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub(super) enum Shared {
    /// It may be so still.
    Open,
    /// It was closed, and no more was read than was seen.
    Closed,
}

impl Opened {
    pub(super) fn is_open_by_nobody(&self) -> bool {
        self.by_first.is_empty() && self.by_others.is_empty()
    }
}

/// What a file held when the guest read it.
#[derive(Clone, Debug)]
pub(super) struct Kept {
    pub(super) identity: Identity,
    bytes: Arc<[u8]>,
}

/// A file that the guest reads in pieces, and had open at a checkpoint.
#[derive(Clone, Debug)]
struct OpenPiece {
    path: PathBuf,
    device: u64,
    inode: u64,
    number: i32,
}

/// What a checkpoint has to remember of the reading.
#[derive(Clone, Default, Debug)]
pub(super) struct Place {
    pub(super) seen: Seen,
    pub(super) reads_script: bool,
    open: Vec<OpenPiece>,
    opens: u64,
}

/// The files that the guest has opened to read, by path.
#[derive(Debug, Default)]
pub(super) struct Pieces {
    pub(super) files: HashMap<PathBuf, Opened>,
    /// How often any was opened.
    opens: u64,
    /// Where the last edit of each began.
    pub(super) edited: HashMap<PathBuf, u64>,
}

impl Pieces {
    /// All was read by a run that has never been.
    pub(super) fn restart(&mut self) {
        self.files.clear();
    }

    /// Of what was opened only this much has been, and read what comes before `end`.
    fn rewind(&mut self, opens: u64, end: AccessIndex) {
        for file in self.files.values_mut() {
            file.by_first.retain(|at| *at <= opens);
            file.by_others.retain(|at| *at <= opens);
            file.reads.retain(|(_, at)| *at < end);
            file.whole = file.whole.filter(|at| *at < end);
            file.shared = file.shared.map(|_| Shared::Open);
        }
        self.files
            .retain(|_, file| !file.is_open_by_nobody() || file.kept.is_some());
    }

    fn kept(&self, path: &Path) -> Option<&Kept> {
        self.files.get(path)?.kept.as_ref()
    }

    /// The largest file that can be kept, too.
    pub(super) fn room(&self) -> u64 {
        let kept = self.files.values().filter_map(|file| file.kept.as_ref());
        let size = kept.map(|kept| kept.bytes.len() as u64).sum();
        MOST.saturating_sub(size).min(LARGEST)
    }

    /// How much of a file is as it was when it was kept.
    pub(super) fn agreement(&self, path: &Path, now: &[u8]) -> Option<(Identity, u64)> {
        let kept = self.kept(path)?;
        let same = kept.bytes.iter().zip(now).take_while(|(a, b)| a == b);
        Some((kept.identity, same.count() as u64))
    }
}

impl Supervisor<'_> {
    /// How the guest's first process reads, if that is seen.
    pub(super) fn reader(&self) -> Option<Reader> {
        self.run.reads.reader()
    }

    /// Whether what the guest's first process learns of a file's size and times is nothing
    /// to it once it has read the file.
    pub(super) fn looks_before_reading(&self) -> bool {
        self.config.metadata == Precision::Content
            || self
                .reader()
                .is_some_and(|reader| reader.looks_before_reading)
    }

    /// Whether an open of a file tells the guest nothing that its reads do not.
    pub(super) fn is_read_in_pieces(&self, path: &Path, process: Tid) -> bool {
        process == self.run.root()
            && self.reader().is_some_and(|reader| reader.is_complete())
            && self.is_the_read_file(path)
    }

    /// The guest is about to open a file to read it.
    pub(super) fn opens(&mut self, path: &Path, process: Tid) {
        if self.config.once || self.config.within_file == WithinFile::Off {
            return;
        }
        self.pieces.opens += 1;
        let file = self.pieces.files.entry(path.to_owned()).or_default();
        if file.is_open_by_nobody() {
            file.refused = false;
            file.whole = None;
        }
        if process == self.run.root() {
            file.by_first.push(self.pieces.opens);
            file.sized = false;
            self.run.just_opened = Some(path.to_owned());
        } else {
            file.by_others.push(self.pieces.opens);
        }
    }

    /// The guest's first process is about to execute a script, of which the kernel
    /// reads the beginning. What the interpreter reads of it is seen by itself.
    pub(super) fn executes_script(&mut self, path: &Path) {
        if self.config.once || self.config.within_file == WithinFile::Off {
            return;
        }
        if let Some((kept, fingerprint)) = keep(path, self.pieces.room())
            && self.timeline.narrow(path, &kept.identity, SCRIPT_HEAD)
        {
            self.timeline
                .set_fingerprint(path, &kept.identity, fingerprint);
            self.pieces.files.entry(path.to_owned()).or_default().kept = Some(kept);
        }
    }

    /// The name by which an open file is known that the guest may read in pieces.
    pub(super) fn name_of_piece(&self, name: &Path, now: &Identity) -> Option<PathBuf> {
        let is_it = |path: &Path, file: &Opened| match self.timeline.read_of(path) {
            Some((of, _)) => (of.device, of.inode) == (now.device, now.inode),
            None => path == name && !file.refused,
        };
        if let Some(file) = self.pieces.files.get(name) {
            return is_it(name, file).then(|| name.to_owned());
        }
        // It was renamed, or removed, since.
        let mut files = self.pieces.files.iter();
        let found = files.find(|(path, file)| is_it(path, file));
        found.map(|(path, _)| path.clone())
    }

    /// Whether a file is read in pieces, all of which are seen.
    pub(super) fn is_in_pieces(&self, path: &Path) -> bool {
        self.timeline.read_of(path).is_some() && !self.timeline.knows(path, AccessKind::Content)
    }

    /// What a checkpoint that is taken now has to remember.
    pub(super) fn reading_place(&mut self) -> Place {
        let mut open = Vec::new();
        let process = self.run.root();
        let fds =
            (!self.pieces.files.is_empty()).then(|| fs::read_dir(format!("/proc/{process}/fd")));
        for fd in fds.into_iter().flatten().flatten().flatten() {
            let number = fd.file_name().to_str().and_then(|name| name.parse().ok());
            // One that is open and was not read so far counts, too: a copy is to read
            // what is there then.
            let piece = number.and_then(|number| self.piece_of(process, number));
            let Some((path, now)) = piece else {
                continue;
            };
            let place = number.and_then(|number| place_of(process, number));
            let known = self.timeline.read_of(&path).map(|(_, known)| known);
            let complete = self.reader().is_some_and(|reader| reader.is_complete());
            if known.is_some() && (place.is_none() || place > known && !complete) {
                self.unseen(&path);
            }
            open.extend(number.map(|number| OpenPiece {
                path,
                device: now.device,
                inode: now.inode,
                number,
            }));
        }
        Place {
            seen: self.run.reads,
            reads_script: self.run.reads_script,
            open,
            opens: self.pieces.opens,
        }
    }

    /// Goes back to what was opened at a checkpoint; the files whose names lead to
    /// others by now.
    pub(super) fn reading_rewound(&mut self, place: &Place) -> Vec<Moved> {
        self.pieces.rewind(place.opens, self.timeline.end());
        let moved = place.open.iter().filter_map(|open| {
            let now = fs::symlink_metadata(&open.path).ok()?;
            let is_other = now.is_file() && (now.dev(), now.ino()) != (open.device, open.inode);
            is_other.then(|| Moved {
                number: open.number,
                path: open.path.clone(),
            })
        });
        moved.collect()
    }

    /// Somebody has touched a file: what was read of it since, or while it was
    /// written, is not known.
    pub(super) fn spoil_reads(&mut self, path: &Path, quiet_before: Instant) {
        let Some(file) = self.pieces.files.get(path) else {
            return;
        };
        let mut reads = file.reads.iter();
        let since = reads.find(|(at, _)| *at >= quiet_before);
        let first = since.map(|(_, from)| *from).into_iter().chain(file.whole);
        if let Some(from) = first.min() {
            self.timeline.spoil_from(path, from);
        }
    }

    /// Whether a process of the guest has a file open that it reads in pieces.
    pub(super) fn is_still_read(&self, path: &Path) -> bool {
        self.timeline
            .read_of(path)
            .is_some_and(|(of, _)| self.is_file_open_in_guest(of.device, of.inode))
    }

    /// Whether a path leads to the very file that is read in pieces there.
    pub(super) fn is_the_read_file(&self, path: &Path) -> bool {
        self.timeline
            .read_of(path)
            .is_some_and(|(of, _)| is_same_file(path, &of))
    }

    /// A file that a shell had for its standard input is about to be compared: what was
    /// read of it is no more than was seen, or not known.
    pub(super) fn confirm_reads(&mut self, path: &Path) {
        let shared = self.pieces.files.get(path).and_then(|file| file.shared);
        let Some((of, known)) = self
            .timeline
            .read_of(path)
            .filter(|_| shared == Some(Shared::Open))
        else {
            return;
        };
        let process = self.run.root();
        let numbers = numbers_of(process, of.device, of.inode);
        let is_seen = |number: &i32| place_of(process, *number).is_some_and(|at| at <= known);
        if numbers.is_empty() || !numbers.iter().all(is_seen) {
            self.unseen(path);
        }
    }

    /// The guest goes on, or has gone on, with a file as it is now.
    pub(super) fn accept(&mut self, touched: &Touched) {
        let (path, now) = (&touched.path, &touched.now);
        for id in self.timeline.accept(path, now) {
            self.discard(id);
        }
        let Current::File { metadata, .. } = now else {
            return;
        };
        if let Some(last) = self.last_access.get_mut(path) {
            last.seen = Some(metadata.identity);
        }
        if let Some(bytes) = &touched.bytes
            && let Some(file) = self.pieces.files.get_mut(path)
            && let Some(kept) = &mut file.kept
        {
            *kept = Kept {
                identity: metadata.identity,
                bytes: Arc::clone(bytes),
            };
        }
    }

    /// A copy goes on with a file that lies there now, under another inode. If it is not
    /// what the copy is to read, an event that is on its way says so.
    pub(super) fn reads_on(&mut self, path: &Path) {
        let touched = self.look_at(path, true);
        let verdict = self.timeline.judge(path, &touched.now);
        if matches!(verdict, Verdict::Unchanged | Verdict::Unread) {
            self.accept(&touched);
        }
    }

    /// Remembers where a file was edited.
    pub(super) fn edited_at(&mut self, path: &Path, now: &Current) {
        if let Current::File {
            agrees: Some((_, same)),
            ..
        } = now
        {
            self.pieces.edited.insert(path.to_owned(), *same);
        }
    }

    /// A checkpoint nearer to what was edited makes those before it useless that were
    /// taken for the same.
    pub(super) fn supersede(&mut self, path: &Path, newest: CheckpointId) {
        if !self.stored.contains_key(&newest) {
            return;
        }
        let older: Vec<CheckpointId> = self
            .stored
            .iter()
            .filter(|(id, stored)| **id != newest && stored.for_edit_of.as_deref() == Some(path))
            .map(|(id, _)| *id)
            .collect();
        for id in older {
            self.timeline.drop_checkpoint(id);
            self.discard(id);
        }
        if let Some(stored) = self.stored.get_mut(&newest) {
            stored.for_edit_of = Some(path.to_owned());
        }
    }
}

pub(super) fn handle_of(process: Tid, fd: i32) -> PathBuf {
    PathBuf::from(format!("/proc/{process}/fd/{fd}"))
}

fn is_same_file(path: &Path, of: &Identity) -> bool {
    fs::symlink_metadata(path).is_ok_and(|now| (now.dev(), now.ino()) == (of.device, of.inode))
}

/// Keeps what is in an open file, if it has not changed meanwhile.
pub(super) fn keep(handle: &Path, room: u64) -> Option<(Kept, Fingerprint)> {
    let (identity, bytes) = bytes_of(handle, room)?;
    let fingerprint = *blake3::hash(&bytes).as_bytes();
    let bytes = Arc::from(bytes);
    Some((Kept { identity, bytes }, fingerprint))
}

/// Where the next read of an open file begins.
pub(super) fn place_of(process: Tid, fd: i32) -> Option<u64> {
    let info = fs::read_to_string(format!("/proc/{process}/fdinfo/{fd}")).ok()?;
    let place = info.lines().find_map(|line| line.strip_prefix("pos:"))?;
    place.trim().parse().ok()
}

/// The numbers under which a process has a file open.
pub(super) fn numbers_of(process: Tid, device: u64, inode: u64) -> Vec<i32> {
    let Ok(fds) = fs::read_dir(format!("/proc/{process}/fd")) else {
        return Vec::new();
    };
    let is_it = |fd: &fs::DirEntry| {
        fs::metadata(fd.path()).is_ok_and(|file| (file.dev(), file.ino()) == (device, inode))
    };
    fds.flatten()
        .filter(is_it)
        .filter_map(|fd| fd.file_name().to_str()?.parse().ok())
        .collect()
}
