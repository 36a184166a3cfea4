//! Calls that take or answer ids, in runs where the guest's differ from the
//! kernel's.

use super::Supervisor;
use super::run::Pending;
use snapshot::{Ids, VirtualPid};
use tracee::{Registers, Result, Stopped, SyscallStop, Tid};

/// Where a call has ids.
enum Where {
    /// It answers one.
    Answer,
    /// These arguments are ids.
    Arguments(&'static [usize]),
    /// This argument is one, 0 or -1 meaning others, and so is the answer.
    ArgumentAndAnswer(usize),
    /// getpriority and the like: the second argument is one if the first is
    /// not a user.
    ByKind { user: u64 },
    /// fcntl F_SETOWN.
    Owner,
    /// ioctl of a terminal: an id in memory.
    InMemory,
}

const PIDFD_OPEN: i64 = libc::SYS_pidfd_open;

/// The calls whose ids are translated, whatever their arguments.
pub(super) const TRANSLATED: &[i64] = &[
    libc::SYS_exit,
    libc::SYS_getpid,
    libc::SYS_gettid,
    libc::SYS_getppid,
    libc::SYS_getpgrp,
    libc::SYS_getpgid,
    libc::SYS_getsid,
    libc::SYS_setpgid,
    libc::SYS_setsid,
    libc::SYS_set_tid_address,
    libc::SYS_timer_create,
    libc::SYS_kill,
    libc::SYS_tkill,
    libc::SYS_tgkill,
    libc::SYS_rt_sigqueueinfo,
    libc::SYS_rt_tgsigqueueinfo,
    PIDFD_OPEN,
    libc::SYS_wait4,
    libc::SYS_waitid,
    libc::SYS_sched_setaffinity,
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_setparam,
    libc::SYS_sched_getparam,
    libc::SYS_sched_setscheduler,
    libc::SYS_sched_getscheduler,
    libc::SYS_sched_rr_get_interval,
    libc::SYS_sched_setattr,
    libc::SYS_sched_getattr,
    libc::SYS_getpriority,
    libc::SYS_setpriority,
    libc::SYS_ioprio_get,
    libc::SYS_ioprio_set,
    libc::SYS_prlimit64,
    libc::SYS_get_robust_list,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_kcmp,
    libc::SYS_migrate_pages,
    libc::SYS_move_pages,
];

fn places(call: i64) -> Option<Where> {
    use Where::{Answer, ArgumentAndAnswer, Arguments, ByKind, InMemory, Owner};
    Some(match call {
        libc::SYS_getpid
        | libc::SYS_gettid
        | libc::SYS_getppid
        | libc::SYS_getpgrp
        | libc::SYS_setsid
        | libc::SYS_set_tid_address => Answer,
        libc::SYS_getpgid | libc::SYS_getsid | libc::SYS_wait4 => ArgumentAndAnswer(0),
        libc::SYS_tgkill | libc::SYS_rt_tgsigqueueinfo | libc::SYS_setpgid | libc::SYS_kcmp => {
            Arguments(&[0, 1])
        }
        libc::SYS_waitid => Arguments(&[1]),
        libc::SYS_getpriority | libc::SYS_setpriority => ByKind {
            user: libc::PRIO_USER as u64,
        },
        // IOPRIO_WHO_USER (ioprio_set(2)).
        libc::SYS_ioprio_get | libc::SYS_ioprio_set => ByKind { user: 3 },
        libc::SYS_fcntl => Owner,
        libc::SYS_ioctl => InMemory,
        _ if TRANSLATED.contains(&call) => Arguments(&[0]),
        _ => return None,
    })
}

/// What the kernel calls what the guest means by an argument: an id, or a group
/// by its negative. 0 and -1 mean something else everywhere.
fn to_kernel(ids: &Ids, argument: u64) -> u64 {
    match argument as i32 {
        id if id > 0 => ids.real(VirtualPid(id)).raw() as u64,
        id if id < -1 => i64::from(-ids.real(VirtualPid(-id)).raw()) as u64,
        _ => argument,
    }
}

fn to_guest(ids: &Ids, answer: i64) -> i64 {
    match i32::try_from(answer) {
        Ok(id) if id > 0 => i64::from(ids.to_virtual(Tid::new(id)).0),
        _ => answer,
    }
}

impl Supervisor<'_> {
    /// Handles a call that takes or answers ids and lets the task go on.
    pub(super) fn identity(&mut self, task: Stopped, stop: &SyscallStop) -> Result<()> {
        let call = stop.call as i64;
        if call == libc::SYS_timer_create {
            return self.timer_thread(task, stop.arguments[1]);
        }
        if call == libc::SYS_exit {
            self.name_owner_of_robust_futexes(&task);
            return task.resume(None);
        }
        let ids = self.run.guest.ids();
        let mut registers = task.registers()?;
        let tid = task.tid();
        let process = self.run.process_of(tid).unwrap_or(tid);
        // Most are asked by the guest of itself, and need not reach the kernel.
        let own = match call {
            libc::SYS_getpid => Some(process),
            libc::SYS_gettid => Some(tid),
            _ => None,
        };
        if let Some(own) = own {
            registers.set_call(None);
            registers.set_return_value(i64::from(ids.to_virtual(own).0));
            task.set_registers(&registers)?;
            return task.resume(None);
        }
        let mut changed = Vec::new();
        let mut change = |registers: &mut Registers, index: usize| {
            let before = registers.arguments()[index];
            let after = to_kernel(ids, before);
            if after != before {
                registers.set_argument(index, after);
                changed.push((index, before));
            }
        };
        let mut answers = false;
        let mut memory = None;
        match places(call) {
            Some(Where::Answer) => answers = true,
            Some(Where::Arguments(indices)) => {
                for &index in indices {
                    change(&mut registers, index);
                }
            }
            Some(Where::ArgumentAndAnswer(index)) => {
                change(&mut registers, index);
                answers = true;
            }
            Some(Where::ByKind { user }) if stop.arguments[0] != user => change(&mut registers, 1),
            Some(Where::Owner) if stop.arguments[1] as i32 == libc::F_SETOWN => {
                change(&mut registers, 2);
            }
            Some(Where::Owner) => answers = true,
            Some(Where::InMemory) => memory = Some(stop.arguments[2]),
            Some(Where::ByKind { .. }) | None => {}
        }
        if let Some(at) = memory {
            return self.terminal_group(task, stop.arguments[1], at);
        }
        if changed.is_empty() && !answers {
            return task.resume(None);
        }
        task.set_registers(&registers)?;
        self.run
            .wait_for_answer(tid, Pending::Identity { changed, answers });
        task.resume_to_syscall()
    }

    /// A thread that ends leaves the robust futexes that it holds to others: the
    /// kernel marks those in whose memory it finds the thread's id
    /// (`handle_futex_death` in the kernel's `futex/core.c`), which has to be the
    /// one that the kernel knows.
    fn name_owner_of_robust_futexes(&self, task: &Stopped) {
        /// As the kernel's ROBUST_LIST_LIMIT.
        const LIMIT: usize = 2048;
        const TID_MASK: u32 = 0x3fff_ffff;
        let memory = tracee::AddressSpace::of(task.tid());
        let real = task.tid().raw() as u32;
        let known = self.run.guest.ids().to_virtual(task.tid()).0 as u32;
        let rename = |entry: u64, offset: u64| -> Option<()> {
            let at = tracee::RemoteAddr(entry.wrapping_add(offset));
            if memory.read_u32(at).ok()? & TID_MASK == known {
                // Ids have 22 bits at most; the flags in the last byte may be
                // changed by other threads at any moment.
                memory.write(at, &real.to_ne_bytes()[..3]).ok()?;
            }
            Some(())
        };
        let walk = || -> Option<()> {
            let (head, _) = tracee::robust_list(task.tid()).ok()?;
            if known == real || head == 0 {
                return None;
            }
            // `struct robust_list_head`: list, futex_offset, list_op_pending. The
            // lowest bit of a pointer marks priority inheritance.
            let offset = memory.read_u64(tracee::RemoteAddr(head + 8)).ok()?;
            let pending = memory.read_u64(tracee::RemoteAddr(head + 16)).ok()? & !1;
            let mut entry = memory.read_u64(tracee::RemoteAddr(head)).ok()? & !1;
            for _ in 0..LIMIT {
                if entry == head {
                    break;
                }
                rename(entry, offset)?;
                entry = memory.read_u64(tracee::RemoteAddr(entry)).ok()? & !1;
            }
            if pending != 0 {
                rename(pending, offset)?;
            }
            Some(())
        };
        // A list that cannot be read is none for the kernel, either.
        let _ = walk();
    }

    /// TIOCSPGRP and its like take an id in memory, which is exchanged around
    /// the call.
    fn terminal_group(&mut self, task: Stopped, request: u64, at: u64) -> Result<()> {
        let memory = tracee::AddressSpace::of(task.tid());
        let at = tracee::RemoteAddr(at);
        let mut before = None;
        if request == libc::TIOCSPGRP
            && let Ok(id) = memory.read_u32(at)
        {
            let real = to_kernel(self.run.guest.ids(), u64::from(id)) as u32;
            if real != id && memory.write(at, &real.to_ne_bytes()).is_ok() {
                before = Some(id);
            }
        }
        self.run
            .wait_for_answer(task.tid(), Pending::IdInMemory { at, before });
        task.resume_to_syscall()
    }

    /// A timer may name the thread that gets its signal, in a `struct sigevent`:
    /// value, signal, notify, thread id.
    fn timer_thread(&mut self, task: Stopped, event: u64) -> Result<()> {
        let memory = tracee::AddressSpace::of(task.tid());
        let notify = memory.read_u32(tracee::RemoteAddr(event.wrapping_add(12)));
        let at = tracee::RemoteAddr(event.wrapping_add(16));
        if event == 0 || notify.is_ok_and(|how| how as i32 & libc::SIGEV_THREAD_ID == 0) {
            return task.resume(None);
        }
        // What cannot be read or written fails in the kernel as well.
        let Ok(id) = memory.read_u32(at) else {
            return task.resume(None);
        };
        let real = to_kernel(self.run.guest.ids(), u64::from(id)) as u32;
        if real == id || memory.write(at, &real.to_ne_bytes()).is_err() {
            return task.resume(None);
        }
        let before = Some(id);
        self.run
            .wait_for_answer(task.tid(), Pending::IdInMemory { at, before });
        task.resume_to_syscall()
    }

    /// Puts the guest's view back after a call with translated ids.
    pub(super) fn identity_answer(
        &mut self,
        task: &Stopped,
        changed: &[(usize, u64)],
        answers: bool,
    ) -> Result<()> {
        let mut registers = task.registers()?;
        for &(index, value) in changed {
            registers.set_argument(index, value);
        }
        if answers {
            let answer = to_guest(self.run.guest.ids(), registers.return_value());
            registers.set_return_value(answer);
        }
        task.set_registers(&registers)
    }

    /// The same for an id in memory.
    pub(super) fn id_in_memory_answer(
        &mut self,
        task: &Stopped,
        at: tracee::RemoteAddr,
        before: Option<u32>,
    ) -> Result<()> {
        let memory = tracee::AddressSpace::of(task.tid());
        let value = match before {
            Some(id) => Some(id),
            None if task.registers()?.return_value() == 0 => memory
                .read_u32(at)
                .ok()
                .map(|id| to_guest(self.run.guest.ids(), i64::from(id)) as u32),
            None => None,
        };
        if let Some(id) = value {
            // Memory that the kernel has just read or written; if another thread
            // unmapped it, the guest does not read it either.
            let _ = memory.write(at, &id.to_ne_bytes());
        }
        Ok(())
    }

    /// Makes a signal's sender one that the guest knows: glibc's handlers for
    /// cancelling threads check that it is their own process.
    pub(super) fn translate_sender(&self, task: &Stopped) -> Result<()> {
        const FROM_A_PROCESS: [i32; 3] = [libc::SI_USER, libc::SI_TKILL, libc::SI_QUEUE];
        let mut info = task.signal_info()?;
        if !FROM_A_PROCESS.contains(&info.si_code) {
            return Ok(());
        }
        let sender = crate::sys::signal_sender(&info);
        let known = self.run.guest.ids().to_virtual(Tid::new(sender)).0;
        if known != sender {
            crate::sys::set_signal_sender(&mut info, known);
            task.set_signal_info(&info)?;
        }
        Ok(())
    }
}
