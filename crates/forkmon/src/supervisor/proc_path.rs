//! Ids in paths below `/proc`, in runs where the guest's differ from the kernel's,
//! and the memory by which the kernel is passed something else than the guest has
//! written.
//!
//! Only ids in absolute paths are translated: what a listing of `/proc` or a file in
//! it says are the kernel's ids, which work in paths as well.

use super::Supervisor;
use super::run::{Lent, PIECE, Scratch};
use snapshot::{Ids, VirtualPid};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use tracee::{AddressSpace, Registers, RemoteAddr, Stopped, SyscallStop, Tid};

const PROC: &[u8] = b"/proc/";

/// The bytes below a stack pointer that code may use without moving it (System V
/// ABI for x86-64, "the red zone").
const RED_ZONE: u64 = 128;

/// Which argument of a call with one path is that path.
fn path_argument(call: i64) -> Option<usize> {
    Some(match call {
        libc::SYS_open
        | libc::SYS_creat
        | libc::SYS_stat
        | libc::SYS_lstat
        | libc::SYS_access
        | libc::SYS_readlink
        | libc::SYS_execve
        | libc::SYS_chdir
        | libc::SYS_truncate => 0,
        libc::SYS_openat
        | libc::SYS_openat2
        | libc::SYS_newfstatat
        | libc::SYS_statx
        | libc::SYS_faccessat
        | libc::SYS_faccessat2
        | libc::SYS_readlinkat
        | libc::SYS_execveat
        | libc::SYS_inotify_add_watch => 1,
        _ => return None,
    })
}

/// A component of a path as the id that it is, as the kernel reads one: digits
/// without a leading zero.
fn id_of(component: &[u8]) -> Option<VirtualPid> {
    let is_id = component.first().is_some_and(|digit| *digit != b'0')
        && component.iter().all(u8::is_ascii_digit);
    let text = std::str::from_utf8(component).ok()?;
    is_id.then(|| text.parse().ok().map(VirtualPid)).flatten()
}

/// What the kernel calls a path below `/proc`; `None` if it is the same.
fn translated(ids: &Ids, path: &[u8]) -> Option<Vec<u8>> {
    let mut components: Vec<Vec<u8>> = path
        .strip_prefix(PROC)?
        .split(|byte| *byte == b'/')
        .map(<[u8]>::to_vec)
        .collect();
    let mut changed = false;
    let mut translate = |component: &mut Vec<u8>| {
        if let Some(id) = id_of(component)
            && ids.real(id).raw() != id.0
        {
            *component = ids.real(id).to_string().into_bytes();
            changed = true;
        }
    };
    // Repeated slashes are rare enough to be left alone.
    translate(components.first_mut()?);
    if components.get(1).is_some_and(|second| second == b"task")
        && let Some(thread) = components.get_mut(2)
    {
        translate(thread);
    }
    changed.then(|| [PROC, &components.join(&b'/')].concat())
}

impl Supervisor<'_> {
    /// Passes the kernel what it knows in place of what the guest has written, if a
    /// task stands before a call that has an id in its path, or that signals itself.
    /// Answers the task, unless it was let go: with its call answered, or to stop before
    /// it again.
    pub(super) fn for_kernel(&mut self, task: Stopped) -> anyhow::Result<Option<Stopped>> {
        let stop = task.syscall()?;
        match stop.call as i64 {
            _ if !stop.native => Ok(Some(task)),
            libc::SYS_kill | libc::SYS_tkill | libc::SYS_tgkill => self.own_signal(task, &stop),
            _ => self.id_in_path(task, &stop),
        }
    }

    fn id_in_path(&mut self, task: Stopped, stop: &SyscallStop) -> anyhow::Result<Option<Stopped>> {
        let Some(index) = path_argument(stop.call as i64) else {
            return Ok(Some(task));
        };
        let memory = AddressSpace::of(task.tid());
        let at = RemoteAddr(stop.arguments[index]);
        let mut start = [0; PROC.len()];
        if !matches!(memory.read_some(at, &mut start), Ok(n) if start[..n] == *PROC) {
            return Ok(Some(task));
        }
        // What cannot be read fails in the kernel, too.
        let Ok(Some(path)) = memory.read_string(at, PIECE) else {
            return Ok(Some(task));
        };
        if is_link(stop.call as i64) && self.read_own_link(&task, stop, &path, index)? {
            return Ok(task.resume(None).map(|()| None)?);
        }
        let Some(mut known) = translated(self.run.guest.ids(), path.as_bytes()) else {
            return Ok(Some(task));
        };
        known.push(0);
        self.pass_in_memory(task, &known, |registers, at| {
            registers.set_argument(index, at.0);
        })
    }

    /// Has the kernel read something from memory that the guest did not put there:
    /// `change` makes the call another one that points there; its arguments are put back
    /// at its exit. Answers the task, unless it was let go to stop before the call
    /// again.
    pub(super) fn pass_in_memory(
        &mut self,
        task: Stopped,
        bytes: &[u8],
        change: impl Fn(&mut Registers, RemoteAddr),
    ) -> anyhow::Result<Option<Stopped>> {
        let tid = task.tid();
        let process = self.run.process_of(tid).unwrap_or(tid);
        let registers = task.registers()?;
        let mut piece = None;
        let at = if process == self.run.root() {
            if matches!(self.run.scratch, Scratch::NotAsked) {
                return self.map_scratch(task);
            }
            piece = self.run.free_piece(bytes.len());
            piece.map(|(_, at)| at)
        } else {
            below_stack(process, registers.stack_pointer(), bytes.len() as u64)
        };
        // Without room for it the kernel gets what the guest has written.
        let Some(at) = at.filter(|at| AddressSpace::of(tid).write(*at, bytes).is_ok()) else {
            return Ok(Some(task));
        };
        let mut changed = registers.clone();
        change(&mut changed, at);
        let put_back = registers
            .arguments()
            .into_iter()
            .zip(changed.arguments())
            .enumerate()
            .filter(|(_, (before, after))| before != after)
            .map(|(index, (before, _))| (index, before))
            .collect();
        task.set_registers(&changed)?;
        self.run.lend(
            tid,
            Lent {
                arguments: put_back,
                piece: piece.map(|(index, _)| index),
            },
        );
        Ok(Some(task.stopping_at_exit()))
    }

    fn map_scratch(&mut self, task: Stopped) -> anyhow::Result<Option<Stopped>> {
        let length = Scratch::LENGTH;
        let (task, at) = self
            .run
            .guest
            .map_scratch(&mut self.tracer, task, length as u64);
        self.run.scratch = at.map_or(Scratch::Refused, Scratch::At);
        match task {
            Some(task) if task.is_before_call() => Ok(Some(task)),
            Some(task) => Ok(task.resume(None).map(|()| None)?),
            None => Ok(None),
        }
    }

    /// The call has returned: its arguments are the guest's again.
    pub(super) fn take_back(&mut self, task: &Stopped) -> tracee::Result<()> {
        if let Some(lent) = self.run.take_lent(task.tid()) {
            let mut registers = task.registers()?;
            for (index, value) in lent.arguments {
                registers.set_argument(index, value);
            }
            task.set_registers(&registers)?;
        }
        Ok(())
    }

    /// Answers what `/proc/self` and `/proc/thread-self` lead to; whether the path is
    /// one of these.
    fn read_own_link(
        &self,
        task: &Stopped,
        stop: &SyscallStop,
        path: &OsStr,
        index: usize,
    ) -> tracee::Result<bool> {
        let tid = task.tid();
        let ids = self.run.guest.ids();
        let process = ids.to_virtual(self.run.process_of(tid).unwrap_or(tid));
        let target = match path.as_bytes() {
            b"/proc/self" => process.to_string(),
            b"/proc/thread-self" => format!("{process}/task/{}", ids.to_virtual(tid)),
            _ => return Ok(false),
        };
        // A buffer of no or a negative size is the kernel's to complain about.
        let room = usize::try_from(stop.arguments[index + 2] as i32).unwrap_or_default();
        let answer = &target.as_bytes()[..target.len().min(room)];
        let buffer = RemoteAddr(stop.arguments[index + 1]);
        if answer.is_empty() || AddressSpace::of(tid).write(buffer, answer).is_err() {
            return Ok(false);
        }
        let mut registers = task.registers()?;
        registers.set_call(None);
        registers.set_return_value(answer.len() as i64);
        task.set_registers(&registers)?;
        Ok(true)
    }
}

fn is_link(call: i64) -> bool {
    matches!(call, libc::SYS_readlink | libc::SYS_readlinkat)
}

/// Memory below a stack pointer, if that is in the stack which the kernel made and
/// nothing else lies in. For processes that have no scratch memory: children of the
/// guest's first one.
fn below_stack(process: Tid, pointer: u64, length: u64) -> Option<RemoteAddr> {
    let maps = std::fs::read(format!("/proc/{process}/maps")).ok()?;
    let maps = String::from_utf8_lossy(&maps);
    let line = maps.lines().find(|line| line.ends_with("[stack]"))?;
    let (start, rest) = line.split_once('-')?;
    let (end, _) = rest.split_once(' ')?;
    let start = u64::from_str_radix(start, 16).ok()?;
    let end = u64::from_str_radix(end, 16).ok()?;
    let at = pointer.checked_sub(RED_ZONE + length)? & !0xf;
    (at >= start && pointer < end).then_some(RemoteAddr(at))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_ids_as_the_kernel_reads_them_are_ids() {
        assert_eq!(id_of(b"12"), Some(VirtualPid(12)));
        for other in [&b""[..], b"012", b"1a", b"-1", b"99999999999", b"self"] {
            assert_eq!(id_of(other), None);
        }
    }

    #[test]
    fn without_other_ids_every_path_is_the_same() {
        for path in [
            "/proc/12/stat",
            "/proc/self/task/5",
            "/proc//1",
            "/proc/",
            "/etc",
        ] {
            assert_eq!(translated(&Ids::default(), path.as_bytes()), None);
        }
    }

    #[test]
    fn a_stack_has_room_below_its_pointer_and_the_heap_has_none() {
        let own = Tid::new(std::process::id() as i32);
        let boxed = Box::new(5_u64);
        assert_eq!(below_stack(own, &raw const *boxed as u64, 64), None);
    }
}
