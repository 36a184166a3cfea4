//! What the guardian is to see to when forkmon is gone; each is told to the next
//! guardian if one dies.

use crate::guardian::Guardian;
use crate::keys::Memo;
use std::io;
use std::path::{Path, PathBuf};
use tracee::Tid;

/// The guardian, and what it was told.
#[derive(Debug)]
pub(super) struct Keeper {
    guardian: Guardian,
    paths: Vec<PathBuf>,
    keeps: Vec<PathBuf>,
    terminal: Option<Memo>,
}

impl Keeper {
    pub(super) fn new(guardian: Guardian) -> Self {
        Self {
            guardian,
            paths: Vec::new(),
            keeps: Vec::new(),
            terminal: None,
        }
    }

    /// The guardian's process.
    pub(super) fn process(&self) -> Tid {
        Tid::new(i32::try_from(self.guardian.pid()).unwrap_or_default())
    }

    /// A store or a socket is about to be made.
    pub(super) fn note_path(&mut self, path: &Path) {
        // A guardian that is gone is replaced, and told, when its end is reported.
        let _ = self.guardian.keep_in_mind(path);
        self.paths.push(path.to_owned());
    }

    /// A folder is about to be made for what outlives forkmon.
    pub(super) fn note_keep(&mut self, path: &Path) {
        // As above.
        let _ = self.guardian.keep_if_not_empty(path);
        self.keeps.push(path.to_owned());
    }

    /// The terminal's modes are about to be changed.
    pub(super) fn note_terminal(&mut self, memo: &Memo) {
        // As above.
        let _ = self.guardian.keep_terminal_in_mind(memo);
        self.terminal = Some(memo.clone());
    }

    /// Has another guardian in the place of one that died.
    pub(super) fn replace_guardian(&mut self) -> io::Result<()> {
        let mut guardian = Guardian::start()?;
        for path in &self.paths {
            // It has just been started, and the paths were right before.
            let _ = guardian.keep_in_mind(path);
        }
        for path in &self.keeps {
            let _ = guardian.keep_if_not_empty(path);
        }
        if let Some(memo) = &self.terminal {
            let _ = guardian.keep_terminal_in_mind(memo);
        }
        self.guardian = guardian;
        Ok(())
    }
}
