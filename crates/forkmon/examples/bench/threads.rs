//! How the latency of a resume grows with the guest's threads.

use crate::Bench;
use crate::document::Table;
use crate::process::Running;
use crate::project::{Project, field};
use crate::statistics::Samples;

pub fn measure(bench: &Bench) -> anyhow::Result<String> {
    let mut table = Table::new(&[
        "threads",
        "`latency_ms`",
        "edit to new output, ms",
        "checkpoint, ms",
    ]);
    for threads in ["1", "10", "100"] {
        let project = Project::new(bench, &format!("threads-{threads}"))?;
        project.write("late", "begun\n")?;
        let mut forkmon = project.forkmon(bench, &["--delay", "0ms"]);
        forkmon.arg(bench.compiled("threads")).arg(threads);
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
            threads.to_owned(),
            latencies.to_string(),
            outputs.to_string(),
            costs.to_string(),
        ]);
    }
    Ok(table.into_text())
}
