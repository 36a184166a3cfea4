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
}

impl Tally {
    /// Counts a step by the events that followed from it.
    pub fn add(&mut self, step: &Step, events: &[Event]) {
        self.edits += step.edits.len() as u64;
        self.steps += 1;
        // The last one decided; those before it were cut short.
        let last = events.iter().rev().find(|event| event.name == "resume");
        match last.map(|event| event.as_resume().from) {
            Some(Some(_)) => self.resumed += 1,
            Some(None) => self.restarted += 1,
            None => self.unchanged += 1,
        }
    }

    /// The share of runs that began at a checkpoint, in percent.
    pub fn share_resumed(&self) -> f64 {
        let runs = self.resumed + self.restarted;
        if runs == 0 {
            return 0.0;
        }
        self.resumed as f64 * 100.0 / runs as f64
    }

    /// A row of the table in `docs/reliability.md`.
    pub fn row(&self, name: &str) -> String {
        format!(
            "| {name} | {} | {} | {} | {} | {} | {:.1} % | {} |",
            self.edits,
            self.steps,
            self.resumed,
            self.restarted,
            self.unchanged,
            self.share_resumed(),
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
    }
}
