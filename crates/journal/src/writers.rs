//! Who has a file open for writing, where no lease can tell since an image has it open,
//! too: as `/proc` shows it. Only processes that we may look into are seen: with a file of
//! our own, all but those of another user.
//!
//! Source: `proc_pid_fd(5)`, `proc_pid_maps(5)`, `proc_pid_status(5)`.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, StatxFlags};

use crate::file::FileId;

/// The owner's right to write: of a descriptor in `/proc`, that it can.
const CAN_WRITE: u32 = 0o200;

/// Whether a process has a file open for writing, or mapped shared, that is neither ours
/// nor traced by us.
pub(crate) fn others_write(id: FileId) -> bool {
    let us = Path::new("/proc").join(std::process::id().to_string());
    numbered(Path::new("/proc"))
        .filter(|process| *process != us)
        .any(|process| (has_open(&process, id) || maps(&process, id)) && !is_traced_by_us(&process))
}

fn has_open(process: &Path, id: FileId) -> bool {
    let open = |task: &Path| -> Vec<PathBuf> { numbered(&task.join("fd")).collect() };
    let mut descriptors = open(process);
    if descriptors.is_empty() {
        // The first thread may have ended, and has none any more.
        let tasks = numbered(&process.join("task"));
        descriptors = tasks.flat_map(|task| open(&task)).collect();
    }
    let can_write =
        |path: &&PathBuf| fs::symlink_metadata(path).is_ok_and(|link| link.mode() & CAN_WRITE != 0);
    // Without asking a server that may not answer.
    let flags = AtFlags::STATX_DONT_SYNC | AtFlags::NO_AUTOMOUNT;
    let leads_to_it = |path: &PathBuf| {
        rustix::fs::statx(CWD, path, flags, StatxFlags::INO).is_ok_and(|found| {
            let device = rustix::fs::makedev(found.stx_dev_major, found.stx_dev_minor);
            id.is(device, found.stx_ino)
        })
    };
    descriptors.iter().filter(can_write).any(leads_to_it)
}

/// The device of a mapping may be another one than that of its file: the inode decides.
fn maps(process: &Path, id: FileId) -> bool {
    let (_, inode) = id.numbers();
    let maps = read(&process.join("maps"));
    maps.lines().any(|line| is_shared_mapping(line, inode))
}

/// Of a line such as `7f00-7f10 rw-s 00000000 fe:00 1234 /path`.
fn is_shared_mapping(line: &str, inode: u64) -> bool {
    let mut fields = line.split_ascii_whitespace().skip(1);
    let shared = fields.next().is_some_and(|rights| rights.ends_with('s'));
    shared && fields.nth(2).and_then(|inode| inode.parse().ok()) == Some(inode)
}

fn is_traced_by_us(process: &Path) -> bool {
    let status = read(&process.join("status"));
    let tracer = status
        .lines()
        .find_map(|line| line.strip_prefix("TracerPid:"));
    tracer
        .map(str::trim)
        .is_some_and(|tracer| tracer != "0" && Path::new("/proc/self/task").join(tracer).exists())
}

/// Names in it may be any bytes.
fn read(path: &Path) -> String {
    let bytes = fs::read(path).unwrap_or_default();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// What lies in a folder of `/proc` under a number.
fn numbered(folder: &Path) -> impl Iterator<Item = PathBuf> + use<> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let is_number = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str());
        name.is_some_and(|name| name.bytes().all(|byte| byte.is_ascii_digit()))
    };
    entries.map(|entry| entry.path()).filter(is_number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mapping_is_known_by_its_inode() {
        let line =
            "7f0000000000-7f0000001000 rw-s 00000000 fe:00 1234                /a b (deleted)";
        assert!(is_shared_mapping(line, 1234));
        assert!(!is_shared_mapping(line, 123));
        assert!(!is_shared_mapping(&line.replace("rw-s", "rw-p"), 1234));
        assert!(!is_shared_mapping("", 0));
    }
}
