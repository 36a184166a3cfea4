//! All that the current run knows about one path: its facts in order, the
//! fingerprints of the files behind them, and whether the guest has written it.
//!
//! A history can only be extended and shortened at its end, as the timeline is.
//! The rule for one fact is in `rules`.

use std::ffi::OsStr;

use crate::access::{
    AccessIndex, AccessKind, AccessKinds, Current, Fingerprint, Identity, Observation,
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

    pub(crate) fn facts(&self) -> &[Fact] {
        &self.facts
    }

    pub(crate) fn knows(&self, kind: AccessKind) -> bool {
        let own = self.wrote.is_some() && kind != AccessKind::Listing;
        own || self.kinds().contains(kind)
    }

    /// The index of the earliest fact that says the same.
    pub(crate) fn find(
        &self,
        seen: &Observation,
        own: impl Fn(&OsStr) -> bool,
    ) -> Option<AccessIndex> {
        if !self.kinds().contains(seen.kind()) {
            return None;
        }
        let same = |fact: &&Fact| rules::same_fact(&fact.seen, seen, &own);
        self.facts.iter().find(same).map(|fact| fact.index)
    }

    fn kinds(&self) -> AccessKinds {
        self.facts
            .last()
            .map_or_else(AccessKinds::default, |fact| fact.kinds)
    }

    pub(crate) fn push(&mut self, index: AccessIndex, seen: Observation) {
        let kinds = self.kinds().with(seen.kind());
        self.facts.push(Fact {
            index,
            seen,
            kinds,
            spoiled: false,
        });
    }

    /// Takes the newest fact back, and the fingerprint that only it needed.
    pub(crate) fn pop(&mut self) {
        self.facts.pop();
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
        for fact in &mut self.facts {
            fact.spoiled |= fact.seen.reads_bytes();
        }
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
    pub(crate) fn first_contradiction(
        &self,
        now: &Current,
        own: impl Fn(&OsStr) -> bool,
    ) -> Option<(AccessIndex, ChangeKind)> {
        let counts = |fact: &&Fact| match self.wrote {
            None => true,
            Some(wrote) => fact.index >= wrote,
        };
        self.facts.iter().filter(counts).find_map(|fact| {
            let recorded = fact.seen.bytes_of().and_then(|of| self.fingerprint(of));
            let change = rules::contradiction(&fact.seen, recorded, fact.spoiled, now, &own)?;
            Some((fact.index, change))
        })
    }
}
