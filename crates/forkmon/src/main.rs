//! The `forkmon` command: one match over what it was asked to be.

use std::process::ExitCode;
use std::time::Instant;

use anyhow::Context as _;

use forkmon::cli::{self, Mode, RunArgs};
use forkmon::config::{Config, Environment};
use forkmon::events::Events;
use forkmon::keys::{self, When};
use forkmon::messages::Messages;
use forkmon::{control, demo, guardian, supervisor};

/// What forkmon exits with when it failed itself.
const OWN_FAILURE: u8 = 125;

fn main() -> ExitCode {
    let started = Instant::now();
    std::panic::set_hook(Box::new(|fault| end_at(&fault.to_string())));
    let status = match cli::parse(std::env::args_os()) {
        Ok(Mode::Run(typed)) => run(&typed, started),
        Ok(Mode::Demo(typed)) => demo::run(&typed),
        Ok(Mode::Ctl(typed)) => {
            Environment::of_this_process().map(|here| control::client::run(&typed, &here))
        }
        Ok(Mode::Guardian) => guardian::serve(),
        Ok(Mode::DemoGuest(typed)) => demo::guest(&typed),
        Ok(Mode::Answered) => Ok(0),
        Err(refused) => {
            Messages::before_options().error(&refused.to_string());
            Ok(refused.status())
        }
    };
    match status {
        Ok(status) => ExitCode::from(status),
        Err(error) => {
            Messages::before_options().error(&format!("{error:#}"));
            ExitCode::from(OWN_FAILURE)
        }
    }
}

/// A fault of forkmon's own, in any of its threads, is the end: a run that nobody
/// watches any more would be wrong without a word. The kernel kills the guest,
/// and the guardian removes what lies about.
fn end_at(fault: &str) {
    supervisor::restore_terminal();
    Messages::before_options().error(&format!(
        "a fault in forkmon itself, please report it: {fault}"
    ));
    std::process::exit(OWN_FAILURE.into());
}

fn run(typed: &RunArgs, started: Instant) -> anyhow::Result<u8> {
    let config = Config::new(typed, &Environment::of_this_process()?)?;
    let mut messages = Messages::new(config.color, config.quiet, &config.cwd);
    let mut events = Events::open(config.events.as_deref(), started).with_context(|| {
        let path = config.events.clone().unwrap_or_default();
        format!(
            "cannot open the file of --events, {}; give one that can be written",
            path.display()
        )
    })?;
    // A run that nobody watches is asked for nothing.
    keys::take_input(if config.once { When::Off } else { config.keys })?;
    supervisor::run(&config, &mut messages, &mut events)
}
