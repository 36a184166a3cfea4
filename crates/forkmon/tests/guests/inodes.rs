//! Files that lie under another inode than the one that the guest has open, with the same
//! bytes or others: a save by rename leaves the old one behind.

use std::fs;

use crate::harness::{Project, Save};
use crate::pieces::numbers;
use crate::require_guest;

/// A file that was saved with the same bytes by rename was another one from then on, and
/// the guest that had the old one open was not known to read it.
#[test]
fn the_same_bytes_under_another_inode_change_nothing() {
    let lua = require_guest!("lua5.4");
    let project = Project::new("same-renamed");
    let go = project.beside().join("go");
    let script = format!(
        "local f = io.open('data')\nprint('early', f:read('l'))\nlocal n = 0\n\
         for i = 1, 3000000 do n = (n + i) % 1009 end\n\
         print('other', io.open('other'):read('l'))\nio.stdout:flush()\n\
         repeat local go = io.open('{}') until go\nprint(#f:read('a'))\n",
        go.display()
    );
    let mut project = project
        .file("read.lua", &script)
        .file("other", "one\n")
        .file("data", &numbers(3000, ""));
    let argv = [lua.as_str(), "read.lua"];
    let mut forkmon = project.watch(&argv);
    forkmon.wait_output("early\tnumber 0\nother\tone\n");
    // A save is taken for one that came in the middle of the read, unless another one
    // was noticed between the two.
    project.save("other", "two\n", Save::ByRename);
    assert!(forkmon.wait_resume().from.is_some());
    assert_eq!(forkmon.wait_output("two\n"), "other\ttwo\n");
    project.save("data", &numbers(3000, ""), Save::ByRename);
    forkmon.wait_event("unchanged");
    project.save("data", &(numbers(3000, "") + "one more\n"), Save::ByRename);
    assert!(forkmon.wait_resume().from.is_some());
    fs::write(&go, "").expect("it can be written");
    let again = forkmon.wait_exit().output;
    let fresh = project.fresh(&argv).stdout;
    assert!(fresh.ends_with(&again), "{again:?} of {fresh:?}");
    project.save(
        "data",
        &(numbers(3000, "") + "one and one more\n"),
        Save::InPlace,
    );
    assert!(forkmon.wait_resume().from.is_some());
    let again = forkmon.wait_exit().output;
    let fresh = project.fresh(&argv).stdout;
    assert!(fresh.ends_with(&again), "{again:?} of {fresh:?}");
    forkmon.finish();
}

/// The resumed shell read on in the new file, which was not known as the one it reads, so
/// that nothing counted of what it read there.
#[test]
fn a_resume_goes_on_with_the_same_bytes_under_another_inode() {
    let bash = require_guest!("bash");
    // What bash has read too much it gives back before each child.
    let line =
        |n: usize| format!("for ((i = 0; i < 2000; i++)); do :; done; (:); echo line {n} @{n}@\n");
    let script: String = (10..60).map(line).collect();
    let script = script.replace("line 30", "\"$(< child)\" line 30");
    let mut project = Project::new("same-resumed")
        .file("read.sh", &script)
        .file("child", "one\n");
    let argv = [bash.as_str(), "read.sh"];
    let mut forkmon = project.watch(&argv);
    forkmon.wait_exit();
    project.save("read.sh", &script, Save::DeleteAndCreate);
    forkmon.wait_event("unchanged");
    project.save("child", "two\n", Save::InPlace);
    assert!(forkmon.wait_resume().from.is_some());
    forkmon.wait_exit();
    for (at, how) in [
        (40, Save::ByRename),
        (35, Save::InPlace),
        (50, Save::ByRename),
    ] {
        let edited = script.replace(&format!("@{at}@"), "@99@");
        project.save("read.sh", &edited, how);
        assert!(forkmon.wait_resume().from.is_some(), "{at}");
        let again = forkmon.wait_exit().output;
        let fresh = project.fresh(&argv).stdout;
        assert!(again.contains(&format!("line {at} @99@")), "{again}");
        assert!(fresh.ends_with(&again), "{again:?} of {fresh:?}");
        assert!(!again.contains("line 10 "), "{again}");
    }
    forkmon.finish();
}

/// What the shell itself opens once more is another file then, all of which counts.
#[test]
fn the_same_bytes_under_another_inode_are_read_when_the_path_is_opened_again() {
    let bash = require_guest!("bash");
    let project = Project::new("same-reopened").file("data", &numbers(3000, ""));
    let go = project.beside().join("go");
    let script = format!(
        "read -r h < data; echo \"early $h\"; until [ -e {} ]; do :; done\n\
         while read -r l; do last=$l; done < data; echo \"$last\"\n",
        go.display()
    );
    let mut project = project.file("read.sh", &script).file("first", "one\n");
    let argv = [bash.as_str(), "read.sh"];
    let mut forkmon = project.watch(&argv);
    forkmon.wait_output("early number 0\n");
    project.save("data", &numbers(3000, ""), Save::ByRename);
    // Nothing says so of a file of which more may be read; the script does.
    fs::write(&go, "").expect("it can be written");
    let first = forkmon.wait_exit().output;
    assert!(first.ends_with("number 2999\n"), "{first}");
    for how in [Save::ByRename, Save::InPlace] {
        let tail = format!("{}the end {how:?}\n", numbers(3000, ""));
        project.save("data", &tail, how);
        forkmon.wait_resume();
        let again = forkmon.wait_exit().output;
        assert!(again.ends_with(&format!("the end {how:?}\n")), "{again}");
    }
    forkmon.finish();
}

/// Two names of one file: the one that was saved was read under the other, too.
#[test]
fn a_second_name_of_a_saved_file_stays_what_it_is() {
    let lua = require_guest!("lua5.4");
    let script = "local a, b = io.open('data'), io.open('second')\n\
                  print('early', a:read('l'), b:read('l'))\nlocal n = 0\n\
                  for i = 1, 3000000 do n = (n + i) % 1009 end\nprint(n, io.open('other'):read('a'))\n\
                  for i = 1, 3000000 do n = (n + i) % 1009 end\nprint(#a:read('a'), #b:read('a'))\n";
    let mut project = Project::new("two-names")
        .file("read.lua", script)
        .file("other", "other\n")
        .file("data", &numbers(3000, ""));
    fs::hard_link(project.path("data"), project.path("second")).expect("it can be linked");
    let argv = [lua.as_str(), "read.lua"];
    let mut forkmon = project.watch(&argv);
    forkmon.wait_exit();
    let second = numbers(3000, "");
    project.save("data", &(numbers(3000, "") + "more\n"), Save::ByRename);
    project.note("second", &second);
    assert!(forkmon.wait_resume().from.is_some());
    let again = forkmon.wait_exit().output;
    assert!(project.fresh(&argv).stdout.ends_with(&again), "{again}");
    project.save("second", &(second + "much more\n"), Save::ByRename);
    assert!(forkmon.wait_resume().from.is_some());
    let again = forkmon.wait_exit().output;
    assert!(project.fresh(&argv).stdout.ends_with(&again), "{again}");
    forkmon.finish();
}
