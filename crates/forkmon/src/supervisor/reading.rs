//! Reading in pieces: from a stop before a read to what the guest knows of the file.
//!
//! What is known of the files themselves is `pieces`' concern, which programs and calls
//! they are `reader`'s.

use super::Supervisor;
use super::checkpoint::Due;
use super::fingerprint::identity;
use super::pieces::{Seen, Shared, handle_of, keep, numbers_of, place_of};
use super::reader::{Reader, Reading, Reads, decode};
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Instant;
use timeline::Identity;
use tracee::{AddressSpace, RemoteAddr, Stopped, Tid};

/// Older reads count as if they were as old as the oldest of these.
const READS_REMEMBERED: usize = 256;

impl Supervisor<'_> {
    /// The file that a shell has opened by its last call, and nothing else so far: its
    /// script, of which it asks what it is. That is its own question, and none of the
    /// script's.
    pub(super) fn just_opened(&mut self, process: Tid) -> Option<PathBuf> {
        if process != self.run.root() {
            return None;
        }
        let path = self.run.just_opened.take()?;
        let is_shell = self.reader().is_some_and(|reader| !reader.is_complete());
        let is_script = is_shell && !self.run.reads_script && is_called_with(process, &path);
        is_script.then_some(path)
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
    pub(super) fn piece_of(&self, process: Tid, fd: i32) -> Option<(PathBuf, Identity)> {
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

    /// The path of a file that is read in pieces, if a process has another one open that
    /// lay or lies there: one that was saved with the same bytes, as far as is known.
    fn replaced_piece(&self, process: Tid, fd: i32) -> Option<PathBuf> {
        let name = fs::read_link(handle_of(process, fd)).ok()?;
        let name = name.as_os_str().as_bytes();
        let path = Path::new(OsStr::from_bytes(
            name.strip_suffix(b" (deleted)").unwrap_or(name),
        ));
        (self.pieces.files.contains_key(path) && self.is_in_pieces(path)).then(|| path.to_owned())
    }

    fn read(
        &mut self,
        task: Stopped,
        process: Tid,
        reader: Reader,
        reading: Reading,
    ) -> anyhow::Result<Option<Stopped>> {
        let Some((path, now)) = self.piece_of(process, reading.fd) else {
            if let Some(path) = self.replaced_piece(process, reading.fd) {
                self.unseen(&path);
            }
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
        if reading.what == Reads::Closes {
            self.closes(&path, process, place, now);
            return Ok(Some(task));
        }
        if !self.begin(&path, process, reading.fd, reader, place) {
            return Ok(Some(task));
        }
        let Some((of, known)) = self.timeline.read_of(&path) else {
            return Ok(Some(task));
        };
        if !reader.is_complete() && place > known {
            self.unseen(&path);
            return Ok(Some(task));
        }
        if !reader.is_complete()
            && reading.fd == 0
            && let Some(file) = self.pieces.files.get_mut(&path)
        {
            file.shared = Some(Shared::Open);
        }
        let (from, length) = match reading.what {
            Reads::Next(length) => (place, length),
            Reads::Vector { at, count } => (place, vector_length(task.tid(), at, count)),
            Reads::At(from, length) => (from, length),
            Reads::Seek { offset, whence } => {
                self.seeks(&path, reader, place, offset, whence);
                return Ok(Some(task));
            }
            Reads::Size | Reads::All | Reads::Closes => {
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
        let Some(at) = self.timeline.read_up_to(&path, end.max(known)) else {
            return Ok(Some(task));
        };
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

    /// A read of a file that may be the first one; whether it is read in pieces.
    fn begin(&mut self, path: &Path, process: Tid, fd: i32, reader: Reader, place: u64) -> bool {
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
        // Before the first read that is seen, nothing was read that was not; or a shell
        // has read what lies before it, and nothing else.
        let all_seen = if reader.is_complete() {
            place == 0
        } else {
            file.by_first.len() == 1 && is_open_once(process, fd)
        };
        let all_seen = all_seen && file.by_others.is_empty() && !file.refused;
        let known = if reader.is_complete() {
            0
        } else {
            place.max(reader.head)
        };
        let kept = all_seen
            .then(|| keep(&handle_of(process, fd), room))
            .flatten();
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
            Some(to) if reader.gives_back && to < place => {
                self.timeline.read_up_to(path, to);
            }
            _ => self.whole(path),
        }
    }

    /// A shell closes what it had for its standard input.
    fn closes(&mut self, path: &Path, process: Tid, place: u64, now: Identity) {
        let Some((_, known)) = self
            .timeline
            .read_of(path)
            .filter(|_| self.is_in_pieces(path))
        else {
            return;
        };
        if place > known {
            self.unseen(path);
        } else if numbers_of(process, now.device, now.inode).len() == 1
            && let Some(file) = self.pieces.files.get_mut(path)
        {
            file.shared = file.shared.map(|_| Shared::Closed);
        }
    }

    /// The guest's first process runs another program, which reads on in what is open,
    /// and how is not seen.
    pub(super) fn hands_on(&mut self, process: Tid) {
        let paths: Vec<PathBuf> = self.pieces.files.keys().cloned().collect();
        for path in paths {
            let of = self.timeline.read_of(&path).map(|(of, _)| of);
            let of = of.or_else(|| Some(identity(&fs::metadata(&path).ok()?)));
            if of.is_some_and(|of| !numbers_of(process, of.device, of.inode).is_empty()) {
                self.whole(&path);
            }
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
    pub(super) fn whole(&mut self, path: &Path) {
        let at = self.timeline.end();
        let in_pieces = self.is_in_pieces(path);
        if let Some(file) = self.pieces.files.get_mut(path) {
            file.refused |= !in_pieces;
            file.whole.get_or_insert(at);
        }
        self.timeline.read_up_to(path, u64::MAX);
    }

    /// Some of a file was read and nobody saw when.
    pub(super) fn unseen(&mut self, path: &Path) {
        self.whole(path);
        self.timeline.spoil(path);
    }
}

/// Whether a file is open under this number only.
fn is_open_once(process: Tid, fd: i32) -> bool {
    fs::metadata(handle_of(process, fd))
        .is_ok_and(|file| numbers_of(process, file.dev(), file.ino()).len() == 1)
}

/// Whether a shell was called with a file as its script, and not with a command or to
/// read its standard input.
fn is_called_with(process: Tid, script: &Path) -> bool {
    let Ok(words) = fs::read(format!("/proc/{process}/cmdline")) else {
        return false;
    };
    let name = script.file_name().map(OsStrExt::as_bytes);
    let mut words = words.split(|&byte| byte == 0).skip(1);
    let option = |word: &&[u8]| word.first() == Some(&b'-');
    let other = |word: &&[u8]| option(word) && word.iter().any(|byte| matches!(byte, b'c' | b's'));
    match words
        .by_ref()
        .take_while(|word| !other(word))
        .find(|word| !option(word))
    {
        Some(word) => word.rsplit(|&byte| byte == b'/').next() == name,
        None => false,
    }
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
