//! The cost of a checkpoint, against a bare fork of as large a process.

use crate::Bench;
use crate::document::Table;
use crate::process::{Running, command, complete};
use crate::project::{Project, field};
use crate::statistics::{Samples, number, ratio};

/// What a checkpoint is to cost at most, for a fork of so many milliseconds.
fn aim(fork: f64) -> f64 {
    1.5 * fork + 1.0
}

pub fn measure(bench: &Bench) -> anyhow::Result<String> {
    let mut table = Table::new(&[
        "resident",
        "checkpoint ÷ fork",
        "checkpoint − fork, ms",
        "checkpoint, ms",
        "fork, ms",
        "aim, ms",
        "met",
    ]);
    let sizes: &[u64] = if bench.options.quick {
        &[1, 64]
    } else {
        &[1, 4, 16, 64, 256, 1024]
    };
    for pages in ["small", "huge"] {
        for &megabytes in sizes {
            if pages == "huge" && megabytes < 16 {
                continue;
            }
            let (checkpoint, fork) = compare(bench, megabytes, pages)?;
            let (cost, bare) = (checkpoint.median(), fork.median());
            let name = if pages == "huge" {
                format!("{megabytes} MB, huge pages")
            } else {
                format!("{megabytes} MB")
            };
            table.row([
                name,
                ratio(cost, bare),
                number(cost - bare),
                checkpoint.to_string(),
                fork.to_string(),
                number(aim(bare)),
                if cost <= aim(bare) { "yes" } else { "**no**" }.to_owned(),
            ]);
        }
    }
    Ok(table.into_text())
}

fn compare(bench: &Bench, megabytes: u64, pages: &str) -> anyhow::Result<(Samples, Samples)> {
    let project = Project::new(bench, &format!("checkpoint-{megabytes}-{pages}"))?;
    let times = if megabytes > 256 { 8 } else { 16 };
    for n in 0..times {
        project.write(&format!("part{n}"), "")?;
    }
    let times = times.to_string();
    let size = megabytes.to_string();
    // Long enough that a checkpoint pays.
    let pause = (20 + megabytes / 2).to_string();
    let (mut checkpoints, mut forks) = (Samples::default(), Samples::default());
    for _ in 0..bench.repetitions(3, 1) {
        let mut bare = command(bench.compiled("memory"));
        bare.args([&size, pages, &times, "fork", &pause])
            .current_dir(project.folder());
        for line in complete(&mut bare)?.lines() {
            forks.add(line.parse::<f64>()? / 1e6);
        }
        let mut forkmon = project.forkmon(bench, &["--budget", "1000", "--max-checkpoints", "64"]);
        forkmon
            .arg(bench.compiled("memory"))
            .args([&size, pages, &times, "touch", &pause, "0"]);
        let running = Running::start(&mut forkmon)?;
        running.heard("done")?;
        for checkpoint in project.events("checkpoint")? {
            checkpoints.add(field(&checkpoint, "cost_ms")?);
        }
    }
    Ok((checkpoints, forks))
}
