//! Random writes, random input, edits at random moments: what is shown of the last run
//! is what a plain run writes, over pipes and on a terminal. From a seed, which a
//! failure prints.

use crate::harness::{Event, Forkmon, Project, Save, Terminal};
use crate::require_guest;
use std::fmt::Write as _;
use std::path::Path;

const PARTS: usize = 6;

/// Reads parts, and between them writes pieces of all sizes to both streams, with and
/// without a flush, and takes some of its input, if there is any.
const GUEST: &str = "import hashlib, os, random, sys, time\n\
     dice = random.Random(7)\n\
     reads = sys.argv[1] == 'reads'\n\
     def write(stream, text):\n\
     \x20   stream.write(text)\n\
     \x20   if dice.random() < 0.5: stream.flush()\n\
     for part in range(6):\n\
     \x20   end = time.monotonic() + 0.03\n\
     \x20   while time.monotonic() < end: pass\n\
     \x20   late = open(f'part-{part}').read().strip()\n\
     \x20   for n in range(dice.randrange(60)):\n\
     \x20       size = dice.choice([0, 1, 10, 300, 3000])\n\
     \x20       end = dice.choice(['', '\\n', '\\r\\n', '\\r'])\n\
     \x20       write(sys.stdout, f'{part} {late} {n} ' + '.' * size + end)\n\
     \x20       if dice.random() < 0.1: write(sys.stderr, f'error {part} {late} {n}{end}')\n\
     \x20   if reads:\n\
     \x20       some = os.read(0, 1000) if part % 2 else sys.stdin.buffer.read(700)\n\
     \x20       while len(some) < 700: some += os.read(0, 700 - len(some))\n\
     \x20       write(sys.stdout, hashlib.sha256(some[:700]).hexdigest() + '\\n')\n\
     print('the end')\n";

fn project(name: &str) -> Project {
    let mut project = Project::new(name).file("main.py", GUEST);
    for part in 0..PARTS {
        project = project.file(&format!("part-{part}"), "at first\n");
    }
    project
}

/// Edits at random moments of runs, until one has come to its end after so many
/// rounds; hands each end over.
fn stress(
    project: &mut Project,
    forkmon: &mut Forkmon,
    socket: &Path,
    seed: u64,
    mut compare: impl FnMut(&mut Forkmon, &Project, &str),
) {
    let mut dice = fastrand::Rng::with_seed(seed);
    let mut history = format!("seed {seed}");
    forkmon.wait_event("start");
    forkmon.settle(socket);
    compare(forkmon, project, &history);
    for round in 0..12 {
        // Some before the run before has come to its end, each of another part.
        for edit in 0..dice.usize(1..4) {
            let part = dice.usize(..PARTS);
            write!(history, ", part {part}").expect("a String can be written");
            let how = [Save::InPlace, Save::ByRename][dice.usize(..2)];
            let text = format!("round {round} edit {edit}\n");
            project.save(&format!("part-{part}"), &text, how);
            // A part that the dropped run has not come to yet resumes nothing, and
            // one that it has come to does.
            match dice.u8(..3) {
                0 => {}
                1 => std::thread::yield_now(),
                _ => forkmon.wait_bytes(dice.usize(..20_000)),
            }
        }
        history.push(';');
        forkmon.settle(socket);
        compare(forkmon, project, &history);
    }
    let all = forkmon.all("resume");
    let late = |event: &&&Event| !event.value["from"].is_null() && event.number("kept_ms") > 50.0;
    assert!(
        all.iter().filter(late).count() * 2 > all.len(),
        "few were resumed late: {history}"
    );
}

#[test]
fn over_pipes() {
    let python = require_guest!("python3");
    for seed in [1, 20_261_122] {
        let mut project = project("stress-pipes");
        let input: String = (0..1_000).map(|n| format!("input line {n}\n")).collect();
        let file = project.beside().join("input");
        std::fs::write(&file, &input).expect("the input can be written");
        let pipe = format!("cat '{}' | \"$@\"", file.display());
        let socket = project.beside().join("control");
        let argv = [python.as_str(), "main.py", "reads"];
        let mut forkmon = project
            .launch(&argv)
            .through(&["sh", "-c", &pipe, "sh"])
            .option("--output=replay")
            .option("--control")
            .option(&socket)
            .start();
        stress(
            &mut project,
            &mut forkmon,
            &socket,
            seed,
            |forkmon, project, history| {
                let exit = forkmon.last("exit");
                let bound = |name: &str| exit.value["shown"]["stdout"][name].as_u64();
                let (Some(from), Some(to)) = (bound("from"), bound("to")) else {
                    forkmon.fail(&format!("an end without its output: {history}"));
                };
                let shown = forkmon.output()[from as usize..to as usize].to_owned();
                let fresh = project.fresh_with_input(&argv, &input).stdout;
                if shown != fresh {
                    forkmon.fail(&format!(
                        "{history}: this was shown:\n{shown}\nand not:\n{fresh}"
                    ));
                }
            },
        );
        forkmon.finish();
    }
}

#[test]
fn on_a_terminal() {
    let python = require_guest!("python3");
    require_guest!("setsid");
    for seed in [2, 20_261_123] {
        let mut project = project("stress-terminal");
        let socket = project.beside().join("control");
        let argv = [python.as_str(), "main.py", "writes"];
        let mut forkmon = project
            .launch(&argv)
            .on_terminal(Terminal::new(24, 80))
            .option("--output=replay")
            .option("--control")
            .option(&socket)
            .option("--quiet")
            .option("--keys=off")
            .start();
        stress(
            &mut project,
            &mut forkmon,
            &socket,
            seed,
            |forkmon, project, history| {
                let exit = forkmon.last("exit");
                let shown = forkmon.output()[..exit.printed].to_owned();
                let (fresh, _) = project.fresh_on_terminal(&argv, Terminal::new(24, 80));
                if !shown.ends_with(&fresh) {
                    forkmon.fail(&format!(
                        "{history}: not the end of what was shown:\n{fresh}"
                    ));
                }
            },
        );
        forkmon.finish();
    }
}
