//! `forkmon demo`: a tour that needs nothing but forkmon itself.
//!
//! It makes a small project in a temporary folder, runs the bundled guest
//! (`guest`) on it under a real `forkmon run`, edits the module that was loaded
//! last, waits for the new result, and lets the same guest run without forkmon for
//! comparison. What a person reads about it is in this
//! file; the project is made by `project`, and the forkmon that is shown is held
//! by `session`.

mod guest;
mod project;
mod session;

use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anstyle::{AnsiColor, Style};
use anyhow::{Context as _, bail, ensure};

use crate::cli::DemoArgs;
use crate::messages::human;
use project::Project;
use session::{Heard, Session};

pub use guest::guest;

/// This program, even if its file was replaced since it started.
const THIS_PROGRAM: &str = "/proc/self/exe";

const HEADING: Style = AnsiColor::Cyan.on_default().bold();
const STRONG: Style = Style::new().bold();
const DIM: Style = Style::new().dimmed();
const GOOD: Style = AnsiColor::Green.on_default().bold();

/// How wide the longer bar of the comparison is, in characters.
const BAR: f64 = 40.0;

/// Exit status after Ctrl-C.
const INTERRUPTED: u8 = 130;

/// What one run of the guest came to.
struct Seen {
    /// From the cause (the start, or the edit) to the guest's last line.
    took: Duration,
    /// Every line that it wrote.
    output: Vec<String>,
}

/// The tour; the status to exit with.
///
/// # Errors
///
/// When forkmon did not resume, or showed a wrong result, or something else kept
/// the tour from its end.
pub fn run(typed: &DemoArgs) -> anyhow::Result<u8> {
    let interrupted = session::watch_for_interrupts()?;
    let project = Project::create(guest::calibrate(), typed.keep)?;
    let toured = tour(&project, &interrupted);
    let left = project.close();
    match toured {
        Err(error) if error.is::<session::Interrupted>() => return Ok(INTERRUPTED),
        toured => toured?,
    }
    say("");
    if let Some(left) = left {
        say(&format!(
            "The project is left in {STRONG}{}{STRONG:#}. Go on by hand:",
            left.display()
        ));
        let exe = std::env::current_exe().unwrap_or_else(|_| "forkmon".into());
        let (exe, left) = (exe.display(), left.display());
        say(&format!("  cd {left} && {exe} run -- {exe} __demo-guest ."));
    } else {
        say("Now with a program of yours, from its project folder:");
        say(&format!(
            "  {STRONG}forkmon python3 app.py{STRONG:#}     and save a file that it loads"
        ));
        say(&format!(
            "  {STRONG}forkmon --help{STRONG:#}             which files count, and more"
        ));
    }
    Ok(0)
}

fn tour(project: &Project, interrupted: &session::InterruptFlag) -> anyhow::Result<()> {
    let modules = project.modules();
    let last = project.last_module();

    say(&format!(
        "{HEADING}1. A program that is slow to start{HEADING:#}, under forkmon: it loads {modules} \
         modules, one after another."
    ));
    let started = Instant::now();
    let mut session = Session::start(project, interrupted.clone())?;
    let first = watch_run(&mut session, started, false)?;
    say(&format!(
        "   Loaded and finished after {STRONG}{}{STRONG:#}.",
        human(first.took)
    ));

    say("");
    say(&format!(
        "{HEADING}2. An edit{HEADING:#} to the module that was loaded last, {}:",
        last.display()
    ));
    let edited = Instant::now();
    project.edit_last_module()?;
    let resumed = watch_run(&mut session, edited, true)?;
    say(&format!(
        "   The new result is there after {STRONG}{}{STRONG:#}: only the last module was loaded \
         again.",
        human(resumed.took)
    ));
    session.quit()?;

    say("");
    say(&format!(
        "{HEADING}3. The same without forkmon{HEADING:#}: the program starts again."
    ));
    let restarted = run_bare(project)?;
    say(&format!(
        "   The new result is there after {STRONG}{}{STRONG:#}.",
        human(restarted.took)
    ));
    ensure!(
        restarted.output.ends_with(&resumed.output),
        "the resumed run wrote {:?}, and a fresh one {:?}: please report this",
        resumed.output,
        restarted.output
    );

    say("");
    compare(restarted.took, resumed.took);
    Ok(())
}

/// Follows the session's guest to the end of its run, and shows what it writes.
/// After an edit, the run must be one that was resumed.
fn watch_run(session: &mut Session, cause: Instant, after_edit: bool) -> anyhow::Result<Seen> {
    let mut output = Vec::new();
    let mut result_after = None;
    let mut exited = false;
    let mut resumed = !after_edit;
    while result_after.is_none() || !exited || !resumed {
        match session.next()? {
            Heard::Output(line) => {
                show(&line);
                if line.starts_with(guest::RESULT) {
                    result_after = Some(cause.elapsed());
                }
                output.push(line);
            }
            Heard::Message(line) => show(&format!("{DIM}{line}{DIM:#}")),
            Heard::Event(event) => match event["event"].as_str() {
                Some("resume") => {
                    if event["from"].is_null() {
                        let reason = event["reason"].as_str().unwrap_or("unknown");
                        bail!("the guest was restarted, not resumed; the reason: {reason}");
                    }
                    resumed = true;
                }
                Some("exit") => {
                    ensure!(
                        event["code"] == 0,
                        "the demo's program did not end well: {event}"
                    );
                    exited = true;
                }
                _ => {}
            },
        }
    }
    Ok(Seen {
        took: result_after.unwrap_or_else(|| cause.elapsed()),
        output,
    })
}

fn run_bare(project: &Project) -> anyhow::Result<Seen> {
    let started = Instant::now();
    let output = Command::new(THIS_PROGRAM)
        .arg("__demo-guest")
        .arg(project.dir())
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .context("cannot start the demo's program")?;
    let took = started.elapsed();
    ensure!(
        output.status.success(),
        "the demo's program failed: {}",
        output.status
    );
    let output: Vec<String> = String::from_utf8_lossy(&output.stdout)
        .lines()
        .map(str::to_owned)
        .collect();
    if let Some(result) = output.last() {
        show(&format!(
            "{DIM}… {} modules again{DIM:#}",
            project.modules()
        ));
        show(result);
    }
    Ok(Seen { took, output })
}

fn compare(restart: Duration, resume: Duration) {
    let ratio = restart.as_secs_f64() / resume.as_secs_f64().max(1e-6);
    let longer = restart.max(resume).as_secs_f64();
    let bar = |time: Duration| {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "between 1 and BAR"
        )]
        let length = (BAR * time.as_secs_f64() / longer).round().max(1.0) as usize;
        "█".repeat(length)
    };
    say(&format!("   restart {} {}", bar(restart), human(restart)));
    say(&format!(
        "   resume  {GOOD}{} {}{GOOD:#}   {STRONG}{ratio:.1} times as fast{STRONG:#}, same result",
        bar(resume),
        human(resume)
    ));
}

/// One line of what somebody else wrote.
fn show(line: &str) {
    say(&format!("   {DIM}│{DIM:#} {line}"));
}

/// One line to the person; if nobody reads it, the tour goes on all the same.
fn say(line: &str) {
    let mut stdout = anstream::stdout().lock();
    let _ = writeln!(stdout, "{line}");
    let _ = stdout.flush();
}
