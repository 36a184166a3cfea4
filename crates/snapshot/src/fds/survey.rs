//! Looking at the open files of a process: what each is, and what becomes of it.

use super::entry::{Entry, fds, group};
use super::epoll::{self, Candidate, Candidates, Epoll, Kind};
use super::event::{EventCounter, TimerFd};
use super::fifo::Fifo;
use super::inotify::Inotify;
use super::lock::{Locked, Locks};
use super::nameless::NamelessFile;
use super::owner::Owner;
use super::pipe::Pipe;
use super::pty::Pty;
use super::signal::{self, OwnPidFd, SignalFd, Whom};
use super::socket::{self, Sockets};
use super::source::Source;
use super::terminal::{self, Terminal};
use super::{FdTable, HeldFile, Own};
use crate::{Guest, Refusal, procfs};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

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
