//! Files of which counting cannot tell whose bytes are in them: with names that the guest
//! does not know, or opened by a task that died. Each of these bytes was lost once, or kept
//! for nobody.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod common;

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::PathBuf;

use common::{Guest, append, begin, kept};
use journal::Mark;

/// A guest, and a file of it that has another name elsewhere.
fn linked() -> (Guest, PathBuf) {
    let guest = Guest::new();
    guest.put("log", "before\n");
    let elsewhere = guest.base.path().join("log");
    fs::hard_link(guest.path("log"), &elsewhere).unwrap();
    (guest, elsewhere)
}

/// The kernel made one event of the two closes, since nothing tells of the other folder.
#[test]
fn what_comes_by_a_hard_link_with_the_guest_s_own_close_is_kept() {
    for act in [
        (|guest, mark| drop(guest.undo(mark))) as fn(&mut Guest, Mark),
        |guest, _| guest.unlink("log"),
        |guest, _| {
            guest.write("other", "guest's");
            guest.rename("other", "log");
        },
        |guest, _| guest.write("log", "anew"),
        |guest, _| guest.truncate("log", 0),
        |guest, mark| {
            guest.write("log", "anew");
            guest.undo(mark);
        },
    ] {
        for first in [false, true] {
            for goes in [false, true] {
                let (mut guest, elsewhere) = linked();
                let mark = begin(&mut guest);
                let open_theirs = || OpenOptions::new().append(true).open(&elsewhere).unwrap();
                let early = first.then(open_theirs);
                let mut open = guest.append("log");
                let mut theirs = early.unwrap_or_else(open_theirs);
                open.write_all(b"guest's\n").unwrap();
                theirs.write_all(b"person's\n").unwrap();
                drop((open, theirs));
                if goes {
                    fs::remove_file(&elsewhere).unwrap();
                }
                act(&mut guest, mark);
                // As long as it is there, it has the bytes of a name that is removed.
                let there = fs::read_to_string(&elsewhere).unwrap_or_default();
                let mut all = kept(guest);
                all.extend(there.contains("person's").then_some(there));
                let last = all.last().map(String::as_str);
                assert_eq!(last, Some("before\nguest's\nperson's\n"), "{first} {goes}");
            }
        }
    }
}

#[test]
fn nothing_is_kept_of_a_file_with_links_that_nobody_has_opened() {
    for undone in [false, true] {
        let (mut guest, _) = linked();
        let mark = begin(&mut guest);
        let mut open = guest.append("log");
        open.write_all(b"guest's\n").unwrap();
        // Another checkpoint, for which it is copied.
        let held = guest.journal.mark();
        guest.hold(held, &open, "log");
        drop(open);
        if undone {
            guest.undo(mark);
        }
        guest.write("log", "anew");
        assert_eq!(kept(guest), [""; 0]);
    }
}

/// Where all names are in folders that are watched, each close is told of.
#[test]
fn nothing_is_kept_of_a_file_whose_links_are_known() {
    let mut guest = Guest::new();
    guest.put("log", "before\n");
    fs::hard_link(guest.path("log"), guest.path("other")).unwrap();
    let mark = begin(&mut guest);
    let open = guest.append("log");
    drop((File::open(guest.path("log")).unwrap(), open));
    guest.undo(mark);
    assert_eq!(kept(guest), [""; 0]);
}

/// The guest's own file: it went with the run that had made it.
#[test]
fn what_somebody_may_have_written_to_the_guest_s_own_file_is_kept() {
    for undone in [false, true] {
        let mut guest = Guest::new();
        let mark = begin(&mut guest);
        drop(guest.create("log"));
        let elsewhere = guest.base.path().join("log");
        fs::hard_link(guest.path("log"), &elsewhere).unwrap();
        let open = guest.append("log");
        let mut theirs = OpenOptions::new().append(true).open(&elsewhere).unwrap();
        theirs.write_all(b"person's").unwrap();
        drop((open, theirs));
        fs::remove_file(&elsewhere).unwrap();
        if undone {
            guest.undo(mark);
        } else {
            guest.unlink("log");
        }
        assert_eq!(kept(guest), ["person's"], "{undone}");
    }
}

/// It was written over, although it could not be set aside.
#[test]
fn what_may_be_somebody_s_stays_where_there_is_no_room_for_it() {
    let mut guest = Guest::with(|options| options.limit = 30);
    guest.put("log", "what was there before\n");
    let elsewhere = guest.base.path().join("log");
    fs::hard_link(guest.path("log"), &elsewhere).unwrap();
    let mark = begin(&mut guest);
    let open = guest.append("log");
    let mut theirs = OpenOptions::new().append(true).open(&elsewhere).unwrap();
    theirs.write_all(b"person's\n").unwrap();
    drop((open, theirs));
    assert!(!guest.journal.undo_to(mark).complete);
    assert!(guest.read("log").ends_with("person's\n"));
}

/// It was counted as a known one, in a folder that was watched no more.
#[test]
fn a_name_in_a_folder_that_has_taken_the_place_of_another_is_not_known() {
    let mut guest = Guest::new();
    fs::create_dir(guest.path("folder")).unwrap();
    guest.put("log", "before\n");
    begin(&mut guest);
    guest.link("log", "folder/log");
    let mark = guest.journal.mark();
    fs::remove_dir_all(guest.path("folder")).unwrap();
    fs::create_dir(guest.path("folder")).unwrap();
    let elsewhere = guest.path("folder/log");
    fs::hard_link(guest.path("log"), &elsewhere).unwrap();
    let open = guest.append("log");
    let mut theirs = OpenOptions::new().append(true).open(&elsewhere).unwrap();
    theirs.write_all(b"person's\n").unwrap();
    drop((open, theirs));
    let undo = guest.journal.undo_to(mark);
    assert!(!undo.complete, "the two closes gave two events");
    assert_eq!(guest.read("log"), "before\nperson's\n");
}

/// Its close was owed for ever, and the next one of anybody's was taken for it.
#[test]
fn a_task_that_dies_in_its_open_owes_no_close() {
    for others_live_on in [false, true] {
        for opened in [false, true] {
            let mut guest = Guest::new();
            guest.put("log", "before\n");
            let mark = begin(&mut guest);
            for name in ["log", "new"] {
                let open = guest.journal.before(guest.open_effect(name, true));
                if opened {
                    let mut how = OpenOptions::new();
                    drop(how.append(true).create(true).open(guest.path(name)));
                }
                guest.journal.after_kill(open, Some(7)).unwrap();
            }
            if others_live_on {
                guest.journal.process_ended(7);
            } else {
                guest.journal.guest_ended();
            }
            append(&guest.path("log"), "person's\n");
            let undo = guest.journal.undo_to(mark);
            assert!(!undo.complete, "{others_live_on} {opened}");
            assert_eq!(guest.read("log"), "before\nperson's\n");
            assert!(!guest.path("new").exists());
        }
    }
}

/// Another close came meanwhile: the dead task's, or somebody's.
#[test]
fn what_may_not_be_a_dead_task_s_is_kept() {
    for there_before in [false, true] {
        for act in [
            (|guest, mark| drop(guest.undo(mark))) as fn(&mut Guest, Mark),
            |guest, _| guest.unlink("log"),
        ] {
            let mut guest = Guest::new();
            if there_before {
                guest.put("log", "before\n");
            }
            let mark = begin(&mut guest);
            let other = guest.append("log");
            let open = guest.journal.before(guest.open_effect("log", false));
            guest.journal.after_kill(open, Some(7)).unwrap();
            drop(other);
            guest.journal.process_ended(7);
            append(&guest.path("log"), "person's\n");
            act(&mut guest, mark);
            let before = if there_before { "before\n" } else { "" };
            assert_eq!(kept(guest), [format!("{before}person's\n")]);
        }
    }
}

/// A close after a task had died in its open was taken for that task's.
#[test]
fn what_is_saved_before_a_process_is_all_gone_is_kept() {
    for how in 0..3 {
        let mut guest = Guest::new();
        guest.put("log", "before\n");
        let mark = begin(&mut guest);
        let open = guest.journal.before(guest.open_effect("log", false));
        guest.journal.after_kill(open, Some(7)).unwrap();
        append(&guest.path("log"), "person's\n");
        match how {
            0 => guest.journal.process_ended(7),
            1 => guest.journal.guest_ended(),
            _ => {}
        }
        guest.undo(mark);
        assert_eq!(kept(guest), ["before\nperson's\n"], "{how}");
    }
}
