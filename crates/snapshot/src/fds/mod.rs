//! The open files of a process.
//!
//! fork shares the open file descriptions, and the live run moves them on. What
//! nobody can see the end of is left open in the image and reset on resume: an
//! offset, flags, a counter. What a peer would wait for the end of, such as a
//! pipe or a socket, is closed in the image and made anew on resume, with what
//! was in it. What can be neither is a refusal.

mod epoll;
mod event;
mod fifo;
mod fresh;
mod inotify;
mod lock;
mod nameless;
mod owner;
mod pipe;
mod pty;
mod reopen;
mod signal;
mod socket;
mod source;
mod terminal;

pub use socket::OnConnection;

use crate::procfs::{self, FdInfo};
use crate::{Guest, Refusal};
use epoll::{Candidate, Candidates, Epoll, Kind};
use event::{EventCounter, TimerFd};
use fifo::Fifo;
use fresh::{Fresh, close, set_flags};
use inotify::{Found, Inotify};
pub(crate) use lock::{Lock, parse_lock};
use lock::{Locked, Locks};
pub(crate) use nameless::NamelessFile;
use owner::Owner;
use pipe::Pipe;
use pty::Pty;
use signal::{OwnPidFd, SignalFd, Whom};
use socket::{Rebound, Sockets};
use source::Source;
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use terminal::Terminal;
use tracee::{Remote, Tid};

/// The open files of this process that a guest inherits when it is started, to
/// tell them from its own later: what happens to those is seen by others.
#[derive(Debug, Default)]
pub struct Inherited {
    files: Vec<(i32, u64, u64)>,
    /// What all copies of the guest know of each other's sockets.
    rebound: Rebound,
    /// Where files are that it watches.
    pub(crate) found: Found,
}

impl Inherited {
    /// The files that a child started now would inherit.
    ///
    /// # Errors
    ///
    /// When `/proc/self/fd` cannot be read.
    pub fn of_this_process() -> io::Result<Self> {
        let own = own_id();
        let mut files = Vec::new();
        for entry in fs::read_dir("/proc/self/fd")? {
            let Some(fd) = entry?.file_name().to_str().and_then(|n| n.parse().ok()) else {
                continue;
            };
            // The one that lists the folder is gone by now.
            let Ok(info) = procfs::fdinfo(own, fd) else {
                continue;
            };
            if info.flags & libc::O_CLOEXEC == 0
                && let Ok(metadata) = fs::metadata(format!("/proc/self/fd/{fd}"))
            {
                files.push((fd, metadata.dev(), metadata.ino()));
            }
        }
        Ok(Self {
            files,
            rebound: Rebound::default(),
            found: Found::default(),
        })
    }

    /// Whether a guest's fd is one of these, by the open file description.
    fn has(&self, process: Tid, fd: i32, device: u64, inode: u64) -> bool {
        self.files
            .iter()
            .filter(|(_, d, i)| (*d, *i) == (device, inode))
            .any(|&(own, ..)| {
                // Where kcmp is refused, the same file counts as the same
                // description: less is reset then, and nothing of others is.
                tracee::same_open_file((own_id(), own), (process, fd)).unwrap_or(true)
            })
    }

    /// Whether any inherited fd is of this file, such as the other end of a pipe.
    fn has_file(&self, device: u64, inode: u64) -> bool {
        self.files
            .iter()
            .any(|(_, d, i)| (*d, *i) == (device, inode))
    }

    /// The same of a mapped file, whose device is known by its numbers.
    pub(crate) fn has_mapped(&self, device: (u32, u32), inode: u64) -> bool {
        self.files.iter().any(|(_, d, i)| {
            (rustix::fs::major(*d), rustix::fs::minor(*d)) == device && *i == inode
        })
    }
}

fn own_id() -> Tid {
    Tid::new(rustix::process::getpid().as_raw_nonzero().get())
}

/// A regular file that the guest can write to through an fd or a mapping that
/// was there before the checkpoint, so that its bytes must be kept by whoever
/// takes the checkpoint.
#[derive(Clone, Debug)]
pub struct HeldFile {
    /// Where it can be opened, in `/proc`.
    pub handle: PathBuf,
    /// Its name, if it still has one.
    pub path: Option<PathBuf>,
    /// Whether it is mapped shared and writable, so that its times do not tell
    /// of every change.
    pub mapped: bool,
}

/// One fd.
#[derive(Clone, Debug)]
struct Entry {
    fd: i32,
    info: FdInfo,
    device: u64,
    inode: u64,
    inherited: bool,
}

impl Entry {
    fn closes_on_exec(&self) -> bool {
        self.info.flags & libc::O_CLOEXEC != 0
    }

    /// Without O_ASYNC, which is set last, with the file's [`Owner`].
    fn status_flags(&self) -> i32 {
        self.info.flags & SETTABLE & !libc::O_ASYNC
    }

    fn lowest(entries: &[Entry]) -> i32 {
        entries.iter().map(|e| e.fd).min().unwrap_or(0)
    }

    fn is_writable(&self) -> bool {
        self.info.flags & libc::O_ACCMODE != libc::O_RDONLY
    }
}

/// What F_SETFL can change.
const SETTABLE: i32 =
    libc::O_APPEND | libc::O_ASYNC | libc::O_DIRECT | libc::O_NOATIME | libc::O_NONBLOCK;

/// A file that the image keeps open.
#[derive(Clone, Debug)]
struct Kept {
    entry: Entry,
    /// To be sought back to, where there is an offset and it is the guest's own.
    position: Option<i64>,
    /// It can be closed and opened anew.
    reopens: bool,
    locks: Locks,
}

/// All open files of a process, as they were.
#[derive(Clone, Debug, Default)]
pub(crate) struct FdTable {
    kept: Vec<Kept>,
    /// Eventfds that are kept, too.
    counters: Vec<EventCounter>,
    /// Closed in the image, and a copy's own: the lowest number first, as the
    /// guest made most of them: they come out right by themselves then.
    own: Vec<Own>,
    /// Closed in the image, and only one run has them at a time.
    fifos: Vec<Fifo>,
    /// As those are.
    ptys: Vec<Pty>,
    /// Kept ones.
    terminals: Vec<Terminal>,
    sockets: Sockets,
    /// Those that others watch first.
    epolls: Vec<Epoll>,
    owners: Vec<Owner>,
    locked: Vec<Locked>,
    /// By the fds that they were made through.
    locks_of_process: Vec<(i32, Locks)>,
    nameless_files: Vec<NamelessFile>,
    /// Fds that the image must not hold open.
    closed: Vec<i32>,
    /// The first number above all that the guest uses.
    above: i32,
    /// Regular files that are open for writing, by device and inode.
    pub(crate) written: Vec<(u64, u64)>,
    /// Regular files whose bytes are to be kept.
    pub(crate) held: Vec<HeldFile>,
}

/// A file that a copy has for itself.
#[derive(Clone, Debug)]
enum Own {
    Pipe(Pipe),
    Event(EventCounter),
    Timer(TimerFd),
    Signal(SignalFd),
    PidFd(OwnPidFd),
    Inotify(Inotify),
}

impl Own {
    fn lowest(&self) -> i32 {
        match self {
            Own::Pipe(pipe) => pipe.lowest(),
            other => Entry::lowest(other.entries()),
        }
    }

    /// All its fds, of what has one open file description.
    fn entries(&self) -> &[Entry] {
        match self {
            Own::Pipe(_) => &[],
            Own::Event(counter) => counter.entries(),
            Own::Timer(timer) => timer.entries(),
            Own::Signal(signal) => signal.entries(),
            Own::PidFd(process) => process.entries(),
            Own::Inotify(instance) => instance.entries(),
        }
    }

    fn create(&self, remote: &mut Remote<'_>, above: i32) -> Result<(), Refusal> {
        match self {
            Own::Pipe(pipe) => pipe.restore(remote, above),
            Own::Event(counter) => counter.create(remote, above),
            Own::Timer(timer) => timer.create(remote, above),
            Own::Signal(signal) => signal.create(remote, above),
            Own::PidFd(process) => process.create(remote, above),
            Own::Inotify(instance) => instance.create(remote, above),
        }?;
        // What they are made with is O_NONBLOCK or nothing.
        if let Some(first) = self.entries().first()
            && first.status_flags() & !libc::O_NONBLOCK != 0
        {
            set_flags(remote, first.fd, first.status_flags())?;
        }
        Ok(())
    }
}

/// What a process has open that is grouped by open file description before it is
/// looked at.
#[derive(Default)]
struct Open {
    counters: Vec<Entry>,
    timers: Vec<Entry>,
    signals: Vec<Entry>,
    processes: Vec<Entry>,
    watchers: Vec<Entry>,
    locked: Vec<Entry>,
    pipes: BTreeMap<u64, Vec<Entry>>,
    fifos: BTreeMap<(u64, u64), (PathBuf, Vec<Entry>)>,
    /// Masters of pseudo-terminals, and other terminals that the guest did not
    /// inherit, by what they were opened as.
    masters: Vec<(PathBuf, Entry)>,
    terminals: Vec<(PathBuf, u64, Entry)>,
    /// One of each terminal that was inherited, by its device's number.
    inherited_terminals: BTreeMap<u64, Entry>,
    sockets: Vec<Entry>,
    epolls: Vec<Entry>,
    /// Those whose signals go to somebody.
    owned: Vec<Entry>,
    candidates: Candidates,
}

/// Groups fds by open file description: each group is one object under several
/// numbers.
fn group(process: Tid, entries: Vec<Entry>) -> Result<Vec<Vec<Entry>>, Refusal> {
    let mut groups: Vec<Vec<Entry>> = Vec::new();
    'entries: for entry in entries {
        for group in &mut groups {
            let first = &group[0];
            if (first.device, first.inode) != (entry.device, entry.inode) {
                continue;
            }
            let same = tracee::same_open_file((process, first.fd), (process, entry.fd)).map_err(
                |source| {
                    Refusal::unsupported(
                        "kcmp-refused",
                        format!(
                            "kcmp(2) is refused, so that shared files cannot be told: {source}"
                        ),
                    )
                },
            )?;
            if same {
                group.push(entry);
                continue 'entries;
            }
        }
        groups.push(vec![entry]);
    }
    Ok(groups)
}

impl FdTable {
    /// Reads the open files of a stopped process.
    pub(crate) fn capture(guest: &Guest) -> Result<Self, Refusal> {
        let process = guest.process;
        let mut table = Self::default();
        let mut open = Open::default();
        let mut nameless_files = Vec::new();
        for fd in fds(process)? {
            let link = format!("/proc/{process}/fd/{fd}");
            let name =
                fs::read_link(&link).map_err(Refusal::proc("read a link of /proc/PID/fd"))?;
            let info =
                procfs::fdinfo(process, fd).map_err(Refusal::proc("read /proc/PID/fdinfo"))?;
            let metadata = fs::metadata(&link).map_err(Refusal::proc("look at an open file"))?;
            let (device, inode) = (metadata.dev(), metadata.ino());
            let inherited = guest.inherited.has(process, fd, device, inode);
            let entry = Entry {
                fd,
                info,
                device,
                inode,
                inherited,
            };
            table.above = table.above.max(fd + 1);
            open.candidates
                .insert(fd, candidate(inode, metadata.mode(), &name));
            if entry.info.flags & libc::O_ASYNC != 0 {
                open.owned.push(entry.clone());
            }
            let locks = Locks::of(&entry)?;
            if !locks.is_empty() {
                table.locks_of_process.push((fd, locks.clone()));
            }
            let sets_aside = locks.stay() && !inherited;
            if sets_aside {
                let kind = metadata.mode() & libc::S_IFMT;
                if !matches!(kind, libc::S_IFREG | libc::S_IFDIR) || name.starts_with("/memfd:") {
                    return Err(Refusal::unsupported(
                        "file-lock",
                        format!("{} is locked", name.display()),
                    ));
                }
                Locked::check(process, &entry)?;
                table.closed.push(fd);
                open.locked.push(entry.clone());
            }
            let is_terminal = metadata.mode() & libc::S_IFMT == libc::S_IFCHR
                && terminal::is_terminal(metadata.rdev());
            if inherited || entry.info.flags & libc::O_PATH != 0 {
                table.keep(&entry, metadata.mode());
                if is_terminal && entry.info.flags & libc::O_PATH == 0 {
                    open.inherited_terminals.insert(metadata.rdev(), entry);
                }
                continue;
            }
            let link_target = name;
            let name = link_target.to_string_lossy().into_owned();
            match (metadata.mode() & libc::S_IFMT, &*name) {
                (libc::S_IFREG, _) if name.starts_with("/memfd:") => {
                    if guest.inherited.has_file(device, inode) {
                        return Err(Refusal::unsupported(
                            "memfd",
                            format!("{name} is shared with other processes"),
                        ));
                    }
                    table.keep(&entry, metadata.mode());
                    nameless_files.push((entry, name.as_bytes().to_vec()));
                }
                (libc::S_IFREG, _) => {
                    if entry.is_writable() {
                        table.written.push((device, inode));
                    }
                    if metadata.nlink() == 0 {
                        nameless_files.push((entry.clone(), name.as_bytes().to_vec()));
                    } else if entry.is_writable() {
                        table.held.push(HeldFile {
                            path: Some(Path::new(&*name).into()),
                            handle: link.into(),
                            mapped: false,
                        });
                    }
                    if !sets_aside {
                        table.keep(&entry, metadata.mode());
                    }
                }
                (libc::S_IFDIR, _) if sets_aside => {}
                (libc::S_IFDIR | libc::S_IFCHR | libc::S_IFBLK | libc::S_IFLNK, _) => {
                    if matches!(&*name, "/dev/ptmx" | "/dev/pts/ptmx") {
                        table.closed.push(fd);
                        open.masters.push((link_target, entry));
                        continue;
                    }
                    if is_terminal {
                        open.terminals.push((link_target, metadata.rdev(), entry));
                        continue;
                    }
                    if name.starts_with("/dev/")
                        && UNSHARABLE_DEVICES.iter().any(|d| name[5..].starts_with(d))
                    {
                        return Err(Refusal::unsupported("device", format!("{name} is open")));
                    }
                    table.keep(&entry, metadata.mode());
                }
                (libc::S_IFIFO, _) if name.starts_with("pipe:") => {
                    if guest.inherited.has_file(device, inode) {
                        // Another end of a pipe that goes out of the guest.
                        table.keep(&entry, metadata.mode());
                    } else {
                        table.closed.push(fd);
                        open.pipes.entry(inode).or_default().push(entry);
                    }
                }
                (libc::S_IFIFO, _) if guest.inherited.has_file(device, inode) => {
                    table.keep(&entry, metadata.mode());
                }
                (libc::S_IFIFO, _) => {
                    table.closed.push(fd);
                    let fifo = open.fifos.entry((device, inode));
                    fifo.or_insert_with(|| (link_target, Vec::new()))
                        .1
                        .push(entry);
                }
                (libc::S_IFSOCK, _) => {
                    table.closed.push(fd);
                    if entry.info.flags & libc::O_ASYNC == 0 {
                        // They send SIGURG without it.
                        open.owned.push(entry.clone());
                    }
                    open.sockets.push(entry);
                }
                (_, "anon_inode:[eventfd]") if entry.info.semaphore.is_none() => {
                    open.counters.push(entry);
                }
                (_, "anon_inode:[pidfd]") => match signal::whom(&entry, guest)? {
                    Whom::Guest => {
                        table.closed.push(fd);
                        open.processes.push(entry);
                    }
                    Whom::Other => table.keep(&entry, 0),
                },
                (
                    _,
                    "anon_inode:[eventfd]"
                    | "anon_inode:[timerfd]"
                    | "anon_inode:[signalfd]"
                    | "anon_inode:inotify"
                    | "anon_inode:[eventpoll]",
                ) => {
                    table.closed.push(fd);
                    match &*name {
                        "anon_inode:[eventfd]" => open.counters.push(entry),
                        "anon_inode:[timerfd]" => open.timers.push(entry),
                        "anon_inode:[signalfd]" => open.signals.push(entry),
                        "anon_inode:inotify" => open.watchers.push(entry),
                        _ => open.epolls.push(entry),
                    }
                }
                _ => {
                    let kind = name
                        .trim_start_matches("anon_inode:")
                        .trim_matches(['[', ']']);
                    return Err(Refusal::unsupported(
                        "open-file",
                        format!("an open {kind} cannot be brought back yet"),
                    ));
                }
            }
        }
        table.look_closer(guest, open)?;
        table.nameless_files = NamelessFile::capture(process, nameless_files)?;
        // What nobody can write stays as it is.
        table.nameless_files.retain(NamelessFile::is_writable);
        Ok(table)
    }

    /// Reads what fdinfo does not tell.
    fn look_closer(&mut self, guest: &Guest, open: Open) -> Result<(), Refusal> {
        let process = guest.process;
        for group in group(process, open.counters)? {
            let counter = EventCounter::capture(group);
            if counter.is_made_anew() {
                self.own.push(Own::Event(counter));
            } else {
                self.keep(&counter.entries()[0], 0);
                self.counters.push(counter);
            }
        }
        for group in group(process, open.timers)? {
            self.own.push(Own::Timer(TimerFd::capture(group)));
        }
        for group in group(process, open.signals)? {
            self.own.push(Own::Signal(SignalFd::capture(group)?));
        }
        for group in group(process, open.processes)? {
            self.own.push(Own::PidFd(OwnPidFd::capture(group)));
        }
        for (_, ends) in open.pipes {
            let pipe = Pipe::capture(process, group(process, ends)?)?;
            self.own.push(Own::Pipe(pipe));
        }
        if !open.fifos.is_empty() {
            let source = Source::of(process)?;
            for (_, (path, ends)) in open.fifos {
                let fifo = Fifo::capture(&source, path, group(process, ends)?)?;
                self.fifos.push(fifo);
            }
        }
        if !open.watchers.is_empty() {
            let source = Source::of(process)?;
            for group in group(process, open.watchers)? {
                let found = &guest.inherited.found;
                let instance = Inotify::capture(process, &source, group, found)?;
                self.own.push(Own::Inotify(instance));
            }
        }
        for group in group(process, open.locked)? {
            self.locked.push(Locked::capture(group)?);
        }
        self.own.sort_by_key(Own::lowest);
        self.look_at_terminals(
            guest,
            open.masters,
            open.terminals,
            open.inherited_terminals,
        )?;
        if !open.owned.is_empty() {
            let source = Source::of(process)?;
            for entry in open.owned {
                self.owners.extend(Owner::capture(&source, &entry, guest)?);
            }
        }
        let around = socket::Guest {
            process,
            open: &open.candidates,
            rebound: &guest.inherited.rebound,
            on_connection: guest.on_connection,
        };
        self.sockets = Sockets::capture(open.sockets, around)?;
        if !open.epolls.is_empty() {
            let source = Source::of(process)?;
            let mut epolls = Vec::new();
            for group in group(process, open.epolls)? {
                epolls.push(Epoll::capture(process, &source, group, &open.candidates)?);
            }
            self.epolls = epoll::inner_first(epolls);
        }
        Ok(())
    }

    /// Tells the pseudo-terminals that the guest made for itself from the terminals
    /// that it uses with others.
    fn look_at_terminals(
        &mut self,
        guest: &Guest,
        masters: Vec<(PathBuf, Entry)>,
        others: Vec<(PathBuf, u64, Entry)>,
        mut used: BTreeMap<u64, Entry>,
    ) -> Result<(), Refusal> {
        if masters.is_empty() && others.is_empty() && used.is_empty() {
            return Ok(());
        }
        let process = guest.process;
        let source = Source::of(process)?;
        let mut sides = Vec::new();
        if !masters.is_empty() {
            let mut by_name: BTreeMap<PathBuf, Vec<Entry>> = BTreeMap::new();
            for (name, _, entry) in others.iter().cloned() {
                by_name.entry(name).or_default().push(entry);
            }
            for (name, entries) in by_name {
                for entries in group(process, entries)? {
                    sides.push((name.clone(), entries));
                }
            }
        }
        let mut own = Vec::new();
        let names: BTreeMap<i32, PathBuf> = masters
            .iter()
            .map(|(name, entry)| (entry.fd, name.clone()))
            .collect();
        let masters = masters.into_iter().map(|(_, entry)| entry).collect();
        for master in group(process, masters)? {
            let name = names.get(&master[0].fd).cloned().unwrap_or_default();
            let pty = Pty::capture(&source, name, master, &sides, guest)?;
            own.extend(pty.slaves().map(|entry| entry.fd));
            self.ptys.push(pty);
        }
        self.closed.extend(&own);
        for (_, device, entry) in others {
            if !own.contains(&entry.fd) {
                self.keep(&entry, libc::S_IFCHR);
                used.entry(device).or_insert(entry);
            }
        }
        for entry in used.values() {
            self.terminals
                .extend(Terminal::capture(&source, entry, guest));
        }
        Ok(())
    }

    fn keep(&mut self, entry: &Entry, mode: u32) {
        let seekable = matches!(
            mode & libc::S_IFMT,
            libc::S_IFREG | libc::S_IFDIR | libc::S_IFBLK
        );
        // What others wrote to an inherited file meanwhile is not overwritten.
        let own = !(entry.inherited && entry.is_writable());
        let kind = mode & libc::S_IFMT;
        self.kept.push(Kept {
            position: (seekable && own && entry.info.flags & libc::O_PATH == 0)
                .then_some(entry.info.position),
            reopens: matches!(kind, libc::S_IFREG | libc::S_IFDIR),
            locks: Locks::of(entry).unwrap_or_default(),
            entry: entry.clone(),
        });
    }

    /// The files that sockets are bound to.
    pub(crate) fn socket_files(&self) -> Vec<PathBuf> {
        self.sockets.files().map(Into::into).collect()
    }

    /// Removes the file that a socket was bound to.
    pub(crate) fn remove_socket_file(&self, path: &Path) -> Result<(), Refusal> {
        self.sockets.remove_file(path)
    }

    /// The open files that have no name and can be written.
    pub(crate) fn nameless_files(&self) -> &[NamelessFile] {
        &self.nameless_files
    }

    /// The first number above all that the guest uses.
    pub(crate) fn above(&self) -> i32 {
        self.above
    }

    /// Whether an image may hold all of it open.
    pub(crate) fn holds_nothing_to_close(&self) -> bool {
        self.closed.is_empty()
    }

    /// Whether an image holds a file of the guest's open that somebody may lock.
    pub(crate) fn keeps(&self, device: u64, inode: u64) -> bool {
        self.kept.iter().any(|kept| kept.is(device, inode))
    }

    /// The files (`st_dev`, `st_ino`) that a copy opens anew for writing, one for each
    /// open file description.
    pub(crate) fn opened_anew(&self) -> impl Iterator<Item = (u64, u64)> {
        self.locked
            .iter()
            .map(|locked| &locked.entries()[0])
            .filter(|entry| entry.is_writable())
            .map(|entry| (entry.device, entry.inode))
    }

    /// Has an image hold no open file description of a file, so that a lock on one
    /// is free once the run that has it closes the file.
    pub(crate) fn let_go(
        &mut self,
        remote: &mut Remote<'_>,
        device: u64,
        inode: u64,
    ) -> Result<(), Refusal> {
        let (kept, others) = std::mem::take(&mut self.kept)
            .into_iter()
            .partition(|kept: &Kept| kept.is(device, inode));
        self.kept = others;
        let is_memory =
            |file: &NamelessFile| file.is_memory && (file.device, file.inode) == (device, inode);
        let reopens = kept.iter().all(|kept: &Kept| kept.reopens)
            && !self.nameless_files.iter().any(is_memory);
        if !reopens {
            return Err(Refusal::unsupported(
                "file-lock",
                "a file was locked that a frozen copy holds open",
            ));
        }
        let entries = kept.into_iter().map(|kept| kept.entry).collect();
        for entries in group(remote.tid(), entries)? {
            Locked::check(remote.tid(), &entries[0])?;
            let locked = Locked::capture(entries)?;
            locked.put_aside(remote, self.above + self.locked.len() as i32)?;
            for entry in locked.entries() {
                close(remote, entry.fd)?;
            }
            self.locked.push(locked);
        }
        Ok(())
    }

    /// Closes in an image what it must not hold.
    pub(crate) fn close_in_image(&self, remote: &mut Remote<'_>) -> Result<(), Refusal> {
        for (locked, handle) in self.locked.iter().zip(self.above..) {
            locked.put_aside(remote, handle)?;
        }
        let mut closed = self.closed.clone();
        closed.sort_unstable();
        for run in closed.chunk_by(|a, b| a + 1 == *b) {
            let (first, last) = (run[0] as u64, run[run.len() - 1] as u64);
            remote.call("close_range", libc::SYS_close_range, &[first, last, 0])?;
        }
        Ok(())
    }

    /// Makes those files anew in a copy of the image that no other run has a
    /// share in.
    pub(crate) fn make_own(&self, remote: &mut Remote<'_>) -> Result<(), Refusal> {
        // Both are sorted, or nearly so.
        let mut epolls = self.epolls.iter().peekable();
        for own in &self.own {
            while let Some(epoll) =
                epolls.next_if(|epoll| Entry::lowest(epoll.entries()) < own.lowest())
            {
                epoll.create(remote, self.above)?;
            }
            own.create(remote, self.above)?;
        }
        for epoll in epolls {
            epoll.create(remote, self.above)?;
        }
        if !self.sockets.take_addresses() {
            self.sockets.restore(remote, self.above)?;
        }
        Ok(())
    }

    /// Gives a copy the rest of its open files back: what the run before it could
    /// have changed, or had for itself.
    pub(crate) fn reset_shared(&self, remote: &mut Remote<'_>) -> Result<(), Refusal> {
        for kept in &self.kept {
            kept.reset(remote)?;
        }
        // The dead run can have locked what is kept.
        for (locked, handle) in self.locked.iter().zip(self.above..) {
            locked.restore(remote, handle)?;
        }
        for counter in &self.counters {
            counter.reset(remote)?;
        }
        for fifo in &self.fifos {
            fifo.restore(remote, self.above)?;
        }
        if !self.ptys.is_empty() || !self.terminals.is_empty() {
            let source = Source::of(remote.tid())?;
            for pty in &self.ptys {
                pty.restore(&source, remote, self.above)?;
            }
            for terminal in &self.terminals {
                terminal.reset(&source, remote);
            }
        }
        if self.sockets.take_addresses() {
            self.sockets.restore(remote, self.above)?;
        }
        let mut source = None;
        for own in &self.own {
            match own {
                Own::Timer(timer) => timer.arm(remote)?,
                Own::Inotify(instance) => {
                    let source = match &source {
                        Some(source) => source,
                        None => source.insert(Source::of(remote.tid())?),
                    };
                    instance.watch(source)?;
                }
                _ => {}
            }
        }
        self.sockets.finish(remote)?;
        for epoll in &self.epolls {
            epoll.fill(remote, self.above)?;
        }
        for owner in &self.owners {
            owner.restore(remote)?;
        }
        // Any close of a file would take the process's locks of it away.
        for (fd, locks) in &self.locks_of_process {
            locks.set_of_process(remote, *fd)?;
        }
        Ok(())
    }
}

/// What an epoll instance has to know of a file.
fn candidate(inode: u64, mode: u32, name: &Path) -> Candidate {
    let kind = match name.to_str() {
        Some("anon_inode:[signalfd]") => Kind::Signals,
        Some("anon_inode:[eventpoll]") => Kind::Epoll,
        _ if mode & libc::S_IFMT == libc::S_IFIFO => Kind::Pipe,
        _ => Kind::Other,
    };
    Candidate { inode, kind }
}

/// Devices that hold state of one process.
const UNSHARABLE_DEVICES: &[&str] = &[
    "nvidia",
    "dri/",
    "kvm",
    "fuse",
    "userfaultfd",
    "uinput",
    "snd/",
];

impl Kept {
    /// Whether it is the guest's own open file of this inode, with an open file
    /// description that can be locked.
    fn is(&self, device: u64, inode: u64) -> bool {
        let entry = &self.entry;
        (entry.device, entry.inode) == (device, inode)
            && !entry.inherited
            && entry.info.flags & libc::O_PATH == 0
    }

    fn reset(&self, remote: &mut Remote<'_>) -> Result<(), Refusal> {
        let fd = self.entry.fd;
        let now = procfs::fdinfo(remote.tid(), fd)
            .map_err(Refusal::proc("read /proc/PID/fdinfo of a copy"))?;
        if let Some(position) = self.position
            && position != now.position
        {
            remote.call(
                "lseek",
                libc::SYS_lseek,
                &[fd as u64, position as u64, libc::SEEK_SET as u64],
            )?;
        }
        if now.flags & SETTABLE != self.entry.status_flags() {
            set_flags(remote, fd, self.entry.status_flags())?;
        }
        // What others have locked through an inherited file is theirs.
        if !now.locks.is_empty() && !self.entry.inherited || self.locks.stay() {
            let now = Locks::from(&now);
            self.locks.set(remote, fd, &now)?;
        }
        Ok(())
    }
}

fn fds(process: Tid) -> Result<Vec<i32>, Refusal> {
    let step = "list /proc/PID/fd";
    let mut fds = Vec::new();
    for entry in fs::read_dir(format!("/proc/{process}/fd")).map_err(Refusal::proc(step))? {
        let entry = entry.map_err(Refusal::proc(step))?;
        if let Some(fd) = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok())
        {
            fds.push(fd);
        }
    }
    fds.sort_unstable();
    Ok(fds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn standard_output_is_inherited_and_a_file_of_ours_is_not() {
        let inherited = Inherited::of_this_process().unwrap();
        let file = fs::File::open("/proc/self/stat").unwrap();
        let metadata = file.metadata().unwrap();
        let fd = std::os::fd::AsRawFd::as_raw_fd(&file);
        assert!(!inherited.has(own_id(), fd, metadata.dev(), metadata.ino()));
        let stdout = fs::metadata("/proc/self/fd/1").unwrap();
        assert!(inherited.has(own_id(), 1, stdout.dev(), stdout.ino()));
    }
}
