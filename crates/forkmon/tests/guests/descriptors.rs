//! What is behind the file descriptors of a guest, one C program for each.

use crate::harness::{Project, Scenario, build_c};
use crate::require_guest;

fn check(source: &str) {
    require_guest!("cc");
    let project = Project::new("descriptors")
        .file("late.txt", "one\n")
        .file("lines.txt", "abcdefghijklmnopqrstuvwxyz\n");
    let program = build_c(source, &project.beside(), &[]);
    Scenario::new(project, &[&program, "late.txt"], "late.txt")
        .check("two\n", "three, and longer\n");
}

#[test]
fn data_in_a_pipe_is_kept() {
    check("fd_pipe.c");
}

#[test]
fn eventfd_timerfd_and_epoll_are_kept() {
    check("fd_events.c");
}

#[test]
fn socket_pairs_and_listening_sockets_are_kept() {
    check("fd_sockets.c");
}

#[test]
fn offsets_of_files_are_kept() {
    check("fd_files.c");
}

#[test]
fn signalfd_is_kept_or_refused() {
    require_guest!("cc");
    let project = Project::new("signalfd").file("late.txt", "one\n");
    let program = build_c("fd_signal.c", &project.beside(), &[]);
    Scenario::new(project, &[&program, "late.txt"], "late.txt")
        .or_refused()
        .check("two\n", "three, and longer\n");
}

/// A frozen copy held what the live run had locked, also after the live run had closed
/// the file.
#[test]
fn locks_are_held_again_and_free_when_their_file_is_closed() {
    check("fd_locks.c");
}
