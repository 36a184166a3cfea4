//! `--output replay`: after a resume, the whole output of the run is shown.

use crate::harness::{PATIENCE, Project, Save, build_c};
use crate::require_guest;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};
use rustix::process::Signal;
use serde_json::Value;
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// Prints a token that is another one in every run, works, and prints the late file.
const TOKEN: &str = "import os, sys, time\n\
     print('early', os.urandom(8).hex(), flush=True)\n\
     sys.stdout.write('half a line, ')\n\
     end = time.monotonic() + 0.4\n\
     while time.monotonic() < end: pass\n\
     print(open('late.txt').read().strip())\n";

/// The bytes of a stream that an `exit` event names.
fn shown(exit: &Value, stream: &str, all: &str) -> String {
    let bound = |name: &str| exit["shown"][stream][name].as_u64().expect("a bound") as usize;
    all[bound("from")..bound("to")].to_owned()
}

#[test]
fn a_resume_shows_the_whole_output_and_runs_only_the_end_of_it() {
    let python = require_guest!("python3");
    let mut project = Project::new("output-whole")
        .file("late.txt", "one\n")
        .file("main.py", TOKEN);
    let mut forkmon = project
        .launch(&[python.as_str(), "main.py"])
        .option("--output=replay")
        .start();
    let first = forkmon.wait_exit().output;
    assert!(first.ends_with("\nhalf a line, one\n"), "{first}");
    for (text, how) in [("two", Save::InPlace), ("three\n", Save::ByRename)] {
        project.save("late.txt", text, how);
        forkmon.wait_late_resume();
        // The token is the first run's: nothing of the early part ran again.
        assert_eq!(
            forkmon.wait_exit().output,
            first.replace("one", text.trim())
        );
    }
    project.save("main.py", &TOKEN.replace("half", "whole"), Save::InPlace);
    assert!(forkmon.wait_resume().path.ends_with("main.py"));
    let restarted = forkmon.wait_exit().output;
    assert!(
        restarted.ends_with("\nwhole a line, three\n"),
        "{restarted}"
    );
    assert_ne!(restarted.lines().next(), first.lines().next());
    forkmon.finish();
}

/// The events tell where a run's output stands among everything that forkmon wrote.
#[test]
fn the_events_say_where_the_output_of_a_run_is() {
    require_guest!("cc");
    let mut project = Project::new("output-events").file("late.txt", "one\n");
    let program = build_c("buffered.c", &project.beside(), &[]);
    let mut forkmon = project
        .launch(&[&program, "late.txt"])
        .option("--output=replay")
        .start();
    for text in ["one\n", "two\n", "three\n"] {
        if text != "one\n" {
            project.save("late.txt", text, Save::InPlace);
            forkmon.wait_late_resume();
        }
        let exit = forkmon.wait_event("exit");
        let output = shown(&exit.value, "stdout", &forkmon.output());
        assert_eq!(
            output,
            format!("early 1\nhalf a line, and the rest: {text}")
        );
        let messages = forkmon.messages();
        assert_eq!(
            shown(&exit.value, "stderr", &messages),
            "early error\n",
            "{messages}"
        );
    }
    forkmon.finish();
}

/// Buffers of the C library and of Python, full or by line: what is in them at the
/// checkpoint is in the memory of every copy.
#[test]
fn what_was_in_the_guests_own_buffers_comes_out_once() {
    require_guest!("cc");
    let python = require_guest!("python3");
    let project = || Project::new("output-buffers").file("late.txt", "one\n");
    let c = project();
    let program = build_c("buffered.c", &c.beside(), &[]);
    let p = project().file(
        "main.py",
        "import sys, time\n\
         for n in range(2000): print('early', n)\n\
         sys.stdout.write('half a line, ')\n\
         end = time.monotonic() + 0.4\n\
         while time.monotonic() < end: pass\n\
         print(open('late.txt').read().strip())\n",
    );
    for (mut project, argv) in [
        (c, [program.as_str(), "late.txt"]),
        (p, [python.as_str(), "main.py"]),
    ] {
        let mut forkmon = project.launch(&argv).option("--output=replay").start();
        assert_eq!(forkmon.wait_exit().output, project.fresh(&argv).stdout);
        for text in ["two\n", "three\n"] {
            project.save("late.txt", text, Save::InPlace);
            forkmon.wait_late_resume();
            assert_eq!(forkmon.wait_exit().output, project.fresh(&argv).stdout);
        }
        forkmon.finish();
    }
}

/// The messages are those of `--quiet`, that is none, so that all of the stream is the
/// guest's.
#[test]
fn one_file_for_both_streams_keeps_their_order() {
    let python = require_guest!("python3");
    let text = "import sys, time\n\
         for n in range(500):\n\
         \x20   print('early out', n, flush=True)\n\
         \x20   print('early err', n, file=sys.stderr, flush=True)\n\
         end = time.monotonic() + 0.4\n\
         while time.monotonic() < end: pass\n\
         late = open('late.txt').read()\n\
         for n in range(500):\n\
         \x20   print('out', n, late, flush=True)\n\
         \x20   print('err', n, late, file=sys.stderr, flush=True)\n";
    let mut project = Project::new("output-both")
        .file("late.txt", "one\n")
        .file("main.py", text);
    let mut forkmon = project
        .launch(&[python.as_str(), "main.py"])
        .through(&["sh", "-c", "exec \"$@\" 2>&1", "sh"])
        .option("--output=replay")
        .option("--quiet")
        .start();
    let merged = [
        "sh",
        "-c",
        "exec \"$@\" 2>&1",
        "sh",
        python.as_str(),
        "main.py",
    ];
    assert_eq!(forkmon.wait_exit().output, project.fresh(&merged).stdout);
    project.save("late.txt", "two\n", Save::InPlace);
    forkmon.wait_late_resume();
    assert_eq!(forkmon.wait_exit().output, project.fresh(&merged).stdout);
    forkmon.finish();
}

#[test]
fn a_message_stands_between_lines_and_after_the_output_before_it() {
    let python = require_guest!("python3");
    let mut project = Project::new("output-lines").file("late.txt", "one\n").file(
        "main.py",
        "import sys, time\n\
             sys.stdout.write('early, half a line')\n\
             sys.stdout.flush()\n\
             end = time.monotonic() + 0.4\n\
             while time.monotonic() < end: pass\n\
             sys.stdout.write(', ' + open('late.txt').read().strip())\n",
    );
    let mut forkmon = project
        .launch(&[python.as_str(), "main.py"])
        .through(&["sh", "-c", "exec \"$@\" 2>&1", "sh"])
        .option("--output=replay")
        .start();
    forkmon.wait_output("waiting for an edit\n");
    project.save("late.txt", "two\n", Save::InPlace);
    forkmon.wait_late_resume();
    forkmon.wait_output("waiting for an edit\n");
    let all = forkmon.output();
    let lines: Vec<&str> = all.lines().collect();
    assert_eq!(lines.len(), 5, "{all}");
    assert_eq!(lines[0], "early, half a line, one");
    assert_eq!(lines[1], "[forkmon] finished; waiting for an edit");
    assert!(
        lines[2].starts_with("[forkmon] changed late.txt; resumed"),
        "{all}"
    );
    assert_eq!(lines[3], "early, half a line, two");
    assert_eq!(lines[4], "[forkmon] finished; waiting for an edit");
    forkmon.finish();
}

/// What was not shown yet of a dropped run is never shown, and a run that is dropped in
/// the middle of a line disturbs nothing.
#[test]
fn a_run_that_is_dropped_on_its_way_leaves_no_trace_in_the_next_one() {
    let python = require_guest!("python3");
    let mut project = Project::new("output-dropped")
        .file("late.txt", "one\n")
        .file(
            "main.py",
            "import sys, time\n\
             print('early', flush=True)\n\
             end = time.monotonic() + 0.4\n\
             while time.monotonic() < end: pass\n\
             late = open('late.txt').read().strip()\n\
             sys.stdout.write('half of ' + late)\n\
             sys.stdout.flush()\n\
             while late == 'one': time.sleep(0.01)\n\
             print(', and the rest')\n",
        );
    let mut forkmon = project
        .launch(&[python.as_str(), "main.py"])
        .option("--output=replay")
        .start();
    assert_eq!(forkmon.wait_output("half of one"), "early\nhalf of one");
    project.save("late.txt", "two\n", Save::InPlace);
    forkmon.wait_late_resume();
    let exit = forkmon.wait_event("exit");
    let all = forkmon.output();
    assert_eq!(
        shown(&exit.value, "stdout", &all),
        "early\nhalf of two, and the rest\n"
    );
    assert_eq!(all, "early\nhalf of oneearly\nhalf of two, and the rest\n");
    forkmon.finish();
}

/// A FIFO that nobody reads for now, opened for reading as a shell's pipeline would
/// have it.
fn slow_reader(path: &Path) -> File {
    rustix::fs::mknodat(
        rustix::fs::CWD,
        path,
        rustix::fs::FileType::Fifo,
        Mode::from_raw_mode(0o666),
        0,
    )
    .expect("a FIFO can be made");
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let reader = rustix::fs::open(path, flags, Mode::empty()).expect("it can be opened");
    rustix::fs::fcntl_setfl(&reader, OFlags::empty()).expect("it can wait");
    File::from(reader)
}

/// Reads the first line, whenever somebody writes it.
fn read_first(reader: &mut File, line: &str) {
    let timeout = Timespec::try_from(PATIENCE).expect("a minute fits");
    let ready = poll(&mut [PollFd::new(reader, PollFlags::IN)], Some(&timeout));
    assert_eq!(ready, Ok(1), "{line:?} did not come");
    let mut found = vec![0; line.len()];
    reader.read_exact(&mut found).expect("it can be read");
    assert_eq!(String::from_utf8_lossy(&found), line);
}

/// A pager that nobody scrolls must not keep forkmon from its work.
#[test]
fn a_reader_that_does_not_read_stops_the_guest_but_not_forkmon() {
    let python = require_guest!("python3");
    let mut project = Project::new("output-slow")
        .file("late.txt", "one\n")
        .file("state.txt", "")
        .file(
            "main.py",
            "import os, sys, time\n\
             print('early', flush=True)\n\
             end = time.monotonic() + 0.4\n\
             while time.monotonic() < end: pass\n\
             late = open('late.txt').read().strip()\n\
             print('has read', file=sys.stderr, flush=True)\n\
             for n in range(40000): print(late, n)\n\
             sys.stdout.flush()\n",
        );
    let fifo = project.beside().join("slow");
    let mut reader = slow_reader(&fifo);
    let redirect = format!("exec \"$@\" > '{}'", fifo.display());
    let mut forkmon = project
        .launch(&[python.as_str(), "main.py"])
        .through(&["sh", "-c", &redirect, "sh"])
        .option("--output=replay")
        .start();
    // It is blocked by the reader then: what it has to write is far more than all
    // pipes between hold.
    read_first(&mut reader, "early\n");
    forkmon.wait_messages("has read", 1);
    for (times, text) in [(2, "two\n"), (3, "three\n")] {
        project.save("late.txt", text, Save::InPlace);
        forkmon.wait_late_resume();
        forkmon.wait_messages("has read", times);
    }
    assert!(forkmon.all("exit").is_empty(), "nothing stopped the guest");
    // Now it is read: the dropped runs' output as far as it was on its way, and all of
    // the last run's.
    let (sender, receiver) = std::sync::mpsc::channel();
    let reading = std::thread::spawn(move || {
        let mut all = Vec::new();
        reader.read_to_end(&mut all).expect("it can be read");
        sender.send(()).expect("somebody waits");
        String::from_utf8(all).expect("it is text")
    });
    forkmon.wait_event("exit");
    forkmon.finish();
    receiver
        .recv_timeout(PATIENCE)
        .expect("forkmon has ended, so has its output");
    let all = reading.join().expect("it was read");
    let fresh = project.fresh(&[python.as_str(), "main.py"]).stdout;
    assert!(all.ends_with(&fresh), "the last run is not there whole");
    let dropped = &all[..all.len() - fresh.len()];
    assert!(
        dropped.len() < 200_000 && !dropped.contains("39999"),
        "more of the dropped runs was shown than was on its way"
    );
}

#[test]
fn ctrl_c_ends_forkmon_though_nobody_reads() {
    let python = require_guest!("python3");
    let project = Project::new("output-stuck").file(
        "main.py",
        "import sys\n\
         print('early', flush=True)\n\
         while True: print('more and more')\n",
    );
    let fifo = project.beside().join("stuck");
    let mut reader = slow_reader(&fifo);
    let redirect = format!("exec \"$@\" > '{}'", fifo.display());
    let mut forkmon = project
        .launch(&[python.as_str(), "main.py"])
        .through(&["sh", "-c", &redirect, "sh"])
        .option("--output=replay")
        .option("--stop-timeout=100ms")
        .start();
    read_first(&mut reader, "early\n");
    forkmon.press_ctrl_c();
    assert_eq!(forkmon.wait_end(), 130);
}

/// As without forkmon, the guest is told by SIGPIPE.
#[test]
fn without_a_reader_the_guest_gets_sigpipe() {
    require_guest!("cc");
    let project = Project::new("output-head").file("late.txt", "one\n");
    let fifo = project.beside().join("head");
    let mut reader = slow_reader(&fifo);
    let redirect = format!("exec \"$@\" > '{}'", fifo.display());
    let mut forkmon = project
        .launch(&["sh", "-c", "cat late.txt; while :; do echo more; done"])
        .through(&["sh", "-c", &redirect, "sh"])
        .option("--output=replay")
        .start();
    read_first(&mut reader, "one\n");
    drop(reader);
    let exit = forkmon.wait_exit();
    assert_eq!(exit.signal, Some(Signal::PIPE.as_raw() as i64), "{exit:?}");
    forkmon.finish();
}

#[test]
fn what_is_above_the_limit_is_not_shown_again_and_that_is_said() {
    let python = require_guest!("python3");
    let mut project = Project::new("output-limit").file("late.txt", "one\n").file(
        "main.py",
        "import time\n\
             for n in range(100000): print('early', n)\n\
             end = time.monotonic() + 0.4\n\
             while time.monotonic() < end: pass\n\
             print(open('late.txt').read().strip())\n",
    );
    let argv = [python.as_str(), "main.py"];
    let mut forkmon = project
        .launch(&argv)
        .option("--output=replay")
        .option("--output-limit=100kB")
        .start();
    assert_eq!(
        forkmon.wait_exit().output,
        project.fresh(&argv).stdout,
        "all of it is shown once"
    );
    for text in ["two\n", "three\n"] {
        project.save("late.txt", text, Save::InPlace);
        forkmon.wait_late_resume();
        let output = forkmon.wait_exit().output;
        let fresh = project.fresh(&argv).stdout;
        assert!(
            fresh.ends_with(&output),
            "it is not the end of a fresh run's"
        );
        assert!(output.starts_with("early "), "it begins with half a line");
        assert!(
            (90_000..=100_100).contains(&output.len()),
            "{}",
            output.len()
        );
    }
    assert_eq!(forkmon.warnings(), ["output-limit"]);
    let said = forkmon.messages();
    assert_eq!(said.matches("--output-limit").count(), 1);
    // Each time, where the output begins that is not all of it.
    let hint = " ms kept (";
    let resumes: Vec<&str> = said.lines().filter(|line| line.contains(hint)).collect();
    assert_eq!(resumes.len(), 2, "{said}");
    for line in resumes {
        assert!(
            line.contains("; the first 1.0 MiB of its output are left out"),
            "{line}"
        );
    }
    forkmon.finish();
}

/// An output file only grows with `--output live`: what it held is not cut.
#[test]
fn a_redirected_file_is_never_shortened() {
    let python = require_guest!("python3");
    let mut project = Project::new("output-file")
        .file("late.txt", "one\n")
        .file("main.py", TOKEN);
    let file = project.beside().join("out");
    let redirect = format!("exec \"$@\" > '{}'", file.display());
    let mut forkmon = project
        .launch(&[python.as_str(), "main.py"])
        .through(&["sh", "-c", &redirect, "sh"])
        .start();
    forkmon.wait_exit();
    let read = || std::fs::read_to_string(&file).expect("the file is there");
    let first = read();
    project.save("late.txt", "two\n", Save::InPlace);
    forkmon.wait_late_resume();
    forkmon.wait_exit();
    assert_eq!(read(), format!("{first}half a line, two\n"));
    forkmon.finish();
}
