//! The `forkmon` command: it resumes a program from the middle when a file that
//! it read is edited.
//!
//! ```text
//!   what was typed      what it means          what is done
//!   cli ──────────────► config ──────────────► supervisor ──► messages (a person)
//!                         └─ scope               │       └──► events (a program)
//!                              └─ lua_pattern    ├─► guardian (cleans up after SIGKILL)
//!                                                └─◄ control, keys (what is asked for)
//! ```
//!
//! Invariants:
//! - nothing after [`config`] looks at the command line or the environment for
//!   options;
//! - the kernel's tricks are in the crates `tracee` and `snapshot`, the rules
//!   about accesses and edits in `timeline`: this crate only joins them.

pub mod cli;
pub mod config;
pub mod control;
pub mod demo;
pub mod events;
pub mod guardian;
pub mod input;
pub mod keys;
pub mod lua_pattern;
pub mod messages;
pub mod output;
pub mod scope;
pub mod supervisor;
mod sys;
