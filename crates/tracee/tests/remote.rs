//! A real guest is started, stopped, made to call, and let go.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use rustix::process::getpid;
use tracee::{
    Action, Argument, CallSite, Calls, Command, End, Event, Filter, Remote, RemoteAddr, Report,
    Routine, Rule, Tid, Tracer, vdso_syscall_offset,
};

fn command(arguments: &[&str]) -> Command<'static> {
    Command {
        arguments: arguments.iter().map(Into::into).collect(),
        environment: std::env::vars_os().collect(),
        ..Command::default()
    }
}

/// The address of the guest's system call instruction, by its auxiliary vector.
fn call_site(task: Tid, ignores_trap: bool) -> CallSite {
    let auxv = std::fs::read(format!("/proc/{task}/auxv")).unwrap();
    let words: Vec<u64> = auxv
        .chunks_exact(8)
        .map(|b| u64::from_ne_bytes(b.try_into().unwrap()))
        .collect();
    let base = words
        .chunks_exact(2)
        .find(|pair| pair[0] == libc::AT_SYSINFO_EHDR)
        .unwrap()[1];
    CallSite {
        instruction: RemoteAddr(base + vdso_syscall_offset().unwrap()),
        ignores_trap,
    }
}

#[test]
fn a_call_injected_before_a_call_leaves_no_trace() {
    let mut tracer = Tracer::new();
    let mut filter = Filter::new(Action::Allow);
    filter.add(Rule::always(libc::SYS_openat, Action::Trace(7)));
    let guest = tracer
        .spawn(&command(&["cat", "/proc/self/stat"]), &filter.compile())
        .unwrap();
    let mut injected = 0;
    let mut pass = false;
    loop {
        match tracer.wait().unwrap() {
            Report::Stop(stopped, Event::Seccomp) => {
                let call = stopped.syscall().unwrap();
                assert_eq!((call.call, call.data), (libc::SYS_openat as u64, 7));
                if std::mem::take(&mut pass) {
                    stopped.resume(None).unwrap();
                    continue;
                }
                // Both ways of running over a call, in turn.
                let at = call_site(guest.task, injected % 2 == 1);
                let mut remote = Remote::enter(&mut tracer, guest.task, stopped, at).unwrap();
                let pid = remote.call("getpid", libc::SYS_getpid, &[]).unwrap();
                assert_eq!(pid, guest.task.raw() as u64);
                let refused = remote.call("close", libc::SYS_close, &[999]).unwrap_err();
                assert_eq!(refused.errno(), Some(libc::EBADF));
                let scratch = remote.scratch().unwrap().0;
                remote.call("uname", libc::SYS_uname, &[scratch.0]).unwrap();
                let mut name = [0; 5];
                remote.memory().read(scratch, &mut name).unwrap();
                assert_eq!(&name, b"Linux");
                if !at.ignores_trap {
                    make_a_batch(&mut remote);
                }
                let child = remote.clone(libc::CLONE_PARENT as u64, 0).unwrap();
                let parent =
                    std::fs::read_to_string(format!("/proc/{}/stat", child.tid())).unwrap();
                let parent = parent
                    .rsplit_once(')')
                    .unwrap()
                    .1
                    .split_whitespace()
                    .nth(1)
                    .unwrap();
                assert_eq!(parent, getpid().as_raw_nonzero().to_string());
                tracee::kill_task(child.tid(), libc::SIGKILL);
                remote.tracer().reap(child.tid()).unwrap();
                remote.leave().unwrap().resume(None).unwrap();
                injected += 1;
                pass = true;
            }
            Report::Stop(stopped, Event::Signal(signal)) => stopped.resume(Some(signal)).unwrap(),
            Report::Stop(stopped, _) => stopped.resume(None).unwrap(),
            Report::End(task, end) => {
                assert_eq!((task, end), (guest.task, End::Exited(0)));
                break;
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(injected > 1);
}

/// Makes calls in one go: one of them is stopped by the filter, one fails.
fn make_a_batch(remote: &mut Remote<'_>) {
    let mut good = Calls::default();
    good.add("getpid", libc::SYS_getpid, &[]);
    let path = [
        Argument::Value(libc::AT_FDCWD as u64),
        Argument::Bytes(b"/proc/self/stat\0"),
        Argument::Value(libc::O_RDONLY as u64),
    ];
    good.add("openat", libc::SYS_openat, &path);
    let mut bad = good.clone();
    bad.add("close", libc::SYS_close, &[Argument::Value(999)]);
    bad.add("getpid", libc::SYS_getpid, &[]);
    let all = [good, bad];
    let room = all.iter().map(Calls::size).sum();
    let mut routine = Routine::map(remote, room).unwrap();
    let placed = routine.place(remote.memory(), &all).unwrap();
    let pid = remote.tid().raw() as u64;
    let answers = remote.make_all(&routine, &placed[0]).unwrap();
    assert_eq!(answers[0], pid);
    let failed = remote.make_all(&routine, &placed[1]).unwrap_err();
    assert_eq!(failed.errno(), Some(libc::EBADF));
    // The same, with a stop for each; both ways have opened a file.
    all[0].make_each(remote).unwrap();
    for fd in answers[1]..answers[1] + 3 {
        remote.call("close", libc::SYS_close, &[fd]).unwrap();
    }
    routine.unmap(remote).unwrap();
}

#[test]
fn what_cannot_be_started_is_told_apart() {
    let mut tracer = Tracer::new();
    let filter = Filter::new(Action::Allow).compile();
    let not_found = tracer
        .spawn(&command(&["no-such-program-here"]), &filter)
        .unwrap_err();
    assert!(
        matches!(not_found, tracee::SpawnError::NotFound(_)),
        "{not_found}"
    );
    let refused = tracer
        .spawn(&command(&["/etc/passwd"]), &filter)
        .unwrap_err();
    assert!(
        matches!(refused, tracee::SpawnError::NotExecutable { .. }),
        "{refused}"
    );
}
