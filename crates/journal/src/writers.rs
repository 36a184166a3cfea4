//! Who has a file open for writing, where no lease can tell since an image has it open,
//! too: as `/proc` shows it. Only what we may look at is seen: with a file of our own
//! that is nearly always all.
//!
//! Source: `proc_pid_fd(5)`, `proc_pid_fdinfo(5)`, `proc_pid_status(5)`.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::file::FileId;

/// Whether a process has a file open for writing that is neither ours nor traced by us.
pub(crate) fn others_write(id: FileId) -> bool {
    let us = std::process::id();
    let is_other = |folder: &Path| folder != Path::new("/proc").join(us.to_string());
    numbered(Path::new("/proc"))
        .filter(|folder| is_other(folder))
        .any(|folder| writes(&folder, id) && !is_traced_by_us(&folder))
}

fn writes(process: &Path, id: FileId) -> bool {
    numbered(&process.join("fdinfo")).any(|info| {
        let number = info.file_name().unwrap_or_default();
        let descriptor = process.join("fd").join(number);
        fs::read_to_string(&info).is_ok_and(|info| may_be(&info, id))
            && fs::metadata(descriptor).is_ok_and(|found| id.is(found.dev(), found.ino()))
    })
}

/// Whether it may be a descriptor of that file, and can write. The file itself is only
/// looked at then: it may lie on a server that does not answer.
fn may_be(info: &str, id: FileId) -> bool {
    let flags = field(info, "flags:").and_then(|flags| i32::from_str_radix(flags, 8).ok());
    let can_write = flags.is_some_and(|flags| {
        flags & libc::O_ACCMODE != libc::O_RDONLY && flags & libc::O_PATH == 0
    });
    // Since Linux 5.14.
    let inode = field(info, "ino:").and_then(|inode| inode.parse().ok());
    can_write && inode.is_none_or(|inode: u64| inode == id.numbers().1)
}

fn is_traced_by_us(process: &Path) -> bool {
    let status = fs::read_to_string(process.join("status")).unwrap_or_default();
    let tracer = field(&status, "TracerPid:").filter(|tracer| *tracer != "0");
    tracer.is_some_and(|tracer| Path::new("/proc/self/task").join(tracer).exists())
}

fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let value = text.lines().find_map(|line| line.strip_prefix(name))?;
    Some(value.trim())
}

/// What lies in a folder of `/proc` under a number.
fn numbered(folder: &Path) -> impl Iterator<Item = PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let is_number = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str());
        name.is_some_and(|name| name.bytes().all(|byte| byte.is_ascii_digit()))
    };
    entries.map(|entry| entry.path()).filter(is_number)
}
