//! Servers, which read some files only when they are asked.

use std::io::Read;
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
