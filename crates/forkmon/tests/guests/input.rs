//! `--stdin`: what the guest had read up to the checkpoint counts as read, what it
//! read after that is given to it again.

use crate::harness::{Forkmon, Project, Save, Terminal, build_c};
use crate::require_guest;

/// Reads one line, works, reads the late file, and then the rest of the input.
const LINES: &str = "import sys, time\n\
     read = sys.stdin.readline\n\
     print('early', read().strip(), flush=True)\n\
     end = time.monotonic() + 0.4\n\
     while time.monotonic() < end: pass\n\
     late = open('late.txt').read().strip()\n\
     print('late', late, flush=True)\n\
     while line := read(): print(late, line.strip(), flush=True)\n";

/// The same without a buffer, byte by byte.
const BYTES: &str = "import os, time\n\
     def read():\n\
     \x20   line = b''\n\
     \x20   while not line.endswith(b'\\n'):\n\
     \x20       byte = os.read(0, 1)\n\
     \x20       if not byte: break\n\
     \x20       line += byte\n\
     \x20   return line.decode()\n\
     print('early', read().strip(), flush=True)\n\
     end = time.monotonic() + 0.4\n\
     while time.monotonic() < end: pass\n\
     late = open('late.txt').read().strip()\n\
     print('late', late, flush=True)\n\
     while line := read(): print(late, line.strip(), flush=True)\n";

fn project(name: &str, program: &str) -> Project {
    Project::new(name)
        .file("late.txt", "one\n")
        .file("main.py", program)
}

fn restarted(forkmon: &mut Forkmon) {
    let resume = forkmon.wait_resume();
    if !resume.path.ends_with("main.py") {
        forkmon.fail(&format!("it did not begin again: {resume:?}"));
    }
}

#[test]
fn what_was_read_after_the_checkpoint_is_read_again() {
    let python = require_guest!("python3");
    for program in [LINES, BYTES] {
        let mut project = project("input-again", program);
        let argv = [python.as_str(), "main.py"];
        let mut forkmon = project
            .launch(&argv)
            .option("--output=replay")
            .with_input()
            .start();
        let input = "a\nb\nc\nd\n";
        for line in input.lines() {
            forkmon.type_line(line);
        }
        forkmon.close_input();
        let fresh = |project: &Project| project.fresh_with_input(&argv, input).stdout;
        assert_eq!(forkmon.wait_exit().output, fresh(&project));
        for (text, how) in [
            ("two\n", Save::InPlace),
            ("three\n", Save::ByRename),
            ("four\n", Save::InPlace),
        ] {
            project.save("late.txt", text, how);
            forkmon.wait_late_resume();
            assert_eq!(forkmon.wait_exit().output, fresh(&project));
        }
        let changed = program.replace("'early'", "'again'");
        project.save("main.py", &changed, Save::InPlace);
        restarted(&mut forkmon);
        assert_eq!(forkmon.wait_exit().output, fresh(&project));
        forkmon.finish();
    }
}

/// Somebody who types now and then is heard at once, in every run; what was typed for
/// the dropped run is there for the next one.
#[test]
fn what_is_written_now_and_then_arrives_at_once() {
    let python = require_guest!("python3");
    let mut project = project("input-slowly", BYTES);
    let mut forkmon = project
        .launch(&[python.as_str(), "main.py"])
        .with_input()
        .start();
    forkmon.type_line("a");
    assert!(forkmon.wait_output("late one\n").starts_with("early a\n"));
    forkmon.type_line("b");
    assert_eq!(forkmon.wait_output("one b\n"), "one b\n");
    for text in ["two", "three"] {
        project.save("late.txt", text, Save::InPlace);
        forkmon.wait_late_resume();
        forkmon.wait_output(&format!("late {text}\n{text} b\n"));
        let line = format!("for {text}");
        forkmon.type_line(&line);
        if text == "two" {
            forkmon.wait_output("two for two\n");
        } else {
            forkmon.wait_output("three for two\nthree for three\n");
        }
    }
    // From here on the input has an end for every run.
    forkmon.close_input();
    assert_eq!(forkmon.wait_exit().code, Some(0));
    project.save("late.txt", "four", Save::InPlace);
    forkmon.wait_late_resume();
    let output = forkmon.wait_exit().output;
    assert_eq!(output, "late four\nfour b\nfour for two\nfour for three\n");
    forkmon.finish();
}

#[test]
fn a_guest_that_polls_without_blocking_sees_the_same() {
    require_guest!("cc");
    let mut project = Project::new("input-polled").file("late.txt", "one\n");
    let program = build_c("polled_input.c", &project.beside(), &[]);
    let mut forkmon = project.launch(&[&program, "late.txt"]).with_input().start();
    forkmon.type_line("a");
    assert_eq!(forkmon.wait_output("late one\n"), "early a\nlate one\n");
    forkmon.type_line("b");
    assert_eq!(forkmon.wait_output("\n"), "then b\n");
    forkmon.close_input();
    assert_eq!(forkmon.wait_exit().output, "then the end\nthen the end\n");
    for text in ["two", "three"] {
        project.save("late.txt", &format!("{text}\n"), Save::InPlace);
        forkmon.wait_late_resume();
        assert_eq!(
            forkmon.wait_exit().output,
            format!("late {text}\nthen b\nthen the end\nthen the end\n")
        );
    }
    // A restart finds it as it was at first: it blocks.
    project.remove("late.txt");
    forkmon.wait_late_resume();
    assert_eq!(forkmon.wait_exit().code, Some(97));
    forkmon.finish();
}

/// Far more than a pipe holds, of which the guest reads some before the checkpoint.
#[test]
fn long_input_is_given_again_from_where_it_was_read_to() {
    let python = require_guest!("python3");
    let mut project = project(
        "input-long",
        "import hashlib, os, sys, time\n\
         early = hashlib.sha256()\n\
         for n in range(300): early.update(os.read(0, 1000))\n\
         end = time.monotonic() + 0.4\n\
         while time.monotonic() < end: pass\n\
         late = open('late.txt').read().strip()\n\
         rest = sys.stdin.buffer.read()\n\
         print('early', late, len(rest), hashlib.sha256(rest).hexdigest())\n",
    );
    let input: String = (0..150_000).map(|n| format!("line {n}\n")).collect();
    let file = project.beside().join("input");
    std::fs::write(&file, &input).expect("the input can be written");
    let pipe = format!("cat '{}' | \"$@\"", file.display());
    let argv = [python.as_str(), "main.py"];
    // Reads of a pipe are short where its writer is slow, so that the lengths differ
    // from those of a fresh run; together they are all of it.
    let mut forkmon = project
        .launch(&argv)
        .through(&["sh", "-c", &pipe, "sh"])
        .start();
    let first = forkmon.wait_exit().output;
    for text in ["two", "three"] {
        project.save("late.txt", text, Save::InPlace);
        forkmon.wait_late_resume();
        assert_eq!(forkmon.wait_exit().output, first.replace("one", text));
    }
    forkmon.finish();
}

/// The pipe is shared with the guest's children, and each has read its share.
#[test]
fn children_read_from_the_same_input() {
    let bash = require_guest!("bash");
    let program = "read line; echo early $line\n\
         for i in {1..60000}; do :; done\n\
         read late < late.txt; echo late $late\n\
         (read line; echo child $line)\n\
         read line; echo parent $line\n\
         cat\n";
    let mut project = Project::new("input-children")
        .file("late.txt", "one\n")
        .file("main.sh", program);
    let argv = [bash.as_str(), "main.sh"];
    let mut forkmon = project
        .launch(&argv)
        .option("--output=replay")
        .with_input()
        .start();
    let input = "a\nb\nc\nd\ne\n";
    for line in input.lines() {
        forkmon.type_line(line);
    }
    forkmon.close_input();
    for text in ["one\n", "two\n", "three\n"] {
        if text != "one\n" {
            project.save("late.txt", text, Save::InPlace);
            let resume = forkmon.wait_resume();
            assert!(resume.from.is_some() && resume.kept_ms > 50.0, "{resume:?}");
        }
        let fresh = project.fresh_with_input(&argv, input).stdout;
        assert_eq!(forkmon.wait_exit().output, fresh);
    }
    forkmon.finish();
}

/// An endless input is read no faster than the guest reads it.
#[test]
fn input_that_nobody_reads_stays_where_it_is() {
    let python = require_guest!("python3");
    let mut project = project(
        "input-unread",
        "import os, time\n\
         print('early', os.read(0, 2), flush=True)\n\
         end = time.monotonic() + 0.4\n\
         while time.monotonic() < end: pass\n\
         print(open('late.txt').read().strip(), os.read(0, 4), flush=True)\n",
    );
    // What forkmon leaves is counted by the one that reads after it.
    let count = project.beside().join("written");
    let feed = format!(
        "(trap '' PIPE INT; for i in $(seq 1000); do printf %01000d 7 || break; done 2>/dev/null; \
         echo $i > '{}') | \"$@\"",
        count.display()
    );
    let mut forkmon = project
        .launch(&[python.as_str(), "main.py"])
        .through(&["sh", "-c", &feed, "sh"])
        .start();
    assert_eq!(forkmon.wait_exit().output, "early b'00'\none b'0000'\n");
    for text in ["two", "three"] {
        project.save("late.txt", text, Save::InPlace);
        forkmon.wait_late_resume();
        assert_eq!(forkmon.wait_exit().output, format!("{text} b'0000'\n"));
    }
    assert!(!count.exists(), "all of it was read");
    forkmon.finish();
    // Two pipes of 64 KiB lie between, and what forkmon was about to write.
    let written = || {
        let text = std::fs::read_to_string(&count).ok()?;
        text.trim().parse::<u32>().ok()
    };
    let deadline = std::time::Instant::now() + crate::harness::PATIENCE;
    let written = loop {
        if let Some(written) = written() {
            break written;
        }
        assert!(std::time::Instant::now() < deadline, "it never ended");
        std::thread::yield_now();
    };
    assert!(written < 250, "{written} kB were read");
}

#[test]
fn null_is_an_empty_input() {
    let python = require_guest!("python3");
    let mut project = project("input-null", LINES);
    let mut forkmon = project
        .launch(&[python.as_str(), "main.py"])
        .option("--stdin=null")
        .with_input()
        .start();
    assert_eq!(forkmon.wait_exit().output, "early \nlate one\n");
    project.save("late.txt", "two", Save::InPlace);
    forkmon.wait_late_resume();
    assert_eq!(forkmon.wait_exit().output, "late two\n");
    forkmon.finish();
}

/// Without replay, what a dropped run has read is gone: that is what was asked for.
#[test]
fn inherited_input_is_read_once() {
    let python = require_guest!("python3");
    let mut project = project("input-inherited", BYTES);
    let mut forkmon = project
        .launch(&[python.as_str(), "main.py"])
        .option("--stdin=inherit")
        .with_input()
        .start();
    forkmon.type_line("a");
    forkmon.type_line("b");
    forkmon.wait_output("one b\n");
    project.save("late.txt", "two", Save::InPlace);
    forkmon.wait_late_resume();
    assert_eq!(forkmon.wait_output("late two\n"), "late two\n");
    forkmon.type_line("c");
    forkmon.close_input();
    assert_eq!(forkmon.wait_exit().output, "two c\n");
    forkmon.finish();
}

/// Without a place to keep it, the program gets its input once. Forkmon ends at an edit
/// that it cannot follow: a run without that input would be wrong.
#[test]
fn input_that_cannot_be_kept_ends_forkmon_at_the_next_edit() {
    let python = require_guest!("python3");
    let mut project = project("input-lost", BYTES);
    let mut forkmon = project
        .launch(&[python.as_str(), "main.py"])
        .env("TMPDIR", "/nonexistent")
        .with_input()
        .start();
    for line in ["a", "b", "c"] {
        forkmon.type_line(line);
    }
    forkmon.close_input();
    let exit = forkmon.wait_exit();
    assert_eq!(exit.output, "early a\nlate one\none b\none c\n");
    assert_eq!(forkmon.warnings(), ["input-lost"]);
    project.save("late.txt", "two", Save::InPlace);
    assert_eq!(forkmon.wait_end(), 125);
    let said = forkmon.messages();
    assert!(
        said.contains("cannot give the program its input again"),
        "{said}"
    );
}

/// What is typed into a terminal is not kept, so that it cannot be asked for.
#[test]
fn a_terminal_cannot_be_replayed() {
    require_guest!("setsid");
    let project = Project::new("input-terminal");
    let mut forkmon = project
        .launch(&["true"])
        .on_terminal(Terminal::new(24, 80))
        .option("--stdin=replay")
        .start();
    assert_eq!(forkmon.wait_end(), 125);
    let said = forkmon.output();
    assert!(said.contains("leave the option out"), "{said}");
}

/// A regular file goes back by its offset, also when the guest is started again.
#[test]
fn a_file_is_read_again_from_where_it_stood() {
    let python = require_guest!("python3");
    let mut project = project("input-file", BYTES);
    let file = project.beside().join("input");
    std::fs::write(&file, "skipped\na\nb\nc\n").expect("the input can be written");
    let redirect = format!("{{ read skipped; exec \"$@\"; }} < '{}'", file.display());
    let mut forkmon = project
        .launch(&[python.as_str(), "main.py"])
        .through(&["sh", "-c", &redirect, "sh"])
        .option("--output=replay")
        .start();
    let expected = |late: &str| format!("early a\nlate {late}\n{late} b\n{late} c\n");
    assert_eq!(forkmon.wait_exit().output, expected("one"));
    project.save("late.txt", "two", Save::InPlace);
    forkmon.wait_late_resume();
    assert_eq!(forkmon.wait_exit().output, expected("two"));
    project.save("main.py", &format!("{BYTES}#\n"), Save::InPlace);
    restarted(&mut forkmon);
    assert_eq!(forkmon.wait_exit().output, expected("two"));
    forkmon.finish();
}
