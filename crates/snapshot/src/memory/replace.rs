//! A memory file in place of one that cannot be made what it was: seals that were
//! added after the checkpoint stay for ever, and forbid to write.

use super::contents::{Contents, Opened, failure};
use super::device_of;
use super::mapping::{Mapping, mappings};
use crate::Refusal;
use crate::fds::NamelessFile;
use rustix::fs::{Mode, SealFlags};
use std::fs::OpenOptions;
use tracee::Remote;

/// What the new file is to be.
pub(super) struct Replacement<'a> {
    pub(super) file: &'a NamelessFile,
    pub(super) size: u64,
    pub(super) mode: u32,
    pub(super) seals: SealFlags,
    pub(super) mappings: &'a [Mapping],
    pub(super) contents: &'a Contents,
}

impl Replacement<'_> {
    /// Makes it, maps it where the file was mapped shared, and puts it under the
    /// file's numbers.
    pub(super) fn make(&self, remote: &mut Remote<'_>, above: i32) -> Result<(), Refusal> {
        let device = device_of(self.file.device);
        let is_private =
            |m: &Mapping| !m.shared && (m.device, m.inode) == (device, self.file.inode);
        if mappings(remote.tid())?.iter().any(is_private) {
            return Err(Refusal::unsupported(
                "memfd",
                format!(
                    "the memory file {} was sealed meanwhile, and is mapped privately",
                    self.file.display()
                ),
            ));
        }
        let at = remote.scratch()?.0;
        let mut name = self.file.name.clone();
        name.push(0);
        remote.memory().write(at, &name)?;
        let flags = u64::from(libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING);
        let fd = remote.call("memfd_create", libc::SYS_memfd_create, &[at.0, flags])?;
        let step = "make a memory file anew";
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(format!("/proc/{}/fd/{fd}", remote.tid()))
            .map_err(failure(step))?;
        file.set_len(self.size).map_err(failure(step))?;
        self.contents
            .restore(&mut Opened::to_write(&file, &file), self.size)?;
        rustix::fs::fchmod(&file, Mode::from_raw_mode(self.mode))
            .map_err(|e| failure(step)(e.into()))?;
        for mapping in self.mappings {
            remote.call(
                "mmap",
                libc::SYS_mmap,
                &[
                    mapping.start,
                    mapping.end - mapping.start,
                    mapping.protection as u64,
                    (libc::MAP_SHARED | libc::MAP_FIXED) as u64,
                    fd,
                    mapping.offset,
                ],
            )?;
        }
        rustix::fs::fcntl_add_seals(&file, self.seals).map_err(|e| failure(step)(e.into()))?;
        drop(file);
        self.file.exchange(remote, above, fd as i32)
    }
}
