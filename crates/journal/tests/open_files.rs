//! Files that the guest and somebody else have open at the same time. Each of these bytes
//! was lost once, or kept for nobody.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod common;

use std::fs::{self, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::FileExt;
use std::process::{Child, ChildStdout, Command, Stdio};

use common::{Guest, append, begin, kept};

/// Their close counted as the guest's.
#[test]
fn what_is_appended_while_the_guest_has_the_file_open_is_theirs() {
    for act in [
        (|guest| guest.unlink("log")) as fn(&mut Guest),
        |guest| guest.write("log", "anew"),
        |guest| guest.truncate("log", 0),
        |guest| {
            guest.write("other", "guest's");
            guest.rename("other", "log");
        },
    ] {
        let mut guest = Guest::new();
        begin(&mut guest);
        let mut open = guest.create("log");
        open.write_all(b"guest's\n").unwrap();
        append(&guest.path("log"), "person's\n");
        act(&mut guest);
        // One close more than the guest owes, as far as is known.
        drop(open);
        assert_eq!(kept(guest), ["guest's\nperson's\n"]);
    }
}

/// The readers' events filled the queue, and nothing could be proven any more.
#[test]
fn readers_do_not_fill_the_queue() {
    let mut guest = Guest::new();
    guest.put("log", "before\n");
    let mark = begin(&mut guest);
    guest.write("log", "guest's");
    for _ in 0..20_000 {
        drop(fs::File::open(guest.path("log")).unwrap());
    }
    guest.undo(mark);
    assert_eq!(guest.read("log"), "before\n");
}

/// The new folder was not watched, and of two closes in a row only one came.
#[test]
fn closes_are_told_apart_in_a_folder_that_has_taken_the_place_of_another() {
    let mut guest = Guest::new();
    let mark = begin(&mut guest);
    guest.make_folder("logs");
    guest.write("logs/first", "guest's");
    guest.rename("logs", "logs.old");
    guest.make_folder("logs");
    let open = guest.append("logs/log");
    let theirs = OpenOptions::new().append(true).open(guest.path("logs/log"));
    let mut theirs = theirs.unwrap();
    theirs.write_all(b"person's").unwrap();
    drop((open, theirs));
    let undo = guest.journal.undo_to(mark);
    assert!(!undo.complete);
    assert_eq!(guest.read("logs/log"), "person's");
}

/// A descriptor that is older than the guest's, and a file that an image has open: no
/// event tells of what is written.
#[test]
fn what_others_may_write_to_is_kept_when_an_image_has_it_open() {
    let mut guest = Guest::new();
    guest.put("log", "a line\n");
    let theirs = OpenOptions::new().write(true).open(guest.path("log"));
    let theirs = theirs.unwrap();
    let open = guest.open_existing("log");
    let mark = begin(&mut guest);
    guest.hold(mark, &open, "log");
    open.write_at(b"G", 0).unwrap();
    theirs.write_at(b"person's", 2).unwrap();
    guest.undo(mark);
    assert_eq!(guest.read("log"), "a line\n");
    drop((open, theirs));
    assert_eq!(kept(guest), ["G person's"]);
}

/// Somebody who does one thing for each line that we write, in Python.
struct Person {
    process: Child,
    told: BufReader<ChildStdout>,
}

impl Person {
    /// `None`, visibly, where there is no Python.
    fn new() -> Option<Person> {
        let program = "import ctypes, mmap, os, sys, threading\n\
                       def follow():\n for line in sys.stdin:\n  exec(line, globals())\n  \
                       print('done', flush=True)\n os._exit(0)\nfollow()";
        let mut python = Command::new("python3");
        python.args(["-c", program]);
        let process = python.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let Ok(mut process) = process else {
            eprintln!("skipped: python3 is not installed");
            return None;
        };
        let told = BufReader::new(process.stdout.take().unwrap());
        Some(Person { process, told })
    }

    fn does(&mut self, what: &str) {
        let input = self.process.stdin.as_mut().unwrap();
        writeln!(input, "{what}").unwrap();
        let mut told = String::new();
        self.told.read_line(&mut told).unwrap();
        assert_eq!(told, "done\n", "{what}");
    }
}

impl Drop for Person {
    fn drop(&mut self) {
        drop(self.process.stdin.take());
        let _ = self.process.wait();
    }
}

/// Opens the log, the path of which is `log`, and keeps it open as `f`.
const OPENS: &str = "f = os.open(log, os.O_RDWR | os.O_APPEND)";
/// Writes by it.
const WRITES: &str = "os.write(f, b\"person's\\n\")";

/// A person's descriptor stays open, and so does the guest's, in an image: the count of
/// closes was right, and each line was lost with the journal.
#[test]
fn what_comes_by_a_descriptor_that_stays_open_is_kept() {
    let map = "m = mmap.mmap(f, 0); [os.close(int(n)) for n in os.listdir('/proc/self/fd') \
               if int(n) > 2 and os.path.realpath('/proc/self/fd/' + n) == log]";
    // A name that is no text stands in the list of its mappings.
    let odd = "g = os.open(os.fsencode(log) + b'\\xff', os.O_RDWR | os.O_CREAT); \
               os.ftruncate(g, 10); k = mmap.mmap(g, 0)";
    // Its first thread ends, and another one answers in its place.
    let thread = "go = lambda: ([0 for _ in iter(lambda: \
                  open('/proc/self/stat').read().split()[2], 'Z')], \
                  print('done', flush=True), follow()); \
                  threading.Thread(target=go).start(); ctypes.CDLL(None).syscall(60, 0)";
    for (opens, writes) in [
        (vec![OPENS], WRITES),
        (
            vec!["r = os.open(log, os.O_RDONLY)", OPENS, "os.close(r)"],
            WRITES,
        ),
        (vec![OPENS, map], "m[:9] = b\"person's\\n\""),
        (vec![odd, OPENS, map], "m[:9] = b\"person's\\n\""),
        (vec![OPENS, thread], WRITES),
    ] {
        for held_after in [false, true] {
            let Some(mut person) = Person::new() else {
                return;
            };
            let mut guest = Guest::new();
            guest.put("log", "before it all\n");
            begin(&mut guest);
            let mut open = guest.append("log");
            open.write_all(b"guest's\n").unwrap();
            let mark = guest.journal.mark();
            person.does(&format!("log = {:?}", guest.path("log")));
            if !held_after {
                guest.hold(mark, &open, "log");
            }
            for line in &opens {
                person.does(line);
            }
            if held_after {
                guest.hold(mark, &open, "log");
            }
            person.does(writes);
            open.write_all(b"dropped\n").unwrap();
            guest.undo(mark);
            assert!(!guest.read("log").contains("dropped"));
            drop(person);
            let kept = kept(guest);
            assert_eq!(kept.len(), 1, "{opens:?}");
            assert!(kept[0].contains("person's\n"), "{opens:?}: {kept:?}");
        }
    }
}

/// They had written before, too, and nobody asked any more who else has it open.
#[test]
fn what_follows_on_what_they_wrote_before_is_kept() {
    let Some(mut person) = Person::new() else {
        return;
    };
    let mut guest = Guest::new();
    guest.put("log", "before\n");
    begin(&mut guest);
    drop(guest.append("log"));
    person.does(&format!("log = {:?}; {OPENS}; {WRITES}", guest.path("log")));
    let mut open = guest.append("log");
    let mark = guest.journal.mark();
    guest.hold(mark, &open, "log");
    person.does(WRITES);
    open.write_all(b"dropped\n").unwrap();
    guest.undo(mark);
    drop(person);
    assert_eq!(kept(guest), ["before\nperson's\nperson's\ndropped\n"]);
}

/// All of it was kept, as if the guest had written over it.
#[test]
fn nothing_is_kept_of_a_log_that_both_have_appended_to() {
    let mut guest = Guest::new();
    begin(&mut guest);
    guest.put("log", "");
    for forgets in [false, true, true] {
        append(&guest.path("log"), "person's\n");
        guest.append("log").write_all(b"guest's\n").unwrap();
        let mark = guest.journal.mark();
        if forgets {
            guest.journal.forget_before(mark);
        }
    }
    assert_eq!(guest.read("log"), "person's\nguest's\n".repeat(3));
    assert_eq!(kept(guest), [""; 0]);
}

/// What was in it had been forgotten by then.
#[test]
fn a_log_that_both_have_appended_to_is_kept_when_the_guest_cuts_it() {
    let mut guest = Guest::new();
    begin(&mut guest);
    guest.put("log", "");
    append(&guest.path("log"), "person's\n");
    drop(guest.append("log"));
    let mark = guest.journal.mark();
    guest.journal.forget_before(mark);
    guest.write("log", "anew");
    let listed = guest.journal.taken_away();
    assert_eq!(listed.len(), 1, "{listed:?}");
    assert_eq!(kept(guest), ["person's\n"]);
}
