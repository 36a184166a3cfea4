//! The options of a socket: read as bytes, and set on a new socket of the same
//! kind where that one's differ. No socket can be asked for all it has set, so
//! the table below names what can be read and written back.

use super::view::Kind;
use crate::sys::socket::{option, set_option};
use std::io;
use std::os::fd::BorrowedFd;

/// An option, by level and name, as getsockopt(2) takes them.
type Key = (i32, i32);

const SOL_NETLINK: i32 = 270;
const SO_BUF_LOCK: i32 = 72;
const SO_SNDBUFFORCE: i32 = 32;
const SO_RCVBUFFORCE: i32 = 33;
const TCP_ULP: i32 = 31;
const TCP_FASTOPEN_CONNECT: i32 = 30;
const SO_PASSPIDFD: i32 = 76;

/// SOL_SOCKET (asm-generic/socket.h). Not among them are those that tell what
/// happened rather than what was set, such as SO_ERROR and SO_INCOMING_CPU. The
/// low-water mark can raise the buffer's size, and the lock says who set that,
/// so they come in this order.
const SOCKET: &[i32] = &[
    1,  // SO_DEBUG
    2,  // SO_REUSEADDR
    5,  // SO_DONTROUTE
    6,  // SO_BROADCAST
    9,  // SO_KEEPALIVE
    10, // SO_OOBINLINE
    11, // SO_NO_CHECK
    12, // SO_PRIORITY
    13, // SO_LINGER
    15, // SO_REUSEPORT
    16, // SO_PASSCRED
    18, // SO_RCVLOWAT
    20, // SO_RCVTIMEO
    21, // SO_SNDTIMEO
    29, // SO_TIMESTAMP
    34, // SO_PASSSEC
    35, // SO_TIMESTAMPNS
    36, // SO_MARK
    37, // SO_TIMESTAMPING
    40, // SO_RXQ_OVFL
    41, // SO_WIFI_STATUS
    42, // SO_PEEK_OFF
    43, // SO_NOFCS
    44, // SO_LOCK_FILTER
    45, // SO_SELECT_ERR_QUEUE
    46, // SO_BUSY_POLL
    47, // SO_MAX_PACING_RATE
    60, // SO_ZEROCOPY
    61, // SO_TXTIME
    62, // SO_BINDTOIFINDEX
    63, // SO_TIMESTAMP_NEW
    64, // SO_TIMESTAMPNS_NEW
    65, // SO_TIMESTAMPING_NEW
    69, // SO_PREFER_BUSY_POLL
    70, // SO_BUSY_POLL_BUDGET
    73, // SO_RESERVE_MEM
    74, // SO_TXREHASH
    75, // SO_RCVMARK
    SO_PASSPIDFD,
    82, // SO_RCVPRIORITY
    83, // SO_PASSRIGHTS
    84, // SO_INQ
    libc::SO_RCVBUF,
    libc::SO_SNDBUF,
    SO_BUF_LOCK,
];

/// IPPROTO_IP (linux/in.h).
const IP: &[i32] = &[
    1,  // IP_TOS
    2,  // IP_TTL
    4,  // IP_OPTIONS
    6,  // IP_RECVOPTS
    7,  // IP_RETOPTS
    8,  // IP_PKTINFO
    10, // IP_MTU_DISCOVER
    11, // IP_RECVERR
    12, // IP_RECVTTL
    13, // IP_RECVTOS
    15, // IP_FREEBIND
    18, // IP_PASSSEC
    19, // IP_TRANSPARENT
    20, // IP_RECVORIGDSTADDR
    21, // IP_MINTTL
    22, // IP_NODEFRAG
    23, // IP_CHECKSUM
    24, // IP_BIND_ADDRESS_NO_PORT
    25, // IP_RECVFRAGSIZE
    26, // IP_RECVERR_RFC4884
    32, // IP_MULTICAST_IF
    33, // IP_MULTICAST_TTL
    34, // IP_MULTICAST_LOOP
    49, // IP_MULTICAST_ALL
    50, // IP_UNICAST_IF
    51, // IP_LOCAL_PORT_RANGE
];

/// IPPROTO_IPV6 (linux/in6.h).
const IPV6: &[i32] = &[
    16, // IPV6_UNICAST_HOPS
    17, // IPV6_MULTICAST_IF
    18, // IPV6_MULTICAST_HOPS
    19, // IPV6_MULTICAST_LOOP
    23, // IPV6_MTU_DISCOVER
    25, // IPV6_RECVERR
    26, // IPV6_V6ONLY
    29, // IPV6_MULTICAST_ALL
    31, // IPV6_RECVERR_RFC4884
    33, // IPV6_FLOWINFO_SEND
    49, // IPV6_RECVPKTINFO
    51, // IPV6_RECVHOPLIMIT
    53, // IPV6_RECVHOPOPTS
    56, // IPV6_RECVRTHDR
    58, // IPV6_RECVDSTOPTS
    60, // IPV6_RECVPATHMTU
    62, // IPV6_DONTFRAG
    66, // IPV6_RECVTCLASS
    67, // IPV6_TCLASS
    70, // IPV6_AUTOFLOWLABEL
    72, // IPV6_ADDR_PREFERENCES
    73, // IPV6_MINHOPCOUNT
    74, // IPV6_RECVORIGDSTADDR
    75, // IPV6_TRANSPARENT
    76, // IPV6_UNICAST_IF
    77, // IPV6_RECVFRAGSIZE
    78, // IPV6_FREEBIND
];

/// IPPROTO_TCP (linux/tcp.h).
const TCP: &[i32] = &[
    1,  // TCP_NODELAY
    2,  // TCP_MAXSEG
    3,  // TCP_CORK
    4,  // TCP_KEEPIDLE
    5,  // TCP_KEEPINTVL
    6,  // TCP_KEEPCNT
    7,  // TCP_SYNCNT
    8,  // TCP_LINGER2
    9,  // TCP_DEFER_ACCEPT
    10, // TCP_WINDOW_CLAMP
    12, // TCP_QUICKACK
    13, // TCP_CONGESTION
    16, // TCP_THIN_LINEAR_TIMEOUTS
    18, // TCP_USER_TIMEOUT
    23, // TCP_FASTOPEN
    25, // TCP_NOTSENT_LOWAT
    27, // TCP_SAVE_SYN
    TCP_FASTOPEN_CONNECT,
    TCP_ULP,
    33, // TCP_FASTOPEN_KEY
    34, // TCP_FASTOPEN_NO_COOKIE
    36, // TCP_INQ
    37, // TCP_TX_DELAY
    44, // TCP_RTO_MAX_MS
    45, // TCP_RTO_MIN_US
    46, // TCP_DELACK_MAX_US
];

/// IPPROTO_UDP (linux/udp.h).
const UDP: &[i32] = &[
    1,   // UDP_CORK
    100, // UDP_ENCAP
    101, // UDP_NO_CHECK6_TX
    102, // UDP_NO_CHECK6_RX
    103, // UDP_SEGMENT
    104, // UDP_GRO
];

/// SOL_NETLINK (linux/netlink.h).
const NETLINK: &[i32] = &[
    3,  // NETLINK_PKTINFO
    4,  // NETLINK_BROADCAST_ERROR
    5,  // NETLINK_NO_ENOBUFS
    8,  // NETLINK_LISTEN_ALL_NSID
    10, // NETLINK_CAP_ACK
    11, // NETLINK_EXT_ACK
    12, // NETLINK_GET_STRICT_CHK
];

fn keys(kind: Kind) -> impl Iterator<Item = Key> {
    let internet = matches!(kind.family, libc::AF_INET | libc::AF_INET6);
    let stream = kind.kind == libc::SOCK_STREAM;
    [
        // What is sent by default can follow from the type of service, so the
        // socket's own options come last.
        (internet, libc::IPPROTO_IP, IP),
        (kind.family == libc::AF_INET6, libc::IPPROTO_IPV6, IPV6),
        (internet && stream, libc::IPPROTO_TCP, TCP),
        (internet && !stream, libc::IPPROTO_UDP, UDP),
        (kind.family == libc::AF_NETLINK, SOL_NETLINK, NETLINK),
        (true, libc::SOL_SOCKET, SOCKET),
    ]
    .into_iter()
    .filter(|(applies, ..)| *applies)
    .flat_map(|(_, level, names)| names.iter().map(move |name| (level, *name)))
    // MPTCP is itself the upper layer of what it is made of.
    .filter(move |key| *key != (libc::IPPROTO_TCP, TCP_ULP) || kind.protocol != libc::IPPROTO_MPTCP)
}

/// What a socket's options are, of those that it has.
#[derive(Clone, Default, Eq, PartialEq, Debug)]
pub(super) struct Options(Vec<(Key, Vec<u8>)>);

impl Options {
    pub(super) fn capture(socket: BorrowedFd<'_>, kind: Kind) -> Self {
        // An option that cannot be read does not exist for this kind of socket
        // or in this kernel.
        Self(
            keys(kind)
                .filter_map(|key| Some((key, option(socket, key.0, key.1).ok()?)))
                .collect(),
        )
    }

    fn get(&self, key: Key) -> Option<&[u8]> {
        let (_, value) = self.0.iter().find(|(k, _)| *k == key)?;
        Some(value)
    }

    fn number(&self, key: Key) -> Option<i32> {
        let bytes = self.get(key)?.get(..4)?.try_into().ok()?;
        Some(i32::from_ne_bytes(bytes))
    }

    /// Whether messages come with who sent them, so that others cannot send
    /// them again.
    pub(super) fn names_senders(&self) -> bool {
        [libc::SO_PASSCRED, libc::SO_PASSSEC, SO_PASSPIDFD]
            .into_iter()
            .any(|name| self.number((libc::SOL_SOCKET, name)).unwrap_or(0) != 0)
    }

    /// Whether peeking moves on in the queue.
    pub(super) fn peeks_from_an_offset(&self) -> bool {
        self.number((libc::SOL_SOCKET, libc::SO_PEEK_OFF))
            .unwrap_or(-1)
            >= 0
    }

    /// Whether it was allowed to take an address that is in use.
    pub(super) fn reuses_its_address(&self) -> bool {
        self.number((libc::SOL_SOCKET, libc::SO_REUSEADDR))
            .unwrap_or(0)
            != 0
    }

    /// What a socket without a connection can have that a new one cannot be
    /// given, in words.
    pub(super) fn obstacle(&self) -> Option<&'static str> {
        let tcp = |name| (libc::IPPROTO_TCP, name);
        if self.get(tcp(TCP_ULP)).is_some_and(|v| !v.is_empty()) {
            return Some("an upper layer protocol");
        }
        if self.number(tcp(TCP_FASTOPEN_CONNECT)).unwrap_or(0) != 0 {
            return Some("a connection that is put off to the first write");
        }
        None
    }

    /// Those of a connection that another one is given: without what the kernel
    /// adapts by itself while data flows.
    pub(super) fn of_connection(&self) -> Self {
        const SENDER_LOCKED: i32 = 1;
        const RECEIVER_LOCKED: i32 = 2;
        let locked = self.number((libc::SOL_SOCKET, SO_BUF_LOCK)).unwrap_or(0);
        let keeps = |key: Key| match key {
            (libc::IPPROTO_TCP, libc::TCP_MAXSEG | libc::TCP_WINDOW_CLAMP | libc::TCP_QUICKACK) => {
                false
            }
            // Binding to one address sets it, and it means nothing then.
            (libc::IPPROTO_IPV6, libc::IPV6_V6ONLY) => false,
            // Its address is shared with the next run.
            (libc::SOL_SOCKET, libc::SO_REUSEADDR) => false,
            (libc::SOL_SOCKET, libc::SO_SNDBUF) => locked & SENDER_LOCKED != 0,
            (libc::SOL_SOCKET, libc::SO_RCVBUF) => locked & RECEIVER_LOCKED != 0,
            _ => true,
        };
        Self(
            self.0
                .iter()
                .filter(|(key, _)| keeps(*key))
                .cloned()
                .collect(),
        )
    }

    /// Sets what has to be set before a socket is bound or connected, as far as it
    /// is taken: the rest shows when all are set.
    pub(super) fn prepare(&self, socket: BorrowedFd<'_>) {
        for key in [
            (libc::IPPROTO_IPV6, libc::IPV6_V6ONLY),
            (libc::SOL_SOCKET, libc::SO_REUSEPORT),
            (libc::SOL_SOCKET, libc::SO_RCVBUF),
            (libc::SOL_SOCKET, libc::SO_SNDBUF),
        ] {
            if let Some(value) = self.get(key) {
                let _ = set(socket, key, value);
            }
        }
    }

    /// Sets the options of a new socket, and checks that they took.
    pub(super) fn restore(&self, socket: BorrowedFd<'_>) -> io::Result<()> {
        let mut failure = None;
        // One option can change another, so that another round may be needed;
        // the last one finds nothing to do.
        for _ in 0..4 {
            failure = None;
            for ((level, name), value) in &self.0 {
                if option(socket, *level, *name).is_ok_and(|now| now == *value) {
                    continue;
                }
                let why = match set(socket, (*level, *name), value) {
                    Ok(()) => "it does not take".into(),
                    Err(e) => e.to_string(),
                };
                failure = Some(format!("option {name} of level {level}: {why}"));
            }
            if failure.is_none() {
                break;
            }
        }
        failure.map_or(Ok(()), |why| Err(io::Error::other(why)))
    }
}

fn set(socket: BorrowedFd<'_>, (level, name): Key, value: &[u8]) -> io::Result<()> {
    let forced = match (level, name) {
        (libc::SOL_SOCKET, libc::SO_SNDBUF) => SO_SNDBUFFORCE,
        (libc::SOL_SOCKET, libc::SO_RCVBUF) => SO_RCVBUFFORCE,
        _ => return set_option(socket, level, name, value),
    };
    // The kernel doubles what it is given (socket(7)), and cuts what is above
    // the system's limit unless it is forced to, which takes CAP_NET_ADMIN.
    let size: [u8; 4] = value.try_into().map_err(|_| io::ErrorKind::InvalidData)?;
    let half = (i32::from_ne_bytes(size) / 2).to_ne_bytes();
    set_option(socket, level, name, &half)?;
    if option(socket, level, name)? != value {
        set_option(socket, level, forced, &half)?;
    }
    Ok(())
}

/// Makes room for so many bytes to be sent, as far as that is allowed.
pub(super) fn make_room(socket: BorrowedFd<'_>, bytes: usize) {
    let size = i32::try_from(bytes).unwrap_or(i32::MAX / 2).to_ne_bytes();
    // Where it is refused, sending shows whether it was needed.
    if set_option(socket, libc::SOL_SOCKET, SO_SNDBUFFORCE, &size).is_err() {
        let _ = set_option(socket, libc::SOL_SOCKET, libc::SO_SNDBUF, &size);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::{AsFd, OwnedFd};

    fn socket(family: i32, kind: i32, protocol: i32) -> (OwnedFd, Kind) {
        let socket = rustix::net::socket_with(
            rustix::net::AddressFamily::from_raw(family as u16),
            rustix::net::SocketType::from_raw(kind as u32),
            rustix::net::SocketFlags::CLOEXEC,
            std::num::NonZero::new(protocol as u32).map(rustix::net::Protocol::from_raw),
        )
        .unwrap();
        let kind = Kind {
            family,
            kind,
            protocol,
        };
        (socket, kind)
    }

    fn number(socket: &OwnedFd, level: i32, name: i32, value: i32) {
        set_option(socket.as_fd(), level, name, &value.to_ne_bytes()).unwrap();
    }

    /// Every kind that is made anew.
    const KINDS: &[(i32, i32, i32)] = &[
        (libc::AF_UNIX, libc::SOCK_STREAM, 0),
        (libc::AF_UNIX, libc::SOCK_DGRAM, 0),
        (libc::AF_UNIX, libc::SOCK_SEQPACKET, 0),
        (libc::AF_INET, libc::SOCK_STREAM, libc::IPPROTO_TCP),
        (libc::AF_INET6, libc::SOCK_STREAM, libc::IPPROTO_TCP),
        (libc::AF_INET, libc::SOCK_DGRAM, libc::IPPROTO_UDP),
        (libc::AF_INET6, libc::SOCK_DGRAM, libc::IPPROTO_UDP),
        (libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_ROUTE),
    ];

    #[test]
    fn a_new_socket_needs_nothing_to_be_set() {
        for &(family, kind, protocol) in KINDS {
            let (one, kind) = socket(family, kind, protocol);
            let (other, _) = socket(family, kind.kind, protocol);
            let options = Options::capture(one.as_fd(), kind);
            assert!(options.0.len() > 15, "{kind:?}: {options:?}");
            assert_eq!(options, Options::capture(other.as_fd(), kind), "{kind:?}");
            options.restore(other.as_fd()).unwrap();
        }
    }

    #[test]
    fn what_was_set_is_set_again() {
        for &(family, kind, protocol) in KINDS {
            let (one, kind) = socket(family, kind, protocol);
            for (name, value) in [
                (libc::SO_RCVBUF, 30_000),
                (libc::SO_SNDBUF, 50_000),
                (libc::SO_PRIORITY, 3),
                (libc::SO_KEEPALIVE, 1),
                (libc::SO_REUSEADDR, 1),
                (libc::SO_TIMESTAMPNS, 1),
            ] {
                number(&one, libc::SOL_SOCKET, name, value);
            }
            let linger = [1i32, 7].map(i32::to_ne_bytes).concat();
            set_option(one.as_fd(), libc::SOL_SOCKET, libc::SO_LINGER, &linger).unwrap();
            let patience = [2i64, 500_000].map(i64::to_ne_bytes).concat();
            set_option(one.as_fd(), libc::SOL_SOCKET, libc::SO_RCVTIMEO, &patience).unwrap();
            if protocol == libc::IPPROTO_TCP {
                for (name, value) in [
                    (libc::TCP_NODELAY, 1),
                    (libc::TCP_DEFER_ACCEPT, 20),
                    (libc::TCP_FASTOPEN, 5),
                    (libc::TCP_KEEPIDLE, 77),
                    (libc::TCP_USER_TIMEOUT, 1234),
                    (libc::TCP_MAXSEG, 700),
                ] {
                    number(&one, libc::IPPROTO_TCP, name, value);
                }
            }
            if family == libc::AF_INET {
                number(&one, libc::IPPROTO_IP, libc::IP_TOS, 0x10);
            }
            if family == libc::AF_INET6 {
                number(&one, libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, 1);
            }
            let options = Options::capture(one.as_fd(), kind);
            let (other, _) = socket(family, kind.kind, protocol);
            assert_ne!(options, Options::capture(other.as_fd(), kind));
            options.restore(other.as_fd()).unwrap();
            assert_eq!(options, Options::capture(other.as_fd(), kind), "{kind:?}");
        }
    }

    #[test]
    fn an_option_that_cannot_be_set_is_named() {
        let (one, kind) = socket(libc::AF_UNIX, libc::SOCK_STREAM, 0);
        let mut options = Options::capture(one.as_fd(), kind);
        // SO_RCVLOWAT of -1 is taken for another value.
        let key = (libc::SOL_SOCKET, libc::SO_RCVLOWAT);
        let at = options.0.iter().position(|(k, _)| *k == key).unwrap();
        options.0[at].1 = (-1i32).to_ne_bytes().to_vec();
        let error = options.restore(one.as_fd()).unwrap_err();
        assert!(
            error.to_string().contains("option 18 of level 1"),
            "{error}"
        );
    }
}
