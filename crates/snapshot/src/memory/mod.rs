//! Memory that the image has in common with the live run.
//!
//! Only one run is alive at a time and an image never runs, so that shared objects
//! (anonymous memory, memfd, System V, mapped files without a name) stay shared:
//! what is in them is read when the checkpoint is taken and put back in place once
//! the run before is dead. Files with a name are kept by whoever takes the
//! checkpoint ([`HeldFile`]). A guest without any of these pays nothing for it.

mod contents;
mod mapping;
mod replace;
mod segment;

pub(crate) use contents::Contents;
pub(crate) use mapping::mappings;
#[cfg(fuzzing)]
pub(crate) use mapping::parse_mappings;
#[cfg(fuzzing)]
pub(crate) use segment::parse_made_by;

use crate::fds::{FdTable, HeldFile, NamelessFile};
use crate::{Guest, Hazard, Refusal, sys};
use contents::{Budget, Opened, failure};
use mapping::{Mapped, Mapping, Owner, Piece, cover};
use rustix::fs::SealFlags;
use segment::{Segment, segment_of};
use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Arc, Weak};
use tracee::{Remote, Tid};

/// The most that a checkpoint keeps of shared memory, in bytes.
const MOST: u64 = 1 << 30;

/// What a shared object is, beyond its bytes.
#[derive(Clone, Debug)]
enum Kind {
    /// A file that is open; with its shared mappings.
    File {
        file: NamelessFile,
        size: u64,
        mode: u32,
        /// Of a memory file.
        seals: Option<SealFlags>,
        mappings: Vec<Mapping>,
    },
    /// Seen through mappings only.
    Mapped {
        pieces: Vec<Piece>,
        sparse: bool,
    },
    Segment(Segment),
}

/// What tells objects apart: files by device and inode, segments by their id.
#[derive(Copy, Clone, Eq, PartialEq, Ord, PartialOrd, Debug)]
pub(crate) enum Key {
    File((u32, u32), u64),
    Segment(i32),
}

#[derive(Clone, Debug)]
struct Object {
    key: Key,
    kind: Kind,
    contents: Arc<Contents>,
}

/// What was there at the last checkpoint, as long as it is kept.
pub(crate) type Known = BTreeMap<Key, Weak<Contents>>;

/// All shared memory of a process, as it was.
#[derive(Clone, Default, Debug)]
pub(crate) struct SharedMemory {
    objects: Vec<Object>,
    /// Mapped files with a name.
    pub(crate) held: Vec<HeldFile>,
}

/// Whether a mapped file is there under its name.
fn is_named(mapping: &Mapping) -> bool {
    fs::metadata(&mapping.path).is_ok_and(|m| m.is_file() && m.ino() == mapping.inode)
}

fn device_of(device: u64) -> (u32, u32) {
    (rustix::fs::major(device), rustix::fs::minor(device))
}

impl SharedMemory {
    /// Finds what a stopped process shares, without reading it.
    pub(crate) fn find(guest: &Guest, files: &FdTable) -> Result<Self, Refusal> {
        let mut found = Self::default();
        let is_mapped = guest.hazards.contains(&Hazard::SharedMappings);
        if !is_mapped && files.nameless_files().is_empty() {
            return Ok(found);
        }
        let mut all = mappings(guest.process)?;
        let segments = if is_mapped {
            let known: Vec<i32> = guest
                .shared
                .keys()
                .filter_map(|key| match key {
                    Key::Segment(id) => Some(*id),
                    Key::File(..) => None,
                })
                .collect();
            segment::find(guest.process, &all, &known)?
        } else {
            Vec::new()
        };
        all.retain(|m| m.shared && segment_of(m).is_none());
        for segment in segments {
            found.add(Key::Segment(segment.id), Kind::Segment(segment));
        }
        for file in files.nameless_files() {
            let key = Key::File(device_of(file.device), file.inode);
            found.add(key, open_file(guest.process, file, &mut all, key)?);
        }
        let mut nameless: BTreeMap<Key, Vec<Mapping>> = BTreeMap::new();
        for mapping in all {
            if is_named(&mapping) {
                if mapping.is_writable() {
                    found.hold(&mapping);
                }
                continue;
            }
            if !mapping.path.ends_with(" (deleted)") {
                if mapping.is_writable() {
                    return Err(Refusal::unsupported(
                        "shared-memory",
                        format!("the guest has shared memory ({})", mapping.path),
                    ));
                }
                continue;
            }
            if guest.inherited.has_mapped(mapping.device, mapping.inode) {
                return Err(Refusal::unsupported(
                    "shared-memory",
                    format!("{} is shared with other processes", mapping.path),
                ));
            }
            let key = Key::File(mapping.device, mapping.inode);
            nameless.entry(key).or_default().push(mapping);
        }
        for (key, mappings) in nameless {
            // What is on disk may be out of core, and huge pages are not told of.
            let sparse = mappings
                .iter()
                .all(|m| m.path.starts_with("/dev/zero") || m.path.starts_with("/memfd:"));
            let pieces = cover(&mappings);
            found.add(key, Kind::Mapped { pieces, sparse });
        }
        Ok(found)
    }

    fn add(&mut self, key: Key, kind: Kind) {
        self.objects.push(Object {
            key,
            kind,
            contents: Arc::default(),
        });
    }

    fn hold(&mut self, mapping: &Mapping) {
        let path = Path::new(&mapping.path);
        if self.held.iter().all(|h| h.path.as_deref() != Some(path)) {
            self.held.push(HeldFile {
                handle: path.into(),
                path: Some(path.into()),
                mapped: true,
            });
        }
    }

    /// Reads what is in it, while all threads are stopped.
    pub(crate) fn save(
        &mut self,
        remote: &mut Remote<'_>,
        guest: &mut Guest,
    ) -> Result<(), Refusal> {
        if self.objects.is_empty() {
            return Ok(());
        }
        let mut budget = Budget(MOST);
        for object in &mut self.objects {
            let before = guest.shared.get(&object.key).and_then(Weak::upgrade);
            let contents = object.kind.save(remote, before.as_deref(), &mut budget)?;
            object.contents = Arc::new(contents);
        }
        guest.shared = self
            .objects
            .iter()
            .map(|object| (object.key, Arc::downgrade(&object.contents)))
            .collect();
        Ok(())
    }

    /// How many bytes are kept of it, some of them in common with other checkpoints.
    pub(crate) fn size(&self) -> u64 {
        self.objects.iter().map(|o| o.contents.size()).sum()
    }

    /// Puts back what was in it, for a copy that no other run has a share in.
    pub(crate) fn restore(&self, remote: &mut Remote<'_>, above: i32) -> Result<(), Refusal> {
        for object in &self.objects {
            object.restore(remote, above)?;
        }
        Ok(())
    }
}

/// A file that is open, with its mappings, which are taken out of `all`.
fn open_file(
    process: Tid,
    file: &NamelessFile,
    all: &mut Vec<Mapping>,
    key: Key,
) -> Result<Kind, Refusal> {
    let opened = open(process, file, false)?;
    let step = "look at a file without a name";
    let metadata = opened.metadata().map_err(failure(step))?;
    let kind = rustix::fs::fstatfs(&opened).map_err(|e| failure(step)(e.into()))?;
    if kind.f_type as i64 == libc::HUGETLBFS_MAGIC {
        return Err(Refusal::unsupported(
            "memfd",
            format!("the memory file {} has huge pages", file.display()),
        ));
    }
    let (mappings, others) = std::mem::take(all)
        .into_iter()
        .partition(|m| Key::File(m.device, m.inode) == key);
    *all = others;
    Ok(Kind::File {
        file: file.clone(),
        size: metadata.len(),
        mode: metadata.mode() & 0o7777,
        seals: match file.is_memory {
            true => {
                Some(rustix::fs::fcntl_get_seals(&opened).map_err(|e| failure(step)(e.into()))?)
            }
            false => None,
        },
        mappings,
    })
}

fn open(process: Tid, file: &NamelessFile, write: bool) -> Result<File, Refusal> {
    OpenOptions::new()
        .read(true)
        .write(write)
        .open(format!("/proc/{process}/fd/{}", file.fd()))
        .map_err(failure("open a file without a name"))
}

impl Kind {
    fn save(
        &self,
        remote: &mut Remote<'_>,
        before: Option<&Contents>,
        budget: &mut Budget,
    ) -> Result<Contents, Refusal> {
        match self {
            Kind::File { file, .. } => {
                let opened = open(remote.tid(), file, false)?;
                Contents::save(&mut Opened::to_read(&opened), before, budget)
            }
            Kind::Mapped { pieces, sparse } => {
                let mut source = Mapped {
                    pieces,
                    owner: Owner::Task(remote),
                    in_core: *sparse && !sys::memory::is_swapping(),
                };
                Contents::save(&mut source, before, budget)
            }
            Kind::Segment(segment) => {
                segment.must_be_own()?;
                let (_attached, mapping) = segment.attach()?;
                let mut source = Mapped {
                    pieces: &cover([&mapping]),
                    owner: Owner::Own,
                    in_core: !sys::memory::is_swapping(),
                };
                Contents::save(&mut source, before, budget)
            }
        }
    }
}

impl Object {
    fn restore(&self, remote: &mut Remote<'_>, above: i32) -> Result<(), Refusal> {
        match &self.kind {
            Kind::File {
                file,
                size,
                mode,
                seals,
                mappings,
            } => {
                let Some(seals) = seals else {
                    return self.restore_removed(remote.tid(), file, *size);
                };
                let opened = open(remote.tid(), file, true)?;
                let is_same = rustix::fs::fcntl_get_seals(&opened).ok() == Some(*seals);
                let mut in_place = Opened::to_write(&opened, &opened);
                if !is_same || self.restore_file(&mut in_place, *size).is_err() {
                    replace::Replacement {
                        file,
                        size: *size,
                        mode: *mode,
                        seals: *seals,
                        mappings,
                        contents: &self.contents,
                    }
                    .make(remote, above)?;
                }
                Ok(())
            }
            Kind::Mapped { pieces, sparse } => {
                let mut source = Mapped {
                    pieces,
                    owner: Owner::Task(remote),
                    in_core: *sparse && !sys::memory::is_swapping(),
                };
                self.contents.restore(&mut source, u64::MAX)
            }
            Kind::Segment(segment) => {
                segment.restore()?;
                let (_attached, mapping) = segment.attach()?;
                let mut source = Mapped {
                    pieces: &cover([&mapping]),
                    owner: Owner::Own,
                    in_core: !sys::memory::is_swapping(),
                };
                self.contents.restore(&mut source, segment.status.size)
            }
        }
    }

    fn restore_file(&self, file: &mut Opened<'_>, size: u64) -> Result<(), Refusal> {
        file.set_size(size)?;
        self.contents.restore(file, size)
    }

    /// Nobody must see that a file was opened for writing: who counts that would take
    /// it for somebody else's doing.
    fn restore_removed(&self, process: Tid, file: &NamelessFile, size: u64) -> Result<(), Refusal> {
        use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
        let step = "write a removed file";
        let reader = open(process, file, false)?;
        let writer = File::from(file.writer(process)?);
        let flags = fcntl_getfl(&writer).map_err(|e| failure(step)(e.into()))?;
        // With this flag every write goes to the end.
        let appends = flags.contains(OFlags::APPEND);
        if appends {
            fcntl_setfl(&writer, flags - OFlags::APPEND).map_err(|e| failure(step)(e.into()))?;
        }
        let restored = self.restore_file(&mut Opened::to_write(&reader, &writer), size);
        if appends {
            fcntl_setfl(&writer, flags).map_err(|e| failure(step)(e.into()))?;
        }
        restored
    }
}
