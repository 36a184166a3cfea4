//! Where the socket of a forkmon is.

use std::path::{Path, PathBuf};

/// A socket's place.
#[derive(Debug, Clone)]
pub struct Place {
    path: PathBuf,
}

impl Place {
    /// The path of the socket.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}
