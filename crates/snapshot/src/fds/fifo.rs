//! A FIFO with all its ends inside the guest. It has one name for all runs, so
//! that it is opened again only when the run before is dead.

use super::Entry;
use super::pipe::{access, has_packets, open, set_rest};
use super::source::Source;
use crate::Refusal;
use crate::sys::{self, PipeContents};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::PathBuf;
use tracee::Remote;

/// A FIFO, as it was.
#[derive(Clone, Debug)]
pub(super) struct Fifo {
    path: PathBuf,
    device: u64,
    inode: u64,
    /// The fds of each open file description.
    descriptions: Vec<Vec<Entry>>,
    contents: PipeContents,
    packets: bool,
    capacity: i32,
    /// It was opened for reading before anybody has opened it for writing, and
    /// does not show that nobody has.
    expects_writer: bool,
}

/// The longest path that is passed to a copy.
const LONGEST: usize = 2000;

impl Fifo {
    pub(super) fn capture(
        source: &Source,
        path: PathBuf,
        descriptions: Vec<Vec<Entry>>,
    ) -> Result<Self, Refusal> {
        let (device, inode) = (descriptions[0][0].device, descriptions[0][0].inode);
        let refuse = |what: &str| {
            let path = path.display();
            Err(Refusal::unsupported(
                "fifo",
                format!("the FIFO {path} is open, and {what}"),
            ))
        };
        if !leads_to(&path, device, inode) || path.as_os_str().len() > LONGEST {
            return refuse("cannot be found by its name any more");
        }
        let step = "look into a FIFO";
        let end = |wanted: i32| {
            descriptions
                .iter()
                .find(|entries| [wanted, libc::O_RDWR].contains(&access(entries)))
        };
        let (capacity, contents, mut expects_writer) = match end(libc::O_RDONLY) {
            None => {
                let handle = source.duplicate(descriptions[0][0].fd)?;
                if !ready(&handle, step)?.contains(PollFlags::ERR) {
                    return refuse("another program reads from it");
                }
                let waiting = rustix::io::ioctl_fionread(&handle).unwrap_or(u64::MAX);
                if waiting > 0 {
                    return refuse("holds what nobody reads");
                }
                let capacity = rustix::pipe::fcntl_getpipe_size(&handle)
                    .map_err(|e| Refusal::proc(step)(e.into()))?;
                (capacity as i32, Vec::new(), false)
            }
            Some(reader) => {
                let handle = source.duplicate(reader[0].fd)?;
                let hung_up = ready(&handle, step)?.contains(PollFlags::HUP);
                let file = File::from(handle);
                let (capacity, contents) = sys::peek_pipe(&file).map_err(Refusal::proc(step))?;
                (capacity, contents, !hung_up)
            }
        };
        if end(libc::O_WRONLY).is_some() {
            expects_writer = false;
        } else if expects_writer && let Some(reader) = end(libc::O_RDONLY) {
            let handle = source.duplicate(reader[0].fd)?;
            let written = !contents.is_empty()
                || sys::empty_pipe_has_writer(handle.as_fd()).map_err(Refusal::proc(step))?;
            if written {
                return refuse("another program writes to it");
            }
        }
        Ok(Self {
            packets: has_packets(&descriptions, &contents),
            path,
            device,
            inode,
            descriptions,
            contents,
            capacity,
            expects_writer,
        })
    }

    pub(super) fn restore(&self, remote: &mut Remote<'_>, above: i32) -> Result<(), Refusal> {
        let failed = |e: io::Error| {
            let path = self.path.display();
            Refusal::unsupported(
                "fifo",
                format!("the FIFO {path} cannot be opened again: {e}"),
            )
        };
        // While this is open no opening of an end waits for another.
        let both = self.hold().map_err(failed)?;
        for entries in &self.descriptions {
            let flags = access(entries) | libc::O_NONBLOCK;
            let fresh = match open(remote, self.path.as_os_str().as_bytes(), flags) {
                Err(Refusal::Failed(tracee::Error::Call { source, .. })) => {
                    return Err(failed(source));
                }
                answer => answer?,
            };
            fresh.settle(remote, above, entries)?;
            set_rest(remote, entries, flags)?;
        }
        drop(both);
        Ok(())
    }

    /// Opens it for reading and writing, which nobody else may have done, and
    /// fills it.
    fn hold(&self) -> io::Result<Option<File>> {
        let others = || io::Error::other("another program has it open");
        if !leads_to(&self.path, self.device, self.inode) {
            return Err(io::Error::other("it is another file now"));
        }
        let mut options = OpenOptions::new();
        options.custom_flags(libc::O_NONBLOCK);
        match options.clone().write(true).open(&self.path) {
            Err(e) if e.raw_os_error() == Some(libc::ENXIO) => {}
            Err(e) => return Err(e),
            Ok(_) => return Err(others()),
        }
        let mut reader = options.clone().read(true).open(&self.path)?;
        match reader.read(&mut [0]) {
            Ok(0) => {}
            Ok(_) => return Err(others()),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Err(others()),
            Err(e) => return Err(e),
        }
        if self.expects_writer {
            return Ok(None);
        }
        let mut both = options.read(true).write(true).open(&self.path)?;
        drop(reader);
        sys::set_pipe_capacity(&both, self.capacity)?;
        if self.packets && !self.contents.is_empty() {
            let flags = rustix::fs::OFlags::NONBLOCK | rustix::fs::OFlags::DIRECT;
            rustix::fs::fcntl_setfl(&both, flags)?;
        }
        for piece in &self.contents {
            both.write_all(piece)?;
        }
        Ok(Some(both))
    }
}

fn leads_to(path: &std::path::Path, device: u64, inode: u64) -> bool {
    fs::symlink_metadata(path)
        .is_ok_and(|m| m.file_type().is_fifo() && (m.dev(), m.ino()) == (device, inode))
}

fn ready(handle: impl AsFd, step: &'static str) -> Result<PollFlags, Refusal> {
    let mut polled = [PollFd::new(&handle, PollFlags::IN | PollFlags::OUT)];
    poll(&mut polled, Some(&Timespec::default())).map_err(|e| Refusal::proc(step)(e.into()))?;
    Ok(polled[0].revents())
}
