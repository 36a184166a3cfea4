//! The limits hold whatever checkpoints come, and what was edited last stays.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use proptest::prelude::*;
use timeline::{AccessIndex, Checkpoint, CheckpointId, Limits, Observation, Timeline};

#[derive(Clone, Debug)]
enum Op {
    /// A touch of a path, with a checkpoint of this memory before it.
    Touch {
        path: u8,
        memory: u64,
        work: u64,
        deeper: bool,
    },
    Hot(u8),
    Evict,
    Rewind(usize),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        8 => (0..12_u8, 0..60_u64, 0..1_000_u64, any::<bool>()).prop_map(
            |(path, memory, work, deeper)| Op::Touch { path, memory, work, deeper }
        ),
        1 => (0..12_u8).prop_map(Op::Hot),
        1 => Just(Op::Evict),
        1 => (0..8_usize).prop_map(Op::Rewind),
    ]
}

fn path(n: u8) -> PathBuf {
    PathBuf::from(format!("/p/{n}"))
}

fn ids(timeline: &Timeline) -> BTreeSet<CheckpointId> {
    timeline.checkpoints().map(|one| one.id).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, ..ProptestConfig::default() })]

    #[test]
    fn limits_hold_and_the_last_edited_outlive_cold_ones(
        max_checkpoints in 0..6_usize,
        max_memory in 0..200_u64,
        ops in proptest::collection::vec(op(), 1..80),
    ) {
        let limits = Limits {
            share: 1.0,
            max_checkpoints,
            max_memory,
            allowance: Duration::ZERO,
        };
        let mut timeline = Timeline::new(limits);
        let mut edited: BTreeSet<PathBuf> = BTreeSet::new();
        // The last edit, and whether a rewind has ended it.
        let mut last_edit: (BTreeSet<PathBuf>, bool) = Default::default();
        let (mut guest_time, mut depth) = (Duration::ZERO, 0);
        for (n, op) in ops.into_iter().enumerate() {
            let id = CheckpointId(n as u32);
            let before: Vec<Checkpoint> = timeline.checkpoints().cloned().collect();
            let mut dropped = Vec::new();
            let mut candidates = before.clone();
            match op {
                Op::Touch { path: at, memory, work, deeper } => {
                    guest_time += Duration::from_millis(work);
                    depth += u32::from(deeper);
                    let new = Checkpoint {
                        id,
                        path: Some(path(at)),
                        wanted: false,
                        guest_time,
                        cost: Duration::from_millis(1),
                        memory,
                        depth,
                    };
                    candidates.push(new.clone());
                    dropped = timeline.add_checkpoint(new.clone());
                    if memory > max_memory || max_checkpoints == 0 {
                        prop_assert_eq!(&dropped, &[id]);
                    }
                    timeline.record(&path(at), Observation::Missing);
                }
                Op::Hot(at) => {
                    timeline.mark_hot(&path(at));
                    edited.insert(path(at));
                    if std::mem::take(&mut last_edit.1) {
                        last_edit.0.clear();
                    }
                    last_edit.0.insert(path(at));
                    continue;
                }
                Op::Evict => {
                    dropped.extend(timeline.evict_one());
                    prop_assert_eq!(dropped.is_empty(), before.is_empty());
                }
                Op::Rewind(nth) => {
                    last_edit.1 = true;
                    let to = before.get(nth);
                    let after = timeline.rewind(to.map(|one| one.id));
                    let kept = to.map_or(0, |_| nth + 1);
                    let expected: Vec<_> = before[kept..].iter().map(|one| one.id).collect();
                    prop_assert_eq!(&after, &expected);
                    guest_time = to.map_or(Duration::ZERO, |one| one.guest_time);
                    prop_assert_eq!(timeline.checkpoints().count(), kept);
                    continue;
                }
            }
            let memory: u64 = timeline.checkpoints().map(|one| one.memory).sum();
            prop_assert!(memory <= max_memory || max_memory == 0 && memory == 0);
            prop_assert!(timeline.checkpoints().count() <= max_checkpoints);
            // What was dropped is what is missing, each once.
            let all: BTreeSet<_> = candidates.iter().map(|one| one.id).collect();
            let gone: BTreeSet<_> = dropped.iter().copied().collect();
            prop_assert_eq!(gone.len(), dropped.len());
            prop_assert_eq!(&all - &gone, ids(&timeline));
            // Those before the paths of the last edit go only if it was one of more
            // paths than there is room for, or when only edited ones are left.
            let fits = last_edit.0.len() <= (timeline.checkpoints().count() / 2).max(1);
            let lost = candidates.iter().any(|one| {
                gone.contains(&one.id)
                    && one.path.as_ref().is_some_and(|path| last_edit.0.contains(path))
                    && one.memory <= max_memory
            });
            if fits && lost && max_checkpoints > 0 {
                prop_assert!(timeline.checkpoints().all(|one| one.path.as_ref().is_some_and(|path| edited.contains(path))));
            }
        }
    }

    #[test]
    fn checkpoints_that_are_due_stay_within_the_share(
        share in 0.0..2.0_f64,
        work in proptest::collection::vec((1..50_u64, 1..20_u64), 1..200),
    ) {
        let allowance = Duration::from_millis(10);
        let mut timeline = Timeline::new(Limits {
            share,
            max_checkpoints: 4,
            max_memory: u64::MAX,
            allowance,
        });
        let (mut guest_time, mut spent) = (Duration::ZERO, Duration::ZERO);
        for (n, (work, cost)) in work.into_iter().enumerate() {
            guest_time += Duration::from_millis(work);
            let cost = Duration::from_millis(cost);
            let at = PathBuf::from(format!("/p/{n}"));
            if timeline.checkpoint_due(&at, guest_time, cost) {
                spent += cost;
                timeline.add_checkpoint(Checkpoint {
                    id: CheckpointId(n as u32),
                    path: Some(at.clone()),
                    wanted: false,
                    guest_time,
                    cost,
                    memory: 1,
                    depth: 0,
                });
                let budget = share * guest_time.as_secs_f64() + allowance.as_secs_f64();
                prop_assert!(spent.as_secs_f64() <= budget + 1e-9);
            }
            timeline.record(&at, Observation::Missing);
        }
    }
}

#[test]
fn what_is_marked_hot_survives_a_restart() {
    let mut timeline = Timeline::new(Limits {
        share: 0.0,
        max_checkpoints: 2,
        max_memory: u64::MAX,
        allowance: Duration::ZERO,
    });
    let path = Path::new("/p/hot");
    let cost = Duration::from_secs(1);
    assert!(!timeline.checkpoint_due(path, cost, cost));
    assert_eq!(timeline.record(path, Observation::Missing), AccessIndex(0));
    timeline.mark_hot(path);
    timeline.rewind(None);
    assert!(timeline.checkpoint_due(path, cost, cost));
}
