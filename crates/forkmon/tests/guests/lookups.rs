//! Ways to a file that are not spelled like the file: links, `..`, `/proc` and `/dev`
//! names, open folders. Each was once taken for the path that it looked like, so that
//! an edit of what it went through was not noticed.

use std::time::Duration;

use crate::harness::{Project, Save};
use crate::require_guest;

/// Long enough for a resume that nobody asked for to show.
const A_WHILE: Duration = Duration::from_millis(400);

type Edit = fn(&mut Project);

/// Runs a Perl guest to its end, sees that nothing happens by itself, makes each
/// edit, and compares the resume that follows from it with a fresh run.
fn check(mut project: Project, body: &str, edits: &[Edit]) {
    let perl = require_guest!("perl");
    let guest = project.perl(body);
    let argv = [perl.as_str(), &guest];
    let mut forkmon = project.watch(&argv);
    let first = forkmon.wait_exit();
    if first.output != project.fresh(&argv).stdout {
        forkmon.fail("the first run did not print what a plain run does");
    }
    forkmon.expect_quiet(A_WHILE);
    for edit in edits {
        edit(&mut project);
        let resume = forkmon.wait_resume();
        if resume.from.is_none() {
            forkmon.fail(&format!("a full restart: {}", resume.reason));
        }
        let exit = forkmon.wait_exit();
        let fresh = project.fresh(&argv);
        if !fresh.stdout.ends_with(&exit.output) || project.tree() != fresh.tree {
            forkmon.fail(&format!("not as fresh: {exit:?}, but {fresh:#?}"));
        }
    }
    forkmon.expect_quiet(A_WHILE);
    forkmon.finish();
}

/// Two versions of a folder, and a link to the first.
fn versions(name: &str) -> Project {
    Project::new(name)
        .file("v1/late.txt", "one\n")
        .file("v2/late.txt", "two\n")
        .file("v1/sub/x", "")
        .file("v2/sub/x", "")
        .link("current", "v1")
}

const TO_V2: Edit = |project| project.retarget("current", "v2");
const TO_V1: Edit = |project| project.retarget("current", "v1");
const EDIT_V1: Edit = |project| project.save("v1/late.txt", "one, edited\n", Save::InPlace);
const EDIT_V2: Edit = |project| project.save("v2/late.txt", "two, edited\n", Save::ByRename);

#[test]
fn a_folder_link_that_is_retargeted() {
    check(
        versions("folder-link"),
        "print slurp('current/late.txt'), \"\\n\"; work(0.1);",
        &[TO_V2, EDIT_V2, TO_V1, EDIT_V1],
    );
}

#[test]
fn a_folder_link_that_leads_to_links() {
    check(
        versions("chain").link("app", "current"),
        "print slurp('app/late.txt'), \"\\n\"; work(0.1);",
        &[TO_V2, EDIT_V2, |project| project.retarget("app", "v1")],
    );
}

#[test]
fn a_link_before_two_dots() {
    check(
        versions("two-dots").link("sub", "v1/sub"),
        "print slurp('sub/../late.txt'), \"\\n\"; work(0.1);",
        &[
            |project| project.retarget("sub", "v2/sub"),
            EDIT_V2,
            |project| project.retarget("sub", "v1/sub"),
        ],
    );
}

#[test]
fn a_folder_that_is_missing_before_two_dots() {
    check(
        Project::new("no-two-dots").file("late.txt", "one\n"),
        "print slurp('gen/../late.txt'), \"\\n\"; work(0.1);",
        &[
            |project| project.create("gen/x", ""),
            |project| project.save("late.txt", "two\n", Save::InPlace),
        ],
    );
}

/// What was known of the path is not known of what it stands for now.
#[test]
fn a_folder_link_that_the_guest_retargets() {
    check(
        versions("own-link"),
        "print slurp('current/late.txt'), \"\\n\"; work(0.1); \
         unlink('current'); symlink('v2', 'current') or die; work(0.1); \
         print slurp('current/late.txt'), \"\\n\"; work(0.1);",
        &[EDIT_V2, EDIT_V1],
    );
}

#[test]
fn a_slash_follows_a_link() {
    check(
        versions("slash"),
        "print join(' ', (lstat('current/'))[2]), \"\\n\"; work(0.1); \
         print sysopen(my $folder, 'current/', O_RDONLY | 0400000) ? 'open' : 'closed', \"\\n\";",
        &[|project| {
            // The same mode, so that only where the link leads has changed.
            project.create("v2/one-more", "");
            project.remove("v2/one-more");
            project.retarget("current", "late.txt");
            project.create("late.txt", "no folder\n");
        }],
    );
}

#[test]
fn names_of_the_guests_own_in_proc() {
    for name in [
        "/proc/self/cwd/late.txt",
        "/proc/thread-self/cwd/late.txt",
        "/proc/$$/cwd/late.txt",
        "/proc/self/root$root/late.txt",
    ] {
        check(
            Project::new("proc").file("late.txt", "one\n"),
            &format!("use Cwd; my $root = getcwd(); print slurp(\"{name}\"), \"\\n\"; work(0.1);"),
            &[
                |project| project.save("late.txt", "two\n", Save::InPlace),
                |project| project.save("late.txt", "three\n", Save::ByRename),
            ],
        );
    }
}

#[test]
fn a_file_that_is_opened_again_by_its_fd() {
    for folder in ["/proc/self/fd", "/dev/fd"] {
        check(
            Project::new("dev-fd")
                .file("late.txt", "one\n")
                .file("other.txt", "other\n"),
            // With O_PATH, nothing but the name is opened.
            &format!(
                "sysopen(my $file, 'late.txt', 010000000) or die; work(0.1); \
                 print slurp('{folder}/' . fileno($file)), \"\\n\"; \
                 sysopen($file, 'other.txt', 010000000) or die; work(0.1); \
                 print slurp('{folder}/' . fileno($file)), \"\\n\";"
            ),
            &[
                |project| project.save("late.txt", "two\n", Save::InPlace),
                |project| project.save("other.txt", "another\n", Save::InPlace),
            ],
        );
    }
}

const OPENAT2: &str = "sub openat2 {
    my ($folder, $name, $resolve) = @_;
    my ($how, $path) = (pack('QQQ', 0, 0, $resolve), $name . \"\\0\");
    my $fd = syscall(437, fileno($folder), $path, $how, 24);
    return 'missing' if $fd < 0;
    open(my $file, '<&=', $fd) or die;
    return scalar(<$file>);
}
sysopen(my $folder, 'root', 010000000) or die;
";

#[test]
fn a_folder_that_openat2_takes_for_the_root() {
    check(
        Project::new("in-root")
            .file("root/etc/conf", "one\n")
            .file("root/etc/conf2", "two\n")
            .link("root/link", "/etc/conf"),
        &format!(
            "{OPENAT2} print openat2($folder, '/../etc/conf', 0x10); work(0.1); \
             print openat2($folder, 'link', 0x10); work(0.1);"
        ),
        &[
            |project| project.retarget("root/link", "/etc/conf2"),
            |project| project.save("root/etc/conf2", "two, edited\n", Save::InPlace),
            |project| project.save("root/etc/conf", "one, edited\n", Save::InPlace),
        ],
    );
}

#[test]
fn a_link_that_openat2_refuses() {
    check(
        Project::new("beneath")
            .file("root/late.txt", "one\n")
            .file("late.txt", "outside\n")
            .link("root/link", "../late.txt"),
        &format!("{OPENAT2} print openat2($folder, 'link', 0x08), \"\\n\"; work(0.1);"),
        &[
            |project| project.retarget("root/link", "late.txt"),
            |project| project.save("root/late.txt", "two\n", Save::InPlace),
        ],
    );
}

/// A link in scope to a folder out of it, which is entered, and files in it that are
/// looked up from there.
#[test]
fn a_folder_out_of_scope_that_is_entered_by_a_link() {
    let outside = tempfile::Builder::new()
        .prefix("guests-outside-")
        .tempdir()
        .expect("the temporary folder can be written");
    for (name, text) in [("a.txt", "a\n"), ("b.txt", "b\n")] {
        std::fs::write(outside.path().join(name), text).expect("a file can be written");
    }
    let perl = require_guest!("perl");
    let project =
        Project::new("entered").link("data", outside.path().to_str().expect("a plain name"));
    let guest = project.perl(
        "chdir('data') or die; opendir(my $folder, '.') or die; \
         print join(',', sort grep { !/^\\./ } readdir($folder)), \"\\n\"; work(0.1); \
         print slurp('a.txt'), \"\\n\"; work(0.1);",
    );
    let argv = [perl.as_str(), &guest];
    let mut forkmon = project.watch(&argv);
    forkmon.wait_exit();
    let edits: [(&str, &str); 3] = [("a.txt", "edited\n"), ("c.txt", "c\n"), ("a.txt", "last\n")];
    for (name, text) in edits {
        std::fs::write(outside.path().join(name), text).expect("a file can be written");
        assert!(forkmon.wait_resume().from.is_some());
        let exit = forkmon.wait_exit();
        let fresh = project.fresh(&argv);
        if !fresh.stdout.ends_with(&exit.output) {
            forkmon.fail(&format!("not as fresh: {exit:?}, but {fresh:#?}"));
        }
    }
    forkmon.finish();
}

#[test]
fn calls_that_only_tell_whether_a_path_is_there() {
    // statfs, name_to_handle_at, open_tree, connect.
    for call in [
        "syscall(137, $name, my $room = ' ' x 512)",
        "syscall(303, -100, $name, my $handle = pack('Li', 0, 0) . ' ' x 128, \
         my $mount = ' ' x 8, 0)",
        "syscall(428, -100, $name, 0)",
    ] {
        check(
            Project::new("told"),
            &format!(
                "my $name = \"late.txt\\0\"; my $answer = {call}; \
                 print $answer < 0 && $!{{ENOENT}} ? 'missing' : 'there', \"\\n\"; work(0.1);"
            ),
            &[
                |project| project.create("late.txt", "one\n"),
                |project| project.remove("late.txt"),
            ],
        );
    }
    check(
        Project::new("connect"),
        "use Socket; socket(my $socket, PF_UNIX, SOCK_STREAM, 0) or die; \
         connect($socket, pack_sockaddr_un('late.sock')); \
         print $!{ENOENT} ? 'missing' : 'there', \"\\n\"; close($socket); work(0.1);",
        &[|project| project.create("late.sock", "no socket\n")],
    );
}

#[test]
fn an_interpreter_that_is_a_script() {
    check(
        Project::new("interpreters")
            .program("outer", "#!./inner\n")
            .program("inner", "#!/bin/sh\necho one\n"),
        "-x 'outer' or die; work(0.1); system('./outer'); work(0.1);",
        &[
            |project| project.save("inner", "#!/bin/sh\necho two\n", Save::ByRename),
            |project| project.set_mode("inner", 0o644),
        ],
    );
}

#[test]
fn a_target_that_is_changed_through_a_link() {
    check(
        Project::new("cut-through")
            .file("one.txt", "1\n")
            .file("two.txt", "2\n")
            .link("current", "one.txt"),
        "work(0.1); truncate('current', 1) or die; work(0.1); print slurp('one.txt'), \"\\n\";",
        &[|project| project.retarget("current", "two.txt")],
    );
}

/// A link was taken for the guest's own work once it led to that.
#[test]
fn a_link_that_is_made_to_lead_to_an_output() {
    check(
        Project::new("to-output")
            .file("one.txt", "1\n")
            .link("current", "one.txt"),
        "spew('out.txt', 'output'); work(0.1); print readlink('current'), \"\\n\"; work(0.1);",
        &[
            |project| project.retarget("current", "out.txt"),
            |project| project.retarget("current", "one.txt"),
        ],
    );
}
