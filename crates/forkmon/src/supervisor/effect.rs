//! What the guest changes in the file system: from a stopped call to an entry
//! of the journal.

use super::Supervisor;
use super::access::Want;
use super::calls::{At, OnePath};
use super::lookup::{Found, Name};
use super::run::Pending;
use journal::{Effect, Unjournaled};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use timeline::CheckpointId;
use tracee::{RemoteAddr, Stopped, Tid};

/// Spells a path of the guest's own fds as others can use it.
fn for_others(process: Tid, path: &Path) -> PathBuf {
    let own = |fd: &Path| PathBuf::from(format!("/proc/{process}/fd")).join(fd);
    if let Ok(fd) = path.strip_prefix("/dev/fd") {
        return own(fd);
    }
    for (name, fd) in [("stdin", "0"), ("stdout", "1"), ("stderr", "2")] {
        if path == Path::new("/dev").join(name) {
            return own(Path::new(fd));
        }
    }
    for itself in ["/proc/self", "/proc/thread-self"] {
        if let Ok(rest) = path.strip_prefix(itself) {
            return PathBuf::from(format!("/proc/{process}")).join(rest);
        }
    }
    path.to_owned()
}

impl Supervisor<'_> {
    pub(super) fn open_for_writing(
        &mut self,
        task: Stopped,
        process: Tid,
        name: &Name,
        flags: i32,
    ) -> anyhow::Result<()> {
        let path = for_others(process, &name.path);
        self.free_program(&path);
        let effect = Effect::OpenWrite {
            path: path.clone(),
            create: flags & libc::O_CREAT != 0,
            exclusive: flags & libc::O_EXCL != 0,
            truncate: flags & libc::O_TRUNC != 0,
            append: flags & libc::O_APPEND != 0,
            follow: flags & libc::O_NOFOLLOW == 0,
        };
        let written = self.final_target(&path, flags & libc::O_NOFOLLOW == 0);
        self.journal_effect(task, effect, vec![written])
    }

    pub(super) fn effect(
        &mut self,
        task: Stopped,
        process: Tid,
        at: At,
        kind: OnePath,
    ) -> anyhow::Result<()> {
        let Found::Name(name) = self.find(task.tid(), process, at) else {
            return Ok(task.resume(None)?);
        };
        let Some(task) = self.learn_by_changing(task, &name)? else {
            return Ok(());
        };
        let path = for_others(process, &name.path);
        // A new mode or time leaves the bytes as they are.
        let paths = match kind {
            OnePath::Other(_) => Vec::new(),
            _ => vec![path.clone()],
        };
        let effect = match kind {
            OnePath::Truncate => Effect::Truncate { path },
            OnePath::Unlink => Effect::Unlink { path },
            OnePath::RemoveFolder => Effect::RemoveFolder { path },
            OnePath::MakeFolder => Effect::MakeFolder { path },
            OnePath::MakeNode => Effect::MakeNode { path },
            OnePath::SymbolicLink => Effect::SymbolicLink { to: path },
            OnePath::Other(what) => Effect::Other {
                path: Some(path),
                what,
            },
        };
        self.journal_effect(task, effect, paths)
    }

    /// Whether a call works tells the guest whether the file was there.
    fn learn_by_changing(&mut self, task: Stopped, name: &Name) -> anyhow::Result<Option<Stopped>> {
        if name.in_scope {
            return self.touch(task, &name.path, Want::Metadata, false);
        }
        Ok(Some(task))
    }

    pub(super) fn effect_on_fd(
        &mut self,
        task: Stopped,
        process: Tid,
        fd: i32,
        what: &'static str,
    ) -> anyhow::Result<()> {
        let path = std::fs::read_link(format!("/proc/{process}/fd/{fd}")).ok();
        self.journal_effect(task, Effect::Other { path, what }, Vec::new())
    }

    pub(super) fn effect_on_two(
        &mut self,
        task: Stopped,
        process: Tid,
        from: At,
        to: At,
        rename: bool,
        flags: u32,
    ) -> anyhow::Result<()> {
        let tid = task.tid();
        let from = match self.find(tid, process, from) {
            Found::Name(name) => name,
            // linkat with AT_EMPTY_PATH names an fd's file.
            Found::Empty => std::rc::Rc::new(Name {
                path: format!("/proc/{process}/fd/{}", from.folder).into(),
                in_scope: false,
            }),
            Found::Unreadable => return Ok(task.resume(None)?),
        };
        let Found::Name(to) = self.find(tid, process, to) else {
            return Ok(task.resume(None)?);
        };
        let Some(task) = self.learn_by_changing(task, &from)? else {
            return Ok(());
        };
        let Some(task) = self.learn_by_changing(task, &to)? else {
            return Ok(());
        };
        let (from, to) = (for_others(process, &from.path), to.path.clone());
        let paths = if rename {
            vec![from.clone(), to.clone()]
        } else {
            vec![to.clone()]
        };
        let effect = if rename {
            Effect::Rename {
                from,
                to,
                no_replace: flags & libc::RENAME_NOREPLACE != 0,
                exchange: flags & libc::RENAME_EXCHANGE != 0,
            }
        } else {
            Effect::Link { from, to }
        };
        self.journal_effect(task, effect, paths)
    }

    pub(super) fn bind(
        &mut self,
        task: Stopped,
        process: Tid,
        address: RemoteAddr,
        length: u64,
    ) -> anyhow::Result<()> {
        match self.socket_path(task.tid(), process, address, length) {
            Some(path) => {
                let paths = vec![path.clone()];
                self.journal_effect(task, Effect::MakeNode { path }, paths)
            }
            None => Ok(task.resume(None)?),
        }
    }

    /// Saves what undoing an effect needs and lets the call run to its end.
    fn journal_effect(
        &mut self,
        task: Stopped,
        effect: Effect,
        paths: Vec<PathBuf>,
    ) -> anyhow::Result<()> {
        if self.config.once || is_no_file(&effect) {
            return Ok(task.resume(None)?);
        }
        let prepared = Box::new(self.journal.before(effect));
        if let Err(obstacle) = &prepared.undoable {
            self.bar(&obstacle.clone());
        }
        self.run
            .wait_for_answer(task.tid(), Pending::Effect { prepared, paths });
        Ok(task.resume_to_syscall()?)
    }

    /// Concludes an effect when its call has returned.
    pub(super) fn effect_done(
        &mut self,
        prepared: journal::Prepared,
        paths: &[PathBuf],
        succeeded: bool,
    ) -> anyhow::Result<()> {
        if let Err(obstacle) = self.journal.after(prepared, succeeded) {
            self.bar(&obstacle);
        }
        if !succeeded {
            for path in paths {
                self.observe_missing(path)?;
            }
        }
        if succeeded {
            for path in paths {
                self.timeline.wrote(path);
                self.links.remove(path);
                if let Some(folder) = path.parent() {
                    self.lookups.forget_folder(folder);
                }
            }
            if let [from, to] = paths
                && fs::symlink_metadata(to).is_ok_and(|found| found.is_dir())
            {
                self.folder_moved(from, to);
            }
        }
        Ok(())
    }

    /// The guest renamed a folder: all names in it are its own doing, under the
    /// old folder and under the new one.
    fn folder_moved(&mut self, from: &Path, to: &Path) {
        let mut folders = vec![PathBuf::new()];
        while let Some(folder) = folders.pop() {
            let Ok(entries) = fs::read_dir(to.join(&folder)) else {
                continue;
            };
            for entry in entries.flatten() {
                let below = folder.join(entry.file_name());
                self.timeline.wrote(&from.join(&below));
                self.timeline.wrote(&to.join(&below));
                if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    folders.push(below);
                }
            }
        }
        // Working folders and resolved paths may have other names now.
        for process in self.run.processes.values_mut() {
            process.folder = None;
        }
        self.lookups.forget();
        self.links.clear();
    }

    /// Something happened that cannot be undone: no checkpoint before it can be
    /// used any more, but for those before the guest itself made the file.
    fn bar(&mut self, obstacle: &Unjournaled) {
        let dropped = match obstacle.after {
            Some(made) => self
                .stored
                .iter()
                .filter(|(_, stored)| stored.mark > made)
                .map(|(id, _)| *id)
                .inspect(|id| {
                    self.timeline.drop_checkpoint(*id);
                })
                .collect(),
            None => self.timeline.bar(),
        };
        self.lose(
            dropped,
            "effect",
            &format!("{obstacle}; the checkpoints before it are not used"),
        );
    }

    /// From here on no checkpoint that was taken so far can be used.
    pub(super) fn lose_checkpoints(&mut self, code: &str, why: &str) {
        let dropped = self.timeline.bar();
        self.lose(dropped, code, why);
    }

    fn lose(&mut self, dropped: Vec<CheckpointId>, code: &str, why: &str) {
        if !dropped.is_empty() {
            self.lost_to_effects = true;
            self.warn(code, why);
        }
        for id in dropped {
            self.discard(id);
        }
    }
}

/// Whether an effect is on a device or on the kernel's own files.
fn is_no_file(effect: &Effect) -> bool {
    let path = match effect {
        Effect::OpenWrite { path, .. }
        | Effect::Truncate { path }
        | Effect::Other {
            path: Some(path), ..
        } => path,
        _ => return false,
    };
    let bytes = path.as_os_str().as_bytes();
    (bytes.starts_with(b"/dev/") && !bytes.starts_with(b"/dev/shm/")) || bytes.starts_with(b"/sys/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_the_guests_own_is_spelled_for_others() {
        let spelled = |path: &str| for_others(Tid::new(7), Path::new(path));
        assert_eq!(spelled("/dev/stdout"), Path::new("/proc/7/fd/1"));
        assert_eq!(spelled("/dev/fd/12"), Path::new("/proc/7/fd/12"));
        assert_eq!(spelled("/proc/self/fd/3"), Path::new("/proc/7/fd/3"));
        assert_eq!(spelled("/proc/selfish"), Path::new("/proc/selfish"));
        assert_eq!(spelled("/dev/null"), Path::new("/dev/null"));
    }
}
