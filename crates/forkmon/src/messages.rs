//! What forkmon tells the person in front of it: lines on standard error, each
//! with the prefix `[forkmon]`.
//!
//! They share the terminal with the guest's own output, so each is one write of
//! one line. Nobody has to be there to read them: a closed or broken standard
//! error is never an error here. Programs read [`crate::events`] instead.

mod change;
mod line;

use std::collections::HashSet;
use std::fmt::{self, Write as _};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anstyle::{AnsiColor, Style};

use crate::output::Voice;
pub use change::{Deed, Edit, Outcome};
use line::{columns_of_stderr, one_line, printable, to_the_line_s_beginning};

/// When to colour, as `--color` says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Color {
    /// If standard error is a terminal that can, and `NO_COLOR` is not set
    #[default]
    Auto,
    /// Also into files and pipes
    Always,
    /// Never
    Never,
}

/// How a guest's run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// With this exit status.
    Status(i32),
    /// By the signal of this number.
    Signal(i32),
}

/// Writes the messages.
#[derive(Debug)]
pub struct Messages {
    quiet: bool,
    color: anstream::ColorChoice,
    /// Paths below it are shown relative to it.
    cwd: PathBuf,
    said: HashSet<String>,
    /// What they are passed through to stand in their places.
    voice: Option<Voice>,
}

const PREFIX: Style = AnsiColor::Cyan.on_default();
const WARNING: Style = AnsiColor::Yellow.on_default().bold();
const ERROR: Style = AnsiColor::Red.on_default().bold();
const PATH: Style = Style::new().bold();

impl Messages {
    /// With `quiet`, only forkmon's own failures are still told. `cwd` is the
    /// folder that paths are shown relative to.
    #[must_use]
    pub fn new(color: Color, quiet: bool, cwd: &Path) -> Self {
        Self {
            quiet,
            color: match color {
                Color::Auto => anstream::ColorChoice::Auto,
                Color::Always => anstream::ColorChoice::AlwaysAnsi,
                Color::Never => anstream::ColorChoice::Never,
            },
            cwd: cwd.to_owned(),
            said: HashSet::new(),
            voice: None,
        }
    }

    /// For what must be said before the options are known.
    #[must_use]
    pub fn before_options() -> Self {
        let color = if std::env::var_os("FORKMON_NO_COLORS").is_some() {
            Color::Never
        } else {
            Color::Auto
        };
        Self::new(color, false, Path::new("/"))
    }

    /// Passes them through what carries the guest's output to the same place.
    pub fn pass_through(&mut self, voice: Voice) {
        self.voice = Some(voice);
    }

    /// The same for answers to what somebody asks for, which are told even if quiet.
    #[must_use]
    pub fn for_answers(&self) -> Self {
        Self {
            quiet: false,
            color: self.color,
            cwd: self.cwd.clone(),
            said: HashSet::new(),
            voice: self.voice.clone(),
        }
    }

    /// Files were saved with the bytes that they had.
    pub fn unchanged(&self, paths: &[&Path]) {
        self.info(&format!(
            "saved {} with the same bytes: nothing to do",
            self.paths(paths)
        ));
    }

    /// The guest's run is over, and forkmon waits for an edit.
    pub fn exited(&self, how: Ended) {
        self.info(&format!("{}; waiting for an edit", ended(how)));
    }

    /// Anything else worth a line.
    pub fn info(&self, text: &str) {
        if !self.quiet {
            self.write(None, text);
        }
    }

    /// Something works less well than it could.
    pub fn warning(&self, text: &str) {
        if !self.quiet {
            self.write(Some(("warning: ", WARNING)), text);
        }
    }

    /// The same, but only the first time for each `code`. Whether this was the
    /// first time, so that the event can be written then, too.
    pub fn warning_once(&mut self, code: &str, text: &str) -> bool {
        let first = self.said.insert(code.to_owned());
        if first {
            self.warning(text);
        }
        first
    }

    /// Forkmon itself failed. Told even if quiet.
    pub fn error(&self, text: &str) {
        self.write(Some(("error: ", ERROR)), text);
    }

    /// A path as it is shown: relative to the working folder if below it, and
    /// with nothing in it that could move the cursor.
    #[must_use]
    pub fn path(&self, path: &Path) -> String {
        let shown = match path.strip_prefix(&self.cwd) {
            Ok(below) if !below.as_os_str().is_empty() && self.cwd != Path::new("/") => below,
            _ => path,
        };
        printable(&shown.to_string_lossy())
    }

    /// The same for what was edited: the working folder and those that it lies in are
    /// told from there, too.
    fn place(&self, path: &Path) -> String {
        match self.cwd.strip_prefix(path) {
            Ok(further) if path.parent().is_some() => match further.components().count() {
                0 => "./".to_owned(),
                up => "../".repeat(up),
            },
            _ => self.path(path),
        }
    }

    fn paths(&self, paths: &[&Path]) -> String {
        let Some((first, others)) = paths.split_first() else {
            return "files".to_owned();
        };
        let mut text = format!("{PATH}{}{PATH:#}", self.place(first));
        if !others.is_empty() {
            // Writing to a String cannot fail.
            let _ = write!(text, " and {} more", others.len());
        }
        text
    }

    fn write(&self, label: Option<(&str, Style)>, text: &str) {
        let label = label.map(|(label, style)| Styled(label, style));
        let label: &dyn fmt::Display = match &label {
            Some(label) => label,
            None => &"",
        };
        let line = format!(
            "{}{label}{}\n",
            Styled("[forkmon] ", PREFIX),
            one_line(text)
        );
        // Rendered first and written in one piece: the guest writes to the same
        // terminal.
        let mut rendered = anstream::AutoStream::new(Vec::new(), self.stderr_choice());
        let _ = rendered.write_all(line.as_bytes());
        let rendered = rendered.into_inner();
        if self
            .voice
            .as_ref()
            .is_some_and(|voice| voice.say(&rendered))
        {
            return;
        }
        let mut line = to_the_line_s_beginning(columns_of_stderr());
        line.extend(rendered);
        // Nobody may be reading any more; that is no reason to stop.
        let _ = std::io::stderr().write_all(&line);
    }

    fn stderr_choice(&self) -> anstream::ColorChoice {
        match self.color {
            anstream::ColorChoice::Auto => anstream::AutoStream::choice(&std::io::stderr()),
            decided => decided,
        }
    }
}

struct Styled<'a>(&'a str, Style);

impl fmt::Display for Styled<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}{:#}", self.1, self.0, self.1)
    }
}

fn ended(how: Ended) -> String {
    match how {
        Ended::Status(0) => "finished".to_owned(),
        Ended::Status(status) => format!("exited with status {status}"),
        Ended::Signal(signal) => format!("ended by signal {}", signal_name(signal)),
    }
}

/// `SIGSEGV` for 11; the number itself where it has no name.
pub(crate) fn signal_name(signal: i32) -> String {
    signal_hook::low_level::signal_name(signal)
        .map_or_else(|| signal.to_string(), |name| name.to_owned())
}

/// A time with as many digits as say something: `2.1 ms`, `318 ms`, `1.02 s`.
#[must_use]
pub fn human(time: Duration) -> String {
    let ms = time.as_secs_f64() * 1e3;
    // The bounds are where rounding reaches the next form's first value.
    if ms < 9.95 {
        format!("{ms:.1} ms")
    } else if ms < 999.5 {
        format!("{ms:.0} ms")
    } else if ms < 59_995.0 {
        format!("{:.2} s", ms / 1e3)
    } else {
        format!("{} min {:02} s", time.as_secs() / 60, time.as_secs() % 60)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn messages() -> Messages {
        Messages::new(Color::Never, false, Path::new("/home/u/project"))
    }

    #[test]
    fn a_hostile_name_stays_on_its_line() {
        let messages = messages();
        let shown = messages.path(Path::new("/home/u/project/a\nb\x1b[2J\u{9b}c"));
        assert!(
            shown.chars().all(|character| !character.is_control()),
            "{shown:?}"
        );
        assert!(shown.starts_with("a\\nb\\u{1b}[2J"), "{shown:?}");
    }

    #[test]
    fn a_folder_that_only_begins_alike_is_not_below() {
        let path = Path::new("/home/u/project2/a");
        assert_eq!(messages().path(path), "/home/u/project2/a");
    }

    #[test]
    fn the_working_folder_and_those_that_it_lies_in_are_told_from_there() {
        let shown = |path| messages().place(Path::new(path));
        assert_eq!(shown("/home/u/project"), "./");
        assert_eq!(shown("/home/u"), "../");
        assert_eq!(shown("/home"), "../../");
        assert_eq!(shown("/"), "/");
        let at_root = Messages::new(Color::Never, false, Path::new("/"));
        assert_eq!(at_root.place(Path::new("/")), "/");
        assert_eq!(at_root.place(Path::new("/a")), "/a");
        // Elsewhere, as in `forkmon ctl status`, it is its name that matters.
        let project = Path::new("/home/u/project");
        assert_eq!(messages().path(project), "/home/u/project");
    }

    #[test]
    fn a_warning_is_said_once_for_each_code() {
        let mut messages = Messages::new(Color::Never, true, Path::new("/"));
        assert!(messages.warning_once("a", "first"));
        assert!(!messages.warning_once("a", "again"));
        assert!(messages.warning_once("b", "another"));
    }

    #[test]
    fn times_have_the_digits_that_matter() {
        let of_us = |us| human(Duration::from_micros(us));
        assert_eq!(of_us(0), "0.0 ms");
        assert_eq!(of_us(2_100), "2.1 ms");
        assert_eq!(of_us(9_949), "9.9 ms");
        assert_eq!(of_us(9_950), "10 ms");
        assert_eq!(of_us(317_800), "318 ms");
        assert_eq!(of_us(999_600), "1.00 s");
        assert_eq!(of_us(59_990_000), "59.99 s");
        assert_eq!(of_us(61_000_000), "1 min 01 s");
    }

    #[test]
    fn ends_are_told_by_name() {
        assert_eq!(ended(Ended::Status(0)), "finished");
        assert_eq!(ended(Ended::Status(1)), "exited with status 1");
        assert_eq!(ended(Ended::Signal(11)), "ended by signal SIGSEGV");
        assert_eq!(ended(Ended::Signal(40)), "ended by signal 40");
    }
}
