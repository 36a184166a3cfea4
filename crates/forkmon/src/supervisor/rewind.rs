//! Going back: files as they were, and a copy of a checkpoint, or the guest from
//! its beginning.

use super::Supervisor;
use super::fingerprint;
use crate::events::{Event, Reason};
use crate::keys::When;
use crate::messages::{Edit, Outcome};
use journal::{Effect, Prepared};
use snapshot::{Moved, Refusal, Resumed};
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use timeline::CheckpointId;

/// The most kept files that are told of one by one.
const MOST_TOLD: usize = 5;

/// What is told of a resume.
struct Rewound {
    /// The guest's time that need not be repeated.
    kept: Duration,
    /// The path before whose first access it goes on.
    before: Option<PathBuf>,
    /// How many bytes of its output were to be shown again and are not kept.
    left_out: u64,
}

impl Supervisor<'_> {
    /// Undoes what came after a checkpoint and lets a copy of it run. A guest that a
    /// signal had stopped goes on, unless it `stays_stopped`.
    fn resume_from(&mut self, id: CheckpointId, stays_stopped: bool) -> Result<Rewound, Reason> {
        let checkpoint = self
            .timeline
            .checkpoint(id)
            .cloned()
            .ok_or(Reason::NotRestorable)?;
        for dropped in self.timeline.rewind(Some(id)) {
            self.discard(dropped);
        }
        let stored = self.stored.get(&id).ok_or(Reason::NotRestorable)?;
        let (mark, streams) = (stored.mark, stored.streams);
        let reading = stored.reading.clone();
        // If that fails, a restart says why.
        let left_out = self
            .rewind_streams(Some(streams))
            .map_err(|_| Reason::NotRestorable)?;
        for (device, inode) in self.journal.to_restore(mark) {
            self.have_images_let_go(device, inode);
            self.journal.released(device, inode);
        }
        if !self.undo_to(mark) {
            return Err(Reason::Effects);
        }
        let sockets = self.make_room_for_sockets(id)?;
        let stored = self.stored.get(&id).ok_or(Reason::NotRestorable)?;
        for (device, inode) in stored.image.opened_anew() {
            self.journal.opens_anew(device, inode);
        }
        let moved = self.reading_rewound(&reading);
        let resumed = self.copy_of(id, &moved);
        self.journal.has_opened_anew();
        self.sockets_are_back(sockets);
        let resumed = resumed?;
        self.tell_of_size(resumed.guest.process(), streams);
        let reads = (reading.seen, reading.reads_script);
        self.resumed(resumed, checkpoint.guest_time, reads, stays_stopped);
        for file in &moved {
            self.reads_on(&file.path);
        }
        Ok(Rewound {
            kept: checkpoint.guest_time,
            before: checkpoint.path,
            left_out,
        })
    }

    /// The same, with a message and an event that say so; how much of the guest's time
    /// was kept.
    pub(super) fn resume_and_tell(
        &mut self,
        id: CheckpointId,
        stays_stopped: bool,
        edit: &Edit,
        reason: Reason,
        began: Instant,
    ) -> Result<Duration, Reason> {
        let Rewound {
            kept,
            before,
            left_out,
        } = self.resume_from(id, stays_stopped)?;
        let latency = began.elapsed();
        let checkpoint = u64::from(id.0);
        self.emit(&Event::Resume {
            from: Some(checkpoint),
            path: edit.decided.clone(),
            kept_ms: kept,
            latency_ms: latency,
            reason,
        });
        let within = before
            .as_deref()
            .is_some_and(|path| self.is_in_pieces(path));
        let outcome = Outcome::Resumed {
            before: before.as_deref(),
            within,
            checkpoint,
            kept,
            latency,
            left_out,
        };
        self.messages.changed(edit, outcome);
        self.output.show();
        Ok(kept)
    }

    /// Gets the copy ready that a checkpoint's next resume goes on with. No other
    /// checkpoint keeps one.
    pub(super) fn prepare(&mut self, id: CheckpointId) {
        for (other, stored) in &mut self.stored {
            if *other != id {
                stored.image.forget_prepared(&mut self.tracer);
            }
        }
        if let Some(stored) = self.stored.get_mut(&id) {
            // Where there is no room now, there may be when the run is gone.
            let _ = stored
                .image
                .prepare(&mut self.tracer, &self.identity_filter);
        }
    }

    /// A copy of a checkpoint, stopped where it is to go on.
    fn copy_of(&mut self, id: CheckpointId, moved: &[Moved]) -> Result<Resumed, Reason> {
        loop {
            let stored = self.stored.get_mut(&id).ok_or(Reason::NotRestorable)?;
            let filter = &self.identity_filter;
            match stored.image.resume(&mut self.tracer, filter, moved) {
                Ok(resumed) => return Ok(resumed),
                // Another image may give its place.
                Err(Refusal::NoRoom(_)) if self.evict_another(id) => {}
                Err(refusal) => {
                    let text = format!("a checkpoint could not be resumed: {refusal}");
                    self.warn(refusal.code(), &text);
                    return Err(Reason::NotRestorable);
                }
            }
        }
    }

    /// A resume binds the guest's Unix sockets again, which makes their files
    /// anew: to the journal it is the guest that removes and makes them.
    fn make_room_for_sockets(
        &mut self,
        id: CheckpointId,
    ) -> Result<Vec<(PathBuf, Prepared)>, Reason> {
        let stored = self.stored.get(&id).ok_or(Reason::NotRestorable)?;
        let mut prepared = Vec::new();
        for path in stored.image.socket_files() {
            let removal = self.journal.before(Effect::Unlink { path: path.clone() });
            let removed = stored.image.remove_socket_file(&path);
            let concluded = self.journal.after(removal, removed.is_ok());
            if removed.is_err() || concluded.is_err() {
                self.sockets_are_back(prepared);
                return Err(Reason::NotRestorable);
            }
            let making = self.journal.before(Effect::MakeNode { path: path.clone() });
            prepared.push((path, making));
        }
        Ok(prepared)
    }

    fn sockets_are_back(&mut self, sockets: Vec<(PathBuf, Prepared)>) {
        for (path, prepared) in sockets {
            let made = path.exists();
            if let Err(obstacle) = self.journal.after(prepared, made) {
                self.warn("effect", &obstacle.to_string());
            }
            self.timeline.wrote(&path);
        }
    }

    /// Drops a checkpoint other than this one; whether there was one.
    fn evict_another(&mut self, than: CheckpointId) -> bool {
        let other = self
            .timeline
            .checkpoints()
            .map(|c| c.id)
            .find(|id| *id != than);
        if let Some(id) = other {
            self.timeline.drop_checkpoint(id);
            self.discard(id);
        }
        other.is_some()
    }

    /// Puts the files back as they were; whether that worked for all of them.
    fn undo_to(&mut self, mark: journal::Mark) -> bool {
        let stored = &self.stored;
        self.journal.recount(mark, |device, inode, counted| {
            let images = || stored.values().map(|stored| &stored.image);
            match snapshot::writers(images(), device, inode) {
                Ok(held) if held < counted => match snapshot::map(images(), inode) {
                    Ok(false) => held,
                    _ => counted,
                },
                _ => counted,
            }
        });
        let undo = self.journal.undo_to(mark);
        self.restored = undo
            .restored
            .iter()
            .map(|path| {
                let identity = fs::symlink_metadata(path)
                    .ok()
                    .map(|m| fingerprint::identity(&m));
                (path.clone(), identity)
            })
            .collect();
        for left in &undo.left {
            let path = self.messages.path(&left.path);
            let text = match fs::symlink_metadata(&left.path) {
                Ok(_) => format!("left {path} as it is: {}", left.why),
                Err(_) => format!("did not put {path} back: {}", left.why),
            };
            self.warn_of_file("left-as-it-is", &left.path, &text);
        }
        let kept = self.journal.kept();
        self.tell_of_kept(&kept);
        self.lookups.forget();
        undo.complete
    }

    /// Says where those files lie that were taken away and may be somebody's.
    pub(super) fn tell_of_kept(&mut self, kept: &[journal::Item]) {
        if let [first, .., last] = kept
            && kept.len() > MOST_TOLD
        {
            // As a rule all are in one folder.
            let folder = last.lies.parent().unwrap_or(&last.lies).to_owned();
            let text = format!(
                "kept {} files that may be somebody's, {} the first: see list.txt in {}",
                kept.len(),
                self.messages.path(&first.path),
                self.messages.path(&folder)
            );
            self.warn_of_file("kept", &last.lies, &text);
            return;
        }
        for item in kept {
            let text = format!(
                "kept {} as {}: {}",
                self.messages.path(&item.path),
                self.messages.path(&item.lies),
                item.why
            );
            self.warn_of_file("kept", &item.lies, &text);
        }
    }

    /// Starts the guest from its beginning.
    pub(super) fn restart(
        &mut self,
        edit: &Edit,
        reason: Reason,
        began: Instant,
    ) -> anyhow::Result<()> {
        let why = self.why_restarted(reason);
        for dropped in self.timeline.rewind(None) {
            self.discard(dropped);
        }
        self.rewind_streams(None)?;
        if self.config.keys != When::On {
            super::ending::restore_modes();
        }
        self.undo_to(self.beginning);
        self.last_access.clear();
        self.pieces.restart();
        self.lost_to_effects = false;
        self.messages
            .changed(edit, Outcome::Restarted { why: &why });
        self.start()?;
        self.emit(&Event::Resume {
            from: None,
            path: edit.decided.clone(),
            kept_ms: Duration::ZERO,
            latency_ms: began.elapsed(),
            reason,
        });
        self.output.show();
        Ok(())
    }
    /// Why no checkpoint is used, as the end of a sentence.
    fn why_restarted(&self, reason: Reason) -> String {
        let why = match reason {
            Reason::Effects => "not all that it has written since can be undone",
            Reason::NotRestorable => "the checkpoint before it could not be resumed",
            Reason::RestartRequested => "as asked",
            _ if self.run.failed => "the program could not be started before",
            _ => return self.why_no_checkpoint(),
        };
        why.to_owned()
    }

    /// The same where no checkpoint failed.
    fn why_no_checkpoint(&self) -> String {
        let why = "no checkpoint is kept from before the program first looked at it";
        match &self.costs.refusal {
            Some(refusal) if self.timeline.checkpoints().next().is_none() => {
                format!("{why} (the last try: {refusal})")
            }
            _ => why.to_owned(),
        }
    }
}
