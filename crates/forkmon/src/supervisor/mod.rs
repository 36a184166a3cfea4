//! The supervisor: joins tracer, timeline, journal and watch into one loop.

use crate::config::Config;
use crate::events::Events;
use crate::messages::Messages;

/// Runs the guest until forkmon ends; the status to exit with.
///
/// # Errors
///
/// Forkmon's own failures.
pub fn run(_config: &Config, _messages: &mut Messages, _events: &mut Events) -> anyhow::Result<u8> {
    anyhow::bail!("running a guest is not wired yet")
}
