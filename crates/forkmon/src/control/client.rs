//! The asking end: `forkmon ctl`. It finds the forkmon that is meant, asks, and
//! tells the answer: what was asked for on standard output, everything else on
//! standard error, and by the exit status.

use std::io::{self, BufRead as _, BufReader, IsTerminal as _, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, SystemTime};

use super::place::{self, Folders, Found, Reached};
use super::{Reply, Request, Status, journal, table};
use crate::cli::{CtlAction, CtlArgs};
use crate::config::Environment;
use crate::messages::{Messages, human};
use crate::scope::project_root;

/// It was done.
const DONE: u8 = 0;
/// It was refused.
const REFUSED: u8 = 1;
/// Nobody to ask, or not clear whom.
const NOBODY: u8 = 2;
/// Forkmon ended, or what answers is no forkmon.
const LOST: u8 = 3;

/// How long a forkmon has to tell what it is, for a list of them: it may be
/// stopped.
const LIST_TIME: Duration = Duration::from_secs(1);

/// The most bytes of an answer.
const MAX_REPLY: u64 = 16 << 20;

/// The width of a terminal that does not tell it.
const WIDTH: usize = 80;

/// Asks what was typed; the status to exit with.
#[must_use]
pub fn run(typed: &CtlArgs, environment: &Environment) -> u8 {
    let messages = Messages::before_options();
    let stream = match &typed.socket {
        Some(path) => match place::reach(&environment.cwd.join(path)) {
            Reached::Somebody(stream) => Ok(stream),
            Reached::Nobody => Err(format!("no forkmon listens on {}", messages.path(path))),
            Reached::Refused(error) => Err(format!(
                "cannot connect to {}: {error}",
                messages.path(path)
            )),
        },
        None => find(environment),
    };
    let stream = match stream {
        Ok(stream) => stream,
        Err(why) => {
            let (why, list) = why.split_once('\n').unwrap_or((&why, ""));
            messages.error(why);
            for line in list.lines() {
                let _ = writeln!(io::stderr(), "  {line}");
            }
            return NOBODY;
        }
    };
    let request = match &typed.action {
        CtlAction::Checkpoint => Request::Checkpoint,
        CtlAction::Resume { id } => Request::Resume { id: *id },
        CtlAction::Restart => Request::Restart,
        CtlAction::Wait => Request::Wait,
        CtlAction::Status { .. } => Request::Status,
        CtlAction::Journal { .. } => Request::Journal,
        CtlAction::Quit => Request::Quit,
    };
    match ask(&stream, request) {
        Ok(Reply::Refused { message, .. }) => {
            messages.error(&message);
            REFUSED
        }
        Ok(reply) => {
            if reply == Reply::Quitting {
                // It is over when nobody holds the other end any more.
                let _ = (&stream).read(&mut [0]);
            }
            let json = matches!(
                typed.action,
                CtlAction::Status { json: true } | CtlAction::Journal { json: true }
            );
            let text = text(&reply, json);
            // Nobody may be reading; what was asked for is done all the same.
            let _ = io::stdout().write_all(text.as_bytes());
            DONE
        }
        Err(why) => {
            messages.error(&why);
            LOST
        }
    }
}

/// What an answer is on standard output.
fn text(reply: &Reply, json: bool) -> String {
    match reply {
        Reply::Checkpoint { id } => format!("{id}\n"),
        Reply::Resumed { from, kept_ms } => {
            let kept = Duration::try_from_secs_f64(kept_ms / 1e3).unwrap_or_default();
            format!("resumed checkpoint {from}, {} kept\n", human(kept))
        }
        Reply::Restarted => "restarted\n".to_owned(),
        Reply::Settled { code, signal, .. } => {
            let status = code.or(signal.map(|signal| 128 + signal));
            status.map_or(String::new(), |status| format!("{status}\n"))
        }
        Reply::Status(_) | Reply::Journal { .. } if json => reply.to_line(),
        Reply::Status(status) => table::lines(status, width()).join("\n") + "\n",
        Reply::Journal { items } => journal::text(items, SystemTime::now()),
        Reply::Quitting | Reply::Refused { .. } => String::new(),
    }
}

/// How long a line may be; into a file or a pipe, as long as it is.
fn width() -> Option<usize> {
    let output = io::stdout();
    output.is_terminal().then(|| {
        let columns = rustix::termios::tcgetwinsize(&output).map_or(0, |size| size.ws_col);
        if columns == 0 { WIDTH } else { columns.into() }
    })
}

fn ask(stream: &UnixStream, request: Request) -> Result<Reply, String> {
    let lost = |error: io::Error| format!("lost the connection to forkmon: {error}");
    let mut writer = stream;
    writer
        .write_all(request.to_line().as_bytes())
        .map_err(lost)?;
    let mut line = Vec::new();
    BufReader::new(stream)
        .take(MAX_REPLY)
        .read_until(b'\n', &mut line)
        .map_err(lost)?;
    if line.last() != Some(&b'\n') {
        return Err("forkmon has ended before it answered".to_owned());
    }
    Reply::parse(&line).map_err(|error| {
        format!("cannot understand what answers; is it a forkmon of this version? {error}")
    })
}

/// The forkmon whose project root is that of the working folder.
fn find(environment: &Environment) -> Result<UnixStream, String> {
    let root = project_root(&environment.cwd, environment.home.as_deref());
    let folders = Folders::new(environment.runtime_dir.as_deref());
    let (found, errors) = place::find(&folders, &root);
    let mut live: Vec<(Found, UnixStream)> = Vec::new();
    for found in found {
        if let Reached::Somebody(stream) = place::reach(&found.path) {
            live.push((found, stream));
        }
    }
    let (mut wanted, others): (Vec<_>, Vec<_>) =
        live.into_iter().partition(|(found, _)| found.matches);
    if wanted.len() == 1
        && let Some((_, stream)) = wanted.pop()
    {
        return Ok(stream);
    }
    let messages = Messages::before_options();
    let mut why = if wanted.is_empty() {
        format!("no forkmon runs for {}", messages.path(&root))
    } else {
        format!("several forkmons run for {}", messages.path(&root))
    };
    let listed = if wanted.is_empty() { &others } else { &wanted };
    if listed.is_empty() {
        why.push_str("; start one there, or name its socket with --socket");
    } else {
        why.push_str("; choose one with --socket:");
    }
    for (found, stream) in listed {
        why.push('\n');
        why.push_str(&entry(&messages, &found.path, found.pid, stream));
    }
    for error in errors {
        why.push('\n');
        why.push_str(&error.to_string());
    }
    Err(why)
}

/// One of several, in a list.
fn entry(messages: &Messages, socket: &Path, pid: u32, stream: &UnixStream) -> String {
    let place = messages.path(socket);
    match describe(stream) {
        Some(status) => format!(
            "{place} (process {pid}, {} in {})",
            status.argv.first().map_or(String::new(), |program| {
                messages.path(Path::new(program))
            }),
            messages.path(&status.root)
        ),
        None => format!("{place} (process {pid}, which does not answer now)"),
    }
}

fn describe(stream: &UnixStream) -> Option<Status> {
    stream.set_read_timeout(Some(LIST_TIME)).ok()?;
    stream.set_write_timeout(Some(LIST_TIME)).ok()?;
    match ask(stream, Request::Status).ok()? {
        Reply::Status(status) => Some(status),
        _ => None,
    }
}
