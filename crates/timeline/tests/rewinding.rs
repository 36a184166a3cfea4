//! Going back: a rewound timeline is the one that was there before, and the
//! same accesses lead to the same timeline again.

use std::path::PathBuf;
use std::time::Duration;

use proptest::prelude::*;
use timeline::{
    AccessIndex, AccessKind, Checkpoint, CheckpointId, Current, FileKind, Identity, Limits,
    Metadata, Observation, Timeline, Verdict,
};

#[derive(Clone, Debug)]
enum Op {
    Record(u8, Observation),
    Wrote(u8),
    Checkpoint,
}

fn path(n: u8) -> PathBuf {
    PathBuf::from(format!("/p/{n}"))
}

fn identity(n: u64) -> Identity {
    Identity {
        device: 1,
        inode: n,
        size: 1,
        mtime_ns: 1,
        ctime_ns: 1,
    }
}

fn op() -> impl Strategy<Value = Op> {
    let seen = prop_oneof![
        (0..3_u64).prop_map(|n| Observation::Content {
            identity: identity(n)
        }),
        Just(Observation::Missing),
        (0..3_u8).prop_map(|n| Observation::Link(path(n))),
        Just(Observation::Listing(["a".into()].into())),
    ];
    prop_oneof![
        6 => (0..5_u8, seen).prop_map(|(n, seen)| Op::Record(n, seen)),
        1 => (0..5_u8).prop_map(Op::Wrote),
        1 => Just(Op::Checkpoint),
    ]
}

fn roomy() -> Timeline {
    Timeline::new(Limits {
        share: 1.0,
        max_checkpoints: 1_000,
        max_memory: u64::MAX,
        allowance: Duration::ZERO,
    })
}

fn play(timeline: &mut Timeline, ops: &[Op], first: usize) {
    for (n, op) in ops.iter().enumerate() {
        match op {
            Op::Record(n, seen) => {
                timeline.record(&path(*n), seen.clone());
            }
            Op::Wrote(n) => timeline.wrote(&path(*n)),
            Op::Checkpoint => {
                let id = CheckpointId((first + n) as u32);
                assert_eq!(timeline.add_checkpoint(checkpoint(id)), []);
            }
        }
    }
}

fn checkpoint(id: CheckpointId) -> Checkpoint {
    Checkpoint {
        id,
        path: Some(path(0)),
        wanted: false,
        guest_time: Duration::from_secs(u64::from(id.0)),
        cost: Duration::from_millis(1),
        memory: 1,
        depth: 0,
    }
}

proptest! {
    #[test]
    fn a_rewind_leaves_the_timeline_as_it_was(
        before in proptest::collection::vec(op(), 0..40),
        after in proptest::collection::vec(op(), 0..40),
        again in 1..4,
    ) {
        let mut timeline = roomy();
        play(&mut timeline, &before, 0);
        let here = CheckpointId(1_000_000);
        timeline.add_checkpoint(checkpoint(here));
        let was = timeline.clone();
        let mut first_life = None;
        for _ in 0..again {
            play(&mut timeline, &after, before.len());
            // The same accesses lead to the same timeline.
            prop_assert_eq!(first_life.get_or_insert_with(|| timeline.clone()), &timeline);
            let taken: Vec<CheckpointId> = timeline
                .checkpoints()
                .map(|checkpoint| checkpoint.id)
                .skip_while(|id| *id != here)
                .skip(1)
                .collect();
            prop_assert_eq!(timeline.rewind(Some(here)), taken);
            prop_assert_eq!(&timeline, &was);
        }
        let all: Vec<CheckpointId> = was.checkpoints().map(|checkpoint| checkpoint.id).collect();
        prop_assert_eq!(timeline.rewind(None), all);
        prop_assert_eq!(&timeline, &roomy());
    }

    #[test]
    fn accesses_are_told_in_order_and_each_once(ops in proptest::collection::vec(op(), 0..80)) {
        let mut timeline = roomy();
        play(&mut timeline, &ops, 0);
        let mut expected: Vec<(PathBuf, Observation)> = Vec::new();
        let mut own = Vec::new();
        for op in &ops {
            match op {
                Op::Record(n, seen) => {
                    let entry = (path(*n), seen.clone());
                    // The guest's own work is no news to it, but for the names that
                    // others put into a folder of its own.
                    let news = !own.contains(n) || matches!(seen, Observation::Listing(_));
                    if news && !expected.contains(&entry) {
                        expected.push(entry);
                    }
                }
                Op::Wrote(n) => own.push(*n),
                Op::Checkpoint => {}
            }
        }
        let told: Vec<(PathBuf, Observation)> = timeline
            .accesses()
            .enumerate()
            .map(|(n, access)| {
                assert_eq!(access.index, AccessIndex(n as u64));
                (access.path.to_owned(), access.seen.clone())
            })
            .collect();
        prop_assert_eq!(timeline.end(), AccessIndex(expected.len() as u64));
        prop_assert_eq!(told, expected);
    }
}

fn content(n: u64) -> Observation {
    Observation::Content {
        identity: identity(n),
    }
}

fn first(at: u64, verdict: Verdict) -> bool {
    verdict.contradiction() == Some(AccessIndex(at))
}

/// The guest made a folder and listed it: a name that somebody else adds is news, and
/// a fresh run finds the folder there already.
#[test]
fn others_names_in_a_folder_of_the_guests_own_count() {
    let mut timeline = roomy();
    let folder = path(1);
    timeline.record(&folder, Observation::Missing);
    timeline.wrote(&folder);
    let metadata = Metadata {
        kind: FileKind::Folder,
        mode: 0o755,
        identity: identity(1),
    };
    let with = |names: &[&str]| Current::Folder {
        metadata,
        names: Some(names.iter().map(Into::into).collect()),
    };
    assert_eq!(timeline.judge(&folder, &with(&[])), Verdict::Untouched);
    timeline.record(&folder, Observation::Listing(Default::default()));
    assert_eq!(timeline.judge(&folder, &with(&[])), Verdict::Untouched);
    assert!(first(0, timeline.judge(&folder, &with(&["plugin"]))));
    timeline.wrote(&folder.join("plugin"));
    assert_eq!(
        timeline.judge(&folder, &with(&["plugin"])),
        Verdict::Untouched
    );
}

#[test]
fn an_unknown_checkpoint_changes_nothing() {
    let mut timeline = roomy();
    timeline.record(&path(1), content(1));
    let was = timeline.clone();
    assert_eq!(timeline.rewind(Some(CheckpointId(7))), []);
    assert!(!timeline.drop_checkpoint(CheckpointId(7)));
    assert_eq!(timeline, was);
}

#[test]
fn a_checkpoint_serves_the_access_that_it_stands_before() {
    let mut timeline = roomy();
    timeline.record(&path(1), content(1));
    timeline.add_checkpoint(checkpoint(CheckpointId(0)));
    let second = timeline.record(&path(2), content(2));
    assert_eq!(timeline.resume_point(AccessIndex(0)), None);
    assert_eq!(timeline.resume_point(second), Some(CheckpointId(0)));
    assert_eq!(timeline.bar(), [CheckpointId(0)]);
    assert_eq!(timeline.resume_point(second), None);
    timeline.add_checkpoint(checkpoint(CheckpointId(1)));
    let third = timeline.record(&path(3), content(3));
    assert_eq!(timeline.resume_point(second), None);
    assert_eq!(timeline.resume_point(third), Some(CheckpointId(1)));
}

#[test]
fn no_second_checkpoint_in_one_place_and_none_before_a_known_path() {
    let mut timeline = roomy();
    let (second, no_cost) = (Duration::from_secs(1), Duration::ZERO);
    let due = |timeline: &Timeline, n| timeline.checkpoint_due(&path(n), second, no_cost);
    timeline.mark_hot(&path(1));
    assert!(due(&timeline, 1));
    timeline.add_checkpoint(checkpoint(CheckpointId(0)));
    assert!(!due(&timeline, 1));
    timeline.record(&path(2), content(2));
    assert!(due(&timeline, 1));
    timeline.record(&path(1), content(1));
    assert!(!due(&timeline, 1));
    // The resumed run touches its path again: the checkpoint is still there.
    timeline.rewind(Some(CheckpointId(0)));
    assert!(!due(&timeline, 1));
}

#[test]
fn what_the_guest_created_is_its_own_until_it_is_rewound() {
    let mut timeline = roomy();
    timeline.record(&path(1), Observation::Missing);
    timeline.add_checkpoint(checkpoint(CheckpointId(0)));
    timeline.wrote(&path(1));
    assert_eq!(timeline.record(&path(1), content(1)), AccessIndex(1));
    assert!(timeline.knows(&path(1), AccessKind::Content));
    let there = Current::Link {
        metadata: Metadata {
            kind: FileKind::Link,
            mode: 0,
            identity: identity(1),
        },
        target: path(9),
    };
    assert_eq!(timeline.judge(&path(1), &there), Verdict::Untouched);
    assert!(first(0, timeline.judge_foreign(&path(1), &there)));
    timeline.rewind(Some(CheckpointId(0)));
    assert!(!timeline.knows(&path(1), AccessKind::Content));
    assert!(first(0, timeline.judge(&path(1), &there)));
}

fn file(n: u64, fingerprint: u8) -> Current {
    Current::File {
        metadata: metadata(n),
        fingerprint: Some([fingerprint; 32]),
        agrees: None,
    }
}

fn metadata(n: u64) -> Metadata {
    Metadata {
        kind: FileKind::Regular,
        mode: 0o644,
        identity: Identity {
            mtime_ns: i128::from(n),
            ..identity(n)
        },
    }
}

#[test]
fn two_fingerprints_of_one_identity_spoil_the_content() {
    let mut timeline = roomy();
    timeline.record(&path(1), content(1));
    assert!(timeline.needs_fingerprint(&path(1)));
    timeline.set_fingerprint(&path(1), &identity(1), [1; 32]);
    assert!(!timeline.needs_fingerprint(&path(1)));
    assert_eq!(timeline.judge(&path(1), &file(1, 1)), Verdict::Unchanged);
    timeline.set_fingerprint(&path(1), &identity(1), [2; 32]);
    assert!(first(0, timeline.judge(&path(1), &file(1, 1))));
}

#[test]
fn a_hash_that_comes_after_the_file_was_spoiled_proves_nothing() {
    let mut timeline = roomy();
    let seen = metadata(1);
    timeline.record(&path(1), Observation::Metadata(seen));
    timeline.record(
        &path(1),
        Observation::Content {
            identity: seen.identity,
        },
    );
    let mut hashed_before = timeline.clone();
    hashed_before.set_fingerprint(&path(1), &seen.identity, [1; 32]);
    hashed_before.spoil(&path(1));
    // What the metadata said is so again after a save of the same bytes; what
    // was read is not.
    assert!(first(1, hashed_before.judge(&path(1), &file(2, 1))));

    timeline.spoil(&path(1));
    assert!(!timeline.needs_fingerprint(&path(1)));
    timeline.set_fingerprint(&path(1), &seen.identity, [1; 32]);
    assert!(first(0, timeline.judge(&path(1), &file(2, 1))));
}

#[test]
fn a_fingerprint_of_a_file_that_no_fact_is_about_is_not_kept() {
    let mut timeline = roomy();
    timeline.record(&path(1), content(1));
    timeline.add_checkpoint(checkpoint(CheckpointId(0)));
    let was = timeline.clone();
    timeline.set_fingerprint(&path(1), &identity(2), [2; 32]);
    timeline.set_fingerprint(&path(2), &identity(2), [2; 32]);
    assert_eq!(timeline, was);
    timeline.record(&path(1), content(2));
    timeline.set_fingerprint(&path(1), &identity(2), [2; 32]);
    timeline.rewind(Some(CheckpointId(0)));
    assert_eq!(timeline, was);
}
