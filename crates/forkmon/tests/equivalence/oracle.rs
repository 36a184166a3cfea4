//! The question to the oracle: play a project's steps, and if there is a
//! difference, make them fewer, keep what was found, and say how to repeat it.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::catalog;
use super::generator::{self, Step};
use super::manner::Manner;
use super::project::{Definition, Project};
use super::shrink::shrink;
use super::tally::Tally;
use super::trial::{self, Difference};

/// The seed and the number of steps of each project in CI.
const SEED: u64 = 1;
const STEPS: usize = 20;

/// How long steps are made fewer.
const SHRINKING: Duration = Duration::from_secs(60);

/// Asks about one project, with the seed and the number of steps that the
/// environment names, or else those of CI.
///
/// # Panics
///
/// When there is a difference.
pub fn ask(name: &str) {
    let definition = catalog::find(name);
    let Some(project) = Project::prepare(definition) else {
        return;
    };
    let seed = number("FORKMON_EQUIVALENCE_SEED").unwrap_or(SEED);
    let steps = number("FORKMON_EQUIVALENCE_STEPS").map_or(STEPS, |steps| steps as usize);
    let mut tally = Tally::default();
    let asked = examine(&project, seed, steps, &mut tally);
    println!("{name}: seed {seed}: {tally:?}");
    if let Err(report) = asked {
        panic!("{report}");
    }
    assert!(
        tally.resumed > 0 || !Manner::of(&project, seed).generous,
        "no outcome came from a checkpoint, so that nothing was tested"
    );
}

/// Plays the steps of a seed.
///
/// # Errors
///
/// A difference, as a report for people.
pub fn examine(
    project: &Project,
    seed: u64,
    count: usize,
    tally: &mut Tally,
) -> Result<(), String> {
    let steps = generator::steps(project, seed, count);
    let manner = Manner::of(project, seed);
    let folder = place_for(project.definition, seed);
    let Err(found) = trial::play(project, &manner, &steps, tally, Some(&folder)) else {
        return Ok(());
    };
    tally.differences += 1;
    let first = found.clone();
    let (fewer, found) = shrink(&steps, found, SHRINKING, |fewer| {
        // Figures of these are of no interest.
        trial::play(project, &manner, fewer, &mut Tally::default(), None).err()
    });
    let report = report(project, seed, count, (&first, &steps), (&found, &fewer));
    let report = format!("{report}\nkept in {}\n", folder.display());
    // What was printed may be lost in a long log.
    let _ = fs::write(folder.join("report.txt"), &report);
    Err(report)
}

/// Where what was found is kept: emptied first.
fn place_for(definition: &Definition, seed: u64) -> PathBuf {
    let base = std::env::var_os("FORKMON_EQUIVALENCE_KEEP").map_or_else(
        || Path::new(env!("CARGO_TARGET_TMPDIR")).join("equivalence"),
        PathBuf::from,
    );
    let folder = base.join(format!("{}-{seed}", definition.name));
    // It need not be there.
    let _ = fs::remove_dir_all(&folder);
    folder
}

fn report(
    project: &Project,
    seed: u64,
    count: usize,
    all: (&Difference, &[Step]),
    fewer: (&Difference, &[Step]),
) -> String {
    let name = project.definition.name;
    let manner = Manner::of(project, seed);
    let mut text = format!("{name} is not as fresh, seed {seed}, forkmon {manner}\n");
    let mut tell = |title: &str, (difference, steps): (&Difference, &[Step])| {
        let when = difference
            .after
            .map_or("the first run".to_owned(), |after| {
                format!("step {}", after + 1)
            });
        // Writing into a string does not fail.
        let _ = writeln!(text, "\n{title}, after {when}:");
        for line in &difference.what {
            let _ = writeln!(text, "    {line}");
        }
        for (number, step) in steps.iter().enumerate() {
            if difference.after.is_some_and(|after| number <= after) {
                let _ = writeln!(text, "  step {}: {step}", number + 1);
            }
        }
    };
    tell("as it was found", all);
    tell("with fewer steps", fewer);
    let _ = writeln!(
        text,
        "\nto repeat it: FORKMON_EQUIVALENCE_SEED={seed} FORKMON_EQUIVALENCE_STEPS={count} \
         cargo test -p forkmon --test equivalence -- --exact {name}"
    );
    text
}

/// A number in the environment.
pub fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    let parsed = text.parse();
    Some(parsed.unwrap_or_else(|error| panic!("{variable} is no number ({error}): {text}")))
}
