//! Pipes of all sorts and FIFOs, frozen and brought back.

use crate::driver::{Driver, Reached};
use crate::replay::{Runs, replay};
use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;

fn replay_alone(fixture: &str, arguments: &[&str]) -> Runs {
    replay(&mut Driver::start(fixture, arguments), &mut |_| {})
}

#[test]
fn packets_and_pipes_that_were_opened_again() {
    replay_alone("pipes", &[]).assert_same(&[
        "packets: 3 bytes: one",
        "packets: 7 bytes: two two",
        "packets: 5 bytes: three",
        "packets: Resource temporarily unavailable",
        "former: 5 bytes: first",
        "former: 6 bytes: second",
        "former: 9 bytes:  and more",
        "shared: 9 bytes: under way",
        "shared: Resource temporarily unavailable",
        "shared: 14 bytes: through writer",
        "shared: 12 bytes: through both",
        "the end: 0 bytes: ",
    ]);
}

#[test]
fn fifos_with_all_their_ends_inside() {
    replay_alone("fifo", &["{}"]).assert_same(&[
        "flags 8802 8800 8001 8801",
        "size 8192, close on exec 1 0",
        "both: 1, 4 bytes: kept",
        "both: 0, Resource temporarily unavailable",
        "ends: 1, 8 bytes: one two!",
        "one left: 0, Resource temporarily unavailable",
        "none left: 10, 0 bytes: ",
        "early: 0, 0 bytes: ",
        "early: 0, Resource temporarily unavailable",
        "early: 10, 0 bytes: ",
        "late: 11, 4 bytes: left",
        "late: 10, 0 bytes: ",
    ]);
}

/// The refusal of a FIFO whose other end the test has, and what the guest says
/// then.
fn outside(end: &str, open: &dyn Fn(&mut OpenOptions) -> &mut OpenOptions) -> (String, String) {
    let mut driver = Driver::start("fifo_outside", &["{}", end]);
    let path = driver.folder().join("fifo");
    let mut other: Option<File> = None;
    let reached = driver.run(&mut |line| {
        assert_eq!(line, "come");
        let mut options = OpenOptions::new();
        options.custom_flags(libc::O_NONBLOCK);
        other = Some(open(&mut options).open(&path).unwrap());
    });
    let Reached::Checkpoint(task) = reached else {
        panic!("no checkpoint: {reached:?}");
    };
    let refusal = driver.freeze(task).unwrap_err();
    assert_eq!(refusal.code(), "fifo", "{refusal}");
    let mut lines = Vec::new();
    driver.run(&mut |line| lines.push(line.to_owned()));
    (refusal.to_string(), lines.join("\n"))
}

#[test]
fn a_fifo_to_another_program_is_a_refusal() {
    let (text, said) = outside("write", &|o| o.read(true));
    assert!(text.contains("another program reads"), "{text}");
    assert_eq!(said, "it works");
    let (text, said) = outside("read", &|o| o.write(true));
    assert!(text.contains("another program writes"), "{text}");
    assert_eq!(said, "Resource temporarily unavailable");
}

#[test]
fn a_fifo_that_another_program_has_opened_meanwhile_is_left_to_it() {
    let mut driver = Driver::start("fifo", &["{}"]);
    let Reached::Checkpoint(task) = driver.run(&mut |_| {}) else {
        panic!("no checkpoint");
    };
    let mut image = driver.freeze(task).unwrap();
    driver.kill();
    let path = driver.folder().join("both");
    let other = OpenOptions::new().read(true).write(true).open(path);
    let refusal = driver.resume(&mut image).unwrap_err();
    assert_eq!(refusal.code(), "fifo", "{refusal}");
    drop(other);
    driver.resume(&mut image).unwrap();
    driver.kill();
    driver.discard(image);
}
