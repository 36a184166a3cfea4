//! What sockets are asked that rustix has no generic, raw form of: options and
//! addresses as the kernel's bytes, so that they can be given back unread.

use std::io;
use std::mem::size_of;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

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
    let length = ask_option(socket, level, name, &mut value)?;
    value.truncate(length);
    Ok(value)
}

/// Sets whether a socket may take an address that another one has or had
/// (`SO_REUSEADDR`, socket(7)).
pub(crate) fn set_reuse(socket: BorrowedFd<'_>, value: i32) -> io::Result<()> {
    let value = value.to_ne_bytes();
    set_option(socket, libc::SOL_SOCKET, libc::SO_REUSEADDR, &value)
}

/// Has a TCP connection reset, not ended, when it is closed (`SO_LINGER` of no time,
/// socket(7)).
pub(crate) fn reset_at_close(socket: BorrowedFd<'_>) -> io::Result<()> {
    let no_time = [1i32, 0].map(i32::to_ne_bytes).concat();
    set_option(socket, libc::SOL_SOCKET, libc::SO_LINGER, &no_time)
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

/// What was peeked at.
#[derive(Debug)]
pub(crate) struct Peeked {
    /// Bytes of it.
    pub(crate) length: usize,
    /// It is a message that there was not room enough for.
    pub(crate) cut: bool,
    /// The sender's address.
    pub(crate) from: Vec<u8>,
    /// Open files that come with it.
    pub(crate) rights: Vec<OwnedFd>,
    /// Something else comes with it, such as who sent it.
    pub(crate) more: bool,
}

/// Room for control messages, aligned as they are.
type Control = [u64; 256];

/// Looks at what is received next, which stays (recvmsg(2), `MSG_PEEK`). Does not
/// wait.
pub(crate) fn peek(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<Peeked> {
    let mut from = vec![0u8; size_of::<libc::sockaddr_storage>()];
    let mut control: Control = [0; 256];
    let mut data = libc::iovec {
        iov_base: buffer.as_mut_ptr().cast(),
        iov_len: buffer.len(),
    };
    // SAFETY: all zeroes is a valid msghdr without anything.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_name = from.as_mut_ptr().cast();
    message.msg_namelen = from.len() as libc::socklen_t;
    message.msg_iov = &raw mut data;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = size_of::<Control>();
    let flags = libc::MSG_PEEK | libc::MSG_DONTWAIT | libc::MSG_CMSG_CLOEXEC;
    // SAFETY: the message's pointers are valid for writes of as many bytes as it
    // says, and live until the call is over.
    let length = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, flags) };
    let length = usize::try_from(length).map_err(|_| io::Error::last_os_error())?;
    from.truncate(message.msg_namelen as usize);
    let (rights, others) = received(&message);
    Ok(Peeked {
        length,
        cut: message.msg_flags & libc::MSG_TRUNC != 0,
        from,
        rights,
        more: others || message.msg_flags & libc::MSG_CTRUNC != 0,
    })
}

/// The open files that have come with a message, and whether there is more.
fn received(message: &libc::msghdr) -> (Vec<OwnedFd>, bool) {
    let mut rights = Vec::new();
    let mut others = false;
    // SAFETY: the kernel has filled in the message's control buffer and set its
    // length.
    let mut header = unsafe { libc::CMSG_FIRSTHDR(message) };
    while !header.is_null() {
        // SAFETY: CMSG_FIRSTHDR and CMSG_NXTHDR answer headers within the buffer,
        // which is aligned for them.
        let (level, kind, length) = unsafe {
            (
                (*header).cmsg_level,
                (*header).cmsg_type,
                (*header).cmsg_len,
            )
        };
        if (level, kind) == (libc::SOL_SOCKET, libc::SCM_RIGHTS) {
            // SAFETY: CMSG_LEN and CMSG_DATA only compute.
            let (empty, data) = unsafe { (libc::CMSG_LEN(0) as usize, libc::CMSG_DATA(header)) };
            let count = length.saturating_sub(empty) / size_of::<libc::c_int>();
            for index in 0..count {
                // SAFETY: the data is as long as the header says, and holds fds
                // that have just been made for this process.
                rights.push(unsafe {
                    let fd = data.cast::<libc::c_int>().add(index).read_unaligned();
                    OwnedFd::from_raw_fd(fd)
                });
            }
        } else {
            others = true;
        }
        // SAFETY: as with the first one.
        header = unsafe { libc::CMSG_NXTHDR(message, header) };
    }
    (rights, others)
}

/// Sends bytes and open files as one message, to an address if one is given. Does
/// not wait.
pub(crate) fn send(
    socket: BorrowedFd<'_>,
    bytes: &[u8],
    to: &[u8],
    rights: &[BorrowedFd<'_>],
) -> io::Result<usize> {
    let mut control: Control = [0; 256];
    let mut data = libc::iovec {
        iov_base: bytes.as_ptr().cast_mut().cast(),
        iov_len: bytes.len(),
    };
    // SAFETY: all zeroes is a valid msghdr without anything.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = &raw mut data;
    message.msg_iovlen = 1;
    if !to.is_empty() {
        message.msg_name = to.as_ptr().cast_mut().cast();
        message.msg_namelen = to.len() as libc::socklen_t;
    }
    if !rights.is_empty() {
        let length = std::mem::size_of_val(rights) as u32;
        message.msg_control = control.as_mut_ptr().cast();
        // SAFETY: CMSG_SPACE only computes.
        message.msg_controllen = unsafe { libc::CMSG_SPACE(length) } as usize;
        if message.msg_controllen > size_of::<Control>() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        // SAFETY: the control buffer has room for a header and as many fds.
        unsafe {
            let header = libc::CMSG_FIRSTHDR(&raw const message);
            (*header).cmsg_level = libc::SOL_SOCKET;
            (*header).cmsg_type = libc::SCM_RIGHTS;
            (*header).cmsg_len = libc::CMSG_LEN(length) as usize;
            let data = libc::CMSG_DATA(header).cast::<libc::c_int>();
            for (index, right) in rights.iter().enumerate() {
                data.add(index).write_unaligned(right.as_raw_fd());
            }
        }
    }
    // SAFETY: the message's pointers are valid for reads of as many bytes as it
    // says, and live until the call is over.
    let sent = unsafe {
        libc::sendmsg(
            socket.as_raw_fd(),
            &raw const message,
            libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL,
        )
    };
    usize::try_from(sent).map_err(|_| io::Error::last_os_error())
}

/// Connects a socket to what [`peer_name`] answered.
pub(crate) fn connect(socket: BorrowedFd<'_>, address: &[u8]) -> io::Result<()> {
    // SAFETY: the address is valid for reads of as many bytes as announced.
    check(unsafe {
        libc::connect(
            socket.as_raw_fd(),
            address.as_ptr().cast(),
            address.len() as libc::socklen_t,
        )
    })
}

/// Asks for an option, whose value may say first what is asked (`MCAST_MSFILTER`); how
/// long the answer is.
pub(crate) fn ask_option(
    socket: BorrowedFd<'_>,
    level: libc::c_int,
    name: libc::c_int,
    value: &mut [u8],
) -> io::Result<usize> {
    let mut length = value.len() as libc::socklen_t;
    // SAFETY: the value is valid for reads and writes of `length` bytes, and
    // `length` for writes itself.
    check(unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            level,
            name,
            value.as_mut_ptr().cast(),
            &raw mut length,
        )
    })?;
    Ok(length as usize)
}

/// Bytes that a TCP socket has not sent yet (`SIOCOUTQNSD`).
pub(crate) fn unsent(socket: BorrowedFd<'_>) -> io::Result<i32> {
    const SIOCOUTQNSD: libc::Ioctl = 0x894b;
    let mut bytes: libc::c_int = 0;
    // SAFETY: the third argument is valid for writes of an int.
    check(unsafe { libc::ioctl(socket.as_raw_fd(), SIOCOUTQNSD, &raw mut bytes) })?;
    Ok(bytes)
}
