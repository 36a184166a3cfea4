//! The supervisor: one loop that joins tracer, timeline, journal and watch.
//!
//! A stop of the guest becomes an access, an effect or a call for ids (`access`,
//! `effect`, `identity`); the timeline records it and says whether a checkpoint
//! is due (`checkpoint`); the guest goes on. An edit (`inbox`) is compared with
//! what the guest learned; the timeline answers with the checkpoint to resume
//! from; the live run is killed, its effects undone, and a copy of the
//! checkpoint runs on (`edit`, `rewind`).

mod access;
mod birth;
mod calls;
mod checkpoint;
mod control;
mod edit;
mod effect;
mod ending;
mod filter;
mod fingerprint;
mod identity;
mod idle;
mod inbox;
mod keeper;
mod listing;
mod lookup;
mod observe;
mod own_signal;
mod pieces;
mod proc_path;
mod reader;
mod reading;
mod remedy;
mod rewind;
mod run;
mod setup;
mod streams;
mod underway;
mod waiting;
mod walk;

pub use ending::restore_terminal;

use crate::cli::OnConnection;
use crate::config::Config;
use crate::control::Asked;
use crate::events::{Event, Events};
use crate::input::Input;
use crate::keys::Keys;
use crate::messages::Messages;
use crate::output::Output;
use anyhow::Context as _;
use checkpoint::{Costs, Stored};
use control::Wanted;
use fingerprint::Hasher;
use inbox::{Doorbell, News, Timed};
use journal::{Journal, Mark};
use keeper::Keeper;
use listing::leave_out;
use lookup::Lookups;
use observe::LastAccess;
use pieces::{Pieces, Seen};
use run::{Pending, Run};
use snapshot::{Guest, Inherited, Resumed};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use streams::UntoldExit;
use timeline::{CheckpointId, Identity, Timeline};
use tracee::{Command, End, Program, Report, Stopped, Tid, Tracer};
use underway::Held;
use waiting::Waiting;

/// The oldest kernel that has all that is used here.
const OLDEST_KERNEL: (u32, u32) = (5, 15);

/// What checkpoints may cost before the guest has earned any: unnoticed by
/// people, and enough that a quick program has its first ones.
const ALLOWANCE: Duration = Duration::from_millis(5);

/// A file that is written to and never closed is looked at after this long.
const OPEN_WRITE_BOUND: Duration = Duration::from_millis(250);

/// Forkmon at work.
struct Supervisor<'a> {
    config: &'a Config,
    messages: &'a mut Messages,
    events: &'a mut Events,
    tracer: Tracer,
    filter: Program,
    identity_filter: Program,
    inherited: Arc<Inherited>,
    /// Files that forkmon or the guest writes to through what it inherited, by
    /// device and inode: what happens to them is no edit.
    outputs: HashSet<(u64, u64)>,
    input: Input,
    output: Output,
    /// How the run ended, until all of its output is written.
    untold_exit: Option<UntoldExit>,
    bell: Doorbell,
    inbox: Receiver<News>,
    keeper: Arc<Mutex<Keeper>>,
    /// The keyboard, if its keys are for forkmon at times.
    keys: Option<Keys>,
    timeline: Timeline,
    journal: Journal,
    /// Where the journal stood before the first run.
    beginning: Mark,
    /// `None` with `--once`.
    watcher: Option<Arc<watch::Watcher>>,
    hasher: Hasher,
    lookups: Lookups,
    last_access: HashMap<PathBuf, LastAccess>,
    pieces: Pieces,
    /// Files that were saved with the same bytes, or touched, since the guest asked for
    /// their times.
    resaved: BTreeSet<PathBuf>,
    /// What the last undo left behind, whose events are no edits.
    restored: HashMap<PathBuf, Option<Identity>>,
    stored: BTreeMap<CheckpointId, Stored>,
    next_checkpoint: u32,
    costs: Costs,
    run: Run,
    next_run: u64,
    /// The status to exit with, once somebody has asked forkmon to end.
    quitting: Option<u8>,
    /// A signal that ends forkmon had arrived before the present run could hear it.
    is_born_late: bool,
    /// Somebody has asked for that twice.
    is_hurried: bool,
    /// The status to exit with, now.
    finished: Option<u8>,
    /// The signal that a run was asked to end with.
    asked_with: i32,
    /// How many deadlines were set.
    deadline: u64,
    deadline_passed: bool,
    /// A run is being asked to end: file events wait.
    dropping: bool,
    later: Vec<watch::Batch>,
    /// File events that a call under way may have caused.
    held: Held,
    /// What was asked for while a run was asked to end.
    asked_meanwhile: Vec<Asked>,
    /// Checkpoints that somebody asked for and that could not be taken yet.
    wanted: Vec<Wanted>,
    waiting: Waiting,
    /// The bell rang while nobody looked at the news.
    rung_meanwhile: bool,
    /// Checkpoints of this line of runs were lost to effects that cannot be undone.
    lost_to_effects: bool,
}

/// Runs the guest until forkmon ends; the status to exit with.
///
/// # Errors
///
/// Forkmon's own failures.
pub fn run(config: &Config, messages: &mut Messages, events: &mut Events) -> anyhow::Result<u8> {
    let kernel = tracee::kernel_version();
    if kernel < OLDEST_KERNEL {
        anyhow::bail!(
            "forkmon needs Linux 5.15 or newer, and this is {}.{}: update the kernel",
            kernel.0,
            kernel.1
        );
    }
    ending::remember_terminal();
    let status = setup::supervise(config, messages, events);
    restore_terminal();
    status
}

/// Whether a request failed because its task died, which is reported by itself.
fn or_death(result: anyhow::Result<()>) -> anyhow::Result<()> {
    match result {
        Err(error)
            if error
                .downcast_ref::<tracee::Error>()
                .is_some_and(tracee::Error::is_death) =>
        {
            Ok(())
        }
        other => other,
    }
}

impl Supervisor<'_> {
    /// Starts the guest from its beginning.
    fn start(&mut self) -> anyhow::Result<()> {
        let number = self.next_run;
        self.next_run += 1;
        self.costs.forget_run();
        if self.bell.is_signalled() {
            self.run = Run::not_started(number);
            self.tell_keys(false);
            return Ok(());
        }
        self.tell_keys(true);
        self.output.begin();
        let [output, error] = self.output.guest_ends();
        let command = Command {
            arguments: self.config.command.clone(),
            environment: std::env::vars_os().collect(),
            streams: [self.input.guest_end(), output, error],
        };
        match self.tracer.spawn(&command, &self.filter) {
            Ok(spawned) => {
                let mut guest = Guest::new(spawned.task, Arc::clone(&self.inherited));
                guest.set_on_connection(match self.config.on_connection {
                    OnConnection::Skip => snapshot::OnConnection::Skip,
                    OnConnection::Reset => snapshot::OnConnection::Reset,
                });
                self.run = Run::new(number, guest, Duration::ZERO);
                self.is_born_late = self.bell.is_signalled();
                self.emit(&Event::Start {
                    pid: spawned.task.raw() as u32,
                    argv: self.config.command.clone(),
                });
                self.run.spawned = Some(spawned);
                Ok(())
            }
            Err(error) => {
                self.run = Run::not_started(number);
                self.tell_keys(false);
                self.could_not_start(error)
            }
        }
    }

    /// Whose the terminal's input is: the guest's as long as it lives.
    fn tell_keys(&self, guest_alive: bool) {
        if let Some(keys) = &self.keys {
            keys.guest_alive(guest_alive);
        }
    }

    /// Lets a copy of a checkpoint run.
    fn resumed(
        &mut self,
        resumed: Resumed,
        kept: Duration,
        reads: (Seen, bool),
        stays_stopped: bool,
    ) {
        let Resumed {
            guest,
            threads,
            was_stopped,
        } = resumed;
        let process = guest.process();
        if was_stopped && stays_stopped {
            tracee::kill_task(process, libc::SIGSTOP);
        }
        self.run = Run::new(self.next_run, guest, kept);
        self.is_born_late = self.bell.is_signalled();
        (self.run.reads, self.run.reads_script) = reads;
        self.next_run += 1;
        self.costs.forget_run();
        self.tell_keys(true);
        self.output.goes_on(streams::group_of(process));
        for thread in &threads {
            self.run.add_thread(thread.tid(), process);
        }
        // The path that the checkpoint stands before is looked up again, and
        // needs no other one.
        for thread in threads {
            // A thread that was killed meanwhile is reported dead.
            let _ = thread.resume(None);
        }
    }

    fn until_the_end(&mut self) -> anyhow::Result<u8> {
        while self.finished.is_none() {
            self.handle_next()?;
        }
        Ok(self.finished.unwrap_or_default())
    }

    /// Waits for one report and handles it.
    fn handle_next(&mut self) -> anyhow::Result<()> {
        if std::mem::take(&mut self.rung_meanwhile) {
            self.read_news()?;
            self.check_quitting();
            self.answer_waiting();
            return Ok(());
        }
        self.tracer.expect_many(!self.run.is_single());
        match self.tracer.wait()? {
            Report::Stop(task, event) => or_death(self.stopped(task, event))?,
            Report::End(task, end) => self.ended(task, end)?,
            Report::Rung => self.read_news()?,
            Report::BellLost => self.replace_guardian()?,
            Report::NoTasks => anyhow::bail!("lost the guardian process and the guest"),
        }
        self.check_quitting();
        self.answer_waiting();
        Ok(())
    }

    fn stopped(&mut self, task: Stopped, event: tracee::Event) -> anyhow::Result<()> {
        let tid = task.tid();
        if !self.run.knows(tid) {
            return self.unknown(task, &event);
        }
        match event {
            tracee::Event::Seccomp if self.run.guest.ids().differ() => {
                match self.for_kernel(task)? {
                    Some(task) => self.call(task),
                    None => Ok(()),
                }
            }
            tracee::Event::Seccomp => self.call(task),
            tracee::Event::SyscallExit => self.answered(task),
            tracee::Event::Signal(signal) => {
                if signal.0 == libc::SIGWINCH {
                    self.output.copy_size();
                }
                if self.run.guest.ids().differ() {
                    self.translate_sender(&task)?;
                }
                Ok(task.resume(Some(signal))?)
            }
            tracee::Event::GroupStop(_) => {
                self.run.arrived(tid);
                Ok(task.listen()?)
            }
            tracee::Event::Interrupted => {
                self.run.arrived(tid);
                // A checkpoint was given up before this one had stopped, or taken after a
                // call of its had returned.
                task.forget_interruption()?;
                if let Some(path) = self.run.take_look(tid) {
                    self.looked_again(&path);
                }
                Ok(task.resume(None)?)
            }
            tracee::Event::Child { child, .. } => {
                self.told_of(child, tid)?;
                Ok(task.resume(None)?)
            }
            tracee::Event::Exec { .. } => {
                if tid == self.run.root() {
                    self.hands_on(tid);
                }
                let cut_off = self.run.executed(tid);
                self.cut_off(tid, cut_off);
                Ok(task.resume(None)?)
            }
        }
    }

    /// A call has returned that something is to be done after.
    fn answered(&mut self, task: Stopped) -> anyhow::Result<()> {
        self.take_back(&task)?;
        match self.run.take_pending(task.tid()) {
            Some(Pending::Effect {
                prepared, paths, ..
            }) => {
                let succeeded = task.registers()?.return_value() >= 0;
                self.effect_done(*prepared, &paths, succeeded)?;
            }
            Some(Pending::Modes { device }) => {
                let process = self.run.process_of(task.tid());
                self.modes_set(process.unwrap_or(task.tid()), device);
            }
            Some(Pending::Nameless { process }) => {
                let fd = task.registers()?.return_value();
                if fd >= 0 {
                    self.nameless_opened(process, fd);
                }
            }
            Some(Pending::Listing { into, hidden, call }) => {
                leave_out(&task, into, &hidden, call)?;
            }
            Some(Pending::Folder) => {
                let process = self.run.process_of(task.tid());
                if let Some(process) = process.and_then(|p| self.run.processes.get_mut(&p)) {
                    process.folder = None;
                }
            }
            Some(Pending::Looked { path }) => self.looked_again(&path),
            Some(Pending::Identity { changed, answer }) => {
                self.identity_answer(&task, &changed, answer)?;
            }
            Some(Pending::IdInMemory { at, before }) => {
                self.id_in_memory_answer(&task, at, before)?;
            }
            Some(Pending::LockOwner { at }) => self.lock_owner_answer(&task, at)?,
            Some(Pending::Sender { at }) => self.sender_answer(&task, at)?,
            None => {}
        }
        Ok(task.resume(None)?)
    }

    /// Tasks of a process are gone that were in the middle of calls.
    fn cut_off(&mut self, process: Tid, pending: Vec<Pending>) {
        for pending in pending {
            if let Pending::Effect {
                prepared, paths, ..
            } = pending
            {
                // Whether the call worked nobody can tell any more.
                self.effect_cut_off(Some(process), *prepared, &paths);
            }
        }
    }

    fn ended(&mut self, task: Tid, end: End) -> anyhow::Result<()> {
        if let Some(id) = self.checkpoint_of(task) {
            self.image_lost(id);
            return Ok(());
        }
        let process = self.run.process_of(task).unwrap_or(task);
        let pending = self.run.remove(task).1;
        self.cut_off(process, pending);
        if task == process {
            self.journal.process_ended(process.raw().unsigned_abs());
        }
        if !self.run.is_alive() {
            self.journal.guest_ended();
        }
        if task == self.run.root() && self.run.ended.is_none() {
            self.run.ended = Some(end);
            self.root_ended(end)?;
        }
        // Its last output is written in the modes that it left.
        if !self.run.is_alive() && self.untold_exit.is_none() {
            self.tell_keys(false);
        }
        Ok(())
    }

    fn read_news(&mut self) -> anyhow::Result<()> {
        if !self.dropping && self.run.age() >= self.config.ignore_delay {
            for batch in std::mem::take(&mut self.later) {
                self.files_changed(batch)?;
            }
        }
        if !self.dropping && self.quitting.is_none() {
            self.judge_held()?;
        }
        if !self.dropping {
            for asked in std::mem::take(&mut self.asked_meanwhile) {
                self.asked(asked)?;
            }
        }
        while let Ok(news) = self.inbox.try_recv() {
            match news {
                News::Files(batch) if self.dropping => self.later.push(batch),
                News::Files(batch) if self.run.age() < self.config.ignore_delay => {
                    let left = self.config.ignore_delay - self.run.age();
                    self.bell.after(left, Timed::Gathered);
                    self.later.push(batch);
                }
                // What a run does that is asked to end does not matter any more.
                News::Files(_) | News::Noticed(_) if self.quitting.is_some() => {}
                News::Files(batch) if self.run.failed => self.start_again(batch)?,
                News::Files(batch) => self.files_changed(batch)?,
                News::Noticed(path) => self.noticed(&path),
                News::Control(asked) if self.dropping => self.asked_meanwhile.push(asked),
                News::Control(asked) => self.asked(asked)?,
                News::Delivered(nth) => self.waiting.delivered(nth),
                News::Known { nth, run } => self.waiting.known(nth, run),
                News::Quit {
                    signal,
                    by_terminal,
                } => self.asked_to_quit(signal, by_terminal),
                News::Unread => self.unread(),
                News::InputLost(why) => self.input_lost(&why),
                News::Output(index, told) => self.output_told(index, told),
                News::Timed(Timed::Deadline(nth)) => {
                    self.deadline_passed |= nth == self.deadline;
                }
                News::Timed(Timed::Lingering(nth)) if nth == self.deadline => {
                    self.tell_of_lingering();
                }
                News::Timed(Timed::Lingering(_)) => {}
                News::Timed(Timed::Wanted) => self.take_wanted(),
                News::Timed(Timed::Idle { run, wait }) => self.look_for_idleness(run, wait),
                News::Timed(Timed::Held) => self.held_for_long()?,
                News::Timed(Timed::Gathered) => {
                    for batch in std::mem::take(&mut self.later) {
                        self.files_changed(batch)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn replace_guardian(&mut self) -> anyhow::Result<()> {
        let mut keeper = self.keeper.lock().unwrap_or_else(PoisonError::into_inner);
        keeper
            .replace_guardian()
            .context("cannot start another guardian process")?;
        self.bell
            .replace(setup::attach(&mut self.tracer, keeper.process())?);
        drop(keeper);
        // What was rung for meanwhile; not here, where a run may be half killed.
        self.rung_meanwhile = true;
        Ok(())
    }

    fn emit(&mut self, event: &Event) {
        if let Err(error) = self.events.emit(self.run.number, event) {
            self.messages
                .warning(&format!("cannot write to the file of --events: {error}"));
        }
    }

    /// A warning of one file, said and written once for each file.
    fn warn_of_file(&mut self, code: &str, path: &Path, text: &str) {
        let each = format!("{code} {}", path.display());
        if self.messages.warning_once(&each, text) {
            self.emit(&Event::Warning {
                code: code.to_owned(),
                message: text.to_owned(),
            });
        }
    }

    /// A warning, said and written once for each code; whether this was the first one.
    fn warn(&mut self, code: &str, text: &str) -> bool {
        let first = self.messages.warning_once(code, text);
        if first {
            self.emit(&Event::Warning {
                code: code.to_owned(),
                message: text.to_owned(),
            });
        }
        first
    }
}
