//! The seccomp filters: which system calls stop the guest, and which are answered
//! at once.
//!
//! Pure tables over numbers. What a stopped call asks for is `calls`' concern.

use super::calls::{
    ATTRIBUTES, CREDENTIALS, FCHMODAT2, FILE_GETATTR, FILE_SETATTR, FLAG_REQUESTS, GETXATTRAT,
    LISTXATTRAT,
};
use super::calls::{IDENTITY, REMOVEXATTRAT, SETXATTRAT};
use tracee::{Action, Condition, Filter, Program, Rule};

/// The futex operations with priority inheritance (futex(2)).
const INHERITING_FUTEX_CALLS: [u32; 6] = [6, 7, 8, 11, 12, 13];

/// The operation of a futex call, without its flags.
const FUTEX_OPERATION: u32 = 0x7f;

/// What the rules of the whole guest's filter carry; those of the identity filter
/// carry [`IDENTITY`].
const PLAIN: u16 = 0;

/// Locks that stay with the open file (fcntl(2)).
const OPEN_FILE_LOCKS: [i32; 2] = [libc::F_OFD_SETLK, libc::F_OFD_SETLKW];

/// The requests of ioctl that set a terminal's modes (ioctl_tty(2)): TCSETS, TCSETSW
/// and TCSETSF, for `termio` and `termios2` too.
const SETS_MODES: [u32; 9] = [
    0x5402,
    0x5403,
    0x5404,
    0x5406,
    0x5407,
    0x5408,
    0x402c_542b,
    0x402c_542c,
    0x402c_542d,
];

/// A process that has its calls turned into signals could not make those of its
/// tracer (prctl(2)).
const PR_SET_SYSCALL_USER_DISPATCH: i32 = 59;

/// Namespace flags of clone(2).
const NEW_NAMESPACES: u32 = (libc::CLONE_NEWNS
    | libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWCGROUP) as u32;

/// The filter of the whole guest. It stops a change of a terminal's modes only where
/// forkmon has to know of one.
pub(super) fn filter(sees_modes: bool) -> Program {
    let trace = Action::Trace(PLAIN);
    let mut filter = Filter::new(trace);
    // Calls whose answer depends on arguments come first: the kernel does not
    // remember an answer for them, and they are frequent.
    for (call, conditions, action) in [
        (
            libc::SYS_mmap,
            Condition::AnyBit {
                argument: 3,
                mask: libc::MAP_SHARED as u32,
            },
            trace,
        ),
        (
            libc::SYS_madvise,
            Condition::equal(2, libc::MADV_DONTFORK as u32),
            Action::Errno(0),
        ),
        (
            libc::SYS_madvise,
            Condition::equal(2, libc::MADV_WIPEONFORK as u32),
            Action::Errno(libc::EINVAL as u16),
        ),
        (
            // A process that is not dumpable could not be looked into.
            libc::SYS_prctl,
            Condition::equal(0, libc::PR_SET_DUMPABLE as u32),
            Action::Errno(0),
        ),
        (
            libc::SYS_prctl,
            Condition::equal(0, libc::PR_SET_SECCOMP as u32),
            trace,
        ),
        (
            libc::SYS_clone,
            Condition::AnyBit {
                argument: 0,
                mask: NEW_NAMESPACES,
            },
            trace,
        ),
        (
            libc::SYS_sigaltstack,
            Condition::Zero { argument: 0 },
            Action::Allow,
        ),
    ] {
        filter.add(Rule::when(call, &[conditions], action));
    }
    for request in SETS_MODES.iter().filter(|_| sees_modes) {
        let condition = Condition::equal(1, *request);
        filter.add(Rule::when(libc::SYS_ioctl, &[condition], trace));
    }
    for command in OPEN_FILE_LOCKS {
        let condition = Condition::equal(1, command as u32);
        filter.add(Rule::when(libc::SYS_fcntl, &[condition], trace));
    }
    for option in ATTRIBUTES.iter().chain(&[PR_SET_SYSCALL_USER_DISPATCH]) {
        let condition = Condition::equal(0, *option as u32);
        filter.add(Rule::when(libc::SYS_prctl, &[condition], trace));
    }
    for request in FLAG_REQUESTS {
        let condition = Condition::Equal {
            argument: 1,
            value: request,
        };
        filter.add(Rule::when(libc::SYS_ioctl, &[condition], trace));
    }
    for operation in INHERITING_FUTEX_CALLS {
        let condition = Condition::Masked {
            argument: 1,
            mask: FUTEX_OPERATION,
            value: operation,
        };
        filter.add(Rule::when(libc::SYS_futex, &[condition], trace));
    }
    for call in TRACED.iter().chain(CREDENTIALS) {
        filter.add(Rule::always(*call, trace));
    }
    for call in [libc::SYS_io_uring_setup, libc::SYS_io_setup] {
        filter.add(Rule::always(call, Action::Errno(libc::ENOSYS as u16)));
    }
    filter.compile()
}

/// The filter that is added to a resumed run.
pub(super) fn identity_filter() -> Program {
    let mut filter = Filter::new(Action::Allow);
    let trace = Action::Trace(IDENTITY);
    for (call, argument, value) in super::identity::translated_requests() {
        let condition = Condition::equal(argument, value);
        filter.add(Rule::when(call, &[condition], trace));
    }
    for call in super::identity::TRANSLATED {
        filter.add(Rule::always(*call, trace));
    }
    filter.compile()
}

const TRACED: &[i64] = &[
    libc::SYS_openat,
    libc::SYS_newfstatat,
    libc::SYS_stat,
    libc::SYS_lstat,
    libc::SYS_open,
    libc::SYS_access,
    libc::SYS_readlink,
    libc::SYS_getdents64,
    libc::SYS_statx,
    libc::SYS_openat2,
    libc::SYS_creat,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_readlinkat,
    libc::SYS_getdents,
    libc::SYS_getxattr,
    libc::SYS_lgetxattr,
    libc::SYS_listxattr,
    libc::SYS_llistxattr,
    libc::SYS_inotify_add_watch,
    libc::SYS_fanotify_mark,
    libc::SYS_statfs,
    libc::SYS_name_to_handle_at,
    libc::SYS_open_tree,
    libc::SYS_connect,
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_chdir,
    libc::SYS_fchdir,
    libc::SYS_truncate,
    libc::SYS_unlink,
    libc::SYS_unlinkat,
    libc::SYS_rmdir,
    libc::SYS_mkdir,
    libc::SYS_mkdirat,
    libc::SYS_mknod,
    libc::SYS_mknodat,
    libc::SYS_symlink,
    libc::SYS_symlinkat,
    libc::SYS_rename,
    libc::SYS_renameat,
    libc::SYS_renameat2,
    libc::SYS_link,
    libc::SYS_linkat,
    libc::SYS_chmod,
    libc::SYS_fchmod,
    libc::SYS_fchmodat,
    FCHMODAT2,
    libc::SYS_chown,
    libc::SYS_lchown,
    libc::SYS_fchown,
    libc::SYS_fchownat,
    libc::SYS_utime,
    libc::SYS_utimes,
    libc::SYS_utimensat,
    libc::SYS_futimesat,
    libc::SYS_setxattr,
    libc::SYS_lsetxattr,
    libc::SYS_fsetxattr,
    libc::SYS_removexattr,
    libc::SYS_lremovexattr,
    libc::SYS_fremovexattr,
    libc::SYS_bind,
    libc::SYS_listen,
    libc::SYS_shmget,
    libc::SYS_shmat,
    libc::SYS_mq_open,
    libc::SYS_flock,
    libc::SYS_semget,
    libc::SYS_msgget,
    libc::SYS_open_by_handle_at,
    SETXATTRAT,
    GETXATTRAT,
    LISTXATTRAT,
    FILE_GETATTR,
    FILE_SETATTR,
    REMOVEXATTRAT,
    libc::SYS_setitimer,
    libc::SYS_alarm,
    libc::SYS_timer_create,
    libc::SYS_seccomp,
    libc::SYS_ptrace,
    libc::SYS_unshare,
    libc::SYS_setns,
    libc::SYS_chroot,
    libc::SYS_pivot_root,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_move_mount,
    libc::SYS_sigaltstack,
    libc::SYS_set_tid_address,
];
