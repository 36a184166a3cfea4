//! What the guest changes in the file system: from a stopped call to an entry
//! of the journal.

use super::Supervisor;
use super::calls::{At, OnePath};
use super::lookup::{Found, Name};
use super::observe::Want;
use super::run::Pending;
use super::walk::Last;
use journal::{Effect, Unjournaled};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use timeline::CheckpointId;
use tracee::{RemoteAddr, Stopped, Tid};

impl Supervisor<'_> {
    pub(super) fn open_for_writing(
        &mut self,
        task: Stopped,
        name: &Name,
        flags: i32,
    ) -> anyhow::Result<()> {
        if !name.is_reached() {
            return Ok(task.resume(None)?);
        }
        let path = name.path().to_owned();
        self.free_program(&path);
        let effect = Effect::OpenWrite {
            path: path.clone(),
            create: flags & libc::O_CREAT != 0,
            exclusive: flags & libc::O_EXCL != 0,
            // The links of files have been followed, but not that of an fd whose
            // file has no name.
            follow: flags & libc::O_NOFOLLOW == 0,
        };
        self.journal_effect(task, effect, vec![path])
    }

    /// An open with `O_TMPFILE`, whose file may get a name later.
    pub(super) fn open_nameless(&mut self, task: Stopped, process: Tid) -> anyhow::Result<()> {
        if self.config.once {
            return Ok(task.resume(None)?);
        }
        self.run
            .wait_for_answer(task.tid(), Pending::Nameless { process });
        Ok(task.resume_to_syscall()?)
    }

    /// A file without a name is open now, under this number.
    pub(super) fn nameless_opened(&mut self, process: Tid, fd: i64) {
        let link = format!("/proc/{process}/fd/{fd}");
        self.journal.opened_nameless(Path::new(&link));
    }

    pub(super) fn effect(
        &mut self,
        task: Stopped,
        process: Tid,
        at: At,
        last: Last,
        kind: OnePath,
    ) -> anyhow::Result<()> {
        let name = match self.find(task.tid(), process, at, last) {
            Found::Name(name) => name,
            Found::Empty if matches!(kind, OnePath::Attributes { .. } | OnePath::Other(_)) => {
                return self.effect_on_fd(task, process, at.folder, kind);
            }
            _ => return Ok(task.resume(None)?),
        };
        // Whether the call works tells the guest whether the file was there.
        let Some(task) = self.touch(task, &name, Some(Want::Metadata))? else {
            return Ok(());
        };
        if !name.is_reached() {
            return Ok(task.resume(None)?);
        }
        let path = name.path().to_owned();
        // A new mode or time leaves the bytes as they are.
        let paths = match kind {
            OnePath::Attributes { .. } | OnePath::Other(_) => Vec::new(),
            _ => vec![path.clone()],
        };
        let effect = match kind {
            OnePath::Truncate => Effect::Truncate { path },
            OnePath::Unlink => Effect::Unlink { path },
            OnePath::RemoveFolder => Effect::RemoveFolder {
                in_use: self.is_in_use(&path),
                path,
            },
            OnePath::MakeFolder => Effect::MakeFolder { path },
            OnePath::MakeNode => Effect::MakeNode { path },
            OnePath::SymbolicLink => Effect::SymbolicLink { to: path },
            // The links on its way have been followed, and a last one, if it is.
            OnePath::Attributes { extended } => Effect::Attributes {
                path,
                follow: false,
                extended,
            },
            OnePath::Other(what) => Effect::Other {
                path: Some(path),
                what,
            },
        };
        self.journal_effect(task, effect, paths)
    }

    /// Whether a process of the guest has a folder open or works in it.
    fn is_in_use(&self, folder: &Path) -> bool {
        let Ok(wanted) = fs::symlink_metadata(folder) else {
            return false;
        };
        if !wanted.is_dir() {
            return false;
        }
        let is_it = |link: &Path| {
            fs::metadata(link)
                .is_ok_and(|there| (there.dev(), there.ino()) == (wanted.dev(), wanted.ino()))
        };
        self.run.processes.keys().any(|process| {
            let process = PathBuf::from(format!("/proc/{process}"));
            let fds = fs::read_dir(process.join("fd"));
            is_it(&process.join("cwd"))
                || is_it(&process.join("root"))
                || fds.is_ok_and(|fds| fds.flatten().any(|fd| is_it(&fd.path())))
        })
    }

    pub(super) fn effect_on_fd(
        &mut self,
        task: Stopped,
        process: Tid,
        fd: i32,
        kind: OnePath,
    ) -> anyhow::Result<()> {
        let link = PathBuf::from(if fd == libc::AT_FDCWD {
            format!("/proc/{process}/cwd")
        } else {
            format!("/proc/{process}/fd/{fd}")
        });
        let effect = match kind {
            OnePath::Attributes { extended } => Effect::Attributes {
                path: link,
                follow: true,
                extended,
            },
            OnePath::Other(what) => Effect::Other {
                path: fs::read_link(link).ok(),
                what,
            },
            _ => return Ok(task.resume(None)?),
        };
        self.journal_effect(task, effect, Vec::new())
    }

    pub(super) fn effect_on_two(
        &mut self,
        task: Stopped,
        process: Tid,
        (from, last): (At, Last),
        to: At,
        rename: bool,
        flags: u32,
    ) -> anyhow::Result<()> {
        let tid = task.tid();
        let from = match self.find(tid, process, from, last) {
            Found::Name(name) => name,
            // linkat with AT_EMPTY_PATH names an fd's file.
            Found::Empty => self.name_of_fd(tid, process, from.folder),
            Found::Fails | Found::Hidden => return Ok(task.resume(None)?),
        };
        let Found::Name(to) = self.find(tid, process, to, Last::Name) else {
            return Ok(task.resume(None)?);
        };
        let exchange = rename && flags & libc::RENAME_EXCHANGE != 0;
        // What is under a name that the guest itself gave counts as its own work, so
        // that the bytes behind it are learned under the name that they had.
        let Some(task) = self.touch(task, &from, Some(Want::Content))? else {
            return Ok(());
        };
        let replaced = if exchange {
            Want::Content
        } else {
            Want::Metadata
        };
        let Some(task) = self.touch(task, &to, Some(replaced))? else {
            return Ok(());
        };
        if !from.is_reached() || !to.is_reached() {
            return Ok(task.resume(None)?);
        }
        let (from, to) = (from.path().to_owned(), to.path().to_owned());
        let paths = if rename {
            vec![from.clone(), to.clone()]
        } else {
            vec![to.clone()]
        };
        let effect = if rename {
            Effect::Rename {
                in_use: !exchange && self.is_in_use(&to),
                from,
                to,
                no_replace: flags & libc::RENAME_NOREPLACE != 0,
                exchange,
            }
        } else {
            // The fd of a file without a name: a path that leads there has been followed
            // no further, and a call that takes the fd itself has another one.
            let open = if from.starts_with("/proc") {
                Some(from.clone())
            } else if fs::symlink_metadata(&from).is_err() {
                open_as(process, &from)
            } else {
                None
            };
            Effect::Link {
                follow: open.is_some(),
                from: open.unwrap_or(from),
                to,
            }
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
        match self.socket_name(task.tid(), process, address, length) {
            Some(name) if name.is_reached() => {
                let path = name.path().to_owned();
                let paths = vec![path.clone()];
                self.journal_effect(task, Effect::MakeNode { path }, paths)
            }
            _ => Ok(task.resume(None)?),
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
        let names = effect.names().cloned().collect();
        let prepared = Box::new(self.journal.before(effect));
        if let Err(obstacle) = &prepared.undoable {
            self.bar(&obstacle.clone());
        }
        let pending = Pending::Effect {
            prepared,
            paths,
            names,
        };
        self.run.wait_for_answer(task.tid(), pending);
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
        self.call_is_over();
        if succeeded {
            self.written(paths);
        } else {
            for path in paths {
                self.observe_failure(path)?;
            }
        }
        Ok(())
    }

    /// A task was killed in the middle of a call: whether it had its effect nobody can
    /// tell any more. `process` is its own, unless all of the guest is killed.
    pub(super) fn effect_cut_off(
        &mut self,
        process: Option<Tid>,
        prepared: journal::Prepared,
        paths: &[PathBuf],
    ) {
        let process = process.map(|process| process.raw().unsigned_abs());
        if let Err(obstacle) = self.journal.after_kill(prepared, process) {
            self.bar(&obstacle);
        }
        self.call_is_over();
        self.written(paths);
    }

    /// What is at these paths is the guest's own doing.
    fn written(&mut self, paths: &[PathBuf]) {
        for path in paths {
            self.timeline.wrote(path);
            self.lookups.changed(path);
        }
        if let [from, to] = paths {
            for (from, to) in [(from, to), (to, from)] {
                if fs::symlink_metadata(to).is_ok_and(|found| found.is_dir()) {
                    self.folder_moved(from, to);
                }
            }
        }
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

/// The fd, in `/proc`, by which a process has a file open that is called so there and
/// nowhere else, since it has no name.
fn open_as(process: Tid, name: &Path) -> Option<PathBuf> {
    let fds = fs::read_dir(format!("/proc/{process}/fd")).ok()?;
    let mut links = fds.flatten().map(|fd| fd.path());
    links.find(|link| fs::read_link(link).is_ok_and(|target| target == name))
}

/// Whether an effect is on a device or on the kernel's own files.
fn is_no_file(effect: &Effect) -> bool {
    let path = match effect {
        Effect::OpenWrite { path, .. }
        | Effect::Truncate { path }
        | Effect::Attributes { path, .. }
        | Effect::Other {
            path: Some(path), ..
        } => path,
        _ => return false,
    };
    let bytes = path.as_os_str().as_bytes();
    (bytes.starts_with(b"/dev/") && !bytes.starts_with(b"/dev/shm/")) || bytes.starts_with(b"/sys/")
}
