//! Guests with children: they run under observation, and a resume point is
//! chosen only where no child was alive.

use crate::harness::{Project, Save, Scenario};
use crate::require_guest;

#[test]
fn a_shell_script_of_several_commands_resumes_between_them() {
    let perl = require_guest!("perl");
    require_guest!("dash");
    let project = Project::new("script")
        .file(
            "main.sh",
            &format!(
                "echo early 1\n{} -e 'my $x; while ((times)[0] < 0.25) {{ $x++ }}'\ncat a.txt\n\
                 [ -e late.txt ] || exit 3\ncat late.txt | tr a-z A-Z\necho the end\n",
                perl.as_str()
            ),
        )
        .file("a.txt", "a\n")
        .file("late.txt", "one\n");
    Scenario::new(project, &["sh", "main.sh"], "late.txt").check_saves(&[
        ("two\n", Save::InPlace),
        ("three, and longer\n", Save::ByRename),
        ("four\n", Save::DeleteAndCreate),
    ]);
}

/// The file is first touched by a child: the point to resume from lies before
/// the child was started, wherever that is, and the output is right.
#[test]
fn a_file_read_by_a_child_alone_gives_the_right_output() {
    let perl = require_guest!("perl");
    let mut project = Project::new("child")
        .file("late.txt", "one\n")
        .file("marker.txt", "m\n");
    let guest = project.perl(
        "-e 'marker.txt' or die; work(0.1); system('cat', 'late.txt') == 0 or die; \
         my $copy = `cat late.txt`; print \"late $copy\"; print \"the end\\n\";",
    );
    let argv = [perl.as_str(), &guest];
    let mut forkmon = project.watch(&argv);
    assert_eq!(forkmon.wait_exit().output, project.fresh(&argv).stdout);
    for (text, how) in [("two\n", Save::InPlace), ("three\n", Save::ByRename)] {
        project.save("late.txt", text, how);
        let resume = forkmon.wait_resume();
        assert!(
            resume.from.is_some(),
            "the marker was touched with no child alive: {resume:?}"
        );
        assert_eq!(
            forkmon.wait_exit().output,
            format!("{text}late {text}the end\n")
        );
    }
    forkmon.finish();
}

#[test]
fn a_checkpoint_is_not_taken_while_a_child_is_alive() {
    let perl = require_guest!("perl");
    let mut project = Project::new("alive")
        .file("before.txt", "one\n")
        .file("during.txt", "one\n")
        .file("after.txt", "one\n");
    let guest = project.perl(
        "print 'before ', slurp('before.txt'), \"\\n\"; work(0.2); \
         pipe(my $end, my $start) or die; my $child = fork(); \
         if (!$child) { close($start); my $nothing = <$end>; exit 5 } close($end); \
         work(0.2); print 'during ', slurp('during.txt'), \"\\n\"; close($start); \
         waitpid($child, 0) == $child or die; print 'child ', $? >> 8, \"\\n\"; \
         work(0.2); print 'after ', slurp('after.txt'), \"\\n\";",
    );
    let argv = [perl.as_str(), &guest];
    let mut forkmon = project.watch(&argv);
    assert_eq!(forkmon.wait_exit().output, project.fresh(&argv).stdout);
    for checkpoint in forkmon.all("checkpoint") {
        assert!(
            !checkpoint.text("path").ends_with("during.txt"),
            "{checkpoint:?}"
        );
    }
    project.save("during.txt", "two\n", Save::InPlace);
    assert!(forkmon.wait_resume().from.is_some());
    assert_eq!(
        forkmon.wait_exit().output,
        "before one\nduring two\nchild 5\nafter one\n"
    );
    project.save("after.txt", "two\n", Save::ByRename);
    assert!(forkmon.wait_resume().from.is_some());
    assert_eq!(forkmon.wait_exit().output, "after two\n");
    forkmon.finish();
}

/// An edit ends the children of the dropped run too.
#[test]
fn the_children_of_a_dropped_run_are_gone() {
    let perl = require_guest!("perl");
    let mut project = Project::new("orphans").file("late.txt", "one\n");
    let guest = project.perl(
        "my $late = slurp('late.txt'); print \"late $late\\n\"; \
         for (1 .. 3) { if (!fork()) { exec('sleep', '1000') } } print \"started\\n\"; \
         if ($late eq 'one') { sleep 1000 } exit 0;",
    );
    let mut forkmon = project.watch(&[perl.as_str(), &guest]);
    forkmon.wait_output("started\n");
    let sleepers = |forkmon: &crate::harness::Forkmon| {
        forkmon
            .processes()
            .into_iter()
            .filter(|pid| {
                std::fs::read(format!("/proc/{pid}/cmdline"))
                    .is_ok_and(|line| line.starts_with(b"sleep\0"))
            })
            .collect::<Vec<i32>>()
    };
    project.save("late.txt", "two\n", Save::InPlace);
    assert!(forkmon.wait_resume().from.is_some());
    forkmon.wait_output("started\n");
    assert_eq!(forkmon.wait_exit().code, Some(0));
    // The run that ended left its three, as it would have without forkmon; the
    // three of the run that never happened are gone.
    assert!(sleepers(&forkmon).len() <= 3, "{:?}", sleepers(&forkmon));
    forkmon.finish();
}

#[test]
fn a_guest_that_becomes_another_program_resumes() {
    let perl = require_guest!("perl");
    let project = Project::new("exec")
        .file("settings.txt", "s\n")
        .file("late.txt", "one\n");
    let guest = project.perl("print 'late ', slurp('late.txt'), \"\\n\";");
    let script = format!(
        "read word < settings.txt; echo $word; exec {} {guest}",
        perl.as_str()
    );
    Scenario::new(project, &["sh", "-c", &script], "late.txt").check("two\n", "three\n");
}
