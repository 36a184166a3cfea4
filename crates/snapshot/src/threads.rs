//! Making the further threads of a copy, each with the calls that bring its state
//! back made.

use crate::Refusal;
use crate::thread::ThreadState;
use tracee::Argument::Value;
use tracee::{CallSite, Calls, Remote, Routine, Stopped};

const THREAD: u64 = (libc::CLONE_VM
    | libc::CLONE_FS
    | libc::CLONE_FILES
    | libc::CLONE_SIGHAND
    | libc::CLONE_THREAD
    | libc::CLONE_SYSVSEM) as u64;

/// With a stop for each call.
pub(crate) fn one_by_one(
    leader: &mut Remote<'_>,
    site: CallSite,
    first: &ThreadState,
    states: &[ThreadState],
) -> Result<Vec<Stopped>, Refusal> {
    let process = leader.tid();
    let mut newborn = Vec::with_capacity(states.len());
    for state in states {
        newborn.push(leader.clone(THREAD, state.clear_child_tid())?);
    }
    let mut threads = Vec::with_capacity(states.len());
    for (state, task) in states.iter().zip(newborn) {
        let calls = state.calls(process, task.tid(), Some(first));
        let mut remote = Remote::enter(leader.tracer(), process, task, site)?;
        calls.make_each(&mut remote)?;
        threads.push(remote.leave()?);
    }
    Ok(threads)
}

/// All calls of a thread, and all clones, in one go: three stops a thread. `None` if
/// the copy may not map what that takes (PR_SET_MDWE, a limit).
pub(crate) fn all_at_once(
    leader: &mut Remote<'_>,
    first: &ThreadState,
    states: &[ThreadState],
) -> Result<Option<Vec<Stopped>>, Refusal> {
    let process = leader.tid();
    let mut clones = Calls::default();
    for state in states {
        let flags = THREAD | libc::CLONE_CHILD_CLEARTID as u64;
        let cleared = state.clear_child_tid();
        let arguments = [flags, 0, 0, cleared, 0].map(Value);
        clones.add("clone", libc::SYS_clone, &arguments);
    }
    // Their ids are not known yet, and change nothing of the sizes.
    let sizes = states
        .iter()
        .map(|state| state.calls(process, process, Some(first)).size());
    let room = clones.size() + sizes.sum::<u64>();
    let mut routine = match Routine::map(leader, room) {
        Ok(routine) => routine,
        Err(tracee::Error::Call { .. }) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let clones = [clones];
    let placed = routine.place(leader.memory(), &clones)?;
    let newborn = leader.clone_all(&routine, &placed[0])?;
    let calls: Vec<Calls> = states
        .iter()
        .zip(&newborn)
        .map(|(state, task)| state.calls(process, task.tid(), Some(first)))
        .collect();
    let placed = routine.place(leader.memory(), &calls)?;
    let registers = leader.registers().clone();
    let mut tids = Vec::with_capacity(newborn.len());
    for (task, calls) in newborn.into_iter().zip(&placed) {
        tids.push(task.tid());
        routine.begin(task, &registers, calls)?;
    }
    let mut threads = Vec::with_capacity(tids.len());
    for (tid, calls) in tids.into_iter().zip(&placed) {
        let task = routine.finish(leader.tracer(), tid)?;
        calls.answers(&task)?;
        threads.push(task);
    }
    routine.unmap(leader)?;
    Ok(Some(threads))
}
