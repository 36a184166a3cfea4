//! Where the store lies, and that it goes.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod common;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use common::Guest;
use journal::NewFolder;

type Reported = Arc<Mutex<Vec<PathBuf>>>;

fn reporting(change: impl FnOnce(&mut journal::Options)) -> (Guest, Reported) {
    let reported = Reported::default();
    let sink = reported.clone();
    let guest = Guest::with(|options| {
        options.on_folder = Box::new(move |folder| {
            let (NewFolder::Store(path) | NewFolder::Keep(path)) = folder;
            assert!(!path.exists(), "it is reported before it is made");
            if matches!(folder, NewFolder::Store(_)) {
                sink.lock().unwrap().push(path.to_owned());
            }
        });
        change(options);
    });
    (guest, reported)
}

#[test]
fn there_is_no_store_until_something_is_saved() {
    let (mut guest, reported) = reporting(|_| ());
    guest.put("a", "old");
    guest.journal.mark();
    guest.write("new", "bytes");
    drop(guest.journal.before(common_effect(&guest, "/dev/null")));
    assert!(reported.lock().unwrap().is_empty());
    guest.write("a", "new");
    guest.unlink("a");
    let store = reported.lock().unwrap().clone();
    assert_eq!(store.len(), 1);
    let found = fs::metadata(&store[0]).unwrap();
    assert_eq!(found.permissions().mode() & 0o7777, 0o700);
    drop(guest);
    assert!(!store[0].exists());
}

fn common_effect(guest: &Guest, path: &str) -> journal::Effect {
    let _ = guest;
    journal::Effect::OpenWrite {
        path: path.into(),
        create: false,
        exclusive: false,
        follow: true,
    }
}

#[test]
fn without_a_preferred_folder_it_lies_in_the_top_most_writable_one() {
    let (mut guest, reported) = reporting(|options| options.places.clear());
    guest.put("a", "old");
    let mark = guest.journal.mark();
    guest.write("a", "new");
    guest.undo(mark);
    assert_eq!(guest.read("a"), "old");
    let store = reported.lock().unwrap()[0].clone();
    assert!(store.exists());
    assert!(guest.path("a").starts_with(store.parent().unwrap()));
    drop(guest);
    assert!(!store.exists());
}

#[test]
fn each_mount_has_its_own() {
    let Ok(other) = tempfile::tempdir_in("/dev/shm") else {
        eprintln!("skipped: /dev/shm is not writable");
        return;
    };
    let (guest, reported) = reporting(|_| ());
    let mut guest = guest;
    if fs::metadata(other.path()).unwrap().dev() == fs::metadata(guest.path("")).unwrap().dev() {
        eprintln!("skipped: /dev/shm and the temporary folder are one mount");
        return;
    }
    guest.put("a", "old");
    // An absolute name replaces the folder it is joined to.
    let there = other.path().join("b").to_str().unwrap().to_owned();
    guest.put(&there, "old");
    let mark = guest.journal.mark();
    for name in ["a", &there] {
        guest.write(name, "new");
        guest.unlink(name);
        guest.write(name, "newer");
    }
    assert_eq!(reported.lock().unwrap().len(), 2);
    guest.undo(mark);
    assert_eq!(guest.read("a"), "old");
    assert_eq!(guest.read(&there), "old");
    drop(guest);
    for store in reported.lock().unwrap().iter() {
        assert!(!store.exists());
    }
}
