//! How the kernel gives a thread its share of processors and disks, from outside.

use std::io;
use std::mem::size_of;
use tracee::Tid;

/// `struct sched_attr` of sched_setattr(2), as far as every kernel has it.
#[repr(C)]
#[derive(Copy, Clone, Default, Eq, PartialEq, Debug)]
pub(crate) struct Attributes {
    size: u32,
    pub(crate) policy: u32,
    pub(crate) flags: u64,
    pub(crate) nice: i32,
    pub(crate) priority: u32,
    runtime: u64,
    deadline: u64,
    period: u64,
}

impl Attributes {
    /// A policy, with what matters to it.
    #[cfg(test)]
    pub(crate) fn new(policy: i32, nice: i32, priority: u32, flags: u64) -> Self {
        Self {
            policy: policy as u32,
            nice,
            priority,
            flags,
            ..Self::default()
        }
    }
}

pub(crate) fn attributes(thread: Tid) -> io::Result<Attributes> {
    let mut attributes = Attributes::default();
    // SAFETY: the pointer is valid for writes of as many bytes as announced.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_sched_getattr,
            thread.raw(),
            &raw mut attributes,
            size_of::<Attributes>(),
            0,
        )
    };
    if answer < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(attributes)
}

pub(crate) fn set_attributes(thread: Tid, attributes: &Attributes) -> io::Result<()> {
    // SAFETY: the pointer is valid for reads of a sched_attr of the size that it
    // tells itself.
    let answer = unsafe { libc::syscall(libc::SYS_sched_setattr, thread.raw(), attributes, 0) };
    if answer < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Sets a thread's nice value and nothing else (setpriority(2)).
pub(crate) fn set_nice(thread: Tid, nice: i32) -> io::Result<()> {
    // SAFETY: setpriority takes no pointer.
    let answer = unsafe { libc::setpriority(libc::PRIO_PROCESS, thread.raw() as u32, nice) };
    if answer < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

const IOPRIO_WHO_PROCESS: i32 = 1;

/// A thread's I/O class and priority, as ioprio_set(2) has them.
pub(crate) fn io_priority(thread: Tid) -> io::Result<i32> {
    // SAFETY: ioprio_get takes no pointer.
    let answer = unsafe { libc::syscall(libc::SYS_ioprio_get, IOPRIO_WHO_PROCESS, thread.raw()) };
    i32::try_from(answer)
        .ok()
        .filter(|priority| *priority >= 0)
        .ok_or_else(io::Error::last_os_error)
}

pub(crate) fn set_io_priority(thread: Tid, priority: i32) -> io::Result<()> {
    // SAFETY: ioprio_set takes no pointer.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_ioprio_set,
            IOPRIO_WHO_PROCESS,
            thread.raw(),
            priority,
        )
    };
    if answer < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// The soft limits of a process on nice values and real-time priorities
/// (getrlimit(2): RLIMIT_NICE, RLIMIT_RTPRIO).
pub(crate) fn priority_limits(process: Tid) -> io::Result<(u64, u64)> {
    let mut limits = [0; 2];
    for (limit, resource) in limits
        .iter_mut()
        .zip([libc::RLIMIT_NICE, libc::RLIMIT_RTPRIO])
    {
        let mut old = libc::rlimit {
            rlim_cur: 0,
            rlim_max: 0,
        };
        // SAFETY: no new limit is given, and the other pointer is valid for writes.
        let answer =
            unsafe { libc::prlimit(process.raw(), resource, std::ptr::null(), &raw mut old) };
        if answer < 0 {
            return Err(io::Error::last_os_error());
        }
        *limit = old.rlim_cur;
    }
    Ok((limits[0], limits[1]))
}
