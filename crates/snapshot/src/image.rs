//! A frozen copy of the guest.

use crate::fds::FdTable;
use crate::memory::SharedMemory;
use crate::process::ProcessState;
use crate::resume::Prepared;
use crate::thread::ThreadState;
use crate::timers::Timers;
use crate::{Guest, Refusal, procfs};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use tracee::{Remote, Stopped, Tid, Tracer};

/// What [`Image::new`] is made of.
pub(crate) struct ImageParts {
    pub(crate) task: Stopped,
    pub(crate) guest: Guest,
    pub(crate) threads: Vec<ThreadState>,
    pub(crate) files: FdTable,
    pub(crate) memory: SharedMemory,
    pub(crate) state: ProcessState,
    pub(crate) shared_pending: Vec<libc::siginfo_t>,
    pub(crate) timers: Timers,
    pub(crate) stopped: bool,
}

/// A process that never runs, with what is needed to bring its guest back. It
/// can be resumed any number of times, until it is discarded or dies.
pub struct Image {
    /// `None` once it is dead.
    pub(crate) task: Option<Stopped>,
    pub(crate) tid: Tid,
    /// A copy that the next resume goes on with.
    pub(crate) prepared: Option<Prepared>,
    /// What was known of the guest.
    pub(crate) guest: Guest,
    /// The first thread first.
    pub(crate) threads: Vec<ThreadState>,
    pub(crate) files: FdTable,
    pub(crate) memory: SharedMemory,
    pub(crate) state: ProcessState,
    pub(crate) shared_pending: Vec<libc::siginfo_t>,
    pub(crate) timers: Timers,
    /// A signal had stopped the guest (SIGSTOP and its kind).
    pub(crate) stopped: bool,
    pub(crate) group: i32,
    pub(crate) oom_score: Option<String>,
    resident_bytes: u64,
}

impl std::fmt::Debug for Image {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Image")
            .field("task", &self.tid)
            .field("guest", &self.guest.process)
            .field("threads", &self.threads.len())
            .finish_non_exhaustive()
    }
}

impl Image {
    pub(crate) fn new(parts: ImageParts) -> Self {
        let process = parts.guest.process;
        let page = rustix::param::page_size() as u64;
        Self {
            tid: parts.task.tid(),
            prepared: None,
            task: Some(parts.task),
            group: procfs::stat(process).map_or(0, |stat| stat.group),
            oom_score: std::fs::read_to_string(format!("/proc/{process}/oom_score_adj")).ok(),
            resident_bytes: procfs::memory_pages(process)
                .map_or(0, |(_, resident)| resident * page),
            guest: parts.guest,
            threads: parts.threads,
            files: parts.files,
            memory: parts.memory,
            state: parts.state,
            shared_pending: parts.shared_pending,
            timers: parts.timers,
            stopped: parts.stopped,
        }
    }

    /// The frozen process. When its end is reported, the image is lost: see
    /// [`lost`](Self::lost).
    #[must_use]
    pub fn task(&self) -> Tid {
        self.tid
    }

    /// How many threads the guest had.
    #[must_use]
    pub fn threads(&self) -> usize {
        self.threads.len()
    }

    /// The guest's resident memory when it was frozen, in bytes. Most of it is
    /// shared with others.
    #[must_use]
    pub fn resident_bytes(&self) -> u64 {
        self.resident_bytes
    }

    /// What was kept of memory that the guest shares, in bytes. Much of it can be
    /// in common with checkpoints before.
    #[must_use]
    pub fn saved_bytes(&self) -> u64 {
        self.memory.size()
    }

    /// Whether the frozen process executes this file (`st_dev`, `st_ino`), which
    /// nobody can open for writing then.
    #[must_use]
    pub fn executes(&self, device: u64, inode: u64) -> bool {
        std::fs::metadata(format!("/proc/{}/exe", self.tid))
            .is_ok_and(|exe| (exe.dev(), exe.ino()) == (device, inode))
    }

    /// Whether the frozen process has this file open for writing, so that nobody
    /// can execute it.
    #[must_use]
    pub fn may_write(&self, device: u64, inode: u64) -> bool {
        self.files.written.contains(&(device, inode))
    }

    /// The files (`st_dev`, `st_ino`) that the guest had open for writing and that the
    /// frozen process has not: a copy opens them anew. One for each open file
    /// description.
    pub fn opened_anew(&self) -> impl Iterator<Item = (u64, u64)> {
        self.files.opened_anew()
    }

    /// A file (`st_dev`, `st_ino`) is about to be locked: the frozen process closes it,
    /// or the lock would not be free before it ends, and copies open it anew.
    ///
    /// # Errors
    ///
    /// [`Refusal`] if that cannot be; the image is then of no use.
    pub fn let_go(&mut self, tracer: &mut Tracer, device: u64, inode: u64) -> Result<(), Refusal> {
        if !self.files.keeps(device, inode) {
            return Ok(());
        }
        self.forget_prepared(tracer);
        let task = self.task.take().ok_or(Refusal::Died)?;
        let site = self.guest.copy_site()?;
        let mut remote = Remote::enter(tracer, self.tid, task, site)?;
        let answer = self.files.let_go(&mut remote, device, inode);
        self.task = Some(remote.leave()?);
        answer
    }

    /// The files of Unix sockets that the guest has bound. A resume removes them
    /// and makes them anew, since only binding makes such a file. Whoever keeps
    /// account of files that change removes them before, by
    /// [`remove_socket_file`](Self::remove_socket_file), and has seen both steps.
    #[must_use]
    pub fn socket_files(&self) -> Vec<PathBuf> {
        self.files.socket_files()
    }

    /// Removes one of [`socket_files`](Self::socket_files), if it is there.
    ///
    /// # Errors
    ///
    /// `socket-rebind` if somebody put another file in its place, which stays.
    pub fn remove_socket_file(&self, path: &Path) -> Result<(), Refusal> {
        self.files.remove_socket_file(path)
    }

    /// Ends the copy that was [prepared](Self::prepare), if there is one.
    pub fn forget_prepared(&mut self, tracer: &mut Tracer) {
        if let Some(copy) = self.prepared.take() {
            copy.discard(tracer);
        }
    }

    /// Notes that the process is gone and reaped.
    pub fn lost(&mut self) {
        self.task = None;
    }

    /// Kills and reaps the process.
    pub fn discard(mut self, tracer: &mut Tracer) {
        self.forget_prepared(tracer);
        if self.task.take().is_some() {
            tracee::kill_task(self.tid, libc::SIGKILL);
            // Only waitpid itself could fail, and then nothing can be reaped.
            let _ = tracer.reap(self.tid);
        }
    }
}
