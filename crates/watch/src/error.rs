//! What can go wrong, each with the remedy where the user has one. The limits
//! of inotify are read when they are hit, so that the message can name the
//! current value.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

/// An error of watching; each variant names the step, the path and the cause.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The path is not absolute, so it does not say what is to be watched.
    #[error("cannot watch `{}`: the path is not absolute", path.display())]
    NotAbsolute {
        /// The path as it was given.
        path: PathBuf,
    },
    /// The user's table of inotify watches is full (`ENOSPC`, inotify(7)).
    #[error(
        "cannot watch `{}`: the table of inotify watches is full ({limit}); \
         raise it, for example with `sudo sysctl {}`",
        path.display(),
        limit.raised()
    )]
    TableFull {
        /// The folder or file that the watch was for.
        path: PathBuf,
        /// The limit that was hit.
        limit: Limit,
    },
    /// The user has too many inotify instances (`EMFILE`, inotify_init(2)).
    #[error(
        "cannot start watching: this user has too many inotify instances ({limit}); \
         end another watching program or raise it with `sudo sysctl {}`",
        limit.raised()
    )]
    TooManyInstances {
        /// The limit that was hit.
        limit: Limit,
    },
    /// The kernel refused to set up the queue or the thread.
    #[error("cannot start watching: {step}: {source}")]
    Start {
        /// What was tried.
        step: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A path could not be looked at, for another reason than being missing.
    #[error("cannot watch `{}`: {step}: {source}", path.display())]
    Look {
        /// What was tried.
        step: &'static str,
        /// The folder or file that it was tried on.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The event queue cannot be read; nothing more will be delivered.
    #[error("cannot read file events: {source}")]
    Read {
        /// The kernel's answer.
        source: io::Error,
    },
}

impl Error {
    /// What inotify_init1(2) failed with. `EMFILE` has two meanings; `spare`
    /// says whether this process could still open another descriptor.
    pub(crate) fn from_init(errno: Errno, spare: bool) -> Self {
        if errno == Errno::MFILE && spare {
            Self::TooManyInstances {
                limit: Limit::read("instances"),
            }
        } else {
            Self::Start {
                step: "inotify_init1",
                source: errno.into(),
            }
        }
    }

    /// What inotify_add_watch(2) failed with on `path`.
    pub(crate) fn from_add(errno: Errno, path: &Path) -> Self {
        if errno == Errno::NOSPC {
            Self::TableFull {
                path: path.to_owned(),
                limit: Limit::read("watches"),
            }
        } else {
            Self::look("inotify_add_watch", errno, path)
        }
    }

    pub(crate) fn look(step: &'static str, errno: Errno, path: &Path) -> Self {
        Self::Look {
            step,
            path: path.to_owned(),
            source: errno.into(),
        }
    }
}

/// A sysctl that limits inotify, and its value when it was hit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limit {
    /// The name, as sysctl(8) takes it.
    pub sysctl: String,
    /// The value; `None` if it could not be read.
    pub value: Option<u64>,
}

impl Limit {
    /// Reads the limit on `kind` (`watches` or `instances`). Two exist: the
    /// well-known one, and that of the user namespace (namespaces(7)), which a
    /// container may have set lower. The lower one is the one that was hit.
    fn read(kind: &str) -> Self {
        let global = Self::named(format!("fs.inotify.max_user_{kind}"));
        let namespace = Self::named(format!("user.max_inotify_{kind}"));
        match (global.value, namespace.value) {
            (Some(all), Some(own)) if own < all => namespace,
            _ => global,
        }
    }

    fn named(sysctl: String) -> Self {
        let file = format!("/proc/sys/{}", sysctl.replace('.', "/"));
        let value = fs::read_to_string(file)
            .ok()
            .and_then(|text| text.trim().parse().ok());
        Self { sysctl, value }
    }

    /// An assignment that leaves room: four times the value, as sysctl(8)
    /// takes it.
    fn raised(&self) -> String {
        let value = self.value.unwrap_or(0).saturating_mul(4).max(1024);
        format!("{}={value}", self.sysctl)
    }
}

impl std::fmt::Display for Limit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.value {
            Some(value) => write!(f, "{} is {value}", self.sysctl),
            None => write!(f, "{}", self.sysctl),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_table_names_the_sysctl_its_value_and_the_path() {
        let text = Error::from_add(Errno::NOSPC, Path::new("/a/b")).to_string();
        let value = fs::read_to_string("/proc/sys/fs/inotify/max_user_watches").unwrap();
        assert!(text.contains("`/a/b`"), "{text}");
        assert!(
            text.contains(&format!("fs.inotify.max_user_watches is {}", value.trim()))
                || text.contains("user.max_inotify_watches is"),
            "{text}"
        );
        assert!(text.contains("sudo sysctl "), "{text}");
    }

    #[test]
    fn too_many_instances_is_told_from_too_many_open_files() {
        let instances = Error::from_init(Errno::MFILE, true).to_string();
        assert!(instances.contains("inotify_instances") || instances.contains("user_instances"));
        let files = Error::from_init(Errno::MFILE, false).to_string();
        assert!(files.contains("inotify_init1"), "{files}");
        assert!(!files.contains("sysctl"), "{files}");
    }
}
