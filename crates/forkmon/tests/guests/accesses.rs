//! Every kind of access: what contradicts it, and what does not.

use std::time::Duration;

use crate::harness::{Forkmon, Project, Save};
use crate::require_guest;

/// Long enough for forkmon to have acted, had it been going to.
const A_WHILE: Duration = Duration::from_millis(400);

/// Waits for a resume from a checkpoint and gives what the guest then printed,
/// which has to be the end of what a fresh run prints.
fn resumed(project: &Project, forkmon: &mut Forkmon, argv: &[&str]) -> String {
    let resume = forkmon.wait_resume();
    let exit = forkmon.wait_exit();
    let fresh = project.fresh(argv);
    if resume.from.is_none() {
        forkmon.fail(&format!("a full restart: {}", resume.reason));
    }
    if !fresh.stdout.ends_with(&exit.output) || exit.output.contains("early") {
        forkmon.fail(&format!(
            "not the end of a fresh run's output:\n{}",
            fresh.stdout
        ));
    }
    let tree = project.tree();
    if tree != fresh.tree {
        forkmon.fail(&format!(
            "files differ:\n{tree:#?}\nin a fresh run:\n{:#?}",
            fresh.tree
        ));
    }
    exit.output
}

#[test]
fn a_missing_file_resumes_when_it_is_created_and_when_it_is_removed_again() {
    let perl = require_guest!("perl");
    let mut project = Project::new("missing").file("other.txt", "other\n");
    let guest =
        project.perl("print -e 'late.conf' ? 'found ' . slurp('late.conf') : 'none', \"\\n\";");
    let argv = [perl.as_str(), &guest];
    let mut forkmon = project.watch(&argv);
    assert!(forkmon.wait_exit().output.ends_with("none\n"));
    for text in ["one", "two"] {
        project.create("late.conf", text);
        assert_eq!(
            forkmon.wait_event("change").kind_of("late.conf").as_deref(),
            Some("created")
        );
        assert_eq!(
            resumed(&project, &mut forkmon, &argv),
            format!("found {text}\n")
        );
        project.remove("late.conf");
        assert_eq!(
            forkmon.wait_event("change").kind_of("late.conf").as_deref(),
            Some("removed")
        );
        assert_eq!(resumed(&project, &mut forkmon, &argv), "none\n");
    }
    forkmon.finish();
}

#[test]
fn a_file_missing_in_a_missing_folder_resumes_when_both_are_created() {
    let perl = require_guest!("perl");
    let mut project = Project::new("deep");
    let guest = project.perl("print 'late ', slurp('conf/deep/late.conf'), \"\\n\";");
    let argv = [perl.as_str(), &guest];
    let mut forkmon = project.watch(&argv);
    assert!(forkmon.wait_exit().output.ends_with("late missing\n"));
    project.create("conf/deep/late.conf", "one");
    assert_eq!(resumed(&project, &mut forkmon, &argv), "late one\n");
    project.save("conf/deep/late.conf", "two", Save::ByRename);
    assert_eq!(resumed(&project, &mut forkmon, &argv), "late two\n");
    forkmon.finish();
}

#[test]
fn a_deleted_file_resumes() {
    let perl = require_guest!("perl");
    let mut project = Project::new("deleted").file("late.txt", "one\n");
    let guest = project.perl("print 'late ', slurp('late.txt'), \"\\n\";");
    let argv = [perl.as_str(), &guest];
    let mut forkmon = project.watch(&argv);
    forkmon.wait_exit();
    project.remove("late.txt");
    assert_eq!(resumed(&project, &mut forkmon, &argv), "late missing\n");
    project.create("late.txt", "two\n");
    assert_eq!(resumed(&project, &mut forkmon, &argv), "late two\n");
    forkmon.finish();
}

#[test]
fn the_same_bytes_saved_again_do_nothing() {
    let perl = require_guest!("perl");
    let mut project = Project::new("unchanged").file("late.txt", "one\n");
    let guest = project.perl("print 'late ', slurp('late.txt'), \"\\n\";");
    let argv = [perl.as_str(), &guest];
    let socket = project.beside().join("control");
    let launch = project.launch(&argv).option("--control").option(&socket);
    let mut forkmon = launch.start();
    forkmon.wait_exit();
    // A save that comes before forkmon has hashed what was read counts as an edit,
    // whatever its bytes.
    forkmon.settle(&socket);
    for how in [
        Save::InPlace,
        Save::ByRename,
        Save::LikeVim,
        Save::DeleteAndCreate,
    ] {
        project.save("late.txt", "one\n", how);
        assert_eq!(
            forkmon.wait_event("unchanged").names(),
            ["late.txt"],
            "saved {how:?}"
        );
    }
    // There and back again within one save is no edit, either: the next thing
    // that happens is the real edit.
    assert_eq!(forkmon.all("resume").len(), 0);
    forkmon.expect_quiet(A_WHILE);
    project.save("late.txt", "two\n", Save::InPlace);
    assert_eq!(forkmon.wait_event("change").names(), ["late.txt"]);
    assert_eq!(resumed(&project, &mut forkmon, &argv), "late two\n");
    assert_eq!(forkmon.all("resume").len(), 1);
    // After a resume, the bytes of before it are an edit, those of now are none.
    forkmon.settle(&socket);
    project.save("late.txt", "two\n", Save::ByRename);
    forkmon.wait_event("unchanged");
    project.save("late.txt", "one\n", Save::ByRename);
    assert_eq!(resumed(&project, &mut forkmon, &argv), "late one\n");
    forkmon.finish();
}

#[test]
fn the_same_bytes_saved_again_do_nothing_to_a_guest_that_still_runs() {
    let perl = require_guest!("perl");
    let mut project = Project::new("unchanged-server").file("late.txt", "one\n");
    let guest = project.perl(
        "print 'late ', slurp('late.txt'), \"\\n\"; my $line = <STDIN>; print \"typed $line\";",
    );
    let argv = [perl.as_str(), &guest];
    let mut forkmon = project.launch(&argv).with_input().start();
    forkmon.wait_output("late one\n");
    forkmon.wait_event("checkpoint");
    forkmon.expect_quiet(A_WHILE);
    for how in [Save::InPlace, Save::ByRename, Save::LikeVim] {
        project.save("late.txt", "one\n", how);
        let names = forkmon.wait_event("unchanged").names();
        assert_eq!(names, ["late.txt"], "saved {how:?}");
    }
    assert_eq!(forkmon.all("resume").len(), 0);
    forkmon.type_line("hello");
    assert_eq!(forkmon.wait_exit().output, "typed hello\n");
    forkmon.finish();
}

#[test]
fn several_edits_at_once_resume_once_from_the_earliest() {
    let perl = require_guest!("perl");
    let mut project = Project::new("several")
        .file("a.txt", "a1\n")
        .file("b.txt", "b1\n")
        .file("c.txt", "c1\n");
    let guest = project
        .perl("for my $name (qw(a b c)) { print slurp(\"$name.txt\"), \"\\n\"; work(0.1); }");
    let argv = [perl.as_str(), &guest];
    let mut forkmon = project.launch(&argv).option("--delay=100ms").start();
    forkmon.wait_exit();
    project.save("c.txt", "c2\n", Save::ByRename);
    project.save("b.txt", "b2\n", Save::InPlace);
    let change = forkmon.wait_event("change");
    assert_eq!(change.names(), ["b.txt", "c.txt"]);
    assert_eq!(resumed(&project, &mut forkmon, &argv), "b2\nc2\n");
    assert_eq!(forkmon.all("resume").len(), 1);
    for (name, how) in [
        ("c", Save::InPlace),
        ("a", Save::ByRename),
        ("b", Save::LikeVim),
    ] {
        project.save(&format!("{name}.txt"), &format!("{name}3\n"), how);
    }
    assert_eq!(
        forkmon.wait_event("change").names(),
        ["a.txt", "b.txt", "c.txt"]
    );
    assert_eq!(resumed(&project, &mut forkmon, &argv), "a3\nb3\nc3\n");
    assert_eq!(forkmon.all("resume").len(), 2);
    // The last file alone keeps more than the first.
    let kept_of_all = forkmon.all("resume")[1].number("kept_ms");
    project.save("c.txt", "c4\n", Save::InPlace);
    assert_eq!(resumed(&project, &mut forkmon, &argv), "c4\n");
    assert!(forkmon.all("resume")[2].number("kept_ms") > kept_of_all + 100.0);
    forkmon.finish();
}

#[test]
fn an_edit_while_the_guest_runs_resumes_at_once() {
    let perl = require_guest!("perl");
    let mut project = Project::new("running").file("late.txt", "one\n");
    let guest = project.perl(
        "print 'late ', slurp('late.txt'), \"\\n\"; print 'waiting', \"\\n\"; \
         my $line = <STDIN>; print \"typed $line\";",
    );
    let argv = [perl.as_str(), &guest];
    let mut forkmon = project.launch(&argv).with_input().start();
    forkmon.wait_output("late one\nwaiting\n");
    for (text, how) in [("two", Save::InPlace), ("three", Save::ByRename)] {
        project.save("late.txt", text, how);
        let resume = forkmon.wait_resume();
        assert!(resume.from.is_some(), "{resume:?}");
        let output = forkmon.wait_output("waiting\n");
        assert_eq!(output, format!("late {text}\nwaiting\n"));
    }
    // The dropped runs did not end: they never happened.
    assert_eq!(forkmon.all("exit").len(), 0);
    forkmon.type_line("hello");
    assert_eq!(forkmon.wait_exit().output, "typed hello\n");
    forkmon.finish();
}

#[test]
fn an_edit_in_the_middle_of_work_resumes_at_once() {
    let perl = require_guest!("perl");
    let mut project = Project::new("working")
        .file("late.txt", "one\n")
        .file("last.txt", "last\n");
    let guest = project.perl(
        "my $late = slurp('late.txt'); print \"late $late\\n\"; \
         work(1000) if $late ne 'three'; print slurp('last.txt'), \"\\n\";",
    );
    let argv = [perl.as_str(), &guest];
    let mut forkmon = project.watch(&argv);
    forkmon.wait_output("late one\n");
    project.save("late.txt", "two\n", Save::InPlace);
    assert!(forkmon.wait_resume().from.is_some());
    forkmon.wait_output("late two\n");
    project.save("late.txt", "three\n", Save::ByRename);
    assert!(forkmon.wait_resume().from.is_some());
    assert_eq!(forkmon.wait_exit().output, "late three\nlast\n");
    forkmon.finish();
}

#[test]
fn what_the_guest_wrote_itself_is_no_edit() {
    let perl = require_guest!("perl");
    let mut project = Project::new("own")
        .file("count.txt", "1\n")
        .file("late.txt", "one\n");
    let guest = project.perl(
        "my $count = slurp('count.txt'); spew('count.txt', $count + 1 . \"\\n\"); \
         spew('new.txt', \"made\\n\"); print slurp('new.txt'), ' ', slurp('count.txt'), \"\\n\"; \
         spew('count.txt', $count + 1 . \"\\n\"); work(0.2); print 'late ', slurp('late.txt'), \"\\n\";",
    );
    let argv = [perl.as_str(), &guest];
    let mut forkmon = project.watch(&argv);
    assert!(forkmon.wait_exit().output.ends_with("made 2\nlate one\n"));
    forkmon.expect_quiet(A_WHILE);
    // An edit after the writing keeps it, and it happened once.
    project.save("late.txt", "two\n", Save::InPlace);
    assert_eq!(forkmon.wait_event("change").names(), ["late.txt"]);
    assert_eq!(resumed(&project, &mut forkmon, &argv), "late two\n");
    assert_eq!(
        std::fs::read_to_string(project.path("count.txt")).unwrap(),
        "2\n"
    );
    forkmon.expect_quiet(A_WHILE);
    // A person's edit of the same file counts from where the guest read it.
    // (The guest's own writing to it cannot be undone any more, so forkmon may
    // choose to start again.)
    project.save("count.txt", "41\n", Save::InPlace);
    forkmon.wait_resume();
    assert!(forkmon.wait_exit().output.ends_with("made 42\nlate two\n"));
    assert_eq!(
        std::fs::read_to_string(project.path("count.txt")).unwrap(),
        "42\n"
    );
    forkmon.finish();
}

#[test]
fn a_listed_folder_resumes_for_a_new_name_and_a_removed_one() {
    let perl = require_guest!("perl");
    let mut project = Project::new("listing")
        .file("plugins/a.txt", "a\n")
        .file("plugins/b.txt", "b\n");
    let guest = project.perl(
        "opendir(my $folder, 'plugins') or die; my @names = sort grep { !/^\\./ } readdir($folder); \
         closedir($folder); print \"late @names\\n\";",
    );
    let argv = [perl.as_str(), &guest];
    let mut forkmon = project.watch(&argv);
    assert!(forkmon.wait_exit().output.ends_with("late a.txt b.txt\n"));
    project.create("plugins/c.txt", "c\n");
    assert_eq!(
        resumed(&project, &mut forkmon, &argv),
        "late a.txt b.txt c.txt\n"
    );
    project.remove("plugins/a.txt");
    assert_eq!(resumed(&project, &mut forkmon, &argv), "late b.txt c.txt\n");
    // Contents of what was only listed do not matter, nor do swap files.
    std::fs::write(project.path("plugins/.b.txt.swp"), "swap").unwrap();
    std::fs::remove_file(project.path("plugins/.b.txt.swp")).unwrap();
    project.save("plugins/b.txt", "other\n", Save::InPlace);
    forkmon.expect_quiet(A_WHILE);
    project.create("plugins/d.txt", "d\n");
    assert_eq!(
        resumed(&project, &mut forkmon, &argv),
        "late b.txt c.txt d.txt\n"
    );
    forkmon.finish();
}

#[test]
fn a_mode_that_was_looked_at_resumes_when_it_changes() {
    let perl = require_guest!("perl");
    let mut project = Project::new("mode").file("tool", "#!/bin/sh\n");
    let guest = project
        .perl("print 'late ', (-x 'tool' && ((stat('tool'))[2] & 0100)) ? 'yes' : 'no', \"\\n\";");
    let argv = [perl.as_str(), &guest];
    let mut forkmon = project.watch(&argv);
    assert!(forkmon.wait_exit().output.ends_with("late no\n"));
    project.set_mode("tool", 0o755);
    assert_eq!(
        forkmon.wait_event("change").kind_of("tool").as_deref(),
        Some("metadata")
    );
    assert_eq!(resumed(&project, &mut forkmon, &argv), "late yes\n");
    project.set_mode("tool", 0o644);
    assert_eq!(resumed(&project, &mut forkmon, &argv), "late no\n");
    forkmon.finish();
}

#[test]
fn a_size_that_was_looked_at_resumes_when_it_changes() {
    let perl = require_guest!("perl");
    let mut project = Project::new("size").file("late.txt", "12345");
    let guest = project.perl("print 'late ', -s 'late.txt', \"\\n\";");
    let argv = [perl.as_str(), &guest];
    let mut forkmon = project.watch(&argv);
    forkmon.wait_exit();
    project.save("late.txt", "1234567", Save::InPlace);
    assert_eq!(resumed(&project, &mut forkmon, &argv), "late 7\n");
    project.save("late.txt", "1", Save::ByRename);
    assert_eq!(resumed(&project, &mut forkmon, &argv), "late 1\n");
    forkmon.finish();
}

#[test]
fn a_link_resumes_when_it_points_elsewhere_and_when_its_target_is_edited() {
    let perl = require_guest!("perl");
    let mut project = Project::new("link")
        .file("one/text", "text one\n")
        .file("two/text", "text two\n")
        .link("current", "one");
    let guest =
        project.perl("print 'late ', readlink('current'), ' ', slurp('current/text'), \"\\n\";");
    let argv = [perl.as_str(), &guest];
    let mut forkmon = project.watch(&argv);
    assert!(forkmon.wait_exit().output.ends_with("late one text one\n"));
    project.retarget("current", "two");
    assert_eq!(
        resumed(&project, &mut forkmon, &argv),
        "late two text two\n"
    );
    project.save("two/text", "text two, edited\n", Save::ByRename);
    assert_eq!(
        resumed(&project, &mut forkmon, &argv),
        "late two text two, edited\n"
    );
    project.retarget("current", "one");
    assert_eq!(
        resumed(&project, &mut forkmon, &argv),
        "late one text one\n"
    );
    forkmon.finish();
}

#[test]
fn a_link_that_is_only_followed_resumes_when_it_points_elsewhere() {
    let perl = require_guest!("perl");
    let mut project = Project::new("followed")
        .file("one.txt", "text one\n")
        .file("two.txt", "text two\n")
        .link("late.txt", "one.txt");
    let guest = project.perl("print 'late ', slurp('late.txt'), \"\\n\";");
    let argv = [perl.as_str(), &guest];
    let mut forkmon = project.watch(&argv);
    forkmon.wait_exit();
    project.retarget("late.txt", "two.txt");
    assert_eq!(resumed(&project, &mut forkmon, &argv), "late text two\n");
    project.save("two.txt", "text two, edited\n", Save::InPlace);
    assert_eq!(
        resumed(&project, &mut forkmon, &argv),
        "late text two, edited\n"
    );
    forkmon.finish();
}

#[test]
fn a_program_resumes_when_it_is_replaced() {
    let perl = require_guest!("perl");
    let mut project = Project::new("program").program("tool", "#!/bin/sh\necho tool one\n");
    let guest =
        project.perl("-x 'tool' or die; system('./tool') == 0 or die; print \"the end\\n\";");
    let argv = [perl.as_str(), &guest];
    let mut forkmon = project.watch(&argv);
    assert!(forkmon.wait_exit().output.ends_with("tool one\nthe end\n"));
    for (word, how) in [
        ("two", Save::ByRename),
        ("three", Save::InPlace),
        ("four", Save::LikeVim),
    ] {
        project.save("tool", &format!("#!/bin/sh\necho tool {word}\n"), how);
        assert_eq!(
            resumed(&project, &mut forkmon, &argv),
            format!("tool {word}\nthe end\n")
        );
    }
    forkmon.finish();
}

#[test]
fn relative_paths_are_those_of_the_guests_working_folder() {
    let perl = require_guest!("perl");
    let mut project = Project::new("folder")
        .file("sub/late.txt", "one\n")
        .file("late.txt", "wrong\n");
    let guest =
        project.perl("chdir('sub') or die; print 'late ', slurp('./../sub/late.txt'), \"\\n\";");
    let argv = [perl.as_str(), &guest];
    let mut forkmon = project.watch(&argv);
    assert!(forkmon.wait_exit().output.ends_with("late one\n"));
    // Nobody has read this one.
    project.save("late.txt", "still wrong\n", Save::InPlace);
    forkmon.expect_quiet(A_WHILE);
    project.save("sub/late.txt", "two\n", Save::InPlace);
    assert_eq!(resumed(&project, &mut forkmon, &argv), "late two\n");
    forkmon.finish();
}

#[test]
fn a_file_that_is_read_again_after_an_edit_is_read_as_it_is() {
    let perl = require_guest!("perl");
    let mut project = Project::new("again")
        .file("a.txt", "a1\n")
        .file("b.txt", "b1\n");
    let guest = project.perl(
        "print slurp('a.txt'), \"\\n\"; work(0.2); print slurp('b.txt'), \"\\n\"; work(0.2); \
         print slurp('a.txt'), \"\\n\";",
    );
    let argv = [perl.as_str(), &guest];
    let mut forkmon = project.watch(&argv);
    forkmon.wait_exit();
    project.save("a.txt", "a2\n", Save::InPlace);
    assert_eq!(resumed(&project, &mut forkmon, &argv), "a2\nb1\na2\n");
    project.save("b.txt", "b2\n", Save::ByRename);
    assert_eq!(resumed(&project, &mut forkmon, &argv), "b2\na2\n");
    forkmon.finish();
}

#[test]
fn what_is_outside_the_scope_counts_only_when_it_is_named() {
    let perl = require_guest!("perl");
    let mut project = Project::new("scope").file("late.txt", "one\n");
    let outside = project.beside().join("data.txt");
    std::fs::write(&outside, "outside one\n").unwrap();
    let path = outside.to_str().unwrap();
    let guest = project.perl(&format!(
        "print slurp('{path}'), \"\\n\"; work(0.2); print slurp('late.txt'), \"\\n\";"
    ));
    let argv = [perl.as_str(), &guest];

    let mut forkmon = project.watch(&argv);
    forkmon.wait_exit();
    std::fs::write(&outside, "outside two\n").unwrap();
    forkmon.expect_quiet(A_WHILE);
    project.save("late.txt", "two\n", Save::InPlace);
    assert_eq!(forkmon.wait_event("change").names(), ["late.txt"]);
    assert_eq!(resumed(&project, &mut forkmon, &argv), "two\n");
    forkmon.finish();

    let mut forkmon = project.launch(&argv).option("--watch").option(path).start();
    forkmon.wait_exit();
    std::fs::write(&outside, "outside three\n").unwrap();
    assert_eq!(forkmon.wait_event("change").names(), ["data.txt"]);
    assert_eq!(
        resumed(&project, &mut forkmon, &argv),
        "outside three\ntwo\n"
    );
    forkmon.finish();
}
