//! The mappings of a process that show parts of files and of shared memory, and
//! the way to shared memory through them.

use super::contents::{Source, failure};
use crate::{Refusal, sys};
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use tracee::{AddressSpace, Remote, RemoteAddr, Tid};

/// A line of `/proc/PID/maps` with a file.
#[derive(Clone, Eq, PartialEq, Debug)]
pub(crate) struct Mapping {
    pub(crate) start: u64,
    pub(crate) end: u64,
    pub(crate) offset: u64,
    /// PROT_READ and so on.
    pub(crate) protection: i32,
    pub(crate) shared: bool,
    /// Major and minor number.
    pub(crate) device: (u32, u32),
    pub(crate) inode: u64,
    pub(crate) path: String,
}

impl Mapping {
    pub(crate) fn is_writable(&self) -> bool {
        self.protection & libc::PROT_WRITE != 0
    }
}

fn parse_mapping(line: &str) -> Option<Mapping> {
    let (range, rest) = line.split_once(' ')?;
    let (start, end) = range.split_once('-')?;
    let mut fields = rest.splitn(5, ' ');
    let modes = fields.next()?.as_bytes();
    let offset = u64::from_str_radix(fields.next()?, 16).ok()?;
    let (major, minor) = fields.next()?.split_once(':')?;
    let inode = fields.next()?.parse().ok().filter(|inode| *inode != 0)?;
    let path = fields.next().unwrap_or("").trim_start().to_owned();
    let protection = [libc::PROT_READ, libc::PROT_WRITE, libc::PROT_EXEC]
        .iter()
        .zip(modes)
        .filter(|(_, mode)| **mode != b'-')
        .fold(libc::PROT_NONE, |all, (bit, _)| all | bit);
    let (start, end) = (
        u64::from_str_radix(start, 16).ok()?,
        u64::from_str_radix(end, 16).ok()?,
    );
    Some(Mapping {
        start,
        end: (start < end).then_some(end)?,
        offset: offset.checked_add(end - start).map(|_| offset)?,
        protection,
        shared: *modes.get(3)? == b's',
        device: (
            u32::from_str_radix(major, 16).ok()?,
            u32::from_str_radix(minor, 16).ok()?,
        ),
        inode,
        path,
    })
}

/// The lines of `/proc/PID/maps` that have a file.
pub(crate) fn parse_mappings(text: &str) -> Vec<Mapping> {
    text.lines().filter_map(parse_mapping).collect()
}

pub(crate) fn mappings(process: Tid) -> Result<Vec<Mapping>, Refusal> {
    // A path in it may be of any bytes.
    let bytes = std::fs::read(format!("/proc/{process}/maps"))
        .map_err(Refusal::proc("read the guest's mappings"))?;
    Ok(parse_mappings(&String::from_utf8_lossy(&bytes)))
}

/// A part of a shared object, and where a process sees it.
#[derive(Clone, Eq, PartialEq, Debug)]
pub(super) struct Piece {
    /// In the object.
    offsets: Range<u64>,
    address: u64,
    protection: i32,
}

impl Piece {
    fn address_of(&self, offset: u64) -> u64 {
        self.address + (offset - self.offsets.start)
    }
}

/// What mappings show of an object, each part once, in order.
pub(super) fn cover<'m>(mappings: impl IntoIterator<Item = &'m Mapping>) -> Vec<Piece> {
    let mut mappings: Vec<&Mapping> = mappings.into_iter().collect();
    // Where there is a choice, the one that needs no change to be written through.
    mappings.sort_by_key(|m| {
        (
            !m.is_writable(),
            m.protection & libc::PROT_READ == 0,
            m.start,
        )
    });
    let mut pieces: Vec<Piece> = Vec::new();
    for mapping in mappings {
        let whole = mapping.offset..mapping.offset + (mapping.end - mapping.start);
        let mut missing = vec![whole.clone()];
        for piece in &pieces {
            missing = missing
                .into_iter()
                .flat_map(|Range { start, end }| {
                    let before = start..end.min(piece.offsets.start);
                    let after = start.max(piece.offsets.end)..end;
                    [before, after]
                })
                .filter(|range| range.start < range.end)
                .collect();
        }
        pieces.extend(missing.into_iter().map(|offsets| Piece {
            address: mapping.start + (offsets.start - whole.start),
            protection: mapping.protection,
            offsets,
        }));
    }
    pieces.sort_by_key(|piece| piece.offsets.start);
    pieces
}

/// Whose mappings they are.
pub(super) enum Owner<'a, 't> {
    /// A task of the guest's or of a copy.
    Task(&'a mut Remote<'t>),
    /// This process.
    Own,
}

/// A shared object as it is seen through mappings.
pub(super) struct Mapped<'a, 't> {
    pub(super) pieces: &'a [Piece],
    pub(super) owner: Owner<'a, 't>,
    /// Whether memory that is not in core holds nothing.
    pub(super) in_core: bool,
}

impl Mapped<'_, '_> {
    fn memory(&self) -> AddressSpace {
        AddressSpace::of(match &self.owner {
            Owner::Task(remote) => remote.tid(),
            Owner::Own => sys::own_id(),
        })
    }

    /// Which of the pages from an address on are in core, as many as fit.
    fn resident(&mut self, address: u64, pages: usize) -> Result<Vec<u8>, Refusal> {
        match &mut self.owner {
            Owner::Own => {
                sys::memory::resident(address, pages).map_err(failure("look at shared memory"))
            }
            Owner::Task(remote) => {
                /// What fits into the scratch memory.
                const MOST: usize = 2048;
                let at = remote.scratch()?.0;
                let mut pages = vec![0; pages.min(MOST)];
                let length = (pages.len() * sys::memory::page_size()) as u64;
                remote.call("mincore", libc::SYS_mincore, &[address, length, at.0])?;
                remote.memory().read(at, &mut pages)?;
                Ok(pages)
            }
        }
    }

    fn write_piece(&mut self, piece: &Piece, at: u64, from: &[u8]) -> Result<(), Refusal> {
        let address = piece.address_of(at);
        if piece.protection & libc::PROT_WRITE != 0 {
            return Ok(self.memory().write(RemoteAddr(address), from)?);
        }
        let Owner::Task(remote) = &mut self.owner else {
            return Err(Refusal::unsupported(
                "shared-memory",
                "shared memory can be read only, and has changed",
            ));
        };
        let page = sys::memory::page_size() as u64;
        let start = address & !(page - 1);
        let length = (address + from.len() as u64).next_multiple_of(page) - start;
        let open = (libc::PROT_READ | libc::PROT_WRITE) as u64;
        match remote.call("mprotect", libc::SYS_mprotect, &[start, length, open]) {
            Ok(_) => {}
            Err(tracee::Error::Call { .. }) => {
                return Err(Refusal::unsupported(
                    "shared-memory",
                    "shared memory can be read only, and has changed",
                ));
            }
            Err(e) => return Err(e.into()),
        }
        let written = remote.memory().write(RemoteAddr(address), from);
        let protection = piece.protection as u64;
        remote.call("mprotect", libc::SYS_mprotect, &[start, length, protection])?;
        Ok(written?)
    }
}

impl Source for Mapped<'_, '_> {
    fn extents(&mut self) -> Result<Vec<Range<u64>>, Refusal> {
        if !self.in_core {
            return Ok(self.pieces.iter().map(|p| p.offsets.clone()).collect());
        }
        let page = sys::memory::page_size() as u64;
        let mut extents: Vec<Range<u64>> = Vec::new();
        for piece in self.pieces {
            let mut at = piece.offsets.start;
            while at < piece.offsets.end {
                let pages = (piece.offsets.end - at).div_ceil(page) as usize;
                for resident in self.resident(piece.address_of(at), pages)? {
                    let end = at + page;
                    if resident & 1 != 0 {
                        match extents.last_mut() {
                            Some(last) if last.end == at => last.end = end,
                            _ => extents.push(at..end),
                        }
                    }
                    at = end;
                }
            }
        }
        Ok(extents)
    }

    fn read(&mut self, at: u64, into: &mut [u8]) -> Result<(), Refusal> {
        into.fill(0);
        let asked = at..at + into.len() as u64;
        for piece in self.pieces {
            let start = asked.start.max(piece.offsets.start);
            let end = asked.end.min(piece.offsets.end);
            if start >= end {
                continue;
            }
            let part = &mut into[(start - at) as usize..(end - at) as usize];
            let address = piece.address_of(start);
            if piece.protection & libc::PROT_READ == 0 {
                // A tracer may look behind a protection.
                let process = match &self.owner {
                    Owner::Task(remote) => remote.tid(),
                    Owner::Own => sys::own_id(),
                };
                File::open(format!("/proc/{process}/mem"))
                    .and_then(|memory| memory.read_exact_at(part, address))
                    .map_err(failure("read protected shared memory"))?;
                continue;
            }
            // What lies behind the end of the object cannot be read.
            match self.memory().read_some(RemoteAddr(address), part) {
                Ok(_) => {}
                Err(tracee::Error::Refused { source, .. })
                    if source.raw_os_error() == Some(libc::EFAULT) => {}
                Err(e) => return Err(e.into()),
            }
        }
        Ok(())
    }

    fn write(&mut self, at: u64, from: &[u8]) -> Result<(), Refusal> {
        let pieces = self.pieces;
        let asked = at..at + from.len() as u64;
        for piece in pieces {
            let start = asked.start.max(piece.offsets.start);
            let end = asked.end.min(piece.offsets.end);
            if start < end {
                let part = &from[(start - at) as usize..(end - at) as usize];
                self.write_piece(piece, start, part)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mappings_with_a_file() {
        let found = parse_mappings(
            "55d0000-55d1000 r--p 00000000 fe:00 12 /bin/a b\n\
             7f00000-7f10000 rw-s 00002000 00:01 77 /memfd:x (deleted)\n\
             7f10000-7f11000 rw-p 00000000 00:00 0 \n\
             7f20000-7f30000 ---s 00000000 fe:00 78                     /usr/lib/cache\n\
             7f30000-7f20000 ---s 00000000 fe:00 78 /backwards\n\
             garbage\n",
        );
        assert_eq!(found.len(), 3);
        assert!(!found[0].shared && found[1].shared);
        assert_eq!(found[1].path, "/memfd:x (deleted)");
        assert_eq!(found[1].protection, libc::PROT_READ | libc::PROT_WRITE);
        assert_eq!((found[1].offset, found[1].device), (0x2000, (0, 1)));
        assert_eq!(found[2].protection, libc::PROT_NONE);
    }

    fn mapping(start: u64, offset: u64, length: u64, protection: i32) -> Mapping {
        Mapping {
            start,
            end: start + length,
            offset,
            protection,
            shared: true,
            device: (0, 1),
            inode: 7,
            path: String::new(),
        }
    }

    proptest::proptest! {
        /// A guest chooses the names in this text.
        #[test]
        fn no_text_is_too_strange(text in "(\\PC|\n|[0-9a-f]{1,20}|[:/ -]|r--s|rw-p){0,60}") {
            for mapping in parse_mappings(&text) {
                proptest::prop_assert!(mapping.start < mapping.end);
                proptest::prop_assert!(text.contains(&mapping.path));
            }
        }

        /// Every byte that any mapping shows is in one piece, at an address that
        /// shows it.
        #[test]
        fn each_part_is_covered_once(
            raw in proptest::collection::vec((0..20u64, 1..8u64, 0..4i32), 1..8)
        ) {
            let mappings: Vec<Mapping> = raw
                .iter()
                .zip(1u64..)
                .map(|(&(offset, length, protection), n)| mapping(n * 100, offset, length, protection))
                .collect();
            let pieces = cover(&mappings);
            for offset in 0..30u64 {
                let shown = |m: &&Mapping| (m.offset..m.offset + m.end - m.start).contains(&offset);
                let showing: Vec<&Mapping> = mappings.iter().filter(shown).collect();
                let covering: Vec<&Piece> =
                    pieces.iter().filter(|p| p.offsets.contains(&offset)).collect();
                proptest::prop_assert_eq!(covering.len(), usize::from(!showing.is_empty()));
                for piece in covering {
                    let address = piece.address_of(offset);
                    proptest::prop_assert!(
                        showing.iter().any(|m| address == m.start + (offset - m.offset))
                    );
                    let writable = showing.iter().any(|m| m.is_writable());
                    proptest::prop_assert_eq!(piece.protection & libc::PROT_WRITE != 0, writable);
                }
            }
        }
    }
}
