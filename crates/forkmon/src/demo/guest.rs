//! The program that the demo runs: slow to load, as real ones are.
//!
//! It reads an index, then each module that the index names, in order, and
//! computes something over each that takes a while; at the end it puts all
//! together. What it writes depends on the files only, so that two runs can be
//! compared.

use std::hint::black_box;
use std::io::Write as _;
use std::time::{Duration, Instant};

use anyhow::Context as _;

use super::project::{INDEX, ROUNDS};
use crate::cli::DemoGuestArgs;

/// How the last line begins.
pub(super) const RESULT: &str = "result";

/// How much work a module should be.
const WORK: Duration = Duration::from_millis(250);

/// For how long the machine's speed is measured at a time, and how often: the
/// fastest counts, since something else may have run meanwhile.
const SAMPLE: Duration = Duration::from_millis(10);
const SAMPLES: u32 = 8;

/// How many hashes are computed between two looks at the clock.
const STRIDE: u64 = 100;

/// How many rounds make up [`WORK`] on this machine.
pub(super) fn calibrate() -> u64 {
    let rounds_in_a_sample = || {
        let started = Instant::now();
        let mut rounds = 0;
        while started.elapsed() < SAMPLE {
            black_box(work(black_box(b"speed"), STRIDE));
            rounds += STRIDE;
        }
        rounds
    };
    let fastest = (0..SAMPLES).map(|_| rounds_in_a_sample()).max();
    let samples_in_work = u64::try_from(WORK.as_nanos() / SAMPLE.as_nanos()).unwrap_or(1);
    fastest.unwrap_or(STRIDE) * samples_in_work
}

/// The computation over one module: a hash of a hash of a hash.
fn work(content: &[u8], rounds: u64) -> blake3::Hash {
    let mut hash = blake3::hash(content);
    for _ in 0..rounds {
        hash = blake3::hash(hash.as_bytes());
    }
    hash
}

/// The guest itself: `forkmon __demo-guest DIR`.
///
/// # Errors
///
/// When a file of the project cannot be read.
pub fn guest(typed: &DemoGuestArgs) -> anyhow::Result<u8> {
    let read = |name: &str| {
        let path = typed.dir.join(name);
        std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))
    };
    let rounds = String::from_utf8_lossy(&read(ROUNDS)?).trim().parse()?;
    let index = read(INDEX)?;
    let mut all = blake3::Hasher::new();
    let mut stdout = std::io::stdout().lock();
    for name in String::from_utf8_lossy(&index).lines() {
        let content = read(name)?;
        let hash = work(&content, rounds);
        all.update(hash.as_bytes());
        let title = String::from_utf8_lossy(&content);
        let title = title.lines().next().unwrap_or_default();
        writeln!(stdout, "loaded {name}: {title}")?;
        stdout.flush()?;
    }
    writeln!(stdout, "{RESULT} {}", &all.finalize().to_hex()[..16])?;
    Ok(0)
}
