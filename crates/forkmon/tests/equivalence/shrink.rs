//! From steps that lead to a difference to as few of them as still do.
//!
//! A difference may hang on the moment, so that fewer steps that pass prove
//! nothing: what is found is small, not the smallest. Leaving steps out is tried
//! in halves first, then in ever smaller parts, as in delta debugging (Zeller and
//! Hildebrandt, 2002), then edits of the steps that are left; within a time.

use std::time::{Duration, Instant};

use super::generator::Step;
use super::trial::Difference;

/// Makes steps fewer as long as `fails` finds a difference, and for `time` at
/// most. The difference is that of the steps that are returned.
pub fn shrink(
    steps: &[Step],
    found: Difference,
    time: Duration,
    mut fails: impl FnMut(&[Step]) -> Option<Difference>,
) -> (Vec<Step>, Difference) {
    let until = Instant::now() + time;
    // What comes after the difference has no part in it.
    let needed = found.after.map_or(0, |after| after + 1);
    let mut best = (steps[..needed.min(steps.len())].to_vec(), found);
    let mut part = best.0.len().div_ceil(2);
    while part > 0 && Instant::now() < until {
        let mut start = 0;
        let mut shorter = false;
        while start < best.0.len() && Instant::now() < until {
            let end = (start + part).min(best.0.len());
            let fewer = [&best.0[..start], &best.0[end..]].concat();
            match fails(&fewer) {
                Some(difference) => {
                    let needed = difference.after.map_or(0, |after| after + 1);
                    best = (fewer[..needed.min(fewer.len())].to_vec(), difference);
                    shorter = true;
                }
                None => start = end,
            }
        }
        if part == 1 && !shorter {
            break;
        }
        part = part.div_ceil(2).min(part.saturating_sub(1)).max(1);
    }
    for step in 0..best.0.len() {
        for edit in (0..best.0[step].edits.len()).rev() {
            if best.0[step].edits.len() < 2 || Instant::now() >= until {
                continue;
            }
            let mut fewer = best.0.clone();
            fewer[step].edits.remove(edit);
            if let Some(difference) = fails(&fewer)
                && difference.after == best.1.after
            {
                best = (fewer, difference);
            }
        }
    }
    best
}
