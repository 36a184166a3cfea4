//! The names that sockets are bound to, and how a copy gets them back. A path
//! is the delicate one: binding makes a file, so the file of the run before has
//! to go first, and nothing but that file may.

use super::address;
use crate::{Refusal, sys};
use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::{self, Metadata};
use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, lchown};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;
use tracee::{Remote, Tid};

/// Tells a file from another that has its inode number later.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
struct Identity {
    device: u64,
    inode: u64,
    /// Where the file system keeps it.
    born: Option<SystemTime>,
}

impl Identity {
    fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            born: metadata.created().ok(),
        }
    }
}

/// The files that were made by binding sockets anew, for all copies of a guest:
/// an image that is older than such a file knows by this that it is the
/// guest's own.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rebound(Arc<Mutex<HashMap<PathBuf, Identity>>>);

impl Rebound {
    fn is_of(&self, path: &Path, identity: Identity) -> bool {
        // The map is whole after each change, whoever panicked.
        let map = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        map.get(path) == Some(&identity)
    }

    fn insert(&self, path: &Path, identity: Identity) {
        let mut map = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        map.insert(path.into(), identity);
    }
}

/// A name of the file system.
#[derive(Clone, Debug)]
pub(super) struct FileName {
    path: PathBuf,
    identity: Identity,
    mode: u32,
    owner: (u32, u32),
    rebound: Rebound,
}

/// What a socket is bound to.
#[derive(Clone, Debug)]
pub(super) struct Name {
    address: Vec<u8>,
    file: Option<FileName>,
}

impl Name {
    /// An address that nothing is kept of by the file system.
    pub(super) fn plain(address: Vec<u8>) -> Self {
        Self {
            address,
            file: None,
        }
    }

    /// The address of a Unix socket. `file` is what the kernel says of the file
    /// that it is bound to.
    pub(super) fn unix(
        process: Tid,
        address: Vec<u8>,
        file: Option<u32>,
        rebound: &Rebound,
    ) -> Result<Self, Refusal> {
        let name = address::unix_name(&address);
        if name.first() == Some(&0) {
            return Ok(Self::plain(address));
        }
        let mut path = PathBuf::from(OsStr::from_bytes(name));
        if path.is_relative() {
            let folder = fs::read_link(format!("/proc/{process}/cwd"))
                .map_err(Refusal::proc("read the guest's working folder"))?;
            path = folder.join(path);
        }
        let metadata = fs::symlink_metadata(&path).ok().filter(|m| {
            // The kernel tells the low half of the number.
            m.file_type().is_socket() && file == Some(m.ino() as u32)
        });
        let Some(metadata) = metadata else {
            return Err(Refusal::unsupported(
                "socket",
                format!(
                    "a Unix socket is bound to {}, which is not there any more",
                    address::describe(&address)
                ),
            ));
        };
        Ok(Self {
            file: Some(FileName {
                identity: Identity::of(&metadata),
                mode: metadata.mode() & 0o7777,
                owner: (metadata.uid(), metadata.gid()),
                rebound: rebound.clone(),
                path,
            }),
            address,
        })
    }

    /// The address, as the kernel has it.
    pub(super) fn address(&self) -> &[u8] {
        &self.address
    }

    /// The file that it is, if it is one.
    pub(super) fn file(&self) -> Option<&Path> {
        self.file.as_ref().map(|file| file.path.as_path())
    }

    /// Makes room for a file to be bound to.
    pub(super) fn clear(&self) -> Result<(), Refusal> {
        match &self.file {
            Some(file) => file
                .clear()
                .map_err(|why| Refusal::unsupported("socket-rebind", why)),
            None => Ok(()),
        }
    }

    pub(super) fn describe(&self) -> String {
        address::describe(&self.address)
    }

    /// Binds a copy's new socket. Names of the file system are made by the copy
    /// itself, with its own working folder and rights; for others this process
    /// acts on its duplicate, which keeps a privileged port open to a guest
    /// that has dropped its privileges since.
    pub(super) fn bind(
        &self,
        remote: &mut Remote<'_>,
        fd: i32,
        socket: BorrowedFd<'_>,
    ) -> Result<(), Refusal> {
        let Some(file) = &self.file else {
            return sys::socket::bind(socket, &self.address).map_err(|e| self.refusal(&e));
        };
        self.clear()?;
        let at = remote.scratch()?.0;
        remote.memory().write(at, &self.address)?;
        let bound = remote.call(
            "bind",
            libc::SYS_bind,
            &[fd as u64, at.0, self.address.len() as u64],
        );
        match bound {
            Ok(_) => file.dress().map_err(|e| self.refusal(&e)),
            Err(tracee::Error::Call { source, .. }) => Err(self.refusal(&source)),
            Err(e) => Err(e.into()),
        }
    }

    fn refusal(&self, source: &io::Error) -> Refusal {
        let hint = match source.raw_os_error() {
            Some(libc::EADDRINUSE) => {
                ": another program has it, or the last run's connections linger (a server that \
                 sets SO_REUSEADDR is free of those)"
            }
            _ => "",
        };
        Refusal::unsupported(
            "socket-rebind",
            format!("{} cannot be bound again: {source}{hint}", self.describe()),
        )
    }
}

impl FileName {
    /// Removes the file of the run before, if it is that.
    fn clear(&self) -> Result<(), String> {
        let path = self.path.display();
        let metadata = match fs::symlink_metadata(&self.path) {
            Ok(metadata) => metadata,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(e) => return Err(format!("{path} cannot be looked at: {e}")),
        };
        let identity = Identity::of(&metadata);
        let own = identity == self.identity || self.rebound.is_of(&self.path, identity);
        if !own || !metadata.file_type().is_socket() {
            return Err(format!(
                "{path} is not the guest's socket any more; move it away"
            ));
        }
        fs::remove_file(&self.path).map_err(|e| format!("{path} cannot be removed: {e}"))
    }

    /// Remembers the new file, and gives it the owner and mode of the former one.
    fn dress(&self) -> io::Result<()> {
        let metadata = fs::symlink_metadata(&self.path)?;
        if !metadata.file_type().is_socket() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        self.rebound.insert(&self.path, Identity::of(&metadata));
        if (metadata.uid(), metadata.gid()) != self.owner {
            let (user, group) = self.owner;
            lchown(&self.path, Some(user), Some(group))?;
        }
        if metadata.mode() & 0o7777 != self.mode {
            fs::set_permissions(&self.path, fs::Permissions::from_mode(self.mode))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixListener;

    fn own() -> Tid {
        Tid::new(rustix::process::getpid().as_raw_nonzero().get())
    }

    fn name(listener: &UnixListener, path: &Path, rebound: &Rebound) -> Result<Name, Refusal> {
        let address = sys::socket::local_name(listener.as_fd()).unwrap();
        let file = fs::symlink_metadata(path).ok().map(|m| m.ino() as u32);
        Name::unix(own(), address, file, rebound)
    }

    #[test]
    fn only_the_file_that_was_bound_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let rebound = Rebound::default();
        let listener = UnixListener::bind(&path).unwrap();
        let first = name(&listener, &path, &rebound).unwrap().file.unwrap();
        fs::rename(&path, folder.path().join("kept")).unwrap();
        fs::write(&path, "a person's").unwrap();
        let why = first.clear().unwrap_err();
        assert!(why.contains("move it away"), "{why}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "a person's");
        fs::remove_file(&path).unwrap();
        let _other = UnixListener::bind(&path).unwrap();
        first.clear().unwrap_err();
        assert!(path.exists(), "another program's socket stays");
        fs::rename(folder.path().join("kept"), &path).unwrap();
        first.clear().unwrap();
        assert!(!path.exists());
        first.clear().unwrap();
    }

    #[test]
    fn what_one_copy_bound_another_may_bind_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let rebound = Rebound::default();
        let listener = UnixListener::bind(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        let first = name(&listener, &path, &rebound).unwrap().file.unwrap();
        for _ in 0..3 {
            first.clear().unwrap();
            let _again = UnixListener::bind(&path).unwrap();
            first.dress().unwrap();
            assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o600);
        }
    }

    #[test]
    fn a_name_that_is_gone_is_a_refusal() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let listener = UnixListener::bind(&path).unwrap();
        fs::remove_file(&path).unwrap();
        let refusal = name(&listener, &path, &Rebound::default()).unwrap_err();
        assert_eq!(refusal.code(), "socket", "{refusal}");
    }
}
