//! What `/proc` says of a process: small parsers of what is read at each
//! checkpoint (proc(5)). They are pure functions of text, so that they can be
//! tested and fuzzed without a process.

use crate::fds::{Lock, parse_lock};
use std::fs::{self, File};
use std::io::{self, Read};
use tracee::Tid;

/// A text of `/proc`. Its length is not known before, and asking for it and
/// reading piece by piece costs more than all of it at once.
fn read(path: String) -> io::Result<String> {
    const USUAL: usize = 4096;
    let mut file = File::open(path)?;
    let mut text = Vec::new();
    let mut length = 0;
    loop {
        text.resize(length + USUAL, 0);
        match file.read(&mut text[length..])? {
            0 => break,
            n => length += n,
        }
    }
    text.truncate(length);
    String::from_utf8(text).map_err(|_| io::ErrorKind::InvalidData.into())
}

/// The threads of a process, by `/proc/PID/task`.
pub(crate) fn threads(process: Tid) -> io::Result<Vec<Tid>> {
    let mut threads = Vec::new();
    for entry in fs::read_dir(format!("/proc/{process}/task"))? {
        if let Some(tid) = entry?
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok())
        {
            threads.push(Tid::new(tid));
        }
    }
    Ok(threads)
}

/// Where the vDSO is mapped, by the auxiliary vector.
pub(crate) fn vdso_base(process: Tid) -> io::Result<Option<u64>> {
    let bytes = fs::read(format!("/proc/{process}/auxv"))?;
    let words: Vec<u64> = bytes
        .chunks_exact(8)
        .filter_map(|b| b.try_into().ok().map(u64::from_ne_bytes))
        .collect();
    Ok(words
        .chunks_exact(2)
        .find(|pair| pair[0] == libc::AT_SYSINFO_EHDR)
        .map(|pair| pair[1]))
}

/// Total program size and resident set size in pages, by `/proc/PID/statm`.
pub(crate) fn memory_pages(process: Tid) -> io::Result<(u64, u64)> {
    let text = read(format!("/proc/{process}/statm"))?;
    let mut numbers = text.split_ascii_whitespace().map(str::parse);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(size)), Some(Ok(resident))) => Ok((size, resident)),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

/// What `/proc/PID/stat` says, as far as it matters here.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub(crate) struct Stat {
    /// `R`, `S`, `t`, `Z`, …
    pub(crate) state: char,
    pub(crate) group: i32,
}

/// Parses `/proc/PID/stat`. The name in it may hold anything, also `)`.
pub(crate) fn parse_stat(text: &str) -> Option<Stat> {
    let (_, rest) = text.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace();
    Some(Stat {
        state: fields.next()?.chars().next()?,
        group: fields.nth(1)?.parse().ok()?,
    })
}

pub(crate) fn stat(process: Tid) -> io::Result<Stat> {
    let text = read(format!("/proc/{process}/stat"))?;
    parse_stat(&text).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// What `/proc/PID/status` says, as far as it matters here.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub(crate) struct Status {
    /// The signals that a process ignores and those that it has handlers for, one
    /// bit each.
    pub(crate) ignored: u64,
    pub(crate) caught: u64,
    /// The effective capabilities of its first thread.
    pub(crate) capabilities: u64,
    /// Whether any of its memory is locked.
    pub(crate) locks_memory: bool,
}

/// Parses `/proc/PID/status`; `None` if something is missing.
pub(crate) fn parse_status(text: &str) -> Option<Status> {
    let value = |name| {
        Some(
            text.lines()
                .find_map(|line| line.strip_prefix(name))?
                .trim(),
        )
    };
    let mask = |name| u64::from_str_radix(value(name)?, 16).ok();
    Some(Status {
        ignored: mask("SigIgn:")?,
        caught: mask("SigCgt:")?,
        capabilities: mask("CapEff:")?,
        // A process that is ending has no memory.
        locks_memory: value("VmLck:").is_some_and(|size| !size.starts_with("0 ")),
    })
}

pub(crate) fn status(process: Tid) -> io::Result<Status> {
    // The process's name in it may be of any bytes.
    let bytes = fs::read(format!("/proc/{process}/status"))?;
    parse_status(&String::from_utf8_lossy(&bytes)).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// A registration in an epoll instance.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub(crate) struct EpollTarget {
    pub(crate) fd: i32,
    pub(crate) events: u32,
    pub(crate) data: u64,
    /// The inode of the file that is registered, to tell a stale registration.
    pub(crate) inode: Option<u64>,
}

/// A watch of an inotify instance.
#[derive(Copy, Clone, Default, Eq, PartialEq, Debug)]
pub(crate) struct Watch {
    pub(crate) descriptor: i32,
    pub(crate) inode: u64,
    /// As st_dev has it.
    pub(crate) device: u64,
    pub(crate) mask: u32,
    /// The file's handle, if its file system has such (open_by_handle_at(2)).
    pub(crate) handle: Option<FileHandle>,
}

/// `struct file_handle`.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub(crate) struct FileHandle {
    pub(crate) kind: i32,
    pub(crate) length: usize,
    pub(crate) bytes: [u8; libc::MAX_HANDLE_SZ as usize],
}

/// What a timerfd is set to.
#[derive(Copy, Clone, Default, Eq, PartialEq, Debug)]
pub(crate) struct Timer {
    pub(crate) clock: i32,
    /// Of timerfd_settime(2).
    pub(crate) flags: i32,
    pub(crate) ticks: u64,
    /// Until it expires, seconds and nanoseconds; both 0 if it is not armed.
    pub(crate) value: (i64, i64),
    pub(crate) interval: (i64, i64),
}

/// `/proc/PID/fdinfo/FD`.
#[derive(Clone, Default, Eq, PartialEq, Debug)]
pub(crate) struct FdInfo {
    pub(crate) position: i64,
    /// Status and creation flags; O_CLOEXEC among them says of the fd what
    /// fcntl(2) calls FD_CLOEXEC.
    pub(crate) flags: i32,
    pub(crate) event_count: Option<u64>,
    /// Whether an eventfd is a semaphore; older kernels do not tell.
    pub(crate) semaphore: Option<bool>,
    pub(crate) timer: Timer,
    pub(crate) targets: Vec<EpollTarget>,
    /// The signals that a signalfd takes.
    pub(crate) signals: Option<u64>,
    pub(crate) watches: Vec<Watch>,
    /// The process of a pidfd, -1 once it is gone.
    pub(crate) pid: Option<i32>,
    /// The number of a pseudo-terminal, of its master.
    pub(crate) terminal: Option<u32>,
    /// The locks that are held through it.
    pub(crate) locks: Vec<Lock>,
}

fn pair(text: &str) -> Option<(i64, i64)> {
    let (a, b) = text
        .trim()
        .strip_prefix('(')?
        .strip_suffix(')')?
        .split_once(',')?;
    Some((a.trim().parse().ok()?, b.trim().parse().ok()?))
}

fn parse_target(line: &str) -> Option<EpollTarget> {
    let mut target = EpollTarget {
        fd: -1,
        events: 0,
        data: 0,
        inode: None,
    };
    // `tfd:  5 events:  19 data:  7f..  pos:0 ino:1b5 sdev:f`
    let text = line.replace(':', " ");
    let mut words = text.split_ascii_whitespace();
    while let Some(name) = words.next() {
        let value = words.next()?;
        match name {
            "tfd" => target.fd = value.parse().ok()?,
            "events" => target.events = u32::from_str_radix(value, 16).ok()?,
            "data" => target.data = u64::from_str_radix(value, 16).ok()?,
            "ino" => target.inode = Some(u64::from_str_radix(value, 16).ok()?),
            _ => {}
        }
    }
    (target.fd >= 0).then_some(target)
}

fn parse_watch(line: &str) -> Option<Watch> {
    let mut watch = Watch::default();
    let (mut kind, mut length, mut handle) = (0, 0, None);
    // `inotify wd:1 ino:3c4a7 sdev:fe00000 mask:2 ignored_mask:0 fhandle-bytes:8
    // fhandle-type:1 f_handle:a7c4030000000000`
    for word in line.split_ascii_whitespace() {
        let Some((name, value)) = word.split_once(':') else {
            continue;
        };
        let number = || u64::from_str_radix(value, 16).ok();
        match name {
            "wd" => watch.descriptor = i32::from_str_radix(value, 16).ok()?,
            "ino" => watch.inode = number()?,
            // The kernel's own form: 12 bits of major number, 20 of minor.
            "sdev" => {
                let device = number()? as u32;
                watch.device = libc::makedev(device >> 20, device & 0xf_ffff);
            }
            "mask" => watch.mask = number()? as u32,
            "fhandle-bytes" => length = number()? as usize,
            "fhandle-type" => kind = number()? as i32,
            "f_handle" => {
                let mut bytes = [0; libc::MAX_HANDLE_SZ as usize];
                for (byte, at) in bytes.iter_mut().zip((0..value.len()).step_by(2)) {
                    *byte = u8::from_str_radix(value.get(at..at + 2)?, 16).ok()?;
                }
                handle = (length <= bytes.len() && value.len() == 2 * length).then_some(bytes);
            }
            _ => {}
        }
    }
    watch.handle = handle.map(|bytes| FileHandle {
        kind,
        length,
        bytes,
    });
    (watch.descriptor > 0).then_some(watch)
}

/// Parses `/proc/PID/fdinfo/FD`; `None` if a line that matters is malformed.
pub(crate) fn parse_fdinfo(text: &str) -> Option<FdInfo> {
    let mut info = FdInfo::default();
    for line in text.lines() {
        let Some((name, value)) = line.split_once(':') else {
            continue;
        };
        let value = value.trim();
        match name {
            "pos" => info.position = value.parse().ok()?,
            "flags" => info.flags = i32::from_str_radix(value, 8).ok()?,
            "eventfd-count" => info.event_count = Some(u64::from_str_radix(value, 16).ok()?),
            "eventfd-semaphore" => info.semaphore = Some(value != "0"),
            "clockid" => info.timer.clock = value.parse().ok()?,
            "settime flags" => info.timer.flags = i32::from_str_radix(value, 8).ok()?,
            "ticks" => info.timer.ticks = value.parse().ok()?,
            "it_value" => info.timer.value = pair(value)?,
            "it_interval" => info.timer.interval = pair(value)?,
            "lock" => info.locks.push(parse_lock(value)?),
            "tfd" => info.targets.push(parse_target(line)?),
            "sigmask" => info.signals = Some(u64::from_str_radix(value, 16).ok()?),
            "inotify wd" => info.watches.push(parse_watch(line)?),
            "Pid" => info.pid = Some(value.parse().ok()?),
            "tty-index" => info.terminal = Some(value.parse().ok()?),
            _ => {}
        }
    }
    Some(info)
}

pub(crate) fn fdinfo(process: Tid, fd: i32) -> io::Result<FdInfo> {
    let text = read(format!("/proc/{process}/fdinfo/{fd}"))?;
    parse_fdinfo(&text).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// A POSIX timer, by `/proc/PID/timers`.
#[derive(Clone, Eq, PartialEq, Debug)]
pub(crate) struct PosixTimer {
    pub(crate) id: i32,
    pub(crate) clock: i32,
    pub(crate) signal: i32,
    pub(crate) value: u64,
    /// SIGEV_SIGNAL, SIGEV_NONE or SIGEV_THREAD.
    pub(crate) notify: i32,
    /// The thread that gets the signal (SIGEV_THREAD_ID).
    pub(crate) thread: Option<Tid>,
}

/// Parses `/proc/PID/timers`; `None` if a line is malformed.
pub(crate) fn parse_timers(text: &str) -> Option<Vec<PosixTimer>> {
    let mut timers: Vec<PosixTimer> = Vec::new();
    for line in text.lines() {
        let (name, value) = line.split_once(':')?;
        let value = value.trim();
        if name == "ID" {
            timers.push(PosixTimer {
                id: value.parse().ok()?,
                clock: 0,
                signal: 0,
                value: 0,
                notify: libc::SIGEV_SIGNAL,
                thread: None,
            });
            continue;
        }
        let timer = timers.last_mut()?;
        match name {
            // `signal: 14/0000000000000000`
            "signal" => {
                let (signal, value) = value.split_once('/')?;
                timer.signal = signal.parse().ok()?;
                timer.value = u64::from_str_radix(value.trim_start_matches("0x"), 16).ok()?;
            }
            // `notify: signal/pid.2634`
            "notify" => {
                let (how, who) = value.split_once('/')?;
                let (kind, id) = who.split_once('.')?;
                timer.notify = match how {
                    "signal" => libc::SIGEV_SIGNAL,
                    "none" => libc::SIGEV_NONE,
                    "thread" => libc::SIGEV_THREAD,
                    _ => return None,
                };
                timer.thread = match kind {
                    "tid" => Some(Tid::new(id.parse().ok()?)),
                    _ => None,
                };
            }
            "ClockID" => timer.clock = value.parse().ok()?,
            _ => {}
        }
    }
    Some(timers)
}

pub(crate) fn timers(process: Tid) -> io::Result<Vec<PosixTimer>> {
    let text = read(format!("/proc/{process}/timers"))?;
    parse_timers(&text).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_with_a_hostile_name() {
        let stat = parse_stat("12 (a) R 1 (b)) S 1 34 56 0 -1 4194560").unwrap();
        assert_eq!((stat.state, stat.group), ('S', 34));
        assert_eq!(parse_stat("12 (a"), None);
        assert_eq!(parse_stat("12 (a) S 1"), None);
    }

    #[test]
    fn status_with_locked_memory() {
        let text = "Name:\ta\nVmLck:\t      12 kB\nSigIgn:\t0000000000001000\n\
                    SigCgt:\t0000000180000000\nCapEff:\t0000000000800000\n";
        let status = parse_status(text).unwrap();
        assert!(status.locks_memory);
        assert_eq!((status.ignored, status.capabilities), (0x1000, 0x80_0000));
        assert!(
            !parse_status(&text.replace("12 kB", "0 kB"))
                .unwrap()
                .locks_memory
        );
        assert_eq!(parse_status("SigIgn: 0\n"), None);
    }

    #[test]
    fn fdinfo_of_every_kind() {
        let info = parse_fdinfo("pos:\t42\nflags:\t02100001\nmnt_id:\t9\nino:\t7\n").unwrap();
        assert_eq!((info.position, info.flags), (42, 0o2100001));
        let info = parse_fdinfo("pos:\t0\nflags:\t02\neventfd-count:               1f\n").unwrap();
        assert_eq!(info.event_count, Some(0x1f));
        let info = parse_fdinfo(
            "pos:\t0\nflags:\t02\nclockid: 1\nticks: 3\nsettime flags: 00\n\
             it_value: (0, 499999999)\nit_interval: (1, 0)\n",
        )
        .unwrap();
        assert_eq!(info.timer.ticks, 3);
        assert_eq!(info.timer.value, (0, 499_999_999));
        assert_eq!(info.timer.interval, (1, 0));
        let info = parse_fdinfo(
            "pos:\t0\nflags:\t02\ntfd:        5 events:       19 data:  7f00000005  pos:0 ino:1b5 sdev:f\n",
        )
        .unwrap();
        assert_eq!(
            info.targets,
            [EpollTarget {
                fd: 5,
                events: 0x19,
                data: 0x7f_0000_0005,
                inode: Some(0x1b5)
            }]
        );
        assert_eq!(parse_fdinfo("pos:\tx\n"), None);
        assert_eq!(parse_fdinfo("tfd: x\n"), None);
    }

    #[test]
    fn fdinfo_of_what_watches() {
        let info = parse_fdinfo("flags:\t02\nsigmask:\t0000000000000a00\n").unwrap();
        assert_eq!(info.signals, Some(0xa00));
        let info = parse_fdinfo("flags:\t02000002\nPid:\t-1\nNSpid:\t-1\n").unwrap();
        assert_eq!(info.pid, Some(-1));
        let info = parse_fdinfo(
            "flags:\t00\ninotify wd:1f ino:3c4a7 sdev:fe00003 mask:84000002 ignored_mask:0 \
             fhandle-bytes:8 fhandle-type:1 f_handle:a7c4030000000001 \n\
             inotify wd:2 ino:9 sdev:1a mask:2 ignored_mask:0 \n",
        )
        .unwrap();
        let first = info.watches[0];
        assert_eq!((first.descriptor, first.inode), (31, 0x3c4a7));
        assert_eq!(first.device, libc::makedev(254, 3));
        assert_eq!(first.mask, 0x8400_0002);
        let handle = first.handle.unwrap();
        assert_eq!((handle.kind, handle.length), (1, 8));
        assert_eq!(handle.bytes[..8], [0xa7, 0xc4, 3, 0, 0, 0, 0, 1]);
        assert_eq!(info.watches[1].handle, None);
        assert_eq!(parse_fdinfo("inotify wd:0\n"), None);
        assert_eq!(parse_fdinfo("inotify wd:1 sdev:x\n"), None);
    }

    proptest::proptest! {
        /// A guest chooses names that stand in these files.
        #[test]
        fn no_text_is_too_strange(
            text in "(\\PC|\n|[0-9a-f]{1,20}|[:/() -]|tfd|events|data|ino|it_value|ID|notify|signal){0,60}"
        ) {
            let _ = parse_stat(&text);
            let _ = parse_status(&text);
            let _ = parse_fdinfo(&text);
            let _ = parse_timers(&text);
        }
    }

    #[test]
    fn timers_of_every_kind() {
        let timers = parse_timers(
            "ID: 0\nsignal: 26/0000000000000000\nnotify: signal/pid.77\nClockID: 1\n\
             ID: 3\nsignal: 34/00007ffd5a6e9f10\nnotify: signal/tid.78\nClockID: 0\n",
        )
        .unwrap();
        assert_eq!(
            (timers[0].id, timers[0].signal, timers[0].clock),
            (0, 26, 1)
        );
        assert_eq!(timers[0].thread, None);
        assert_eq!((timers[1].id, timers[1].value), (3, 0x7ffd_5a6e_9f10));
        assert_eq!(timers[1].thread, Some(Tid::new(78)));
        assert_eq!(parse_timers("signal: 1/0\n"), None, "of no timer");
        assert_eq!(parse_timers(""), Some(Vec::new()));
    }

    #[test]
    fn a_lock_is_seen_in_fdinfo() {
        let info =
            parse_fdinfo("pos:\t0\nflags:\t02\nlock:\t1: FLOCK  ADVISORY  WRITE 9 fe:00:7 0 EOF\n");
        assert_eq!(info.unwrap().locks.len(), 1);
    }
}
