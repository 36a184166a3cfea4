//! What processes and threads are given by calls that are made once.

use crate::driver::Driver;
use crate::replay::replay;

#[test]
fn attributes_of_threads_and_of_the_process() {
    let mut driver = Driver::start("attributes", &["{}"]);
    let runs = replay(&mut driver, &mut |_| ());
    runs.assert_same(&[
        "folder: No such file or directory, 0 names",
        "session kept 1, own group 1",
    ]);
    let says = |start: &str| runs.live.iter().any(|line| line.starts_with(start));
    assert!(
        says("batch: policy 3, flags 1, nice 7, io 4007"),
        "{:?}",
        runs.live
    );
    assert!(
        says("files 200, umask 27, subreaper 1, barrier 1"),
        "{:?}",
        runs.live
    );
}

#[test]
fn memory_that_is_locked_stays_so() {
    let mut driver = Driver::start("memory_locks", &[]);
    let runs = replay(&mut driver, &mut |_| ());
    runs.assert_same(&["l-f-, later f", "unlocked: -, -"]);
}
