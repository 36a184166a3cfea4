//! Moments at which somebody asks for a checkpoint and the guest is not where it
//! could be frozen at once.

use std::path::PathBuf;

use rustix::process::{Pid, Signal, kill_process};

use crate::harness::{Forkmon, Project, Save, build_c, is_stopped};
use crate::require_guest;
use crate::state::{command, ctl, ctl_done};

/// Runs the fixture `moments` until it says that it is there.
fn start(project: &Project, words: &[&str]) -> (Forkmon, PathBuf) {
    let program = build_c("moments.c", &project.beside(), &["-pthread"]);
    let mut argv = vec![program.as_str()];
    argv.extend(words);
    launch(project, &argv)
}

fn launch(project: &Project, argv: &[&str]) -> (Forkmon, PathBuf) {
    let socket = project.beside().join("control");
    let mut forkmon = project
        .launch(argv)
        .option("--control")
        .option(&socket)
        .with_input()
        .start();
    forkmon.wait_output("checkpoint\n");
    (forkmon, socket)
}

/// A checkpoint is refused with these words, and the guest is undisturbed.
#[track_caller]
fn refused(words: &[&str], why: &str) {
    let project = Project::new("refused");
    let (mut forkmon, socket) = start(&project, words);
    let answer = ctl(&socket, &["checkpoint"]);
    let said = String::from_utf8_lossy(&answer.stderr).into_owned();
    assert_eq!(answer.status.code(), Some(1), "{said}");
    assert!(said.contains(why), "{said}");
    forkmon.type_line("");
    let exit = forkmon.wait_exit();
    assert!(exit.output.ends_with("over\n"), "{exit:?}");
    forkmon.finish();
}

#[test]
fn a_guest_whose_first_thread_has_ended_is_refused() {
    refused(&["leader-ended"], "first thread has ended");
}

#[test]
fn a_guest_with_a_child_is_refused() {
    refused(&["child"], "has a child process");
}

/// A guest in vfork is frozen as soon as it is out of it.
#[test]
fn a_guest_in_vfork_is_waited_for() {
    let project = Project::new("vfork-wait");
    let (mut forkmon, socket) = start(&project, &["vfork", "300"]);
    let id = ctl_done(&socket, &["checkpoint"]);
    for round in 0..3 {
        if round > 0 {
            ctl_done(&socket, &["resume", &id]);
            assert!(forkmon.wait_resume().from.is_some());
        }
        forkmon.type_line("");
        let exit = forkmon.wait_exit();
        assert!(exit.output.ends_with("over\n"), "{exit:?}");
    }
    forkmon.finish();
}

/// The same checkpoint, when an edit resumes it: a fresh run would not be stopped.
#[test]
fn an_edit_lets_a_guest_go_on_that_was_stopped() {
    let perl = require_guest!("perl");
    let mut project = Project::new("stopped-edit").file("late.txt", "one\n");
    let guest = project.perl("print \"checkpoint\\n\"; <STDIN>; print slurp('late.txt'), \"\\n\";");
    let (mut forkmon, socket) = launch(&project, &[perl.as_str(), &guest]);
    let pid = guest_of(&socket);
    let guest = Pid::from_raw(pid).expect("an id is no 0");
    kill_process(guest, Signal::STOP).expect("it is alive");
    while !is_stopped(pid) {
        std::thread::yield_now();
    }
    let id = ctl_done(&socket, &["checkpoint"]);
    kill_process(guest, Signal::CONT).expect("it is alive");
    forkmon.type_line("");
    assert_eq!(forkmon.wait_exit().output, "one\n");
    project.save("late.txt", "two\n", Save::InPlace);
    let resume = forkmon.wait_resume();
    assert!(
        resume.from.is_some_and(|from| from.to_string() >= id),
        "{resume:?}"
    );
    if resume.from.map(|from| from.to_string()) == Some(id) {
        forkmon.type_line("");
    }
    assert!(forkmon.wait_exit().output.ends_with("two\n"));
    forkmon.finish();
}

fn guest_of(socket: &std::path::Path) -> i32 {
    let status = ctl_done(socket, &["status", "--json"]);
    let status: serde_json::Value = serde_json::from_str(&status).expect("it is JSON");
    i32::try_from(status["guest"].as_i64().expect("it runs")).expect("an id is small")
}

/// A guest that SIGSTOP has stopped is frozen all the same, stays stopped, and is
/// stopped in each copy until somebody lets it go on.
#[test]
fn a_stopped_guest_is_stopped_in_its_copies() {
    let project = Project::new("stopped");
    let command = command(&project, "many_kinds", &[]);
    let words: Vec<&str> = command.iter().map(String::as_str).collect();
    let (mut forkmon, socket) = launch(&project, &words);
    let signal = |signal| {
        let guest = Pid::from_raw(guest_of(&socket)).expect("an id is no 0");
        kill_process(guest, signal).expect("it is alive");
    };
    let until_stopped = || {
        while !is_stopped(guest_of(&socket)) {
            std::thread::yield_now();
        }
    };
    signal(Signal::STOP);
    until_stopped();
    let id = ctl_done(&socket, &["checkpoint"]);
    until_stopped();
    for round in 0..3 {
        if round > 0 {
            ctl_done(&socket, &["resume", &id]);
            assert!(forkmon.wait_resume().from.is_some());
            until_stopped();
        }
        forkmon.type_line("");
        signal(Signal::CONT);
        let exit = forkmon.wait_exit();
        assert_eq!(exit.code, Some(0), "{exit:?}");
        assert!(
            exit.output.contains("pipes with data: 4\ntaken: 5\n"),
            "{exit:?}"
        );
    }
    forkmon.finish();
}
