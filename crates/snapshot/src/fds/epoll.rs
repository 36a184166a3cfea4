//! An epoll instance. A shared one would keep the registrations of the dead run
//! and lose those of files that are made anew, so it is rebuilt each time.
//!
//! Two things about a registration cannot be given to epoll_ctl(2), and are
//! brought about by having the copy wait for events before it runs:
//!
//! - A one-shot registration that has told its event is disarmed. It is
//!   registered for everything, and its file is ready for something.
//! - An edge-triggered one does not tell again of what it has told. Which ones
//!   those are is seen from the instance as a whole: none of its registrations has
//!   anything to tell although a file is ready. Where that does not say it, the
//!   copy is told once more, which epoll(7) allows for.

use super::source::Source;
use super::{Entry, Fresh, close};
use crate::Refusal;
use crate::procfs::{self, EpollTarget};
use crate::sys::{self, EpollSlot};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use tracee::{Remote, Tid};

/// An open file of the process that may be registered.
#[derive(Copy, Clone, Debug)]
pub(super) struct Candidate {
    pub(super) inode: u64,
    pub(super) kind: Kind,
}

/// What matters of a candidate's kind.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub(super) enum Kind {
    Pipe,
    /// It is ready or not for whoever asks, by signals of his own.
    Signals,
    Epoll,
    Other,
}

/// The process's open files.
pub(super) type Candidates = BTreeMap<i32, Candidate>;

/// What a registration has told already.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
enum Told {
    /// It tells what there is.
    Nothing,
    /// What there is now, and only what comes is news (EPOLLET).
    Edge,
    /// It is disarmed (EPOLLONESHOT). `idle`: its file is ready for nothing, and
    /// is a pipe's end for reading.
    Shot { idle: bool },
}

#[derive(Clone, Debug)]
struct Registration {
    target: EpollTarget,
    /// Another number of the file, if it is no longer open under its own.
    otherwise: Option<i32>,
    told: Told,
}

/// An epoll instance, as it was.
#[derive(Clone, Debug)]
pub(super) struct Epoll {
    entries: Vec<Entry>,
    registrations: Vec<Registration>,
    /// Other instances that it watches.
    inner: Vec<i32>,
}

/// What says how events are told, not which (`EP_PRIVATE_BITS` in the kernel's
/// eventpoll.c).
const MANNER: u32 =
    (libc::EPOLLWAKEUP | libc::EPOLLONESHOT | libc::EPOLLET | libc::EPOLLEXCLUSIVE) as u32;
const ONE_SHOT: u32 = libc::EPOLLONESHOT as u32;
const EDGE: u32 = libc::EPOLLET as u32;
const ANYTHING: u32 = (libc::EPOLLIN | libc::EPOLLPRI | libc::EPOLLOUT | libc::EPOLLRDHUP) as u32;

fn stale() -> Refusal {
    Refusal::unsupported(
        "stale-epoll",
        "an epoll instance watches a file under a number that is closed",
    )
}

impl Epoll {
    pub(super) fn capture(
        process: Tid,
        source: &Source,
        entries: Vec<Entry>,
        files: &Candidates,
    ) -> Result<Self, Refusal> {
        let epoll = entries[0].fd;
        let mut seen: BTreeMap<i32, u32> = BTreeMap::new();
        let mut registrations = Vec::new();
        let mut inner = Vec::new();
        for &target in &entries[0].info.targets {
            let nth = seen.entry(target.fd).or_default();
            let slot = EpollSlot {
                epoll,
                target: target.fd,
                nth: *nth,
            };
            *nth += 1;
            let open_as = find(process, slot, &target, files).ok_or_else(stale)?;
            if files.get(&open_as).is_some_and(|f| f.kind == Kind::Epoll) {
                inner.push(open_as);
            }
            let told = if target.events & !MANNER == 0 && target.events & ONE_SHOT != 0 {
                shot(source, open_as, files)?
            } else {
                Told::Nothing
            };
            registrations.push(Registration {
                target,
                otherwise: (open_as != target.fd).then_some(open_as),
                told,
            });
        }
        let mut captured = Self {
            entries,
            registrations,
            inner,
        };
        // A signalfd would answer this process by signals of its own, and the
        // instance would believe it.
        if files.values().all(|f| f.kind != Kind::Signals) {
            captured.find_edges(source)?;
        }
        Ok(captured)
    }

    pub(super) fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Marks the edge-triggered registrations that have told what there is.
    fn find_edges(&mut self, source: &Source) -> Result<(), Refusal> {
        let is_edge = |r: &Registration| r.target.events & (EDGE | ONE_SHOT) == EDGE;
        if !self.registrations.iter().any(is_edge) {
            return Ok(());
        }
        let mut edges = Vec::new();
        let mut others = false;
        for (index, registration) in self.registrations.iter().enumerate() {
            let events = registration.target.events & !MANNER;
            let fd = registration.otherwise.unwrap_or(registration.target.fd);
            if events == 0 || ready(source, fd)? & events == 0 {
                continue;
            }
            if is_edge(registration) {
                edges.push(index);
            } else {
                others = true;
            }
        }
        if edges.is_empty() {
            return Ok(());
        }
        let tells = ready(source, self.entries[0].fd)? & libc::EPOLLIN as u32 != 0;
        if !tells && !others {
            for index in edges {
                self.registrations[index].told = Told::Edge;
            }
        }
        Ok(())
    }

    /// Makes the instance, still empty.
    pub(super) fn create(&self, remote: &mut Remote<'_>, above: i32) -> Result<(), Refusal> {
        let fd = remote.call(
            "epoll_create1",
            libc::SYS_epoll_create1,
            &[libc::EPOLL_CLOEXEC as u64],
        )?;
        Fresh { fd: fd as i32 }.settle(remote, above, &self.entries)
    }

    /// Registers the files, once all of them are there.
    pub(super) fn fill(&self, remote: &mut Remote<'_>, above: i32) -> Result<(), Refusal> {
        let (told, plain): (Vec<_>, Vec<_>) = self
            .registrations
            .iter()
            .partition(|r| r.told != Told::Nothing);
        if !told.is_empty() {
            for registration in &told {
                self.register(remote, registration, above)?;
            }
            self.be_told(remote, &told)?;
        }
        for registration in plain {
            self.register(remote, registration, above)?;
        }
        Ok(())
    }

    fn register(
        &self,
        remote: &mut Remote<'_>,
        registration: &Registration,
        above: i32,
    ) -> Result<(), Refusal> {
        let EpollTarget {
            fd, events, data, ..
        } = registration.target;
        let events = match registration.told {
            Told::Shot { .. } => events | ANYTHING,
            Told::Nothing | Told::Edge => events,
        };
        // `struct epoll_event` is packed on x86-64.
        let mut event = [0; 12];
        event[..4].copy_from_slice(&events.to_ne_bytes());
        event[4..].copy_from_slice(&data.to_ne_bytes());
        let at = remote.scratch()?.0;
        remote.memory().write(at, &event)?;
        let add = |remote: &mut Remote<'_>| {
            remote.call(
                "epoll_ctl",
                libc::SYS_epoll_ctl,
                &[
                    self.entries[0].fd as u64,
                    libc::EPOLL_CTL_ADD as u64,
                    fd as u64,
                    at.0,
                ],
            )
        };
        let Some(otherwise) = registration.otherwise else {
            add(remote)?;
            return Ok(());
        };
        // The file is under its former number for a moment, in place of what is
        // there now.
        let now = procfs::fdinfo(remote.tid(), fd).ok();
        let saved = match &now {
            Some(_) => Some(remote.call(
                "fcntl",
                libc::SYS_fcntl,
                &[fd as u64, libc::F_DUPFD_CLOEXEC as u64, above as u64],
            )?),
            None => None,
        };
        remote.call(
            "dup3",
            libc::SYS_dup3,
            &[otherwise as u64, fd as u64, libc::O_CLOEXEC as u64],
        )?;
        let added = add(remote);
        match (saved, now) {
            (Some(saved), Some(info)) => {
                let flags = info.flags & libc::O_CLOEXEC;
                remote.call("dup3", libc::SYS_dup3, &[saved, fd as u64, flags as u64])?;
                close(remote, saved as i32)?;
            }
            _ => close(remote, fd)?,
        }
        added?;
        Ok(())
    }

    /// Has the copy be told what it was told.
    fn be_told(&self, remote: &mut Remote<'_>, told: &[&Registration]) -> Result<(), Refusal> {
        let step = "make a pipe ready for a moment";
        let mut pipes = Vec::new();
        for registration in told {
            if registration.told == (Told::Shot { idle: true }) {
                let fd = registration.otherwise.unwrap_or(registration.target.fd);
                let mut pipe = OpenOptions::new()
                    .read(true)
                    .write(true)
                    .custom_flags(libc::O_NONBLOCK)
                    .open(format!("/proc/{}/fd/{fd}", remote.tid()))
                    .map_err(Refusal::proc(step))?;
                pipe.write_all(b".").map_err(Refusal::proc(step))?;
                pipes.push(pipe);
            }
        }
        let at = remote.scratch()?.0;
        const MOST: u64 = 100;
        let epoll = self.entries[0].fd;
        // Nothing is registered yet that would tell the same time and again.
        for _ in 0..=told.len() {
            let n = remote.call(
                "epoll_wait",
                libc::SYS_epoll_wait,
                &[epoll as u64, at.0, MOST, 0],
            )?;
            if n == 0 {
                break;
            }
        }
        for mut pipe in pipes {
            pipe.read_exact(&mut [0]).map_err(Refusal::proc(step))?;
        }
        let now = procfs::fdinfo(remote.tid(), epoll)
            .map_err(Refusal::proc("read /proc/PID/fdinfo of a copy"))?;
        let armed = now
            .targets
            .iter()
            .any(|t| t.events & ONE_SHOT != 0 && t.events & !MANNER != 0);
        if armed {
            return Err(not_ready());
        }
        Ok(())
    }
}

fn not_ready() -> Refusal {
    Refusal::unsupported(
        "epoll-one-shot",
        "an epoll instance has a one-shot registration that is disarmed, of a file that is \
         ready for nothing",
    )
}

/// The number that the file of a registration is open under: its own, or another.
fn find(process: Tid, slot: EpollSlot, target: &EpollTarget, files: &Candidates) -> Option<i32> {
    let may_be = |f: &Candidate| target.inode.is_none_or(|registered| registered == f.inode);
    if files.get(&target.fd).is_some_and(may_be)
        && sys::is_epoll_target(process, target.fd, slot).unwrap_or(true)
    {
        return Some(target.fd);
    }
    files
        .iter()
        .filter(|(_, f)| may_be(f))
        .map(|(fd, _)| *fd)
        .find(|fd| sys::is_epoll_target(process, *fd, slot).unwrap_or(false))
}

/// A disarmed registration of an open file.
fn shot(source: &Source, fd: i32, files: &Candidates) -> Result<Told, Refusal> {
    match files.get(&fd).map(|f| f.kind) {
        Some(Kind::Signals) => return Err(not_ready()),
        Some(Kind::Pipe) if ready(source, fd)? == 0 => {
            let handle = source.duplicate(fd)?;
            let flags = rustix::fs::fcntl_getfl(&handle)
                .map_err(|e| Refusal::proc("ask a pipe for its flags")(e.into()))?;
            if flags.intersects(rustix::fs::OFlags::WRONLY | rustix::fs::OFlags::RDWR) {
                return Err(not_ready());
            }
            return Ok(Told::Shot { idle: true });
        }
        _ => {}
    }
    if ready(source, fd)? == 0 {
        return Err(not_ready());
    }
    Ok(Told::Shot { idle: false })
}

/// What a file is ready for, in the words of epoll, which are those of poll.
fn ready(source: &Source, fd: i32) -> Result<u32, Refusal> {
    let handle = source.duplicate(fd)?;
    let asked = PollFlags::from_bits_retain((ANYTHING | 0x3c0) as u16);
    let mut polled = [PollFd::from_borrowed_fd(handle.as_fd(), asked)];
    poll(&mut polled, Some(&Timespec::default()))
        .map_err(|e| Refusal::proc("ask a file whether it is ready")(e.into()))?;
    Ok(u32::from(polled[0].revents().bits()))
}

/// The instances with those first that others watch.
pub(super) fn inner_first(mut epolls: Vec<Epoll>) -> Vec<Epoll> {
    let mut sorted: Vec<Epoll> = Vec::with_capacity(epolls.len());
    while !epolls.is_empty() {
        let is_open = |epoll: &Epoll| {
            let waits_for = |fd: &i32| {
                epolls
                    .iter()
                    .any(|other| other.entries.iter().any(|e| e.fd == *fd))
            };
            !epoll.inner.iter().any(waits_for)
        };
        // The kernel lets nobody make a circle of them (ELOOP).
        let next = epolls.iter().position(is_open).unwrap_or(0);
        sorted.push(epolls.remove(next));
    }
    sorted
}
