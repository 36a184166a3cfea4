//! What is known of a live process of the guest without asking it.

use crate::fds::{Inherited, OnConnection};
use crate::ids::Ids;
use crate::memory::Known;
use crate::thread::Facts;
use crate::{Refusal, procfs};
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use tracee::{CallSite, RemoteAddr, Tid};

/// Something that a process did, after which a checkpoint of it has to look
/// closer or is not possible. The calls that lead here are rare, so that
/// trapping them costs less than asking at each checkpoint.
#[derive(Copy, Clone, Eq, PartialEq, Ord, PartialOrd, Debug)]
pub enum Hazard {
    /// setitimer or alarm: interval timers may be armed.
    IntervalTimers,
    /// timer_create: POSIX timers may exist.
    PosixTimers,
    /// mmap with MAP_SHARED of something writable, or shmat.
    SharedMappings,
    /// prctl or a call for credentials changed what a thread has for itself: the
    /// signal at its parent's death, its timer slack, its capabilities.
    Attributes,
    /// semget, msgget or mq_open: semaphores and message queues, which keep what the
    /// dropped run did to them.
    SystemV,
    /// A futex with priority inheritance, whose word in memory holds the
    /// kernel's thread id.
    PriorityInheritance,
    /// The guest installed a seccomp filter of its own, which could refuse the
    /// calls that are injected.
    OwnFilter,
    /// unshare, setns, chroot, pivot_root or mount: paths mean something else
    /// there than here.
    OtherNamespace,
    /// A call of another architecture (i386, x32), whose stops are not read.
    ForeignCalls,
    /// The guest traces processes by itself.
    Tracing,
    /// The program may be executed but not read, so that its tracer may not look
    /// into the process (dumpable in prctl(2)).
    Unreadable,
}

impl Hazard {
    /// Whether the process accesses files in a way that its tracer does not see
    /// or misreads from now on.
    #[must_use]
    pub fn hides_accesses(self) -> bool {
        matches!(
            self,
            Hazard::OtherNamespace | Hazard::ForeignCalls | Hazard::Unreadable
        )
    }

    /// The refusal of a hazard that there is no closer look for.
    pub(crate) fn refusal(self) -> Option<Refusal> {
        let (code, what) = match self {
            Hazard::OwnFilter => (
                "own-seccomp-filter",
                "the guest has a seccomp filter of its own, or has its system calls dispatched",
            ),
            Hazard::OtherNamespace => (
                "other-namespace",
                "the guest changed its root or its namespaces",
            ),
            Hazard::ForeignCalls => (
                "foreign-calls",
                "the guest makes system calls of another architecture (i386 or x32)",
            ),
            Hazard::SystemV => (
                "system-v",
                "the guest uses System V semaphores or message queues, or POSIX ones",
            ),
            Hazard::PriorityInheritance => (
                "priority-inheritance",
                "the guest uses futexes with priority inheritance",
            ),
            Hazard::Unreadable => (
                "unreadable-program",
                "the guest runs a program that may not be read",
            ),
            Hazard::Tracing => ("guest-traces", "the guest traces processes by itself"),
            _ => return None,
        };
        Some(Refusal::unsupported(code, what))
    }
}

/// A live process of the guest.
#[derive(Clone, Debug)]
pub struct Guest {
    pub(crate) process: Tid,
    pub(crate) inherited: Arc<Inherited>,
    pub(crate) on_connection: OnConnection,
    pub(crate) ids: Ids,
    pub(crate) hazards: BTreeSet<Hazard>,
    pub(crate) facts: HashMap<Tid, Facts>,
    syscall_at: Option<RemoteAddr>,
    /// It ignores SIGTRAP.
    pub(crate) ignores_trap: bool,
    /// A thread of it blocks SIGTRAP, so that one may be pending.
    pub(crate) blocks_trap: bool,
    /// The signals that it has handlers for.
    pub(crate) caught: u64,
    /// Some of its memory is locked.
    pub(crate) locks_memory: bool,
    /// The filter that traces identity calls is installed.
    pub(crate) translates: bool,
    /// What its shared memory held at the last checkpoint.
    pub(crate) shared: Known,
    /// Frozen images among its ancestors: a fork of a copy of a copy gets slower
    /// with each one alive.
    pub(crate) depth: u32,
}

impl Guest {
    /// A guest that has just been started, with the open files that it inherited.
    #[must_use]
    pub fn new(process: Tid, inherited: Arc<Inherited>) -> Self {
        Self {
            process,
            inherited,
            on_connection: OnConnection::default(),
            ids: Ids::default(),
            hazards: BTreeSet::new(),
            facts: HashMap::new(),
            syscall_at: None,
            ignores_trap: false,
            blocks_trap: false,
            caught: 0,
            locks_memory: false,
            translates: false,
            shared: Known::new(),
            depth: 0,
        }
    }

    /// The process's id.
    #[must_use]
    pub fn process(&self) -> Tid {
        self.process
    }

    /// The ids of its tasks on both sides.
    #[must_use]
    pub fn ids(&self) -> &Ids {
        &self.ids
    }

    /// How many images this process descends from.
    #[must_use]
    pub fn depth(&self) -> u32 {
        self.depth
    }

    /// Notes something that a checkpoint has to know of.
    pub fn note(&mut self, hazard: Hazard) {
        self.hazards.insert(hazard);
    }

    /// Says what becomes of its connections to others in a resumed copy; without
    /// this, they are [skipped](OnConnection::Skip).
    pub fn set_on_connection(&mut self, choice: OnConnection) {
        self.on_connection = choice;
    }

    /// The guest is about to watch a file by inotify: an absolute path without
    /// links that leads to it. A checkpoint looks for the path otherwise, and finds
    /// only some.
    pub fn note_watched(&self, path: &std::path::Path) {
        self.inherited.found.note(path);
    }

    /// A thread changed what is remembered of it (sigaltstack, set_tid_address).
    pub fn forget_thread(&mut self, thread: Tid) {
        self.facts.remove(&thread);
    }

    /// A thread has ended, and its id may be given to others. The process's own is
    /// remembered: its children still know it.
    pub fn thread_ended(&mut self, thread: Tid) {
        self.forget_thread(thread);
        if thread != self.process {
            self.ids.forget(thread);
        }
    }

    /// The process executed another program.
    pub fn executed(&mut self) {
        self.facts.clear();
        self.ids.forget_all_but(self.process);
        self.syscall_at = None;
        for gone in [
            Hazard::PosixTimers,
            Hazard::SharedMappings,
            Hazard::ForeignCalls,
            Hazard::PriorityInheritance,
            Hazard::Unreadable,
        ] {
            self.hazards.remove(&gone);
        }
    }

    /// Where and how its tasks are made to call.
    pub(crate) fn call_site(&mut self) -> Result<CallSite, Refusal> {
        let site = self.copy_site()?;
        Ok(CallSite {
            ignores_trap: site.ignores_trap || self.blocks_trap,
            ..site
        })
    }

    /// The same in a copy of it, in which no signal is pending.
    pub(crate) fn copy_site(&mut self) -> Result<CallSite, Refusal> {
        let instruction = match self.syscall_at {
            Some(at) => at,
            None => self.find_syscall()?,
        };
        Ok(CallSite {
            instruction,
            ignores_trap: self.ignores_trap,
        })
    }

    /// Learns what may have changed since the last checkpoint.
    pub(crate) fn look_again(&mut self) -> Result<(), Refusal> {
        let status =
            procfs::status(self.process).map_err(Refusal::proc("read the guest's status"))?;
        self.ignores_trap = status.ignored & (1 << (libc::SIGTRAP - 1)) != 0;
        self.caught = status.caught;
        self.locks_memory = status.locks_memory;
        Ok(())
    }

    fn find_syscall(&mut self) -> Result<RemoteAddr, Refusal> {
        let base = procfs::vdso_base(self.process)
            .map_err(Refusal::proc("read the guest's auxiliary vector"))?;
        let offset = tracee::vdso_syscall_offset();
        let (Some(base), Some(offset)) = (base, offset) else {
            return Err(Refusal::unsupported(
                "no-vdso",
                "the kernel maps no vDSO (booted with vdso=0)",
            ));
        };
        let at = RemoteAddr(base + offset);
        self.syscall_at = Some(at);
        Ok(at)
    }
}
