//! What is in a piece of shared memory, and putting it back.
//!
//! Blocks of zeroes are left out, so that memory which was never touched takes no
//! room; blocks that are the same at the next checkpoint are kept once.

use crate::Refusal;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::ops::Range;
use std::sync::Arc;

/// Bytes that are kept or left out together; a multiple of the page size.
const BLOCK: usize = 64 << 10;

/// What is compared, and written if it differs.
const PAGE: usize = 4096;

/// Where bytes are read from and written back to. Offsets are those of the shared
/// object, not addresses.
pub(super) trait Source {
    /// Where anything but zeroes may be, in order and without overlaps, in whole
    /// pages but for the end.
    fn extents(&mut self) -> Result<Vec<Range<u64>>, Refusal>;

    /// Fills `into`; what lies behind the end reads as zeroes.
    fn read(&mut self, at: u64, into: &mut [u8]) -> Result<(), Refusal>;

    /// Writes all of `from`.
    fn write(&mut self, at: u64, from: &[u8]) -> Result<(), Refusal>;
}

/// The bytes of a piece of shared memory.
#[derive(Default, Debug)]
pub(crate) struct Contents {
    blocks: BTreeMap<u64, Arc<[u8]>>,
}

/// How many bytes a checkpoint may still keep.
#[derive(Debug)]
pub(super) struct Budget(pub(super) u64);

impl Budget {
    fn spend(&mut self, bytes: u64) -> Result<(), Refusal> {
        self.0 = self.0.checked_sub(bytes).ok_or_else(|| {
            Refusal::unsupported(
                "shared-memory",
                "the guest has more than 1 GiB in shared memory",
            )
        })?;
        Ok(())
    }
}

fn is_zero(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| *byte == 0)
}

/// The pieces of extents that lie in one block, by block.
fn by_block(extents: Vec<Range<u64>>) -> BTreeMap<u64, Vec<Range<u64>>> {
    let block = BLOCK as u64;
    let mut blocks: BTreeMap<u64, Vec<Range<u64>>> = BTreeMap::new();
    for Range { mut start, end } in extents {
        while start < end {
            let index = start / block;
            let stop = end.min((index + 1) * block);
            blocks.entry(index).or_default().push(start..stop);
            start = stop;
        }
    }
    blocks
}

/// A block as it is now, from the parts of it that may hold anything.
fn read_block(
    source: &mut dyn Source,
    index: u64,
    parts: &[Range<u64>],
    into: &mut [u8],
) -> Result<(), Refusal> {
    into.fill(0);
    let first = index * BLOCK as u64;
    for part in parts {
        let range = (part.start - first) as usize..(part.end - first) as usize;
        source.read(part.start, &mut into[range])?;
    }
    Ok(())
}

impl Contents {
    /// Reads everything. What is as it was in `before` shares its room.
    pub(super) fn save(
        source: &mut dyn Source,
        before: Option<&Contents>,
        budget: &mut Budget,
    ) -> Result<Self, Refusal> {
        let mut contents = Self::default();
        let mut bytes = vec![0; BLOCK];
        for (index, parts) in by_block(source.extents()?) {
            read_block(source, index, &parts, &mut bytes)?;
            if is_zero(&bytes) {
                continue;
            }
            budget.spend(BLOCK as u64)?;
            let known = before
                .and_then(|contents| contents.blocks.get(&index))
                .filter(|block| block[..] == bytes[..]);
            let block = match known {
                Some(block) => Arc::clone(block),
                None => bytes.as_slice().into(),
            };
            contents.blocks.insert(index, block);
        }
        Ok(contents)
    }

    /// How many bytes are kept.
    pub(super) fn size(&self) -> u64 {
        (self.blocks.len() * BLOCK) as u64
    }

    /// Writes the pages that differ, up to `size`, the length of what there is.
    pub(super) fn restore(&self, source: &mut dyn Source, size: u64) -> Result<(), Refusal> {
        let zeroes = vec![0; BLOCK];
        let mut now = vec![0; BLOCK];
        let extents = by_block(source.extents()?);
        let indices: BTreeSet<u64> = extents.keys().chain(self.blocks.keys()).copied().collect();
        for index in indices {
            let parts = extents.get(&index).map_or(&[][..], Vec::as_slice);
            read_block(source, index, parts, &mut now)?;
            let wanted = self.blocks.get(&index).map_or(&zeroes[..], |b| b);
            let first = index * BLOCK as u64;
            let length = (BLOCK as u64).min(size.saturating_sub(first)) as usize;
            let mut at = 0;
            while at < length {
                let end = (at + PAGE).min(length);
                if now[at..end] != wanted[at..end] {
                    source.write(first + at as u64, &wanted[at..end])?;
                }
                at = end;
            }
        }
        Ok(())
    }
}

/// A file of memory, or on disk.
pub(super) struct Opened<'f> {
    reader: &'f File,
    writer: Option<&'f File>,
}

impl<'f> Opened<'f> {
    pub(super) fn to_read(reader: &'f File) -> Self {
        let writer = None;
        Self { reader, writer }
    }

    pub(super) fn to_write(reader: &'f File, writer: &'f File) -> Self {
        let writer = Some(writer);
        Self { reader, writer }
    }

    fn writer(&self) -> Result<&File, Refusal> {
        self.writer
            .ok_or_else(|| failure(WRITE)(io::ErrorKind::PermissionDenied.into()))
    }

    /// Cuts or lengthens the file if it has not this size.
    pub(super) fn set_size(&self, size: u64) -> Result<(), Refusal> {
        let now = self.reader.metadata().map_err(failure(WRITE))?.len();
        if now != size {
            self.writer()?.set_len(size).map_err(failure(WRITE))?;
        }
        Ok(())
    }
}

const WRITE: &str = "write a file without a name";

/// A failure with a file of shared memory.
pub(super) fn failure(step: &'static str) -> impl Fn(io::Error) -> Refusal {
    move |error| Refusal::unsupported("shared-memory", format!("{step}: {error}"))
}

impl Source for Opened<'_> {
    fn extents(&mut self) -> Result<Vec<Range<u64>>, Refusal> {
        use rustix::fs::{SeekFrom, seek};
        let step = "find what a file without a name holds";
        let mut extents = Vec::new();
        let mut at = 0;
        loop {
            let start = match seek(self.reader, SeekFrom::Data(at)) {
                Ok(start) => start,
                Err(rustix::io::Errno::NXIO) => return Ok(extents),
                Err(e) => return Err(failure(step)(e.into())),
            };
            at = seek(self.reader, SeekFrom::Hole(start)).map_err(|e| failure(step)(e.into()))?;
            extents.push(start..at);
        }
    }

    fn read(&mut self, at: u64, into: &mut [u8]) -> Result<(), Refusal> {
        use std::os::unix::fs::FileExt;
        let mut done = 0;
        while done < into.len() {
            match self.reader.read_at(&mut into[done..], at + done as u64) {
                Ok(0) => break,
                Ok(n) => done += n,
                Err(e) => return Err(failure("read a file without a name")(e)),
            }
        }
        into[done..].fill(0);
        Ok(())
    }

    fn write(&mut self, at: u64, from: &[u8]) -> Result<(), Refusal> {
        use std::os::unix::fs::FileExt;
        self.writer()?
            .write_all_at(from, at)
            .map_err(failure(WRITE))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Bytes, with the places in them where something may be.
    struct Plain {
        bytes: Vec<u8>,
        written: usize,
    }

    impl Source for Plain {
        fn extents(&mut self) -> Result<Vec<Range<u64>>, Refusal> {
            Ok(self
                .bytes
                .chunks(PAGE)
                .enumerate()
                .filter(|(_, page)| !is_zero(page))
                .map(|(i, page)| (i * PAGE) as u64..(i * PAGE + page.len()) as u64)
                .collect())
        }

        fn read(&mut self, at: u64, into: &mut [u8]) -> Result<(), Refusal> {
            into.copy_from_slice(&self.bytes[at as usize..at as usize + into.len()]);
            Ok(())
        }

        fn write(&mut self, at: u64, from: &[u8]) -> Result<(), Refusal> {
            self.written += from.len();
            self.bytes[at as usize..at as usize + from.len()].copy_from_slice(from);
            Ok(())
        }
    }

    fn plain(pages: &[u8], tail: usize) -> Plain {
        let mut bytes: Vec<u8> = pages.iter().flat_map(|b| vec![*b; PAGE]).collect();
        bytes.truncate(bytes.len().saturating_sub(tail));
        Plain { bytes, written: 0 }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn what_was_saved_is_put_back(
            before in prop::collection::vec(0..3u8, 40),
            after in prop::collection::vec(0..3u8, 40),
            tail in 0..PAGE,
        ) {
            let mut source = plain(&before, tail);
            let mut budget = Budget(1 << 30);
            let first = Contents::save(&mut source, None, &mut budget).unwrap();
            let again = Contents::save(&mut source, Some(&first), &mut budget).unwrap();
            prop_assert!(
                first.blocks.values().zip(again.blocks.values()).all(|(a, b)| Arc::ptr_eq(a, b))
            );
            let wanted = source.bytes;
            let mut source = plain(&after, tail);
            let size = source.bytes.len() as u64;
            first.restore(&mut source, size).unwrap();
            prop_assert!(source.bytes == wanted);
            let differing = before.iter().zip(&after).filter(|(a, b)| a != b).count();
            prop_assert!(source.written <= differing * PAGE);
        }
    }

    #[test]
    fn too_much_is_refused() {
        let mut budget = Budget(BLOCK as u64);
        let refusal = Contents::save(&mut plain(&[1; 17], 0), None, &mut budget).unwrap_err();
        assert_eq!(refusal.code(), "shared-memory");
        let mut budget = Budget(BLOCK as u64);
        Contents::save(&mut plain(&[1; 16], 0), None, &mut budget).unwrap();
    }
}
