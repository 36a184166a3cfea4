//! What sockets are asked that rustix has no generic, raw form of: options and
//! addresses as the kernel's bytes, so that they can be given back unread.

use std::io;
use std::mem::size_of;
use std::os::fd::{AsRawFd, BorrowedFd};

/// The longest option value that is asked for: a `struct tcp_info` of today.
const LONGEST_OPTION: usize = 256;

fn check(answer: libc::c_int) -> io::Result<()> {
    if answer < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// A socket option's value (getsockopt(2)), cut to 256 bytes.
pub(crate) fn option(
    socket: BorrowedFd<'_>,
    level: libc::c_int,
    name: libc::c_int,
) -> io::Result<Vec<u8>> {
    let mut value = vec![0u8; LONGEST_OPTION];
    let mut length = value.len() as libc::socklen_t;
    // SAFETY: the value is valid for writes of `length` bytes, and `length` for
    // writes itself.
    check(unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            level,
            name,
            value.as_mut_ptr().cast(),
            &raw mut length,
        )
    })?;
    value.truncate(length as usize);
    Ok(value)
}

/// Sets what [`option`] read (setsockopt(2)).
pub(crate) fn set_option(
    socket: BorrowedFd<'_>,
    level: libc::c_int,
    name: libc::c_int,
    value: &[u8],
) -> io::Result<()> {
    // SAFETY: the value is valid for reads of as many bytes as announced.
    check(unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            name,
            value.as_ptr().cast(),
            value.len() as libc::socklen_t,
        )
    })
}

/// The number of instructions of the packet filter that is attached to a
/// socket (`SO_GET_FILTER` with no room asks for it), 0 if there is none.
pub(crate) fn filter_length(socket: BorrowedFd<'_>) -> io::Result<u32> {
    let mut length: libc::socklen_t = 0;
    // SAFETY: with a length of 0 nothing is written but the length.
    check(unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_GET_FILTER,
            std::ptr::null_mut(),
            &raw mut length,
        )
    })?;
    Ok(length)
}

type AskName =
    unsafe extern "C" fn(libc::c_int, *mut libc::sockaddr, *mut libc::socklen_t) -> libc::c_int;

fn name(ask: AskName, socket: BorrowedFd<'_>) -> io::Result<Vec<u8>> {
    let mut address = vec![0u8; size_of::<libc::sockaddr_storage>()];
    let mut length = address.len() as libc::socklen_t;
    // SAFETY: getsockname and getpeername write at most `length` bytes to the
    // address, and the length of the whole address to `length`. An address is
    // bytes to them, of any alignment.
    check(unsafe {
        ask(
            socket.as_raw_fd(),
            address.as_mut_ptr().cast(),
            &raw mut length,
        )
    })?;
    address.truncate(length as usize);
    Ok(address)
}

/// The address that a socket is bound to, as a `struct sockaddr` of its family.
pub(crate) fn local_name(socket: BorrowedFd<'_>) -> io::Result<Vec<u8>> {
    name(libc::getsockname, socket)
}

/// The address that a socket is connected to; ENOTCONN if it is not.
pub(crate) fn peer_name(socket: BorrowedFd<'_>) -> io::Result<Vec<u8>> {
    name(libc::getpeername, socket)
}

/// Binds a socket to what [`local_name`] answered.
pub(crate) fn bind(socket: BorrowedFd<'_>, address: &[u8]) -> io::Result<()> {
    // SAFETY: the address is valid for reads of as many bytes as announced.
    check(unsafe {
        libc::bind(
            socket.as_raw_fd(),
            address.as_ptr().cast(),
            address.len() as libc::socklen_t,
        )
    })
}
