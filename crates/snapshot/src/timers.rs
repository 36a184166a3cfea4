//! Timers of a process, which fork does not copy: interval timers and POSIX
//! timers. The time that is left counts from the resume, as if no time had
//! passed.

use crate::procfs::{self, PosixTimer};
use crate::{Guest, Hazard, Refusal, VirtualPid};
use tracee::Remote;

/// All timers of a process, as they were.
#[derive(Clone, Default, Debug)]
pub(crate) struct Timers {
    /// `which` of setitimer(2) and its `struct itimerval`.
    intervals: Vec<(u64, [u8; 32])>,
    posix: Vec<Posix>,
}

/// A POSIX timer with its setting (`struct itimerspec`).
#[derive(Clone, Debug)]
struct Posix {
    timer: PosixTimer,
    thread: Option<VirtualPid>,
    setting: [u8; 32],
}

/// The highest id that is reached by creating and deleting.
const HIGHEST_ID: i32 = 256;

/// The seconds and nanoseconds until the next expiry are all zero.
fn is_disarmed(setting: &[u8; 32]) -> bool {
    setting[16..] == [0; 16]
}

impl Timers {
    /// Asks a stopped process for its timers, if it may have any.
    pub(crate) fn capture(remote: &mut Remote<'_>, guest: &Guest) -> Result<Self, Refusal> {
        let mut timers = Self::default();
        if guest.hazards.contains(&Hazard::IntervalTimers) {
            for which in 0..3 {
                let mut value = timers_value(remote, "getitimer", libc::SYS_getitimer, which)?;
                if is_disarmed(&value) && value[..16] != [0; 16] {
                    // It has gone off, and the kernel starts it again when its
                    // signal, which waits, is delivered (`itimer.c`).
                    value[24..].copy_from_slice(&1_u64.to_ne_bytes());
                }
                if !is_disarmed(&value) {
                    timers.intervals.push((which, value));
                }
            }
        }
        if guest.hazards.contains(&Hazard::PosixTimers) {
            for timer in
                procfs::timers(guest.process).map_err(Refusal::proc("read the guest's timers"))?
            {
                if timer.id > HIGHEST_ID {
                    return Err(Refusal::unsupported(
                        "posix-timers",
                        format!("the guest has a POSIX timer with the high id {}", timer.id),
                    ));
                }
                let id = timer.id as u64;
                let setting = timers_value(remote, "timer_gettime", libc::SYS_timer_gettime, id)?;
                timers.posix.push(Posix {
                    thread: timer.thread.map(|tid| guest.ids.to_virtual(tid)),
                    timer,
                    setting,
                });
            }
            timers.posix.sort_by_key(|posix| posix.timer.id);
        }
        Ok(timers)
    }

    /// Gives a copy its timers, armed at the very end.
    pub(crate) fn restore(&self, remote: &mut Remote<'_>, guest: &Guest) -> Result<(), Refusal> {
        for posix in &self.posix {
            posix.create(remote, guest)?;
        }
        let at = remote.scratch()?.0;
        for posix in self.posix.iter().filter(|p| !is_disarmed(&p.setting)) {
            remote.memory().write(at, &posix.setting)?;
            let id = posix.timer.id as u64;
            remote.call("timer_settime", libc::SYS_timer_settime, &[id, 0, at.0, 0])?;
        }
        for (which, value) in &self.intervals {
            remote.memory().write(at, value)?;
            remote.call("setitimer", libc::SYS_setitimer, &[*which, at.0, 0])?;
        }
        Ok(())
    }
}

fn timers_value(
    remote: &mut Remote<'_>,
    name: &'static str,
    call: i64,
    which: u64,
) -> Result<[u8; 32], Refusal> {
    let at = remote.scratch()?.0;
    remote.call(name, call, &[which, at.0])?;
    let mut value = [0; 32];
    remote.memory().read(at, &mut value)?;
    Ok(value)
}

impl Posix {
    /// Creates the timer under its id. The kernel counts ids up, so that lower
    /// ones that are free by now are created and deleted.
    fn create(&self, remote: &mut Remote<'_>, guest: &Guest) -> Result<(), Refusal> {
        let at = remote.scratch()?.0;
        // `struct sigevent`: value, signal, notify, thread id; then the answer.
        let mut event = self.timer.value.to_ne_bytes().to_vec();
        event.extend(self.timer.signal.to_ne_bytes());
        let by_thread = if self.thread.is_some() {
            libc::SIGEV_THREAD_ID
        } else {
            0
        };
        event.extend((self.timer.notify | by_thread).to_ne_bytes());
        let thread = self.thread.map_or(0, |id| guest.ids.real(id).raw());
        event.extend(thread.to_ne_bytes());
        event.resize(64, 0);
        loop {
            remote.memory().write(at, &event)?;
            remote.call(
                "timer_create",
                libc::SYS_timer_create,
                &[self.timer.clock as u64, at.0, at.0 + 64],
            )?;
            let id = remote.memory().read_u32(tracee::RemoteAddr(at.0 + 64))? as i32;
            if id == self.timer.id {
                return Ok(());
            }
            remote.call("timer_delete", libc::SYS_timer_delete, &[id as u64])?;
            if id > self.timer.id {
                return Err(Refusal::unsupported(
                    "posix-timers",
                    "a POSIX timer cannot have its id again",
                ));
            }
        }
    }
}
