//! The limits of inotify, met for real: a queue that overflows and a full
//! table of watches.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

mod common;

use std::fs;
use std::path::Path;
use std::sync::mpsc::channel;

use common::{DEADLINE, in_own_namespace, patient, put, truncate};
use watch::{Batch, Error, Watcher};

#[test]
fn an_overflow_asks_for_a_rescan_and_later_changes_are_still_seen() {
    let limit: usize = fs::read_to_string("/proc/sys/fs/inotify/max_queued_events")
        .unwrap()
        .trim()
        .parse()
        .unwrap();
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    fs::create_dir(path("folder")).unwrap();
    for name in ["plug", "edited", "folder/f"] {
        fs::write(path(name), "one").unwrap();
    }

    let (entered, is_blocked) = channel();
    let (release, released) = channel::<()>();
    let (send, batches) = channel::<Batch>();
    let watcher = Watcher::start(patient(), move |batch| {
        let _ = entered.send(());
        // Fails once the test is over, and that is soon enough.
        let _ = released.recv();
        let _ = send.send(batch);
    })
    .unwrap();
    for name in ["plug", "edited", "folder/f", "missing/f"] {
        watcher.watch(&path(name)).unwrap();
    }

    // The reader is stuck in the callback; the queue fills up. Equal events in
    // a row are merged, so two names take turns.
    fs::write(path("plug"), "two").unwrap();
    is_blocked.recv_timeout(DEADLINE).unwrap();
    let mut noise = ["noise-a", "noise-b"].map(|name| truncate(&path(name)));
    for n in 0..=limit {
        put(&mut noise[n % 2], "x");
    }
    // None of this is in the queue any more.
    fs::write(path("edited"), "two").unwrap();
    fs::rename(path("folder"), path("old")).unwrap();
    fs::create_dir(path("folder")).unwrap();
    fs::write(path("folder/f"), "two").unwrap();
    release.send(()).unwrap();
    let first = batches.recv_timeout(DEADLINE).unwrap();
    assert!(!first.rescan);
    is_blocked.recv_timeout(DEADLINE).unwrap();
    release.send(()).unwrap();
    let second = batches.recv_timeout(DEADLINE).unwrap();
    assert!(second.rescan, "{second:?}");

    // The folder that nobody was told of is watched.
    for (name, text) in [("folder/f", "three"), ("edited", "three")] {
        fs::write(path(name), text).unwrap();
        is_blocked.recv_timeout(DEADLINE).unwrap();
        release.send(()).unwrap();
        let batch = batches.recv_timeout(DEADLINE).unwrap();
        assert!(!batch.rescan);
        assert_eq!(batch.touches.len(), 1, "{batch:?}");
        assert_eq!(batch.touches[0].path, path(name));
    }
    drop(release);
}

#[test]
fn a_full_table_is_an_error_that_names_the_sysctl() {
    in_own_namespace(
        "a_full_table_is_an_error_that_names_the_sysctl",
        "echo 4 > /proc/sys/user/max_inotify_watches",
        fill_the_table,
    );
}

fn fill_the_table() {
    let dir = tempfile::tempdir().unwrap();
    let (send, batches) = channel();
    let watcher = Watcher::start(patient(), move |batch: Batch| {
        let _ = send.send(batch);
    })
    .unwrap();
    let in_folder = |n: usize| dir.path().join(format!("{n}/f"));
    for n in 0..10 {
        fs::create_dir(in_folder(n).parent().unwrap()).unwrap();
    }
    let failed = (0..10).find_map(|n| watcher.watch(&in_folder(n)).err().map(|error| (n, error)));
    let (n, error) = failed.expect("ten folders fitted into a table of four");
    assert!(matches!(&error, Error::TableFull { .. }), "{error}");
    let text = error.to_string();
    assert!(text.contains("user.max_inotify_watches is 4"), "{text}");
    assert!(text.contains("sudo sysctl"), "{text}");
    assert!(text.contains(&format!("{}", in_folder(n).parent().unwrap().display())));

    // What fitted in is still watched, and there is room again when something
    // is forgotten.
    if n == 0 {
        return; // The temporary folder is too deep for a table of four.
    }
    fs::write(in_folder(0), "one").unwrap();
    assert_eq!(
        batches.recv_timeout(DEADLINE).unwrap().touches[0].path,
        in_folder(0)
    );
    watcher.forget(|path: &Path| path != in_folder(0));
    watcher.watch(&in_folder(n)).unwrap();
    fs::write(in_folder(n), "one").unwrap();
    assert_eq!(
        batches.recv_timeout(DEADLINE).unwrap().touches[0].path,
        in_folder(n)
    );

    // A folder that appears later and does not fit in is told of in a batch.
    let late = dir.path().join("late/a/b/c/f");
    watcher.watch(&late).unwrap();
    fs::create_dir_all(late.parent().unwrap()).unwrap();
    loop {
        let batch = batches.recv_timeout(DEADLINE).unwrap();
        if let Some(error) = batch.error {
            assert!(matches!(error, Error::TableFull { .. }), "{error}");
            break;
        }
    }
}
