//! A file that is read in pieces: an edit costs what the guest has read of the bytes
//! that differ, and not what it has read before them, or given back.

use std::path::Path;
use std::time::Duration;

use proptest::prelude::*;
use timeline::{
    AccessKind, Checkpoint, CheckpointId, Current, FileKind, Fingerprint, Identity, Limits,
    Metadata, Observation, Timeline, Verdict,
};

const SCRIPT: &str = "/p/script";

fn identity(version: u8) -> Identity {
    Identity {
        device: 1,
        inode: 1,
        size: 100,
        mtime_ns: version.into(),
        ctime_ns: version.into(),
    }
}

fn fingerprint(version: u8) -> Fingerprint {
    [version; 32]
}

/// The second version of the file, whose first bytes are those of the first.
fn edited(version: u8, from: u8, same: u64) -> Current {
    Current::File {
        metadata: Metadata {
            kind: FileKind::Regular,
            mode: 0o644,
            identity: identity(version),
        },
        fingerprint: Some(fingerprint(version)),
        agrees: Some((identity(from), same)),
    }
}

/// What a guest does after it has opened the script.
#[derive(Clone, Debug)]
enum Step {
    /// It reads on, or gives back, so that it knows so many bytes.
    Knows(u64),
    /// It touches another file.
    Other,
    Checkpoint,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => prop_oneof![9 => 0..20_u64, 1 => Just(u64::MAX)].prop_map(Step::Knows),
        1 => Just(Step::Other),
        3 => Just(Step::Checkpoint),
    ]
}

/// A timeline, and how many bytes the guest knew at each of its checkpoints; `None`
/// before it opened the file.
struct Model {
    timeline: Timeline,
    known: Vec<(CheckpointId, Option<u64>)>,
    level: Option<u64>,
    others: u32,
}

impl Model {
    fn new() -> Self {
        Self {
            timeline: Timeline::new(Limits {
                share: 1.0,
                max_checkpoints: 1_000,
                max_memory: u64::MAX,
                allowance: Duration::ZERO,
            }),
            known: Vec::new(),
            level: None,
            others: 0,
        }
    }

    fn checkpoint(&mut self) {
        let id = CheckpointId(self.known.len() as u32);
        self.known.push((id, self.level));
        let dropped = self.timeline.add_checkpoint(Checkpoint {
            id,
            path: None,
            wanted: false,
            guest_time: Duration::from_secs(id.0.into()),
            cost: Duration::from_millis(1),
            memory: 1,
            depth: 0,
        });
        assert!(dropped.is_empty());
    }

    fn open(&mut self) {
        self.checkpoint();
        let script = Path::new(SCRIPT);
        let seen = Observation::Content {
            identity: identity(1),
        };
        self.timeline.record(script, seen);
        self.timeline
            .set_fingerprint(script, &identity(1), fingerprint(1));
        assert!(self.timeline.narrow(script, &identity(1), 0));
        self.level = Some(0);
    }

    fn play(&mut self, steps: &[Step]) {
        for step in steps {
            match step {
                Step::Knows(end) => {
                    self.timeline.read_up_to(Path::new(SCRIPT), *end);
                    self.level = Some(*end);
                }
                Step::Other => {
                    self.others += 1;
                    let other = format!("/p/other{}", self.others);
                    self.timeline.record(other.as_ref(), Observation::Missing);
                }
                Step::Checkpoint => self.checkpoint(),
            }
        }
    }

    /// The newest checkpoint that can be resumed when the script is as it is now.
    fn resume_point(&self, now: &Current) -> Option<CheckpointId> {
        let script = Path::new(SCRIPT);
        let first = match self.timeline.judge(script, now) {
            Verdict::Contradicted { first, .. } => first,
            Verdict::Unread => self.timeline.end(),
            other => panic!("{other:?} of other bytes"),
        };
        let mut checkpoints = self.timeline.checkpoints().map(|c| c.id).rev();
        checkpoints.find(|id| {
            self.timeline.position_of(*id) <= Some(first)
                && self.timeline.holds_at(*id, script, now)
        })
    }
}

proptest! {
    #[test]
    fn an_edit_resumes_the_newest_checkpoint_that_knew_none_of_the_differing_bytes(
        steps in proptest::collection::vec(step(), 0..40),
        same in 0..20_u64,
    ) {
        let mut model = Model::new();
        model.open();
        model.play(&steps);
        let now = edited(2, 1, same);
        let allowed = |level: &Option<u64>| level.is_none_or(|level| level <= same);
        let newest = model.known.iter().rev().find(|(_, level)| allowed(level));
        prop_assert_eq!(model.resume_point(&now), newest.map(|(id, _)| *id));
    }

    #[test]
    fn an_accepted_edit_is_what_the_next_one_is_compared_with(
        before in proptest::collection::vec(step(), 0..20),
        after in proptest::collection::vec(step(), 0..20),
        same in 0..20_u64,
        same_again in 0..20_u64,
    ) {
        let script = Path::new(SCRIPT);
        let mut model = Model::new();
        model.open();
        model.play(&before);
        let now = edited(2, 1, same);
        let id = model.resume_point(&now).expect("one stands before the open");
        model.timeline.rewind(Some(id));
        model.timeline.accept(script, &now);
        let at = model.known.iter().position(|(known, _)| *known == id).expect("it is known");
        model.level = model.known[at].1;
        model.known.truncate(at + 1);
        model.known.retain(|(_, level)| level.is_none_or(|level| level <= same));
        let left: Vec<CheckpointId> = model.timeline.checkpoints().map(|c| c.id).collect();
        prop_assert_eq!(left, model.known.iter().map(|(id, _)| *id).collect::<Vec<_>>());
        if model.level.is_none() {
            // It is about to open the file, and nothing is known of it.
            return Ok(());
        }
        prop_assert!(matches!(
            model.timeline.judge(script, &now),
            Verdict::Unchanged
        ));
        let after: Vec<Step> = after
            .into_iter()
            .filter(|step| !matches!(step, Step::Checkpoint))
            .collect();
        model.play(&after);
        let again = edited(3, 2, same_again);
        let allowed = |level: &Option<u64>| level.is_none_or(|level| level <= same_again);
        let newest = model.known.iter().rev().find(|(_, level)| allowed(level));
        prop_assert_eq!(model.resume_point(&again), newest.map(|(id, _)| *id));
    }
}

#[test]
fn bytes_that_nobody_compared_count_as_different_from_the_first_on() {
    let mut model = Model::new();
    model.open();
    model.play(&[Step::Knows(5), Step::Checkpoint]);
    let Current::File {
        metadata,
        fingerprint,
        ..
    } = edited(2, 1, 9)
    else {
        unreachable!()
    };
    for agrees in [None, Some((identity(7), 9))] {
        let now = Current::File {
            metadata,
            fingerprint,
            agrees,
        };
        // Nothing was read at the open, so that one before the first read will do.
        assert_eq!(model.resume_point(&now), Some(CheckpointId(0)));
    }
    assert_eq!(model.resume_point(&edited(2, 1, 9)), Some(CheckpointId(1)));
}

#[test]
fn what_was_read_while_somebody_wrote_is_contradicted_by_the_same_bytes_too() {
    let script = Path::new(SCRIPT);
    let mut model = Model::new();
    model.open();
    model.play(&[Step::Knows(5), Step::Checkpoint]);
    let from = model.timeline.end();
    model.play(&[Step::Knows(9), Step::Knows(6), Step::Checkpoint]);
    model.timeline.spoil_from(script, from);
    for same in [7, 100] {
        assert_eq!(
            model.resume_point(&edited(2, 1, same)),
            Some(CheckpointId(1))
        );
    }
}

#[test]
fn a_file_that_was_opened_twice_is_not_narrowed() {
    let script = Path::new(SCRIPT);
    let mut timeline = Model::new().timeline;
    for version in [1, 2] {
        let identity = identity(version);
        timeline.record(script, Observation::Content { identity });
    }
    assert!(!timeline.narrow(script, &identity(1), 0));
    assert!(timeline.knows(script, AccessKind::Content));
}

#[test]
fn the_same_bytes_with_another_time_outdate_the_first_look_at_the_time() {
    let script = Path::new(SCRIPT);
    let mut timeline = Model::new().timeline;
    timeline.record(Path::new("/p/other"), Observation::Missing);
    let stat = Observation::Metadata(Metadata {
        kind: FileKind::Regular,
        mode: 0o644,
        identity: identity(1),
    });
    let asked = timeline.record(script, stat);
    timeline.set_fingerprint(script, &identity(1), fingerprint(1));
    let saved_again = |version| Current::File {
        metadata: Metadata {
            kind: FileKind::Regular,
            mode: 0o644,
            identity: identity(version),
        },
        fingerprint: Some(fingerprint(1)),
        agrees: None,
    };
    let now = saved_again(2);
    assert_eq!(timeline.judge(script, &now), Verdict::Unchanged);
    assert_eq!(timeline.outdated(script, &now), Some(asked));
    assert_eq!(timeline.outdated(script, &saved_again(1)), None);
    timeline.rewind(None);
    assert_eq!(timeline.outdated(script, &now), None);
}

#[test]
fn size_and_times_do_not_count_once_the_file_was_read() {
    let script = Path::new(SCRIPT);
    let stat = || {
        Observation::Metadata(Metadata {
            kind: FileKind::Regular,
            mode: 0o644,
            identity: identity(1),
        })
    };
    let read = || Observation::Content {
        identity: identity(1),
    };
    let first = |timeline: &Timeline| timeline.judge(script, &edited(2, 1, 0)).contradiction();
    let empty = || Model::new().timeline;

    let mut by_another = empty();
    let asked = by_another.record_before_reading(script, stat());
    by_another.record(script, read());
    assert_eq!(first(&by_another), Some(asked));

    let mut read_after = empty();
    let asked = read_after.record_before_reading(script, stat());
    assert_eq!(first(&read_after), Some(asked), "it may never be read");
    let opened = read_after.record_before_reading(script, read());
    assert_eq!(first(&read_after), Some(opened));

    let mut asked_after = empty();
    let opened = asked_after.record_before_reading(script, read());
    asked_after.record_before_reading(script, stat());
    assert_eq!(first(&asked_after), Some(opened));
}
