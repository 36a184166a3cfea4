//! Guests that read a file in pieces: an edit resumes them in the middle of it, with
//! the file as it is now.

use std::fmt::Write;
use std::fs;

use crate::harness::{Forkmon, Project, Save, Scenario, find_optional};
use crate::require_guest;

/// Steps of a script, each with some work and a command of its own.
fn steps(words: &[&str]) -> String {
    let mut script = String::from("echo early\n");
    for word in words {
        writeln!(
            script,
            "for i in {{1..4000}}; do :; done; /bin/echo {word} >> log; /bin/echo {word}"
        )
        .expect("a string can be written");
    }
    script + "/bin/echo \"$(wc -l < log) lines\"\n"
}

const WORDS: [&str; 8] = [
    "one", "two", "three", "four", "five", "six", "seven", "eight",
];

/// The same words with another one, or more, in one place.
fn with(place: usize, words: &[&'static str]) -> String {
    let mut all = WORDS.to_vec();
    all.splice(place..=place, words.iter().copied());
    steps(&all)
}

/// Where the script was when it was resumed, in words that were not said again.
fn said_again(forkmon: &mut Forkmon) -> String {
    forkmon.wait_exit().output
}

#[test]
fn bash_goes_on_with_the_line_that_was_edited() {
    let bash = require_guest!("bash");
    let project = Project::new("bash-lines").file("job.sh", &steps(&WORDS));
    Scenario::new(project, &[bash.as_str(), "job.sh"], "job.sh").check_saves(&[
        (&with(6, &["changed"]), Save::InPlace),
        (&with(6, &["again"]), Save::ByRename),
        // A longer and a shorter script, and one that begins to differ earlier.
        (&with(5, &["more", "and", "more"]), Save::InPlace),
        (&with(5, &[]), Save::LikeVim),
        (&with(3, &["much", "earlier"]), Save::ByRename),
        (&with(7, &["later"]), Save::DeleteAndCreate),
    ]);
}

#[test]
fn a_script_that_is_executed_by_itself_goes_on_too() {
    require_guest!("bash");
    let script = |words: &str| format!("#!/bin/bash\n# {:300}\n{words}", "");
    let project = Project::new("bash-executed").program("job.sh", &script(&steps(&WORDS)));
    let argv = ["./job.sh"];
    Scenario::new(project, &argv, "job.sh").check_saves(&[
        (&script(&with(6, &["changed"])), Save::InPlace),
        (&script(&with(7, &["later"])), Save::ByRename),
    ]);
}

#[test]
fn a_step_that_fails_is_corrected_without_the_steps_before_it() {
    let bash = require_guest!("bash");
    let with_step = |step: &str| format!("set -e\n{}{step}\necho all done\n", steps(&WORDS));
    let project = Project::new("bash-fails").file("job.sh", &with_step("/bin/false"));
    let argv = [bash.as_str(), "job.sh"];
    Scenario::new(project, &argv, "job.sh").check_saves(&[
        (&with_step("/bin/ls /does/not/exist 2>&1"), Save::InPlace),
        (&with_step("/bin/echo mended"), Save::ByRename),
    ]);
}

#[test]
fn only_the_steps_from_the_edited_one_on_run_again() {
    let bash = require_guest!("bash");
    let mut project = Project::new("bash-steps").file("job.sh", &steps(&WORDS));
    let mut forkmon = project.watch(&[bash.as_str(), "job.sh"]);
    forkmon.wait_exit();
    project.save("job.sh", &with(6, &["changed"]), Save::InPlace);
    assert_eq!(said_again(&mut forkmon), "changed\neight\n8 lines\n");
    // Nearer than any checkpoint that was there: one was taken before that line.
    project.save("job.sh", &with(6, &["again"]), Save::ByRename);
    assert_eq!(said_again(&mut forkmon), "again\neight\n8 lines\n");
    forkmon.finish();
}

/// The guest waits for a file beside the project, in the middle of its work.
fn waiting_script(project: &Project, rest: &str) -> String {
    let go = project.beside().join("go");
    format!(
        "echo early\n/bin/true\nuntil [ -e {} ]; do /bin/sleep 0.01; done\n/bin/true\n{rest}",
        go.display()
    )
}

#[test]
fn an_edit_to_what_was_not_read_yet_is_in_the_run_that_goes_on() {
    let bash = require_guest!("bash");
    for save in [Save::InPlace, Save::ByRename] {
        let project = Project::new("bash-unread");
        let before = waiting_script(&project, "/bin/echo before\n");
        let after = waiting_script(&project, "/bin/echo after\n/bin/echo twice\n");
        let mut project = project.file("job.sh", &before);
        let mut forkmon = project.watch(&[bash.as_str(), "job.sh"]);
        forkmon.wait_output("early\n");
        project.save("job.sh", &after, save);
        let resume = forkmon.wait_resume();
        assert!(resume.from.is_some(), "{save:?}: a restart");
        fs::write(project.beside().join("go"), "").expect("it can be written");
        assert!(forkmon.wait_exit().output.ends_with("after\ntwice\n"));
        forkmon.finish();
    }
}

#[test]
fn a_loop_goes_on_with_the_line_that_was_edited() {
    let bash = require_guest!("bash");
    let script = "echo early\nwhile read -r word; do\n\
                  for i in {1..4000}; do :; done\n/bin/echo \"got $word\"\ndone < words\n";
    let words = |last: &str| format!("a\nb\nc\nd\ne\nf\n{last}");
    let mut project = Project::new("bash-loop")
        .file("loop.sh", script)
        .file("words", &words("g\n"));
    let mut forkmon = project.watch(&[bash.as_str(), "loop.sh"]);
    forkmon.wait_exit();
    for (last, save) in [
        ("h\n", Save::InPlace),
        ("i\nj\n", Save::ByRename),
        ("", Save::InPlace),
    ] {
        project.save("words", &words(last), save);
        assert!(forkmon.wait_resume().from.is_some());
        let again = forkmon.wait_exit().output;
        let fresh = project.fresh(&[bash.as_str(), "loop.sh"]).stdout;
        assert!(fresh.ends_with(&again), "{again:?} of {fresh:?}");
        assert!(!again.contains("got e"), "{again:?}");
    }
    forkmon.finish();
}

/// A child that reads on where the shell has a file open takes lines that the shell
/// never sees.
#[test]
fn a_child_that_shares_the_file_makes_it_count_as_a_whole() {
    let bash = require_guest!("bash");
    require_guest!("sed");
    let script = "echo early\nfor i in {1..40000}; do :; done\n\
                  { read -r first; sed -n '2{p;q}'; read -r last; echo \"$first $last\"; } < words\n\
                  for i in {1..40000}; do :; done\n/bin/echo end\n";
    let project = Project::new("bash-shared")
        .file("share.sh", script)
        .file("words", "a\nb\nc\nd\ne\n");
    Scenario::new(project, &[bash.as_str(), "share.sh"], "words").check_saves(&[
        ("a\nb\nx\nd\ne\n", Save::InPlace),
        ("a\nb\nx\ny\ne\n", Save::ByRename),
        ("a\nb\nx\ny\nz\nzz\n", Save::InPlace),
    ]);
}

/// What a script asks of its own file counts in full.
#[test]
fn a_script_that_asks_for_its_own_size_is_told_the_new_one() {
    let bash = require_guest!("bash");
    let script = |word: &str| {
        format!(
            "echo early\nfor i in {{1..20000}}; do :; done\n/bin/true\n\
             stat -c '%s bytes' job.sh\n[ -s job.sh ] && echo some\n\
             for i in {{1..20000}}; do :; done\n/bin/true\necho {word}\n"
        )
    };
    let project = Project::new("bash-asks").file("job.sh", &script("one"));
    Scenario::new(project, &[bash.as_str(), "job.sh"], "job.sh")
        .check(&script("twotwo"), &script("three"));
}

/// Lines of numbers, of which one is another.
pub fn numbers(changed: usize, to: &str) -> String {
    (0..3000).fold(String::new(), |mut text, n| {
        let number = format!("number {n}");
        let line = if n == changed { to } else { &number };
        writeln!(text, "{line}").expect("a string can be written");
        text
    })
}

/// A guest that says `early`, and then works on `data`, line by line.
fn check_reader(name: &str, argv: &[&str], files: &[(&str, &str)]) {
    let mut project = Project::new(name).file("data", &numbers(3000, ""));
    for (name, text) in files {
        project = project.file(name, text);
    }
    Scenario::new(project, argv, "data").check_saves(&[
        (&numbers(2900, "changed"), Save::InPlace),
        (&numbers(2900, "again"), Save::ByRename),
        (&numbers(2950, ""), Save::ByRename),
        (&(numbers(3000, "") + "one more\n"), Save::InPlace),
        (
            &numbers(1500, "a much longer line than before"),
            Save::InPlace,
        ),
    ]);
}

#[test]
fn lua_goes_on_in_the_middle_of_its_data() {
    for name in ["lua5.4", "luajit"] {
        let lua = require_guest!(name);
        let script = "io.write('early\\n')\nlocal n = 0\nfor line in io.lines('data') do\n\
                      for i = 1, 2000 do n = (n + i) % 1009 end\nio.write(line, ' ', n, '\\n')\nend\n";
        check_reader(
            "lua-data",
            &[lua.as_str(), "read.lua"],
            &[("read.lua", script)],
        );
    }
}

#[test]
fn mawk_goes_on_in_the_middle_of_its_data() {
    let mawk = require_guest!("mawk");
    let script = "BEGIN { print \"early\" } { for (i = 0; i < 1000; i++) n = (n + i) % 1009; print n, $0 }\n";
    let argv = [mawk.as_str(), "-f", "read.awk", "data"];
    check_reader("mawk-data", &argv, &[("read.awk", script)]);
}

/// The C library asks for the size, and says nothing of it, when a program seeks to the
/// end; what lies in its buffer it seeks to without any call.
#[test]
fn lua_that_has_asked_for_the_size_is_told_the_new_one() {
    let lua = require_guest!("lua5.4");
    let work = "for i = 1, 3000000 do n = (n + i) % 1009 end\n";
    for ask in [
        "local size = f:seek('end')\nf:seek('set')\nlocal first = f:read()",
        "local first = f:read()\nlocal size = f:seek('end')\nf:seek('set', 5)",
        "local first = f:read()\nlocal size = f:seek('end', -3)\nf:seek('set', 5)",
    ] {
        let script = format!(
            "print('early')\nlocal n = 0\n{work}local f = io.open('data')\n{ask}\n{work}\
             print(size, first, n)\n{work}local rest = f:read('a')\nprint(#rest, rest:sub(-5))\n"
        );
        let project = Project::new("lua-size")
            .file("size.lua", &script)
            .file("data", "first\nsecond\nthird\n");
        Scenario::new(project, &[lua.as_str(), "size.lua"], "data").check_saves(&[
            ("first\nsecond\nthird\nfourth\n", Save::InPlace),
            ("first\nsecond\nthird\nfourth\nfifth\n", Save::ByRename),
        ]);
    }
}

#[test]
fn tcc_goes_on_in_the_middle_of_a_source() {
    let tcc = require_guest!("tcc");
    let source = |last: &str| {
        let functions = (0..9000).fold(String::new(), |mut text, n| {
            writeln!(
                text,
                "int f{n}(int x) {{ return x * {n} + (x << 3) - {n}; }}"
            )
            .expect("a string can be written");
            text
        });
        format!("#include <stdio.h>\n{functions}int main(void) {{ puts(\"{last}\"); return 0; }}\n")
    };
    let mut project = Project::new("tcc-pieces").file("long.c", &source("one"));
    let argv = [tcc.as_str(), "-c", "-o", "long.o", "long.c"];
    let mut forkmon = project.watch(&argv);
    forkmon.wait_exit();
    let mut kept = Vec::new();
    for (word, save) in [("two", Save::InPlace), ("three", Save::ByRename)] {
        project.save("long.c", &source(word), save);
        let resume = forkmon.wait_resume();
        assert!(resume.from.is_some(), "{}", resume.reason);
        kept.push(resume.kept_ms);
        forkmon.wait_exit();
        assert_eq!(project.tree(), project.fresh(&argv).tree, "{word}");
    }
    let whole = forkmon.all("exit").first().map(|exit| exit.number("at_ms"));
    assert!(
        kept[1] > whole.expect("it ended") / 3.0,
        "{kept:?} of {whole:?}"
    );
    forkmon.finish();
}

#[test]
fn tex_goes_on_in_the_middle_of_a_chapter() {
    let Some(tex) = find_optional("pdftex") else {
        return;
    };
    let chapter = |last: &str| {
        let lines = (0..1500).fold(String::new(), |mut text, n| {
            writeln!(text, "Line {n} of a chapter with some words in it.\n")
                .expect("a string can be written");
            text
        });
        format!(
            "\\immediate\\write16{{early}}\n{lines}\\immediate\\write16{{late {last}}}\n\\bye\n"
        )
    };
    let mut project = Project::new("tex").file("book.tex", &chapter("one"));
    let argv = [
        tex.as_str(),
        "-interaction=batchmode",
        "-output-format=dvi",
        "book.tex",
    ];
    let mut forkmon = project.watch(&argv);
    forkmon.wait_exit();
    for (word, save) in [("two", Save::InPlace), ("three", Save::ByRename)] {
        project.save("book.tex", &chapter(word), save);
        let resume = forkmon.wait_resume();
        assert!(resume.from.is_some(), "{}", resume.reason);
        forkmon.wait_exit();
        let log = fs::read_to_string(project.path("book.log")).expect("TeX writes a log");
        assert!(log.contains(&format!("late {word}\n")), "{log}");
        assert_eq!(log.matches("early\n").count(), 1);
        assert_eq!(log.matches("late").count(), 1);
    }
    let resumes = forkmon.all("resume");
    let kept = resumes.iter().map(|resume| resume.number("kept_ms"));
    assert!(kept.fold(0.0, f64::max) > 0.0);
    forkmon.finish();
}

#[test]
fn with_off_a_script_begins_anew_and_with_on_any_program_goes_on() {
    let bash = require_guest!("bash");
    let mut project = Project::new("bash-off").file("job.sh", &steps(&WORDS));
    let launch = project.launch(&[bash.as_str(), "job.sh"]);
    let mut forkmon = launch.option("--within-file=off").start();
    forkmon.wait_exit();
    project.save("job.sh", &with(6, &["changed"]), Save::InPlace);
    assert!(said_again(&mut forkmon).starts_with("early\none\n"));
    forkmon.finish();

    let python = require_guest!("python3");
    let script = "print('early', flush=True)\nn = 0\nfor line in open('data'):\n    \
                  for i in range(300): n = (n + i) % 1009\n    print(line, n, flush=True)\n";
    let mut project = Project::new("python-on")
        .file("read.py", script)
        .file("data", &numbers(3000, ""));
    let argv = [python.as_str(), "read.py"];
    let mut forkmon = project.launch(&argv).option("--within-file=on").start();
    forkmon.wait_exit();
    for (changed, save) in [(2900, Save::InPlace), (2901, Save::ByRename)] {
        project.save("data", &numbers(changed, "changed"), save);
        assert!(forkmon.wait_resume().from.is_some());
        let again = forkmon.wait_exit().output;
        assert!(project.fresh(&argv).stdout.ends_with(&again), "{again}");
        assert!(!again.contains("number 1000\n"), "{}", again.len());
    }
    forkmon.finish();
}

/// A file that was open at the checkpoint, and not read before it, was not known to be
/// read later: after a save by rename the resumed guest read the old one.
#[test]
fn a_file_that_is_open_and_not_read_yet_is_the_new_one() {
    let lua = require_guest!("lua5.4");
    // No time is earned between the checkpoint before the other file and the read.
    let main = "\
local function work() local x = 1; for i = 1, 4000000 do x = (x * 16807 + i) % 2147483647 end end
print('early'); work(); local late = io.open('late.txt'); work()
io.open('other.txt'); print(late:read('a'))
";
    let project = Project::new("open-unread")
        .file("late.txt", "one\n")
        .file("other.txt", "\n")
        .file("main.lua", main);
    Scenario::new(project, &[lua.as_str(), "main.lua"], "late.txt").check_saves(&[
        ("two\n", Save::ByRename),
        ("three\n", Save::InPlace),
        ("four\n", Save::LikeVim),
        ("five\n", Save::DeleteAndCreate),
    ]);
}

/// Each of these reads of the file was not seen, and an edit of what was read so was none.

#[test]
fn what_a_shell_or_its_children_read_unseen_counts() {
    let bash = require_guest!("bash");
    require_guest!("dash");
    let perl = require_guest!("perl");
    let lines = |changed: usize| {
        (1..=40).fold(String::new(), |text, n| {
            let word = if n == changed { "changed" } else { "word" };
            text + &format!("{word} {n:0100}\n")
        })
    };
    let by_perl = format!(
        "{{ read -r a <&3; {} -e 'open F, \"<&=3\"; print <F>'; }} 3<data",
        perl.as_str()
    );
    for (body, changed) in [
        (
            "exec 3<data; read -r a <&3; read -r -u3 b; read -r -u3 b; exec 3<&-; echo \"$b\"",
            3,
        ),
        (
            "{ for i in {1..30}; do read -r a; done; dash -c 'read x; echo $x'; } < data",
            31,
        ),
        (by_perl.as_str(), 20),
        ("{ read -r h; read -r -N 4 c; echo \"$c\"; } < data", 2),
        (
            "exec < data; read -r h; read -r -N 4 c; echo \"$c\"; exit 0",
            2,
        ),
        ("exec < data; read -r h; echo \"h=$h\"; exec cat", 25),
        (
            "while read -r a; do case $a in *0009) echo \"$a\";; esac; done < data; read -r x; echo \"$x\"",
            9,
        ),
    ] {
        let script = format!("echo early\nfor i in {{1..20000}}; do :; done\n{body}\n");
        let mut project = Project::new("unseen")
            .file("read.sh", &script)
            .file("data", &lines(0));
        let argv = [bash.as_str(), "-c", ". ./read.sh"];
        let mut forkmon = project.watch(&argv);
        forkmon.wait_exit();
        for (changed, save) in [(changed, Save::InPlace), (0, Save::ByRename)] {
            project.save("data", &lines(changed), save);
            assert!(forkmon.wait_resume().from.is_some(), "{body}");
            let again = forkmon.wait_exit().output;
            let fresh = project.fresh(&argv).stdout;
            assert!(fresh.ends_with(&again), "{body}: {again:?} of {fresh:?}");
            assert!(!again.is_empty(), "{body}");
        }
        forkmon.finish();
    }
}

/// What the shell before it had read of its input was not known, and counted as nothing.
#[test]
fn input_that_was_read_before_anything_was_seen_counts_as_a_whole() {
    let mawk = require_guest!("mawk");
    require_guest!("dash");
    let script = "{ if (NR == 1) while ((getline l < \"map\") > 0) n++; print n, $0;\n\
                  for (i = 0; i < 1000; i++) z = (z + i) % 1009 }\n";
    let mut project = Project::new("input-before")
        .file("read.awk", script)
        .file("map", "a\nb\n")
        .file("data", &numbers(3000, ""));
    let command = format!("exec {} -f read.awk < data", mawk.as_str());
    let argv = ["/bin/sh", "-c", &command];
    let mut forkmon = project.watch(&argv);
    forkmon.wait_exit();
    for (changed, save) in [
        (3, Save::InPlace),
        (4, Save::ByRename),
        (2900, Save::InPlace),
    ] {
        project.save("data", &numbers(changed, "changed"), save);
        forkmon.wait_resume();
        let again = forkmon.wait_exit().output;
        let fresh = project.fresh(&argv).stdout;
        assert!(fresh.ends_with(&again), "{changed}");
        assert!(again.contains("changed"), "{changed}");
    }
    forkmon.finish();
}
