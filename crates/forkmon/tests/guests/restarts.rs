//! Restarts that fail: the next edit may make them right.

use std::os::unix::fs::MetadataExt;
use std::process::Command;

use rustix::process::{Pid, Resource, Signal, getrlimit, kill_process};

use crate::harness::{Project, Save, as_root, children_of, is_stopped, run_tool};
use crate::require_guest;

/// What was to be started was gone for a while, and nothing was ever started again.
#[test]
fn a_program_that_comes_back_is_started() {
    require_guest!("dash");
    let script = "#!/bin/sh\nread word < late.txt; echo \"late $word\"\n";
    let mut project = Project::new("comes-back")
        .file("late.txt", "one\n")
        .program("guest.sh", script);
    let mut forkmon = project.watch(&["./guest.sh"]);
    assert_eq!(forkmon.wait_exit().output, "late one\n");
    project.remove("guest.sh");
    forkmon.wait_event("warning");
    assert_eq!(forkmon.warnings(), ["not-started"]);
    project.save("late.txt", "two\n", Save::InPlace);
    // Still not.
    forkmon.wait_event("resume");
    project.create("guest.sh", script);
    project.set_mode("guest.sh", 0o755);
    assert_eq!(forkmon.wait_exit().output, "late two\n");
    project.save("late.txt", "three\n", Save::ByRename);
    assert_eq!(forkmon.wait_exit().output, "late three\n");
    forkmon.finish();
}

/// Changes the number of processes that the user of one may have, for that one: as the
/// user itself, since a container's root may not.
fn limit_processes(of: i32, limit: &str) {
    let user = std::fs::metadata(format!("/proc/{of}"))
        .expect("it is alive")
        .uid()
        .to_string();
    let mut prlimit = Command::new("setpriv");
    prlimit
        .args(["--reuid", &user, "--regid", &user, "--clear-groups", "--"])
        .args(["prlimit", &format!("--nproc={limit}:"), "--pid"])
        .arg(of.to_string());
    run_tool(&mut prlimit);
}

/// A fork that failed for want of processes was the last one.
#[test]
fn a_restart_without_room_is_made_up_for() {
    let perl = require_guest!("perl");
    require_guest!("setpriv");
    require_guest!("prlimit");
    if !as_root() {
        eprintln!(
            "SKIPPED a_restart_without_room_is_made_up_for: only root can become another user"
        );
        return;
    }
    let mut project = Project::new("no-room").file("late.txt", "one\n");
    let guest = project.perl("print 'late ', slurp('late.txt'), \"\\n\";");
    let mut forkmon = project
        .launch(&[perl.as_str(), &guest])
        .by_another_user()
        .start();
    assert!(forkmon.wait_exit().output.ends_with("late one\n"));
    for image in children_of(forkmon.pid()) {
        if is_stopped(image) {
            let image = Pid::from_raw(image).expect("an id");
            kill_process(image, Signal::KILL).expect("it is alive");
        }
    }
    limit_processes(forkmon.pid(), "1");
    project.save("late.txt", "two\n", Save::InPlace);
    forkmon.wait_event("warning");
    assert_eq!(forkmon.warnings(), ["not-started"]);
    let before = getrlimit(Resource::Nproc).current;
    let before = before.map_or("unlimited".to_owned(), |limit| limit.to_string());
    limit_processes(forkmon.pid(), &before);
    project.save("late.txt", "three\n", Save::ByRename);
    assert!(forkmon.wait_exit().output.ends_with("late three\n"));
    project.save("late.txt", "four\n", Save::InPlace);
    assert!(forkmon.wait_exit().output.ends_with("late four\n"));
    forkmon.finish();
}
