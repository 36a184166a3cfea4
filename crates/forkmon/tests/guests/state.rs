//! What the kernel holds for a guest, at any moment: each fixture of the crate
//! `snapshot` is run by forkmon as any program is, frozen by `forkmon ctl`
//! where it blocks, let run on, and resumed three times. What it sees is what it
//! sees when nobody disturbs it.
//!
//! `docs/state.md` lists what is tested here.

use std::path::Path;
use std::process::{Command, Output};

use crate::harness::{Project, place, program, run_tool};

/// Asks a running forkmon for something.
pub fn ctl(socket: &Path, words: &[&str]) -> Output {
    Command::new(program())
        .args(["ctl", "--socket"])
        .arg(socket)
        .args(words)
        .output()
        .expect("forkmon ctl runs")
}

/// The same, which must work; what it says.
#[track_caller]
pub fn ctl_done(socket: &Path, words: &[&str]) -> String {
    let answer = ctl(socket, words);
    assert!(answer.status.success(), "ctl {words:?}: {answer:?}");
    String::from_utf8_lossy(&answer.stdout).trim().to_owned()
}

/// Builds a fixture and gives the command that runs it by hand. `{}` in an argument
/// stands for a folder of its own.
pub fn command(project: &Project, fixture: &str, arguments: &[&str]) -> Vec<String> {
    let sources = place("FORKMON_TEST_STATE_FIXTURES", "../snapshot/tests/fixtures");
    let source = sources.join(fixture).with_extension("c");
    let built = project.beside().join(fixture);
    run_tool(
        Command::new("cc")
            .args(["-O1", "-Wall", "-Werror", "-D_GNU_SOURCE", "-o"])
            .arg(&built)
            .arg(source),
    );
    // A folder that the run before has left nothing in.
    let own = tempfile::tempdir_in(project.temporary()).expect("a folder can be made");
    let own = own.keep().to_string_lossy().into_owned();
    let mut command = vec!["env".to_owned(), "BY_HAND=1".to_owned()];
    command.push(built.to_string_lossy().into_owned());
    command.extend(arguments.iter().map(|word| word.replace("{}", &own)));
    command
}

/// What a fixture says from its checkpoint on when it is run plainly.
fn undisturbed(project: &Project, fixture: &str, arguments: &[&str]) -> (String, i32) {
    let command = command(project, fixture, arguments);
    let words: Vec<&str> = command.iter().map(String::as_str).collect();
    let fresh = project.fresh_with_input(&words, "\n");
    let (_, rest) = fresh
        .stdout
        .split_once("checkpoint\n")
        .unwrap_or_else(|| panic!("no checkpoint: {}", fresh.stdout));
    (rest.to_owned(), fresh.code)
}

/// A fixture that is frozen where it stands goes on as one that nobody disturbed,
/// and so does each of three copies of it.
#[track_caller]
fn same_by_hand(fixture: &str, arguments: &[&str]) {
    let project = Project::new(fixture);
    let (expected, code) = undisturbed(&project, fixture, arguments);
    let command = command(&project, fixture, arguments);
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
    for round in 0..4 {
        if round > 0 {
            ctl_done(&socket, &["resume", &id]);
            let resume = forkmon.wait_resume();
            assert_eq!(resume.from.map(|from| from.to_string()), Some(id.clone()));
        }
        // One byte lets it go on.
        forkmon.type_line("");
        let exit = forkmon.wait_exit();
        if exit.output != expected || exit.code != Some(i64::from(code)) {
            forkmon.fail(&format!(
                "round {round}: {exit:?}\nbut undisturbed {code}: {expected}"
            ));
        }
    }
    forkmon.finish();
}

/// Makes a test of each row: its name, the fixture and its arguments.
macro_rules! rows {
    ($($name:ident: $fixture:literal $arguments:expr;)*) => {
        $(
            #[test]
            fn $name() {
                same_by_hand($fixture, &$arguments);
            }
        )*
    };
}

rows! {
    threads_in_every_kind_of_call: "blocked_calls" [];
    some_of_everything: "many_kinds" [];
    attributes_of_threads_and_processes: "attributes" ["{}"];
    memory_that_is_locked: "memory_locks" [];
    an_alarm_that_goes_off: "alarm" ["200"];
    timers_that_go_off_all_the_time: "storm" [];
    an_action_for_sigtrap: "trap" ["handle"];
    sigtrap_blocked: "trap" ["block"];
    a_signal_that_waits: "blocked" [];
    anonymous_memory_that_is_shared: "anonymous_memory" [];
    memory_files: "memory_file" [];
    memory_without_a_name: "removed_memory" ["{}"];
    mapped_files_with_a_name: "mapped_files" ["{}"];
    removed_files: "removed_files" ["{}"];
    system_v_memory: "system_v_memory" [];
    locks: "locks" ["{}"];
    nested_epoll: "epoll_nested" [];
    epoll_once_and_at_edges: "epoll_shots" [];
    epoll_of_duplicates: "epoll_moved" [];
    event_counters: "eventfd" [];
    timers_that_are_files: "timerfd" [];
    signals_that_are_read: "signalfd" [];
    processes_that_are_files: "pidfd" [];
    watched_files: "inotify" ["{}"];
    signals_of_files: "signal_io" [];
    pseudo_terminals: "pty" [];
    pipes: "pipes" [];
    fifos: "fifo" ["{}"];
    a_pair_of_streams_with_data: "pair" ["stream"];
    a_pair_of_datagrams: "pair" ["dgram"];
    a_pair_of_packets: "pair" ["packet"];
    halves_that_are_shut_down: "shut_pair" [];
    a_full_pair: "full_pair" [];
    an_event_loop_that_wakes_itself_up: "self_pipe" [];
    datagrams_that_wait: "messages" ["datagrams"];
    packets_that_wait: "messages" ["packets"];
    files_that_are_sent: "rights" [];
    unix_connections_inside: "unix_inside" ["{}"];
    tcp_connections_inside: "tcp_inside" ["4"];
    udp_inside: "udp" [];
    unix_datagrams_by_name: "unix_datagrams" ["{}"];
}
