//! From settled file events to the run that follows from them.

use super::Supervisor;
use super::fingerprint::{self, bytes_of};
use super::pieces::LARGEST;
use crate::events::{ChangeKind, ChangedPath, Event, Reason};
use crate::messages::{self, Deed};
use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;
use timeline::{AccessIndex, CheckpointId, Current, Observation, Verdict};

/// A path that somebody has touched, and what is there now.
#[derive(Clone, Debug)]
pub(super) struct Touched {
    pub(super) path: PathBuf,
    pub(super) now: Current,
    /// What is in it, if the guest reads it in pieces.
    pub(super) bytes: Option<Arc<[u8]>>,
}

/// A path that contradicts what the guest knows of it.
#[derive(Debug)]
struct Change {
    touched: Touched,
    /// The first contradiction.
    first: AccessIndex,
    kind: ChangeKind,
    /// The same for people: of a folder that was listed, the names in it.
    deeds: Vec<(PathBuf, Deed)>,
}

/// What a batch of events comes to.
#[derive(Debug, Default)]
struct Edit {
    changes: Vec<Change>,
    unchanged: Vec<PathBuf>,
    /// When the first event was read.
    began: Option<Instant>,
}

fn kind_of(kind: timeline::ChangeKind) -> ChangeKind {
    match kind {
        timeline::ChangeKind::Modified => ChangeKind::Modified,
        timeline::ChangeKind::Created => ChangeKind::Created,
        timeline::ChangeKind::Removed => ChangeKind::Removed,
        timeline::ChangeKind::Metadata => ChangeKind::Metadata,
    }
}

impl Supervisor<'_> {
    /// Acts on settled file events.
    pub(super) fn files_changed(&mut self, batch: watch::Batch) -> anyhow::Result<()> {
        if let Some(error) = batch.error {
            anyhow::bail!("cannot watch the files any more: {error}");
        }
        let mut touches = batch.touches;
        if batch.rescan {
            // Events were lost: look at everything that was ever touched.
            let now = Instant::now();
            let known: Vec<PathBuf> = self.last_access.keys().cloned().collect();
            touches.extend(known.into_iter().map(|path| watch::Touch {
                path,
                first_seen: now,
                quiet_before: now,
                strong: false,
            }));
        }
        let touches = self.hold_back(touches);
        self.touched(&touches)
    }

    /// Acts on paths that somebody may have changed.
    pub(super) fn touched(&mut self, touches: &[watch::Touch]) -> anyhow::Result<()> {
        self.collect_fingerprints();
        let mut edit = Edit::default();
        for touch in touches {
            self.judge(touch, &mut edit);
        }
        if edit.changes.is_empty() {
            if !edit.unchanged.is_empty() {
                let paths: Vec<&Path> = edit.unchanged.iter().map(PathBuf::as_path).collect();
                self.messages.unchanged(&paths);
                self.emit(&Event::Unchanged {
                    paths: edit.unchanged,
                });
            }
            return Ok(());
        }
        self.act_on(edit)
    }

    fn judge(&mut self, touch: &watch::Touch, edit: &mut Edit) {
        let path = &touch.path;
        if self.is_our_own_doing(path) || self.is_written_by_us(path) {
            return;
        }
        if self.is_in_pieces(path) && !self.is_as_recorded(path) {
            self.confirm_reads(path);
            self.spoil_reads(path, touch.quiet_before);
        }
        let touched = self.look_at(path, self.timeline.wants_content(path));
        let now = &touched.now;
        let mut verdict = if self.journal.wrote(path) {
            if self.journal.foreign(path) {
                self.timeline.judge_foreign(path, now)
            } else if matches!(now, Current::Folder { .. }) {
                // A folder of the guest's own may have names of others in it.
                self.timeline.judge(path, now)
            } else {
                Verdict::Untouched
            }
        } else if self.journal.wrote_file(path) {
            // By another of its names.
            Verdict::Untouched
        } else {
            self.timeline.judge(path, now)
        };
        // The same bytes again: unless the guest may have read what was there
        // between the two.
        let saved = touch.strong && !self.is_as_recorded(path);
        if verdict == Verdict::Unchanged && saved && !self.is_in_pieces(path) {
            let read_between = self
                .last_access
                .get(path)
                .is_some_and(|last| last.at >= Some(touch.quiet_before));
            if read_between || self.is_open_in_guest(path) {
                self.timeline.spoil(path);
                verdict = self.timeline.judge(path, now);
            }
        }
        if verdict == Verdict::Unchanged
            && let Some(first) = self.seen_between(touch, now, saved)
        {
            verdict = Verdict::Contradicted {
                first,
                change: timeline::ChangeKind::Metadata,
            };
        }
        if verdict == Verdict::Unread && self.is_still_read(path) {
            // The guest has the file open as it was, or half saved.
            verdict = Verdict::Contradicted {
                first: self.timeline.end(),
                change: timeline::ChangeKind::Modified,
            };
        }
        match verdict {
            Verdict::Untouched => {}
            Verdict::Unread => {
                self.accept(&touched);
                edit.unchanged.push(path.clone());
            }
            Verdict::Unchanged => {
                // A guest that has the file open goes on to read the one that was there.
                if self.is_in_pieces(path) && self.is_the_read_file(path) {
                    self.accept(&touched);
                }
                if self.timeline.outdated(path, &touched.now).is_some() {
                    self.resaved.insert(path.clone());
                }
                if saved && matches!(now, Current::File { .. }) {
                    edit.unchanged.push(path.clone());
                }
            }
            Verdict::Contradicted { first, change } => {
                let deeds = self.deeds(path, &touched.now, first, change);
                edit.changes.push(Change {
                    touched,
                    first,
                    kind: kind_of(change),
                    deeds,
                });
                let seen = touch.first_seen;
                edit.began = Some(edit.began.map_or(seen, |began| began.min(seen)));
            }
        }
    }

    /// What somebody did to a path that contradicts its first access here. If that was
    /// a look into a folder, it was done to the names in it.
    fn deeds(
        &self,
        path: &Path,
        now: &Current,
        first: AccessIndex,
        change: timeline::ChangeKind,
    ) -> Vec<(PathBuf, Deed)> {
        if let Current::Folder {
            names: Some(names), ..
        } = now
        {
            let access = self
                .timeline
                .accesses()
                .find(|access| access.index == first);
            if let Some(Observation::Listing(seen)) = access.map(|access| access.seen) {
                let added = names.difference(seen).map(|name| (name, Deed::Created));
                let gone = seen.difference(names).map(|name| (name, Deed::Removed));
                let deeds: Vec<_> = added
                    .chain(gone)
                    .map(|(name, deed)| (path.join(name), deed))
                    .filter(|(path, _)| self.timeline.wrote_at(path).is_none())
                    .collect();
                if !deeds.is_empty() {
                    return deeds;
                }
            }
        }
        let deed = match change {
            // Where there was nothing the program itself has made what they changed.
            timeline::ChangeKind::Created if self.journal.wrote(path) => Deed::Changed,
            timeline::ChangeKind::Created => Deed::Created,
            timeline::ChangeKind::Removed => Deed::Removed,
            timeline::ChangeKind::Modified | timeline::ChangeKind::Metadata => Deed::Changed,
        };
        vec![(path.to_owned(), deed)]
    }

    /// Where a guest first learned of a file that is the same again, if it may have looked
    /// at it once more while it was not, or when it had other times already: it has then
    /// seen two states of it, where a fresh run sees one.
    fn seen_between(
        &self,
        touch: &watch::Touch,
        now: &Current,
        saved: bool,
    ) -> Option<AccessIndex> {
        let path = &touch.path;
        // What is told of others may be the guest's own doing, in or above them.
        if !matches!(now, Current::File { .. } | Current::Link { .. }) {
            return None;
        }
        let again = self.last_access.get(path).and_then(|last| last.again);
        if again < Some(touch.quiet_before) {
            return None;
        }
        let outdated = self.timeline.outdated(path, now);
        let gone = (saved && !self.is_in_pieces(path)).then(|| self.timeline.first_touch(path));
        gone.flatten().or(outdated)
    }

    /// Somebody changed what the guest wrote. That alone is no edit, but a run from
    /// a checkpoint after the write would leave it so, where a fresh run writes.
    fn output_changed(&mut self, path: &Path) {
        let Some(wrote) = self.timeline.wrote_at(path) else {
            return;
        };
        let after: Vec<CheckpointId> = self
            .timeline
            .checkpoints()
            .map(|checkpoint| checkpoint.id)
            .filter(|id| self.timeline.position_of(*id) >= Some(wrote))
            .collect();
        for id in after {
            self.timeline.drop_checkpoint(id);
            self.discard(id);
        }
    }

    /// What is at a path now, as the timeline compares it. Bytes that were kept of it
    /// are compared in any case.
    pub(super) fn look_at(&self, path: &Path, hash: bool) -> Touched {
        let in_pieces = self.is_in_pieces(path);
        let bytes = in_pieces.then(|| bytes_of(path, LARGEST)).flatten();
        let Some((identity, bytes)) = bytes else {
            return Touched {
                path: path.to_owned(),
                now: self.current(path, hash),
                bytes: None,
            };
        };
        let now = match self.current(path, false) {
            Current::File { metadata, .. } => Current::File {
                metadata: timeline::Metadata {
                    identity,
                    ..metadata
                },
                fingerprint: Some(*blake3::hash(&bytes).as_bytes()),
                agrees: self.pieces.agreement(path, &bytes),
            },
            // It has been replaced since.
            other => other,
        };
        Touched {
            path: path.to_owned(),
            now,
            bytes: Some(Arc::from(bytes)),
        }
    }

    pub(super) fn current(&self, path: &Path, hash: bool) -> Current {
        let Ok(metadata) = fs::symlink_metadata(path) else {
            return Current::Missing;
        };
        let found = self.metadata_at(path, &metadata);
        if metadata.is_file() {
            let fingerprint = hash.then(|| fingerprint::of_file(path)).flatten();
            return match fingerprint {
                Some((identity, fingerprint)) => Current::File {
                    metadata: timeline::Metadata {
                        identity: self.identity_at(path, identity),
                        ..found
                    },
                    fingerprint: Some(fingerprint),
                    agrees: None,
                },
                None => Current::File {
                    metadata: found,
                    fingerprint: None,
                    agrees: None,
                },
            };
        }
        if metadata.is_dir() {
            let names = self.timeline.wants_names(path).then(|| self.names_in(path));
            return Current::Folder {
                metadata: found,
                names,
            };
        }
        if metadata.is_symlink() {
            return match fs::read_link(path) {
                Ok(target) => Current::Link {
                    metadata: found,
                    target,
                },
                Err(_) => Current::Missing,
            };
        }
        Current::Other { metadata: found }
    }

    /// Whether a path is as the last undo left it.
    fn is_our_own_doing(&self, path: &Path) -> bool {
        self.restored.get(path).is_some_and(|then| {
            let now = fs::symlink_metadata(path).ok();
            *then == now.map(|metadata| fingerprint::identity(&metadata))
        })
    }

    /// Whether a path is what forkmon itself, or the guest through what it
    /// inherited, writes to all the time: redirected output, the events.
    fn is_written_by_us(&self, path: &Path) -> bool {
        fs::metadata(path).is_ok_and(|found| self.outputs.contains(&(found.dev(), found.ino())))
    }

    /// Whether a path is the very file that the guest saw, times and all, so that
    /// nobody has written to it since.
    fn is_as_recorded(&self, path: &Path) -> bool {
        let now = fs::symlink_metadata(path).ok();
        let seen = self.last_access.get(path).and_then(|last| last.seen);
        seen.is_some() && seen == now.map(|metadata| self.metadata_at(path, &metadata).identity)
    }

    /// The first event of a burst on a path: a guest that has the file open may
    /// read what is there meanwhile, whatever it is in the end. Until that is
    /// known, there is time to get the copy ready that is likely to run next.
    pub(super) fn noticed(&mut self, path: &Path) {
        if self.journal.wrote(path)
            || self.is_under_way(path)
            || self.is_our_own_doing(path)
            || self.is_as_recorded(path)
            || self.is_written_by_us(path)
        {
            return;
        }
        if self.run.is_alive() && !self.is_in_pieces(path) && self.is_open_in_guest(path) {
            self.timeline.spoil(path);
        }
        let touched = self.look_at(path, false);
        let first = match self.timeline.judge(path, &touched.now) {
            Verdict::Contradicted { first, .. } => first,
            Verdict::Unread => self.timeline.end(),
            Verdict::Untouched | Verdict::Unchanged => return,
        };
        if let Some(id) = self.timeline.resume_point(first) {
            self.prepare(id);
        }
    }

    /// Whether any process of the guest has a file open.
    fn is_open_in_guest(&self, path: &Path) -> bool {
        fs::metadata(path).is_ok_and(|found| self.is_file_open_in_guest(found.dev(), found.ino()))
    }

    pub(super) fn is_file_open_in_guest(&self, device: u64, inode: u64) -> bool {
        self.run.processes.keys().any(|process| {
            let Ok(fds) = fs::read_dir(format!("/proc/{process}/fd")) else {
                return false;
            };
            fds.flatten().any(|fd| {
                fs::metadata(fd.path())
                    .is_ok_and(|open| (open.dev(), open.ino()) == (device, inode))
            })
        })
    }

    /// The newest checkpoint before a contradiction whose run can go on with all that
    /// has changed. Those that cannot, because it had read what it gave back later, are
    /// of no use any more.
    fn candidate(&mut self, first: AccessIndex, changes: &[Change]) -> Option<CheckpointId> {
        loop {
            let id = self.timeline.resume_point(first)?;
            let holds = |change: &Change| {
                let Touched { path, now, .. } = &change.touched;
                !self.is_in_pieces(path) || self.timeline.holds_at(id, path, now)
            };
            if changes.iter().all(holds) {
                return Some(id);
            }
            self.timeline.drop_checkpoint(id);
            self.discard(id);
        }
    }

    /// The first access that saw times of a file that has others now and the same bytes.
    fn first_outdated(&mut self) -> Option<AccessIndex> {
        let mut first = None;
        for path in std::mem::take(&mut self.resaved) {
            let outdated = self.timeline.outdated(&path, &self.current(&path, false));
            if outdated.is_some() {
                first = first.into_iter().chain(outdated).min();
                self.resaved.insert(path);
            }
        }
        first
    }

    fn act_on(&mut self, mut edit: Edit) -> anyhow::Result<()> {
        // The earliest contradiction decides, and comes first in what is said.
        edit.changes.sort_by_key(|change| change.first);
        for Change { touched, .. } in &edit.changes {
            self.timeline.mark_hot(&touched.path);
            self.edited_at(&touched.path, &touched.now);
        }
        self.emit(&Event::Change {
            paths: edit
                .changes
                .iter()
                .map(|change| ChangedPath {
                    path: change.touched.path.clone(),
                    kind: change.kind,
                })
                .collect(),
        });
        let changed = edit.changes.iter().map(|change| change.first);
        let Some(first) = changed.chain(self.first_outdated()).min() else {
            return Ok(());
        };
        for path in self.journal.changed_by_others() {
            self.output_changed(&path);
        }
        let candidate = self.candidate(first, &edit.changes);
        self.drop_run(candidate)?;
        if self.is_ending() {
            return Ok(());
        }
        // The names of a folder may have been looked for one by one, too.
        let mut known = HashSet::new();
        let deeds = edit
            .changes
            .iter_mut()
            .flat_map(|change| change.deeds.drain(..));
        let deeds = deeds
            .filter(|(path, _)| known.insert(path.clone()))
            .collect();
        let began = edit.began.unwrap_or_else(Instant::now);
        let decided = edit.changes.first();
        let told = messages::Edit {
            decided: decided.map(|change| change.touched.path.clone()),
            deeds,
        };
        let mut reason = if self.lost_to_effects {
            Reason::Effects
        } else {
            Reason::NoCheckpoint
        };
        let mut candidate = candidate;
        while let Some(id) = candidate {
            match self.resume_and_tell(id, false, &told, Reason::Edit, began) {
                Ok(_) => {
                    for Change { touched, .. } in &edit.changes {
                        self.accept(touched);
                    }
                    return Ok(());
                }
                Err(why) => reason = why,
            }
            self.timeline.drop_checkpoint(id);
            self.discard(id);
            candidate = self.candidate(first, &edit.changes);
        }
        self.restart(&told, reason, began)
    }
}
