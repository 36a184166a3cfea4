//! `after_delivery`: it is called when what was changed before has been
//! delivered, not earlier, and also when nothing was.

mod common;

use std::fs;
use std::sync::mpsc::{Receiver, TryRecvError, channel};

use common::{DEADLINE, World, patient, put, save_by_rename, truncate};

/// Asks, and gives where the answer comes.
fn ask(world: &World) -> Receiver<()> {
    let (send, answer) = channel();
    world.watcher.after_delivery(move || {
        // The test may have ended already.
        let _ = send.send(());
    });
    answer
}

#[test]
fn without_a_change_the_answer_comes_by_itself() {
    let world = World::new(patient());
    ask(&world).recv_timeout(DEADLINE).unwrap();
    world.write("f", "one");
    world.watch("f");
    ask(&world).recv_timeout(DEADLINE).unwrap();
}

#[test]
fn what_was_changed_before_is_delivered_before() {
    let world = World::new(patient());
    let paths: Vec<_> = (0..4)
        .map(|n| {
            world.write(&format!("f{n}"), "one");
            world.watch(&format!("f{n}"))
        })
        .collect();
    for round in 0..100 {
        fs::write(&paths[0], format!("in place {round}")).unwrap();
        save_by_rename(&paths[1], &format!("by rename {round}"));
        match round % 2 {
            0 => fs::remove_file(&paths[2]).unwrap(),
            _ => fs::write(&paths[2], "created").unwrap(),
        }
        // A change that is none at all in the end is delivered, too.
        fs::remove_file(&paths[3]).unwrap();
        fs::write(&paths[3], "one").unwrap();
        ask(&world).recv_timeout(DEADLINE).unwrap();
        // Nothing is waited for: it is there, or it never was.
        for path in world.delivered() {
            assert!(paths.contains(&path), "{}", path.display());
        }
        for path in &paths {
            assert!(world.count(path) > 0, "round {round}: {}", path.display());
        }
        world.clear();
    }
}

#[test]
fn the_answer_waits_for_a_file_that_is_being_written() {
    let world = World::new(patient());
    world.write("f", "one");
    let f = world.watch("f");
    let mut open = truncate(&f);
    let answer = ask(&world);
    world.settle();
    assert_eq!(answer.try_recv(), Err(TryRecvError::Empty));
    put(&mut open, "two");
    drop(open);
    answer.recv_timeout(DEADLINE).unwrap();
    assert_eq!(world.delivered(), [f]);
}

#[test]
fn a_later_change_does_not_hold_the_answer_up() {
    let world = World::new(patient());
    world.write("f", "one");
    world.write("g", "one");
    let (f, g) = (world.watch("f"), world.watch("g"));
    fs::write(&f, "two").unwrap();
    let answer = ask(&world);
    // Everything from before is read by now; this is never closed.
    world.settle();
    let open = truncate(&g);
    answer.recv_timeout(DEADLINE).unwrap();
    drop(open);
}

/// A dropped watcher leaves no answer to wait for.
#[test]
fn whoever_waits_is_let_go_when_the_watcher_is_dropped() {
    let world = World::new(patient());
    world.write("f", "one");
    let f = world.watch("f");
    let open = truncate(&f);
    let answer = ask(&world);
    world.settle();
    drop(world);
    assert!(answer.recv().is_err());
    drop(open);
}
