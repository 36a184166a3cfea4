//! Hashing files, off the guest's way.

use rustix::fs::{Mode, OFlags};
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use timeline::{Fingerprint, Identity};

/// The largest file that is hashed. A larger one counts as changed with its
/// size or times.
const LARGEST: u64 = 256 << 20;

/// What a file is by its metadata.
pub(super) fn identity(metadata: &std::fs::Metadata) -> Identity {
    let time = |seconds: i64, nanoseconds: i64| {
        i128::from(seconds) * 1_000_000_000 + i128::from(nanoseconds)
    };
    Identity {
        device: metadata.dev(),
        inode: metadata.ino(),
        size: metadata.size(),
        mtime_ns: time(metadata.mtime(), metadata.mtime_nsec()),
        ctime_ns: time(metadata.ctime(), metadata.ctime_nsec()),
    }
}

/// Opens a file for reading. A FIFO or a device that has taken its place blocks
/// nobody.
pub(super) fn open_unblocked(path: &Path) -> std::io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    Ok(File::from(rustix::fs::open(path, flags, Mode::empty())?))
}

/// The hash of a regular file, with what it was while it was read; `None` if it
/// changed meanwhile, is too large, or cannot be read.
pub(super) fn of_file(path: &Path) -> Option<(Identity, Fingerprint)> {
    let file = open_unblocked(path).ok()?;
    let mut hasher = blake3::Hasher::new();
    let identity = read_stable(&file, LARGEST, |piece| {
        hasher.update(piece);
    })?;
    Some((identity, *hasher.finalize().as_bytes()))
}

/// The bytes of a regular file, with what it was while it was read; `None` if it
/// changed meanwhile, is larger than `limit`, or cannot be read.
pub(super) fn bytes_of(path: &Path, limit: u64) -> Option<(Identity, Vec<u8>)> {
    let file = open_unblocked(path).ok()?;
    let mut bytes = Vec::new();
    let identity = read_stable(&file, limit, |piece| bytes.extend_from_slice(piece))?;
    Some((identity, bytes))
}

fn read_stable(mut file: &File, limit: u64, mut take: impl FnMut(&[u8])) -> Option<Identity> {
    let before = file.metadata().ok()?;
    if !before.is_file() || before.len() > limit {
        return None;
    }
    let mut piece = vec![0; 1 << 16];
    loop {
        match file.read(&mut piece).ok()? {
            0 => break,
            n => take(&piece[..n]),
        }
    }
    let identity = identity(&before);
    (self::identity(&file.metadata().ok()?) == identity).then_some(identity)
}

/// What the thread is told to do.
enum Task {
    Hash(PathBuf),
    /// To tell that it has done all that it was told before.
    Tell(Box<dyn FnOnce() + Send>),
}

/// A thread that hashes what it is told to.
#[derive(Debug)]
pub(super) struct Hasher {
    requests: Sender<Task>,
    results: Receiver<(PathBuf, Identity, Fingerprint)>,
}

impl Hasher {
    /// `idle` is called each time when all that was asked for is done.
    pub(super) fn start(idle: impl Fn() + Send + 'static) -> std::io::Result<Self> {
        let (requests, todo) = channel::<Task>();
        let (done, results) = channel();
        std::thread::Builder::new()
            .name("hash".into())
            .spawn(move || {
                while let Ok(first) = todo.recv() {
                    for task in std::iter::once(first).chain(todo.try_iter()) {
                        match task {
                            Task::Hash(path) => {
                                if let Some((identity, fingerprint)) = of_file(&path) {
                                    // Nobody may want it any more while forkmon ends.
                                    let _ = done.send((path, identity, fingerprint));
                                }
                            }
                            Task::Tell(call) => call(),
                        }
                    }
                    idle();
                }
            })?;
        Ok(Self { requests, results })
    }

    /// Has a file hashed some time.
    pub(super) fn ask(&self, path: &Path) {
        // If the thread is gone the file has no hash, and any new time of it
        // counts as a change.
        let _ = self.requests.send(Task::Hash(path.to_owned()));
    }

    /// Calls `then` on the thread when all that was asked for before is done.
    pub(super) fn after_those(&self, then: impl FnOnce() + Send + 'static) {
        // The thread lives as long as this does.
        let _ = self.requests.send(Task::Tell(Box::new(then)));
    }

    /// What has been hashed since the last time.
    pub(super) fn done(&self) -> impl Iterator<Item = (PathBuf, Identity, Fingerprint)> {
        self.results.try_iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn same_bytes_have_the_same_hash_and_a_folder_has_none() {
        let folder = tempfile::tempdir().unwrap();
        let (a, b) = (folder.path().join("a"), folder.path().join("b"));
        std::fs::write(&a, "same").unwrap();
        std::fs::write(&b, "same").unwrap();
        let (of_a, hash_a) = of_file(&a).unwrap();
        let (of_b, hash_b) = of_file(&b).unwrap();
        assert_ne!(of_a, of_b);
        assert_eq!(hash_a, hash_b);
        std::fs::write(&b, "other").unwrap();
        assert_ne!(of_file(&b).unwrap().1, hash_a);
        assert_eq!(of_file(folder.path()), None);
        assert_eq!(of_file(&folder.path().join("missing")), None);
    }
}
