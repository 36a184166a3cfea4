//! Which open file descriptions the frozen processes hold.

use crate::fds::fds;
use crate::memory::mappings;
use crate::{Image, Refusal, procfs};
use std::fs;
use std::os::unix::fs::MetadataExt;

/// How many open file descriptions of a file (`st_dev`, `st_ino`) that could write
/// these images hold open: each counts once, in however many of them it is.
///
/// # Errors
///
/// [`Refusal`] if they cannot be told apart: kcmp(2) is refused, or a process has died.
pub fn writers<'i>(
    images: impl Iterator<Item = &'i Image>,
    device: u64,
    inode: u64,
) -> Result<u64, Refusal> {
    let mut known = Vec::new();
    for image in images.filter(|image| image.may_write(device, inode)) {
        let process = image.task();
        for fd in fds(process)? {
            let is_it = fs::metadata(format!("/proc/{process}/fd/{fd}"))
                .is_ok_and(|file| (file.dev(), file.ino()) == (device, inode));
            if !is_it {
                continue;
            }
            let info =
                procfs::fdinfo(process, fd).map_err(Refusal::proc("read /proc/PID/fdinfo"))?;
            if info.flags & libc::O_ACCMODE == libc::O_RDONLY {
                continue;
            }
            let mut is_known = false;
            for other in &known {
                is_known |= tracee::same_open_file(*other, (process, fd))
                    .map_err(Refusal::proc("compare two open files"))?;
            }
            if !is_known {
                known.push((process, fd));
            }
        }
    }
    Ok(known.len() as u64)
}

/// Whether one of these images has a file (`st_ino`) mapped shared, so that its mapping
/// keeps a description open that no number of it does.
///
/// # Errors
///
/// [`Refusal`] if that cannot be told: a process has died.
pub fn map<'i>(mut images: impl Iterator<Item = &'i Image>, inode: u64) -> Result<bool, Refusal> {
    images.try_fold(false, |found, image| {
        let mapped = mappings(image.task())?;
        Ok(found
            || mapped
                .iter()
                .any(|mapping| mapping.shared && mapping.inode == inode))
    })
}
