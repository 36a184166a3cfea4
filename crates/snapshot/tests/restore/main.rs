//! Fixture programs, one a kernel behaviour, frozen and brought back: each must
//! see the same after every resume as the run that the checkpoint was taken of.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod attributes;
mod driver;
mod events;
mod inside;
mod locks;
mod lost;
mod memory;
mod pipes;
mod replay;
mod signals;
mod sockets;
mod terminals;
