//! Looking at processes from outside: whose they are, whether they are
//! stopped, and waiting for all of one test to be gone.

use std::path::Path;
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::PATIENCE;

/// The environment variable by which the processes of one test are known.
pub const MARK: &str = "FORKMON_TEST_ID";

/// Whether the tests run as root.
pub fn as_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// The processes that carry this mark in their environment. Zombies have none,
/// so they do not count.
pub fn marked(mark: &str) -> Vec<i32> {
    let wanted = format!("{MARK}={mark}").into_bytes();
    every_pid()
        .filter(|pid| {
            std::fs::read(format!("/proc/{pid}/environ"))
                .is_ok_and(|bytes| bytes.split(|byte| *byte == 0).any(|one| one == wanted))
        })
        .collect()
}

fn every_pid() -> impl Iterator<Item = i32> {
    std::fs::read_dir("/proc")
        .expect("/proc is there")
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
}

/// Waits until no process carries this mark.
///
/// # Errors
///
/// Those that are still there after [`PATIENCE`], with their command lines.
pub fn wait_until_gone(mark: &str) -> Result<(), String> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let left = marked(mark);
        let Some(&first) = left.first() else {
            return Ok(());
        };
        let remaining = deadline.saturating_duration_since(Instant::now());
        if remaining.is_zero() {
            return Err(left.iter().map(|pid| describe(*pid)).collect());
        }
        // The end of the first one is waited for, then all are looked at again.
        if let Some(pid) = Pid::from_raw(first)
            && let Ok(pidfd) = pidfd_open(pid, PidfdFlags::empty())
        {
            let timeout = Timespec::try_from(remaining).expect("a minute fits");
            let _ = poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&timeout));
        }
    }
}

/// Kills what carries this mark, so that a failed test does not disturb others.
pub fn kill_marked(mark: &str) {
    for pid in marked(mark) {
        if let Some(pid) = Pid::from_raw(pid) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
    }
}

/// The command line of a process, or nothing if it has ended.
pub fn command_line(pid: i32) -> String {
    let bytes = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&bytes).replace('\0', " ")
}

fn describe(pid: i32) -> String {
    let command = command_line(pid);
    let status = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let fields: Vec<&str> = status
        .rsplit(')')
        .next()
        .unwrap_or("")
        .split_whitespace()
        .take(3)
        .collect();
    format!("\n  {pid} (state, parent, group: {fields:?}): {command}")
}

/// The children of a process, in the order of their ids.
pub fn children_of(parent: i32) -> Vec<i32> {
    let mut children: Vec<i32> = every_pid()
        .filter(|pid| status_field(*pid, "PPid") == Some(parent.to_string()))
        .collect();
    children.sort_unstable();
    children
}

/// Whether a process is stopped by its tracer.
pub fn is_stopped(pid: i32) -> bool {
    status_field(pid, "State").is_some_and(|state| state.starts_with('t'))
}

fn status_field(pid: i32, name: &str) -> Option<String> {
    let status =
        std::fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("status")).ok()?;
    let line = status.lines().find(|line| {
        line.strip_prefix(name)
            .is_some_and(|rest| rest.starts_with(':'))
    })?;
    Some(line[name.len() + 1..].trim().to_owned())
}
