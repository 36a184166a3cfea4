//! Reading and writing another process's memory.

use std::io;

/// Copies from `addr` of the process that `tid` belongs to into `into`, and
/// says how many bytes there were before the first unmapped page.
pub(crate) fn read(tid: libc::pid_t, addr: u64, into: &mut [u8]) -> io::Result<usize> {
    let local = libc::iovec {
        iov_base: into.as_mut_ptr().cast(),
        iov_len: into.len(),
    };
    let remote = libc::iovec {
        iov_base: addr as *mut libc::c_void,
        iov_len: into.len(),
    };
    // SAFETY: the local iovec is valid for writes of its length; the remote one
    // is checked by the kernel.
    let n = unsafe { libc::process_vm_readv(tid, &raw const local, 1, &raw const remote, 1, 0) };
    usize::try_from(n).map_err(|_| io::Error::last_os_error())
}

/// Copies `from` to `addr` of the process that `tid` belongs to; all or an error.
pub(crate) fn write(tid: libc::pid_t, addr: u64, from: &[u8]) -> io::Result<()> {
    let local = libc::iovec {
        iov_base: from.as_ptr().cast_mut().cast(),
        iov_len: from.len(),
    };
    let remote = libc::iovec {
        iov_base: addr as *mut libc::c_void,
        iov_len: from.len(),
    };
    // SAFETY: the local iovec is valid for reads of its length, and the kernel
    // only reads it; the remote one is checked by the kernel.
    let n = unsafe { libc::process_vm_writev(tid, &raw const local, 1, &raw const remote, 1, 0) };
    match usize::try_from(n) {
        Err(_) => Err(io::Error::last_os_error()),
        Ok(n) if n < from.len() => Err(io::Error::from_raw_os_error(libc::EFAULT)),
        Ok(_) => Ok(()),
    }
}
