//! Input that cannot be read twice, given to the guest through a pipe of forkmon's:
//! a thread reads it, keeps it, and writes it into the pipe, as much as there is
//! room for. After a rewind it goes on from what the guest had read by then.

use super::record::Record;
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::io::Errno;
use rustix::pipe::{PIPE_BUF, PipeFlags, fcntl_getpipe_size, pipe_with};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Feeds the guest.
pub(super) struct Feeder {
    state: Mutex<State>,
    /// Written when the thread has something to look at.
    wake: OwnedFd,
    /// The guest's end of the pipe, and its flags to begin with.
    guest: OwnedFd,
    flags: OFlags,
    lost: Box<dyn Fn(&io::Error) + Send + Sync>,
}

struct State {
    record: Record,
    /// How much of it was written into the pipe for this run.
    fed: u64,
    /// The other end of the pipe; the guest sees the end of its input without it.
    writer: Option<Arc<File>>,
    /// The input has come to its end.
    ended: bool,
    /// Some of it was given to a run and could not be kept.
    is_lost: bool,
}

/// What the thread does next.
enum Next {
    /// Waits for room in the pipe, to write into it what is kept.
    Feed(Arc<File>),
    /// Waits for room in the pipe, and then for input.
    Fetch(Arc<File>),
    /// Waits for a rewind.
    Rest,
}

impl Feeder {
    /// Begins to read the input. `lost` is called if some of it cannot be kept.
    pub(super) fn start(
        source: OwnedFd,
        lost: Box<dyn Fn(&io::Error) + Send + Sync>,
    ) -> io::Result<Arc<Self>> {
        let (guest, writer) = pipe_with(PipeFlags::CLOEXEC)?;
        fcntl_setfl(&writer, fcntl_getfl(&writer)? | OFlags::NONBLOCK)?;
        let feeder = Arc::new(Self {
            state: Mutex::new(State {
                record: Record::default(),
                fed: 0,
                writer: Some(Arc::new(File::from(writer))),
                ended: false,
                is_lost: false,
            }),
            wake: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
            flags: fcntl_getfl(&guest)?,
            guest,
            lost,
        });
        let thread = Arc::clone(&feeder);
        std::thread::Builder::new()
            .name("input".into())
            .spawn(move || thread.run(&File::from(source)))?;
        Ok(feeder)
    }

    /// The end that the guest reads from.
    pub(super) fn guest_end(&self) -> BorrowedFd<'_> {
        self.guest.as_fd()
    }

    /// How much the run has read, which must stand still.
    pub(super) fn position(&self) -> u64 {
        let state = self.lock();
        state.fed.saturating_sub(self.unread())
    }

    /// The run is dead, and the next one has read so much.
    ///
    /// # Errors
    ///
    /// When what comes next is not there any more.
    pub(super) fn rewind(&self, position: u64) -> io::Result<()> {
        let mut state = self.lock();
        if state.is_lost {
            return Err(io::Error::other(
                "the program's input could not be kept when it came",
            ));
        }
        self.empty()?;
        state.fed = position;
        if state.writer.is_none() {
            let writer = File::options()
                .write(true)
                .custom_flags(OFlags::NONBLOCK.bits() as i32)
                .open(self.in_proc())?;
            state.writer = Some(Arc::new(writer));
        }
        if position == 0 {
            // A copy gets its flags back from its checkpoint.
            fcntl_setfl(&self.guest, self.flags)?;
        }
        drop(state);
        // A counter that cannot be raised any further is awake already.
        let _ = rustix::io::write(&self.wake, &1_u64.to_ne_bytes());
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn in_proc(&self) -> String {
        format!("/proc/self/fd/{}", self.guest.as_raw_fd())
    }

    /// How many bytes are in the pipe.
    fn unread(&self) -> u64 {
        rustix::io::ioctl_fionread(&self.guest).unwrap_or(0)
    }

    /// Takes out of the pipe what the dropped run has not read. By another open file
    /// description: that of the guest may be one that blocks.
    fn empty(&self) -> io::Result<()> {
        let mut reader = File::options()
            .read(true)
            .custom_flags(OFlags::NONBLOCK.bits() as i32)
            .open(self.in_proc())?;
        let mut left = self.unread();
        let mut piece = vec![0; 64 * 1024];
        while left > 0 {
            match reader.read(&mut piece) {
                Ok(count @ 1..) => left = left.saturating_sub(count as u64),
                Ok(0) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn run(&self, source: &File) {
        loop {
            let next = self.lock().next();
            match next {
                Next::Rest => self.wait(&[]),
                Next::Feed(writer) => {
                    self.wait(&[PollFd::new(&writer, PollFlags::OUT)]);
                    self.lock().feed();
                }
                Next::Fetch(writer) => {
                    if !is_ready(&writer, PollFlags::OUT) {
                        self.wait(&[PollFd::new(&writer, PollFlags::OUT)]);
                    } else if is_ready(source, PollFlags::IN) {
                        self.fetch(source);
                    } else {
                        self.wait(&[PollFd::new(source, PollFlags::IN)]);
                    }
                }
            }
        }
    }

    /// Waits for one of these or a rewind.
    fn wait(&self, fds: &[PollFd<'_>]) {
        let mut fds = fds.to_vec();
        fds.push(PollFd::new(&self.wake, PollFlags::IN));
        // An interrupted wait is as good as one that has ended.
        let _ = poll(&mut fds, None);
        let _ = rustix::io::read(&self.wake, &mut [0; 8]);
    }

    /// Reads what is there, no more than there is room for in the pipe: whoever reads
    /// the input after forkmon finds the rest.
    fn fetch(&self, mut source: &File) {
        let room = match self.unread() {
            0 => fcntl_getpipe_size(&self.guest).unwrap_or(PIPE_BUF),
            // A pipe that can be written to has room for so much.
            _ => PIPE_BUF,
        };
        let mut bytes = vec![0; room];
        let count = match source.read(&mut bytes) {
            Ok(count) => count,
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock
                ) =>
            {
                return;
            }
            // One that is broken has nothing more to give.
            Err(_) => 0,
        };
        let mut state = self.lock();
        if count == 0 {
            state.ended = true;
            return;
        }
        let bytes = &bytes[..count];
        let failure = match state.is_lost {
            // Its place would be after a gap.
            true => Some(None),
            false => state.record.push(bytes).err().map(Some),
        };
        if let Some(error) = failure {
            state.is_lost = true;
            let writer = state.writer.clone();
            drop(state);
            if let Some(error) = error {
                (self.lost)(&error);
            }
            if let Some(writer) = writer {
                pass_on(&writer, bytes);
            }
            return;
        }
        state.feed();
    }
}

impl State {
    fn next(&mut self) -> Next {
        let is_fed = self.fed == self.record.end();
        if is_fed && self.ended {
            self.writer = None;
        }
        match &self.writer {
            None => Next::Rest,
            Some(writer) if is_fed => Next::Fetch(Arc::clone(writer)),
            Some(writer) => Next::Feed(Arc::clone(writer)),
        }
    }

    /// Writes as much as there is room for.
    fn feed(&mut self) {
        let Some(writer) = &self.writer else {
            return;
        };
        while self.fed < self.record.end() {
            let Ok(bytes) = self.record.read(self.fed, 64 * 1024) else {
                // The file cannot be read: nothing true can follow.
                self.is_lost = true;
                self.ended = true;
                self.fed = self.record.end();
                return;
            };
            match (&**writer).write(&bytes) {
                Ok(count) => self.fed += count as u64,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return,
            }
        }
    }
}

/// Writes what is not kept, however long that takes.
fn pass_on(writer: &File, mut bytes: &[u8]) {
    while !bytes.is_empty() {
        match rustix::io::write(writer, bytes) {
            Ok(count) => bytes = &bytes[count..],
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => {
                let _ = poll(&mut [PollFd::new(writer, PollFlags::OUT)], None);
            }
            Err(_) => return,
        }
    }
}

fn is_ready(file: &File, events: PollFlags) -> bool {
    let mut fds = [PollFd::new(file, events)];
    poll(&mut fds, Some(&Timespec::default())).is_ok_and(|ready| ready > 0)
}
