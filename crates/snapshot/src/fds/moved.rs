//! A file that was saved under its name as another one since the guest opened it, and
//! that the copy is to read on in.

use super::entry::{Entry, group};
use super::reopen::NOT_AGAIN;
use super::{Fresh, set_flags};
use crate::Refusal;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use tracee::Remote;

/// A file of the guest's whose name leads to another one by now. What the guest has
/// read of it is the same in both; see [`Image::resume`](crate::Image::resume).
#[derive(Clone, Eq, PartialEq, Debug)]
pub struct Moved {
    /// A number under which the guest had it open.
    pub number: i32,
    /// Where the other one is: absolute, and without links.
    pub path: PathBuf,
}

/// What a task has room for, with the zero byte.
const LONGEST: usize = 2048;

/// Puts the files that are at their paths now under the numbers that the guest reads
/// the old ones by, at the same places.
pub(super) fn open_anew(
    remote: &mut Remote<'_>,
    above: i32,
    moved: &[Moved],
    entries: Vec<Entry>,
) -> Result<(), Refusal> {
    for entries in group(remote.tid(), entries)? {
        let entry = &entries[0];
        let Some(moved) = moved.iter().find(|moved| moved.number == entry.fd) else {
            continue;
        };
        let at = remote.scratch()?.0;
        let mut path = moved.path.as_os_str().as_bytes().to_vec();
        path.push(0);
        if path.len() > LONGEST {
            return Err(Refusal::unsupported(
                "moved-file",
                format!("the path of {} is too long", moved.path.display()),
            ));
        }
        remote.memory().write(at, &path)?;
        // Whatever lies there by now, nobody waits for it.
        let flags = entry.info.flags & !NOT_AGAIN | libc::O_CLOEXEC | libc::O_NONBLOCK;
        let here = libc::AT_FDCWD as u64;
        let fd = remote.call("openat", libc::SYS_openat, &[here, at.0, flags as u64, 0])?;
        let place = entry.info.position as u64;
        remote.call(
            "lseek",
            libc::SYS_lseek,
            &[fd, place, libc::SEEK_SET as u64],
        )?;
        set_flags(remote, fd as i32, entry.status_flags())?;
        Fresh { fd: fd as i32 }.settle(remote, above, &entries)?;
    }
    Ok(())
}
