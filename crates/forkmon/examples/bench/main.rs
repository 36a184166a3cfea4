//! Measures forkmon side by side with what it is compared with, and writes the
//! tables of `docs/performance.md`. `scripts/bench` builds what is needed and
//! runs this; each table is one file here.
//!
//! Every number that is compared with another is taken in turns with it, so that
//! a machine that is busy for a while is busy for both.

mod calls;
mod checkpoint;
mod document;
mod edit;
mod first_run;
mod machine;
mod memory;
mod process;
mod project;
mod statistics;
mod threads;
mod timeline;

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Parser;

use document::Document;

/// What to measure with, and where the result goes.
#[derive(Debug, Parser)]
struct Options {
    /// The forkmon to measure.
    #[arg(long)]
    forkmon: PathBuf,
    /// The timeline's own measurement, crates/timeline/examples/scale.rs.
    #[arg(long)]
    scale: PathBuf,
    /// The folder with the guests' sources.
    #[arg(long)]
    guests: PathBuf,
    /// The folder with the compiled guests.
    #[arg(long)]
    compiled: PathBuf,
    /// The document whose tables are replaced; without it they are printed only.
    #[arg(long)]
    document: Option<PathBuf>,
    /// The date that the document is to name.
    #[arg(long, default_value = "")]
    date: String,
    /// A few repetitions, for a fast check.
    #[arg(long)]
    quick: bool,
    /// The tables to measure; all of them if none is named.
    tables: Vec<String>,
}

/// What every table needs.
struct Bench {
    options: Options,
    scratch: tempfile::TempDir,
}

impl Bench {
    fn scratch(&self) -> &Path {
        self.scratch.path()
    }

    /// A number of repetitions, or a few of them for a fast check.
    fn repetitions(&self, full: usize, quick: usize) -> usize {
        if self.options.quick { quick } else { full }
    }

    fn compiled(&self, name: &str) -> PathBuf {
        self.options.compiled.join(name)
    }
}

/// Measures one table, and answers it as Markdown.
type Measure = fn(&Bench) -> anyhow::Result<String>;

const TABLES: &[(&str, Measure)] = &[
    ("edit", edit::measure),
    ("threads", threads::measure),
    ("checkpoint", checkpoint::measure),
    ("first-run", first_run::measure),
    ("calls", calls::measure),
    ("memory", memory::measure),
    ("timeline", timeline::measure),
];

fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    for name in &options.tables {
        anyhow::ensure!(
            TABLES.iter().any(|(known, _)| known == name),
            "there is no table {name:?}; there are: {}",
            TABLES
                .iter()
                .map(|(name, _)| *name)
                .collect::<Vec<_>>()
                .join(", ")
        );
    }
    let bench = Bench {
        scratch: tempfile::tempdir().context("cannot make a temporary folder")?,
        options,
    };
    let mut document = bench
        .options
        .document
        .as_deref()
        .map(Document::read)
        .transpose()?;
    let load_before = machine::load()?;
    for (name, measure) in TABLES {
        if !bench.options.tables.is_empty() && bench.options.tables.iter().all(|t| t != name) {
            continue;
        }
        eprintln!("== {name}");
        let table = measure(&bench).with_context(|| format!("cannot measure {name}"))?;
        println!("{table}");
        if let Some(document) = &mut document {
            document.replace(name, &table)?;
        }
    }
    let machine = machine::describe(&bench, &load_before)?;
    println!("{machine}");
    if let Some(mut document) = document {
        document.replace("machine", &machine)?;
        document.write()?;
    }
    Ok(())
}
