//! After a burst of edits, the checkpoint whose loss would cost most time is
//! still there.

use std::path::PathBuf;
use std::time::Duration;

use proptest::prelude::*;
use timeline::{AccessIndex, Checkpoint, CheckpointId, Limits, Observation, Timeline};

const COST: Duration = Duration::from_millis(1);

/// A guest that does a long piece of work, and then reads many small files.
#[derive(Clone, Debug)]
struct Guest {
    work: Duration,
    /// The guest time before each file.
    files: Vec<Duration>,
}

fn path(nth: usize) -> PathBuf {
    PathBuf::from(format!("/p/{nth}"))
}

impl Guest {
    /// Runs from access `from` at guest time `time` to the end, and takes the
    /// checkpoints that are due. The first access is before the work.
    fn run(&self, timeline: &mut Timeline, from: usize, mut time: Duration, next: &mut u32) {
        for at in from..=self.files.len() {
            time += match at {
                0 => Duration::ZERO,
                1 => self.work,
                _ => self.files[at - 1],
            };
            let path = path(at);
            if timeline.checkpoint_due(&path, time, COST) {
                *next += 1;
                timeline.add_checkpoint(Checkpoint {
                    id: CheckpointId(*next),
                    path: Some(path.clone()),
                    wanted: false,
                    guest_time: time,
                    cost: COST,
                    memory: 1,
                    depth: 0,
                });
            }
            timeline.record(&path, Observation::Missing);
        }
    }

    /// Edits these files at once, and runs from where the first of them is read.
    fn edit(&self, timeline: &mut Timeline, edited: &[usize], next: &mut u32) {
        let Some(first) = edited.iter().min() else {
            return;
        };
        for at in edited {
            timeline.mark_hot(&path(*at));
        }
        let to = timeline.resume_point(AccessIndex(*first as u64));
        let place = to.and_then(|id| {
            let position = timeline.position_of(id)?;
            Some((position.0 as usize, timeline.checkpoint(id)?.guest_time))
        });
        timeline.rewind(to);
        let (from, time) = place.unwrap_or_default();
        // What comes before the first touch is part of the checkpoint.
        if from == 0 {
            self.run(timeline, 0, Duration::ZERO, next);
        } else {
            timeline.record(&path(from), Observation::Missing);
            self.run(timeline, from + 1, time, next);
        }
    }
}

fn timeline(max_checkpoints: usize) -> Timeline {
    Timeline::new(Limits {
        share: 0.05,
        max_checkpoints,
        max_memory: u64::MAX,
        allowance: Duration::from_millis(5),
    })
}

/// A guest whose files take up to so long each.
fn guest(files: std::ops::Range<usize>, micros: u64) -> impl Strategy<Value = Guest> {
    let files = proptest::collection::vec(0..=micros, files);
    (1_000..3_000_u64, files).prop_map(|(work, files)| Guest {
        work: Duration::from_millis(work),
        files: files.into_iter().map(Duration::from_micros).collect(),
    })
}

/// Edits that each change up to so many files.
fn bursts(files: usize) -> impl Strategy<Value = Vec<Vec<prop::sample::Index>>> {
    let one = proptest::collection::vec(any::<prop::sample::Index>(), 1..files);
    proptest::collection::vec(one, 1..5)
}

/// Which files these are: not what comes before the work.
fn numbers(burst: &[prop::sample::Index], guest: &Guest) -> Vec<usize> {
    let number = |one: &prop::sample::Index| 1 + one.index(guest.files.len());
    burst.iter().map(number).collect()
}

/// How many files there are whose edit would make the guest do the work again.
fn far_behind(timeline: &Timeline, guest: &Guest) -> usize {
    (1..=guest.files.len())
        .filter(|&at| {
            let from = timeline.resume_point(AccessIndex(at as u64));
            let kept = from.and_then(|id| timeline.checkpoint(id));
            kept.is_none_or(|kept| kept.guest_time < guest.work)
        })
        .count()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    /// All files together take less time than the even share of the odds that one
    /// file has is of the work: so whatever else is given up costs less.
    #[test]
    fn the_checkpoint_after_the_work_survives_any_burst_of_quick_files(
        guest in guest(2..100, 1),
        max_checkpoints in 2..40_usize,
        bursts in bursts(200),
    ) {
        let (mut timeline, mut next) = (timeline(max_checkpoints), 0);
        guest.run(&mut timeline, 0, Duration::ZERO, &mut next);
        for burst in bursts {
            guest.edit(&mut timeline, &numbers(&burst, &guest), &mut next);
            prop_assert_eq!(far_behind(&timeline, &guest), 0);
        }
    }

    /// Where the files take a good part of the time, a few of the first may be the
    /// price for many others, the more so the fewer checkpoints there may be: with
    /// two to four, no rule serves them all. When all files of a burst had to have a
    /// checkpoint, there were up to 48 %.
    #[test]
    fn after_any_burst_hardly_a_file_is_far_behind(
        guest in guest(100..300, 1_500),
        max_checkpoints in 5..40_usize,
        bursts in bursts(300),
    ) {
        let (mut timeline, mut next) = (timeline(max_checkpoints), 0);
        guest.run(&mut timeline, 0, Duration::ZERO, &mut next);
        for burst in bursts {
            guest.edit(&mut timeline, &numbers(&burst, &guest), &mut next);
            let far = far_behind(&timeline, &guest);
            prop_assert!(far * 20 <= guest.files.len(), "{far} of {}", guest.files.len());
        }
    }

    #[test]
    fn the_file_that_was_edited_last_has_its_own_checkpoint(
        guest in guest(2..200, 1_500),
        max_checkpoints in 1..40_usize,
        bursts in bursts(300),
        last in any::<prop::sample::Index>(),
    ) {
        let (mut timeline, mut next) = (timeline(max_checkpoints), 0);
        guest.run(&mut timeline, 0, Duration::ZERO, &mut next);
        for burst in bursts {
            guest.edit(&mut timeline, &numbers(&burst, &guest), &mut next);
        }
        let last = numbers(&[last], &guest)[0];
        guest.edit(&mut timeline, &[last], &mut next);
        let here = AccessIndex(last as u64);
        let from = timeline.resume_point(here);
        prop_assert_eq!(from.and_then(|id| timeline.position_of(id)), Some(here));
    }

    /// A burst of more files than there is room for takes no checkpoints beyond
    /// the budget.
    #[test]
    fn a_large_burst_costs_no_more_than_the_budget(guest in guest(100..300, 1_500)) {
        let (mut timeline, mut next) = (timeline(32), 0);
        guest.run(&mut timeline, 0, Duration::ZERO, &mut next);
        let all: Vec<usize> = (1..=guest.files.len()).collect();
        next = 0;
        guest.edit(&mut timeline, &all, &mut next);
        let time = guest.work + guest.files.iter().sum::<Duration>();
        let budget = time.mul_f64(0.05) + Duration::from_millis(5);
        prop_assert!(COST * next <= budget, "{next}");
    }
}
