//! Taking, keeping and dropping checkpoints.

use super::Supervisor;
use super::pieces::Place;
use super::streams::Positions;
use crate::events::Event;
use journal::Mark;
use snapshot::{Frozen, HeldFile, Image, Refusal};
use std::borrow::Cow;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use timeline::{Checkpoint, CheckpointId};
use tracee::{Stopped, Tid};

/// A checkpoint's frozen image, and where the journal stood.
#[derive(Debug)]
pub(super) struct Stored {
    pub(super) image: Image,
    pub(super) mark: Mark,
    /// How much the guest had read and written.
    pub(super) streams: Positions,
    pub(super) taken: Instant,
    pub(super) reading: Place,
    /// Its only purpose is to stand near what was edited in this file, which is read in
    /// pieces.
    pub(super) for_edit_of: Option<PathBuf>,
}

/// What a checkpoint is considered before.
#[derive(Copy, Clone, Debug)]
pub(super) enum Due {
    /// The first touch of a path.
    Touched,
    /// The first read of a path that was looked at to be read.
    Read,
    /// The next piece of a file. `hot`: with what was edited there last.
    Within { hot: bool },
}

/// What checkpoints cost so far, to know what the next one will.
#[derive(Debug)]
pub(super) struct Costs {
    last: Duration,
    /// After a refusal none is tried before the guest has run for this long.
    not_before: Duration,
    /// Why the run got none when one was due last, if it did not.
    pub(super) refusal: Option<Cow<'static, str>>,
}

/// Why there is none while a child is alive.
pub(super) const CHILD_ALIVE: &str = "the guest has a child process";

/// The cost of a first checkpoint, until it is measured.
const FIRST_COST: Duration = Duration::from_micros(500);

/// A refused checkpoint is tried again after this many times its cost, unless the reason
/// passes by itself.
const PATIENCE: u32 = 20;

impl Default for Costs {
    fn default() -> Self {
        Self {
            last: FIRST_COST,
            not_before: Duration::ZERO,
            refusal: None,
        }
    }
}

impl Costs {
    /// Forgets what was measured of a run that is gone.
    pub(super) fn forget_run(&mut self) {
        self.not_before = Duration::ZERO;
        self.refusal = None;
    }
}

/// What an image comes to hold that nothing else does, in bytes: page tables, and
/// the pages that the guest writes to afterwards. How many that will be nobody
/// knows when it is taken; a twentieth of what is resident is more than most
/// guests write between two checkpoints (`docs/performance.md`, Memory).
fn own_memory(resident: u64) -> u64 {
    resident / 20
}

impl Supervisor<'_> {
    /// Takes a checkpoint before the guest learns of a path, if one is due.
    /// Answers the task, unless it was let go to stop before its call again.
    pub(super) fn consider_checkpoint(
        &mut self,
        task: Stopped,
        path: &Path,
        due: Due,
    ) -> anyhow::Result<Option<Stopped>> {
        let tid = task.tid();
        if self.run.considered == Some(tid) {
            self.run.considered = None;
            return Ok(Some(task));
        }
        let time = self.run.guest_time();
        let cost = self.costs.last;
        let is_due = match due {
            Due::Touched => self.timeline.checkpoint_due(path, time, cost),
            Due::Read => self
                .timeline
                .checkpoint_due_before_reading(path, time, cost),
            Due::Within { hot } => self.timeline.checkpoint_due_within(hot, time, cost),
        };
        if !is_due {
            return Ok(Some(task));
        }
        if self.run.processes.len() > 1 {
            self.costs.refusal = Some(CHILD_ALIVE.into());
        }
        if self.run.barred
            || !self.run.is_settled()
            || self.run.process_of(tid) != Some(self.run.root())
            || time < self.costs.not_before
            || self.output.is_backed_up()
        {
            return Ok(Some(task));
        }
        let mut task = task;
        loop {
            let began = Instant::now();
            let (frozen, mark) = self.freeze(Some(task));
            let cost = began.elapsed();
            self.run.add_frozen(cost);
            let again = match frozen.outcome {
                Ok(image) => {
                    let id = self.keep(image, mark, Some(path), false, time, cost);
                    if matches!(due, Due::Within { hot: true }) {
                        self.supersede(path, id);
                    }
                    false
                }
                Err(refusal) => self.refused(&refusal, time, cost),
            };
            let Some(stopped) = frozen.task else {
                return Ok(None);
            };
            if !stopped.is_before_call() {
                // It makes the call again by itself and stops before it again.
                if !again {
                    self.run.considered = Some(tid);
                }
                stopped.resume(None)?;
                return Ok(None);
            }
            if !again {
                return Ok(Some(stopped));
            }
            task = stopped;
        }
    }

    /// Freezes the guest, one of whose threads may be stopped already.
    pub(super) fn freeze(&mut self, task: Option<Stopped>) -> (Frozen, Mark) {
        let mark = self.journal.mark();
        let journal = &mut self.journal;
        let mut hold = |file: &HeldFile| {
            let path = file.path.as_deref().unwrap_or(&file.handle);
            journal
                .hold(mark, &file.handle, path, file.mapped)
                .map_err(|e| e.to_string())
        };
        let looking = self.run.looking();
        let frozen = snapshot::freeze(
            &mut self.tracer,
            &mut self.run.guest,
            task,
            &|tid| looking.contains(&tid),
            &mut hold,
        );
        for (device, inode) in frozen.outcome.iter().flat_map(Image::opened_anew) {
            self.journal.let_go(mark, device, inode);
        }
        (frozen, mark)
    }

    /// Puts a checkpoint on the timeline, whose limits may cost others, or itself. The
    /// guest has not gone on since it was frozen.
    pub(super) fn keep(
        &mut self,
        image: Image,
        mark: Mark,
        path: Option<&Path>,
        wanted: bool,
        time: Duration,
        cost: Duration,
    ) -> CheckpointId {
        self.next_checkpoint += 1;
        let id = CheckpointId(self.next_checkpoint);
        self.costs.last = cost;
        self.costs.refusal = None;
        let resident = image.resident_bytes();
        self.emit(&Event::Checkpoint {
            id: u64::from(id.0),
            path: path.map(Path::to_owned),
            cost_ms: cost,
            processes: 1,
            threads: u32::try_from(image.threads()).unwrap_or(u32::MAX),
            resident_bytes: resident,
        });
        let checkpoint = Checkpoint {
            id,
            path: path.map(Path::to_owned),
            wanted,
            guest_time: time,
            cost,
            memory: own_memory(resident),
            depth: self.run.guest.depth(),
        };
        let stored = Stored {
            image,
            mark,
            // The guest still stands still.
            streams: self.positions(),
            reading: self.reading_place(),
            for_edit_of: None,
            taken: Instant::now(),
        };
        self.stored.insert(id, stored);
        for dropped in self.timeline.add_checkpoint(checkpoint) {
            self.discard(dropped);
        }
        id
    }

    /// Says why there is no checkpoint; whether to try once more at once.
    fn refused(&mut self, refusal: &Refusal, time: Duration, cost: Duration) -> bool {
        let patience = match refusal {
            Refusal::Passing => 1,
            _ => PATIENCE,
        };
        self.costs.not_before = time + cost.max(FIRST_COST) * patience;
        self.costs.refusal = Some(refusal.to_string().into());
        match refusal {
            Refusal::Died | Refusal::Late | Refusal::Passing => false,
            Refusal::NoRoom(_) => match self.timeline.evict_one() {
                Some(id) => {
                    self.discard(id);
                    self.costs.not_before = Duration::ZERO;
                    true
                }
                None => {
                    self.warn(
                        refusal.code(),
                        &format!("no checkpoint is taken: {refusal}"),
                    );
                    false
                }
            },
            // Where a child is alive is no place for a checkpoint, and no news.
            Refusal::Unsupported {
                code: "child-alive",
                ..
            } => false,
            other => {
                self.warn(other.code(), &format!("no checkpoint is taken: {other}"));
                false
            }
        }
    }

    /// Kills the image of a checkpoint that the timeline has dropped.
    pub(super) fn discard(&mut self, id: CheckpointId) {
        if let Some(stored) = self.stored.remove(&id) {
            stored.image.discard(&mut self.tracer);
            self.journal.forget(stored.mark);
        }
    }

    /// A file is about to be opened for writing, which fails while an image
    /// executes it (ETXTBSY).
    pub(super) fn free_program(&mut self, path: &Path) {
        self.free(path, Image::executes);
    }

    /// A file is about to be executed, which fails while an image has it open
    /// for writing (ETXTBSY).
    pub(super) fn free_written(&mut self, path: &Path) {
        self.free(path, Image::may_write);
    }

    /// An open file is about to be locked, and the lock is to be free as soon as the
    /// guest closes the file, whatever the images hold.
    pub(super) fn free_lock(&mut self, process: Tid, fd: i32) {
        if self.stored.is_empty() {
            return;
        }
        let Ok(metadata) = std::fs::metadata(format!("/proc/{process}/fd/{fd}")) else {
            return;
        };
        self.have_images_let_go(metadata.dev(), metadata.ino());
    }

    /// Has all images close a file, which copies of them open anew. One that cannot is
    /// of no use any more.
    pub(super) fn have_images_let_go(&mut self, device: u64, inode: u64) {
        let mut useless = Vec::new();
        for (id, stored) in &mut self.stored {
            let opened = |image: &Image| {
                let all = image.opened_anew();
                all.filter(|file| *file == (device, inode)).count()
            };
            let before = opened(&stored.image);
            let let_go = stored.image.let_go(&mut self.tracer, device, inode);
            for _ in before..opened(&stored.image) {
                self.journal.let_go(stored.mark, device, inode);
            }
            if let_go.is_err() {
                useless.push(*id);
            }
        }
        for id in useless {
            self.timeline.drop_checkpoint(id);
            self.discard(id);
        }
    }

    fn free(&mut self, path: &Path, keeps: impl Fn(&Image, u64, u64) -> bool) {
        if self.stored.is_empty() {
            return;
        }
        let Ok(metadata) = std::fs::metadata(path) else {
            return;
        };
        let busy: Vec<CheckpointId> = self
            .stored
            .iter()
            .filter(|(_, stored)| keeps(&stored.image, metadata.dev(), metadata.ino()))
            .map(|(id, _)| *id)
            .collect();
        for id in busy {
            self.timeline.drop_checkpoint(id);
            self.discard(id);
        }
    }

    /// The checkpoint whose image this task is.
    pub(super) fn checkpoint_of(&self, task: Tid) -> Option<CheckpointId> {
        self.stored
            .iter()
            .find(|(_, stored)| stored.image.task() == task)
            .map(|(id, _)| *id)
    }

    /// An image died: by the kernel for want of memory, or by somebody's hand.
    pub(super) fn image_lost(&mut self, id: CheckpointId) {
        if let Some(mut stored) = self.stored.remove(&id) {
            stored.image.lost();
            stored.image.discard(&mut self.tracer);
            self.journal.forget(stored.mark);
        }
        self.timeline.drop_checkpoint(id);
    }
}
