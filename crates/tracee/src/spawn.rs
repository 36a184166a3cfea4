//! Starting a guest under trace.

use crate::stop::Tid;
use crate::sys::spawn::{Plan, Stage, fork};
use crate::{Program, Tracer};
use rustix::pipe::{PipeFlags, pipe_with};
use std::ffi::{CString, OsStr, OsString};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// A program to run, with its arguments and environment. Everything else (open
/// files, working directory, process group, …) is inherited.
#[derive(Clone, Debug, Default)]
pub struct Command<'a> {
    /// The program's name and its arguments.
    pub arguments: Vec<OsString>,
    /// The whole environment.
    pub environment: Vec<(OsString, OsString)>,
    /// Its standard input, output and error, each of a number above 2; `None`
    /// inherits.
    pub streams: [Option<BorrowedFd<'a>>; 3],
}

/// Why a guest could not be started.
#[derive(Debug, thiserror::Error)]
pub enum SpawnError {
    /// There is no such program.
    #[error("{}: not found", .0.display())]
    NotFound(PathBuf),
    /// It cannot be executed.
    #[error("{}: cannot be executed: {source}", path.display())]
    NotExecutable {
        /// The program.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The kernel or a container's policy refuses ptrace.
    #[error(
        "ptrace is refused ({0}): in a container allow it (docker run --cap-add=SYS_PTRACE, \
         or a newer engine's default profile); under Yama set kernel.yama.ptrace_scope below 2"
    )]
    Ptrace(#[source] io::Error),
    /// The kernel or a container's policy refuses a seccomp filter.
    #[error(
        "a seccomp filter is refused ({0}): the kernel needs CONFIG_SECCOMP_FILTER, and a \
         container's profile must allow seccomp(2) (docker run --security-opt seccomp=unconfined)"
    )]
    Seccomp(#[source] io::Error),
    /// Something else failed before the guest could run.
    #[error("{step}: {source}")]
    Other {
        /// What was tried.
        step: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
}

fn other(step: &'static str) -> impl FnOnce(io::Error) -> SpawnError {
    move |source| SpawnError::Other { step, source }
}

fn c_string(bytes: &OsStr) -> Result<CString, SpawnError> {
    CString::new(bytes.as_bytes()).map_err(|_| SpawnError::NotExecutable {
        path: bytes.into(),
        source: io::ErrorKind::InvalidInput.into(),
    })
}

/// Finds a program as execvp(3) does: as it is if there is a slash in it, else
/// along PATH.
fn find(name: &OsStr, environment: &[(OsString, OsString)]) -> Result<PathBuf, SpawnError> {
    let check = |path: &Path| -> io::Result<()> {
        let metadata = std::fs::metadata(path)?;
        if metadata.is_dir() {
            return Err(io::Error::from_raw_os_error(libc::EACCES));
        }
        rustix::fs::access(path, rustix::fs::Access::EXEC_OK)?;
        Ok(())
    };
    let name_path = Path::new(name);
    if name.as_bytes().contains(&b'/') {
        return match check(name_path) {
            Ok(()) => Ok(name_path.into()),
            Err(e) if is_missing(&e) => Err(SpawnError::NotFound(name_path.into())),
            Err(source) => Err(SpawnError::NotExecutable {
                path: name_path.into(),
                source,
            }),
        };
    }
    let path = environment
        .iter()
        .find(|(variable, _)| variable == "PATH")
        .map_or(OsStr::new("/bin:/usr/bin"), |(_, value)| value.as_os_str());
    let mut refused = None;
    for folder in path.as_bytes().split(|&b| b == b':') {
        let folder = if folder.is_empty() { b"." } else { folder };
        let candidate = Path::new(OsStr::from_bytes(folder)).join(name);
        match check(&candidate) {
            Ok(()) => return Ok(candidate),
            Err(e) if is_missing(&e) => {}
            Err(e) => refused = refused.or(Some((candidate, e))),
        }
    }
    Err(match refused {
        Some((path, source)) if !name.is_empty() => SpawnError::NotExecutable { path, source },
        _ => SpawnError::NotFound(name_path.into()),
    })
}

fn is_missing(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR))
}

impl Tracer {
    /// Starts a program under trace and under a filter. Its first stop is
    /// PTRACE_EVENT_EXEC, or the filter's if it traces execve; whether the
    /// exec worked is known by then: see [`Spawned::outcome`].
    ///
    /// # Errors
    ///
    /// [`SpawnError`]: not found, not executable, or ptrace refused.
    pub fn spawn(
        &mut self,
        command: &Command<'_>,
        filter: &Program,
    ) -> Result<Spawned, SpawnError> {
        let name = command
            .arguments
            .first()
            .map_or(OsStr::new(""), OsString::as_os_str);
        let path = find(name, &command.environment)?;
        let arguments = command
            .arguments
            .iter()
            .map(|a| c_string(a))
            .collect::<Result<Vec<_>, _>>()?;
        let program = c_string(path.as_os_str())?;
        let mut shell = vec![c_string(OsStr::new("/bin/sh"))?, program.clone()];
        shell.extend(arguments.iter().skip(1).cloned());
        let environment = command
            .environment
            .iter()
            .map(|(name, value)| {
                let mut both = name.clone();
                both.push("=");
                both.push(value);
                c_string(&both)
            })
            .collect::<Result<Vec<_>, _>>()?;
        let (go_read, go_write) =
            pipe_with(PipeFlags::CLOEXEC).map_err(|e| other("make a pipe")(e.into()))?;
        let (failure_read, failure_write) =
            pipe_with(PipeFlags::CLOEXEC).map_err(|e| other("make a pipe")(e.into()))?;
        let task = fork(&Plan {
            program,
            arguments,
            shell,
            environment,
            streams: command.streams,
            filter: &filter.0,
            go: go_read.as_fd(),
            failure: failure_write.as_fd(),
        })
        .map_err(other("fork the guest"))?;
        drop(go_read);
        drop(failure_write);
        if let Err(source) = self.seize(task) {
            // At the end of its pipe the child gives up, and is reaped here.
            drop(go_write);
            let _ = crate::sys::process::wait(Some(task), true);
            return Err(SpawnError::Ptrace(source));
        }
        std::fs::File::from(go_write)
            .write_all(&[1])
            .map_err(other("let the guest go"))?;
        Ok(Spawned {
            task,
            path,
            failure: failure_read.into(),
        })
    }
}

/// A guest that has been started.
#[derive(Debug)]
pub struct Spawned {
    /// Its first task.
    pub task: Tid,
    /// The program that was found.
    pub path: PathBuf,
    failure: std::fs::File,
}

impl Spawned {
    /// Why the guest ended before its program ran, if it did. To be asked when
    /// the first task has ended without PTRACE_EVENT_EXEC.
    #[must_use]
    pub fn outcome(mut self) -> Option<SpawnError> {
        let mut report = [0u8; 5];
        self.failure.read_exact(&mut report).ok()?;
        let errno = i32::from_ne_bytes([report[1], report[2], report[3], report[4]]);
        let source = io::Error::from_raw_os_error(errno);
        Some(match Stage::from_byte(report[0])? {
            Stage::NoNewPrivileges | Stage::Filter => SpawnError::Seccomp(source),
            Stage::Streams => SpawnError::Other {
                step: "give the guest its standard streams",
                source,
            },
            Stage::Exec if is_missing(&source) => SpawnError::NotFound(self.path),
            Stage::Exec => SpawnError::NotExecutable {
                path: self.path,
                source,
            },
        })
    }
}
