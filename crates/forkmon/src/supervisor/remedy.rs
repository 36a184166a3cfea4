//! What to do about a program that could not be started: a sentence for whoever typed
//! its name. What failed, and the kernel's answer, are `tracee`'s to say.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Read as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use tracee::SpawnError;

/// What reads files with these endings, for examples.
const READERS: [(&str, &str); 8] = [
    ("js", "node"),
    ("lua", "lua"),
    ("mjs", "node"),
    ("php", "php"),
    ("pl", "perl"),
    ("py", "python3"),
    ("rb", "ruby"),
    ("sh", "sh"),
];

/// What forkmon's own words are for, if somebody took them for commands.
const ACTIONS: [&str; 7] = [
    "checkpoint",
    "resume",
    "restart",
    "wait",
    "status",
    "journal",
    "quit",
];

/// What somebody can do about it, if that can be told. `clear`: the screen is to be
/// cleared, so that the command may be meant as the word for how.
pub(super) fn remedy(
    error: &SpawnError,
    command: &[OsString],
    cwd: &Path,
    clear: bool,
) -> Option<String> {
    let name = command.first()?;
    match error {
        // A name that was looked for along PATH has no slash.
        SpawnError::NotFound(path)
            if path.as_os_str().as_bytes().contains(&b'/') && cwd.join(path).is_file() =>
        {
            let line = first_line(&cwd.join(path))?;
            Some(format!(
                "the program that its first line names is not there: {line}"
            ))
        }
        SpawnError::NotFound(_) => Some(not_found(name, command, cwd, clear)),
        SpawnError::NotExecutable { path, .. } => not_executable(&cwd.join(path), path),
        _ => None,
    }
}

fn not_found(name: &OsStr, command: &[OsString], cwd: &Path, clear: bool) -> String {
    let text = name.to_string_lossy();
    if text.is_empty() {
        return "its name is empty: is a variable not set?".to_owned();
    }
    if command.len() == 1 && text.contains(char::is_whitespace) {
        let quoted = text.replace('\'', r"'\''");
        let by_shell = format!("`forkmon sh -c '{quoted}'`");
        return if text.contains(['|', '&', ';', '<', '>', '$', '`', '*', '(']) {
            format!("it is one word, and a shell's line: write {by_shell}")
        } else {
            format!("it is one word: leave the quotes away, `forkmon {text}`, or write {by_shell}")
        };
    }
    if clear && ["all", "screen"].contains(&&*text) {
        return format!("write `--clear={text}`, with an equals sign, and the command after it");
    }
    if text == "help" || text == "version" {
        return format!("write `forkmon --{text}`");
    }
    if ACTIONS.contains(&&*text) {
        return format!("to ask a forkmon that runs, write `forkmon ctl {text}`");
    }
    if is_assignment(&text) {
        return format!("to set a variable for the program, write `forkmon env {text} COMMAND`");
    }
    if text.contains('/') {
        return format!(
            "there is no such file; paths begin at the working folder, {}",
            cwd.display()
        );
    }
    let here = cwd.join(name);
    if here.is_dir() {
        return "it is a folder; name a program in it".to_owned();
    }
    if here.is_file() {
        let reader = match reader_of(&here) {
            Some(reader) => format!(", or `{reader} {text}`"),
            None => String::new(),
        };
        return format!("it is not in PATH; for the one in this folder write `./{text}`{reader}");
    }
    "it is in no folder of PATH: check its spelling, or write its path".to_owned()
}

fn not_executable(path: &Path, typed: &Path) -> Option<String> {
    let shown = typed.display();
    let found = std::fs::metadata(path).ok()?;
    if found.is_dir() {
        return Some("it is a folder; name a program in it".to_owned());
    }
    // Where somebody may execute it, it is not the mode that forbids it to us.
    if !found.is_file() || found.permissions().mode() & 0o111 != 0 {
        return None;
    }
    let reader = reader_of(path).unwrap_or_else(|| "INTERPRETER".to_owned());
    Some(format!(
        "make it executable, `chmod +x {shown}`, or name the program that reads it, \
         `{reader} {shown}`"
    ))
}

/// `NAME=value`, as a shell takes it in front of a command.
fn is_assignment(text: &str) -> bool {
    let Some((name, _)) = text.split_once('=') else {
        return false;
    };
    let mut letters = name.chars();
    letters
        .next()
        .is_some_and(|first| first.is_ascii_alphabetic() || first == '_')
        && letters.all(|letter| letter.is_ascii_alphanumeric() || letter == '_')
}

/// What a script is to be read by: what its first line says, or else what files of this
/// ending usually are.
fn reader_of(path: &Path) -> Option<String> {
    if let Some(line) = first_line(path)
        && let Some(words) = line.strip_prefix("#!")
    {
        let mut words = words.split_whitespace();
        let program = words.next()?;
        let named = match program.rsplit('/').next() {
            Some("env") => words.find(|word| !word.starts_with('-') && !word.contains('=')),
            other => other,
        };
        return named.map(str::to_owned);
    }
    let ending = path.extension()?;
    let known = READERS
        .iter()
        .find(|(known, _)| ending.as_bytes() == known.as_bytes());
    known.map(|(_, reader)| (*reader).to_owned())
}

/// The first line of a file, if it is text, of which little is read.
fn first_line(path: &Path) -> Option<String> {
    let mut beginning = Vec::new();
    let file = File::open(path).ok()?;
    file.take(256).read_to_end(&mut beginning).ok()?;
    let line = beginning.split(|byte| *byte == b'\n').next()?;
    let line = std::str::from_utf8(line).ok()?.trim();
    (!line.is_empty() && !line.contains('\0')).then(|| line.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;

    struct Folder(tempfile::TempDir);

    impl Folder {
        fn with(files: &[(&str, &str, u32)]) -> Self {
            let folder = tempfile::tempdir().unwrap();
            for (name, text, mode) in files {
                let path = folder.path().join(name);
                std::fs::write(&path, text).unwrap();
                std::fs::set_permissions(&path, std::fs::Permissions::from_mode(*mode)).unwrap();
            }
            Self(folder)
        }

        fn missing(&self, words: &[&str], clear: bool) -> String {
            let error = SpawnError::NotFound(words[0].into());
            let words: Vec<OsString> = words.iter().map(OsString::from).collect();
            remedy(&error, &words, self.0.path(), clear).unwrap()
        }

        fn refused(&self, name: &str) -> Option<String> {
            let error = SpawnError::NotExecutable {
                path: name.into(),
                source: io::Error::from_raw_os_error(libc::EACCES),
            };
            remedy(&error, &[name.into()], self.0.path(), false)
        }
    }

    #[test]
    fn a_whole_line_in_quotes_is_taken_apart() {
        let folder = Folder::with(&[]);
        let told = folder.missing(&["python3 main.py"], false);
        assert!(told.contains("`forkmon python3 main.py`"), "{told}");
        assert!(told.contains("`forkmon sh -c 'python3 main.py'`"), "{told}");
        let told = folder.missing(&["echo 'a' | wc"], false);
        assert!(
            told.contains(r"`forkmon sh -c 'echo '\''a'\'' | wc'`"),
            "{told}"
        );
        assert!(!told.contains("leave the quotes"), "{told}");
    }

    #[test]
    fn words_that_are_meant_for_forkmon_are_known() {
        let folder = Folder::with(&[]);
        assert!(
            folder
                .missing(&["all", "lua", "x"], true)
                .contains("--clear=all")
        );
        assert!(!folder.missing(&["all"], false).contains("--clear"));
        assert!(folder.missing(&["help"], false).contains("forkmon --help"));
        assert!(
            folder
                .missing(&["status"], false)
                .contains("forkmon ctl status")
        );
        let told = folder.missing(&["DEBUG=1", "lua"], false);
        assert!(told.contains("forkmon env DEBUG=1"), "{told}");
    }

    #[test]
    fn a_script_is_found_in_the_working_folder() {
        let folder = Folder::with(&[("main.py", "", 0o644), ("job", "#!/bin/bash -e\n", 0o755)]);
        let told = folder.missing(&["main.py"], false);
        assert!(told.contains("`./main.py`, or `python3 main.py`"), "{told}");
        let told = folder.missing(&["job"], false);
        assert!(told.contains("`./job`, or `bash job`"), "{told}");
        let told = folder.missing(&["jib"], false);
        assert!(told.contains("in no folder of PATH"), "{told}");
        let told = folder.missing(&["./jib"], false);
        assert!(told.contains(folder.0.path().to_str().unwrap()), "{told}");
    }

    #[test]
    fn a_missing_interpreter_is_not_taken_for_the_script() {
        let folder = Folder::with(&[("job", "#!/no/such/reader\n", 0o755)]);
        let told = folder.missing(&["./job"], false);
        assert!(told.contains("#!/no/such/reader"), "{told}");
    }

    #[test]
    fn what_may_not_be_executed_is_told_how_to_be() {
        let folder = Folder::with(&[
            ("a.lua", "", 0o644),
            ("b.x", "#!/usr/bin/env -S python3 -u\n", 0o644),
            ("c", "\u{0}ELF", 0o644),
            ("d", "", 0o711),
        ]);
        let told = folder.refused("a.lua").unwrap();
        assert!(
            told.contains("`chmod +x a.lua`") && told.contains("`lua a.lua`"),
            "{told}"
        );
        assert!(folder.refused("b.x").unwrap().contains("`python3 b.x`"));
        assert!(folder.refused("c").unwrap().contains("`INTERPRETER c`"));
        assert_eq!(folder.refused("d"), None);
        assert!(folder.refused(".").unwrap().contains("folder"));
    }
}
