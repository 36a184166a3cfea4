//! Globs and paths as they are typed, made ready to match.
//!
//! `*` and `?` stop at a `/`, `**` does not. A glob with a `/` in it is about
//! the path from the working folder on (or from `/`); one without, or one that
//! begins with `**/`, is about any file or folder below the project root. A glob
//! that matches a folder matches everything in it.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};

use globset::{Glob, GlobBuilder, GlobMatcher, GlobSet, GlobSetBuilder};

use super::Error;
use super::exclusions::{Lifted, excludes};

/// The globs of `-f` and `-e`, or those of `-i`.
#[derive(Debug, Clone)]
pub(super) struct Globs {
    /// Those about the whole path.
    absolute: GlobSet,
    /// Those about the part below the project root.
    below: GlobSet,
    extensions: Vec<Vec<u8>>,
}

impl Globs {
    pub(super) fn new(option: &'static str, typed: &[String], cwd: &Path) -> Result<Self, Error> {
        let mut absolute = GlobSetBuilder::new();
        let mut below = GlobSetBuilder::new();
        for typed in typed {
            // `build/` is a name, as in .gitignore.
            let text = typed.trim_end_matches('/');
            if text.is_empty() {
                return Err(malformed(option, typed, "it is empty"));
            }
            if text.starts_with("**/") {
                below.add(compile(option, typed, text)?);
            } else if text.contains('/') {
                absolute.add(compile(option, typed, &absolute_glob(text, cwd))?);
            } else {
                below.add(compile(option, typed, &format!("**/{text}"))?);
            }
        }
        let build = |builder: GlobSetBuilder| {
            builder
                .build()
                .map_err(|error| malformed(option, &typed.join(" "), error.kind()))
        };
        Ok(Self {
            absolute: build(absolute)?,
            below: build(below)?,
            extensions: Vec::new(),
        })
    }

    pub(super) fn add_extensions(&mut self, typed: &[String]) -> Result<(), Error> {
        for typed in typed {
            let extension = typed.trim().trim_start_matches('.');
            if extension.is_empty() || extension.contains(['/', '*']) {
                return Err(Error::Extension(typed.clone()));
            }
            // With its dot, so that `tar.gz` and `d.ts` work as well.
            self.extensions.push(format!(".{extension}").into_bytes());
        }
        Ok(())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.absolute.is_empty() && self.below.is_empty() && self.extensions.is_empty()
    }

    /// Whether `path`, of which `below` is the part below the project root, or
    /// a folder that it lies in is matched.
    pub(super) fn matches(&self, path: &Path, below: &Path) -> bool {
        let name = path.file_name().unwrap_or_default().as_bytes();
        // A name that is nothing but the extension is a hidden file.
        let by_extension =
            |extension: &Vec<u8>| name.len() > extension.len() && name.ends_with(extension);
        self.extensions.iter().any(by_extension)
            || any_ancestor(&self.below, below)
            || any_ancestor(&self.absolute, path)
    }
}

fn any_ancestor(globs: &GlobSet, path: &Path) -> bool {
    !globs.is_empty()
        && path
            .ancestors()
            .filter(|ancestor| !ancestor.as_os_str().is_empty())
            .any(|ancestor| globs.is_match(ancestor))
}

/// One `-w`.
#[derive(Debug, Clone)]
pub(super) struct Addition {
    /// The file or folder that it begins at; for a glob, the folders in front of
    /// the first component with a wildcard. Then its name without symbolic
    /// links, if that is another.
    bases: Vec<PathBuf>,
    /// What must match below, if it is a glob.
    glob: Option<GlobMatcher>,
    lifted: Lifted,
}

impl Addition {
    /// The file or folder that it begins at.
    pub(super) fn begins_at(&self) -> &Path {
        &self.bases[0]
    }

    pub(super) fn new(typed: &OsStr, cwd: &Path) -> Result<Self, Error> {
        let path = normalised(&cwd.join(typed));
        let lifted = Lifted::by(&path);
        // A file that has such a name wins: Next.js has files called [id].js.
        if !has_wildcard(typed.as_bytes()) || path.symlink_metadata().is_ok() {
            return Ok(Self {
                bases: with_real_name(path),
                glob: None,
                lifted,
            });
        }
        let text = typed
            .to_str()
            .ok_or_else(|| malformed("--watch", &typed.to_string_lossy(), "it is not UTF-8"))?;
        let text = absolute_glob(text.trim_end_matches('/'), cwd);
        let glob = compile("--watch", &typed.to_string_lossy(), &text)?.compile_matcher();
        let base = path
            .ancestors()
            .filter(|base| !has_wildcard_below(base, cwd))
            .find(|base| *base != path)
            .unwrap_or(Path::new("/"));
        Ok(Self {
            // The glob is about the name as it was typed only.
            bases: vec![base.to_owned()],
            glob: Some(glob),
            lifted,
        })
    }

    /// Whether `path` is this very file or folder.
    pub(super) fn names_exactly(&self, path: &Path) -> bool {
        self.glob.is_none() && self.bases.iter().any(|base| base == path)
    }

    pub(super) fn contains(&self, path: &Path) -> bool {
        let matches = |path: &Path| match &self.glob {
            Some(glob) => path.ancestors().any(|ancestor| glob.is_match(ancestor)),
            None => true,
        };
        self.part_below(path)
            .is_some_and(|below| !excludes(below, self.lifted) && matches(path))
    }

    pub(super) fn may_contain_below(&self, dir: &Path) -> bool {
        self.begins_below(dir)
            || self
                .part_below(dir)
                .is_some_and(|below| !excludes(below, self.lifted))
    }

    /// Whether the folder `dir` holds the beginning of this addition.
    pub(super) fn begins_below(&self, dir: &Path) -> bool {
        self.bases.iter().any(|base| base.starts_with(dir))
    }

    /// The part of `path` from the last component of this addition on.
    pub(super) fn part_below_parent<'p>(&self, path: &'p Path) -> Option<&'p Path> {
        self.bases.iter().find_map(|base| {
            let parent = base.parent().unwrap_or(base);
            path.starts_with(base)
                .then(|| path.strip_prefix(parent).ok())?
        })
    }

    fn part_below<'p>(&self, path: &'p Path) -> Option<&'p Path> {
        self.bases
            .iter()
            .find_map(|base| path.strip_prefix(base).ok())
    }
}

fn with_real_name(path: PathBuf) -> Vec<PathBuf> {
    let real = path.canonicalize().ok().filter(|real| *real != path);
    [path].into_iter().chain(real).collect()
}

fn has_wildcard(text: &[u8]) -> bool {
    text.iter().any(|byte| b"*?[{".contains(byte))
}

/// Whether a component of `path` that was typed, and does not come from the
/// working folder, has a wildcard.
fn has_wildcard_below(path: &Path, cwd: &Path) -> bool {
    let typed = path.strip_prefix(cwd).unwrap_or(path);
    // Above the working folder, its own names are no wildcards either.
    !cwd.starts_with(path) && has_wildcard(typed.as_os_str().as_bytes())
}

/// `text` from `/` on, with the working folder's own name taken literally.
fn absolute_glob(text: &str, cwd: &Path) -> String {
    if text.starts_with('/') {
        return text.to_owned();
    }
    let mut folder = cwd.to_owned();
    let mut rest = text;
    loop {
        if let Some(after) = rest.strip_prefix("./") {
            rest = after;
        } else if let Some(after) = rest.strip_prefix("../") {
            folder.pop();
            rest = after;
        } else {
            break;
        }
    }
    let folder = globset::escape(&folder.to_string_lossy());
    format!("{}/{rest}", folder.trim_end_matches('/'))
}

fn compile(option: &'static str, typed: &str, text: &str) -> Result<Glob, Error> {
    GlobBuilder::new(text)
        .literal_separator(true)
        .backslash_escape(true)
        .build()
        .map_err(|error| malformed(option, typed, error.kind()))
}

fn malformed(option: &'static str, glob: &str, problem: impl ToString) -> Error {
    Error::Glob {
        option,
        glob: glob.to_owned(),
        problem: problem.to_string(),
    }
}

/// `path` without `.`, `..` and doubled slashes, by its text alone.
fn normalised(path: &Path) -> PathBuf {
    let mut clean = PathBuf::new();
    for component in path.components() {
        match component {
            Component::ParentDir => {
                clean.pop();
            }
            Component::CurDir => {}
            other => clean.push(other),
        }
    }
    clean
}
