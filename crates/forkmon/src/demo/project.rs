//! The demo's project: a temporary folder with an index and its modules.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use tempfile::TempDir;

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

/// The project on disk. It is removed when this is dropped.
pub(super) struct Project {
    dir: TempDir,
}

impl Project {
    /// Makes it. `rounds` is the work for each module.
    pub(super) fn create(rounds: u64) -> anyhow::Result<Self> {
        let dir = tempfile::Builder::new()
            .prefix("forkmon-demo-")
            .tempdir()
            .context("cannot make a temporary folder; set TMPDIR to one that can be written")?;
        let project = Self { dir };
        let write = |name: &str, content: &str| project.write(name, content);
        write(MARKER, "# The demo's project root.\n")?;
        write(ROUNDS, &format!("{rounds}\n"))?;
        let index: String = MODULES
            .iter()
            .map(|name| format!("{}\n", file(name)))
            .collect();
        write(INDEX, &index)?;
        for name in MODULES {
            write(&file(name), &format!("the {name}, as they were\n"))?;
        }
        Ok(project)
    }

    pub(super) fn dir(&self) -> &Path {
        self.dir.path()
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

    /// Leaves it on disk; where it is.
    pub(super) fn keep(self) -> PathBuf {
        self.dir.keep()
    }

    fn write(&self, name: &str, content: &str) -> anyhow::Result<()> {
        let path = self.dir().join(name);
        std::fs::write(&path, content).with_context(|| format!("cannot write {}", path.display()))
    }
}

fn file(module: &str) -> String {
    format!("{module}.txt")
}
