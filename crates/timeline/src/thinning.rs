//! Which checkpoint to drop when there are too many.
//!
//! Without checkpoint *c*, an edit that would have resumed from it resumes from
//! the one before: the guest time between the two has to be spent once more, at
//! each such edit. So the expected loss is that time, times the odds that the
//! next edit resumes from *c*: that it is to a path first touched between *c*
//! and the checkpoint after it. The one with the least goes.
//!
//! What is dropped does not come back, so that this is a greedy choice. It can
//! lose any factor more than the best set of the same size. But what it loses in
//! going from *n* checkpoints to *k* is at most 2 (1 + 1/2 + … + 1/(*n* − *k*))
//! times what the best set of *k*/2 loses; see the test for the proof.

use std::cmp::Ordering;

/// A checkpoint, as far as its loss goes.
#[derive(Copy, Clone, Debug, PartialEq)]
pub(crate) struct Candidate {
    /// The guest time at which it was taken, in seconds.
    pub(crate) time: f64,
    /// The odds that the next edit resumes from it.
    pub(crate) odds: f64,
    /// Whether the run was resumed from it, and others after it are copies of a
    /// copy of it.
    pub(crate) ancestor: bool,
    /// Whether it goes only if there is no other.
    pub(crate) keep: bool,
}

/// Which of these to drop, in the order of the timeline; `None` if there is none.
pub(crate) fn least_loss(candidates: &[Candidate]) -> Option<usize> {
    let cheapest = |keep: bool| {
        (0..candidates.len())
            .filter(|&at| candidates[at].keep == keep)
            .min_by(|&a, &b| compare(candidates, a, b))
    };
    cheapest(false).or_else(|| cheapest(true))
}

/// What the loss of one costs, in seconds of guest time at the next edit.
fn expected_loss(candidates: &[Candidate], at: usize) -> f64 {
    let previous = at
        .checked_sub(1)
        .map_or(0.0, |before| candidates[before].time);
    (candidates[at].time - previous).max(0.0) * candidates[at].odds
}

/// Which of two is the smaller loss. Losses within a factor of two count as a
/// tie, since the odds are a guess. There a living ancestor goes first: without
/// it, each later fork is cheaper.
fn compare(candidates: &[Candidate], a: usize, b: usize) -> Ordering {
    let (loss_a, loss_b) = (expected_loss(candidates, a), expected_loss(candidates, b));
    let magnitude = |loss: f64| loss.log2().floor() as i64;
    magnitude(loss_a)
        .cmp(&magnitude(loss_b))
        .then(candidates[b].ancestor.cmp(&candidates[a].ancestor))
        .then(loss_a.total_cmp(&loss_b))
        .then(a.cmp(&b))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The expected loss of having only these, in their order, instead of all.
    fn loss_of(all: &[Candidate], kept: impl Fn(usize) -> bool) -> f64 {
        let mut last_kept = 0.0;
        let mut loss = 0.0;
        for (at, one) in all.iter().enumerate() {
            if kept(at) {
                last_kept = one.time;
            }
            loss += (one.time - last_kept) * one.odds;
        }
        loss
    }

    /// The least loss that any set of `count` has.
    fn best(all: &[Candidate], count: usize) -> f64 {
        (0..1_u32 << all.len())
            .filter(|set| set.count_ones() as usize == count)
            .map(|set| loss_of(all, |at| set & 1 << at != 0))
            .fold(f64::INFINITY, f64::min)
    }

    /// Drops one after the other; returns the places of those that are left.
    fn thin(all: &[Candidate], count: usize) -> Vec<usize> {
        let mut left: Vec<(usize, Candidate)> = all.iter().copied().enumerate().collect();
        while left.len() > count {
            let now: Vec<Candidate> = left.iter().map(|(_, one)| *one).collect();
            let at = least_loss(&now).unwrap();
            let (_, gone) = left.remove(at);
            if let Some((_, before)) = at.checked_sub(1).map(|before| &mut left[before]) {
                before.odds += gone.odds;
            }
        }
        left.into_iter().map(|(at, _)| at).collect()
    }

    fn candidates() -> impl Strategy<Value = Vec<Candidate>> {
        // Gaps and odds over several magnitudes, where greed goes wrong most.
        let one = (0..20_i32, 0..20_i32, any::<bool>());
        proptest::collection::vec(one, 1..11).prop_map(|drawn| {
            let mut time = 0.0;
            let place = |(gap, odds, ancestor): (i32, i32, bool)| {
                time += 2_f64.powi(gap - 10);
                Candidate {
                    time,
                    odds: 2_f64.powi(-odds),
                    ancestor,
                    keep: false,
                }
            };
            drawn.into_iter().map(place).collect()
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

        /// Take any set *S* of *s* checkpoints on the way, and the best set *B*
        /// of *j*. For each of *B* keep the newest of *S* at or before it and
        /// the oldest of *S* after it: at most 2*j*. An edit that resumes in *S*
        /// from the former still does so, and any other resumes from no earlier
        /// than in *B*. So dropping the other *s* − 2*j* costs no more than *B*
        /// loses; each of them alone costs no more than its part of that, since
        /// a drop only makes later ones dearer; and so the cheapest costs at
        /// most 1/(*s* − 2*j*) of it, and the one chosen, by the tie, twice that.
        /// Added up from *n* down to *k* = 2*j*, that is the factor.
        #[test]
        fn thinning_loses_little_more_than_the_best_set_of_half_the_size(
            all in candidates(),
            half in 0..6_usize,
        ) {
            let count = (2 * half).min(all.len() / 2 * 2);
            let left = thin(&all, count);
            let loss = loss_of(&all, |at| left.contains(&at));
            let harmonic: f64 = (1..=all.len() - count).map(|n| 1.0 / n as f64).sum();
            let bound = 2.0 * harmonic * best(&all, count / 2);
            prop_assert!(loss <= bound * (1.0 + 1e-9), "{loss} > {bound}");
        }

        /// One drop is as good as the best, but for the tie.
        #[test]
        fn one_drop_loses_less_than_twice_the_least(all in candidates()) {
            let left = thin(&all, all.len() - 1);
            let loss = loss_of(&all, |at| left.contains(&at));
            prop_assert!(loss < 2.0 * best(&all, all.len() - 1) * (1.0 + 1e-9));
        }

        #[test]
        fn what_is_to_be_kept_goes_only_when_nothing_else_is_left(
            all in candidates(),
            keep in any::<u16>(),
        ) {
            let mut all = all;
            for (at, one) in all.iter_mut().enumerate() {
                one.keep = keep & 1 << at != 0;
            }
            let dropped = least_loss(&all).unwrap();
            prop_assert!(!all[dropped].keep || all.iter().all(|one| one.keep));
        }
    }

    #[test]
    fn nothing_is_dropped_of_nothing() {
        assert_eq!(least_loss(&[]), None);
    }
}
