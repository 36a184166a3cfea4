//! A folder for sockets, a listening end that answers as it is told, and
//! clients.

use std::io::{BufRead, BufReader, Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use forkmon::control::place::Folders;
use forkmon::control::{
    Asked, CheckpointStatus, JournalItem, Place, Reply, Request, Server, Status,
};

/// Only a hang takes so long.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A private folder that stands for `$XDG_RUNTIME_DIR`, and a project.
pub struct Ground {
    dir: tempfile::TempDir,
}

impl Ground {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("project")).unwrap();
        std::fs::create_dir(dir.path().join("run")).unwrap();
        let ground = Self { dir };
        ground.set_mode("run", 0o700);
        ground
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn set_mode(&self, name: &str, mode: u32) {
        let mode = std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(self.path(name), mode).unwrap();
    }

    pub fn folders(&self) -> Folders {
        Folders {
            runtime: Some(self.path("run")),
            temporary: self.path(""),
        }
    }

    /// Where the forkmon of the project with this process id listens.
    pub fn place(&self, pid: u32) -> Place {
        Place::own(&self.folders(), &self.path("project"), pid)
    }

    /// Where the sockets are.
    pub fn sockets(&self) -> PathBuf {
        self.path("run/forkmon")
    }
}

/// What was asked, in order.
#[derive(Clone, Default)]
pub struct Log(Arc<Mutex<Vec<Request>>>);

impl Log {
    pub fn seen(&self) -> Vec<Request> {
        self.0.lock().unwrap().clone()
    }
}

/// Listens, and answers each request by `answer`.
pub fn serve(
    place: Place,
    answer: impl Fn(Request) -> Reply + Send + Sync + 'static,
) -> (Server, Log) {
    let log = Log::default();
    let seen = log.clone();
    let server = Server::start(place, move |asked: Asked| {
        seen.0.lock().unwrap().push(asked.request);
        // Whoever asked may be gone.
        let _ = asked.answer.send(answer(asked.request));
    });
    (server.unwrap(), log)
}

/// Like a forkmon whose guest has two checkpoints.
pub fn plausible(request: Request) -> Reply {
    match request {
        Request::Checkpoint => Reply::Checkpoint { id: 12 },
        Request::Resume { id: Some(99) } => {
            Reply::refused("no-checkpoint", "there is no checkpoint 99")
        }
        Request::Resume { id } => Reply::Resumed {
            from: id.unwrap_or(12),
            kept_ms: 1_020.0,
        },
        Request::Restart => Reply::Restarted,
        Request::Wait => Reply::Settled {
            run: 3,
            code: None,
            signal: Some(9),
        },
        Request::Status => Reply::Status(status()),
        Request::Journal => Reply::Journal { items: items() },
        Request::Quit => Reply::Quitting,
    }
}

pub fn items() -> Vec<JournalItem> {
    let item = |name: &str, stays| JournalItem {
        path: format!("/home/u/project/{name}").into(),
        at_ms: 1_700_000_000_000,
        size: 12,
        why: "the program had made it, and that was undone".to_owned(),
        lies: format!("/tmp/.forkmon-4711-0/{name}").into(),
        stays,
    };
    vec![item("out.txt", false), item("notes.txt", true)]
}

pub fn status() -> Status {
    let checkpoint = |id, path: Option<&str>| CheckpointStatus {
        id,
        path: path.map(PathBuf::from),
        age_ms: 5_000.0,
        guest_ms: 2.125,
        threads: 1,
        resident_bytes: 9 << 20,
        own_bytes: path.map(|_| 1 << 20),
    };
    Status {
        run: 3,
        pid: 4711,
        guest: None,
        root: "/home/u/project".into(),
        argv: vec!["lua".to_owned(), "main.lua".to_owned()],
        checkpoints: vec![
            checkpoint(0, Some("/home/u/project/main.lua")),
            checkpoint(12, None),
        ],
    }
}

/// A client that speaks the protocol by hand.
pub struct Client {
    stream: BufReader<UnixStream>,
}

impl Client {
    pub fn connect(path: &Path) -> Self {
        let stream = UnixStream::connect(path).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        Self {
            stream: BufReader::new(stream),
        }
    }

    /// Sends as much as is taken; a server may have enough at any time.
    pub fn send(&mut self, bytes: &[u8]) {
        let _ = self.stream.get_mut().write_all(bytes);
    }

    /// The next answer; `None` if the connection has ended.
    pub fn answer(&mut self) -> Option<Reply> {
        let mut line = Vec::new();
        match self.stream.read_until(b'\n', &mut line) {
            Ok(0) => None,
            Ok(_) => Some(Reply::parse(&line).unwrap()),
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => None,
            Err(error) => panic!("{error}"),
        }
    }

    pub fn ask(&mut self, request: Request) -> Option<Reply> {
        self.send(request.to_line().as_bytes());
        self.answer()
    }

    /// Waits until the other end has closed the connection.
    pub fn wait_end(&mut self) {
        let mut rest = Vec::new();
        match self.stream.read_to_end(&mut rest) {
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => {}
            Err(error) => panic!("it is kept open: {error}"),
        }
    }
}

/// Whether this test can become another user; if not, that is said.
pub fn as_root() -> bool {
    let is_root = rustix::process::geteuid().is_root();
    if !is_root {
        skipped("only root can become another user");
    }
    is_root
}

/// Says that something is not tested here, and writes it to the file named by
/// `FORKMON_SKIP_LOG`.
pub fn skipped(why: &str) {
    let test = std::thread::current().name().unwrap_or("a test").to_owned();
    let line = format!("SKIPPED {test}: {why}\n");
    eprint!("{line}");
    if let Some(log) = std::env::var_os("FORKMON_SKIP_LOG") {
        let mut file = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(log)
            .unwrap();
        file.write_all(line.as_bytes()).unwrap();
    }
}
