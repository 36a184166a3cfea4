//! Every `unsafe` block of this crate, behind safe functions.

pub(crate) mod memory;
pub(crate) mod process;
pub(crate) mod ptrace;
pub(crate) mod spawn;
