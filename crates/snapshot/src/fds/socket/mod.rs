//! The sockets of a process: which of them can be made anew, and as what.
//!
//! An image must hold no socket: a peer would not see its end, and a port would
//! stay taken. So all of the guest's own are closed in the image and made anew
//! in the copy: what is not connected at all ([`endpoint`]), connections of the
//! guest with itself, with what is in them ([`pair`], [`tcp`]), and what sends
//! datagrams ([`datagram`]). A connection to the outside cannot be made anew by
//! one side alone: it is a refusal that names it, or broken off ([`lost`]).
//!
//! A socket is looked at through a duplicate of the guest's fd (pidfd_getfd(2)),
//! so that the guest need not make a call for each of some hundred questions.
//! Duplicates are closed before the guest runs on.

mod address;
mod datagram;
mod diag;
mod endpoint;
mod lost;
mod message;
mod multicast;
mod name;
mod options;
mod pair;
mod tcp;
mod view;

use super::Entry;
use super::epoll::Candidates;
use super::source::Source;
use crate::Refusal;
use datagram::Datagram;
use diag::{Diag, UnixFacts};
use endpoint::Endpoint;
use lost::Lost;
use message::Files;
use name::Name;
use pair::{Around, Pair};
use std::collections::BTreeMap;
use std::path::Path;
use tcp::{Connection, TcpFacts};
use tracee::{Remote, Tid};
use view::View;

pub use lost::OnConnection;
pub(super) use name::Rebound;

#[derive(Clone, Debug)]
enum Socket {
    Endpoint(Box<Endpoint>),
    Pair(Box<Pair>),
    Connection(Box<Connection>),
    Datagram(Box<Datagram>),
    Lost(Box<Lost>),
}

impl Socket {
    fn lowest(&self) -> i32 {
        match self {
            Socket::Endpoint(endpoint) => endpoint.lowest(),
            Socket::Pair(pair) => pair.lowest(),
            Socket::Connection(connection) => connection.lowest(),
            Socket::Datagram(datagram) => datagram.lowest(),
            Socket::Lost(lost) => lost.lowest(),
        }
    }

    fn name(&self) -> Option<&Name> {
        match self {
            Socket::Endpoint(endpoint) => endpoint.name(),
            Socket::Pair(pair) => pair.name(),
            Socket::Datagram(datagram) => datagram.name(),
            Socket::Connection(_) | Socket::Lost(_) => None,
        }
    }

    /// Whether it has an address that only one run can have at a time.
    fn takes_address(&self) -> bool {
        match self {
            Socket::Connection(_) | Socket::Lost(_) => true,
            Socket::Pair(pair) => pair.is_accepted(),
            Socket::Endpoint(_) | Socket::Datagram(_) => self.name().is_some(),
        }
    }
}

/// The sockets of a process, as they were.
#[derive(Clone, Debug, Default)]
pub(super) struct Sockets(Vec<Socket>);

/// What the sockets of a process are looked at with.
#[derive(Copy, Clone)]
pub(super) struct Guest<'a> {
    pub(super) process: Tid,
    pub(super) open: &'a Candidates,
    pub(super) rebound: &'a Rebound,
    pub(super) on_connection: OnConnection,
}

/// The sockets of a process while it is not clear which belong together.
#[derive(Default)]
struct Survey {
    sockets: Vec<Socket>,
    streams: BTreeMap<u64, (View, UnixFacts)>,
    datagrams: BTreeMap<u64, (View, UnixFacts)>,
    connections: Vec<(View, TcpFacts)>,
    udp: Vec<View>,
}

impl Sockets {
    /// `entries` are all fds of sockets that the guest did not inherit.
    pub(super) fn capture(entries: Vec<Entry>, guest: Guest<'_>) -> Result<Self, Refusal> {
        if entries.is_empty() {
            return Ok(Self::default());
        }
        // A socket has one open file description only (it cannot be opened
        // through /proc), so that its inode tells all: no kcmp is needed.
        let mut groups: BTreeMap<u64, Vec<Entry>> = BTreeMap::new();
        for entry in entries {
            groups.entry(entry.inode).or_default().push(entry);
        }
        let source = Source::of(guest.process)?;
        let mut survey = Survey::default();
        let mut diag = None;
        for (inode, entries) in groups {
            let view = View::of(&source, entries)?;
            match view.kind.family {
                libc::AF_UNIX => {
                    let diag = match &diag {
                        Some(diag) => diag,
                        None => diag.insert(Diag::open()?),
                    };
                    let facts = diag.unix(inode)?;
                    survey.unix(view, facts, guest)?;
                }
                libc::AF_INET | libc::AF_INET6 => survey.internet(view, guest)?,
                libc::AF_NETLINK => {
                    let endpoint = Endpoint::netlink(view)?;
                    survey.sockets.push(Socket::Endpoint(Box::new(endpoint)));
                }
                _ => return Err(view.unsupported("is open")),
            }
        }
        survey.join_streams(guest)?;
        survey.join_connections(guest)?;
        survey.join_datagrams(guest)?;
        let mut sockets = survey.sockets;
        // In this order most numbers come out right by themselves.
        sockets.sort_by_key(Socket::lowest);
        Ok(Self(sockets))
    }

    fn names(&self) -> impl Iterator<Item = &Name> {
        self.0.iter().filter_map(Socket::name)
    }

    /// The files that sockets are bound to.
    pub(super) fn files(&self) -> impl Iterator<Item = &Path> {
        self.names().filter_map(Name::file)
    }

    /// Removes the file that a socket was bound to, if it still is that.
    pub(super) fn remove_file(&self, path: &Path) -> Result<(), Refusal> {
        match self.names().find(|name| name.file() == Some(path)) {
            Some(name) => name.clear(),
            None => Ok(()),
        }
    }

    /// Whether any has a name that only one run can have at a time.
    pub(super) fn take_addresses(&self) -> bool {
        self.0.iter().any(Socket::takes_address)
    }

    /// Makes the sockets anew in a copy that has none of them.
    pub(super) fn restore(&self, remote: &mut Remote<'_>, above: i32) -> Result<(), Refusal> {
        if self.0.is_empty() {
            return Ok(());
        }
        let source = Source::of(remote.tid())?;
        // At the addresses of connections nobody may listen yet.
        for socket in &self.0 {
            match socket {
                Socket::Connection(connection) => connection.connect(&source, remote, above)?,
                Socket::Lost(lost) => lost.restore(&source, remote, above)?,
                _ => {}
            }
        }
        for socket in &self.0 {
            match socket {
                Socket::Endpoint(endpoint) => endpoint.restore(&source, remote, above)?,
                Socket::Datagram(datagram) => datagram.create(&source, remote, above)?,
                Socket::Pair(pair) if !pair.is_accepted() => {
                    pair.restore(&source, remote, above)?;
                }
                _ => {}
            }
        }
        for socket in &self.0 {
            match socket {
                Socket::Connection(connection) => connection.finish(&source)?,
                Socket::Datagram(datagram) => datagram.connect(&source, remote)?,
                // The guest listens by now.
                Socket::Pair(pair) if pair.is_accepted() => {
                    pair.restore(&source, remote, above)?;
                }
                _ => {}
            }
        }
        let datagrams: Vec<&Datagram> = self.datagrams().collect();
        for datagram in &datagrams {
            datagram.fill(remote.tid(), &source, &datagrams)?;
        }
        Ok(())
    }

    fn datagrams(&self) -> impl Iterator<Item = &Datagram> {
        self.0.iter().filter_map(|socket| match socket {
            Socket::Datagram(datagram) => Some(&**datagram),
            _ => None,
        })
    }

    /// Sends what open files come with, once all of them are there.
    pub(super) fn finish(&self, remote: &Remote<'_>) -> Result<(), Refusal> {
        let mut source = None;
        for socket in &self.0 {
            if let Socket::Pair(pair) = socket
                && pair.waits()
            {
                let source = match &source {
                    Some(source) => source,
                    None => source.insert(Source::of(remote.tid())?),
                };
                pair.finish(source)?;
            }
        }
        Ok(())
    }
}

impl Survey {
    /// A socket, or what is in its place if it is connected to the outside and the
    /// user wants it so.
    fn push(&mut self, socket: Result<Socket, Refusal>, lost: Vec<Lost>) -> Result<(), Refusal> {
        match socket {
            Ok(socket) => self.sockets.push(socket),
            Err(refusal) if refusal.code() == "connection" && !lost.is_empty() => {
                let lost = lost.into_iter().map(|lost| Socket::Lost(Box::new(lost)));
                self.sockets.extend(lost);
            }
            Err(refusal) => return Err(refusal),
        }
        Ok(())
    }

    fn unix(&mut self, view: View, facts: UnixFacts, guest: Guest<'_>) -> Result<(), Refusal> {
        let inode = view.inode();
        if view.kind.kind == libc::SOCK_DGRAM {
            self.datagrams.insert(inode, (view, facts));
        } else if facts.state == diag::ESTABLISHED {
            self.streams.insert(inode, (view, facts));
        } else {
            let endpoint = Endpoint::unix(
                guest.process,
                view,
                &facts,
                guest.rebound,
                guest.on_connection,
            )?;
            self.sockets.push(Socket::Endpoint(Box::new(endpoint)));
        }
        Ok(())
    }

    fn internet(&mut self, view: View, guest: Guest<'_>) -> Result<(), Refusal> {
        match (view.kind.kind, view.kind.protocol) {
            (libc::SOCK_STREAM, libc::IPPROTO_TCP | libc::IPPROTO_MPTCP) => {
                let facts = TcpFacts::of(std::os::fd::AsFd::as_fd(&view.handle))
                    .map_err(Refusal::proc("ask a TCP socket for its state"))?;
                if !matches!(facts.state, tcp::CLOSE | tcp::LISTEN) {
                    self.connections.push((view, facts));
                    return Ok(());
                }
                let lost = guest.lost(&[&view]);
                let endpoint = Endpoint::tcp(view, facts, guest.on_connection);
                self.push(endpoint.map(|e| Socket::Endpoint(Box::new(e))), lost)
            }
            (libc::SOCK_DGRAM, libc::IPPROTO_UDP) => {
                self.udp.push(view);
                Ok(())
            }
            _ => Err(view.unsupported("is open")),
        }
    }

    /// Unix sockets that are connected to each other.
    fn join_streams(&mut self, guest: Guest<'_>) -> Result<(), Refusal> {
        let listening: Vec<_> = self
            .sockets
            .iter()
            .filter_map(|socket| match socket {
                Socket::Endpoint(endpoint) => endpoint.listens(),
                _ => None,
            })
            .collect();
        let mut ends = std::mem::take(&mut self.streams);
        while let Some((_, end)) = ends.pop_first() {
            let peer = end.1.peer.and_then(|peer| ends.remove(&u64::from(peer)));
            let pair = guest.pair(end, peer, &listening);
            self.push(pair.0, pair.1)?;
        }
        Ok(())
    }

    fn join_connections(&mut self, guest: Guest<'_>) -> Result<(), Refusal> {
        let listening: Vec<u16> = self
            .sockets
            .iter()
            .filter_map(|socket| match socket {
                Socket::Endpoint(endpoint) => endpoint.listens_at_port(),
                _ => None,
            })
            .collect();
        let mut ends = std::mem::take(&mut self.connections);
        while let Some(end) = ends.pop() {
            let other = ends
                .iter()
                .position(|other| tcp::are_ends(&end.0, &other.0))
                .map(|index| ends.swap_remove(index));
            match other {
                Some(other) => {
                    let lost = guest.lost(&[&end.0, &other.0]);
                    let joined = Connection::capture(end, other, &listening, guest.files());
                    self.push(joined.map(|c| Socket::Connection(Box::new(c))), lost)?;
                }
                None => self.push(Err(end.0.connected()), guest.lost(&[&end.0]))?,
            }
        }
        Ok(())
    }

    fn join_datagrams(&mut self, guest: Guest<'_>) -> Result<(), Refusal> {
        let mut ends = std::mem::take(&mut self.datagrams);
        // Names of those that others are connected to.
        let mut names = BTreeMap::new();
        for (inode, (view, facts)) in &ends {
            if facts.named {
                names.insert(*inode, view.name()?);
            }
        }
        while let Some((inode, end)) = ends.pop_first() {
            let peer_inode = end.1.peer.map(u64::from);
            let peer_name = peer_inode.and_then(|peer| names.get(&peer).cloned());
            let mutual = peer_inode
                .and_then(|peer| ends.get(&peer))
                .is_some_and(|(_, facts)| facts.peer.map(u64::from) == Some(inode));
            if peer_inode.is_some() && peer_name.is_none() || mutual && !end.1.named {
                let peer = peer_inode.and_then(|peer| ends.remove(&peer));
                let pair = guest.pair(end, peer, &[]);
                self.push(pair.0, pair.1)?;
                continue;
            }
            let datagram = Datagram::unix(
                guest.process,
                end.0,
                &end.1,
                peer_name,
                guest.rebound,
                guest.files(),
            )?;
            self.sockets.push(Socket::Datagram(Box::new(datagram)));
        }
        let views = std::mem::take(&mut self.udp);
        let bound: Vec<Vec<u8>> = views.iter().filter_map(|view| view.name().ok()).collect();
        let inside = |peer: &[u8]| bound.iter().any(|name| address::reaches(peer, name));
        let anybody = guest.on_connection == OnConnection::Reset;
        for view in views {
            let datagram = Datagram::udp(view, &inside, anybody, guest.files())?;
            self.sockets.push(Socket::Datagram(Box::new(datagram)));
        }
        Ok(())
    }
}

impl<'a> Guest<'a> {
    fn files(self) -> Files<'a> {
        Files {
            process: self.process,
            open: self.open,
        }
    }

    /// What is in the place of connections to the outside, if there is to be
    /// anything.
    fn lost(self, views: &[&View]) -> Vec<Lost> {
        match self.on_connection {
            OnConnection::Skip => Vec::new(),
            OnConnection::Reset => views.iter().map(|view| Lost::of(view)).collect(),
        }
    }

    fn pair(
        self,
        first: (View, UnixFacts),
        second: Option<(View, UnixFacts)>,
        listening: &[pair::Listens],
    ) -> (Result<Socket, Refusal>, Vec<Lost>) {
        let views: Vec<&View> = std::iter::once(&first)
            .chain(&second)
            .map(|(view, _)| view)
            .collect();
        let lost = self.lost(&views);
        let around = Around {
            process: self.process,
            files: self.files(),
            listening,
            rebound: self.rebound,
        };
        let pair = Pair::capture(first, second, around);
        (pair.map(|pair| Socket::Pair(Box::new(pair))), lost)
    }
}
