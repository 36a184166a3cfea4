//! How the latency of a resume grows with the guest's threads and open files.

use crate::Bench;
use crate::document::Table;
use crate::process::{Running, command, complete};
use crate::project::{Project, field};
use crate::statistics::{Samples, ratio};

/// Threads and open files of the guests.
const GUESTS: [(u32, u32); 5] = [(1, 10), (10, 10), (100, 10), (1000, 10), (1, 1000)];

pub fn measure(bench: &Bench) -> anyhow::Result<String> {
    let mut table = Table::new(&[
        "threads",
        "files",
        "`latency_ms` ÷ bare calls",
        "`latency_ms`",
        "bare calls, ms",
        "edit to new output, ms",
        "checkpoint, ms",
    ]);
    for (threads, files) in GUESTS {
        let guest = bench.compiled("threads");
        let numbers = [threads.to_string(), files.to_string()];
        let project = Project::new(bench, &format!("threads-{threads}-{files}"))?;
        let mut bare = Samples::default();
        let mut calls = command(&guest);
        calls
            .args(&numbers)
            .arg(bench.repetitions(31, 5).to_string())
            .current_dir(project.folder());
        for line in complete(&mut calls)?.lines() {
            bare.add(line.parse::<f64>()? / 1e6);
        }
        project.write("late", "begun\n")?;
        let mut forkmon = project.forkmon(bench, &["--delay", "0ms"]);
        forkmon.arg(&guest).args(&numbers);
        let running = Running::start(&mut forkmon)?;
        running.heard("begun")?;
        let mut outputs = Samples::default();
        for round in 0..bench.repetitions(31, 5) {
            let line = format!("edit {round}");
            let before = project.save("late", &format!("{line}\n"))?;
            outputs.add_time(running.heard(&line)?.duration_since(before));
        }
        drop(running);
        let mut latencies = Samples::default();
        for resume in project.events("resume")? {
            anyhow::ensure!(!resume["from"].is_null(), "forkmon restarted: {resume}");
            latencies.add(field(&resume, "latency_ms")?);
        }
        let mut costs = Samples::default();
        for checkpoint in project.events("checkpoint")? {
            costs.add(field(&checkpoint, "cost_ms")?);
        }
        table.row([
            threads.to_string(),
            files.to_string(),
            ratio(latencies.median(), bare.median()),
            latencies.to_string(),
            bare.to_string(),
            outputs.to_string(),
            costs.to_string(),
        ]);
    }
    Ok(table.into_text())
}
