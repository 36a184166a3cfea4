//! `forkmon ctl wait`: it is answered when all that was saved before is acted
//! upon and the guest has ended, not earlier.

use std::fs;

use forkmon::control::{Reply, Request};

use super::harness::{Client, Ground};
use super::process::{Process, ctl, done, until};

/// A guest that copies a file, and ends with what is in it as its status.
const COPYING: [&str; 3] = ["sh", "-c", "read -r x < in.txt; echo $x > out.txt; exit $x"];

fn settled(ground: &Ground) -> Reply {
    let socket = &ground.sockets();
    let socket = fs::read_dir(socket).unwrap().next().unwrap().unwrap();
    let mut client = Client::connect(&socket.path());
    client.send(Request::Wait.to_line().as_bytes());
    client.answer().expect("it is answered")
}

#[test]
fn what_was_saved_before_is_acted_upon_when_it_is_answered() {
    let ground = Ground::new();
    let (input, output) = (
        ground.path("project/in.txt"),
        ground.path("project/out.txt"),
    );
    fs::write(&input, "0\n").unwrap();
    let forkmon = Process::forkmon(&ground, &[], &COPYING);
    until("it listens", || ctl(&ground, &["wait"]).0 == 0);
    for round in 1..=100 {
        let text = format!("{round}\n");
        if round % 2 == 0 {
            fs::write(&input, &text).unwrap();
        } else {
            let new = ground.path("new.txt");
            fs::write(&new, &text).unwrap();
            fs::rename(&new, &input).unwrap();
        }
        let Reply::Settled { run, code, signal } = settled(&ground) else {
            panic!("it is refused");
        };
        assert_eq!((code, signal), (Some(round), None));
        assert!(run >= u64::try_from(round).unwrap());
        assert_eq!(fs::read_to_string(&output).unwrap(), text);
        // The same again is no edit, and no other run: what was read is known when it
        // is answered. It was once not hashed yet, or not known to be read before.
        fs::write(&input, &text).unwrap();
        let Reply::Settled { run: same, .. } = settled(&ground) else {
            panic!("it is refused");
        };
        assert_eq!(same, run, "the same bytes made another run");
    }
    assert_eq!(done(&ground, &["wait"]), "100");
    done(&ground, &["quit"]);
    drop(forkmon);
}

#[test]
fn a_guest_that_runs_is_waited_for() {
    let ground = Ground::new();
    let mut forkmon = Process::forkmon(&ground, &[], &["sh", "-c", "echo up; read x; kill -$x $$"]);
    forkmon.wait_for("up\n");
    let asking = std::thread::scope(|scope| {
        let asking = scope.spawn(|| ctl(&ground, &["wait"]));
        // Whoever has asked before this can not have been answered.
        done(&ground, &["status"]);
        forkmon.type_in("KILL\n");
        asking.join().unwrap()
    });
    assert_eq!((asking.0, asking.1.trim()), (0, "137"), "{}", asking.2);
    done(&ground, &["quit"]);
}

/// Whoever waits for a guest that never ends, and has hung up, shall not keep
/// others from being heard.
#[test]
fn of_many_who_wait_the_oldest_is_refused() {
    let ground = Ground::new();
    let mut forkmon = Process::forkmon(&ground, &[], &["sh", "-c", "echo up; exec sleep 1000"]);
    forkmon.wait_for("up\n");
    let socket = fs::read_dir(ground.sockets()).unwrap().next().unwrap();
    let socket = socket.unwrap().path();
    // Fewer than the requests that are in the works at a time, so that all of
    // them come to wait.
    let mut waiting: Vec<Client> = (0..12).map(|_| Client::connect(&socket)).collect();
    for client in &mut waiting {
        client.send(Request::Wait.to_line().as_bytes());
    }
    // In which order they come is not known, and that others are heard is.
    done(&ground, &["status"]);
    done(&ground, &["quit"]);
    let answers: Vec<Option<Reply>> = waiting.iter_mut().map(Client::answer).collect();
    let refused = answers.iter().flatten().filter(|reply| is_busy(reply));
    assert_eq!(refused.count(), 4, "{answers:?}");
    // To the others it is told how the guest was ended, or that forkmon has.
    let told = |reply: &Reply| is_busy(reply) || matches!(reply, Reply::Settled { .. });
    assert!(answers.iter().flatten().all(told), "{answers:?}");
}

fn is_busy(reply: &Reply) -> bool {
    matches!(reply, Reply::Refused { code, .. } if code == "busy")
}
