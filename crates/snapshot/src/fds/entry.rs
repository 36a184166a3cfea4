//! The fds of a process, and which of them share an open file description.

use crate::Refusal;
use crate::procfs::FdInfo;
use std::fs;
use tracee::Tid;

/// One fd.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) fd: i32,
    pub(super) info: FdInfo,
    pub(super) device: u64,
    pub(super) inode: u64,
    pub(super) inherited: bool,
}

impl Entry {
    pub(super) fn closes_on_exec(&self) -> bool {
        self.info.flags & libc::O_CLOEXEC != 0
    }

    /// Without O_ASYNC, which is set last, with the file's owner.
    pub(super) fn status_flags(&self) -> i32 {
        self.info.flags & SETTABLE & !libc::O_ASYNC
    }

    pub(super) fn lowest(entries: &[Entry]) -> i32 {
        entries.iter().map(|e| e.fd).min().unwrap_or(0)
    }

    pub(super) fn is_writable(&self) -> bool {
        self.info.flags & libc::O_ACCMODE != libc::O_RDONLY
    }
}

/// What F_SETFL can change.
pub(super) const SETTABLE: i32 =
    libc::O_APPEND | libc::O_ASYNC | libc::O_DIRECT | libc::O_NOATIME | libc::O_NONBLOCK;

/// Groups fds by open file description: each group is one object under several
/// numbers.
pub(super) fn group(process: Tid, entries: Vec<Entry>) -> Result<Vec<Vec<Entry>>, Refusal> {
    let mut groups: Vec<Vec<Entry>> = Vec::new();
    'entries: for entry in entries {
        for group in &mut groups {
            let first = &group[0];
            if (first.device, first.inode) != (entry.device, entry.inode) {
                continue;
            }
            let same = tracee::same_open_file((process, first.fd), (process, entry.fd)).map_err(
                |source| {
                    Refusal::unsupported(
                        "kcmp-refused",
                        format!(
                            "kcmp(2) is refused, so that shared files cannot be told: {source}"
                        ),
                    )
                },
            )?;
            if same {
                group.push(entry);
                continue 'entries;
            }
        }
        groups.push(vec![entry]);
    }
    Ok(groups)
}

/// The numbers that a process has open, in order.
pub(crate) fn fds(process: Tid) -> Result<Vec<i32>, Refusal> {
    let step = "list /proc/PID/fd";
    let mut fds = Vec::new();
    for entry in fs::read_dir(format!("/proc/{process}/fd")).map_err(Refusal::proc(step))? {
        let entry = entry.map_err(Refusal::proc(step))?;
        if let Some(fd) = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok())
        {
            fds.push(fd);
        }
    }
    fds.sort_unstable();
    Ok(fds)
}
