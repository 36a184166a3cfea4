//! The folders that a project is tried in: one side for forkmon, one for plain
//! runs. Their paths have the same length, so that a program which writes its
//! own path writes as many bytes on both sides.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use super::project::Project;

/// Which of the two runs is meant.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Side {
    Watched,
    Plain,
}

/// A temporary folder with both sides, removed when it is dropped.
pub struct Site {
    base: TempDir,
}

impl Site {
    pub fn new(name: &str) -> io::Result<Site> {
        let base = tempfile::Builder::new()
            .prefix(&format!("equivalence-{name}-"))
            .tempdir()?;
        let site = Site { base };
        for side in [Side::Watched, Side::Plain] {
            fs::create_dir_all(site.temporary(side))?;
            fs::create_dir_all(site.base_of(side).join("home"))?;
        }
        Ok(site)
    }

    /// The folder that holds both sides, and forkmon's FIFO and socket.
    pub fn base(&self) -> &Path {
        self.base.path()
    }

    /// The folder of one side.
    pub fn base_of(&self, side: Side) -> PathBuf {
        self.base.path().join(match side {
            Side::Watched => "watched",
            Side::Plain => "plainly",
        })
    }

    /// The project of one side.
    pub fn root(&self, side: Side) -> PathBuf {
        self.base_of(side).join("project")
    }

    /// The folder for temporary files of one side.
    pub fn temporary(&self, side: Side) -> PathBuf {
        self.base_of(side).join("tmp")
    }

    /// Gives a guest only what is named here, so that the machine's own settings
    /// (such as `PYTHONDONTWRITEBYTECODE`) play no part.
    pub fn environment(&self, side: Side, project: &Project, command: &mut Command) {
        command
            .env_clear()
            .env("PATH", "/usr/local/bin:/usr/bin:/bin")
            .env("LANG", "C.UTF-8")
            .env("HOME", self.base_of(side).join("home"))
            .env("TMPDIR", self.temporary(side))
            .envs(project.definition.environment.iter().copied());
        // By this, scripts/test finds what has outlived the tests.
        if let Some(run) = std::env::var_os("FORKMON_TEST_RUN") {
            command.env("FORKMON_TEST_RUN", run);
        }
    }
}
