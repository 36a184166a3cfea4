//! A real forkmon with a guest, or a program in a terminal, and what comes out
//! of it.

use std::io::{Read, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Instant;

use rustix::process::{Pid, Signal, kill_process, kill_process_group};

use super::harness::{Ground, PATIENCE, skipped};

/// A process in a group of its own, with all that it writes in one stream.
/// When it is dropped, the group is killed.
pub struct Process {
    child: Child,
    input: Option<ChildStdin>,
    output: Receiver<Vec<u8>>,
    seen: Vec<u8>,
    /// Up to here it was waited for.
    read: usize,
}

impl Process {
    fn spawn(mut command: Command) -> Self {
        let (reader, writer) = std::io::pipe().unwrap();
        command
            .stdin(Stdio::piped())
            .stdout(writer.try_clone().unwrap())
            .stderr(writer)
            .process_group(0);
        let mut child = command.spawn().unwrap();
        // It holds the writing ends.
        drop(command);
        let (sender, output) = channel();
        std::thread::spawn(move || {
            let mut reader = reader;
            let mut part = [0; 4096];
            while let Ok(count) = reader.read(&mut part) {
                if count == 0 || sender.send(part[..count].to_vec()).is_err() {
                    return;
                }
            }
        });
        Self {
            input: child.stdin.take(),
            child,
            output,
            seen: Vec::new(),
            read: 0,
        }
    }

    /// `forkmon run OPTIONS -- COMMAND` in the project.
    pub fn forkmon(ground: &Ground, options: &[&str], command: &[&str]) -> Self {
        let mut forkmon = Command::new(program());
        forkmon
            .arg("run")
            .args(options)
            .arg("--")
            .args(command)
            .current_dir(ground.path("project"))
            .envs(environment(ground));
        Self::spawn(forkmon)
    }

    /// A shell script in a terminal of its own, in the project. `$forkmon` in it is
    /// the program, `$beside` a folder outside of the project.
    pub fn in_terminal(ground: &Ground, script: &str) -> Self {
        let file = ground.path("script.sh");
        std::fs::write(&file, script).unwrap();
        let mut terminal = Command::new("script");
        terminal
            .args(["-q", "-e", "-f", "-c"])
            .arg(format!("bash {}", file.display()))
            .arg("/dev/null")
            .current_dir(ground.path("project"))
            .envs(environment(ground))
            .env("forkmon", program())
            .env("beside", ground.path(""));
        Self::spawn(terminal)
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    pub fn type_in(&mut self, keys: &str) {
        let input = self.input.as_mut().unwrap();
        input.write_all(keys.as_bytes()).unwrap();
    }

    /// Waits for a text in what is written after the last text that was waited
    /// for; what comes before it.
    #[track_caller]
    pub fn wait_for(&mut self, text: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let new = String::from_utf8_lossy(&self.seen[self.read..]).into_owned();
            if let Some(at) = new.find(text) {
                self.read += at + text.len();
                return new[..at].to_owned();
            }
            let left = deadline.saturating_duration_since(Instant::now());
            match self.output.recv_timeout(left) {
                Ok(part) => self.seen.extend(part),
                Err(_) => panic!(
                    "{text:?} does not come:\n{}",
                    String::from_utf8_lossy(&self.seen)
                ),
            }
        }
    }

    /// Waits for its end.
    pub fn wait_end(&mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        // All of its output is read, so that it does not block.
        while let Ok(part) = self
            .output
            .recv_timeout(deadline.saturating_duration_since(Instant::now()))
        {
            self.seen.extend(part);
        }
        assert!(
            Instant::now() < deadline,
            "it does not end:\n{}",
            String::from_utf8_lossy(&self.seen)
        );
        self.child.wait().unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let group = Pid::from_child(&self.child);
        if matches!(self.child.try_wait(), Ok(None)) {
            // What script runs has a session of its own, and ends with its
            // terminal.
            let _ = kill_process_group(group, Signal::TERM);
            let deadline = Instant::now() + PATIENCE / 10;
            while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < deadline {
                std::thread::yield_now();
            }
            let _ = kill_process_group(group, Signal::KILL);
            let _ = self.child.wait();
        }
    }
}

pub fn program() -> PathBuf {
    env!("CARGO_BIN_EXE_forkmon").into()
}

fn environment(ground: &Ground) -> [(&'static str, std::ffi::OsString); 3] {
    [
        ("XDG_RUNTIME_DIR", ground.path("run").into()),
        ("FORKMON_NO_COLORS", "1".into()),
        ("HOME", ground.path("").into()),
    ]
}

/// `forkmon ctl` in the project: exit status, standard output, standard error.
pub fn ctl(ground: &Ground, words: &[&str]) -> (i32, String, String) {
    let asked = Command::new(program())
        .arg("ctl")
        .args(words)
        .current_dir(ground.path("project"))
        .envs(environment(ground))
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (
        asked.status.code().unwrap(),
        text(asked.stdout),
        text(asked.stderr),
    )
}

/// The same, which must work; what it says.
#[track_caller]
pub fn done(ground: &Ground, words: &[&str]) -> String {
    let (code, stdout, stderr) = ctl(ground, words);
    assert_eq!(code, 0, "{words:?}: {stderr}");
    stdout.trim_end().to_owned()
}

/// Waits until something holds that no event tells of.
#[track_caller]
pub fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "never: {what}");
        std::thread::yield_now();
    }
}

/// Whether a program is there.
pub fn has(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).any(|folder| folder.join(program).exists());
    if !found {
        assert!(
            std::env::var_os("FORKMON_REQUIRE_GUESTS").is_none_or(|value| value != "1"),
            "{program} is missing"
        );
        skipped(&format!("{program} is not installed"));
    }
    found
}

/// What lies in a folder.
pub fn names(folder: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return Vec::new();
    };
    let name = |entry: std::io::Result<std::fs::DirEntry>| {
        entry.unwrap().file_name().to_string_lossy().into_owned()
    };
    entries.map(name).collect()
}
