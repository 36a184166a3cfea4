//! The listening end: who is heard, and what is answered.

use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, channel};

use forkmon::control::{Asked, Place, Reply, Request, Server};

use super::harness::{Client, Ground, PATIENCE, as_root, plausible, serve, status};

/// A server whose requests are answered by the test, when it likes.
fn held(place: Place) -> (Server, Receiver<Asked>) {
    let (sender, asked) = channel();
    let server = Server::start(place, move |request| sender.send(request).unwrap());
    (server.unwrap(), asked)
}

#[track_caller]
fn code(reply: Option<Reply>) -> String {
    match reply {
        Some(Reply::Refused { code, .. }) => code,
        other => panic!("{other:?} is no refusal"),
    }
}

#[test]
fn each_request_is_answered() {
    let ground = Ground::new();
    let (server, log) = serve(ground.place(1), plausible);
    let mut client = Client::connect(server.path());
    let all = [
        (Request::Checkpoint, Reply::Checkpoint { id: 12 }),
        (Request::Status, Reply::Status(status())),
        (
            Request::Resume { id: Some(3) },
            Reply::Resumed {
                from: 3,
                kept_ms: 1_020.0,
            },
        ),
        (Request::Restart, Reply::Restarted),
        (Request::Quit, Reply::Quitting),
    ];
    for (request, reply) in all.clone() {
        assert_eq!(client.ask(request), Some(reply));
    }
    assert_eq!(log.seen(), all.map(|(request, _)| request));
}

#[test]
fn several_requests_at_once_are_answered_in_order() {
    let ground = Ground::new();
    let (server, log) = serve(ground.place(1), plausible);
    let mut client = Client::connect(server.path());
    let mut lines = String::new();
    for id in 0..50 {
        lines.push_str(&Request::Resume { id: Some(id) }.to_line());
    }
    client.send(lines.as_bytes());
    for id in 0..50 {
        match client.answer() {
            Some(Reply::Resumed { from, .. }) => assert_eq!(from, id),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(log.seen().len(), 50);
}

#[test]
fn a_request_in_pieces_is_one() {
    let ground = Ground::new();
    let (server, _) = serve(ground.place(1), plausible);
    let mut client = Client::connect(server.path());
    for byte in Request::Restart.to_line().bytes() {
        client.send(&[byte]);
    }
    assert_eq!(client.answer(), Some(Reply::Restarted));
}

#[test]
fn a_malformed_message_changes_nothing() {
    let ground = Ground::new();
    let (server, log) = serve(ground.place(1), plausible);
    let mut client = Client::connect(server.path());
    for line in [
        "\n",
        "quit\n",
        "{\"action\":\"quit\",\"id\":1}\n",
        "{\"action\":\"destroy\"}\n",
        "\0\u{ff}\n",
    ] {
        client.send(line.as_bytes());
        assert_eq!(code(client.answer()), "malformed", "{line:?}");
    }
    assert_eq!(log.seen(), []);
    // The next line counts again.
    assert_eq!(client.ask(Request::Restart), Some(Reply::Restarted));
}

#[test]
fn half_a_request_is_none() {
    let ground = Ground::new();
    let (server, log) = serve(ground.place(1), plausible);
    let line = Request::Quit.to_line();
    Client::connect(server.path()).send(line.trim_end().as_bytes());
    let answer = Client::connect(server.path()).ask(Request::Restart);
    assert_eq!(answer, Some(Reply::Restarted));
    assert_eq!(log.seen(), [Request::Restart]);
}

#[test]
fn an_answer_may_take_its_time_and_holds_nobody_up() {
    let ground = Ground::new();
    let (server, asked) = held(ground.place(1));
    let mut slow = Client::connect(server.path());
    slow.send(Request::Checkpoint.to_line().as_bytes());
    let first = asked.recv_timeout(PATIENCE).unwrap();
    assert_eq!(first.request, Request::Checkpoint);

    let mut quick = Client::connect(server.path());
    quick.send(Request::Restart.to_line().as_bytes());
    let second = asked.recv_timeout(PATIENCE).unwrap();
    second.answer.send(Reply::Restarted).unwrap();
    assert_eq!(quick.answer(), Some(Reply::Restarted));

    first.answer.send(Reply::Checkpoint { id: 5 }).unwrap();
    assert_eq!(slow.answer(), Some(Reply::Checkpoint { id: 5 }));
}

#[test]
fn only_so_many_requests_are_in_the_works() {
    let ground = Ground::new();
    let (server, asked) = held(ground.place(1));
    let mut clients = Vec::new();
    let mut works = Vec::new();
    for _ in 0..16 {
        let mut client = Client::connect(server.path());
        client.send(Request::Status.to_line().as_bytes());
        works.push(asked.recv_timeout(PATIENCE).unwrap());
        clients.push(client);
    }
    let mut late = Client::connect(server.path());
    assert_eq!(code(late.ask(Request::Quit)), "busy");
    for one in works.drain(..) {
        one.answer.send(Reply::Restarted).unwrap();
    }
    for client in &mut clients {
        assert_eq!(client.answer(), Some(Reply::Restarted));
    }
    late.send(Request::Quit.to_line().as_bytes());
    let again = asked.recv_timeout(PATIENCE).unwrap();
    assert_eq!(again.request, Request::Quit);
}

#[test]
fn the_end_of_forkmon_is_the_end_of_the_connection() {
    let ground = Ground::new();
    let (server, asked) = held(ground.place(1));
    let mut client = Client::connect(server.path());
    client.send(Request::Checkpoint.to_line().as_bytes());
    drop(asked.recv_timeout(PATIENCE).unwrap());
    assert_eq!(client.answer(), None);
}

/// The answer to `quit` is given when forkmon is about to end.
#[test]
fn an_answer_that_was_given_arrives_though_forkmon_ends() {
    for _ in 0..20 {
        let ground = Ground::new();
        let (server, asked) = held(ground.place(1));
        let mut client = Client::connect(server.path());
        client.send(Request::Quit.to_line().as_bytes());
        let request = asked.recv_timeout(PATIENCE).unwrap();
        request.answer.send(Reply::Quitting).unwrap();
        drop(server);
        assert_eq!(client.answer(), Some(Reply::Quitting));
        client.wait_end();
    }
}

#[test]
fn another_user_is_not_heard() {
    if !as_root() {
        return;
    }
    let ground = Ground::new();
    ground.set_mode("", 0o755);
    let program = ground.path("forkmon");
    std::fs::copy(env!("CARGO_BIN_EXE_forkmon"), &program).unwrap();
    let (server, log) = serve(Place::named(&ground.path("control")).unwrap(), plausible);
    let as_nobody = || {
        let asked = Command::new("setpriv")
            .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
            .arg(&program)
            .args(["ctl", "--socket"])
            .arg(server.path())
            .arg("quit")
            .current_dir("/")
            .stdin(Stdio::null())
            .output()
            .unwrap();
        (
            asked.status.code(),
            String::from_utf8_lossy(&asked.stderr).into_owned(),
        )
    };
    let (status, told) = as_nobody();
    assert_eq!(status, Some(2), "{told}");
    assert!(told.contains("Permission denied"), "{told}");
    // Even if somebody has opened the socket to all.
    ground.set_mode("control", 0o777);
    let (status, told) = as_nobody();
    assert_eq!(status, Some(3), "{told}");
    assert_eq!(log.seen(), []);
}
