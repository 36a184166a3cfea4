//! Starting and ending: exit statuses, signals, what is inherited, and that
//! nothing is left behind.

use std::process::{Command, Stdio};

use rustix::process::Signal;

use crate::harness::{PATIENCE, Project, Save, program};
use crate::require_guest;

/// The exit status of a run under `--once`.
fn once(argv: &[&str]) -> i32 {
    let project = Project::new("once");
    project.launch(argv).option("--once").start().wait_end()
}

#[test]
fn once_ends_with_the_guests_status() {
    assert_eq!(once(&["sh", "-c", "exit 0"]), 0);
    assert_eq!(once(&["sh", "-c", "exit 7"]), 7);
    assert_eq!(once(&["sh", "-c", "exit 255"]), 255);
}

#[test]
fn once_ends_with_128_and_the_signal() {
    for (name, number) in [("TERM", 15), ("KILL", 9), ("SEGV", 11), ("HUP", 1)] {
        assert_eq!(
            once(&["sh", "-c", &format!("kill -{name} $$")]),
            128 + number,
            "{name}"
        );
    }
}

#[test]
fn a_program_that_is_not_found_is_127_and_one_that_cannot_run_126() {
    assert_eq!(once(&["no-such-program-anywhere"]), 127);
    assert_eq!(once(&["./no-such-file"]), 127);
    let project = Project::new("plain-file")
        .file("plain", "just text\n")
        .folder("folder");
    for name in ["./plain", "./folder"] {
        let mut forkmon = project.launch(&[name]).option("--once").start();
        assert_eq!(forkmon.wait_end(), 126, "{name}");
        let messages = forkmon.messages();
        assert!(
            messages.starts_with("[forkmon]") && messages.contains(&name[2..]),
            "{messages}"
        );
    }
}

#[test]
fn a_wrong_option_is_125_and_one_line() {
    let project = Project::new("wrong");
    let mut forkmon = project.launch(&["true"]).option("--delay=5").start();
    assert_eq!(forkmon.wait_end(), 125);
    assert!(
        forkmon.messages().starts_with("[forkmon]"),
        "{}",
        forkmon.messages()
    );
}

#[test]
fn an_events_file_that_cannot_be_written_is_125() {
    let project = Project::new("events");
    let output = Command::new(program())
        .args([
            "run",
            "--once",
            "--events",
            "/nonexistent/folder/events",
            "--",
            "true",
        ])
        .current_dir(project.root())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(125), "{output:?}");
}

#[test]
fn once_prints_what_a_plain_run_prints_and_passes_input_on() {
    let project = Project::new("input").file("a.txt", "a\n");
    let argv = [
        "sh",
        "-c",
        "cat a.txt -; pwd | sed 's/.*-//'; echo error >&2; exit 3",
    ];
    let mut forkmon = project
        .launch(&argv)
        .option("--once")
        .option("--quiet")
        .with_input()
        .start();
    forkmon.type_line("typed one");
    forkmon.type_line("typed two");
    forkmon.close_input();
    assert_eq!(forkmon.wait_end(), 3);
    assert!(forkmon.output().starts_with("a\ntyped one\ntyped two\n"));
    assert_eq!(forkmon.messages(), "error\n");
}

#[test]
fn the_environment_folder_and_process_group_are_forkmons() {
    let project = Project::new("inherit").folder("sub");
    let argv = [
        "sh",
        "-c",
        "pwd; echo $SOMETHING; cut -d' ' -f5 /proc/$$/stat; umask",
    ];
    let folder = project.path("sub");
    let mut forkmon = project
        .launch(&argv)
        .option("--once")
        .folder(&folder)
        .env("SOMETHING", "a value")
        .start();
    let group = forkmon.pid();
    assert_eq!(forkmon.wait_end(), 0);
    let output = forkmon.output();
    let lines: Vec<&str> = output.lines().collect();
    assert_eq!(
        lines[..3],
        [folder.to_str().unwrap(), "a value", &group.to_string()]
    );
}

#[test]
fn the_short_form_runs_the_command_too() {
    let project = Project::new("short");
    for words in [
        &["--once", "--", "sh", "-c", "echo hello; exit 4"][..],
        &["--once", "sh", "-c", "echo hello; exit 4"],
    ] {
        let output = Command::new(program())
            .args(words)
            .current_dir(project.root())
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(4), "{output:?}");
        assert_eq!(output.stdout, b"hello\n");
    }
}

#[test]
fn the_events_of_a_run_are_told_in_order() {
    let perl = require_guest!("perl");
    let mut project = Project::new("order").file("late.txt", "one\n");
    let guest = project
        .perl("my $late = slurp('late.txt'); print \"$late\\n\"; exit($late eq 'two' ? 5 : 0);");
    let argv = [perl.as_str(), &guest];
    let mut forkmon = project.watch(&argv);
    forkmon.wait_exit();
    project.save("late.txt", "two\n", Save::InPlace);
    assert_eq!(forkmon.wait_exit().code, Some(5));
    let names: Vec<&str> = forkmon
        .events()
        .iter()
        .map(|event| event.name.as_str())
        .collect();
    assert_eq!(
        names,
        ["start", "checkpoint", "exit", "change", "resume", "exit"]
    );
    let runs: Vec<u64> = forkmon.events().iter().map(|event| event.run).collect();
    assert_eq!(
        (runs[0], runs[2], runs[4], runs[5]),
        (0, 0, 1, 1),
        "{runs:?}"
    );
    let times: Vec<f64> = forkmon
        .events()
        .iter()
        .map(|event| event.number("at_ms"))
        .collect();
    assert!(times.is_sorted(), "{times:?}");
    let start = &forkmon.events()[0];
    assert_eq!(start.value["argv"], serde_json::json!(argv));
    assert!(start.number("pid") > 0.0);
    let resume = forkmon.all("resume")[0].clone();
    assert!(resume.number("latency_ms") > 0.0 && resume.number("latency_ms") < 1000.0);
    let messages = forkmon.messages();
    assert!(
        messages.lines().all(|line| line.starts_with("[forkmon] ")),
        "{messages}"
    );
    assert!(messages.contains("late.txt"), "{messages}");
    forkmon.finish();
}

const SERVER: &str = "my $late = slurp('late.txt'); print \"late $late\\n\"; \
                      if (!fork()) { sleep 1000; exit } print \"ready\\n\"; sleep 1000;";

/// Starts a guest that has a child and has been resumed once, so that there
/// are a live run, frozen images and files in the journal.
fn started(name: &str, perl: &str) -> (Project, crate::harness::Forkmon) {
    let mut project = Project::new(name)
        .file("late.txt", "one\n")
        .file("out.txt", "last week's\n");
    let guest = project.perl(&format!("spew('out.txt', 'new'); work(0.2); {SERVER}"));
    let mut forkmon = project.watch(&[perl, &guest]);
    forkmon.wait_output("ready\n");
    project.save("late.txt", "two\n", Save::InPlace);
    forkmon.wait_resume();
    forkmon.wait_output("ready\n");
    (project, forkmon)
}

#[test]
fn whatever_signal_ends_forkmon_nothing_is_left() {
    let perl = require_guest!("perl");
    for (signal, status) in [
        (Signal::INT, 130),
        (Signal::TERM, 143),
        (Signal::HUP, 129),
        (Signal::KILL, 137),
    ] {
        let (project, mut forkmon) = started("ended", perl.as_str());
        forkmon.signal(signal);
        let ended = forkmon.wait_end();
        if signal == Signal::INT || signal == Signal::KILL {
            assert_eq!(ended, status);
        }
        forkmon.check_nothing_left();
        // Nothing but the guest's own output is new.
        assert_eq!(
            project
                .tree()
                .keys()
                .map(|name| name.to_str().unwrap())
                .collect::<Vec<_>>(),
            ["late.txt", "out.txt"]
        );
    }
}

#[test]
fn ctrl_c_is_130_while_the_guest_runs_and_when_it_has_ended() {
    let perl = require_guest!("perl");
    let (_project, forkmon) = started("ctrl-c", perl.as_str());
    forkmon.finish();
    let mut project = Project::new("ctrl-c-idle").file("late.txt", "one\n");
    let guest = project.perl("print slurp('late.txt'), \"\\n\";");
    let mut forkmon = project.watch(&[perl.as_str(), &guest]);
    forkmon.wait_exit();
    project.save("late.txt", "two\n", Save::InPlace);
    forkmon.wait_exit();
    forkmon.finish();
}

#[test]
fn on_quitting_the_guest_gets_the_signal_and_may_clean_up() {
    let perl = require_guest!("perl");
    let project = Project::new("asked");
    let guest = project.perl(
        "$SIG{TERM} = sub { print \"cleaning up\\n\"; exit 0 }; print \"ready\\n\"; sleep 1000 while 1;",
    );
    let mut forkmon = project.watch(&[perl.as_str(), &guest]);
    forkmon.wait_output("ready\n");
    forkmon.signal(Signal::TERM);
    forkmon.wait_end();
    assert!(forkmon.output().ends_with("cleaning up\n"));
}

#[test]
fn on_quitting_a_guest_that_ignores_the_signal_is_killed_after_the_time() {
    let perl = require_guest!("perl");
    let project = Project::new("ignores");
    let guest = project.perl(
        "$SIG{TERM} = 'IGNORE'; $SIG{INT} = 'IGNORE'; print \"ready\\n\"; sleep 1000 while 1;",
    );
    let mut forkmon = project
        .launch(&[perl.as_str(), &guest])
        .option("--stop-timeout=200ms")
        .start();
    forkmon.wait_output("ready\n");
    let before = std::time::Instant::now();
    forkmon.signal(Signal::TERM);
    forkmon.wait_end();
    assert!(before.elapsed() < PATIENCE / 4 && before.elapsed().as_millis() >= 200);
}

#[test]
fn a_dropped_run_is_asked_first_with_a_stop_signal() {
    let perl = require_guest!("perl");
    let mut project = Project::new("stop-signal").file("late.txt", "one\n");
    let guest = project.perl(
        "my $late = slurp('late.txt'); $SIG{USR1} = sub { print \"asked $late\\n\"; exit 0 }; \
         print \"ready $late\\n\"; sleep 1000 while 1;",
    );
    let mut forkmon = project
        .launch(&[perl.as_str(), &guest])
        .option("--stop-signal=USR1")
        .start();
    forkmon.wait_output("ready one\n");
    project.save("late.txt", "two\n", Save::InPlace);
    assert_eq!(forkmon.wait_output("ready two\n"), "asked one\nready two\n");
    forkmon.finish();
}

/// In a real terminal, Ctrl-C as it is typed ends forkmon, and the terminal
/// modes that the guest changed are put back.
#[test]
fn the_terminal_is_as_it_was() {
    let script = require_guest!("script");
    require_guest!("stty");
    let project = Project::new("terminal");
    let before = project.beside().join("before");
    let after = project.beside().join("after");
    let status = project.beside().join("status");
    let shell = project.beside().join("terminal.sh");
    std::fs::write(
        &shell,
        format!(
            "trap : INT\nstty -g > {before}\n{forkmon} run -- sh -c 'stty -echo -opost; echo ready; exec sleep 1000'\n\
             echo $? > {status}\nstty -g > {after}\n",
            before = before.display(),
            after = after.display(),
            status = status.display(),
            forkmon = program().display(),
        ),
    )
    .unwrap();
    let mut child = Command::new(&script)
        .args([
            "-q",
            "-e",
            "-f",
            "-c",
            &format!("sh {}", shell.display()),
            "/dev/null",
        ])
        .current_dir(project.root())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut output = child.stdout.take().unwrap();
    let mut seen = Vec::new();
    let mut buffer = [0; 256];
    while !seen.windows(5).any(|part| part == b"ready") {
        let count = std::io::Read::read(&mut output, &mut buffer).unwrap();
        assert_ne!(
            count,
            0,
            "it ended early: {}",
            String::from_utf8_lossy(&seen)
        );
        seen.extend_from_slice(&buffer[..count]);
    }
    std::io::Write::write_all(child.stdin.as_mut().unwrap(), b"\x03").unwrap();
    std::io::Read::read_to_end(&mut output, &mut seen).unwrap();
    child.wait().unwrap();
    let read = |path| {
        std::fs::read_to_string(path)
            .unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&seen)))
    };
    assert_eq!(read(status).trim(), "130");
    assert_eq!(read(before), read(after), "the modes of the terminal");
}

#[test]
fn a_panic_or_kill_of_forkmon_does_not_hang_what_reads_its_output() {
    let perl = require_guest!("perl");
    let (_project, mut forkmon) = started("reader", perl.as_str());
    forkmon.signal(Signal::KILL);
    assert_eq!(forkmon.wait_end(), 137);
    // Whoever reads forkmon's output sees its end, since nobody holds it open.
    forkmon.wait_end_of_output();
}

#[test]
fn the_variables_of_the_c_tool_keep_their_meaning() {
    let perl = require_guest!("perl");
    let mut project = Project::new("c-tool").file("late.txt", "one\n");
    let guest = project.perl("print slurp('late.txt'), \"\\n\";");
    let mut forkmon = project
        .launch(&[perl.as_str(), &guest])
        .env("FORKMON_QUIET", "1")
        .env("FORKMON_NO_COLORS", "1")
        .env("FORKMON_RESTART_DELAY", "10")
        .start();
    forkmon.wait_exit();
    project.save("late.txt", "two\n", Save::InPlace);
    assert!(forkmon.wait_resume().from.is_some());
    assert_eq!(forkmon.wait_exit().output, "two\n");
    assert_eq!(forkmon.messages(), "");
    forkmon.finish();

    let mut forkmon = project
        .launch(&["true"])
        .option("--once")
        .env("FORKMON_FILTER", "%.lua$;[unclosed")
        .start();
    assert_eq!(forkmon.wait_end(), 125);
    assert!(
        forkmon.messages().contains("[unclosed"),
        "{}",
        forkmon.messages()
    );
}

/// The guardian, which is the tracer's bell, inherited a mask in which nobody heard it:
/// forkmon was deaf to edits, to `ctl` and to the signals that end it.
#[test]
fn it_works_when_it_is_started_with_all_signals_blocked() {
    let perl = require_guest!("perl");
    let mut project = Project::new("blocked").file("late.txt", "one\n");
    let guest = project.perl("work(0.1); print slurp('late.txt'), \"\\n\";");
    let block = "use POSIX; my $all = POSIX::SigSet->new; $all->fillset; \
                 sigprocmask(SIG_BLOCK, $all); exec @ARGV or die";
    let argv = [perl.as_str(), &guest];
    let mut forkmon = project
        .launch(&argv)
        .through(&[perl.as_str(), "-e", block])
        .start();
    assert_eq!(forkmon.wait_exit().output, "early 1\none\n");
    project.save("late.txt", "two\n", Save::InPlace);
    assert!(forkmon.wait_resume().from.is_some());
    assert_eq!(forkmon.wait_exit().output, "two\n");
    forkmon.finish();
}

/// Somebody who runs a program of another folder waited for an edit that could not
/// come, and nothing said so.
#[test]
fn a_program_without_a_file_that_counts_is_told_of() {
    let perl = require_guest!("perl");
    let mut project = Project::new("nothing").file("late.txt", "one\n");
    let guest = project.perl("print 1;");
    let mut forkmon = project.watch(&[perl.as_str(), &guest]);
    forkmon.wait_exit();
    assert_eq!(forkmon.warnings(), ["nothing-watched"]);
    assert!(forkmon.messages().contains("--watch"));
    forkmon.finish();
    let guest = project.perl("print slurp('late.txt');");
    let mut forkmon = project.watch(&[perl.as_str(), &guest]);
    forkmon.wait_exit();
    project.save("late.txt", "two\n", Save::InPlace);
    forkmon.wait_exit();
    assert_eq!(forkmon.warnings(), [""; 0]);
    forkmon.finish();
}
