//! One thread: reading what fork does not copy, and bringing it back.

use crate::Refusal;
use crate::ids::VirtualPid;
use crate::scheduling::Scheduling;
use crate::sys;
use std::fs;
use tracee::Argument::{Bytes, Value};
use tracee::{
    AddressSpace, Calls, Event, RawSignal, Registers, Remote, RemoteAddr, RseqConfiguration,
    Stopped, Tid, restart,
};

/// What can only be learned by a system call in the thread, kept until the
/// thread changes it.
#[derive(Clone, Default, Debug)]
pub(crate) struct Facts {
    /// `stack_t` as sigaltstack(2) gives it, and the clear-child-tid address.
    asked: Option<(AlternateStack, u64)>,
    /// Where a call told that the thread may have changed them.
    attributes: Option<Attributes>,
    /// The call whose restart a `restart_syscall` stands for: after a second
    /// interruption the registers show only the latter. With what does not change
    /// until the call returns.
    restarting: Option<(u64, [u64; 8])>,
}

/// `stack_t`.
#[derive(Copy, Clone, Default, Eq, PartialEq, Debug)]
pub(crate) struct AlternateStack {
    address: u64,
    flags: u32,
    size: u64,
}

const SS_DISABLE: u32 = 2;
const SS_ONSTACK: u32 = 1;
const SS_AUTODISARM: u32 = 1 << 31;

impl AlternateStack {
    const SIZE: usize = 24;

    fn from_bytes(bytes: [u8; Self::SIZE]) -> Self {
        let word = |at: usize| u64::from_ne_bytes(std::array::from_fn(|i| bytes[at + i]));
        Self {
            address: word(0),
            flags: word(8) as u32,
            size: word(16),
        }
    }

    fn bytes(self) -> [u8; Self::SIZE] {
        let mut bytes = [0; Self::SIZE];
        bytes[..8].copy_from_slice(&self.address.to_ne_bytes());
        bytes[8..12].copy_from_slice(&self.flags.to_ne_bytes());
        bytes[16..].copy_from_slice(&self.size.to_ne_bytes());
        bytes
    }
}

/// What prctl(2) sets of one thread.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
struct Attributes {
    /// The signal that the thread gets when its parent dies; 0 for none. fork clears
    /// it.
    parent_death_signal: u32,
    /// In nanoseconds.
    timer_slack: u64,
    /// PR_TSC_ENABLE or PR_TSC_SIGSEGV.
    time_stamp_counter: u32,
}

impl Attributes {
    fn ask(remote: &mut Remote<'_>) -> Result<Self, Refusal> {
        let at = remote.scratch()?.0;
        let mut ask = |which: i32| {
            remote.memory().write(at, &[0; 4])?;
            let answer = remote.call("prctl", libc::SYS_prctl, &[which as u64, at.0])?;
            Ok::<_, Refusal>((answer, remote.memory().read_u32(at)?))
        };
        Ok(Self {
            parent_death_signal: ask(libc::PR_GET_PDEATHSIG)?.1,
            timer_slack: ask(libc::PR_GET_TIMERSLACK)?.0,
            time_stamp_counter: ask(libc::PR_GET_TSC)?.1,
        })
    }

    /// What gives them to a thread of a copy that has those of its first one.
    fn add(&self, calls: &mut Calls, leader: &Self) {
        let mut set = |which: i32, value: u64| {
            let arguments = [Value(which as u64), Value(value)];
            calls.add("prctl", libc::SYS_prctl, &arguments);
        };
        if self.parent_death_signal != 0 {
            set(libc::PR_SET_PDEATHSIG, u64::from(self.parent_death_signal));
        }
        if self.timer_slack != leader.timer_slack {
            set(libc::PR_SET_TIMERSLACK, self.timer_slack);
        }
        if self.time_stamp_counter != leader.time_stamp_counter {
            set(libc::PR_SET_TSC, u64::from(self.time_stamp_counter));
        }
    }
}

/// A thread as it is brought back.
#[derive(Clone)]
pub(crate) struct ThreadState {
    pub(crate) id: VirtualPid,
    registers: Registers,
    /// Where it goes on if a signal waits for it.
    registers_if_signalled: Registers,
    vectors: Vec<u8>,
    mask: u64,
    /// The signals that the process has handlers for.
    caught: u64,
    /// Signals for this thread only, in their order.
    pending: Vec<libc::siginfo_t>,
    robust_list: (u64, u64),
    rseq: RseqConfiguration,
    alternate_stack: AlternateStack,
    clear_child_tid: u64,
    name: Vec<u8>,
    pub(crate) scheduling: Scheduling,
    attributes: Option<Attributes>,
    affinity: Vec<u8>,
}

/// Moves a thread out of a restartable sequence to its abort handler, as the
/// kernel does when it interrupts one: an injected call would make the kernel
/// forget that the thread was in it.
fn leave_critical_section(
    task: &Stopped,
    rseq: &RseqConfiguration,
    registers: &mut Registers,
) -> Result<(), Refusal> {
    if rseq.address.0 == 0 {
        return Ok(());
    }
    let memory = AddressSpace::of(task.tid());
    let section = memory.read_u64(RemoteAddr(rseq.address.0 + 8))?;
    if section == 0 {
        return Ok(());
    }
    // `struct rseq_cs`: version, flags, start_ip, post_commit_offset, abort_ip.
    let mut words = [0u64; 3];
    for (index, word) in words.iter_mut().enumerate() {
        *word = memory.read_u64(RemoteAddr(section + 8 + 8 * index as u64))?;
    }
    let [start, length, abort] = words;
    if registers.instruction_pointer().wrapping_sub(start) < length {
        registers.set_instruction_pointer(abort);
        task.set_registers(registers)?;
    }
    Ok(())
}

/// Where a call was made from and with what.
fn call_frame(registers: &Registers) -> [u64; 8] {
    let [a, b, c, d, e, f] = registers.arguments();
    let (ip, sp) = (registers.instruction_pointer(), registers.stack_pointer());
    [a, b, c, d, e, f, ip, sp]
}

/// Where a copy of a thread goes on that stopped here with these registers.
fn registers_of_copy(
    mut registers: Registers,
    event: &Event,
    facts: &mut Facts,
    signalled: bool,
) -> Result<Registers, Refusal> {
    let Some(call) = registers.call() else {
        return Ok(registers);
    };
    if matches!(event, Event::Seccomp) {
        registers.rewind_call(call);
        return Ok(registers);
    }
    let value = registers.return_value();
    if !restart::is_restart(value) {
        registers.set_call(None);
        return Ok(registers);
    }
    if value == restart::BLOCK {
        if call != libc::SYS_restart_syscall as u64 {
            facts.restarting = Some((call, call_frame(&registers)));
        }
        // One that was interrupted out of sight may be another call by now.
        let frame = call_frame(&registers);
        let Some((original, _)) = facts.restarting.filter(|(_, known)| *known == frame) else {
            return Err(Refusal::unsupported(
                "unknown-restart",
                "a thread restarts a call that began unseen",
            ));
        };
        if signalled {
            // The kernel's own answer to a restart block when a handler runs.
            registers.set_return_value(-i64::from(libc::EINTR));
            registers.set_call(None);
        } else {
            registers.rewind_call(original);
        }
    } else if !signalled {
        registers.rewind_call(call);
    }
    // With a signal waiting the registers stay as they are, and the kernel
    // decides between a restart and EINTR when it delivers the signal.
    Ok(registers)
}

/// Reads the state of a stopped thread. `ask` is called if facts are missing
/// that only a system call in the thread can tell.
pub(crate) fn capture(
    process: Tid,
    id: VirtualPid,
    task: &Stopped,
    event: &Event,
    facts: &mut Facts,
    caught: u64,
) -> Result<ThreadState, Refusal> {
    let tid = task.tid();
    let mut registers = task.registers()?;
    let rseq = task.rseq()?;
    leave_critical_section(task, &rseq, &mut registers)?;
    let mask = task.signal_mask()?;
    let mut pending = task.pending_signals(false)?;
    if let Event::Signal(RawSignal(_)) = event {
        pending.insert(0, task.signal_info()?);
    }
    let Some((alternate_stack, clear_child_tid)) = facts.asked else {
        return Err(Refusal::unsupported(
            "thread-not-asked",
            "a thread's state is unknown",
        ));
    };
    Ok(ThreadState {
        id,
        registers: registers_of_copy(registers.clone(), event, facts, false)?,
        registers_if_signalled: registers_of_copy(registers, event, facts, true)?,
        vectors: task.extended_state()?,
        mask,
        caught,
        pending,
        robust_list: tracee::robust_list(tid)
            .map_err(Refusal::proc("read a thread's robust list"))?,
        rseq,
        alternate_stack,
        clear_child_tid,
        name: fs::read(format!("/proc/{process}/task/{tid}/comm"))
            .map_err(Refusal::proc("read a thread's name"))?,
        scheduling: Scheduling::of(tid)?,
        attributes: facts.attributes,
        affinity: sys::affinity(tid).map_err(Refusal::proc("read a thread's affinity"))?,
    })
}

/// Whether the thread must be asked before [`capture`].
pub(crate) fn must_ask(facts: &Facts, attributes: bool) -> bool {
    attributes && facts.attributes.is_none()
        || facts
            .asked
            .is_none_or(|(stack, _)| stack.flags & SS_AUTODISARM != 0)
}

/// Asks a thread what only it can tell.
pub(crate) fn ask(
    remote: &mut Remote<'_>,
    facts: &mut Facts,
    attributes: bool,
) -> Result<(), Refusal> {
    const PR_GET_TID_ADDRESS: u64 = 40;
    let at = remote.scratch()?.0;
    remote.call("sigaltstack", libc::SYS_sigaltstack, &[0, at.0])?;
    let mut stack = [0; AlternateStack::SIZE];
    remote.memory().read(at, &mut stack)?;
    remote.call("prctl", libc::SYS_prctl, &[PR_GET_TID_ADDRESS, at.0])?;
    let address = remote.memory().read_u64(at)?;
    facts.asked = Some((AlternateStack::from_bytes(stack), address));
    if attributes {
        facts.attributes = Some(Attributes::ask(remote)?);
    }
    Ok(())
}

impl ThreadState {
    /// Whether SIGTRAP is blocked in it, and so may be pending.
    pub(crate) fn blocks_trap(&self) -> bool {
        self.mask & (1 << (libc::SIGTRAP - 1)) != 0
    }

    /// The word that is cleared at its end; its copy is made with it.
    pub(crate) fn clear_child_tid(&self) -> u64 {
        self.clear_child_tid
    }

    /// The signals that wait for it.
    pub(crate) fn pending(&self) -> &[libc::siginfo_t] {
        &self.pending
    }

    /// The stack's facts for a thread that was just brought back.
    pub(crate) fn facts(&self) -> Facts {
        Facts {
            asked: Some((self.alternate_stack, self.clear_child_tid)),
            attributes: self.attributes,
            restarting: None,
        }
    }

    /// The calls that a new thread of a copy makes to be as it was. The first thread
    /// of a copy, for which there is no `leader`, has some of it by fork.
    pub(crate) fn calls(&self, process: Tid, tid: Tid, leader: Option<&ThreadState>) -> Calls {
        let mut calls = Calls::default();
        if self.robust_list.0 != 0 {
            let (head, length) = self.robust_list;
            calls.add(
                "set_robust_list",
                libc::SYS_set_robust_list,
                &[Value(head), Value(length)],
            );
        }
        if let Some(leader) = leader {
            self.add_what_threads_lose(&mut calls, leader);
        }
        for info in &self.pending {
            let (process, tid) = (process.raw() as u64, tid.raw() as u64);
            calls.add(
                "rt_tgsigqueueinfo",
                libc::SYS_rt_tgsigqueueinfo,
                &[
                    Value(process),
                    Value(tid),
                    Value(info.si_signo as u64),
                    Bytes(sys::signal_bytes(info)),
                ],
            );
        }
        if let Some(attributes) = &self.attributes {
            let of_leader = leader.map_or(self, |leader| leader).attributes.as_ref();
            attributes.add(&mut calls, of_leader.unwrap_or(attributes));
        }
        calls
    }

    /// What a thread of a copy lacks that the first thread gets by fork.
    fn add_what_threads_lose(&self, calls: &mut Calls, leader: &ThreadState) {
        if self.rseq.address.0 != 0 {
            let r = &self.rseq;
            calls.add(
                "rseq",
                libc::SYS_rseq,
                &[
                    Value(r.address.0),
                    Value(u64::from(r.size)),
                    Value(u64::from(r.flags)),
                    Value(u64::from(r.signature)),
                ],
            );
        }
        if self.alternate_stack.flags & SS_DISABLE == 0 {
            let stack = AlternateStack {
                flags: self.alternate_stack.flags & !SS_ONSTACK,
                ..self.alternate_stack
            };
            calls.add(
                "sigaltstack",
                libc::SYS_sigaltstack,
                &[Bytes(&stack.bytes()), Value(0)],
            );
        }
        if self.name != leader.name {
            let mut name = self.name.clone();
            if name.last() == Some(&b'\n') {
                name.pop();
            }
            name.push(0);
            calls.add(
                "prctl",
                libc::SYS_prctl,
                &[Value(libc::PR_SET_NAME as u64), Bytes(&name)],
            );
        }
    }

    /// Gives a thread that has made its [`calls`](Self::calls) what is given from
    /// outside. Its registers and signal mask come last: [`place`](Self::place).
    pub(crate) fn finish(&self, task: &Stopped) -> Result<(), Refusal> {
        let tid = task.tid();
        self.scheduling.restore(tid)?;
        sys::set_affinity(tid, &self.affinity).map_err(Refusal::proc("set a thread's affinity"))?;
        Ok(task.set_extended_state(&self.vectors)?)
    }

    /// Where it goes on, with these signals waiting for the whole process, and the
    /// signals that it blocks.
    pub(crate) fn place(&self, shared_pending: &[libc::siginfo_t]) -> (&Registers, u64) {
        // What is blocked, or has no handler, interrupts nothing.
        let mut waiting = self.pending.iter().chain(shared_pending);
        let registers = if waiting.any(|info| {
            let bit = 1 << (info.si_signo - 1);
            self.mask & bit == 0 && self.caught & bit != 0
        }) {
            &self.registers_if_signalled
        } else {
            &self.registers
        };
        (registers, self.mask)
    }
}
