//! What was fed to the guest, kept in a file without a name, so that any amount of
//! input takes no memory and goes with forkmon.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// The most that is kept: an endless input must not fill the disk.
const LIMIT: u64 = 1 << 30;

/// All input from its beginning on.
#[derive(Debug, Default)]
pub(super) struct Record {
    /// Made in the folder for temporary files when there is something to be kept.
    file: Option<File>,
    end: u64,
}

impl Record {
    /// How much there is.
    pub(super) fn end(&self) -> u64 {
        self.end
    }

    /// Adds what came next.
    ///
    /// # Errors
    ///
    /// When the limit is reached, or the file cannot be made or written to: there is
    /// no room left, as a rule.
    pub(super) fn push(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.end + bytes.len() as u64 > LIMIT {
            return Err(io::Error::other("it is more than 1 GiB"));
        }
        let file = match &mut self.file {
            Some(file) => file,
            none => none.insert(tempfile::tempfile()?),
        };
        file.write_all_at(bytes, self.end)?;
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
        if let Some(file) = &self.file {
            file.read_exact_at(&mut bytes, from)?;
        }
        Ok(bytes)
    }
}
