//! A forkmon at work on a project, known by its command line, its events, its
//! control socket and its exit status alone.
//!
//! Nothing here guesses a time: `wait` on the control socket is answered when
//! all that was saved before is acted upon and the guest has ended. Meanwhile
//! one `poll` keeps reading all that forkmon writes.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{CWD, FileType, Mode, OFlags};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open};

use super::event::Event;
use super::guest;
use super::manner::Manner;
use super::processes::{MARK, kill_marked, wait_until_gone};
use super::project::Project;
use super::site::{Side, Site};

/// How long anything may take. It only turns a hang into a difference.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a run has come to, once nothing is left to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settled {
    /// The exit status, 128 + n for signal n.
    pub status: i32,
    pub printed: Printed,
}

/// What a run has printed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Printed {
    /// All of it; standard output has both streams, if they are one.
    Whole { stdout: Vec<u8>, stderr: Vec<u8> },
    /// What came on standard output since it was last looked at: of all runs, and
    /// of each only what was new.
    New(Vec<u8>),
}

/// A running forkmon. What goes wrong is a text that says so.
pub struct Session {
    child: Child,
    pid: Pid,
    pidfd: OwnedFd,
    mark: String,
    places: Vec<PathBuf>,
    control: Option<UnixStream>,
    control_path: PathBuf,
    events_file: File,
    stdout_file: File,
    stderr_file: File,
    manner: Manner,
    /// So much of standard output was looked at.
    looked_at: usize,
    partial: Vec<u8>,
    answer: Vec<u8>,
    events: Vec<Event>,
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    ended: Option<i32>,
}

impl Session {
    /// Starts forkmon on a project whose files are there.
    pub fn start(project: &Project, manner: &Manner, site: &Site) -> Result<Session, String> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let mark = format!("equivalence-{}-{number}", std::process::id());
        let fifo = site.base().join(format!("events-{number}"));
        rustix::fs::mknodat(CWD, &fifo, FileType::Fifo, Mode::from_raw_mode(0o600), 0)
            .map_err(|error| format!("cannot make a FIFO: {error}"))?;
        // Open for both, it never comes to its end, and nobody waits to open it.
        let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let events = rustix::fs::open(&fifo, flags, Mode::empty())
            .map_err(|error| format!("cannot open the FIFO: {error}"))?;
        let control_path = site.base().join(format!("control-{number}"));

        let mut command = Command::new(program());
        command
            .arg("run")
            .arg("--events")
            .arg(&fifo)
            .arg("--control")
            .arg(&control_path)
            .args(&manner.options)
            .args(project.definition.options)
            .arg("--")
            .args(project.argv())
            .current_dir(site.root(Side::Watched))
            .stdin(Stdio::null())
            .process_group(0);
        let pipe = |error| format!("cannot make a pipe: {error}");
        let (stdout, writer) = std::io::pipe().map_err(pipe)?;
        let (stderr, other) = std::io::pipe().map_err(pipe)?;
        if manner.joined {
            command.stderr(writer.try_clone().map_err(pipe)?);
        } else {
            command.stderr(other);
        }
        command.stdout(writer);
        site.environment(Side::Watched, project, &mut command);
        command.env(MARK, &mark);
        let child = command
            .spawn()
            .map_err(|error| format!("cannot start forkmon: {error}"))?;
        // It holds the writing ends.
        drop(command);
        let pid = Pid::from_child(&child);
        let pidfd = pidfd_open(pid, PidfdFlags::empty())
            .map_err(|error| format!("a child has no pidfd: {error}"))?;
        Ok(Session {
            pid,
            pidfd,
            mark,
            places: vec![
                site.base().to_path_buf(),
                site.base_of(Side::Watched),
                site.root(Side::Watched),
                site.temporary(Side::Watched),
            ],
            control: None,
            control_path,
            events_file: File::from(events),
            stdout_file: unblocked(stdout.into())?,
            stderr_file: unblocked(stderr.into())?,
            manner: manner.clone(),
            looked_at: 0,
            partial: Vec::new(),
            answer: Vec::new(),
            events: Vec::new(),
            stdout: Vec::new(),
            stderr: Vec::new(),
            ended: None,
            child,
        })
    }

    /// All events so far.
    pub fn events(&self) -> &[Event] {
        &self.events
    }

    /// Lets time pass, and reads what comes meanwhile.
    pub fn pass(&mut self, time: Duration) {
        let deadline = Instant::now() + time;
        while Instant::now() < deadline {
            self.poll_once(deadline);
        }
    }

    /// Waits until all that was saved so far is acted upon, and the guest has
    /// ended.
    pub fn settle(&mut self) -> Result<Settled, String> {
        self.connect()?;
        let Some(control) = &mut self.control else {
            return Err("there is no connection".to_owned());
        };
        control
            .write_all(b"{\"action\":\"wait\"}\n")
            .map_err(|error| format!("cannot ask forkmon: {error}"))?;
        let line = self.wait_until("an answer to `wait`", |session| {
            let end = session.answer.iter().position(|byte| *byte == b'\n')?;
            Some(session.answer.drain(..=end).collect::<Vec<u8>>())
        })?;
        // What forkmon wrote before its answer is there by now.
        self.read_all();
        let text = String::from_utf8_lossy(&line).into_owned();
        let reply: serde_json::Value =
            serde_json::from_str(&text).map_err(|error| format!("{error}: {text}"))?;
        let number = |field: &str| reply[field].as_i64();
        let status = number("code").or(number("signal").map(|signal| 128 + signal));
        let Some(status) = status else {
            return Err(format!("`wait` is answered with {text}"));
        };
        let exit = self.events.iter().rev().find(|event| event.name == "exit");
        let exit = exit.ok_or("there was no exit")?;
        if Some(exit.run) != number("run").map(i64::unsigned_abs) {
            return Err(format!(
                "the last exit is {}, and not of {text}",
                exit.value
            ));
        }
        Ok(Settled {
            status: i32::try_from(status).unwrap_or(-1),
            printed: self.printed(&exit.value["shown"])?,
        })
    }

    /// What was printed, by what the last exit says of it.
    fn printed(&self, exit: &serde_json::Value) -> Result<Printed, String> {
        if self.manner.live {
            return Ok(Printed::New(self.stdout[self.looked_at..].to_vec()));
        }
        Ok(Printed::Whole {
            stdout: shown(&exit["stdout"], &self.stdout)?,
            stderr: if self.manner.joined {
                Vec::new()
            } else {
                shown(&exit["stderr"], &self.stderr)?
            },
        })
    }

    /// What was printed so far is not looked at again.
    pub fn looked_at(&mut self) {
        self.looked_at = self.stdout.len();
    }

    /// Ends forkmon by SIGINT, as Ctrl-C does, and looks for what is left.
    pub fn end(&mut self) -> Result<(), String> {
        rustix::process::kill_process_group(self.pid, Signal::INT)
            .map_err(|error| format!("cannot end forkmon: {error}"))?;
        let status = self.wait_for_end()?;
        if status != 130 {
            return Err(format!("Ctrl-C ended forkmon with {status}, not with 130"));
        }
        wait_until_gone(&self.mark).map_err(|left| format!("processes are left:{left}"))?;
        for place in &self.places {
            for entry in fs::read_dir(place).into_iter().flatten().flatten() {
                let name = entry.file_name();
                if name.to_string_lossy().starts_with(".forkmon-") {
                    return Err(format!("{} is left", entry.path().display()));
                }
            }
        }
        Ok(())
    }

    /// Writes what forkmon has told into a folder.
    pub fn keep(&mut self, folder: &Path) -> std::io::Result<()> {
        self.read_all();
        let lines: Vec<String> = self
            .events
            .iter()
            .map(|e| format!("{}\n", e.value))
            .collect();
        fs::write(folder.join("events.jsonl"), lines.concat())?;
        fs::write(folder.join("stdout.txt"), &self.stdout)?;
        fs::write(folder.join("stderr.txt"), &self.stderr)
    }

    /// The control socket is there once forkmon listens.
    fn connect(&mut self) -> Result<(), String> {
        if self.control.is_some() {
            return Ok(());
        }
        // The first event comes after that.
        self.wait_until("the first event", |session| {
            (!session.events.is_empty()).then_some(())
        })?;
        let stream = UnixStream::connect(&self.control_path)
            .and_then(|stream| stream.set_nonblocking(true).map(|()| stream))
            .map_err(|error| format!("cannot connect to forkmon: {error}"))?;
        self.control = Some(stream);
        Ok(())
    }

    fn wait_for_end(&mut self) -> Result<i32, String> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            self.read_all();
            if let Some(status) = self.ended {
                return Ok(status);
            }
            if Instant::now() >= deadline {
                return Err("forkmon does not end".to_owned());
            }
            self.poll_once(deadline);
        }
    }

    fn wait_until<T>(
        &mut self,
        what: &str,
        mut found: impl FnMut(&mut Self) -> Option<T>,
    ) -> Result<T, String> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            self.read_all();
            if let Some(found) = found(self) {
                return Ok(found);
            }
            if let Some(status) = self.ended {
                return Err(format!("forkmon ended with {status} before {what}"));
            }
            if Instant::now() >= deadline {
                return Err(format!("{what} does not come"));
            }
            self.poll_once(deadline);
        }
    }

    fn poll_once(&mut self, deadline: Instant) {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = Timespec::try_from(left).ok();
        let mut fds = vec![
            PollFd::new(&self.events_file, PollFlags::IN),
            PollFd::new(&self.stdout_file, PollFlags::IN),
        ];
        // A pipe that nobody writes to is always ready.
        if !self.manner.joined {
            fds.push(PollFd::new(&self.stderr_file, PollFlags::IN));
        }
        if self.ended.is_none() {
            fds.push(PollFd::new(&self.pidfd, PollFlags::IN));
        }
        if let Some(control) = &self.control {
            fds.push(PollFd::new(control, PollFlags::IN));
        }
        // A signal only makes for one more round.
        let _ = poll(&mut fds, timeout.as_ref());
        self.read_all();
    }

    fn read_all(&mut self) {
        if self.ended.is_none()
            && let Ok(Some(status)) = self.child.try_wait()
        {
            self.ended = status.code().or(status.signal().map(|signal| 128 + signal));
        }
        if let Some(control) = &mut self.control {
            drain(control, &mut self.answer);
        }
        drain(&mut self.events_file, &mut self.partial);
        drain(&mut self.stdout_file, &mut self.stdout);
        drain(&mut self.stderr_file, &mut self.stderr);
        while let Some(end) = self.partial.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.partial.drain(..=end).collect();
            let line = String::from_utf8_lossy(&line).into_owned();
            let printed = self.stdout.len();
            self.events.push(Event::parse(line.trim_end(), printed));
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if self.ended.is_none() {
            kill_marked(&self.mark);
            // It may be in a user's own hands by now; then it has ended.
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// The `forkmon` under test.
fn program() -> PathBuf {
    guest::place("FORKMON_TEST_PROGRAM", env!("CARGO_BIN_EXE_forkmon"))
}

fn unblocked(fd: OwnedFd) -> Result<File, String> {
    rustix::fs::fcntl_getfl(&fd)
        .and_then(|flags| rustix::fs::fcntl_setfl(&fd, flags | OFlags::NONBLOCK))
        .map_err(|error| format!("cannot unblock a pipe: {error}"))?;
    Ok(File::from(fd))
}

/// What was written of the run that an `exit` event tells of, and since: the guest's
/// first process may have ended before others of it had written all.
fn shown(range: &serde_json::Value, written: &[u8]) -> Result<Vec<u8>, String> {
    let from = range["from"].as_u64();
    let from = from.and_then(|from| usize::try_from(from).ok());
    let part = from.and_then(|from| written.get(from..));
    part.map(<[u8]>::to_vec).ok_or_else(|| {
        let written = written.len();
        format!("of {written} bytes an exit says that its run's are {range}")
    })
}

fn drain(from: &mut impl Read, into: &mut Vec<u8>) {
    let mut buffer = [0; 65536];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        into.extend_from_slice(&buffer[..count]);
    }
}
