//! Sockets of the guest's that are connected with each other, frozen and brought
//! back with what is in them.

use crate::driver::Driver;
use crate::replay::{Runs, replay};

fn replay_alone(fixture: &str, arguments: &[&str]) -> Runs {
    replay(&mut Driver::start(fixture, arguments), &mut |_| {})
}

#[test]
fn messages_that_wait() {
    let same = [
        "first: 3 bytes: one",
        "first: 50000 bytes: LLL",
        "first: 5 bytes: three",
        "first: 4 bytes: four",
        "second: 4 bytes: back",
        "second: Resource temporarily unavailable",
    ];
    let datagrams = replay_alone("messages", &["datagrams"]);
    datagrams.assert_same(&same);
    datagrams.assert_same(&["first: 0 bytes: ", "the rest: 4 bytes: last"]);
    let packets = replay_alone("messages", &["packets"]);
    packets.assert_same(&same);
    packets.assert_same(&["the end: 4 bytes: last", "the end: 0 bytes: "]);
}

#[test]
fn open_files_that_are_under_way() {
    replay_alone("rights", &[]).assert_same(&[
        "4 bytes: with, with 2 files",
        "file 0: in the pipe",
        "file 1: Linux\n",
        "through the pipe: 4",
        "13 bytes:  twoonce more, with 1 files",
        "10 bytes:  and after, with 0 files",
        "file 0: nux\n",
        "at 6, open 0",
        "9 bytes: a message, with 1 files",
        "11 bytes: and another, with 0 files",
        "Resource temporarily unavailable",
    ]);
}

#[test]
fn unix_connections_of_the_guest_with_itself() {
    replay_alone("unix_inside", &["{}"]).assert_same(&[
        "client - to listener",
        "accepted listener to -",
        "other - to forkmon-fixture-gone",
        "its end forkmon-fixture-gone",
        "named named to listener",
        "its end to named",
        "flags 802 1",
        "user 1, own process 1",
        "accepted: 14 bytes: to the server!",
        "client: 13 bytes: to the client",
        "other: 8 bytes: a packet",
        "other: 12 bytes: and one more",
        "named: 10 bytes: last words",
        "named: 0 bytes: ",
        "named: 9 bytes: an answer",
        "late: 0 bytes: ",
        "the end: 0 bytes: ",
    ]);
}

#[test]
fn tcp_connections_of_the_guest_with_itself() {
    let lines = [
        "the first meet: 1",
        "the others meet: 1",
        "the halves meet: 1",
        "ports 1 1",
        "no delay 1",
        "keep alive 1",
        "buffer 80000",
        "flags 1 802 2",
        "accepted: 14 bytes: to the server!",
        "client: 13 bytes: to the client",
        "other: 5 bytes: other",
        "1 ready: 2001",
        "half: 10 bytes: last words",
        "half: 0 bytes: ",
        "half: 9 bytes: an answer",
        "to the end: Broken pipe",
        "the late meet: 1",
        "the end: 0 bytes: ",
    ];
    replay_alone("tcp_inside", &["4"]).assert_same(&lines);
    if std::net::TcpListener::bind("[::1]:0").is_ok() {
        replay_alone("tcp_inside", &["6"]).assert_same(&lines);
    }
}

#[test]
fn datagrams_of_udp() {
    replay_alone("udp", &[]).assert_same(&[
        "ports 1 1",
        "broadcast 1, flags 802",
        "other: 8 bytes from 1: from one",
        "other: 9 bytes from 1: and again",
        "server: 9 bytes from 3: from afar",
        "server: 8 bytes from 1: one, too",
        "one: 4 bytes from 2: back",
        "one: Resource temporarily unavailable",
        "server: 13 bytes from 2: to the server",
    ]);
}

#[test]
fn datagrams_of_unix_sockets_with_names() {
    replay_alone("unix_datagrams", &["{}"]).assert_same(&[
        "server: 3 bytes from nobody: one",
        "server: 3 bytes from nobody: two",
        "server: Resource temporarily unavailable",
        "server: 5 bytes from nobody: three",
        "client: 9 bytes from server: an answer",
        "server: 5 bytes from client: named",
        "closed: Connection refused",
    ]);
}
