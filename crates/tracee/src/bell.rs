//! Waking the tracer from another thread.
//!
//! The tracer blocks in `waitpid`, which no pipe can end. A directed signal may
//! arrive just before the wait begins and be lost, so that it would have to be
//! repeated until it is acknowledged. Instead one idle process is traced along
//! with the guest: a signal sent to it is a signal-delivery stop, which the wait
//! reports like any other and which stays pending until it is reported.

use crate::stop::Tid;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

/// The signal that rings: ignored by default, so that it does no harm to a bell
/// whose tracer has just died.
pub(crate) const RING: i32 = libc::SIGURG;

/// Rings the tracer's bell, from any thread; [`Report::Rung`](crate::Report::Rung)
/// follows. Several rings may be reported once.
#[derive(Clone, Debug)]
pub struct Ringer(Arc<OwnedFd>);

impl Ringer {
    pub(crate) fn new(bell: Tid) -> io::Result<Self> {
        let pid = Pid::from_raw(bell.raw()).ok_or(io::ErrorKind::InvalidInput)?;
        Ok(Self(Arc::new(pidfd_open(pid, PidfdFlags::empty())?)))
    }

    /// Rings. Without effect once the bell is dead, whose end the tracer reports
    /// by itself.
    pub fn ring(&self) {
        let _ = pidfd_send_signal(&*self.0, Signal::URG);
    }
}
