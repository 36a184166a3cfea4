//! What is to be written to one destination, and in which order: the run's
//! output, forkmon's messages between it, and after a rewind the kept part once
//! more.
//!
//! Pure rules. Who reads what the guest writes, and who does the writing, is
//! `channel`'s concern.

use super::kept::Kept;
use std::collections::VecDeque;

/// What is shown at once. A rewind cannot take back what is on its way.
const PIECE: usize = 16 * 1024;

/// What may wait to be shown before the guest has to: it is then blocked by a slow
/// reader as it would be without forkmon.
const WINDOW: u64 = 64 * 1024;

/// What may wait for a slow reader before no checkpoint is taken: each takes in what
/// is in the pipe.
const BACKLOG: u64 = 1024 * 1024;

/// The next thing to do.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Write this.
    Write(Vec<u8>),
    /// All of a run's output has been written: these bytes of all that went to the
    /// destination.
    Reached { run: u64, from: u64, to: u64 },
}

#[derive(Debug)]
enum Notice {
    /// A whole line of forkmon's.
    Message(Vec<u8>),
    /// A sequence for the terminal.
    Control(&'static [u8]),
    /// The end of the line that a dropped run has left unfinished.
    FreshLine,
    /// The end of a run.
    End { run: u64 },
}

/// What is to be written.
#[derive(Debug)]
pub(super) struct Script {
    kept: Kept,
    /// How much of the run's output is written, or on its way.
    shown: u64,
    /// How much of it runs before have written: as it is kept anyway, it may wait for
    /// its reader.
    replayed: u64,
    /// What comes between, each once so much of the output is shown.
    notices: VecDeque<(u64, Notice)>,
    /// A run is about to begin, and what is said of it comes first.
    held: bool,
    /// The last byte ended a line.
    at_line_start: bool,
    /// All bytes that were given out to be written.
    written: u64,
    /// The same before the first byte of the run's output, once there was one.
    began: Option<u64>,
    /// Nobody reads any more.
    broken: bool,
}

impl Script {
    pub(super) fn new(limit: usize) -> Self {
        Self {
            kept: Kept::new(limit),
            shown: 0,
            replayed: 0,
            notices: VecDeque::new(),
            held: false,
            at_line_start: true,
            written: 0,
            began: None,
            broken: false,
        }
    }

    /// The run wrote this.
    pub(super) fn guest_wrote(&mut self, bytes: &[u8]) {
        self.kept.push(bytes);
    }

    /// How many bytes the run has written.
    pub(super) fn position(&self) -> u64 {
        self.kept.end()
    }

    /// Whether there is room for more of the run's output.
    pub(super) fn has_room(&self) -> bool {
        self.waiting() < WINDOW
    }

    /// Whether the reader is so slow that what waits for it must not grow.
    pub(super) fn is_backed_up(&self) -> bool {
        self.waiting() > BACKLOG
    }

    /// How much of what this run wrote is not shown yet.
    fn waiting(&self) -> u64 {
        self.kept.end() - self.shown.max(self.replayed)
    }

    /// Drops what is not to be kept; whether anything was.
    pub(super) fn trim(&mut self) -> bool {
        self.kept.trim(self.shown)
    }

    /// Forkmon says a line.
    pub(super) fn say(&mut self, line: Vec<u8>) {
        self.notices
            .push_back((self.kept.end(), Notice::Message(line)));
    }

    /// The run has ended, and all that it wrote is here.
    pub(super) fn end(&mut self, run: u64) {
        self.notices
            .push_back((self.kept.end(), Notice::End { run }));
    }

    /// The run is dropped, and the next one goes on where so many bytes were
    /// written. What was not shown of it by now never will be. Nothing is shown of
    /// the next one before [`Script::show`].
    ///
    /// `clear` is written first; where `lines` says so, an unfinished line is ended.
    ///
    /// Answers how many of the bytes before are not kept, and will not be shown again.
    pub(super) fn rewind(
        &mut self,
        position: u64,
        clear: Option<&'static [u8]>,
        lines: bool,
    ) -> u64 {
        self.notices
            .retain(|(_, notice)| !matches!(notice, Notice::End { .. }));
        self.kept.cut(position);
        self.replayed = position;
        self.shown = self.kept.first_line();
        self.began = None;
        for (at, _) in &mut self.notices {
            *at = 0;
        }
        match clear {
            Some(clear) if !self.held => self.notices.push_back((0, Notice::Control(clear))),
            None if lines => self.notices.push_back((0, Notice::FreshLine)),
            _ => {}
        }
        self.held = true;
        self.shown
    }

    /// Shows the run that a rewind has led to, after all that was said so far.
    pub(super) fn show(&mut self) {
        if !std::mem::replace(&mut self.held, false) {
            return;
        }
        // What has been said meanwhile stands before it.
        for (at, notice) in &mut self.notices {
            if !matches!(notice, Notice::End { .. }) {
                *at = 0;
            }
        }
    }

    /// Nobody reads any more: all that is left to do counts as done.
    pub(super) fn give_up(&mut self) {
        self.broken = true;
    }

    /// Whether nothing is left to be done.
    pub(super) fn is_done(&self) -> bool {
        self.notices.is_empty() && (self.broken || self.shown == self.kept.end())
    }

    /// The next thing to do, which then counts as done.
    pub(super) fn next(&mut self) -> Option<Step> {
        if self.broken {
            self.shown = self.kept.end();
        }
        while let Some(notice) = self.due() {
            return Some(match notice {
                Notice::End { run } => Step::Reached {
                    run,
                    from: self.began.unwrap_or(self.written),
                    to: self.written,
                },
                _ if self.broken => continue,
                Notice::FreshLine if self.at_line_start => continue,
                Notice::FreshLine => self.write(b"\n".to_vec()),
                Notice::Control(bytes) => {
                    let step = self.write(bytes.to_vec());
                    self.at_line_start = true;
                    step
                }
                Notice::Message(line) if self.at_line_start => self.write(line),
                Notice::Message(line) => self.write([b"\n", line.as_slice()].concat()),
            });
        }
        if self.held || self.shown == self.kept.end() {
            return None;
        }
        let until = self.notices.front().map_or(u64::MAX, |(at, _)| *at);
        let most = usize::try_from(until - self.shown).unwrap_or(usize::MAX);
        let bytes = self.kept.copy(self.shown, most.min(PIECE));
        self.shown += bytes.len() as u64;
        self.began.get_or_insert(self.written);
        Some(self.write(bytes))
    }

    /// Takes out the next notice whose place is reached.
    fn due(&mut self) -> Option<Notice> {
        let (at, _) = self.notices.front()?;
        if *at > self.shown {
            return None;
        }
        self.notices.pop_front().map(|(_, notice)| notice)
    }

    fn write(&mut self, bytes: Vec<u8>) -> Step {
        self.written += bytes.len() as u64;
        if let Some(last) = bytes.last() {
            self.at_line_start = *last == b'\n';
        }
        Step::Write(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Everything that can be written now, and the ends that were reached.
    fn run(script: &mut Script) -> (Vec<u8>, Vec<(u64, u64, u64)>) {
        let (mut written, mut ends) = (Vec::new(), Vec::new());
        while let Some(step) = script.next() {
            match step {
                Step::Write(bytes) => written.extend(bytes),
                Step::Reached { run, from, to } => ends.push((run, from, to)),
            }
        }
        (written, ends)
    }

    fn text(script: &mut Script) -> String {
        String::from_utf8(run(script).0).unwrap()
    }

    #[test]
    fn after_a_rewind_comes_the_message_then_the_kept_part_then_the_new_one() {
        let mut script = Script::new(1000);
        script.guest_wrote(
            b"early
la",
        );
        assert_eq!(text(&mut script), "early\nla");
        script.guest_wrote(b"te\nnever shown");
        script.rewind(6, None, false);
        assert_eq!(text(&mut script), "", "it waits for what is said of it");
        script.guest_wrote(b"new\n");
        script.say(b"resumed\n".to_vec());
        script.show();
        script.end(1);
        let (written, ends) = run(&mut script);
        assert_eq!(written, b"\nresumed\nearly\nnew\n");
        assert_eq!(ends, [(1, 17, 27)]);
        assert!(script.is_done());
    }

    #[test]
    fn a_message_stands_where_it_was_said_and_breaks_no_line() {
        let mut script = Script::new(1000);
        script.guest_wrote(b"one\nname: ");
        script.say(b"warning\n".to_vec());
        script.guest_wrote(b"two\n");
        script.say(b"done\n".to_vec());
        assert_eq!(text(&mut script), "one\nname: \nwarning\ntwo\ndone\n");
    }

    /// At forkmon's end everything is shown, also what was never held back. That once
    /// moved what was to come after the output before it.
    #[test]
    fn nothing_changes_its_place_at_the_end() {
        let mut script = Script::new(1000);
        script.guest_wrote(b"output\n");
        script.end(0);
        script.say(b"finished\n".to_vec());
        script.show();
        assert_eq!(
            run(&mut script),
            (b"output\nfinished\n".to_vec(), vec![(0, 0, 7)])
        );
    }

    #[test]
    fn what_a_dropped_run_left_is_cleared_once() {
        let mut script = Script::new(1000);
        script.guest_wrote(b"half");
        assert_eq!(text(&mut script), "half");
        script.end(0);
        script.rewind(2, Some("<clear>".as_bytes()), true);
        script.rewind(0, Some("<clear>".as_bytes()), true);
        script.say(b"restarted\n".to_vec());
        script.show();
        assert_eq!(run(&mut script), (b"<clear>restarted\n".to_vec(), vec![]));
        script.guest_wrote(b"half");
        script.rewind(0, None, true);
        script.show();
        assert_eq!(text(&mut script), "", "it was not shown");
        script.guest_wrote(b"half");
        assert_eq!(text(&mut script), "half");
        script.rewind(0, None, true);
        script.show();
        assert_eq!(text(&mut script), "\n");
    }

    #[test]
    fn without_a_reader_everything_counts_as_shown() {
        let mut script = Script::new(1000);
        script.guest_wrote(b"lost");
        script.say(b"lost too\n".to_vec());
        script.end(3);
        script.give_up();
        assert_eq!(run(&mut script), (vec![], vec![(3, 0, 0)]));
        assert!(script.is_done() && script.has_room());
    }

    proptest! {
        /// Whatever is dropped when: from the last rewind on, what is written is the
        /// message and then the whole output of the run.
        #[test]
        fn the_last_run_is_shown_whole(
            runs in proptest::collection::vec(
                (proptest::collection::vec(any::<u8>(), 0..200), 0..10_usize, any::<u8>()),
                1..12,
            ),
        ) {
            let mut script = Script::new(100_000);
            let mut output: Vec<u8> = Vec::new();
            for (number, (new, steps, share)) in runs.into_iter().enumerate() {
                for bytes in new.chunks(50) {
                    script.guest_wrote(bytes);
                }
                output.extend(&new);
                for _ in 0..steps {
                    script.next();
                }
                let position = output.len() * usize::from(share) / 255;
                output.truncate(position);
                script.rewind(position as u64, None, false);
                script.say(b"resumed\n".to_vec());
                script.show();
                if number % 3 == 0 {
                    script.guest_wrote(b"more\n");
                    output.extend(b"more\n");
                    script.end(number as u64);
                    let (written, ends) = run(&mut script);
                    let at = written.len() - output.len();
                    prop_assert_eq!(&written[at..], &output[..]);
                    prop_assert!(written[..at].ends_with(b"resumed\n"));
                    let (run, from, to) = ends[0];
                    prop_assert_eq!((run, to - from), (number as u64, output.len() as u64));
                }
            }
        }
    }
}
