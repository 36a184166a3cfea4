//! A plain run, without forkmon: what every run under forkmon is measured by.

use std::collections::HashMap;
use std::fs;
use std::io::{self, Read};
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Output, Stdio};

use super::manner::Manner;
use super::model::Model;
use super::project::Project;
use super::site::{Side, Site};
use super::tree::{Rename, Tree};

/// What a run printed, how it ended, and what it left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
    /// The exit status, 128 + n for signal n.
    pub status: i32,
    pub tree: Tree,
}

/// Plain runs of one project. What was run once is remembered.
pub struct Plain<'a> {
    project: &'a Project,
    manner: &'a Manner,
    site: &'a Site,
    known: HashMap<String, Outcome>,
}

impl<'a> Plain<'a> {
    pub fn new(project: &'a Project, manner: &'a Manner, site: &'a Site) -> Plain<'a> {
        Plain {
            project,
            manner,
            site,
            known: HashMap::new(),
        }
    }

    /// What a fresh run on these files comes to.
    pub fn outcome(&mut self, model: &Model) -> io::Result<&Outcome> {
        let key = format!("{model:?}");
        if !self.known.contains_key(&key) {
            let outcome = self.run(model)?;
            self.known.insert(key.clone(), outcome);
        }
        Ok(&self.known[&key])
    }

    /// Runs it, whatever is remembered.
    pub fn run(&self, model: &Model) -> io::Result<Outcome> {
        let side = Side::Plain;
        let root = self.site.root(side);
        if root.exists() {
            fs::remove_dir_all(&root)?;
        }
        model.write(&root)?;
        let argv = self.project.argv();
        let mut command = Command::new(&argv[0]);
        command
            .args(&argv[1..])
            .current_dir(&root)
            .stdin(Stdio::null());
        self.site.environment(side, self.project, &mut command);
        let output = if self.manner.joined {
            joined_output(command)?
        } else {
            command.output()?
        };
        let (from, to) = (self.site.base_of(side), self.site.base_of(Side::Watched));
        let rename = Rename {
            from: &from,
            to: &to,
        };
        let status = output.status;
        Ok(Outcome {
            stdout: rename.apply(&output.stdout),
            stderr: rename.apply(&output.stderr),
            status: status
                .code()
                .or(status.signal().map(|signal| 128 + signal))
                .unwrap_or_default(),
            tree: Tree::of(&root, Some(rename))?,
        })
    }
}

/// Runs a command with both output streams in one pipe; what comes through it
/// counts as its standard output.
fn joined_output(mut command: Command) -> io::Result<Output> {
    let (mut reader, writer) = io::pipe()?;
    command.stdout(writer.try_clone()?).stderr(writer);
    let mut child = command.spawn()?;
    // It holds the writing ends.
    drop(command);
    let mut stdout = Vec::new();
    reader.read_to_end(&mut stdout)?;
    Ok(Output {
        status: child.wait()?,
        stdout,
        stderr: Vec::new(),
    })
}
