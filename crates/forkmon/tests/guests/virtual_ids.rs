//! A resumed guest sees the ids that it knew, wherever they stand.

use crate::harness::{Project, Scenario, as_root, build_c};
use crate::require_guest;

fn check(source: &str) {
    require_guest!("cc");
    let project = Project::new("ids").file("late.txt", "one\n");
    let program = build_c(source, &project.beside(), &["-pthread"]);
    Scenario::new(project, &[&program, "late.txt"], "late.txt")
        .check("two\n", "three, and longer\n");
}

/// What a path, a structure or a signal's details said was the kernel's id.
#[test]
fn ids_in_paths_and_structures_are_the_known_ones() {
    check("ids_elsewhere.c");
}

/// The ids of threads that had ended were remembered, so that a new thread was taken
/// for a dead one.
#[test]
fn a_new_thread_is_not_taken_for_a_dead_one() {
    if !as_root() {
        eprintln!("SKIPPED a_new_thread_is_not_taken_for_a_dead_one: only root chooses ids");
        return;
    }
    check("ids_reused.c");
}
