//! Freezes running processes and resumes them, any number of times.
//!
//! # Theory of operation
//!
//! A checkpoint is a process that never runs: every thread of the guest is
//! stopped, what fork does not copy is read, and the guest's first thread is
//! made to call `clone` without flags. The child is the frozen [`Image`]: it
//! shares all unchanged memory with the guest, which goes on as if nothing had
//! happened. To resume, the image is made to call `clone` in its turn; the
//! child gets threads, kernel state, file offsets and registers as they were,
//! and runs.
//!
//! ```text
//!   guest ──clone──► image (frozen) ──clone──► guest of the next run
//!     │ runs on         │ stays                   │ runs
//!     ▼                 ▼                         ▼
//! ```
//!
//! # Invariants
//!
//! - A refused or failed [`freeze`] leaves the guest as it was.
//! - What cannot be restored faithfully is a [`Refusal`] when the checkpoint is
//!   taken, never a surprise after the resume.
//! - Task ids that the guest has seen stay the same for it: [`Ids`] maps between
//!   those and the kernel's.
//!
//! This crate does not know what a watched file is, nor when a checkpoint is
//! worth its cost. What cannot be brought back is listed in
//! `docs/limits.md`.

mod fds;
mod filter;
mod freeze;
mod guest;
mod holders;
mod ids;
mod image;
mod memory;
mod neighbours;
mod process;
mod procfs;
mod refusal;
mod resume;
mod scheduling;
mod scratch;
mod sys;
mod thread;
mod threads;
mod timers;

pub use fds::{HeldFile, Inherited, Moved, OnConnection};
pub use freeze::{Frozen, freeze};
pub use guest::{Guest, Hazard};
pub use holders::{map, writers};
pub use ids::{Ids, VirtualPid};
pub use image::Image;
pub use refusal::Refusal;
pub use resume::Resumed;

/// Entry points for fuzzing.
#[cfg(fuzzing)]
pub mod fuzzing {
    /// Reads a text as each of the files of `/proc` that are parsed.
    pub fn parse_proc_text(text: &str) {
        let _ = crate::procfs::parse_stat(text);
        let _ = crate::procfs::parse_status(text);
        let _ = crate::procfs::parse_fdinfo(text);
        let _ = crate::procfs::parse_timers(text);
        let _ = crate::process::parse_locked(text);
        let _ = crate::memory::parse_made_by(text, 1);
        let _ = crate::memory::parse_mappings(text);
    }
}
