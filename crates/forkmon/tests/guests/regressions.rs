//! What once went wrong, each test saying what. The next event after an edit is
//! the resume or restart that follows from it, and its output and files are those
//! of a fresh run.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::harness::{Project, Save, build_c};
use crate::require_guest;

/// Long enough for a resume that nobody asked for to show.
const A_WHILE: Duration = Duration::from_millis(500);

/// Runs a Perl guest to its end, sees that nothing happens by itself, makes each
/// edit, and compares what follows from it with a fresh run.
fn check(mut project: Project, body: &str, edits: &[fn(&mut Project)]) {
    let perl = require_guest!("perl");
    let guest = project.perl(body);
    let argv = [perl.as_str(), &guest];
    let mut forkmon = project.watch(&argv);
    forkmon.wait_exit();
    forkmon.expect_quiet(A_WHILE);
    for edit in edits {
        edit(&mut project);
        forkmon.wait_resume();
        let exit = forkmon.wait_exit();
        let fresh = project.fresh(&argv);
        if !fresh.stdout.ends_with(&exit.output) || project.tree() != fresh.tree {
            forkmon.fail(&format!("not as fresh: {exit:?}, but {fresh:#?}"));
        }
    }
    forkmon.expect_quiet(A_WHILE);
    forkmon.finish();
}

/// The names below a folder that the guest renames were nobody's, so that its own
/// work was taken for an edit, again and again.
#[test]
fn a_folder_published_by_rename_is_no_edit() {
    check(
        Project::new("published").file("late.txt", "1\n"),
        "print((-e 'out/x') ? 'there' : 'missing'); work(0.1); mkdir('t'); spew('t/x', slurp('late.txt')); \
         work(0.1); rename('t', 'out') or die; print slurp('out/x');",
        &[|project| project.save("late.txt", "2\n", Save::ByRename)],
    );
}

/// What the guest had written in a folder that it then renamed counted as removed by
/// somebody else: it was resumed again and again.
#[test]
fn a_folder_renamed_after_a_write_in_it_is_no_edit() {
    for guest in [
        "open(my $f, '>>', 'old/a'); close($f); work(0.1); rename('old', 'x') or die; \
         print slurp('late.txt'); work(0.1); print slurp('x/a');",
        "rename('old/b', 'other/b') or die; work(0.1); rename('other', 'x') or die; \
         print slurp('late.txt'); work(0.1); print slurp('x/b');",
        "mkdir('build.tmp'); spew('build.tmp/a', 'new'); work(0.1); unlink('old/a', 'old/b'); \
         rmdir('old') or die; print slurp('late.txt'); rename('build.tmp', 'old') or die; \
         work(0.1); print slurp('old/a');",
    ] {
        check(
            Project::new("renamed")
                .file("late.txt", "1\n")
                .file("old/a", "old a\n")
                .file("old/b", "old b\n")
                .file("other/c", "old c\n"),
            guest,
            &[
                |project| project.save("late.txt", "2\n", Save::ByRename),
                |project| project.save("late.txt", "3\n", Save::InPlace),
            ],
        );
    }
}

/// A folder that the guest made was blind to what others put into it.
#[test]
fn a_name_in_a_folder_of_the_guests_own_counts() {
    check(
        Project::new("own-folder"),
        "mkdir('plugins'); work(0.1); opendir(my $folder, 'plugins') or die; \
         print join(',', sort grep { !/^\\./ } readdir($folder)), \"\\n\"; work(0.1);",
        &[|project| project.create("plugins/one", "1\n")],
    );
}

/// Two names of one file: writing through the one was taken for an edit of the
/// other.
#[test]
fn a_write_through_another_name_is_no_edit() {
    check(
        Project::new("two-names").file("late.txt", "1\n"),
        "print slurp('late.txt'); work(0.1); unlink('b'); link('late.txt', 'b') or die; \
         open(my $file, '>>', 'b') or die; print $file \"more\\n\"; close($file);",
        &[],
    );
}

/// What a link leads to was not recorded if the link was only looked at first,
/// or made by the guest.
#[test]
fn the_target_of_a_link_that_the_guest_made_counts() {
    check(
        Project::new("own-link").file("a.txt", "1\n"),
        "unlink('current'); symlink('a.txt', 'current') or die; work(0.1); lstat('current'); \
         print slurp('current'); work(0.1);",
        &[
            |project| project.save("a.txt", "2\n", Save::InPlace),
            |project| project.save("a.txt", "3\n", Save::ByRename),
        ],
    );
}

/// A file that is cut to nothing through a link was not looked at.
#[test]
fn a_link_on_the_way_to_an_output_counts() {
    check(
        Project::new("link-to-output")
            .file("one.txt", "1\n")
            .file("two.txt", "2\n")
            .link("current", "one.txt"),
        "work(0.1); spew('current', 'output'); work(0.1);",
        &[|project| project.retarget("current", "two.txt")],
    );
}

/// A write that failed for want of a folder was no fact.
#[test]
fn a_folder_that_was_missing_for_an_output_counts() {
    check(
        Project::new("no-folder"),
        "work(0.1); open(my $file, '>', 'out/x') and print 'written'; print \"done\\n\"; work(0.1);",
        &[|project| project.create("out/other", "1\n")],
    );
}

/// A new mode was taken for a new file of the guest's own.
#[test]
fn a_file_whose_mode_the_guest_changed_still_counts() {
    check(
        Project::new("own-mode").file("late.txt", "1\n"),
        "chmod(0600, 'late.txt'); work(0.1); print slurp('late.txt'); work(0.1);",
        &[|project| project.save("late.txt", "2\n", Save::InPlace)],
    );
}

/// An output that somebody removed stayed missing after a resume from behind the
/// write.
#[test]
fn an_output_that_somebody_removed_is_written_again() {
    let perl = require_guest!("perl");
    let mut project = Project::new("removed-output").file("late.txt", "1\n");
    let guest = project.perl(
        "work(0.1); spew('out.txt', 'output'); work(0.2); print slurp('late.txt'); work(0.1);",
    );
    let argv = [perl.as_str(), &guest];
    let mut forkmon = project.watch(&argv);
    forkmon.wait_exit();
    project.remove("out.txt");
    project.save("late.txt", "2\n", Save::ByRename);
    forkmon.wait_resume();
    forkmon.wait_exit();
    assert_eq!(project.tree(), project.fresh(&argv).tree);
    forkmon.finish();
}

/// A thread that is killed on its way through execve ends under the id of its
/// process, and forkmon waited for its own id for ever.
#[test]
fn a_run_killed_while_threads_execute_programs_is_gone() {
    require_guest!("cc");
    let mut project = Project::new("thread-exec").file("late.txt", "0\n");
    let program = build_c("thread_exec.c", &project.beside(), &["-pthread"]);
    let mut forkmon = project.watch(&[&program, "late.txt"]);
    forkmon.wait_output("0\n");
    for round in 1..=30 {
        let text = format!("{round}\n");
        project.save("late.txt", &text, Save::ByRename);
        forkmon.wait_resume();
        forkmon.wait_output(&text);
    }
    forkmon.finish();
}

/// A file was saved with the same bytes, which is no edit; but the run that the next
/// edit resumed saw it newer than what had been made from it before.
#[test]
fn a_resumed_run_does_not_see_two_times_of_one_file() {
    let perl = require_guest!("perl");
    let mut project = Project::new("two-times")
        .file("input.txt", "same\n")
        .file("late.txt", "1\n");
    let guest = project.perl(
        "use Time::HiRes; my $time = sub { (Time::HiRes::stat($_[0]))[9] };
         work(0.1); $time->('input.txt'); spew('made', 'from it'); work(0.2);
         print slurp('late.txt'), $time->('input.txt') > $time->('made') ? 'newer' : 'older', \"\\n\";",
    );
    let argv = [perl.as_str(), &guest];
    let socket = project.beside().join("control");
    let launch = project.launch(&argv).option("--control").option(&socket);
    let mut forkmon = launch.start();
    assert!(forkmon.wait_exit().output.ends_with("1older\n"));
    // Now a save is known to come after all that it has read.
    forkmon.settle(&socket);
    project.save("input.txt", "same\n", Save::InPlace);
    forkmon.wait_event("unchanged");
    for text in ["2\n", "3\n"] {
        project.save("late.txt", text, Save::ByRename);
        assert!(forkmon.wait_resume().from.is_some());
        let word = text.trim();
        assert_eq!(forkmon.wait_exit().output, format!("{word}older\n"));
    }
    forkmon.finish();
}

/// A file that only the image of a dropped checkpoint had open still counted as open
/// at a later one, and its close for somebody else's.
#[test]
fn a_file_that_a_dropped_image_had_open_is_the_guests_own() {
    let perl = require_guest!("perl");
    let mut project = Project::new("image-closes")
        .file("more.txt", "more\n")
        .file("last.txt", "last\n");
    let guest = project.perl(
        "open(my $out, '>', 'out') or die; print $out 'x'; work(0.1);
         print slurp('more.txt'); work(0.02); close($out); work(0.2);
         print slurp('last.txt'); work(0.2);",
    );
    let argv = [perl.as_str(), &guest];
    let launch = project.launch(&argv).option("--max-checkpoints=1");
    let mut forkmon = launch.start();
    forkmon.wait_exit();
    for (name, text) in [("last.txt", "last 2\n"), ("more.txt", "more 2\n")] {
        project.save(name, text, Save::InPlace);
        forkmon.wait_resume();
        forkmon.wait_exit();
        assert_eq!(project.tree(), project.fresh(&argv).tree);
    }
    assert!(forkmon.warnings().is_empty(), "{:?}", forkmon.warnings());
    forkmon.finish();
}

/// The guest made a file and renamed it, and a person wrote into it under its new
/// name, where it stays. What had been in it was put back under the first name, which
/// a fresh run does not know.
#[test]
fn a_temporary_name_does_not_come_back_when_a_person_has_written_to_the_last_one() {
    check(
        Project::new("temporary-name").file("early.conf", "make\n"),
        "work(0.1); my $early = slurp('early.conf'); print \"$early\\n\"; \
         if ($early =~ /^make/) { work(0.1); spew('part.tmp', $early); work(0.1); \
         rename('part.tmp', 'part.txt') or die; work(0.1) } print join(',', glob('part.*')), \"\\n\";",
        &[|project| {
            project.save("part.txt", "a person's\n", Save::InPlace);
            project.save("early.conf", "leave it\n", Save::InPlace);
        }],
    );
}

/// The event of a call comes before the call has returned, and on a busy machine
/// forkmon saw it first: it took what the guest made, wrote and renamed for edits.
#[test]
fn on_a_busy_machine_the_guests_own_files_are_no_edits() {
    let perl = require_guest!("perl");
    let project = Project::new("busy");
    let guest = project.perl(
        "for my $n (1 .. 250) { print \"there\n\" if -e \"d$n\" || -e \"f$n\" || -e \"g$n\"; \
         mkdir \"d$n\" or die; spew(\"f$n\", 'x'); rename(\"f$n\", \"g$n\") or die } print \"the end\n\";",
    );
    let argv = [perl.as_str(), &guest];
    let busy = Busy::start();
    let launch = project.launch(&argv).option("--delay=0ms");
    let mut forkmon = launch.default_budget().start();
    assert_eq!(forkmon.wait_exit().output, "early 1\nthe end\n");
    let changes = forkmon.all("change");
    assert!(changes.is_empty(), "{changes:?}");
    drop(busy);
    forkmon.finish();
}

/// Threads that want all processors, until it is dropped.
struct Busy(Arc<AtomicBool>);

impl Busy {
    fn start() -> Busy {
        let over = Arc::new(AtomicBool::new(false));
        for _ in 0..std::thread::available_parallelism().map_or(2, |n| 2 * n.get()) {
            let over = Arc::clone(&over);
            std::thread::spawn(move || {
                while !over.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            });
        }
        Busy(over)
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A file was saved with the same bytes while a guest ran that had asked for its times,
/// and that asked for them again later: the run went on with two times of one file.
#[test]
fn a_run_that_goes_on_does_not_see_two_times_of_one_file() {
    let perl = require_guest!("perl");
    let mut project = Project::new("two-times-live").file("input.txt", "same\n");
    let guest = project.perl(
        "use Time::HiRes; my $time = sub { (Time::HiRes::stat('input.txt'))[9] };
         work(0.1); my $before = $time->(); work(0.2); print \"asked\\n\"; <STDIN>;
         print $time->() == $before ? 'one' : 'two', \" times\\n\";",
    );
    let argv = [perl.as_str(), &guest];
    let mut forkmon = project.launch(&argv).with_input().start();
    forkmon.wait_output("asked\n");
    project.save("input.txt", "same\n", Save::InPlace);
    forkmon.wait_event("unchanged");
    forkmon.type_line("");
    let change = forkmon.wait_event("change");
    assert_eq!(change.kind_of("input.txt").as_deref(), Some("metadata"));
    assert!(forkmon.wait_resume().from.is_some());
    forkmon.wait_output("asked\n");
    // What was typed is typed to the copy, too.
    assert_eq!(forkmon.wait_exit().output, "one times\n");
    forkmon.finish();
}

/// The same for one that asks again while the save is not known yet, or the file gone.
#[test]
fn a_run_that_asks_all_the_time_does_not_see_two_times_of_one_file() {
    let perl = require_guest!("perl");
    let mut project = Project::new("two-times-polled").file("input.txt", "same\n");
    let go = project.beside().join("go");
    let guest = project.perl(&format!(
        "use Time::HiRes; my $time = sub {{ (Time::HiRes::stat('input.txt'))[9] }};
         work(0.1); my $before = $time->(); print \"asked\\n\"; my $now;
         do {{ $now = $time->() }} until !$now || $now != $before || -e '{}';
         print $now == $before ? 'one' : 'two', \" times\\n\";",
        go.display()
    ));
    let argv = [perl.as_str(), &guest];
    let mut forkmon = project.watch(&argv);
    for how in [Save::InPlace, Save::ByRename, Save::LikeVim] {
        forkmon.wait_output("asked\n");
        project.save("input.txt", "same\n", how);
        assert!(forkmon.wait_resume().from.is_some(), "saved {how:?}");
    }
    forkmon.wait_output("asked\n");
    std::fs::write(&go, "").expect("it can be written");
    assert_eq!(forkmon.wait_exit().output, "one times\n");
    forkmon.finish();
}
