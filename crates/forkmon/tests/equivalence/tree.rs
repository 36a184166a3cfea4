//! What a run has left: every name below a folder with its kind, mode, contents
//! or target, and which names are of one file. Times are the only thing that is
//! not looked at.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::io::Errno;

/// What is under one name.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Entry {
    File {
        mode: u32,
        attributes: Attributes,
        bytes: Vec<u8>,
    },
    Unreadable {
        mode: u32,
    },
    Folder {
        mode: u32,
        attributes: Attributes,
    },
    Link {
        target: PathBuf,
    },
    Special {
        kind: &'static str,
        mode: u32,
    },
}

/// Extended attributes (xattr(7)) by name.
type Attributes = BTreeMap<String, Vec<u8>>;

/// Everything below a folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tree {
    entries: BTreeMap<PathBuf, Entry>,
    /// The names of each file that has several.
    shared: BTreeSet<BTreeSet<PathBuf>>,
}

/// A folder's own path, which stands in some files, and what to read it as: the
/// same programs run in two folders.
#[derive(Copy, Clone)]
pub struct Rename<'a> {
    pub from: &'a Path,
    pub to: &'a Path,
}

impl Rename<'_> {
    /// The bytes with the one path in place of the other.
    pub fn apply(&self, bytes: &[u8]) -> Vec<u8> {
        let (from, to) = (
            self.from.as_os_str().as_bytes(),
            self.to.as_os_str().as_bytes(),
        );
        let mut all = Vec::with_capacity(bytes.len());
        let mut left = bytes;
        while let Some(&first) = left.first() {
            if left.starts_with(from) {
                all.extend_from_slice(to);
                left = &left[from.len()..];
            } else {
                all.push(first);
                left = &left[1..];
            }
        }
        all
    }
}

impl Tree {
    /// Looks at everything below a folder.
    pub fn of(root: &Path, rename: Option<Rename<'_>>) -> io::Result<Tree> {
        let mut entries = BTreeMap::new();
        let mut by_file: BTreeMap<(u64, u64), BTreeSet<PathBuf>> = BTreeMap::new();
        let mut folders = vec![PathBuf::new()];
        while let Some(below) = folders.pop() {
            for entry in fs::read_dir(root.join(&below))? {
                let name = below.join(entry?.file_name());
                let path = root.join(&name);
                let found = fs::symlink_metadata(&path)?;
                if found.is_dir() {
                    folders.push(name.clone());
                } else {
                    let names = by_file.entry((found.dev(), found.ino())).or_default();
                    names.insert(name.clone());
                }
                entries.insert(name, look(&path, &found, rename)?);
            }
        }
        let shared = by_file.into_values().filter(|names| names.len() > 1);
        Ok(Tree {
            entries,
            shared: shared.collect(),
        })
    }

    /// What is different here from what is expected, one line each.
    pub fn differences(&self, expected: &Tree) -> Vec<String> {
        let names: BTreeSet<&PathBuf> =
            self.entries.keys().chain(expected.entries.keys()).collect();
        let mut all = Vec::new();
        for name in names {
            let (got, wanted) = (self.entries.get(name), expected.entries.get(name));
            if got != wanted {
                all.push(format!("{}: {}", name.display(), explain(wanted, got)));
            }
        }
        for names in expected.shared.difference(&self.shared) {
            all.push(format!("should be names of one file: {names:?}"));
        }
        for names in self.shared.difference(&expected.shared) {
            all.push(format!("should not be names of one file: {names:?}"));
        }
        all
    }
}

fn look(path: &Path, found: &Metadata, rename: Option<Rename<'_>>) -> io::Result<Entry> {
    let mode = found.permissions().mode() & 0o7777;
    let kind = found.file_type();
    let renamed = |bytes: Vec<u8>| rename.map_or(bytes.clone(), |rename| rename.apply(&bytes));
    Ok(if kind.is_dir() {
        let attributes = attributes(path)?;
        Entry::Folder { mode, attributes }
    } else if kind.is_symlink() {
        let target = fs::read_link(path)?;
        let target = renamed(target.as_os_str().as_bytes().to_vec());
        Entry::Link {
            target: std::ffi::OsStr::from_bytes(&target).into(),
        }
    } else if kind.is_file() {
        match fs::read(path) {
            Ok(bytes) => Entry::File {
                mode,
                attributes: attributes(path)?,
                bytes: without_time(path, renamed(bytes)),
            },
            Err(_) => Entry::Unreadable { mode },
        }
    } else {
        let kind = if kind.is_fifo() {
            "a FIFO"
        } else if kind.is_socket() {
            "a socket"
        } else {
            "a device"
        };
        Entry::Special { kind, mode }
    })
}

/// The extended attributes that anybody may set; the others are the system's.
fn attributes(path: &Path) -> io::Result<Attributes> {
    let mut names = [0; 4096];
    let length = match rustix::fs::listxattr(path, &mut names) {
        Ok(length) => length,
        // The file system has none.
        Err(Errno::NOTSUP) => 0,
        Err(error) => return Err(error.into()),
    };
    let names = String::from_utf8_lossy(&names[..length]).into_owned();
    let mut all = Attributes::new();
    for name in names.split('\0').filter(|name| name.starts_with("user.")) {
        let mut value = vec![0; 65536];
        let length = rustix::fs::getxattr(path, name, &mut value)?;
        value.truncate(length);
        all.insert(name.to_owned(), value);
    }
    Ok(all)
}

/// Python's byte code holds the time of its source (PEP 552: 4 bytes at 8),
/// which is different after a `touch` that is no edit.
fn without_time(path: &Path, mut bytes: Vec<u8>) -> Vec<u8> {
    if path.extension().is_some_and(|extension| extension == "pyc")
        && let Some(time) = bytes.get_mut(8..12)
    {
        time.fill(0);
    }
    bytes
}

fn explain(wanted: Option<&Entry>, got: Option<&Entry>) -> String {
    match (wanted, got) {
        (Some(wanted), None) => format!("is missing; should be {}", brief(wanted)),
        (None, Some(got)) => format!("should not be there; is {}", brief(got)),
        (
            Some(Entry::File {
                mode,
                attributes,
                bytes,
            }),
            Some(Entry::File {
                mode: got_mode,
                attributes: got_attributes,
                bytes: got,
            }),
        ) => {
            let mut text = String::new();
            if attributes != got_attributes {
                text.push_str(&format!(
                    "should have attributes {attributes:?}, has {got_attributes:?}; "
                ));
            }
            if mode != got_mode {
                text.push_str(&format!("should have mode {mode:o}, has {got_mode:o}; "));
            }
            if bytes != got {
                text.push_str(&first_difference(bytes, got));
            }
            text
        }
        (Some(wanted), Some(got)) => format!("should be {}, is {}", brief(wanted), brief(got)),
        (None, None) => String::new(),
    }
}

fn brief(entry: &Entry) -> String {
    match entry {
        Entry::File { mode, bytes, .. } => {
            let start = &bytes[..bytes.len().min(60)];
            format!(
                "a file of {} bytes, mode {mode:o}: {}",
                bytes.len(),
                start.escape_ascii()
            )
        }
        Entry::Unreadable { mode } => format!("an unreadable file, mode {mode:o}"),
        Entry::Folder { mode, attributes } => {
            format!("a folder, mode {mode:o}, attributes {attributes:?}")
        }
        Entry::Link { target } => format!("a link to {}", target.display()),
        Entry::Special { kind, mode } => format!("{kind}, mode {mode:o}"),
    }
}

/// Where two byte strings first differ, and what is there.
pub fn first_difference(wanted: &[u8], got: &[u8]) -> String {
    let at = wanted.iter().zip(got).take_while(|(a, b)| a == b).count();
    let around = |bytes: &[u8]| {
        let part = &bytes[at.saturating_sub(40).min(bytes.len())..bytes.len().min(at + 40)];
        part.escape_ascii().to_string()
    };
    format!(
        "differs at byte {at} (of {} expected, {} found)\n      expected: {}\n      found:    {}",
        wanted.len(),
        got.len(),
        around(wanted),
        around(got)
    )
}
