//! Where the project begins.

use std::path::{Path, PathBuf};

/// What makes a folder a project root.
const MARKERS: [&str; 4] = [".git", ".hg", ".jj", "forkmon.toml"];

/// The nearest folder from `cwd` upwards that holds `.git` (a folder or, in a
/// work tree, a file), `.hg`, `.jj` or `forkmon.toml`. If there is none, or if
/// it is `/` or the home folder itself, the working folder.
#[must_use]
pub fn project_root(cwd: &Path, home: Option<&Path>) -> PathBuf {
    let is_marked = |dir: &&Path| {
        MARKERS
            .iter()
            .any(|marker| dir.join(marker).symlink_metadata().is_ok())
    };
    let is_too_much = |dir: &Path| dir.parent().is_none() || is_home(dir, home);
    match cwd.ancestors().find(is_marked) {
        Some(root) if !is_too_much(root) => root.to_owned(),
        _ => cwd.to_owned(),
    }
}

fn is_home(dir: &Path, home: Option<&Path>) -> bool {
    // The working folder never has a symbolic link in it, $HOME may.
    home.is_some_and(|home| dir == home || home.canonicalize().is_ok_and(|home| dir == home))
}

/// What `root` is called if its folder `cwd` is called `by_name`: guests often
/// put paths together from `$PWD`, which goes by symbolic links.
pub(super) fn by_another_name(root: &Path, cwd: &Path, by_name: &Path) -> Option<PathBuf> {
    if by_name == cwd || !by_name.is_absolute() {
        return None;
    }
    let inside = cwd.strip_prefix(root).ok()?;
    if !by_name.ends_with(inside) || !by_name.canonicalize().is_ok_and(|real| real == cwd) {
        return None;
    }
    let named = by_name.ancestors().nth(inside.components().count())?;
    (named.parent().is_some()).then(|| named.to_owned())
}
