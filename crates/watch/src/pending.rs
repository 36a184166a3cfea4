//! When a touched path is ready to be acted upon: the rules of settling, as
//! pure functions over instants. Where events come from and where batches go
//! is left to `state` and `reader`.
//!
//! A path is *ready* when it has been quiet for the settle time. Two things
//! make it wait longer: somebody may have it open for writing (then until the
//! close, or a bound), or it is missing (then a grace, since many editors
//! delete a file and create it again). A ready path is *due* when the rest of
//! the burst is ready too, so that a branch switch comes as one batch; files
//! that are held open are not waited for, and nothing for long.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::Error;

/// How much longer than the settle time a missing path is given to come back.
/// vim and its kind need a few milliseconds; a person does not notice 50.
pub(crate) const MISSING_GRACE: Duration = Duration::from_millis(50);

/// How long a ready path waits for the rest of its burst. This bounds the
/// delay when something else is saved over and over.
pub(crate) const BURST_WAIT: Duration = Duration::from_millis(100);

/// A path that never comes to rest is delivered after this many times the
/// settle time and the bound on open files, from its first event.
const PATIENCE: u32 = 8;

/// Far longer than any sensible option; keeps sums of instants in range.
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

/// When to act on events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// The quiet time after the last event on a path; may be zero. Counted up
    /// to a day.
    pub settle: Duration,
    /// How long after its last modification a file that is still open for
    /// writing is acted upon all the same. A file that was created is held as
    /// long, unless it is closed, since `linkat` of an unnamed file cannot be
    /// told from the creation by somebody who is about to write.
    pub open_write_bound: Duration,
}

impl Default for Options {
    /// 5 ms of quiet, and 250 ms for a file that is never closed.
    fn default() -> Self {
        Self {
            settle: Duration::from_millis(5),
            open_write_bound: Duration::from_millis(250),
        }
    }
}

impl Options {
    pub(crate) fn bounded(self) -> Self {
        Self {
            settle: self.settle.min(LONGEST),
            open_write_bound: self.open_write_bound.min(LONGEST),
        }
    }
}

/// A watched path that may have changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Touch {
    /// The path as it was given to [`Watcher::watch`](crate::Watcher::watch).
    pub path: PathBuf,
    /// When the first event of the burst was read.
    pub first_seen: Instant,
    /// The last instant before the burst at which the event queue is known to
    /// have been empty: the first event was queued after it. (The kernel
    /// queues an event just after the change itself, in the same system call.)
    pub quiet_before: Instant,
    /// Whether anything but a change of attributes (`IN_ATTRIB`) was seen.
    pub strong: bool,
}

/// Touches that are to be acted upon together.
#[derive(Debug, Default)]
pub struct Batch {
    /// The paths, in the order of their first events.
    pub touches: Vec<Touch>,
    /// Events were lost (`IN_Q_OVERFLOW`): *every* watched path may have
    /// changed. `touches` then has only those that were known to be touched.
    pub rescan: bool,
    /// A path could not be watched again after a folder or symbolic link on it
    /// changed; it was touched, and may not be reported again until
    /// [`Watcher::watch`](crate::Watcher::watch) is called for it and
    /// succeeds. Or the queue could not be read, which is the end.
    pub error: Option<Error>,
}

/// What an event means for a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sign {
    /// Only attributes changed.
    Attributes,
    /// A name in the folder came or went.
    Listing,
    /// Bytes were written or cut; who did it still has the file open.
    Written,
    /// Somebody closed it who could write.
    Closed,
    /// Something complete is under the name now (moved there, linked, made),
    /// or nothing.
    Placed,
    /// A new file, or a new folder above it: a writer may have it open.
    Created,
}

/// Whether somebody is in the middle of writing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Writer {
    None,
    /// It was created, which most do in order to write.
    Presumed,
    /// It was written to.
    Seen,
}

/// A touched path that was not delivered yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pending {
    pub(crate) first_seen: Instant,
    pub(crate) quiet_before: Instant,
    pub(crate) last: Instant,
    pub(crate) strong: bool,
    pub(crate) writer: Writer,
}

impl Pending {
    pub(crate) fn new(now: Instant, quiet_before: Instant) -> Self {
        Self {
            first_seen: now,
            quiet_before,
            last: now,
            strong: false,
            writer: Writer::None,
        }
    }

    pub(crate) fn add(&mut self, sign: Sign, now: Instant) {
        self.last = now;
        self.strong |= sign != Sign::Attributes;
        self.writer = match sign {
            Sign::Attributes | Sign::Listing => self.writer,
            Sign::Written => Writer::Seen,
            Sign::Created => Writer::Presumed,
            Sign::Closed | Sign::Placed => Writer::None,
        };
    }

    /// From when on the path itself may be acted upon, if nothing more comes.
    pub(crate) fn ready_at(&self, options: &Options, missing: bool) -> Instant {
        let wait = match self.writer {
            Writer::Presumed | Writer::Seen => options.settle.max(options.open_write_bound),
            Writer::None if missing => options.settle + MISSING_GRACE,
            Writer::None => options.settle,
        };
        let patience = (options.settle + options.open_write_bound) * PATIENCE + MISSING_GRACE;
        (self.last + wait).min(self.first_seen + patience)
    }
}

/// One pending path, as far as timing is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Item<T> {
    pub(crate) id: T,
    pub(crate) ready_at: Instant,
    /// Somebody may have it open for writing: the others do not wait for it.
    pub(crate) held: bool,
}

/// What to deliver now, and when to ask again.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Plan<T> {
    pub(crate) due: Vec<T>,
    pub(crate) next: Option<Instant>,
}

/// Decides what is due at `now`.
pub(crate) fn plan<T: Copy>(items: &[Item<T>], now: Instant) -> Plan<T> {
    let burst = items
        .iter()
        .filter(|item| !item.held)
        .map(|item| item.ready_at)
        .max();
    let mut some = false;
    let mut next: Option<Instant> = None;
    for item in items {
        let at = burst.map_or(item.ready_at, |burst| {
            burst.min(item.ready_at + BURST_WAIT).max(item.ready_at)
        });
        some |= at <= now;
        next = Some(next.map_or(at, |next| next.min(at)));
    }
    if !some {
        return Plan {
            due: Vec::new(),
            next,
        };
    }
    // What is ready goes along, so that a long burst comes in large pieces.
    let (due, rest): (Vec<&Item<T>>, Vec<_>) = items.iter().partition(|item| item.ready_at <= now);
    Plan {
        due: due.into_iter().map(|item| item.id).collect(),
        next: rest.into_iter().map(|item| item.ready_at).min(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    fn options() -> Options {
        Options {
            settle: ms(5),
            open_write_bound: ms(250),
        }
    }

    fn sign() -> impl Strategy<Value = Sign> {
        prop_oneof![
            Just(Sign::Attributes),
            Just(Sign::Listing),
            Just(Sign::Written),
            Just(Sign::Closed),
            Just(Sign::Placed),
            Just(Sign::Created),
        ]
    }

    #[test]
    fn a_file_that_is_written_waits_for_its_close() {
        let start = Instant::now();
        let mut pending = Pending::new(start, start);
        pending.add(Sign::Written, start);
        assert_eq!(pending.ready_at(&options(), false), start + ms(250));
        pending.add(Sign::Attributes, start + ms(1));
        assert_eq!(pending.ready_at(&options(), false), start + ms(251));
        pending.add(Sign::Closed, start + ms(2));
        assert_eq!(pending.ready_at(&options(), false), start + ms(7));
    }

    #[test]
    fn a_missing_file_is_given_time_to_come_back() {
        let start = Instant::now();
        let mut pending = Pending::new(start, start);
        pending.add(Sign::Placed, start);
        let ready = pending.ready_at(&options(), true);
        assert_eq!(ready, start + ms(5) + MISSING_GRACE);
    }

    #[test]
    fn attributes_alone_are_weak() {
        let start = Instant::now();
        let mut pending = Pending::new(start, start);
        pending.add(Sign::Attributes, start);
        assert!(!pending.strong);
        pending.add(Sign::Closed, start);
        assert!(pending.strong);
    }

    #[test]
    fn a_settled_path_does_not_wait_for_one_that_is_held_open() {
        let now = Instant::now();
        let item = |id, ready, held| Item {
            id,
            ready_at: now + ms(ready),
            held,
        };
        let planned = plan(&[item(1, 0, false), item(2, 250, true)], now);
        assert_eq!(planned.due, [1]);
        assert_eq!(planned.next, Some(now + ms(250)));
        // But it does wait for one that settles soon.
        let planned = plan(&[item(1, 0, false), item(2, 4, false)], now);
        assert!(planned.due.is_empty());
        assert_eq!(planned.next, Some(now + ms(4)));
    }

    proptest! {
        #[test]
        fn nothing_is_put_off_for_ever(
            signs in prop::collection::vec((sign(), 0u64..50), 1..400),
            missing: bool,
        ) {
            let start = Instant::now();
            let mut pending = Pending::new(start, start);
            let mut now = start;
            for (sign, pause) in signs {
                now += ms(pause);
                pending.add(sign, now);
            }
            let ready = pending.ready_at(&options(), missing);
            prop_assert!(ready <= start + ms(255 * 8) + MISSING_GRACE);
            if now + ms(250) + MISSING_GRACE < start + ms(255 * 8) {
                prop_assert!(ready >= now + ms(5));
            }
        }

        #[test]
        fn what_is_due_is_ready_and_soon_everything_is(
            items in prop::collection::vec((0u64..600, any::<bool>()), 0..50),
            at in 0u64..700,
        ) {
            let start = Instant::now();
            let items: Vec<_> = items
                .into_iter()
                .enumerate()
                .map(|(id, (ready, held))| Item { id, ready_at: start + ms(ready), held })
                .collect();
            let now = start + ms(at);
            let planned = plan(&items, now);
            for item in &items {
                let due = planned.due.contains(&item.id);
                if due {
                    prop_assert!(item.ready_at <= now);
                } else {
                    // If anything goes, all that is ready goes.
                    prop_assert!(planned.due.is_empty() || item.ready_at > now);
                    prop_assert!(item.ready_at + BURST_WAIT > now);
                    // Waking up at `next` is early enough for it.
                    let latest = item.ready_at + BURST_WAIT;
                    let woken = planned.next.is_some_and(|next| next > now && next <= latest);
                    prop_assert!(woken);
                }
            }
            // Asking again at `next` leads on, and in the end everything goes.
            let mut left = items;
            let (mut now, mut asked) = (now, 0);
            while !left.is_empty() {
                let planned = plan(&left, now);
                left.retain(|item| !planned.due.contains(&item.id));
                prop_assert_eq!(planned.next.is_none(), left.is_empty());
                now = planned.next.unwrap_or(now);
                asked += 1;
                prop_assert!(asked < 200);
            }
        }
    }
}
