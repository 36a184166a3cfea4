//! How the value of a single option is read. Each error says what to write
//! instead; clap puts the option's name in front.

use std::time::Duration;

/// A signal to stop a run with, by its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StopSignal(pub i32);

/// The signals with names, as Linux numbers them on x86-64.
const SIGNALS: [(&str, i32); 33] = [
    ("HUP", libc::SIGHUP),
    ("INT", libc::SIGINT),
    ("QUIT", libc::SIGQUIT),
    ("ILL", libc::SIGILL),
    ("TRAP", libc::SIGTRAP),
    ("ABRT", libc::SIGABRT),
    ("IOT", libc::SIGIOT),
    ("BUS", libc::SIGBUS),
    ("FPE", libc::SIGFPE),
    ("KILL", libc::SIGKILL),
    ("USR1", libc::SIGUSR1),
    ("SEGV", libc::SIGSEGV),
    ("USR2", libc::SIGUSR2),
    ("PIPE", libc::SIGPIPE),
    ("ALRM", libc::SIGALRM),
    ("TERM", libc::SIGTERM),
    ("STKFLT", libc::SIGSTKFLT),
    ("CHLD", libc::SIGCHLD),
    ("CONT", libc::SIGCONT),
    ("STOP", libc::SIGSTOP),
    ("TSTP", libc::SIGTSTP),
    ("TTIN", libc::SIGTTIN),
    ("TTOU", libc::SIGTTOU),
    ("URG", libc::SIGURG),
    ("XCPU", libc::SIGXCPU),
    ("XFSZ", libc::SIGXFSZ),
    ("VTALRM", libc::SIGVTALRM),
    ("PROF", libc::SIGPROF),
    ("WINCH", libc::SIGWINCH),
    ("IO", libc::SIGIO),
    ("POLL", libc::SIGPOLL),
    ("PWR", libc::SIGPWR),
    ("SYS", libc::SIGSYS),
];

/// The highest real-time signal.
const LAST_SIGNAL: i32 = 64;

/// A time with its unit.
///
/// # Errors
///
/// What is no time, and a number without a unit.
pub fn duration(typed: &str) -> Result<Duration, String> {
    let typed = typed.trim();
    if is_bare_number(typed) {
        return Err(format!(
            "it has no unit; write {typed}ms for milliseconds or {typed}s for seconds"
        ));
    }
    humantime::parse_duration(typed)
        .map_err(|error| format!("{error}; write it like 5ms, 0ms or 1s"))
}

/// A share in percent, with or without the sign: `0.05` for `5%`.
///
/// # Errors
///
/// What is no number, or less than zero.
pub fn budget(typed: &str) -> Result<f64, String> {
    let number = typed.trim();
    let number = number.strip_suffix('%').unwrap_or(number).trim_end();
    match number.parse::<f64>() {
        Ok(percent) if percent.is_finite() && percent >= 0.0 => Ok(percent / 100.0),
        _ => Err("write a percentage from 0 on, like 5% or 0.5%".to_owned()),
    }
}

/// A size in bytes, with its unit.
///
/// # Errors
///
/// What is no size, or none without a unit, or more than 2⁶⁴ bytes.
pub fn size(typed: &str) -> Result<u64, String> {
    let typed = typed.trim();
    if is_bare_number(typed) {
        return Err(format!(
            "it has no unit; write {typed}MiB for mebibytes or {typed}GB for gigabytes"
        ));
    }
    let remedy = "write it like 512MiB or 2GB";
    // The reader of the bytesize crate takes what a float takes.
    if !typed.starts_with(|first: char| first.is_ascii_digit()) {
        return Err(remedy.to_owned());
    }
    match typed.parse::<bytesize::ByteSize>() {
        Ok(size) if size.as_u64() < u64::MAX => Ok(size.as_u64()),
        _ => Err(remedy.to_owned()),
    }
}

/// A number from 1 on.
pub(super) fn count(typed: &str) -> Result<usize, String> {
    match typed.trim().parse() {
        Ok(0) | Err(_) => Err("write a whole number from 1 on".to_owned()),
        Ok(number) => Ok(number),
    }
}

/// A signal by its name, with or without `SIG`, or by its number.
///
/// # Errors
///
/// What Linux does not have.
pub fn stop_signal(typed: &str) -> Result<StopSignal, String> {
    let typed = typed.trim();
    let upper = typed.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let by_name = SIGNALS
        .iter()
        .find(|(known, _)| *known == name)
        .map(|(_, number)| *number);
    let by_number = || {
        let number = typed.parse().ok()?;
        (1..=LAST_SIGNAL).contains(&number).then_some(number)
    };
    by_name.or_else(by_number).map(StopSignal).ok_or_else(|| {
        format!("there is no such signal; write a name like TERM or SIGINT, or 1 to {LAST_SIGNAL}")
    })
}

fn is_bare_number(typed: &str) -> bool {
    typed.parse::<f64>().is_ok_and(f64::is_finite)
}
