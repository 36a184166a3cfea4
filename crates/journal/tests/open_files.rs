//! Files that the guest and somebody else have open at the same time. Each of these bytes
//! was lost once, or kept for nobody.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod common;

use std::fs::{self, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::FileExt;
use std::process::{Command, Stdio};

use common::{Guest, append, begin, kept};
use journal::Mark;

/// Their close counted as the guest's.
#[test]
fn what_is_appended_while_the_guest_has_the_file_open_is_theirs() {
    for act in [
        (|guest| guest.unlink("log")) as fn(&mut Guest),
        |guest| guest.write("log", "anew"),
        |guest| guest.truncate("log", 0),
        |guest| {
            guest.write("other", "guest's");
            guest.rename("other", "log");
        },
    ] {
        let mut guest = Guest::new();
        begin(&mut guest);
        let mut open = guest.create("log");
        open.write_all(b"guest's\n").unwrap();
        append(&guest.path("log"), "person's\n");
        act(&mut guest);
        // One close more than the guest owes, as far as is known.
        drop(open);
        assert_eq!(kept(guest), ["guest's\nperson's\n"]);
    }
}

/// The kernel made one event of the two closes, since nothing tells of the other folder.
#[test]
fn what_comes_by_a_hard_link_with_the_guest_s_own_close_is_kept() {
    for act in [
        (|guest, mark| drop(guest.undo(mark))) as fn(&mut Guest, Mark),
        |guest, _| guest.write("log", "anew"),
        |guest, _| guest.truncate("log", 0),
        |guest, mark| {
            guest.write("log", "anew");
            guest.undo(mark);
        },
    ] {
        for reads in [false, true] {
            let mut guest = Guest::new();
            guest.put("log", "before\n");
            let elsewhere = guest.base.path().join("log");
            fs::hard_link(guest.path("log"), &elsewhere).unwrap();
            let mark = begin(&mut guest);
            let mut open = guest.append("log");
            open.write_all(b"guest's\n").unwrap();
            let how = OpenOptions::new().read(reads).append(!reads).clone();
            let mut theirs = how.open(&elsewhere).unwrap();
            if reads {
                // Nothing of anybody's is in it.
                drop((theirs, open));
                act(&mut guest, mark);
                assert_eq!(kept(guest), [""; 0]);
            } else {
                theirs.write_all(b"person's\n").unwrap();
                drop((open, theirs));
                act(&mut guest, mark);
                assert_eq!(kept(guest), ["before\nguest's\nperson's\n"]);
            }
        }
    }
}

/// The new folder was not watched, and of two closes in a row only one came.
#[test]
fn closes_are_told_apart_in_a_folder_that_has_taken_the_place_of_another() {
    let mut guest = Guest::new();
    let mark = begin(&mut guest);
    guest.make_folder("logs");
    guest.write("logs/first", "guest's");
    guest.rename("logs", "logs.old");
    guest.make_folder("logs");
    let open = guest.append("logs/log");
    let theirs = OpenOptions::new().append(true).open(guest.path("logs/log"));
    let mut theirs = theirs.unwrap();
    theirs.write_all(b"person's").unwrap();
    drop((open, theirs));
    let undo = guest.journal.undo_to(mark);
    assert!(!undo.complete);
    assert_eq!(guest.read("logs/log"), "person's");
}

/// A descriptor that is older than the guest's, and a file that an image has open: no
/// event tells of what is written.
#[test]
fn what_others_may_write_to_is_kept_when_an_image_has_it_open() {
    let mut guest = Guest::new();
    guest.put("log", "a line\n");
    let theirs = OpenOptions::new().write(true).open(guest.path("log"));
    let theirs = theirs.unwrap();
    let open = guest.open_existing("log");
    let mark = begin(&mut guest);
    guest.hold(mark, &open, "log");
    open.write_at(b"G", 0).unwrap();
    theirs.write_at(b"person's", 2).unwrap();
    guest.undo(mark);
    assert_eq!(guest.read("log"), "a line\n");
    drop((open, theirs));
    assert_eq!(kept(guest), ["G person's"]);
}

/// Each line was lost with the journal: the count of closes was right.
#[test]
fn what_comes_by_a_descriptor_that_stays_open_is_kept() {
    let mut guest = Guest::new();
    guest.put("log", "before\n");
    begin(&mut guest);
    let mut open = guest.append("log");
    open.write_all(b"guest's\n").unwrap();
    let mark = guest.journal.mark();
    guest.hold(mark, &open, "log");
    let script = "exec 3>>\"$0\"; echo person\\'s >&3; echo written; read end || :";
    let mut person = Command::new("sh")
        .args(["-c", script])
        .arg(guest.path("log"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut told = String::new();
    let mut output = BufReader::new(person.stdout.take().unwrap());
    output.read_line(&mut told).unwrap();
    assert_eq!(told, "written\n");
    open.write_all(b"dropped\n").unwrap();
    guest.undo(mark);
    assert_eq!(guest.read("log"), "before\nguest's\n");
    drop(person.stdin.take());
    assert!(person.wait().unwrap().success());
    assert_eq!(kept(guest), ["before\nguest's\nperson's\ndropped\n"]);
}

/// All of it was kept, as if the guest had written over it.
#[test]
fn nothing_is_kept_of_a_log_that_both_have_appended_to() {
    let mut guest = Guest::new();
    begin(&mut guest);
    guest.put("log", "");
    for _ in 0..3 {
        append(&guest.path("log"), "person's\n");
        guest.append("log").write_all(b"guest's\n").unwrap();
    }
    assert_eq!(guest.read("log"), "person's\nguest's\n".repeat(3));
    assert_eq!(kept(guest), [""; 0]);
}
