//! Those who wait until nothing is left to be done: everything that was saved
//! before they asked has been compared and acted upon, no process of the guest is
//! alive, and all of its output that forkmon carries is written. The watcher tells
//! when it has delivered what was saved; a run that follows from it is waited for
//! like the present one.
//!
//! What that run has read is known then, too: its files are hashed, and none of them
//! was saved before it read them. Else a save of the same bytes that follows the answer
//! could not be told from an edit.

use super::Supervisor;
use super::control::{refused, reply};
use super::inbox::News;
use crate::control::Reply;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use tracee::End;

/// A guest may never end, and whoever waits for it may have hung up, which shows
/// only when the answer is sent. So the oldest of more than these is refused.
const MOST: usize = 8;

/// One who waits.
#[derive(Debug)]
struct Waiter {
    nth: u64,
    answer: Sender<Reply>,
    /// All file events from before the question are handed over.
    delivered: bool,
    /// The run of which it was asked for to know what it has read.
    asked_of: Option<u64>,
    /// The run of which it is known.
    known_of: Option<u64>,
}

/// All who wait, the oldest first.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    waiters: VecDeque<Waiter>,
    next: u64,
}

impl Waiting {
    /// All file events from before the nth question are handed over.
    pub(super) fn delivered(&mut self, nth: u64) {
        for waiter in &mut self.waiters {
            waiter.delivered |= waiter.nth == nth;
        }
    }

    /// What a run has read is known, as the nth question wanted.
    pub(super) fn known(&mut self, nth: u64, run: u64) {
        for waiter in &mut self.waiters {
            if waiter.nth == nth {
                waiter.known_of = Some(run);
            }
        }
    }
}

impl Supervisor<'_> {
    /// Somebody waits.
    pub(super) fn wait_wanted(&mut self, answer: Sender<Reply>) {
        let nth = self.waiting.next;
        self.waiting.next += 1;
        let waiters = &mut self.waiting.waiters;
        if waiters.len() >= MOST
            && let Some(oldest) = waiters.pop_front()
        {
            let message = "too many wait; the oldest has to go";
            reply(&oldest.answer, refused("busy", message));
        }
        waiters.push_back(Waiter {
            nth,
            answer,
            // Without a watcher no edit can follow.
            delivered: self.watcher.is_none(),
            asked_of: None,
            known_of: None,
        });
        if let Some(watcher) = &self.watcher {
            let bell = self.bell.clone();
            watcher.after_delivery(move || bell.send(News::Delivered(nth)));
        }
    }

    /// Answers those whose time has come.
    pub(super) fn answer_waiting(&mut self) {
        let busy = self.run.is_alive()
            || self.dropping
            || !self.later.is_empty()
            || !self.held.is_empty()
            || self.untold_exit.is_some();
        if busy || self.waiting.waiters.is_empty() {
            return;
        }
        let answered = match self.run.ended {
            Some(End::Exited(code)) => self.settled(Some(code), None),
            Some(End::Killed(signal)) => self.settled(None, Some(signal.0)),
            None => refused("not-started", "the program could not be started"),
        };
        let run = self.run.number;
        self.waiting.waiters.retain_mut(|waiter| {
            if !waiter.delivered {
                return true;
            }
            let Some(watcher) = &self.watcher else {
                reply(&waiter.answer, answered.clone());
                return false;
            };
            if waiter.known_of == Some(run) {
                reply(&waiter.answer, answered.clone());
                return false;
            }
            if waiter.asked_of != Some(run) {
                waiter.asked_of = Some(run);
                let (watcher, bell, nth) = (Arc::clone(watcher), self.bell.clone(), waiter.nth);
                self.hasher.after_those(move || {
                    watcher.after_delivery(move || bell.send(News::Known { nth, run }));
                });
            }
            true
        });
    }

    fn settled(&self, code: Option<i32>, signal: Option<i32>) -> Reply {
        Reply::Settled {
            run: self.run.number,
            code,
            signal,
        }
    }
}
