//! Signals that the guest's first process sends to itself while it blocks them, in runs
//! where its id differs from the kernel's.
//!
//! The sender of a signal that has a handler is translated when it is delivered. One
//! that is taken out of a queue, by `sigwaitinfo` or a signalfd, is not seen by the
//! tracer. So it gets the guest's id when it is sent: a thread may say of a signal to
//! itself whatever it wants (rt_sigqueueinfo(2)).

use super::Supervisor;
use snapshot::VirtualPid;
use tracee::{Stopped, SyscallStop};

/// The size of `siginfo_t`.
const SIZE: usize = 128;

/// The real user of a process, who is told as the sender's.
fn user_of(status: &str) -> Option<u32> {
    let ids = status.lines().find_map(|line| line.strip_prefix("Uid:"))?;
    ids.split_ascii_whitespace().next()?.parse().ok()
}

/// A `siginfo_t`: signal, error number, code, padding, process, user.
fn details(signal: i32, code: i32, sender: VirtualPid, user: u32) -> [u8; SIZE] {
    let mut bytes = [0; SIZE];
    for (at, value) in [(0, signal), (8, code), (16, sender.0), (20, user as i32)] {
        bytes[at..at + 4].copy_from_slice(&value.to_ne_bytes());
    }
    bytes
}

impl Supervisor<'_> {
    /// Has a thread that stands before a call to signal itself do so under the name that
    /// the guest knows. Answers the task, unless it was let go to stop before the call
    /// again.
    pub(super) fn own_signal(
        &mut self,
        task: Stopped,
        stop: &SyscallStop,
    ) -> anyhow::Result<Option<Stopped>> {
        let tid = task.tid();
        let process = self.run.root();
        let ids = self.run.guest.ids();
        let names = |argument: u64| ids.real(VirtualPid(argument as i32));
        let [first, second, third, ..] = stop.arguments;
        let (signal, is_own, code) = match stop.call as i64 {
            // The kernel compares the process that is named with the calling thread.
            libc::SYS_kill => (second, tid == process && names(first) == tid, libc::SI_USER),
            libc::SYS_tkill => (second, names(first) == tid, libc::SI_TKILL),
            _ => (
                third,
                names(first) == process && names(second) == tid,
                libc::SI_TKILL,
            ),
        };
        let signal = signal as i32;
        if !is_own
            || self.run.process_of(tid) != Some(process)
            || !(1..=64).contains(&signal)
            || task.signal_mask()? & (1 << (signal - 1)) == 0
        {
            return Ok(Some(task));
        }
        let status = std::fs::read(format!("/proc/{tid}/status")).unwrap_or_default();
        let Some(user) = user_of(&String::from_utf8_lossy(&status)) else {
            return Ok(Some(task));
        };
        let info = details(signal, code, ids.to_virtual(process), user);
        let (process, thread) = (process.raw() as u64, tid.raw() as u64);
        self.pass_in_memory(task, &info, |registers, at| {
            let arguments: &[u64] = if code == libc::SI_USER {
                registers.set_call(Some(libc::SYS_rt_sigqueueinfo as u64));
                &[process, signal as u64, at.0]
            } else {
                registers.set_call(Some(libc::SYS_rt_tgsigqueueinfo as u64));
                &[process, thread, signal as u64, at.0]
            };
            for (index, argument) in arguments.iter().enumerate() {
                registers.set_argument(index, *argument);
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_user_is_the_real_one() {
        assert_eq!(user_of("Name:\tx\nUid:\t7\t8\t9\t10\nGid:\t1\n"), Some(7));
        assert_eq!(user_of("Name:\tx\n"), None);
    }

    #[test]
    fn details_are_where_the_kernel_reads_them() {
        let bytes = details(10, libc::SI_TKILL, VirtualPid(77), 1000);
        assert_eq!(bytes[..4], 10_i32.to_ne_bytes());
        assert_eq!(bytes[8..12], libc::SI_TKILL.to_ne_bytes());
        assert_eq!(bytes[16..20], 77_i32.to_ne_bytes());
        assert_eq!(bytes[20..24], 1000_u32.to_ne_bytes());
    }
}
