//! The `forkmon` command.
fn main() {}
