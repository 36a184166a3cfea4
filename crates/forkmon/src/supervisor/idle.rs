//! The checkpoint of a server: it stands where the server first waits for clients
//! and has none, so that an edit to what it reads only when it is asked resumes
//! from there. At its accesses there is a connection open, which no checkpoint
//! can hold.

use super::Supervisor;
use super::inbox::Timed;
use snapshot::Refusal;
use std::fs;
use std::time::Duration;
use tracee::Tid;

/// A server is looked at this long after it began to listen, and less often each
/// time, since no call tells when it has no client left.
const FIRST_LOOK: Duration = Duration::from_millis(20);
const LAST_LOOK: Duration = Duration::from_secs(2);

/// The calls in which servers wait for clients.
const WAITING: [i64; 9] = [
    libc::SYS_accept,
    libc::SYS_accept4,
    libc::SYS_epoll_wait,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_pwait2,
    libc::SYS_poll,
    libc::SYS_ppoll,
    libc::SYS_select,
    libc::SYS_pselect6,
];

impl Supervisor<'_> {
    /// A process of the guest begins to listen for clients.
    pub(super) fn listens(&mut self, process: Tid) {
        if !self.config.once && process == self.run.root() && !self.run.listens {
            self.run.listens = true;
            self.look_again_after(FIRST_LOOK);
        }
    }

    fn look_again_after(&self, wait: Duration) {
        let run = self.run.number;
        self.bell.after(wait, Timed::Idle { run, wait });
    }

    /// Takes the checkpoint if the server waits, or looks again later.
    pub(super) fn look_for_idleness(&mut self, run: u64, wait: Duration) {
        if run != self.run.number || !self.run.is_alive() || self.run.barred {
            return;
        }
        if waits_for_clients(self.run.root()) {
            match self.freeze_anywhere(false) {
                Ok(_) => return,
                // These are over soon, or when the client is gone.
                Err(
                    Refusal::Late
                    | Refusal::Passing
                    | Refusal::Died
                    | Refusal::Unsupported {
                        code: "child-alive" | "connection",
                        ..
                    },
                ) => {}
                Err(refusal) => {
                    let text = format!("no checkpoint is taken: {refusal}");
                    self.warn(refusal.code(), &text);
                }
            }
        }
        self.look_again_after((wait * 2).min(LAST_LOOK));
    }
}

/// Whether all threads of a process sleep, and one of them where servers do.
fn waits_for_clients(process: Tid) -> bool {
    let Ok(threads) = fs::read_dir(format!("/proc/{process}/task")) else {
        return false;
    };
    let mut waits = false;
    for thread in threads.flatten() {
        // proc(5): the number of the call, or "running".
        let Ok(call) = fs::read_to_string(thread.path().join("syscall")) else {
            return false;
        };
        let Some(Ok(number)) = call.split_whitespace().next().map(str::parse::<i64>) else {
            return false;
        };
        waits |= WAITING.contains(&number);
    }
    waits
}
