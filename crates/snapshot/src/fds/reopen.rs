//! A new open file description of the same file.

use super::Fresh;
use crate::Refusal;
use tracee::Remote;

/// What open(2) does at once, and what is wrong where a link of `/proc` is opened.
pub(super) const NOT_AGAIN: i32 =
    libc::O_CREAT | libc::O_EXCL | libc::O_TRUNC | libc::O_NOCTTY | libc::O_NOFOLLOW;

/// Opens the file of an fd of a copy once more, with the flags of its fdinfo. It is
/// closed by exec.
pub(super) fn reopen(remote: &mut Remote<'_>, fd: i32, flags: i32) -> Result<Fresh, Refusal> {
    let at = remote.scratch()?.0;
    let path = format!("/proc/self/fd/{fd}\0");
    remote.memory().write(at, path.as_bytes())?;
    let mut flags = flags & !NOT_AGAIN | libc::O_CLOEXEC;
    if flags & libc::O_TMPFILE == libc::O_TMPFILE {
        flags &= !libc::O_TMPFILE;
    }
    let here = libc::AT_FDCWD as u64;
    let fd = remote.call("openat", libc::SYS_openat, &[here, at.0, flags as u64, 0])?;
    Ok(Fresh { fd: fd as i32 })
}
