//! Calls that take or answer ids, in runs where the guest's differ from the
//! kernel's.

use super::Supervisor;
use super::run::Pending;
use snapshot::{Ids, VirtualPid};
use tracee::{RemoteAddr, Result, Stopped, SyscallStop, Tid};

/// Where a call has ids.
enum Where {
    /// It answers one.
    Answer,
    /// These arguments are ids.
    Arguments(&'static [usize]),
    /// The first argument is one, 0 or -1 meaning others, and so is the answer.
    ArgumentAndAnswer,
    /// getpriority and the like: the second argument is one if the first is
    /// not a user.
    ByKind { user: u64 },
    /// waitid: the second argument is one if the first says so.
    Awaited,
    /// fcntl of an owner or a lock.
    FileControl,
    /// An id in memory, at this argument: ioctl of a terminal or a socket.
    InMemory(usize),
    /// rt_sigtimedwait: the sender, in memory.
    Sender,
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
    libc::SYS_rt_sigtimedwait,
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
    use Where::{
        Answer, ArgumentAndAnswer, Arguments, Awaited, ByKind, FileControl, InMemory, Sender,
    };
    Some(match call {
        libc::SYS_getpid
        | libc::SYS_gettid
        | libc::SYS_getppid
        | libc::SYS_getpgrp
        | libc::SYS_setsid
        | libc::SYS_set_tid_address => Answer,
        libc::SYS_getpgid | libc::SYS_getsid | libc::SYS_wait4 => ArgumentAndAnswer,
        libc::SYS_tgkill | libc::SYS_rt_tgsigqueueinfo | libc::SYS_setpgid | libc::SYS_kcmp => {
            Arguments(&[0, 1])
        }
        libc::SYS_waitid => Awaited,
        libc::SYS_rt_sigtimedwait => Sender,
        libc::SYS_getpriority | libc::SYS_setpriority => ByKind {
            user: libc::PRIO_USER as u64,
        },
        // IOPRIO_WHO_USER (ioprio_set(2)).
        libc::SYS_ioprio_get | libc::SYS_ioprio_set => ByKind { user: 3 },
        libc::SYS_fcntl => FileControl,
        libc::SYS_ioctl => InMemory(2),
        // SO_PEERCRED: `struct ucred` begins with the process.
        libc::SYS_getsockopt => InMemory(3),
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

/// How an answer is translated.
pub(super) type Translation = fn(&Ids, i64) -> i64;

fn to_guest(ids: &Ids, answer: i64) -> i64 {
    match i32::try_from(answer) {
        Ok(id) if id > 0 => i64::from(ids.to_virtual(Tid::new(id)).0),
        _ => answer,
    }
}

/// The same for an answer that names a group by its negative, which may look like an
/// error.
fn owner_to_guest(ids: &Ids, answer: i64) -> i64 {
    /// EHWPOISON, the last error number there is.
    const LAST_ERROR: i64 = 133;
    if answer < -LAST_ERROR {
        return -to_guest(ids, -answer);
    }
    to_guest(ids, answer)
}

/// The requests of ioctl by which an id is set: of a terminal's foreground group, of a
/// socket's owner (SIOCSPGRP and FIOSETOWN in the kernel's `asm/sockios.h`).
const SETTING: [u64; 3] = [libc::TIOCSPGRP, 0x8902, 0x8901];

/// Those by which one is asked for (SIOCGPGRP, FIOGETOWN).
const ASKING: [u64; 4] = [libc::TIOCGPGRP, libc::TIOCGSID, 0x8904, 0x8903];

/// The calls whose ids are translated if an argument, the first number, has one of
/// these values.
pub(super) fn translated_requests() -> Vec<(i64, u8, u32)> {
    let owners = [
        libc::F_SETOWN,
        libc::F_GETOWN,
        F_SETOWN_EX,
        F_GETOWN_EX,
        libc::F_GETLK,
    ];
    let requests = SETTING.iter().chain(&ASKING);
    owners
        .iter()
        .map(|command| (libc::SYS_fcntl, 1, *command as u32))
        .chain(requests.map(|request| (libc::SYS_ioctl, 1, *request as u32)))
        .chain([(libc::SYS_getsockopt, 2, libc::SO_PEERCRED as u32)])
        .collect()
}

// fcntl(2); the libc crate has neither.
const F_SETOWN_EX: i32 = 15;
const F_GETOWN_EX: i32 = 16;

/// Where `siginfo_t` has its code and its sender.
const SIGNAL_CODE: u64 = 8;
const SIGNAL_SENDER: u64 = 16;

/// The codes of signals that a process sends (sigaction(2)).
const FROM_A_PROCESS: [i32; 3] = [libc::SI_USER, libc::SI_TKILL, libc::SI_QUEUE];

impl Supervisor<'_> {
    /// Handles a call that takes or answers ids and lets the task go on.
    pub(super) fn identity(&mut self, task: Stopped, stop: &SyscallStop) -> Result<()> {
        let call = stop.call as i64;
        match call {
            libc::SYS_timer_create => return self.timer_thread(task, stop.arguments[1]),
            libc::SYS_exit => {
                self.name_owner_of_robust_futexes(&task);
                return task.resume(None);
            }
            // Most are asked by the guest of itself, and need not reach the kernel.
            libc::SYS_getpid | libc::SYS_gettid => return self.own_id(task, call),
            _ => {}
        }
        let mut arguments: &[usize] = &[];
        let mut answer = None;
        match places(call) {
            Some(Where::Answer) => answer = Some(to_guest as Translation),
            Some(Where::Arguments(indices)) => arguments = indices,
            Some(Where::ArgumentAndAnswer) => {
                arguments = &[0];
                answer = Some(to_guest as Translation);
            }
            Some(Where::ByKind { user }) if stop.arguments[0] != user => arguments = &[1],
            // P_PIDFD names a file, and P_ALL nobody.
            Some(Where::Awaited)
                if [libc::P_PID, libc::P_PGID].contains(&(stop.arguments[0] as u32)) =>
            {
                arguments = &[1];
            }
            Some(Where::ByKind { .. } | Where::Awaited) | None => {}
            Some(Where::FileControl) => match stop.arguments[1] as i32 {
                libc::F_SETOWN => arguments = &[2],
                libc::F_GETOWN => answer = Some(owner_to_guest as Translation),
                libc::F_GETLK => {
                    let at = RemoteAddr(stop.arguments[2]);
                    return self.wait_for(task, Pending::LockOwner { at });
                }
                command => {
                    // `struct f_owner_ex`: kind, id.
                    let at = RemoteAddr(stop.arguments[2].wrapping_add(4));
                    return self.id_in_memory(task, at, command == F_SETOWN_EX);
                }
            },
            // The same number is another option at another level.
            Some(Where::InMemory(_))
                if call == libc::SYS_getsockopt && stop.arguments[1] as i32 != libc::SOL_SOCKET => {
            }
            Some(Where::InMemory(index)) => {
                let sets = call == libc::SYS_ioctl && SETTING.contains(&stop.arguments[1]);
                return self.id_in_memory(task, RemoteAddr(stop.arguments[index]), sets);
            }
            Some(Where::Sender) => return self.sender_of_waiting(task, stop),
        }
        let ids = self.run.guest.ids();
        let mut registers = task.registers()?;
        let mut changed = Vec::new();
        for &index in arguments {
            let before = registers.arguments()[index];
            let after = to_kernel(ids, before);
            if after != before {
                registers.set_argument(index, after);
                changed.push((index, before));
            }
        }
        if changed.is_empty() && answer.is_none() {
            return task.resume(None);
        }
        task.set_registers(&registers)?;
        self.wait_for(task, Pending::Identity { changed, answer })
    }

    fn wait_for(&mut self, task: Stopped, pending: Pending) -> Result<()> {
        self.run.wait_for_answer(task.tid(), pending);
        task.resume_to_syscall()
    }

    fn own_id(&self, task: Stopped, call: i64) -> Result<()> {
        let tid = task.tid();
        let own = match call {
            libc::SYS_getpid => self.run.process_of(tid).unwrap_or(tid),
            _ => tid,
        };
        let mut registers = task.registers()?;
        registers.set_call(None);
        registers.set_return_value(i64::from(self.run.guest.ids().to_virtual(own).0));
        task.set_registers(&registers)?;
        task.resume(None)
    }

    /// A thread takes a signal whose sender it is told. If one waits already the call
    /// returns at once. One that comes later is not translated: a thread that waits for
    /// signals all its life would be in the way of every checkpoint.
    fn sender_of_waiting(&mut self, task: Stopped, stop: &SyscallStop) -> Result<()> {
        let [set, info, ..] = stop.arguments;
        let memory = tracee::AddressSpace::of(task.tid());
        let wanted = memory.read_u64(RemoteAddr(set)).unwrap_or_default();
        let mut waiting = task.pending_signals(false)?;
        waiting.extend(task.pending_signals(true)?);
        let returns = waiting
            .iter()
            .any(|signal| wanted & (1 << (signal.si_signo - 1)) != 0);
        if info == 0 || !returns {
            return task.resume(None);
        }
        let at = RemoteAddr(info);
        self.wait_for(task, Pending::Sender { at })
    }

    /// Translates the sender of a signal that was taken.
    pub(super) fn sender_answer(&self, task: &Stopped, at: RemoteAddr) -> Result<()> {
        let memory = tracee::AddressSpace::of(task.tid());
        let sent = |offset| memory.read_u32(RemoteAddr(at.0.wrapping_add(offset)));
        // Nobody else writes there: it is the answer of this thread's call.
        if task.registers()?.return_value() > 0
            && let (Ok(code), Ok(sender)) = (sent(SIGNAL_CODE), sent(SIGNAL_SENDER))
            && FROM_A_PROCESS.contains(&(code as i32))
        {
            let known = to_guest(self.run.guest.ids(), i64::from(sender)) as u32;
            let at = RemoteAddr(at.0.wrapping_add(SIGNAL_SENDER));
            let _ = memory.write(at, &known.to_ne_bytes());
        }
        Ok(())
    }

    /// Translates the owner of a lock that was asked for (F_GETLK). If nobody has it,
    /// the kernel leaves the field as the guest had it.
    pub(super) fn lock_owner_answer(&self, task: &Stopped, at: RemoteAddr) -> Result<()> {
        // `struct flock`: kind, origin, start, length, owner.
        const OWNER: u64 = 24;
        let memory = tracee::AddressSpace::of(task.tid());
        let mut kind = [0; 2];
        let owner = RemoteAddr(at.0.wrapping_add(OWNER));
        if task.registers()?.return_value() == 0
            && memory.read(at, &mut kind).is_ok()
            && i32::from(i16::from_ne_bytes(kind)) != libc::F_UNLCK
            && let Ok(id) = memory.read_u32(owner)
        {
            let known = to_guest(self.run.guest.ids(), i64::from(id)) as u32;
            let _ = memory.write(owner, &known.to_ne_bytes());
        }
        Ok(())
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
            let at = RemoteAddr(entry.wrapping_add(offset));
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
            let offset = memory.read_u64(RemoteAddr(head + 8)).ok()?;
            let pending = memory.read_u64(RemoteAddr(head + 16)).ok()? & !1;
            let mut entry = memory.read_u64(RemoteAddr(head)).ok()? & !1;
            for _ in 0..LIMIT {
                if entry == head {
                    break;
                }
                rename(entry, offset)?;
                entry = memory.read_u64(RemoteAddr(entry)).ok()? & !1;
            }
            if pending != 0 {
                rename(pending, offset)?;
            }
            Some(())
        };
        // A list that cannot be read is none for the kernel, either.
        let _ = walk();
    }

    /// An id in memory is exchanged around the call that takes it, or translated after
    /// the call that answers it.
    fn id_in_memory(&mut self, task: Stopped, at: RemoteAddr, sets: bool) -> Result<()> {
        let memory = tracee::AddressSpace::of(task.tid());
        let mut before = None;
        if sets {
            // What cannot be read or written fails in the kernel as well.
            let Ok(id) = memory.read_u32(at) else {
                return task.resume(None);
            };
            let real = to_kernel(self.run.guest.ids(), u64::from(id)) as u32;
            if real == id || memory.write(at, &real.to_ne_bytes()).is_err() {
                return task.resume(None);
            }
            before = Some(id);
        }
        self.wait_for(task, Pending::IdInMemory { at, before })
    }

    /// A timer may name the thread that gets its signal, in a `struct sigevent`:
    /// value, signal, notify, thread id.
    fn timer_thread(&mut self, task: Stopped, event: u64) -> Result<()> {
        let memory = tracee::AddressSpace::of(task.tid());
        let notify = memory.read_u32(RemoteAddr(event.wrapping_add(12)));
        let at = RemoteAddr(event.wrapping_add(16));
        if event == 0 || notify.is_ok_and(|how| how as i32 & libc::SIGEV_THREAD_ID == 0) {
            return task.resume(None);
        }
        self.id_in_memory(task, at, true)
    }

    /// Puts the guest's view back after a call with translated ids.
    pub(super) fn identity_answer(
        &mut self,
        task: &Stopped,
        changed: &[(usize, u64)],
        answer: Option<Translation>,
    ) -> Result<()> {
        let mut registers = task.registers()?;
        for &(index, value) in changed {
            registers.set_argument(index, value);
        }
        if let Some(translate) = answer {
            let answer = translate(self.run.guest.ids(), registers.return_value());
            registers.set_return_value(answer);
        }
        task.set_registers(&registers)
    }

    /// The same for an id in memory.
    pub(super) fn id_in_memory_answer(
        &mut self,
        task: &Stopped,
        at: RemoteAddr,
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
