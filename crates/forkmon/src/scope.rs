//! The scope: the paths whose accesses count.
//!
//! By default that is everything under the project root, without what no person
//! edits there ([`exclusions`]). `-w` adds to it, `-f` and `-e` narrow it, `-i`
//! takes out of it, and `FORKMON_FILTER` replaces the default by Lua patterns.
//! Every rule is about the text of a path, so that a missing file has an answer,
//! too, and nothing is looked up when the guest stops at a new path. Finding the
//! project root and reading what was typed is left to `root` and `globs`.
//!
//! In order, the first rule that applies decides:
//!
//! | the path is | then it is |
//! |---|---|
//! | in `/proc`, `/sys` or `/dev` (without `/dev/shm`) | out, whatever was asked for |
//! | a store of forkmon's own (`.forkmon-…`) in a folder that one of the rules below lets in | out, whatever was asked for |
//! | matched by `-i`, itself or a folder above it | out |
//! | named by `-w`, exactly | in |
//! | below a folder named by `-w`, or matched by a glob of `-w` | in, if `-f`/`-e` match or are not given |
//! | under the project root (or found by a pattern of `FORKMON_FILTER`, if that is set) | in, if `-f`/`-e` match or are not given |
//! | anything else | out |

pub mod exclusions;
mod globs;
mod root;

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use crate::lua_pattern::{self, Pattern};
use globs::{Addition, Globs};

pub use root::project_root;

/// What the scope is made from: the options as they were typed, and where.
#[derive(Debug, Clone, Default)]
pub struct Request {
    /// The working folder, absolute.
    pub cwd: PathBuf,
    /// The working folder as the shell calls it (`PWD`), where a symbolic link
    /// leads to it.
    pub cwd_by_name: Option<PathBuf>,
    /// The home folder.
    pub home: Option<PathBuf>,
    /// `-w`: paths or globs, relative to the working folder.
    pub watch: Vec<OsString>,
    /// `-f`: globs.
    pub filters: Vec<String>,
    /// `-e`: file extensions, with or without their dot.
    pub extensions: Vec<String>,
    /// `-i`: globs.
    pub ignores: Vec<String>,
    /// `FORKMON_FILTER`: Lua patterns with `;` between them.
    pub patterns: Option<OsString>,
}

/// A request that cannot be a scope.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A glob of an option is malformed.
    #[error("the glob \"{glob}\" of {option} is malformed: {problem}")]
    Glob {
        /// The option that it was given with.
        option: &'static str,
        /// The glob as it was typed.
        glob: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A pattern of `FORKMON_FILTER` is malformed.
    #[error("in FORKMON_FILTER: {0}")]
    Pattern(#[from] lua_pattern::Error),
    /// `FORKMON_FILTER` is set to separators only.
    #[error(
        "FORKMON_FILTER holds no pattern; set it to one, as in FORKMON_FILTER='%.lua$', or unset it"
    )]
    NoPattern,
    /// An extension that no file can have.
    #[error("\"{0}\" of --exts is no file extension; give them like --exts lua,json")]
    Extension(String),
}

/// The paths whose accesses count. See the [module](self) for the rules.
#[derive(Debug, Clone)]
pub struct Scope {
    /// The project root, then its other names.
    roots: Vec<PathBuf>,
    /// Instead of everything under the root.
    patterns: Option<Vec<Pattern>>,
    additions: Vec<Addition>,
    /// `-f` and `-e`; everything passes if there are none.
    wanted: Globs,
    /// `-i`
    ignored: Globs,
}

impl Scope {
    /// Reads what was asked for, and looks for the project root.
    ///
    /// # Errors
    ///
    /// A malformed glob, pattern or extension; see [`Error`].
    pub fn new(request: &Request) -> Result<Self, Error> {
        let root = project_root(&request.cwd, request.home.as_deref());
        let other_name = request
            .cwd_by_name
            .as_deref()
            .and_then(|by_name| root::by_another_name(&root, &request.cwd, by_name));
        let mut wanted = Globs::new("--filter", &request.filters, &request.cwd)?;
        wanted.add_extensions(&request.extensions)?;
        Ok(Self {
            roots: [root].into_iter().chain(other_name).collect(),
            patterns: request
                .patterns
                .as_deref()
                .filter(|patterns| !patterns.is_empty())
                .map(read_patterns)
                .transpose()?,
            additions: request
                .watch
                .iter()
                .map(|typed| Addition::new(typed, &request.cwd))
                .collect::<Result<Vec<_>, _>>()?,
            wanted,
            ignored: Globs::new("--ignore", &request.ignores, &request.cwd)?,
        })
    }

    /// The project root.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.roots[0]
    }

    /// The files and folders of `--watch` that are not there. One may be made later;
    /// but a name that was mistyped would never count, and nothing would say so.
    pub fn missing(&self) -> impl Iterator<Item = &Path> {
        let begins = self.additions.iter().map(Addition::begins_at);
        begins.filter(|path| path.symlink_metadata().is_err())
    }

    /// Whether accesses of `path` count. The path is absolute and has no `.`
    /// and `..` in it; it need not exist, and folders are answered for as files
    /// are.
    #[must_use]
    pub fn contains(&self, path: &Path) -> bool {
        if exclusions::is_never_in_scope(path) || self.is_ignored(path) {
            return false;
        }
        let mut added = false;
        for addition in &self.additions {
            if addition.names_exactly(path) {
                return true;
            }
            added = added || addition.contains(path);
        }
        (added || self.default_contains(path)) && self.is_wanted(path)
    }

    /// Whether anything below the folder `dir` may be in scope. If not, the
    /// whole tree under it is out of scope; if so, [`Self::contains`] decides
    /// for each path.
    #[must_use]
    pub fn may_contain_below(&self, dir: &Path) -> bool {
        // Above the root, a name to ignore may be one that the root lies in.
        let holds_a_base = self.roots.iter().any(|root| root.starts_with(dir))
            || self
                .additions
                .iter()
                .any(|addition| addition.begins_below(dir));
        if holds_a_base {
            return true;
        }
        if exclusions::is_never_in_scope(dir) || self.is_ignored(dir) {
            return false;
        }
        let by_default = match &self.patterns {
            Some(_) => !dir.starts_with("/tmp"),
            None => self.default_contains(dir),
        };
        by_default
            || self
                .additions
                .iter()
                .any(|addition| addition.may_contain_below(dir))
    }

    /// Whether `name` counts in a listing of the folder `dir`: editors' swap
    /// files, for one, come and go without telling the guest anything. A folder
    /// that may hold something in scope counts, too.
    #[must_use]
    pub fn contains_name_in_listing(&self, dir: &Path, name: &OsStr) -> bool {
        self.contains(&dir.join(name))
    }

    fn default_contains(&self, path: &Path) -> bool {
        match &self.patterns {
            Some(patterns) => {
                !path.starts_with("/tmp")
                    && !exclusions::is_in_store(path)
                    && patterns.iter().any(|pattern| {
                        // A search that was given up says nothing; a file too
                        // many in scope is slower, one too few is wrong.
                        pattern
                            .find(path.as_os_str().as_bytes())
                            .map_or(true, |found| found.is_some())
                    })
            }
            None => self.roots.iter().any(|root| {
                path.strip_prefix(root)
                    .is_ok_and(|below| !exclusions::excludes(below, exclusions::Lifted::NONE))
            }),
        }
    }

    fn is_wanted(&self, path: &Path) -> bool {
        self.wanted.is_empty() || self.wanted.matches(path, self.part_below_base(path))
    }

    fn is_ignored(&self, path: &Path) -> bool {
        !self.ignored.is_empty() && self.ignored.matches(path, self.part_below_base(path))
    }

    /// The part of `path` that a glob without a folder is matched with: a
    /// project in `/tmp` is not out because somebody ignores `tmp`.
    fn part_below_base<'p>(&self, path: &'p Path) -> &'p Path {
        let below_root = self
            .roots
            .iter()
            .find_map(|root| path.strip_prefix(root).ok());
        let below_addition = || {
            self.additions
                .iter()
                .find_map(|addition| addition.part_below_parent(path))
        };
        below_root.or_else(below_addition).unwrap_or(path)
    }
}

fn read_patterns(typed: &OsStr) -> Result<Vec<Pattern>, Error> {
    let patterns = typed
        .as_bytes()
        .split(|byte| *byte == b';')
        .filter(|pattern| !pattern.is_empty())
        .map(Pattern::new)
        .collect::<Result<Vec<_>, _>>()?;
    if patterns.is_empty() {
        return Err(Error::NoPattern);
    }
    Ok(patterns)
}
