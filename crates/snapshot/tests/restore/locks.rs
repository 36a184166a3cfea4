//! Locks on files: held by a copy as by the run before it, and free as soon as the
//! live run lets them go, whatever the image holds.

use crate::driver::{Driver, Reached};
use crate::replay::replay;
use rustix::fs::{FlockOperation, flock};
use std::fs::OpenOptions;

/// The image held the locks of the live run's closed files.
#[test]
fn locks_are_held_and_let_go() {
    let mut driver = Driver::start("locks", &["{}"]);
    let runs = replay(&mut driver, &mut |_| ());
    runs.assert_same(&[
        "gone: Resource temporarily unavailable",
        "later: free",
        "one is closed: Resource temporarily unavailable",
        "both are closed: free",
        "closed: free, free",
        "ranges 0+0: type 2, 0+0",
        "mine 0+0: type 1, 0+3",
    ]);
}

#[test]
fn a_lock_that_another_took_is_a_refusal_at_the_resume() {
    let mut driver = Driver::start("lock_other", &["{}/locked"]);
    let path = driver.folder().join("locked");
    let Reached::Checkpoint(task) = driver.run(&mut |_| ()) else {
        panic!("no checkpoint");
    };
    let mut image = driver.freeze(task).unwrap();
    driver.run(&mut |_| ());
    let other = OpenOptions::new().read(true).open(path).unwrap();
    flock(&other, FlockOperation::NonBlockingLockExclusive).unwrap();
    let refusal = driver.resume(&mut image).unwrap_err();
    assert_eq!(refusal.code(), "lock-taken", "{refusal}");
    drop(other);
    driver.resume(&mut image).unwrap();
    let mut lines = Vec::new();
    driver.run(&mut |line| lines.push(line.to_owned()));
    assert_eq!(lines, ["held"]);
    driver.discard(image);
}

/// What cannot be locked again is no checkpoint, and the run keeps its lock.
#[test]
fn what_cannot_be_locked_again_is_refused() {
    // Nothing is read-only for root.
    let is_root = rustix::process::geteuid().is_root();
    for case in ["lease", "read-only"] {
        if is_root && case == "read-only" {
            continue;
        }
        let mut driver = Driver::start("lock_other", &["{}/locked", case]);
        let Reached::Checkpoint(task) = driver.run(&mut |_| ()) else {
            panic!("no checkpoint");
        };
        let refusal = driver.freeze(task).unwrap_err();
        assert_eq!(refusal.code(), "file-lock", "{case}: {refusal}");
        let mut lines = Vec::new();
        driver.run(&mut |line| lines.push(line.to_owned()));
        assert_eq!(lines, ["held"]);
    }
}
