//! One life of the guest: its processes and threads, and what each is at.

use super::birth::Birth;
use super::calls::Listing;
use super::identity::Translation;
use super::pieces::Seen;
use journal::Prepared;
use snapshot::Guest;
use std::collections::{HashMap, HashSet};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tracee::{End, RemoteAddr, Spawned, Stopped, Tid};

/// What is to be done when a task's call has returned.
#[derive(Debug)]
pub(super) enum Pending {
    /// Conclude an effect on these paths.
    Effect {
        prepared: Box<Prepared>,
        paths: Vec<PathBuf>,
        /// All names that the call is about.
        names: Vec<PathBuf>,
    },
    /// The modes of this terminal may be others now.
    Modes { device: u64 },
    /// A file without a name is open for writing.
    Nameless { process: Tid },
    /// Names are to be left out of a listing, of this call.
    Listing {
        into: Listing,
        hidden: Vec<OsString>,
        call: u64,
    },
    /// The working folder may be another one now.
    Folder,
    /// It has looked at a file that the guest had seen before.
    Looked { path: PathBuf },
    /// Put arguments back that were ids, and translate an answer.
    Identity {
        changed: Vec<(usize, u64)>,
        answer: Option<Translation>,
    },
    /// Put an id in memory back, or translate the one that is there now.
    IdInMemory { at: RemoteAddr, before: Option<u32> },
    /// Translate the owner of a lock, in a `struct flock`.
    LockOwner { at: RemoteAddr },
    /// Translate the sender of a signal, in a `siginfo_t`.
    Sender { at: RemoteAddr },
}

/// What a task's call was given in place of the guest's own arguments.
#[derive(Debug)]
pub(super) struct Lent {
    /// The guest's, by their indices.
    pub(super) arguments: Vec<(usize, u64)>,
    /// The piece of the scratch memory that one of the others points to.
    pub(super) piece: Option<usize>,
}

/// Memory in the guest's first process that the guest does not know of.
#[derive(Copy, Clone, Debug)]
pub(super) enum Scratch {
    /// It was not needed so far.
    NotAsked,
    /// There is no room for it.
    Refused,
    /// It is here.
    At(RemoteAddr),
}

/// The size of a piece of scratch memory; a longer path below `/proc` has no id in it
/// that anybody wrote there.
pub(super) const PIECE: usize = 512;

/// How many calls can use it at the same time.
const PIECES: usize = 32;

impl Scratch {
    pub(super) const LENGTH: usize = PIECES * PIECE;
}

/// A thread of the guest.
#[derive(Debug)]
struct Task {
    process: Tid,
    pending: Option<Pending>,
    lent: Option<Lent>,
}

/// A process of the guest.
#[derive(Clone, Debug, Default)]
pub(super) struct Process {
    /// Its working folder, if it has been asked for since it last changed.
    pub(super) folder: Option<Rc<Path>>,
    /// Addresses of empty strings in memory that cannot be written to.
    pub(super) empty_strings: HashSet<u64>,
}

/// One life of the guest.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) number: u64,
    /// What is known of its first process.
    pub(super) guest: Guest,
    tasks: HashMap<Tid, Task>,
    pub(super) processes: HashMap<Tid, Process>,
    /// New tasks that are not known to be the guest's before their parent's event.
    unborn: HashMap<Tid, Stopped>,
    /// New tasks whose own first stop has not come yet.
    awaited: HashSet<Tid>,
    /// How its first process ended.
    pub(super) ended: Option<End>,
    /// Until its program runs: how to learn why it does not.
    pub(super) spawned: Option<Spawned>,
    /// Its program could not be started.
    pub(super) failed: bool,
    began: Instant,
    /// The guest's running time before its resume.
    kept: Duration,
    frozen: Duration,
    /// The checkpoint that the call in this task has already led to or been
    /// refused for: it stops before the same call again.
    pub(super) considered: Option<Tid>,
    /// It listens for clients, and is watched for a moment without any.
    pub(super) listens: bool,
    /// Whether its first process is stopped at its reads.
    pub(super) reads: Seen,
    /// It is a shell, and has begun to read its script.
    pub(super) reads_script: bool,
    /// What its first process has opened by its last call.
    pub(super) just_opened: Option<PathBuf>,
    /// No more checkpoints are taken in this run.
    pub(super) barred: bool,
    /// Where the kernel is passed what the guest did not write.
    pub(super) scratch: Scratch,
}

impl Task {
    /// Nothing but a look is to be noted at the end of its call.
    fn is_looking(&self) -> bool {
        self.lent.is_none() && matches!(self.pending, Some(Pending::Looked { .. }))
    }
}

impl Run {
    /// A run whose first process is this one.
    pub(super) fn new(number: u64, guest: Guest, kept: Duration) -> Self {
        let process = guest.process();
        let mut run = Self::without_tasks(number, guest, kept);
        run.add_process(process, Process::default());
        run
    }

    /// A run that could not be started.
    pub(super) fn not_started(number: u64) -> Self {
        let guest = Guest::new(Tid::new(0), Arc::default());
        Self::without_tasks(number, guest, Duration::ZERO)
    }

    fn without_tasks(number: u64, guest: Guest, kept: Duration) -> Self {
        Self {
            number,
            guest,
            tasks: HashMap::new(),
            processes: HashMap::new(),
            unborn: HashMap::new(),
            awaited: HashSet::new(),
            ended: None,
            spawned: None,
            failed: false,
            began: Instant::now(),
            kept,
            frozen: Duration::ZERO,
            considered: None,
            listens: false,
            reads: Seen::NotAsked,
            reads_script: false,
            just_opened: None,
            barred: false,
            scratch: Scratch::NotAsked,
        }
    }

    /// The id of its first process.
    pub(super) fn root(&self) -> Tid {
        self.guest.process()
    }

    /// How long ago it began, whatever stands before its resume.
    pub(super) fn age(&self) -> Duration {
        self.began.elapsed()
    }

    /// How long the guest has run, with the part before its resume and without
    /// the time it spent frozen.
    pub(super) fn guest_time(&self) -> Duration {
        (self.kept + self.began.elapsed()).saturating_sub(self.frozen)
    }

    /// Counts time that the guest stood still for.
    pub(super) fn add_frozen(&mut self, time: Duration) {
        self.frozen += time;
    }

    pub(super) fn add_process(&mut self, process: Tid, of: Process) {
        self.processes.insert(process, of);
        self.add_thread(process, process);
    }

    pub(super) fn add_thread(&mut self, thread: Tid, process: Tid) {
        self.tasks.insert(
            thread,
            Task {
                process,
                pending: None,
                lent: None,
            },
        );
    }

    pub(super) fn knows(&self, task: Tid) -> bool {
        self.tasks.contains_key(&task)
    }

    pub(super) fn process_of(&self, task: Tid) -> Option<Tid> {
        self.tasks.get(&task).map(|t| t.process)
    }

    pub(super) fn tasks(&self) -> impl Iterator<Item = (Tid, Tid)> {
        self.tasks.iter().map(|(tid, task)| (*tid, task.process))
    }

    /// Whether any of its tasks is left.
    pub(super) fn is_alive(&self) -> bool {
        !self.tasks.is_empty()
    }

    pub(super) fn is_single(&self) -> bool {
        self.tasks.len() + self.awaited.len() <= 1
    }

    /// Whether the guest is its first process only, and no call is half done.
    pub(super) fn is_settled(&self) -> bool {
        self.processes.len() == 1
            && self.spawned.is_none()
            && self
                .tasks
                .values()
                .all(|task| task.pending.is_none() && task.lent.is_none() || task.is_looking())
    }

    /// Has a task's next exit from a call handled.
    pub(super) fn wait_for_answer(&mut self, task: Tid, pending: Pending) {
        if let Some(task) = self.tasks.get_mut(&task) {
            task.pending = Some(pending);
        }
    }

    /// Has arguments put back at a task's next exit from a call.
    pub(super) fn lend(&mut self, task: Tid, lent: Lent) {
        if let Some(task) = self.tasks.get_mut(&task) {
            task.lent = Some(lent);
        }
    }

    pub(super) fn take_lent(&mut self, task: Tid) -> Option<Lent> {
        self.tasks.get_mut(&task)?.lent.take()
    }

    /// A piece of the scratch memory that no call uses, and its address.
    pub(super) fn free_piece(&self, length: usize) -> Option<(usize, RemoteAddr)> {
        let Scratch::At(start) = self.scratch else {
            return None;
        };
        let used: Vec<usize> = self
            .tasks
            .values()
            .filter_map(|task| task.lent.as_ref()?.piece)
            .collect();
        let free = (0..PIECES).find(|piece| !used.contains(piece))?;
        let at = RemoteAddr(start.0 + (free * PIECE) as u64);
        (length <= PIECE).then_some((free, at))
    }

    /// The names that calls under way may change what is at.
    pub(super) fn names_under_way(&self) -> impl Iterator<Item = &PathBuf> {
        let pending = self.tasks.values().filter_map(|task| task.pending.as_ref());
        pending
            .filter_map(|pending| match pending {
                Pending::Effect { names, .. } => Some(names),
                _ => None,
            })
            .flatten()
    }

    /// The tasks of which nothing but a look is to be noted at the end of their call.
    pub(super) fn looking(&self) -> HashSet<Tid> {
        let tasks = self.tasks.iter().filter(|(_, task)| task.is_looking());
        tasks.map(|(tid, _)| *tid).collect()
    }

    /// The file that a task has looked at once more.
    pub(super) fn take_look(&mut self, task: Tid) -> Option<PathBuf> {
        let looked = |pending: &mut Pending| matches!(pending, Pending::Looked { .. });
        let pending = self.tasks.get_mut(&task)?.pending.take_if(looked)?;
        match pending {
            Pending::Looked { path } => Some(path),
            _ => None,
        }
    }

    pub(super) fn take_pending(&mut self, task: Tid) -> Option<Pending> {
        self.tasks.get_mut(&task)?.pending.take()
    }

    /// A task's parent tells of it. Answers the task if it has stopped already and
    /// was not known.
    pub(super) fn born(&mut self, task: Tid, parent: Tid) -> Option<Stopped> {
        let stopped = self.unborn.remove(&task);
        if self.knows(task) {
            return stopped;
        }
        // One that has run on from its own first stop may have ended since.
        let birth = Birth::of(task)?;
        if birth.process == task {
            let maker = self.process_of(parent).unwrap_or(parent);
            let of = self.processes.get(&maker).cloned().unwrap_or_default();
            self.add_process(task, of);
        } else {
            self.add_thread(task, birth.process);
        }
        if stopped.is_none() {
            self.awaited.insert(task);
        }
        stopped
    }

    /// A new task has stopped before its parent told of it. Who made it is not
    /// certain, so that nothing is known of its process.
    pub(super) fn adopt(&mut self, task: Tid, birth: Birth) {
        if birth.process == task {
            self.add_process(task, Process::default());
        } else {
            self.add_thread(task, birth.process);
        }
    }

    /// A task has stopped that nobody has told of, and that cannot be told what it is.
    pub(super) fn keep_unborn(&mut self, task: Stopped) {
        self.unborn.insert(task.tid(), task);
    }

    /// The first stop of a task that was told of.
    pub(super) fn arrived(&mut self, task: Tid) {
        self.awaited.remove(&task);
    }

    pub(super) fn take_unborn(&mut self) -> Vec<Stopped> {
        self.unborn.drain().map(|(_, task)| task).collect()
    }

    /// A task executed a program: it is the only one of its process now, and has
    /// its id. Answers what was to be done when the others' calls returned, whose ends are
    /// not all reported.
    pub(super) fn executed(&mut self, process: Tid) -> Vec<Pending> {
        let tasks = self.tasks.extract_if(|_, task| task.process == process);
        let cut_off = tasks.filter_map(|(_, task)| task.pending).collect();
        self.add_thread(process, process);
        if let Some(process) = self.processes.get_mut(&process) {
            process.empty_strings.clear();
        }
        if process == self.root() {
            self.guest.executed();
            self.spawned = None;
            self.scratch = Scratch::NotAsked;
            self.reads = Seen::NotAsked;
            self.reads_script = false;
            self.just_opened = None;
        }
        cut_off
    }

    /// A task is gone. The end of a process's first thread is reported when no
    /// other is left: a thread that was killed on its way through execve has
    /// ended under that id, and is never heard of under its own. Answers all
    /// tasks that are gone and what was to be done when their calls returned.
    pub(super) fn remove(&mut self, task: Tid) -> (Vec<Tid>, Vec<Pending>) {
        let gone: Vec<Tid> = if self.processes.remove(&task).is_some() {
            let of_process =
                |(tid, of): (&Tid, &Task)| (*tid == task || of.process == task).then_some(*tid);
            self.tasks.iter().filter_map(of_process).collect()
        } else {
            self.tasks
                .contains_key(&task)
                .then_some(task)
                .into_iter()
                .collect()
        };
        let mut pending = Vec::new();
        for tid in &gone {
            self.awaited.remove(tid);
            if self.considered == Some(*tid) {
                self.considered = None;
            }
            self.guest.thread_ended(*tid);
            pending.extend(self.tasks.remove(tid).and_then(|task| task.pending));
        }
        self.unborn.remove(&task);
        self.awaited.remove(&task);
        (gone, pending)
    }
}
