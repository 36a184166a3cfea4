//! Each kind of effect, done for real and undone: the tree is as it was, down to
//! inodes, modes and times.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod common;

use std::fs;
use std::io::Write;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::PathBuf;

use common::Guest;
use journal::{Effect, Obstacle, Why};

/// Puts some files there, lets the guest act, undoes, and compares.
fn undone(before: &[&str], act: impl FnOnce(&mut Guest)) -> Guest {
    let mut guest = Guest::new();
    for name in before {
        guest.put(name, &format!("old bytes of {name}"));
    }
    let tree = guest.tree();
    let mark = guest.journal.mark();
    act(&mut guest);
    assert_ne!(guest.tree(), tree, "the effect has to have an effect");
    guest.undo(mark);
    assert_eq!(guest.tree(), tree);
    assert_eq!(guest.stored(), 0, "nothing is saved any more");
    guest
}

#[test]
fn a_created_file_is_removed() {
    undone(&[], |guest| guest.write("new", "bytes"));
}

#[test]
fn an_exclusively_created_file_is_removed() {
    undone(&[], |guest| {
        let path = guest.path("new");
        let effect = Effect::OpenWrite {
            path: path.clone(),
            create: true,
            exclusive: true,
            follow: true,
        };
        let (file, undoable) = guest.call(effect, || fs::File::create_new(path));
        undoable.unwrap();
        file.unwrap().write_all(b"bytes").unwrap();
    });
}

#[test]
fn a_truncated_file_gets_its_bytes_back() {
    undone(&["a"], |guest| {
        guest.write("a", "new bytes, and more of them than before")
    });
}

#[test]
fn a_truncated_read_only_inode_gets_its_bytes_back() {
    let mut guest = Guest::new();
    guest.put("a", "old");
    let mark = guest.journal.mark();
    guest.write("a", "new");
    // Not the guest: somebody else does.
    fs::set_permissions(guest.path("a"), fs::Permissions::from_mode(0o444)).unwrap();
    guest.undo(mark);
    assert_eq!(guest.read("a"), "old");
    let mode = fs::metadata(guest.path("a")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o444, "a person's mode is left");
}

#[test]
fn a_shortened_file_gets_its_bytes_back() {
    undone(&["a"], |guest| guest.truncate("a", 3));
}

#[test]
fn an_overwritten_file_gets_its_bytes_back() {
    undone(&["a"], |guest| {
        let file = guest.open_existing("a");
        file.write_at(b"OLD", 0).unwrap();
    });
}

#[test]
fn an_extended_file_is_cut() {
    undone(&["a"], |guest| {
        guest.append("a").write_all(b"more").unwrap()
    });
}

#[test]
fn an_open_without_a_write_changes_nothing() {
    let mut guest = Guest::new();
    guest.put("a", "old");
    let tree = guest.tree();
    let mark = guest.journal.mark();
    drop(guest.open_existing("a"));
    guest.undo(mark);
    assert_eq!(guest.tree(), tree);
}

#[test]
fn an_unlinked_file_comes_back_as_the_same_inode() {
    undone(&["a", "b"], |guest| guest.unlink("a"));
}

/// One more link in the store is a link that the guest can count.
#[test]
fn a_removed_name_of_several_does_not_show_in_the_count_of_links() {
    for by_person in [false, true] {
        let mut guest = Guest::new();
        guest.put("a", "old");
        fs::hard_link(guest.path("a"), guest.path("b")).unwrap();
        let links = |guest: &Guest, name| fs::metadata(guest.path(name)).unwrap().nlink();
        let tree = guest.tree();
        let mark = guest.journal.mark();
        guest.unlink("a");
        assert_eq!(links(&guest, "b"), 1);
        if by_person {
            // The bytes come back all the same, as another inode.
            fs::remove_file(guest.path("b")).unwrap();
            guest.undo(mark);
            assert_eq!(guest.read("a"), "old");
        } else {
            guest.unlink("b");
            guest.undo(mark);
            assert_eq!(guest.tree(), tree);
            assert_eq!(links(&guest, "a"), 2);
        }
    }
}

#[test]
fn an_unlinked_symbolic_link_and_a_pipe_come_back() {
    let mut guest = Guest::new();
    std::os::unix::fs::symlink("nowhere", guest.path("link")).unwrap();
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    rustix::fs::mkfifoat(rustix::fs::CWD, guest.path("pipe"), mode).unwrap();
    let tree = guest.tree();
    let mark = guest.journal.mark();
    guest.unlink("link");
    guest.unlink("pipe");
    assert!(guest.tree().is_empty());
    guest.undo(mark);
    assert_eq!(guest.tree(), tree);
}

#[test]
fn a_renamed_file_is_renamed_back() {
    undone(&["a"], |guest| guest.rename("a", "b"));
}

#[test]
fn a_file_renamed_over_comes_back() {
    undone(&["a", "b"], |guest| guest.rename("a", "b"));
}

#[test]
fn an_exchange_is_exchanged_back() {
    undone(&["a", "b"], |guest| guest.exchange("a", "b"));
}

#[test]
fn links_folders_and_pipes_are_removed() {
    undone(&["a"], |guest| {
        guest.make_folder("folder");
        guest.make_folder("folder/inner");
        guest.link("a", "folder/inner/hard");
        guest.symbolic_link("a", "folder/symbolic");
        guest.make_fifo("folder/pipe");
    });
}

#[test]
fn a_folder_with_all_that_the_guest_put_into_it_goes_and_moves() {
    undone(&["a"], |guest| {
        guest.make_folder("one");
        guest.write("one/new", "bytes");
        guest.rename("a", "one/a");
        guest.rename("one", "two");
        guest.write("two/a", "other bytes");
    });
}

#[test]
fn what_comes_and_goes_between_two_marks_leaves_nothing() {
    let mut guest = Guest::new();
    guest.put("a", "old");
    let tree = guest.tree();
    let mark = guest.journal.mark();
    guest.write("new", "1");
    guest.rename("new", "newer");
    guest.link("newer", "newest");
    guest.unlink("newer");
    guest.rename("newest", "last");
    guest.write("other", "2");
    guest.exchange("last", "other");
    guest.unlink("last");
    guest.rename("other", "a");
    guest.unlink("a");
    guest.make_folder("folder");
    guest.rename("folder", "folder2");
    guest.remove_folder("folder2").unwrap();
    assert!(guest.tree().is_empty());
    guest.undo(mark);
    assert_eq!(guest.tree(), tree);
}

/// gcc removes its temporary files at the end: a later resume in the middle needs
/// them under their names, with the bytes of that time.
#[test]
fn a_file_made_before_the_mark_and_removed_after_it_comes_back() {
    let mut guest = Guest::new();
    let start = guest.journal.mark();
    guest.write("temporary", "assembler");
    let tree = guest.tree();
    let middle = guest.journal.mark();
    guest.write("temporary", "longer assembler");
    guest.unlink("temporary");
    guest.undo(middle);
    assert_eq!(guest.tree(), tree);
    guest.undo(start);
    assert!(guest.tree().is_empty());
}

#[test]
fn each_mark_has_its_own_bytes() {
    let mut guest = Guest::new();
    guest.put("a", "0");
    let mut marks = Vec::new();
    for round in 1..6 {
        let tree = guest.tree();
        marks.push((guest.journal.mark(), tree));
        guest.write("a", &"x".repeat(round));
        guest.append("a").write_all(b"y").unwrap();
    }
    for (mark, tree) in marks.into_iter().rev() {
        guest.undo(mark);
        assert_eq!(guest.tree(), tree);
    }
}

#[test]
fn a_mark_can_be_undone_to_again_and_again() {
    let mut guest = Guest::new();
    guest.put("a", "0");
    let tree = guest.tree();
    let mark = guest.journal.mark();
    for _ in 0..3 {
        guest.write("a", "1");
        guest.write("b", "2");
        guest.journal.mark();
        guest.unlink("a");
        guest.undo(mark);
        assert_eq!(guest.tree(), tree);
    }
}

#[test]
fn a_link_is_followed_to_the_file_that_is_written() {
    let mut guest = Guest::new();
    guest.put("real", "old");
    std::os::unix::fs::symlink("real", guest.path("link")).unwrap();
    std::os::unix::fs::symlink("made", guest.path("dangling")).unwrap();
    let tree = guest.tree();
    let mark = guest.journal.mark();
    guest.write("link", "new");
    guest.write("dangling", "new");
    assert_eq!(guest.read("made"), "new");
    assert!(guest.journal.wrote(&guest.path("real")));
    // The links are as they were.
    assert!(!guest.journal.wrote(&guest.path("link")));
    guest.undo(mark);
    assert_eq!(guest.tree(), tree);
}

#[test]
fn a_file_that_is_open_at_the_mark_gets_its_bytes_back() {
    let mut guest = Guest::new();
    guest.put("old", "0123456789");
    let mut old = guest.open_existing("old");
    let mut new = guest.create("new");
    old.write_all(b"ab").unwrap();
    new.write_all(b"first").unwrap();
    let tree = guest.tree();
    let mark = guest.journal.mark();
    guest.hold(mark, &old, "old");
    guest.hold(mark, &new, "new");
    // The image holds what is open.
    let image = (old.try_clone().unwrap(), new.try_clone().unwrap());
    for _ in 0..2 {
        old.write_at(b"zz", 4).unwrap();
        new.write_at(b"second and longer", 0).unwrap();
        guest.rename("new", "renamed");
        guest.unlink("old");
        guest.write("renamed", "third");
        guest.undo(mark);
        assert_eq!(guest.tree(), tree);
    }
    drop(image);
}

#[test]
fn a_file_without_a_name_gets_its_bytes_back() {
    let mut guest = Guest::new();
    guest.journal.mark();
    let mut file = guest.create("new");
    guest.unlink("new");
    file.write_all(b"first").unwrap();
    let mark = guest.journal.mark();
    guest.hold(mark, &file, "new (deleted)");
    file.write_at(b"second and longer", 0).unwrap();
    guest.undo(mark);
    let mut bytes = [0; 32];
    let fd = PathBuf::from(format!(
        "/proc/self/fd/{}",
        std::os::fd::AsRawFd::as_raw_fd(&file)
    ));
    let length = fs::File::open(fd).unwrap().read_at(&mut bytes, 0).unwrap();
    assert_eq!(&bytes[..length], b"first");
}

/// Two closes in a row of equal kind: inotify would make one event of them.
#[test]
fn two_descriptions_that_are_closed_together_are_two() {
    let mut guest = Guest::new();
    let mark = guest.journal.mark();
    let first = guest.append("log");
    let second = guest.append("log");
    let third = guest.append("log");
    drop((first, second, third));
    guest.undo(mark);
    assert!(guest.tree().is_empty());
}

#[test]
fn a_failed_call_leaves_no_trace() {
    let mut guest = Guest::new();
    guest.put("a", "old");
    guest.put("b", "old");
    let tree = guest.tree();
    let mark = guest.journal.mark();
    let (a, b) = (guest.path("a"), guest.path("b"));
    let effects = [
        guest.open_effect("a", false),
        guest.open_effect("new", true),
        Effect::Truncate { path: a.clone() },
        Effect::Unlink { path: a.clone() },
        guest.rename_effect("a", "b", false),
        guest.rename_effect("a", "b", true),
        Effect::MakeFolder {
            path: guest.path("new"),
        },
        Effect::Link {
            from: a.clone(),
            to: guest.path("new"),
            follow: false,
        },
        Effect::SymbolicLink {
            to: guest.path("new"),
        },
        Effect::MakeNode {
            path: guest.path("new"),
        },
        Effect::Link {
            from: a.clone(),
            to: b,
            follow: false,
        },
        Effect::RemoveFolder {
            path: a.clone(),
            in_use: false,
        },
        Effect::Other {
            path: Some(guest.path("new")),
            what: "the mode",
        },
    ];
    for effect in effects {
        let refused = || Err::<(), _>(std::io::ErrorKind::PermissionDenied.into());
        let (_, undoable) = guest.call(effect, refused);
        undoable.unwrap();
    }
    assert_eq!(guest.stored(), 0);
    assert!(!guest.journal.wrote(&a));
    let restored = guest.undo(mark);
    assert!(restored.is_empty(), "{restored:?}");
    assert_eq!(guest.tree(), tree);
}

#[test]
fn devices_and_kernel_files_are_no_effect() {
    let mut guest = Guest::new();
    let mark = guest.journal.mark();
    for path in ["/dev/null", "/proc/self/oom_score_adj", "/dev/full"] {
        let effect = Effect::OpenWrite {
            path: path.into(),
            create: true,
            exclusive: false,
            follow: true,
        };
        let (file, undoable) = guest.call(effect, || fs::OpenOptions::new().write(true).open(path));
        undoable.unwrap();
        file.unwrap();
    }
    assert!(guest.undo(mark).is_empty());
}

#[test]
fn what_cannot_be_undone_is_said() {
    let mut guest = Guest::with(|options| options.limit = 20);
    guest.put("a", "old");
    guest.put("b", "123456789012345678901");
    fs::create_dir(guest.path("folder")).unwrap();
    let mark = guest.journal.mark();

    let path = guest.path("b");
    let effect = guest.open_effect("b", false);
    let (file, undoable) = guest.call(effect, || fs::OpenOptions::new().write(true).open(path));
    file.unwrap().write_at(b"x", 0).unwrap();
    let why = undoable.unwrap_err().why;
    assert!(
        matches!(
            why,
            Obstacle::TooLarge {
                size: 21,
                limit: 20
            }
        ),
        "{why}"
    );

    let path = guest.path("folder");
    let effect = Effect::RemoveFolder {
        path: path.clone(),
        in_use: true,
    };
    let (result, undoable) = guest.call(effect, || fs::remove_dir(path));
    result.unwrap();
    assert!(matches!(undoable.unwrap_err().why, Obstacle::InUse));

    let effect = Effect::Other {
        path: Some(guest.path("a")),
        what: "the flags",
    };
    let (_, undoable) = guest.call(effect, || Ok(()));
    assert!(matches!(
        undoable.unwrap_err().why,
        Obstacle::Other("the flags")
    ));

    assert!(
        guest.journal.wrote(&guest.path("b")),
        "it is the guest's all the same"
    );
    assert!(!guest.journal.foreign(&guest.path("b")));
    assert!(!guest.journal.wrote(&guest.path("a")), "its bytes are not");
    let undo = guest.journal.undo_to(mark);
    assert!(!undo.complete);
    assert_eq!(undo.left.len(), 3, "{undo:?}");
    assert!(
        undo.left
            .iter()
            .all(|left| matches!(left.why, Why::Unjournaled(_)))
    );
}

#[test]
fn the_mode_of_a_new_file_is_its_own_business() {
    let mut guest = Guest::new();
    let mark = guest.journal.mark();
    guest.write("new", "bytes");
    let mode = fs::Permissions::from_mode(0o400);
    let undoable = guest.change("new", true, |path| fs::set_permissions(path, mode));
    undoable.unwrap();
    guest.undo(mark);
    assert!(guest.tree().is_empty());
}

#[test]
fn forgetting_frees_what_was_saved() {
    let mut guest = Guest::new();
    guest.put("a", "old");
    guest.put("b", "old");
    guest.journal.mark();
    guest.write("a", "new");
    guest.unlink("b");
    assert_eq!(guest.stored(), 2);
    let tree = guest.tree();
    let mark = guest.journal.mark();
    guest.journal.forget_before(mark);
    assert_eq!(guest.stored(), 0);
    assert!(guest.journal.wrote(&guest.path("a")));
    guest.write("a", "newer");
    guest.undo(mark);
    assert_eq!(guest.tree(), tree);
    assert!(guest.journal.wrote(&guest.path("a")));
}

/// What cannot be undone to a file that the guest made is no obstacle for going back
/// to where the file was not there.
#[test]
fn an_obstacle_counts_only_since_the_file_is_there() {
    let mut guest = Guest::new();
    let start = guest.journal.mark();
    guest.write("new", "bytes");
    guest.make_folder("folder");
    let later = guest.journal.mark();
    let effect = Effect::Other {
        path: Some(guest.path("new")),
        what: "the flags",
    };
    let (_, undoable) = guest.call(effect, || Ok(()));
    assert_eq!(undoable.unwrap_err().after, Some(start));
    let path = guest.path("folder");
    let effect = Effect::RemoveFolder {
        path: path.clone(),
        in_use: true,
    };
    let (_, undoable) = guest.call(effect, || fs::remove_dir(path));
    assert_eq!(undoable.unwrap_err().after, Some(start));
    assert!(!guest.journal.undo_to(later).complete);
    guest.undo(start);
    assert!(guest.tree().is_empty());
}

#[test]
fn a_forgotten_mark_costs_nothing_more() {
    let mut guest = Guest::new();
    guest.put("a", "old");
    let tree = guest.tree();
    let start = guest.journal.mark();
    for round in 0..5 {
        guest.write("a", &format!("{round}"));
        let mark = guest.journal.mark();
        guest.journal.forget(mark);
        guest.write("a", &format!("{round} again"));
    }
    assert_eq!(guest.stored(), 1);
    guest.undo(start);
    assert_eq!(guest.tree(), tree);
}
