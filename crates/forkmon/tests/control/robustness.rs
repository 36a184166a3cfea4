//! Clients that want nothing, or harm: they hold up neither others nor the end.

use std::collections::VecDeque;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::channel;
use std::time::Instant;

use forkmon::control::protocol::MAX_LINE;
use forkmon::control::{Reply, Request, Server};

use super::harness::{Client, Ground, PATIENCE, plausible, serve};

fn open_files() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

fn threads() -> usize {
    std::fs::read_dir("/proc/self/task").unwrap().count()
}

#[test]
fn silent_and_endless_clients_do_not_hold_up_others() {
    let ground = Ground::new();
    let (server, log) = serve(ground.place(1), plausible);
    let silent = Client::connect(server.path());
    let mut half = Client::connect(server.path());
    half.send(b"{\"action\":");
    let mut endless = Client::connect(server.path());
    endless.send(&vec![b' '; 1 << 20]);
    let mut good = Client::connect(server.path());
    assert_eq!(good.ask(Request::Restart), Some(Reply::Restarted));
    match endless.answer() {
        Some(Reply::Refused { code, message }) => {
            assert_eq!(code, "malformed");
            assert!(message.contains(&MAX_LINE.to_string()), "{message}");
        }
        // What it had not sent by then makes the kernel reset the connection.
        None => {}
        other => panic!("{other:?}"),
    }
    endless.wait_end();
    assert_eq!(log.seen(), [Request::Restart]);
    drop(silent);
}

#[test]
fn the_longest_line_is_read_and_a_longer_one_is_not() {
    let ground = Ground::new();
    let (server, _) = serve(ground.place(1), plausible);
    let padded = |length: usize| {
        let mut line = Request::Restart.to_line().trim_end().to_owned();
        line.push_str(&" ".repeat(length - line.len()));
        line + "\n"
    };
    let mut client = Client::connect(server.path());
    client.send(padded(MAX_LINE).as_bytes());
    assert_eq!(client.answer(), Some(Reply::Restarted));
    client.send(padded(MAX_LINE + 1).as_bytes());
    assert!(matches!(client.answer(), Some(Reply::Refused { .. })));
}

#[test]
fn a_thousand_connections_are_dropped_oldest_first() {
    let ground = Ground::new();
    let (server, _) = serve(ground.place(1), plausible);
    let mut good = Client::connect(server.path());
    let (files_before, threads_before) = (open_files(), threads());
    let mut kept = VecDeque::new();
    for _ in 0..1_000 {
        kept.push_back(UnixStream::connect(server.path()).unwrap());
        // This process may have few descriptors itself.
        if kept.len() > 200 {
            kept.pop_front();
        }
    }
    let mut late = Client::connect(server.path());
    assert_eq!(late.ask(Request::Restart), Some(Reply::Restarted));
    let files = open_files() - kept.len();
    assert!(files < files_before + 100, "{files_before}, then {files}");
    assert!(threads() < threads_before + 20);
    // Of a thousand newer ones, none was as good as this.
    good.wait_end();
    // The newest are still there.
    let newest = kept.back().unwrap();
    newest.set_nonblocking(true).unwrap();
    let read = std::io::Read::read(&mut { newest }, &mut [0]);
    assert_eq!(read.unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
}

#[test]
fn a_client_that_does_not_read_is_let_go() {
    let ground = Ground::new();
    let (server, log) = serve(ground.place(1), plausible);
    let mut deaf = Client::connect(server.path());
    // Far more answers than a socket holds.
    for _ in 0..100 {
        deaf.send(&vec![b'\n'; MAX_LINE]);
    }
    let mut good = Client::connect(server.path());
    assert_eq!(good.ask(Request::Restart), Some(Reply::Restarted));
    deaf.wait_end();
    assert_eq!(log.seen(), [Request::Restart]);
}

#[test]
fn the_end_waits_for_nobody() {
    let ground = Ground::new();
    let (sender, asked) = channel();
    let server = Server::start(ground.place(1), move |request| {
        sender.send(request).unwrap();
    })
    .unwrap();
    let _silent = Client::connect(server.path());
    let mut half = Client::connect(server.path());
    half.send(b"{");
    let mut waiting = Client::connect(server.path());
    waiting.send(Request::Status.to_line().as_bytes());
    // Never answered.
    let request = asked.recv_timeout(PATIENCE).unwrap();
    let began = Instant::now();
    let path = server.path().to_owned();
    drop(server);
    assert!(began.elapsed() < PATIENCE / 2, "it hangs");
    assert!(!path.exists());
    half.wait_end();
    drop(request);
    assert_eq!(waiting.answer(), None);
}

#[test]
fn those_who_ask_and_go_away_leave_nothing() {
    let ground = Ground::new();
    let (server, log) = serve(ground.place(1), plausible);
    let (files, threads_before) = (open_files(), threads());
    let mut asked = 0;
    for _ in 0..300 {
        Client::connect(server.path()).send(Request::Status.to_line().as_bytes());
        asked += 1;
    }
    let mut good = Client::connect(server.path());
    // With many in the works at a time, this one may have to come again.
    let deadline = Instant::now() + PATIENCE;
    while good.ask(Request::Restart) != Some(Reply::Restarted) {
        assert!(Instant::now() < deadline, "never");
    }
    assert!(log.seen().len() <= asked + 1);
    assert!(open_files() < files + 100);
    assert!(threads() < threads_before + 20);
}
