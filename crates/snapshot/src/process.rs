//! What fork does not copy of a whole process, beyond its files, timers and
//! signals.

use crate::{Guest, Hazard, Refusal, procfs, sys};
use std::fs;
use tracee::{Remote, Tid};

/// The process-wide state of a guest.
#[derive(Clone, Default, Debug)]
pub(crate) struct ProcessState {
    /// It is given the orphans among its descendants.
    reaps: bool,
    /// Memory that is locked: start, end, and whether only what is touched is.
    locked: Vec<(u64, u64, bool)>,
    /// The flags of mlockall(2) for what will be mapped.
    locks_future: u64,
}

/// MLOCK_ONFAULT of mlock2(2).
const ON_FAULT: u64 = 1;

/// The mappings that are locked, by the text of `/proc/PID/smaps`: start, end, and
/// whether only what is touched is.
pub(crate) fn parse_locked(text: &str) -> Vec<(u64, u64, bool)> {
    let mut locked: Vec<(u64, u64, bool)> = Vec::new();
    let mut range = None;
    for line in text.lines() {
        if let Some(flags) = line.strip_prefix("VmFlags:") {
            let has = |flag| flags.split_ascii_whitespace().any(|f| f == flag);
            if let Some((start, end)) = range.take()
                && has("lo")
            {
                locked.push((start, end, has("lf")));
            }
        } else if let Some((first, _)) = line.split_once(' ')
            && let Some((start, end)) = first.split_once('-')
            && let (Ok(start), Ok(end)) =
                (u64::from_str_radix(start, 16), u64::from_str_radix(end, 16))
        {
            range = Some((start, end));
        }
    }
    locked
}

fn locked_mappings(process: Tid) -> Result<Vec<(u64, u64, bool)>, Refusal> {
    let bytes = fs::read(format!("/proc/{process}/smaps"))
        .map_err(Refusal::proc("read which of the guest's memory is locked"))?;
    Ok(parse_locked(&String::from_utf8_lossy(&bytes)))
}

/// What of a thread's status must be the same in all, since a copy's threads have
/// it of the first one.
const OF_ALL_THREADS: &[&str] = &[
    "Uid:",
    "Gid:",
    "Groups:",
    "CapInh:",
    "CapPrm:",
    "CapEff:",
    "CapBnd:",
    "CapAmb:",
    "NoNewPrivs:",
    "Speculation_Store_Bypass:",
    "SpeculationIndirectBranch:",
];

fn same_in_all_threads(process: Tid) -> Result<(), Refusal> {
    let step = "read a thread's credentials";
    let mut first: Option<Vec<String>> = None;
    for thread in procfs::threads(process).map_err(Refusal::proc(step))? {
        let bytes = fs::read(format!("/proc/{process}/task/{thread}/status"))
            .map_err(Refusal::proc(step))?;
        let lines: Vec<String> = String::from_utf8_lossy(&bytes)
            .lines()
            .filter(|line| OF_ALL_THREADS.iter().any(|name| line.starts_with(name)))
            .map(str::to_owned)
            .collect();
        if first.get_or_insert_with(|| lines.clone()) != &lines {
            return Err(Refusal::unsupported(
                "thread-credentials",
                "the guest's threads have different credentials or privileges",
            ));
        }
    }
    Ok(())
}

impl ProcessState {
    /// Asks a stopped process for what it may have changed.
    pub(crate) fn capture(remote: &mut Remote<'_>, guest: &Guest) -> Result<Self, Refusal> {
        let mut state = Self::default();
        if guest.hazards.contains(&Hazard::Attributes) {
            same_in_all_threads(guest.process)?;
            let at = remote.scratch()?.0;
            let which = libc::PR_GET_CHILD_SUBREAPER as u64;
            remote.call("prctl", libc::SYS_prctl, &[which, at.0])?;
            state.reaps = remote.memory().read_u32(at)? != 0;
        }
        if guest.locks_memory {
            state.locked = locked_mappings(guest.process)?;
            state.locks_future = locks_future(remote)?;
        }
        Ok(state)
    }

    /// Gives it to a copy, all of whose memory is mapped.
    pub(crate) fn restore(&self, remote: &mut Remote<'_>) -> Result<(), Refusal> {
        if self.reaps {
            let which = libc::PR_SET_CHILD_SUBREAPER as u64;
            remote.call("prctl", libc::SYS_prctl, &[which, 1, 0, 0, 0])?;
        }
        for &(start, end, on_fault) in &self.locked {
            let flags = if on_fault { ON_FAULT } else { 0 };
            remote
                .call("mlock2", libc::SYS_mlock2, &[start, end - start, flags])
                .map_err(|e| match e {
                    tracee::Error::Call { source, .. } => Refusal::unsupported(
                        "memory-locks",
                        format!("the guest's memory cannot be locked again: {source}"),
                    ),
                    e => e.into(),
                })?;
        }
        if self.locks_future != 0 {
            remote.call("mlockall", libc::SYS_mlockall, &[self.locks_future])?;
        }
        Ok(())
    }
}

/// Whether what is mapped from now on will be locked, which the kernel tells of no
/// process: a page is mapped and looked at.
fn locks_future(remote: &mut Remote<'_>) -> Result<u64, Refusal> {
    let page = sys::memory::page_size() as u64;
    let kind = (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS) as u64;
    let arguments = [0, page, libc::PROT_NONE as u64, kind, u64::MAX, 0];
    let at = match remote.call("mmap", libc::SYS_mmap, &arguments) {
        Ok(at) => at,
        // There is no more to be locked.
        Err(tracee::Error::Call { source, .. }) if source.raw_os_error() == Some(libc::EAGAIN) => {
            return Ok(libc::MCL_FUTURE as u64);
        }
        Err(e) => return Err(e.into()),
    };
    let now = locked_mappings(remote.tid());
    remote.call("munmap", libc::SYS_munmap, &[at, page])?;
    let now = now?;
    let covering = now
        .iter()
        .find(|(start, end, _)| (*start..*end).contains(&at));
    Ok(match covering {
        Some((.., true)) => (libc::MCL_FUTURE | libc::MCL_ONFAULT) as u64,
        Some((.., false)) => libc::MCL_FUTURE as u64,
        None => 0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locked_mappings_by_their_flags() {
        let text = "7f00-7f10 rw-p 00000000 00:00 0 \nSize: 4 kB\nVmFlags: rd wr lo sd \n\
                    7f10-7f20 rw-p 00000000 00:00 0 [heap]\nVmFlags: rd wr \n\
                    7f20-7f30 r--p 00000000 00:00 0 \nLocked: 0 kB\nVmFlags: rd lo lf\n\
                    VmFlags: lo\nzz-yy x\n";
        assert_eq!(
            parse_locked(text),
            [(0x7f00, 0x7f10, false), (0x7f20, 0x7f30, true)]
        );
    }
}
