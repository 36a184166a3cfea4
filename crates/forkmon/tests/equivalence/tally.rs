//! The figures of a trial: what was tried, and what forkmon did about it.

use std::ops::AddAssign;

use super::event::Event;
use super::generator::Step;

/// Counts of one project, or of several.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Single edits.
    pub edits: u64,
    /// Comparisons: each after one or more edits.
    pub steps: u64,
    /// Steps whose outcome came from a checkpoint.
    pub resumed: u64,
    /// Steps whose outcome came from a full restart.
    pub restarted: u64,
    /// Steps after which nothing was to be done.
    pub unchanged: u64,
    pub differences: u64,
    /// Of the guest's running time in steps whose outcome came from a checkpoint, in
    /// microseconds: what lay before the checkpoint, and what was run again.
    pub kept: u64,
    pub repeated: u64,
}

impl Tally {
    /// Counts a step by the events that followed from it.
    pub fn add(&mut self, step: &Step, events: &[Event]) {
        self.edits += step.edits.len() as u64;
        self.steps += 1;
        // The last one decided; those before it were cut short.
        let last = events.iter().rev().find(|event| event.name == "resume");
        match last.map(|event| (event, event.as_resume())) {
            Some((event, resume)) if resume.from.is_some() => {
                self.resumed += 1;
                self.kept += microseconds(resume.kept_ms);
                let exit = events.iter().rev().find(|event| event.name == "exit");
                let ran = exit.map_or(0.0, |exit| exit.number("at_ms") - event.number("at_ms"));
                self.repeated += microseconds(ran);
            }
            Some(_) => self.restarted += 1,
            None => self.unchanged += 1,
        }
    }

    /// The share of the running time that need not be repeated, in percent.
    pub fn share_kept(&self) -> f64 {
        share(self.kept, self.kept + self.repeated)
    }

    /// The share of runs that began at a checkpoint, in percent.
    pub fn share_resumed(&self) -> f64 {
        share(self.resumed, self.resumed + self.restarted)
    }

    /// A row of the table in `docs/reliability.md`.
    pub fn row(&self, name: &str) -> String {
        format!(
            "| {name} | {} | {} | {} | {} | {} | {:.1} % | {:.0} % | {} |",
            self.edits,
            self.steps,
            self.resumed,
            self.restarted,
            self.unchanged,
            self.share_resumed(),
            self.share_kept(),
            self.differences
        )
    }
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Tally) {
        self.edits += other.edits;
        self.steps += other.steps;
        self.resumed += other.resumed;
        self.restarted += other.restarted;
        self.unchanged += other.unchanged;
        self.differences += other.differences;
        self.kept += other.kept;
        self.repeated += other.repeated;
    }
}

fn share(part: u64, of: u64) -> f64 {
    if of == 0 {
        return 0.0;
    }
    part as f64 * 100.0 / of as f64
}

/// A time that an event gives; never negative but by a clock that is not steady.
fn microseconds(ms: f64) -> u64 {
    (ms.max(0.0) * 1000.0) as u64
}
