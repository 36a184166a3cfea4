//! Duplicates of a process's fds in this process (pidfd_getfd(2)), to ask and set
//! what would take the process a call of its own each. They are closed before the
//! process runs on, since a peer would not see the end of what they hold open.

use crate::Refusal;
use rustix::process::{PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};
use std::os::fd::OwnedFd;
use tracee::Tid;

/// A process whose fds can be duplicated here.
pub(super) struct Source(OwnedFd);

impl Source {
    pub(super) fn of(process: Tid) -> Result<Self, Refusal> {
        let pid = rustix::process::Pid::from_raw(process.raw()).ok_or(Refusal::Died)?;
        pidfd_open(pid, PidfdFlags::empty())
            .map(Self)
            .map_err(|e| Refusal::proc("open a process by its id")(e.into()))
    }

    pub(super) fn duplicate(&self, fd: i32) -> Result<OwnedFd, Refusal> {
        pidfd_getfd(&self.0, fd, PidfdGetfdFlags::empty()).map_err(|e| match e {
            rustix::io::Errno::PERM | rustix::io::Errno::NOSYS | rustix::io::Errno::ACCESS => {
                Refusal::unsupported(
                    "pidfd-getfd-refused",
                    format!(
                        "a file that has to be looked at is open, and pidfd_getfd(2) is refused ({e}): in a container \
                         allow it (docker run --cap-add=SYS_PTRACE, or a newer engine's default \
                         profile)"
                    ),
                )
            }
            e => Refusal::proc("duplicate an open file")(e.into()),
        })
    }
}
