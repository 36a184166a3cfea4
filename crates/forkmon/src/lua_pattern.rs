//! Lua 5.4's patterns (reference manual, section 6.4.1), matched over bytes.
//!
//! `FORKMON_FILTER` is written in them, because the C tool's was. This is an
//! implementation of its own over slices: it cannot read out of bounds, its
//! recursion is bounded when the pattern is built, and its work is bounded when
//! it runs. What the results must be is settled by `string.find` of the real
//! interpreter, which the tests compare with.
//!
//! The work is done by two private modules: `parse` turns the text
//! into items and refuses every malformed pattern, also those for which Lua
//! itself complains only once a match gets that far; `search` finds the first
//! match. Which paths a pattern is applied to is the business of
//! [`crate::scope`].

mod parse;
mod search;

use std::ops::Range;

use parse::Item;

/// How many captures a pattern may have (`LUA_MAXCAPTURES`).
const MAX_CAPTURES: usize = 32;

/// How deeply the matcher may nest (`MAXCCALLS`). One level is taken by the
/// match itself, and one by each capture border and each repeated item.
const MAX_DEPTH: usize = 200;

/// A pattern that is known to be well formed.
///
/// ```
/// use forkmon::lua_pattern::Pattern;
///
/// let lua_files = Pattern::new(b"%.lua$").unwrap();
/// assert_eq!(lua_files.find(b"/src/main.lua").unwrap(), Some(9..13));
/// assert_eq!(lua_files.find(b"/src/main.c").unwrap(), None);
/// assert!(Pattern::new(b"[a-z").is_err());
/// ```
#[derive(Debug, Clone)]
pub struct Pattern {
    /// The pattern as it was written, for messages.
    text: Vec<u8>,
    /// Whether it began with `^`.
    anchored: bool,
    items: Vec<Item>,
}

/// A pattern that Lua refuses, or would refuse once a match got that far.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the Lua pattern \"{}\" is malformed: {problem}", .pattern.escape_ascii())]
pub struct Error {
    /// The whole pattern.
    pub pattern: Vec<u8>,
    /// What is wrong with it.
    pub problem: Problem,
}

/// What can be wrong with a pattern. The wording is close to Lua's own.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// A `%` with nothing after it.
    #[error("it ends with '%'; write '%%' for a percent sign")]
    EndsWithPercent,
    /// A `[` without its `]`.
    #[error("a ']' is missing; write '%[' for a bracket")]
    MissingBracket,
    /// A `%b` without its two characters.
    #[error("'%b' needs two characters after it, as in '%b()'")]
    MissingBalanceArguments,
    /// A `%f` that no set follows.
    #[error("'%f' needs a set after it, as in '%f[%w]'")]
    MissingFrontierSet,
    /// A `)` that closes nothing.
    #[error("a ')' closes no '('; write '%)' for a parenthesis")]
    InvalidPatternCapture,
    /// A `(` that nothing closes.
    #[error("a '(' is not closed; write '%(' for a parenthesis")]
    UnfinishedCapture,
    /// A `%1` to `%9` whose capture is not there or not closed yet.
    #[error("'%{0}' refers to no finished capture")]
    InvalidCaptureIndex(u8),
    /// More captures than Lua has room for.
    #[error("it has more than {MAX_CAPTURES} captures")]
    TooManyCaptures,
    /// More captures and repetitions than Lua follows.
    #[error("it is too complex: more than {} captures and repetitions", MAX_DEPTH - 1)]
    TooComplex,
}

/// The search was given up: it took more steps than any sensible pattern takes
/// on a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the search took too many steps")]
pub struct TooManySteps;

impl Pattern {
    /// Reads a pattern.
    ///
    /// # Errors
    ///
    /// Whatever is malformed anywhere in it, even where Lua would notice only
    /// while matching; and a pattern that Lua would call too complex on some
    /// subject.
    pub fn new(text: &[u8]) -> Result<Self, Error> {
        let parsed = parse::parse(text).map_err(|problem| Error {
            pattern: text.to_vec(),
            problem,
        })?;
        Ok(Self {
            text: text.to_vec(),
            anchored: parsed.anchored,
            items: parsed.items,
        })
    }

    /// The first match in `subject`, as `string.find(subject, pattern)` gives
    /// it, in bytes counted from 0.
    ///
    /// # Errors
    ///
    /// [`TooManySteps`] when the pattern has back-references, and tries so much for
    /// them that the search was given up; whether it matches is then unknown.
    pub fn find(&self, subject: &[u8]) -> Result<Option<Range<usize>>, TooManySteps> {
        search::find(self, subject)
    }

    /// The pattern as it was written.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.text
    }
}
