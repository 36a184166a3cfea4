//! Terminals, frozen and brought back: the guest's own, and one that it has from
//! others.

use crate::driver::{Driver, Reached};
use crate::replay::replay;
use rustix::pty::{OpenptFlags, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcgetattr, tcsetwinsize};
use std::fs::{File, OpenOptions};
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};
use tracee::End;

#[test]
fn pseudo_terminals_of_the_guest() {
    replay(&mut Driver::start("pty", &[]), &mut |_| {}).assert_same(&[
        "the same name 1",
        "modes 0 4 a30 i, speed d",
        "size 33 99",
        "flags 8002 8800, 1 0 1",
        "master: 1, 4 bytes: 0 'out'",
        "slave: 1, 3 bytes: 45 'in'",
        "other: 10, 0 bytes: 0 ''",
        "the end: 10, 0 bytes: 0 ''",
    ]);
}

/// A terminal of this test's: its master, and its other side.
fn terminal() -> (OwnedFd, File) {
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
    unlockpt(&master).unwrap();
    let path = ptsname(&master, Vec::new()).unwrap();
    let side = OpenOptions::new()
        .read(true)
        .write(true)
        .open(path.to_str().unwrap())
        .unwrap();
    (master, side)
}

#[test]
fn the_terminal_that_others_use_too() {
    for part in ["terminals::in_its_foreground", "terminals::not_its_own"] {
        let (master, side) = terminal();
        let stdin = |side: &File| Stdio::from(side.try_clone().unwrap());
        // The test in it needs a session of its own, whose terminal this is.
        let output = Command::new("setsid")
            .args(["--ctty", "--wait"])
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", part, "--ignored", "--nocapture"])
            .stdin(stdin(&side))
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(
            output.status.success() && text.contains("1 passed"),
            "{part}: {text}{}",
            String::from_utf8_lossy(&output.stderr)
        );
        // Nothing of the last run's.
        let modes = tcgetattr(&side).unwrap();
        assert_eq!(
            modes.special_codes[rustix::termios::SpecialCodeIndex::VEOF],
            9
        );
        drop(master);
    }
}

#[test]
#[ignore = "part of the_terminal_that_others_use_too, which gives it a session"]
fn in_its_foreground() {
    replay(&mut Driver::start("terminal", &["controls"]), &mut |_| {}).assert_same(&[
        "after: echo 0, lines 1, end 7",
        "in the foreground: 1",
        "resized: 0",
        "changed: echo 1, lines 0, end 9",
    ]);
}

#[test]
#[ignore = "part of the_terminal_that_others_use_too, which gives it a session"]
fn not_its_own() {
    let mut driver = Driver::start("terminal", &[]);
    let Reached::Checkpoint(task) = driver.run(&mut |_| {}) else {
        panic!("no checkpoint");
    };
    let mut image = driver.freeze(task).unwrap();
    let own = rustix::process::getpgrp();
    let run = |driver: &mut Driver| {
        let mut lines = Vec::new();
        let reached = driver.run(&mut |line| lines.push(line.to_owned()));
        assert!(matches!(reached, Reached::End(End::Exited(0))), "{lines:?}");
        assert_eq!(rustix::termios::tcgetpgrp(std::io::stdin()).unwrap(), own);
        lines
    };
    let live = run(&mut driver);
    assert_eq!(live[0], "after: echo 0, lines 1, end 7");
    driver.resume(&mut image).unwrap();
    assert_eq!(run(&mut driver), live);
    // A person makes the window larger: it stays so, and the guest is told.
    let size = Winsize {
        ws_row: 50,
        ws_col: 111,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    tcsetwinsize(std::io::stdin(), size).unwrap();
    driver.resume(&mut image).unwrap();
    let lines = run(&mut driver);
    assert_eq!(lines[..2], [live[0].clone(), "resized: 1".into()]);
    let now = rustix::termios::tcgetwinsize(std::io::stdin()).unwrap();
    assert_eq!((now.ws_row, now.ws_col), (50, 111));
    driver.discard(image);
}
