//! A real forkmon, asked by `forkmon ctl`.

use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};

use forkmon::control::{Reply, Request};
use rustix::process::Signal;

use super::harness::{Client, Ground};
use super::process::{Process, ctl, done, names, until};

/// A guest that says so when it is up, and then waits.
const WAITING: [&str; 3] = ["sh", "-c", "echo up; exec sleep 1000"];

fn started(ground: &Ground, options: &[&str]) -> Process {
    let mut forkmon = Process::forkmon(ground, options, &WAITING);
    forkmon.wait_for("up\n");
    forkmon
}

#[test]
fn a_guest_is_frozen_resumed_and_restarted_by_hand() {
    let ground = Ground::new();
    let mut forkmon = started(&ground, &[]);
    let id = done(&ground, &["checkpoint"]);
    let number: u64 = id.parse().unwrap();
    let resumed = done(&ground, &["resume", &id]);
    assert!(
        resumed.starts_with(&format!("resumed checkpoint {id}, ")),
        "{resumed}"
    );
    forkmon.wait_for("resumed from");
    let resumed = done(&ground, &["resume"]);
    assert!(
        resumed.starts_with(&format!("resumed checkpoint {id}, ")),
        "{resumed}"
    );
    assert_eq!(done(&ground, &["restart"]), "restarted");
    forkmon.wait_for("up\n");

    let (code, stdout, stderr) = ctl(&ground, &["resume", "4711"]);
    assert_eq!((code, stdout.as_str()), (1, ""));
    assert!(stderr.contains("4711"), "{stderr}");

    let next: u64 = done(&ground, &["checkpoint"]).parse().unwrap();
    assert!(next > number, "{next} was used before");
    assert_eq!(done(&ground, &["quit"]), "");
    // It has ended by now.
    assert!(ctl(&ground, &["status"]).2.contains("no forkmon runs"));
    forkmon.wait_end();
    assert_eq!(names(&ground.path("run")), [] as [&str; 0]);
}

#[test]
fn the_state_is_told() {
    let ground = Ground::new();
    let forkmon = started(&ground, &[]);
    let id: u64 = done(&ground, &["checkpoint"]).parse().unwrap();
    let Reply::Status(status) =
        Reply::parse(done(&ground, &["status", "--json"]).as_bytes()).unwrap()
    else {
        panic!("it is no status");
    };
    assert_eq!(status.pid, forkmon.id());
    assert_eq!(status.root, ground.path("project").canonicalize().unwrap());
    assert_eq!(status.argv, WAITING);
    let guest = std::fs::read_to_string(format!("/proc/{}/comm", status.guest.unwrap()));
    assert_eq!(guest.unwrap(), "sleep\n");
    let taken = status.checkpoints.last().unwrap();
    assert_eq!((taken.id, &taken.path, taken.threads), (id, &None, 1));
    assert!(taken.resident_bytes > 0);
    assert!(taken.age_ms >= 0.0 && taken.guest_ms >= 0.0);

    let table = done(&ground, &["status"]);
    assert!(table.contains("(between accesses)"), "{table}");
    done(&ground, &["quit"]);
}

#[test]
fn a_guest_that_has_ended_can_be_resumed_but_not_frozen() {
    let ground = Ground::new();
    let mut forkmon = Process::forkmon(&ground, &[], &["sh", "-c", "echo up; read x; echo on"]);
    forkmon.wait_for("up\n");
    let id = done(&ground, &["checkpoint"]);
    forkmon.type_in("\n");
    forkmon.wait_for("on\n");
    forkmon.wait_for("waiting for an edit");
    let (code, _, stderr) = ctl(&ground, &["checkpoint"]);
    assert_eq!(code, 1, "{stderr}");
    done(&ground, &["resume", &id]);
    forkmon.wait_for("resumed from");
    assert!(done(&ground, &["status", "--json"]).contains("\"guest\":"));
    done(&ground, &["quit"]);
}

#[test]
fn the_socket_is_where_it_was_wanted() {
    let ground = Ground::new();
    let path = ground.path("control");
    let socket = path.display().to_string();
    let mut forkmon = started(&ground, &["--control", &socket]);
    let mode = path.symlink_metadata().unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    done(&ground, &["--socket", &socket, "checkpoint"]);
    // It is not found by itself then.
    assert_eq!(ctl(&ground, &["status"]).0, 2);

    // Somebody else cannot have it.
    let mut other = Process::forkmon(&ground, &["--control", &socket], &WAITING);
    other.wait_for("somebody listens on");
    assert_eq!(other.wait_end().code(), Some(125));
    done(&ground, &["--socket", &socket, "quit"]);
    forkmon.wait_end();
    assert!(!path.exists());

    // What a killed one has left is replaced.
    drop(UnixListener::bind(&path).unwrap());
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    let mut forkmon = started(&ground, &["--control", &socket]);
    done(&ground, &["--socket", &socket, "quit"]);
    forkmon.wait_end();

    // And nothing else is.
    std::fs::write(&path, "precious").unwrap();
    let mut forkmon = Process::forkmon(&ground, &["--control", &socket], &WAITING);
    forkmon.wait_for("is there already");
    assert_eq!(forkmon.wait_end().code(), Some(125));
    assert_eq!(std::fs::read(&path).unwrap(), b"precious");
}

#[test]
fn nothing_is_left_however_it_ends() {
    for signal in [
        Signal::INT,
        Signal::TERM,
        Signal::HUP,
        Signal::KILL,
        Signal::ABORT,
    ] {
        let ground = Ground::new();
        let named = ground.path("control");
        let mut one = started(&ground, &[]);
        let mut two = started(&ground, &["--control", &named.display().to_string()]);
        assert_eq!(names(&ground.sockets()).len(), 1);
        assert!(named.exists());
        one.signal(signal);
        two.signal(signal);
        one.wait_end();
        two.wait_end();
        // After some of these, the guardian does it, a moment later.
        until("the sockets are removed", || {
            !named.exists() && names(&ground.path("run")).is_empty()
        });
    }
}

#[test]
fn a_run_that_is_not_watched_has_no_socket() {
    let ground = Ground::new();
    let control = ground.path("control");
    let mut forkmon = Process::forkmon(
        &ground,
        &["--once", "--control", &control.display().to_string()],
        &["sh", "-c", "echo up; read x"],
    );
    forkmon.wait_for("up\n");
    assert!(!control.exists());
    assert!(names(&ground.path("run")).is_empty());
    forkmon.type_in("\n");
    assert_eq!(forkmon.wait_end().code(), Some(0));
}

#[test]
fn without_a_place_for_it_the_guest_runs_all_the_same() {
    let ground = Ground::new();
    std::fs::write(ground.sockets(), "not a folder").unwrap();
    let mut forkmon = Process::forkmon(&ground, &[], &WAITING);
    let told = forkmon.wait_for("up\n");
    assert!(
        told.contains("warning: forkmon ctl will not find this one"),
        "{told}"
    );
    forkmon.signal(Signal::TERM);
    forkmon.wait_end();
    assert_eq!(std::fs::read(ground.sockets()).unwrap(), b"not a folder");
}

#[test]
fn malformed_messages_and_a_thousand_clients_change_nothing() {
    let ground = Ground::new();
    let control = ground.path("control");
    let socket = control.display().to_string();
    let mut forkmon = started(&ground, &["--control", &socket]);
    done(&ground, &["--socket", &socket, "checkpoint"]);
    let state = || match Client::connect(&control).ask(Request::Status) {
        Some(Reply::Status(status)) => {
            let ids: Vec<u64> = status.checkpoints.iter().map(|one| one.id).collect();
            (status.run, status.guest, ids)
        }
        other => panic!("{other:?}"),
    };
    let count = |what: &str| {
        let folder = format!("/proc/{}/{what}", forkmon.id());
        std::fs::read_dir(folder).unwrap().count()
    };
    let before = state();
    let (files, threads) = (count("fd"), count("task"));
    let mut client = Client::connect(&control);
    for line in ["quit\n", "{}\n", "{\"action\":\"restart\",\"id\":1}\n"] {
        client.send(line.as_bytes());
        assert!(matches!(client.answer(), Some(Reply::Refused { .. })));
    }
    let mut silent = Vec::new();
    for _ in 0..1_000 {
        silent.push(UnixStream::connect(&control).unwrap());
        if silent.len() > 300 {
            silent.remove(0);
        }
    }
    assert_eq!(state(), before);
    assert!(count("fd") < files + 80);
    assert!(count("task") < threads + 20);
    assert_eq!(done(&ground, &["--socket", &socket, "quit"]), "");
    forkmon.wait_end();
}
