//! What the kernel says of a Unix socket beyond its options: its peer, its
//! halves that are shut down, its queue (sock_diag(7), `UNIX_DIAG`). Needs no
//! privilege.

use crate::Refusal;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink};
use std::io;
use std::os::fd::OwnedFd;

const SOCK_DIAG_BY_FAMILY: u16 = 20;
const NLM_F_REQUEST: u16 = 1;
const NLMSG_ERROR: u16 = 2;
/// A request's length: `struct nlmsghdr` and `struct unix_diag_req`.
const REQUEST: usize = 16 + 24;
/// An answer's length up to its attributes: `struct nlmsghdr` and `struct
/// unix_diag_msg`.
const ANSWER: usize = 16 + 16;

// `udiag_show`, and the attributes that come in answer (linux/unix_diag.h).
const SHOW_NAME: u32 = 1;
const SHOW_FILE: u32 = 2;
const SHOW_PEER: u32 = 4;
const SHOW_QUEUE: u32 = 0x10;
const NAME: u16 = 0;
const FILE: u16 = 1;
const PEER: u16 = 2;
const QUEUE: u16 = 4;
const SHUTDOWN: u16 = 6;

/// States of a socket that Unix sockets have (net/tcp_states.h).
pub(super) const ESTABLISHED: u8 = 1;
/// Not connected.
pub(super) const CLOSE: u8 = 7;
/// Listening.
pub(super) const LISTEN: u8 = 10;

/// Nothing more will be received.
pub(super) const RECEIVE_SHUT: u8 = 1;
/// Nothing more can be sent.
pub(super) const SEND_SHUT: u8 = 2;

/// What there is to know of a Unix socket.
#[derive(Clone, Default, Eq, PartialEq, Debug)]
pub(super) struct UnixFacts {
    pub(super) state: u8,
    pub(super) named: bool,
    /// The low half of the inode number of the file that it is bound to.
    pub(super) file: Option<u32>,
    /// The inode of the socket that it is connected to; 0 if that one is closed
    /// or not accepted yet.
    pub(super) peer: Option<u32>,
    /// Of a listening socket: connections that wait to be accepted, and the
    /// backlog.
    pub(super) queue: (u32, u32),
    /// [`RECEIVE_SHUT`] and [`SEND_SHUT`].
    pub(super) shutdown: u8,
}

/// A way to ask.
#[derive(Debug)]
pub(super) struct Diag(OwnedFd);

fn refused(source: io::Error) -> Refusal {
    Refusal::unsupported(
        "sock-diag-refused",
        format!(
            "a Unix socket is open, and sock_diag(7) does not tell its state: {source} (the \
             kernel needs CONFIG_UNIX_DIAG, and a container's profile must allow netlink sockets)"
        ),
    )
}

impl Diag {
    pub(super) fn open() -> Result<Self, Refusal> {
        rustix::net::socket_with(
            AddressFamily::NETLINK,
            SocketType::RAW,
            SocketFlags::CLOEXEC,
            Some(netlink::SOCK_DIAG),
        )
        .map(Self)
        .map_err(|e| refused(e.into()))
    }

    /// Asks about the Unix socket with an inode.
    pub(super) fn unix(&self, inode: u64) -> Result<UnixFacts, Refusal> {
        self.ask(inode).map_err(refused)
    }

    fn ask(&self, inode: u64) -> io::Result<UnixFacts> {
        // Inodes of sockets are 32 bits wide (get_next_ino).
        let inode = u32::try_from(inode).map_err(|_| io::ErrorKind::InvalidInput)?;
        rustix::net::send(&self.0, &request(inode), SendFlags::empty())?;
        let mut answer = [0u8; 4096];
        // The kernel answers while it is asked.
        let (_, length) = rustix::net::recv(&self.0, &mut answer, RecvFlags::DONTWAIT)?;
        parse(&answer[..length.min(answer.len())], inode)
    }
}

fn request(inode: u32) -> [u8; REQUEST] {
    let mut request = [0; REQUEST];
    request[..4].copy_from_slice(&(REQUEST as u32).to_ne_bytes());
    request[4..6].copy_from_slice(&SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    request[6..8].copy_from_slice(&NLM_F_REQUEST.to_ne_bytes());
    request[16] = libc::AF_UNIX as u8;
    // Of any state, and of any cookie.
    request[20..24].copy_from_slice(&u32::MAX.to_ne_bytes());
    request[24..28].copy_from_slice(&inode.to_ne_bytes());
    let show = SHOW_NAME | SHOW_FILE | SHOW_PEER | SHOW_QUEUE;
    request[28..32].copy_from_slice(&show.to_ne_bytes());
    request[32..40].copy_from_slice(&u64::MAX.to_ne_bytes());
    request
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

/// Reads an answer, or the error that came in its place.
fn parse(answer: &[u8], inode: u32) -> io::Result<UnixFacts> {
    if u16_at(answer, 4) == Some(NLMSG_ERROR)
        && let Some(errno) = u32_at(answer, 16)
    {
        return Err(io::Error::from_raw_os_error(
            (errno as i32).saturating_neg(),
        ));
    }
    parse_facts(answer, inode).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

fn parse_facts(answer: &[u8], inode: u32) -> Option<UnixFacts> {
    let length = u32_at(answer, 0)? as usize;
    let answer = answer.get(..length)?;
    if u16_at(answer, 4)? != SOCK_DIAG_BY_FAMILY || u32_at(answer, 20)? != inode {
        return None;
    }
    let mut facts = UnixFacts {
        state: *answer.get(18)?,
        ..UnixFacts::default()
    };
    let mut rest = answer.get(ANSWER..)?;
    // `struct rtattr`: a length that counts itself, a type; padded to 4 bytes.
    while !rest.is_empty() {
        let length = usize::from(u16_at(rest, 0)?);
        let value = rest.get(4..length)?;
        match u16_at(rest, 2)? {
            NAME => facts.named = !value.is_empty(),
            FILE => facts.file = Some(u32_at(value, 0)?),
            PEER => facts.peer = Some(u32_at(value, 0)?),
            QUEUE => facts.queue = (u32_at(value, 0)?, u32_at(value, 4)?),
            SHUTDOWN => facts.shutdown = *value.first()?,
            _ => {}
        }
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or(&[]);
    }
    Some(facts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::os::fd::AsFd;
    use std::os::unix::fs::MetadataExt;
    use std::os::unix::net::{UnixListener, UnixStream};

    fn inode(socket: impl AsFd) -> u64 {
        std::fs::File::from(socket.as_fd().try_clone_to_owned().unwrap())
            .metadata()
            .unwrap()
            .ino()
    }

    #[test]
    fn ends_of_a_pair_name_each_other() {
        let diag = Diag::open().unwrap();
        let (a, b) = UnixStream::pair().unwrap();
        let facts = diag.unix(inode(&a)).unwrap();
        assert_eq!(facts.state, ESTABLISHED);
        assert_eq!(facts.peer.map(u64::from), Some(inode(&b)));
        assert!(!facts.named);
        b.shutdown(std::net::Shutdown::Write).unwrap();
        assert_eq!(diag.unix(inode(&b)).unwrap().shutdown, SEND_SHUT);
        assert_eq!(diag.unix(inode(&a)).unwrap().shutdown, RECEIVE_SHUT);
        drop(b);
        let facts = diag.unix(inode(&a)).unwrap();
        assert_eq!(
            (facts.peer, facts.shutdown),
            (Some(0), RECEIVE_SHUT | SEND_SHUT)
        );
    }

    #[test]
    fn a_listening_socket_tells_who_waits() {
        let diag = Diag::open().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let listener = UnixListener::bind(&path).unwrap();
        let before = diag.unix(inode(&listener)).unwrap();
        assert_eq!(before.state, LISTEN);
        let file = std::fs::metadata(&path).unwrap().ino() as u32;
        assert_eq!((before.named, before.file), (true, Some(file)));
        let _client = UnixStream::connect(&path).unwrap();
        let after = diag.unix(inode(&listener)).unwrap();
        assert_eq!(after.queue, (1, before.queue.1));
    }

    #[test]
    fn a_socket_that_is_not_there_is_a_refusal() {
        let file = tempfile::tempfile().unwrap();
        let refusal = Diag::open().unwrap().unix(inode(&file)).unwrap_err();
        assert_eq!(refusal.code(), "sock-diag-refused", "{refusal}");
    }

    proptest! {
        #[test]
        fn no_answer_makes_the_parser_fall_over(
            mut answer in proptest::collection::vec(any::<u8>(), 0..200),
            honest in any::<bool>(),
        ) {
            if honest && answer.len() >= ANSWER {
                let length = answer.len() as u32;
                answer[..4].copy_from_slice(&length.to_ne_bytes());
                answer[4..6].copy_from_slice(&SOCK_DIAG_BY_FAMILY.to_ne_bytes());
                answer[20..24].copy_from_slice(&7u32.to_ne_bytes());
            }
            let _ = parse(&answer, 7);
        }

        #[test]
        fn attributes_are_read_in_any_order(
            shutdown in 0u8..4,
            peer in any::<u32>(),
            queue in any::<(u32, u32)>(),
            order in Just(vec![0usize, 1, 2, 3]).prop_shuffle(),
        ) {
            let attribute = |kind: u16, value: &[u8]| {
                let mut bytes = ((value.len() + 4) as u16).to_ne_bytes().to_vec();
                bytes.extend(kind.to_ne_bytes());
                bytes.extend(value);
                bytes.resize(bytes.len().next_multiple_of(4), 0);
                bytes
            };
            let both = [queue.0.to_ne_bytes(), queue.1.to_ne_bytes()].concat();
            let attributes = [
                attribute(SHUTDOWN, &[shutdown]),
                attribute(PEER, &peer.to_ne_bytes()),
                attribute(QUEUE, &both),
                attribute(999, b"unknown"),
            ];
            let mut answer = vec![0; ANSWER];
            answer[4..6].copy_from_slice(&SOCK_DIAG_BY_FAMILY.to_ne_bytes());
            answer[18] = ESTABLISHED;
            answer[20..24].copy_from_slice(&7u32.to_ne_bytes());
            for at in order {
                answer.extend(&attributes[at]);
            }
            let length = answer.len() as u32;
            answer[..4].copy_from_slice(&length.to_ne_bytes());
            let expected = UnixFacts {
                state: ESTABLISHED,
                peer: Some(peer),
                queue,
                shutdown,
                ..UnixFacts::default()
            };
            prop_assert_eq!(parse(&answer, 7).unwrap(), expected);
            prop_assert!(parse(&answer, 8).is_err());
        }
    }
}
