//! Undoing changes of mode, owner, times and extended attributes.

use std::os::fd::OwnedFd;
use std::path::PathBuf;

use super::{Step, Undoing, left};
use crate::Why;
use crate::attributes::{Attributes, Refused};
use crate::file::{Look, open_path};
use crate::journal::Journal;

impl Journal {
    /// Puts attributes back, where they are as the guest left them. An inode that lies
    /// there no more keeps what it has: what somebody put in its place has its own.
    pub(super) fn restore_attributes(
        &mut self,
        undoing: &Undoing,
        path: PathBuf,
        pin: Option<OwnedFd>,
        before: &Attributes,
        after: &Attributes,
    ) -> Step {
        let id = before.look.id;
        let handle = match pin.map_or_else(|| open_path(&path, false), Ok) {
            Ok(handle) => handle,
            Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(cause) => return Err(left(&path, Why::io("look at it")(cause))),
        };
        match Look::of(&handle) {
            Ok(there) if there.id == id => {}
            Ok(_) => return Ok(None),
            Err(cause) => return Err(left(&path, Why::io("look at it")(cause))),
        }
        // Bytes that the guest alone has written give a file times and modes of their own.
        let written = self.provenance.get(id).is_some() && self.prove(undoing, id).is_ok();
        if let Ok(look) = Look::of(&handle) {
            self.before_change(&look);
        }
        let put_back = before.put_back(after, &handle, written);
        if let Ok(look) = Look::of(&handle) {
            self.after_change(&look);
        }
        match put_back {
            Ok(true) => Ok(Some(path)),
            Ok(false) => Ok(None),
            Err(Refused::Changed(what)) => Err(left(&path, Why::Changed(what))),
            Err(Refused::Io(step, cause)) => Err(left(&path, Why::io(step)(cause))),
        }
    }
}
