//! Servers, which read some files only when they are asked.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use crate::harness::{Project, Save};
use crate::require_guest;

/// What a server answers to a client that says nothing.
fn visit(port: u16) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("the server listens");
    stream
        .set_read_timeout(Some(Duration::from_secs(60)))
        .expect("a time can be set");
    let mut answer = String::new();
    stream
        .read_to_string(&mut answer)
        .expect("the server answers");
    answer
}

/// While a file is read for a client, a connection is open, and there is no
/// checkpoint. The one that serves is where the server waited for its first.
#[test]
fn what_is_read_for_a_client_resumes_where_the_server_waited() {
    let python = require_guest!("python3");
    let mut project = Project::new("idle-server").file("page.txt", "one").file(
        "main.py",
        r#"
import socket, time
end = time.monotonic() + 0.3
while time.monotonic() < end: pass
server = socket.create_server(("127.0.0.1", 0))
print("early", server.getsockname()[1], flush=True)
while True:
    client, _ = server.accept()
    with client, open("page.txt") as page:
        client.sendall(page.read().encode())
"#,
    );
    let mut forkmon = project.watch(&[python.as_str(), "main.py"]);
    let early = forkmon.wait_output("\n");
    let port: u16 = early
        .trim()
        .trim_start_matches("early ")
        .parse()
        .expect("the server says its port");
    loop {
        let checkpoint = forkmon.wait_event("checkpoint");
        if checkpoint.value["path"].is_null() {
            break;
        }
    }
    assert_eq!(visit(port), "one");
    for (text, how) in [
        ("two", Save::InPlace),
        ("three", Save::ByRename),
        ("four", Save::LikeVim),
    ] {
        project.save("page.txt", text, how);
        let resume = forkmon.wait_resume();
        assert!(resume.from.is_some(), "{resume:?}");
        assert!(resume.kept_ms >= 300.0, "{resume:?}");
        assert_eq!(visit(port), text);
    }
    assert_eq!(forkmon.output().matches("early").count(), 1);
    forkmon.finish();
}

/// A program that is connected to somebody else when it reads its last file.
fn client(name: &str) -> Project {
    Project::new(name).file("late.txt", "one").file(
        "main.py",
        r#"
import socket, sys, time
end = time.monotonic() + 0.2
while time.monotonic() < end: pass
peer = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
print("connected", flush=True)
end = time.monotonic() + 0.2
while time.monotonic() < end: pass
print(open("late.txt").read(), flush=True)
try:
    peer.sendall(b"x")
    print("heard", peer.recv(1), flush=True)
except OSError as error:
    print("lost", type(error).__name__, flush=True)
"#,
    )
}

/// Answers each client that connects, for ever.
fn echo() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let port = listener.local_addr().expect("it is bound").port();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let mut byte = [0];
                // A client that is dropped says nothing more.
                while stream.read_exact(&mut byte).is_ok() && stream.write_all(&byte).is_ok() {}
            });
        }
    });
    port
}

#[test]
fn with_a_connection_to_somebody_there_is_no_checkpoint_unless_it_may_be_lost() {
    let python = require_guest!("python3");
    for (choice, connected, outcome) in [
        ("skip", true, "two\nheard b'x'\n"),
        ("reset", false, "two\nlost ConnectionResetError\n"),
    ] {
        let port = echo().to_string();
        let mut project = client(choice);
        let mut forkmon = project
            .launch(&[python.as_str(), "main.py", &port])
            .option("--on-connection")
            .option(choice)
            .start();
        let exit = forkmon.wait_exit();
        assert_eq!(exit.output, "connected\none\nheard b'x'\n");
        for how in [Save::InPlace, Save::ByRename] {
            project.save("late.txt", "two", how);
            let resume = forkmon.wait_resume();
            assert!(resume.from.is_some(), "{choice}: {resume:?}");
            let exit = forkmon.wait_exit();
            assert_eq!(exit.output.contains("connected"), connected, "{exit:?}");
            assert!(exit.output.ends_with(outcome), "{choice}: {exit:?}");
            project.save("late.txt", "one", how);
            forkmon.wait_resume();
            forkmon.wait_exit();
        }
        let refused = forkmon.warnings().iter().any(|code| code == "connection");
        assert_eq!(refused, choice == "skip", "{:?}", forkmon.warnings());
        forkmon.finish();
    }
}
