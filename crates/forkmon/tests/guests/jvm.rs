//! A JVM program: some twenty threads, safepoints by SIGSEGV, a JIT.

use std::process::Command;

use crate::harness::{Project, Scenario, fixture, run_tool};
use crate::require_guest;

fn compile(javac: &str, project: &Project) -> String {
    let classes = project.beside().join("classes");
    let mut compile = Command::new(javac);
    compile
        .args(["-J-XX:TieredStopAtLevel=1", "-d"])
        .arg(&classes)
        .arg(fixture("jvm/Main.java"));
    run_tool(&mut compile);
    classes.to_str().expect("a plain name").to_owned()
}

#[test]
fn an_executor_and_a_collection_work_after_the_resume() {
    let java = require_guest!("java");
    let javac = require_guest!("javac");
    let project = Project::new("jvm")
        .file("early.txt", "early text\n")
        .file("late.txt", "one\n");
    let classes = compile(javac.as_str(), &project);
    let argv = [java.as_str(), "-Xmx256m", "-cp", &classes, "Main"];
    Scenario::new(project, &argv, "late.txt").check("two\n", "three, and longer\n");
}

#[test]
fn the_garbage_collectors_with_threads_of_their_own_resume() {
    let java = require_guest!("java");
    let javac = require_guest!("javac");
    for collector in ["-XX:+UseParallelGC", "-XX:+UseG1GC"] {
        let project = Project::new("jvm-gc")
            .file("early.txt", "early text\n")
            .file("late.txt", "one\n");
        let classes = compile(javac.as_str(), &project);
        let argv = [
            java.as_str(),
            "-Xmx256m",
            collector,
            "-cp",
            &classes,
            "Main",
        ];
        Scenario::new(project, &argv, "late.txt").check("two\n", "three, and longer\n");
    }
}
