//! A static Go binary: its own scheduler, threads, epoll, and preemption by
//! signals.

use std::process::Command;

use crate::harness::{Project, Scenario, run_tool};
use crate::require_guest;

fn build(go: &str, project: &Project) -> String {
    let program = project.beside().join("guest");
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/go/main.go");
    let mut build = Command::new(go);
    build
        .args(["build", "-o"])
        .arg(&program)
        .arg(source)
        .current_dir(project.beside())
        .env("CGO_ENABLED", "0")
        .env("GOFLAGS", "-mod=mod")
        .env("GO111MODULE", "off")
        .env("GOPATH", project.beside().join("go"))
        .env("GOCACHE", go_cache());
    run_tool(&mut build);
    program.to_str().expect("a plain name").to_owned()
}

/// Building the standard library takes half a minute, so that the tests share
/// one cache, in the folder that cargo gives to integration tests.
fn go_cache() -> std::path::PathBuf {
    std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("go-cache")
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
