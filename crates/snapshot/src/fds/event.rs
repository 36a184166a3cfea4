//! eventfd and timerfd: closed in the image, since an epoll instance of the live
//! run would go on to watch what the image holds open, and made anew in the copy.

use super::{Entry, Fresh};
use crate::Refusal;
use crate::procfs::{self, Timer};
use rustix::time::{ClockId, clock_gettime};
use tracee::Remote;

/// An eventfd's counter.
#[derive(Clone, Debug)]
pub(super) struct EventCounter {
    entries: Vec<Entry>,
    count: u64,
    /// `None` where the kernel does not tell (before 6.5): such a counter stays
    /// open in the image and is reset in place.
    semaphore: Option<bool>,
}

/// Reads of a semaphore that are tried before it is given up.
const MOST_READS: u32 = 4096;

impl EventCounter {
    pub(super) fn capture(entries: Vec<Entry>) -> Self {
        Self {
            count: entries[0].info.event_count.unwrap_or(0),
            semaphore: entries[0].info.semaphore,
            entries,
        }
    }

    pub(super) fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Whether it is made anew; otherwise it is [`reset`](Self::reset).
    pub(super) fn is_made_anew(&self) -> bool {
        self.semaphore.is_some()
    }

    pub(super) fn create(&self, remote: &mut Remote<'_>, above: i32) -> Result<(), Refusal> {
        let mut flags = libc::EFD_CLOEXEC | self.entries[0].status_flags() & libc::O_NONBLOCK;
        if self.semaphore == Some(true) {
            flags |= libc::EFD_SEMAPHORE;
        }
        let first = self.count.min(u64::from(u32::MAX));
        let fd = remote.call("eventfd2", libc::SYS_eventfd2, &[first, flags as u64])?;
        if self.count > first {
            add(remote, fd, self.count - first)?;
        }
        Fresh { fd: fd as i32 }.settle(remote, above, &self.entries)
    }

    fn now(&self, remote: &Remote<'_>) -> Result<u64, Refusal> {
        let info = procfs::fdinfo(remote.tid(), self.entries[0].fd)
            .map_err(Refusal::proc("read /proc/PID/fdinfo of a copy"))?;
        Ok(info.event_count.unwrap_or(0))
    }

    /// Reads the counter down to zero, one by one if it is a semaphore, and adds
    /// what there was.
    pub(super) fn reset(&self, remote: &mut Remote<'_>) -> Result<(), Refusal> {
        let mut now = self.now(remote)?;
        if now == self.count {
            return Ok(());
        }
        let fd = self.entries[0].fd as u64;
        let at = remote.scratch()?.0;
        let mut reads = 0;
        while now > 0 {
            if reads == MOST_READS {
                return Err(Refusal::unsupported(
                    "semaphore",
                    "an eventfd semaphore counts too high to be reset",
                ));
            }
            remote.call("read", libc::SYS_read, &[fd, at.0, 8])?;
            now = self.now(remote)?;
            reads += 1;
        }
        if self.count > 0 {
            add(remote, fd, self.count)?;
        }
        Ok(())
    }
}

fn add(remote: &mut Remote<'_>, fd: u64, count: u64) -> Result<(), Refusal> {
    let at = remote.scratch()?.0;
    remote.memory().write(at, &count.to_ne_bytes())?;
    remote.call("write", libc::SYS_write, &[fd, at.0, 8])?;
    Ok(())
}

/// A timerfd. The time that is left counts from the resume, as if no time had
/// passed, also of one that was set to a time of day.
#[derive(Clone, Debug)]
pub(super) struct TimerFd {
    entries: Vec<Entry>,
    timer: Timer,
}

/// `_IOW('T', 0, u64)` (timerfd_create(2)).
const TFD_IOC_SET_TICKS: u64 = 0x4008_5400;

impl TimerFd {
    pub(super) fn capture(entries: Vec<Entry>) -> Self {
        Self {
            timer: entries[0].info.timer,
            entries,
        }
    }

    pub(super) fn entries(&self) -> &[Entry] {
        &self.entries
    }

    pub(super) fn create(&self, remote: &mut Remote<'_>, above: i32) -> Result<(), Refusal> {
        let flags = libc::TFD_CLOEXEC | self.entries[0].status_flags() & libc::O_NONBLOCK;
        let fd = remote.call(
            "timerfd_create",
            libc::SYS_timerfd_create,
            &[self.timer.clock as u64, flags as u64],
        )?;
        Fresh { fd: fd as i32 }.settle(remote, above, &self.entries)
    }

    /// Sets it going.
    pub(super) fn arm(&self, remote: &mut Remote<'_>) -> Result<(), Refusal> {
        let Timer {
            interval,
            mut value,
            mut ticks,
            flags,
            ..
        } = self.timer;
        if value == (0, 0) && interval != (0, 0) && ticks > 0 {
            // It has gone off, and goes on once that is read. It goes off again at
            // once instead.
            value = (0, 1);
            ticks -= 1;
        }
        let fd = self.entries[0].fd as u64;
        if value != (0, 0) {
            if flags & libc::TFD_TIMER_ABSTIME != 0 {
                value = self.deadline(value)?;
            }
            set(remote, fd, flags, interval, value)?;
        }
        if ticks > 0 {
            let at = remote.scratch()?.0;
            remote.memory().write(at, &ticks.to_ne_bytes())?;
            match remote.call("ioctl", libc::SYS_ioctl, &[fd, TFD_IOC_SET_TICKS, at.0]) {
                // The kernel was built without it. One that has gone off once, for
                // good, can do that again.
                Err(tracee::Error::Call { source, .. })
                    if source.raw_os_error() == Some(libc::ENOTTY)
                        && (ticks, interval, value) == (1, (0, 0), (0, 0)) =>
                {
                    set(remote, fd, 0, (0, 0), (0, 1))?;
                }
                answer => {
                    answer?;
                }
            }
        }
        Ok(())
    }

    /// When a time that is left from now on is over, on the timer's clock.
    fn deadline(&self, left: (i64, i64)) -> Result<(i64, i64), Refusal> {
        let clock = match self.timer.clock {
            libc::CLOCK_REALTIME | libc::CLOCK_REALTIME_ALARM => ClockId::Realtime,
            libc::CLOCK_MONOTONIC => ClockId::Monotonic,
            libc::CLOCK_BOOTTIME | libc::CLOCK_BOOTTIME_ALARM => ClockId::Boottime,
            other => {
                return Err(Refusal::unsupported(
                    "timerfd",
                    format!("a timerfd goes by a clock that is not known ({other})"),
                ));
            }
        };
        const SECOND: i64 = 1_000_000_000;
        let now = clock_gettime(clock);
        let nanoseconds = now.tv_nsec + left.1;
        Ok((
            now.tv_sec + left.0 + nanoseconds / SECOND,
            nanoseconds % SECOND,
        ))
    }
}

fn set(
    remote: &mut Remote<'_>,
    fd: u64,
    flags: i32,
    interval: (i64, i64),
    value: (i64, i64),
) -> Result<(), Refusal> {
    let setting: Vec<u8> = [interval.0, interval.1, value.0, value.1]
        .into_iter()
        .flat_map(i64::to_ne_bytes)
        .collect();
    let at = remote.scratch()?.0;
    remote.memory().write(at, &setting)?;
    remote.call(
        "timerfd_settime",
        libc::SYS_timerfd_settime,
        &[fd, flags as u64, at.0, 0],
    )?;
    Ok(())
}
