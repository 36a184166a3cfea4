//! The ends: of a run, of a dropped run, and of forkmon.

use super::Supervisor;
use super::birth::Birth;
use super::fingerprint;
use super::inbox::Timed;
use super::remedy::remedy;
use super::run::Pending;
use crate::config::Config;
use crate::events::Reason;
use crate::messages::{Deed, Edit, Ended, human, signal_name};
use crate::output::reader;
use rustix::process::Pid;
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetpgrp, tcsetattr, tcsetpgrp};
use std::collections::HashSet;
use std::fs::{self, File};
use std::path::Path;
use std::sync::OnceLock;
use std::time::{Duration, Instant};
use timeline::CheckpointId;
use tracee::{End, Report, SpawnError, Tid};

/// The exit status of forkmon's own failure.
const OWN_FAILURE: u8 = 125;

/// A program that ends in this time after it was asked to has not kept anybody waiting.
const UNNOTICED: Duration = Duration::from_millis(500);

/// A guest's end as a shell's exit status.
pub(super) fn status(end: End) -> u8 {
    match end {
        End::Exited(code) => code as u8,
        End::Killed(signal) => 128_u8.wrapping_add(signal.0 as u8),
    }
}

impl Supervisor<'_> {
    /// The guest's first process has ended by itself.
    pub(super) fn root_ended(&mut self, end: End) -> anyhow::Result<()> {
        if let Some(spawned) = self.run.spawned.take()
            && let Some(error) = spawned.outcome()
        {
            return self.could_not_start(error);
        }
        if let Some(watcher) = &self.watcher {
            // Every read of this run lies before this instant.
            watcher.drained_at();
        }
        let (code, signal) = match end {
            End::Exited(code) => (Some(code), None),
            End::Killed(signal) => (None, Some(signal.0)),
        };
        if self.dropping {
            // It was asked to, and is to have never happened.
            return Ok(());
        }
        let goes_on = !self.is_ending() && !self.config.once;
        let is_read = !goes_on || !reader::is_gone();
        if goes_on && is_read {
            self.warn_of_nothing_watched();
        }
        self.exited(code, signal);
        if self.is_ending() {
            return Ok(());
        }
        if self.config.once {
            self.finished = Some(status(end));
            return Ok(());
        }
        if !is_read {
            self.end_unread(status(end));
            return Ok(());
        }
        self.messages.exited(match end {
            End::Exited(code) => Ended::Status(code),
            End::Killed(signal) => Ended::Signal(signal.0),
        });
        Ok(())
    }

    /// Nobody reads what the guest prints any more. One that runs finds out by itself
    /// if it matters; another run would print for nobody.
    pub(super) fn unread(&mut self) {
        let status = match self.run.ended {
            Some(end) => status(end),
            None if self.run.failed => 128 + libc::SIGPIPE as u8,
            None => return,
        };
        if !self.is_ending() {
            self.end_unread(status);
        }
    }

    fn end_unread(&mut self, status: u8) {
        self.messages
            .info("nobody reads the output any more: forkmon ends");
        self.finished = Some(status);
    }

    /// Whoever waits for an edit that cannot come is told so, after the first run.
    fn warn_of_nothing_watched(&mut self) {
        if self.run.number > 0 {
            return;
        }
        let (root, folder) = (self.config.scope.root(), self.config.cwd.as_path());
        let counts = |path: &Path| path != root && path != folder;
        if !self.timeline.accesses().any(|access| counts(access.path)) {
            let text = format!(
                "the program has touched no file that counts in {}: no edit will start it \
                 again; see --watch",
                root.display()
            );
            self.warn("nothing-watched", &text);
        }
    }

    /// Whoever asked for a file or folder that is not there is told so.
    pub(super) fn warn_of_missing(&mut self) {
        let config = self.config;
        for path in config.scope.missing() {
            let text = format!(
                "{} of --watch is not there: it counts once it is made; if it should be there, \
                 check its spelling",
                self.messages.path(path)
            );
            self.warn_of_file("watch-missing", path, &text);
        }
    }

    /// The guest's program could not be started. The first time that is the end;
    /// later the next edit may make it right.
    pub(super) fn could_not_start(&mut self, error: SpawnError) -> anyhow::Result<()> {
        let status = match &error {
            SpawnError::NotFound(_) => 127,
            SpawnError::NotExecutable { .. } => 126,
            _ => OWN_FAILURE,
        };
        self.run.spawned = None;
        let Config {
            command,
            cwd,
            output,
            ..
        } = self.config;
        let mut text = format!("cannot start the program: {error}");
        if let Some(remedy) = remedy(&error, command, cwd, output.clear.is_some()) {
            text = format!("{text}; {remedy}");
        }
        if self.run.number == 0 {
            self.messages.error(&text);
            self.finished = Some(status);
        } else {
            self.run.failed = true;
            let text = format!("{text}; waiting for an edit");
            if !self.warn("not-started", &text) {
                // It is news each time.
                self.messages.warning(&text);
            }
        }
        Ok(())
    }

    /// Files changed after a run that was not started. It has no timeline that would
    /// tell which of them matter: any may be what was missing.
    pub(super) fn start_again(&mut self, batch: watch::Batch) -> anyhow::Result<()> {
        if let Some(error) = batch.error {
            anyhow::bail!("cannot watch the files any more: {error}");
        }
        let mut paths = Vec::new();
        let mut began = Instant::now();
        for touch in &batch.touches {
            let now = || fs::symlink_metadata(&touch.path).ok();
            let is_our_own_doing = self
                .restored
                .get(&touch.path)
                .is_some_and(|then| *then == now().map(|found| fingerprint::identity(&found)));
            if !is_our_own_doing {
                paths.push(touch.path.as_path());
                began = began.min(touch.first_seen);
            }
        }
        if paths.is_empty() && !batch.rescan {
            return Ok(());
        }
        let changed = |path: &&Path| (path.to_path_buf(), Deed::Changed);
        let edit = Edit {
            decided: paths.first().map(|path| path.to_path_buf()),
            deeds: paths.iter().map(changed).collect(),
        };
        self.restart(&edit, Reason::NoCheckpoint, began)
    }

    /// Whether forkmon ends, or is about to hear that it should.
    pub(super) fn is_ending(&self) -> bool {
        self.finished.is_some() || self.quitting.is_some() || self.bell.is_signalled()
    }

    /// Somebody sent forkmon a signal that ends it. The second time it ends at
    /// once.
    pub(super) fn asked_to_quit(&mut self, signal: i32, by_terminal: bool) {
        let own_status = 128_u8.wrapping_add(signal as u8);
        self.is_hurried |= self.quitting.is_some();
        if self.quitting.is_some() || !self.run.is_alive() {
            self.finished = Some(own_status);
            return;
        }
        self.quitting = Some(own_status);
        self.run.barred = true;
        // A process that has ended has given its id away.
        let root = self.run.root();
        let has_heard = by_terminal && !self.is_born_late && self.is_in_our_group(root);
        if self.run.ended.is_none() && !has_heard {
            tracee::kill_task(root, signal);
            // One that is stopped could not follow it.
            tracee::kill_task(root, libc::SIGCONT);
        }
        self.set_deadline(signal);
    }

    /// Gives the guest its time from now on to follow a signal; earlier times no
    /// longer count.
    fn set_deadline(&mut self, signal: i32) {
        self.asked_with = signal;
        self.deadline += 1;
        self.deadline_passed = false;
        let patience = self.config.stop_timeout;
        self.bell.after(patience, Timed::Deadline(self.deadline));
        if patience > UNNOTICED {
            self.bell.after(UNNOTICED, Timed::Lingering(self.deadline));
        }
    }

    /// A guest that was asked to end has not done so: whoever sees nothing happen is
    /// told what is waited for, and for how long.
    pub(super) fn tell_of_lingering(&self) {
        if self.run.ended.is_some() || self.deadline_passed {
            return;
        }
        let root = self.run.root();
        let name = fs::read_to_string(format!("/proc/{root}/comm")).unwrap_or_default();
        let remedy = match (self.quitting, self.asked_with) {
            (None, _) => "",
            (Some(_), libc::SIGINT) => ", or at once when you press Ctrl-C again",
            (Some(_), _) => ", or at once at another signal or Ctrl-C",
        };
        self.messages.info(&format!(
            "waiting for {} (process {root}) to end after {}; it is killed in {}{remedy}",
            name.trim_end(),
            signal_name(self.asked_with),
            human(self.config.stop_timeout - UNNOTICED),
        ));
    }

    /// Whether the terminal's signals for this process reach the guest by
    /// themselves.
    fn is_in_our_group(&self, process: Tid) -> bool {
        let of = |pid: Option<Pid>| rustix::process::getpgid(pid).ok();
        let theirs = of(Pid::from_raw(process.raw()));
        theirs.is_some() && theirs == of(None)
    }

    /// Ends forkmon once the guest has followed its signal, or has not in time.
    pub(super) fn check_quitting(&mut self) {
        if let Some(status) = self.quitting
            && (self.run.ended.is_some() || self.deadline_passed)
        {
            self.finished = Some(status);
        }
    }

    /// Ends a run that is to have never happened: outright, or with
    /// `--stop-signal` after it was asked to. While it dies, a copy of the
    /// checkpoint to resume from is made.
    pub(super) fn drop_run(&mut self, next: Option<CheckpointId>) -> anyhow::Result<()> {
        if let Some(signal) = self.config.stop_signal
            && self.run.ended.is_none()
            && self.run.is_alive()
        {
            self.run.barred = true;
            tracee::kill_task(self.run.root(), signal);
            // As above.
            tracee::kill_task(self.run.root(), libc::SIGCONT);
            self.set_deadline(signal);
            self.dropping = true;
            while self.run.ended.is_none() && !self.deadline_passed && self.finished.is_none() {
                self.handle_next()?;
            }
            self.dropping = false;
            self.rung_meanwhile = true;
        }
        self.kill_processes();
        if let Some(id) = next {
            self.prepare(id);
        }
        self.kill_run()
    }

    fn kill_processes(&self) -> HashSet<Tid> {
        let processes: HashSet<Tid> = self.run.tasks().map(|(_, process)| process).collect();
        for process in &processes {
            tracee::kill_task(*process, libc::SIGKILL);
        }
        processes
    }

    /// Kills all tasks of the run and waits for their ends. Their effects are
    /// concluded, so that they can be undone.
    pub(super) fn kill_run(&mut self) -> anyhow::Result<()> {
        let processes = self.kill_processes();
        let mut left: HashSet<Tid> = self.run.tasks().map(|(task, _)| task).collect();
        for task in self.run.take_unborn() {
            left.insert(task.tid());
            tracee::kill_task(task.tid(), libc::SIGKILL);
        }
        // One by one, since the kernel looks through all tasks for one that has news
        // when any will do. The end of a first thread comes last of its process's.
        let threads: Vec<Tid> = left.difference(&processes).copied().collect();
        for thread in threads {
            self.tracer.reap(thread)?;
            self.killed(thread, &mut left)?;
        }
        loop {
            if left.is_empty() {
                // Those whose parents were killed while they made them: they have not
                // stopped yet, and are orphans by now. Where the kernel does not tell
                // of them, they stop in the next run and never go on.
                left.extend(self.tracer.strays().unwrap_or_default());
                if left.is_empty() {
                    return Ok(());
                }
                for task in &left {
                    tracee::kill_task(*task, libc::SIGKILL);
                }
            }
            match self.tracer.wait()? {
                // Born just before its parent died.
                Report::Stop(task, _) if !left.contains(&task.tid()) => {
                    left.insert(task.tid());
                    tracee::kill_task(task.tid(), libc::SIGKILL);
                }
                // One that has stopped before its parent told of it may have ended.
                Report::Stop(_, tracee::Event::Child { child, .. })
                    if Birth::of(child).is_some() =>
                {
                    left.insert(child);
                    tracee::kill_task(child, libc::SIGKILL);
                }
                // It was killed after this stop was reported.
                Report::Stop(..) => {}
                Report::End(task, _) => self.killed(task, &mut left)?,
                Report::Rung => self.rung_meanwhile = true,
                Report::BellLost => self.replace_guardian()?,
                Report::NoTasks => return Ok(()),
            }
        }
    }

    /// A task of a killed run is gone, or an image.
    fn killed(&mut self, task: Tid, left: &mut HashSet<Tid>) -> anyhow::Result<()> {
        if let Some(id) = self.checkpoint_of(task) {
            self.image_lost(id);
        }
        left.remove(&task);
        let (gone, pending) = self.run.remove(task);
        for task in gone {
            left.remove(&task);
        }
        for pending in pending {
            if let Pending::Effect {
                prepared, paths, ..
            } = pending
            {
                self.effect_cut_off(None, *prepared, &paths);
            }
        }
        Ok(())
    }

    /// Leaves nothing behind.
    pub(super) fn clean_up(&mut self) {
        // If waiting fails nothing more can be done here: the kernel kills what
        // is traced when this process ends.
        let _ = self.kill_run();
        for (_, stored) in std::mem::take(&mut self.stored) {
            stored.image.discard(&mut self.tracer);
        }
        let kept = self.journal.finish();
        self.tell_of_kept(&kept);
    }
}

/// The terminal's settings when forkmon was started.
struct Terminal {
    file: File,
    modes: Termios,
}

/// Set once, so that a panic finds it too.
static TERMINAL: OnceLock<Option<Terminal>> = OnceLock::new();

/// Remembers how the terminal is, if forkmon is in its foreground.
pub(super) fn remember_terminal() {
    TERMINAL.get_or_init(|| {
        let file = File::options()
            .read(true)
            .write(true)
            .open("/dev/tty")
            .ok()?;
        // Only who had the terminal at first may take it back from the guest.
        let ours = tcgetpgrp(&file).ok() == Some(rustix::process::getpgrp());
        let modes = tcgetattr(&file).ok()?;
        ours.then_some(Terminal { file, modes })
    });
}

/// Puts the terminal back, as far as it differs: a guest that is killed cannot
/// do so itself.
pub fn restore_terminal() {
    let Some(Some(Terminal { file, modes })) = TERMINAL.get() else {
        return;
    };
    crate::sys::ignore_terminal_output_stop();
    let own = rustix::process::getpgrp();
    if tcgetpgrp(file).ok() != Some(own) {
        // Fails if the terminal is gone, and then it needs nothing.
        let _ = tcsetpgrp(file, own);
    }
    if tcgetattr(file).is_ok_and(|now| !same(&now, modes)) {
        let _ = tcsetattr(file, OptionalActions::Now, modes);
    }
}

/// Puts the modes back for a run from the beginning, which finds the terminal as the
/// first one did, unless they are such that forkmon always reads keys. Who has it in the foreground by now keeps it as it is.
pub(super) fn restore_modes() {
    let Some(Some(Terminal { file, modes })) = TERMINAL.get() else {
        return;
    };
    let own = rustix::process::getpgrp();
    let is_gone = |group| rustix::process::test_kill_process_group(group).is_err();
    match tcgetpgrp(file) {
        Ok(foreground) if foreground == own => {}
        // It was the dropped run's.
        Ok(foreground) if is_gone(foreground) => {
            let _ = crate::sys::without_terminal_stops(|| tcsetpgrp(file, own));
        }
        _ => return,
    }
    if tcgetattr(file).is_ok_and(|now| !same(&now, modes)) {
        let _ = crate::sys::without_terminal_stops(|| tcsetattr(file, OptionalActions::Now, modes));
    }
}

fn same(a: &Termios, b: &Termios) -> bool {
    (
        a.input_modes,
        a.output_modes,
        a.control_modes,
        a.local_modes,
    ) == (
        b.input_modes,
        b.output_modes,
        b.control_modes,
        b.local_modes,
    )
}
