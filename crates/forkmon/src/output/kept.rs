//! The output of a run that can be shown again: its last bytes, by their
//! positions from the run's beginning on.
//!
//! Pure data. What has been shown of it, and what is to be, is `script`'s
//! concern.

use std::collections::VecDeque;

/// The last bytes of a run's output.
#[derive(Debug)]
pub(super) struct Kept {
    bytes: VecDeque<u8>,
    /// The position of the first one.
    start: u64,
    limit: usize,
}

impl Kept {
    /// Keeps up to `limit` bytes.
    pub(super) fn new(limit: usize) -> Self {
        Self {
            bytes: VecDeque::new(),
            start: 0,
            limit,
        }
    }

    /// The position after the last byte: how many the run has written.
    pub(super) fn end(&self) -> u64 {
        self.start + self.bytes.len() as u64
    }

    /// Adds what the run wrote next.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend(bytes);
    }

    /// Drops the oldest bytes above the limit, but none from `needed` on; whether
    /// it dropped any.
    pub(super) fn trim(&mut self, needed: u64) -> bool {
        let excess = self.bytes.len().saturating_sub(self.limit);
        let spare = usize::try_from(needed.saturating_sub(self.start)).unwrap_or(usize::MAX);
        let dropped = excess.min(spare);
        self.bytes.drain(..dropped);
        self.start += dropped as u64;
        dropped > 0
    }

    /// Goes back to a position: what came after it was never written.
    pub(super) fn cut(&mut self, position: u64) {
        match position.checked_sub(self.start) {
            Some(left) => self
                .bytes
                .truncate(usize::try_from(left).unwrap_or(usize::MAX)),
            None => {
                // All of what would be left was dropped before.
                self.bytes.clear();
                self.start = position;
            }
        }
        self.bytes.shrink_to(self.limit.min(2 * self.bytes.len()));
    }

    /// Up to `most` bytes from a position on, which must not lie before the start.
    pub(super) fn copy(&self, from: u64, most: usize) -> Vec<u8> {
        let length = self.bytes.len();
        let skipped = usize::try_from(from - self.start).map_or(length, |n| n.min(length));
        let end = skipped.saturating_add(most).min(length);
        self.bytes.range(skipped..end).copied().collect()
    }

    /// Where to begin to show it: at the beginning, or, where that was dropped, at
    /// the first whole line.
    pub(super) fn first_line(&self) -> u64 {
        if self.start == 0 {
            return 0;
        }
        let line = self.bytes.iter().position(|byte| *byte == b'\n');
        line.map_or(self.start, |end| self.start + end as u64 + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Clone, Debug)]
    enum Step {
        Push(Vec<u8>),
        /// A share of what there is, in 256ths.
        Show(u8),
        Cut(u8),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            proptest::collection::vec(any::<u8>(), 0..40).prop_map(Step::Push),
            any::<u8>().prop_map(Step::Show),
            any::<u8>().prop_map(Step::Cut),
        ]
    }

    proptest! {
        /// It always holds an end of what was written and not cut off, everything
        /// that was not shown, and no more than the limit beyond that.
        #[test]
        fn it_is_an_end_of_what_was_written(
            limit in 0..100_usize,
            steps in proptest::collection::vec(step(), 0..60),
        ) {
            let mut kept = Kept::new(limit);
            let mut written = Vec::new();
            let mut shown = 0_u64;
            for step in steps {
                match step {
                    Step::Push(bytes) => {
                        kept.push(&bytes);
                        written.extend(bytes);
                    }
                    Step::Show(share) => {
                        shown += (kept.end() - shown) * u64::from(share) / 255;
                    }
                    Step::Cut(share) => {
                        let to = written.len() as u64 * u64::from(share) / 255;
                        kept.cut(to);
                        written.truncate(to as usize);
                        shown = kept.first_line();
                        prop_assert!(shown >= kept.start && shown <= kept.end());
                        let before = shown.checked_sub(1).map(|at| written[at as usize]);
                        prop_assert!(
                            shown == kept.start || before == Some(b'\n'),
                            "it begins with half a line"
                        );
                    }
                }
                let start = kept.start;
                let dropped = kept.trim(shown);
                prop_assert_eq!(dropped, kept.start > start);
                prop_assert_eq!(kept.end(), written.len() as u64);
                prop_assert!(kept.start <= shown);
                prop_assert!(kept.bytes.len() <= limit.max((kept.end() - shown) as usize));
                let all = kept.copy(kept.start, usize::MAX);
                prop_assert_eq!(&all, &written[kept.start as usize..]);
                prop_assert_eq!(kept.copy(shown, 7), written[shown as usize..].iter().copied().take(7).collect::<Vec<_>>());
            }
        }
    }

    #[test]
    fn what_was_dropped_is_dropped_once() {
        let mut kept = Kept::new(4);
        kept.push(b"one\ntwo\n");
        assert!(!kept.trim(0), "none of it was shown");
        assert!(kept.trim(8));
        assert!(!kept.trim(8));
        assert_eq!(kept.copy(kept.start, 10), b"two\n");
        kept.cut(2);
        assert_eq!((kept.start, kept.end()), (2, 2));
    }
}
