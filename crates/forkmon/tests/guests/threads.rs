//! What the kernel keeps for each thread and process, one C program for each.

use crate::harness::{Project, Scenario, build_c};
use crate::require_guest;

fn scenario<'a>(project: Project, program: &'a str) -> Scenario<'a> {
    Scenario::new(project, &[program, "late.txt"], "late.txt")
}

fn check(source: &str) {
    require_guest!("cc");
    let project = Project::new("threads")
        .file("late.txt", "one\n")
        .file("early.txt", "early\n");
    let program = build_c(source, &project.beside(), &["-pthread", "-lm"]);
    scenario(project, &program).check("two\n", "three, and longer\n");
}

#[test]
fn thread_local_storage_and_names_are_kept() {
    check("thread_local.c");
}

#[test]
fn floating_point_registers_and_modes_are_kept() {
    check("thread_fpu.c");
}

#[test]
fn alternate_signal_stacks_are_kept() {
    check("thread_altstack.c");
}

#[test]
fn robust_lists_and_the_end_of_threads_are_kept() {
    check("thread_robust.c");
}

#[test]
fn signal_masks_and_pending_signals_are_kept() {
    check("thread_signals.c");
}

#[test]
fn threads_that_wait_go_on_waiting() {
    check("thread_sleep.c");
}

#[test]
fn the_guest_sees_the_ids_that_it_knew() {
    check("ids.c");
}

#[test]
fn a_busy_guest_of_fifteen_threads_resumes() {
    check("busy_late.c");
}

#[test]
fn timers_that_were_armed_go_off() {
    require_guest!("cc");
    let project = Project::new("timers").file("late.txt", "one\n");
    let program = build_c("timers.c", &project.beside(), &[]);
    scenario(project, &program)
        .or_refused()
        .check("two\n", "three, and longer\n");
}

#[test]
fn shared_memory_is_that_of_the_checkpoint() {
    require_guest!("cc");
    let project = Project::new("shared").file("late.txt", "one\n");
    let program = build_c("shared_memory.c", &project.beside(), &[]);
    scenario(project, &program).check("two\n", "three, and longer\n");
}
