//! Finding the first match of a pattern: a backtracking walk over its items.
//!
//! The walk recurses once for each capture border and repeated item, of which a
//! pattern has fewer than [`MAX_DEPTH`](super::MAX_DEPTH), so the stack is
//! bounded.
//!
//! Lua's own matcher takes time polynomial in the subject, with the number of
//! repetitions as the power (`a-a-a-a-b`). Whether the rest of a pattern matches
//! from some byte on depends on nothing else, unless it refers back to a capture;
//! so what has failed once is remembered and not tried again, and the time is
//! that of the pattern's length times the subject's. With back-references nothing
//! can be remembered, and the number of steps is bounded instead.

use std::ops::Range;

use super::parse::{ByteSet, Item, Repeat};
use super::{MAX_CAPTURES, Pattern, TooManySteps};

/// How many steps one search may take. A path has at most 4,096 bytes, so that
/// what people write is far from this, and reaching it takes about 0.1 s.
const MAX_STEPS: u32 = 20_000_000;

/// What a capture holds so far.
#[derive(Clone, Copy)]
enum Captured {
    /// It begins here.
    From(usize),
    /// It holds these bytes.
    Bytes(usize, usize),
    /// It is a position, which no bytes are equal to.
    Position,
}

struct Search<'a> {
    items: &'a [Item],
    subject: &'a [u8],
    captures: [Captured; MAX_CAPTURES],
    steps_left: u32,
    failed: Option<Failed>,
}

/// From which bytes which items are known not to match, one bit each.
struct Failed {
    bits: Vec<u64>,
    /// How many places there are in the subject, its end included.
    places: usize,
}

impl Failed {
    fn new(items: usize, subject: usize) -> Self {
        let places = subject + 1;
        Self {
            bits: vec![0; (items * places).div_ceil(64)],
            places,
        }
    }

    fn contains(&self, item: usize, at: usize) -> bool {
        let bit = item * self.places + at;
        self.bits[bit / 64] & (1 << (bit % 64)) != 0
    }

    fn insert(&mut self, item: usize, at: usize) {
        let bit = item * self.places + at;
        self.bits[bit / 64] |= 1 << (bit % 64);
    }
}

/// The first match of `pattern` in `subject`.
pub(super) fn find(
    pattern: &Pattern,
    subject: &[u8],
) -> Result<Option<Range<usize>>, TooManySteps> {
    let refers_back = |item: &Item| matches!(item, Item::BackReference(_));
    let can_remember = !pattern.items.iter().any(refers_back);
    let mut search = Search {
        items: &pattern.items,
        subject,
        captures: [Captured::Position; MAX_CAPTURES],
        steps_left: MAX_STEPS,
        failed: can_remember.then(|| Failed::new(pattern.items.len(), subject.len())),
    };
    let last_start = if pattern.anchored { 0 } else { subject.len() };
    for start in 0..=last_start {
        if let Some(end) = search.match_from(0, start)? {
            return Ok(Some(start..end));
        }
    }
    Ok(None)
}

impl Search<'_> {
    /// Matches the items from number `item` on at byte `at`; where the match
    /// ends, if there is one.
    fn match_from(
        &mut self,
        mut item: usize,
        mut at: usize,
    ) -> Result<Option<usize>, TooManySteps> {
        loop {
            self.spend(1)?;
            let Some(current) = self.items.get(item).copied() else {
                return Ok(Some(at));
            };
            let next = match current {
                Item::Single(set, Repeat::Once) => self.fits(set, at).then_some(at + 1),
                Item::Single(set, repeat) => return self.match_repeated(item, at, set, repeat),
                Item::Open(number) => {
                    self.captures[number] = Captured::From(at);
                    return self.match_from(item + 1, at);
                }
                Item::Position(number) => {
                    self.captures[number] = Captured::Position;
                    return self.match_from(item + 1, at);
                }
                Item::Close(number) => {
                    let before = self.captures[number];
                    if let Captured::From(start) = before {
                        self.captures[number] = Captured::Bytes(start, at);
                    }
                    let end = self.match_from(item + 1, at)?;
                    if end.is_none() {
                        // Another try may close it elsewhere.
                        self.captures[number] = before;
                    }
                    return Ok(end);
                }
                Item::BackReference(number) => match self.captures[number] {
                    Captured::Bytes(start, end) => {
                        self.spend(end - start)?;
                        let again = &self.subject[start..end];
                        self.subject[at..]
                            .starts_with(again)
                            .then_some(at + again.len())
                    }
                    Captured::From(_) | Captured::Position => None,
                },
                Item::Balanced(open, close) => self.balanced(at, open, close)?,
                Item::Frontier(set) => {
                    let before = at.checked_sub(1).map_or(0, |before| self.subject[before]);
                    let after = self.subject.get(at).copied().unwrap_or(0);
                    (!set.contains(before) && set.contains(after)).then_some(at)
                }
                Item::End => (at == self.subject.len()).then_some(at),
            };
            match next {
                Some(next) => {
                    at = next;
                    item += 1;
                }
                None => return Ok(None),
            }
        }
    }

    /// Matches the repeated item number `item` at byte `at`, and what follows it.
    fn match_repeated(
        &mut self,
        item: usize,
        at: usize,
        set: ByteSet,
        repeat: Repeat,
    ) -> Result<Option<usize>, TooManySteps> {
        if self.is_known_to_fail(item, at) {
            return Ok(None);
        }
        let mut longest = 0;
        let most = if repeat == Repeat::Optional {
            1
        } else {
            self.subject.len() - at
        };
        while longest < most && self.fits(set, at + longest) {
            longest += 1;
            // The ends beyond have been tried from there.
            if repeat != Repeat::Optional && self.is_known_to_fail(item, at + longest) {
                break;
            }
        }
        self.spend(longest)?;
        let least = at + usize::from(repeat == Repeat::Some);
        let ends = least..=at + longest;
        let found = if repeat == Repeat::Fewest {
            self.first_that_goes_on(item, ends)?
        } else {
            self.first_that_goes_on(item, ends.rev())?
        };
        if found.is_none()
            && let Some(failed) = &mut self.failed
        {
            // From every byte that was passed, some of the same ends would be tried
            // again, and no other. An optional item passes none.
            let passed = if repeat == Repeat::Optional {
                0
            } else {
                longest
            };
            for at in at..=at + passed {
                failed.insert(item, at);
            }
        }
        Ok(found)
    }

    /// The first of the `ends` of item number `item` from which the rest matches.
    fn first_that_goes_on(
        &mut self,
        item: usize,
        ends: impl Iterator<Item = usize>,
    ) -> Result<Option<usize>, TooManySteps> {
        for end in ends {
            if let Some(end) = self.match_from(item + 1, end)? {
                return Ok(Some(end));
            }
        }
        Ok(None)
    }

    fn is_known_to_fail(&self, item: usize, at: usize) -> bool {
        self.failed
            .as_ref()
            .is_some_and(|failed| failed.contains(item, at))
    }

    fn fits(&self, set: ByteSet, at: usize) -> bool {
        self.subject.get(at).is_some_and(|byte| set.contains(*byte))
    }

    /// Behind the `close` that balances the `open` at byte `at`.
    fn balanced(&mut self, at: usize, open: u8, close: u8) -> Result<Option<usize>, TooManySteps> {
        let Some((first, rest)) = self.subject[at..].split_first() else {
            return Ok(None);
        };
        if *first != open {
            return Ok(None);
        }
        self.spend(rest.len())?;
        let mut depth = 1_usize;
        for (ahead, byte) in rest.iter().enumerate() {
            // The closing one counts first: `%b''` runs to the next quote.
            if *byte == close {
                depth -= 1;
                if depth == 0 {
                    return Ok(Some(at + ahead + 2));
                }
            } else if *byte == open {
                depth += 1;
            }
        }
        Ok(None)
    }

    fn spend(&mut self, steps: usize) -> Result<(), TooManySteps> {
        let steps = u32::try_from(steps).unwrap_or(u32::MAX);
        self.steps_left = self.steps_left.checked_sub(steps).ok_or(TooManySteps)?;
        Ok(())
    }
}
