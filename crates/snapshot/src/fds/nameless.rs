//! Open files that can be written and have no name: files of memory
//! (memfd_create(2)), and files that were removed. They stay open in the image, since
//! nobody waits for their end; what is in them is the `memory` module's concern.

use super::reopen::reopen;
use super::source::Source;
use super::{Entry, Fresh, close, group, set_flags};
use crate::Refusal;
use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use tracee::{Remote, Tid};

/// An open file without a name.
#[derive(Clone, Debug)]
pub(crate) struct NamelessFile {
    /// It is of memory and can be sealed.
    pub(crate) is_memory: bool,
    /// As given to memfd_create, or what a removed file was called.
    pub(crate) name: Vec<u8>,
    pub(crate) device: u64,
    pub(crate) inode: u64,
    /// The fds of each open file description.
    descriptions: Vec<Vec<Entry>>,
}

impl NamelessFile {
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
            let memory = name.strip_prefix(b"/memfd:");
            let name = memory.unwrap_or(name);
            let name = name.strip_suffix(b" (deleted)").unwrap_or(name);
            files.push(Self {
                is_memory: memory.is_some(),
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

    /// Whether anybody can write it through its fds; memory files can always be opened
    /// anew for that.
    pub(super) fn is_writable(&self) -> bool {
        self.is_memory
            || self
                .descriptions
                .iter()
                .any(|entries| entries[0].is_writable())
    }

    /// Its name, for people.
    pub(crate) fn display(&self) -> String {
        String::from_utf8_lossy(&self.name).into_owned()
    }

    /// Duplicates one of its open file descriptions that can write, which nobody sees
    /// the opening and the closing of.
    pub(crate) fn writer(&self, process: Tid) -> Result<OwnedFd, Refusal> {
        let mut entries = self.descriptions.iter().map(|description| &description[0]);
        let entry = entries.find(|entry| entry.is_writable());
        let fd = entry.map_or(self.fd(), |entry| entry.fd);
        Source::of(process)?.duplicate(fd)
    }

    /// Puts another memory file under all its numbers, in the same relation to each
    /// other.
    pub(crate) fn exchange(
        &self,
        remote: &mut Remote<'_>,
        above: i32,
        fd: i32,
    ) -> Result<(), Refusal> {
        let new = Fresh { fd }.lift(remote, above)?;
        for entries in &self.descriptions {
            let first = &entries[0];
            if !first.info.locks.is_empty() {
                return Err(Refusal::unsupported(
                    "memfd",
                    format!(
                        "the memory file {} was sealed meanwhile, and is locked",
                        self.display()
                    ),
                ));
            }
            let fresh = reopen(remote, new.fd, first.info.flags)?;
            fresh.lift(remote, above)?.place(remote, entries)?;
            let (position, whence) = (first.info.position as u64, libc::SEEK_SET as u64);
            remote.call(
                "lseek",
                libc::SYS_lseek,
                &[first.fd as u64, position, whence],
            )?;
            set_flags(remote, first.fd, first.status_flags())?;
        }
        close(remote, new.fd)
    }
}
