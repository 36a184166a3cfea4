//! A folder with a guest in it, the edits to it, and what forkmon said of it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::Context as _;
use serde_json::Value;

use crate::Bench;
use crate::process::command;

/// A project folder and, beside it, what is to be renamed into it.
pub struct Project {
    folder: PathBuf,
    beside: PathBuf,
}

impl Project {
    pub fn new(bench: &Bench, name: &str) -> anyhow::Result<Self> {
        let beside = bench.scratch().join(name);
        let folder = beside.join("project");
        fs::create_dir_all(&folder)?;
        Ok(Self { folder, beside })
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }

    pub fn write(&self, name: &str, text: &str) -> anyhow::Result<()> {
        fs::write(self.path(name), text).with_context(|| format!("cannot write {name}"))
    }

    /// Saves a file as editors do, by rename; answers the time just before.
    pub fn save(&self, name: &str, text: &str) -> anyhow::Result<Instant> {
        let new = self.beside.join("new");
        fs::write(&new, text)?;
        let before = Instant::now();
        fs::rename(&new, self.path(name))?;
        Ok(before)
    }

    /// `forkmon OPTIONS -- ` in this project, quiet and with its events kept.
    pub fn forkmon(&self, bench: &Bench, options: &[&str]) -> Command {
        let mut forkmon = command(&bench.options.forkmon);
        forkmon
            .args(["run", "--quiet", "--events"])
            .arg(self.beside.join("events"))
            .args(options)
            .arg("--")
            .current_dir(&self.folder);
        forkmon
    }

    /// What forkmon has told so far under one name, in order.
    pub fn events(&self, name: &str) -> anyhow::Result<Vec<Value>> {
        let text = fs::read_to_string(self.beside.join("events"))?;
        let mut events = Vec::new();
        for line in text.lines() {
            let event: Value = serde_json::from_str(line)?;
            if event["event"] == name {
                events.push(event);
            }
        }
        Ok(events)
    }
}

/// A number of an event.
pub fn field(event: &Value, name: &str) -> anyhow::Result<f64> {
    event[name]
        .as_f64()
        .with_context(|| format!("an event without {name}: {event}"))
}
