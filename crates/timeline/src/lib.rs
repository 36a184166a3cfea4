//! What a program learned from the file system, what an edit contradicts, and
//! where its checkpoints go.
//!
//! # Mental model
//!
//! A *run* is a story that the guest tells by asking the file system questions.
//! Every answer it got is an *access*: one fact, with a place in the order of
//! the run. The accesses, with the checkpoints between them, are the
//! [`Timeline`]. When somebody edits a file, the facts about its path are held
//! against what it is [now](Current). The first one that no longer holds is
//! where a fresh run would have gone another way; all before it would have been
//! the same. So the run is *rewound* to the newest checkpoint at or before that
//! access, and resumed from there.
//!
//! ```text
//!   access        0        1        2        3        4        5
//!   path        main     util/    util/a   conf     util/b   conf
//!   fact       content  listing  content  missing  content  content
//!           ●───┬────────┬───▲────┬────────┬────▲───┬────────┬────▶ now
//!         start               │                  │
//!                        checkpoint 7       checkpoint 8
//!                        position 2         position 4
//!
//!   edit of util/b: first contradiction 4 → resume 8, drop 4 and 5
//!   edit of conf:   first contradiction 3 → resume 7, drop 2 to 5, and 8
//!   edit of main:   first contradiction 0 → restart
//! ```
//!
//! A checkpoint has the position of the access that it stands *before*, so it
//! serves every contradiction at its position or after it.
//!
//! # What is here
//!
//! | file | noun |
//! |---|---|
//! | `access` | what the guest can learn ([`Observation`]) and what a path is now ([`Current`]) |
//! | `rules` | whether one fact still holds: the table of contradictions |
//! | `history` | all facts about one path |
//! | `knowledge` | all histories, and what an edit contradicts |
//! | `checkpoint` | a checkpoint and its limits, as the caller gives them |
//! | `placed` | a checkpoint in its place, and what would resume from it |
//! | `placement` | when a checkpoint is due, and the shelf that holds them |
//! | `odds` | which path the next edit may be to |
//! | `thinning` | which checkpoint costs least to lose |
//! | `timeline` | the order of the facts, and going back in it |
//!
//! Nothing here does I/O, reads a clock or calls the kernel: the caller brings
//! times, fingerprints and memory sizes, and carries out what it is told.
//!
//! # Invariants
//!
//! - **Never wrong, at worst slower.** Where it cannot be proved that a fact
//!   still holds (no fingerprint, a file changed while it was read), it counts
//!   as contradicted.
//! - The same bytes contradict nothing: a file that was edited and edited back
//!   is unchanged.
//! - A checkpoint handed out by [`Timeline::resume_point`] never stands after
//!   the contradiction that was asked about.
//! - After each [`Timeline::add_checkpoint`], and once the returned ones are
//!   dropped, neither limit is exceeded; the checkpoints before the files of the
//!   last edits are not given up while another one is left, as long as they are no
//!   more than half. Beyond that, the one goes whose loss costs the least
//!   expected guest time.
//! - Rewinding leaves exactly the timeline as it was when the checkpoint was
//!   taken, but for what has been learned since about it: fingerprints, spoiled
//!   files, hot files, dropped checkpoints.
//! - One access costs the same in a long timeline as in a short one; a rewind
//!   costs what it drops.

mod access;
mod checkpoint;
mod history;
mod knowledge;
mod odds;
mod placed;
mod placement;
mod rules;
mod thinning;
mod timeline;

pub use access::{
    AccessIndex, AccessKind, Current, FileKind, Fingerprint, Identity, Metadata, Observation,
};
pub use checkpoint::{Checkpoint, CheckpointId, Limits};
pub use rules::{ChangeKind, Verdict};
pub use timeline::{Access, Timeline};
