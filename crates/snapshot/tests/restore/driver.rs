//! Drives a fixture: a small C program that says where its checkpoint is and
//! what it sees (`fixtures/marker.h`).

use snapshot::{Frozen, Guest, Hazard, Image, Inherited, OnConnection, Refusal};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::Duration;
use tempfile::TempDir;
use tracee::{Action, Command, End, Event, Filter, Report, Rule, Stopped, Tid, Tracer};

/// How long a fixture may take before it counts as hanging.
const HANG: Duration = Duration::from_secs(60);

/// Where a fixture's run has come to.
#[derive(Debug)]
pub enum Reached {
    /// Its checkpoint.
    Checkpoint(Stopped),
    /// The place where it asked to be killed.
    Stop,
    /// Its end.
    End(End),
}

/// A fixture under trace.
pub struct Driver {
    tracer: Tracer,
    guest: Guest,
    filter: Filter,
    /// The checkpoint's marker comes again after the checkpoint.
    passing: bool,
    alive: bool,
    watched: Arc<AtomicI32>,
    _watchdog: Sender<()>,
    folder: TempDir,
}

/// Kills a fixture that hangs, so that its test fails rather than waits.
fn watchdog(watched: Arc<AtomicI32>) -> Sender<()> {
    let (stop, stopped) = channel();
    std::thread::spawn(move || {
        if stopped.recv_timeout(HANG) == Err(RecvTimeoutError::Timeout)
            && let Some(pid) = rustix::process::Pid::from_raw(watched.load(Ordering::SeqCst))
        {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
    });
    stop
}

fn compile(fixture: &str, folder: &Path) -> PathBuf {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let program = folder.join(fixture);
    let status = std::process::Command::new("cc")
        .args(["-O1", "-Wall", "-Werror", "-D_GNU_SOURCE", "-o"])
        .arg(&program)
        .arg(sources.join(fixture).with_extension("c"))
        .status()
        .expect("cc compiles the fixtures");
    assert!(status.success(), "{fixture} does not compile");
    program
}

impl Driver {
    /// Compiles and starts a fixture. `{}` in an argument stands for a folder of
    /// its own, which is gone at the end of the test.
    pub fn start(fixture: &str, arguments: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let program = compile(fixture, folder.path());
        let own = folder.path().to_str().unwrap().to_owned();
        let mut all = vec![program.into_os_string()];
        all.extend(arguments.iter().map(|a| a.replace("{}", &own).into()));
        let mut filter = Filter::new(Action::Allow);
        filter.add(Rule::always(libc::SYS_access, Action::Trace(1)));
        let mut tracer = Tracer::new();
        let inherited = Arc::new(Inherited::of_this_process().unwrap());
        let command = Command {
            arguments: all,
            environment: std::env::vars_os().collect(),
            ..Command::default()
        };
        let spawned = tracer.spawn(&command, &filter.compile()).unwrap();
        let watched = Arc::new(AtomicI32::new(spawned.task.raw()));
        let mut guest = Guest::new(spawned.task, inherited);
        // The calls that lead to these are not traced here.
        guest.note(Hazard::IntervalTimers);
        guest.note(Hazard::PosixTimers);
        guest.note(Hazard::SharedMappings);
        guest.note(Hazard::Attributes);
        Self {
            tracer,
            guest,
            filter: Filter::new(Action::Allow),
            passing: false,
            alive: true,
            _watchdog: watchdog(watched.clone()),
            watched,
            folder,
        }
    }

    /// The fixture's own folder.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Says what becomes of connections to others.
    pub fn set_on_connection(&mut self, choice: OnConnection) {
        self.guest.set_on_connection(choice);
    }

    /// Lets the fixture run, and gives each line that it says to `heard`.
    pub fn run(&mut self, heard: &mut dyn FnMut(&str)) -> Reached {
        loop {
            match self.tracer.wait().unwrap() {
                Report::Stop(task, Event::Seccomp) => {
                    let path = task.syscall().unwrap().arguments[0];
                    let path = tracee::AddressSpace::of(task.tid())
                        .read_string(tracee::RemoteAddr(path), 4096)
                        .unwrap()
                        .unwrap();
                    let path = path.to_string_lossy().into_owned();
                    match path.split_once(':') {
                        Some(("say", "stop")) => {
                            self.kill();
                            return Reached::Stop;
                        }
                        Some(("say", line)) => heard(line),
                        Some(("checkpoint", _)) if !std::mem::take(&mut self.passing) => {
                            return Reached::Checkpoint(task);
                        }
                        _ => {}
                    }
                    task.resume(None).unwrap();
                }
                Report::Stop(task, Event::Signal(signal)) => task.resume(Some(signal)).unwrap(),
                Report::Stop(task, _) => task.resume(None).unwrap(),
                Report::End(task, end) if task == self.guest.process() => {
                    self.alive = false;
                    return Reached::End(end);
                }
                Report::End(..) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    /// Kills and reaps the run.
    pub fn kill(&mut self) {
        if std::mem::take(&mut self.alive) {
            let process = self.guest.process();
            let folder = format!("/proc/{process}/task");
            let threads: Vec<Tid> = std::fs::read_dir(folder)
                .into_iter()
                .flatten()
                .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok().map(Tid::new))
                .filter(|tid| *tid != process)
                .collect();
            tracee::kill_task(process, libc::SIGKILL);
            // The first one's end is reported when no other is left.
            for task in threads.into_iter().chain([process]) {
                self.tracer.reap(task).unwrap();
            }
        }
    }

    /// Takes a checkpoint, and lets the run go on after it.
    pub fn freeze(&mut self, task: Stopped) -> Result<Image, Refusal> {
        let mut hold = |_: &snapshot::HeldFile| Ok(());
        let Frozen { task, outcome } = snapshot::freeze(
            &mut self.tracer,
            &mut self.guest,
            Some(task),
            &|_| false,
            &mut hold,
        );
        let task = task.expect("the fixture lives");
        self.passing = !task.is_before_call();
        task.resume(None).unwrap();
        outcome
    }

    /// Gets the copy ready that the next resume goes on with; its process.
    pub fn prepare(&mut self, image: &mut Image) -> Tid {
        let before = children();
        image
            .prepare(&mut self.tracer, &self.filter.compile())
            .unwrap();
        let new: Vec<Tid> = children().difference(&before).copied().collect();
        assert_eq!(new.len(), 1, "one copy is made");
        new[0]
    }

    /// Brings a checkpoint back, and lets it run.
    pub fn resume(&mut self, image: &mut Image) -> Result<(), Refusal> {
        assert!(!self.alive, "the run before is over");
        let resumed = image.resume(&mut self.tracer, &self.filter.compile(), &[])?;
        self.guest = resumed.guest;
        self.watched
            .store(self.guest.process().raw(), Ordering::SeqCst);
        self.alive = true;
        self.passing = true;
        for task in resumed.threads {
            task.resume(None).unwrap();
        }
        Ok(())
    }

    /// Drops a checkpoint.
    pub fn discard(&mut self, image: Image) {
        image.discard(&mut self.tracer);
    }
}

/// The children of this thread, which traces them.
fn children() -> BTreeSet<Tid> {
    let own = std::fs::read_to_string("/proc/thread-self/children").unwrap();
    own.split_whitespace()
        .map(|tid| Tid::new(tid.parse().unwrap()))
        .collect()
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.kill();
    }
}
