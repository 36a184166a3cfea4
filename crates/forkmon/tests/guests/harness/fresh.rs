//! A plain run of a guest, without forkmon, on a copy of the project: what
//! every run under forkmon is measured by.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::project::{Project, tree};
use super::terminal::Terminal;

/// What a plain run printed, how it ended, and what files it left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fresh {
    /// Its standard output.
    pub stdout: String,
    /// Its exit status as forkmon gives it: 128 + n for a signal.
    pub code: i32,
    /// The files afterwards.
    pub tree: BTreeMap<PathBuf, String>,
}

/// The environment of every guest: only what the test names, so that the
/// machine's own settings (such as `PYTHONDONTWRITEBYTECODE`) play no part.
pub(super) fn environment(project: &Project, command: &mut Command) {
    command
        .env_clear()
        .env(
            "PATH",
            "/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin",
        )
        .env("LANG", "C.UTF-8")
        .env("HOME", project.home())
        .env("TMPDIR", project.temporary());
    // By this, scripts/test finds what has outlived the tests.
    if let Some(run) = std::env::var_os("FORKMON_TEST_RUN") {
        command.env("FORKMON_TEST_RUN", run);
    }
}

impl Project {
    /// Runs the command plainly on the files as they should be by now.
    pub fn fresh(&self, argv: &[&str]) -> Fresh {
        self.fresh_with_input(argv, "")
    }

    /// Like [`Project::fresh`], with something to read on standard input.
    pub fn fresh_with_input(&self, argv: &[&str], input: &str) -> Fresh {
        let folder = tempfile::Builder::new()
            .prefix("fresh-")
            .tempdir_in(self.base())
            .expect("a folder can be made");
        let root = folder.path().join("project");
        self.copy_to(&root);
        let mut command = Command::new(argv[0]);
        command
            .args(&argv[1..])
            .current_dir(&root)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        environment(self, &mut command);
        let mut child = command
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {argv:?}: {error}"));
        let mut stdin = child.stdin.take().expect("it was asked for");
        // A guest that reads nothing closes the pipe: that is no failure.
        let _ = stdin.write_all(input.as_bytes());
        drop(stdin);
        let output = child
            .wait_with_output()
            .expect("the guest can be waited for");
        Fresh {
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            code: status_code(output.status),
            tree: tree(Path::new(&root)),
        }
    }
}

impl Project {
    /// What a plain run prints on a terminal, and how it ends.
    pub fn fresh_on_terminal(&self, argv: &[&str], mut terminal: Terminal) -> (String, i32) {
        let folder = tempfile::Builder::new()
            .prefix("fresh-")
            .tempdir_in(self.base())
            .expect("a folder can be made");
        let root = folder.path().join("project");
        self.copy_to(&root);
        let mut command = Command::new(Terminal::COMMAND[0]);
        command
            .args(&Terminal::COMMAND[1..])
            .args(argv)
            .current_dir(&root);
        terminal.give_to(&mut command);
        environment(self, &mut command);
        let mut child = command
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {argv:?}: {error}"));
        drop(command);
        let output = terminal.read_to_end();
        let status = child.wait().expect("the guest can be waited for");
        (
            String::from_utf8_lossy(&output).into_owned(),
            status_code(status),
        )
    }
}

/// An exit status as shells and forkmon put it.
pub(super) fn status_code(status: std::process::ExitStatus) -> i32 {
    use std::os::unix::process::ExitStatusExt;
    status
        .code()
        .or_else(|| status.signal().map(|signal| 128 + signal))
        .expect("a process that ended has one of both")
}
