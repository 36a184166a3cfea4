//! How `forkmon` is started: on which command, with which options, and on what its
//! standard streams are.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::fs::{Mode, OFlags};

use super::forkmon::{Forkmon, Started};
use super::fresh::environment;
use super::processes::MARK;
use super::project::{Project, chmod};
use super::terminal::Terminal;

/// The `forkmon` under test.
pub fn program() -> PathBuf {
    std::env::var_os("FORKMON_TEST_PROGRAM")
        .unwrap_or_else(|| env!("CARGO_BIN_EXE_forkmon").into())
        .into()
}

/// How forkmon is to be started.
pub struct Launch<'a> {
    project: &'a Project,
    argv: Vec<OsString>,
    options: Vec<OsString>,
    environment: Vec<(OsString, OsString)>,
    through: Vec<OsString>,
    program: PathBuf,
    folder: PathBuf,
    input: bool,
    terminal: Option<Terminal>,
    budget: &'static str,
}

impl Project {
    /// Starts `forkmon run` on a command in the project's root.
    pub fn watch(&self, argv: &[&str]) -> Forkmon {
        self.launch(argv).start()
    }

    /// The same with more to say before it starts.
    pub fn launch(&self, argv: &[&str]) -> Launch<'_> {
        Launch {
            project: self,
            argv: argv.iter().map(OsString::from).collect(),
            options: Vec::new(),
            environment: Vec::new(),
            through: Vec::new(),
            program: program(),
            folder: self.root(),
            input: false,
            terminal: None,
            budget: "--budget=100%",
        }
    }
}

impl Launch<'_> {
    /// Adds an option of `forkmon run`.
    pub fn option(mut self, option: impl AsRef<OsStr>) -> Self {
        self.options.push(option.as_ref().into());
        self
    }

    /// Leaves the budget for checkpoints at its default.
    ///
    /// The cost of a checkpoint is measured in real time, which whatever else
    /// the machine does makes longer. So that what is tested does not hang on
    /// that, the tests give forkmon a budget that always allows the next
    /// checkpoint, except where the budget is what is tested.
    pub fn default_budget(mut self) -> Self {
        self.budget = "--budget=5%";
        self
    }

    /// Adds a variable to the environment.
    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.environment.push((name.into(), value.as_ref().into()));
        self
    }

    /// Starts it in another working directory.
    pub fn folder(mut self, folder: &Path) -> Self {
        self.folder = folder.into();
        self
    }

    /// Keeps standard input open, to be written by [`Forkmon::type_line`].
    pub fn with_input(mut self) -> Self {
        self.input = true;
        self
    }

    /// Starts it in the foreground of a terminal, which is its standard input, output
    /// and error.
    pub fn on_terminal(mut self, terminal: Terminal) -> Self {
        self.terminal = Some(terminal);
        self
    }

    /// Starts it through another program, such as `prlimit … --`.
    pub fn through(mut self, words: &[&str]) -> Self {
        self.through = words.iter().map(OsString::from).collect();
        self
    }

    /// Starts it as an ordinary user without any privilege, whom no other test
    /// uses, so that limits on the user count only this. Only root can do this.
    pub fn by_another_user(mut self) -> Self {
        let user = other_user();
        let program = self.project.beside().join("forkmon");
        std::fs::copy(&self.program, &program).expect("the program can be copied");
        self.program = program;
        give_to(self.project.base(), user);
        let user = user.to_string();
        let words = [
            "setpriv",
            "--reuid",
            &user,
            "--regid",
            &user,
            "--clear-groups",
            "--",
        ];
        let mut through: Vec<OsString> = words.iter().map(OsString::from).collect();
        through.append(&mut self.through);
        self.through = through;
        self
    }

    /// Starts it.
    pub fn start(mut self) -> Forkmon {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let mark = format!(
            "{}-{}",
            std::process::id(),
            COUNT.fetch_add(1, Ordering::Relaxed)
        );
        let fifo = self.project.beside().join(format!("events-{mark}"));
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &fifo,
            rustix::fs::FileType::Fifo,
            Mode::from_raw_mode(0o666),
            0,
        )
        .expect("a FIFO can be made");
        chmod(&fifo, 0o666);
        // Open for both, it never comes to its end, and nobody waits to open it.
        let events = rustix::fs::open(
            &fifo,
            OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC,
            Mode::empty(),
        )
        .expect("the FIFO can be opened");

        let mut words = self.through.clone();
        if self.terminal.is_some() {
            words.splice(0..0, Terminal::COMMAND.map(OsString::from));
        }
        words.push(self.program.clone().into());
        words.push("run".into());
        words.push("--events".into());
        words.push(fifo.into());
        words.push(self.budget.into());
        words.extend(self.options.iter().cloned());
        words.push("--".into());
        words.extend(self.argv.iter().cloned());
        let mut command = Command::new(&words[0]);
        command
            .args(&words[1..])
            .current_dir(&self.folder)
            .stdin(if self.input {
                Stdio::piped()
            } else {
                Stdio::null()
            })
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        match &self.terminal {
            // It gets a session of its own.
            Some(terminal) => terminal.give_to(&mut command),
            None => {
                command.process_group(0);
            }
        }
        environment(self.project, &mut command);
        command
            .env(MARK, &mark)
            .envs(self.environment.iter().cloned());
        let mut child = command.spawn().expect("forkmon can be started");
        drop(command);
        let (silence, silent) = std::io::pipe().expect("a pipe can be made");
        let (stdout, stderr) = match &mut self.terminal {
            Some(terminal) => (terminal.started(), unblocked(silence.into())),
            None => (
                unblocked(child.stdout.take().expect("it was asked for").into()),
                unblocked(child.stderr.take().expect("it was asked for").into()),
            ),
        };
        let mut places = vec![self.project.temporary(), self.project.root()];
        let above = self.project.root();
        places.extend(above.ancestors().skip(1).map(Path::to_path_buf));
        Forkmon::new(Started {
            child,
            mark,
            events: File::from(events),
            stdout,
            stderr,
            terminal: self.terminal,
            silent: silent.into(),
            places,
        })
    }
}

fn unblocked(fd: OwnedFd) -> File {
    let flags = rustix::fs::fcntl_getfl(&fd).expect("a pipe has flags");
    rustix::fs::fcntl_setfl(&fd, flags | OFlags::NONBLOCK).expect("a pipe can be unblocked");
    File::from(fd)
}

/// The id of a user that need not have a name, another one at each call.
fn other_user() -> u32 {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    100_000 + std::process::id() % 100_000 * 100 + COUNT.fetch_add(1, Ordering::Relaxed) % 100
}

fn give_to(path: &Path, user: u32) {
    let meta = std::fs::symlink_metadata(path).expect("a file can be looked at");
    if meta.is_symlink() {
        return;
    }
    std::os::unix::fs::chown(path, Some(user), Some(user)).expect("root can give files away");
    if meta.is_dir() {
        chmod(path, 0o755);
        for entry in std::fs::read_dir(path).expect("a folder can be listed") {
            give_to(&entry.expect("a folder can be listed").path(), user);
        }
    }
}
