//! How many bytes the journal may hold, and how many it does; and when a file system
//! holds no more.

use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The room that all copies of one journal share.
#[derive(Debug)]
pub(crate) struct Room {
    limit: u64,
    used: AtomicU64,
}

/// A part of the room; free again when dropped.
#[derive(Debug)]
pub(crate) struct Share {
    room: Arc<Room>,
    bytes: u64,
}

impl Room {
    pub(crate) fn new(limit: u64) -> Arc<Room> {
        Arc::new(Room {
            limit,
            used: AtomicU64::new(0),
        })
    }

    /// In bytes.
    pub(crate) fn limit(&self) -> u64 {
        self.limit
    }

    /// Takes so many bytes of it, if there are.
    pub(crate) fn take(self: &Arc<Room>, bytes: u64) -> Option<Share> {
        let grown = |used: u64| used.checked_add(bytes).filter(|sum| *sum <= self.limit);
        let (set, fetch) = (Ordering::Relaxed, Ordering::Relaxed);
        self.used.fetch_update(set, fetch, grown).ok()?;
        Some(Share {
            room: self.clone(),
            bytes,
        })
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.room.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// An error that may be about a full file system.
pub(crate) trait NeedsRoom {
    fn needs_room(&self) -> bool;
}

impl NeedsRoom for io::Error {
    fn needs_room(&self) -> bool {
        matches!(
            self.kind(),
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_is_taken_than_there_is_and_what_is_given_back_can_be_had_again() {
        let room = Room::new(10);
        let first = room.take(6);
        assert!(first.is_some());
        assert!(room.take(5).is_none());
        assert!(room.take(u64::MAX).is_none());
        let second = room.take(4);
        assert!(second.is_some() && room.take(1).is_none());
        drop(first);
        assert!(room.take(6).is_some());
    }
}
