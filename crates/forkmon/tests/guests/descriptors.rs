//! What is behind the file descriptors of a guest, one C program for each.

use crate::harness::{Project, Save, Scenario, build_c};
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

/// The mapping of a file that was open, too, counted as the open file only: the times
/// of a file do not tell of what is written to a page that is dirty already.
#[test]
fn a_mapped_file_that_is_still_open_is_as_it_was() {
    let python = require_guest!("python3");
    let mut project = Project::new("mapped-and-open")
        .file("late.txt", "1")
        .file("counter", &"-".repeat(4096))
        .file(
            "main.py",
            "import mmap, os, time\n\
             fd = os.open('counter', os.O_RDWR)\n\
             memory = mmap.mmap(fd, 4096)\n\
             memory[0:3] = b'one'\n\
             end = time.monotonic() + 0.2\n\
             while time.monotonic() < end: pass\n\
             print(open('late.txt').read(), bytes(memory[0:3]), flush=True)\n\
             memory[0:3] = b'two'\n",
        );
    let mut forkmon = project.watch(&[python.as_str(), "main.py"]);
    assert_eq!(forkmon.wait_exit().output, "1 b'one'\n");
    for (text, how) in [
        ("2", Save::InPlace),
        ("3", Save::ByRename),
        ("4", Save::InPlace),
    ] {
        project.save("late.txt", text, how);
        let resume = forkmon.wait_resume();
        assert!(
            resume.from.is_some() && resume.kept_ms >= 200.0,
            "{resume:?}"
        );
        assert_eq!(forkmon.wait_exit().output, format!("{text} b'one'\n"));
    }
    forkmon.finish();
}
