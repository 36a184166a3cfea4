//! Control by hand: a running forkmon listens on a Unix socket, and `forkmon ctl`
//! asks it for a checkpoint, a resume, a restart, its state, or its end.
//!
//! ```text
//!   forkmon ctl ─► client ─► (place: the socket) ─► server ─► Asked ─► supervisor
//!                    ▲                                │ ▲                  │
//!                    └────────── protocol ────────────┘ └──── Reply ◄──────┘
//!   a terminal ──► keys ──────────────────────────────── Asked ─► supervisor
//! ```
//!
//! What a request leads to is the supervisor's concern, who may ask and how is
//! settled here: only the user that forkmon runs as (and root) can connect, and
//! nothing that a client sends or fails to send blocks forkmon or other clients.

pub mod client;
pub mod journal;
pub mod place;
pub mod protocol;
pub mod server;
pub mod table;

pub use place::Place;
pub use protocol::{Asked, CheckpointStatus, JournalItem, Reply, Request, Status};
pub use server::Server;
