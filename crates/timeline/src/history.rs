//! All that the current run knows about one path: its facts in order, the
//! fingerprints of the files behind them, and whether the guest has written it.
//!
//! A history can only be extended and shortened at its end, as the timeline is.
//! The rule for one fact is in `rules`.

use std::ffi::OsStr;

use crate::access::{
    AccessIndex, AccessKind, AccessKinds, Current, FileKind, Fingerprint, Identity, Observation,
};
use crate::rules::{self, ChangeKind};

/// One recorded access.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Fact {
    pub(crate) index: AccessIndex,
    pub(crate) seen: Observation,
    /// The kinds of this fact and of all before it in the history.
    kinds: AccessKinds,
    /// The file changed under the guest's reading.
    spoiled: bool,
    /// The guest's first process learned it and asks for a file's size and times only
    /// to read the file later, if it reads it.
    before_reading: bool,
}

impl Fact {
    fn add_to(&self, kinds: AccessKinds) -> AccessKinds {
        if self.is_look() {
            kinds.with_look()
        } else {
            kinds.with(self.seen.kind())
        }
    }

    /// Whether it is of a size and times that count for nobody who reads the file then.
    fn is_look(&self) -> bool {
        self.before_reading && matches!(self.seen, Observation::Metadata(_))
    }
}

/// The facts about one path, oldest first.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct History {
    facts: Vec<Fact>,
    /// Where the guest first wrote the path. What the guest finds there after
    /// that is its own, and follows from earlier facts; only others' names in a
    /// folder that it made are news to it.
    wrote: Option<AccessIndex>,
    /// Each belongs to the identity of a fact: a fingerprint is true for ever,
    /// but of no use once the facts about that file are gone.
    fingerprints: Vec<(Identity, Fingerprint)>,
}

impl History {
    pub(crate) fn is_empty(&self) -> bool {
        self.facts.is_empty() && self.wrote.is_none()
    }

    pub(crate) fn touched(&self) -> bool {
        !self.facts.is_empty()
    }

    pub(crate) fn wrote(&self) -> Option<AccessIndex> {
        self.wrote
    }

    /// Whether only its size and times are known, to no other purpose than to read it.
    pub(crate) fn is_only_looked_at(&self) -> bool {
        self.wrote.is_none()
            && self.kinds().has_look()
            && !self.facts.iter().any(|fact| fact.seen.reads_bytes())
    }

    pub(crate) fn facts(&self) -> &[Fact] {
        &self.facts
    }

    pub(crate) fn knows(&self, kind: AccessKind) -> bool {
        let own = self.wrote.is_some() && kind != AccessKind::Listing;
        own || self.kinds().contains(kind)
    }

    /// Whether the metadata is known, be it only to read the file later.
    pub(crate) fn knows_look(&self) -> bool {
        self.knows(AccessKind::Metadata) || self.kinds().has_look()
    }

    /// Whether any fact is about a file that was there, or a link.
    pub(crate) fn knows_file(&self) -> bool {
        let is_file = |kind| matches!(kind, FileKind::Regular | FileKind::Link);
        self.wrote.is_none()
            && self.facts.iter().any(|fact| match &fact.seen {
                Observation::Metadata(seen) => is_file(seen.kind),
                Observation::Presence { kind, .. } => is_file(*kind),
                _ => false,
            })
    }

    /// The index of the earliest fact that says the same.
    pub(crate) fn find(
        &self,
        seen: &Observation,
        before_reading: bool,
        own: impl Fn(&OsStr) -> bool,
    ) -> Option<AccessIndex> {
        let counts = |fact: &&Fact| before_reading || !fact.is_look();
        let same = |fact: &&Fact| counts(fact) && rules::same_fact(&fact.seen, seen, &own);
        let kinds = self.kinds();
        let may_be_there = kinds.contains(seen.kind()) || before_reading && kinds.has_look();
        if !may_be_there {
            return None;
        }
        self.facts.iter().find(same).map(|fact| fact.index)
    }

    fn kinds(&self) -> AccessKinds {
        self.facts
            .last()
            .map_or_else(AccessKinds::default, |fact| fact.kinds)
    }

    pub(crate) fn push(&mut self, index: AccessIndex, seen: Observation, before_reading: bool) {
        let mut fact = Fact {
            index,
            seen,
            kinds: self.kinds(),
            spoiled: false,
            before_reading,
        };
        fact.kinds = fact.add_to(fact.kinds);
        self.facts.push(fact);
    }

    /// Takes the newest fact back, and the fingerprint that only it needed.
    pub(crate) fn pop(&mut self) {
        self.facts.pop();
        self.forget_fingerprints();
    }

    fn forget_fingerprints(&mut self) {
        let facts = &self.facts;
        self.fingerprints
            .retain(|(of, _)| facts.iter().any(|fact| fact.seen.bytes_of() == Some(of)));
    }

    /// Marks the path as the guest's own from `at` on; false if it was already.
    pub(crate) fn set_wrote(&mut self, at: AccessIndex) -> bool {
        let first = self.wrote.is_none();
        self.wrote.get_or_insert(at);
        first
    }

    pub(crate) fn unset_wrote(&mut self) {
        self.wrote = None;
    }

    pub(crate) fn spoil(&mut self) {
        self.spoil_from(AccessIndex(0));
    }

    /// Only what was read from an access on.
    pub(crate) fn spoil_from(&mut self, from: AccessIndex) {
        for fact in &mut self.facts {
            fact.spoiled |= fact.index >= from && fact.seen.reads_bytes();
        }
    }

    /// How much of the file the guest has read, if it reads it in pieces.
    pub(crate) fn read(&self) -> Option<(Identity, u64)> {
        self.facts.iter().rev().find_map(|fact| match fact.seen {
            Observation::Piece { identity, end } => Some((identity, end)),
            _ => None,
        })
    }

    /// The newest fact is of a piece, and nothing has come between: it is of this one
    /// now.
    pub(crate) fn read_on(&mut self, upto: u64) -> Option<AccessIndex> {
        let newest = self.facts.last_mut().filter(|fact| !fact.spoiled)?;
        match &mut newest.seen {
            Observation::Piece { end, .. } => *end = upto,
            _ => return None,
        }
        Some(newest.index)
    }

    /// Takes the one fact that the whole of this file is known for one that only its
    /// first bytes are; false if more than one says so.
    pub(crate) fn narrow(&mut self, of: &Identity, end: u64) -> bool {
        let mut reading = self.facts.iter_mut().filter(|fact| {
            fact.seen.reads_bytes() && !matches!(fact.seen, Observation::Piece { .. })
        });
        let (Some(fact), None) = (reading.next(), reading.next()) else {
            return false;
        };
        match fact.seen {
            Observation::Content { identity } | Observation::Program { identity }
                if identity == *of && !fact.spoiled =>
            {
                fact.seen = Observation::Piece { identity, end };
            }
            _ => return false,
        }
        let mut kinds = AccessKinds::default();
        for fact in &mut self.facts {
            kinds = fact.add_to(kinds);
            fact.kinds = kinds;
        }
        true
    }

    /// The file has other bytes now, where the guest has not read it: that is the
    /// file that the facts are about.
    pub(crate) fn accept(&mut self, now: Identity, fingerprint: Fingerprint) {
        for fact in &mut self.facts {
            match &mut fact.seen {
                Observation::Piece { identity, .. } => *identity = now,
                Observation::Metadata(metadata) if fact.before_reading => metadata.identity = now,
                _ => {}
            }
        }
        self.set_fingerprint(&now, fingerprint);
        self.forget_fingerprints();
    }

    pub(crate) fn set_fingerprint(&mut self, of: &Identity, fingerprint: Fingerprint) {
        if let Some(known) = self.fingerprint(of) {
            if *known != fingerprint {
                // The bytes changed within one tick of the clock: nobody can
                // say which of them the guest has read.
                self.spoil();
            }
            return;
        }
        let mut about = self
            .facts
            .iter()
            .filter(|fact| fact.seen.bytes_of() == Some(of))
            .peekable();
        // A hash that comes after the file was spoiled may be of any bytes.
        if about.peek().is_some() && !about.any(|fact| fact.spoiled) {
            self.fingerprints.push((*of, fingerprint));
        }
    }

    fn fingerprint(&self, of: &Identity) -> Option<&Fingerprint> {
        self.fingerprints
            .iter()
            .find(|(identity, _)| identity == of)
            .map(|(_, fingerprint)| fingerprint)
    }

    /// Whether the file that the guest saw last still has to be hashed. Those
    /// before it are gone, and nobody can hash them any more.
    pub(crate) fn needs_fingerprint(&self) -> bool {
        let newest = self
            .facts
            .iter()
            .rev()
            .find_map(|fact| Some((fact.seen.bytes_of()?, fact.spoiled)));
        match newest {
            Some((of, spoiled)) => {
                !spoiled && self.wrote.is_none() && self.fingerprint(of).is_none()
            }
            None => false,
        }
    }

    pub(crate) fn wants_content(&self) -> bool {
        self.wrote.is_none() && self.facts.iter().any(|fact| fact.seen.bytes_of().is_some())
    }

    pub(crate) fn wants_names(&self) -> bool {
        self.kinds().contains(AccessKind::Listing)
    }

    /// The earliest fact that does not hold now, and how it fails.
    ///
    /// Of a file that is read in pieces, bytes can be given back: what counts is from
    /// where on the guest has always known more than is the same.
    pub(crate) fn first_contradiction(
        &self,
        now: &Current,
        own: impl Fn(&OsStr) -> bool,
    ) -> Option<(AccessIndex, ChangeKind)> {
        let mut pieces = None;
        for fact in self.counting() {
            match (self.contradiction(fact, now, &own), &fact.seen) {
                (None, Observation::Piece { .. }) => pieces = None,
                (None, _) => {}
                (Some(change), Observation::Piece { .. }) if !fact.spoiled => {
                    pieces.get_or_insert((fact.index, change));
                }
                (Some(change), _) => return Some(pieces.unwrap_or((fact.index, change))),
            }
        }
        pieces
    }

    /// Whether the bytes differ, though nothing that was read of them.
    pub(crate) fn is_unread(&self, now: &Current) -> bool {
        self.read().is_some_and(|(identity, _)| {
            let recorded = self.fingerprint(&identity);
            now.metadata().is_some_and(|(_, metadata)| {
                !rules::same_bytes(&identity, recorded, &metadata.identity, now)
            })
        })
    }

    /// The earliest fact of a size and times, where the file has other times now.
    pub(crate) fn first_outdated(&self, now: &Current) -> Option<AccessIndex> {
        let (_, now) = now.metadata()?;
        let is_outdated = |fact: &&Fact| match &fact.seen {
            Observation::Metadata(seen) => {
                matches!(seen.kind, FileKind::Regular | FileKind::Link)
                    && seen.identity.mtime_ns != now.identity.mtime_ns
                    && !self.is_read_after(fact)
            }
            _ => false,
        };
        self.counting().find(is_outdated).map(|fact| fact.index)
    }

    /// Whether a run that has learned what comes before `position` can go on with the
    /// file as it is now.
    pub(crate) fn holds_before(
        &self,
        position: AccessIndex,
        now: &Current,
        own: impl Fn(&OsStr) -> bool,
    ) -> bool {
        let mut pieces = true;
        for fact in self.counting().take_while(|fact| fact.index < position) {
            let holds = self.contradiction(fact, now, &own).is_none();
            match fact.seen {
                Observation::Piece { .. } if !fact.spoiled => pieces = holds,
                _ if !holds => return false,
                _ => {}
            }
        }
        pieces
    }

    /// The facts that are not about the guest's own work.
    fn counting(&self) -> impl Iterator<Item = &Fact> {
        self.facts.iter().filter(|fact| match self.wrote {
            None => true,
            Some(wrote) => fact.index >= wrote,
        })
    }

    fn contradiction(
        &self,
        fact: &Fact,
        now: &Current,
        own: impl Fn(&OsStr) -> bool,
    ) -> Option<ChangeKind> {
        if let Observation::Metadata(seen) = &fact.seen
            && self.is_read_after(fact)
        {
            let presence = Observation::Presence {
                kind: seen.kind,
                mode: seen.mode,
            };
            return rules::contradiction(&presence, None, false, now, own);
        }
        let recorded = fact.seen.bytes_of().and_then(|of| self.fingerprint(of));
        rules::contradiction(&fact.seen, recorded, fact.spoiled, now, own)
    }

    /// Whether what a fact says of the size and times is nothing to a guest that has
    /// read the file since.
    fn is_read_after(&self, fact: &Fact) -> bool {
        let reads = |later: &Fact| later.before_reading && later.seen.reads_bytes();
        fact.before_reading
            && self
                .facts
                .iter()
                .rev()
                .take_while(|later| later.index > fact.index)
                .any(reads)
    }
}
