//! How many system calls of its own forkmon makes for a stop of the guest:
//! counted by strace on the thread that traces, and that only.

use std::fs;

use crate::Bench;
use crate::document::Table;
use crate::process::{command, complete};
use crate::project::Project;
use crate::statistics::number;

/// What strace saw of forkmon.
pub struct Counted {
    /// System calls of the tracing thread, from its start to its end.
    pub calls: usize,
    /// Stops before a system call of the guest that it was told of.
    pub stops: usize,
}

/// Runs a guest to its end under forkmon, and forkmon under strace.
pub fn count(
    bench: &Bench,
    project: &Project,
    options: &[&str],
    words: &[String],
) -> anyhow::Result<Counted> {
    let log = bench.scratch().join("strace.log");
    complete(
        command("strace")
            .arg("-o")
            .arg(&log)
            .arg(&bench.options.forkmon)
            .args(["--once", "--quiet"])
            .args(options)
            .arg("--")
            .args(words)
            .current_dir(project.folder()),
    )?;
    let log = fs::read_to_string(log)?;
    let calls = log.lines().filter(|line| line.contains('(')).count();
    let stops = log
        .lines()
        .filter(|line| line.contains("PTRACE_EVENT_SECCOMP"))
        .count();
    Ok(Counted { calls, stops })
}

pub fn measure(bench: &Bench) -> anyhow::Result<String> {
    let project = Project::new(bench, "calls")?;
    project.write("seen", "")?;
    let mut table = Table::new(&["access", "forkmon's calls"]);
    let inside = project.path("seen");
    for (name, path) in [
        ("outside the scope, absolute path", "/usr/lib/os-release"),
        ("outside the scope, missing", "/usr/lib/no/such/file"),
        ("in the scope, seen before, relative path", "seen"),
        (
            "in the scope, seen before, absolute path",
            &inside.to_string_lossy(),
        ),
    ] {
        let accesses = bench.compiled("accesses").to_string_lossy().into_owned();
        let words = |number: &str| vec![accesses.clone(), number.to_owned(), path.to_owned()];
        // What the start and the end take falls out of the difference.
        let few = count(bench, &project, &[], &words("100"))?;
        let many = count(bench, &project, &[], &words("1100"))?;
        table.row([
            name.to_owned(),
            number((many.calls - few.calls) as f64 / (many.stops - few.stops) as f64),
        ]);
    }
    Ok(table.into_text())
}
