//! What is to be seen with `--output live`, where only the new output appears after
//! a resume. Where that begins is forkmon's own affair; but all must be new from the
//! byte on in which it differs from what was printed before.

use super::event::Event;
use super::generator::Step;
use super::tree::first_difference;

/// What has happened since the output was last looked at.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Since {
    /// Forkmon was started.
    Start,
    /// No run has begun.
    Nothing,
    /// A run has followed from one edit.
    OneEdit,
    /// Several edits were made: a run between two of them may have printed some of
    /// what is the same in the last one.
    Several,
}

impl Since {
    /// What has happened in a step, from which these events followed.
    pub fn step(step: &Step, events: &[Event]) -> Since {
        if !events.iter().any(|event| event.name == "resume") {
            Since::Nothing
        } else if step.edits.len() == 1 {
            Since::OneEdit
        } else {
            Since::Several
        }
    }
}

/// What is wrong with `new` output, when a fresh run printed `before` at first and
/// would print `whole` now.
pub fn difference(since: Since, before: &[u8], whole: &[u8], new: &[u8]) -> Option<String> {
    let same = before.iter().zip(whole).take_while(|(a, b)| a == b).count();
    let wanted = match since {
        Since::Start => whole,
        Since::Nothing => &[],
        Since::OneEdit => &whole[same..],
        Since::Several => return None,
    };
    let is_right = if since == Since::OneEdit {
        new.ends_with(wanted)
    } else {
        new == wanted
    };
    // Of several runs only the last is of interest.
    let last = &new[if since == Since::OneEdit {
        new.len().saturating_sub(wanted.len())
    } else {
        0
    }..];
    let told = || format!("new output ({since:?}) {}", first_difference(wanted, last));
    (!is_right).then(told)
}
