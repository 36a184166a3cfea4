//! What an edit contradicts, held against a model that is too simple to be
//! wrong: a small world of files whose bytes the model knows, and a plain list
//! of everything that the guest learned in it. The timeline sees only what a
//! supervisor would see: identities, and the fingerprints it was given.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use proptest::prelude::*;
use timeline::{
    AccessIndex, AccessKind, Checkpoint, CheckpointId, Current, FileKind, Fingerprint, Identity,
    Limits, Metadata, Observation, Timeline, Verdict,
};

const FOLDER: &str = "/p";
const FILES: usize = 3;

/// A file of the world.
#[derive(Copy, Clone, PartialEq, Debug)]
struct File {
    bytes: u8,
    mode: u32,
    inode: u64,
    mtime: i128,
    ctime: i128,
}

impl File {
    fn identity(&self) -> Identity {
        Identity {
            device: 1,
            inode: self.inode,
            // Two of the three contents have the same size.
            size: u64::from(self.bytes / 2),
            mtime_ns: self.mtime,
            ctime_ns: self.ctime,
        }
    }

    fn metadata(&self) -> Metadata {
        Metadata {
            kind: FileKind::Regular,
            mode: self.mode,
            identity: self.identity(),
        }
    }

    fn fingerprint(&self) -> Fingerprint {
        [self.bytes; 32]
    }
}

#[derive(Clone, Debug)]
enum Op {
    /// The guest looks at a file in one of its ways.
    Look(usize, AccessKind),
    /// The guest lists the folder.
    List,
    /// The hash of a file comes in.
    Hash(usize),
    /// A person saves bytes: in place, or by a rename.
    Save(usize, u8, bool),
    /// A person changes the mode.
    Chmod(usize, u32),
    /// A person removes a file.
    Remove(usize),
    /// The guest writes bytes, or removes the file.
    Write(usize, Option<u8>),
    /// A file event came too early.
    Spoil(usize),
    Checkpoint,
    /// Rewinds to one of the checkpoints, or to the start.
    Rewind(usize),
    Bar,
    Evict,
}

fn op() -> impl Strategy<Value = Op> {
    let file = || 0..FILES;
    let look = prop_oneof![
        Just(AccessKind::Content),
        Just(AccessKind::Program),
        Just(AccessKind::Metadata)
    ];
    prop_oneof![
        8 => (file(), look).prop_map(|(at, kind)| Op::Look(at, kind)),
        2 => Just(Op::List),
        4 => file().prop_map(Op::Hash),
        6 => (file(), 1..4_u8, any::<bool>()).prop_map(|(at, bytes, by)| Op::Save(at, bytes, by)),
        1 => (file(), prop_oneof![Just(0o644), Just(0o755)]).prop_map(|(at, to)| Op::Chmod(at, to)),
        1 => file().prop_map(Op::Remove),
        2 => (file(), proptest::option::of(1..4_u8)).prop_map(|(at, to)| Op::Write(at, to)),
        1 => file().prop_map(Op::Spoil),
        3 => Just(Op::Checkpoint),
        1 => (0..6_usize).prop_map(Op::Rewind),
        1 => prop_oneof![Just(Op::Bar), Just(Op::Evict)],
    ]
}

/// What the guest learned, as the model remembers it.
#[derive(Clone, PartialEq, Debug)]
enum Learned {
    Bytes { bytes: u8, spoiled: bool },
    Stat(File),
    Missing,
    Names(BTreeSet<OsString>),
}

#[derive(Clone, PartialEq, Debug)]
struct Memory {
    index: AccessIndex,
    /// The model step in which it was learned.
    step: usize,
    path: PathBuf,
    learned: Learned,
}

/// The world, the guest's memory of it, and the timeline under test.
struct Play {
    timeline: Timeline,
    world: [Option<File>; FILES],
    clock: i128,
    memory: Vec<Memory>,
    /// Where the guest first wrote a file, in numbers of model steps, and what
    /// was there before.
    own: BTreeMap<usize, (usize, Option<File>)>,
    /// Files that a person changed after the guest wrote them.
    foreign: BTreeSet<usize>,
    /// Checkpoints: id, and the number of model steps before it.
    marks: Vec<(CheckpointId, usize, usize)>,
    steps: usize,
    next_id: u32,
    hash_everything: bool,
}

fn path(at: usize) -> PathBuf {
    Path::new(FOLDER).join(name(at))
}

fn name(at: usize) -> OsString {
    OsString::from(format!("file{at}"))
}

impl Play {
    fn new(world: [Option<u8>; FILES], hash_everything: bool) -> Self {
        let mut play = Self {
            timeline: Timeline::new(Limits {
                share: 1.0,
                max_checkpoints: 4,
                max_memory: 1_000,
                allowance: Duration::from_secs(1),
            }),
            world: [None; FILES],
            clock: 0,
            memory: Vec::new(),
            own: BTreeMap::new(),
            foreign: BTreeSet::new(),
            marks: Vec::new(),
            steps: 0,
            next_id: 0,
            hash_everything,
        };
        for (at, bytes) in world.into_iter().enumerate() {
            if let Some(bytes) = bytes {
                play.put(at, bytes, true);
            }
        }
        play
    }

    fn put(&mut self, at: usize, bytes: u8, by_rename: bool) {
        self.clock += 1;
        let clock = self.clock;
        let old = self.world[at].filter(|_| !by_rename);
        self.world[at] = Some(File {
            bytes,
            mode: self.world[at].map_or(0o644, |old| old.mode),
            inode: old.map_or(clock as u64, |old| old.inode),
            mtime: clock,
            ctime: clock,
        });
    }

    fn names(&self) -> BTreeSet<OsString> {
        let there = (0..FILES).filter(|&at| self.world[at].is_some());
        there.map(name).collect()
    }

    fn folder(&self) -> Current {
        Current::Folder {
            metadata: Metadata {
                kind: FileKind::Folder,
                mode: 0o755,
                identity: Identity {
                    device: 1,
                    inode: 1,
                    size: 0,
                    mtime_ns: self.clock,
                    ctime_ns: self.clock,
                },
            },
            names: Some(self.names()),
        }
    }

    fn now(&self, at: usize) -> Current {
        match self.world[at] {
            None => Current::Missing,
            Some(file) => Current::File {
                metadata: file.metadata(),
                fingerprint: Some(file.fingerprint()),
                agrees: None,
            },
        }
    }

    fn record(&mut self, path: &Path, seen: Observation, learned: Learned) {
        let kind = seen.kind();
        let before = self.timeline.end();
        let index = self.timeline.record(path, seen);
        assert!(index < self.timeline.end() || self.is_own(path));
        assert!(self.timeline.knows(path, kind));
        assert!(self.timeline.end().0 - before.0 <= 1);
        if !self.is_own(path) {
            self.memory.push(Memory {
                index,
                step: self.steps,
                path: path.to_owned(),
                learned,
            });
        }
    }

    fn is_own(&self, of: &Path) -> bool {
        self.own.keys().any(|&at| path(at) == of)
    }

    fn hash(&mut self, at: usize) {
        if let Some(file) = self.world[at] {
            self.timeline
                .set_fingerprint(&path(at), &file.identity(), file.fingerprint());
        }
    }

    fn edited(&mut self, at: usize) {
        if self.own.contains_key(&at) {
            self.foreign.insert(at);
        }
    }

    fn step(&mut self, op: &Op) {
        self.steps += 1;
        match *op {
            Op::Look(at, kind) => {
                let (seen, learned) = match self.world[at] {
                    None => (Observation::Missing, Learned::Missing),
                    Some(file) => {
                        let identity = file.identity();
                        let bytes = Learned::Bytes {
                            bytes: file.bytes,
                            spoiled: false,
                        };
                        match kind {
                            AccessKind::Content => (Observation::Content { identity }, bytes),
                            AccessKind::Program => (Observation::Program { identity }, bytes),
                            _ => (Observation::Metadata(file.metadata()), Learned::Stat(file)),
                        }
                    }
                };
                self.record(&path(at), seen, learned);
                if self.hash_everything {
                    self.hash(at);
                    assert!(!self.timeline.needs_fingerprint(&path(at)));
                }
            }
            Op::List => {
                let names = self.names();
                let seen = Observation::Listing(names.clone());
                self.record(Path::new(FOLDER), seen, Learned::Names(names));
            }
            Op::Hash(at) => self.hash(at),
            Op::Save(at, bytes, by_rename) => {
                self.put(at, bytes, by_rename);
                self.edited(at);
            }
            Op::Chmod(at, mode) => {
                if let Some(file) = &mut self.world[at] {
                    self.clock += 1;
                    (file.mode, file.ctime) = (mode, self.clock);
                    self.edited(at);
                }
            }
            Op::Remove(at) => {
                if self.world[at].take().is_some() {
                    self.edited(at);
                }
            }
            Op::Write(at, bytes) => {
                let before = self.world[at];
                self.own.entry(at).or_insert((self.steps, before));
                self.timeline.wrote(&path(at));
                // What the guest writes over a person's change is its own again.
                self.foreign.remove(&at);
                match bytes {
                    Some(bytes) => self.put(at, bytes, false),
                    None => self.world[at] = None,
                }
            }
            Op::Spoil(at) => {
                self.timeline.spoil(&path(at));
                for memory in &mut self.memory {
                    if let Learned::Bytes { spoiled, .. } = &mut memory.learned
                        && memory.path == path(at)
                    {
                        *spoiled = true;
                    }
                }
            }
            Op::Checkpoint => {
                let id = CheckpointId(self.next_id);
                self.next_id += 1;
                let dropped = self.timeline.add_checkpoint(Checkpoint {
                    id,
                    path: Some(path(self.steps % FILES)),
                    wanted: false,
                    guest_time: Duration::from_millis(self.steps as u64),
                    cost: Duration::from_millis(1),
                    memory: 10,
                    depth: 0,
                });
                self.marks.push((id, self.steps, self.memory.len()));
                self.forget(&dropped);
            }
            Op::Rewind(nth) => {
                let to = self.marks.get(nth).copied();
                let dropped = self.timeline.rewind(to.map(|(id, ..)| id));
                let (step, kept) = to.map_or((0, 0), |(_, step, kept)| (step, kept));
                self.forget(&dropped);
                self.memory.truncate(kept);
                let undone: Vec<usize> = self
                    .own
                    .iter()
                    .filter(|(_, (since, _))| *since > step)
                    .map(|(&at, _)| at)
                    .collect();
                for at in undone {
                    // The journal puts back what was there, unless somebody has
                    // changed it since.
                    if let Some((_, before)) = self.own.remove(&at)
                        && !self.foreign.remove(&at)
                    {
                        self.world[at] = before;
                        if let Some(before) = before {
                            self.put(at, before.bytes, true);
                        }
                    }
                }
            }
            Op::Bar => {
                let dropped = self.timeline.bar();
                self.forget(&dropped);
                assert_eq!(self.marks, []);
            }
            Op::Evict => {
                let evicted = self.timeline.evict_one();
                assert_eq!(evicted.is_some(), !self.marks.is_empty());
                self.forget(&evicted.into_iter().collect::<Vec<_>>());
            }
        }
    }

    fn forget(&mut self, dropped: &[CheckpointId]) {
        let before = self.marks.len();
        self.marks.retain(|(id, ..)| !dropped.contains(id));
        assert_eq!(self.marks.len() + dropped.len(), before);
    }

    /// The first thing that the guest learned about a path that is not so now.
    fn first_untrue(&self, about: &Path) -> Option<AccessIndex> {
        self.memory
            .iter()
            .filter(|memory| memory.path == about)
            .find(|memory| !self.still_true(memory))
            .map(|memory| memory.index)
    }

    fn still_true(&self, memory: &Memory) -> bool {
        let file = (0..FILES)
            .find(|&at| path(at) == memory.path)
            .and_then(|at| self.world[at]);
        match (&memory.learned, file) {
            (Learned::Bytes { bytes, spoiled }, Some(now)) => !spoiled && *bytes == now.bytes,
            (Learned::Stat(then), Some(now)) => {
                let same_stat =
                    then.identity().size == now.identity().size && then.mtime == now.mtime;
                then.mode == now.mode && (same_stat || then.bytes == now.bytes)
            }
            (Learned::Missing, now) => now.is_none(),
            (Learned::Names(then), _) => (0..FILES)
                .filter(|at| !self.own.contains_key(at))
                .all(|at| then.contains(&name(at)) == self.world[at].is_some()),
            (Learned::Bytes { .. } | Learned::Stat(_), None) => false,
        }
    }

    /// Holds every verdict against the model.
    fn check(&self) {
        let folder = Path::new(FOLDER);
        let listed = self.memory.iter().any(|memory| memory.path == folder);
        assert_eq!(self.timeline.touched(folder), listed);
        assert_eq!(self.timeline.wants_names(folder), listed);
        let verdict = self.timeline.judge(folder, &self.folder());
        assert_eq!(verdict.contradiction(), self.first_untrue(folder));
        assert_eq!(verdict == Verdict::Untouched, !listed);

        for at in 0..FILES {
            let (path, now) = (path(at), self.now(at));
            let touched = self.memory.iter().any(|memory| memory.path == path);
            assert_eq!(self.timeline.touched(&path), touched);
            self.check_times(at, &now);
            let verdict = self.timeline.judge(&path, &now);
            let foreign = self.timeline.judge_foreign(&path, &now);
            if let Some((wrote, _)) = self.own.get(&at) {
                assert_eq!(verdict, Verdict::Untouched);
                let first_touch = self.memory.iter().find(|memory| {
                    memory.path == path || memory.step < *wrote && self.listed_otherwise(memory, at)
                });
                assert_eq!(
                    foreign.contradiction(),
                    first_touch.map(|memory| memory.index)
                );
                continue;
            }
            assert_eq!(foreign, verdict);
            assert_eq!(verdict == Verdict::Untouched, !touched);
            self.check_against_model(&path, verdict);
        }
    }

    /// Which look saw other times than there are now; and a run that is resumed before
    /// it has seen no others.
    fn check_times(&self, at: usize, now: &Current) {
        let path = path(at);
        let of_path = || self.memory.iter().filter(|memory| memory.path == path);
        let first_touch = of_path().map(|memory| memory.index).min();
        assert_eq!(self.timeline.first_touch(&path), first_touch);
        let is_own = self.own.contains_key(&at);
        let has_stat = of_path().any(|memory| matches!(memory.learned, Learned::Stat(_)));
        assert_eq!(self.timeline.knows_file(&path), has_stat && !is_own);
        let is_other = |memory: &&Memory| match (&memory.learned, self.world[at]) {
            (Learned::Stat(then), Some(now)) => then.mtime != now.mtime,
            _ => false,
        };
        let outdated = of_path().find(is_other).map(|memory| memory.index);
        let outdated = outdated.filter(|_| !is_own);
        assert_eq!(self.timeline.outdated(&path, now), outdated);
        if let Some(first) = outdated {
            let mut resumed = self.timeline.clone();
            resumed.rewind(resumed.resume_point(first));
            assert_eq!(resumed.outdated(&path, now), None);
        }
    }

    fn listed_otherwise(&self, memory: &Memory, at: usize) -> bool {
        match &memory.learned {
            Learned::Names(names) => names.contains(&name(at)) != self.world[at].is_some(),
            _ => false,
        }
    }

    fn check_against_model(&self, path: &Path, verdict: Verdict) {
        let untrue = self.first_untrue(path);
        match (untrue, verdict.contradiction()) {
            // A contradiction is never missed, nor found too late …
            (Some(untrue), found) => assert!(found.is_some_and(|found| found <= untrue)),
            // … and one that is none only found where hashes are missing.
            (None, found) => assert!(found.is_none() || !self.hash_everything),
        }
        let spoiled = self.memory.iter().any(|memory| {
            memory.path == path && matches!(memory.learned, Learned::Bytes { spoiled: true, .. })
        });
        // A spoiled file takes no more fingerprints, so that its metadata may be
        // contradicted too early; else the verdict is exact.
        if self.hash_everything && !spoiled {
            assert_eq!(verdict.contradiction(), untrue);
        }
        if let Some(first) = verdict.contradiction()
            && let Some(id) = self.timeline.resume_point(first)
        {
            let position = self.timeline.position_of(id);
            assert!(position.is_some_and(|position| position <= first));
            // It is the newest of those.
            for later in self
                .marks
                .iter()
                .skip_while(|(mark, ..)| *mark != id)
                .skip(1)
            {
                assert!(self.timeline.position_of(later.0) > Some(first));
            }
        }
    }
}

fn world() -> impl Strategy<Value = [Option<u8>; FILES]> {
    [(); FILES].map(|()| proptest::option::weighted(0.7, 1..4_u8))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, ..ProptestConfig::default() })]

    #[test]
    fn verdicts_agree_with_a_model_that_knows_all_bytes(
        world in world(),
        hash_everything in any::<bool>(),
        ops in proptest::collection::vec(op(), 1..60),
    ) {
        let mut play = Play::new(world, hash_everything);
        for op in &ops {
            play.step(op);
            play.check();
        }
    }

    #[test]
    fn an_edit_back_and_forth_contradicts_nothing(
        world in world(),
        looks in proptest::collection::vec(op(), 1..20),
        edits in proptest::collection::vec((0..FILES, proptest::option::of(1..4_u8)), 1..10),
    ) {
        let mut play = Play::new(world, true);
        for op in looks {
            if matches!(op, Op::Look(..) | Op::List | Op::Checkpoint) {
                play.step(&op);
            }
        }
        let before = play.world;
        for (at, bytes) in edits {
            play.step(&bytes.map_or(Op::Remove(at), |bytes| Op::Save(at, bytes, true)));
        }
        for (at, file) in before.into_iter().enumerate() {
            play.step(&file.map_or(Op::Remove(at), |file| Op::Save(at, file.bytes, false)));
            prop_assert_eq!(play.timeline.judge(&path(at), &play.now(at)).contradiction(), None);
        }
        let folder = play.timeline.judge(Path::new(FOLDER), &play.folder());
        prop_assert_eq!(folder.contradiction(), None);
    }
}
