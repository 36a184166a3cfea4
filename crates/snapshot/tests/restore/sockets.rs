//! Sockets of real programs, frozen and brought back: each fixture must see the
//! same after every resume as the run that the checkpoint was taken of.

use crate::driver::{Driver, Reached};
use crate::replay::{Runs, replay};
use snapshot::Refusal;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::path::Path;
use std::thread::JoinHandle;
use std::time::Duration;
use tracee::End;

/// How long a client waits for a server that does not answer.
const PATIENCE: Duration = Duration::from_secs(30);

fn replay_alone(fixture: &str, arguments: &[&str]) -> Runs {
    replay(&mut Driver::start(fixture, arguments), &mut |_| {})
}

/// A client that says hello, and hears what a server says.
fn visit(stream: impl Read + Write + Send + 'static) -> JoinHandle<String> {
    std::thread::spawn(move || {
        let mut stream = stream;
        stream.write_all(b"a visitor").unwrap();
        let mut answer = [0; 7];
        stream.read_exact(&mut answer).unwrap();
        // The server is killed with the connection open.
        let _ = stream.read(&mut [0]);
        String::from_utf8_lossy(&answer).into_owned()
    })
}

fn visit_tcp(address: (&str, u16)) -> JoinHandle<String> {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    visit(stream)
}

fn visit_unix(stream: UnixStream) -> JoinHandle<String> {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    visit(stream)
}

/// Replays a server, with a client for each run.
fn serve(arguments: &[&str], come: &dyn Fn(&str) -> JoinHandle<String>) -> Runs {
    let mut driver = Driver::start("server", arguments);
    serve_with(&mut driver, come)
}

fn serve_with(driver: &mut Driver, come: &dyn Fn(&str) -> JoinHandle<String>) -> Runs {
    let mut clients = Vec::new();
    let runs = replay(driver, &mut |line| {
        if let Some(place) = line.strip_prefix("come to ") {
            clients.push(come(place));
        }
    });
    assert_eq!(clients.len(), 4);
    for client in clients {
        assert_eq!(client.join().unwrap(), "welcome");
    }
    runs
}

#[test]
fn data_under_way_in_both_directions_of_a_stream() {
    replay_alone("pair", &["stream"]).assert_same(&[
        "first: flags 2, close on exec 0",
        "again: flags 2, close on exec 1",
        "second: flags 802, close on exec 1",
        "send buffer: 80000",
        "closed before: -1",
        "second: 8 bytes: one two!",
        "first: 5 bytes: three",
        "second, when empty: -1, Resource temporarily unavailable",
        "first: 12 bytes: moreand more",
        "second, after the end: 0 bytes: ",
    ]);
}

#[test]
fn pairs_of_messages() {
    let lines = [
        "second: flags 802, close on exec 1",
        "first: 4 bytes: more",
        "first: 8 bytes: and more",
    ];
    let datagrams = replay_alone("pair", &["dgram"]);
    datagrams.assert_same(&lines);
    datagrams.assert_same(&["second, after the end: Connection refused"]);
    let packets = replay_alone("pair", &["packet"]);
    packets.assert_same(&lines);
    packets.assert_same(&["second, after the end: 0 bytes: "]);
}

#[test]
fn halves_that_are_shut_down_and_ends_that_are_closed() {
    replay_alone("shut_pair", &[]).assert_same(&[
        "the shut half: Broken pipe",
        "the open half: sent",
        "from the shut half: 10 bytes: last words",
        "from the shut half: 0 bytes: ",
        "from the open half: 4 bytes: late",
        "from the open half: Resource temporarily unavailable",
        "from the closed end: 0 bytes: ",
        "to the closed end: Broken pipe",
        "what the closed end left: 11 bytes: left behind",
        "what the closed end left: 0 bytes: ",
    ]);
}

#[test]
fn pairs_that_are_full() {
    replay_alone("full_pair", &[]).assert_same(&[
        "bytes: all, 0 wrong",
        "blocks: all, 0 wrong",
        "the other way: all, 0 wrong",
        "large: all, 0 wrong",
        "room again: 1",
    ]);
}

#[test]
fn an_event_loop_that_wakes_itself_up() {
    replay_alone("self_pipe", &[]).assert_same(&[
        "1 ready",
        "  abcd00000000 is 1",
        "read 1",
        "read -1: Resource temporarily unavailable",
        "0 ready",
        "read 2",
        "  abcd00000001 is 1",
        "  abcd00000000 is 2019",
    ]);
}

#[test]
fn a_server_of_ipv4_accepts_after_the_resume() {
    let runs = serve(&["tcp4", "again"], &|port| {
        visit_tcp(("127.0.0.1", port.parse().unwrap()))
    });
    runs.assert_same(&[
        "listens: 1",
        "receive buffer: 100000",
        "flags: 802 0 1",
        "backlog: 7",
        "reuse: 1",
        "no delay: 1",
        "keep alive: 1",
        "accept: -1, Resource temporarily unavailable",
        "1 ready: 1",
        "heard a visitor",
    ]);
}

#[test]
fn a_server_of_ipv6_accepts_after_the_resume() {
    if TcpListener::bind("[::1]:0").is_err() {
        eprintln!("skipped: this machine has no IPv6");
        return;
    }
    let runs = serve(&["tcp6", "again"], &|port| {
        visit_tcp(("::1", port.parse().unwrap()))
    });
    runs.assert_same(&["v6 only: 1", "heard a visitor"]);
    // Both IPs, one socket.
    let runs = serve(&["any", "again"], &|port| {
        visit_tcp(("127.0.0.1", port.parse().unwrap()))
    });
    runs.assert_same(&["v6 only: 0", "heard a visitor"]);
}

#[test]
fn a_server_of_mptcp_accepts_after_the_resume() {
    // What Go's listeners are made of. The kernel may be built without.
    let possible = rustix::net::socket(
        rustix::net::AddressFamily::INET,
        rustix::net::SocketType::STREAM,
        std::num::NonZero::new(libc::IPPROTO_MPTCP as u32).map(rustix::net::Protocol::from_raw),
    );
    if let Err(e) = possible {
        eprintln!("skipped: this machine has no MPTCP ({e})");
        return;
    }
    let runs = serve(&["mptcp", "again"], &|port| {
        visit_tcp(("127.0.0.1", port.parse().unwrap()))
    });
    runs.assert_same(&["backlog: 7", "no delay: 1", "heard a visitor"]);
}

#[test]
fn a_port_is_bound_again_without_the_option_to_reuse_it() {
    // Without SO_REUSEADDR the port is free again as long as no connection of
    // the run before lingers on it, and the option reads as it did.
    let mut driver = Driver::start("server", &["tcp4"]);
    let Reached::Checkpoint(task) = driver.run(&mut |_| {}) else {
        panic!("no checkpoint");
    };
    let mut image = driver.freeze(task).unwrap();
    driver.kill();
    for _ in 0..3 {
        driver.resume(&mut image).unwrap();
        let mut client = None;
        let mut reuse = None;
        let reached = driver.run(&mut |line| {
            if let Some(port) = line.strip_prefix("come to ") {
                let mut stream = TcpStream::connect(("127.0.0.1", port.parse().unwrap())).unwrap();
                stream.write_all(b"a visitor").unwrap();
                client = Some(stream);
            } else if line.starts_with("reuse") {
                reuse = Some(line.to_owned());
            }
        });
        assert!(matches!(reached, Reached::Stop), "{reached:?}");
        // Closed so, it resets the connection, and nothing is left of it.
        rustix::net::sockopt::set_socket_linger(client.unwrap(), Some(Duration::ZERO)).unwrap();
        assert_eq!(reuse.as_deref(), Some("reuse: 0"));
    }
    driver.discard(image);
}

#[test]
fn a_port_that_another_took_is_a_refusal_at_the_resume() {
    let mut driver = Driver::start("server", &["tcp4", "again"]);
    let Reached::Checkpoint(task) = driver.run(&mut |_| {}) else {
        panic!("no checkpoint");
    };
    let mut image = driver.freeze(task).unwrap();
    let mut port = 0;
    let mut first = None;
    driver.run(&mut |line| {
        if let Some(place) = line.strip_prefix("come to ") {
            port = place.parse().unwrap();
            first = Some(visit_tcp(("127.0.0.1", port)));
        }
    });
    first.unwrap().join().unwrap();
    // Both set SO_REUSEADDR, so that lingering connections are no matter.
    let taken = TcpListener::bind(("127.0.0.1", port)).unwrap();
    let refusal = driver.resume(&mut image).unwrap_err();
    assert_eq!(refusal.code(), "socket-rebind");
    let text = refusal.to_string();
    assert!(text.contains(&format!("127.0.0.1:{port}")), "{text}");
    drop(taken);
    driver.resume(&mut image).unwrap();
    driver.kill();
    driver.discard(image);
}

#[test]
fn a_server_at_a_path_accepts_after_the_resume() {
    let mut driver = Driver::start("server", &["unix", "{}/socket"]);
    let path = driver.folder().join("socket");
    let runs = serve_with(&mut driver, &|path| {
        visit_unix(UnixStream::connect(path).unwrap())
    });
    runs.assert_same(&[
        "listens: 1",
        "mode: 140640",
        "flags: 802 1 1",
        "heard a visitor",
    ]);
    assert!(path.metadata().unwrap().file_type().is_socket());
}

#[test]
fn a_server_of_an_abstract_name_accepts_after_the_resume() {
    let name = format!("snapshot-test-{}", std::process::id());
    // With the NUL at its end, which is part of the name as the fixture has it.
    let runs = serve(&["abstract", &name], &|name| {
        let address = SocketAddr::from_abstract_name(name).unwrap();
        visit_unix(UnixStream::connect_addr(&address).unwrap())
    });
    runs.assert_same(&["listens: 1", "heard a visitor"]);
}

#[test]
fn a_path_that_somebody_put_something_else_at_is_left_alone() {
    let mut driver = Driver::start("server", &["unix", "{}/socket"]);
    let path = driver.folder().join("socket");
    let Reached::Checkpoint(task) = driver.run(&mut |_| {}) else {
        panic!("no checkpoint");
    };
    let mut image = driver.freeze(task).unwrap();
    driver.kill();
    let kept = driver.folder().join("kept");
    std::fs::rename(&path, &kept).unwrap();
    let others = UnixListener::bind(&path).unwrap();
    let inode = path.metadata().unwrap().ino();
    let refusal = driver.resume(&mut image).unwrap_err();
    assert_eq!(refusal.code(), "socket-rebind", "{refusal}");
    image.remove_socket_file(&path).unwrap_err();
    assert_eq!(path.metadata().unwrap().ino(), inode);
    drop(others);
    std::fs::rename(&kept, &path).unwrap();
    assert_eq!(image.socket_files(), [path.as_path()]);
    image.remove_socket_file(&path).unwrap();
    assert!(!path.exists());
    driver.resume(&mut image).unwrap();
    assert!(path.metadata().unwrap().file_type().is_socket());
    driver.kill();
    driver.discard(image);
}

#[test]
fn sockets_that_are_not_connected_are_used_after_the_resume() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    let servant = std::thread::spawn(move || {
        for _ in 0..8 {
            let (mut stream, _) = listener.accept().unwrap();
            let mut text = [0; 5];
            stream.read_exact(&mut text).unwrap();
            stream.write_all(&text).unwrap();
        }
    });
    let lines = [
        "tcp: flags 802, no delay 1, send buffer 60000",
        "patience: 20.000000",
        "heard hello",
        "udp: close on exec 1, broadcast 1",
        "unix: 1 2 5",
        "bound: the same port 1, reuse 0",
        "link: type 16",
    ];
    replay_alone("fresh", &[&port]).assert_same(&lines);
    // A netlink socket that has asked something keeps its address.
    replay_alone("fresh", &[&port, "asked"]).assert_same(&lines);
    servant.join().unwrap();
}

/// Runs a case of the fixture of what cannot be brought back: its refusal, and
/// what it found when it went on.
fn refused(case: &str, place: &str) -> (Refusal, String) {
    let mut driver = Driver::start("refused", &[case, place]);
    let mut before = Vec::new();
    let Reached::Checkpoint(task) = driver.run(&mut |line| before.push(line.to_owned())) else {
        panic!("no checkpoint: {before:?}");
    };
    let refusal = driver.freeze(task).expect_err(case);
    let mut lines = Vec::new();
    let reached = driver.run(&mut |line| lines.push(line.to_owned()));
    assert!(
        matches!(reached, Reached::End(End::Exited(0))),
        "{case}: {reached:?}, {lines:?}"
    );
    (refusal, lines.join("\n"))
}

#[test]
fn what_cannot_be_brought_back_is_named_and_undisturbed() {
    for (case, code, words, found) in [
        ("full", "socket", "has not arrived yet", "mmmmmmmmmm"),
        (
            "waiting",
            "connection",
            "waits to be accepted at 127.0.0.1:",
            "Bad file d",
        ),
        ("ended", "connection", "has ended", "Connection"),
        (
            "udp-connected",
            "connection",
            "to 127.0.0.1:9",
            "Resource t",
        ),
        ("multicast", "socket", "multicast group", "Resource t"),
        ("open-file-under-way", "socket", "open files", "beforef"),
        ("out-of-band", "socket", "out-of-band", "urgen"),
        ("credentials", "socket", "credentials", "from me"),
        ("reset", "socket", "an error waiting", "Connection"),
        ("unlinked", "socket", "not there any more", "Invalid ar"),
    ] {
        let (refusal, lines) = refused(case, "{}/socket");
        assert_eq!(refusal.code(), code, "{case}: {refusal}");
        let text = refusal.to_string();
        assert!(text.contains(words), "{case}: {text}");
        assert!(text.contains("fd ") || case == "unlinked", "{case}: {text}");
        assert_eq!(lines, found, "{case}");
    }
}

#[test]
fn a_connection_to_the_outside_is_named_by_its_peer() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let servant = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        // Until the other end is closed.
        stream.read(&mut [0]).unwrap()
    });
    let (refusal, found) = refused("connection", &address.port().to_string());
    assert_eq!(refusal.code(), "connection");
    assert!(
        refusal.to_string().starts_with(&format!(
            "a connection to {address} is open (TCP socket, fd "
        )),
        "{refusal}"
    );
    assert_eq!(found, "Resource t");
    // No duplicate of the connection has stayed behind.
    assert_eq!(servant.join().unwrap(), 0);

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("server");
    let listener = UnixListener::bind(&path).unwrap();
    // Not accepted yet, the other end has no inode.
    unix_connection(&path);
    let (mut waiting, _) = listener.accept().unwrap();
    assert_eq!(waiting.read(&mut [0]).unwrap(), 0);
}

fn unix_connection(path: &Path) {
    let (refusal, _) = refused("unix-connection", path.to_str().unwrap());
    assert_eq!(refusal.code(), "connection");
    let text = refusal.to_string();
    assert!(text.contains(path.to_str().unwrap()), "{text}");
}

#[test]
fn a_family_that_is_not_known_is_named() {
    let mut driver = Driver::start("refused", &["crypto"]);
    let mut lines = Vec::new();
    let reached = driver.run(&mut |line| lines.push(line.to_owned()));
    let Reached::Checkpoint(task) = reached else {
        assert_eq!(lines, ["unavailable"]);
        return;
    };
    let refusal = driver.freeze(task).unwrap_err();
    assert_eq!(refusal.code(), "socket", "{refusal}");
}
