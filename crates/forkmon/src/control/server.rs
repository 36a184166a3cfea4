//! The listening end: a thread that waits for clients, reads their lines, and
//! hands each request over, without knowing what it leads to.
//!
//! A client may send nothing, or half a line, or far too much, and come back a
//! thousand times. So one thread serves all connections and never waits for one
//! of them; of those that wait for nothing only so many are kept, the newest;
//! and only so many requests are in the works at a time, each with a thread that
//! waits for its answer, since that may take as long as it takes.
//!
//! Who may connect is settled by the modes of the socket and its folder, and once
//! more by asking the kernel who is there, for a socket in an open folder.

use std::collections::VecDeque;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::mpsc::channel;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::fs::Mode;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use super::protocol::{MAX_LINE, Malformed};
use super::{Asked, Place, Reply, Request};

/// How many connections are kept that have no request in the works.
const MAX_IDLE: usize = 64;

/// How many requests are in the works at a time.
const MAX_ASKED: usize = 16;

/// Connections that wait to be accepted.
const BACKLOG: i32 = 128;

/// How long a client may take to read its answer.
const WRITE_TIME: Duration = Duration::from_secs(2);

/// How long the answers that forkmon gave before its end may take to be sent.
const FAREWELL: Duration = Duration::from_millis(200);

/// After accepting failed, for want of descriptors above all.
const RETRY: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 100_000_000,
};

/// How often the folder is made again after another forkmon has removed it.
const ATTEMPTS: u32 = 100;

/// Listens until it is dropped, which removes the socket, and the folder that
/// was made for it if it is empty.
///
/// Drop it after whatever holds [`Asked`]s: it waits a moment for answers.
#[derive(Debug)]
pub struct Server {
    place: Place,
    /// The socket's device and inode.
    made: (u64, u64),
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

/// What the threads share.
#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// `state.asked` went down.
    answered: Condvar,
    /// Wakes the listening thread.
    wake: OwnedFd,
}

#[derive(Debug, Default)]
struct State {
    over: bool,
    /// Requests in the works.
    asked: usize,
    /// Connections whose requests were answered.
    returned: Vec<Connection>,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake(&self) {
        // Fails only if it was rung 2⁶⁴ times, and then it is awake.
        let _ = rustix::io::write(&self.wake, &1_u64.to_ne_bytes());
    }
}

impl Server {
    /// Begins to listen. Each request is given to `deliver`, from any thread.
    ///
    /// # Errors
    ///
    /// When the socket cannot be made; the error tells the path and the remedy.
    pub fn start(
        place: Place,
        deliver: impl Fn(Asked) + Send + Sync + 'static,
    ) -> anyhow::Result<Self> {
        let listener = listen(&place)?;
        // From here on the socket is removed if something fails.
        let found = place.path().symlink_metadata();
        let made = found.map(|found| (found.dev(), found.ino()));
        let mut server = Self {
            made: made
                .with_context(|| format!("cannot look at the socket {}", place.path().display()))?,
            place,
            shared: Arc::new(Shared {
                state: Mutex::default(),
                answered: Condvar::new(),
                wake: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
                    .context("cannot make an eventfd")?,
            }),
            thread: None,
        };
        let desk = Desk {
            listener,
            shared: Arc::clone(&server.shared),
            deliver: Arc::new(deliver),
            idle: VecDeque::new(),
            rests: false,
        };
        let thread = std::thread::Builder::new().name("control".into());
        let spawned = thread.spawn(move || desk.serve());
        server.thread = Some(spawned.context("cannot start a thread")?);
        Ok(server)
    }

    /// The path of the socket.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.place.path()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.place.remove(self.made);
        self.shared.state().over = true;
        self.shared.wake();
        if let Some(thread) = self.thread.take() {
            // It waits for nobody. Its panic would have ended the process.
            let _ = thread.join();
        }
        let until = Instant::now() + FAREWELL;
        let mut state = self.shared.state();
        while state.asked > 0
            && let Some(left) = until.checked_duration_since(Instant::now())
        {
            let waited = self.shared.answered.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// A socket that listens, with nobody but its owner allowed from the beginning.
fn listen(place: &Place) -> anyhow::Result<UnixListener> {
    let path = place.path();
    let told = || format!("cannot make the control socket {}", path.display());
    let address = SocketAddrUnix::new(path).with_context(told)?;
    for _ in 0..ATTEMPTS {
        place.prepare()?;
        place.clear()?;
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)
            .with_context(told)?;
        // The file gets the modes that the socket had before it was bound.
        rustix::fs::fchmod(&socket, Mode::RUSR | Mode::WUSR).with_context(told)?;
        match rustix::net::bind(&socket, &address) {
            Ok(()) => {}
            // Another forkmon has ended, and found the folder empty; or one has
            // begun, by the same name, which the next look will tell.
            Err(Errno::NOENT) if place.is_own() => continue,
            Err(Errno::ADDRINUSE) => continue,
            Err(error) => return Err(error).with_context(told),
        }
        // Whatever the umask has taken away: the owner is to connect.
        rustix::fs::chmod(path, Mode::RUSR | Mode::WUSR).with_context(told)?;
        rustix::net::listen(&socket, BACKLOG).with_context(told)?;
        return Ok(UnixListener::from(socket));
    }
    anyhow::bail!("{}: its folder comes and goes", told())
}

/// One client.
#[derive(Debug)]
struct Connection {
    stream: UnixStream,
    received: Vec<u8>,
}

/// What the listening thread works with.
struct Desk<D> {
    listener: UnixListener,
    shared: Arc<Shared>,
    deliver: Arc<D>,
    /// Connections with no request in the works, the oldest first.
    idle: VecDeque<Connection>,
    /// Accepting has failed, and is not to be tried for a while.
    rests: bool,
}

impl<D: Fn(Asked) + Send + Sync + 'static> Desk<D> {
    fn serve(mut self) {
        loop {
            let mut returned = {
                let mut state = self.shared.state();
                if state.over {
                    return;
                }
                std::mem::take(&mut state.returned)
            };
            for connection in returned.drain(..) {
                // More requests may have come with the one that was answered.
                self.take_lines(connection);
            }
            self.drop_oldest();
            let ready = self.wait();
            let connections = std::mem::take(&mut self.idle);
            for (connection, ready) in connections.into_iter().zip(ready) {
                if ready {
                    self.read(connection);
                } else {
                    self.idle.push_back(connection);
                }
            }
            self.accept();
        }
    }

    /// Waits until something has come; which of the connections have.
    fn wait(&mut self) -> Vec<bool> {
        let mut watched = vec![PollFd::new(&self.shared.wake, PollFlags::IN)];
        let first = if self.rests { 1 } else { 2 };
        if !self.rests {
            watched.push(PollFd::new(&self.listener, PollFlags::IN));
        }
        let streams = self.idle.iter().map(|connection| &connection.stream);
        watched.extend(streams.map(|stream| PollFd::new(stream, PollFlags::IN)));
        // A signal only makes for one more round.
        let _ = poll(&mut watched, self.rests.then_some(&RETRY));
        self.rests = false;
        let ready = watched[first..].iter().map(|fd| !fd.revents().is_empty());
        let ready = ready.collect();
        let _ = rustix::io::read(&self.shared.wake, &mut [0; 8]);
        ready
    }

    fn accept(&mut self) {
        for _ in 0..MAX_IDLE {
            match self.listener.accept() {
                Ok((stream, _)) => {
                    // Not inherited from the listener on Linux.
                    if is_allowed(&stream) && stream.set_nonblocking(true).is_ok() {
                        // What it has sent already counts before it may be
                        // dropped in favour of a newer one.
                        self.read(Connection {
                            stream,
                            received: Vec::new(),
                        });
                        self.drop_oldest();
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(_) => {
                    self.idle.clear();
                    self.rests = true;
                    return;
                }
            }
        }
    }

    fn drop_oldest(&mut self) {
        while self.idle.len() > MAX_IDLE {
            self.idle.pop_front();
        }
    }

    /// Takes what a client has sent, and no more than a line may have.
    fn read(&mut self, mut connection: Connection) {
        let room = MAX_LINE + 1 - connection.received.len().min(MAX_LINE);
        let mut part = vec![0; room];
        match connection.stream.read(&mut part) {
            // It has hung up. Half a line is no request.
            Ok(0) => {}
            Ok(count) => {
                connection.received.extend_from_slice(&part[..count]);
                self.take_lines(connection);
            }
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
                ) =>
            {
                self.idle.push_back(connection);
            }
            Err(_) => {}
        }
    }

    /// Takes a client's requests, up to one that must be waited for.
    fn take_lines(&mut self, mut connection: Connection) {
        loop {
            let end = connection.received.iter().position(|byte| *byte == b'\n');
            let Some(end) = end else {
                if connection.received.len() > MAX_LINE {
                    refuse(&connection, "malformed", &Malformed::too_long().to_string());
                    return;
                }
                self.idle.push_back(connection);
                return;
            };
            let line: Vec<u8> = connection.received.drain(..=end).collect();
            let open = match Request::parse(&line) {
                Ok(request) => match self.ask(connection, request) {
                    Some(busy) => {
                        connection = busy;
                        let message = "too many requests wait for their answers; try again";
                        refuse(&connection, "busy", message)
                    }
                    None => return,
                },
                Err(error) => refuse(&connection, "malformed", &error.to_string()),
            };
            if !open {
                return;
            }
        }
    }

    /// Hands a request over. The connection comes back at once if there are too
    /// many already, and otherwise with the answer.
    fn ask(&self, connection: Connection, request: Request) -> Option<Connection> {
        {
            let mut state = self.shared.state();
            if state.asked >= MAX_ASKED {
                return Some(connection);
            }
            state.asked += 1;
        }
        let shared = Arc::clone(&self.shared);
        let deliver = Arc::clone(&self.deliver);
        // Kept here too, for the case that there is no thread.
        let passed = Arc::new(Mutex::new(Some(connection)));
        let kept = Arc::clone(&passed);
        let take = |place: &Mutex<Option<Connection>>| {
            let mut place = place.lock().unwrap_or_else(PoisonError::into_inner);
            place.take()
        };
        let thread = std::thread::Builder::new().name("answer".into());
        let spawned = thread.spawn(move || {
            let returned = take(&passed).and_then(|connection| {
                let (answer, answered) = channel();
                deliver(Asked { request, answer });
                // An error says that forkmon ends: the client sees the end of
                // the connection.
                let reply = answered.recv().ok()?;
                send(&connection.stream, &reply).ok()?;
                Some(connection)
            });
            let mut state = shared.state();
            state.asked -= 1;
            state.returned.extend(returned);
            drop(state);
            shared.answered.notify_all();
            shared.wake();
        });
        if spawned.is_err() {
            self.shared.state().asked -= 1;
            return take(&kept);
        }
        None
    }
}

/// Whether this user, or root, is at the other end.
fn is_allowed(stream: &UnixStream) -> bool {
    rustix::net::sockopt::socket_peercred(stream).is_ok_and(|peer| {
        // A socket's peer is the one that has connected (unix(7)).
        peer.uid == rustix::process::geteuid() || peer.uid.is_root()
    })
}

/// Sends an answer, within a time.
fn send(stream: &UnixStream, reply: &Reply) -> io::Result<()> {
    let line = reply.to_line();
    let until = Instant::now() + WRITE_TIME;
    let mut left = line.as_bytes();
    let mut writer = stream;
    while !left.is_empty() {
        match writer.write(left) {
            Ok(count) => left = &left[count..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                let time = until.checked_duration_since(Instant::now());
                let time = time.ok_or(io::ErrorKind::TimedOut)?;
                let time = Timespec::try_from(time).map_err(io::Error::other)?;
                let _ = poll(
                    &mut [PollFd::new(&stream.as_fd(), PollFlags::OUT)],
                    Some(&time),
                );
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Tells a client that nothing was done, without waiting for it. Whether it has
/// room for the answer; if not it does not read, and is let go.
fn refuse(connection: &Connection, code: &str, message: &str) -> bool {
    let line = Reply::refused(code, message).to_line();
    let mut writer = &connection.stream;
    writer
        .write(line.as_bytes())
        .is_ok_and(|count| count == line.len())
}
