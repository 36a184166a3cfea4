//! The command line, as it is typed.
//!
//! This file knows the options' names and help texts and how each single value
//! is read; what they mean together, and with the environment, is settled by
//! [`crate::config`]. Everything wrong becomes one [`Refused`], one line long,
//! since forkmon's failures have exit status 125 and not clap's 2 (which `forkmon
//! ctl` has).

mod values;

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::error::ErrorKind;
use clap::{Args, Parser, Subcommand};

use crate::input;
use crate::keys::When;
use crate::messages::Color;
use crate::output;

pub use values::{StopSignal, budget, duration, size, stop_signal};

const AFTER_HELP: &str = "\
Examples:
  forkmon lua main.lua                 Resume main.lua from the middle on each save
  forkmon -e py,toml python3 app.py    Only .py and .toml files count
  forkmon -w ../data python3 plot.py   A folder outside the project counts as well
  forkmon run -- demo --fast           A program that is called like a subcommand
  forkmon --once python3 app.py        Run once under observation, then exit
  forkmon ctl status                   Ask the one that runs here; see forkmon ctl --help
  forkmon demo                         See it work, in 15 seconds

Exit status: that of the program's last run (128 + n for signal n); 125 if forkmon
itself failed, 126 if COMMAND cannot be executed, 127 if it is not found, 130
after Ctrl-C. When nobody reads its standard output any more (as in forkmon … | head),
forkmon ends with the program's run.";

const AFTER_LONG_HELP: &str = "\
Examples:
  forkmon lua main.lua                 Resume main.lua from the middle on each save
  forkmon -e py,toml python3 app.py    Only .py and .toml files count
  forkmon -w ../data python3 plot.py   A folder outside the project counts as well
  forkmon run -- demo --fast           A program that is called like a subcommand
  forkmon --once python3 app.py        Run once under observation, then exit
  forkmon ctl status                   Ask the one that runs here; see forkmon ctl --help
  forkmon demo                         See it work, in 15 seconds

Exit status: that of the program's last run (128 + n for signal n); 125 if forkmon
itself failed, 126 if COMMAND cannot be executed, 127 if it is not found, 130
after Ctrl-C. When nobody reads its standard output any more (as in forkmon … | head),
forkmon ends with the program's run.

Environment (an option, if given, wins):
  FORKMON_FILTER         Lua patterns, `;` between them: the files anywhere outside
                         /tmp whose path matches one are the scope
  FORKMON_QUIET          If set, the same as --quiet
  FORKMON_NO_COLORS      If set, the same as --color never
  FORKMON_RESTART_DELAY  The same as --delay, as a number of milliseconds
  FORKMON_IGNORE_DELAY   For so many milliseconds after a resume, further changes
                         are gathered instead of acted upon one by one
  NO_COLOR               If set and not empty, no colours unless --color always";

const CTL_AFTER_HELP: &str = "\
Examples:
  id=$(forkmon ctl checkpoint)         Freeze the program, wherever it is
  forkmon ctl resume $id               Go back there, as often as you like
  forkmon ctl wait                     In a script: save a file, then see what came of it
  forkmon ctl status --json            For other programs
  forkmon ctl journal                  Where to find what a rewind took away

Exit status: 0 done, 1 refused, 2 wrong usage, or no forkmon found or more than one,
3 connection lost.";

/// What forkmon was asked to be.
#[derive(Debug)]
pub enum Mode {
    /// Run a command and resume it.
    Run(Box<RunArgs>),
    /// The tour.
    Demo(DemoArgs),
    /// Ask a running forkmon for something.
    Ctl(CtlArgs),
    /// The process that cleans up after a forkmon that was killed.
    Guardian,
    /// The program that the tour runs.
    DemoGuest(DemoGuestArgs),
    /// Help or version: already printed.
    Answered,
}

/// A command line that cannot be followed: what is wrong, and the remedy.
#[derive(Debug, thiserror::Error)]
#[error("{text}")]
pub struct Refused {
    text: String,
    status: u8,
}

/// What forkmon exits with when it failed itself, and its command line is wrong.
const OWN_FAILURE: u8 = 125;

/// What `forkmon ctl` exits with when its command line is wrong. It runs no
/// command whose status this could be.
const CTL_USAGE: u8 = 2;

impl Refused {
    fn new(text: String) -> Self {
        Self {
            text,
            status: OWN_FAILURE,
        }
    }

    /// What to exit with.
    #[must_use]
    pub fn status(&self) -> u8 {
        self.status
    }
}

/// Runs a program and, when a file that it read is edited, resumes it from just
/// before it read that file
#[derive(Debug, Parser)]
#[command(
    name = "forkmon",
    bin_name = "forkmon",
    version,
    override_usage = "forkmon [run] [OPTIONS] [--] COMMAND [ARGS]...\n       forkmon ctl [--socket PATH] ACTION\n       forkmon demo [--keep]",
    args_conflicts_with_subcommands = true,
    disable_help_subcommand = true,
    after_help = AFTER_HELP,
    after_long_help = AFTER_LONG_HELP,
    max_term_width = 100
)]
struct Typed {
    #[command(subcommand)]
    subcommand: Option<Word>,
    #[command(flatten)]
    run: RunArgs,
}

#[derive(Debug, Subcommand)]
enum Word {
    /// Run a command and resume it on edits (the word may be left out)
    #[command(
        override_usage = "forkmon run [OPTIONS] [--] COMMAND [ARGS]...",
        after_help = AFTER_HELP,
        after_long_help = AFTER_LONG_HELP
    )]
    Run(Box<RunArgs>),
    /// Ask a running forkmon: checkpoint, resume, restart, wait, status, journal, quit
    #[command(
        override_usage = "forkmon ctl [--socket PATH] checkpoint | resume [ID] | restart | wait | status [--json] | journal [--json] | quit",
        after_help = CTL_AFTER_HELP
    )]
    Ctl(CtlArgs),
    /// Show in 15 seconds what forkmon does, with a program of its own
    Demo(DemoArgs),
    #[command(name = "__guardian", hide = true)]
    Guardian,
    #[command(name = "__demo-guest", hide = true)]
    DemoGuest(DemoGuestArgs),
}

/// What becomes of what the guest did to files when it goes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Effects {
    /// It is undone back to the checkpoint, or to the start
    #[default]
    Undo,
    /// It stays
    Keep,
}

/// What to do about the guest's connections to others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum OnConnection {
    /// Take no checkpoint while there is one
    #[default]
    Skip,
    /// Take it; the resumed program finds the connection closed
    Reset,
}

/// Whether a program can be resumed in the middle of a file that it reads in pieces.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum WithinFile {
    /// Where the program is known to read so that this is right
    #[default]
    Auto,
    /// Whatever the program is
    On,
    /// From before its first touch of the file only
    Off,
}

/// What of a file's metadata counts that a program has asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Precision {
    /// Its size and times, too
    #[default]
    Strict,
    /// Not its size and times, once the program has read the file
    Content,
}

/// `forkmon run`, as typed. What is `None` or empty was not given.
#[derive(Debug, Clone, Default, Args)]
pub struct RunArgs {
    /// The command to run, and its arguments
    #[arg(value_name = "COMMAND", trailing_var_arg = true, num_args = 0.., hide = true)]
    pub command: Vec<OsString>,

    /// What the command touches there counts, too: a file, folder or glob (repeatable)
    ///
    /// It may lie outside of the project, and may name what is left out
    /// otherwise. A file that the command never looks at starts nothing. By default every file counts that the command touches under the
    /// project root: the nearest folder upwards with .git, .hg, .jj or
    /// forkmon.toml, or else the working folder; without version-control folders,
    /// editors' backup and swap files, node_modules, .venv, venv, site-packages
    /// and __pycache__. Relative paths start at the working folder.
    #[arg(short, long, value_name = "PATH|GLOB", help_heading = "Scope")]
    pub watch: Vec<OsString>,

    /// Only files and folders that match this glob count (repeatable)
    ///
    /// A glob without `/` is about names anywhere in the project, one with `/`
    /// about paths from the working folder on. `**` spans folders. A glob that
    /// matches a folder matches everything in it.
    #[arg(short, long, value_name = "GLOB", help_heading = "Scope")]
    pub filter: Vec<String>,

    /// Only files with these extensions count, as in `py,toml`
    ///
    /// Together with --filter, a file counts that passes either.
    #[arg(
        short,
        long,
        value_name = "LIST",
        value_delimiter = ',',
        help_heading = "Scope"
    )]
    pub exts: Vec<String>,

    /// Files and folders that match this glob do not count (repeatable)
    ///
    /// It is written like --filter, and wins over every other option.
    #[arg(short, long, value_name = "GLOB", help_heading = "Scope")]
    pub ignore: Vec<String>,

    /// Do not watch: run once under observation, exit with the command's status
    #[arg(long, help_heading = "Running")]
    pub once: bool,

    /// Where the command's input comes from [default: inherit for a terminal, else replay]
    ///
    /// With replay a resumed command is given again what the dropped run has read
    /// since the checkpoint: forkmon keeps what it reads from a pipe. With inherit the
    /// command reads from forkmon's standard input by itself, and what a dropped run
    /// has read from a pipe is gone. With null it has /dev/null.
    #[arg(
        long,
        value_name = "MODE",
        value_enum,
        hide_possible_values = false,
        help_heading = "Running"
    )]
    pub stdin: Option<input::Mode>,

    /// Quiet time after the last file event before acting [default: 5ms]
    ///
    /// With its unit; 0ms acts at once.
    #[arg(long, value_name = "DURATION", value_parser = duration, help_heading = "Running")]
    pub delay: Option<Duration>,

    /// Ask a run that is dropped to end, with this signal
    ///
    /// By default it is killed outright, because it is to have never happened.
    /// The signal is a name, with or without SIG, or a number.
    #[arg(long, value_name = "SIGNAL", value_parser = stop_signal, help_heading = "Running")]
    pub stop_signal: Option<StopSignal>,

    /// How long a run may take to end before it is killed [default: 3s]
    ///
    /// It counts where --stop-signal was given, and when forkmon quits: the
    /// command then gets the signal that forkmon got. After half a second forkmon says
    /// that it waits. A second Ctrl-C, or any other signal that ends forkmon, kills the
    /// command at once.
    #[arg(long, value_name = "DURATION", value_parser = duration, help_heading = "Running")]
    pub stop_timeout: Option<Duration>,

    /// Share of the command's running time to spend on checkpoints [default: 5%]
    ///
    /// With 100% they may take as long as the command itself; more is allowed, too.
    #[arg(long, value_name = "PERCENT", value_parser = budget, help_heading = "Checkpoints")]
    pub budget: Option<f64>,

    /// Keep at most so many checkpoints [default: 32]
    #[arg(
        long,
        value_name = "N",
        value_parser = values::count,
        help_heading = "Checkpoints"
    )]
    pub max_checkpoints: Option<usize>,

    /// Memory that checkpoints may add, as in 512MiB [default: a quarter of the machine's]
    #[arg(long, value_name = "SIZE", value_parser = size, help_heading = "Checkpoints")]
    pub max_memory: Option<u64>,

    /// What becomes of files that a dropped run has changed [default: undo]
    ///
    /// With undo they are put back as they were at the checkpoint, or before the first
    /// run, except what somebody else has changed since. With keep they stay as the
    /// dropped run left them, so that a resumed command may find its own files there;
    /// nothing of them is copied.
    #[arg(
        long,
        value_name = "WHAT",
        value_enum,
        hide_possible_values = false,
        help_heading = "Effects"
    )]
    pub effects: Option<Effects>,

    /// How much of files may be copied in order to undo, as in 4GiB [default: 1GiB]
    ///
    /// In all. What does not fit cannot be undone, so that the checkpoints before it are
    /// not used.
    #[arg(long, value_name = "SIZE", value_parser = size, help_heading = "Effects")]
    pub journal_limit: Option<u64>,

    /// Where the command's output goes [default: live]
    ///
    /// With live the command writes straight to forkmon's standard output and
    /// standard error, and after a resume only what is new appears. With replay its
    /// output goes through forkmon, and after a resume what was kept is written again
    /// before what is new: the whole output of the run.
    #[arg(
        long,
        value_name = "MODE",
        value_enum,
        hide_possible_values = false,
        help_heading = "Output"
    )]
    pub output: Option<output::Mode>,

    /// How much output to keep for --output replay, as in 64MiB [default: 16MiB]
    ///
    /// For standard output and standard error each. What is older is not shown again.
    #[arg(long, value_name = "SIZE", value_parser = size, help_heading = "Output")]
    pub output_limit: Option<u64>,

    /// Clear the terminal before a resume's or a restart's output
    ///
    /// With --clear=all what has scrolled out of the screen, too.
    #[arg(
        long,
        value_name = "WHAT",
        value_enum,
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "screen",
        hide_possible_values = false,
        help_heading = "Output"
    )]
    pub clear: Option<output::Clear>,

    /// Resume in the middle of a file that is read in pieces [default: auto]
    ///
    /// A shell can go on with the line that was edited in its script, TeX, TCC, Lua,
    /// m4, sed and mawk with the piece. With auto this is done for these programs, with
    /// on for every one: right as long as it asks no open file for its size or times
    /// to make use of them.
    #[arg(long, value_name = "WHEN", value_enum, help_heading = "Scope")]
    pub within_file: Option<WithinFile>,

    /// What counts of a file that was asked for its size and times [default: strict]
    ///
    /// With content, a new size or time does not count if the same process reads
    /// the file later: the program is resumed before it does so. For programs that
    /// look at all their files first and make nothing of the times.
    #[arg(long, value_name = "WHAT", value_enum, help_heading = "Scope")]
    pub metadata: Option<Precision>,

    /// Write what happens to this file, one JSON object a line
    ///
    /// The file is emptied first, and may be a named pipe. docs/events.md
    /// describes the objects.
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    pub events: Option<PathBuf>,

    /// What to do about a connection to another program [default: skip]
    ///
    /// A resumed program cannot go on with it.
    #[arg(long, value_name = "WHAT", value_enum, help_heading = "Checkpoints")]
    pub on_connection: Option<OnConnection>,

    /// The socket that `forkmon ctl` talks to [default: one that it finds by itself]
    ///
    /// Nobody but you can connect to it. A socket that a killed forkmon has left
    /// there is replaced, any other file is not. With --once there is none.
    #[arg(long, value_name = "PATH", help_heading = "Control")]
    pub control: Option<PathBuf>,

    /// When keys typed into the terminal are for forkmon [default: auto]
    ///
    /// c takes a checkpoint, r resumes the newest one, R restarts, s shows the
    /// state, q quits, ? shows this list. With auto they are read between runs: a
    /// command that runs gets all that is typed. With on they are always read, and
    /// the command has /dev/null as its standard input.
    #[arg(
        long,
        value_name = "WHEN",
        value_enum,
        hide_possible_values = false,
        help_heading = "Control"
    )]
    pub keys: Option<When>,

    /// Say nothing but forkmon's own failures
    #[arg(short, long, help_heading = "Output")]
    pub quiet: bool,

    /// When to colour forkmon's messages [default: auto]
    #[arg(
        long,
        value_name = "WHEN",
        value_enum,
        hide_possible_values = false,
        help_heading = "Output"
    )]
    pub color: Option<Color>,
}

/// `forkmon ctl`, as typed.
#[derive(Debug, Clone, Args)]
pub struct CtlArgs {
    /// The socket of the forkmon to ask [default: that of this folder's project]
    #[arg(long, value_name = "PATH", global = true)]
    pub socket: Option<PathBuf>,
    /// What to ask for.
    #[command(subcommand)]
    pub action: CtlAction,
}

/// What `forkmon ctl` asks for.
#[derive(Debug, Clone, Copy, Subcommand)]
pub enum CtlAction {
    /// Freeze the program where it is, and print the number of the checkpoint
    Checkpoint,
    /// Let the program run on from a checkpoint
    Resume {
        /// Its number [default: the newest]
        id: Option<u64>,
    },
    /// Start the program from its beginning
    Restart,
    /// Wait until what was saved so far is acted upon and the program has ended; print its status
    Wait,
    /// Show what runs, and the checkpoints
    Status {
        /// As one JSON object
        #[arg(long)]
        json: bool,
    },
    /// List the files that rewinds have taken away or written over, and where they lie
    Journal {
        /// As one JSON object
        #[arg(long)]
        json: bool,
    },
    /// End the program and forkmon
    Quit,
}

/// `forkmon demo`, as typed.
#[derive(Debug, Clone, Args)]
pub struct DemoArgs {
    /// Leave the demo's project on disk, to go on with by hand
    #[arg(long)]
    pub keep: bool,
}

/// `forkmon __demo-guest`, as typed.
#[derive(Debug, Clone, Args)]
pub struct DemoGuestArgs {
    /// The folder with the modules
    pub dir: PathBuf,
}

/// Reads a command line, with the program's own name in front.
///
/// # Errors
///
/// Whatever cannot be followed, as one line with the remedy.
pub fn parse<I>(typed: I) -> Result<Mode, Refused>
where
    I: IntoIterator,
    I::Item: Into<OsString>,
{
    let words: Vec<OsString> = typed.into_iter().map(Into::into).collect();
    let typed = match Typed::try_parse_from(&words) {
        Ok(typed) => typed,
        Err(error) => {
            let is_ctl = words.get(1).is_some_and(|word| word == "ctl");
            return answer(&error, is_ctl);
        }
    };
    let args = match typed.subcommand {
        Some(Word::Run(args)) => args,
        Some(Word::Demo(args)) => return Ok(Mode::Demo(args)),
        Some(Word::Ctl(args)) => return Ok(Mode::Ctl(args)),
        Some(Word::Guardian) => return Ok(Mode::Guardian),
        Some(Word::DemoGuest(args)) => return Ok(Mode::DemoGuest(args)),
        None => {
            refuse_late_subcommand(&words, &typed.run.command)?;
            Box::new(typed.run)
        }
    };
    if args.command.is_empty() {
        return Err(Refused::new(
            "no COMMAND to run was given; try `forkmon lua main.lua` with your own program, \
             `forkmon demo` for a tour, or `forkmon --help`"
                .to_owned(),
        ));
    }
    Ok(Mode::Run(args))
}

/// `forkmon --once run lua main.lua` would run a program called `run`.
fn refuse_late_subcommand(words: &[OsString], command: &[OsString]) -> Result<(), Refused> {
    let Some(word) = command
        .first()
        .filter(|word| *word == "run" || *word == "demo" || *word == "ctl")
    else {
        return Ok(());
    };
    let before = words.len().checked_sub(command.len() + 1);
    if before.is_some_and(|before| words[before] == "--") {
        return Ok(());
    }
    let word = word.to_string_lossy();
    Err(Refused::new(format!(
        "options stand before \"{word}\"; write `forkmon {word} [OPTIONS]`, or `forkmon [OPTIONS] \
         -- {word}` for a program that is called {word}"
    )))
}

/// Prints what is an answer, and turns the rest into one line.
fn answer(error: &clap::Error, is_ctl: bool) -> Result<Mode, Refused> {
    if matches!(
        error.kind(),
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion
    ) {
        // Nobody may be reading; `forkmon --help | head` is no failure.
        let _ = error.print();
        return Ok(Mode::Answered);
    }
    if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        let ctl = CtlArgs::augment_args(clap::Command::new("ctl"));
        let actions: Vec<&str> = ctl.get_subcommands().map(clap::Command::get_name).collect();
        return Err(Refused {
            text: format!(
                "no ACTION was given: {}; see `forkmon ctl --help`",
                actions.join(", ")
            ),
            status: CTL_USAGE,
        });
    }
    let text = error.to_string();
    let told: Vec<&str> = text
        .lines()
        .map(str::trim)
        .take_while(|line| !line.starts_with("Usage:"))
        .filter(|line| !line.is_empty() && !line.starts_with("For more information"))
        .collect();
    let told = told.join("; ");
    let told = told.strip_prefix("error: ").unwrap_or(&told);
    Err(if is_ctl {
        Refused {
            text: format!("{told}; see `forkmon ctl --help`"),
            status: CTL_USAGE,
        }
    } else {
        Refused::new(format!("{told}; see `forkmon --help`"))
    })
}
