//! The configuration: what the command line and the environment mean together.
//!
//! Plain data, fully resolved: whoever reads it needs no default, no environment
//! variable and no working folder any more. How single values are written is
//! settled in [`crate::cli`].

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;

use crate::cli::{Effects, OnConnection, Precision, RunArgs, WithinFile};
use crate::input;
use crate::keys::When;
use crate::messages::Color;
use crate::output;
use crate::scope::{self, Scope};

const DEFAULT_DELAY: Duration = Duration::from_millis(5);
const DEFAULT_STOP_TIMEOUT: Duration = Duration::from_secs(3);
const DEFAULT_BUDGET: f64 = 0.05;
const DEFAULT_MAX_CHECKPOINTS: usize = 32;
const DEFAULT_JOURNAL_LIMIT: u64 = 1 << 30;
const DEFAULT_OUTPUT_LIMIT: u64 = 16 << 20;

/// All that a run of forkmon needs to know from the person who started it.
#[derive(Debug, Clone)]
pub struct Config {
    /// The guest's command and arguments; never empty.
    pub command: Vec<OsString>,
    /// The working folder, absolute. It is the guest's, too.
    pub cwd: PathBuf,
    /// The paths whose accesses count.
    pub scope: Scope,
    /// Do not watch; exit with the guest's status.
    pub once: bool,
    /// Quiet time after the last file event before acting on it. May be zero.
    pub delay: Duration,
    /// For this long after a resume, changes are gathered, and acted upon
    /// together when it has passed. Zero unless `FORKMON_IGNORE_DELAY` is set.
    ///
    /// The C tool ignored what happened in this time, because it could not tell
    /// the guest's own writes and the many events of one save from edits.
    /// Forkmon can, and loses no edit; what remains of the variable's meaning is
    /// that a batch of saves leads to one resume.
    pub ignore_delay: Duration,
    /// How much of the guest's running time checkpoints may take: 0.05 is 5 %.
    pub budget: f64,
    /// The most checkpoints to keep; at least 1.
    pub max_checkpoints: usize,
    /// The most memory that the checkpoints may add, in bytes.
    pub max_memory: u64,
    /// The signal that a dropped run is asked to end with; `None` kills it
    /// outright.
    pub stop_signal: Option<i32>,
    /// How long a run may take to end after it was asked to.
    pub stop_timeout: Duration,
    /// Where the events go.
    pub events: Option<PathBuf>,
    /// The socket to be controlled by, if one was named; otherwise it has a
    /// place of its own.
    pub control: Option<PathBuf>,
    /// `$XDG_RUNTIME_DIR`, where the socket's own place is if this folder is
    /// private.
    pub runtime_dir: Option<PathBuf>,
    /// What becomes of what a dropped run did to files.
    pub effects: Effects,
    /// The most bytes of files that are copied in order to undo.
    pub journal_limit: u64,
    /// `$XDG_STATE_HOME`, where files lie that may be somebody's and have no place.
    pub state_dir: Option<PathBuf>,
    /// What becomes of the guest's connections to others.
    pub on_connection: OnConnection,
    /// Where the guest's input comes from, if something was said.
    pub stdin: Option<input::Mode>,
    /// What becomes of the guest's output.
    pub output: output::Options,
    /// Whether to resume in the middle of files.
    pub within_file: WithinFile,
    /// What counts of a file's metadata.
    pub metadata: Precision,
    /// When keys are read from the terminal.
    pub keys: When,
    /// Say nothing but forkmon's own failures.
    pub quiet: bool,
    /// When to colour the messages.
    pub color: Color,
}

/// What forkmon reads from its surroundings, so that tests can make their own.
#[derive(Debug, Clone, Default)]
pub struct Environment {
    /// The working folder, absolute.
    pub cwd: PathBuf,
    /// The working folder as the shell calls it.
    pub pwd: Option<PathBuf>,
    /// The home folder.
    pub home: Option<PathBuf>,
    /// `$XDG_RUNTIME_DIR`.
    pub runtime_dir: Option<PathBuf>,
    /// `$XDG_STATE_HOME`, or what it is by default.
    pub state_dir: Option<PathBuf>,
    /// Main memory of the machine, in bytes.
    pub memory: u64,
    /// `FORKMON_FILTER`
    pub filter: Option<OsString>,
    /// `FORKMON_QUIET`
    pub quiet: Option<OsString>,
    /// `FORKMON_NO_COLORS`
    pub no_colors: Option<OsString>,
    /// `FORKMON_RESTART_DELAY`
    pub restart_delay: Option<OsString>,
    /// `FORKMON_IGNORE_DELAY`
    pub ignore_delay: Option<OsString>,
}

impl Environment {
    /// The surroundings of this process.
    ///
    /// # Errors
    ///
    /// When the working folder is gone or cannot be reached.
    pub fn of_this_process() -> anyhow::Result<Self> {
        let system = rustix::system::sysinfo();
        let set = |name| std::env::var_os(name);
        Ok(Self {
            cwd: std::env::current_dir()
                .context("cannot find the working folder; was it removed? `cd` to another")?,
            pwd: set("PWD").map(PathBuf::from),
            state_dir: set("XDG_STATE_HOME")
                .map(PathBuf::from)
                .or_else(|| Some(std::env::home_dir()?.join(".local/state")))
                .filter(|folder| folder.is_absolute()),
            home: std::env::home_dir(),
            runtime_dir: set("XDG_RUNTIME_DIR").map(PathBuf::from),
            // The kernel's types differ between architectures.
            #[expect(clippy::useless_conversion, reason = "not useless on 32 bits")]
            memory: u64::from(system.totalram).saturating_mul(u64::from(system.mem_unit)),
            filter: set("FORKMON_FILTER"),
            quiet: set("FORKMON_QUIET"),
            no_colors: set("FORKMON_NO_COLORS"),
            restart_delay: set("FORKMON_RESTART_DELAY"),
            ignore_delay: set("FORKMON_IGNORE_DELAY"),
        })
    }
}

impl Config {
    /// Puts together what was typed and what is set; what was typed wins.
    ///
    /// # Errors
    ///
    /// A malformed glob, pattern or environment variable, named with its remedy.
    pub fn new(typed: &RunArgs, environment: &Environment) -> anyhow::Result<Self> {
        // Read even where an option wins: a wrong value is a mistake anyway.
        let restart_delay = milliseconds(
            "FORKMON_RESTART_DELAY",
            environment.restart_delay.as_deref(),
        )?;
        let ignore_delay =
            milliseconds("FORKMON_IGNORE_DELAY", environment.ignore_delay.as_deref())?;
        let scope = Scope::new(&scope::Request {
            cwd: environment.cwd.clone(),
            cwd_by_name: environment.pwd.clone(),
            home: environment.home.clone(),
            watch: typed.watch.clone(),
            filters: typed.filter.clone(),
            extensions: typed.exts.clone(),
            ignores: typed.ignore.clone(),
            patterns: environment.filter.clone(),
        })?;
        Ok(Self {
            command: typed.command.clone(),
            scope,
            once: typed.once,
            delay: typed.delay.or(restart_delay).unwrap_or(DEFAULT_DELAY),
            ignore_delay: ignore_delay.unwrap_or_default(),
            budget: typed.budget.unwrap_or(DEFAULT_BUDGET),
            max_checkpoints: typed.max_checkpoints.unwrap_or(DEFAULT_MAX_CHECKPOINTS),
            max_memory: typed.max_memory.unwrap_or(environment.memory / 4),
            stop_signal: typed.stop_signal.map(|signal| signal.0),
            stop_timeout: typed.stop_timeout.unwrap_or(DEFAULT_STOP_TIMEOUT),
            events: typed
                .events
                .as_deref()
                .map(|events| environment.cwd.join(events)),
            control: typed
                .control
                .as_deref()
                .map(|socket| environment.cwd.join(socket)),
            runtime_dir: environment.runtime_dir.clone(),
            effects: typed.effects.unwrap_or_default(),
            journal_limit: typed.journal_limit.unwrap_or(DEFAULT_JOURNAL_LIMIT),
            state_dir: environment.state_dir.clone(),
            on_connection: typed.on_connection.unwrap_or_default(),
            stdin: match typed.stdin {
                // Nobody goes back in a run that nobody watches.
                None | Some(input::Mode::Replay) if typed.once => Some(input::Mode::Inherit),
                stdin => stdin,
            },
            output: output::Options {
                // Nobody goes back in a run that nobody watches.
                mode: match typed.output {
                    Some(mode) if !typed.once => mode,
                    _ => output::Mode::Live,
                },
                clear: typed.clear,
                limit: typed
                    .output_limit
                    .unwrap_or(DEFAULT_OUTPUT_LIMIT)
                    .try_into()
                    .unwrap_or(usize::MAX),
            },
            within_file: typed.within_file.unwrap_or_default(),
            metadata: typed.metadata.unwrap_or_default(),
            keys: typed.keys.unwrap_or_default(),
            // As in the C tool, being set is enough, whatever the value.
            quiet: typed.quiet || environment.quiet.is_some(),
            color: typed.color.unwrap_or(match environment.no_colors {
                Some(_) => Color::Never,
                None => Color::Auto,
            }),
            cwd: environment.cwd.clone(),
        })
    }
}

/// A whole number of milliseconds; an empty variable counts as unset.
fn milliseconds(name: &str, value: Option<&OsStr>) -> anyhow::Result<Option<Duration>> {
    let Some(value) = value.filter(|value| !value.is_empty()) else {
        return Ok(None);
    };
    let number = value.to_str().and_then(|value| value.trim().parse().ok());
    let number = number.with_context(|| {
        format!(
            "{name} is \"{}\"; set it to a whole number of milliseconds, like 50, or unset it",
            value.to_string_lossy()
        )
    })?;
    Ok(Some(Duration::from_millis(number)))
}
