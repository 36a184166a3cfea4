//! The watched paths and what happened to them: joins the tree of names, the
//! pending touches and the paths. One value of it stands behind the lock; the
//! reader thread feeds it events, the watching thread paths. It never calls
//! back.

use std::collections::{HashMap, VecDeque};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use rustix::fs::inotify::ReadFlags;

use crate::Error;
use crate::inotify::{Inotify, Wd};
use crate::pending::{Batch, Item, Options, Pending, Sign, Touch, Writer, plan};
use crate::tree::{Kind, NodeId, PathId, Tree, Walk};

/// The name itself, or what it stands for, was exchanged.
const EXCHANGED: ReadFlags = ReadFlags::CREATE
    .union(ReadFlags::DELETE)
    .union(ReadFlags::MOVED_FROM)
    .union(ReadFlags::MOVED_TO)
    .union(ReadFlags::DELETE_SELF)
    .union(ReadFlags::MOVE_SELF)
    .union(ReadFlags::UNMOUNT)
    .union(ReadFlags::IGNORED);

/// A name in a folder came or went.
const NAMES: ReadFlags = ReadFlags::CREATE
    .union(ReadFlags::DELETE)
    .union(ReadFlags::MOVED_FROM)
    .union(ReadFlags::MOVED_TO);

/// What a number of events amounted to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Heard {
    Nothing,
    /// Events on other names, and more writes to files already being written.
    Noise,
    /// A burst has begun on a path, or a file was closed or exchanged.
    News,
}

#[derive(Debug)]
struct Entry {
    path: Arc<Path>,
    walk: Walk,
    listing: bool,
    /// In the queue of paths to be walked again.
    queued: bool,
    /// The last walk failed, so a watch is missing.
    broken: bool,
}

#[derive(Debug)]
pub(crate) struct State {
    options: Options,
    tree: Tree,
    paths: Vec<Option<Entry>>,
    free: Vec<PathId>,
    by_path: HashMap<Arc<Path>, PathId>,
    pending: HashMap<PathId, Pending>,
    /// Paths to walk again, since a folder or link on them changed.
    stale: VecDeque<PathId>,
    rescan: Option<Pending>,
    error: Option<Error>,
    /// The latest instant at which the queue is known to have been empty.
    drained_at: Instant,
    /// No path is due before this.
    next_plan: Option<Instant>,
    /// What has come in since this was last asked.
    heard: Heard,
    /// Paths on which a burst has begun; kept only if somebody asks.
    noticed: Option<Vec<Arc<Path>>>,
    /// Kept from event to event, so that an event allocates nothing.
    hits: Vec<NodeId>,
    listed: Vec<NodeId>,
}

impl State {
    pub(crate) fn new(options: Options, inotify: Arc<Inotify>, notice: bool) -> Self {
        Self {
            options: options.bounded(),
            tree: Tree::new(inotify),
            paths: Vec::new(),
            free: Vec::new(),
            by_path: HashMap::new(),
            pending: HashMap::new(),
            stale: VecDeque::new(),
            rescan: None,
            error: None,
            drained_at: Instant::now(),
            next_plan: None,
            heard: Heard::Nothing,
            noticed: notice.then(Vec::new),
            hits: Vec::new(),
            listed: Vec::new(),
        }
    }

    /// Watches a path, and with `listing` the names in the folder that it
    /// leads to.
    pub(crate) fn watch(&mut self, path: &Path, listing: bool) -> Result<(), Error> {
        if let Some(&id) = self.by_path.get(path) {
            let known = self
                .entry(id)
                .is_some_and(|entry| !entry.broken && (entry.listing || !listing));
            if known {
                return Ok(());
            }
            return self.walk_again(id, listing);
        }
        if !path.is_absolute() {
            return Err(Error::NotAbsolute {
                path: path.to_owned(),
            });
        }
        let mut walk = Walk::new();
        let mut result = self.tree.walk(path, &mut walk);
        if listing && result.is_ok() {
            result = self.tree.watch_folder(walk.end, false).map(drop);
        }
        if let Err(error) = result {
            self.tree.abandon(&walk);
            return Err(error);
        }
        let path: Arc<Path> = Arc::from(path);
        let id = self.free.pop().unwrap_or_else(|| {
            self.paths.push(None);
            PathId(u32::try_from(self.paths.len() - 1).unwrap_or(u32::MAX))
        });
        self.tree.renote(id, None, Some(&walk));
        if listing {
            self.tree.node_mut(walk.end).listings += 1;
        }
        self.paths[id.0 as usize] = Some(Entry {
            path: Arc::clone(&path),
            walk,
            listing,
            queued: false,
            broken: false,
        });
        self.by_path.insert(path, id);
        Ok(())
    }

    /// The paths that are watched now.
    pub(crate) fn watched_paths(&self) -> Vec<Arc<Path>> {
        self.by_path.keys().cloned().collect()
    }

    /// How many watches the kernel holds.
    pub(crate) fn watch_count(&self) -> usize {
        self.tree.watch_count()
    }

    /// No longer watches a path; a touch of it that is pending is dropped.
    pub(crate) fn forget(&mut self, path: &Path) {
        let Some(id) = self.by_path.remove(path) else {
            return;
        };
        let Some(entry) = self.paths[id.0 as usize].take() else {
            return;
        };
        if entry.listing {
            self.tree.node_mut(entry.walk.end).listings -= 1;
        }
        self.tree.renote(id, Some(&entry.walk), None);
        self.pending.remove(&id);
        self.free.push(id);
    }

    /// Notes that the queue was empty at `when`.
    pub(crate) fn drained(&mut self, when: Instant) {
        self.drained_at = self.drained_at.max(when);
    }

    pub(crate) fn drained_at(&self) -> Instant {
        self.drained_at
    }

    /// Takes in one event that was read at `now`.
    pub(crate) fn event(&mut self, wd: Wd, mask: ReadFlags, name: Option<&[u8]>, now: Instant) {
        if mask.contains(ReadFlags::QUEUE_OVERFLOW) {
            self.overflow(now);
            return;
        }
        if self.heard == Heard::Nothing {
            self.heard = Heard::Noise;
        }
        let mut hits = std::mem::take(&mut self.hits);
        let mut listed = std::mem::take(&mut self.listed);
        match name {
            _ if mask.contains(ReadFlags::IGNORED) => hits.extend(self.tree.lost(wd)),
            None => hits.extend_from_slice(self.tree.watched(wd)),
            Some(name) => {
                for &folder in self.tree.watched(wd) {
                    hits.extend(self.tree.child(folder, name));
                    if mask.intersects(NAMES) && self.tree.node(folder).listings > 0 {
                        listed.push(folder);
                    }
                }
            }
        }
        for node in hits.drain(..) {
            self.happened(node, mask, now);
        }
        for folder in listed.drain(..) {
            for path in self.tree.node(folder).paths.clone() {
                let lists = self
                    .entry(path)
                    .is_some_and(|entry| entry.listing && entry.walk.end == folder);
                if lists {
                    self.touch(path, Sign::Listing, now);
                }
            }
        }
        self.hits = hits;
        self.listed = listed;
    }

    /// Walks up to `limit` paths again whose way changed; true if there are
    /// more.
    pub(crate) fn refresh(&mut self, limit: usize) -> bool {
        for _ in 0..limit {
            let Some(id) = self.stale.pop_front() else {
                return false;
            };
            let Some(Some(entry)) = self.paths.get_mut(id.0 as usize) else {
                continue;
            };
            if !std::mem::take(&mut entry.queued) {
                continue;
            }
            if let Err(error) = self.walk_again(id, false) {
                self.fail(error);
            }
        }
        !self.stale.is_empty()
    }

    /// Keeps an error for the next batch.
    pub(crate) fn fail(&mut self, error: Error) {
        self.error.get_or_insert(error);
        self.plan_by(Instant::now());
    }

    /// The paths on which a burst has begun since the last call.
    pub(crate) fn take_noticed(&mut self) -> Vec<Arc<Path>> {
        self.noticed
            .as_mut()
            .map(std::mem::take)
            .unwrap_or_default()
    }

    /// What has come in since the last call.
    pub(crate) fn take_heard(&mut self) -> Heard {
        std::mem::replace(&mut self.heard, Heard::Nothing)
    }

    /// Until when nothing will be due, unless an event comes.
    pub(crate) fn next_plan(&self) -> Option<Instant> {
        self.next_plan
    }

    /// When the first event was read of what is still to be delivered.
    pub(crate) fn oldest_pending(&self) -> Option<Instant> {
        let pending = self.pending.values().chain(&self.rescan);
        pending.map(|pending| pending.first_seen).min()
    }

    /// What is to be delivered at `now`, if anything.
    pub(crate) fn take_due(&mut self, now: Instant) -> Option<Batch> {
        if self.next_plan.is_none_or(|at| at > now) {
            return None;
        }
        let mut items: Vec<Item<Option<PathId>>> = self
            .pending
            .iter()
            .map(|(&id, pending)| {
                let missing = self
                    .entry(id)
                    .is_some_and(|entry| self.tree.is_missing(entry.walk.end));
                Item {
                    id: Some(id),
                    ready_at: pending.ready_at(&self.options, missing),
                    held: pending.writer != Writer::None,
                }
            })
            .collect();
        items.extend(self.rescan.map(|rescan| Item {
            id: None,
            ready_at: rescan.ready_at(&self.options, false),
            held: false,
        }));
        let planned = plan(&items, now);
        self.next_plan = planned.next;
        let mut batch = Batch {
            touches: Vec::with_capacity(planned.due.len()),
            rescan: false,
            error: self.error.take(),
        };
        for id in planned.due {
            let Some(id) = id else {
                self.rescan = None;
                batch.rescan = true;
                continue;
            };
            let Some(pending) = self.pending.remove(&id) else {
                continue;
            };
            if let Some(entry) = self.entry(id) {
                batch.touches.push(Touch {
                    path: entry.path.to_path_buf(),
                    first_seen: pending.first_seen,
                    quiet_before: pending.quiet_before,
                    strong: pending.strong,
                });
            }
        }
        batch
            .touches
            .sort_by(|a, b| (a.first_seen, &a.path).cmp(&(b.first_seen, &b.path)));
        let empty = batch.touches.is_empty() && !batch.rescan && batch.error.is_none();
        (!empty).then_some(batch)
    }

    fn entry(&self, id: PathId) -> Option<&Entry> {
        self.paths.get(id.0 as usize)?.as_ref()
    }

    /// An event on a name, or on the inode behind it.
    fn happened(&mut self, node: NodeId, mask: ReadFlags, now: Instant) {
        let exchanged = mask.intersects(EXCHANGED);
        if !exchanged {
            let sign = if mask.contains(ReadFlags::CLOSE_WRITE) {
                Sign::Closed
            } else if mask.contains(ReadFlags::MODIFY) {
                Sign::Written
            } else {
                Sign::Attributes
            };
            let plain = match self.tree.node(node).kind {
                // A watched inode may have lost its name to another one.
                Kind::File { .. } | Kind::Link(_) => self.tree.inode(node).is_none(),
                // New permissions of a folder may show or hide what is in it.
                _ => false,
            };
            if sign != Sign::Attributes || plain {
                self.touch_all(&[node], sign, now);
                return;
            }
        }
        let inode = self.tree.inode(node);
        let ended = self.tree.node(node).kind.is_end();
        if let Err(error) = self.tree.look(node) {
            self.fail(error);
        }
        let kind = &self.tree.node(node).kind;
        let ends = ended && kind.is_end();
        let sign = if !exchanged && self.tree.inode(node) == inode {
            Sign::Attributes
        } else if mask.contains(ReadFlags::CREATE)
            && matches!(kind, Kind::Folder | Kind::File { sole: true })
        {
            Sign::Created
        } else {
            Sign::Placed
        };
        if ends {
            self.touch_all(&[node], sign, now);
            return;
        }
        let below = self.tree.subtree(node);
        for path in self.touch_all(&below, sign, now) {
            self.mark_stale(path);
        }
    }

    fn touch_all(&mut self, nodes: &[NodeId], sign: Sign, now: Instant) -> Vec<PathId> {
        let mut paths: Vec<PathId> = Vec::new();
        for &node in nodes {
            paths.extend_from_slice(&self.tree.node(node).paths);
        }
        for &path in &paths {
            self.touch(path, sign, now);
        }
        paths
    }

    fn touch(&mut self, id: PathId, sign: Sign, now: Instant) {
        let quiet_before = self.drained_at;
        let pending = self.pending.entry(id).or_insert_with(|| {
            self.heard = Heard::News;
            if let Some(noticed) = &mut self.noticed
                && let Some(Some(entry)) = self.paths.get(id.0 as usize)
            {
                noticed.push(Arc::clone(&entry.path));
            }
            Pending::new(now, quiet_before)
        });
        if sign != Sign::Written {
            self.heard = Heard::News;
        }
        pending.add(sign, now);
        self.plan_by(now + self.options.settle);
    }

    fn plan_by(&mut self, at: Instant) {
        self.next_plan = Some(self.next_plan.map_or(at, |next| next.min(at)));
    }

    fn mark_stale(&mut self, id: PathId) {
        if let Some(Some(entry)) = self.paths.get_mut(id.0 as usize)
            && !std::mem::replace(&mut entry.queued, true)
        {
            self.stale.push_back(id);
        }
    }

    fn overflow(&mut self, now: Instant) {
        let quiet_before = self.drained_at;
        self.rescan
            .get_or_insert_with(|| Pending::new(now, quiet_before))
            .add(Sign::Placed, now);
        self.plan_by(now + self.options.settle);
        self.tree.doubt_everything();
        for index in 0..self.paths.len() {
            if let Ok(index) = u32::try_from(index) {
                self.mark_stale(PathId(index));
            }
        }
    }

    /// Walks a path again and notes where it goes now.
    fn walk_again(&mut self, id: PathId, list: bool) -> Result<(), Error> {
        let Some(Some(entry)) = self.paths.get(id.0 as usize) else {
            return Ok(());
        };
        let path = Arc::clone(&entry.path);
        let listing = entry.listing || list;
        let mut walk = Walk::new();
        let mut result = self.tree.walk(&path, &mut walk);
        if listing && result.is_ok() {
            result = self.tree.watch_folder(walk.end, false).map(drop);
        }
        let Some(Some(entry)) = self.paths.get_mut(id.0 as usize) else {
            return result;
        };
        entry.broken = result.is_err();
        let listed = std::mem::replace(&mut entry.listing, listing);
        let old = std::mem::replace(&mut entry.walk, walk);
        if listed {
            self.tree.node_mut(old.end).listings -= 1;
        }
        if listing {
            self.tree.node_mut(entry.walk.end).listings += 1;
        }
        self.tree.renote(id, Some(&old), Some(&entry.walk));
        // Only a plain file with one name may be in the middle of being written.
        let plain = self.tree.node(entry.walk.end).kind == (Kind::File { sole: true });
        if let Some(pending) = self.pending.get_mut(&id)
            && pending.writer == Writer::Presumed
            && !plain
        {
            pending.writer = Writer::None;
        }
        result
    }
}
