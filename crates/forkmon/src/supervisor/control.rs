//! What people ask of a running forkmon, by `forkmon ctl` or the keyboard:
//! a checkpoint at this moment, a resume, a restart, a look at the timeline.

use super::Supervisor;
use super::checkpoint::CHILD_ALIVE;
use super::inbox::Timed;
use crate::control::{Asked, CheckpointStatus, JournalItem, Reply, Request, Status};
use crate::events::Reason;
use crate::messages::Edit;
use snapshot::Refusal;
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant, UNIX_EPOCH};
use timeline::CheckpointId;
use tracee::Tid;

/// A guest that cannot be frozen just now, in vfork or halfway through a change to
/// a file, is tried again after this long, and for `PATIENCE` in all.
const TRY_AGAIN: Duration = Duration::from_millis(10);
const PATIENCE: Duration = Duration::from_secs(2);

/// A checkpoint that is wanted and could not be taken yet.
#[derive(Debug)]
pub(super) struct Wanted {
    answer: Sender<Reply>,
    since: Instant,
}

pub(super) fn refused(code: &str, message: impl Into<String>) -> Reply {
    Reply::Refused {
        code: code.to_owned(),
        message: message.into(),
    }
}

/// Whoever asked may be gone by now, and needs no answer then.
pub(super) fn reply(to: &Sender<Reply>, reply: Reply) {
    let _ = to.send(reply);
}

impl Supervisor<'_> {
    /// Somebody asks for something.
    pub(super) fn asked(&mut self, asked: Asked) -> anyhow::Result<()> {
        let Asked { request, answer } = asked;
        if self.is_ending() {
            reply(&answer, refused("ending", "forkmon is about to end"));
            return Ok(());
        }
        match request {
            Request::Status => reply(&answer, Reply::Status(self.status())),
            Request::Journal => {
                let items = self.journal_items();
                reply(&answer, Reply::Journal { items });
            }
            Request::Checkpoint => {
                self.wanted.push(Wanted {
                    answer,
                    since: Instant::now(),
                });
                self.take_wanted();
            }
            Request::Resume { id } => {
                let answered = self.resume_wanted(id)?;
                reply(&answer, answered);
            }
            Request::Restart => {
                let answered = self.restart_wanted()?;
                reply(&answer, answered);
            }
            Request::Wait => self.wait_wanted(answer),
            Request::Quit => {
                reply(&answer, Reply::Quitting);
                self.quit();
            }
        }
        Ok(())
    }

    /// Takes the checkpoints that are wanted, or says why there are none. All
    /// that wait get the same one.
    pub(super) fn take_wanted(&mut self) {
        let Some(oldest) = self.wanted.iter().map(|wanted| wanted.since).min() else {
            return;
        };
        let answered = if !self.run.is_alive() {
            refused("no-guest", "the program has ended")
        } else if self.run.barred {
            refused("barred", "this run gets no checkpoints any more")
        } else {
            match self.freeze_anywhere(true) {
                Ok(Some(id)) => Reply::Checkpoint { id },
                Ok(None) => refused("limit", "the limits leave no room for a checkpoint"),
                // Soon it may be able to.
                Err(
                    Refusal::Late
                    | Refusal::Passing
                    | Refusal::Unsupported {
                        code: "child-alive",
                        ..
                    },
                ) if oldest.elapsed() < PATIENCE => {
                    self.bell.after(TRY_AGAIN, Timed::Wanted);
                    return;
                }
                Err(refusal) => refused(refusal.code(), refusal.to_string()),
            }
        };
        for wanted in std::mem::take(&mut self.wanted) {
            reply(&wanted.answer, answered.clone());
        }
    }

    /// Takes a checkpoint at this moment. `None` if the limits cost it at once.
    pub(super) fn freeze_anywhere(&mut self, wanted: bool) -> Result<Option<u64>, Refusal> {
        if !self.run.is_settled() {
            return Err(if self.run.processes.len() > 1 {
                Refusal::Unsupported {
                    code: "child-alive",
                    what: CHILD_ALIVE.to_owned(),
                }
            } else {
                Refusal::Late
            });
        }
        if self.output.is_backed_up() {
            return Err(Refusal::Late);
        }
        let time = self.run.guest_time();
        loop {
            let began = Instant::now();
            let (frozen, mark) = self.freeze(None);
            let cost = began.elapsed();
            self.run.add_frozen(cost);
            match frozen.outcome {
                Ok(image) => {
                    let id = self.keep(image, mark, None, wanted, time, cost);
                    return Ok(self.stored.contains_key(&id).then_some(u64::from(id.0)));
                }
                Err(Refusal::NoRoom(what)) => match self.timeline.evict_one() {
                    Some(id) => self.discard(id),
                    None => return Err(Refusal::NoRoom(what)),
                },
                Err(refusal) => return Err(refusal),
            }
        }
    }

    fn resume_wanted(&mut self, id: Option<u64>) -> anyhow::Result<Reply> {
        let wanted = match id {
            None => self
                .timeline
                .checkpoints()
                .next_back()
                .map(|newest| newest.id),
            Some(id) => u32::try_from(id)
                .ok()
                .map(CheckpointId)
                .filter(|id| self.stored.contains_key(id)),
        };
        let Some(wanted) = wanted else {
            return Ok(refused(
                "no-checkpoint",
                match id {
                    Some(id) => format!("there is no checkpoint {id}"),
                    None => "there is no checkpoint".to_owned(),
                },
            ));
        };
        let began = Instant::now();
        self.drop_run(Some(wanted))?;
        if self.is_ending() {
            return Ok(refused("ending", "forkmon is about to end"));
        }
        let reason = Reason::ResumeRequested;
        match self.resume_and_tell(wanted, true, &Edit::default(), reason, began) {
            Ok(kept) => Ok(Reply::Resumed {
                from: u64::from(wanted.0),
                kept_ms: kept.as_secs_f64() * 1000.0,
            }),
            Err(why) => {
                // The run is gone, and with it what it has done since: the guest
                // begins anew.
                self.timeline.drop_checkpoint(wanted);
                self.discard(wanted);
                self.restart(&Edit::default(), why, began)?;
                Ok(refused(
                    "not-restorable",
                    "the checkpoint could not be resumed; the guest was restarted",
                ))
            }
        }
    }

    fn restart_wanted(&mut self) -> anyhow::Result<Reply> {
        let began = Instant::now();
        self.drop_run(None)?;
        if self.is_ending() {
            return Ok(refused("ending", "forkmon is about to end"));
        }
        self.restart(&Edit::default(), Reason::RestartRequested, began)?;
        Ok(Reply::Restarted)
    }

    /// Ends forkmon as if nobody had more edits: with the guest's own status, if it
    /// has one.
    fn quit(&mut self) {
        self.asked_to_quit(libc::SIGTERM, false);
        if let Some(end) = self.run.ended {
            self.finished = Some(super::ending::status(end));
        }
    }

    /// What rewinds have taken away. What stood in for a file for a moment is of interest
    /// only if somebody got hold of it.
    fn journal_items(&mut self) -> Vec<JournalItem> {
        let items = self.journal.taken_away();
        let kept = self.journal.kept();
        self.tell_of_kept(&kept);
        let of_interest = |item: &journal::Item| item.stays || item.why != journal::Reason::StoodIn;
        items
            .into_iter()
            .filter(of_interest)
            .map(|item| JournalItem {
                at_ms: item
                    .at
                    .duration_since(UNIX_EPOCH)
                    .map_or(0, |at| u64::try_from(at.as_millis()).unwrap_or(u64::MAX)),
                path: item.path,
                size: item.size,
                why: item.why.to_string(),
                lies: item.lies,
                stays: item.stays,
            })
            .collect()
    }

    fn status(&self) -> Status {
        let now = Instant::now();
        let checkpoints = self.timeline.checkpoints().filter_map(|checkpoint| {
            let stored = self.stored.get(&checkpoint.id)?;
            Some(CheckpointStatus {
                id: u64::from(checkpoint.id.0),
                path: checkpoint.path.clone(),
                age_ms: (now - stored.taken).as_secs_f64() * 1000.0,
                guest_ms: checkpoint.guest_time.as_secs_f64() * 1000.0,
                threads: u32::try_from(stored.image.threads()).unwrap_or(u32::MAX),
                resident_bytes: stored.image.resident_bytes(),
                own_bytes: share_of(stored.image.task()),
            })
        });
        Status {
            run: self.run.number,
            pid: std::process::id(),
            guest: self.run.is_alive().then(|| self.run.root().raw() as u32),
            root: self.config.scope.root().to_owned(),
            argv: self
                .config
                .command
                .iter()
                .map(|word| word.to_string_lossy().into_owned())
                .collect(),
            checkpoints: checkpoints.collect(),
        }
    }
}

/// A process's proportional share of memory, in bytes (proc(5), `smaps_rollup`).
fn share_of(process: Tid) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{process}/smaps_rollup")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}
