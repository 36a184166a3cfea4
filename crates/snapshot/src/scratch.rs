//! Memory of the guest's for what its tracer passes to the kernel in its calls.
//!
//! What lies below a stack pointer is not free everywhere: the stacks of Go's
//! goroutines, and of other threads that a program schedules by itself, are small
//! and lie amid its heap. So a mapping of its own is made, once a run and only
//! when it is needed.

use crate::Guest;
use tracee::{Remote, RemoteAddr, Stopped, Tracer};

impl Guest {
    /// Maps memory into the guest's first process, one task of which is stopped
    /// before a system call. Answers the task, which makes that call again when it is
    /// let go and stops before it again, and the memory's address. There is no task
    /// if it died, and no address if the guest has no room.
    pub fn map_scratch(
        &mut self,
        tracer: &mut Tracer,
        task: Stopped,
        length: u64,
    ) -> (Option<Stopped>, Option<RemoteAddr>) {
        const ACCESS: i32 = libc::PROT_READ | libc::PROT_WRITE;
        const KIND: i32 = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        let Ok(site) = self.call_site() else {
            return (Some(task), None);
        };
        let Ok(mut remote) = Remote::enter(tracer, self.process, task, site) else {
            return (None, None);
        };
        let arguments = [0, length, ACCESS as u64, KIND as u64, u64::MAX, 0];
        let mapped = remote.call("mmap", libc::SYS_mmap, &arguments);
        (remote.leave().ok(), mapped.ok().map(RemoteAddr))
    }
}
