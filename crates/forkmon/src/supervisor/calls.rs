//! System calls: which of them stop, and what each asks for.
//!
//! Pure tables over numbers. What a call's paths mean is `lookup`'s concern,
//! what is done about it that of the files named after it.

use snapshot::Hazard;
use tracee::{Action, Condition, Filter, Program, RemoteAddr, Rule, SyscallStop};

/// A path argument: a folder's fd (or AT_FDCWD) and the address of the path.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub(super) struct At {
    pub(super) folder: i32,
    pub(super) path: RemoteAddr,
}

/// What a lookup tells the guest.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub(super) enum Learns {
    Metadata,
    Link,
    Program,
}

/// An effect with one path; see `journal::Effect`.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub(super) enum OnePath {
    Truncate,
    Unlink,
    RemoveFolder,
    MakeFolder,
    MakeNode,
    SymbolicLink,
    Other(&'static str),
}

/// What a stopped call asks for.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub(super) enum Request {
    /// An open in any form. `flags` as in open(2).
    Open { at: At, flags: i32 },
    /// openat2, whose flags lie in the guest's memory.
    OpenHow { at: At, how: RemoteAddr },
    /// A call that tells something of a path. `empty`: with an empty path it is
    /// about the fd itself, and tells nothing new.
    Look {
        at: At,
        follow: bool,
        empty: bool,
        learns: Learns,
    },
    /// getdents of an open folder.
    List { fd: i32 },
    /// chdir or fchdir (`None`).
    ChangeFolder { to: Option<At> },
    /// An effect with one path.
    Effect { at: At, kind: OnePath },
    /// An effect on what an fd is open on.
    EffectOnFd { fd: i32, what: &'static str },
    /// link or rename.
    TwoPaths {
        from: At,
        to: At,
        rename: bool,
        flags: u32,
    },
    /// bind, which makes a name if the address has a path.
    Bind { address: RemoteAddr, length: u64 },
    /// mmap with MAP_SHARED.
    MapShared {
        fd: i32,
        writable: bool,
        anonymous: bool,
    },
    /// Something that a checkpoint has to know of.
    Note(Hazard),
    /// sigaltstack or set_tid_address.
    ChangesThread,
    /// A call that takes or answers ids, in a run where they differ.
    Identity,
}

const CWD: i32 = libc::AT_FDCWD;

fn at(arguments: &[u64; 6], folder: usize) -> At {
    At {
        folder: arguments[folder] as i32,
        path: RemoteAddr(arguments[folder + 1]),
    }
}

fn here(arguments: &[u64; 6], path: usize) -> At {
    At {
        folder: CWD,
        path: RemoteAddr(arguments[path]),
    }
}

fn look(at: At, follow: bool, learns: Learns) -> Request {
    Request::Look {
        at,
        follow,
        empty: false,
        learns,
    }
}

fn look_by_flags(at: At, flags: u64, learns: Learns) -> Request {
    let flags = flags as i32;
    Request::Look {
        at,
        follow: flags & libc::AT_SYMLINK_NOFOLLOW == 0,
        empty: flags & libc::AT_EMPTY_PATH != 0,
        learns,
    }
}

/// What a stopped call asks for; `None` if it can just run on.
pub(super) fn decode(stop: &SyscallStop) -> Option<Request> {
    if !stop.native {
        return Some(Request::Note(Hazard::ForeignCalls));
    }
    if stop.data == IDENTITY {
        return Some(Request::Identity);
    }
    let a = &stop.arguments;
    let effect = |at, kind| Request::Effect { at, kind };
    let other = |at, what| Request::Effect {
        at,
        kind: OnePath::Other(what),
    };
    let on_fd = |what| Request::EffectOnFd {
        fd: a[0] as i32,
        what,
    };
    use Learns::{Link, Metadata, Program};
    Some(match stop.call as i64 {
        libc::SYS_open => Request::Open {
            at: here(a, 0),
            flags: a[1] as i32,
        },
        libc::SYS_openat => Request::Open {
            at: at(a, 0),
            flags: a[2] as i32,
        },
        libc::SYS_openat2 => Request::OpenHow {
            at: at(a, 0),
            how: RemoteAddr(a[2]),
        },
        libc::SYS_creat => Request::Open {
            at: here(a, 0),
            flags: libc::O_CREAT | libc::O_WRONLY | libc::O_TRUNC,
        },
        libc::SYS_stat | libc::SYS_access | libc::SYS_getxattr | libc::SYS_listxattr => {
            look(here(a, 0), true, Metadata)
        }
        libc::SYS_lstat | libc::SYS_lgetxattr | libc::SYS_llistxattr => {
            look(here(a, 0), false, Metadata)
        }
        libc::SYS_newfstatat => look_by_flags(at(a, 0), a[3], Metadata),
        libc::SYS_statx => look_by_flags(at(a, 0), a[2], Metadata),
        libc::SYS_faccessat => look(at(a, 0), true, Metadata),
        libc::SYS_faccessat2 => look_by_flags(at(a, 0), a[3], Metadata),
        libc::SYS_inotify_add_watch => look(here(a, 1), true, Metadata),
        libc::SYS_readlink => look(here(a, 0), false, Link),
        libc::SYS_readlinkat => Request::Look {
            at: at(a, 0),
            follow: false,
            empty: true,
            learns: Link,
        },
        libc::SYS_execve => look(here(a, 0), true, Program),
        libc::SYS_execveat => look_by_flags(at(a, 0), a[4], Program),
        libc::SYS_getdents | libc::SYS_getdents64 => Request::List { fd: a[0] as i32 },
        libc::SYS_chdir => Request::ChangeFolder {
            to: Some(here(a, 0)),
        },
        libc::SYS_fchdir => Request::ChangeFolder { to: None },

        libc::SYS_truncate => effect(here(a, 0), OnePath::Truncate),
        libc::SYS_unlink => effect(here(a, 0), OnePath::Unlink),
        libc::SYS_unlinkat if a[2] as i32 & libc::AT_REMOVEDIR != 0 => {
            effect(at(a, 0), OnePath::RemoveFolder)
        }
        libc::SYS_unlinkat => effect(at(a, 0), OnePath::Unlink),
        libc::SYS_rmdir => effect(here(a, 0), OnePath::RemoveFolder),
        libc::SYS_mkdir => effect(here(a, 0), OnePath::MakeFolder),
        libc::SYS_mkdirat => effect(at(a, 0), OnePath::MakeFolder),
        libc::SYS_mknod => effect(here(a, 0), OnePath::MakeNode),
        libc::SYS_mknodat => effect(at(a, 0), OnePath::MakeNode),
        libc::SYS_symlink => effect(here(a, 1), OnePath::SymbolicLink),
        libc::SYS_symlinkat => effect(at(a, 1), OnePath::SymbolicLink),
        libc::SYS_rename => two(here(a, 0), here(a, 1), true, 0),
        libc::SYS_renameat => two(at(a, 0), at(a, 2), true, 0),
        libc::SYS_renameat2 => two(at(a, 0), at(a, 2), true, a[4] as u32),
        libc::SYS_link => two(here(a, 0), here(a, 1), false, 0),
        libc::SYS_linkat => two(at(a, 0), at(a, 2), false, a[4] as u32),
        libc::SYS_chmod => other(here(a, 0), "the mode"),
        libc::SYS_fchmodat | FCHMODAT2 => other(at(a, 0), "the mode"),
        libc::SYS_chown | libc::SYS_lchown => other(here(a, 0), "the owner"),
        libc::SYS_fchownat => other(at(a, 0), "the owner"),
        libc::SYS_utime | libc::SYS_utimes => other(here(a, 0), "the times"),
        libc::SYS_utimensat if a[1] == 0 => on_fd("the times"),
        libc::SYS_utimensat | libc::SYS_futimesat => other(at(a, 0), "the times"),
        libc::SYS_setxattr | libc::SYS_lsetxattr => other(here(a, 0), "an attribute"),
        libc::SYS_removexattr | libc::SYS_lremovexattr => other(here(a, 0), "an attribute"),
        SETXATTRAT | REMOVEXATTRAT => other(at(a, 0), "an attribute"),
        GETXATTRAT | LISTXATTRAT => look_by_flags(at(a, 0), a[2], Metadata),
        libc::SYS_fchmod => on_fd("the mode"),
        libc::SYS_fchown => on_fd("the owner"),
        libc::SYS_fsetxattr | libc::SYS_fremovexattr => on_fd("an attribute"),
        libc::SYS_bind => Request::Bind {
            address: RemoteAddr(a[1]),
            length: a[2],
        },

        libc::SYS_mmap => Request::MapShared {
            fd: a[4] as i32,
            writable: a[2] as i32 & libc::PROT_WRITE != 0,
            anonymous: a[3] as i32 & libc::MAP_ANONYMOUS != 0,
        },
        libc::SYS_shmat => Request::Note(Hazard::SharedMappings),
        libc::SYS_setitimer | libc::SYS_alarm => Request::Note(Hazard::IntervalTimers),
        libc::SYS_timer_create => Request::Note(Hazard::PosixTimers),
        libc::SYS_semget | libc::SYS_msgget => Request::Note(Hazard::SystemV),
        libc::SYS_futex => Request::Note(Hazard::PriorityInheritance),
        libc::SYS_seccomp | libc::SYS_prctl => Request::Note(Hazard::OwnFilter),
        libc::SYS_ptrace => Request::Note(Hazard::Tracing),
        libc::SYS_unshare
        | libc::SYS_setns
        | libc::SYS_chroot
        | libc::SYS_pivot_root
        | libc::SYS_mount
        | libc::SYS_clone
        | libc::SYS_open_by_handle_at => Request::Note(Hazard::OtherNamespace),
        libc::SYS_sigaltstack | libc::SYS_set_tid_address => Request::ChangesThread,
        _ => return None,
    })
}

fn two(from: At, to: At, rename: bool, flags: u32) -> Request {
    Request::TwoPaths {
        from,
        to,
        rename,
        flags,
    }
}

// Newer than the libc crate's list (include/uapi/asm-generic/unistd.h).
const FCHMODAT2: i64 = 452;
const SETXATTRAT: i64 = 463;
const GETXATTRAT: i64 = 464;
const LISTXATTRAT: i64 = 465;
const REMOVEXATTRAT: i64 = 466;

/// The futex operations with priority inheritance (futex(2)).
const INHERITING_FUTEX_CALLS: [u32; 6] = [6, 7, 8, 11, 12, 13];

/// The operation of a futex call, without its flags.
const FUTEX_OPERATION: u32 = 0x7f;

/// What the filters' rules carry, so that the two can be told apart.
const PLAIN: u16 = 0;
const IDENTITY: u16 = 1;

/// Namespace flags of clone(2).
const NEW_NAMESPACES: u32 = (libc::CLONE_NEWNS
    | libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWCGROUP) as u32;

/// The filter of the whole guest.
pub(super) fn filter() -> Program {
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
            Condition::Equal {
                argument: 2,
                value: libc::MADV_DONTFORK as u32,
            },
            Action::Errno(0),
        ),
        (
            libc::SYS_madvise,
            Condition::Equal {
                argument: 2,
                value: libc::MADV_WIPEONFORK as u32,
            },
            Action::Errno(libc::EINVAL as u16),
        ),
        (
            // A process that is not dumpable could not be looked into.
            libc::SYS_prctl,
            Condition::Equal {
                argument: 0,
                value: libc::PR_SET_DUMPABLE as u32,
            },
            Action::Errno(0),
        ),
        (
            libc::SYS_prctl,
            Condition::Equal {
                argument: 0,
                value: libc::PR_SET_SECCOMP as u32,
            },
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
    for operation in INHERITING_FUTEX_CALLS {
        let condition = Condition::Masked {
            argument: 1,
            mask: FUTEX_OPERATION,
            value: operation,
        };
        filter.add(Rule::when(libc::SYS_futex, &[condition], trace));
    }
    for call in TRACED {
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
        let condition = Condition::Equal { argument, value };
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
    libc::SYS_shmat,
    libc::SYS_semget,
    libc::SYS_msgget,
    libc::SYS_open_by_handle_at,
    SETXATTRAT,
    GETXATTRAT,
    LISTXATTRAT,
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
    libc::SYS_sigaltstack,
    libc::SYS_set_tid_address,
];
