//! Resumes without end, and guests whose threads are killed, stopped and signalled
//! at every moment of a checkpoint and a resume.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use rustix::process::{Pid, Signal};
use serde_json::{Value, json};

use crate::harness::{Forkmon, Project, children_of};
use crate::state::{command, ctl_done};

/// A connection to forkmon's control socket.
struct Control(BufReader<UnixStream>);

impl Control {
    fn new(socket: &Path) -> Self {
        let stream = UnixStream::connect(socket).expect("forkmon listens");
        stream
            .set_read_timeout(Some(Duration::from_secs(60)))
            .expect("a time can be set");
        Self(BufReader::new(stream))
    }

    fn ask(&mut self, request: &Value) -> Value {
        writeln!(self.0.get_mut(), "{request}").expect("forkmon reads");
        let mut line = String::new();
        self.0.read_line(&mut line).expect("forkmon answers");
        serde_json::from_str(&line).expect("the answer is JSON")
    }
}

/// What a process holds: open files, children of any thread, and memory of its own
/// in KiB.
#[derive(Debug)]
struct Held {
    files: usize,
    children: usize,
    memory: u64,
}

fn held_by(pid: i32) -> Held {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it is alive");
    let memory = status
        .lines()
        .find_map(|line| line.strip_prefix("RssAnon:"))
        .and_then(|text| text.trim().strip_suffix("kB"))
        .and_then(|text| text.trim().parse().ok())
        .expect("the kernel counts memory");
    Held {
        files: fs::read_dir(format!("/proc/{pid}/fd"))
            .expect("it is ours")
            .count(),
        children: children_of(pid).len(),
        memory,
    }
}

fn start(project: &Project, fixture: &str) -> (Forkmon, Control, String) {
    let command = command(project, fixture, &[]);
    let words: Vec<&str> = command.iter().map(String::as_str).collect();
    let socket = project.beside().join("control");
    let mut forkmon = project
        .launch(&words)
        .option("--control")
        .option(&socket)
        .with_input()
        .start();
    forkmon.wait_output("checkpoint\n");
    let id = ctl_done(&socket, &["checkpoint"]);
    (forkmon, Control::new(&socket), id)
}

#[test]
fn a_thousand_resumes_leave_nothing() {
    let project = Project::new("thousand");
    let (mut forkmon, mut control, id) = start(&project, "many_kinds");
    let id: u64 = id.parse().expect("an id is a number");
    let request = json!({"action": "resume", "id": id});
    let mut tenth = None;
    for round in 1..=1000 {
        let answer = control.ask(&request);
        assert_eq!(answer["reply"], "resumed", "round {round}: {answer}");
        // What it says would fill the pipe.
        forkmon.messages();
        if round == 10 {
            tenth = Some(held_by(forkmon.pid()));
        }
    }
    let (tenth, last) = (tenth.expect("ten rounds"), held_by(forkmon.pid()));
    assert_eq!(last.files, tenth.files, "{tenth:?} {last:?}");
    assert_eq!(last.children, tenth.children, "{tenth:?} {last:?}");
    // An allocator's pages may come and go.
    assert!(last.memory <= tenth.memory + 512, "{tenth:?} {last:?}");
    // And the last copy is as good as the first.
    forkmon.type_line("");
    let exit = forkmon.wait_exit();
    assert_eq!(exit.code, Some(0), "{exit:?}");
    assert!(
        exit.output.contains("pipes with data: 4\ntaken: 5\n"),
        "{exit:?}"
    );
    forkmon.finish();
}

/// A small generator of numbers that look random, the same for each seed.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

/// Sends one of the signals that must not confuse forkmon to a thread of the guest.
/// What is gone by then is no failure.
fn disturb(guest: i32, numbers: &mut Numbers) -> Option<Signal> {
    let threads: Vec<i32> = fs::read_dir(format!("/proc/{guest}/task"))
        .ok()?
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect();
    let nth = usize::try_from(numbers.below(threads.len().max(1) as u64)).ok()?;
    let thread = Pid::from_raw(*threads.get(nth)?)?;
    let signal = match numbers.below(20) {
        0 => Signal::KILL,
        1..5 => Signal::STOP,
        5..9 => Signal::CONT,
        9..14 => Signal::ALARM,
        _ => Signal::USR1,
    };
    // Thread by thread: kill(2) finds the process of any of its threads.
    rustix::process::kill_process(thread, signal).ok()?;
    Some(signal)
}

/// Threads of a guest are killed, stopped and signalled while it is frozen and
/// brought back. Every answer comes, and a guest that was killed says so.
#[test]
fn nothing_that_befalls_a_guest_confuses_forkmon() {
    const ROUNDS: u64 = 1000;
    let project = Project::new("befalls");
    let (mut forkmon, mut control, first) = start(&project, "many_kinds");
    let first: u64 = first.parse().expect("an id is a number");
    let mut numbers = Numbers(0x5eed_0005);
    let (mut killed, mut resumed, mut frozen) = (0, 0, 0);
    for round in 0..ROUNDS {
        let status = control.ask(&json!({"action": "status"}));
        let guest = status["guest"]
            .as_i64()
            .and_then(|pid| i32::try_from(pid).ok());
        let storm = guest.map(|guest| {
            let mut numbers = Numbers(numbers.below(u64::MAX - 1) + 1);
            std::thread::spawn(move || {
                (0..8)
                    .filter(|_| disturb(guest, &mut numbers) == Some(Signal::KILL))
                    .count()
            })
        });
        let answer = if numbers.below(3) == 0 {
            control.ask(&json!({"action": "checkpoint"}))
        } else {
            control.ask(&json!({"action": "resume", "id": first}))
        };
        match answer["reply"].as_str() {
            Some("resumed") => resumed += 1,
            Some("checkpoint") => frozen += 1,
            // It was killed just then, or could not be stopped in time.
            Some("refused") => {}
            _ => panic!("round {round}: {answer}"),
        }
        if let Some(storm) = storm {
            killed += storm.join().expect("signals are sent");
        }
        forkmon.messages();
    }
    assert!(
        killed > 50 && resumed > 300 && frozen > 50,
        "{killed} {resumed} {frozen}"
    );
    // A run that is killed ends as the signal says, and the next is as good as any.
    let answer = control.ask(&json!({"action": "resume", "id": first}));
    assert_eq!(answer["reply"], "resumed", "{answer}");
    let guest = control.ask(&json!({"action": "status"}))["guest"].as_i64();
    let guest = guest.and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?));
    forkmon.skip_events();
    rustix::process::kill_process(guest.expect("it runs"), Signal::KILL).expect("it runs");
    assert_eq!(forkmon.wait_exit().signal, Some(9));
    let answer = control.ask(&json!({"action": "resume", "id": first}));
    assert_eq!(answer["reply"], "resumed", "{answer}");
    forkmon.skip_events();
    forkmon.type_line("");
    let exit = forkmon.wait_exit();
    assert_eq!(exit.code, Some(0), "{exit:?}");
    forkmon.finish();
}
