//! What forkmon tells the person in front of it: lines on standard error, each
//! with the prefix `[forkmon]`.
//!
//! They share the terminal with the guest's own output, so each is one write of
//! one line. Nobody has to be there to read them: a closed or broken standard
//! error is never an error here. Programs read [`crate::events`] instead.

mod line;

use std::collections::HashSet;
use std::fmt::{self, Write as _};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anstyle::{AnsiColor, Style};

use crate::output::Voice;
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

/// What a change led to, for [`Messages::changed`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Outcome<'a> {
    /// A run was resumed from a checkpoint.
    Resumed {
        /// The path before whose first access the checkpoint stands; `None` if it
        /// was taken somewhere else.
        before: Option<&'a Path>,
        /// It had been read up to there.
        within: bool,
        /// The checkpoint's number.
        checkpoint: u64,
        /// The guest's running time that need not be repeated.
        kept: Duration,
        /// From reading the file event to the guest running.
        latency: Duration,
    },
    /// The guest was started from its beginning.
    Restarted {
        /// Why no checkpoint was used, as the end of a sentence.
        why: &'a str,
    },
}

/// What became of a path, as a person would say it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deed {
    /// It holds something else.
    Changed,
    /// It was not there before.
    Created,
    /// It is there no more.
    Removed,
}

impl Deed {
    fn word(self) -> &'static str {
        match self {
            Self::Changed => "changed",
            Self::Created => "created",
            Self::Removed => "removed",
        }
    }
}

/// More of an edit than the paths that forkmon compares: a name that is new in a
/// folder is what somebody has created, though it is the folder that the program has
/// looked into.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Edit {
    /// What was done to which path, the one that decides first.
    pub deeds: Vec<(PathBuf, Deed)>,
    /// Why it is not resumed, if that is known; the end of a sentence.
    pub no_checkpoint: Option<String>,
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
    edit: Option<Edit>,
    /// How many bytes of output the next resume does not show again.
    left_out: u64,
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
            edit: None,
            left_out: 0,
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
            edit: None,
            left_out: 0,
            voice: self.voice.clone(),
        }
    }

    /// What the next [`changed`](Self::changed) is about.
    pub fn note_edit(&mut self, edit: Edit) {
        self.edit = Some(edit);
    }

    /// Why the edit that was noted can only be followed from the beginning.
    pub fn note_no_checkpoint(&mut self, why: String) {
        if let Some(edit) = &mut self.edit {
            edit.no_checkpoint = Some(why);
        }
    }

    /// How many bytes of the output that a resume is to show again are not kept.
    pub fn note_left_out(&mut self, bytes: u64) {
        self.left_out = bytes;
    }

    /// Files changed, or none (somebody asked for it), and this is what forkmon did.
    /// `paths` begins with the one that decided.
    pub fn changed(&mut self, paths: &[&Path], outcome: Outcome<'_>) {
        let noted = self.edit.take();
        let as_compared = || Edit {
            deeds: paths
                .iter()
                .map(|path| (path.into(), Deed::Changed))
                .collect(),
            no_checkpoint: None,
        };
        let edit = noted.unwrap_or_else(as_compared);
        let mut text = self.changed_text(&edit, outcome);
        let left_out = std::mem::take(&mut self.left_out);
        if left_out > 0 {
            let size = bytesize::ByteSize::b(left_out);
            // Writing to a String cannot fail.
            let _ = write!(text, "; the first {size} of its output are left out");
        }
        self.info(&text);
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

    fn changed_text(&self, edit: &Edit, outcome: Outcome<'_>) -> String {
        let paths: Vec<&Path> = edit.deeds.iter().map(|(path, _)| path.as_path()).collect();
        let changed = match edit.deeds[..] {
            [] => String::new(),
            // Such as a renaming.
            [(_, first), (_, second)] if first != second => format!(
                "{} {} and {} {}; ",
                first.word(),
                self.paths(&paths[..1]),
                second.word(),
                self.paths(&paths[1..])
            ),
            [(_, first), ..] => format!("{} {}; ", first.word(), self.paths(&paths)),
        };
        let is_folder_of_it = |before: &Path| {
            let decided = edit.deeds.first();
            decided
                .is_some_and(|(path, deed)| *deed != Deed::Changed && path.parent() == Some(before))
        };
        match outcome {
            Outcome::Resumed {
                before,
                within,
                checkpoint,
                kept,
                latency,
            } => {
                let side = if within {
                    "in the middle of"
                } else {
                    "from before"
                };
                let place = match before {
                    None => format!("from checkpoint {checkpoint}"),
                    Some(before) if paths.first() == Some(&before) => format!("{side} it"),
                    Some(before) if is_folder_of_it(before) => format!("{side} its folder"),
                    Some(before) => format!("{side} {}", self.place(before)),
                };
                format!(
                    "{changed}resumed {place}, {} kept ({})",
                    human(kept),
                    human(latency)
                )
            }
            Outcome::Restarted { why } => {
                let why = edit.no_checkpoint.as_deref().unwrap_or(why);
                format!("{changed}restarted from the beginning: {why}")
            }
        }
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

    fn plain(text: &str) -> String {
        let mut stream = anstream::AutoStream::never(Vec::new());
        stream.write_all(text.as_bytes()).unwrap();
        String::from_utf8(stream.into_inner()).unwrap()
    }

    fn messages() -> Messages {
        Messages::new(Color::Never, false, Path::new("/home/u/project"))
    }

    fn text(deeds: &[(&str, Deed)], outcome: Outcome<'_>) -> String {
        let edit = Edit {
            deeds: deeds
                .iter()
                .map(|(path, deed)| (path.into(), *deed))
                .collect(),
            no_checkpoint: None,
        };
        plain(&messages().changed_text(&edit, outcome))
    }

    fn resumed(before: &'static str) -> Outcome<'static> {
        Outcome::Resumed {
            before: Some(Path::new(before)),
            within: before.ends_with(".sh"),
            checkpoint: 3,
            kept: Duration::from_millis(1020),
            latency: Duration::from_micros(2100),
        }
    }

    #[test]
    fn a_resume_names_the_file_the_place_and_the_times() {
        let edited = ("/home/u/project/lib/b.lua", Deed::Changed);
        assert_eq!(
            text(&[edited], resumed("/home/u/project/lib/b.lua")),
            "changed lib/b.lua; resumed from before it, 1.02 s kept (2.1 ms)"
        );
        assert_eq!(
            text(
                &[edited, ("/a", Deed::Changed), ("/b", Deed::Removed)],
                resumed("/home/u/project/main.lua")
            ),
            "changed lib/b.lua and 2 more; resumed from before main.lua, 1.02 s kept (2.1 ms)"
        );
        assert_eq!(
            text(
                &[("/home/u/project/job.sh", Deed::Changed)],
                resumed("/home/u/project/job.sh")
            ),
            "changed job.sh; resumed in the middle of it, 1.02 s kept (2.1 ms)"
        );
    }

    /// It once said `changed /home/u/project`, and left it to people to find out what
    /// in it they had created.
    #[test]
    fn a_name_in_a_folder_is_what_was_created_or_removed() {
        let created = ("/home/u/project/new.lua", Deed::Created);
        assert_eq!(
            text(&[created], resumed("/home/u/project")),
            "created new.lua; resumed from before its folder, 1.02 s kept (2.1 ms)"
        );
        let removed = ("/home/u/project/lib/old.lua", Deed::Removed);
        assert_eq!(
            text(&[removed, created], resumed("/home/u/project")),
            "removed lib/old.lua and created new.lua; resumed from before ./, 1.02 s kept (2.1 ms)"
        );
    }

    #[test]
    fn a_restart_says_why() {
        let why = "no checkpoint before it";
        let edited = ("/etc/main.lua", Deed::Changed);
        assert_eq!(
            text(&[edited], Outcome::Restarted { why }),
            "changed /etc/main.lua; restarted from the beginning: no checkpoint before it"
        );
    }

    #[test]
    fn what_is_noted_of_an_edit_is_for_one_message() {
        let mut messages = Messages::new(Color::Never, true, Path::new("/"));
        messages.note_edit(Edit::default());
        messages.changed(&[], Outcome::Restarted { why: "as asked" });
        assert_eq!(messages.edit, None);
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
