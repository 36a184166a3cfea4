//! Finding the programs of guests, and building those that are written in C.

use std::ffi::OsStr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A guest's program that is installed.
#[derive(Clone, Debug)]
pub struct Guest(PathBuf);

impl Guest {
    /// Its path as a command line takes it.
    pub fn as_str(&self) -> &str {
        self.0.to_str().expect("programs have plain names")
    }
}

impl AsRef<OsStr> for Guest {
    fn as_ref(&self) -> &OsStr {
        self.0.as_os_str()
    }
}

/// The Debian package that a program comes from.
fn package(program: &str) -> &str {
    match program {
        "node" => "nodejs",
        "go" => "golang-go",
        "java" | "javac" => "default-jdk-headless",
        "cc" => "gcc libc6-dev",
        "setpriv" | "script" | "setsid" | "prlimit" => "util-linux bsdutils",
        other => other,
    }
}

/// Finds a guest's program; a missing one is said, so that the skipped test is
/// seen, and written to the file named by `FORKMON_SKIP_LOG`.
///
/// # Panics
///
/// When it is missing and `FORKMON_REQUIRE_GUESTS=1`.
pub fn find(program: &str) -> Option<Guest> {
    let found = locate(program);
    if found.is_none() {
        let test = std::thread::current().name().unwrap_or("a test").to_owned();
        let line = format!(
            "SKIPPED {test}: {program} is not installed (apt-get install {})",
            package(program)
        );
        assert!(
            std::env::var_os("FORKMON_REQUIRE_GUESTS").is_none_or(|value| value != "1"),
            "{line}"
        );
        eprintln!("{line}");
        if let Some(log) = std::env::var_os("FORKMON_SKIP_LOG") {
            use std::io::Write;
            let mut file = std::fs::OpenOptions::new()
                .create(true)
                .append(true)
                .open(log)
                .expect("the log of skipped tests can be written");
            writeln!(file, "{line}").expect("the log of skipped tests can be written");
        }
    }
    found.map(Guest)
}

/// Finds a guest's program that is too large to be asked for; a missing one skips the
/// test.
pub fn find_optional(program: &str) -> Option<Guest> {
    let found = locate(program);
    if found.is_none() {
        eprintln!("SKIPPED: {program} is not installed, and need not be");
    }
    found.map(Guest)
}

/// The program itself, not the shell script that a version manager puts in
/// front of it: the script would be another guest than the one meant.
fn locate(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/bin", "/bin", "/usr/local/bin"].map(PathBuf::from);
    system
        .into_iter()
        .chain(std::env::split_paths(&path))
        .map(|folder| folder.join(program))
        .find(|candidate| is_binary(candidate))
}

fn is_binary(path: &Path) -> bool {
    let mut magic = [0; 4];
    let read = std::fs::File::open(path)
        .and_then(|mut file| std::io::Read::read_exact(&mut file, &mut magic));
    read.is_ok()
        && magic == *b"\x7fELF"
        && std::fs::metadata(path).is_ok_and(|meta| meta.permissions().mode() & 0o111 != 0)
}

/// Where something of the checkout is: below the folder of this crate, or where
/// the variable says, when `scripts/test --as-user` has put a copy of it where
/// another user can reach it.
pub fn place(variable: &str, below: &str) -> PathBuf {
    std::env::var_os(variable).map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join(below),
        PathBuf::from,
    )
}

/// A source of `tests/fixtures`.
pub fn fixture(name: &str) -> PathBuf {
    place("FORKMON_TEST_FIXTURES", "tests/fixtures").join(name)
}

/// Builds a C program of `tests/fixtures` into the folder and gives its path.
pub fn build_c(source: &str, folder: &Path, flags: &[&str]) -> String {
    let program = folder.join(source.trim_end_matches(".c"));
    let mut cc = Command::new("cc");
    cc.args(["-O1", "-g", "-Wall", "-Wextra", "-Werror", "-o"])
        .arg(&program)
        .arg(fixture(source))
        .args(flags);
    run_tool(&mut cc);
    program.to_str().expect("a plain name").to_owned()
}

/// Runs a tool that a test needs for its set-up, and requires its success.
pub fn run_tool(command: &mut Command) {
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
    assert!(
        output.status.success(),
        "{command:?} failed ({}):\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}
