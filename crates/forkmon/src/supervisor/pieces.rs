//! Files that the guest reads in pieces: how far it has read, and what the file was.
//!
//! An open counts as a read of the whole file. Where each read is seen (`reader`), it
//! turns out to be of the first piece only, and the timeline is told of each piece
//! before it is read. What the file held is kept, so that an edit can be compared with
//! it: one behind what was read contradicts nothing.

use super::Supervisor;
use super::checkpoint::Due;
use super::edit::Touched;
use super::fingerprint::{bytes_of, identity};
use super::reader::{Reader, Reading, Reads, decode};
use crate::cli::{Precision, WithinFile};
use snapshot::Moved;
use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;
use timeline::{AccessIndex, AccessKind, CheckpointId, Current, Fingerprint, Identity};
use tracee::{AddressSpace, RemoteAddr, Stopped, Tid};

/// The largest file that is kept for comparing.
pub(super) const LARGEST: u64 = 16 << 20;

/// What is kept of all of them.
const MOST: u64 = 64 << 20;

/// What the kernel reads of a script to find its interpreter (`BINPRM_BUF_SIZE`).
const SCRIPT_HEAD: u64 = 256;

/// Older reads count as if they were as old as the oldest of these.
const READS_REMEMBERED: usize = 256;

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
struct Opened {
    /// When the first process opened it, as [`Pieces::count`] tells it.
    by_first: Vec<u64>,
    /// When any other process did.
    by_others: Vec<u64>,
    /// The first process has asked for its size since it opened it.
    sized: bool,
    /// More is known of it than its reads tell: it counts as read at its open.
    refused: bool,
    /// From here on all of it may be known, and is perhaps read unseen.
    whole: Option<AccessIndex>,
    kept: Option<Kept>,
    /// The last reads, and where in the timeline.
    reads: Vec<(Instant, AccessIndex)>,
}

impl Opened {
    fn is_open_by_nobody(&self) -> bool {
        self.by_first.is_empty() && self.by_others.is_empty()
    }
}

/// What a file held when the guest read it.
#[derive(Clone, Debug)]
struct Kept {
    identity: Identity,
    bytes: Arc<[u8]>,
}

/// Where a file of the guest's was open at a checkpoint, that it reads in pieces.
pub(super) type OpenPiece = (PathBuf, u64, u64);

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
    files: HashMap<PathBuf, Opened>,
    /// How often any was opened.
    opens: u64,
    /// Where the last edit of each began.
    edited: HashMap<PathBuf, u64>,
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
        }
        self.files
            .retain(|_, file| !file.is_open_by_nobody() || file.kept.is_some());
    }

    fn kept(&self, path: &Path) -> Option<&Kept> {
        self.files.get(path)?.kept.as_ref()
    }

    /// The largest file that can be kept, too.
    fn room(&self) -> u64 {
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

    /// The file that a shell has opened by its last call, and nothing else so far: its
    /// script, of which it asks what it is. That is its own question, and none of the
    /// script's.
    pub(super) fn just_opened(&mut self, process: Tid) -> Option<PathBuf> {
        if process != self.run.root() {
            return None;
        }
        let path = self.run.just_opened.take()?;
        let is_shell = self.reader().is_some_and(|reader| !reader.is_complete());
        (is_shell && !self.run.reads_script).then_some(path)
    }

    /// Has the guest's first process stopped at its reads, if it is a program that may
    /// be resumed within files. Answers the task, unless it was let go to stop before
    /// its call again.
    pub(super) fn see_reads(
        &mut self,
        task: Stopped,
        process: Tid,
    ) -> anyhow::Result<Option<Stopped>> {
        if self.config.once
            || process != self.run.root()
            || !matches!(self.run.reads, Seen::NotAsked)
            || !self.run.is_single()
        {
            return Ok(Some(task));
        }
        let program = fs::read_link(format!("/proc/{process}/exe"));
        let reader = program
            .ok()
            .and_then(|program| Reader::of(program.as_os_str(), self.config.within_file));
        let Some(reader) = reader else {
            self.run.reads = Seen::No;
            return Ok(Some(task));
        };
        let filter = reader.filter();
        let guest = &mut self.run.guest;
        let (task, installed) = guest.install(&mut self.tracer, task, &filter);
        self.run.reads = if installed {
            Seen::Yes(reader)
        } else {
            Seen::No
        };
        match task {
            Some(task) if task.is_before_call() => Ok(Some(task)),
            Some(task) => Ok(task.resume(None).map(|()| None)?),
            None => Ok(None),
        }
    }

    /// Whether an open of a file tells the guest nothing that its reads do not.
    pub(super) fn is_read_in_pieces(&self, path: &Path, process: Tid) -> bool {
        process == self.run.root()
            && self.reader().is_some_and(|reader| reader.is_complete())
            && self
                .timeline
                .read_of(path)
                .is_some_and(|(of, _)| is_same_file(path, &of))
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

    /// Handles a stop before a call that reads an open file.
    pub(super) fn reads(&mut self, task: Stopped, process: Tid) -> anyhow::Result<()> {
        let stop = task.syscall()?;
        let Some((reader, reading)) = self.reader().zip(decode(&stop)) else {
            return Ok(task.resume(None)?);
        };
        match self.read(task, process, reader, reading)? {
            Some(task) => Ok(task.resume(None)?),
            None => Ok(()),
        }
    }

    /// The guest asks for the size of an open file.
    pub(super) fn asks_size(&mut self, process: Tid, fd: i32) {
        if process == self.run.root()
            && self.reader().is_some_and(|reader| reader.is_complete())
            && let Some((path, _)) = self.piece_of(process, fd)
        {
            self.sized(&path);
        }
    }

    /// The file that a process has open, if it may be read in pieces, and what it is now.
    fn piece_of(&self, process: Tid, fd: i32) -> Option<(PathBuf, Identity)> {
        if self.pieces.files.is_empty() {
            return None;
        }
        let handle = handle_of(process, fd);
        let metadata = fs::metadata(&handle).ok()?;
        let now = identity(&metadata);
        let name = fs::read_link(&handle).ok().filter(|_| metadata.is_file())?;
        let path = self.name_of_piece(&name, &now)?;
        let now = self.identity_at(&path, now);
        Some((path, now))
    }

    fn read(
        &mut self,
        task: Stopped,
        process: Tid,
        reader: Reader,
        reading: Reading,
    ) -> anyhow::Result<Option<Stopped>> {
        let Some((path, now)) = self.piece_of(process, reading.fd) else {
            return Ok(Some(task));
        };
        if process != self.run.root() {
            // It reads on where the first process has the file open, or will.
            self.whole(&path);
            return Ok(Some(task));
        }
        let Some(place) = place_of(process, reading.fd) else {
            self.whole(&path);
            return Ok(Some(task));
        };
        if reading.what == Reads::Size {
            self.sized(&path);
            return Ok(Some(task));
        }
        if !self.begin(&path, &handle_of(process, reading.fd), reader, place) {
            return Ok(Some(task));
        }
        let Some((of, known)) = self.timeline.read_of(&path) else {
            return Ok(Some(task));
        };
        if place > known && !reader.is_complete() {
            self.unseen(&path);
            return Ok(Some(task));
        }
        let (from, length) = match reading.what {
            Reads::Next(length) => (place, length),
            Reads::Vector { at, count } => (place, vector_length(task.tid(), at, count)),
            Reads::At(from, length) => (from, length),
            Reads::Seek { offset, whence } => {
                self.seeks(&path, reader, place, offset, whence);
                return Ok(Some(task));
            }
            Reads::Size | Reads::All => {
                self.whole(&path);
                return Ok(Some(task));
            }
        };
        let size = now.size;
        let upto = from.saturating_add(length);
        let ends = upto > size && (reader.short_is_end || from >= size);
        // A program that knows the size reads so much.
        let sized = reader.short_is_end && from == 0 && upto == size;
        let end = if ends || sized || of != now {
            u64::MAX
        } else {
            upto.min(size)
        };
        let mut task = task;
        if end > known {
            let edited = self.pieces.edited.get(&path);
            let hot = edited.is_some_and(|edited| (known..end).contains(edited));
            match self.consider_checkpoint(task, &path, Due::Within { hot })? {
                Some(stopped) => task = stopped,
                None => return Ok(None),
            }
        }
        let at = self.timeline.end();
        self.timeline.read_up_to(&path, end.max(known));
        if of != now {
            // It has been written to meanwhile.
            self.timeline.spoil_from(&path, at);
        }
        if let Some(file) = self.pieces.files.get_mut(&path) {
            if file.reads.len() == READS_REMEMBERED {
                // What is forgotten is taken to be as old as the next one.
                let (_, oldest) = file.reads.remove(0);
                file.reads[0].1 = oldest;
            }
            file.reads.push((Instant::now(), at));
        }
        self.asked_for(&path);
        Ok(Some(task))
    }

    /// The name by which an open file is known that the guest may read in pieces.
    fn name_of_piece(&self, name: &Path, now: &Identity) -> Option<PathBuf> {
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

    /// A read of a file that may be the first one; whether it is read in pieces.
    fn begin(&mut self, path: &Path, handle: &Path, reader: Reader, place: u64) -> bool {
        if self.is_in_pieces(path)
            && self
                .pieces
                .files
                .get(path)
                .is_some_and(|file| !file.is_open_by_nobody())
        {
            return true;
        }
        self.run.reads_script |= !reader.is_complete();
        let room = self.pieces.room();
        let Some(file) = self.pieces.files.get_mut(path) else {
            return false;
        };
        let alone = file.by_others.is_empty()
            && !file.refused
            && (reader.is_complete() || file.by_first.len() == 1);
        let known = if reader.is_complete() {
            0
        } else {
            place.max(reader.head)
        };
        let kept = alone.then(|| keep(handle, room)).flatten();
        match kept {
            Some((kept, fingerprint)) if self.timeline.narrow(path, &kept.identity, known) => {
                self.timeline
                    .set_fingerprint(path, &kept.identity, fingerprint);
                file.kept = Some(kept);
                true
            }
            _ => {
                file.refused = true;
                false
            }
        }
    }

    fn seeks(&mut self, path: &Path, reader: Reader, place: u64, offset: i64, whence: i32) {
        let to = match whence {
            libc::SEEK_SET => Some(offset),
            libc::SEEK_CUR => i64::try_from(place)
                .ok()
                .and_then(|at| at.checked_add(offset)),
            _ => None,
        };
        match to.and_then(|to| u64::try_from(to).ok()) {
            Some(to) if to == place => {}
            // A program of the C library's may have asked for the size before.
            Some(to) if reader.gives_back && to < place => self.timeline.read_up_to(path, to),
            _ => self.whole(path),
        }
    }

    /// The guest asks an open file for its size. The C library does once, before it
    /// reads, and makes nothing of it.
    fn sized(&mut self, path: &Path) {
        let reads = self
            .timeline
            .read_of(path)
            .is_some_and(|(_, known)| known > 0);
        let Some(file) = self.pieces.files.get_mut(path) else {
            return;
        };
        if file.sized || reads && file.by_first.len() == 1 {
            self.whole(path);
        } else {
            file.sized = true;
        }
    }

    /// From here on the guest may know all of a file.
    fn whole(&mut self, path: &Path) {
        let at = self.timeline.end();
        let in_pieces = self.is_in_pieces(path);
        if let Some(file) = self.pieces.files.get_mut(path) {
            file.refused |= !in_pieces;
            file.whole.get_or_insert(at);
        }
        self.timeline.read_up_to(path, u64::MAX);
    }

    /// Some of a file was read and nobody saw when.
    fn unseen(&mut self, path: &Path) {
        self.whole(path);
        self.timeline.spoil(path);
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
            open.push((path, now.device, now.inode));
        }
        open.dedup();
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
        let moved = place.open.iter().filter_map(|(path, device, inode)| {
            let now = fs::symlink_metadata(path).ok()?;
            let is_other = now.is_file() && (now.dev(), now.ino()) != (*device, *inode);
            is_other.then(|| Moved {
                device: *device,
                inode: *inode,
                path: path.clone(),
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

fn handle_of(process: Tid, fd: i32) -> PathBuf {
    PathBuf::from(format!("/proc/{process}/fd/{fd}"))
}

fn is_same_file(path: &Path, of: &Identity) -> bool {
    fs::symlink_metadata(path).is_ok_and(|now| (now.dev(), now.ino()) == (of.device, of.inode))
}

/// Keeps what is in an open file, if it has not changed meanwhile.
fn keep(handle: &Path, room: u64) -> Option<(Kept, Fingerprint)> {
    let (identity, bytes) = bytes_of(handle, room)?;
    let fingerprint = *blake3::hash(&bytes).as_bytes();
    let bytes = Arc::from(bytes);
    Some((Kept { identity, bytes }, fingerprint))
}

/// Where the next read of an open file begins.
fn place_of(process: Tid, fd: i32) -> Option<u64> {
    let info = fs::read_to_string(format!("/proc/{process}/fdinfo/{fd}")).ok()?;
    let place = info.lines().find_map(|line| line.strip_prefix("pos:"))?;
    place.trim().parse().ok()
}

/// The sum of the lengths in an array of `struct iovec`.
fn vector_length(task: Tid, at: RemoteAddr, count: u64) -> u64 {
    let memory = AddressSpace::of(task);
    let length = |n: u64| memory.read_u64(RemoteAddr(at.0 + 16 * n + 8));
    // What cannot be read makes the call fail; it may have all the file, too.
    (0..count.min(1024))
        .map(|n| length(n).unwrap_or(u64::MAX))
        .fold(0, u64::saturating_add)
}
