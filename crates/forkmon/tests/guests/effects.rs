//! What the guest did to files after a checkpoint is undone when the
//! checkpoint is resumed, and nobody else's bytes are touched.
//!
//! In most of these, the guest does something to files only when the late file
//! says `do`, so that after an edit to anything else a fresh run would leave
//! them alone: the files must then be as they were before the first run.

use std::fs;
use std::time::Duration;

use crate::harness::{Project, Save, Scenario};
use crate::require_guest;

/// Checks a guest whose effects depend on the late file, in both directions.
fn check(project: Project, body: &str) {
    let perl = require_guest!("perl");
    let project = project.file("late.txt", "do 1\n");
    let guest = project.perl(&format!(
        "my $late = slurp('late.txt'); print \"late $late\\n\"; if ($late =~ /^do/) {{ {body} }} print \"the end\\n\";"
    ));
    Scenario::new(project, &[perl.as_str(), &guest], "late.txt").check_saves(&[
        ("leave it\n", Save::InPlace),
        ("do 2\n", Save::ByRename),
        ("do 3\n", Save::InPlace),
        ("leave it again\n", Save::LikeVim),
    ]);
}

#[test]
fn a_created_file_is_removed() {
    check(Project::new("created"), "spew('out.txt', $late);");
}

#[test]
fn a_file_created_exclusively_can_be_created_again() {
    check(
        Project::new("exclusive"),
        "sysopen(my $file, 'out.lock', O_WRONLY | O_CREAT | O_EXCL) or die \"locked: $!\"; print $file $late;",
    );
}

#[test]
fn a_file_that_was_overwritten_is_put_back() {
    check(
        Project::new("overwritten").file("out.txt", "last week's\n"),
        "spew('out.txt', $late) for 1 .. 3;",
    );
}

#[test]
fn a_file_that_was_renamed_over_is_put_back() {
    check(
        Project::new("renamed-over").program("out.txt", "last week's\n"),
        "spew('out.tmp', $late); rename('out.tmp', 'out.txt') or die;",
    );
}

#[test]
fn a_renamed_file_has_its_old_name_again() {
    check(
        Project::new("renamed").file("old.txt", "last week's\n"),
        "rename('old.txt', 'new.txt') or die; spew('old.txt', $late);",
    );
}

#[test]
fn a_removed_file_is_put_back() {
    check(
        Project::new("removed").program("old.txt", "last week's\n"),
        "unlink('old.txt') or die;",
    );
}

#[test]
fn a_removed_and_created_file_is_put_back() {
    check(
        Project::new("replaced").program("out", "last week's\n"),
        "unlink('out') or die; spew('out', $late); chmod(0755, 'out') or die;",
    );
}

#[test]
fn a_truncated_file_is_put_back() {
    check(
        Project::new("truncated").file("out.txt", "last week's\n"),
        "truncate('out.txt', 4) or die;",
    );
}

#[test]
fn a_log_that_is_appended_to_is_not_doubled() {
    check(
        Project::new("log").file("log.txt", "last week's\n"),
        "open(my $log, '>>', 'log.txt') or die; print $log \"$late\\n\"; close($log);",
    );
}

#[test]
fn new_folders_with_what_is_in_them_are_removed() {
    check(
        Project::new("folders"),
        "mkdir('build') or die; mkdir('build/deep') or die; spew('build/deep/out.txt', $late); \
         spew('build/gone.txt', 'x'); unlink('build/gone.txt') or die;",
    );
}

#[test]
fn links_are_removed() {
    check(
        Project::new("links").file("old.txt", "last week's\n"),
        "symlink('old.txt', 'symbolic') or die; link('old.txt', 'hard') or die;",
    );
}

/// A file that is open for writing over the checkpoint gets back what was in
/// it then, at its old length, whatever was written through the open file.
#[test]
fn a_file_open_for_writing_gets_its_length_and_bytes_back() {
    let perl = require_guest!("perl");
    for mode in [">", ">>", "+<"] {
        let project = Project::new("open")
            .file("late.txt", "one\n")
            .file("out.txt", "last week's text, rather long\n");
        let guest = project.perl(&format!(
            "use IO::Handle; open(my $out, '{mode}', 'out.txt') or die; print $out \"head\\n\"; $out->flush; \
             work(0.2); my $late = slurp('late.txt'); print \"late $late\\n\"; \
             print $out \"tail $late\\n\" if $late ne 'nothing'; close($out) or die;"
        ));
        Scenario::new(project, &[perl.as_str(), &guest], "late.txt").check_saves(&[
            ("two, which is longer\n", Save::InPlace),
            ("three\n", Save::ByRename),
            ("nothing\n", Save::InPlace),
            ("four\n", Save::InPlace),
        ]);
    }
}

#[test]
fn the_standard_output_of_forkmon_in_a_file_is_never_shortened() {
    let perl = require_guest!("perl");
    let mut project = Project::new("inherited").file("late.txt", "one\n");
    let guest = project.perl("print 'late ', slurp('late.txt'), \"\\n\";");
    let log = project.beside().join("log");
    let script = format!("exec \"$@\" > {}", log.display());
    let mut forkmon = project
        .launch(&[perl.as_str(), &guest])
        .through(&["sh", "-c", &script, "sh"])
        .start();
    forkmon.wait_exit();
    assert_eq!(fs::read_to_string(&log).unwrap(), "early 1\nlate one\n");
    project.save("late.txt", "two\n", Save::InPlace);
    assert!(forkmon.wait_resume().from.is_some());
    forkmon.wait_exit();
    assert_eq!(
        fs::read_to_string(&log).unwrap(),
        "early 1\nlate one\nlate two\n"
    );
    forkmon.finish();
}

#[test]
fn a_file_that_is_put_back_has_its_time_again() {
    let perl = require_guest!("perl");
    let mut project = Project::new("times")
        .file("late.txt", "do 1\n")
        .file("out.txt", "last week's\n");
    let then = std::time::UNIX_EPOCH + Duration::from_secs(1_600_000_000);
    let out = project.path("out.txt");
    fs::File::options()
        .write(true)
        .open(&out)
        .unwrap()
        .set_modified(then)
        .unwrap();
    let guest = project.perl(
        "my $late = slurp('late.txt'); print \"late $late\\n\"; spew('out.txt', $late) if $late =~ /^do/;",
    );
    let mut forkmon = project.watch(&[perl.as_str(), &guest]);
    forkmon.wait_exit();
    assert_eq!(fs::read_to_string(&out).unwrap(), "do 1");
    project.save("late.txt", "leave it\n", Save::InPlace);
    assert!(forkmon.wait_resume().from.is_some());
    forkmon.wait_exit();
    assert_eq!(fs::read_to_string(&out).unwrap(), "last week's\n");
    assert_eq!(fs::metadata(&out).unwrap().modified().unwrap(), then);
    forkmon.finish();
}

/// The inode flags are not put back: the checkpoints before are not used, which is said
/// once, and those after are.
#[test]
fn an_effect_that_cannot_be_undone_is_said_once_and_restarts() {
    let perl = require_guest!("perl");
    let mut project = Project::new("barred")
        .file("old.txt", "last week's\n")
        .file("before.txt", "one\n")
        .file("after.txt", "one\n");
    // FS_IOC_GETFLAGS, and FS_IOC_SETFLAGS with FS_NODUMP_FL, on those that have it
    // already at a restart. To clear those that are there is to ask ext4 to give up its
    // extents, which it mostly cannot with a new file.
    let guest = project.perl(
        "print 'before ', slurp('before.txt'), \"\\n\"; work(0.2); open(my $old, '<', 'old.txt') or die; \
         ioctl($old, 0x80086601, my $flags = pack('q', 0)) or die \"no flags here: $!\"; \
         ioctl($old, 0x40086602, $flags = pack('q', 0x40 | unpack('q', $flags))) or die \"no flags here: $!\"; \
         print \"changed\\n\"; work(0.3); print 'after ', slurp('after.txt'), \"\\n\";",
    );
    let argv = [perl.as_str(), &guest];
    let mut forkmon = project.watch(&argv);
    forkmon.wait_exit();
    project.save("after.txt", "two\n", Save::InPlace);
    assert!(
        forkmon.wait_resume().from.is_some(),
        "a checkpoint after the effect is good"
    );
    assert_eq!(forkmon.wait_exit().output, "after two\n");
    for text in ["two\n", "three\n"] {
        project.save("before.txt", text, Save::ByRename);
        let resume = forkmon.wait_resume();
        assert_eq!(resume.from, None, "{resume:?}");
        assert_eq!(forkmon.wait_exit().output, project.fresh(&argv).stdout);
    }
    // The restart leaves the flags, which is another thing to say, once.
    let warnings = forkmon.warnings();
    assert_eq!(warnings, ["effect", "left-as-it-is"]);
    forkmon.finish();
}

#[test]
fn what_a_person_wrote_over_the_guests_output_is_kept() {
    let perl = require_guest!("perl");
    for how in [Save::InPlace, Save::ByRename, Save::DeleteAndCreate] {
        let mut project = Project::new("persons").file("late.txt", "do 1\n");
        let guest = project.perl(
            "my $late = slurp('late.txt'); print \"late $late\\n\"; spew('out.txt', $late) if $late =~ /^do/;",
        );
        let mut forkmon = project.watch(&[perl.as_str(), &guest]);
        forkmon.wait_exit();
        let out = project.path("out.txt");
        assert_eq!(fs::read_to_string(&out).unwrap(), "do 1");
        project.save("out.txt", "a person wrote this\n", how);
        project.save("late.txt", "leave it\n", Save::InPlace);
        forkmon.wait_output("late leave it\n");
        forkmon.wait_exit();
        assert_eq!(
            fs::read_to_string(&out).unwrap(),
            "a person wrote this\n",
            "saved {how:?}"
        );
        forkmon.finish();
        assert_eq!(
            fs::read_to_string(&out).unwrap(),
            "a person wrote this\n",
            "saved {how:?}"
        );
    }
}

#[test]
fn what_a_person_put_into_the_guests_new_folder_is_kept() {
    let perl = require_guest!("perl");
    let mut project = Project::new("persons-folder").file("late.txt", "do 1\n");
    let guest = project.perl(
        "my $late = slurp('late.txt'); print \"late $late\\n\"; \
         if ($late =~ /^do/) { mkdir('build'); spew('build/out.txt', $late); }",
    );
    let mut forkmon = project.watch(&[perl.as_str(), &guest]);
    forkmon.wait_exit();
    project.create("build/notes.txt", "a person wrote this\n");
    project.save("late.txt", "leave it\n", Save::InPlace);
    forkmon.wait_output("late leave it\n");
    forkmon.wait_exit();
    assert_eq!(
        fs::read_to_string(project.path("build/notes.txt")).unwrap(),
        "a person wrote this\n"
    );
    forkmon.finish();
    assert_eq!(
        fs::read_to_string(project.path("build/notes.txt")).unwrap(),
        "a person wrote this\n"
    );
}

/// Quitting undoes nothing: the files are those of the last run.
#[test]
fn quitting_leaves_the_output_of_the_last_run() {
    let perl = require_guest!("perl");
    let mut project = Project::new("quit")
        .file("late.txt", "do 1\n")
        .file("out.txt", "last week's\n");
    let guest = project
        .perl("my $late = slurp('late.txt'); spew('out.txt', $late); print \"late $late\\n\";");
    let mut forkmon = project.watch(&[perl.as_str(), &guest]);
    forkmon.wait_exit();
    project.save("late.txt", "do 2\n", Save::InPlace);
    forkmon.wait_resume();
    forkmon.wait_exit();
    forkmon.finish();
    assert_eq!(fs::read_to_string(project.path("out.txt")).unwrap(), "do 2");
}
