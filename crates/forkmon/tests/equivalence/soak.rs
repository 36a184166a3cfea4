//! The oracle asked for long: new seeds for all projects in turn until the time
//! is over, and then the figures. `scripts/soak` is how people start it.

use std::fs;
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::catalog;
use super::oracle::{examine, number};
use super::project::Project;
use super::tally::Tally;

/// Steps of one seed. A guest that has been edited for long has seen more; one
/// that begins anew finds what hangs on the beginning.
const STEPS: usize = 30;

/// The head of the table of figures.
const HEAD: &str = "\
| guest | edits | comparisons | from a checkpoint | restarts | unchanged | resumed | time kept | differences |
|---|---:|---:|---:|---:|---:|---:|---:|---:|";

/// Runs for `FORKMON_EQUIVALENCE_FOR` seconds with seeds from
/// `FORKMON_EQUIVALENCE_SEED` on, `FORKMON_EQUIVALENCE_JOBS` projects at a time, or
/// as many as there are processors. `FORKMON_EQUIVALENCE_ONLY` names projects, with commas between
/// them; `FORKMON_EQUIVALENCE_FIGURES` is a file for the table.
#[test]
#[ignore = "it runs for as long as it is told to; see scripts/soak"]
fn soak() {
    let time = Duration::from_secs(number("FORKMON_EQUIVALENCE_FOR").unwrap_or(60));
    let first_seed = number("FORKMON_EQUIVALENCE_SEED").unwrap_or(1);
    let only = std::env::var("FORKMON_EQUIVALENCE_ONLY").unwrap_or_default();
    let projects: Vec<Project> = catalog::PROJECTS
        .iter()
        .filter(|one| only.is_empty() || only.split(',').any(|name| name == one.name))
        .filter_map(Project::prepare)
        .collect();
    assert!(!projects.is_empty(), "no such project: {only}");
    let tallies = Mutex::new(vec![Tally::default(); projects.len()]);
    let reports = Mutex::new(Vec::new());
    let until = Instant::now() + time;
    let next = AtomicU64::new(0);
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = number("FORKMON_EQUIVALENCE_JOBS").map_or(processors, |jobs| jobs as usize);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while Instant::now() < until {
                    let turn = next.fetch_add(1, Ordering::Relaxed);
                    let which = turn as usize % projects.len();
                    let project = &projects[which];
                    let seed = first_seed + turn / projects.len() as u64;
                    let mut tally = Tally::default();
                    let asked = examine(project, seed, STEPS, &mut tally);
                    println!("{} seed {seed}: {tally:?}", project.definition.name);
                    if let Err(report) = asked {
                        println!("{report}");
                        let mut reports = reports.lock().unwrap_or_else(|e| e.into_inner());
                        reports.push(report);
                    }
                    let mut tallies = tallies.lock().unwrap_or_else(|e| e.into_inner());
                    tallies[which] += tally;
                }
            });
        }
    });
    let tallies = tallies.into_inner().unwrap_or_else(|e| e.into_inner());
    let table = table(&projects, &tallies);
    println!("{table}");
    if let Some(file) = std::env::var_os("FORKMON_EQUIVALENCE_FIGURES") {
        let file = PathBuf::from(file);
        let written = fs::File::create(&file).and_then(|mut to| to.write_all(table.as_bytes()));
        written.unwrap_or_else(|error| panic!("cannot write {}: {error}", file.display()));
    }
    let reports = reports.into_inner().unwrap_or_else(|e| e.into_inner());
    assert!(reports.is_empty(), "{} differences", reports.len());
}

fn table(projects: &[Project], tallies: &[Tally]) -> String {
    let mut all = Tally::default();
    let mut text = format!("{HEAD}\n");
    for (project, tally) in projects.iter().zip(tallies) {
        all += *tally;
        text.push_str(&tally.row(project.definition.name));
        text.push('\n');
    }
    text.push_str(&all.row("**all**"));
    text.push('\n');
    text
}
