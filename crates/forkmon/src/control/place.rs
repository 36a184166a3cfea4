//! Where the socket of a forkmon is: which folder, by which name, and whether
//! what is there already may be used, replaced or removed.
//!
//! The folder is `forkmon` in `$XDG_RUNTIME_DIR` if that is a private folder of
//! this user, or else `/tmp/forkmon-UID`. Everybody can make something of that
//! name in `/tmp`, so nothing is done in a folder before it is known to be a
//! folder and no link, this user's, and closed to everybody else.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, MetadataExt as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};

use crate::config::Config;

/// The longest path that a socket's address can hold (unix(7)), without its end.
const MAX_ADDRESS: usize = 107;

/// How much of the project's name is in the socket's name.
const MAX_BASE: usize = 24;

/// How the name of a socket ends.
const SUFFIX: &str = ".sock";

/// The folders that sockets without a name of their own are in.
#[derive(Debug, Clone)]
pub struct Folders {
    /// `$XDG_RUNTIME_DIR`, if it is set.
    pub runtime: Option<PathBuf>,
    /// Where temporary files are: `/tmp`.
    pub temporary: PathBuf,
}

impl Folders {
    /// Those of this machine.
    #[must_use]
    pub fn new(runtime: Option<&Path>) -> Self {
        Self {
            runtime: runtime.map(Path::to_owned),
            temporary: PathBuf::from("/tmp"),
        }
    }

    /// In which there may be sockets; the first is the one for a new socket.
    fn candidates(&self) -> Vec<PathBuf> {
        let user = rustix::process::geteuid().as_raw();
        // It must belong to this user alone, by its specification. Under sudo the
        // variable may name another user's.
        let runtime = self.runtime.as_deref().filter(|folder| {
            folder.is_absolute()
                && is_private(folder.metadata()).is_ok()
                && folder.as_os_str().len() + "/forkmon/".len() + longest_name() <= MAX_ADDRESS
        });
        runtime
            .map(|folder| folder.join("forkmon"))
            .into_iter()
            .chain([self.temporary.join(format!("forkmon-{user}"))])
            .collect()
    }
}

fn longest_name() -> usize {
    MAX_BASE + "-0123456789abcdef-4194304".len() + SUFFIX.len()
}

/// A place for a socket.
#[derive(Debug, Clone)]
pub struct Place {
    path: PathBuf,
    /// The folder that is made for it, and removed again.
    folder: Option<PathBuf>,
}

impl Place {
    /// The place for what `config` says.
    ///
    /// # Errors
    ///
    /// When the path of `--control` is too long.
    pub fn of(config: &Config) -> anyhow::Result<Self> {
        match &config.control {
            Some(path) => Self::named(path),
            None => Ok(Self::own(
                &Folders::new(config.runtime_dir.as_deref()),
                config.scope.root(),
                std::process::id(),
            )),
        }
    }

    /// Exactly this path, in a folder that there is.
    ///
    /// # Errors
    ///
    /// When the path is too long for a socket.
    pub fn named(path: &Path) -> anyhow::Result<Self> {
        if path.as_os_str().len() > MAX_ADDRESS {
            bail!(
                "the path of a socket has at most {MAX_ADDRESS} bytes, and {} has {}: choose a \
                 shorter one",
                path.display(),
                path.as_os_str().len()
            );
        }
        Ok(Self {
            path: path.to_owned(),
            folder: None,
        })
    }

    /// By the project root and the process of a forkmon.
    #[must_use]
    pub fn own(folders: &Folders, root: &Path, pid: u32) -> Self {
        let folder = folders.candidates().swap_remove(0);
        Self {
            path: folder.join(format!("{}{pid}{SUFFIX}", stem(root))),
            folder: Some(folder),
        }
    }

    /// The path of the socket.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether it was chosen here, and not by a person.
    pub(super) fn is_own(&self) -> bool {
        self.folder.is_some()
    }

    /// Makes the folder if there is none, and sees that it is as it must be.
    ///
    /// # Errors
    ///
    /// When it cannot be made, or what has its name is not a private folder.
    pub fn prepare(&self) -> anyhow::Result<()> {
        let Some(folder) = &self.folder else {
            return Ok(());
        };
        // Another forkmon that ends removes the folder if it is empty.
        const TRIES: u32 = 100;
        for _ in 0..TRIES {
            make_private(folder)?;
            if folder.symlink_metadata().is_ok() {
                break;
            }
        }
        check_private(folder)
    }

    /// Sees to it that nothing has the socket's name: a socket that nobody
    /// listens to any more is removed.
    ///
    /// # Errors
    ///
    /// When something else is there, or another forkmon listens.
    pub fn clear(&self) -> anyhow::Result<()> {
        let path = &self.path;
        match left(path) {
            Left::Nothing => Ok(()),
            Left::Stale => std::fs::remove_file(path).with_context(|| {
                format!(
                    "cannot remove the socket of a dead forkmon, {}",
                    path.display()
                )
            }),
            Left::InUse => bail!(
                "somebody listens on {} already; choose another path for --control",
                path.display()
            ),
            Left::Other => bail!(
                "{} is there already and is no socket that a forkmon of yours has left; remove it \
                 or choose another path for --control",
                path.display()
            ),
        }
    }

    /// Removes the socket and, if it is empty, the folder that was made for it.
    /// `made` is the socket's device and inode: another one is left alone.
    pub(super) fn remove(&self, made: (u64, u64)) {
        let found = self.path.symlink_metadata();
        if found.is_ok_and(|found| (found.dev(), found.ino()) == made) {
            let _ = std::fs::remove_file(&self.path);
        }
        if let Some(folder) = &self.folder {
            let _ = std::fs::remove_dir(folder);
        }
    }
}

/// Removes a socket that a killed forkmon has left, and its folder if that is
/// one of [`Folders`] and empty. Nothing else is ever removed.
pub(crate) fn remove_left_socket(path: &Path) {
    if matches!(left(path), Left::Stale) {
        let _ = std::fs::remove_file(path);
    }
    let Some(folder) = path.parent() else {
        return;
    };
    let user = rustix::process::geteuid().as_raw();
    let is_one_of_ours = folder
        .file_name()
        .is_some_and(|name| name == "forkmon" || name == &*format!("forkmon-{user}"));
    let has_own_name = path.file_name().is_some_and(|name| pid_of(name).is_some());
    if is_one_of_ours && has_own_name && check_private(folder).is_ok() {
        let _ = std::fs::remove_dir(folder);
    }
}

/// What is at a path where a socket is wanted.
enum Left {
    Nothing,
    /// A socket of this user, closed to others as forkmon's are, that nobody
    /// listens to.
    Stale,
    /// A socket that somebody listens to.
    InUse,
    Other,
}

fn left(path: &Path) -> Left {
    let Ok(found) = path.symlink_metadata() else {
        return Left::Nothing;
    };
    if !found.file_type().is_socket() {
        return Left::Other;
    }
    match reach(path) {
        Reached::Nobody
            if found.uid() == rustix::process::geteuid().as_raw() && found.mode() & 0o077 == 0 =>
        {
            Left::Stale
        }
        Reached::Nobody => Left::Other,
        Reached::Somebody(_) | Reached::Refused(_) => Left::InUse,
    }
}

/// Who answers at a socket.
pub(super) enum Reached {
    Somebody(UnixStream),
    /// There is no file, or its process is gone.
    Nobody,
    Refused(io::Error),
}

pub(super) fn reach(path: &Path) -> Reached {
    match UnixStream::connect(path) {
        Ok(stream) => Reached::Somebody(stream),
        Err(error) => match error.kind() {
            io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound => Reached::Nobody,
            _ => Reached::Refused(error),
        },
    }
}

/// Makes a folder for this user alone, if there is none.
fn make_private(folder: &Path) -> anyhow::Result<()> {
    let made = std::fs::DirBuilder::new().mode(0o700).create(folder);
    match made {
        // The umask may have taken more away.
        Ok(()) => {
            let mode = rustix::fs::Mode::RWXU;
            rustix::fs::chmod(folder, mode).map_err(io::Error::from)
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
    }
    .with_context(|| {
        format!(
            "cannot make the folder {} for the control socket",
            folder.display()
        )
    })
}

fn is_private(found: io::Result<std::fs::Metadata>) -> Result<(), &'static str> {
    let found = found.map_err(|_| "cannot be looked at")?;
    if !found.is_dir() {
        Err("is not a folder")
    } else if found.uid() != rustix::process::geteuid().as_raw() {
        Err("belongs to another user")
    } else if found.mode() & 0o077 != 0 {
        Err("is open to other users")
    } else {
        Ok(())
    }
}

fn check_private(folder: &Path) -> anyhow::Result<()> {
    // A link is no folder here. The folder above is sticky or private, so what
    // was looked at cannot be exchanged by another user.
    is_private(folder.symlink_metadata()).map_err(|why| {
        anyhow::anyhow!(
            "{} {why}, so it cannot hold the control socket: remove it, or use --control",
            folder.display()
        )
    })
}

/// The socket of some forkmon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Its path.
    pub path: PathBuf,
    /// The process in its name.
    pub pid: u32,
    /// Whether its name is that of the wanted project root.
    pub matches: bool,
}

/// The sockets that there are, those of dead processes removed, in the order of
/// their paths. With them the folders that cannot be trusted, as errors.
#[must_use]
pub fn find(folders: &Folders, root: &Path) -> (Vec<Found>, Vec<anyhow::Error>) {
    let (mut found, mut errors) = (Vec::new(), Vec::new());
    let wanted = stem(root);
    for folder in folders.candidates() {
        if folder.symlink_metadata().is_err() {
            continue;
        }
        if let Err(error) = check_private(&folder) {
            errors.push(error);
            continue;
        }
        let Ok(entries) = std::fs::read_dir(&folder) else {
            continue;
        };
        for entry in entries.flatten() {
            let name = entry.file_name();
            let Some(pid) = pid_of(&name) else {
                continue;
            };
            let path = entry.path();
            // One that has been bound and does not listen yet is not dead.
            if matches!(left(&path), Left::Stale) && !is_alive(pid) {
                let _ = std::fs::remove_file(&path);
                let _ = std::fs::remove_dir(&folder);
                continue;
            }
            let stem = name.len() - format!("{pid}{SUFFIX}").len();
            found.push(Found {
                path,
                pid,
                matches: &name.as_bytes()[..stem] == wanted.as_bytes(),
            });
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    (found, errors)
}

fn is_alive(pid: u32) -> bool {
    let pid = i32::try_from(pid)
        .ok()
        .and_then(rustix::process::Pid::from_raw);
    // EPERM says that there is one.
    pid.is_some_and(|pid| rustix::process::test_kill_process(pid) != Err(rustix::io::Errno::SRCH))
}

/// How the names of all sockets for `root` begin: for people, then for sure.
fn stem(root: &Path) -> String {
    let name = root.file_name().unwrap_or(OsStr::new("root"));
    let mut stem: String = name
        .to_string_lossy()
        .chars()
        .map(|character| match character {
            'a'..='z' | 'A'..='Z' | '0'..='9' | '.' | '_' => character,
            _ => '-',
        })
        .take(MAX_BASE)
        .collect();
    let hash = blake3::hash(root.as_os_str().as_bytes()).to_hex();
    stem.push('-');
    stem.push_str(&hash[..16]);
    stem.push('-');
    stem
}

/// The process in a socket's name, if it is one.
fn pid_of(name: &OsStr) -> Option<u32> {
    let name = name.to_str()?.strip_suffix(SUFFIX)?;
    let (stem, pid) = name.rsplit_once('-')?;
    let (_, hash) = stem.rsplit_once('-')?;
    let is_hash = hash.len() == 16 && hash.bytes().all(|byte| byte.is_ascii_hexdigit());
    let number: u32 = pid.parse().ok()?;
    // `+5` and `05` are no numbers of processes.
    (is_hash && number.to_string() == pid).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_short_and_plain_and_tell_the_process() {
        for root in [
            "/",
            "/home/u/project",
            "/a b/ü\n\u{1b}[2J/x-y-z",
            &format!("/{}", "long".repeat(60)),
        ] {
            let name = format!("{}4194304{SUFFIX}", stem(Path::new(root)));
            assert!(name.len() <= longest_name(), "{name}");
            assert!(
                name.bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte)),
                "{name}"
            );
            assert_eq!(pid_of(OsStr::new(&name)), Some(4_194_304), "{name}");
        }
        assert_ne!(stem(Path::new("/a/project")), stem(Path::new("/b/project")));
    }

    #[test]
    fn other_names_are_no_sockets() {
        for name in [
            "",
            ".sock",
            "5.sock",
            "-5.sock",
            "a-0123456789abcdef-5",
            "a-0123456789abcdef-.sock",
            "a-0123456789abcdef-+5.sock",
            "a-0123456789abcdef-05.sock",
            "a-0123456789abcdeg-5.sock",
            "a-0123456789abcde-5.sock",
        ] {
            assert_eq!(pid_of(OsStr::new(name)), None, "{name}");
        }
    }
}
