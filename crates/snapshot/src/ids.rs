//! The ids that the guest knows, and the kernel's.
//!
//! A resumed process has a new id, but its memory remembers the old one. The
//! guest always sees its *virtual* ids: those that its tasks had when it first
//! saw them. In a first run the two are equal and nothing is translated.

use std::collections::HashMap;
use std::fmt;
use tracee::Tid;

/// An id as the guest knows it, of a thread, a process or a process group.
#[derive(Copy, Clone, Eq, PartialEq, Ord, PartialOrd, Hash, Debug)]
pub struct VirtualPid(pub i32);

impl fmt::Display for VirtualPid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The pairs of ids that differ; all others are the same on both sides.
#[derive(Clone, Default, Debug)]
pub struct Ids {
    to_real: HashMap<VirtualPid, Tid>,
    to_virtual: HashMap<Tid, VirtualPid>,
}

impl Ids {
    /// Whether any id differs, so that calls must be translated at all.
    #[must_use]
    pub fn differ(&self) -> bool {
        !self.to_real.is_empty()
    }

    /// What the kernel calls a task that the guest calls `id`.
    #[must_use]
    pub fn real(&self, id: VirtualPid) -> Tid {
        self.to_real.get(&id).copied().unwrap_or(Tid::new(id.0))
    }

    /// What the guest calls a task that the kernel calls `id`.
    #[must_use]
    pub fn to_virtual(&self, id: Tid) -> VirtualPid {
        self.to_virtual
            .get(&id)
            .copied()
            .unwrap_or(VirtualPid(id.raw()))
    }

    /// Whether a new task's id is one that the guest knows another task by, so
    /// that it could not be told apart from it.
    #[must_use]
    pub fn collides(&self, new: Tid) -> bool {
        !self.to_virtual.contains_key(&new) && self.to_real.contains_key(&VirtualPid(new.raw()))
    }

    /// Forgets a thread that has ended: its ids may be given to others, which have
    /// to be told from it.
    pub fn forget(&mut self, real: Tid) {
        if let Some(id) = self.to_virtual.remove(&real)
            && self.to_real.get(&id) == Some(&real)
        {
            self.to_real.remove(&id);
        }
    }

    /// Forgets all but one: the first process has executed a program, and has no
    /// other thread.
    pub fn forget_all_but(&mut self, real: Tid) {
        self.to_virtual.retain(|known, _| *known == real);
        self.to_real.retain(|_, known| *known == real);
    }

    /// Adds a pair.
    pub(crate) fn bind(&mut self, id: VirtualPid, real: Tid) {
        self.to_real.insert(id, real);
        self.to_virtual.insert(real, id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unbound_ids_are_the_same_on_both_sides() {
        let mut ids = Ids::default();
        assert!(!ids.differ());
        assert_eq!(ids.real(VirtualPid(7)), Tid::new(7));
        ids.bind(VirtualPid(7), Tid::new(70));
        assert!(ids.differ());
        assert_eq!(ids.real(VirtualPid(7)), Tid::new(70));
        assert_eq!(ids.to_virtual(Tid::new(70)), VirtualPid(7));
        assert_eq!(ids.to_virtual(Tid::new(8)), VirtualPid(8));
        assert!(
            ids.collides(Tid::new(7)),
            "a new task 7 would look like task 70"
        );
        assert!(!ids.collides(Tid::new(70)));
        assert!(!ids.collides(Tid::new(8)));
    }

    /// A thread that got the id of a dead one was taken for that one.
    #[test]
    fn the_ids_of_a_dead_thread_are_free_again() {
        let mut ids = Ids::default();
        ids.bind(VirtualPid(7), Tid::new(70));
        ids.bind(VirtualPid(8), Tid::new(80));
        ids.forget(Tid::new(80));
        assert_eq!(ids.to_virtual(Tid::new(80)), VirtualPid(80));
        assert_eq!(ids.real(VirtualPid(8)), Tid::new(8));
        assert!(!ids.collides(Tid::new(8)));
        assert_eq!(ids.to_virtual(Tid::new(70)), VirtualPid(7));
        ids.bind(VirtualPid(9), Tid::new(90));
        ids.forget_all_but(Tid::new(70));
        assert_eq!(ids.to_virtual(Tid::new(90)), VirtualPid(90));
        assert_eq!(ids.real(VirtualPid(7)), Tid::new(70));
    }
}
