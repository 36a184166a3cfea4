//! `--output replay` on a terminal: the guest has a pseudo-terminal that is like the
//! real one, and what arrives at the real one is what a plain run writes.

use crate::harness::{Forkmon, Project, Save, Terminal, build_c};
use crate::require_guest;
use rustix::termios::{LocalModes, OutputModes};

const ROWS: u16 = 30;
const COLUMNS: u16 = 101;

fn terminal() -> Terminal {
    Terminal::new(ROWS, COLUMNS)
}

/// Runs a program on a terminal, plainly and under forkmon, edits the late file, and
/// compares what is written, byte by byte.
fn check(mut project: Project, argv: &[&str]) {
    let mut forkmon = project
        .launch(argv)
        .on_terminal(terminal())
        .option("--output=replay")
        .option("--quiet")
        .start();
    let mut before = String::from("\n");
    let mut compare = |forkmon: &mut Forkmon, project: &Project| {
        let exit = forkmon.wait_exit();
        let (output, code) = project.fresh_on_terminal(argv, terminal());
        assert!(output.contains("early"), "{output}");
        // A line that the run before has left unfinished is ended.
        let end = if before.ends_with('\n') { "" } else { "\r\n" };
        assert_eq!(exit.output, format!("{end}{output}"));
        before = output;
        assert_eq!(exit.code, Some(code.into()));
    };
    compare(&mut forkmon, &project);
    for (text, how) in [("two\n", Save::InPlace), ("three\n", Save::ByRename)] {
        project.save("late.txt", text, how);
        forkmon.wait_late_resume();
        compare(&mut forkmon, &project);
    }
    forkmon.finish();
}

fn python(name: &str, program: &str) {
    let python = require_guest!("python3");
    require_guest!("setsid");
    let project = Project::new(name)
        .file("late.txt", "one\n")
        .file("main.py", program);
    check(project, &[python.as_str(), "main.py"]);
}

const WORK: &str = "\nend = time.monotonic() + 0.4\nwhile time.monotonic() < end: pass\n";

#[test]
fn programs_see_a_terminal_of_the_same_size_and_modes() {
    python(
        "screen-seen",
        &format!(
            "import os, shutil, subprocess, sys, termios, time\n\
             print('early', [os.isatty(fd) for fd in range(3)], shutil.get_terminal_size())\n\
             print([os.get_terminal_size(fd) for fd in range(3)])\n\
             for fd in range(3):\n\
             \x20   modes = termios.tcgetattr(fd)\n\
             \x20   print(modes[0], modes[1], modes[3], modes[6], flush=True)\n\
             subprocess.run('stty size <&1; stty -a <&2; ls --color=auto -d . /', shell=True)\n\
             {WORK}\
             print(open('late.txt').read().strip(), os.get_terminal_size(1))\n"
        ),
    );
}

/// Line ends are processed once, whatever is written: not by the guest's terminal and
/// once more by the real one.
#[test]
fn what_is_written_arrives_as_it_is() {
    python(
        "screen-bytes",
        &format!(
            "import os, time\n\
             def write(text):\n\
             \x20   for n in range(0, len(text), 5): os.write(1, text[n:n + 5])\n\
             write(b'early\\n\\r\\n\\n\\r\\r\\n50%\\r60%\\r\\r70%\\r\\ttab\\x1b[31mred\\x1b[m\\n\\xff\\x00')\n\
             os.write(2, b'error\\r')\n\
             {WORK}\
             write(b'\\n' + open('late.txt', 'rb').read() * 3 + b'no line end\\r')\n"
        ),
    );
}

/// Modes that are set at either terminal hold for both, from the next byte on. What was
/// written in the raw mode is shown again in the one that the terminal has then, so that
/// carriage returns are not compared after a resume.
#[test]
fn modes_hold_for_both_terminals() {
    let python = require_guest!("python3");
    require_guest!("setsid");
    let program = format!(
        "import os, sys, termios, time, tty\n\
             def modes(): return [termios.tcgetattr(fd)[:4:2] for fd in range(3)]\n\
             os.write(1, b'early\\n')\n\
             saved = termios.tcgetattr(0)\n\
             for fd in (0, 1, 2):\n\
             \x20   for n in range(50):\n\
             \x20       tty.setraw(fd, termios.TCSANOW)\n\
             \x20       os.write(1, b'raw\\nraw\\r\\n')\n\
             \x20       raw = modes()\n\
             \x20       termios.tcsetattr(fd, (termios.TCSANOW, termios.TCSADRAIN)[n % 2], saved)\n\
             \x20       os.write(1, b'cooked\\ncooked\\r\\n')\n\
             \x20   print(fd, raw, modes(), flush=True)\n\
             tty.setcbreak(1)\n\
             {WORK}\
             late = open('late.txt').read()\n\
             print(late, termios.tcgetattr(0)[3] & (termios.ICANON | termios.ECHO))\n\
             tty.setraw(0)\n\
             print(late, modes())\n"
    );
    let mut project = Project::new("screen-modes")
        .file("late.txt", "one\n")
        .file("main.py", &program);
    let argv = [python.as_str(), "main.py"];
    let mut forkmon = project
        .launch(&argv)
        .on_terminal(terminal())
        .option("--output=replay")
        .option("--quiet")
        .start();
    let (fresh, _) = project.fresh_on_terminal(&argv, terminal());
    assert_eq!(forkmon.wait_exit().output, fresh);
    for text in ["two\n", "three\n"] {
        project.save("late.txt", text, Save::InPlace);
        forkmon.wait_late_resume();
        let (fresh, _) = project.fresh_on_terminal(&argv, terminal());
        assert_eq!(
            forkmon.wait_exit().output.replace('\r', ""),
            fresh.replace('\r', "")
        );
    }
    forkmon.finish();
}

/// In a buffer by line there is half a line at the checkpoint.
#[test]
fn what_was_in_the_guests_own_buffers_comes_out_once() {
    require_guest!("cc");
    require_guest!("setsid");
    let project = Project::new("screen-buffers").file("late.txt", "one\n");
    let program = build_c("buffered.c", &project.beside(), &[]);
    check(project, &[&program, "late.txt"]);
    python(
        "screen-buffers",
        &format!(
            "import sys, time\n\
             for n in range(2000): print('early', n)\n\
             sys.stdout.write('half a line, '){WORK}\
             print(open('late.txt').read().strip())\n"
        ),
    );
}

/// More than the kernel holds in a pseudo-terminal, so that the guest is stopped by it.
#[test]
fn long_output_is_whole() {
    python(
        "screen-long",
        &format!(
            "import time\n\
             for n in range(60000): print('early', n){WORK}\
             late = open('late.txt').read().strip()\n\
             for n in range(60000): print(late, n)\n"
        ),
    );
}

/// When the guest is told of another size, it finds that at each of its terminals.
#[test]
fn another_size_is_there_when_the_guest_is_told() {
    let python = require_guest!("python3");
    require_guest!("setsid");
    // A signal between Python's look for one and `pause` would not end that.
    let mut project = Project::new("screen-size").file("late.txt", "one\n").file(
        "main.py",
        "import os, signal, time\n\
             def sizes(): return [tuple(os.get_terminal_size(fd)) for fd in range(3)]\n\
             def changed(number, frame): os.write(1, f'{sizes()}\\n'.encode())\n\
             signal.signal(signal.SIGWINCH, changed)\n\
             end = time.monotonic() + 0.4\n\
             while time.monotonic() < end: pass\n\
             print(open('late.txt').read().strip(), sizes(), flush=True)\n\
             while True: time.sleep(0.01)\n",
    );
    let mut forkmon = project
        .launch(&[python.as_str(), "main.py"])
        .on_terminal(terminal())
        .option("--output=replay")
        .option("--quiet")
        .start();
    let line = |columns: u16| format!("[({columns}, 30), ({columns}, 30), ({columns}, 30)]\r\n");
    assert_eq!(forkmon.wait_output("\n"), format!("one {}", line(COLUMNS)));
    for columns in 20..120 {
        forkmon.terminal().resize(ROWS, columns);
        assert_eq!(forkmon.wait_output("\n"), line(columns));
    }
    // A copy comes from a time when the size was another one, and is told, too.
    project.save("late.txt", "two\n", Save::InPlace);
    forkmon.wait_late_resume();
    let all = forkmon.wait_output(&format!("two {}", line(119)));
    assert!(all.starts_with(&line(119)), "{all}");
    forkmon.terminal().resize(ROWS, 40);
    assert_eq!(forkmon.wait_output("\n"), line(40));
    forkmon.finish();
}

/// Curses sets the modes for input at the terminal that it writes to.
#[test]
fn curses_works_and_the_terminal_is_put_back() {
    let python = require_guest!("python3");
    require_guest!("setsid");
    let mut project = Project::new("screen-curses")
        .file("late.txt", "one\n")
        .file(
            "main.py",
            "import curses, time\n\
             def main(screen):\n\
             \x20   screen.addstr(0, 0, f'early {screen.getmaxyx()}')\n\
             \x20   screen.refresh()\n\
             \x20   end = time.monotonic() + 0.4\n\
             \x20   while time.monotonic() < end: pass\n\
             \x20   late = open('late.txt').read().strip()\n\
             \x20   screen.addstr(1, 0, f'ready-{late}.')\n\
             \x20   screen.refresh()\n\
             \x20   while True:\n\
             \x20       key = screen.getkey()\n\
             \x20       screen.addstr(2, 0, f'{late}-key-{key}.')\n\
             \x20       screen.refresh()\n\
             \x20       if key == 'q': return\n\
             curses.wrapper(main)\n\
             print('and back')\n",
        );
    let mut forkmon = project
        .launch(&[python.as_str(), "main.py"])
        .env("TERM", "xterm")
        .on_terminal(terminal())
        .option("--output=replay")
        .option("--keys=off")
        .start();
    assert!(
        forkmon
            .wait_output("ready-one.")
            .contains("early (30, 101)")
    );
    assert!(
        !forkmon
            .terminal()
            .modes()
            .local_modes
            .intersects(LocalModes::ICANON | LocalModes::ECHO)
    );
    forkmon.terminal().type_in(b"a");
    // Without cbreak this would wait for the end of the line.
    forkmon.wait_output("one-key-a.");
    project.save("late.txt", "two\n", Save::InPlace);
    forkmon.wait_late_resume();
    let all = forkmon.wait_output("ready-two.");
    assert!(all.contains("early (30, 101)"), "{all}");
    forkmon.terminal().type_in(b"q");
    forkmon.wait_output("and back");
    assert_eq!(forkmon.wait_exit().code, Some(0));
    let modes = forkmon.terminal().modes();
    assert!(
        modes
            .local_modes
            .contains(LocalModes::ICANON | LocalModes::ECHO)
    );
    assert!(modes.output_modes.contains(OutputModes::OPOST));
    // Dropped and started again, it finds the terminal as at first.
    project.save("late.txt", "three\n", Save::InPlace);
    forkmon.wait_late_resume();
    forkmon.wait_output("ready-three.");
    project.save("main.py", "import termios; print(termios.tcgetattr(0)[3] == termios.tcgetattr(1)[3], termios.tcgetattr(0)[3] & termios.ECHO)\n", Save::InPlace);
    forkmon.wait_output("True 8\r\n");
    forkmon.finish();
}

/// Ctrl-S stops the terminal: the guest waits, forkmon does not.
#[test]
fn a_stopped_terminal_stops_only_the_guest() {
    let python = require_guest!("python3");
    require_guest!("setsid");
    let mut project = Project::new("screen-stopped")
        .file("late.txt", "one\n")
        .file(
            "main.py",
            &format!(
                "import time\n\
                 print('early', flush=True){WORK}\
                 late = open('late.txt').read().strip()\n\
                 print('ready', flush=True)\n\
                 for n in range(100000): print(late, n)\n\
                 time.sleep(1000)\n"
            ),
        );
    let mut forkmon = project
        .launch(&[python.as_str(), "main.py"])
        .on_terminal(terminal())
        .option("--output=replay")
        .option("--quiet")
        .start();
    forkmon.wait_output("ready\r\n");
    forkmon.terminal().type_in(b"\x13");
    project.save("late.txt", "two\n", Save::InPlace);
    forkmon.wait_late_resume();
    forkmon.terminal().type_in(b"\x11");
    let all = forkmon.wait_output("two 99999\r\n");
    let last = all.rfind("early\r\n").expect("the whole run is shown");
    let mut fresh = String::from("early\r\nready\r\n");
    fresh.extend((0..100_000).map(|n| format!("two {n}\r\n")));
    assert!(
        all[last..] == fresh,
        "it is not the whole output of the run"
    );
    forkmon.finish();
}

/// What `--clear` writes, and where: before what is said of the next run.
#[test]
fn clear_comes_before_a_resume_and_a_restart() {
    let python = require_guest!("python3");
    require_guest!("setsid");
    let program = format!(
        "import time\n\
         print('early'){WORK}\
         print('late', open('late.txt').read().strip())\n"
    );
    let screen = "\x1b[m\x1b[H\x1b[2J";
    let all = "\x1b[m\x1b[H\x1b[2J\x1b[3J";
    for (output, option, sequence) in [
        ("replay", "--clear", screen),
        ("replay", "--clear=all", all),
        ("live", "--clear", screen),
        ("live", "--clear=all", all),
    ] {
        let mut project = Project::new("screen-clear")
            .file("late.txt", "one\n")
            .file("main.py", &program);
        let mut forkmon = project
            .launch(&[python.as_str(), "main.py"])
            .on_terminal(terminal())
            .option(format!("--output={output}"))
            .option(option)
            .option("--keys=off")
            .start();
        let before = forkmon.wait_output("waiting for an edit\r\n");
        assert!(
            !before.contains('\x1b') || !before.contains("2J"),
            "{before:?}"
        );
        for text in ["two", "three"] {
            project.save("late.txt", text, Save::InPlace);
            forkmon.wait_late_resume();
            let shown = forkmon.wait_output("waiting for an edit\r\n");
            assert!(shown.starts_with(sequence), "{output} {option}: {shown:?}");
            assert_eq!(shown.matches(sequence).count(), 1);
            assert_eq!(shown.contains("early\r\n"), output == "replay", "{shown:?}");
            assert!(shown.contains(&format!("late {text}\r\n")), "{shown:?}");
        }
        project.save("main.py", &format!("{program}#\n"), Save::InPlace);
        let shown = forkmon.wait_output("waiting for an edit\r\n");
        assert!(shown.starts_with(sequence), "{output} {option}: {shown:?}");
        assert!(shown.contains("early\r\nlate three\r\n"), "{shown:?}");
        forkmon.finish();
    }
}

/// A pipe is not cleared.
#[test]
fn clear_is_for_terminals_only() {
    let python = require_guest!("python3");
    for output in ["live", "replay"] {
        let mut project = Project::new("screen-no-clear")
            .file("late.txt", "one\n")
            .file("main.py", "print('late', open('late.txt').read())\n");
        let mut forkmon = project
            .launch(&[python.as_str(), "main.py"])
            .option(format!("--output={output}"))
            .option("--clear=all")
            .start();
        forkmon.wait_exit();
        project.save("late.txt", "two\n", Save::InPlace);
        forkmon.wait_resume();
        assert_eq!(forkmon.wait_exit().output, "late two\n\n");
        assert!(
            !forkmon.messages().contains("\x1b["),
            "{}",
            forkmon.messages()
        );
        forkmon.finish();
    }
}

/// A resume once gave the terminal the guest's modes while a shell had it in the
/// foreground, and edited its command line.
#[test]
fn a_resume_in_the_background_leaves_the_terminal_alone() {
    let python = require_guest!("python3");
    let bash = require_guest!("bash");
    require_guest!("setsid");
    let program = format!(
        "import time\n\
         print('early', flush=True){WORK}\
         print('late', open('late.txt').read().strip(), flush=True)\n\
         time.sleep(1000)\n"
    );
    let shell = "set -m\n\
         \"$@\" & p=$!\n\
         trap 'kill -INT $p' INT\n\
         read line; stty -icanon -echo; echo changed\n\
         wait $p; wait $p";
    for output in ["live", "replay"] {
        let mut project = Project::new("screen-background")
            .file("late.txt", "one\n")
            .file("main.py", &program);
        let mut forkmon = project
            .launch(&[python.as_str(), "main.py"])
            .through(&[bash.as_str(), "-c", shell, "bash"])
            .on_terminal(terminal())
            .option(format!("--output={output}"))
            .start();
        forkmon.wait_output("late one\r\n");
        forkmon.terminal().type_in(b"go\n");
        forkmon.wait_output("changed\r\n");
        let modes = LocalModes::ICANON | LocalModes::ECHO;
        for text in ["two", "three"] {
            project.save("late.txt", text, Save::InPlace);
            forkmon.wait_late_resume();
            forkmon.wait_output(&format!("late {text}\r\n"));
            assert!(!forkmon.terminal().modes().local_modes.intersects(modes));
        }
        forkmon.finish();
    }
}
