//! Every `unsafe` block of this crate, behind safe functions.

pub(crate) mod memory;
pub(crate) mod scheduling;
pub(crate) mod socket;
pub(crate) mod terminal;

use std::io;
use std::mem::size_of;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use tracee::Tid;

/// This process.
pub(crate) fn own_id() -> Tid {
    Tid::new(rustix::process::getpid().as_raw_nonzero().get())
}

/// Puts a copy into a process group (0: one of its own) from outside, which costs
/// less than having it do so. A parent may for a child of its own session that
/// has not executed a program (setpgid(2)); the copies are this process's
/// children.
pub(crate) fn set_group(process: Tid, group: i32) -> bool {
    // SAFETY: setpgid takes no pointer.
    unsafe { libc::setpgid(process.raw(), group) == 0 }
}

/// The processors that a thread may run on, as the kernel's bit mask.
pub(crate) fn affinity(thread: Tid) -> io::Result<Vec<u8>> {
    let mut mask = vec![0u8; 1024];
    // SAFETY: the pointer is valid for writes of as many bytes as announced.
    let n = unsafe {
        libc::syscall(
            libc::SYS_sched_getaffinity,
            thread.raw(),
            mask.len(),
            mask.as_mut_ptr(),
        )
    };
    let n = usize::try_from(n).map_err(|_| io::Error::last_os_error())?;
    mask.truncate(n);
    Ok(mask)
}

/// Sets what [`affinity`] read.
pub(crate) fn set_affinity(thread: Tid, mask: &[u8]) -> io::Result<()> {
    // SAFETY: the pointer is valid for reads of as many bytes as announced.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_sched_setaffinity,
            thread.raw(),
            mask.len(),
            mask.as_ptr(),
        )
    };
    if answer < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Keeps the calling thread and a copy on the processor that this runs on, where
/// a stop of the copy costs a tenth of one across processors; the answer is what
/// [`set_affinity`] puts back for the calling thread. `None` where that is refused.
pub(crate) fn share_processor(copy: Tid) -> Option<Vec<u8>> {
    let own = Tid::new(0);
    let before = affinity(own).ok()?;
    // SAFETY: sched_getcpu takes no argument.
    let processor = usize::try_from(unsafe { libc::sched_getcpu() }).ok()?;
    let mut mask = vec![0; before.len()];
    *mask.get_mut(processor / 8)? |= 1 << (processor % 8);
    set_affinity(copy, &mask).ok()?;
    set_affinity(own, &mask).ok()?;
    Some(before)
}

/// A signal's details as the kernel reads them.
pub(crate) fn signal_bytes(info: &libc::siginfo_t) -> &[u8] {
    // SAFETY: the kernel filled in the whole structure (PTRACE_PEEKSIGINFO and
    // PTRACE_GETSIGINFO copy all of its bytes), over zeroes.
    unsafe {
        std::slice::from_raw_parts(
            std::ptr::from_ref(info).cast(),
            size_of::<libc::siginfo_t>(),
        )
    }
}

/// What is in a pipe: in one piece, or packet by packet if it has such (`O_DIRECT`
/// in pipe(2)).
pub(crate) type PipeContents = Vec<Vec<u8>>;

/// A pipe's capacity and what is in it, which stays in it. `pipe` is an end for
/// reading.
pub(crate) fn peek_pipe(pipe: &std::fs::File) -> io::Result<(i32, PipeContents)> {
    use std::io::Read;
    use std::os::fd::AsFd;

    let capacity = rustix::pipe::fcntl_getpipe_size(pipe)?;
    let waiting = usize::try_from(rustix::io::ioctl_fionread(pipe)?).unwrap_or(0);
    let mut contents = Vec::new();
    if waiting > 0 {
        let (spare_read, spare_write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
        rustix::pipe::fcntl_setpipe_size(&spare_write, capacity)?;
        let n = rustix::pipe::tee(
            pipe.as_fd(),
            spare_write.as_fd(),
            waiting,
            rustix::pipe::SpliceFlags::NONBLOCK,
        )?;
        drop(spare_write);
        let mut spare = std::fs::File::from(spare_read);
        let mut read = 0;
        loop {
            // A packet ends a read, and keeps being one in the spare pipe.
            let mut piece = vec![0; waiting];
            let length = spare.read(&mut piece)?;
            if length == 0 {
                break;
            }
            read += length;
            piece.truncate(length);
            contents.push(piece);
        }
        if n != waiting || read != waiting {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok((i32::try_from(capacity).unwrap_or(i32::MAX), contents))
}

/// Whether a pipe that is empty can still be written to: somebody has an end for
/// that. `pipe` is an end for reading.
pub(crate) fn empty_pipe_has_writer(pipe: BorrowedFd<'_>) -> io::Result<bool> {
    let (_read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    match rustix::pipe::tee(pipe, &write, 1, rustix::pipe::SpliceFlags::NONBLOCK) {
        Ok(n) => Ok(n > 0),
        Err(rustix::io::Errno::AGAIN) => Ok(true),
        Err(e) => Err(e.into()),
    }
}

/// Sets a pipe's capacity in bytes.
pub(crate) fn set_pipe_capacity(pipe: &std::fs::File, capacity: i32) -> io::Result<()> {
    rustix::pipe::fcntl_setpipe_size(pipe, usize::try_from(capacity).unwrap_or(0))?;
    Ok(())
}

/// A registration in an epoll instance: the `nth` one of a number.
#[derive(Copy, Clone, Debug)]
pub(crate) struct EpollSlot {
    pub(crate) epoll: i32,
    pub(crate) target: i32,
    pub(crate) nth: u32,
}

/// Whether a registration is of the file that an fd is (kcmp(2),
/// `KCMP_EPOLL_TFD`).
pub(crate) fn is_epoll_target(process: Tid, fd: i32, slot: EpollSlot) -> io::Result<bool> {
    const KCMP_EPOLL_TFD: libc::c_int = 7;
    // `struct kcmp_epoll_slot`: efd, tfd, toff.
    let slot = [slot.epoll as u32, slot.target as u32, slot.nth];
    // SAFETY: the last argument is valid for reads of a kcmp_epoll_slot.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_kcmp,
            process.raw(),
            process.raw(),
            KCMP_EPOLL_TFD,
            fd as libc::c_ulong,
            slot.as_ptr(),
        )
    };
    if answer < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(answer == 0)
}

/// Opens a file by its handle, only to name it (open_by_handle_at(2)); needs
/// CAP_DAC_READ_SEARCH.
pub(crate) fn open_by_handle(
    mount: BorrowedFd<'_>,
    handle: &crate::procfs::FileHandle,
) -> io::Result<OwnedFd> {
    // `struct file_handle`: the length, the type, and the bytes.
    let mut memory = [0u8; 8 + libc::MAX_HANDLE_SZ as usize];
    memory[..4].copy_from_slice(&(handle.length as u32).to_ne_bytes());
    memory[4..8].copy_from_slice(&handle.kind.to_ne_bytes());
    memory[8..].copy_from_slice(&handle.bytes);
    // SAFETY: the second argument is valid for reads of the structure and of as
    // many bytes after it as it announces, which are at most MAX_HANDLE_SZ.
    let fd = unsafe {
        libc::syscall(
            libc::SYS_open_by_handle_at,
            mount.as_raw_fd(),
            memory.as_ptr(),
            libc::O_PATH | libc::O_CLOEXEC | libc::O_NOFOLLOW,
        )
    };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the fd is new and nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// Of fcntl(2) (asm-generic/fcntl.h).
pub(crate) const F_SETSIG: libc::c_int = 10;
const F_GETSIG: libc::c_int = 11;
/// Of fcntl(2).
pub(crate) const F_SETOWN_EX: libc::c_int = 15;
const F_GETOWN_EX: libc::c_int = 16;

/// Who gets the signals of a file, as kind and id (fcntl(2), `F_GETOWN_EX`); the
/// id is 0 if nobody does.
pub(crate) fn owner(file: BorrowedFd<'_>) -> io::Result<(i32, i32)> {
    // `struct f_owner_ex`: type, pid.
    let mut owner = [0i32; 2];
    // SAFETY: the third argument is valid for writes of a f_owner_ex.
    let answer = unsafe { libc::fcntl(file.as_raw_fd(), F_GETOWN_EX, owner.as_mut_ptr()) };
    if answer < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok((owner[0], owner[1]))
}

/// The signal that is sent for a file, 0 for SIGIO (fcntl(2), `F_GETSIG`).
pub(crate) fn owner_signal(file: BorrowedFd<'_>) -> io::Result<i32> {
    // SAFETY: F_GETSIG takes no pointer.
    let answer = unsafe { libc::fcntl(file.as_raw_fd(), F_GETSIG) };
    if answer < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(answer)
}
