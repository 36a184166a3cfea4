//! The terminal's modes while keys are read: each byte as it is typed, and none
//! of them shown.
//!
//! Signals (Ctrl-C, Ctrl-Z) and output stay as they were. Whoever changes a
//! terminal that belongs to another process group at that moment would be
//! stopped, so all that is done here checks for that first, and survives losing
//! the race.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt as _;

use rustix::termios::{
    ControlModes, InputModes, LocalModes, OptionalActions, OutputModes, QueueSelector,
    SpecialCodeIndex, Termios, tcflush, tcgetattr, tcgetpgrp, tcsetattr,
};

use crate::sys;

/// Every special code that Linux has, in an order of our own.
const CODES: [SpecialCodeIndex; 17] = [
    SpecialCodeIndex::VINTR,
    SpecialCodeIndex::VQUIT,
    SpecialCodeIndex::VERASE,
    SpecialCodeIndex::VKILL,
    SpecialCodeIndex::VEOF,
    SpecialCodeIndex::VTIME,
    SpecialCodeIndex::VMIN,
    SpecialCodeIndex::VSWTC,
    SpecialCodeIndex::VSTART,
    SpecialCodeIndex::VSTOP,
    SpecialCodeIndex::VSUSP,
    SpecialCodeIndex::VEOL,
    SpecialCodeIndex::VREPRINT,
    SpecialCodeIndex::VDISCARD,
    SpecialCodeIndex::VWERASE,
    SpecialCodeIndex::VLNEXT,
    SpecialCodeIndex::VEOL2,
];

/// The modes of a terminal, without its speed.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Modes {
    input: u32,
    output: u32,
    control: u32,
    local: u32,
    codes: [u8; CODES.len()],
}

impl Modes {
    fn of(found: &Termios) -> Self {
        Self {
            input: found.input_modes.bits(),
            output: found.output_modes.bits(),
            control: found.control_modes.bits(),
            local: found.local_modes.bits(),
            codes: CODES.map(|index| found.special_codes[index]),
        }
    }

    fn read(terminal: impl AsFd) -> io::Result<Self> {
        Ok(Self::of(&tcgetattr(terminal)?))
    }

    /// For reading keys where these are the modes otherwise.
    fn for_keys(&self) -> Self {
        let mut modes = self.clone();
        modes.local &= !(LocalModes::ICANON | LocalModes::ECHO).bits();
        for (index, code) in CODES.iter().zip(&mut modes.codes) {
            match *index {
                SpecialCodeIndex::VMIN => *code = 1,
                SpecialCodeIndex::VTIME => *code = 0,
                _ => {}
            }
        }
        modes
    }

    fn set(&self, terminal: impl AsFd) -> io::Result<()> {
        let mut wanted = tcgetattr(&terminal)?;
        wanted.input_modes = InputModes::from_bits_retain(self.input);
        wanted.output_modes = OutputModes::from_bits_retain(self.output);
        wanted.control_modes = ControlModes::from_bits_retain(self.control);
        wanted.local_modes = LocalModes::from_bits_retain(self.local);
        for (index, code) in CODES.iter().zip(self.codes) {
            wanted.special_codes[*index] = code;
        }
        Ok(tcsetattr(&terminal, OptionalActions::Now, &wanted)?)
    }

    fn to_words(&self) -> impl Iterator<Item = u32> {
        [self.input, self.output, self.control, self.local]
            .into_iter()
            .chain(self.codes.into_iter().map(u32::from))
    }

    fn from_words(words: &mut impl Iterator<Item = u32>) -> Option<Self> {
        let mut word = || words.next();
        let (input, output, control, local) = (word()?, word()?, word()?, word()?);
        let mut codes = [0; CODES.len()];
        for code in &mut codes {
            *code = u8::try_from(word()?).ok()?;
        }
        Some(Self {
            input,
            output,
            control,
            local,
            codes,
        })
    }
}

/// What must be put back if forkmon is killed: the modes before it, if the
/// terminal then has those that it had set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Memo {
    before: Modes,
    keys: Modes,
}

impl Memo {
    /// As text, without a NUL.
    pub(crate) fn to_text(&self) -> String {
        let words = self.before.to_words().chain(self.keys.to_words());
        let words: Vec<String> = words.map(|word| format!("{word:x}")).collect();
        words.join(",")
    }

    /// From such a text.
    pub(crate) fn from_text(text: &str) -> Option<Self> {
        let words: Result<Vec<u32>, _> = text
            .split(',')
            .map(|word| u32::from_str_radix(word, 16))
            .collect();
        let mut words = words.ok()?.into_iter();
        let memo = Self {
            before: Modes::from_words(&mut words)?,
            keys: Modes::from_words(&mut words)?,
        };
        words.next().is_none().then_some(memo)
    }

    /// Puts the modes back, from the background too. If the terminal has other
    /// ones by now, somebody else has taken care of it, such as a shell that
    /// edits its command line.
    pub(crate) fn restore(&self) {
        let Ok(terminal) = open() else {
            return;
        };
        sys::without_terminal_stops(|| {
            if Modes::read(&terminal).is_ok_and(|now| now == self.keys) {
                let _ = self.before.set(&terminal);
            }
        });
    }
}

/// The terminal that forkmon is controlled by, and how it was.
#[derive(Debug)]
pub(super) struct Terminal {
    file: File,
    memo: Memo,
    /// What to go back to, while the modes are those for keys.
    under: Option<Modes>,
}

/// What came from the terminal.
#[derive(Debug)]
pub(super) enum Typed {
    Bytes(Vec<u8>),
    /// Nothing, as it turned out.
    Nothing,
    /// The terminal is gone.
    End,
}

/// A description of its own, whose flags and offset nobody shares.
fn open() -> io::Result<File> {
    File::options()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
        .open("/dev/tty")
}

impl Terminal {
    pub(super) fn open() -> io::Result<Self> {
        let file = open()?;
        let before = Modes::read(&file)?;
        Ok(Self {
            memo: Memo {
                keys: before.for_keys(),
                before,
            },
            file,
            under: None,
        })
    }

    pub(super) fn memo(&self) -> &Memo {
        &self.memo
    }

    /// The descriptor to wait on.
    pub(super) fn descriptor(&self) -> io::Result<File> {
        self.file.try_clone()
    }

    pub(super) fn has_key_modes(&self) -> bool {
        self.under.is_some()
    }

    fn is_ours(&self) -> bool {
        tcgetpgrp(&self.file).is_ok_and(|group| group == rustix::process::getpgrp())
    }

    /// Begins to read keys, if this process is in the foreground. What was typed
    /// before is dropped: it was meant for somebody else.
    pub(super) fn enter(&mut self) {
        if self.has_key_modes() || !self.is_ours() {
            return;
        }
        sys::without_terminal_stops(|| {
            let Ok(now) = Modes::read(&self.file) else {
                return;
            };
            // Before the modes change: who sees them may type a key at once.
            let _ = tcflush(&self.file, QueueSelector::IFlush);
            if self.memo.keys.set(&self.file).is_ok() {
                self.under = Some(if now == self.memo.keys {
                    self.memo.before.clone()
                } else {
                    now
                });
            }
        });
    }

    /// Puts the modes back that the terminal had before [`Terminal::enter`].
    pub(super) fn leave(&mut self) {
        if let Some(under) = self.under.take()
            && self.is_ours()
        {
            sys::without_terminal_stops(|| {
                // The terminal may be gone; then there is nothing to put back.
                let _ = under.set(&self.file);
            });
        }
    }

    /// The same before a run begins: the modes that it is to find may have been set
    /// already.
    pub(super) fn hand_over(&mut self) {
        let now = Modes::read(&self.file);
        if now.is_ok_and(|now| now == self.memo.keys) {
            self.leave();
        } else {
            self.under = None;
        }
    }

    /// The process was stopped and goes on, perhaps somewhere else: whoever had
    /// the terminal meanwhile may have changed it.
    pub(super) fn continued(&mut self) {
        if !self.has_key_modes() {
            return;
        }
        if self.is_ours() {
            sys::without_terminal_stops(|| {
                let _ = self.memo.keys.set(&self.file);
            });
        } else {
            self.under = None;
        }
    }

    /// Reads what there is, without waiting.
    pub(super) fn read(&mut self) -> Typed {
        if !self.has_key_modes() {
            return Typed::Nothing;
        }
        if !self.is_ours() {
            self.under = None;
            return Typed::Nothing;
        }
        let mut bytes = vec![0; 256];
        match sys::without_terminal_stops(|| self.file.read(&mut bytes)) {
            Ok(0) => Typed::End,
            Ok(count) => {
                bytes.truncate(count);
                Typed::Bytes(bytes)
            }
            Err(error) => match error.kind() {
                io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => Typed::Nothing,
                // Reading from the background is an error too.
                _ if !self.is_ours() && tcgetpgrp(&self.file).is_ok() => {
                    self.under = None;
                    Typed::Nothing
                }
                _ => Typed::End,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn modes(seed: u32) -> Modes {
        Modes {
            input: seed,
            output: seed + 1,
            control: u32::MAX - seed,
            local: !0,
            codes: std::array::from_fn(|nth| nth as u8 + seed as u8),
        }
    }

    #[test]
    fn a_memo_comes_back_as_it_was() {
        let memo = Memo {
            before: modes(3),
            keys: modes(77),
        };
        let text = memo.to_text();
        assert!(!text.contains('\0'));
        assert_eq!(Memo::from_text(&text), Some(memo));
        for wrong in [
            "",
            "1,2",
            &text[..text.len() - 3],
            &format!("{text},0"),
            "é",
            &text.replacen(',', ",fff", 5),
        ] {
            assert_eq!(Memo::from_text(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn signals_and_output_stay_as_they_are() {
        let before = modes(3);
        let keys = before.for_keys();
        assert_eq!((before.input, before.output), (keys.input, keys.output));
        let local = LocalModes::from_bits_retain(keys.local);
        assert!(local.contains(LocalModes::ISIG));
        assert!(!local.intersects(LocalModes::ICANON | LocalModes::ECHO));
    }
}
