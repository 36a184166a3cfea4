//! Folders that were there before: removed, renamed, replaced and exchanged, and what
//! lies in them. The inode comes back, with whatever holds it.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod common;

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use common::{Guest, save_by_rename, save_in_place};
use journal::{Effect, Why};
use rustix::fs::{Mode, OFlags};

/// A folder with two files and a folder in it, and an empty one.
fn prepared() -> Guest {
    let guest = Guest::new();
    fs::create_dir_all(guest.path("full/deep")).unwrap();
    fs::create_dir(guest.path("empty")).unwrap();
    guest.put("full/a", "old a");
    guest.put("full/deep/b", "old b");
    fs::set_permissions(guest.path("empty"), fs::Permissions::from_mode(0o751)).unwrap();
    guest
}

fn undone(act: impl FnOnce(&mut Guest)) {
    let mut guest = prepared();
    let tree = guest.tree();
    let mark = guest.journal.mark();
    act(&mut guest);
    assert_ne!(guest.tree(), tree, "the effect has to have an effect");
    guest.undo(mark);
    assert_eq!(guest.tree(), tree);
    assert_eq!(guest.stored(), 0);
}

#[test]
fn a_removed_folder_is_back_as_the_same_inode() {
    undone(|guest| guest.remove_folder("empty").unwrap());
}

#[test]
fn a_tree_that_was_removed_is_back() {
    undone(|guest| {
        guest.unlink("full/deep/b");
        guest.remove_folder("full/deep").unwrap();
        guest.unlink("full/a");
        guest.remove_folder("full").unwrap();
        guest.make_folder("full");
        guest.write("full/c", "new");
    });
}

#[test]
fn a_renamed_folder_has_its_name_again() {
    undone(|guest| guest.rename("full", "moved"));
}

#[test]
fn a_folder_that_was_renamed_over_is_back() {
    undone(|guest| guest.rename("full", "empty"));
    undone(|guest| {
        guest.make_folder("new");
        guest.write("new/file", "bytes");
        guest.rename("new", "empty");
    });
}

#[test]
fn exchanged_folders_are_exchanged_back() {
    undone(|guest| guest.exchange("full", "empty"));
    undone(|guest| guest.exchange("full/a", "empty"));
}

#[test]
fn what_the_guest_did_in_a_folder_that_it_moved_is_undone_too() {
    undone(|guest| {
        guest.write("full/a", "before");
        guest.rename("full", "moved");
        guest.write("moved/a", "after");
        guest.write("moved/deep/new", "new");
        guest.unlink("moved/deep/b");
        guest.rename("moved/a", "moved/deep/a");
        guest.rename("moved", "again");
        guest.write("again/deep/a", "at last");
    });
}

#[test]
fn each_mark_has_its_own_folders() {
    let mut guest = prepared();
    let mut points = Vec::new();
    for round in 0..4 {
        points.push((guest.journal.mark(), guest.tree()));
        guest.rename("full", "moved");
        guest.remove_folder("empty").unwrap();
        points.push((guest.journal.mark(), guest.tree()));
        guest.rename("moved", "full");
        guest.make_folder("empty");
        guest.write("full/a", &format!("round {round}"));
    }
    for (mark, tree) in points.into_iter().rev() {
        guest.undo(mark);
        assert_eq!(guest.tree(), tree);
    }
}

/// The reason why the folder itself is put aside: what holds it sees it come back.
#[test]
fn a_descriptor_of_a_removed_folder_is_good_again() {
    let mut guest = prepared();
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let held = rustix::fs::open(guest.path("empty"), flags, Mode::empty()).unwrap();
    let mark = guest.journal.mark();
    guest.remove_folder("empty").unwrap();
    guest.undo(mark);
    let create = OFlags::WRONLY | OFlags::CREATE | OFlags::CLOEXEC;
    rustix::fs::openat(&held, "file", create, Mode::RUSR).unwrap();
    assert!(guest.path("empty/file").exists());
}

/// The call fails after all: the folder is where it was, and what somebody has put into
/// its twin meanwhile is in it.
#[test]
fn a_call_that_fails_leaves_the_folder_where_it_is() {
    let mut guest = prepared();
    let inode = guest.inode("empty");
    guest.journal.mark();
    let path = guest.path("empty");
    let effect = Effect::RemoveFolder {
        path: path.clone(),
        in_use: false,
    };
    let (done, undoable) = guest.call(effect, || {
        assert_ne!(fs::metadata(&path)?.ino(), inode, "a twin lies there");
        assert_eq!(fs::metadata(&path)?.mode() & 0o7777, 0o751);
        fs::write(path.join("note"), "person's")?;
        fs::remove_dir(&path)
    });
    assert_eq!(done.unwrap_err().kind(), io::ErrorKind::DirectoryNotEmpty);
    undoable.unwrap();
    assert_eq!(guest.inode("empty"), inode);
    assert_eq!(guest.read("empty/note"), "person's");
    assert_eq!(guest.stored(), 0);
}

#[test]
fn a_guest_that_was_killed_in_the_call_leaves_a_folder_or_none() {
    for made in [false, true] {
        let mut guest = prepared();
        let tree = guest.tree();
        let mark = guest.journal.mark();
        let path = guest.path("empty");
        let prepared = guest.journal.before(Effect::RemoveFolder {
            path: path.clone(),
            in_use: false,
        });
        if made {
            fs::remove_dir(&path).unwrap();
        }
        guest.journal.after_kill(prepared, None).unwrap();
        assert_eq!(path.exists(), !made);
        guest.undo(mark);
        assert_eq!(guest.tree(), tree);
    }
}

#[test]
fn a_full_folder_is_not_touched() {
    let mut guest = prepared();
    let tree = guest.tree();
    guest.journal.mark();
    let path = guest.path("full");
    let effect = Effect::RemoveFolder {
        path: path.clone(),
        in_use: false,
    };
    let (done, undoable) = guest.call(effect, || fs::remove_dir(path));
    done.unwrap_err();
    undoable.unwrap();
    assert_eq!(guest.tree(), tree);
}

/// Somebody stands in a folder that the guest removed, and puts something there.
#[test]
fn what_somebody_puts_into_a_removed_folder_is_kept() {
    let mut guest = prepared();
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let held = rustix::fs::open(guest.path("empty"), flags, Mode::empty()).unwrap();
    guest.journal.mark();
    guest.remove_folder("empty").unwrap();
    let create = OFlags::WRONLY | OFlags::CREATE | OFlags::CLOEXEC;
    let file = rustix::fs::openat(&held, "note", create, Mode::RUSR | Mode::WUSR).unwrap();
    io::Write::write_all(&mut File::from(file), b"person's").unwrap();
    let kept = guest.journal.finish();
    assert_eq!(kept.len(), 1, "{kept:?}");
    assert_eq!(kept[0].path, guest.path("empty"));
    assert_eq!(fs::read(kept[0].lies.join("note")).unwrap(), b"person's");
}

#[test]
fn a_save_in_a_folder_that_the_guest_moved_stays_where_it_is() {
    for save in [save_in_place, save_by_rename] {
        for place in ["moved/a", "moved/deep/b", "moved/new"] {
            let mut guest = prepared();
            // Long enough ago for any later change to show in the times.
            for name in ["full/a", "full/deep/b"] {
                while guest.age(name) < std::time::Duration::from_millis(25) {
                    std::thread::yield_now();
                }
            }
            let mark = guest.journal.mark();
            guest.rename("full", "moved");
            save(&guest.path(place), "person's");
            let undo = guest.journal.undo_to(mark);
            assert!(!undo.complete, "{place}: {undo:?}");
            assert!(
                matches!(undo.left[0].why, Why::NotEmpty | Why::Written),
                "{place}: {undo:?}"
            );
            assert_eq!(guest.read(place), "person's");
        }
    }
}

#[test]
fn a_save_at_once_in_a_folder_that_the_guest_moved_is_seen_too() {
    let mut guest = prepared();
    guest.put("full/a", "just now");
    let mark = guest.journal.mark();
    guest.rename("full", "moved");
    save_in_place(&guest.path("moved/a"), "person's");
    assert!(!guest.journal.undo_to(mark).complete);
    assert_eq!(guest.read("moved/a"), "person's");
}
