//! Seccomp filters that are added while the guest runs: they add up, and are never
//! taken away again.

use crate::{Guest, Refusal};
use tracee::{Program, Remote, Stopped, Tracer};

impl Guest {
    /// Adds a filter to the guest's first process, which has one thread and is
    /// stopped before a system call; its children and its copies have it, too.
    /// Answers the task, which makes that call again when it is let go and stops before
    /// it again, and whether the filter is there. There is no task if it died.
    pub fn install(
        &mut self,
        tracer: &mut Tracer,
        task: Stopped,
        program: &Program,
    ) -> (Option<Stopped>, bool) {
        let Ok(site) = self.call_site() else {
            return (Some(task), false);
        };
        let Ok(mut remote) = Remote::enter(tracer, self.process, task, site) else {
            return (None, false);
        };
        let installed = install(&mut remote, program).is_ok();
        (remote.leave().ok(), installed)
    }
}

/// Adds a filter to the process and all its threads (seccomp(2)).
pub(crate) fn install(remote: &mut Remote<'_>, program: &Program) -> Result<(), Refusal> {
    let at = remote.scratch()?.0;
    // `struct sock_fprog`: a length, padding, and a pointer to what follows.
    let mut memory = (program.length() as u64).to_ne_bytes().to_vec();
    memory.extend((at.0 + 16).to_ne_bytes());
    memory.extend(program.bytes());
    remote.memory().write(at, &memory)?;
    remote.call(
        "seccomp",
        libc::SYS_seccomp,
        &[
            u64::from(libc::SECCOMP_SET_MODE_FILTER),
            libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW,
            at.0,
        ],
    )?;
    Ok(())
}
