//! A project that the oracle is asked about: a folder of plain files, a command
//! to run there, and which of its files the guest writes itself.

use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use super::guest;
use super::model::Model;

/// What is made of the project's sources before it can run, outside of it.
#[derive(Copy, Clone, Debug)]
pub enum Build {
    /// A static C program from `main.c`.
    C,
    /// A static Go program from `main.go`.
    Go,
    /// Java classes from `Main.java`.
    Java,
}

/// What is said of a project in the catalog.
#[derive(Copy, Clone, Debug)]
pub struct Definition {
    /// Also the name of its folder.
    pub name: &'static str,
    /// `{built}` stands for what `build` makes.
    pub command: &'static [&'static str],
    /// Programs that must be there, each of which the command may begin with.
    pub needs: &'static [&'static str],
    /// It is left out where its program is missing, also in CI.
    pub when_installed: bool,
    pub build: Option<Build>,
    /// Further options of `forkmon run`.
    pub options: &'static [&'static str],
    pub environment: &'static [(&'static str, &'static str)],
    /// Files that a person makes at times, with what is in them.
    pub optional: &'static [(&'static str, &'static str)],
    /// Files that the guest writes and a person edits, too: only when the guest
    /// has ended, since it is open who writes last otherwise.
    pub rewritten: &'static [&'static str],
    /// The file that it reads first, with something to edit in it.
    pub first: &'static str,
    /// Files that the guest changes without having looked at them. That a person
    /// changes one is no edit, but it holds for what follows from the next.
    pub outputs: &'static [&'static str],
}

impl Definition {
    /// Whether the guest writes to a file that a person has, too.
    pub fn writes(&self, name: &Path) -> bool {
        let mut all = self.rewritten.iter().chain(self.outputs);
        all.any(|other| Path::new(other) == name)
    }

    /// What most projects are.
    pub const fn new(
        name: &'static str,
        command: &'static [&'static str],
        needs: &'static [&'static str],
        first: &'static str,
    ) -> Definition {
        Definition {
            name,
            command,
            needs,
            when_installed: false,
            build: None,
            options: &[],
            environment: &[],
            optional: &[],
            rewritten: &[],
            first,
            outputs: &[],
        }
    }
}

/// A project that is ready to be run.
pub struct Project {
    pub definition: &'static Definition,
    /// The files that it begins with.
    pub start: Model,
    argv: Vec<String>,
    /// Keeps what was built.
    _built: TempDir,
}

impl Project {
    /// Makes a project ready; nothing where a program is not installed, which is
    /// said, or a failure of the test where it has to be.
    pub fn prepare(definition: &'static Definition) -> Option<Project> {
        let mut programs = Vec::new();
        for name in definition.needs {
            if definition.when_installed && !is_installed(name) {
                eprintln!("SKIPPED {}: {name} is not installed", definition.name);
                return None;
            }
            programs.push((*name, guest::find(name)?.as_str().to_owned()));
        }
        let folder = guest::place("FORKMON_TEST_PROJECTS", "tests/equivalence/projects")
            .join(definition.name);
        let start = Model::load(&folder)
            .unwrap_or_else(|error| panic!("cannot read {}: {error}", folder.display()));
        let built_in = tempfile::tempdir().expect("the temporary folder can be written");
        let built = definition
            .build
            .map(|build| build.make(&folder, built_in.path()));
        let mut argv: Vec<String> = Vec::new();
        for word in definition.command {
            let mut word = (*word).to_owned();
            if let Some(built) = &built {
                word = word.replace("{built}", built);
            }
            if argv.is_empty()
                && let Some((_, path)) = programs.iter().find(|(name, _)| *name == word)
            {
                word.clone_from(path);
            }
            argv.push(word);
        }
        Some(Project {
            definition,
            start,
            argv,
            _built: built_in,
        })
    }

    /// The command.
    pub fn argv(&self) -> &[String] {
        &self.argv
    }
}

fn is_installed(program: &str) -> bool {
    ["/usr/local/bin", "/usr/bin", "/bin"]
        .iter()
        .any(|folder| Path::new(folder).join(program).exists())
}

impl Build {
    /// Builds what the command names as `{built}`.
    fn make(self, sources: &Path, into: &Path) -> String {
        let built = into.join("built");
        let mut tool;
        match self {
            Build::C => {
                tool = Command::new("cc");
                tool.args(["-O1", "-g", "-Wall", "-Wextra", "-Werror", "-static", "-o"])
                    .arg(&built)
                    .arg(sources.join("main.c"));
            }
            Build::Go => {
                tool = Command::new("go");
                tool.args(["build", "-o"])
                    .arg(&built)
                    .arg(sources.join("main.go"))
                    .current_dir(into)
                    .env("CGO_ENABLED", "0")
                    .env("GO111MODULE", "off")
                    .env("GOPATH", into.join("go"))
                    .env("GOCACHE", cache().join("go-cache"));
            }
            Build::Java => {
                tool = Command::new("javac");
                tool.args(["-J-XX:TieredStopAtLevel=1", "-d"])
                    .arg(&built)
                    .arg(sources.join("Main.java"));
            }
        }
        guest::run_tool(&mut tool);
        built.to_str().expect("a plain name").to_owned()
    }
}

/// Building Go's standard library takes half a minute, so that all tests share
/// one cache.
fn cache() -> PathBuf {
    std::env::var_os("FORKMON_TEST_CACHE")
        .unwrap_or_else(|| env!("CARGO_TARGET_TMPDIR").into())
        .into()
}
