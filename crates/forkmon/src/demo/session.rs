//! The forkmon that the demo shows: started as a person would start it, and
//! listened to on its three ways out, in the order in which they speak.

use std::collections::VecDeque;
use std::fs::OpenOptions;
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SendError, Sender, channel};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

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
        // Opened for writing as well, so that the opening waits for nobody.
        let events = OpenOptions::new()
            .read(true)
            .write(true)
            .open(project.events())
            .context("cannot open a named pipe")?;

        let mut command = Command::new(THIS_PROGRAM);
        command
            .args(["run", "--color", "never", "--events"])
            .arg(project.events())
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

        let (Some(output), Some(messages)) = (forkmon.stdout.take(), forkmon.stderr.take()) else {
            bail!("forkmon was started without its outputs");
        };
        // In the order in which they are listened to: the guest writes its last
        // line before forkmon says that it has finished.
        let sources = vec![
            Source::new(output, Heard::Output),
            Source::new(messages, Heard::Message),
            Source::new(events, |line| {
                Heard::Event(serde_json::from_str(&line).unwrap_or_default())
            }),
        ];
        let (speak, heard) = channel();
        std::thread::spawn(move || listen(sources, &speak));
        Ok(Self {
            forkmon,
            heard,
            last_messages: VecDeque::new(),
            interrupted,
            ended: false,
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

/// One of the ways out of forkmon.
struct Source {
    from: OwnedFd,
    /// What was read of a line that is not complete yet.
    begun: Vec<u8>,
    heard: fn(String) -> Heard,
    open: bool,
}

impl Source {
    fn new(from: impl Into<OwnedFd>, heard: fn(String) -> Heard) -> Self {
        Self {
            from: from.into(),
            begun: Vec::new(),
            heard,
            open: true,
        }
    }

    /// Reads once, and passes on the lines that are complete.
    fn read(&mut self, speak: &Sender<Heard>) -> Result<(), SendError<Heard>> {
        let mut buffer = [0; 4096];
        match rustix::io::read(&self.from, &mut buffer) {
            Ok(0) => self.open = false,
            Ok(length) => self.begun.extend_from_slice(&buffer[..length]),
            Err(rustix::io::Errno::INTR) => {}
            Err(_) => self.open = false,
        }
        while let Some(end) = self.begun.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.begun.drain(..=end).collect();
            let line = String::from_utf8_lossy(&line[..end]).into_owned();
            speak.send((self.heard)(line))?;
        }
        Ok(())
    }
}

/// Passes on what all sources say, until nobody listens or all are closed.
fn listen(mut sources: Vec<Source>, speak: &Sender<Heard>) {
    loop {
        sources.retain(|source| source.open);
        let mut polled: Vec<PollFd<'_>> = sources
            .iter()
            .map(|source| PollFd::new(&source.from, PollFlags::IN))
            .collect();
        if polled.is_empty() {
            return;
        }
        let ready = match poll(&mut polled, None) {
            Ok(_) => polled.iter().map(|one| !one.revents().is_empty()).collect(),
            Err(rustix::io::Errno::INTR) => Vec::new(),
            Err(_) => return,
        };
        for (source, ready) in sources.iter_mut().zip::<Vec<bool>>(ready) {
            if ready && source.read(speak).is_err() {
                return;
            }
        }
    }
}
