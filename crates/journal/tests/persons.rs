//! Whose bytes are in a file when the guest and somebody else work on the same one. Each
//! of these was lost once.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod common;

use std::fs::{self, File, FileTimes};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use common::{Guest, append, begin, kept, save_by_rename, save_in_place};
use journal::{Effect, Reason};

/// The undo left it or put it back, and the next run took it for its own.
#[test]
fn a_rewind_does_not_forget_whose_a_file_is() {
    for save in [save_in_place, save_by_rename] {
        for written_over_before in [false, true] {
            for (number, act) in [
                (|guest| guest.write("out", "guest's")) as fn(&mut Guest),
                |guest| guest.unlink("out"),
                |guest| {
                    guest.rename("out", "other");
                    guest.write("other", "guest's");
                },
            ]
            .into_iter()
            .enumerate()
            {
                let mut guest = Guest::new();
                let first = begin(&mut guest);
                guest.write("out", "guest's first");
                let mark = match written_over_before {
                    true => guest.journal.mark(),
                    false => first,
                };
                save(&guest.path("out"), "person's");
                if written_over_before {
                    act(&mut guest);
                }
                let _ = guest.journal.undo_to(mark);
                assert_eq!(guest.read("out"), "person's");
                act(&mut guest);
                assert_eq!(kept(guest), ["person's"], "{written_over_before} {number}");
            }
        }
    }
}

/// A file that is moved to where the guest writes is as old as it was.
#[test]
fn an_old_file_that_somebody_puts_there_is_theirs() {
    let mut guest = Guest::new();
    let mark = begin(&mut guest);
    guest.write("out", "guest's");
    guest.undo(mark);
    let old = guest.base.path().join("old");
    fs::write(&old, "person's").unwrap();
    let times = FileTimes::new().set_modified(UNIX_EPOCH);
    File::open(&old).unwrap().set_times(times).unwrap();
    fs::rename(old, guest.path("out")).unwrap();
    guest.write("out", "guest's");
    assert_eq!(kept(guest), ["person's"]);
}

/// The rename or link made the guest's own of what somebody had written to.
#[test]
fn what_is_renamed_or_linked_stays_whose_it_is() {
    for act in [
        (|guest| {
            guest.rename("log", "log.1");
            guest.unlink("log.1");
        }) as fn(&mut Guest),
        |guest| {
            guest.rename("log", "log.1");
            guest.write("log.1", "over it");
        },
        |guest| {
            guest.link("log", "log.1");
            guest.write("log", "over it");
        },
        |guest| {
            guest.write("other", "guest's");
            guest.exchange("log", "other");
            guest.unlink("other");
        },
    ] {
        let mut guest = Guest::new();
        begin(&mut guest);
        guest.write("log", "guest's\n");
        append(&guest.path("log"), "person's\n");
        act(&mut guest);
        assert_eq!(kept(guest), ["guest's\nperson's\n"]);
    }
}

/// The call failed, and what came after it did not know any more whose the file was.
#[test]
fn a_call_that_fails_does_not_forget_whose_a_file_is() {
    for save in [save_in_place, save_by_rename] {
        let mut guest = Guest::new();
        begin(&mut guest);
        guest.write("out", "guest's");
        save(&guest.path("out"), "person's");
        let effect = guest.open_effect("out", false);
        let refused = || Err::<(), _>(std::io::ErrorKind::PermissionDenied.into());
        assert!(guest.call(effect, refused).0.is_err());
        guest.unlink("out");
        assert_eq!(kept(guest), ["person's"]);
    }
}

/// An undo had put a file back there, and every later change of its names and attributes
/// was taken for the undo's.
#[test]
fn what_an_undo_has_put_back_can_be_somebody_s_again() {
    let old = |guest: &Guest, name: &str, bytes: &str| {
        let path = guest.base.path().join(name);
        fs::write(&path, bytes).unwrap();
        let times = FileTimes::new().set_modified(UNIX_EPOCH);
        File::open(&path).unwrap().set_times(times).unwrap();
        path
    };
    for restored in [
        (|guest| guest.unlink("out")) as fn(&mut Guest),
        |guest| guest.write("out", "guest's"),
        |guest| {
            let mode = |path: &Path| fs::set_permissions(path, fs::Permissions::from_mode(0o600));
            guest.change("out", true, mode).unwrap();
        },
        |guest| guest.rename("out", "other"),
        |guest| guest.link("out", "other"),
    ] {
        for in_place in [false, true] {
            let mut guest = Guest::new();
            fs::rename(old(&guest, "first", "first"), guest.path("out")).unwrap();
            let mark = begin(&mut guest);
            restored(&mut guest);
            guest.undo(mark);
            assert_eq!(guest.read("out"), "first");
            let other = old(&guest, "second", "person's");
            if in_place {
                fs::copy(other, guest.path("out")).unwrap();
                let times = FileTimes::new().set_modified(UNIX_EPOCH);
                let out = File::open(guest.path("out")).unwrap();
                out.set_times(times).unwrap();
            } else {
                fs::rename(other, guest.path("out")).unwrap();
            }
            guest.unlink("out");
            // What an undo has put back of theirs is theirs as well.
            guest.undo(mark);
            guest.write("out", "guest's");
            assert_eq!(kept(guest), ["person's"], "{in_place}");
        }
    }
}

/// The rename had the same copy, and neither of the two let it stay.
#[test]
fn a_copy_that_two_entries_have_stays_all_the_same() {
    let mut guest = Guest::new();
    begin(&mut guest);
    save_in_place(&guest.path("a"), "person's");
    while guest.age("a") < Duration::from_millis(25) {}
    drop(guest.append("a"));
    guest.rename("a", "b");
    guest.write("b", "guest's");
    assert_eq!(kept(guest), ["person's"]);
}

/// The name that the guest had written to was another one by then.
#[test]
fn what_lay_in_a_folder_that_is_renamed_stays() {
    let mut guest = Guest::new();
    begin(&mut guest);
    for folder in ["folder", "new"] {
        guest.make_folder(folder);
        guest.write(&format!("{folder}/x"), "guest's");
    }
    save_in_place(&guest.path("folder/x"), "person's");
    guest.write("folder/x", "guest's again");
    guest.rename("folder", "old");
    guest.rename("new", "folder");
    assert_eq!(kept(guest), ["person's"]);
}

/// The later one had an older time.
#[test]
fn the_last_version_is_the_one_that_came_last() {
    let mut guest = Guest::new();
    begin(&mut guest);
    guest.write("out", "guest's");
    save_in_place(&guest.path("out"), "first");
    guest.write("out", "guest's");
    save_in_place(&guest.path("old"), "last");
    let times = FileTimes::new().set_modified(UNIX_EPOCH);
    let old = File::open(guest.path("old")).unwrap();
    old.set_times(times).unwrap();
    fs::rename(guest.path("old"), guest.path("out")).unwrap();
    guest.unlink("out");
    assert_eq!(kept(guest), ["last"]);
}

/// The guest's own later version, of which there was a copy, too, took its place.
#[test]
fn only_people_s_later_versions_take_the_place_of_theirs() {
    for mine in ["guest's", ""] {
        for removes in [false, true] {
            let mut guest = Guest::new();
            begin(&mut guest);
            guest.write("out", "guest's");
            save_in_place(&guest.path("out"), "person's");
            if removes {
                guest.unlink("out");
            }
            guest.write("out", mine);
            guest.journal.mark();
            guest.append("out").write_all(b" more").unwrap();
            assert_eq!(kept(guest), ["person's"], "{mine:?} {removes}");
        }
    }
}

/// Somebody has removed the other name since.
#[test]
fn the_last_of_two_names_takes_the_bytes_with_it() {
    let mut guest = Guest::new();
    begin(&mut guest);
    guest.write("out", "guest's");
    save_in_place(&guest.path("out"), "person's");
    let other = guest.base.path().join("other");
    fs::hard_link(guest.path("out"), &other).unwrap();
    guest.unlink("out");
    fs::remove_file(other).unwrap();
    assert_eq!(kept(guest), ["person's"]);
}

/// Each of these changed a time of last change, and that looked like somebody else.
#[test]
fn nothing_is_kept_of_what_nobody_but_the_guest_has_touched() {
    let same_mode = |path: &Path| {
        let mode = fs::metadata(path)?.permissions();
        fs::set_permissions(path, mode)
    };
    let acts: [fn(&mut Guest); 7] = [
        |guest| guest.link("old", "other"),
        |guest| guest.unlink("twin"),
        |guest| guest.rename("old", "other"),
        |guest| guest.link("link", "other"),
        |guest| {
            guest.unlink("twin-link");
            guest.unlink("link");
        },
        |guest| {
            let effect = guest.rename_effect("twin", "old", false);
            let elsewhere = || Err::<(), _>(std::io::ErrorKind::CrossesDevices.into());
            assert!(guest.call(effect, elsewhere).0.is_err());
        },
        |guest| guest.exchange("old", "single"),
    ];
    for number in 0..=acts.len() {
        let mut guest = Guest::new();
        guest.put("old", "old");
        guest.put("single", "single");
        fs::hard_link(guest.path("old"), guest.path("twin")).unwrap();
        std::os::unix::fs::symlink("old", guest.path("link")).unwrap();
        fs::hard_link(guest.path("link"), guest.path("twin-link")).unwrap();
        let tree = guest.tree();
        // Its times are as coarse as the kernel's tick.
        while guest.age("twin-link") < Duration::from_millis(25) {}
        for restart in [true, true, false] {
            let mark = begin(&mut guest);
            match acts.get(number) {
                Some(act) => act(&mut guest),
                None => guest.change("old", true, same_mode).unwrap(),
            }
            for name in ["old", "single", "twin", "other"] {
                if guest.path(name).exists() {
                    guest.write(name, "guest's");
                    guest.unlink(name);
                }
            }
            if restart {
                guest.undo(mark);
                assert_eq!(guest.tree(), tree, "{number}");
            }
        }
        assert_eq!(kept(guest), [""; 0], "{number}");
    }
}

/// What is in it comes by descriptors that are not followed.
#[test]
fn an_inherited_file_is_nobody_s_but_the_guest_s() {
    let base = tempfile::tempdir().unwrap();
    let path = base.path().join("inherited");
    let mut output = File::create_new(&path).unwrap();
    let status = fs::metadata(&path).unwrap();
    let number = (MetadataExt::dev(&status), MetadataExt::ino(&status));
    let mut guest = Guest::on(base, |options| options.inherited = vec![number]);
    begin(&mut guest);
    output.write_all(b"by the descriptor").unwrap();
    drop(guest.append("../inherited"));
    output.write_all(b"more").unwrap();
    drop(guest.create("../inherited"));
    drop(output);
    assert_eq!(kept(guest), [""; 0]);
}

/// A link to a folder that is not there made its file one that cannot be watched.
#[test]
fn a_link_that_fails_leaves_its_file_undoable() {
    let mut guest = Guest::new();
    guest.put("old", "before");
    guest.put("file", "");
    let mark = begin(&mut guest);
    for to in ["none/x", "file/x"] {
        let effect = Effect::Link {
            from: guest.path("old"),
            to: guest.path(to),
            follow: false,
        };
        let (from, to) = (guest.path("old"), guest.path(to));
        let (linked, undoable) = guest.call(effect, || fs::hard_link(from, to));
        assert!(linked.is_err());
        undoable.unwrap();
    }
    guest.write("old", "guest's");
    guest.undo(mark);
    assert_eq!(guest.read("old"), "before");
}

/// Whoever stands in it can still put something there, and the store goes with us when we
/// are killed.
#[test]
fn a_folder_that_the_guest_removes_does_not_lie_in_the_store() {
    let mut guest = Guest::new();
    fs::create_dir(guest.path("folder")).unwrap();
    let inside = File::open(guest.path("folder")).unwrap();
    let mark = begin(&mut guest);
    guest.remove_folder("folder").unwrap();
    let there = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&inside));
    let lies = fs::read_link(&there).unwrap();
    assert!(lies.starts_with(guest.base.path().join("keep")), "{lies:?}");
    fs::write(PathBuf::from(there).join("note"), "person's").unwrap();
    guest.undo(mark);
    assert_eq!(guest.read("folder/note"), "person's");
}

/// Length and time of what the guest wrote were those of what had been there.
#[test]
fn what_looks_the_same_is_compared() {
    let mut guest = Guest::new();
    begin(&mut guest);
    guest.write("out", "guest's");
    save_in_place(&guest.path("out"), "someone");
    let times = fs::metadata(guest.path("out")).unwrap().modified().unwrap();
    guest.write("out", "guest's");
    let times = FileTimes::new().set_modified(times);
    let out = File::open(guest.path("out")).unwrap();
    out.set_times(times).unwrap();
    assert_eq!(kept(guest), ["someone"]);
}

/// The guest wrote on top of what somebody had written on top of its own: what was there
/// in the beginning went with the journal.
#[test]
fn what_was_there_in_the_beginning_is_kept_when_it_cannot_be_put_back() {
    let mut guest = Guest::new();
    guest.put("out", "in the beginning");
    let mark = begin(&mut guest);
    guest.write("out", "guest's\n");
    append(&guest.path("out"), "person's\n");
    guest.write("out", "guest's again");
    let undo = guest.journal.undo_to(mark);
    assert!(!undo.complete);
    assert_eq!(guest.read("out"), "guest's\nperson's\n");
    let told = guest.journal.kept();
    assert_eq!(told[0].why, Reason::Before);
    assert_eq!(
        fs::read_to_string(&told[0].lies).unwrap(),
        "in the beginning"
    );
}
