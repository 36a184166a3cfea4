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
//! - Nothing that a person wrote is ever lost. Bytes that are not proven to be the
//!   guest's stay where they are ([`Left`]). The proof is a count: each open for
//!   writing of the guest's is seen, and inotify tells of each close. Whatever is not
//!   accounted for is somebody else's, and so is everything when events were lost.
//! - What an undo takes away or writes over can be had back ([`Journal::taken_away`]),
//!   and stays watched: what somebody writes to after all outlives the journal
//!   ([`Journal::kept`]). While it is not yet clear whose a file is that is out of its
//!   place, it lies where it would outlive us.
//! - A file gets its bytes back under a lease that keeps all others out, by whatever
//!   name they open it.
//! - A restored file or folder is the same inode: a frozen image may hold it.
//! - Saved files lie in a *store*, one hidden folder per mount, made when first needed
//!   and removed with the journal.
//!
//! A replaced design, recorded since it is the obvious one: keeping the bytes of a
//! truncated file by a hard link. The link keeps the inode, and it is the inode that
//! is cut.

mod attributes;
mod conclude;
mod effect;
mod entry;
mod file;
mod forget;
mod hold;
mod journal;
mod names;
mod prepare;
mod provenance;
mod retire;
mod shelf;
mod stamps;
mod store;
mod sys;
mod tracked;
mod tree;
mod undo;
mod writers;

pub use attributes::{OwnAttributes, Stamp};
pub use effect::{Effect, Left, Mark, Obstacle, Undo, Unjournaled, Why};
pub use journal::{Journal, Options};
pub use prepare::Prepared;
pub use shelf::{Item, Reason};
pub use store::{FOLDER_PREFIX, NewFolder};
