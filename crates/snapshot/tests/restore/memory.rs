//! Shared memory, which the image has in common with the live run: a copy must
//! find in it what was there at the checkpoint.

use crate::driver::{Driver, Reached};
use crate::replay::replay;
use std::process::Command;

/// What the live run had written was there for the copies.
#[test]
fn anonymous_memory_is_as_it_was() {
    let mut driver = Driver::start("anonymous_memory", &[]);
    let runs = replay(&mut driver, &mut |_| ());
    runs.assert_same(&["twice: 91 94"]);
}

#[test]
fn memory_files_are_as_they_were() {
    let mut driver = Driver::start("memory_file", &[]);
    let runs = replay(&mut driver, &mut |_| ());
    runs.assert_same(&[
        "memory: through a mapping, private: through a mapping",
        "left: only mapped",
        "sparse: middle",
        "later: write -1",
    ]);
}

#[test]
fn mappings_of_removed_files_are_as_they_were() {
    let mut driver = Driver::start("removed_memory", &["{}"]);
    let runs = replay(&mut driver, &mut |_| ());
    runs.assert_same(&["on disk, in memory", "empty: 0 0"]);
}

/// Nobody else keeps what is in a file that has no name.
#[test]
fn removed_files_are_as_they_were() {
    let mut driver = Driver::start("removed_files", &["{}"]);
    let runs = replay(&mut driver, &mut |_| ());
    runs.assert_same(&[
        "plain: 10 bytes: plain text, at 6, flags 2",
        "log: 6 bytes: first;, at 6, flags 401",
    ]);
}

#[test]
fn system_v_memory_is_as_it_was() {
    let mut driver = Driver::start("system_v_memory", &[]);
    let runs = replay(&mut driver, &mut |_| ());
    runs.assert_same(&["removed, removed, 0"]);
}

/// Removes a System V segment at the end of a test.
struct Segment(String);

impl Drop for Segment {
    fn drop(&mut self) {
        let _ = Command::new("ipcrm").args(["-m", &self.0]).status();
    }
}

/// A segment that no process has attached is known by who made it; and one that
/// the live run removes cannot be made anew under its id.
#[test]
fn a_segment_that_is_not_attached_is_as_it_was() {
    let mut driver = Driver::start("system_v_memory", &["apart"]);
    let mut segment = None;
    let Reached::Checkpoint(task) = driver.run(&mut |line| {
        if let Some(id) = line.strip_prefix("apart: ") {
            segment = Some(Segment(id.to_owned()));
        }
    }) else {
        panic!("no checkpoint");
    };
    let segment = segment.expect("the fixture tells the segment's id");
    let mut image = driver.freeze(task).unwrap();
    let run = |driver: &mut Driver| {
        let mut lines = Vec::new();
        driver.run(&mut |line| lines.push(line.to_owned()));
        lines
    };
    let live = run(&mut driver);
    assert!(live.contains(&"apart".to_owned()), "{live:?}");
    for _ in 0..2 {
        driver.resume(&mut image).unwrap();
        assert_eq!(run(&mut driver), live);
    }
    drop(segment);
    let refusal = driver.resume(&mut image).unwrap_err();
    assert_eq!(refusal.code(), "shared-memory");
    driver.discard(image);
}
