//! A static Go binary: its own scheduler, threads, epoll, and preemption by
//! signals.

use std::process::Command;

use crate::harness::{Project, Scenario, fixture, run_tool};
use crate::require_guest;

fn build(go: &str, project: &Project) -> String {
    let program = project.beside().join("guest");
    let mut build = Command::new(go);
    build
        .args(["build", "-o"])
        .arg(&program)
        .arg(fixture("go/main.go"))
        .current_dir(project.beside())
        .env("CGO_ENABLED", "0")
        .env("GOFLAGS", "-mod=mod")
        .env("GO111MODULE", "off")
        .env("GOPATH", project.beside().join("go"))
        .env("GOCACHE", cache().join("go-cache"));
    run_tool(&mut build);
    program.to_str().expect("a plain name").to_owned()
}

/// Building the standard library takes half a minute, so that the tests share
/// one cache, in the folder that cargo gives to integration tests.
fn cache() -> std::path::PathBuf {
    std::env::var_os("FORKMON_TEST_CACHE")
        .unwrap_or_else(|| env!("CARGO_TARGET_TMPDIR").into())
        .into()
}

#[test]
fn a_static_go_binary_with_goroutines_resumes() {
    let go = require_guest!("go");
    let project = Project::new("go")
        .file("early.txt", "early text\n")
        .file("late.txt", "one\n");
    let program = build(go.as_str(), &project);
    Scenario::new(project, &[&program], "late.txt").check("two\n", "three, and longer\n");
}
