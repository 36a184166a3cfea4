//! Records what undoes a program's file effects, and undoes them.
//!
//! The guest is stopped before and after each call that changes a file. Before it,
//! what undoing will need is saved; after it, an entry goes into a log. Checkpoints are
//! marks in that log, and going back to one undoes the entries after it in reverse.
//!
//! ```text
//!    mark 1            mark 2
//!      │                 │
//!  ────┼──made a──cut b──┼──removed c──renamed a→d──►  now
//!      │           │     │     │            │
//!      │       copy of b │  link to c       │
//!      │     (in the store)(in the store)   │
//!                        ◄──c is back──d→a──┘        undo_to(mark 2)
//! ```
//!
//! Invariants:
//! - The guest is never disturbed: what cannot be undone is said ([`Unjournaled`]),
//!   and the call runs all the same.
//! - Bytes that are not proven to be the guest's are never cut, overwritten, moved or
//!   removed. The proof is a count: each open for writing of the guest's is seen, and
//!   inotify tells of each close. Whatever is not accounted for is somebody else's
//!   ([`Left`]), and so is everything when events were lost.
//! - A restored file is the same inode: a frozen image may hold it.
//! - Saved files lie in a *store*, one hidden folder per mount, made when first needed
//!   and removed with the journal.
//!
//! What is not undone yet: changes of folders, modes, owners, times and attributes
//! that were there before.
//!
//! A replaced design, recorded since it is the obvious one: keeping the bytes of a
//! truncated file by a hard link. The link keeps the inode, and it is the inode that
//! is cut.

mod conclude;
mod effect;
mod file;
mod journal;
mod prepare;
mod provenance;
mod restore;
mod store;
mod sys;
mod undo;

pub use effect::{Effect, Left, Mark, Obstacle, Undo, Unjournaled, Why};
pub use journal::{Journal, Options};
pub use prepare::Prepared;
