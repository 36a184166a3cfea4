//! Listings of the folders in which the journal's own folders lie: as a rule the guest
//! never looks there; where it does, it does not see them.
//!
//! What a listing tells the guest is recorded by `access`.

use super::Supervisor;
use super::calls::Listing;
use super::run::Pending;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use tracee::{AddressSpace, Stopped};

/// Where the length of an entry stands in it (getdents(2)).
const LENGTH_AT: usize = 16;

impl Supervisor<'_> {
    /// Lets a call list a folder.
    pub(super) fn let_list(
        &mut self,
        task: Stopped,
        folder: &Path,
        into: Listing,
    ) -> anyhow::Result<()> {
        let own = self.journal.folders();
        let hidden: Vec<OsString> = own
            .filter(|own| own.parent() == Some(folder))
            .filter_map(|own| own.file_name().map(OsStr::to_owned))
            .collect();
        if hidden.is_empty() {
            return Ok(task.resume(None)?);
        }
        let call = task.syscall()?.call;
        let pending = Pending::Listing { into, hidden, call };
        self.run.wait_for_answer(task.tid(), pending);
        Ok(task.resume_to_syscall()?)
    }
}

/// Takes names out of what a call has listed. If nothing is left of it, the call is made
/// again, since nothing at all is a folder's end.
pub(super) fn leave_out(
    task: &Stopped,
    into: Listing,
    hidden: &[OsString],
    call: u64,
) -> anyhow::Result<()> {
    let mut registers = task.registers()?;
    let Ok(length) = usize::try_from(registers.return_value()) else {
        return Ok(());
    };
    let memory = AddressSpace::of(task.tid());
    let mut listed = vec![0; length];
    // Another thread may have taken the memory away: there is nothing to leave out then.
    if memory.read(into.buffer, &mut listed).is_err() {
        return Ok(());
    }
    let Some(left) = without(&listed, into.name, hidden) else {
        return Ok(());
    };
    if left.is_empty() {
        registers.rewind_call(call);
    } else if memory.write(into.buffer, &left).is_ok() {
        registers.set_return_value(i64::try_from(left.len())?);
    }
    Ok(task.set_registers(&registers)?)
}

/// The entries with other names; `None` if there are no others, or it is no listing.
fn without(listed: &[u8], name_at: usize, hidden: &[OsString]) -> Option<Vec<u8>> {
    let mut left = Vec::with_capacity(listed.len());
    let mut rest = listed;
    while !rest.is_empty() {
        let length = rest.get(LENGTH_AT..LENGTH_AT + 2)?;
        let length = usize::from(u16::from_ne_bytes([length[0], length[1]]));
        let entry = rest.get(..length).filter(|entry| entry.len() > name_at)?;
        let name = entry[name_at..].split(|&byte| byte == 0).next()?;
        if !hidden
            .iter()
            .any(|hidden| hidden == OsStr::from_bytes(name))
        {
            left.extend_from_slice(entry);
        }
        rest = &rest[length..];
    }
    (left.len() < listed.len()).then_some(left)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn entry(name: &str, name_at: usize) -> Vec<u8> {
        let length = (name_at + name.len() + 2).next_multiple_of(8);
        let mut entry = vec![7; length];
        entry[LENGTH_AT..LENGTH_AT + 2].copy_from_slice(&(length as u16).to_ne_bytes());
        entry[name_at..].fill(0);
        entry[name_at..name_at + name.len()].copy_from_slice(name.as_bytes());
        entry
    }

    #[test]
    fn only_hidden_names_are_left_out() {
        for name_at in [18, 19] {
            let listing = |names: &[&str]| -> Vec<u8> {
                names.iter().flat_map(|name| entry(name, name_at)).collect()
            };
            let hidden = [OsString::from(".forkmon-1"), OsString::from(".forkmon-2")];
            let without = |names: &[&str]| without(&listing(names), name_at, &hidden);
            assert_eq!(without(&["a", ".forkmon-10", "b"]), None);
            assert_eq!(
                without(&[".forkmon-1", "a", ".forkmon-2", "long name"]),
                Some(listing(&["a", "long name"]))
            );
            assert_eq!(without(&[".forkmon-2"]), Some(Vec::new()));
            assert_eq!(without(&[]), None);
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_no_harm(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let left = without(&bytes, 19, &[OsString::from("a")]);
            prop_assert!(left.is_none_or(|left| left.len() < bytes.len()));
        }
    }
}
