//! What an undo took away goes when its room is needed, and nothing else with it.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod common;

use std::fs::{self, File};
use std::io::Write;

use common::{Guest, append, begin, kept};
use journal::Mark;

/// A guest with room for 100,000 bytes, of which an undo has taken so many away.
fn with_taken_away(bytes: usize, files: &[(&str, usize)]) -> (Guest, Mark) {
    let mut guest = Guest::with(|options| options.limit = 100_000);
    for (name, size) in files {
        guest.put(name, &name.repeat(*size));
    }
    let mark = begin(&mut guest);
    guest.write("a", &"x".repeat(bytes));
    guest.undo(mark);
    let mark = guest.journal.mark();
    (guest, mark)
}

/// The room that it took was needed for a copy of its other name's, and it was not
/// watched any more.
#[test]
fn what_goes_stays_watched_by_its_other_name() {
    let mut guest = Guest::with(|options| options.limit = 100_000);
    let mark = begin(&mut guest);
    guest.write("a", &"x".repeat(60_000));
    fs::hard_link(guest.path("a"), guest.path("b")).unwrap();
    guest.undo(mark);
    let mark = guest.journal.mark();
    guest.append("b").write_all(b"guest's").unwrap();
    append(&guest.path("b"), "person's");
    assert!(!guest.journal.undo_to(mark).complete);
    assert!(guest.read("b").ends_with("guest'sperson's"));
}

/// The file that the room was for was forgotten.
#[test]
fn what_is_renamed_meanwhile_stays_watched() {
    let (mut guest, _) = with_taken_away(60_000, &[("b", 60_000)]);
    guest.rename("b", "c");
    append(&guest.path("c"), "person's");
    fs::File::options()
        .write(true)
        .open(guest.path("c"))
        .unwrap()
        .set_len(9)
        .unwrap();
    append(&guest.path("c"), "person's");
    guest.unlink("c");
    assert_eq!(kept(guest), ["bbbbbbbbbperson's"]);
}

/// What the undo was at work on was forgotten, and nothing could be proven of it.
#[test]
fn an_undo_that_needs_room_is_whole() {
    let (mut guest, mark) = with_taken_away(40_000, &[("b", 20_000), ("c", 20_000)]);
    let tree = guest.tree();
    guest.write("b", "guest's");
    guest.unlink("b");
    guest.write("c", &"y".repeat(30_000));
    guest.undo(mark);
    assert_eq!(guest.tree(), tree);
}

/// So was the twin that stood in for a file that somebody reads.
#[test]
fn an_undo_of_a_file_that_is_read_is_whole() {
    let (mut guest, mark) = with_taken_away(60_000, &[("c", 20_000)]);
    guest.write("c", &"y".repeat(30_000));
    let reader = File::open(guest.path("c")).unwrap();
    guest.undo(mark);
    drop(reader);
    assert_eq!(guest.read("c"), "c".repeat(20_000));
}

/// It took room for ever, and no later version of the log could be saved.
#[test]
fn what_both_have_added_to_takes_no_room() {
    let mut guest = Guest::with(|options| options.limit = 100_000);
    begin(&mut guest);
    guest.put("log", "");
    append(&guest.path("log"), &"x".repeat(60_000));
    guest.append("log").write_all(b"guest's").unwrap();
    let mark = guest.journal.mark();
    guest.journal.forget_before(mark);
    append(&guest.path("log"), "person's");
    guest.append("log").write_all(b"guest's").unwrap();
    assert_eq!(kept(guest), [""; 0]);
}
