//! System V shared memory. A segment has an id, by which it can be attached
//! wherever the guest has it attached or not.

use super::contents::failure;
use super::mapping::{Mapping, mappings};
use crate::{Refusal, sys};
use std::collections::BTreeSet;
use std::io;
use tracee::Tid;

/// Another sign that a segment is to be removed once nobody has it attached, next
/// to its mode (shmctl(2)).
const SHM_DEST: u32 = 0o1000;

/// A segment, as it was.
#[derive(Clone, Debug)]
pub(super) struct Segment {
    pub(super) id: i32,
    pub(super) status: sys::memory::Segment,
}

/// The segment that a mapping is of.
pub(super) fn segment_of(mapping: &Mapping) -> Option<i32> {
    // `/SYSV0000002a (deleted)`, with the id in place of an inode.
    let key = mapping
        .path
        .strip_prefix("/SYSV")?
        .strip_suffix(" (deleted)")?;
    let of_kernel = mapping.device.0 == 0 && key.len() == 8;
    i32::try_from(mapping.inode).ok().filter(|_| of_kernel)
}

/// The segments that a process has made, by the text of `/proc/sysvipc/shm`.
pub(crate) fn parse_made_by(text: &str, process: i32) -> Vec<i32> {
    let mut lines = text.lines();
    let Some(header) = lines.next() else {
        return Vec::new();
    };
    let column = |name| header.split_ascii_whitespace().position(|n| n == name);
    let (Some(id), Some(maker)) = (column("shmid"), column("cpid")) else {
        return Vec::new();
    };
    lines
        .filter_map(|line| {
            let fields: Vec<&str> = line.split_ascii_whitespace().collect();
            (fields.get(maker)?.parse() == Ok(process))
                .then(|| fields.get(id)?.parse().ok())
                .flatten()
        })
        .collect()
}

/// The segments that a guest can see: those it has attached, and those it has made.
pub(super) fn find(
    process: Tid,
    mappings: &[Mapping],
    known: &[i32],
) -> Result<Vec<Segment>, Refusal> {
    let mut ids: BTreeSet<i32> = mappings.iter().filter_map(segment_of).collect();
    if let Ok(text) = std::fs::read_to_string("/proc/sysvipc/shm") {
        ids.extend(parse_made_by(&text, process.raw()));
    }
    ids.extend(known.iter().filter(|id| sys::memory::segment(**id).is_ok()));
    let mut segments = Vec::new();
    for id in ids {
        let status = sys::memory::segment(id).map_err(failure("look at System V shared memory"))?;
        segments.push(Segment { id, status });
    }
    Ok(segments)
}

impl Segment {
    /// Refuses a segment that processes other than the guest and its copies have
    /// attached.
    pub(super) fn must_be_own(&self) -> Result<(), Refusal> {
        let own = tracee::children_of_task(sys::own_id())
            .map_err(Refusal::proc("list the copies of the guest"))?;
        let mut attached = 0;
        for process in own {
            // One that has ended has nothing attached.
            let mappings = mappings(process).unwrap_or_default();
            attached += mappings
                .iter()
                .filter(|m| segment_of(m) == Some(self.id))
                .count() as u64;
        }
        if self.status.attached > attached {
            return Err(Refusal::unsupported(
                "shared-memory",
                format!(
                    "another process has attached the System V segment {}",
                    self.id
                ),
            ));
        }
        Ok(())
    }

    pub(super) fn attach(&self) -> Result<(sys::memory::Attached, Mapping), Refusal> {
        let attached = sys::memory::Attached::new(self.id)
            .map_err(failure("attach System V shared memory"))?;
        let read = libc::PROT_READ;
        let mapping = Mapping {
            start: attached.address,
            end: attached.address
                + self
                    .status
                    .size
                    .next_multiple_of(sys::memory::page_size() as u64),
            offset: 0,
            protection: if attached.writable {
                read | libc::PROT_WRITE
            } else {
                read
            },
            shared: true,
            device: (0, 0),
            inode: 0,
            path: String::new(),
        };
        Ok((attached, mapping))
    }

    /// Makes sure that it is still there under its id and key, with its owner and
    /// mode.
    pub(super) fn restore(&self) -> Result<(), Refusal> {
        let lost = |why: &dyn std::fmt::Display| {
            Refusal::unsupported(
                "shared-memory",
                format!(
                    "the System V segment {} cannot be brought back: {why}",
                    self.id
                ),
            )
        };
        let now = sys::memory::segment(self.id).map_err(|e: io::Error| lost(&e))?;
        let was = &self.status;
        if now.key != was.key || now.size != was.size || (now.mode ^ was.mode) & SHM_DEST != 0 {
            return Err(lost(&"it was removed"));
        }
        if (now.owner, now.mode) != (was.owner, was.mode) {
            sys::memory::set_segment(self.id, was).map_err(|e| lost(&e))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_by_their_maker() {
        let text = "       key      shmid perms                  size  cpid  lpid nattch\n\
                    0          3  1600  4096  77  78 1\n\
                    12         4   600  4096  79  77 1\n";
        assert_eq!(parse_made_by(text, 77), [3]);
        assert_eq!(parse_made_by("nonsense\n1 2 3\n", 77), []);
        assert_eq!(parse_made_by("", 77), []);
    }
}
