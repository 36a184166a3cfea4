//! What the guest learns from the file system: from a stopped call to the paths that
//! it asks for, and what it is after there.
//!
//! Recording the facts is `observe`'s concern, what the guest changes `effect`'s.

use super::Supervisor;
use super::calls::{At, Learns, Listing, Request, decode};
use super::fingerprint::open_unblocked;
use super::lookup::{Found, Name, folder_of};
use super::observe::Want;
use super::run::Pending;
use super::walk::{Last, Whose};
use snapshot::Hazard;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::rc::Rc;
use tracee::{AddressSpace, RemoteAddr, Stopped, Tid};

/// Scripts that are the interpreters of scripts, before the kernel gives up
/// (`exec_binprm` in `fs/exec.c`).
const MOST_INTERPRETERS: u32 = 5;

impl Supervisor<'_> {
    /// Handles a stop before a system call: records what it tells the guest,
    /// prepares for what it changes, and lets it run.
    pub(super) fn call(&mut self, task: Stopped) -> anyhow::Result<()> {
        let tid = task.tid();
        let process = self.run.process_of(tid).unwrap_or(tid);
        let stop = task.syscall()?;
        let Some(request) = decode(&stop) else {
            return Ok(task.resume(None)?);
        };
        if !matches!(request, Request::Look { .. }) {
            self.run.just_opened = None;
        }
        match request {
            Request::Open { at, flags } => self.open(task, process, at, flags, 0),
            Request::OpenHow { at, how } => {
                // `struct open_how`: flags, mode and resolve, of 64 bits each. What
                // cannot be read fails in the kernel, too, unless it is hidden.
                let memory = AddressSpace::of(tid);
                let field = |n: u64| memory.read_u64(RemoteAddr(how.0 + 8 * n));
                match (field(0), field(2)) {
                    (Ok(flags), Ok(resolve)) => self.open(task, process, at, flags as i32, resolve),
                    (Err(e), _) | (_, Err(e)) if e.is_death() => Err(e.into()),
                    (Err(e), _) | (_, Err(e)) if e.errno() == Some(libc::EPERM) => {
                        self.note(Hazard::Unreadable, process);
                        Ok(task.resume(None)?)
                    }
                    _ => Ok(task.resume(None)?),
                }
            }
            Request::Look {
                at,
                last,
                empty,
                learns,
            } => {
                if stop.call as i64 == libc::SYS_inotify_add_watch {
                    self.watches(tid, process, at, last);
                }
                self.look(task, process, at, last, empty, learns)
            }
            Request::Connect { address, length } => {
                match self.socket_name(tid, process, address, length) {
                    Some(name) => match self.touch(task, &name, Some(Want::Metadata))? {
                        Some(task) => Ok(task.resume(None)?),
                        None => Ok(()),
                    },
                    None => Ok(task.resume(None)?),
                }
            }
            Request::List { fd, into } => self.list(task, process, fd, into),
            Request::ChangeFolder { to } => {
                if let Some(at) = to
                    && let Found::Name(name) = self.find(tid, process, at, Last::Follow)
                {
                    self.lookups.entered(&self.config.scope, &name);
                    match self.touch(task, &name, Some(Want::Metadata))? {
                        Some(stopped) => return self.change_folder(stopped),
                        None => return Ok(()),
                    }
                }
                self.change_folder(task)
            }
            Request::Effect { at, last, kind } => self.effect(task, process, at, last, kind),
            Request::EffectOnFd { fd, kind } => self.effect_on_fd(task, process, fd, kind),
            Request::TwoPaths {
                from,
                last,
                to,
                rename,
                flags,
            } => self.effect_on_two(task, process, (from, last), to, rename, flags),
            Request::Bind { address, length } => self.bind(task, process, address, length),
            Request::MapShared {
                fd,
                writable,
                anonymous,
            } => {
                if (writable || anonymous || is_open_for_writing(process, fd))
                    && process == self.run.root()
                {
                    self.run.guest.note(Hazard::SharedMappings);
                }
                self.reads(task, process)
            }
            Request::Reads => self.reads(task, process),
            Request::Note(hazard) => {
                self.note(hazard, process);
                Ok(task.resume(None)?)
            }
            Request::ChangesAttributes => {
                self.note(Hazard::Attributes, process);
                self.run.guest.forget_thread(tid);
                Ok(task.resume(None)?)
            }
            Request::Lock { fd } => {
                self.free_lock(process, fd);
                Ok(task.resume(None)?)
            }
            Request::SetModes { fd } => self.sets_modes(task, process, fd),
            Request::ChangesThread => {
                self.run.guest.forget_thread(tid);
                Ok(task.resume(None)?)
            }
            Request::Listen => {
                self.listens(process);
                Ok(task.resume(None)?)
            }
            Request::Identity => {
                // These two are of interest in every run.
                match stop.call as i64 {
                    libc::SYS_set_tid_address => self.run.guest.forget_thread(tid),
                    libc::SYS_timer_create => self.note(Hazard::PosixTimers, process),
                    _ => {}
                }
                Ok(self.identity(task, &stop)?)
            }
        }
    }

    /// Notes what a checkpoint has to know of. What is not seen of any process
    /// of the guest cannot be undone either.
    fn note(&mut self, hazard: Hazard, process: Tid) {
        if process == self.run.root() {
            self.run.guest.note(hazard);
        }
        if hazard.hides_accesses() && !self.run.barred {
            self.run.barred = true;
            self.lose_checkpoints(
                "hidden-accesses",
                "the guest makes system calls of another architecture, changed its root or \
                 namespaces, or runs a program that may not be read, so that its accesses are \
                 not seen: it is restarted, not resumed",
            );
        }
    }

    fn change_folder(&mut self, task: Stopped) -> anyhow::Result<()> {
        self.run.wait_for_answer(task.tid(), Pending::Folder);
        Ok(task.resume_to_syscall()?)
    }

    pub(super) fn find(&mut self, task: Tid, process: Tid, at: At, last: Last) -> Found {
        let of = self.run.processes.entry(process).or_default();
        let scope = &self.config.scope;
        let found = self.lookups.find(scope, task, process, of, at, last);
        self.noting_hidden(found, process)
    }

    /// The guest is about to watch a file itself: a checkpoint has to know its path.
    fn watches(&mut self, task: Tid, process: Tid, at: At, last: Last) {
        if process == self.run.root()
            && let Found::Name(name) = self.find(task, process, at, last)
        {
            self.run.guest.note_watched(name.path());
        }
    }

    /// A path that cannot be read says nothing of what the guest learns by it.
    fn noting_hidden(&mut self, found: Found, process: Tid) -> Found {
        if matches!(found, Found::Hidden) {
            self.note(Hazard::Unreadable, process);
        }
        found
    }

    fn open(
        &mut self,
        task: Stopped,
        process: Tid,
        at: At,
        flags: i32,
        resolve: u64,
    ) -> anyhow::Result<()> {
        let exclusive = flags & libc::O_CREAT != 0 && flags & libc::O_EXCL != 0;
        let last = if flags & libc::O_NOFOLLOW == 0 && !exclusive {
            Last::Follow
        } else {
            Last::Keep
        };
        let found = if resolve & libc::RESOLVE_IN_ROOT == 0 {
            self.find(task.tid(), process, at, last)
        } else {
            let of = self.run.processes.entry(process).or_default();
            let scope = &self.config.scope;
            let lookups = &mut self.lookups;
            let found = lookups.find_in_root(scope, task.tid(), process, of, at, last);
            self.noting_hidden(found, process)
        };
        let Found::Name(name) = found else {
            return Ok(task.resume(None)?);
        };
        let path_only = flags & libc::O_PATH != 0;
        let unnamed = flags & libc::O_TMPFILE == libc::O_TMPFILE;
        let creates = flags & libc::O_CREAT != 0;
        let truncates = flags & libc::O_TRUNC != 0;
        let writes = !path_only
            && !unnamed
            && (flags & libc::O_ACCMODE != libc::O_RDONLY || creates || truncates);
        let want = if path_only || unnamed {
            Some(Want::Metadata)
        } else if !truncates || exclusive {
            Some(Want::Content)
        } else if creates {
            // A file that is made or cut to nothing tells the guest nothing.
            None
        } else {
            Some(Want::Metadata)
        };
        self.lookups.entered(&self.config.scope, &name);
        if writes || want != Some(Want::Content) || !name.in_scope {
            let Some(task) = self.touch(task, &name, want)? else {
                return Ok(());
            };
            if writes {
                return self.open_for_writing(task, &name, flags);
            }
            if unnamed {
                return self.open_nameless(task, process);
            }
            return Ok(task.resume(None)?);
        }
        let Some(task) = self.see_reads(task, process)? else {
            return Ok(());
        };
        let want = if self.is_read_in_pieces(name.path(), process) {
            Want::Presence
        } else {
            Want::Content
        };
        let Some(task) = self.touch(task, &name, Some(want))? else {
            return Ok(());
        };
        self.opens(name.path(), process);
        Ok(task.resume(None)?)
    }

    fn look(
        &mut self,
        task: Stopped,
        process: Tid,
        at: At,
        last: Last,
        empty: bool,
        learns: Learns,
    ) -> anyhow::Result<()> {
        let tid = task.tid();
        let just_opened = self.just_opened(process);
        let name = match self.find(tid, process, at, last) {
            Found::Name(name) => name,
            // fexecve: the program is what the fd is open on.
            Found::Empty if empty && learns == Learns::Program => {
                self.name_of_fd(tid, process, at.folder)
            }
            Found::Empty if learns == Learns::Metadata => {
                self.asks_size(process, at.folder);
                return Ok(task.resume(None)?);
            }
            _ => return Ok(task.resume(None)?),
        };
        let want = match learns {
            Learns::Presence => Want::Presence,
            // A shell makes sure that its script is none of a folder.
            Learns::Metadata if just_opened.as_deref() == Some(name.path()) => Want::Presence,
            Learns::Metadata => Want::Metadata,
            Learns::Link => Want::Link,
            Learns::Program => Want::Program,
        };
        if want == Want::Program {
            self.free_written(name.path());
        }
        let again = name.in_scope && name.is_reached() && self.looks_again(name.path(), want);
        let Some(task) = self.touch(task, &name, Some(want))? else {
            return Ok(());
        };
        if again {
            let path = name.path().to_owned();
            self.run.wait_for_answer(tid, Pending::Looked { path });
            return Ok(task.resume_to_syscall()?);
        }
        if want == Want::Program {
            if process == self.run.root() && interpreter_of(name.path()).is_some() {
                self.executes_script(name.path());
            }
            let Some(task) = self.interpreter(task, process, name)? else {
                return Ok(());
            };
            return Ok(task.resume(None)?);
        }
        Ok(task.resume(None)?)
    }

    /// What an fd of the guest is open on.
    pub(super) fn name_of_fd(&mut self, task: Tid, process: Tid, fd: i32) -> Rc<Name> {
        let link = OsString::from(format!("/proc/{process}/fd/{fd}"));
        self.name(task, process, None, link, Last::Follow)
    }

    fn name(
        &mut self,
        task: Tid,
        process: Tid,
        base: Option<Rc<Path>>,
        text: OsString,
        last: Last,
    ) -> Rc<Name> {
        let whose = Whose {
            task,
            process,
            root: Path::new("/"),
        };
        let scope = &self.config.scope;
        self.lookups.name(scope, whose, base, text, last)
    }

    /// The kernel also executes the interpreter that a script names, and the
    /// interpreter of that.
    fn interpreter(
        &mut self,
        task: Stopped,
        process: Tid,
        script: Rc<Name>,
    ) -> anyhow::Result<Option<Stopped>> {
        if self.config.once {
            return Ok(Some(task));
        }
        let (mut task, mut script) = (task, script);
        for _ in 0..MOST_INTERPRETERS {
            let Some(word) = interpreter_of(script.path()) else {
                break;
            };
            let of = self.run.processes.entry(process).or_default();
            let Ok(folder) = folder_of(process, of) else {
                break;
            };
            script = self.name(task.tid(), process, Some(folder), word, Last::Follow);
            match self.touch(task, &script, Some(Want::Program))? {
                Some(stopped) => task = stopped,
                None => return Ok(None),
            }
        }
        Ok(Some(task))
    }

    fn list(&mut self, task: Stopped, process: Tid, fd: i32, into: Listing) -> anyhow::Result<()> {
        let folder = match fs::read_link(format!("/proc/{process}/fd/{fd}")) {
            Ok(folder) => folder,
            Err(error) => {
                if error.kind() == std::io::ErrorKind::PermissionDenied {
                    self.note(Hazard::Unreadable, process);
                }
                return Ok(task.resume(None)?);
            }
        };
        if !self.config.scope.may_contain_below(&folder)
            && self.lookups.name_in_scope(&folder).is_none()
        {
            return self.let_list(task, &folder, into);
        }
        match self.touch_path(task, &folder, Want::Listing)? {
            Some(task) => self.let_list(task, &folder, into),
            None => Ok(()),
        }
    }

    /// The name in the address of a Unix socket.
    pub(super) fn socket_name(
        &mut self,
        task: Tid,
        process: Tid,
        address: RemoteAddr,
        length: u64,
    ) -> Option<Rc<Name>> {
        let length = usize::try_from(length).ok()?;
        let mut bytes = vec![0; length.min(size_of::<libc::sockaddr_un>())];
        AddressSpace::of(task).read(address, &mut bytes).ok()?;
        let family = u16::from_ne_bytes([*bytes.first()?, *bytes.get(1)?]);
        let path = bytes.get(2..)?.split(|&b| b == 0).next()?;
        if i32::from(family) != libc::AF_UNIX || path.is_empty() {
            return None;
        }
        let path = OsStr::from_bytes(path).to_owned();
        let of = self.run.processes.entry(process).or_default();
        let folder = folder_of(process, of).ok()?;
        Some(self.name(task, process, Some(folder), path, Last::Follow))
    }
}

/// The interpreter that a script names in its first line.
fn interpreter_of(script: &Path) -> Option<OsString> {
    let mut head = [0; 256];
    let length = open_unblocked(script).ok()?.read(&mut head).ok()?;
    let line = head[..length].strip_prefix(b"#!")?;
    let line = line.split(|&byte| byte == b'\n').next()?;
    let mut words = line.split(|byte| matches!(byte, b' ' | b'\t'));
    let word = words.find(|word| !word.is_empty())?;
    Some(OsStr::from_bytes(word).to_owned())
}

fn is_open_for_writing(process: Tid, fd: i32) -> bool {
    let Ok(info) = fs::read_to_string(format!("/proc/{process}/fdinfo/{fd}")) else {
        return true;
    };
    info.lines()
        .find_map(|line| line.strip_prefix("flags:"))
        .and_then(|flags| i32::from_str_radix(flags.trim(), 8).ok())
        .is_none_or(|flags| flags & libc::O_ACCMODE != libc::O_RDONLY)
}
