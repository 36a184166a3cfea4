//! Guests that ask for sizes and times of what they read: which edits those make.

use std::fs;

use crate::harness::{Project, Save};
use crate::pieces::numbers;
use crate::require_guest;

/// A program that looks at all its files first, and reads them one by one.
const SITE: &str = "import os, sys\nprint('early', flush=True)\n\
    pages = [name for name in sorted(os.listdir('pages')) if os.stat('pages/' + name).st_size]\n\
    for name in pages:\n    n = sum(i * i % 7 for i in range(100000))\n    \
    print(name, n, open('pages/' + name).read(), flush=True)\n";

#[test]
fn sizes_and_times_do_not_count_of_a_file_that_is_read_later_if_asked_for() {
    let python = require_guest!("python3");
    let mut project = Project::new("site").file("site.py", SITE);
    for n in 0..6 {
        project = project.file(&format!("pages/{n}.txt"), "text");
    }
    let argv = [python.as_str(), "site.py"];
    for (option, again) in [
        ("--metadata=strict", "1.txt"),
        ("--metadata=content", "4.txt"),
    ] {
        let mut forkmon = project.launch(&argv).option(option).start();
        forkmon.wait_exit();
        for text in ["changed", "changed again"] {
            project.save("pages/4.txt", &format!("{text} {option}"), Save::InPlace);
            let output = forkmon.wait_exit().output;
            let fresh = project.fresh(&argv).stdout;
            assert!(fresh.ends_with(&output), "{output:?} of {fresh:?}");
            assert!(output.contains(again), "{option}: {output}");
            assert_eq!(output.contains("1.txt"), option == "--metadata=strict");
        }
        forkmon.finish();
    }
}

/// Python never reads a source whose byte code is as old as it.
#[test]
fn a_time_counts_of_a_file_that_is_not_read() {
    let python = require_guest!("python3");
    let project = Project::new("byte-code")
        .file(
            "main.py",
            "print('early', flush=True)\nsum(range(3000000))\nimport late\n",
        )
        .file("late.py", "print('late one')\n");
    let argv = [python.as_str(), "main.py"];
    project.fresh(&argv);
    let mut project = project;
    let mut forkmon = project.launch(&argv).option("--metadata=content").start();
    forkmon.wait_exit();
    for word in ["two", "six", "ten"] {
        project.save("late.py", &format!("print('late {word}')\n"), Save::InPlace);
        assert!(forkmon.wait_resume().from.is_some());
        let output = forkmon.wait_exit().output;
        assert!(output.ends_with(&format!("late {word}\n")), "{output}");
    }
    forkmon.finish();
}

/// A shell that was given a command is not about its script when it asks for a time.
#[test]
fn a_shell_that_compares_times_is_told_the_new_one() {
    let bash = require_guest!("bash");
    let command = "echo early; for i in {1..20000}; do :; done; exec < data; \
                   [ data -nt old ] && echo newer; read -r line; echo \"$line\"";
    let mut project = Project::new("newer")
        .file("old", "")
        .file("data", &numbers(3000, ""));
    let long_ago = std::time::SystemTime::now() - std::time::Duration::from_secs(100);
    let data = fs::File::options().write(true).open(project.path("data"));
    let data = data.expect("it can be written");
    data.set_modified(long_ago).expect("it is the test's own");
    drop(data);
    let argv = [bash.as_str(), "-c", command];
    let mut forkmon = project.watch(&argv);
    assert!(!forkmon.wait_exit().output.contains("newer"));
    project.save("data", &numbers(2900, "changed"), Save::InPlace);
    assert!(forkmon.wait_resume().from.is_some());
    assert_eq!(forkmon.wait_exit().output, "newer\nnumber 0\n");
    forkmon.finish();
}

/// The size that a child asks for was taken for known, since the first process had asked
/// for it to read the file.
#[test]
fn what_another_process_asks_counts_with_content_too() {
    let python = require_guest!("python3");
    let script = "import os, subprocess\nprint('early', flush=True)\nwork = lambda: sum(range(3000000))\n\
                  os.stat('x'); work()\n\
                  print(subprocess.run(['stat', '-c', '%s', 'x'], capture_output=True).stdout, flush=True)\n\
                  work(); open('o').read(); work(); print(open('x').read(), flush=True)\n";
    let mut project = Project::new("child-asks")
        .file("main.py", script)
        .file("o", "")
        .file("x", "one\n");
    let argv = [python.as_str(), "main.py"];
    let mut forkmon = project.launch(&argv).option("--metadata=content").start();
    forkmon.wait_exit();
    for text in ["longer\n", "longer still\n"] {
        project.save("x", text, Save::InPlace);
        assert!(forkmon.wait_resume().from.is_some());
        let again = forkmon.wait_exit().output;
        let fresh = project.fresh(&argv).stdout;
        assert!(
            fresh.ends_with(&again) && again.starts_with("b'"),
            "{again}"
        );
    }
    forkmon.finish();
}
