//! The open files of a process.
//!
//! fork shares the open file descriptions, and the live run moves them on. What
//! nobody can see the end of is left open in the image and reset on resume: an
//! offset, flags, a counter. What a peer would wait for the end of, such as a
//! pipe or a socket, is closed in the image and made anew on resume, with what
//! was in it. What can be neither is a refusal.

mod entry;
mod epoll;
mod event;
mod fifo;
mod fresh;
mod inherited;
mod inotify;
mod kept;
mod lock;
mod moved;
mod nameless;
mod owner;
mod pipe;
mod pty;
mod reopen;
mod signal;
mod socket;
mod source;
mod survey;
mod terminal;

use crate::Refusal;
use entry::{Entry, SETTABLE, group};
use epoll::Epoll;
use event::{EventCounter, TimerFd};
use fifo::Fifo;
use fresh::{Fresh, close, set_flags};
use inotify::Inotify;
use kept::Kept;
use lock::{Locked, Locks};
use owner::Owner;
use pipe::Pipe;
use pty::Pty;
use signal::{OwnPidFd, SignalFd};
use socket::Sockets;
use source::Source;
use std::path::{Path, PathBuf};
use terminal::Terminal;
use tracee::Remote;

pub(crate) use entry::fds;
pub use inherited::Inherited;
pub(crate) use lock::{Lock, parse_lock};
pub use moved::Moved;
pub(crate) use nameless::NamelessFile;
pub use socket::OnConnection;

/// A regular file that the guest can write to through an fd or a mapping that
/// was there before the checkpoint, so that its bytes must be kept by whoever
/// takes the checkpoint.
#[derive(Clone, Debug)]
pub struct HeldFile {
    /// Where it can be opened, in `/proc`.
    pub handle: PathBuf,
    /// Its name, if it still has one.
    pub path: Option<PathBuf>,
    /// Whether it is mapped shared and writable, so that its times do not tell
    /// of every change.
    pub mapped: bool,
}

/// All open files of a process, as they were.
#[derive(Clone, Debug, Default)]
pub(crate) struct FdTable {
    kept: Vec<Kept>,
    /// Eventfds that are kept, too.
    counters: Vec<EventCounter>,
    /// Closed in the image, and a copy's own: the lowest number first, as the
    /// guest made most of them: they come out right by themselves then.
    own: Vec<Own>,
    /// Closed in the image, and only one run has them at a time.
    fifos: Vec<Fifo>,
    /// As those are.
    ptys: Vec<Pty>,
    /// Kept ones.
    terminals: Vec<Terminal>,
    sockets: Sockets,
    /// Those that others watch first.
    epolls: Vec<Epoll>,
    owners: Vec<Owner>,
    locked: Vec<Locked>,
    /// By the fds that they were made through.
    locks_of_process: Vec<(i32, Locks)>,
    nameless_files: Vec<NamelessFile>,
    /// Fds that the image must not hold open.
    closed: Vec<i32>,
    /// The first number above all that the guest uses.
    above: i32,
    /// Regular files that are open for writing, by device and inode.
    pub(crate) written: Vec<(u64, u64)>,
    /// Regular files whose bytes are to be kept.
    pub(crate) held: Vec<HeldFile>,
}

/// A file that a copy has for itself.
#[derive(Clone, Debug)]
enum Own {
    Pipe(Pipe),
    Event(EventCounter),
    Timer(TimerFd),
    Signal(SignalFd),
    PidFd(OwnPidFd),
    Inotify(Inotify),
}

impl Own {
    fn lowest(&self) -> i32 {
        match self {
            Own::Pipe(pipe) => pipe.lowest(),
            other => Entry::lowest(other.entries()),
        }
    }

    /// All its fds, of what has one open file description.
    fn entries(&self) -> &[Entry] {
        match self {
            Own::Pipe(_) => &[],
            Own::Event(counter) => counter.entries(),
            Own::Timer(timer) => timer.entries(),
            Own::Signal(signal) => signal.entries(),
            Own::PidFd(process) => process.entries(),
            Own::Inotify(instance) => instance.entries(),
        }
    }

    fn create(&self, remote: &mut Remote<'_>, above: i32) -> Result<(), Refusal> {
        match self {
            Own::Pipe(pipe) => pipe.restore(remote, above),
            Own::Event(counter) => counter.create(remote, above),
            Own::Timer(timer) => timer.create(remote, above),
            Own::Signal(signal) => signal.create(remote, above),
            Own::PidFd(process) => process.create(remote, above),
            Own::Inotify(instance) => instance.create(remote, above),
        }?;
        // What they are made with is O_NONBLOCK or nothing.
        if let Some(first) = self.entries().first()
            && first.status_flags() & !libc::O_NONBLOCK != 0
        {
            set_flags(remote, first.fd, first.status_flags())?;
        }
        Ok(())
    }
}

impl FdTable {
    fn keep(&mut self, entry: &Entry, mode: u32) {
        self.kept.push(Kept::of(entry, mode));
    }

    /// The files that sockets are bound to.
    pub(crate) fn socket_files(&self) -> Vec<PathBuf> {
        self.sockets.files().map(Into::into).collect()
    }

    /// Removes the file that a socket was bound to.
    pub(crate) fn remove_socket_file(&self, path: &Path) -> Result<(), Refusal> {
        self.sockets.remove_file(path)
    }

    /// The open files that have no name and can be written.
    pub(crate) fn nameless_files(&self) -> &[NamelessFile] {
        &self.nameless_files
    }

    /// The first number above all that the guest uses.
    pub(crate) fn above(&self) -> i32 {
        self.above
    }

    /// Whether an image may hold all of it open.
    pub(crate) fn holds_nothing_to_close(&self) -> bool {
        self.closed.is_empty()
    }

    /// Whether an image holds a file of the guest's open that somebody may lock.
    pub(crate) fn keeps(&self, device: u64, inode: u64) -> bool {
        self.kept.iter().any(|kept| kept.is(device, inode))
    }

    /// The files (`st_dev`, `st_ino`) that a copy opens anew for writing, one for each
    /// open file description.
    pub(crate) fn opened_anew(&self) -> impl Iterator<Item = (u64, u64)> {
        self.locked
            .iter()
            .map(|locked| &locked.entries()[0])
            .filter(|entry| entry.is_writable())
            .map(|entry| (entry.device, entry.inode))
    }

    /// Has an image hold no open file description of a file, so that a lock on one
    /// is free once the run that has it closes the file.
    pub(crate) fn let_go(
        &mut self,
        remote: &mut Remote<'_>,
        device: u64,
        inode: u64,
    ) -> Result<(), Refusal> {
        let (kept, others) = std::mem::take(&mut self.kept)
            .into_iter()
            .partition(|kept: &Kept| kept.is(device, inode));
        self.kept = others;
        let is_memory =
            |file: &NamelessFile| file.is_memory && (file.device, file.inode) == (device, inode);
        let reopens = kept.iter().all(|kept: &Kept| kept.reopens)
            && !self.nameless_files.iter().any(is_memory);
        if !reopens {
            return Err(Refusal::unsupported(
                "file-lock",
                "a file was locked that a frozen copy holds open",
            ));
        }
        let entries = kept.into_iter().map(|kept| kept.entry).collect();
        for entries in group(remote.tid(), entries)? {
            Locked::check(remote.tid(), &entries[0])?;
            let locked = Locked::capture(entries)?;
            locked.put_aside(remote, self.above + self.locked.len() as i32)?;
            for entry in locked.entries() {
                close(remote, entry.fd)?;
            }
            self.locked.push(locked);
        }
        Ok(())
    }

    /// Closes in an image what it must not hold.
    pub(crate) fn close_in_image(&self, remote: &mut Remote<'_>) -> Result<(), Refusal> {
        for (locked, handle) in self.locked.iter().zip(self.above..) {
            locked.put_aside(remote, handle)?;
        }
        let mut closed = self.closed.clone();
        closed.sort_unstable();
        for run in closed.chunk_by(|a, b| a + 1 == *b) {
            let (first, last) = (run[0] as u64, run[run.len() - 1] as u64);
            remote.call("close_range", libc::SYS_close_range, &[first, last, 0])?;
        }
        Ok(())
    }

    /// Makes those files anew in a copy of the image that no other run has a
    /// share in.
    pub(crate) fn make_own(&self, remote: &mut Remote<'_>) -> Result<(), Refusal> {
        // Both are sorted, or nearly so.
        let mut epolls = self.epolls.iter().peekable();
        for own in &self.own {
            while let Some(epoll) =
                epolls.next_if(|epoll| Entry::lowest(epoll.entries()) < own.lowest())
            {
                epoll.create(remote, self.above)?;
            }
            own.create(remote, self.above)?;
        }
        for epoll in epolls {
            epoll.create(remote, self.above)?;
        }
        if !self.sockets.take_addresses() {
            self.sockets.restore(remote, self.above)?;
        }
        Ok(())
    }

    /// Gives a copy the rest of its open files back: what the run before it could
    /// have changed, or had for itself. Those that have `moved` are opened anew.
    pub(crate) fn reset_shared(
        &self,
        remote: &mut Remote<'_>,
        moved: &[Moved],
    ) -> Result<(), Refusal> {
        let has_moved = |kept: &&Kept| moved.iter().any(|file| file.number == kept.entry.fd);
        for kept in self.kept.iter().filter(|kept| !has_moved(kept)) {
            kept.reset(remote)?;
        }
        let of_moved = self.kept.iter().filter(has_moved);
        let entries = of_moved.map(|kept| kept.entry.clone()).collect();
        moved::open_anew(remote, self.above, moved, entries)?;
        // The dead run can have locked what is kept.
        for (locked, handle) in self.locked.iter().zip(self.above..) {
            locked.restore(remote, handle)?;
        }
        for counter in &self.counters {
            counter.reset(remote)?;
        }
        for fifo in &self.fifos {
            fifo.restore(remote, self.above)?;
        }
        if !self.ptys.is_empty() || !self.terminals.is_empty() {
            let source = Source::of(remote.tid())?;
            for pty in &self.ptys {
                pty.restore(&source, remote, self.above)?;
            }
            for terminal in &self.terminals {
                terminal.reset(&source, remote);
            }
        }
        if self.sockets.take_addresses() {
            self.sockets.restore(remote, self.above)?;
        }
        let mut source = None;
        for own in &self.own {
            match own {
                Own::Timer(timer) => timer.arm(remote)?,
                Own::Inotify(instance) => {
                    let source = match &source {
                        Some(source) => source,
                        None => source.insert(Source::of(remote.tid())?),
                    };
                    instance.watch(source)?;
                }
                _ => {}
            }
        }
        self.sockets.finish(remote)?;
        for epoll in &self.epolls {
            epoll.fill(remote, self.above)?;
        }
        for owner in &self.owners {
            owner.restore(remote)?;
        }
        // Any close of a file would take the process's locks of it away.
        for (fd, locks) in &self.locks_of_process {
            locks.set_of_process(remote, *fd)?;
        }
        Ok(())
    }
}
