//! From an edit to the new output: forkmon, `entr -r` and a plain restart, each
//! on its own copy of the same project, edited in turns.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::Bench;
use crate::document::Table;
use crate::process::{Running, command};
use crate::project::{Project, field};
use crate::statistics::{Samples, number, ratio};

/// A language, and how much a guest in it holds besides.
struct Guest {
    name: &'static str,
    program: &'static str,
    extension: &'static str,
    /// Prints its argument.
    print: fn(&str) -> String,
    /// About so many megabytes make the guest 64 MB large.
    large: &'static str,
}

const GUESTS: [Guest; 3] = [
    Guest {
        name: "Lua",
        program: "lua5.4",
        extension: "lua",
        print: |line| format!("print(\"{line}\")\n"),
        large: "40",
    },
    Guest {
        name: "Python",
        program: "/usr/bin/python3",
        extension: "py",
        print: |line| format!("print(\"{line}\", flush=True)\n"),
        large: "47",
    },
    Guest {
        name: "Node.js",
        program: "node",
        extension: "js",
        print: |line| format!("console.log(\"{line}\");\n"),
        large: "5",
    },
];

/// Something that starts a guest again after an edit.
#[derive(Copy, Clone, Eq, PartialEq)]
enum Way {
    Forkmon,
    ForkmonAtOnce,
    Entr,
    Restart,
}

const WAYS: [Way; 4] = [Way::Forkmon, Way::ForkmonAtOnce, Way::Entr, Way::Restart];

/// One way at work on its project.
struct Contender {
    way: Way,
    project: Project,
    running: Option<Running>,
    samples: Samples,
}

impl Guest {
    fn late(&self) -> String {
        format!("late.{}", self.extension)
    }

    fn command(&self, megabytes: &str) -> Vec<String> {
        let main = format!("main.{}", self.extension);
        vec![self.program.to_owned(), main, megabytes.to_owned()]
    }

    fn lay_out(&self, bench: &Bench, name: &str) -> anyhow::Result<Project> {
        let project = Project::new(bench, name)?;
        let source = |stem: &str| {
            bench
                .options
                .guests
                .join(format!("{stem}.{}", self.extension))
        };
        fs::copy(
            source("main"),
            project.path(&format!("main.{}", self.extension)),
        )?;
        for n in 0..10 {
            fs::copy(
                source("part"),
                project.path(&format!("part{n}.{}", self.extension)),
            )?;
        }
        project.write(&self.late(), &(self.print)("begun"))?;
        Ok(project)
    }
}

impl Contender {
    fn start(bench: &Bench, way: Way, guest: &Guest, megabytes: &str) -> anyhow::Result<Self> {
        let name = format!("edit-{}-{megabytes}-{}", guest.extension, way as u8);
        let project = guest.lay_out(bench, &name)?;
        let running = Running::start(&mut start(bench, way, &project, guest, megabytes)?)?;
        running.heard("begun")?;
        Ok(Self {
            way,
            project,
            running: Some(running),
            samples: Samples::default(),
        })
    }

    /// Edits the late file and waits for its line.
    fn edit(
        &mut self,
        bench: &Bench,
        guest: &Guest,
        megabytes: &str,
        round: usize,
    ) -> anyhow::Result<()> {
        let line = format!("edit {round}");
        let before = self.project.save(&guest.late(), &(guest.print)(&line))?;
        if self.way == Way::Restart {
            if let Some(running) = self.running.take() {
                running.kill()?;
            }
            let mut again = start(bench, self.way, &self.project, guest, megabytes)?;
            self.running = Some(Running::start(&mut again)?);
        }
        if let Some(running) = &self.running {
            self.samples
                .add_time(running.heard(&line)?.duration_since(before));
        }
        Ok(())
    }
}

fn start(
    bench: &Bench,
    way: Way,
    project: &Project,
    guest: &Guest,
    megabytes: &str,
) -> anyhow::Result<Command> {
    let words = guest.command(megabytes);
    Ok(match way {
        Way::Forkmon => {
            let mut forkmon = project.forkmon(bench, &[]);
            forkmon.args(words);
            forkmon
        }
        Way::ForkmonAtOnce => {
            let mut forkmon = project.forkmon(bench, &["--delay", "0ms"]);
            forkmon.args(words);
            forkmon
        }
        Way::Entr => {
            let mut entr = command("entr");
            entr.args(["-n", "-r"])
                .args(words)
                .current_dir(project.folder());
            entr.stdin(Stdio::from(fs::File::open(watched(project)?)?));
            entr
        }
        Way::Restart => {
            let mut plain = command(&words[0]);
            plain.args(&words[1..]).current_dir(project.folder());
            plain
        }
    })
}

/// The list of files that entr reads.
fn watched(project: &Project) -> anyhow::Result<PathBuf> {
    let mut names = Vec::new();
    for entry in fs::read_dir(project.folder())? {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    let list = project.folder().with_extension("list");
    fs::write(&list, names.join("\n") + "\n")?;
    Ok(list)
}

pub fn measure(bench: &Bench) -> anyhow::Result<String> {
    let mut table = Table::new(&[
        "guest",
        "`entr -r` ÷ forkmon",
        "restart ÷ forkmon",
        "forkmon, ms",
        "forkmon `--delay 0ms`, ms",
        "of which `latency_ms`",
        "`entr -r`, ms",
        "restart, ms",
    ]);
    for guest in &GUESTS {
        for megabytes in ["0", guest.large] {
            table.row(compare(bench, guest, megabytes)?);
        }
    }
    Ok(table.into_text())
}

fn compare(bench: &Bench, guest: &Guest, megabytes: &str) -> anyhow::Result<Vec<String>> {
    let mut contenders = Vec::new();
    for way in WAYS {
        contenders.push(Contender::start(bench, way, guest, megabytes)?);
    }
    for round in 0..bench.repetitions(15, 3) {
        for contender in &mut contenders {
            contender.edit(bench, guest, megabytes, round)?;
        }
    }
    let [forkmon, at_once, entr, restart] = &contenders[..] else {
        anyhow::bail!("four ways are compared");
    };
    let mut latencies = Samples::default();
    for resume in at_once.project.events("resume")? {
        anyhow::ensure!(!resume["from"].is_null(), "forkmon restarted: {resume}");
        latencies.add(field(&resume, "latency_ms")?);
    }
    let resident = forkmon
        .project
        .events("checkpoint")?
        .iter()
        .map(|event| field(event, "resident_bytes"))
        .collect::<anyhow::Result<Vec<f64>>>()?
        .into_iter()
        .fold(0.0, f64::max);
    let median = forkmon.samples.median();
    Ok(vec![
        format!("{}, {} MB", guest.name, number(resident / 1e6)),
        ratio(entr.samples.median(), median),
        ratio(restart.samples.median(), median),
        forkmon.samples.to_string(),
        at_once.samples.to_string(),
        latencies.to_string(),
        entr.samples.to_string(),
        restart.samples.to_string(),
    ])
}
