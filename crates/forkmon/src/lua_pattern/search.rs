//! Finding the first match of a pattern: a backtracking walk over its items.
//!
//! The walk recurses once for each capture border and repeated item, of which a
//! pattern has fewer than [`MAX_DEPTH`](super::MAX_DEPTH), so the stack is
//! bounded. The number of steps is bounded too: `a-a-a-a-b` takes time
//! polynomial in the subject, with the number of repetitions as the power.

use std::ops::Range;

use super::parse::{Item, Repeat};
use super::{MAX_CAPTURES, Pattern, TooManySteps};

/// How many items may be tried in one search. A path has at most 4,096 bytes, so
/// that `.-/.-%.lua$` is far away from this, and reaching it takes about 0.1 s.
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
}

/// The first match of `pattern` in `subject`.
pub(super) fn find(
    pattern: &Pattern,
    subject: &[u8],
) -> Result<Option<Range<usize>>, TooManySteps> {
    let mut search = Search {
        items: &pattern.items,
        subject,
        captures: [Captured::Position; MAX_CAPTURES],
        steps_left: MAX_STEPS,
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
            self.step()?;
            let Some(current) = self.items.get(item).copied() else {
                return Ok(Some(at));
            };
            let next = match current {
                Item::Single(set, repeat) => {
                    let fits = |at: usize| {
                        let byte = self.subject.get(at);
                        byte.is_some_and(|byte| set.contains(*byte))
                    };
                    match repeat {
                        Repeat::Once => fits(at).then_some(at + 1),
                        Repeat::Optional => {
                            if fits(at)
                                && let Some(end) = self.match_from(item + 1, at + 1)?
                            {
                                return Ok(Some(end));
                            }
                            Some(at)
                        }
                        Repeat::Fewest => loop {
                            if let Some(end) = self.match_from(item + 1, at)? {
                                return Ok(Some(end));
                            }
                            match self.subject.get(at) {
                                Some(byte) if set.contains(*byte) => at += 1,
                                _ => return Ok(None),
                            }
                        },
                        Repeat::Any | Repeat::Some => {
                            let run = self.subject[at..]
                                .iter()
                                .take_while(|byte| set.contains(**byte))
                                .count();
                            self.spend(run)?;
                            let least = at + usize::from(repeat == Repeat::Some);
                            for at in (least..=at + run).rev() {
                                if let Some(end) = self.match_from(item + 1, at)? {
                                    return Ok(Some(end));
                                }
                            }
                            return Ok(None);
                        }
                    }
                }
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

    fn step(&mut self) -> Result<(), TooManySteps> {
        self.spend(1)
    }

    fn spend(&mut self, steps: usize) -> Result<(), TooManySteps> {
        let steps = u32::try_from(steps).unwrap_or(u32::MAX);
        self.steps_left = self.steps_left.checked_sub(steps).ok_or(TooManySteps)?;
        Ok(())
    }
}
