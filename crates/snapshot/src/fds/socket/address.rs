//! Socket addresses as the kernel's bytes: how they are told to people, and
//! whether there is one at all.

use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use tracee::Tid;

/// The family of an address; 0 of one that is cut short.
pub(super) fn family(address: &[u8]) -> i32 {
    match address {
        [a, b, ..] => i32::from(u16::from_ne_bytes([*a, *b])),
        _ => 0,
    }
}

/// What a Unix address names: a path up to its NUL, or a NUL and a name of any
/// bytes; empty for a socket without a name.
pub(super) fn unix_name(address: &[u8]) -> &[u8] {
    match address.get(2..).unwrap_or(&[]) {
        name @ [0, ..] => name,
        path => path.split(|&b| b == 0).next().unwrap_or(&[]),
    }
}

fn port(address: &[u8]) -> Option<u16> {
    Some(u16::from_be_bytes(address.get(2..4)?.try_into().ok()?))
}

fn v4(address: &[u8]) -> Option<SocketAddrV4> {
    let host: [u8; 4] = address.get(4..8)?.try_into().ok()?;
    Some(SocketAddrV4::new(Ipv4Addr::from(host), port(address)?))
}

fn v6(address: &[u8]) -> Option<SocketAddrV6> {
    let host: [u8; 16] = address.get(8..24)?.try_into().ok()?;
    let scope = address.get(24..28)?.try_into().ok()?;
    Some(SocketAddrV6::new(
        Ipv6Addr::from(host),
        port(address)?,
        0,
        u32::from_ne_bytes(scope),
    ))
}

/// An address of IPv4 or IPv6; one that stands for IPv4 in IPv6 is that.
pub(super) fn internet(address: &[u8]) -> Option<SocketAddr> {
    match family(address) {
        libc::AF_INET => v4(address).map(SocketAddr::V4),
        libc::AF_INET6 => {
            let address = v6(address)?;
            Some(match address.ip().to_ipv4_mapped() {
                Some(ip) => SocketAddr::new(IpAddr::V4(ip), address.port()),
                None => SocketAddr::V6(address),
            })
        }
        _ => None,
    }
}

/// Where a socket that is bound to an address is reached by somebody on the same
/// machine: one that is bound to all addresses, at his own.
pub(super) fn reached_from(bound: &[u8], sender: &[u8]) -> Vec<u8> {
    let mut to = bound.to_vec();
    if internet(bound).is_some_and(|a| a.ip().is_unspecified())
        && family(bound) == family(sender)
        && bound.len() == sender.len()
    {
        // The port comes first in both.
        to = sender.to_vec();
        to[2..4].copy_from_slice(&bound[2..4]);
    }
    to
}

/// An address as another process has to name it: a path that is relative begins at
/// the working folder of the one that bound it.
pub(super) fn seen_from_outside(address: &[u8], process: Tid) -> Vec<u8> {
    let name = match family(address) {
        libc::AF_UNIX => unix_name(address),
        _ => return address.to_vec(),
    };
    if matches!(name.first(), None | Some(0 | b'/')) {
        return address.to_vec();
    }
    let mut seen = address[..2].to_vec();
    seen.extend(format!("/proc/{process}/cwd/").bytes());
    seen.extend(name);
    seen.push(0);
    seen
}

/// Whether somebody on the same machine who sends to `to` reaches a socket that is
/// bound to `bound`.
pub(super) fn reaches(to: &[u8], bound: &[u8]) -> bool {
    match (internet(to), internet(bound)) {
        (Some(to), Some(bound)) => {
            to.port() == bound.port()
                && (to.ip() == bound.ip() || bound.ip().is_unspecified() && to.ip().is_loopback())
        }
        _ => false,
    }
}

/// Whether an address says that the socket has not been bound.
pub(super) fn is_unbound(address: &[u8]) -> bool {
    match family(address) {
        libc::AF_INET => v4(address).is_none_or(|a| a.port() == 0 && a.ip().is_unspecified()),
        libc::AF_INET6 => v6(address).is_none_or(|a| a.port() == 0 && a.ip().is_unspecified()),
        libc::AF_UNIX => unix_name(address).is_empty(),
        // `struct sockaddr_nl`: family, padding, port id, groups.
        _ => address.get(4..).unwrap_or(&[]).iter().all(|&b| b == 0),
    }
}

/// An address for people. Abstract Unix names begin with `@`, as ss(8) has it.
pub(super) fn describe(address: &[u8]) -> String {
    let text = match family(address) {
        libc::AF_INET => v4(address).map(|a| a.to_string()),
        libc::AF_INET6 => v6(address).map(|a| a.to_string()),
        libc::AF_UNIX => match unix_name(address) {
            [] => None,
            [0, name @ ..] => Some(format!("@{}", printable(name))),
            path => Some(printable(path)),
        },
        _ => None,
    };
    text.unwrap_or_else(|| "an unnamed socket".into())
}

fn printable(bytes: &[u8]) -> String {
    let mut text = String::new();
    for c in String::from_utf8_lossy(bytes).chars() {
        if c.is_control() {
            // Writing to a String does not fail.
            let _ = write!(text, "{}", c.escape_default());
        } else {
            text.push(c);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys;
    use proptest::prelude::*;
    use std::net::{TcpListener, UdpSocket};
    use std::os::fd::AsFd;

    #[test]
    fn addresses_read_as_people_write_them() {
        for host in ["127.0.0.1:0", "[::1]:0"] {
            let listener = TcpListener::bind(host).unwrap();
            let address = sys::socket::local_name(listener.as_fd()).unwrap();
            assert_eq!(
                describe(&address),
                listener.local_addr().unwrap().to_string()
            );
            assert!(!is_unbound(&address));
        }
        let any = UdpSocket::bind("0.0.0.0:0").unwrap();
        assert!(!is_unbound(&sys::socket::local_name(any.as_fd()).unwrap()));
        let unix = |name: &[u8]| [&(libc::AF_UNIX as u16).to_ne_bytes(), name].concat();
        assert_eq!(describe(&unix(b"/run/a.sock\0")), "/run/a.sock");
        assert_eq!(describe(&unix(b"\0a\x1b\0b")), "@a\\u{1b}\\u{0}b");
        assert_eq!(describe(&unix(b"")), "an unnamed socket");
        assert!(is_unbound(&unix(b"")) && !is_unbound(&unix(b"\0a")));
    }

    #[test]
    fn addresses_that_stand_for_others() {
        let own = UdpSocket::bind("[::]:0").unwrap();
        let bound = sys::socket::local_name(own.as_fd()).unwrap();
        let sender = UdpSocket::bind("[::1]:0").unwrap();
        let from = sys::socket::local_name(sender.as_fd()).unwrap();
        let to = internet(&reached_from(&bound, &from)).unwrap();
        assert_eq!(
            to.to_string(),
            format!("[::1]:{}", own.local_addr().unwrap().port())
        );
        assert!(reaches(&reached_from(&bound, &from), &bound));
        assert!(!reaches(&from, &bound));
        assert_eq!(reached_from(&from, &bound), from);
    }

    proptest! {
        #[test]
        fn any_bytes_are_described(
            address in proptest::collection::vec(any::<u8>(), 0..130),
            other in proptest::collection::vec(any::<u8>(), 0..130),
        ) {
            let _ = is_unbound(&address);
            let _ = reaches(&address, &other);
            prop_assert_eq!(reached_from(&address, &other).len(), address.len());
            prop_assert!(!describe(&address).contains(char::is_control));
        }
    }
}
