//! Within the limits of the machine and of the user: fewer checkpoints, never
//! a broken guest.

use rustix::process::{Pid, Signal};

use crate::harness::{Project, Save, as_root, build_c, children_of, is_stopped};
use crate::require_guest;

/// A guest that reads twenty files, each worth a checkpoint.
fn many(name: &str) -> (Project, String) {
    let mut project = Project::new(name);
    for number in 0..20 {
        project = project.file(&format!("src/{number:02}.txt"), "old\n");
    }
    let guest = project
        .perl("for my $n (0 .. 19) { work(0.03); printf(\"%02d %s\\n\", $n, slurp(sprintf('src/%02d.txt', $n))) }");
    (project, guest)
}

/// Edits files near the end and near the beginning and checks the output, from
/// wherever it was resumed.
fn check_edits(project: &mut Project, forkmon: &mut crate::harness::Forkmon, argv: &[&str]) {
    for (number, how) in [
        (19, Save::InPlace),
        (3, Save::ByRename),
        (18, Save::ByRename),
    ] {
        project.save(
            &format!("src/{number:02}.txt"),
            &format!("new {number}\n"),
            how,
        );
        forkmon.wait_resume();
        let exit = forkmon.wait_exit();
        let fresh = project.fresh(argv).stdout;
        if exit.code != Some(0) || !fresh.ends_with(&exit.output) || !exit.output.contains("19 ") {
            forkmon.fail(&format!("not the end of a fresh run's output:\n{fresh}"));
        }
    }
}

#[test]
fn no_more_than_the_wanted_checkpoints_are_kept() {
    let perl = require_guest!("perl");
    let (mut project, guest) = many("max");
    let argv = [perl.as_str(), &guest];
    let mut forkmon = project.launch(&argv).option("--max-checkpoints=3").start();
    forkmon.wait_exit();
    assert!(forkmon.all("checkpoint").len() > 3);
    let images = children_of(forkmon.pid())
        .into_iter()
        .filter(|pid| is_stopped(*pid))
        .count();
    assert!((1..=3).contains(&images), "{images} frozen images");
    check_edits(&mut project, &mut forkmon, &argv);
    forkmon.finish();
}

#[test]
fn one_checkpoint_is_enough_to_be_right() {
    let perl = require_guest!("perl");
    let (mut project, guest) = many("one");
    let argv = [perl.as_str(), &guest];
    let mut forkmon = project.launch(&argv).option("--max-checkpoints=1").start();
    forkmon.wait_exit();
    check_edits(&mut project, &mut forkmon, &argv);
    let images = children_of(forkmon.pid())
        .into_iter()
        .filter(|pid| is_stopped(*pid))
        .count();
    assert!(images <= 1, "{images} frozen images");
    forkmon.finish();
}

#[test]
fn a_limit_on_processes_means_fewer_checkpoints() {
    let perl = require_guest!("perl");
    require_guest!("prlimit");
    require_guest!("setpriv");
    if !as_root() {
        // The limit counts all processes of the user, whose others come and go.
        eprintln!(
            "SKIPPED a_limit_on_processes_means_fewer_checkpoints: only root can become another user"
        );
        return;
    }
    for limit in [8, 10, 14] {
        let (mut project, guest) = many("nproc");
        let argv = [perl.as_str(), &guest];
        let mut forkmon = project
            .launch(&argv)
            .through(&["prlimit", &format!("--nproc={limit}"), "--"])
            .by_another_user()
            .start();
        let exit = forkmon.wait_exit();
        assert_eq!(
            (exit.code, exit.output),
            (Some(0), project.fresh(&argv).stdout),
            "limit {limit}"
        );
        let images = children_of(forkmon.pid())
            .into_iter()
            .filter(|pid| is_stopped(*pid))
            .count();
        assert!(
            images < limit,
            "{images} frozen images with a limit of {limit}"
        );
        check_edits(&mut project, &mut forkmon, &argv);
        forkmon.finish();
    }
}

#[test]
fn it_works_for_a_user_without_capabilities() {
    let perl = require_guest!("perl");
    require_guest!("setpriv");
    if !as_root() {
        // All other tests show it.
        return;
    }
    let mut project = Project::new("nobody")
        .file("late.txt", "one\n")
        .file("out.txt", "last week's\n");
    let guest = project.perl(
        "my $late = slurp('late.txt'); $< or die; print \"late $late\\n\"; spew('out.txt', $late);",
    );
    let mut forkmon = project
        .launch(&[perl.as_str(), &guest])
        .by_another_user()
        .start();
    assert!(forkmon.wait_exit().output.ends_with("late one\n"));
    for (text, how) in [("two", Save::InPlace), ("three", Save::ByRename)] {
        project.save("late.txt", text, how);
        assert!(forkmon.wait_resume().from.is_some());
        assert_eq!(forkmon.wait_exit().output, format!("late {text}\n"));
        assert_eq!(
            std::fs::read_to_string(project.path("out.txt")).unwrap(),
            text
        );
    }
    forkmon.finish();
}

#[test]
fn a_frozen_image_that_somebody_kills_is_a_dropped_checkpoint() {
    let perl = require_guest!("perl");
    let (mut project, guest) = many("killed");
    let argv = [perl.as_str(), &guest];
    let mut forkmon = project.launch(&argv).start();
    forkmon.wait_exit();
    let images: Vec<i32> = children_of(forkmon.pid())
        .into_iter()
        .filter(|pid| is_stopped(*pid))
        .collect();
    assert!(images.len() > 3, "{images:?}");
    for image in &images {
        rustix::process::kill_process(Pid::from_raw(*image).unwrap(), Signal::KILL).unwrap();
    }
    // The first edit finds no image and restarts, or uses one that was made
    // meanwhile; after it there are checkpoints again.
    check_edits(&mut project, &mut forkmon, &argv);
    project.save("src/19.txt", "newest\n", Save::InPlace);
    assert!(forkmon.wait_resume().from.is_some());
    assert!(
        project
            .fresh(&argv)
            .stdout
            .ends_with(&forkmon.wait_exit().output)
    );
    forkmon.finish();
}

#[test]
fn some_frozen_images_killed_leave_the_others() {
    let perl = require_guest!("perl");
    let (mut project, guest) = many("some-killed");
    let argv = [perl.as_str(), &guest];
    let mut forkmon = project.launch(&argv).start();
    forkmon.wait_exit();
    let images: Vec<i32> = children_of(forkmon.pid())
        .into_iter()
        .filter(|pid| is_stopped(*pid))
        .collect();
    for image in images.iter().skip(1).step_by(2) {
        rustix::process::kill_process(Pid::from_raw(*image).unwrap(), Signal::KILL).unwrap();
    }
    project.save("src/19.txt", "new\n", Save::InPlace);
    assert!(forkmon.wait_resume().from.is_some());
    assert!(
        project
            .fresh(&argv)
            .stdout
            .ends_with(&forkmon.wait_exit().output)
    );
    forkmon.finish();
}

#[test]
fn sixteen_busy_threads_are_served_evenly() {
    require_guest!("cc");
    let mut project = Project::new("busy")
        .file("late.txt", "one\n")
        .file("early.txt", "early\n");
    let program = build_c("busy.c", &project.beside(), &["-pthread"]);
    let mut forkmon = project.watch(&[&program, "late.txt"]);
    let exit = forkmon.wait_exit();
    if exit.output != "early 1\nserved evenly: 1\nlate one\n" {
        forkmon.fail("the threads were not served evenly");
    }
    project.save("late.txt", "two\n", Save::InPlace);
    assert!(forkmon.wait_resume().from.is_some());
    assert_eq!(forkmon.wait_exit().output, "late two\n");
    forkmon.finish();
}

#[test]
fn a_thread_in_vfork_delays_nobody() {
    require_guest!("cc");
    let mut project = Project::new("vfork")
        .file("mid.txt", "mid\n")
        .file("late.txt", "one\n");
    let program = build_c("vfork.c", &project.beside(), &["-pthread"]);
    let argv = [&program[..], "late.txt"];
    let mut forkmon = project.watch(&argv);
    let fresh = project.fresh(&argv).stdout;
    assert!(fresh.contains("at once: 1"), "{fresh}");
    let exit = forkmon.wait_exit();
    if exit.output != fresh {
        forkmon.fail("the vfork child held the guest up");
    }
    for (text, how) in [("two\n", Save::InPlace), ("three\n", Save::ByRename)] {
        project.save("late.txt", text, how);
        let resume = forkmon.wait_resume();
        assert!(resume.from.is_some(), "{resume:?}");
        let exit = forkmon.wait_exit();
        let fresh = project.fresh(&argv).stdout;
        assert!(
            fresh.ends_with(&exit.output) && !exit.output.contains("early"),
            "{exit:?}"
        );
    }
    forkmon.finish();
}

/// A container's policy may refuse what forkmon needs: that is one error, which
/// names the cause.
#[test]
fn a_sandbox_that_refuses_ptrace_or_seccomp_is_one_clear_error() {
    require_guest!("cc");
    for what in ["ptrace", "seccomp"] {
        let project = Project::new("refused");
        let refuse = build_c("refuse.c", &project.beside(), &[]);
        let mut forkmon = project
            .launch(&["echo", "hello"])
            .option("--once")
            .through(&[&refuse, what])
            .start();
        assert_eq!(forkmon.wait_end(), 125, "{what}");
        let messages = forkmon.messages();
        assert!(
            messages.lines().count() == 1
                && messages.starts_with("[forkmon]")
                && messages.contains(what),
            "{messages}"
        );
        assert_eq!(forkmon.output(), "", "the guest must not run half observed");
    }
}
