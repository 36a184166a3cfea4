//! What somebody else wrote stays where it is, whatever the guest did before or
//! does after.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod common;

use std::fs;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;

use common::{Guest, save_by_rename, save_in_place};
use journal::{Undo, Why};
use proptest::prelude::*;

const SAVES: [fn(&Path, &str); 2] = [save_in_place, save_by_rename];

fn only_left(undo: &Undo) -> &Why {
    assert!(!undo.complete, "{undo:?}");
    assert_eq!(undo.left.len(), 1, "{undo:?}");
    &undo.left[0].why
}

#[test]
fn an_edited_new_file_stays() {
    for save in SAVES {
        let mut guest = Guest::new();
        let mark = guest.journal.mark();
        guest.write("new", "guest's");
        assert!(!guest.journal.foreign(&guest.path("new")));
        save(&guest.path("new"), "person's");
        assert!(guest.journal.foreign(&guest.path("new")));
        let undo = guest.journal.undo_to(mark);
        only_left(&undo);
        assert_eq!(guest.read("new"), "person's");
    }
}

#[test]
fn an_edited_old_file_stays() {
    for save in SAVES {
        let mut guest = Guest::new();
        guest.put("a", "old");
        let mark = guest.journal.mark();
        guest.write("a", "guest's");
        save(&guest.path("a"), "person's");
        let undo = guest.journal.undo_to(mark);
        only_left(&undo);
        assert_eq!(guest.read("a"), "person's");
    }
}

#[test]
fn an_edit_that_keeps_size_and_bytes_is_seen_too() {
    let mut guest = Guest::new();
    let mark = guest.journal.mark();
    guest.write("new", "same");
    save_in_place(&guest.path("new"), "same");
    let undo = guest.journal.undo_to(mark);
    assert!(matches!(only_left(&undo), Why::Written));
}

/// The close of the person and the one of the dying guest follow each other with
/// nothing between them.
#[test]
fn an_edit_just_before_the_guest_closes_is_seen() {
    let mut guest = Guest::new();
    let mark = guest.journal.mark();
    let mut file = guest.create("log");
    file.write_all(b"guest's").unwrap();
    let mut person = fs::OpenOptions::new()
        .append(true)
        .open(guest.path("log"))
        .unwrap();
    person.write_all(b", person's").unwrap();
    drop(person);
    drop(file);
    let undo = guest.journal.undo_to(mark);
    assert!(matches!(only_left(&undo), Why::Written), "{undo:?}");
    assert_eq!(guest.read("log"), "guest's, person's");
}

#[test]
fn a_file_that_somebody_has_open_for_writing_stays() {
    let mut guest = Guest::new();
    guest.put("old", "old");
    let mark = guest.journal.mark();
    guest.write("new", "guest's");
    guest.write("old", "guest's");
    let open = |name| {
        fs::OpenOptions::new()
            .write(true)
            .open(guest.path(name))
            .unwrap()
    };
    let persons = [open("new"), open("old")];
    let undo = guest.journal.undo_to(mark);
    assert_eq!(undo.left.len(), 2, "{undo:?}");
    assert!(undo.left.iter().all(|left| matches!(left.why, Why::Open)));
    for file in &persons {
        file.write_at(b"person's", 0).unwrap();
    }
    assert_eq!(guest.read("new"), "person's");
    assert_eq!(guest.read("old"), "person's");
}

#[test]
fn an_edit_of_a_file_that_an_image_holds_stays() {
    let mut guest = Guest::new();
    guest.put("log", "old");
    let file = guest.open_existing("log");
    let mark = guest.journal.mark();
    guest.hold(mark, &file, "log");
    file.write_at(b"guest's", 0).unwrap();
    save_in_place(&guest.path("log"), "person's");
    let undo = guest.journal.undo_to(mark);
    only_left(&undo);
    assert_eq!(guest.read("log"), "person's");
}

#[test]
fn a_file_renamed_by_the_guest_and_then_edited_stays_under_its_new_name() {
    for save in SAVES {
        let mut guest = Guest::new();
        guest.put("a", "old");
        let mark = guest.journal.mark();
        guest.rename("a", "b");
        save(&guest.path("b"), "person's");
        let undo = guest.journal.undo_to(mark);
        only_left(&undo);
        assert_eq!(guest.read("b"), "person's");
    }
}

#[test]
fn a_name_that_was_taken_again_stays_taken() {
    let mut guest = Guest::new();
    guest.put("a", "old");
    guest.put("b", "old");
    let mark = guest.journal.mark();
    guest.unlink("a");
    guest.rename("b", "c");
    guest.put("a", "person's");
    guest.put("b", "person's");
    let undo = guest.journal.undo_to(mark);
    assert_eq!(undo.left.len(), 1, "{undo:?}");
    assert_eq!(guest.read("a"), "person's");
    assert_eq!(guest.read("b"), "person's");
    // The new name went, as in a run that never was; what was under it is kept.
    assert!(!guest.path("c").exists());
    let kept = guest.journal.kept();
    let of_b = kept.iter().find(|item| item.path == guest.path("b"));
    let of_b = of_b.expect("it is kept");
    assert_eq!(std::fs::read_to_string(&of_b.lies).unwrap(), "old");
}

/// The name stayed, and the next run found what it was to make.
#[test]
fn a_second_name_of_a_file_that_somebody_replaced_goes_and_its_bytes_are_kept() {
    let mut guest = Guest::new();
    guest.put("a", "old");
    let mark = guest.journal.mark();
    guest.link("a", "b");
    save_by_rename(&guest.path("a"), "person's");
    let undo = guest.journal.undo_to(mark);
    assert!(undo.complete, "{undo:?}");
    assert_eq!(guest.read("a"), "person's");
    assert!(!guest.path("b").exists());
    let kept = guest.journal.kept();
    assert_eq!(kept.len(), 1, "{kept:?}");
    assert_eq!(std::fs::read_to_string(&kept[0].lies).unwrap(), "old");
}

#[test]
fn a_file_in_the_guests_folder_stays_where_it_is() {
    let mut guest = Guest::new();
    let mark = guest.journal.mark();
    guest.make_folder("one");
    guest.rename("one", "two");
    guest.put("two/note", "person's");
    let undo = guest.journal.undo_to(mark);
    assert!(!undo.complete);
    assert_eq!(guest.read("two/note"), "person's");
}

#[test]
fn a_removed_file_stays_removed() {
    let mut guest = Guest::new();
    guest.put("a", "old");
    let mark = guest.journal.mark();
    guest.write("a", "guest's");
    fs::remove_file(guest.path("a")).unwrap();
    assert!(guest.journal.foreign(&guest.path("a")));
    let undo = guest.journal.undo_to(mark);
    assert!(matches!(only_left(&undo), Why::Removed));
    assert!(guest.tree().is_empty());
}

#[test]
fn the_guests_own_removal_of_a_new_file_is_no_edit() {
    let mut guest = Guest::new();
    guest.journal.mark();
    guest.write("a", "guest's");
    guest.unlink("a");
    assert!(guest.journal.wrote(&guest.path("a")));
    assert!(!guest.journal.foreign(&guest.path("a")));
}

/// The guest overwrites an edit: what is put back is the edit, not what was there
/// before it.
#[test]
fn an_edit_that_the_guest_overwrote_comes_back() {
    let mut guest = Guest::new();
    guest.put("a", "old");
    let mark = guest.journal.mark();
    guest.write("a", "guest's");
    save_in_place(&guest.path("a"), "person's");
    guest.write("a", "guest's again");
    let undo = guest.journal.undo_to(mark);
    only_left(&undo);
    assert_eq!(guest.read("a"), "person's");
}

#[test]
fn a_guest_without_watches_leaves_everything() {
    use std::os::fd::OwnedFd;
    let mut guest = Guest::new();
    let mark = guest.journal.mark();
    guest.write("new", "guest's");
    // A queue that overflows before it is read.
    let limit = fs::read_to_string("/proc/sys/fs/inotify/max_queued_events").unwrap();
    let limit: usize = limit.trim().parse().unwrap();
    let files: [OwnedFd; 2] = ["x", "y"].map(|name| {
        guest.put(name, "");
        fs::File::open(guest.path(name)).unwrap().into()
    });
    drop(files);
    for _ in 0..=limit / 2 {
        for name in ["x", "y"] {
            drop(
                fs::OpenOptions::new()
                    .write(true)
                    .open(guest.path(name))
                    .unwrap(),
            );
        }
    }
    let undo = guest.journal.undo_to(mark);
    assert!(matches!(only_left(&undo), Why::Unproven(_)), "{undo:?}");
    assert_eq!(guest.read("new"), "guest's");
}

/// A save at the very time of the undo, again and again: whichever comes first, the
/// person's bytes are under the name at the end.
#[test]
fn a_save_during_the_undo_is_not_lost() {
    for round in 0..150 {
        for save in SAVES {
            let mut guest = Guest::new();
            guest.put("old", "old");
            let mark = guest.journal.mark();
            guest.write("old", "guest's");
            guest.write("new", "guest's");
            guest.rename("new", "newer");
            let paths = ["old", "newer"].map(|name| guest.path(name));
            let barrier = std::sync::Barrier::new(2);
            let undo = std::thread::scope(|scope| {
                scope.spawn(|| {
                    barrier.wait();
                    // Spreads the saves over the time that an undo takes.
                    for _ in 0..round * 40 {
                        std::hint::spin_loop();
                    }
                    for path in &paths {
                        save(path, "person's");
                    }
                });
                barrier.wait();
                guest.journal.undo_to(mark)
            });
            for path in &paths {
                let bytes = fs::read_to_string(path).unwrap();
                assert_eq!(bytes, "person's", "{} after {undo:?}", path.display());
            }
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    Write(usize),
    Append(usize),
    Unlink(usize),
    Rename(usize, usize),
    Mark,
    SaveInPlace(usize),
    SaveByRename(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let name = 0..4_usize;
    prop_oneof![
        3 => name.clone().prop_map(Step::Write),
        2 => name.clone().prop_map(Step::Append),
        1 => name.clone().prop_map(Step::Unlink),
        2 => (name.clone(), name.clone()).prop_map(|(a, b)| Step::Rename(a, b)),
        2 => Just(Step::Mark),
        1 => name.clone().prop_map(Step::SaveInPlace),
        1 => name.prop_map(Step::SaveByRename),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    /// A person's save is found under its path after the undo, unless the guest
    /// itself changed that name afterwards.
    #[test]
    fn no_save_is_ever_lost(steps in prop::collection::vec(step(), 1..24), to in any::<prop::sample::Index>()) {
        let mut guest = Guest::new();
        let name = |n: usize| format!("f{n}");
        for n in 0..2 {
            guest.put(&name(n), "old");
        }
        let mut marks = vec![guest.journal.mark()];
        let mut saved: [Option<String>; 4] = [const { None }; 4];
        for (count, step) in steps.iter().enumerate() {
            match *step {
                Step::Write(n) => {
                    guest.write(&name(n), &format!("guest {count}"));
                    saved[n] = None;
                }
                Step::Append(n) => {
                    guest.append(&name(n)).write_all(b"+").unwrap();
                    saved[n] = None;
                }
                Step::Unlink(n) if guest.path(&name(n)).exists() => {
                    guest.unlink(&name(n));
                    saved[n] = None;
                }
                Step::Rename(a, b) if a != b && guest.path(&name(a)).exists() => {
                    guest.rename(&name(a), &name(b));
                    saved[a] = None;
                    saved[b] = None;
                }
                Step::Mark => marks.push(guest.journal.mark()),
                Step::SaveInPlace(n) | Step::SaveByRename(n) => {
                    let bytes = format!("person {count}");
                    let save = if matches!(step, Step::SaveInPlace(_)) { save_in_place } else { save_by_rename };
                    save(&guest.path(&name(n)), &bytes);
                    saved[n] = Some(bytes);
                }
                Step::Unlink(_) | Step::Rename(..) => {}
            }
        }
        let _ = guest.journal.undo_to(*to.get(&marks));
        for (n, bytes) in saved.iter().enumerate() {
            if let Some(bytes) = bytes {
                prop_assert_eq!(&guest.read(&name(n)), bytes);
            }
        }
    }
}
