//! The tree of physical names: what each name that was looked up is, as far as
//! is known, which folder has which watch, and which paths pass through. It
//! walks paths and keeps the kernel's watches in step with the nodes; what an
//! event means for a path, and when, is left to `state` and `pending`.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{AtFlags, CWD, FileType, StatxAttributes, StatxFlags};
use rustix::io::Errno;

use crate::Error;
use crate::inotify::{Added, Inotify, Wd};

/// As many symbolic links as the kernel follows in one lookup
/// (path_resolution(7)).
const MAX_LINKS: usize = 40;

/// `PATH_MAX` (limits.h). A name that is too long is missing for everybody; a
/// path that is too long in its physical form may still be reached by others.
const MAX_PATH: usize = 4096;

/// A node of the tree. Numbers of removed nodes are used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NodeId(u32);

/// A watched path; `state` hands the numbers out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct PathId(pub(crate) u32);

/// What a name was when it was last looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Not looked at since something above it changed.
    Unknown,
    /// Not there, or not to be seen with this user's permissions.
    Missing,
    /// Anything that is neither a folder nor a symbolic link; `sole` is a
    /// regular file without another name.
    File {
        sole: bool,
    },
    Folder,
    /// A symbolic link and its target.
    Link(Arc<[u8]>),
}

impl Kind {
    /// Whether a walk ends here in any case, so that a change from one such
    /// kind to another leaves all walks as they were.
    pub(crate) fn is_end(&self) -> bool {
        matches!(self, Self::Missing | Self::File { .. })
    }
}

#[derive(Debug)]
pub(crate) struct Node {
    parent: NodeId,
    name: Arc<[u8]>,
    children: HashMap<Arc<[u8]>, NodeId>,
    pub(crate) kind: Kind,
    wd: Option<Wd>,
    /// A folder whose watch is known to be on what the name stands for now.
    settled: bool,
    /// A folder that also needs events of writes to its files.
    content: bool,
    /// A folder that cannot be watched; what is in it is watched itself.
    denied: bool,
    /// The paths noted here.
    pub(crate) paths: Vec<PathId>,
    /// How many of them end here and want the folder's names.
    pub(crate) listings: u32,
}

/// Where a path is noted: at its end, and where it left the straight way down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Walk {
    pub(crate) end: NodeId,
    pub(crate) via: Vec<NodeId>,
}

impl Walk {
    pub(crate) fn new() -> Self {
        Self {
            end: ROOT,
            via: Vec::new(),
        }
    }

    fn leave(&mut self, node: NodeId) {
        if !self.via.contains(&node) {
            self.via.push(node);
        }
    }

    fn nodes(&self) -> impl Iterator<Item = NodeId> {
        self.via.iter().copied().chain([self.end])
    }

    fn contains(&self, node: NodeId) -> bool {
        self.end == node || self.via.contains(&node)
    }
}

#[derive(Debug)]
pub(crate) struct Tree {
    inotify: Arc<Inotify>,
    nodes: Vec<Node>,
    free: Vec<NodeId>,
    /// Which nodes stand for the inode of a watch: one, or several where it is
    /// mounted twice or has several names.
    watches: HashMap<Wd, Vec<NodeId>>,
}

/// The root folder, always there.
pub(crate) const ROOT: NodeId = NodeId(0);

impl Tree {
    pub(crate) fn new(inotify: Arc<Inotify>) -> Self {
        Self {
            inotify,
            nodes: vec![Node::new(ROOT, Arc::from([]), Kind::Folder)],
            free: Vec::new(),
            watches: HashMap::new(),
        }
    }

    pub(crate) fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id.0 as usize]
    }

    pub(crate) fn node_mut(&mut self, id: NodeId) -> &mut Node {
        &mut self.nodes[id.0 as usize]
    }

    /// The nodes that a watch descriptor stands for; none for a watch that was
    /// given up.
    pub(crate) fn watched(&self, wd: Wd) -> &[NodeId] {
        self.watches.get(&wd).map_or(&[], Vec::as_slice)
    }

    pub(crate) fn child(&self, folder: NodeId, name: &[u8]) -> Option<NodeId> {
        self.node(folder).children.get(name).copied()
    }

    /// The inode that a node stands for, if that is watched itself.
    pub(crate) fn inode(&self, id: NodeId) -> Option<Wd> {
        self.node(id).wd
    }

    /// A node and all below it.
    pub(crate) fn subtree(&self, top: NodeId) -> Vec<NodeId> {
        let mut found = vec![top];
        let mut next = 0;
        while let Some(&id) = found.get(next) {
            found.extend(self.node(id).children.values());
            next += 1;
        }
        found
    }

    /// Whether the path whose walk ended here found nothing.
    pub(crate) fn is_missing(&self, id: NodeId) -> bool {
        self.node(id).kind == Kind::Missing
    }

    /// Follows `path` as the kernel would, sets watches on the way, and stores
    /// in `walk` where it went. A path known from before takes no system call,
    /// another one in a known folder one.
    ///
    /// After an error `walk` says how far it came.
    pub(crate) fn walk(&mut self, path: &Path, walk: &mut Walk) -> Result<(), Error> {
        walk.via.clear();
        walk.end = ROOT;
        let result = self.follow(path, walk);
        walk.via.retain(|&node| node != walk.end);
        result
    }

    fn follow(&mut self, path: &Path, walk: &mut Walk) -> Result<(), Error> {
        let mut spliced: Vec<u8>;
        let mut rest = path.as_os_str().as_bytes();
        let mut links = 0;
        let mut folder = ROOT;
        while let Some(name) = next_component(&mut rest) {
            walk.end = folder;
            if !self.watch_folder(folder, false)? {
                return Ok(());
            }
            if name == b".." {
                if folder != ROOT {
                    walk.leave(folder);
                    folder = self.node(folder).parent;
                }
                continue;
            }
            let node = self.child_or_new(folder, name);
            walk.end = node;
            if self.node(node).kind == Kind::Unknown {
                self.look(node)?;
            }
            let last = rest.iter().all(|&byte| byte == b'/');
            if last && self.node(node).kind.is_end() && !self.node(folder).content {
                // Writes between the look and this request were not reported.
                if !self.watch_folder(folder, true)? {
                    walk.end = folder;
                    walk.leave(node);
                    return Ok(());
                }
                self.look(node)?;
            }
            match &self.node(node).kind {
                Kind::Folder => folder = node,
                Kind::Link(target) => {
                    links += 1;
                    if links > MAX_LINKS {
                        return Ok(());
                    }
                    let mut longer = target.to_vec();
                    longer.push(b'/');
                    longer.extend_from_slice(rest);
                    if longer.starts_with(b"/") {
                        folder = ROOT;
                    }
                    spliced = longer;
                    rest = &spliced;
                    walk.leave(node);
                }
                Kind::Missing | Kind::File { .. } | Kind::Unknown => return Ok(()),
            }
        }
        walk.end = folder;
        if folder == ROOT {
            // The root has no parent whose watch would tell of it.
            self.watch_folder(ROOT, false)?;
        }
        Ok(())
    }

    /// Notes a path where `new` says, and no longer where only `old` says;
    /// nodes that nothing needs any more go, with their watches.
    pub(crate) fn renote(&mut self, path: PathId, old: Option<&Walk>, new: Option<&Walk>) {
        for node in new.into_iter().flat_map(Walk::nodes) {
            if !old.is_some_and(|old| old.contains(node)) {
                self.node_mut(node).paths.push(path);
            }
        }
        for node in old.into_iter().flat_map(Walk::nodes) {
            if !new.is_some_and(|new| new.contains(node)) {
                let paths = &mut self.node_mut(node).paths;
                if let Some(at) = paths.iter().rposition(|&other| other == path) {
                    paths.swap_remove(at);
                }
                self.prune(node);
            }
        }
    }

    /// Drops what a walk left behind that was not noted.
    pub(crate) fn abandon(&mut self, walk: &Walk) {
        for node in walk.nodes() {
            self.prune(node);
        }
    }

    /// Makes sure that a folder is watched, and with `content` also writes in
    /// it; false if it turns out to be gone.
    pub(crate) fn watch_folder(&mut self, id: NodeId, content: bool) -> Result<bool, Error> {
        let node = self.node(id);
        if node.kind != Kind::Folder {
            return Ok(false);
        }
        if node.settled && (node.content || !content) {
            return Ok(true);
        }
        let (settled, content) = (node.settled, node.content || content);
        let added = self.inotify.add_folder(&self.path_of(id), content)?;
        self.node_mut(id).content = content;
        match added {
            Added::Watch(wd) => self.hold(id, Some(wd)),
            Added::Denied | Added::Gone => self.hold(id, None),
        }
        let node = self.node_mut(id);
        node.denied = added == Added::Denied;
        node.settled = added != Added::Gone;
        if added == Added::Gone {
            // Its own folder is watched: an event about it is in the queue.
            node.kind = Kind::Missing;
            return Ok(false);
        }
        if !settled {
            // What is in it was looked at before this watch, if at all.
            for child in self.node(id).children.values().copied().collect::<Vec<_>>() {
                self.node_mut(child).kind = Kind::Unknown;
            }
        }
        Ok(true)
    }

    /// Looks at what a name stands for now. Its folder must be watched. An
    /// inode whose changes that watch does not show gets one of its own.
    pub(crate) fn look(&mut self, id: NodeId) -> Result<(), Error> {
        if id == ROOT {
            self.node_mut(ROOT).settled = false;
            return Ok(());
        }
        let node = self.node_mut(id);
        node.settled = false;
        node.denied = false;
        let result = self.look_at(id);
        if result.is_err() {
            self.node_mut(id).kind = Kind::Unknown;
        }
        result
    }

    fn look_at(&mut self, id: NodeId) -> Result<(), Error> {
        let path = self.path_of(id);
        let hidden = self.node(self.node(id).parent).denied;
        let (kind, own) = match stat(&path)? {
            None => (Kind::Missing, false),
            Some(found) => {
                let own = hidden || found.mount;
                match found.kind {
                    FileType::Directory => (Kind::Folder, own),
                    FileType::Symlink => match read_link(&path)? {
                        Some(target) => (Kind::Link(target), hidden),
                        None => (Kind::Missing, false),
                    },
                    FileType::RegularFile => {
                        let sole = found.names == 1;
                        (Kind::File { sole }, own || !sole)
                    }
                    _ => (Kind::File { sole: false }, own || found.names > 1),
                }
            }
        };
        let folder = kind == Kind::Folder;
        let held = self.node(id).wd.is_some();
        self.node_mut(id).kind = kind;
        if folder {
            if held || own {
                self.watch_folder(id, false)?;
            }
        } else if own {
            match self.inotify.add_inode(&path)? {
                Added::Watch(wd) => self.hold(id, Some(wd)),
                Added::Denied | Added::Gone => self.hold(id, None),
            }
        } else {
            self.hold(id, None);
        }
        Ok(())
    }

    /// The kernel dropped a watch (`IN_IGNORED`): its inode or file system is
    /// gone. Returns the nodes that stood for it.
    pub(crate) fn lost(&mut self, wd: Wd) -> Vec<NodeId> {
        let nodes = self.watches.remove(&wd).unwrap_or_default();
        for &id in &nodes {
            let node = self.node_mut(id);
            node.wd = None;
            node.settled = false;
        }
        nodes
    }

    /// Forgets what all names stand for: events were lost. Each is looked at
    /// again when a path is next walked.
    pub(crate) fn doubt_everything(&mut self) {
        for node in &mut self.nodes {
            node.kind = Kind::Unknown;
            node.settled = false;
        }
        self.node_mut(ROOT).kind = Kind::Folder;
    }

    /// How many watches the kernel holds for this tree.
    pub(crate) fn watch_count(&self) -> usize {
        self.watches.len()
    }

    fn path_of(&self, id: NodeId) -> PathBuf {
        let mut names = Vec::new();
        let mut at = id;
        while at != ROOT {
            let node = self.node(at);
            names.push(&node.name);
            at = node.parent;
        }
        let mut path = Vec::with_capacity(names.iter().map(|name| name.len() + 1).sum());
        for name in names.into_iter().rev() {
            path.push(b'/');
            path.extend_from_slice(name);
        }
        if path.is_empty() {
            path.push(b'/');
        }
        PathBuf::from(std::ffi::OsString::from_vec(path))
    }

    fn child_or_new(&mut self, folder: NodeId, name: &[u8]) -> NodeId {
        if let Some(child) = self.child(folder, name) {
            return child;
        }
        let name: Arc<[u8]> = Arc::from(name);
        let node = Node::new(folder, Arc::clone(&name), Kind::Unknown);
        let id = match self.free.pop() {
            Some(id) => {
                *self.node_mut(id) = node;
                id
            }
            None => {
                let id = NodeId(u32::try_from(self.nodes.len()).unwrap_or(u32::MAX));
                self.nodes.push(node);
                id
            }
        };
        self.node_mut(folder).children.insert(name, id);
        id
    }

    /// Makes `wd` the watch of a node, in place of what it had.
    fn hold(&mut self, id: NodeId, wd: Option<Wd>) {
        let old = std::mem::replace(&mut self.node_mut(id).wd, wd);
        if old == wd {
            return;
        }
        if let Some(wd) = wd {
            self.watches.entry(wd).or_default().push(id);
        }
        let Some(old) = old else { return };
        if let Some(nodes) = self.watches.get_mut(&old) {
            nodes.retain(|&node| node != id);
            if nodes.is_empty() {
                self.watches.remove(&old);
                self.inotify.remove(old);
            }
        }
    }

    /// Removes a node that no path needs, and the folders above it that were
    /// there only for it.
    fn prune(&mut self, id: NodeId) {
        let mut at = id;
        while at != ROOT {
            let node = self.node(at);
            let removed = node.parent == at;
            if removed || !node.paths.is_empty() || !node.children.is_empty() {
                return;
            }
            let (parent, name) = (node.parent, Arc::clone(&node.name));
            self.hold(at, None);
            self.node_mut(parent).children.remove(&name);
            // A removed node is its own parent, so that it is not removed twice.
            *self.node_mut(at) = Node::new(at, Arc::from([]), Kind::Unknown);
            self.free.push(at);
            at = parent;
        }
    }
}

impl Node {
    fn new(parent: NodeId, name: Arc<[u8]>, kind: Kind) -> Self {
        Self {
            parent,
            name,
            children: HashMap::new(),
            kind,
            wd: None,
            settled: false,
            content: false,
            denied: false,
            paths: Vec::new(),
            listings: 0,
        }
    }
}

/// Takes the next component that is not empty and not `.` off `rest`.
fn next_component<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    while !rest.is_empty() {
        let end = rest.iter().position(|&byte| byte == b'/');
        let (name, after) = match end {
            Some(end) => (&rest[..end], &rest[end + 1..]),
            None => (*rest, &[][..]),
        };
        *rest = after;
        if !name.is_empty() && name != b"." {
            return Some(name);
        }
    }
    None
}

struct Found {
    kind: FileType,
    names: u32,
    mount: bool,
}

/// What is at `path`, without following a last symbolic link; `None` if it is
/// missing or hidden by permissions.
fn stat(path: &Path) -> Result<Option<Found>, Error> {
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
    let mask = StatxFlags::TYPE | StatxFlags::NLINK;
    loop {
        return match rustix::fs::statx(CWD, path, flags, mask) {
            Ok(found) => Ok(Some(Found {
                kind: FileType::from_raw_mode(u32::from(found.stx_mode)),
                names: found.stx_nlink,
                mount: found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT),
            })),
            Err(Errno::INTR) => continue,
            Err(errno) if is_absence(errno, path) => Ok(None),
            Err(errno) => Err(Error::look("statx", errno, path)),
        };
    }
}

fn read_link(path: &Path) -> Result<Option<Arc<[u8]>>, Error> {
    match rustix::fs::readlinkat(CWD, path, Vec::new()) {
        Ok(target) => Ok(Some(Arc::from(target.as_bytes()))),
        // EINVAL: no symbolic link any more.
        Err(Errno::INVAL) => Ok(None),
        Err(errno) if is_absence(errno, path) => Ok(None),
        Err(errno) => Err(Error::look("readlink", errno, path)),
    }
}

/// Whether an error means that there is nothing to be found at a path, for
/// anybody with our permissions.
fn is_absence(errno: Errno, path: &Path) -> bool {
    match errno {
        Errno::NOENT
        | Errno::NOTDIR
        | Errno::ACCESS
        | Errno::PERM
        | Errno::LOOP
        | Errno::STALE
        | Errno::INVAL => true,
        Errno::NAMETOOLONG => OsStr::len(path.as_os_str()) < MAX_PATH,
        _ => false,
    }
}
