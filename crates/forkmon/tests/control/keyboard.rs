//! Keys, typed into a real terminal.

use std::path::Path;
use std::process::Command;

use rustix::process::{Pid, Signal, kill_process};

use super::harness::Ground;
use super::process::{Process, has, until};

/// Runs the words after it, with the terminal's name before and its modes before
/// and after.
const SCRIPT: &str = r#"
tty > "$beside/tty"
stty -g > "$beside/before"
trap : INT
COMMAND
echo "$?" > "$beside/status"
stty -g > "$beside/after"
echo 'the end'
"#;

fn can_run() -> bool {
    ["script", "bash", "stty", "tty"].into_iter().all(has)
}

fn start(ground: &Ground, command: &str) -> Process {
    Process::in_terminal(ground, &SCRIPT.replace("COMMAND", command))
}

fn file(ground: &Ground, name: &str) -> String {
    let text = std::fs::read_to_string(ground.path(name));
    text.unwrap().trim().to_owned()
}

/// Whether the terminal has a setting, such as `icanon`.
fn is_set(ground: &Ground, setting: &str) -> bool {
    let terminal = file(ground, "tty");
    assert!(Path::new(&terminal).exists(), "{terminal}");
    let told = Command::new("stty")
        .args(["-a", "-F", &terminal])
        .output()
        .unwrap();
    let told = String::from_utf8(told.stdout).unwrap();
    told.split([' ', ';', '\n']).any(|word| word == setting)
}

fn wait_for_keys(ground: &Ground) {
    until("keys are read", || is_set(ground, "-icanon"));
}

/// The exit status, and that the terminal is as it was.
#[track_caller]
fn end(ground: &Ground, terminal: &mut Process) -> String {
    terminal.wait_for("the end");
    assert_eq!(file(ground, "before"), file(ground, "after"));
    terminal.wait_end();
    file(ground, "status")
}

#[test]
fn each_key_does_what_it_says() {
    if !can_run() {
        return;
    }
    let ground = Ground::new();
    std::fs::write(ground.path("project/late.txt"), "one\n").unwrap();
    let mut terminal = start(&ground, "$forkmon run -- cat late.txt");
    terminal.wait_for("waiting for an edit");
    wait_for_keys(&ground);
    // Signals are still typed, and output still has its line ends.
    assert!(is_set(&ground, "isig") && is_set(&ground, "opost") && is_set(&ground, "-echo"));
    terminal.type_in("?");
    terminal.wait_for("c  take a checkpoint\r\n");
    terminal.wait_for("?  show this list\r\n");
    terminal.type_in("x");
    terminal.type_in("s");
    terminal.wait_for(": cat late.txt\r\n");
    terminal.wait_for("run 0, ended");
    terminal.type_in("c");
    terminal.wait_for("the program has ended");
    terminal.type_in("R");
    terminal.wait_for("restarted");
    terminal.wait_for("one\r\n");
    terminal.wait_for("waiting for an edit");
    wait_for_keys(&ground);
    terminal.type_in("q");
    assert_eq!(end(&ground, &mut terminal), "0");
}

#[test]
fn a_guest_gets_what_is_typed_for_it() {
    if !can_run() {
        return;
    }
    let ground = Ground::new();
    let command = "$forkmon run -- sh -c 'echo up; read line; echo \"got $line\"'";
    let mut terminal = start(&ground, command);
    terminal.wait_for("up\r\n");
    assert!(is_set(&ground, "icanon") && is_set(&ground, "echo"));
    terminal.type_in("quit\n");
    terminal.wait_for("got quit\r\n");
    terminal.wait_for("waiting for an edit");
    wait_for_keys(&ground);
    terminal.type_in("R");
    // And again, in the next run.
    terminal.wait_for("up\r\n");
    assert!(is_set(&ground, "icanon") && is_set(&ground, "echo"));
    terminal.type_in("crs?\n");
    terminal.wait_for("got crs?\r\n");
    terminal.wait_for("waiting for an edit");
    wait_for_keys(&ground);
    terminal.type_in("q");
    assert_eq!(end(&ground, &mut terminal), "0");
}

#[test]
fn with_on_the_keys_work_while_the_guest_runs() {
    if !can_run() {
        return;
    }
    let ground = Ground::new();
    let command = "$forkmon run --keys on -- sh -c 'cat; echo up; exec sleep 1000'";
    let mut terminal = start(&ground, command);
    // There is nothing for it to read.
    terminal.wait_for("up\r\n");
    wait_for_keys(&ground);
    terminal.type_in("c");
    terminal.wait_for("took checkpoint ");
    terminal.type_in("s");
    terminal.wait_for("(between accesses)\r\n");
    terminal.type_in("r");
    terminal.wait_for("resumed from checkpoint 2");
    terminal.type_in("R");
    terminal.wait_for("up\r\n");
    terminal.type_in("q");
    end(&ground, &mut terminal);
}

#[test]
fn with_off_nothing_is_read() {
    if !can_run() {
        return;
    }
    let ground = Ground::new();
    std::fs::write(ground.path("project/late.txt"), "one\n").unwrap();
    let mut terminal = start(&ground, "$forkmon run --keys off -- cat late.txt");
    terminal.wait_for("waiting for an edit");
    terminal.type_in("q\n");
    std::fs::write(ground.path("project/late.txt"), "two\n").unwrap();
    terminal.wait_for("two\r\n");
    terminal.wait_for("waiting for an edit");
    assert!(is_set(&ground, "icanon"));
    terminal.type_in("\u{3}");
    assert_eq!(end(&ground, &mut terminal), "130");
}

#[test]
fn the_terminal_is_put_back_after_ctrl_c_and_a_kill() {
    if !can_run() {
        return;
    }
    for killed in [false, true] {
        let ground = Ground::new();
        // The terminal goes away with the shell.
        let command = "$forkmon run -- true; status=$?; echo ended; read go; (exit $status)";
        let mut terminal = start(&ground, command);
        terminal.wait_for("waiting for an edit");
        wait_for_keys(&ground);
        if killed {
            terminal.type_in("s");
            let told = {
                terminal.wait_for("[forkmon] forkmon ");
                terminal.wait_for(": true")
            };
            let pid = Pid::from_raw(told.trim().parse().unwrap()).unwrap();
            kill_process(pid, Signal::KILL).unwrap();
            terminal.wait_for("ended\r\n");
            // The guardian does it, a moment later.
            until("the terminal is put back", || {
                is_set(&ground, "icanon") && is_set(&ground, "echo")
            });
            terminal.type_in("go\n");
            assert_eq!(end(&ground, &mut terminal), "137");
        } else {
            terminal.type_in("\u{3}");
            terminal.wait_for("ended\r\n");
            terminal.type_in("go\n");
            assert_eq!(end(&ground, &mut terminal), "130");
        }
    }
}

#[test]
fn it_can_be_stopped_and_go_on() {
    if !can_run() {
        return;
    }
    let ground = Ground::new();
    // With job control, as at a prompt. The shell itself does not touch the
    // terminal's modes.
    let command = r#"
set -m
$forkmon run -- true
stty -g > "$beside/stopped"
echo 'it stopped'
read go
fg > "$beside/fg"
"#;
    let mut terminal = start(&ground, command);
    terminal.wait_for("waiting for an edit");
    wait_for_keys(&ground);
    {
        terminal.type_in("\u{1a}");
        terminal.wait_for("it stopped");
        assert_eq!(file(&ground, "before"), file(&ground, "stopped"));
    }
    terminal.type_in("go\n");
    wait_for_keys(&ground);
    terminal.type_in("R");
    terminal.wait_for("waiting for an edit");
    wait_for_keys(&ground);
    terminal.type_in("q");
    assert_eq!(end(&ground, &mut terminal), "0");
}

/// Forkmon handles Ctrl-Z itself, and must stop all the same while its guest has
/// the terminal.
#[test]
fn it_can_be_stopped_with_a_guest_that_reads() {
    if !can_run() {
        return;
    }
    let ground = Ground::new();
    let command = r#"
set -m
$forkmon run -- sh -c 'echo "up $$"; read line; echo "got $line"'
echo 'it stopped'
read go
fg > "$beside/fg"
"#;
    let mut terminal = start(&ground, command);
    terminal.wait_for("up ");
    let guest = terminal.wait_for("\r\n");
    terminal.type_in("\u{1a}");
    terminal.wait_for("it stopped\r\n");
    // The shell waits for forkmon only. Until the guest has woken up to its signal,
    // it is still about to read, and could have what is typed for the shell.
    let stat = format!("/proc/{guest}/stat");
    until("the guest has stopped", || {
        let told = std::fs::read_to_string(&stat).unwrap();
        told.contains(") t ") || told.contains(") T ")
    });
    terminal.type_in("go\n");
    until("it is in the foreground", || ground.path("fg").exists());
    terminal.type_in("more\n");
    terminal.wait_for("got more\r\n");
    terminal.wait_for("waiting for an edit");
    wait_for_keys(&ground);
    terminal.type_in("q");
    assert_eq!(end(&ground, &mut terminal), "0");
}

#[test]
fn in_the_background_it_leaves_the_terminal_alone() {
    if !can_run() {
        return;
    }
    let ground = Ground::new();
    let command = r#"
set -m
$forkmon run -- echo up &
read go
echo "read $go"
fg > "$beside/fg"
"#;
    let mut terminal = start(&ground, command);
    terminal.wait_for("waiting for an edit");
    assert!(is_set(&ground, "icanon") && is_set(&ground, "echo"));
    terminal.type_in("quit\n");
    terminal.wait_for("read quit");
    // Now it is in the foreground.
    wait_for_keys(&ground);
    terminal.type_in("q");
    assert_eq!(end(&ground, &mut terminal), "0");
}

#[test]
fn with_on_there_must_be_a_terminal() {
    let ground = Ground::new();
    let mut forkmon = Process::forkmon(&ground, &["--keys", "on"], &["true"]);
    forkmon.wait_for("--keys on needs the terminal");
    assert_eq!(forkmon.wait_end().code(), Some(125));
}
