//! Before bytes change: an open for writing, or a truncation. What the file holds is
//! copied, unless the guest made it after the latest mark or that was done since.

use std::os::fd::OwnedFd;
use std::path::Path;

use super::{Making, Outcome, Pending};
use crate::Obstacle;
use crate::entry::Change;
use crate::file::{FileId, Look, Place, open_path};
use crate::journal::Journal;
use crate::tracked::Opening;

/// The forms of `open`.
#[derive(Clone, Copy)]
pub(super) struct OpenKind {
    pub(super) create: bool,
    pub(super) exclusive: bool,
}

impl Journal {
    pub(super) fn prepare_open(
        &mut self,
        path: &Path,
        kind: OpenKind,
        follow: bool,
        writes: &mut Option<(FileId, Option<Opening>)>,
    ) -> Outcome {
        let place = match self.place(path, follow)? {
            Ok(place) => place,
            Err(pending) => return Ok(pending),
        };
        match place.look {
            None if kind.create => Ok(Pending::Make {
                path: place.path,
                by: Making::Open,
            }),
            Some(_) if !(kind.create && kind.exclusive) => {
                self.prepare_write(&place.path, true, writes)
            }
            _ => Ok(Pending::Refused(place.path)),
        }
    }

    pub(super) fn prepare_truncate(
        &mut self,
        path: &Path,
        writes: &mut Option<(FileId, Option<Opening>)>,
    ) -> Outcome {
        match self.place(path, true)? {
            Ok(Place {
                path,
                look: Some(look),
            }) if look.is_regular() => self.prepare_write(&path, false, writes),
            Ok(place) => Ok(Pending::Refused(place.path)),
            Err(pending) => Ok(pending),
        }
    }

    /// Saves the bytes of an existing regular file, unless that is not needed.
    fn prepare_write(
        &mut self,
        path: &Path,
        opens: bool,
        writes: &mut Option<(FileId, Option<Opening>)>,
    ) -> Outcome {
        if is_virtual(path) {
            return Ok(Pending::Nothing);
        }
        let found = open_path(path, false).and_then(|fd| Ok((Look::of(&fd)?, fd)));
        let (look, fd) = found.map_err(|cause| Obstacle::io("look at it", cause).at(path))?;
        if !look.is_regular() {
            return Ok(Pending::Refused(path.to_owned()));
        }
        self.provenance.track(look.id, &fd, path.parent());
        let persons = self.take_over(path, &fd, &look);
        let current = Some(self.current);
        // With the guest's other descriptions open it may have it mapped, too: then
        // the file's times say nothing.
        let reuse = self.provenance.file(look.id).owed == 0;
        let opening = opens.then(|| self.provenance.begin_open(look.id));
        let file = self.provenance.file(look.id);
        file.calls += u32::from(!opens);
        *writes = Some((look.id, opening));
        let is_saved = (file.birth == current || file.saved == current) && !file.theirs;
        let copy = match file.unwatched.clone() {
            _ if is_saved || !self.undoes => Ok(None),
            Some(why) => Err(Obstacle::Unwatched(why)),
            None => {
                let copy = self.copy(path, &fd, &look, u64::MAX, reuse, persons);
                copy.map(Some)
            }
        };
        let copy = copy.map_err(|why| self.unjournaled(why, path.to_owned(), look.id))?;
        Ok(Pending::Write {
            path: path.to_owned(),
            id: look.id,
            opening,
            change: copy.map(|copy| Change::Content {
                path: path.to_owned(),
                id: look.id,
                copy,
                pin: None,
                mapped: !reuse,
                held: false,
            }),
        })
    }

    /// The guest is about to act on a file that is watched: whether somebody else has
    /// written what is in it.
    pub(super) fn take_over(&mut self, path: &Path, fd: &OwnedFd, look: &Look) -> bool {
        let has_unknown_names = self.has_unknown_names(path, look);
        if has_unknown_names {
            self.provenance.watch_opens(look.id, fd);
        }
        let file = self.provenance.get(look.id);
        let shared = file.is_some_and(|file| file.may_be_shared(has_unknown_names));
        self.look_for_writers(look.id, path);
        let persons = shared || self.is_persons(path, look);
        if let Some(file) = self.provenance.get_mut(look.id) {
            file.linked = has_unknown_names || file.linked && file.owed > 0;
            file.settle();
            file.theirs = persons;
        }
        self.rebase(look.id);
        persons
    }

    /// The guest is about to act on top of what somebody else wrote. What was saved
    /// earlier is no longer what was there before the guest, and what is there now has
    /// to be saved like a file that the guest never made.
    fn rebase(&mut self, id: FileId) {
        let Some(file) = self.provenance.get_mut(id) else {
            return;
        };
        let Some(why) = file.foreign.take() else {
            return;
        };
        file.birth = None;
        file.saved = None;
        for entry in &mut self.entries {
            let about_it = match &entry.change {
                Change::Made { id: other, .. } | Change::Content { id: other, .. } => *other == id,
                Change::Renamed { moved, .. } => moved.id == id,
                Change::Exchanged { a, b } => a.1.id == id || b.1.id == id,
                // The name comes back with whatever the inode holds.
                Change::Removed { .. } | Change::Attributes { .. } | Change::Beyond { .. } => false,
            };
            if about_it {
                entry.lost.get_or_insert(why.clone());
            }
        }
    }
}

/// Whether what looks like a regular file is a face of the kernel: writing to it
/// is a command, not an effect on a file.
fn is_virtual(path: &Path) -> bool {
    const KINDS: [u64; 9] = [
        0x9fa0,      // proc
        0x6265_6572, // sysfs
        0x0027_e0eb, // cgroup
        0x6367_7270, // cgroup2
        0x6462_6720, // debugfs
        0x7472_6163, // tracefs
        0x7363_6673, // securityfs
        0xcafe_4a11, // bpf
        0x6265_6570, // configfs
    ];
    rustix::fs::statfs(path)
        .is_ok_and(|fs| u64::try_from(fs.f_type).is_ok_and(|kind| KINDS.contains(&kind)))
}
