//! C programs that no preloaded library could follow: linked statically, with
//! no libc at all, making raw system calls.

use crate::harness::{Project, Scenario, build_c};
use crate::require_guest;

fn project(name: &str) -> Project {
    Project::new(name).file("late.txt", "one\n")
}

#[test]
fn a_static_program_with_raw_system_calls_resumes() {
    require_guest!("cc");
    for call in ["openat", "open", "openat2"] {
        let project = project("raw");
        let program = build_c(
            "raw_calls.c",
            &project.beside(),
            &["-static", "-nostdlib", "-fno-stack-protector"],
        );
        Scenario::new(project, &[&program, call], "late.txt").check("two\n", "three, and longer\n");
    }
}

#[test]
fn a_static_program_of_the_c_library_resumes() {
    require_guest!("cc");
    let project = project("static");
    let program = build_c("plain.c", &project.beside(), &["-static"]);
    Scenario::new(project, &[&program, "late.txt"], "late.txt")
        .check("two\n", "three, and longer\n");
}

#[test]
fn a_dynamic_program_of_the_c_library_resumes() {
    require_guest!("cc");
    let project = project("dynamic");
    let program = build_c("plain.c", &project.beside(), &[]);
    Scenario::new(project, &[&program, "late.txt"], "late.txt")
        .check("two\n", "three, and longer\n");
}
