//! What 32 checkpoints add to the memory of a 200 MB guest.

use std::fs;

use anyhow::Context as _;

use crate::Bench;
use crate::document::Table;
use crate::process::Running;
use crate::project::{Project, field};
use crate::statistics::{number, ratio};

const CHECKPOINTS: usize = 32;
/// More than that, since a machine that is busy may make one not worth its cost.
const TOUCHES: usize = 40;
const MEGABYTES: &str = "200";

/// Memory of a process that is of no file, in kB (proc_pid_smaps(5),
/// proc_pid_status(5)).
#[derive(Default)]
struct Memory {
    proportional: f64,
    page_tables: f64,
}

impl Memory {
    fn of(process: u32) -> anyhow::Result<Self> {
        Ok(Self {
            proportional: kilobytes(&format!("/proc/{process}/smaps_rollup"), "Pss_Anon:")?,
            page_tables: kilobytes(&format!("/proc/{process}/status"), "VmPTE:")?,
        })
    }
}

fn kilobytes(file: &str, name: &str) -> anyhow::Result<f64> {
    let text = fs::read_to_string(file).with_context(|| format!("cannot read {file}"))?;
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let word = line.and_then(|line| line.split_whitespace().next());
    word.and_then(|word| word.parse().ok())
        .with_context(|| format!("{file} tells no {name}"))
}

/// The frozen images: forkmon's children that are stopped by it, but the guest.
fn images(forkmon: u32, guest: u32) -> anyhow::Result<Vec<u32>> {
    let mut images = Vec::new();
    for task in fs::read_dir(format!("/proc/{forkmon}/task"))? {
        let children = fs::read_to_string(task?.path().join("children"))?;
        for child in children.split_whitespace() {
            let child: u32 = child.parse()?;
            let state = fs::read_to_string(format!("/proc/{child}/status"))?;
            if child != guest && state.contains("State:\tt") {
                images.push(child);
            }
        }
    }
    Ok(images)
}

pub fn measure(bench: &Bench) -> anyhow::Result<String> {
    let mut table = Table::new(&[
        "the guest writes between two checkpoints",
        "added ÷ guest",
        "added, MB",
        "each checkpoint, MB",
        "of which page tables, MB",
        "the guest alone, MB",
    ]);
    for (name, written) in [("nothing", "0"), ("2 MB (1 %), new places", "2")] {
        let project = Project::new(bench, &format!("memory-{written}"))?;
        for n in 0..TOUCHES {
            project.write(&format!("part{n}"), "")?;
        }
        let limits = [
            "--budget",
            "1000",
            "--max-checkpoints",
            "32",
            "--max-memory",
            "16GiB",
        ];
        let mut forkmon = project.forkmon(bench, &limits);
        forkmon
            .arg(bench.compiled("memory"))
            .args([MEGABYTES, "small"]);
        forkmon.args([&TOUCHES.to_string(), "touch", "60", written]);
        let running = Running::start(&mut forkmon)?;
        running.heard("done")?;
        let start = project.events("start")?;
        let guest = field(start.first().context("forkmon told of no start")?, "pid")? as u32;
        let images = images(running.pid(), guest)?;
        anyhow::ensure!(
            images.len() == CHECKPOINTS,
            "{} checkpoints are there instead of {CHECKPOINTS}",
            images.len()
        );
        // What is shared counts in parts for each who shares it, so only the sum
        // of all less what the guest alone would have is what was added. Files
        // are in the page cache once, however many map them.
        let alone = kilobytes(&format!("/proc/{guest}/status"), "RssAnon:")?;
        let mut all = Memory::of(guest)?;
        let mut tables = 0.0;
        for image in images {
            let memory = Memory::of(image)?;
            all.proportional += memory.proportional;
            tables += memory.page_tables;
        }
        let added = all.proportional - alone + tables;
        table.row([
            name.to_owned(),
            ratio(added, alone),
            number(added / 1e3),
            number(added / 1e3 / CHECKPOINTS as f64),
            number(tables / 1e3 / CHECKPOINTS as f64),
            number(alone / 1e3),
        ]);
    }
    Ok(table.into_text())
}
