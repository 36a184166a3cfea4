//! Settled file events for a set of looked-up paths, over inotify(7).
//!
//! The user of this crate names paths exactly as somebody looked them up,
//! existing or missing, and is told when what such a lookup finds may have
//! changed. "May have": contents are not compared here, and a touch without a
//! difference is normal. What is promised is the other direction: once
//! [`Watcher::watch`] has returned, no change that inotify can show is lost.
//!
//! ```text
//!  watch("/p/link/f")                    events
//!        │                                  │
//!        ▼                                  ▼
//!  ┌───────────────┐   (folder, name)  ┌─────────┐  touch   ┌─────────┐
//!  │ tree of names │ ◄──────────────── │ reader  │ ───────► │ pending │
//!  │ one node each │ ────────────────► │ thread  │ ◄─────── │ touches │
//!  └───────────────┘   paths through   └─────────┘   due    └─────────┘
//!        │               that node          │
//!        ▼                                  ▼
//!  inotify_add_watch                  deliver(Batch)
//! ```
//!
//! # How it works
//!
//! A path is walked as the kernel would: component by component, through
//! symbolic links, until the end or the first thing that is missing. Each name
//! that was met is one node of a tree of *physical* names; each folder that a
//! name was looked up in has an inotify watch. A path is noted at the nodes
//! where its walk left the straight way down (symbolic links, folders left by
//! `..`) and at its end, so the paths that go through a name are those noted
//! in the subtree of its node. An event therefore costs two hash lookups, and
//! nothing more when it concerns no watched path.
//!
//! # Invariants
//!
//! - A name is looked at only after the watch on its folder is in place. What
//!   a node remembers is thus either true or followed by an event that is
//!   still in the queue, and that event touches every path through the node.
//!   This is why a second path in a known folder needs no new look at that
//!   folder.
//! - A changed folder or symbolic link makes everything below unknown; the
//!   paths concerned are walked again, watches first, before they are
//!   delivered.
//! - No callback runs while the state is locked: [`Watcher::watch`] never
//!   waits for one.
//!
//! # What inotify does not show
//!
//! - A file system mounted over a watched folder, or taken away again without
//!   being unmounted everywhere.
//! - Writes through a hard link that was made elsewhere *after* the file was
//!   looked at. A file that had several names by then is watched itself.
//! - Writes through a shared mapping, until the mapping is gone.
//! - Changes made by other machines on a network file system.
//! - A new name in a folder that may be searched but not read.

#![forbid(unsafe_code)]

mod error;
mod fence;
mod inotify;
mod pending;
mod reader;
mod state;
mod tree;
mod watcher;

pub use error::{Error, Limit};
pub use pending::{Batch, Options, Touch};
pub use watcher::Watcher;
