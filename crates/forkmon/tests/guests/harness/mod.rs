//! The small language that the tests with real guests are written in.
//!
//! A [`Project`] is a folder with files, and knows what they should be by now;
//! a [`Forkmon`] is a running `forkmon` on one of its commands, whose events
//! and output are waited for, never slept for; a [`Fresh`] is what a plain run
//! of the same command prints and leaves behind, and so what forkmon has to
//! give after each edit. [`Scenario`] joins the three into the one assertion
//! that most tests make. Nothing in here knows how forkmon works inside: it
//! holds to the command line, the events file and the exit status.

mod event;
mod forkmon;
mod fresh;
mod guest;
mod launch;
mod perl;
mod processes;
mod project;
mod scenario;
mod terminal;

pub use event::Event;
pub use forkmon::Forkmon;
pub use guest::{build_c, find, find_optional, fixture, place, run_tool};
pub use launch::program;
pub use processes::{as_root, children_of, is_stopped};
pub use project::{Project, Save};
pub use scenario::Scenario;
pub use terminal::Terminal;

use std::time::Duration;

/// How long anything is waited for. It is only there to turn a hang into a
/// failure, so it is far longer than anything takes.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The program of a guest, or a visible skip of the test when it is missing.
///
/// `require_guest!("lua5.4")` gives a `Guest`; the test returns when the
/// program is not installed, and fails instead with `FORKMON_REQUIRE_GUESTS=1`.
#[macro_export]
macro_rules! require_guest {
    ($name:expr) => {
        match $crate::harness::find($name) {
            Some(guest) => guest,
            None => return,
        }
    };
}
