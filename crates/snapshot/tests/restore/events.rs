//! What tells of events, frozen and brought back: epoll instances, counters,
//! timers, signals, processes and watched files.

use crate::driver::{Driver, Reached};
use crate::replay::{Runs, replay};

fn replay_alone(fixture: &str, arguments: &[&str]) -> Runs {
    replay(&mut Driver::start(fixture, arguments), &mut |_| {})
}

#[test]
fn epoll_instances_that_watch_each_other() {
    replay_alone("epoll_nested", &[]).assert_same(&[
        "outer: 0 ready",
        "outer: a1 is 1",
        "again: a1 is 1",
        "inner: a3 is 1",
        "other: 2 ready",
        "other: b2 is 1",
        "middle: 0 ready",
    ]);
}

#[test]
fn shots_that_were_fired_and_edges_that_were_told() {
    let none = "counter 0 pipe 0 armed 0 socket 0 edge 0 new edge 0 exclusive 0";
    replay_alone("epoll_shots", &[]).assert_same(&[
        &format!("after: {none}"),
        "more: counter 0 pipe 0 armed 1 socket 0 edge 0 new edge 1 exclusive 1",
        "an edge: counter 0 pipe 0 armed 0 socket 0 edge 1 new edge 0 exclusive 1",
        "ends: counter 0 pipe 0 armed 0 socket 0 edge 0 new edge 0 exclusive 1",
        "armed again: counter 1 pipe 11 armed 0 socket 1 edge 0 new edge 0 exclusive 1",
        "idle: 1, pair: 2",
    ]);
}

#[test]
fn files_that_are_registered_under_former_numbers() {
    replay_alone("epoll_moved", &[]).assert_same(&[
        "closed: -1, given away: 1",
        "closed 0 given away 0 taken 0 gone 1",
        "closed 0 given away 0 taken 0 gone 0",
        "closed 1 given away 0 taken 0 gone 0",
        "closed 1 given away 1 taken 0 gone 0",
        "closed 1 given away 1 taken 1 gone 0",
        "closed 0 given away 1 taken 1 gone 0",
    ]);
}

#[test]
fn counters_and_semaphores() {
    replay_alone("eventfd", &[]).assert_same(&[
        "counter: 5",
        "counter: Resource temporarily unavailable",
        "semaphore: 1",
        "semaphore: Resource temporarily unavailable",
        "many: 1",
        "full: -1",
        "full: 18446744073709551614",
        "flags: 1 1 0",
    ]);
}

#[test]
fn timers_by_the_clock_and_from_now_on() {
    replay_alone("timerfd", &[]).assert_same(&[
        "over: once",
        "soon: once",
        "absolute: once",
        "daytime: about 200 s left, every 7 s",
        "far: about 300 s left, every 0 s",
        "unset: about 0 s left, every 0 s",
        "daytime: about 0 s left, every 0 s",
    ]);
}

#[test]
fn signals_that_are_read() {
    replay_alone("signalfd", &[]).assert_same(&[
        "flags 802 1",
        "1 ready",
        "signal 10, code -6, value 0",
        "signal 37, code -1, value 42",
        "0 ready",
        "signal 12, code -6, value 0",
    ]);
}

#[test]
fn processes_that_are_open() {
    replay_alone("pidfd", &[]).assert_same(&[
        "self: sent, ready 0, flags 802 1",
        "again: sent, flags 0",
        "dead: No such process, ready 1",
        "signals: 2",
    ]);
}

#[test]
fn files_that_are_watched() {
    replay_alone("inotify", &["{}"]).assert_same(&[
        "watches 2 4 5",
        "0 ready",
        "Resource temporarily unavailable",
        "watch 2: 100 new",
        "watch 4: 8 ",
        "watch 5: 100 first",
        "watch 5: 8000 ",
        "watch 2: 8000 ",
    ]);
}

#[test]
fn events_of_watched_files_that_wait_are_a_refusal() {
    let mut driver = Driver::start("inotify_waiting", &["{}"]);
    let Reached::Checkpoint(task) = driver.run(&mut |_| {}) else {
        panic!("no checkpoint");
    };
    let refusal = driver.freeze(task).unwrap_err();
    assert_eq!(refusal.code(), "inotify", "{refusal}");
    let mut lines = Vec::new();
    driver.run(&mut |line| lines.push(line.to_owned()));
    assert_eq!(lines, ["the event is there"]);
}

#[test]
fn signals_of_open_files() {
    replay_alone("signal_io", &[]).assert_same(&[
        "before: 0 0 0",
        "after: 1 1 by the right fd 1",
        "flags 2800 2002",
        "urgent: 1",
        "own: 1 1",
        "switched off: 1",
        "without an owner: 1",
    ]);
}
