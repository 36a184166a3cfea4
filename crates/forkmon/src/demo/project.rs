//! The demo's project: a temporary folder with an index and its modules, and
//! beside it the named pipe for the events.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use rustix::fs::{CWD, FileType, Mode};
use tempfile::TempDir;

use crate::guardian::{Guardian, STORE_PREFIX};

/// The file that names the modules, in the order in which they are loaded.
pub(super) const INDEX: &str = "index.txt";

/// The file that says how much work a module is.
pub(super) const ROUNDS: &str = "rounds.txt";

/// The marker of a project root: without it, a repository that the temporary
/// folder happens to lie in would be the project.
const MARKER: &str = "forkmon.toml";

const MODULES: [&str; 10] = [
    "settings",
    "logging",
    "database",
    "models",
    "cache",
    "search",
    "mail",
    "templates",
    "routes",
    "greeting",
];

/// The project on disk. It is removed when this is dropped, and by the guardian
/// if it comes to no drop.
pub(super) struct Project {
    /// What holds all of it; dropped before the guardian is.
    top: TempDir,
    dir: PathBuf,
    events: PathBuf,
    /// None if the project is to be kept.
    guardian: Option<Guardian>,
}

impl Project {
    /// Makes it. `rounds` is the work for each module; with `keep` it stays.
    pub(super) fn create(rounds: u64, keep: bool) -> anyhow::Result<Self> {
        let prefix = if keep { "forkmon-demo-" } else { STORE_PREFIX };
        let top = tempfile::Builder::new()
            .prefix(prefix)
            .tempdir()
            .context("cannot make a temporary folder; set TMPDIR to one that can be written")?;
        let guardian = if keep {
            None
        } else {
            let mut guardian = Guardian::start().context("cannot start the guardian")?;
            let path = std::path::absolute(top.path())?;
            guardian
                .keep_in_mind(&path)
                .context("cannot tell the guardian")?;
            Some(guardian)
        };
        // The guest is told this name, and compares nothing with another.
        let real = top.path().canonicalize()?;
        let project = Self {
            dir: real.join("project"),
            events: real.join("events"),
            top,
            guardian,
        };
        std::fs::create_dir(&project.dir).context("cannot make the project's folder")?;
        rustix::fs::mknodat(
            CWD,
            &project.events,
            FileType::Fifo,
            Mode::RUSR | Mode::WUSR,
            0,
        )
        .context("cannot make a named pipe")?;
        let write = |name: &str, content: &str| project.write(name, content);
        write(MARKER, "# The demo's project root.\n")?;
        write(ROUNDS, &format!("{rounds}\n"))?;
        let index: String = MODULES
            .iter()
            .map(|name| format!("{}\n", file(name)))
            .collect();
        write(INDEX, &index)?;
        for name in MODULES {
            write(&file(name), &format!("the {name} of before\n"))?;
        }
        Ok(project)
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// The named pipe for the events.
    pub(super) fn events(&self) -> &Path {
        &self.events
    }

    /// How many modules there are.
    pub(super) fn modules(&self) -> usize {
        MODULES.len()
    }

    /// The module that is loaded last, as the index names it.
    pub(super) fn last_module(&self) -> PathBuf {
        file(MODULES[MODULES.len() - 1]).into()
    }

    /// Saves other content into the module that is loaded last, in place.
    pub(super) fn edit_last_module(&self) -> anyhow::Result<()> {
        self.write(
            &file(MODULES[MODULES.len() - 1]),
            "the greeting, with the edit in it\n",
        )
    }

    /// Removes it, or leaves it on disk if it is to be kept; where it is then.
    pub(super) fn close(self) -> Option<PathBuf> {
        if self.guardian.is_some() {
            return None;
        }
        let _ = std::fs::remove_file(&self.events);
        let _ = self.top.keep();
        Some(self.dir)
    }

    fn write(&self, name: &str, content: &str) -> anyhow::Result<()> {
        let path = self.dir().join(name);
        std::fs::write(&path, content).with_context(|| format!("cannot write {}", path.display()))
    }
}

fn file(module: &str) -> String {
    format!("{module}.txt")
}
