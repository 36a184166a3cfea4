//! The guardian as a process: what it removes when its pipe ends, and what does
//! not end it.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::io::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

/// Started as `Guardian::start` does, from outside.
fn guardian() -> Child {
    Command::new(env!("CARGO_BIN_EXE_forkmon"))
        .arg("__guardian")
        .process_group(0)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

fn tell(guardian: &mut Child, path: &Path) {
    let pipe = guardian.stdin.as_mut().unwrap();
    pipe.write_all(path.as_os_str().as_bytes()).unwrap();
    pipe.write_all(b"\0").unwrap();
}

/// Ends its pipe, and waits for it.
fn end(mut guardian: Child) {
    drop(guardian.stdin.take());
    let output = guardian.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", output.status);
    assert!(output.stdout.is_empty());
    assert!(output.stderr.is_empty());
}

fn store(dir: &Path, name: &str) -> std::path::PathBuf {
    let store = dir.join(name);
    std::fs::create_dir(&store).unwrap();
    std::fs::write(store.join("saved"), "bytes").unwrap();
    store
}

#[test]
fn stores_are_removed_when_the_pipe_ends_and_nothing_else_is() {
    let dir = tempfile::tempdir().unwrap();
    let (one, two) = (
        store(dir.path(), ".forkmon-1-a"),
        store(dir.path(), ".forkmon-1-b"),
    );
    let kept = store(dir.path(), "precious");
    let mut guardian = guardian();
    for path in [&one, &kept, &two, &dir.path().join(".forkmon-gone")] {
        tell(&mut guardian, path);
    }
    assert!(one.exists(), "too early");
    end(guardian);
    assert!(!one.exists() && !two.exists());
    assert!(kept.join("saved").exists());
}

/// What may be somebody's lies in a folder that is only removed if it is empty, with the
/// folder of forkmon's own that it is in.
#[test]
fn a_folder_with_something_in_it_that_is_to_be_kept_stays() {
    for kept in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let own = dir.path().join("forkmon");
        let keep = own.join("kept-1-a");
        std::fs::create_dir_all(&keep).unwrap();
        if kept {
            std::fs::write(keep.join("1-notes.txt"), "somebody's").unwrap();
        }
        let mut guardian = guardian();
        let pipe = guardian.stdin.as_mut().unwrap();
        pipe.write_all(b"if-empty:").unwrap();
        tell(&mut guardian, &keep);
        end(guardian);
        assert_eq!(keep.join("1-notes.txt").exists(), kept);
        assert_eq!(own.exists(), kept);
        assert!(dir.path().exists());
    }
}

#[test]
fn the_signals_that_end_forkmon_do_not_end_it() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path(), ".forkmon-1-a");
    let mut guardian = guardian();
    tell(&mut guardian, &store);
    let pid = Pid::from_child(&guardian);
    // Its name is set after its signals are, so it is ready to be shot at.
    let name = format!("/proc/{}/comm", guardian.id());
    while std::fs::read_to_string(&name).unwrap().trim() != "forkmon-guard" {
        assert!(guardian.try_wait().unwrap().is_none(), "it ended");
        std::thread::yield_now();
    }
    for signal in [
        Signal::INT,
        Signal::TERM,
        Signal::HUP,
        Signal::QUIT,
        Signal::URG,
        Signal::PIPE,
    ] {
        kill_process(pid, signal).unwrap();
    }
    end(guardian);
    assert!(!store.exists());
}

#[test]
fn it_holds_nothing_that_it_inherited() {
    let mut guardian = guardian();
    let name = format!("/proc/{}/comm", guardian.id());
    while std::fs::read_to_string(&name).unwrap().trim() != "forkmon-guard" {
        assert!(guardian.try_wait().unwrap().is_none(), "it ended");
        std::thread::yield_now();
    }
    let held = std::fs::read_dir(format!("/proc/{}/fd", guardian.id()))
        .unwrap()
        .count();
    assert_eq!(held, 3);
    end(guardian);
}

#[test]
fn a_path_that_was_cut_off_is_not_removed() {
    let dir = tempfile::tempdir().unwrap();
    // The whole path would have been another one.
    let store = store(dir.path(), ".forkmon-1");
    let mut guardian = guardian();
    let pipe = guardian.stdin.as_mut().unwrap();
    pipe.write_all(store.as_os_str().as_bytes()).unwrap();
    end(guardian);
    assert!(store.exists());
}
