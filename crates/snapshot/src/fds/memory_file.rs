//! Files of memory (memfd_create(2)). They stay open in the image, since nobody
//! waits for their end; what is in them is the `memory` module's concern.

use super::{Entry, Fresh, close, group};
use crate::Refusal;
use std::collections::BTreeMap;
use tracee::{Remote, Tid};

/// A memory file that is open.
#[derive(Clone, Debug)]
pub(crate) struct MemoryFile {
    /// As given to memfd_create.
    pub(crate) name: Vec<u8>,
    pub(crate) device: u64,
    pub(crate) inode: u64,
    /// The fds of each open file description.
    descriptions: Vec<Vec<Entry>>,
}

impl MemoryFile {
    /// Sorts the fds of memory files, each with the name of its link in `/proc`.
    pub(super) fn capture(
        process: Tid,
        entries: Vec<(Entry, Vec<u8>)>,
    ) -> Result<Vec<Self>, Refusal> {
        let mut files: Vec<Self> = Vec::new();
        let mut names = BTreeMap::new();
        let mut opened = Vec::with_capacity(entries.len());
        for (entry, name) in entries {
            names.insert(entry.inode, name);
            opened.push(entry);
        }
        for description in group(process, opened)? {
            let (device, inode) = (description[0].device, description[0].inode);
            if let Some(file) = files
                .iter_mut()
                .find(|f| (f.device, f.inode) == (device, inode))
            {
                file.descriptions.push(description);
                continue;
            }
            let name = names.get(&inode).map_or(&b""[..], Vec::as_slice);
            let name = name.strip_prefix(b"/memfd:").unwrap_or(name);
            let name = name.strip_suffix(b" (deleted)").unwrap_or(name);
            files.push(Self {
                name: name.to_owned(),
                device,
                inode,
                descriptions: vec![description],
            });
        }
        Ok(files)
    }

    /// One of its numbers.
    pub(crate) fn fd(&self) -> i32 {
        self.descriptions[0][0].fd
    }

    /// Its name, for people.
    pub(crate) fn display(&self) -> String {
        String::from_utf8_lossy(&self.name).into_owned()
    }

    /// Puts another memory file under all its numbers, in the same relation to each
    /// other. Offsets and what F_SETFL can change are not set here.
    pub(crate) fn exchange(
        &self,
        remote: &mut Remote<'_>,
        above: i32,
        fd: i32,
    ) -> Result<(), Refusal> {
        let new = Fresh { fd }.lift(remote, above)?;
        for entries in &self.descriptions {
            let fresh = super::reopen::reopen(remote, new.fd, entries[0].info.flags)?;
            fresh.lift(remote, above)?.place(remote, entries)?;
        }
        close(remote, new.fd)
    }
}
