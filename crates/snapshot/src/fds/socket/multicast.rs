//! Whether a socket is in a multicast group. No socket can be asked for all its
//! groups, only for one of which its address is known; the network's own list has
//! those that anybody is in.

use super::view::View;
use crate::sys::socket::ask_option;
use std::fs;
use std::os::fd::AsFd;

/// A group on an interface.
#[derive(Clone, Eq, PartialEq, Debug)]
struct Group {
    interface: u32,
    /// 4 or 16 bytes.
    address: Vec<u8>,
}

const MCAST_MSFILTER: i32 = 48;

/// Whether a socket has joined any group.
pub(super) fn is_member(view: &View) -> bool {
    let v4 = fs::read_to_string("/proc/net/igmp").map_or_else(|_| Vec::new(), |t| parse_v4(&t));
    let v6 = fs::read_to_string("/proc/net/igmp6").map_or_else(|_| Vec::new(), |t| parse_v6(&t));
    v4.iter()
        .map(|group| (libc::IPPROTO_IP, group))
        .chain(v6.iter().map(|group| (libc::IPPROTO_IPV6, group)))
        .any(|(level, group)| {
            // `struct group_filter`: the interface, padding, the group's
            // sockaddr_storage, mode and number of sources.
            let mut filter = [0u8; 8 + 128 + 8];
            filter[..4].copy_from_slice(&group.interface.to_ne_bytes());
            let family = if level == libc::IPPROTO_IP {
                libc::AF_INET
            } else {
                libc::AF_INET6
            };
            filter[8..10].copy_from_slice(&(family as u16).to_ne_bytes());
            // After the family: the port, and in IPv6 the flow.
            let at = if group.address.len() == 4 { 12 } else { 16 };
            filter[at..at + group.address.len()].copy_from_slice(&group.address);
            ask_option(view.handle.as_fd(), level, MCAST_MSFILTER, &mut filter).is_ok()
        })
}

/// `/proc/net/igmp`: lines of interfaces, and below each those of its groups.
fn parse_v4(text: &str) -> Vec<Group> {
    let mut interface = 0;
    let mut groups = Vec::new();
    for line in text.lines().skip(1) {
        let Some(first) = line.split_ascii_whitespace().next() else {
            continue;
        };
        if line.starts_with(char::is_whitespace) {
            if let Ok(address) = u32::from_str_radix(first, 16) {
                groups.push(Group {
                    interface,
                    // The number is in memory as the address is on the network.
                    address: address.to_ne_bytes().to_vec(),
                });
            }
        } else {
            interface = first.parse().unwrap_or(0);
        }
    }
    groups
}

/// `/proc/net/igmp6`: an interface's number and name, and a group.
fn parse_v6(text: &str) -> Vec<Group> {
    text.lines()
        .filter_map(|line| {
            let mut words = line.split_ascii_whitespace();
            let interface = words.next()?.parse().ok()?;
            let address = u128::from_str_radix(words.nth(1)?, 16).ok()?;
            Some(Group {
                interface,
                address: address.to_be_bytes().to_vec(),
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_of_both_kinds() {
        let groups = parse_v4(
            "Idx\tDevice    : Count Querier\tGroup    Users Timer\tReporter\n\
             1\tlo        :     1      V3\n\t\t\t\t010000E0     1 0:00000000\t\t0\n\
             2\teth0      :     2      V3\n\t\t\t\tFB0000E0     1 0:00000000\t\t0\n\
             \t\t\t\t010000E0     1 0:00000000\t\t0\n",
        );
        assert_eq!(groups.len(), 3);
        assert_eq!(groups[1].interface, 2);
        assert_eq!(groups[1].address, [224, 0, 0, 251]);
        let groups = parse_v6("1    lo    ff020000000000000000000000000001     1 0000000C 0\n?\n");
        assert_eq!(groups.len(), 1);
        assert_eq!(groups[0].address[..2], [0xff, 2]);
        assert_eq!(groups[0].address[15], 1);
    }
}
