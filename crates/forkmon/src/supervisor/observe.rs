//! Facts: what a path is when the guest is about to see it, put on the timeline.
//!
//! Which call asks for which path is `access`' concern. Here each name on the way is
//! watched, looked at and recorded, with a checkpoint before it if one is due.

use super::Supervisor;
use super::checkpoint::Due;
use super::fingerprint::identity;
use super::lookup::Name;
use super::walk::Met;
use anyhow::Context as _;
use journal::OwnAttributes;
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Instant;
use timeline::{AccessKind, FileKind, Identity, Metadata, Observation};
use tracee::Stopped;

/// What an access is after.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub(super) enum Want {
    Content,
    Presence,
    Metadata,
    Link,
    Program,
    Listing,
}

impl Want {
    fn kind(self) -> AccessKind {
        match self {
            Want::Content => AccessKind::Content,
            Want::Presence => AccessKind::Presence,
            Want::Metadata => AccessKind::Metadata,
            Want::Link => AccessKind::Link,
            Want::Program => AccessKind::Program,
            Want::Listing => AccessKind::Listing,
        }
    }
}

/// When the guest last asked for a path, and what it was when it was recorded.
#[derive(Copy, Clone, Default, Debug)]
pub(super) struct LastAccess {
    pub(super) at: Option<Instant>,
    /// When its last look at a file that it had seen before was over.
    pub(super) again: Option<Instant>,
    pub(super) seen: Option<Identity>,
}

fn identity_of(seen: &Observation) -> Option<Identity> {
    match seen {
        Observation::Content { identity } | Observation::Program { identity } => Some(*identity),
        Observation::Metadata(metadata) => Some(metadata.identity),
        _ => None,
    }
}

/// What `stat` says of a file, as the timeline takes it.
fn metadata_of(metadata: &fs::Metadata) -> Metadata {
    let kind = metadata.file_type();
    Metadata {
        kind: if kind.is_file() {
            FileKind::Regular
        } else if kind.is_dir() {
            FileKind::Folder
        } else if kind.is_symlink() {
            FileKind::Link
        } else {
            FileKind::Other
        },
        mode: metadata.mode(),
        identity: identity(metadata),
    }
}

/// The bits of a mode that can be changed.
const MODE_BITS: u32 = 0o7777;

fn without(own: &OwnAttributes, mut identity: Identity) -> Identity {
    if identity.mtime_ns == own.after.modified_ns {
        identity.mtime_ns = own.before.modified_ns;
    }
    if identity.ctime_ns == own.after.changed_ns {
        identity.ctime_ns = own.before.changed_ns;
    }
    identity
}

impl Supervisor<'_> {
    /// A lookup, before it happens: takes a checkpoint if one is due and records the
    /// facts, those of the way before that of the file. Answers the task, unless it
    /// was let go to stop before the same call again.
    pub(super) fn touch(
        &mut self,
        task: Stopped,
        name: &Name,
        want: Option<Want>,
    ) -> anyhow::Result<Option<Stopped>> {
        if self.config.once {
            return Ok(Some(task));
        }
        let mut task = task;
        for met in &name.met {
            let (at, want) = match met {
                Met::Link { at, .. } => (at, Want::Link),
                Met::Left { at } => (at, Want::Metadata),
            };
            let known = self.is_known(at, want, false);
            match self.touch_path(task, at, want)? {
                Some(stopped) => task = stopped,
                None => return Ok(None),
            }
            if let Met::Link { at, target } = met
                && !known
                && fs::read_link(at).ok().as_ref() != Some(target)
            {
                self.overtaken(at, target);
            }
        }
        if !name.in_scope {
            return Ok(Some(task));
        }
        if !name.is_reached() {
            return self.touch_path(task, name.path(), Want::Metadata);
        }
        match want {
            Some(want) => self.touch_path(task, name.path(), want),
            None => Ok(Some(task)),
        }
    }

    /// The same for a path that has no links on its way.
    pub(super) fn touch_path(
        &mut self,
        task: Stopped,
        path: &Path,
        want: Want,
    ) -> anyhow::Result<Option<Stopped>> {
        if self.config.once {
            return Ok(Some(task));
        }
        self.asked_for(path);
        let by_first = self.run.process_of(task.tid()) == Some(self.run.root());
        let before_reading = by_first && self.looks_before_reading();
        if self.is_known(path, want, before_reading) {
            return Ok(Some(task));
        }
        let mut task = task;
        let due = if !self.timeline.touched(path) {
            Some(Due::Touched)
        } else {
            (before_reading && want == Want::Content).then_some(Due::Read)
        };
        if let Some(due) = due {
            match self.consider_checkpoint(task, path, due)? {
                Some(stopped) => task = stopped,
                None => return Ok(None),
            }
        }
        self.observe_by(path, want, before_reading)?;
        Ok(Some(task))
    }

    /// Notes that the guest has asked for a path just now.
    pub(super) fn asked_for(&mut self, path: &Path) {
        let now = Some(Instant::now());
        match self.last_access.get_mut(path) {
            Some(last) => last.at = now,
            None => {
                let last = LastAccess {
                    at: now,
                    ..LastAccess::default()
                };
                self.last_access.insert(path.to_owned(), last);
            }
        }
    }

    /// Whether a look at a path is to be followed to its end: the guest has seen the file
    /// there before, and must not see another state of it now.
    pub(super) fn looks_again(&self, path: &Path, want: Want) -> bool {
        matches!(want, Want::Metadata | Want::Presence)
            && !self.config.once
            && self.timeline.knows_file(path)
    }

    /// The guest has looked once more at a file that it had seen before. If that was saved
    /// with the same bytes since, it has now seen two times of it.
    pub(super) fn looked_again(&mut self, path: &Path) {
        let now = Instant::now();
        self.last_access.entry(path.to_owned()).or_default().again = Some(now);
        if !self.resaved.contains(path) {
            return;
        }
        let there = self.current(path, false);
        if self.timeline.outdated(path, &there).is_some() {
            self.judge_later(path, false, now);
        } else {
            self.resaved.remove(path);
        }
    }

    fn is_known(&self, path: &Path, want: Want, before_reading: bool) -> bool {
        let by_metadata = match want {
            Want::Presence => self.timeline.knows_before_reading(path),
            Want::Metadata => before_reading && self.timeline.knows_before_reading(path),
            _ => false,
        };
        if by_metadata {
            return true;
        }
        // What was missing is known to be so until somebody makes it, which is
        // an edit, or the guest's own doing.
        self.timeline.knows(path, want.kind())
            || want != Want::Listing && self.timeline.knows(path, AccessKind::Missing)
    }

    /// Records what the guest is about to see: watch first, look afterwards, so
    /// that a change in between is not lost.
    pub(super) fn observe(&mut self, path: &Path, want: Want) -> anyhow::Result<()> {
        self.observe_by(path, want, false)
    }

    /// The same; `before_reading` as [`Timeline::record_before_reading`] has it.
    ///
    /// [`Timeline::record_before_reading`]: timeline::Timeline::record_before_reading
    fn observe_by(&mut self, path: &Path, want: Want, before_reading: bool) -> anyhow::Result<()> {
        if let Some(watcher) = &self.watcher {
            let watched = if want == Want::Listing {
                watcher.watch_listing(path)
            } else {
                watcher.watch(path)
            };
            watched.with_context(|| format!("cannot watch {}", path.display()))?;
        }
        let Ok(metadata) = fs::symlink_metadata(path) else {
            self.record(path, Observation::Missing, false);
            return Ok(());
        };
        if !metadata.is_symlink() {
            let seen = self.see(path, &metadata, want);
            self.record(path, seen, before_reading);
            return Ok(());
        }
        let Ok(target) = fs::read_link(path) else {
            self.record(path, Observation::Missing, false);
            return Ok(());
        };
        self.record(path, Observation::Link(target), false);
        if want == Want::Metadata {
            let seen = Observation::Metadata(self.metadata_at(path, &metadata));
            self.record(path, seen, false);
        }
        Ok(())
    }

    /// Somebody gave a link another target between its being read and its being
    /// watched: where the guest gets to is not what was looked up. That is judged
    /// like an edit that comes now.
    fn overtaken(&mut self, link: &Path, target: &Path) {
        self.timeline
            .record(link, Observation::Link(target.to_owned()));
        self.judge_later(link, true, Instant::now());
    }

    /// Has a path judged, when this stop is handled, as if an event came for it.
    fn judge_later(&mut self, path: &Path, strong: bool, now: Instant) {
        self.later.push(watch::Batch {
            touches: vec![watch::Touch {
                path: path.to_owned(),
                first_seen: now,
                quiet_before: now,
                strong,
            }],
            ..watch::Batch::default()
        });
        self.rung_meanwhile = true;
    }

    /// What `stat` says of a file, but for what the guest itself has done to its mode and
    /// times: a fresh run finds those as they were, and does the same to them.
    pub(super) fn metadata_at(&self, path: &Path, metadata: &fs::Metadata) -> Metadata {
        let mut found = metadata_of(metadata);
        if let Some(own) = self.journal.own_attributes(path) {
            let (before, after) = (own.before, own.after);
            if found.mode & MODE_BITS == after.mode {
                found.mode = found.mode & !MODE_BITS | before.mode;
            }
            found.identity = without(&own, found.identity);
        }
        found
    }

    /// What somebody learns of a file who can use it.
    fn presence_at(&self, path: &Path, metadata: &fs::Metadata) -> Observation {
        let Metadata { kind, mode, .. } = self.metadata_at(path, metadata);
        Observation::Presence { kind, mode }
    }

    /// The same of a file's identity.
    pub(super) fn identity_at(&self, path: &Path, identity: Identity) -> Identity {
        match self.journal.own_attributes(path) {
            Some(own) => without(&own, identity),
            None => identity,
        }
    }

    fn see(&self, path: &Path, metadata: &fs::Metadata, want: Want) -> Observation {
        match want {
            Want::Content if metadata.is_file() => Observation::Content {
                identity: self.metadata_at(path, metadata).identity,
            },
            Want::Program if metadata.is_file() => Observation::Program {
                identity: self.metadata_at(path, metadata).identity,
            },
            Want::Listing if metadata.is_dir() => Observation::Listing(self.names_in(path)),
            Want::Presence => self.presence_at(path, metadata),
            _ => Observation::Metadata(self.metadata_at(path, metadata)),
        }
    }

    /// The names of a folder that are in scope.
    pub(super) fn names_in(&self, folder: &Path) -> BTreeSet<OsString> {
        let Ok(entries) = fs::read_dir(folder) else {
            return BTreeSet::new();
        };
        let known_as = self.lookups.name_in_scope(folder).unwrap_or(folder);
        entries
            .flatten()
            .map(|entry| entry.file_name())
            .filter(|name| self.config.scope.contains_name_in_listing(known_as, name))
            .collect()
    }

    fn record(&mut self, path: &Path, seen: Observation, before_reading: bool) {
        // That a file can be opened or executed tells of its mode.
        let by_mode = matches!(
            seen,
            Observation::Content { .. } | Observation::Program { .. }
        );
        let mode = by_mode.then(|| fs::symlink_metadata(path).ok()).flatten();
        if let Some(identity) = identity_of(&seen) {
            self.last_access.entry(path.to_owned()).or_default().seen = Some(identity);
        }
        if before_reading {
            self.timeline.record_before_reading(path, seen);
        } else {
            self.timeline.record(path, seen);
        }
        if let Some(metadata) = mode {
            let seen = self.presence_at(path, &metadata);
            self.timeline.record(path, seen);
        }
        if self.timeline.needs_fingerprint(path) {
            self.hasher.ask(path);
        }
    }

    /// A call that was to make or change a path has failed: what is there, or
    /// missing on the way to it, is why, and a change of that would change it.
    pub(super) fn observe_failure(&mut self, path: &Path) -> anyhow::Result<()> {
        for on_the_way in path.ancestors() {
            if !self.config.scope.contains(on_the_way) {
                break;
            }
            self.observe(on_the_way, Want::Metadata)?;
            if on_the_way.symlink_metadata().is_ok() {
                break;
            }
        }
        Ok(())
    }

    /// Takes in the hashes that are ready.
    pub(super) fn collect_fingerprints(&mut self) {
        for (path, identity, fingerprint) in self.hasher.done() {
            let identity = self.identity_at(&path, identity);
            self.timeline.set_fingerprint(&path, &identity, fingerprint);
        }
    }
}
