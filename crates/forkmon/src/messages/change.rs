//! What an edit led to, in one line.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{Messages, human};

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
        /// How many bytes of the output that is to be shown again are not kept.
        left_out: u64,
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

/// What a new run follows; by default nothing but that somebody asked for it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Edit {
    /// The path that decided, as it is compared: where a name is new in a folder, it is
    /// the folder that the program has looked into.
    pub decided: Option<PathBuf>,
    /// What was done to which path, the one that decides first: of such a folder, to the
    /// names in it.
    pub deeds: Vec<(PathBuf, Deed)>,
}

impl Messages {
    /// Files changed, or none (somebody asked for it), and this is what forkmon did.
    pub fn changed(&self, edit: &Edit, outcome: Outcome<'_>) {
        self.info(&self.changed_text(edit, outcome));
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
                left_out,
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
                let mut text = format!(
                    "{changed}resumed {place}, {} kept ({})",
                    human(kept),
                    human(latency)
                );
                if left_out > 0 {
                    let size = bytesize::ByteSize::b(left_out);
                    // Writing to a String cannot fail.
                    let _ = write!(text, "; the first {size} of its output are left out");
                }
                text
            }
            Outcome::Restarted { why } => {
                format!("{changed}restarted from the beginning: {why}")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::messages::Color;
    use std::io::Write as _;

    fn plain(text: &str) -> String {
        let mut stream = anstream::AutoStream::never(Vec::new());
        stream.write_all(text.as_bytes()).unwrap();
        String::from_utf8(stream.into_inner()).unwrap()
    }

    fn text(deeds: &[(&str, Deed)], outcome: Outcome<'_>) -> String {
        let edit = Edit {
            deeds: deeds
                .iter()
                .map(|(path, deed)| (path.into(), *deed))
                .collect(),
            ..Edit::default()
        };
        let messages = Messages::new(Color::Never, false, Path::new("/home/u/project"));
        plain(&messages.changed_text(&edit, outcome))
    }

    fn resumed(before: &'static str) -> Outcome<'static> {
        Outcome::Resumed {
            before: Some(Path::new(before)),
            within: before.ends_with(".sh"),
            checkpoint: 3,
            kept: Duration::from_millis(1020),
            latency: Duration::from_micros(2100),
            left_out: 0,
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
}
