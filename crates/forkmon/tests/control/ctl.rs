//! `forkmon ctl`: whom it asks, what it says, and how it exits.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use forkmon::control::{Place, Reply, Server};

use super::harness::{Ground, plausible, serve, status};

fn command(ground: &Ground, folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_forkmon"));
    command
        .arg("ctl")
        .current_dir(folder)
        .env("XDG_RUNTIME_DIR", ground.path("run"))
        .env("FORKMON_NO_COLORS", "1")
        .stdin(Stdio::null());
    command
}

fn ctl(ground: &Ground, words: &[&str]) -> Output {
    let folder = ground.path("project");
    command(ground, &folder).args(words).output().unwrap()
}

/// Its exit status, standard output and standard error.
fn told(output: Output) -> (i32, String, String) {
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (
        output.status.code().unwrap(),
        text(output.stdout),
        text(output.stderr),
    )
}

#[track_caller]
fn says(ground: &Ground, words: &[&str], status: i32, output: &str) {
    let (code, stdout, stderr) = told(ctl(ground, words));
    assert_eq!(code, status, "{words:?}: {stderr}");
    assert_eq!(stdout, output, "{words:?}");
    assert_eq!(stderr, "", "{words:?}");
}

#[test]
fn it_asks_the_forkmon_of_this_project() {
    let ground = Ground::new();
    let (_server, log) = serve(ground.place(std::process::id()), plausible);
    says(&ground, &["checkpoint"], 0, "12\n");
    says(
        &ground,
        &["resume"],
        0,
        "resumed checkpoint 12, 1.02 s kept\n",
    );
    says(
        &ground,
        &["resume", "3"],
        0,
        "resumed checkpoint 3, 1.02 s kept\n",
    );
    says(&ground, &["restart"], 0, "restarted\n");
    says(&ground, &["wait"], 0, "137\n");
    let json = Reply::Status(status()).to_line();
    says(&ground, &["status", "--json"], 0, &json);
    assert_eq!(log.seen().len(), 6);

    let (code, stdout, _) = told(ctl(&ground, &["status"]));
    assert_eq!(code, 0);
    assert!(stdout.contains("lua main.lua"), "{stdout}");
    assert!(stdout.contains("(between accesses)"), "{stdout}");
    assert!(
        stdout.lines().all(|line| line.chars().count() <= 80),
        "{stdout}"
    );
}

#[test]
fn it_looks_upwards_for_the_project_as_forkmon_does() {
    let ground = Ground::new();
    std::fs::create_dir(ground.path("project/.git")).unwrap();
    std::fs::create_dir_all(ground.path("project/deep/inside")).unwrap();
    let (_server, _) = serve(ground.place(std::process::id()), plausible);
    let folder = ground.path("project/deep/inside");
    let asked = command(&ground, &folder)
        .arg("checkpoint")
        .output()
        .unwrap();
    assert_eq!(told(asked), (0, "12\n".to_owned(), String::new()));
}

#[test]
fn a_refusal_is_told_and_has_its_exit_status() {
    let ground = Ground::new();
    let (_server, _) = serve(ground.place(std::process::id()), plausible);
    let (code, stdout, stderr) = told(ctl(&ground, &["resume", "99"]));
    assert_eq!((code, stdout.as_str()), (1, ""));
    assert_eq!(stderr, "[forkmon] error: there is no checkpoint 99\n");
}

#[test]
fn without_a_forkmon_it_says_so() {
    let ground = Ground::new();
    let (code, stdout, stderr) = told(ctl(&ground, &["status"]));
    assert_eq!((code, stdout.as_str()), (2, ""));
    assert!(stderr.contains("no forkmon runs for"), "{stderr}");
    let project = ground.path("project").display().to_string();
    let mut lines = stderr.lines();
    assert!(lines.next().unwrap().contains(&project), "{stderr}");
    // Others may run on this machine, and are listed.
    assert!(lines.all(|other| !other.contains(&project)), "{stderr}");

    let missing = ground.path("missing").display().to_string();
    let (code, _, stderr) = told(ctl(&ground, &["--socket", &missing, "status"]));
    assert_eq!(code, 2);
    assert!(stderr.contains("no forkmon listens on"), "{stderr}");
    assert!(stderr.contains("missing"), "{stderr}");
}

#[test]
fn of_other_projects_there_is_a_list() {
    let ground = Ground::new();
    let place = Place::own(&ground.folders(), Path::new("/elsewhere"), 1);
    let (server, log) = serve(place, plausible);
    let (code, _, stderr) = told(ctl(&ground, &["quit"]));
    assert_eq!(code, 2);
    let socket = server.path().display().to_string();
    assert!(stderr.contains(&socket), "{stderr}");
    assert!(stderr.contains("lua in /home/u/project"), "{stderr}");
    // It was asked what it is, and for nothing else.
    assert_eq!(log.seen(), [forkmon::control::Request::Status]);
    // And it can be chosen from there.
    says(&ground, &["checkpoint", "--socket", &socket], 0, "12\n");
}

#[test]
fn among_several_of_one_project_nobody_is_asked() {
    let ground = Ground::new();
    let (one, _) = serve(ground.place(std::process::id()), plausible);
    let (two, _) = serve(ground.place(1), plausible);
    let (code, stdout, stderr) = told(ctl(&ground, &["checkpoint"]));
    assert_eq!((code, stdout.as_str()), (2, ""));
    for server in [&one, &two] {
        let socket = server.path().display().to_string();
        assert!(stderr.contains(&socket), "{stderr}");
    }
    assert!(stderr.contains("--socket"), "{stderr}");
    drop(two);
    says(&ground, &["checkpoint"], 0, "12\n");
}

#[test]
fn the_socket_of_a_dead_forkmon_is_skipped_and_removed() {
    let ground = Ground::new();
    let (_server, _) = serve(ground.place(std::process::id()), plausible);
    let dead = ground.place(4_194_305);
    drop(UnixListener::bind(dead.path()).unwrap());
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(dead.path(), mode).unwrap();
    says(&ground, &["checkpoint"], 0, "12\n");
    assert!(!dead.path().exists());
}

#[test]
fn a_lost_connection_has_an_exit_status_of_its_own() {
    let ground = Ground::new();
    let server = Server::start(ground.place(std::process::id()), drop).unwrap();
    let (code, stdout, stderr) = told(ctl(&ground, &["checkpoint"]));
    assert_eq!((code, stdout.as_str()), (3, ""));
    assert!(stderr.contains("has ended"), "{stderr}");
    drop(server);

    // Something else listens there.
    let path = ground.path("other");
    let listener = UnixListener::bind(&path).unwrap();
    let answering = std::thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        BufReader::new(&stream)
            .read_until(b'\n', &mut Vec::new())
            .unwrap();
        (&stream).write_all(b"220 ready\n").unwrap();
    });
    let socket = path.display().to_string();
    let (code, _, stderr) = told(ctl(&ground, &["--socket", &socket, "checkpoint"]));
    assert_eq!(code, 3);
    assert!(stderr.contains("cannot understand"), "{stderr}");
    answering.join().unwrap();
}

#[test]
fn quit_returns_when_forkmon_has_ended() {
    let ground = Ground::new();
    let path = ground.path("control");
    let listener = UnixListener::bind(&path).unwrap();
    let socket = path.display().to_string();
    let mut asking = command(&ground, &ground.path("project"))
        .args(["--socket", &socket, "quit"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let (stream, _) = listener.accept().unwrap();
    let mut line = Vec::new();
    BufReader::new(&stream)
        .read_until(b'\n', &mut line)
        .unwrap();
    assert_eq!(line, b"{\"action\":\"quit\"}\n");
    (&stream)
        .write_all(Reply::Quitting.to_line().as_bytes())
        .unwrap();
    assert!(asking.try_wait().unwrap().is_none(), "it did not wait");
    drop(stream);
    assert!(asking.wait().unwrap().success());
}

#[test]
fn wrong_usage_has_exit_status_2() {
    let ground = Ground::new();
    for words in [
        [].as_slice(),
        &["frobnicate"],
        &["resume", "latest"],
        &["resume", "-1"],
        &["checkpoint", "3"],
        &["checkpoint", "--json"],
        &["--socket"],
    ] {
        let (code, stdout, stderr) = told(ctl(&ground, words));
        assert_eq!((code, stdout.as_str()), (2, ""), "{words:?}: {stderr}");
        assert_eq!(stderr.lines().count(), 1, "{words:?}: {stderr}");
    }
    let (code, stdout, _) = told(ctl(&ground, &["--help"]));
    assert_eq!(code, 0);
    assert!(stdout.contains("3 connection lost"), "{stdout}");
}

/// What is to be removed, once forkmon was killed.
#[test]
fn the_guardian_removes_a_dead_socket_and_its_folder_only() {
    let ground = Ground::new();
    let dead = ground.place(4711);
    dead.prepare().unwrap();
    let stale = |path: &Path, mode| {
        drop(UnixListener::bind(path).unwrap());
        let mode = std::os::unix::fs::PermissionsExt::from_mode(mode);
        std::fs::set_permissions(path, mode).unwrap();
    };
    stale(dead.path(), 0o600);
    let (alive, open, file) = (
        ground.path("alive"),
        ground.path("open"),
        ground.path("file"),
    );
    let (_server, _) = serve(Place::named(&alive).unwrap(), plausible);
    stale(&open, 0o666);
    std::fs::write(&file, "precious").unwrap();
    // A name like that of a store.
    let hidden = ground.path(".forkmon-socket");
    stale(&hidden, 0o600);
    let mut guardian = Command::new(env!("CARGO_BIN_EXE_forkmon"))
        .arg("__guardian")
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let mut pipe = guardian.stdin.take().unwrap();
    for path in [dead.path(), &alive, &open, &file, &hidden] {
        pipe.write_all(path.as_os_str().as_bytes()).unwrap();
        pipe.write_all(b"\0").unwrap();
    }
    drop(pipe);
    assert!(guardian.wait().unwrap().success());
    assert!(!dead.path().exists());
    assert!(!ground.sockets().exists());
    assert!(!hidden.exists());
    assert!(alive.exists() && open.exists() && file.exists());
    assert!(ground.path("run").exists());
}
