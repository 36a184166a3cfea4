//! What a person does to one path, in the ways in which editors and tools do it.
//!
//! An edit holds all that it needs, so that a sequence of them makes sense with
//! any of them left out: what is to be changed and is not there, is passed over.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::model::{Model, Node};

/// How new contents are saved.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Save {
    /// Cut to nothing and written again, in two pieces, as VS Code and nano do.
    InPlace,
    /// The same, with a pause before the second piece.
    InPieces(Duration),
    /// Opened without being cut, written over, and cut to its new length.
    Over,
    /// A new file is written beside it and renamed over it, as gedit does.
    ByRename,
    /// The file is renamed to a backup, written new, the backup removed.
    LikeVim,
    /// The file is removed and created again.
    DeleteAndCreate,
}

/// One thing that a person does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Edit {
    Save {
        name: PathBuf,
        bytes: Vec<u8>,
        how: Save,
    },
    /// Adds to the end of a file.
    Append {
        name: PathBuf,
        bytes: Vec<u8>,
    },
    Remove(PathBuf),
    Rename {
        from: PathBuf,
        to: PathBuf,
    },
    Mode {
        name: PathBuf,
        mode: u32,
    },
    /// Gives it the present time.
    Touch(PathBuf),
    /// Lets a symbolic link lead elsewhere.
    Retarget {
        name: PathBuf,
        target: PathBuf,
    },
}

impl Edit {
    /// The path that it is about.
    pub fn name(&self) -> &Path {
        match self {
            Edit::Save { name, .. }
            | Edit::Append { name, .. }
            | Edit::Mode { name, .. }
            | Edit::Retarget { name, .. }
            | Edit::Rename { from: name, .. }
            | Edit::Remove(name)
            | Edit::Touch(name) => name,
        }
    }

    /// Does it to the model, and says whether there is anything to do.
    pub fn note(&self, model: &mut Model) -> bool {
        match self {
            Edit::Save { name, bytes, .. } => model.put(name, bytes.clone()),
            Edit::Append { name, bytes } => {
                let Some(before) = model.bytes(name) else {
                    return false;
                };
                let all = [before, bytes].concat();
                model.put(name, all);
            }
            Edit::Remove(name) => {
                if model.bytes(name).is_none() {
                    return false;
                }
                model.nodes.remove(name);
            }
            Edit::Rename { from, to } => {
                if model.bytes(from).is_none() || model.nodes.contains_key(to) {
                    return false;
                }
                if let Some(node) = model.nodes.remove(from) {
                    model.nodes.insert(to.clone(), node);
                }
            }
            Edit::Mode { name, mode: new } => match model.nodes.get_mut(name) {
                Some(Node::File { mode, .. }) => *mode = *new,
                _ => return false,
            },
            Edit::Touch(name) => return model.bytes(name).is_some(),
            Edit::Retarget { name, target } => match model.nodes.get_mut(name) {
                Some(Node::Link(now)) => now.clone_from(target),
                _ => return false,
            },
        }
        true
    }

    /// Does it to the files, as they are: what the guest writes may be there or not.
    pub fn make(&self, root: &Path) -> io::Result<()> {
        let path = root.join(self.name());
        match self {
            Edit::Save { bytes, how, .. } => save(&path, bytes, *how),
            Edit::Append { bytes, .. } => {
                make_folder_of(&path)?;
                let mut file = OpenOptions::new().append(true).create(true).open(&path)?;
                file.write_all(bytes)
            }
            Edit::Remove(_) => fs::remove_file(path),
            Edit::Rename { to, .. } => fs::rename(path, root.join(to)),
            Edit::Mode { mode, .. } => fs::set_permissions(path, fs::Permissions::from_mode(*mode)),
            Edit::Touch(_) => {
                let now = std::time::SystemTime::now();
                let times = fs::FileTimes::new().set_modified(now).set_accessed(now);
                File::open(path)?.set_times(times)
            }
            Edit::Retarget { target, .. } => {
                let new = beside(&path, ".new-link~");
                symlink(target, &new)?;
                fs::rename(new, path)
            }
        }
    }
}

/// A name in the same folder, of the kind that editors use.
fn beside(path: &Path, name: &str) -> PathBuf {
    path.with_file_name(name)
}

/// Saves a file, which keeps its mode, or makes it.
fn save(path: &Path, bytes: &[u8], how: Save) -> io::Result<()> {
    let Ok(found) = fs::metadata(path) else {
        make_folder_of(path)?;
        return in_pieces(&mut File::create(path)?, bytes, Duration::ZERO);
    };
    let keep_mode = |path: &Path| fs::set_permissions(path, found.permissions());
    match how {
        Save::InPlace => in_pieces(&mut File::create(path)?, bytes, Duration::ZERO),
        Save::InPieces(pause) => in_pieces(&mut File::create(path)?, bytes, pause),
        Save::Over => {
            let mut file = OpenOptions::new().write(true).open(path)?;
            file.write_all(bytes)?;
            file.set_len(bytes.len() as u64)
        }
        Save::ByRename => {
            let new = beside(path, ".goutputstream-A1B2C3");
            fs::write(&new, bytes)?;
            keep_mode(&new)?;
            fs::rename(new, path)
        }
        Save::LikeVim => {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let backup = beside(path, &format!("{name}~"));
            fs::rename(path, &backup)?;
            fs::write(path, bytes)?;
            keep_mode(path)?;
            fs::remove_file(backup)
        }
        Save::DeleteAndCreate => {
            fs::remove_file(path)?;
            fs::write(path, bytes)?;
            keep_mode(path)
        }
    }
}

fn make_folder_of(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), fs::create_dir_all)
}

/// Writes in two pieces, so that there is a moment with half of the file.
fn in_pieces(file: &mut File, bytes: &[u8], pause: Duration) -> io::Result<()> {
    let (first, second) = bytes.split_at(bytes.len() / 2);
    file.write_all(first)?;
    // Not to wait for anything: slow editors and networks do this.
    std::thread::sleep(pause);
    file.write_all(second)
}

impl fmt::Display for Edit {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.name().display();
        match self {
            Edit::Save { bytes, how, .. } => {
                write!(to, "save {name} {how:?}: {}", brief(bytes))
            }
            Edit::Append { bytes, .. } => write!(to, "append to {name}: {}", brief(bytes)),
            Edit::Remove(_) => write!(to, "remove {name}"),
            Edit::Rename { to: new, .. } => write!(to, "rename {name} to {}", new.display()),
            Edit::Mode { mode, .. } => write!(to, "chmod {mode:o} {name}"),
            Edit::Touch(_) => write!(to, "touch {name}"),
            Edit::Retarget { target, .. } => {
                write!(to, "let {name} lead to {}", target.display())
            }
        }
    }
}

/// The beginning of what may be long: the whole of it is in the seed.
fn brief(bytes: &[u8]) -> String {
    const MOST: usize = 200;
    let start = bytes[..bytes.len().min(MOST)].escape_ascii();
    let more = if bytes.len() > MOST { "…" } else { "" };
    format!("{start}{more}")
}
