//! What people are told of an edit, in words that are about what they did.

use crate::harness::{Project, Save, Terminal};
use crate::require_guest;

/// The folder that the program had listed was called what was changed, the root by its
/// absolute path.
#[test]
fn a_new_name_is_what_was_created() {
    let perl = require_guest!("perl");
    let mut project = Project::new("names").file("parts/one.txt", "1\n");
    let guest = project.perl(
        "work(0.1); opendir(my $d, 'parts'); my @n = sort grep { !/^\\./ } readdir $d; \
         opendir($d, '.'); push @n, sort grep { !/^\\./ } readdir $d; print \"@n\\n\";",
    );
    let mut forkmon = project.watch(&[perl.as_str(), &guest]);
    assert_eq!(forkmon.wait_exit().output, "early 1\none.txt parts\n");
    project.create("parts/two.txt", "2\n");
    assert!(forkmon.wait_resume().from.is_some());
    assert_eq!(forkmon.wait_exit().output, "one.txt two.txt parts\n");
    project.create("three.txt", "3\n");
    assert!(forkmon.wait_resume().from.is_some());
    assert_eq!(
        forkmon.wait_exit().output,
        "one.txt two.txt parts three.txt\n"
    );
    project.remove("parts/one.txt");
    assert!(forkmon.wait_resume().from.is_some());
    assert_eq!(forkmon.wait_exit().output, "two.txt parts three.txt\n");
    let said = forkmon.messages();
    for expected in [
        "created parts/two.txt; resumed from before its folder, ",
        "created three.txt; resumed from before ",
        "removed parts/one.txt; resumed from before its folder, ",
    ] {
        assert!(said.contains(expected), "{said}");
    }
    let root = project.root();
    assert!(
        !said.contains(root.to_str().expect("it is UTF-8")),
        "{said}"
    );
    forkmon.finish();
}

/// What the program had made and somebody has changed was called created. When such a
/// save is an edit is what docs/limits.md says.
#[test]
fn a_save_over_what_the_program_wrote_is_an_edit_if_it_had_looked_there() {
    let perl = require_guest!("perl");
    let mut project = Project::new("own-output").file("late.txt", "one\n");
    let guest = project.perl(
        "work(0.1); my $late = slurp('late.txt'); spew('cut.txt', $late); \
         open(my $log, '>>', 'log.txt'); print $log $late; close $log; print \"$late\\n\";",
    );
    let mut forkmon = project.watch(&[perl.as_str(), &guest]);
    assert_eq!(forkmon.wait_exit().output, "early 1\none\n");
    let add = |name: &str| {
        let file = std::fs::File::options()
            .append(true)
            .open(project.path(name));
        let written = file.and_then(|mut file| std::io::Write::write_all(&mut file, b"mine\n"));
        written.expect("it is there");
    };
    add("cut.txt");
    forkmon.expect_quiet(std::time::Duration::from_millis(100));
    add("log.txt");
    forkmon.wait_resume();
    assert_eq!(forkmon.wait_exit().code, Some(0));
    let said = forkmon.messages();
    assert!(said.contains("changed log.txt; re"), "{said}");
    assert!(!said.contains("changed cut.txt"), "{said}");
    let log = std::fs::read_to_string(project.path("log.txt")).expect("it is there");
    assert_eq!(log, "onemine\none");
    project.save("late.txt", "two\n", Save::InPlace);
    forkmon.wait_resume();
    assert_eq!(forkmon.wait_exit().code, Some(0));
    let cut = std::fs::read_to_string(project.path("cut.txt")).expect("it is there");
    assert_eq!(cut, "two", "as a fresh run leaves it");
    forkmon.finish();
}

/// `restarted: no checkpoint before it` left it open why there was none.
#[test]
fn a_restart_says_why_there_was_no_checkpoint() {
    let sh = require_guest!("sh");
    let mut project = Project::new("why").file("late.txt", "one\n");
    let script = project.beside().join("script.sh");
    std::fs::write(&script, "(cat late.txt; sleep 0.01)\necho end\n").expect("it can be written");
    let script = script.to_str().expect("it is UTF-8");
    let mut forkmon = project.watch(&[sh.as_str(), script]);
    assert_eq!(forkmon.wait_exit().output, "one\nend\n");
    project.save("late.txt", "two\n", Save::InPlace);
    assert_eq!(forkmon.wait_resume().from, None);
    assert_eq!(forkmon.wait_exit().output, "two\nend\n");
    forkmon.wait_messages(
        "changed late.txt; restarted from the beginning: no checkpoint is kept from before the \
         program first looked at it (the last try: the guest has a child process)\n",
        1,
    );
    forkmon.finish();
}

/// What had been renamed away was said to be left as it is.
#[test]
fn what_lies_there_no_more_is_not_said_to_be_left() {
    let perl = require_guest!("perl");
    let mut project = Project::new("gone")
        .file("late.txt", "one\n")
        .file("old.txt", "last week's\n");
    let guest = project.perl(
        "work(0.1); print slurp('late.txt'); open(my $old, '>>', 'old.txt') or die; \
         print $old \"more\\n\"; close($old); print \"end\\n\";",
    );
    let mut forkmon = project.watch(&[perl.as_str(), &guest]);
    forkmon.wait_exit();
    project.remove("old.txt");
    project.save("late.txt", "two\n", Save::ByRename);
    forkmon.wait_resume();
    forkmon.wait_exit();
    forkmon.wait_messages(
        "did not put old.txt back: somebody else has renamed or removed it\n",
        1,
    );
    forkmon.finish();
}

/// A folder that was mistyped was watched for ever, without a word.
#[test]
fn what_is_to_be_watched_and_is_not_there_is_told_of() {
    let sh = require_guest!("sh");
    let project = Project::new("missing")
        .file("late.txt", "one\n")
        .folder("there");
    let mut forkmon = project
        .launch(&[sh.as_str(), "-c", "cat late.txt"])
        .option("--watch=there")
        .option("--watch=no-such-folder/*.txt")
        .start();
    forkmon.wait_exit();
    assert_eq!(forkmon.warnings(), ["watch-missing"]);
    forkmon.wait_messages("warning: no-such-folder of --watch is not there", 1);
    forkmon.finish();
}

const COLUMNS: usize = 60;

/// What stands on a terminal after all this, as far as this is understood: text,
/// carriage returns, line feeds, and the erasure of a line's end. The last column is
/// left only when one more character comes, as on a VT100.
fn screen(output: &str) -> Vec<String> {
    let mut rows = vec![vec![' '; COLUMNS]];
    let mut column = 0;
    let mut rest = output.chars();
    while let Some(character) = rest.next() {
        match character {
            '\r' => column = 0,
            '\n' => rows.push(vec![' '; COLUMNS]),
            '\x1b' => {
                assert_eq!(rest.by_ref().take(2).collect::<String>(), "[K");
                rows.last_mut().expect("there is one")[column..].fill(' ');
            }
            character => {
                if column == COLUMNS {
                    rows.push(vec![' '; COLUMNS]);
                    column = 0;
                }
                rows.last_mut().expect("there is one")[column] = character;
                column += 1;
            }
        }
    }
    let text = |row: &Vec<char>| row.iter().collect::<String>().trim_end().to_owned();
    rows.iter().map(text).collect()
}

/// A message stood behind what the program had written last, if that was no whole line.
#[test]
fn a_message_has_a_line_of_its_own_on_a_terminal() {
    let sh = require_guest!("sh");
    require_guest!("setsid");
    let full = "x".repeat(COLUMNS);
    for (last, rows) in [
        ("", &[][..]),
        ("a whole line\\n", &["a whole line"]),
        ("half a line", &["half a line"]),
        (&full, &[&*full]),
    ] {
        let project = Project::new("own-line").file("late.txt", "one\n");
        let columns = u16::try_from(COLUMNS).expect("a terminal is not so wide");
        let mut forkmon = project
            .launch(&[sh.as_str(), "-c", &format!("cat late.txt; printf '{last}'")])
            .on_terminal(Terminal::new(24, columns))
            .env("TERM", "xterm")
            .option("--color=never")
            .start();
        let shown = forkmon.wait_output("waiting for an edit\r\n");
        let expected = [
            &["one"],
            rows,
            &["[forkmon] finished; waiting for an edit", ""],
        ]
        .concat();
        assert_eq!(screen(&shown), expected, "{shown:?}");
        forkmon.finish();
    }
}
