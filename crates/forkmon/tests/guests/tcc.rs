//! TCC compiling several files: a guest that prints nothing, and whose whole
//! result is a file.

use std::fmt::Write;
use std::process::Command;

use crate::harness::{Project, Save, Scenario};
use crate::require_guest;

/// A source that takes TCC a while, though it is fast.
fn long_source() -> String {
    let mut text = String::new();
    for number in 0..12_000 {
        writeln!(
            text,
            "static int f{number}(int x) {{ int a[4] = {{x, {number}, x + 1, x * 3}}; \
             for (int i = 0; i < 4; i++) x += a[i] ^ (x << 1); \
             switch (x & 3) {{ case 0: return x + 1; case 1: return x * 2; default: return x - {number}; }} }}"
        )
        .expect("a string can be written");
    }
    text.push_str("int first(void) { return f1(1) + f11999(2); }\n");
    text
}

fn project(name: &str) -> Project {
    Project::new(name)
        .file("a.c", &long_source())
        .file("b.c", "int second(void) { return 2; }\n")
        .file("c.c", &main_source("one"))
}

fn main_source(word: &str) -> String {
    format!(
        "#include <stdio.h>\nint first(void); int second(void);\n\
         int main(void) {{ printf(\"{word} %d %d\\n\", first(), second()); return 0; }}\n"
    )
}

const ARGUMENTS: [&str; 5] = ["-o", "out", "a.c", "b.c", "c.c"];

#[test]
fn tcc_resumes_before_the_last_of_several_files() {
    let tcc = require_guest!("tcc");
    let argv = [&[tcc.as_str()][..], &ARGUMENTS].concat();
    Scenario::new(project("tcc"), &argv, "c.c")
        .without_early_output()
        .check(&main_source("two"), &main_source("three"));
}

#[test]
fn tcc_resumes_though_it_overwrites_the_output_of_last_week() {
    let tcc = require_guest!("tcc");
    let argv = [&[tcc.as_str()][..], &ARGUMENTS].concat();
    let project = project("tcc-again").program("out", "#!/bin/sh\necho last week\n");
    Scenario::new(project, &argv, "c.c")
        .without_early_output()
        .check_saves(&[
            (&main_source("two"), Save::InPlace),
            ("int main(void) { return 1 +; }\n", Save::InPlace),
            (&main_source("three"), Save::ByRename),
        ]);
}

#[test]
fn what_tcc_wrote_after_a_resume_runs() {
    let tcc = require_guest!("tcc");
    let argv = [&[tcc.as_str()][..], &ARGUMENTS].concat();
    let mut project = project("tcc-run");
    let mut forkmon = project.watch(&argv);
    assert_eq!(forkmon.wait_exit().code, Some(0));
    for (word, how) in [("two", Save::InPlace), ("three", Save::ByRename)] {
        project.save("c.c", &main_source(word), how);
        assert!(forkmon.wait_resume().from.is_some(), "from a checkpoint");
        assert_eq!(forkmon.wait_exit().code, Some(0));
        let output = Command::new(project.path("out"))
            .output()
            .expect("the program runs");
        assert!(String::from_utf8_lossy(&output.stdout).starts_with(word));
    }
    // Running it was no edit: the next event is that of a real one.
    project.save("b.c", "int second(void) { return 3; }\n", Save::InPlace);
    assert_eq!(forkmon.wait_event("change").names(), ["b.c"]);
    forkmon.finish();
}
