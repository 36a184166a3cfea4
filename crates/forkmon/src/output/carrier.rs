//! What carries the guest's output to forkmon: a pipe.
//!
//! Forkmon holds both ends for as long as it lives, so that every run and every
//! frozen copy has the same one, and nobody waits for its end.

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::pipe::{PipeFlags, fcntl_getpipe_size, pipe_with};
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;

/// Both ends, as they are made.
#[derive(Debug)]
pub(super) struct Carrier {
    /// Forkmon's, which never blocks.
    pub(super) reader: File,
    /// The guest's.
    pub(super) guest: OwnedFd,
}

impl Carrier {
    /// A pipe.
    pub(super) fn pipe() -> io::Result<Self> {
        let (reader, guest) = pipe_with(PipeFlags::CLOEXEC)?;
        fcntl_setfl(&reader, fcntl_getfl(&reader)? | OFlags::NONBLOCK)?;
        Ok(Self {
            reader: File::from(reader),
            guest,
        })
    }
}

/// The most that can be in a carrier: what was in it before is out of it when so
/// much was read.
pub(super) fn capacity(reader: &File) -> usize {
    // It fails for what is no pipe.
    fcntl_getpipe_size(reader).unwrap_or(0)
}
