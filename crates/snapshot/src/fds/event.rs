//! eventfd and timerfd: they stay open in the image, since nobody waits for
//! their end, and are reset in place.

use super::Entry;
use crate::Refusal;
use crate::procfs::{self, Timer};
use tracee::Remote;

/// An eventfd's counter.
#[derive(Clone, Debug)]
pub(super) struct EventCounter {
    fd: i32,
    count: u64,
}

/// Reads of a semaphore that are tried before it is given up.
const MOST_READS: u32 = 4096;

impl EventCounter {
    pub(super) fn capture(entry: &Entry) -> Self {
        Self {
            fd: entry.fd,
            count: entry.info.event_count.unwrap_or(0),
        }
    }

    fn now(&self, remote: &Remote<'_>) -> Result<u64, Refusal> {
        let info = procfs::fdinfo(remote.tid(), self.fd)
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
        let at = remote.scratch()?.0;
        let mut reads = 0;
        while now > 0 {
            if reads == MOST_READS {
                return Err(Refusal::unsupported(
                    "semaphore",
                    "an eventfd semaphore counts too high to be reset",
                ));
            }
            remote.call("read", libc::SYS_read, &[self.fd as u64, at.0, 8])?;
            now = self.now(remote)?;
            reads += 1;
        }
        if self.count > 0 {
            remote.memory().write(at, &self.count.to_ne_bytes())?;
            remote.call("write", libc::SYS_write, &[self.fd as u64, at.0, 8])?;
        }
        Ok(())
    }
}

/// A timerfd's setting. The time that is left counts from the resume, as if no
/// time had passed.
#[derive(Clone, Debug)]
pub(super) struct TimerFd {
    fd: i32,
    timer: Timer,
}

/// `_IOW('T', 0, u64)` (timerfd_create(2)).
const TFD_IOC_SET_TICKS: u64 = 0x4008_5400;

impl TimerFd {
    pub(super) fn capture(entry: &Entry) -> Self {
        Self {
            fd: entry.fd,
            timer: entry.info.timer,
        }
    }

    pub(super) fn reset(&self, remote: &mut Remote<'_>) -> Result<(), Refusal> {
        let now = procfs::fdinfo(remote.tid(), self.fd)
            .map_err(Refusal::proc("read /proc/PID/fdinfo of a copy"))?;
        if now.timer == self.timer && self.timer.value == (0, 0) {
            return Ok(());
        }
        let at = remote.scratch()?.0;
        let Timer {
            interval, value, ..
        } = self.timer;
        let setting: Vec<u8> = [interval.0, interval.1, value.0, value.1]
            .into_iter()
            .flat_map(i64::to_ne_bytes)
            .collect();
        remote.memory().write(at, &setting)?;
        remote.call(
            "timerfd_settime",
            libc::SYS_timerfd_settime,
            &[self.fd as u64, 0, at.0, 0],
        )?;
        if self.timer.ticks > 0 {
            remote.memory().write(at, &self.timer.ticks.to_ne_bytes())?;
            remote.call(
                "ioctl",
                libc::SYS_ioctl,
                &[self.fd as u64, TFD_IOC_SET_TICKS, at.0],
            )?;
        }
        Ok(())
    }
}
