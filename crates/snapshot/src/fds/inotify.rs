//! An inotify instance: closed in the image, where it would go on to collect
//! events, and made anew with the same watches under the same descriptors.
//!
//! The kernel says which files are watched, but not by which path they were
//! found. A path is looked for at the checkpoint: by the file's handle, which
//! takes a privilege, or else among what the guest has open and below its working
//! folder.

use super::source::Source;
use super::{Entry, Fresh};
use crate::procfs::Watch;
use crate::{Refusal, sys};
use rustix::fs::inotify;
use rustix::fs::inotify::WatchFlags;
use std::collections::HashMap;
use std::fs::{self, File, Metadata};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use tracee::{Remote, Tid};

/// Paths that watched files were found by, by device and inode: looking for them
/// costs too much to be done at each checkpoint.
#[derive(Clone, Debug, Default)]
pub(crate) struct Found(Arc<Mutex<HashMap<(u64, u64), PathBuf>>>);

impl Found {
    /// The path of a file, if it still leads there.
    fn get(&self, watch: &Watch) -> Option<PathBuf> {
        // The map is whole after each change, whoever panicked.
        let map = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let path = map.get(&(watch.device, watch.inode))?;
        leads_to(path, watch).then(|| path.clone())
    }

    fn insert(&self, watch: &Watch, path: &Path) {
        let mut map = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        map.insert((watch.device, watch.inode), path.into());
    }

    /// Remembers that a file is going to be watched, by a path that leads to it
    /// now.
    pub(crate) fn note(&self, path: &Path) {
        if let Ok(metadata) = fs::symlink_metadata(path) {
            let mut map = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            map.insert((metadata.dev(), metadata.ino()), path.into());
        }
    }
}

/// One watch, and a path of what it is on.
#[derive(Clone, Debug)]
struct Watched {
    watch: Watch,
    path: PathBuf,
}

/// An inotify instance, as it was.
#[derive(Clone, Debug)]
pub(super) struct Inotify {
    entries: Vec<Entry>,
    /// In the order of their descriptors.
    watches: Vec<Watched>,
}

/// Watch descriptors that were given away before the last one that is in use;
/// each of them takes two calls.
const MOST_DESCRIPTORS: i32 = 1 << 16;

/// Names below the working folder that are looked at for a watched file.
const MOST_NAMES: usize = 1 << 14;

fn is(metadata: &Metadata, watch: &Watch) -> bool {
    (metadata.dev(), metadata.ino()) == (watch.device, watch.inode)
}

/// Whether a path leads to a watched file, the last link of it included or not.
fn leads_to(path: &Path, watch: &Watch) -> bool {
    fs::symlink_metadata(path).is_ok_and(|m| is(&m, watch))
}

fn unsupported(what: impl Into<String>) -> Refusal {
    Refusal::unsupported("inotify", what)
}

impl Inotify {
    pub(super) fn capture(
        process: Tid,
        source: &Source,
        entries: Vec<Entry>,
        found: &Found,
    ) -> Result<Self, Refusal> {
        let handle = source.duplicate(entries[0].fd)?;
        let waiting = rustix::io::ioctl_fionread(&handle)
            .map_err(|e| Refusal::proc("look into an inotify instance")(e.into()))?;
        if waiting > 0 {
            return Err(unsupported(
                "events wait in an inotify instance, which cannot be looked at",
            ));
        }
        let mut watches = entries[0].info.watches.clone();
        watches.sort_unstable_by_key(|watch| watch.descriptor);
        if watches
            .last()
            .is_some_and(|w| w.descriptor > MOST_DESCRIPTORS)
        {
            return Err(unsupported(format!(
                "an inotify instance has given out more than {MOST_DESCRIPTORS} watch descriptors"
            )));
        }
        let watches = watches
            .into_iter()
            .map(|watch| {
                let path = found.get(&watch).or_else(|| find(process, &watch));
                let Some(path) = path else {
                    return Err(unsupported(format!(
                        "an inotify instance watches a file whose path is not known (inode {})",
                        watch.inode
                    )));
                };
                found.insert(&watch, &path);
                Ok(Watched { watch, path })
            })
            .collect::<Result<_, _>>()?;
        Ok(Self { entries, watches })
    }

    pub(super) fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Makes the instance, still without watches.
    pub(super) fn create(&self, remote: &mut Remote<'_>, above: i32) -> Result<(), Refusal> {
        let flags = libc::IN_CLOEXEC | self.entries[0].status_flags() & libc::O_NONBLOCK;
        let fd = remote.call("inotify_init1", libc::SYS_inotify_init1, &[flags as u64])?;
        Fresh { fd: fd as i32 }.settle(remote, above, &self.entries)
    }

    /// Sets the watches, once nobody undoes what the dropped run did.
    pub(super) fn watch(&self, source: &Source) -> Result<(), Refusal> {
        if self.watches.is_empty() {
            return Ok(());
        }
        let handle = source.duplicate(self.entries[0].fd)?;
        let filler = self.filler()?;
        let mut next = 1;
        for Watched { watch, path } in &self.watches {
            if next < watch.descriptor {
                // Numbers that the guest has removed.
                for _ in next..watch.descriptor {
                    pass_over(handle.as_fd(), filler).map_err(|e| failed(filler, e))?;
                }
                drain(handle.as_fd()).map_err(|e| failed(filler, e))?;
            }
            next = watch.descriptor + 1;
            if !leads_to(path, watch) {
                return Err(unsupported(format!(
                    "{} was watched and is another file now",
                    path.display()
                )));
            }
            let flags = WatchFlags::from_bits_retain(watch.mask) | WatchFlags::DONT_FOLLOW;
            let descriptor =
                inotify::add_watch(&handle, path, flags).map_err(|e| failed(path, e))?;
            if descriptor != watch.descriptor {
                return Err(unsupported(format!(
                    "{} cannot be watched again under its descriptor",
                    path.display()
                )));
            }
        }
        Ok(())
    }

    /// A file that is not watched by the guest and stays as it is.
    fn filler(&self) -> Result<&'static Path, Refusal> {
        ["/dev/null", "/proc", "/", "/dev"]
            .into_iter()
            .map(Path::new)
            .find(|path| {
                fs::metadata(path)
                    .is_ok_and(|m| self.watches.iter().all(|found| !is(&m, &found.watch)))
            })
            .ok_or_else(|| unsupported("no file is left to count watch descriptors with"))
    }
}

fn failed(path: &Path, e: rustix::io::Errno) -> Refusal {
    unsupported(format!("{} cannot be watched again: {e}", path.display()))
}

fn pass_over(instance: BorrowedFd<'_>, filler: &Path) -> rustix::io::Result<()> {
    let descriptor = inotify::add_watch(instance, filler, WatchFlags::DELETE_SELF)?;
    inotify::remove_watch(instance, descriptor)
}

/// Takes out what removing watches has put in.
fn drain(instance: BorrowedFd<'_>) -> rustix::io::Result<()> {
    let mut events = vec![0; 1 << 16];
    while rustix::io::ioctl_fionread(instance)? > 0 {
        rustix::io::read(instance, &mut events)?;
    }
    Ok(())
}

/// A path of a watched file.
fn find(process: Tid, watch: &Watch) -> Option<PathBuf> {
    let cwd = fs::read_link(format!("/proc/{process}/cwd")).ok()?;
    by_handle(&cwd, watch)
        .or_else(|| among_open_files(process, watch))
        .or_else(|| below(&cwd, watch))
}

fn by_handle(cwd: &Path, watch: &Watch) -> Option<PathBuf> {
    let handle = watch.handle.as_ref()?;
    // Any file of the same mount leads to it.
    let mount = [cwd, Path::new("/"), Path::new("/tmp"), Path::new("/home")]
        .into_iter()
        .find(|path| fs::metadata(path).is_ok_and(|m| m.dev() == watch.device))?;
    let mount = File::open(mount).ok()?;
    let file = sys::open_by_handle(mount.as_fd(), handle).ok()?;
    let path = fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd())).ok()?;
    leads_to(&path, watch).then_some(path)
}

fn among_open_files(process: Tid, watch: &Watch) -> Option<PathBuf> {
    let links = fs::read_dir(format!("/proc/{process}/fd")).ok()?;
    links
        .filter_map(|entry| fs::read_link(entry.ok()?.path()).ok())
        .find(|path| path.is_absolute() && leads_to(path, watch))
}

/// Looks into folders on the same device, the nearest first.
fn below(folder: &Path, watch: &Watch) -> Option<PathBuf> {
    let mut folders = std::collections::VecDeque::from([folder.to_owned()]);
    if leads_to(folder, watch) {
        return folders.pop_front();
    }
    let mut names = 0;
    while let Some(folder) = folders.pop_front() {
        let Ok(entries) = fs::read_dir(folder) else {
            continue;
        };
        for entry in entries.filter_map(Result::ok) {
            names += 1;
            if names > MOST_NAMES {
                return None;
            }
            // Of a mount point it is what lies below it, and is looked at again.
            if std::os::unix::fs::DirEntryExt::ino(&entry) == watch.inode
                && leads_to(&entry.path(), watch)
            {
                return Some(entry.path());
            }
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                folders.push_back(entry.path());
            }
        }
    }
    None
}
