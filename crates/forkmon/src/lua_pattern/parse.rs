//! From a pattern's text to its items, with everything malformed refused.
//!
//! A Lua pattern has no alternation and no repeated groups: its items are always
//! passed in the order in which they stand. So what Lua finds out while it
//! matches (an unclosed capture, a reference to a capture that is not closed
//! yet, the depth of its recursion) is the same for every subject, and can be
//! checked here once.

use super::{MAX_CAPTURES, MAX_DEPTH, Problem};

/// A set of byte values, one bit each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ByteSet([u64; 4]);

impl ByteSet {
    const EMPTY: Self = Self([0; 4]);

    fn insert(&mut self, byte: u8) {
        self.0[usize::from(byte >> 6)] |= 1 << (byte & 63);
    }

    fn insert_all(&mut self, other: Self) {
        for (mine, theirs) in self.0.iter_mut().zip(other.0) {
            *mine |= theirs;
        }
    }

    fn complement(self) -> Self {
        Self(self.0.map(|bits| !bits))
    }

    fn from_fn(belongs: impl Fn(u8) -> bool) -> Self {
        let mut set = Self::EMPTY;
        for byte in 0..=u8::MAX {
            if belongs(byte) {
                set.insert(byte);
            }
        }
        set
    }

    fn of(byte: u8) -> Self {
        let mut set = Self::EMPTY;
        set.insert(byte);
        set
    }

    /// Whether `byte` is in the set.
    pub(super) fn contains(self, byte: u8) -> bool {
        self.0[usize::from(byte >> 6)] & (1 << (byte & 63)) != 0
    }
}

/// How often a single-character item may match.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Repeat {
    /// Exactly once.
    Once,
    /// `?`: once or not at all, rather once.
    Optional,
    /// `*`: any number of times, rather many.
    Any,
    /// `+`: at least once, rather many.
    Some,
    /// `-`: any number of times, rather few.
    Fewest,
}

/// One item of a pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Item {
    /// A character, class or set, with its repetition.
    Single(ByteSet, Repeat),
    /// `(`: the capture of this number begins.
    Open(usize),
    /// `)`: the capture of this number ends.
    Close(usize),
    /// `()`: the capture of this number is a position, and matches nothing.
    Position(usize),
    /// `%1`: the same bytes as the capture of this number (counted from 0).
    BackReference(usize),
    /// `%bxy`: from an `x` to the `y` that balances it.
    Balanced(u8, u8),
    /// `%f[set]`: the byte before is not in the set, the next one is.
    Frontier(ByteSet),
    /// `$` at the very end: the end of the subject.
    End,
}

/// A pattern in parts.
pub(super) struct Parsed {
    pub(super) anchored: bool,
    pub(super) items: Vec<Item>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Capture {
    Unfinished,
    Finished,
}

/// Without any of these, `string.find` takes a pattern as plain text. A `)` is
/// not among them, and therefore no mistake there.
const SPECIAL: &[u8] = b"^$*+?.([%-";

/// Reads a whole pattern.
pub(super) fn parse(text: &[u8]) -> Result<Parsed, Problem> {
    if !text.iter().any(|byte| SPECIAL.contains(byte)) {
        let literal = |byte| Item::Single(ByteSet::of(byte), Repeat::Once);
        return Ok(Parsed {
            anchored: false,
            items: text.iter().copied().map(literal).collect(),
        });
    }
    let (anchored, mut rest) = match text {
        [b'^', rest @ ..] => (true, rest),
        _ => (false, text),
    };
    let mut items = Vec::new();
    let mut captures: Vec<Capture> = Vec::new();
    let mut depth = 1;

    loop {
        let item;
        (item, rest) = match rest {
            [] => break,
            [b'(', b')', after @ ..] => {
                let number = add_capture(&mut captures, Capture::Finished)?;
                (Item::Position(number), after)
            }
            [b'(', after @ ..] => {
                let number = add_capture(&mut captures, Capture::Unfinished)?;
                (Item::Open(number), after)
            }
            [b')', after @ ..] => {
                let number = captures
                    .iter()
                    .rposition(|capture| *capture == Capture::Unfinished)
                    .ok_or(Problem::InvalidPatternCapture)?;
                captures[number] = Capture::Finished;
                (Item::Close(number), after)
            }
            [b'$'] => (Item::End, &rest[1..]),
            [b'%', b'b', after @ ..] => match after {
                [open, close, after @ ..] => (Item::Balanced(*open, *close), after),
                _ => return Err(Problem::MissingBalanceArguments),
            },
            [b'%', b'f', after @ ..] => match after {
                [b'[', inside @ ..] => {
                    let (set, after) = parse_set(inside)?;
                    (Item::Frontier(set), after)
                }
                _ => return Err(Problem::MissingFrontierSet),
            },
            [b'%', digit @ b'0'..=b'9', after @ ..] => {
                let refused = Problem::InvalidCaptureIndex(digit - b'0');
                let number = usize::from(digit - b'0').checked_sub(1);
                match number.and_then(|number| Some((number, captures.get(number)?))) {
                    Some((number, Capture::Finished)) => (Item::BackReference(number), after),
                    _ => return Err(refused),
                }
            }
            _ => {
                let (set, after) = parse_single(rest)?;
                let (repeat, after) = match after {
                    [b'?', after @ ..] => (Repeat::Optional, after),
                    [b'*', after @ ..] => (Repeat::Any, after),
                    [b'+', after @ ..] => (Repeat::Some, after),
                    [b'-', after @ ..] => (Repeat::Fewest, after),
                    _ => (Repeat::Once, after),
                };
                (Item::Single(set, repeat), after)
            }
        };
        if nests(&item) {
            depth += 1;
            if depth > MAX_DEPTH {
                return Err(Problem::TooComplex);
            }
        }
        items.push(item);
    }
    if captures.contains(&Capture::Unfinished) {
        return Err(Problem::UnfinishedCapture);
    }
    Ok(Parsed { anchored, items })
}

/// Whether the rest of the pattern is matched one level deeper after this item.
fn nests(item: &Item) -> bool {
    match item {
        Item::Open(_) | Item::Close(_) | Item::Position(_) => true,
        Item::Single(_, repeat) => *repeat != Repeat::Once,
        Item::BackReference(_) | Item::Balanced(..) | Item::Frontier(_) | Item::End => false,
    }
}

fn add_capture(captures: &mut Vec<Capture>, capture: Capture) -> Result<usize, Problem> {
    if captures.len() == MAX_CAPTURES {
        return Err(Problem::TooManyCaptures);
    }
    captures.push(capture);
    Ok(captures.len() - 1)
}

/// Reads one character, class or set. `rest` is not empty.
fn parse_single(rest: &[u8]) -> Result<(ByteSet, &[u8]), Problem> {
    match rest {
        [b'.', after @ ..] => Ok((ByteSet::EMPTY.complement(), after)),
        [b'%', class, after @ ..] => Ok((class_of(*class), after)),
        [b'%'] => Err(Problem::EndsWithPercent),
        [b'[', inside @ ..] => parse_set(inside),
        [byte, after @ ..] => Ok((ByteSet::of(*byte), after)),
        [] => Err(Problem::EndsWithPercent),
    }
}

/// Reads a set from behind its `[` to behind its `]`.
fn parse_set(inside: &[u8]) -> Result<(ByteSet, &[u8]), Problem> {
    let (negated, inside) = match inside {
        [b'^', inside @ ..] => (true, inside),
        _ => (false, inside),
    };
    let end = end_of_set(inside)?;
    let (mut content, after) = (&inside[..end], &inside[end + 1..]);

    let mut set = ByteSet::EMPTY;
    loop {
        content = match content {
            [] => break,
            [b'%', class, more @ ..] => {
                set.insert_all(class_of(*class));
                more
            }
            // The upper end of a range is the byte itself, even if it is a `%`
            // that made the byte after it part of the set.
            [first, b'-', last, more @ ..] => {
                set.insert_all(ByteSet::from_fn(|byte| (*first..=*last).contains(&byte)));
                more
            }
            [byte, more @ ..] => {
                set.insert(*byte);
                more
            }
        };
    }
    Ok((if negated { set.complement() } else { set }, after))
}

/// Where the `]` stands that ends a set. The first byte of a set never ends it,
/// and a `%` takes the byte after it along.
fn end_of_set(inside: &[u8]) -> Result<usize, Problem> {
    let mut at = 0;
    loop {
        match inside.get(at) {
            None => return Err(Problem::MissingBracket),
            Some(b']') if at > 0 => return Ok(at),
            Some(b'%') if at + 1 < inside.len() => at += 2,
            Some(_) => at += 1,
        }
    }
}

/// The bytes of `%class`, in the C locale; every other letter stands for itself.
fn class_of(class: u8) -> ByteSet {
    let set = match class.to_ascii_lowercase() {
        b'a' => ByteSet::from_fn(|byte| byte.is_ascii_alphabetic()),
        b'c' => ByteSet::from_fn(|byte| byte.is_ascii_control()),
        b'd' => ByteSet::from_fn(|byte| byte.is_ascii_digit()),
        b'g' => ByteSet::from_fn(|byte| byte.is_ascii_graphic()),
        b'l' => ByteSet::from_fn(|byte| byte.is_ascii_lowercase()),
        b'p' => ByteSet::from_fn(|byte| byte.is_ascii_punctuation()),
        // C's isspace counts the vertical tab in, is_ascii_whitespace does not.
        b's' => ByteSet::from_fn(|byte| matches!(byte, b' ' | b'\t'..=b'\r')),
        b'u' => ByteSet::from_fn(|byte| byte.is_ascii_uppercase()),
        b'w' => ByteSet::from_fn(|byte| byte.is_ascii_alphanumeric()),
        b'x' => ByteSet::from_fn(|byte| byte.is_ascii_hexdigit()),
        // Not in the manual any more, but still there.
        b'z' => ByteSet::of(0),
        _ => return ByteSet::of(class),
    };
    if class.is_ascii_uppercase() {
        set.complement()
    } else {
        set
    }
}
