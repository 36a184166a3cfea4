//! How editors and people save files.

use std::fs;
use std::io::Write;
use std::process::Command;
use std::time::Duration;

use crate::harness::{Forkmon, Project, Save, run_tool};
use crate::require_guest;

const BODY: &str = "print 'late ', slurp('late.txt'), \"\\n\";";

/// Waits for the one resume after a save, and the output.
fn resumed_with(forkmon: &mut Forkmon, output: &str) {
    let resume = forkmon.wait_resume();
    assert!(resume.from.is_some(), "{resume:?}");
    assert_eq!(forkmon.wait_exit().output, output);
}

#[test]
fn every_way_of_saving_resumes_once() {
    let perl = require_guest!("perl");
    let mut project = Project::new("saves").file("late.txt", "zero\n");
    let guest = project.perl(BODY);
    let mut forkmon = project.watch(&[perl.as_str(), &guest]);
    forkmon.wait_exit();
    let ways = [
        Save::InPlace,
        Save::ByRename,
        Save::LikeVim,
        Save::DeleteAndCreate,
    ];
    for (number, how) in ways.into_iter().cycle().take(12).enumerate() {
        project.save("late.txt", &format!("save {number}\n"), how);
        resumed_with(&mut forkmon, &format!("late save {number}\n"));
    }
    assert_eq!(forkmon.all("resume").len(), 12);
    forkmon.finish();
}

#[test]
fn a_file_that_is_being_written_is_left_alone_until_it_is_closed() {
    let perl = require_guest!("perl");
    let mut project = Project::new("slow-save").file("late.txt", "one\n");
    let guest = project.perl(BODY);
    let mut forkmon = project.watch(&[perl.as_str(), &guest]);
    forkmon.wait_exit();
    for text in ["the first half and the second half\n", "other halves\n"] {
        let mut file = fs::File::create(project.path("late.txt")).unwrap();
        // The file is empty for a while, then half of it is there.
        forkmon.expect_quiet(Duration::from_millis(60));
        file.write_all(&text.as_bytes()[..5]).unwrap();
        forkmon.expect_quiet(Duration::from_millis(60));
        file.write_all(&text.as_bytes()[5..]).unwrap();
        drop(file);
        project.note("late.txt", text);
        resumed_with(&mut forkmon, &format!("late {text}"));
    }
    assert_eq!(forkmon.all("resume").len(), 2);
    forkmon.finish();
}

#[test]
fn a_file_that_is_written_and_never_closed_is_acted_upon_all_the_same() {
    let perl = require_guest!("perl");
    let project = Project::new("never-closed").file("late.txt", "one\n");
    let guest = project.perl(BODY);
    let mut forkmon = project.watch(&[perl.as_str(), &guest]);
    forkmon.wait_exit();
    let mut file = fs::File::options()
        .write(true)
        .open(project.path("late.txt"))
        .unwrap();
    file.write_all(b"two\n").unwrap();
    resumed_with(&mut forkmon, "late two\n");
    drop(file);
    forkmon.finish();
}

#[test]
fn vim_itself_saves_in_all_of_its_ways() {
    let perl = require_guest!("perl");
    let vim = require_guest!("vim");
    let mut project = Project::new("vim").file("late.txt", "word 0\n");
    let guest = project.perl(BODY);
    let mut forkmon = project.watch(&[perl.as_str(), &guest]);
    forkmon.wait_exit();
    let ways = [
        "backupcopy=yes",
        "backupcopy=no",
        "nowritebackup",
        "backup",
        "backupcopy=auto",
    ];
    for (number, way) in ways.iter().enumerate() {
        let text = format!("word {}\n", number + 1);
        let mut edit = Command::new(&vim);
        edit.args(["-es", "-u", "NONE", "-N", "-i", "NONE"])
            .args(["--cmd", &format!("set {way} swapfile")])
            .args([
                "-c",
                &format!("%s/word .*/word {}/", number + 1),
                "-c",
                "wq",
            ])
            .arg(project.path("late.txt"))
            .env("HOME", project.home());
        run_tool(&mut edit);
        project.note("late.txt", &text);
        resumed_with(&mut forkmon, &format!("late {text}"));
    }
    assert_eq!(forkmon.all("resume").len(), ways.len());
    forkmon.finish();
}

#[test]
fn sed_saves_in_place() {
    let perl = require_guest!("perl");
    let sed = require_guest!("sed");
    let mut project = Project::new("sed").file("late.txt", "one\n");
    let guest = project.perl(BODY);
    let mut forkmon = project.watch(&[perl.as_str(), &guest]);
    forkmon.wait_exit();
    run_tool(
        Command::new(&sed)
            .args(["-i", "s/one/two/"])
            .arg(project.path("late.txt")),
    );
    project.note("late.txt", "two\n");
    resumed_with(&mut forkmon, "late two\n");
    forkmon.finish();
}

#[test]
fn a_file_that_is_gone_for_a_moment_is_no_deleted_file() {
    let perl = require_guest!("perl");
    let mut project = Project::new("moment").file("late.txt", "one\n");
    let guest = project.perl(BODY);
    let socket = project.beside().join("control");
    let argv = [perl.as_str(), &guest];
    let launch = project.launch(&argv).option("--control").option(&socket);
    let mut forkmon = launch.start();
    forkmon.wait_exit();
    // What it has read is hashed.
    forkmon.settle(&socket);
    let path = project.path("late.txt");
    let aside = project.path(".git/aside");
    // The very same file, away and back.
    fs::rename(&path, &aside).unwrap();
    fs::rename(&aside, &path).unwrap();
    assert_eq!(forkmon.wait_event("unchanged").names(), ["late.txt"]);
    project.save("late.txt", "two\n", Save::DeleteAndCreate);
    assert_eq!(
        forkmon.wait_event("change").kind_of("late.txt").as_deref(),
        Some("modified")
    );
    resumed_with(&mut forkmon, "late two\n");
    assert_eq!(forkmon.all("resume").len(), 1);
    forkmon.finish();
}

#[test]
fn a_burst_of_two_hundred_files_resumes_from_the_earliest() {
    let perl = require_guest!("perl");
    let mut project = Project::new("burst");
    for number in 0..200 {
        project = project.file(&format!("src/{number:03}.txt"), "old\n");
    }
    let guest = project.perl(
        "for my $n (0 .. 199) { printf(\"%03d %s\\n\", $n, slurp(sprintf('src/%03d.txt', $n))) }",
    );
    let argv = [perl.as_str(), &guest];
    // On a busy machine, the default quiet time may pass in the middle.
    let mut forkmon = project.launch(&argv).option("--delay=200ms").start();
    forkmon.wait_exit();
    for round in ["new", "newer"] {
        project.replace_all(
            (0..200)
                .rev()
                .map(|number| (format!("src/{number:03}.txt"), format!("{round}\n"))),
        );
        // On a busy machine even this may take longer than what a burst is
        // waited for: then it comes in a few pieces, not in two hundred.
        let fresh = project.fresh(&argv).stdout;
        let before = forkmon.all("resume").len();
        forkmon.wait_output(&fresh[fresh.find("000 ").expect("it prints all")..]);
        forkmon.wait_exit();
        let resumes = &forkmon.all("resume")[before..];
        assert!(resumes.len() <= 4, "{} resumes", resumes.len());
        let first = resumes[0].as_resume();
        assert!(first.from.is_some(), "{first:?}");
    }
    forkmon.finish();
}

/// The same with the default quiet time: however many resumes it takes, the
/// last output is that of the whole burst.
#[test]
fn a_slow_burst_ends_with_the_right_output() {
    let perl = require_guest!("perl");
    let mut project = Project::new("slow-burst");
    for number in 0..50 {
        project = project.file(&format!("src/{number:03}.txt"), "old\n");
    }
    let guest = project.perl(
        "for my $n (0 .. 49) { printf(\"%03d %s\\n\", $n, slurp(sprintf('src/%03d.txt', $n))) } \
         print 'sum ', join(' ', map { slurp(sprintf('src/%03d.txt', $_)) } 0 .. 49), \"\\n\";",
    );
    let argv = [perl.as_str(), &guest];
    let mut forkmon = project.watch(&argv);
    forkmon.wait_exit();
    for number in 0..50 {
        project.save(
            &format!("src/{number:03}.txt"),
            &format!("new{number}\n"),
            Save::InPlace,
        );
        if number == 0 {
            // The rest is saved while the resumed guest runs, or after it.
            forkmon.wait_event("resume");
        }
    }
    let fresh = project.fresh(&argv).stdout;
    let sum = fresh.lines().last().unwrap().to_owned() + "\n";
    forkmon.wait_output(&sum);
    forkmon.finish();
}
