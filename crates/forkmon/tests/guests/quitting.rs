//! Signals that end forkmon, at every moment: while it starts, while the guest begins,
//! while a run is dropped for another one. What is asked for must happen, whichever of
//! the two hears of it first.

use rustix::process::Signal;
use std::io::Read as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::harness::{Project, Save, Terminal, program};
use crate::require_guest;

/// So long that a signal that was lost shows as a hang, and not as a late end.
const NEVER: &str = "--stop-timeout=1h";

/// Waits for a moment, as precisely as can be.
fn spin_until(moment: Instant) {
    while Instant::now() < moment {
        std::hint::spin_loop();
    }
}

fn program_of(pid: i32) -> String {
    std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default()
}

/// A Ctrl-C before the guest had begun was taken as heard by it, and so by nobody: three
/// seconds passed until it was killed. One while it was being made was swallowed by
/// forkmon's own handlers in the child. One a little later ended the guest first, and
/// forkmon said that it waits for an edit.
#[test]
fn a_signal_at_any_moment_of_the_start_ends_it_all() {
    const ROUNDS: u32 = 120;
    let sleep = require_guest!("sleep");
    require_guest!("setsid");
    let seed = 20;
    let mut dice = fastrand::Rng::with_seed(seed);
    for round in 0..ROUNDS {
        let project = Project::new("quit-early");
        let moment = Duration::from_micros(dice.u64(..100_000));
        let signal = [Signal::INT, Signal::TERM, Signal::HUP, Signal::QUIT][dice.usize(..4)];
        let is_typed = dice.bool();
        let launch = project.launch(&[sleep.as_str(), "1000"]).option(NEVER);
        let (mut forkmon, status) = if is_typed {
            let forkmon = launch.on_terminal(Terminal::new(24, 80)).start();
            // Before that, nobody is there to be interrupted.
            while program_of(forkmon.pid()).trim() == "setsid" {
                std::thread::yield_now();
            }
            spin_until(Instant::now() + moment);
            forkmon.terminal().type_in(b"\x03");
            (forkmon, 130)
        } else {
            let mut forkmon = launch.start();
            spin_until(Instant::now() + moment);
            forkmon.signal(signal);
            (forkmon, 128 + signal.as_raw())
        };
        let ended = forkmon.wait_end();
        let what = format!("seed {seed}, round {round}: {moment:?}, typed: {is_typed}");
        if ended != status {
            forkmon.fail(&format!("{what}: it ended with {ended}, not {status}"));
        }
        let said = format!("{}{}", forkmon.output(), forkmon.messages());
        if said.contains("[forkmon]") {
            forkmon.fail(&format!("{what}: there is nothing to be said"));
        }
        forkmon.check_nothing_left();
    }
}

/// Somebody who pressed Ctrl-C and saw nothing happen for three seconds was not told
/// what that was about.
#[test]
fn a_program_that_ignores_ctrl_c_is_told_of_and_the_second_one_ends_it() {
    let perl = require_guest!("perl");
    require_guest!("setsid");
    let project = Project::new("quit-ignored");
    let guest = project.perl("$SIG{INT} = 'IGNORE'; print \"ready\\n\"; sleep 1000 while 1;");
    let mut forkmon = project
        .launch(&[perl.as_str(), &guest])
        .option(NEVER)
        .on_terminal(Terminal::new(24, 200))
        .start();
    forkmon.wait_output("ready");
    forkmon.terminal().type_in(b"\x03");
    let said = forkmon.wait_output("press Ctrl-C again");
    assert!(said.contains("waiting for perl (process "), "{said}");
    assert!(
        said.contains("after SIGINT; it is killed in 59 min"),
        "{said}"
    );
    forkmon.terminal().type_in(b"\x03");
    assert_eq!(forkmon.wait_end(), 130);
    forkmon.check_nothing_left();
}

/// The same for a run that is dropped and was asked to end first.
#[test]
fn a_dropped_run_that_does_not_end_is_told_of() {
    let perl = require_guest!("perl");
    let mut project = Project::new("drop-ignored").file("late.txt", "one\n");
    let guest = project.perl(
        "my $late = slurp('late.txt'); $SIG{TERM} = 'IGNORE'; print \"ready $late\\n\"; \
         sleep 1000 while 1;",
    );
    let mut forkmon = project
        .launch(&[perl.as_str(), &guest])
        .option("--stop-signal=TERM")
        .option("--stop-timeout=1s")
        .start();
    forkmon.wait_output("ready one\n");
    project.save("late.txt", "two\n", Save::InPlace);
    forkmon.wait_messages("to end after SIGTERM; it is killed in 500 ms\n", 1);
    forkmon.wait_output("ready two\n");
    forkmon.press_ctrl_c();
    assert_eq!(forkmon.wait_end(), 130);
}

/// A Ctrl-C while one run was dropped for the next one was heard by neither.
#[test]
fn ctrl_c_at_any_moment_of_a_resume_ends_it_all() {
    const ROUNDS: u32 = 25;
    let perl = require_guest!("perl");
    require_guest!("setsid");
    let seed = 21;
    let mut dice = fastrand::Rng::with_seed(seed);
    for round in 0..ROUNDS {
        let mut project = Project::new("quit-resume").file("late.txt", "one\n");
        let guest = project.perl("print slurp('late.txt'), \" ready\\n\"; sleep 1000 while 1;");
        let mut forkmon = project
            .launch(&[perl.as_str(), &guest])
            .option(NEVER)
            .on_terminal(Terminal::new(24, 80))
            .start();
        forkmon.wait_output("one ready");
        let moment = Duration::from_micros(dice.u64(..40_000));
        project.save("late.txt", "two\n", Save::InPlace);
        spin_until(Instant::now() + moment);
        forkmon.terminal().type_in(b"\x03");
        let ended = forkmon.wait_end();
        let said = forkmon.output();
        if ended != 130 || said.contains("waiting") {
            forkmon.fail(&format!("seed {seed}, round {round}, {moment:?}: {ended}"));
        }
        forkmon.check_nothing_left();
    }
}

/// `forkmon … | head` went on without end: each run of the program died of SIGPIPE, and
/// forkmon waited for the next edit.
#[test]
fn without_a_reader_of_its_output_it_ends() {
    let sh = require_guest!("sh");
    for (script, status, how) in [
        ("while echo more; do :; done", 141, "while it is written to"),
        (
            "trap '' PIPE; while echo more; do :; done 2>/dev/null; exit 7",
            7,
            "minded",
        ),
        ("cat late.txt; exit 3", 3, "after the run"),
    ] {
        for output in ["live", "replay"] {
            let project = Project::new("unread").file("late.txt", "more\n");
            let mut forkmon = Command::new(program())
                .arg(format!("--output={output}"))
                .args(["--", sh.as_str(), "-c", script])
                .current_dir(project.root())
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .expect("forkmon can be started");
            let mut reader = forkmon.stdout.take().expect("it was asked for");
            let mut line = [0; 5];
            reader.read_exact(&mut line).expect("there is a line");
            drop(reader);
            let ended = forkmon.wait_with_output().expect("it ends");
            let said = String::from_utf8_lossy(&ended.stderr);
            assert_eq!(ended.status.code(), Some(status), "{how}, {output}: {said}");
            let last = said.lines().last();
            assert_eq!(
                last,
                Some("[forkmon] nobody reads the output any more: forkmon ends"),
                "{how}, {output}: {said}"
            );
        }
    }
}
