//! Control by hand: the words, the socket's place, the listening end with a
//! stand-in for the supervisor, `forkmon ctl`, and the guardian's part in it.
//!
//! What the requests do to a guest is tested with guests; see `tests/guests`.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod ctl;
mod harness;
mod keyboard;
mod place;
mod process;
mod protocol;
mod robustness;
mod running;
mod server;
mod waiting;
