//! What lay in a folder that was there before when the guest moved it, so that an undo
//! can tell whether somebody else has written into it since. The files in it are not
//! watched: their times tell, which no write leaves as they are (inode(7)).

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use crate::file::{FileId, Look, open_path};
use crate::journal::Journal;
use crate::provenance::Provenance;
use crate::undo::Undoing;
use crate::{Obstacle, Why};

/// The most names that are looked at when a folder is moved: some tens of milliseconds.
const MOST_NAMES: usize = 20_000;

/// The names in a folder and below it, and what lay there.
#[derive(Debug, Default)]
pub(crate) struct Tree {
    nodes: HashMap<PathBuf, Look>,
}

impl Tree {
    /// Looks at all that lies below a folder. Files that were changed just now are
    /// watched instead: the next change could leave them with the same times.
    pub(crate) fn of(
        folder: &Path,
        settle: Duration,
        provenance: &mut Provenance,
    ) -> Result<Tree, Obstacle> {
        let step = "look into the folder";
        let mut tree = Tree::default();
        let mut todo = vec![PathBuf::new()];
        while let Some(below) = todo.pop() {
            let names = names_in(&folder.join(&below));
            for name in names.map_err(|cause| Obstacle::io(step, cause))? {
                let below = below.join(name);
                let path = folder.join(&below);
                let found = Look::at(&path, false).map_err(|cause| Obstacle::io(step, cause))?;
                let Some(look) = found else {
                    continue;
                };
                if tree.nodes.len() == MOST_NAMES {
                    return Err(Obstacle::TooManyNames { most: MOST_NAMES });
                }
                if look.is_folder() {
                    todo.push(below.clone());
                } else if look.is_regular() && !look.is_settled(SystemTime::now(), settle) {
                    let handle =
                        open_path(&path, false).map_err(|cause| Obstacle::io(step, cause))?;
                    provenance.track(look.id, &handle, path.parent());
                }
                tree.nodes.insert(below, look);
            }
        }
        Ok(tree)
    }

    fn get(&self, below: &Path) -> Option<&Look> {
        self.nodes.get(below)
    }
}

impl Journal {
    /// Whether all in a folder is what was there or what the guest itself put there.
    /// `tree` is empty of a folder that the guest made.
    pub(crate) fn prove_folder(
        &mut self,
        undoing: &Undoing,
        folder: &Path,
        tree: Option<&Tree>,
    ) -> Result<(), Why> {
        let step = "look into the folder";
        let mut todo = vec![PathBuf::new()];
        while let Some(below) = todo.pop() {
            for name in names_in(&folder.join(&below)).map_err(Why::io(step))? {
                let below = below.join(name);
                let path = folder.join(&below);
                let Some(found) = Look::at(&path, false).map_err(Why::io(step))? else {
                    continue;
                };
                let before = tree.and_then(|tree| tree.get(&below));
                let before = before.filter(|before| before.id == found.id);
                let known = undoing.knows(found.id);
                if found.is_folder() {
                    todo.push(below);
                }
                if before.is_none() && !known {
                    return Err(Why::NotEmpty);
                }
                if found.is_regular() && !self.is_unwritten(undoing, &found, before, known)? {
                    return Err(Why::NotEmpty);
                }
            }
        }
        Ok(())
    }

    fn is_unwritten(
        &mut self,
        undoing: &Undoing,
        found: &Look,
        before: Option<&Look>,
        known: bool,
    ) -> Result<bool, Why> {
        let id: FileId = found.id;
        if self.provenance.get(id).is_some() {
            return self.prove(undoing, id).map(|()| true);
        }
        Ok(match before {
            // What the guest did to it, and our undoing of that, changed its times.
            Some(before) if known || self.put_back.contains(&id) => {
                (before.size, before.modified) == (found.size, found.modified)
            }
            Some(before) => before.same_version(found),
            None => known,
        })
    }
}

fn names_in(folder: &Path) -> io::Result<Vec<std::ffi::OsString>> {
    let entries = std::fs::read_dir(folder)?;
    entries.map(|entry| Ok(entry?.file_name())).collect()
}
