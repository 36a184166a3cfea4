//! The forkmon that the demo shows: started as a person would start it, and
//! listened to on its three ways out, in the order in which they speak.

use std::collections::VecDeque;
use std::fs::OpenOptions;
use std::io::{BufRead as _, BufReader, Read};
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use tempfile::TempDir;

use super::THIS_PROGRAM;
use super::project::Project;
use crate::sys;

/// Set when somebody wants the tour to end.
pub(super) type InterruptFlag = Arc<AtomicBool>;

/// After this long without a word something is wrong. It only ever ends a hang.
const SILENCE: Duration = Duration::from_secs(60);

/// How often the end of the process and an interrupt are looked for while
/// nothing is heard.
const TICK: Duration = Duration::from_millis(50);

/// How long forkmon may take to quit.
const QUIT_TIMEOUT: Duration = Duration::from_secs(10);

/// The tour was interrupted; its folder is still to be removed.
#[derive(Debug, thiserror::Error)]
#[error("interrupted")]
pub(super) struct Interrupted;

/// Something that forkmon or its guest said.
pub(super) enum Heard {
    /// A line of the guest.
    Output(String),
    /// A line of forkmon.
    Message(String),
    /// A line of the events file.
    Event(serde_json::Value),
}

/// A running `forkmon run`.
pub(super) struct Session {
    forkmon: Child,
    heard: Receiver<Heard>,
    /// The last messages, for when forkmon ends unexpectedly.
    last_messages: VecDeque<String>,
    interrupted: InterruptFlag,
    ended: bool,
    /// Where the named pipe of the events is.
    _events_dir: TempDir,
}

/// Makes Ctrl-C and its relatives end the tour in an orderly way.
pub(super) fn watch_for_interrupts() -> anyhow::Result<InterruptFlag> {
    let flag = InterruptFlag::default();
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::flag::register(signal, Arc::clone(&flag))
            .context("cannot install a signal handler")?;
    }
    Ok(flag)
}

impl Session {
    /// Starts forkmon on the demo's guest.
    pub(super) fn start(project: &Project, interrupted: InterruptFlag) -> anyhow::Result<Self> {
        // In a folder of its own, so that the project holds what it seems to.
        let events_dir = tempfile::Builder::new()
            .prefix("forkmon-demo-events-")
            .tempdir()
            .context("cannot make a temporary folder")?;
        let events_path = events_dir.path().join("events");
        let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &events_path,
            rustix::fs::FileType::Fifo,
            mode,
            0,
        )
        .context("cannot make a named pipe")?;
        // Opened for writing as well, so that the opening waits for nobody.
        let events = OpenOptions::new()
            .read(true)
            .write(true)
            .open(&events_path)
            .context("cannot open a named pipe")?;

        let mut command = Command::new(THIS_PROGRAM);
        command
            .args(["run", "--color", "never", "--events"])
            .arg(&events_path)
            .args(["--", THIS_PROGRAM, "__demo-guest"])
            .arg(project.dir())
            .current_dir(project.dir())
            .env("PWD", project.dir())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        for (name, _) in std::env::vars_os() {
            if name.as_encoded_bytes().starts_with(b"FORKMON_") {
                command.env_remove(name);
            }
        }
        let mut forkmon = sys::die_with_parent(&mut command)
            .spawn()
            .context("cannot start forkmon itself")?;

        let (speak, heard) = channel();
        if let (Some(output), Some(messages)) = (forkmon.stdout.take(), forkmon.stderr.take()) {
            listen(output, speak.clone(), Heard::Output);
            listen(messages, speak.clone(), Heard::Message);
        }
        listen(events, speak, |line| {
            Heard::Event(serde_json::from_str(&line).unwrap_or_default())
        });
        Ok(Self {
            forkmon,
            heard,
            last_messages: VecDeque::new(),
            interrupted,
            ended: false,
            _events_dir: events_dir,
        })
    }

    /// The next thing that is said.
    pub(super) fn next(&mut self) -> anyhow::Result<Heard> {
        let deadline = Instant::now() + SILENCE;
        loop {
            match self.heard.recv_timeout(TICK) {
                Ok(heard) => {
                    if let Heard::Message(line) = &heard {
                        self.last_messages.truncate(2);
                        self.last_messages.push_front(line.clone());
                    }
                    return Ok(heard);
                }
                Err(RecvTimeoutError::Disconnected) => bail!("forkmon fell silent"),
                Err(RecvTimeoutError::Timeout) => {}
            }
            if self.interrupted.load(Ordering::Relaxed) {
                return Err(Interrupted.into());
            }
            if let Some(status) = self.forkmon.try_wait()? {
                self.ended = true;
                let told = self.last_messages.iter().rev().cloned();
                bail!(
                    "forkmon ended too early ({status}) and said: {}",
                    told.collect::<Vec<_>>().join(" / ")
                );
            }
            if Instant::now() > deadline {
                bail!("forkmon has said nothing for {} s", SILENCE.as_secs());
            }
        }
    }

    /// Ends forkmon as Ctrl-C does, and waits for it.
    pub(super) fn quit(mut self) -> anyhow::Result<()> {
        let status = self.end()?;
        if status.code() != Some(130) && status.signal() != Some(SIGINT) {
            bail!("forkmon ended with {status} after an interrupt, not with 130");
        }
        Ok(())
    }

    fn end(&mut self) -> anyhow::Result<std::process::ExitStatus> {
        self.ended = true;
        let pid = Pid::from_child(&self.forkmon);
        // Fails only if it is gone already, which is what is wanted.
        let _ = kill_process(pid, Signal::INT);
        let timeout = Timespec {
            tv_sec: i64::try_from(QUIT_TIMEOUT.as_secs())?,
            tv_nsec: 0,
        };
        let quits = pidfd_open(pid, PidfdFlags::empty()).is_ok_and(|process| {
            let mut process = [PollFd::new(&process, PollFlags::IN)];
            poll(&mut process, Some(&timeout)).is_ok_and(|ready| ready > 0)
        });
        if !quits {
            self.forkmon.kill()?;
        }
        Ok(self.forkmon.wait()?)
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if !self.ended {
            let _ = self.end();
        }
    }
}

fn listen(
    from: impl Read + Send + 'static,
    speak: Sender<Heard>,
    heard: impl Fn(String) -> Heard + Send + 'static,
) {
    std::thread::spawn(move || {
        for line in BufReader::new(from).split(b'\n') {
            let Ok(line) = line else { return };
            let line = String::from_utf8_lossy(&line).into_owned();
            if speak.send(heard(line)).is_err() {
                return;
            }
        }
    });
}
