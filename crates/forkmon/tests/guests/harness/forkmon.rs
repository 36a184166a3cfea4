//! A running `forkmon`, its events and its output.
//!
//! One thread does everything, with `poll`: the events come through a FIFO,
//! and when an `exit` event has been read, the guest's output is drained until
//! the pipe is empty. What the guest wrote, it wrote before forkmon wrote the
//! event, so an exit always comes with the whole output of its run. No thread
//! has to be trusted to have read far enough.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open};

use super::PATIENCE;
use super::event::{Event, Exit, Resume};
use super::fresh::status_code;
use super::processes::{children_of, command_line, kill_marked, marked, wait_until_gone};
use super::terminal::Terminal;

/// A running forkmon. When it is dropped, it is ended, and it is checked that
/// nothing of it is left.
pub struct Forkmon {
    child: Child,
    pid: Pid,
    pidfd: OwnedFd,
    mark: String,
    stdin: Option<ChildStdin>,
    events_file: File,
    stdout_file: File,
    stderr_file: File,
    terminal: Option<Terminal>,
    /// The other end of a standard error that is the terminal.
    _silent: OwnedFd,
    partial: Vec<u8>,
    events: Vec<Event>,
    next: usize,
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    printed_at_exit: usize,
    status: Option<i32>,
    places: Vec<PathBuf>,
    /// The guardian, which outlives a killed forkmon by a moment, and carries
    /// no mark since it has no environment.
    guardian: Option<OwnedFd>,
}

/// A forkmon that was just started, and what its streams are read from.
pub(super) struct Started {
    pub(super) child: Child,
    pub(super) mark: String,
    pub(super) events: File,
    pub(super) stdout: File,
    pub(super) stderr: File,
    pub(super) terminal: Option<Terminal>,
    pub(super) silent: OwnedFd,
    /// Where files could be left, those of the project's own first.
    pub(super) places: Vec<PathBuf>,
}

impl Forkmon {
    pub(super) fn new(started: Started) -> Forkmon {
        let mut child = started.child;
        let pid = Pid::from_child(&child);
        Forkmon {
            stdin: child.stdin.take(),
            pid,
            pidfd: pidfd_open(pid, PidfdFlags::empty()).expect("a child has a pidfd"),
            child,
            mark: started.mark,
            events_file: started.events,
            stdout_file: started.stdout,
            stderr_file: started.stderr,
            terminal: started.terminal,
            _silent: started.silent,
            partial: Vec::new(),
            events: Vec::new(),
            next: 0,
            stdout: Vec::new(),
            stderr: Vec::new(),
            printed_at_exit: 0,
            status: None,
            places: started.places,
            guardian: None,
        }
    }

    /// The process id of forkmon itself.
    pub fn pid(&self) -> i32 {
        self.pid.as_raw_nonzero().get()
    }

    /// All events so far.
    pub fn events(&self) -> &[Event] {
        &self.events
    }

    /// The events so far with this name.
    pub fn all(&self, name: &str) -> Vec<&Event> {
        self.events
            .iter()
            .filter(|event| event.name == name)
            .collect()
    }

    /// The `warning` events so far, by code.
    pub fn warnings(&self) -> Vec<String> {
        self.all("warning")
            .iter()
            .map(|event| event.text("code").to_owned())
            .collect()
    }

    /// Waits for the next event with this name, past those seen already.
    pub fn wait_event(&mut self, name: &str) -> Event {
        self.wait_until(&format!("the event `{name}`"), |run| {
            while let Some(event) = run.events.get(run.next) {
                run.next += 1;
                if event.name == name {
                    return Some(event.clone());
                }
            }
            None
        })
    }

    /// Waits for the guest's next end.
    pub fn wait_exit(&mut self) -> Exit {
        let event = self.wait_event("exit");
        let output =
            String::from_utf8_lossy(&self.stdout[self.printed_at_exit..event.printed]).into_owned();
        self.printed_at_exit = event.printed;
        Exit {
            code: event.value["code"].as_i64(),
            signal: event.value["signal"].as_i64(),
            output,
        }
    }

    /// The last event with this name.
    pub fn last(&mut self, name: &str) -> Event {
        let found = self.events.iter().rfind(|event| event.name == name);
        match found.cloned() {
            Some(event) => event,
            None => self.fail(&format!("there was no event `{name}`")),
        }
    }

    /// Waits until all that was saved is acted upon and the guest has ended, as
    /// `forkmon ctl wait` does, while all that it writes is read.
    pub fn settle(&mut self, socket: &Path) {
        let mut control = UnixStream::connect(socket).expect("forkmon listens");
        control
            .write_all(b"{\"action\":\"wait\"}\n")
            .expect("forkmon can be asked");
        let deadline = Instant::now() + PATIENCE;
        while !self.poll_with(deadline, Some(control.as_fd())) {
            if Instant::now() >= deadline {
                self.fail("`wait` was not answered");
            }
        }
        let mut answer = [0; 4096];
        let length = control.read(&mut answer).expect("forkmon answers");
        let answer = String::from_utf8_lossy(&answer[..length]).into_owned();
        if !answer.contains("\"run\"") {
            self.fail(&format!("`wait` was answered with {answer}"));
        }
        // What came before the answer.
        self.read_all();
    }

    /// Waits until so much more was written, or the run is over.
    pub fn wait_bytes(&mut self, more: usize) {
        let wanted = self.stdout.len() + more;
        self.wait_until("output", |run| {
            let begins = |event: &&Event| ["start", "resume"].contains(&event.name.as_str());
            let current = run.events.iter().rfind(begins)?.run;
            let ended = |event: &Event| event.name == "exit" && event.run == current;
            (run.stdout.len() >= wanted || run.events.iter().any(ended)).then_some(())
        });
    }

    /// Lets go of the events so far.
    pub fn skip_events(&mut self) {
        self.read_all();
        self.next = self.events.len();
        self.printed_at_exit = self.stdout.len();
    }

    /// Waits for the next resume or restart.
    pub fn wait_resume(&mut self) -> Resume {
        self.wait_event("resume").as_resume()
    }

    /// Waits for a resume from late in a guest that works for 400 ms before it reads the
    /// file that was edited.
    pub fn wait_late_resume(&mut self) {
        let resume = self.wait_resume();
        if resume.from.is_none() || resume.kept_ms < 300.0 {
            self.fail(&format!("it did not resume late: {resume:?}"));
        }
    }

    /// Waits until the guest has printed this since its last end, and gives
    /// what it printed up to the end of it. What is found is used up.
    pub fn wait_output(&mut self, text: &str) -> String {
        let found = self.wait_until(&format!("the output {text:?}"), |run| {
            let new = String::from_utf8_lossy(&run.stdout[run.printed_at_exit..]).into_owned();
            new.find(text).map(|at| new[..at + text.len()].to_owned())
        });
        self.printed_at_exit += found.len();
        found
    }

    /// Waits until this stands on standard error so many times.
    pub fn wait_messages(&mut self, text: &str, times: usize) {
        self.wait_until(&format!("{text:?} on standard error"), |run| {
            let all = String::from_utf8_lossy(&run.stderr);
            (all.matches(text).count() >= times).then_some(())
        });
    }

    /// Everything said on standard error so far.
    pub fn messages(&mut self) -> String {
        self.read_all();
        String::from_utf8_lossy(&self.stderr).into_owned()
    }

    /// Everything that the guest has printed so far.
    pub fn output(&mut self) -> String {
        self.read_all();
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// Requires that nothing happens for a while. That nothing ever follows
    /// cannot be seen, so callers also do something afterwards whose event
    /// must be the very next.
    pub fn expect_quiet(&mut self, time: Duration) {
        let deadline = Instant::now() + time;
        while self.next == self.events.len() && Instant::now() < deadline {
            self.poll_once(deadline);
        }
        if let Some(event) = self.events.get(self.next) {
            let event = event.value.clone();
            self.fail(&format!("nothing should have happened, but {event} did"));
        }
    }

    /// Waits for forkmon's own end and gives its exit status, 128 + n for a
    /// signal.
    pub fn wait_end(&mut self) -> i32 {
        let deadline = Instant::now() + PATIENCE;
        loop {
            self.read_all();
            if let Some(status) = self.status {
                return status;
            }
            if Instant::now() >= deadline {
                self.fail("forkmon did not end");
            }
            self.poll_once(deadline);
        }
    }

    /// Waits until nobody holds forkmon's standard output and error open.
    pub fn wait_end_of_output(&mut self) {
        for file in [&self.stdout_file, &self.stderr_file] {
            let mut fds = [PollFd::new(file, PollFlags::IN)];
            let timeout = Timespec::try_from(PATIENCE).expect("a minute fits");
            let ready = poll(&mut fds, Some(&timeout)).expect("a pipe can be polled");
            assert!(
                ready == 1 && fds[0].revents().contains(PollFlags::HUP),
                "somebody holds the output open"
            );
        }
    }

    /// Sends a signal to forkmon alone.
    pub fn signal(&mut self, signal: Signal) {
        if self.guardian.is_none() {
            self.guardian = children_of(self.pid())
                .into_iter()
                .find(|pid| command_line(*pid).contains("__guardian"))
                .and_then(Pid::from_raw)
                .and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
        }
        rustix::process::kill_process(self.pid, signal).expect("forkmon is running");
    }

    /// Does what Ctrl-C does: SIGINT to the process group.
    pub fn press_ctrl_c(&self) {
        rustix::process::kill_process_group(self.pid, Signal::INT).expect("forkmon is running");
    }

    /// Writes a line to the guest's standard input.
    pub fn type_line(&mut self, line: &str) {
        let stdin = self.stdin.as_mut().expect("the test asked for input");
        writeln!(stdin, "{line}").expect("standard input is open");
        stdin.flush().expect("standard input is open");
    }

    /// The terminal that it runs on.
    pub fn terminal(&self) -> &Terminal {
        self.terminal.as_ref().expect("the test asked for one")
    }

    /// Closes the guest's standard input.
    pub fn close_input(&mut self) {
        self.stdin = None;
    }

    /// Ends forkmon by Ctrl-C, and checks its status and that nothing is left.
    pub fn finish(mut self) {
        self.press_ctrl_c();
        let status = self.wait_end();
        if status != 130 {
            self.fail(&format!("Ctrl-C ended forkmon with {status}, not with 130"));
        }
        // Dropped here, which checks what is left.
    }

    /// Checks that no process and no file is left after forkmon's end.
    pub fn check_nothing_left(&mut self) {
        if let Some(guardian) = self.guardian.take() {
            let timeout = Timespec::try_from(PATIENCE).expect("a minute fits");
            let ended = poll(&mut [PollFd::new(&guardian, PollFlags::IN)], Some(&timeout));
            if ended != Ok(1) {
                self.fail("the guardian outlived forkmon");
            }
        }
        if let Err(left) = wait_until_gone(&self.mark) {
            kill_marked(&self.mark);
            self.fail(&format!("processes outlived forkmon:{left}"));
        }
        self.check_no_empty_keep();
        let prefix = format!(".forkmon-{}-", self.pid());
        let of_the_project = self.places[..2].to_vec();
        for place in self.places.clone() {
            // A guardian removes files after the last process of the guest, so
            // the scan comes after it; elsewhere than in the project's own
            // folders other tests have files too.
            let own = of_the_project.contains(&place);
            let Ok(entries) = std::fs::read_dir(&place) else {
                continue;
            };
            for entry in entries.flatten() {
                let name = entry.file_name().to_string_lossy().into_owned();
                if name.starts_with(&prefix) || own && name.starts_with(".forkmon-") {
                    self.fail(&format!("{} outlived forkmon", entry.path().display()));
                }
            }
        }
    }

    /// Checks that there is no folder for what outlives forkmon, since nothing does.
    fn check_no_empty_keep(&mut self) {
        // In the home folder, which is beside the project.
        let keeps = self.places[1].with_file_name("home/.local/state/forkmon");
        let Ok(keeps) = std::fs::read_dir(keeps) else {
            return;
        };
        for keep in keeps.flatten() {
            let path = keep.path();
            if std::fs::read_dir(&path).is_ok_and(|mut names| names.next().is_none()) {
                self.fail(&format!("{} outlived forkmon, empty", path.display()));
            }
        }
    }

    /// The processes that belong to this forkmon, itself included.
    pub fn processes(&self) -> Vec<i32> {
        marked(&self.mark)
    }

    /// Fails the test with everything that is known.
    pub fn fail(&mut self, why: &str) -> ! {
        panic!("{why}\n{}", self.transcript());
    }

    fn transcript(&mut self) -> String {
        self.read_all();
        let events: Vec<String> = self
            .events
            .iter()
            .enumerate()
            .map(|(at, event)| {
                format!("{} {}", if at < self.next { ' ' } else { '>' }, event.value)
            })
            .collect();
        format!(
            "--- events (> not waited for yet)\n{}\n--- guest's output\n{}\n--- standard error\n{}\n--- forkmon's status: {:?}",
            events.join("\n"),
            String::from_utf8_lossy(&self.stdout),
            String::from_utf8_lossy(&self.stderr),
            self.status
        )
    }

    /// Waits until something is found, reading all that comes meanwhile.
    fn wait_until<T>(&mut self, what: &str, mut found: impl FnMut(&mut Self) -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        loop {
            self.read_all();
            if let Some(found) = found(self) {
                return found;
            }
            if self.status.is_some() {
                self.fail(&format!("forkmon ended before {what}"));
            }
            if Instant::now() >= deadline {
                self.fail(&format!("{what} did not come"));
            }
            self.poll_once(deadline);
        }
    }

    fn poll_once(&mut self, deadline: Instant) {
        self.poll_with(deadline, None);
    }

    /// Waits for something to read; whether there is something of another file.
    fn poll_with(&mut self, deadline: Instant, other: Option<BorrowedFd<'_>>) -> bool {
        let remaining = deadline.saturating_duration_since(Instant::now());
        let timeout = Timespec::try_from(remaining).expect("a minute fits");
        let mut fds = vec![
            PollFd::new(&self.events_file, PollFlags::IN),
            PollFd::new(&self.stdout_file, PollFlags::IN),
            PollFd::new(&self.stderr_file, PollFlags::IN),
        ];
        if self.status.is_none() {
            fds.push(PollFd::new(&self.pidfd, PollFlags::IN));
        }
        let other = other.map(|file| {
            fds.push(PollFd::from_borrowed_fd(file, PollFlags::IN));
            fds.len() - 1
        });
        // A pipe at its end is always ready; that only matters while something
        // is still waited for, and then the pidfd is ready too or soon.
        let _ = poll(&mut fds, Some(&timeout));
        let is_ready = other.is_some_and(|at| !fds[at].revents().is_empty());
        self.read_all();
        is_ready
    }

    fn read_all(&mut self) {
        if self.status.is_none()
            && let Ok(Some(status)) = self.child.try_wait()
        {
            self.status = Some(status_code(status));
        }
        let mut bytes = Vec::new();
        drain(&mut self.events_file, &mut bytes);
        drain(&mut self.stdout_file, &mut self.stdout);
        drain(&mut self.stderr_file, &mut self.stderr);
        self.partial.extend(bytes);
        while let Some(end) = self.partial.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.partial.drain(..=end).collect();
            let line = String::from_utf8(line).expect("events are UTF-8");
            self.events
                .push(Event::parse(line.trim_end(), self.stdout.len()));
        }
    }
}

fn drain(file: &mut File, into: &mut Vec<u8>) {
    let mut buffer = [0; 65536];
    while let Ok(count @ 1..) = file.read(&mut buffer) {
        into.extend_from_slice(&buffer[..count]);
    }
}

impl Drop for Forkmon {
    fn drop(&mut self) {
        if std::thread::panicking() {
            kill_marked(&self.mark);
            let _ = self.child.kill();
            let _ = self.child.wait();
            eprintln!("{}", self.transcript());
            return;
        }
        if self.status.is_none() {
            self.signal(Signal::TERM);
            self.wait_end();
        }
        self.check_nothing_left();
    }
}
