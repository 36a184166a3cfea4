//! Real guests under the real `forkmon`: each test runs a program, edits a file
//! that it read late, and compares what follows with a fresh run.
//!
//! The guests' programs are looked for at run time. A missing one skips its
//! tests, visibly, unless `FORKMON_REQUIRE_GUESTS=1`; see `scripts/test`.

mod harness;

mod accesses;
mod births;
mod children;
mod descriptors;
mod editors;
mod effects;
mod endurance;
mod go;
mod inodes;
mod input;
mod jvm;
mod kept;
mod lifecycle;
mod limits;
mod lookups;
mod lua;
mod messages;
mod metadata;
mod moments;
mod node;
mod output;
mod own_names;
mod perl;
mod pieces;
mod python;
mod quitting;
mod regressions;
mod replay_stress;
mod restarts;
mod ruby;
mod screen;
mod servers;
mod state;
mod static_c;
mod stress;
mod tcc;
mod threads;
mod undoing;
mod unreadable;
mod virtual_ids;
