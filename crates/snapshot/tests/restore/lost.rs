//! Connections to others, which a copy finds broken off if it is asked to.

use crate::driver::{Driver, Reached};
use snapshot::OnConnection;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use tracee::End;

/// Serves one client after the other until nobody comes any more.
fn serve(mut client: impl Read + Write) {
    let mut hello = [0; 5];
    client.read_exact(&mut hello).unwrap();
    client.write_all(b"welcome").unwrap();
    let _ = client.read(&mut [0]);
}

/// What the guest says in the run that the checkpoint is taken of, and in those
/// of three copies.
fn runs(place: &str) -> Vec<Vec<String>> {
    let mut driver = Driver::start("lost", &[place]);
    driver.set_on_connection(OnConnection::Reset);
    let Reached::Checkpoint(task) = driver.run(&mut |_| {}) else {
        panic!("no checkpoint");
    };
    let mut image = driver.freeze(task).unwrap();
    let runs = (0..4)
        .map(|nth| {
            if nth > 0 {
                driver.resume(&mut image).unwrap();
            }
            let mut lines = Vec::new();
            let reached = driver.run(&mut |line| lines.push(line.to_owned()));
            assert!(
                matches!(reached, Reached::End(End::Exited(0))),
                "{reached:?}: {lines:?}"
            );
            lines
        })
        .collect();
    driver.discard(image);
    runs
}

#[test]
fn a_tcp_connection_is_reset_by_its_peer() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    let server = std::thread::spawn(move || serve(listener.accept().unwrap().0));
    let runs = runs(&port);
    server.join().unwrap();
    assert_eq!(
        runs[0],
        [
            "flags 802 1",
            "ready: 1 1 1",
            "read: 7 bytes: welcome",
            "read: Resource temporarily unavailable",
            "write: sent"
        ]
    );
    for copy in &runs[1..] {
        assert_eq!(copy[0], runs[0][0]);
        // POLLIN, POLLERR, POLLHUP; the epoll instance says EPOLLRDHUP, too. What
        // was sent before has taken the error.
        assert!(copy[1].starts_with("ready: 1"), "{copy:?}");
        assert!(copy[1].contains(" 1 20"), "{copy:?}");
        assert_eq!(
            copy[2..],
            ["read: 0 bytes: ", "read: 0 bytes: ", "write: Broken pipe"]
        );
    }
}

#[test]
fn a_unix_connection_is_closed_by_its_peer() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("server");
    let listener = UnixListener::bind(&path).unwrap();
    let server = std::thread::spawn(move || serve(listener.accept().unwrap().0));
    let runs = runs(path.to_str().unwrap());
    server.join().unwrap();
    assert_eq!(runs[0][2], "read: 7 bytes: welcome");
    for copy in &runs[1..] {
        assert_eq!(
            *copy,
            [
                "flags 802 1",
                "ready: 11 1 2011",
                "read: 0 bytes: ",
                "read: 0 bytes: ",
                "write: Broken pipe"
            ]
        );
    }
}
