//! The guardian: a small process that outlives forkmon by a moment, to remove
//! what forkmon keeps on disk when it could not do so itself (SIGKILL, be it from a
//! person or from the kernel when memory is short; a panic).
//!
//! It is this same program, started as `forkmon __guardian`, with the reading end
//! of a pipe as its standard input. Forkmon writes the absolute path of each store
//! and of its control socket into it, with a NUL at the end, and holds the only writing end: when forkmon
//! ends, in whatever way, the pipe ends, the guardian removes those of the folders
//! that are still there, and ends as well. In a normal end forkmon has removed
//! them itself, and nothing is left to do.
//!
//! Three things must hold for that:
//! - No guest may hold the writing end, or the pipe would end with the last guest
//!   only: it is close-on-exec, and frozen images close it.
//! - The guardian holds nothing of forkmon's: not its terminal, standard output
//!   or standard error (`forkmon … | cat` must see its end), nor anything else
//!   that it was started with.
//! - What ends forkmon does not end the guardian: it has a process group of its
//!   own, and ignores every signal that can be ignored.
//!
//! What it removes is only ever a folder with a name like forkmon's stores that
//! belongs to the same user, reached without following a symbolic link at the end
//! of the path or below it; or a socket of this user alone that nobody listens to; or an
//! empty folder: the one where files lie that may be somebody's stays with them.
//! It also puts the terminal's modes back, if they are still those that forkmon
//! had set to read keys.

use std::ffi::OsStr;
use std::io::{self, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags};

use crate::control::place;
use crate::keys::Memo;
use crate::sys;

/// How the name of a folder begins that the guardian may remove.
pub const STORE_PREFIX: &str = journal::FOLDER_PREFIX;

/// How a message begins that is no path.
const TERMINAL: &str = "terminal:";

/// How a path begins that is removed only if nothing is in it.
const IF_EMPTY: &str = "if-empty:";

/// How often a removal is tried: a guest that is being killed may still add a
/// file to a folder that was just emptied.
const ATTEMPTS: u32 = 20;

/// Forkmon's end of the guardian.
///
/// When it is dropped the guardian is let go and waited for.
#[derive(Debug)]
pub struct Guardian {
    process: Child,
}

impl Guardian {
    /// Starts the guardian.
    ///
    /// # Errors
    ///
    /// When no process or pipe can be had.
    pub fn start() -> io::Result<Self> {
        // By this name the very same program is found, even if its file was
        // replaced or removed in the meantime.
        let process = Command::new("/proc/self/exe")
            .arg0("forkmon")
            .arg("__guardian")
            .env_clear()
            // A folder that somebody wants to remove or unmount is not kept busy.
            .current_dir("/")
            .process_group(0)
            // The pipe's ends are close-on-exec from the beginning.
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        Ok(Self { process })
    }

    /// Has the store or control socket `path` removed when forkmon is gone. To be
    /// called before it is created, so that there is no moment in which nobody
    /// knows of it. What is neither is not removed.
    ///
    /// # Errors
    ///
    /// When the path is not absolute, or the guardian is gone.
    pub fn keep_in_mind(&mut self, path: &Path) -> io::Result<()> {
        self.tell(checked(path)?.to_vec())
    }

    /// Has the folder `path` removed when forkmon is gone, if nothing is in it. To be
    /// called before it is created.
    ///
    /// # Errors
    ///
    /// As [`keep_in_mind`](Self::keep_in_mind).
    pub fn keep_if_not_empty(&mut self, path: &Path) -> io::Result<()> {
        self.tell([IF_EMPTY.as_bytes(), checked(path)?].concat())
    }

    /// Has the terminal put back when forkmon is gone. To be called before its
    /// modes are changed.
    ///
    /// # Errors
    ///
    /// When the guardian is gone.
    pub fn keep_terminal_in_mind(&mut self, memo: &Memo) -> io::Result<()> {
        self.tell(format!("{TERMINAL}{}", memo.to_text()).into_bytes())
    }

    /// In one write: a message that forkmon's end cuts off in the middle is not
    /// acted upon.
    fn tell(&mut self, mut message: Vec<u8>) -> io::Result<()> {
        message.push(0);
        match &mut self.process.stdin {
            Some(pipe) => pipe.write_all(&message),
            None => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }

    /// The guardian's process id, for those who wait for all children and must
    /// know whom they see.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.id()
    }
}

fn checked(path: &Path) -> io::Result<&[u8]> {
    let bytes = path.as_os_str().as_bytes();
    if path.is_absolute() && !bytes.contains(&0) {
        return Ok(bytes);
    }
    Err(io::Error::new(
        io::ErrorKind::InvalidInput,
        format!("{} is not an absolute path", path.display()),
    ))
}

impl Drop for Guardian {
    fn drop(&mut self) {
        // The end of its input is its end. Somebody who waits for all children
        // may have reaped it already; then there is nothing to wait for.
        drop(self.process.stdin.take());
        let _ = self.process.wait();
    }
}

/// What the guardian itself does: `forkmon __guardian`.
///
/// # Errors
///
/// None; there is nobody to tell.
pub fn serve() -> anyhow::Result<u8> {
    sys::ignore_signals();
    // It is the tracer's bell, too, and rung by this one. Forkmon may have been
    // started with it blocked.
    sys::unblock(&[libc::SIGURG]);
    sys::close_inherited();
    // Shown by ps and top; the name of the program file is of no use there.
    let _ = rustix::thread::set_name(c"forkmon-guard");

    let mut received = Vec::new();
    // A failure to read is an end as well: act on what was received.
    let _ = io::stdin().lock().read_to_end(&mut received);
    // The terminal first: somebody looks at it.
    for message in complete_messages(&received) {
        let memo = message
            .to_str()
            .and_then(|text| text.strip_prefix(TERMINAL));
        if let Some(memo) = memo.and_then(Memo::from_text) {
            memo.restore();
        }
    }
    for message in complete_messages(&received) {
        if let Some(path) = message.as_bytes().strip_prefix(IF_EMPTY.as_bytes()) {
            remove_if_empty(Path::new(OsStr::from_bytes(path)));
            continue;
        }
        let path = Path::new(message);
        if path.is_absolute() {
            remove_store(path);
            place::remove_left_socket(path);
        }
    }
    Ok(0)
}

/// The messages that were received up to their NUL.
fn complete_messages(received: &[u8]) -> impl Iterator<Item = &OsStr> {
    let end = received.iter().rposition(|byte| *byte == 0).unwrap_or(0);
    received[..end]
        .split(|byte| *byte == 0)
        .filter(|path| !path.is_empty())
        .map(OsStr::from_bytes)
}

/// The parent and the name, if this is a path that may be removed.
fn split_store_path(store: &Path) -> Option<(&Path, &OsStr)> {
    let name = store.file_name()?;
    let is_store = name.as_bytes().starts_with(STORE_PREFIX.as_bytes());
    let parent = store.parent()?;
    (store.is_absolute() && is_store && !store.as_os_str().as_bytes().contains(&0))
        .then_some((parent, name))
}

/// Removes a folder, the empty ones in it, and forkmon's own one that it is in, as far as
/// nothing is in them.
fn remove_if_empty(folder: &Path) {
    if !folder.is_absolute() {
        return;
    }
    for inner in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        // The program has removed it, and somebody may have put something into it since.
        let _ = std::fs::remove_dir(inner.path());
    }
    if std::fs::remove_dir(folder).is_ok() {
        let own = folder
            .parent()
            .filter(|parent| parent.file_name() == Some(OsStr::new("forkmon")));
        if let Some(own) = own {
            // It fails while another forkmon has something there.
            let _ = std::fs::remove_dir(own);
        }
    }
}

fn remove_store(store: &Path) {
    let Some((parent, name)) = split_store_path(store) else {
        return;
    };
    let Ok(parent) = rustix::fs::openat(
        CWD,
        parent,
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    ) else {
        return;
    };
    for _ in 0..ATTEMPTS {
        let Ok(folder) = open_folder(&parent, name) else {
            return;
        };
        let ours = rustix::fs::fstat(&folder)
            .is_ok_and(|status| status.st_uid == rustix::process::geteuid().as_raw());
        if !ours {
            return;
        }
        empty(folder);
        if rustix::fs::unlinkat(&parent, name, AtFlags::REMOVEDIR).is_ok() {
            return;
        }
        // Whoever still writes into it is about to be gone: this waits for
        // nothing in particular, and gives up after a second in all.
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
}

fn open_folder<Fd: std::os::fd::AsFd>(parent: Fd, name: &OsStr) -> rustix::io::Result<OwnedFd> {
    rustix::fs::openat(
        parent,
        name,
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC,
        Mode::empty(),
    )
}

/// One folder on the way down: what is still to be done in it.
struct Level {
    folder: OwnedFd,
    subfolders: Vec<Vec<u8>>,
}

/// Removes all that `folder` holds, as far as it can be removed. The stack of
/// folders is on the heap: a store may hold a tree of any depth that a guest
/// removed.
fn empty(folder: OwnedFd) {
    let mut levels = vec![unlink_files(folder)];
    let mut names: Vec<Vec<u8>> = Vec::new();
    while let Some(level) = levels.last_mut() {
        if let Some(name) = level.subfolders.pop() {
            if let Some(subfolder) = enter(&level.folder, OsStr::from_bytes(&name)) {
                names.push(name);
                levels.push(unlink_files(subfolder));
            }
            continue;
        }
        levels.pop();
        if let (Some(parent), Some(name)) = (levels.last(), names.pop()) {
            let name = OsStr::from_bytes(&name);
            let _ = rustix::fs::unlinkat(&parent.folder, name, AtFlags::REMOVEDIR);
        }
    }
}

/// Opens a folder inside of a store, and gives ourselves the right to empty it:
/// a guest may have removed a folder that was read-only.
fn enter(parent: &OwnedFd, name: &OsStr) -> Option<OwnedFd> {
    let open = || open_folder(parent, name);
    let folder = open().or_else(|_| {
        // chmod follows a link at the end of the path, but only what readdir
        // called a folder gets here, and the store is ours alone.
        rustix::fs::chmodat(parent, name, Mode::RWXU, AtFlags::empty())?;
        open()
    });
    let folder = folder.ok()?;
    let _ = rustix::fs::fchmod(&folder, Mode::RWXU);
    Some(folder)
}

/// Unlinks everything in `folder` that is no folder, and remembers the rest.
fn unlink_files(folder: OwnedFd) -> Level {
    let mut subfolders = Vec::new();
    if let Ok(entries) = Dir::read_from(&folder) {
        for entry in entries.flatten() {
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            let unlinked = rustix::fs::unlinkat(&folder, name, AtFlags::empty());
            // Linux says EISDIR for a folder.
            if unlinked.is_err() && is_folder(&folder, name, entry.file_type()) {
                subfolders.push(name.to_bytes().to_vec());
            }
        }
    }
    Level { folder, subfolders }
}

fn is_folder(parent: &OwnedFd, name: &std::ffi::CStr, hint: FileType) -> bool {
    match hint {
        FileType::Unknown => rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)
            .is_ok_and(|status| FileType::from_raw_mode(status.st_mode) == FileType::Directory),
        known => known == FileType::Directory,
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    fn paths(received: &[u8]) -> Vec<PathBuf> {
        complete_messages(received).map(PathBuf::from).collect()
    }

    #[test]
    fn a_path_cut_off_in_the_middle_is_not_acted_upon() {
        assert_eq!(
            paths(b"/a/.forkmon-1\0/home"),
            [PathBuf::from("/a/.forkmon-1")]
        );
        assert_eq!(paths(b"/home"), Vec::<PathBuf>::new());
        assert_eq!(paths(b""), Vec::<PathBuf>::new());
        assert_eq!(
            paths(b"/a\0\0/b\0"),
            [PathBuf::from("/a"), PathBuf::from("/b")]
        );
    }

    #[test]
    fn only_stores_are_removable() {
        for path in [
            "/",
            "/home",
            "/a/forkmon-x",
            ".forkmon-x",
            "/a/.forkmon-x/..",
            "/a/.forkmo",
        ] {
            assert!(split_store_path(Path::new(path)).is_none(), "{path}");
        }
        assert!(split_store_path(Path::new("/a/.forkmon-x")).is_some());
    }

    #[test]
    fn a_store_goes_with_all_that_it_holds_and_links_are_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let precious = dir.path().join("precious");
        std::fs::create_dir(&precious).unwrap();
        std::fs::write(precious.join("file"), "kept").unwrap();
        let store = dir.path().join(".forkmon-1-x");
        let mut deep = store.clone();
        for _ in 0..50 {
            deep.push("folder");
        }
        std::fs::create_dir_all(&deep).unwrap();
        std::fs::write(deep.join("file"), "gone").unwrap();
        std::os::unix::fs::symlink(&precious, store.join("link")).unwrap();
        std::os::unix::fs::symlink(&precious, deep.join("link")).unwrap();
        let closed = store.join("closed");
        std::fs::create_dir(&closed).unwrap();
        std::fs::write(closed.join("file"), "gone").unwrap();
        let no_rights = std::os::unix::fs::PermissionsExt::from_mode(0o000);
        std::fs::set_permissions(&closed, no_rights).unwrap();

        remove_store(&store);

        assert!(!store.exists());
        assert_eq!(std::fs::read(precious.join("file")).unwrap(), b"kept");
    }

    #[test]
    fn a_link_with_the_name_of_a_store_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let precious = dir.path().join("precious");
        std::fs::create_dir(&precious).unwrap();
        std::fs::write(precious.join("file"), "kept").unwrap();
        let link = dir.path().join(".forkmon-1-x");
        std::os::unix::fs::symlink(&precious, &link).unwrap();

        remove_store(&link);

        assert!(link.symlink_metadata().is_ok());
        assert_eq!(std::fs::read(precious.join("file")).unwrap(), b"kept");
    }
}
