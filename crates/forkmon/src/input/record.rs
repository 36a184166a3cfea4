//! What was fed to the guest, kept in a file without a name, so that any amount of
//! input takes no memory and goes with forkmon.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// The most that is kept: an endless input must not fill the disk.
const LIMIT: u64 = 1 << 30;

/// All input from its beginning on.
#[derive(Debug)]
pub(super) struct Record {
    file: File,
    end: u64,
    /// Nothing was added since this happened.
    failure: Option<io::Error>,
}

impl Record {
    /// An empty one, in the folder for temporary files.
    ///
    /// # Errors
    ///
    /// When a file cannot be made there.
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self {
            file: tempfile::tempfile()?,
            end: 0,
            failure: None,
        })
    }

    /// How much there is.
    pub(super) fn end(&self) -> u64 {
        self.end
    }

    /// Adds what came next. Once that has failed, nothing is added any more.
    ///
    /// # Errors
    ///
    /// When the limit is reached, or the file cannot be written to: there is no room
    /// left, as a rule.
    pub(super) fn push(&mut self, bytes: &[u8]) -> io::Result<()> {
        if let Some(failure) = &self.failure {
            return Err(io::Error::new(failure.kind(), failure.to_string()));
        }
        let written = if self.end + bytes.len() as u64 > LIMIT {
            Err(io::Error::other("it is more than 1 GiB"))
        } else {
            self.file.write_all_at(bytes, self.end)
        };
        if let Err(failure) = written {
            let told = io::Error::new(failure.kind(), failure.to_string());
            self.failure = Some(failure);
            return Err(told);
        }
        self.end += bytes.len() as u64;
        Ok(())
    }

    /// Up to `most` bytes from a position on.
    ///
    /// # Errors
    ///
    /// When the file cannot be read.
    pub(super) fn read(&self, from: u64, most: usize) -> io::Result<Vec<u8>> {
        let left = self.end.saturating_sub(from);
        let length = most.min(usize::try_from(left).unwrap_or(usize::MAX));
        let mut bytes = vec![0; length];
        self.file.read_exact_at(&mut bytes, from)?;
        Ok(bytes)
    }
}
