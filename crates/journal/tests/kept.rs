//! What an undo takes away can be had back, and what may be somebody's outlives the
//! journal.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod common;

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::PathBuf;

use common::{Guest, save_by_rename, save_in_place};
use journal::{Item, Reason, Why};

/// The journal's end: what is left of it, bytes by path.
fn ended(mut guest: Guest) -> (Vec<(PathBuf, String)>, tempfile::TempDir) {
    let kept = guest.journal.finish();
    drop(guest.journal);
    let store = guest.base.path().join("store");
    assert_eq!(fs::read_dir(store).unwrap().count(), 0, "the store goes");
    let read = |item: &Item| (item.path.clone(), fs::read_to_string(&item.lies).unwrap());
    (kept.iter().map(read).collect(), guest.base)
}

fn nothing_is_kept(guest: Guest) {
    let (kept, base) = ended(guest);
    assert!(kept.is_empty(), "{kept:?}");
    assert!(!base.path().join("keep").exists(), "and no empty folder");
}

#[test]
fn what_an_undo_removes_or_writes_over_can_be_had_back() {
    let mut guest = Guest::new();
    guest.put("old", "before");
    let mark = guest.journal.mark();
    guest.write("old", "the guest's version");
    guest.write("new", "made by the guest");
    guest.undo(mark);
    let taken = guest.taken_away();
    let expected = [
        (guest.path("new"), "made by the guest".to_owned()),
        (guest.path("old"), "the guest's version".to_owned()),
    ];
    assert_eq!(taken, expected);
    let items = guest.journal.taken_away();
    assert!(items.iter().all(|item| !item.stays));
    assert_eq!(items[0].size, 17);
    assert_eq!(items[0].why, Reason::Removed);
    assert_eq!(items[1].why, Reason::Overwritten);
    assert!(guest.journal.kept().is_empty(), "nobody has to be told");
    nothing_is_kept(guest);
}

/// Somebody had the file open before it was taken away, and writes only then.
#[test]
fn a_write_to_what_was_taken_away_is_kept() {
    for end_at_once in [false, true] {
        let mut guest = Guest::new();
        let mark = guest.journal.mark();
        guest.write("new", "guest's");
        guest.undo(mark);
        let lies = guest.journal.taken_away()[0].lies.clone();
        let mut late = OpenOptions::new().append(true).open(lies).unwrap();
        late.write_all(b", person's").unwrap();
        let path = guest.path("new");
        if !end_at_once {
            drop(late);
            let kept = guest.journal.taken_away();
            assert_eq!((kept[0].why, kept[0].stays), (Reason::Written, true));
            assert_eq!(guest.journal.kept().len(), 1);
            let mode = fs::metadata(kept[0].lies.parent().unwrap());
            assert_eq!(mode.unwrap().permissions().mode() & 0o7777, 0o700);
            assert_eq!(fs::read(&kept[0].lies).unwrap(), b"guest's, person's");
            let list = fs::read_to_string(kept[0].lies.with_file_name("list.txt")).unwrap();
            assert!(list.contains(path.to_str().unwrap()), "{list}");
        } else {
            // It is still open at the end: it may be written to even later.
            let (kept, base) = ended(guest);
            assert_eq!(kept, [(path, "guest's, person's".to_owned())]);
            drop(base);
        }
    }
}

#[test]
fn what_the_guest_writes_over_after_a_person_is_kept() {
    for save in [save_in_place, save_by_rename] {
        for act in [
            (|guest| guest.write("out", "guest's again")) as fn(&mut Guest),
            |guest| guest.unlink("out"),
            |guest| {
                guest.write("other", "guest's again");
                guest.rename("other", "out");
            },
        ] {
            let mut guest = Guest::new();
            guest.journal.mark();
            guest.write("out", "guest's");
            save(&guest.path("out"), "person's");
            act(&mut guest);
            let path = guest.path("out");
            assert_eq!(guest.taken_away(), [(path.clone(), "person's".to_owned())]);
            let (kept, base) = ended(guest);
            assert_eq!(kept, [(path, "person's".to_owned())]);
            drop(base);
        }
    }
}

/// Of two saves of a person's the later one supersedes the other, but not what was saved
/// elsewhere; a file from before, and one that an undo has put back, are nobody's news.
#[test]
fn the_last_version_that_the_guest_wrote_over_is_kept() {
    let mut guest = Guest::new();
    guest.put("old", "last week's");
    guest.journal.mark();
    for round in 0..3 {
        for name in ["old", "out"] {
            guest.write(name, "guest's");
            save_in_place(&guest.path(name), &format!("person's {round} of {name}"));
            guest.write(name, "guest's");
        }
        guest.journal.mark();
    }
    let paths = ["old", "out"].map(|name| guest.path(name));
    let (mut kept, base) = ended(guest);
    kept.sort();
    let expected = paths.map(|path| {
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        (path, format!("person's 2 of {name}"))
    });
    assert_eq!(kept, expected);
    drop(base);
}

/// … not if it is where the person put it, or if it was an old file that nobody
/// touched.
#[test]
fn what_lies_in_its_place_is_not_kept_besides() {
    let mut guest = Guest::new();
    guest.put("old", "before");
    let mark = guest.journal.mark();
    guest.write("old", "guest's");
    guest.write("out", "guest's");
    save_in_place(&guest.path("out"), "person's");
    guest.write("out", "guest's again");
    let _ = guest.journal.undo_to(mark);
    assert_eq!(guest.read("out"), "person's");
    assert_eq!(guest.read("old"), "before");
    nothing_is_kept(guest);
}

/// A file that was left because somebody has it open: what it held before the guest
/// wrote to it is nowhere else.
#[test]
fn what_a_file_held_that_is_left_is_kept() {
    let mut guest = Guest::new();
    guest.put("old", "before");
    let mark = guest.journal.mark();
    guest.write("old", "guest's");
    let open = OpenOptions::new()
        .write(true)
        .open(guest.path("old"))
        .unwrap();
    let undo = guest.journal.undo_to(mark);
    assert!(matches!(undo.left[0].why, Why::Open), "{undo:?}");
    open.write_at(b"person's", 0).unwrap();
    let path = guest.path("old");
    assert_eq!(guest.read("old"), "person's");
    let (kept, base) = ended(guest);
    assert_eq!(kept, [(path, "before".to_owned())]);
    drop(base);
}

/// A file that was there before, renamed by the guest and then written to by a person:
/// both versions are where a fresh run expects them.
#[test]
fn what_a_renamed_file_held_is_back_under_its_old_name() {
    for save in [save_in_place, save_by_rename] {
        let mut guest = Guest::new();
        guest.put("a", "before");
        let mark = guest.journal.mark();
        guest.rename("a", "b");
        save(&guest.path("b"), "person's");
        let undo = guest.journal.undo_to(mark);
        assert_eq!(undo.left.len(), 1, "{undo:?}");
        assert_eq!(guest.read("a"), "before");
        assert_eq!(guest.read("b"), "person's");
        nothing_is_kept(guest);
    }
}

#[test]
fn what_an_exchanged_file_held_is_back_under_its_old_name() {
    for save in [save_in_place, save_by_rename] {
        let mut guest = Guest::new();
        guest.put("a", "before a");
        guest.put("b", "before b");
        let mark = guest.journal.mark();
        guest.exchange("a", "b");
        // By this name it was `a`, and now is what `b` was.
        save(&guest.path("a"), "person's");
        let undo = guest.journal.undo_to(mark);
        assert!(!undo.complete);
        assert_eq!(guest.read("a"), "person's");
        assert_eq!(guest.read("b"), "before b");
        // What the person wrote over.
        let path = guest.path("b");
        let (kept, base) = ended(guest);
        assert_eq!(kept, [(path, "before a".to_owned())]);
        drop(base);
    }
}

#[test]
fn the_oldest_goes_when_there_is_no_room() {
    let mut guest = Guest::with(|options| options.limit = 25);
    guest.put("old", "twenty bytes are here");
    let old = fs::File::open(guest.path("old")).unwrap();
    old.set_modified(std::time::UNIX_EPOCH).unwrap();
    for round in 0..4 {
        let mark = guest.journal.mark();
        guest.write("new", &format!("10 bytes {round}"));
        guest.undo(mark);
    }
    let bytes = |guest: &mut Guest| -> Vec<String> {
        guest
            .taken_away()
            .into_iter()
            .map(|(_, bytes)| bytes)
            .collect()
    };
    assert_eq!(bytes(&mut guest), ["10 bytes 2", "10 bytes 3"]);
    // What is needed in order to undo comes first.
    let mark = guest.journal.mark();
    guest.write("old", "x");
    assert!(bytes(&mut guest).is_empty());
    guest.undo(mark);
    assert_eq!(guest.read("old"), "twenty bytes are here");
    nothing_is_kept(guest);
}

#[test]
fn a_person_who_is_reading_does_not_keep_a_file_from_being_put_back() {
    let mut guest = Guest::new();
    guest.put("log", "before\n");
    let reader = fs::File::open(guest.path("log")).unwrap();
    let (inode, mark) = (guest.inode("log"), guest.journal.mark());
    guest.append("log").write_all(b"guest's\n").unwrap();
    guest.undo(mark);
    assert_eq!(guest.read("log"), "before\n");
    assert_eq!(guest.inode("log"), inode, "the reader sees it, too");
    drop(reader);
    nothing_is_kept(guest);
}

#[test]
fn nothing_is_undone_where_that_is_not_wanted() {
    let mut guest = Guest::with(|options| options.undo = false);
    guest.put("old", "before");
    guest.put("gone", "before");
    fs::create_dir(guest.path("folder")).unwrap();
    let mark = guest.journal.mark();
    guest.write("old", "guest's");
    guest.write("new", "guest's");
    guest.unlink("gone");
    guest.remove_folder("folder").unwrap();
    let mode = fs::Permissions::from_mode(0o600);
    guest
        .change("old", true, |path| fs::set_permissions(path, mode))
        .unwrap();
    let tree = guest.tree();
    assert!(guest.undo(mark).is_empty());
    assert_eq!(guest.tree(), tree);
    assert_eq!(guest.stored(), 0);
    let own = ["old", "new", "gone"].map(|name| guest.journal.wrote(&guest.path(name)));
    assert_eq!(own, [true; 3], "they are the guest's all the same");
    let foreign = guest.path("old");
    assert!(!guest.journal.foreign(&foreign));
    save_in_place(&foreign, "person's");
    assert!(guest.journal.foreign(&foreign));
    nothing_is_kept(guest);
}
