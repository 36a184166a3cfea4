//! What the guest learns from the file system: from a stopped call to a fact on
//! the timeline.

use super::Supervisor;
use super::calls::{At, Learns, Request, decode};
use super::fingerprint::{identity, open_unblocked};
use super::lookup::{Found, Name, folder_of};
use super::run::Pending;
use anyhow::Context as _;
use snapshot::Hazard;
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Instant;
use timeline::{AccessKind, FileKind, Identity, Metadata, Observation};
use tracee::{AddressSpace, RemoteAddr, Stopped, Tid};

/// What an access is after.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub(super) enum Want {
    Content,
    Metadata,
    Link,
    Program,
    Listing,
}

/// When the guest last asked for a path, and what it was when it was recorded.
#[derive(Copy, Clone, Default, Debug)]
pub(super) struct LastAccess {
    pub(super) at: Option<Instant>,
    pub(super) seen: Option<Identity>,
}

fn identity_of(seen: &Observation) -> Option<Identity> {
    match seen {
        Observation::Content { identity } | Observation::Program { identity } => Some(*identity),
        Observation::Metadata(metadata) => Some(metadata.identity),
        _ => None,
    }
}

/// Links that are followed before the kernel gives up (path_resolution(7)).
const MOST_LINKS: u32 = 40;

/// What `stat` says of a file, as the timeline takes it.
pub(super) fn metadata_of(metadata: &fs::Metadata) -> Metadata {
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

impl Supervisor<'_> {
    /// Handles a stop before a system call: records what it tells the guest,
    /// prepares for what it changes, and lets it run.
    pub(super) fn call(&mut self, task: Stopped) -> anyhow::Result<()> {
        let tid = task.tid();
        let process = self.run.process_of(tid).unwrap_or(tid);
        let stop = task.syscall()?;
        let Some(request) = decode(&stop) else {
            return Ok(task.resume(None)?);
        };
        match request {
            Request::Open { at, flags } => self.open(task, process, at, flags),
            Request::OpenHow { at, how } => {
                // `struct open_how` begins with 64 bits of flags. What cannot be
                // read fails in the kernel, too.
                match AddressSpace::of(tid).read_u64(how) {
                    Ok(flags) => self.open(task, process, at, flags as i32),
                    Err(e) if e.is_death() => Err(e.into()),
                    Err(_) => Ok(task.resume(None)?),
                }
            }
            Request::Look {
                at,
                follow,
                empty,
                learns,
            } => self.look(task, process, at, follow, empty, learns),
            Request::List { fd } => self.list(task, process, fd),
            Request::ChangeFolder { to } => {
                if let Some(at) = to
                    && let Some(name) = self.in_scope(tid, process, at)
                {
                    match self.touch(task, &name.path, Want::Metadata, true)? {
                        Some(stopped) => return self.change_folder(stopped),
                        None => return Ok(()),
                    }
                }
                self.change_folder(task)
            }
            Request::Effect { at, kind } => self.effect(task, process, at, kind),
            Request::EffectOnFd { fd, what } => self.effect_on_fd(task, process, fd, what),
            Request::TwoPaths {
                from,
                to,
                rename,
                flags,
            } => self.effect_on_two(task, process, from, to, rename, flags),
            Request::Bind { address, length } => self.bind(task, process, address, length),
            Request::MapShared {
                fd,
                writable,
                anonymous,
            } => {
                if (writable || anonymous || is_open_for_writing(process, fd))
                    && process == self.run.root()
                {
                    self.run.guest.note(Hazard::SharedMappings);
                }
                Ok(task.resume(None)?)
            }
            Request::Note(hazard) => {
                self.note(hazard, process);
                Ok(task.resume(None)?)
            }
            Request::ChangesThread => {
                self.run.guest.forget_thread(tid);
                Ok(task.resume(None)?)
            }
            Request::Identity => {
                // These two are of interest in every run.
                match stop.call as i64 {
                    libc::SYS_set_tid_address => self.run.guest.forget_thread(tid),
                    libc::SYS_timer_create => self.note(Hazard::PosixTimers, process),
                    _ => {}
                }
                Ok(self.identity(task, &stop)?)
            }
        }
    }

    /// Notes what a checkpoint has to know of. What is not seen of any process
    /// of the guest cannot be undone either.
    fn note(&mut self, hazard: Hazard, process: Tid) {
        if process == self.run.root() {
            self.run.guest.note(hazard);
        }
        if hazard.hides_accesses() && !self.run.barred {
            self.run.barred = true;
            self.lose_checkpoints(
                "hidden-accesses",
                "the guest makes system calls of another architecture or changed its root or \
                 namespaces, so that its accesses are not seen: it is restarted, not resumed",
            );
        }
    }

    fn change_folder(&mut self, task: Stopped) -> anyhow::Result<()> {
        self.run.wait_for_answer(task.tid(), Pending::Folder);
        Ok(task.resume_to_syscall()?)
    }

    pub(super) fn find(&mut self, task: Tid, process: Tid, at: At) -> Found {
        let of = self.run.processes.entry(process).or_default();
        self.lookups.find(&self.config.scope, task, process, of, at)
    }

    fn in_scope(&mut self, task: Tid, process: Tid, at: At) -> Option<Rc<Name>> {
        match self.find(task, process, at) {
            Found::Name(name) if name.in_scope => Some(name),
            _ => None,
        }
    }

    fn open(&mut self, task: Stopped, process: Tid, at: At, flags: i32) -> anyhow::Result<()> {
        let Found::Name(name) = self.find(task.tid(), process, at) else {
            return Ok(task.resume(None)?);
        };
        let path_only = flags & libc::O_PATH != 0;
        let unnamed = flags & libc::O_TMPFILE == libc::O_TMPFILE;
        let writes = !path_only
            && !unnamed
            && (flags & libc::O_ACCMODE != libc::O_RDONLY
                || flags & (libc::O_CREAT | libc::O_TRUNC) != 0);
        let follow = flags & libc::O_NOFOLLOW == 0;
        let truncates = flags & libc::O_TRUNC != 0;
        let mut task = task;
        // A file that is cut to nothing tells the guest nothing, unless it must
        // not be there.
        let want = if path_only {
            Some(Want::Metadata)
        } else if truncates && flags & libc::O_EXCL == 0 {
            None
        } else {
            Some(Want::Content)
        };
        if name.in_scope
            && !unnamed
            && let Some(want) = want
        {
            match self.touch(task, &name.path, want, follow)? {
                Some(stopped) => task = stopped,
                None => return Ok(()),
            }
        }
        if name.in_scope && want.is_none() && follow {
            // What is cut to nothing depends on where the links lead.
            match self.touch_links(task, &name.path)? {
                Some(stopped) => task = stopped,
                None => return Ok(()),
            }
        }
        if writes {
            return self.open_for_writing(task, process, &name, flags);
        }
        Ok(task.resume(None)?)
    }

    fn look(
        &mut self,
        task: Stopped,
        process: Tid,
        at: At,
        follow: bool,
        empty: bool,
        learns: Learns,
    ) -> anyhow::Result<()> {
        let tid = task.tid();
        let name = match self.find(tid, process, at) {
            Found::Name(name) => name,
            Found::Empty if empty && learns != Learns::Program => return Ok(task.resume(None)?),
            Found::Empty if learns == Learns::Program => {
                // fexecve: the program is what the fd is open on.
                let link = format!("/proc/{process}/fd/{}", at.folder);
                match fs::read_link(link) {
                    Ok(path) if self.config.scope.contains(&path) => Rc::new(Name {
                        path,
                        in_scope: true,
                    }),
                    _ => return Ok(task.resume(None)?),
                }
            }
            Found::Empty | Found::Unreadable => return Ok(task.resume(None)?),
        };
        if learns == Learns::Program {
            self.free_written(&name.path);
        }
        let want = match learns {
            Learns::Metadata => Want::Metadata,
            Learns::Link => Want::Link,
            Learns::Program => Want::Program,
        };
        if name.in_scope {
            let Some(task) = self.touch(task, &name.path, want, follow)? else {
                return Ok(());
            };
            if want == Want::Program {
                self.interpreter(&name.path)?;
            }
            return Ok(task.resume(None)?);
        }
        if want == Want::Program {
            self.interpreter(&name.path)?;
        }
        Ok(task.resume(None)?)
    }

    /// The kernel also executes the interpreter that a script names.
    fn interpreter(&mut self, script: &Path) -> anyhow::Result<()> {
        if self.config.once {
            return Ok(());
        }
        let mut head = [0; 256];
        let Ok(n) = open_unblocked(script).and_then(|mut file| file.read(&mut head)) else {
            return Ok(());
        };
        let Some(line) = head[..n].strip_prefix(b"#!") else {
            return Ok(());
        };
        let line = line.split(|&b| b == b'\n').next().unwrap_or_default();
        let Some(word) = line.split(u8::is_ascii_whitespace).find(|w| !w.is_empty()) else {
            return Ok(());
        };
        let path = Path::new(std::ffi::OsStr::from_bytes(word));
        if path.is_absolute() && self.config.scope.contains(path) {
            self.observe(path, Want::Program, true)?;
        }
        Ok(())
    }

    fn list(&mut self, task: Stopped, process: Tid, fd: i32) -> anyhow::Result<()> {
        let Ok(folder) = fs::read_link(format!("/proc/{process}/fd/{fd}")) else {
            return Ok(task.resume(None)?);
        };
        if !self.config.scope.may_contain_below(&folder) {
            return Ok(task.resume(None)?);
        }
        match self.touch(task, &folder, Want::Listing, true)? {
            Some(task) => Ok(task.resume(None)?),
            None => Ok(()),
        }
    }

    /// An access of a path in scope, before it happens: takes a checkpoint if one
    /// is due and records the fact. Answers the task, unless it was let go to
    /// stop before the same call again.
    pub(super) fn touch(
        &mut self,
        task: Stopped,
        path: &Path,
        want: Want,
        follow: bool,
    ) -> anyhow::Result<Option<Stopped>> {
        if self.config.once {
            return Ok(Some(task));
        }
        let path = self.final_target(path, follow);
        self.last_access.entry(path.clone()).or_default().at = Some(Instant::now());
        if self.is_known(&path, want) && !(follow && self.is_unfollowed_link(&path)) {
            return Ok(Some(task));
        }
        let mut task = task;
        if !self.timeline.touched(&path) {
            match self.consider_checkpoint(task, &path)? {
                Some(stopped) => task = stopped,
                None => return Ok(None),
            }
        }
        self.observe(&path, want, follow)?;
        Ok(Some(task))
    }

    /// An access of the links on the way to a file, and of nothing else.
    fn touch_links(&mut self, task: Stopped, path: &Path) -> anyhow::Result<Option<Stopped>> {
        let is_link = fs::symlink_metadata(path).is_ok_and(|found| found.is_symlink());
        if !is_link || self.config.once {
            return Ok(Some(task));
        }
        let answer = self.touch(task, path, Want::Link, false)?;
        if answer.is_some()
            && let Ok(target) = fs::canonicalize(path)
        {
            self.links.insert(path.to_owned(), target);
        }
        Ok(answer)
    }

    /// A call that was to make or change a path has failed: what is missing on the
    /// way to it is why, and its creation would change that.
    pub(super) fn observe_missing(&mut self, path: &Path) -> anyhow::Result<()> {
        for missing in path.ancestors() {
            if missing.exists() || !self.config.scope.contains(missing) {
                break;
            }
            self.observe(missing, Want::Metadata, false)?;
        }
        Ok(())
    }

    fn is_known(&self, path: &Path, want: Want) -> bool {
        let kind = match want {
            Want::Content => AccessKind::Content,
            Want::Metadata => AccessKind::Metadata,
            Want::Link => AccessKind::Link,
            Want::Program => AccessKind::Program,
            Want::Listing => AccessKind::Listing,
        };
        // What was missing is known to be so until somebody makes it, which is
        // an edit, or the guest's own doing.
        self.timeline.knows(path, kind)
            || want != Want::Listing && self.timeline.knows(path, AccessKind::Missing)
    }

    /// Whether this is a link that was looked at or made, but not followed yet: what
    /// is known of it says nothing of its target.
    fn is_unfollowed_link(&self, path: &Path) -> bool {
        !self.links.contains_key(path)
            && self.timeline.knows(path, AccessKind::Link)
            && fs::symlink_metadata(path).is_ok_and(|found| found.is_symlink())
    }

    /// Where the links that are known lead.
    pub(super) fn final_target(&self, path: &Path, follow: bool) -> PathBuf {
        let mut path = path;
        if follow {
            for _ in 0..MOST_LINKS {
                match self.links.get(path) {
                    Some(target) => path = target,
                    None => break,
                }
            }
        }
        path.to_owned()
    }

    /// Records what the guest is about to see: watch first, look afterwards, so
    /// that a change in between is not lost.
    pub(super) fn observe(&mut self, path: &Path, want: Want, follow: bool) -> anyhow::Result<()> {
        let mut path = path.to_owned();
        for _ in 0..MOST_LINKS {
            if let Some(watcher) = &self.watcher {
                let watched = if want == Want::Listing {
                    watcher.watch_listing(&path)
                } else {
                    watcher.watch(&path)
                };
                watched.with_context(|| format!("cannot watch {}", path.display()))?;
            }
            let Ok(metadata) = fs::symlink_metadata(&path) else {
                self.record(&path, Observation::Missing);
                return Ok(());
            };
            if !metadata.is_symlink() {
                let seen = self.see(&path, &metadata, want);
                self.record(&path, seen);
                return Ok(());
            }
            let Ok(target) = fs::read_link(&path) else {
                self.record(&path, Observation::Missing);
                return Ok(());
            };
            self.record(&path, Observation::Link(target.clone()));
            if want == Want::Metadata && !follow {
                self.record(&path, Observation::Metadata(metadata_of(&metadata)));
            }
            if !follow {
                return Ok(());
            }
            let folder = path.parent().unwrap_or(Path::new("/"));
            let next = super::lookup::normalise(Some(folder), &target);
            self.links.insert(path, next.clone());
            path = next;
        }
        Ok(())
    }

    fn see(&self, path: &Path, metadata: &fs::Metadata, want: Want) -> Observation {
        match want {
            Want::Content if metadata.is_file() => Observation::Content {
                identity: identity(metadata),
            },
            Want::Program if metadata.is_file() => Observation::Program {
                identity: identity(metadata),
            },
            Want::Listing if metadata.is_dir() => Observation::Listing(self.names_in(path)),
            _ => Observation::Metadata(metadata_of(metadata)),
        }
    }

    /// The names of a folder that are in scope.
    pub(super) fn names_in(&self, folder: &Path) -> BTreeSet<OsString> {
        let Ok(entries) = fs::read_dir(folder) else {
            return BTreeSet::new();
        };
        entries
            .flatten()
            .map(|entry| entry.file_name())
            .filter(|name| self.config.scope.contains_name_in_listing(folder, name))
            .collect()
    }

    fn record(&mut self, path: &Path, seen: Observation) {
        // That a file can be opened or executed tells of its mode.
        let by_mode = matches!(
            seen,
            Observation::Content { .. } | Observation::Program { .. }
        );
        let mode = by_mode.then(|| fs::symlink_metadata(path).ok()).flatten();
        if let Some(metadata) = identity_of(&seen) {
            self.last_access.entry(path.to_owned()).or_default().seen = Some(metadata);
        }
        self.timeline.record(path, seen);
        if let Some(metadata) = mode {
            self.timeline
                .record(path, Observation::Metadata(metadata_of(&metadata)));
        }
        if self.timeline.needs_fingerprint(path) {
            self.hasher.ask(path);
        }
    }

    /// Takes in the hashes that are ready.
    pub(super) fn collect_fingerprints(&mut self) {
        for (path, identity, fingerprint) in self.hasher.done() {
            self.timeline.set_fingerprint(&path, &identity, fingerprint);
        }
    }

    /// The working folder of a process.
    pub(super) fn folder(&mut self, process: Tid) -> Option<Rc<Path>> {
        folder_of(process, self.run.processes.entry(process).or_default())
    }

    /// The address of a Unix socket that is bound to a path.
    pub(super) fn socket_path(
        &mut self,
        task: Tid,
        process: Tid,
        address: RemoteAddr,
        length: u64,
    ) -> Option<PathBuf> {
        let mut bytes = vec![
            0;
            usize::try_from(length)
                .ok()?
                .min(size_of::<libc::sockaddr_un>())
        ];
        AddressSpace::of(task).read(address, &mut bytes).ok()?;
        let family = u16::from_ne_bytes([*bytes.first()?, *bytes.get(1)?]);
        let path = bytes.get(2..)?.split(|&b| b == 0).next()?;
        if i32::from(family) != libc::AF_UNIX || path.is_empty() {
            return None;
        }
        let folder = self.folder(process)?;
        Some(folder.join(std::ffi::OsStr::from_bytes(path)))
    }
}

fn is_open_for_writing(process: Tid, fd: i32) -> bool {
    let Ok(info) = fs::read_to_string(format!("/proc/{process}/fdinfo/{fd}")) else {
        return true;
    };
    info.lines()
        .find_map(|line| line.strip_prefix("flags:"))
        .and_then(|flags| i32::from_str_radix(flags.trim(), 8).ok())
        .is_none_or(|flags| flags & libc::O_ACCMODE != libc::O_RDONLY)
}
