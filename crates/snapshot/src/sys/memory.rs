//! Asking for and attaching shared memory.

use std::io;
use std::mem::MaybeUninit;

pub(crate) fn page_size() -> usize {
    rustix::param::page_size()
}

/// Whether anything of the machine's memory is swapped out; also if that cannot be
/// told.
pub(crate) fn is_swapping() -> bool {
    let mut info = MaybeUninit::<libc::sysinfo>::zeroed();
    // SAFETY: the pointer is valid for writes of a sysinfo.
    if unsafe { libc::sysinfo(info.as_mut_ptr()) } < 0 {
        return true;
    }
    // SAFETY: the call has succeeded, and the structure was zeroed before.
    let info = unsafe { info.assume_init() };
    info.totalswap != info.freeswap
}

/// Which pages of a mapping of this process are in core (mincore(2)).
pub(crate) fn resident(address: u64, pages: usize) -> io::Result<Vec<u8>> {
    let mut answer = vec![0; pages];
    // SAFETY: mincore does not touch what lies at the address, and the pointer is
    // valid for writes of one byte a page.
    let result = unsafe {
        libc::mincore(
            address as *mut libc::c_void,
            pages * page_size(),
            answer.as_mut_ptr(),
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(answer)
}

/// What is known of a System V segment (`struct shmid_ds`).
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub(crate) struct Segment {
    pub(crate) key: i32,
    pub(crate) owner: (u32, u32),
    /// With SHM_DEST if it is removed once nobody has it attached.
    pub(crate) mode: u32,
    pub(crate) size: u64,
    pub(crate) attached: u64,
}

fn ask(id: i32) -> io::Result<libc::shmid_ds> {
    let mut status = MaybeUninit::<libc::shmid_ds>::zeroed();
    // SAFETY: IPC_STAT writes a shmid_ds.
    if unsafe { libc::shmctl(id, libc::IPC_STAT, status.as_mut_ptr()) } < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call has succeeded, and the structure was zeroed before.
    Ok(unsafe { status.assume_init() })
}

pub(crate) fn segment(id: i32) -> io::Result<Segment> {
    let status = ask(id)?;
    Ok(Segment {
        key: status.shm_perm.__key,
        owner: (status.shm_perm.uid, status.shm_perm.gid),
        mode: u32::from(status.shm_perm.mode),
        size: status.shm_segsz as u64,
        attached: status.shm_nattch,
    })
}

/// Gives a segment the owner and the mode that it had.
pub(crate) fn set_segment(id: i32, segment: &Segment) -> io::Result<()> {
    let mut status = ask(id)?;
    (status.shm_perm.uid, status.shm_perm.gid) = segment.owner;
    status.shm_perm.mode = (segment.mode & 0o777) as _;
    // SAFETY: IPC_SET reads a shmid_ds.
    if unsafe { libc::shmctl(id, libc::IPC_SET, &raw mut status) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// A System V segment that this process has attached.
pub(crate) struct Attached {
    pub(crate) address: u64,
    pub(crate) writable: bool,
}

impl Attached {
    /// Attaches a segment, for reading only if it may not be written.
    pub(crate) fn new(id: i32) -> io::Result<Self> {
        for writable in [true, false] {
            let flags = if writable { 0 } else { libc::SHM_RDONLY };
            // SAFETY: the kernel chooses a free address.
            let address = unsafe { libc::shmat(id, std::ptr::null(), flags) } as isize;
            if address != -1 {
                return Ok(Self {
                    address: address as u64,
                    writable,
                });
            }
            let error = io::Error::last_os_error();
            if !(writable && error.raw_os_error() == Some(libc::EACCES)) {
                return Err(error);
            }
        }
        Err(io::ErrorKind::PermissionDenied.into())
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        // SAFETY: it was attached there, and no reference into it is ever made:
        // it is read and written by its address through the kernel.
        unsafe { libc::shmdt(self.address as *const libc::c_void) };
    }
}
