//! What one access and one rewind cost in a short and in a long timeline.
//!
//! Prints a JSON array on stdout, one object a size: nanoseconds per call, each
//! the median of several rounds. `scripts/bench` reads it. Run it with
//! `--release`.

use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use timeline::{
    AccessIndex, AccessKind, Checkpoint, CheckpointId, Current, FileKind, Identity, Limits,
    Metadata, Observation, Timeline,
};

/// How many accesses a rewind drops, and how many calls one round times.
const TAIL: usize = 100;
const ROUNDS: usize = 201;

fn main() {
    let rows: Vec<String> = [1_000, 10_000, 100_000].map(measure).to_vec();
    println!("[\n{}\n]", rows.join(",\n"));
}

fn measure(accesses: usize) -> String {
    let paths: Vec<PathBuf> = (0..accesses)
        .map(|n| PathBuf::from(format!("/home/user/project/src/part{}/file{n}.lua", n % 97)))
        .collect();
    let mut timeline = Timeline::new(Limits {
        share: 0.05,
        max_checkpoints: 32,
        max_memory: u64::MAX,
        allowance: Duration::from_millis(5),
    });
    let body = accesses - TAIL;
    for (n, path) in paths[..body].iter().enumerate() {
        if n % (accesses / 10) == 0 {
            add_checkpoint(&mut timeline, n, path);
        }
        timeline.record(path, observation(n));
    }
    add_checkpoint(&mut timeline, body, &paths[body]);
    let newest = CheckpointId(body as u32);

    let tail = &paths[body..];
    let [
        mut record,
        mut knows,
        mut judge,
        mut due,
        mut resume,
        mut rewind,
    ] = [const { Vec::<f64>::new() }; 6];
    for _ in 0..ROUNDS {
        record.push(per_call(|| {
            for (n, path) in tail.iter().enumerate() {
                timeline.record(path, observation(body + n));
            }
        }));
        // Spread over the whole timeline, so that caches help no size more than
        // its length lets them.
        let spread = || paths.iter().step_by(accesses / TAIL);
        knows.push(per_call(|| {
            for path in spread() {
                black_box(timeline.knows(path, AccessKind::Content));
            }
        }));
        judge.push(per_call(|| {
            for path in spread() {
                black_box(timeline.judge(path, &Current::Missing));
            }
        }));
        due.push(per_call(|| {
            for path in spread() {
                black_box(timeline.checkpoint_due(path, Duration::MAX, Duration::ZERO));
            }
        }));
        resume.push(per_call(|| {
            for n in (0..accesses).step_by(accesses / TAIL) {
                black_box(timeline.resume_point(AccessIndex(n as u64)));
            }
        }));
        let start = Instant::now();
        black_box(timeline.rewind(Some(newest)));
        rewind.push(start.elapsed().as_nanos() as f64);
    }
    // The dearest question: before an unknown path, with no room left and many
    // edits to weigh.
    let mut full = Vec::new();
    fill(&mut timeline, &paths);
    let unknown: Vec<PathBuf> = (0..TAIL)
        .map(|n| PathBuf::from(format!("/home/user/project/src/new/file{n}.lua")))
        .collect();
    for _ in 0..ROUNDS {
        full.push(per_call(|| {
            for path in &unknown {
                black_box(timeline.checkpoint_due(path, Duration::from_secs(3600), Duration::ZERO));
            }
        }));
    }
    format!(
        "  {{\"accesses\": {accesses}, \"record_ns\": {:.1}, \"knows_ns\": {:.1}, \
         \"judge_ns\": {:.1}, \"checkpoint_due_ns\": {:.1}, \"due_when_full_ns\": {:.1}, \
         \"resume_point_ns\": {:.1}, \
         \"rewind_ns\": {:.1}, \"rewind_drops\": {TAIL}}}",
        median(record),
        median(knows),
        median(judge),
        median(due),
        median(full),
        median(resume),
        median(rewind),
    )
}

/// Edits bursts of files all over the timeline, and takes as many checkpoints as
/// there may be.
fn fill(timeline: &mut Timeline, paths: &[PathBuf]) {
    let newest = timeline.checkpoints().next_back().map(|one| one.id);
    for burst in 0..64 {
        for path in paths.iter().skip(burst).step_by(paths.len() / 50) {
            timeline.mark_hot(path);
        }
        timeline.rewind(newest);
    }
    for (n, path) in paths[paths.len() - TAIL..].iter().enumerate() {
        add_checkpoint(timeline, paths.len() + n, path);
        timeline.record(path, observation(n));
    }
}

fn observation(n: usize) -> Observation {
    let identity = Identity {
        device: 1,
        inode: n as u64,
        size: 4096,
        mtime_ns: n as i128,
        ctime_ns: n as i128,
    };
    if n.is_multiple_of(2) {
        Observation::Content { identity }
    } else {
        Observation::Metadata(Metadata {
            kind: FileKind::Regular,
            mode: 0o644,
            identity,
        })
    }
}

fn add_checkpoint(timeline: &mut Timeline, n: usize, path: &Path) {
    timeline.add_checkpoint(Checkpoint {
        id: CheckpointId(n as u32),
        path: Some(path.to_owned()),
        wanted: false,
        guest_time: Duration::from_millis(n as u64),
        cost: Duration::from_micros(100),
        memory: 1 << 20,
        depth: 0,
    });
}

/// Nanoseconds per call, of `TAIL` calls.
fn per_call(calls: impl FnOnce()) -> f64 {
    let start = Instant::now();
    calls();
    start.elapsed().as_nanos() as f64 / TAIL as f64
}

fn median(mut samples: Vec<f64>) -> f64 {
    samples.sort_by(f64::total_cmp);
    samples[samples.len() / 2]
}
