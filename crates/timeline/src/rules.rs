//! Whether one fact still holds: the table of contradictions.
//!
//! Pure functions over one [`Observation`] and one [`Current`]. Which facts are
//! asked, and in which order, is `history`'s concern. Where a rule cannot prove
//! that the guest would see the same again, the fact counts as contradicted.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fmt;

use crate::access::{AccessIndex, Current, FileKind, Fingerprint, Identity, Metadata, Observation};

/// What an edit means for the run.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub enum Verdict {
    /// The run knows nothing of this path, or only what it wrote there itself.
    Untouched,
    /// Everything that the guest learned about this path is still so.
    Unchanged,
    /// So it is, but the file has other bytes after those that the guest has read: a
    /// guest that reads on has to be resumed, with the file as it is now.
    Unread,
    /// A fresh run would have gone another way.
    Contradicted {
        /// The earliest access whose fact no longer holds.
        first: AccessIndex,
        /// What happened to the path, seen from that access.
        change: ChangeKind,
    },
}

impl Verdict {
    /// The earliest contradicted access. Of several edits at once, the smallest
    /// of these decides.
    #[must_use]
    pub fn contradiction(&self) -> Option<AccessIndex> {
        match self {
            Self::Contradicted { first, .. } => Some(*first),
            Self::Untouched | Self::Unchanged | Self::Unread => None,
        }
    }
}

/// What happened to a path since the guest's access.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub enum ChangeKind {
    /// Other bytes, other names both ways, another target, or another type.
    Modified,
    /// It was missing and is there; or a folder has new names.
    Created,
    /// It was there and is missing; or a folder has lost names.
    Removed,
    /// Only the mode differs.
    Metadata,
}

impl fmt::Display for ChangeKind {
    /// The word for it in events and messages.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Modified => "modified",
            Self::Created => "created",
            Self::Removed => "removed",
            Self::Metadata => "metadata",
        })
    }
}

/// How the path of a fact contradicts it now, if it does.
///
/// - `recorded`: the fingerprint of the file that the fact was about.
/// - `spoiled`: the bytes that the guest took in are not those of any one state
///   of the file, so no state agrees with them.
/// - `own`: whether the guest itself wrote this name in the folder; such names
///   do not count in a listing.
pub(crate) fn contradiction(
    seen: &Observation,
    recorded: Option<&Fingerprint>,
    spoiled: bool,
    now: &Current,
    own: impl Fn(&OsStr) -> bool,
) -> Option<ChangeKind> {
    match (seen, now) {
        (Observation::Missing, Current::Missing) => None,
        (Observation::Missing, _) => Some(ChangeKind::Created),
        (_, Current::Missing) => Some(ChangeKind::Removed),
        (
            Observation::Content { identity } | Observation::Program { identity },
            Current::File { metadata, .. },
        ) => {
            let same = !spoiled && same_bytes(identity, recorded, &metadata.identity, now);
            (!same).then_some(ChangeKind::Modified)
        }
        (Observation::Piece { identity, end }, Current::File { metadata, .. }) => {
            let same = !spoiled
                && (same_bytes(identity, recorded, &metadata.identity, now)
                    || *end <= now.agreement(identity));
            (!same).then_some(ChangeKind::Modified)
        }
        (Observation::Presence { kind, mode }, now) => presence_change(*kind, *mode, now),
        (Observation::Metadata(seen), now) => metadata_change(seen, recorded, now),
        (
            Observation::Listing(seen),
            Current::Folder {
                names: Some(names), ..
            },
        ) => listing_change(seen, names, own),
        (Observation::Link(seen), Current::Link { target, .. }) => {
            // `Path` would take `a/` and `a` for equal; the guest sees them
            // differ.
            (seen.as_os_str() != target.as_os_str()).then_some(ChangeKind::Modified)
        }
        // Another type of file, or a folder whose names could not be read.
        (
            Observation::Content { .. }
            | Observation::Program { .. }
            | Observation::Piece { .. }
            | Observation::Listing(_)
            | Observation::Link(_),
            _,
        ) => Some(ChangeKind::Modified),
    }
}

/// Fingerprints on both sides decide; else only the very same identity proves
/// that the bytes are the same.
pub(crate) fn same_bytes(
    identity: &Identity,
    recorded: Option<&Fingerprint>,
    now_identity: &Identity,
    now: &Current,
) -> bool {
    match (recorded, now.fingerprint()) {
        (Some(then), Some(now)) => then == now,
        _ => identity == now_identity,
    }
}

fn presence_change(kind: FileKind, mode: u32, now: &Current) -> Option<ChangeKind> {
    let Some((kind_now, metadata)) = now.metadata() else {
        return Some(ChangeKind::Removed);
    };
    if kind_now != kind {
        Some(ChangeKind::Modified)
    } else if metadata.mode != mode {
        Some(ChangeKind::Metadata)
    } else {
        None
    }
}

fn metadata_change(
    seen: &Metadata,
    recorded: Option<&Fingerprint>,
    now: &Current,
) -> Option<ChangeKind> {
    let Some((kind, metadata)) = now.metadata() else {
        return Some(ChangeKind::Removed);
    };
    let same_state = match kind {
        // A folder's size and times change with its names, which are a
        // listing's concern. Those of a FIFO or a device change with what
        // passes through it, which is traffic and no edit.
        FileKind::Folder | FileKind::Other => true,
        FileKind::Regular | FileKind::Link => {
            let same_stat = seen.identity.size == metadata.identity.size
                && seen.identity.mtime_ns == metadata.identity.mtime_ns;
            let saved_again = matches!(
                (recorded, now.fingerprint()),
                (Some(then), Some(now)) if then == now
            );
            same_stat || saved_again
        }
    };
    if !same_state {
        return Some(ChangeKind::Modified);
    }
    presence_change(seen.kind, seen.mode, now)
}

fn listing_change(
    seen: &BTreeSet<OsString>,
    now: &BTreeSet<OsString>,
    own: impl Fn(&OsStr) -> bool,
) -> Option<ChangeKind> {
    let added = now.difference(seen).any(|name| !own(name));
    let removed = seen.difference(now).any(|name| !own(name));
    match (added, removed) {
        (false, false) => None,
        (true, false) => Some(ChangeKind::Created),
        (false, true) => Some(ChangeKind::Removed),
        (true, true) => Some(ChangeKind::Modified),
    }
}

/// Whether two observations of one path say the same, so that the second one
/// adds nothing. Stricter than [`contradiction`]: the bytes need not be known.
pub(crate) fn same_fact(
    earlier: &Observation,
    later: &Observation,
    own: impl Fn(&OsStr) -> bool,
) -> bool {
    match (earlier, later) {
        (Observation::Content { identity: a }, Observation::Content { identity: b })
        | (Observation::Program { identity: a }, Observation::Program { identity: b }) => a == b,
        (Observation::Metadata(a), Observation::Metadata(b)) => {
            a.kind == b.kind
                && a.mode == b.mode
                && (matches!(a.kind, FileKind::Folder | FileKind::Other)
                    || a.identity == b.identity)
        }
        (
            Observation::Presence { kind: a, mode: x },
            Observation::Presence { kind: b, mode: y },
        ) => (a, x) == (b, y),
        (Observation::Missing, Observation::Missing) => true,
        (Observation::Listing(a), Observation::Listing(b)) => listing_change(a, b, own).is_none(),
        (Observation::Link(a), Observation::Link(b)) => a.as_os_str() == b.as_os_str(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    const THEN: Fingerprint = [1; 32];
    const OTHER: Fingerprint = [2; 32];

    fn identity(mtime_ns: i128) -> Identity {
        Identity {
            device: 1,
            inode: 2,
            size: 3,
            mtime_ns,
            ctime_ns: mtime_ns,
        }
    }

    fn metadata(kind: FileKind, mode: u32, mtime_ns: i128) -> Metadata {
        Metadata {
            kind,
            mode,
            identity: identity(mtime_ns),
        }
    }

    fn file(mode: u32, mtime_ns: i128, fingerprint: Option<Fingerprint>) -> Current {
        Current::File {
            metadata: metadata(FileKind::Regular, mode, mtime_ns),
            fingerprint,
            agrees: None,
        }
    }

    fn folder(mode: u32, mtime_ns: i128, names: Option<&[&str]>) -> Current {
        Current::Folder {
            metadata: metadata(FileKind::Folder, mode, mtime_ns),
            names: names.map(set),
        }
    }

    fn link(target: &str, mtime_ns: i128) -> Current {
        Current::Link {
            metadata: metadata(FileKind::Link, 0o777, mtime_ns),
            target: PathBuf::from(target),
        }
    }

    fn set(names: &[&str]) -> BTreeSet<OsString> {
        names.iter().map(OsString::from).collect()
    }

    fn verdict(
        seen: &Observation,
        recorded: Option<Fingerprint>,
        now: &Current,
    ) -> Option<ChangeKind> {
        contradiction(seen, recorded.as_ref(), false, now, |_| false)
    }

    #[test]
    fn content_is_contradicted_by_other_bytes_only() {
        for seen in [
            Observation::Content {
                identity: identity(10),
            },
            Observation::Program {
                identity: identity(10),
            },
        ] {
            // Saved again with the same bytes, even with another mode.
            let resaved = file(0o600, 20, Some(THEN));
            assert_eq!(verdict(&seen, Some(THEN), &resaved), None);
            let edited = file(0o644, 20, Some(OTHER));
            assert_eq!(
                verdict(&seen, Some(THEN), &edited),
                Some(ChangeKind::Modified)
            );
            // Without a fingerprint on both sides only the identity can prove it.
            assert_eq!(verdict(&seen, None, &file(0o644, 10, Some(THEN))), None);
            assert_eq!(verdict(&seen, Some(THEN), &file(0o644, 10, None)), None);
            for unproved in [file(0o644, 20, None), folder(0o755, 10, None), link("x", 1)] {
                assert_eq!(
                    verdict(&seen, Some(THEN), &unproved),
                    Some(ChangeKind::Modified)
                );
            }
            assert_eq!(
                verdict(&seen, Some(THEN), &Current::Missing),
                Some(ChangeKind::Removed)
            );
            // A write within one tick of the clock keeps the identity.
            assert_eq!(
                verdict(&seen, Some(THEN), &file(0o644, 10, Some(OTHER))),
                Some(ChangeKind::Modified)
            );
            // Nothing agrees with a file that changed while it was read.
            assert_eq!(
                contradiction(
                    &seen,
                    Some(&THEN),
                    true,
                    &file(0o644, 10, Some(THEN)),
                    |_| false
                ),
                Some(ChangeKind::Modified)
            );
        }
    }

    #[test]
    fn metadata_of_a_file_counts_size_time_mode_unless_it_was_saved_again() {
        let seen = Observation::Metadata(metadata(FileKind::Regular, 0o644, 10));
        assert_eq!(verdict(&seen, None, &file(0o644, 10, None)), None);
        assert_eq!(
            verdict(&seen, Some(THEN), &file(0o644, 20, Some(THEN))),
            None
        );
        for (mode, mtime, recorded, now, change) in [
            (0o755, 10, None, None, ChangeKind::Metadata),
            (0o755, 20, Some(THEN), Some(THEN), ChangeKind::Metadata),
            (0o644, 20, Some(THEN), Some(OTHER), ChangeKind::Modified),
            (0o644, 20, None, Some(THEN), ChangeKind::Modified),
            (0o644, 20, Some(THEN), None, ChangeKind::Modified),
        ] {
            assert_eq!(
                verdict(&seen, recorded, &file(mode, mtime, now)),
                Some(change)
            );
        }
        assert_eq!(
            verdict(&seen, None, &Current::Missing),
            Some(ChangeKind::Removed)
        );
        assert_eq!(
            verdict(&seen, None, &folder(0o644, 10, None)),
            Some(ChangeKind::Modified)
        );
    }

    #[test]
    fn metadata_of_a_folder_or_a_device_counts_kind_and_mode() {
        let seen = Observation::Metadata(metadata(FileKind::Folder, 0o755, 10));
        assert_eq!(verdict(&seen, None, &folder(0o755, 99, None)), None);
        assert_eq!(
            verdict(&seen, None, &folder(0o700, 10, None)),
            Some(ChangeKind::Metadata)
        );
        let seen = Observation::Metadata(metadata(FileKind::Other, 0o600, 10));
        let traffic = Current::Other {
            metadata: metadata(FileKind::Other, 0o600, 99),
        };
        assert_eq!(verdict(&seen, None, &traffic), None);
    }

    #[test]
    fn missing_is_contradicted_by_whatever_is_there() {
        assert_eq!(
            verdict(&Observation::Missing, None, &Current::Missing),
            None
        );
        for now in [file(0, 0, None), folder(0, 0, None), link("x", 0)] {
            assert_eq!(
                verdict(&Observation::Missing, None, &now),
                Some(ChangeKind::Created)
            );
        }
    }

    #[test]
    fn a_listing_is_contradicted_by_names_that_are_not_the_guests_own() {
        let seen = Observation::Listing(set(&["a", "b"]));
        for (names, change) in [
            (&["a", "b"][..], None),
            (&["a", "b", "c"], Some(ChangeKind::Created)),
            (&["a"], Some(ChangeKind::Removed)),
            (&["a", "c"], Some(ChangeKind::Modified)),
            (&["a", "b", "own"], None),
        ] {
            let now = folder(0o755, 99, Some(names));
            assert_eq!(
                contradiction(&seen, None, false, &now, |name| name == "own"),
                change
            );
        }
        assert_eq!(
            verdict(&seen, None, &folder(0o755, 99, None)),
            Some(ChangeKind::Modified)
        );
    }

    #[test]
    fn a_link_is_contradicted_by_another_target_as_written() {
        let seen = Observation::Link(PathBuf::from("to"));
        assert_eq!(verdict(&seen, None, &link("to", 99)), None);
        for now in [link("to/", 1), link("./to", 1), file(0, 0, None)] {
            assert_eq!(verdict(&seen, None, &now), Some(ChangeKind::Modified));
        }
    }
}
