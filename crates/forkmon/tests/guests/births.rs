//! Tasks whose parents are killed while they make them: they run on, and a dropped
//! run's are gone with it.

use std::time::Instant;

use rustix::process::{Pid, Signal, kill_process};

use crate::harness::{PATIENCE, Project, Save, build_c, is_stopped};
use crate::require_guest;

/// A parent that is killed inside of fork never tells of its child, which then
/// stood still for ever. Here the tracer looks away meanwhile, so that it is
/// certain to happen.
#[test]
fn a_grandchild_whose_parent_was_killed_in_fork_runs() {
    let perl = require_guest!("perl");
    let project = Project::new("killed-in-fork");
    let guest = project.perl(
        "pipe(my $end, my $start) or die; my $child = fork(); \
         if (!$child) { print \"child $$\\n\"; sysread(STDIN, my $line, 1); \
           if (!fork()) { print \"grandchild\\n\"; close($start); exit 0 } sleep 1000 } \
         close($start); waitpid($child, 0) == $child or die; print \"killed by $?\\n\"; \
         sysread($end, my $nothing, 1); print \"the end\\n\"; exit 0;",
    );
    let mut forkmon = project
        .launch(&[perl.as_str(), &guest])
        .with_input()
        // Forkmon is stopped when something is typed, and could not pass it on.
        .option("--stdin=inherit")
        .start();
    forkmon.wait_output("child ");
    let line = forkmon.wait_output("\n");
    let child: i32 = line.trim().parse().expect("a process id");
    forkmon.signal(Signal::STOP);
    forkmon.type_line("x");
    let deadline = Instant::now() + PATIENCE;
    while !is_stopped(child) {
        assert!(Instant::now() < deadline, "the child does not fork");
        std::thread::yield_now();
    }
    kill_process(Pid::from_raw(child).expect("an id"), Signal::KILL).expect("it is alive");
    forkmon.signal(Signal::CONT);
    let exit = forkmon.wait_exit();
    let mut lines: Vec<&str> = exit.output.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["grandchild", "killed by 9", "the end"]);
    assert_eq!(exit.code, Some(0));
    forkmon.finish();
}

/// The same at any moment of it.
#[test]
fn grandchildren_outlive_parents_that_are_killed_at_any_moment() {
    require_guest!("cc");
    let project = Project::new("orphans");
    let program = build_c("orphans.c", &project.beside(), &[]);
    let mut forkmon = project.launch(&[&program, "300"]).option("--once").start();
    assert_eq!(forkmon.wait_exit().output, "all ended\n");
    assert_eq!(forkmon.wait_end(), 0);
}

/// A run that is dropped while its processes fork and are killed is gone as a
/// whole, and does not hold up the next one.
#[test]
fn a_run_that_is_dropped_amid_births_is_gone() {
    let perl = require_guest!("perl");
    require_guest!("cc");
    let mut project = Project::new("dropped-births").file("late.txt", "0\n");
    let program = build_c("orphans.c", &project.beside(), &[]);
    let guest = project.perl(&format!(
        "print 'late ', slurp('late.txt'), \"\\n\"; exec('{program}', '1000000');"
    ));
    let mut forkmon = project.watch(&[perl.as_str(), &guest]);
    forkmon.wait_output("late 0\n");
    for round in 1..=20 {
        project.save("late.txt", &format!("{round}\n"), Save::ByRename);
        forkmon.wait_resume();
        forkmon.wait_output(&format!("late {round}\n"));
        // Somewhere in the midst of it.
        std::thread::sleep(std::time::Duration::from_millis(7 * round % 40));
    }
    if forkmon.output().contains("stuck") {
        forkmon.fail("a grandchild was not let run");
    }
    forkmon.finish();
}
