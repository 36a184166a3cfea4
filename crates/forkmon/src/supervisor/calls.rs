//! What a stopped system call asks for.
//!
//! A pure table over numbers. Which calls stop is `filter`'s concern, what a call's
//! paths mean `lookup`'s, what is done about it that of the files named after it.

use super::reader::READS;
use super::walk::Last;
use snapshot::Hazard;
use tracee::{RemoteAddr, SyscallStop};

/// A path argument: a folder's fd (or AT_FDCWD) and the address of the path.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub(super) struct At {
    pub(super) folder: i32,
    pub(super) path: RemoteAddr,
}

/// Where a listing is written to.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub(super) struct Listing {
    pub(super) buffer: RemoteAddr,
    /// Where in each entry the name begins (getdents(2)).
    pub(super) name: usize,
}

/// What a lookup tells the guest.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub(super) enum Learns {
    Presence,
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
    /// Mode, owner, times or extended attributes.
    Attributes {
        extended: bool,
    },
    /// Something that is not put back.
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
        last: Last,
        empty: bool,
        learns: Learns,
    },
    /// connect, which looks a name up if the address has a path.
    Connect { address: RemoteAddr, length: u64 },
    /// getdents of an open folder.
    List { fd: i32, into: Listing },
    /// chdir or fchdir (`None`).
    ChangeFolder { to: Option<At> },
    /// An effect with one path.
    Effect { at: At, last: Last, kind: OnePath },
    /// An effect on what an fd is open on.
    EffectOnFd { fd: i32, kind: OnePath },
    /// link or rename.
    TwoPaths {
        from: At,
        /// Of the first path; the second is a name.
        last: Last,
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
    /// prctl and the calls for credentials, which are for one thread.
    ChangesAttributes,
    /// A lock that stays with the open file.
    Lock { fd: i32 },
    /// ioctl that sets the modes of a terminal.
    SetModes { fd: i32 },
    /// listen, by which a server begins to wait for clients.
    Listen,
    /// A call that takes or answers ids, in a run where they differ.
    Identity,
    /// A call that reads an open file.
    Reads,
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

fn look(at: At, last: Last, learns: Learns) -> Request {
    Request::Look {
        at,
        last,
        empty: false,
        learns,
    }
}

/// Of a call that follows a last link unless it is told not to.
fn last_by_flags(flags: u64) -> Last {
    if flags as i32 & libc::AT_SYMLINK_NOFOLLOW == 0 {
        Last::Follow
    } else {
        Last::Keep
    }
}

/// Of a call that follows a last link only if it is told to.
fn followed_if_asked(flags: u64) -> Last {
    if flags as i32 & libc::AT_SYMLINK_FOLLOW == 0 {
        Last::Keep
    } else {
        Last::Follow
    }
}

fn look_by_flags(at: At, flags: u64, learns: Learns) -> Request {
    Request::Look {
        at,
        last: last_by_flags(flags),
        empty: flags as i32 & libc::AT_EMPTY_PATH != 0,
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
    // The other filter's rule has no say where both stop.
    if stop.data == READS && !(stop.call as i64 == libc::SYS_mmap && maps_shared(stop)) {
        return Some(Request::Reads);
    }
    let a = &stop.arguments;
    let effect = |at, kind| Request::Effect {
        at,
        last: Last::Name,
        kind,
    };
    let changes = |at, last, kind| Request::Effect { at, last, kind };
    let on_fd = |kind| Request::EffectOnFd {
        fd: a[0] as i32,
        kind,
    };
    let plain = OnePath::Attributes { extended: false };
    let extended = OnePath::Attributes { extended: true };
    let flags = OnePath::Other("the inode flags");
    use Last::{Follow, Keep};
    use Learns::{Link, Metadata, Presence, Program};
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
        libc::SYS_access => look(here(a, 0), Follow, Presence),
        libc::SYS_stat | libc::SYS_getxattr | libc::SYS_listxattr => {
            look(here(a, 0), Follow, Metadata)
        }
        libc::SYS_lstat | libc::SYS_lgetxattr | libc::SYS_llistxattr => {
            look(here(a, 0), Keep, Metadata)
        }
        libc::SYS_newfstatat => look_by_flags(at(a, 0), a[3], Metadata),
        libc::SYS_statx => look_by_flags(at(a, 0), a[2], Metadata),
        libc::SYS_faccessat => look(at(a, 0), Follow, Presence),
        libc::SYS_faccessat2 => look_by_flags(at(a, 0), a[3], Presence),
        libc::SYS_inotify_add_watch if a[2] as u32 & libc::IN_DONT_FOLLOW != 0 => {
            look(here(a, 1), Keep, Metadata)
        }
        libc::SYS_inotify_add_watch => look(here(a, 1), Follow, Metadata),
        libc::SYS_fanotify_mark => look(at(a, 3), Follow, Metadata),
        libc::SYS_statfs => look(here(a, 0), Follow, Metadata),
        libc::SYS_name_to_handle_at => Request::Look {
            at: at(a, 0),
            last: followed_if_asked(a[4]),
            empty: a[4] as i32 & libc::AT_EMPTY_PATH != 0,
            learns: Metadata,
        },
        libc::SYS_open_tree | FILE_GETATTR => {
            let flags = if stop.call as i64 == FILE_GETATTR {
                a[4]
            } else {
                a[2]
            };
            look_by_flags(at(a, 0), flags, Metadata)
        }
        libc::SYS_readlink => look(here(a, 0), Keep, Link),
        libc::SYS_readlinkat => Request::Look {
            at: at(a, 0),
            last: Keep,
            empty: true,
            learns: Link,
        },
        libc::SYS_execve => look(here(a, 0), Follow, Program),
        libc::SYS_execveat => look_by_flags(at(a, 0), a[4], Program),
        libc::SYS_getdents | libc::SYS_getdents64 => Request::List {
            fd: a[0] as i32,
            into: Listing {
                buffer: RemoteAddr(a[1]),
                // In `struct linux_dirent64` the type stands before the name.
                name: if stop.call as i64 == libc::SYS_getdents {
                    18
                } else {
                    19
                },
            },
        },
        libc::SYS_chdir => Request::ChangeFolder {
            to: Some(here(a, 0)),
        },
        libc::SYS_fchdir => Request::ChangeFolder { to: None },

        libc::SYS_truncate => Request::Effect {
            at: here(a, 0),
            last: Follow,
            kind: OnePath::Truncate,
        },
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
        libc::SYS_rename => two(here(a, 0), Last::Name, here(a, 1), true, 0),
        libc::SYS_renameat => two(at(a, 0), Last::Name, at(a, 2), true, 0),
        libc::SYS_renameat2 => two(at(a, 0), Last::Name, at(a, 2), true, a[4] as u32),
        libc::SYS_link => two(here(a, 0), Keep, here(a, 1), false, 0),
        libc::SYS_linkat => two(at(a, 0), followed_if_asked(a[4]), at(a, 2), false, 0),
        libc::SYS_chmod => changes(here(a, 0), Follow, plain),
        libc::SYS_fchmodat => changes(at(a, 0), Follow, plain),
        FCHMODAT2 => changes(at(a, 0), last_by_flags(a[3]), plain),
        libc::SYS_chown => changes(here(a, 0), Follow, plain),
        libc::SYS_lchown => changes(here(a, 0), Keep, plain),
        libc::SYS_fchownat => changes(at(a, 0), last_by_flags(a[4]), plain),
        libc::SYS_utime | libc::SYS_utimes => changes(here(a, 0), Follow, plain),
        libc::SYS_utimensat if a[1] == 0 => on_fd(plain),
        libc::SYS_utimensat => changes(at(a, 0), last_by_flags(a[3]), plain),
        libc::SYS_futimesat if a[1] == 0 => on_fd(plain),
        libc::SYS_futimesat => changes(at(a, 0), Follow, plain),
        libc::SYS_setxattr | libc::SYS_removexattr => changes(here(a, 0), Follow, extended),
        libc::SYS_lsetxattr | libc::SYS_lremovexattr => changes(here(a, 0), Keep, extended),
        SETXATTRAT | REMOVEXATTRAT => changes(at(a, 0), last_by_flags(a[2]), extended),
        FILE_SETATTR => changes(at(a, 0), last_by_flags(a[4]), flags),
        GETXATTRAT | LISTXATTRAT => look_by_flags(at(a, 0), a[2], Metadata),
        libc::SYS_fchmod => on_fd(plain),
        libc::SYS_fchown => on_fd(plain),
        libc::SYS_fsetxattr | libc::SYS_fremovexattr => on_fd(extended),
        libc::SYS_ioctl if FLAG_REQUESTS.contains(&(a[1] as u32)) => on_fd(flags),
        libc::SYS_connect => Request::Connect {
            address: RemoteAddr(a[1]),
            length: a[2],
        },
        libc::SYS_bind => Request::Bind {
            address: RemoteAddr(a[1]),
            length: a[2],
        },

        libc::SYS_mmap => Request::MapShared {
            fd: a[4] as i32,
            writable: a[2] as i32 & libc::PROT_WRITE != 0,
            anonymous: a[3] as i32 & libc::MAP_ANONYMOUS != 0,
        },
        libc::SYS_shmget | libc::SYS_shmat => Request::Note(Hazard::SharedMappings),
        libc::SYS_setitimer | libc::SYS_alarm => Request::Note(Hazard::IntervalTimers),
        libc::SYS_timer_create => Request::Note(Hazard::PosixTimers),
        libc::SYS_semget | libc::SYS_msgget | libc::SYS_mq_open => Request::Note(Hazard::SystemV),
        libc::SYS_futex => Request::Note(Hazard::PriorityInheritance),
        libc::SYS_prctl if ATTRIBUTES.contains(&(a[0] as i32)) => Request::ChangesAttributes,
        libc::SYS_seccomp | libc::SYS_prctl => Request::Note(Hazard::OwnFilter),
        call if CREDENTIALS.contains(&call) => Request::ChangesAttributes,
        libc::SYS_flock | libc::SYS_fcntl => Request::Lock { fd: a[0] as i32 },
        libc::SYS_ptrace => Request::Note(Hazard::Tracing),
        libc::SYS_unshare
        | libc::SYS_setns
        | libc::SYS_chroot
        | libc::SYS_pivot_root
        | libc::SYS_mount
        | libc::SYS_umount2
        | libc::SYS_move_mount
        | libc::SYS_clone
        | libc::SYS_open_by_handle_at => Request::Note(Hazard::OtherNamespace),
        libc::SYS_ioctl => Request::SetModes { fd: a[0] as i32 },
        libc::SYS_listen => Request::Listen,
        libc::SYS_sigaltstack | libc::SYS_set_tid_address => Request::ChangesThread,
        _ => return None,
    })
}

/// Of a call of mmap.
fn maps_shared(stop: &SyscallStop) -> bool {
    stop.arguments[3] as i32 & libc::MAP_SHARED != 0
}

fn two(from: At, last: Last, to: At, rename: bool, flags: u32) -> Request {
    Request::TwoPaths {
        from,
        last,
        to,
        rename,
        flags,
    }
}

/// What prctl sets of a thread or its process that fork does not copy, or that its
/// threads can differ in.
pub(super) const ATTRIBUTES: &[i32] = &[
    libc::PR_SET_PDEATHSIG,
    libc::PR_SET_TIMERSLACK,
    libc::PR_SET_TSC,
    libc::PR_SET_CHILD_SUBREAPER,
    libc::PR_SET_SECUREBITS,
    libc::PR_CAP_AMBIENT,
    libc::PR_CAPBSET_DROP,
    libc::PR_SET_SPECULATION_CTRL,
];

/// The calls that change the credentials of one thread.
pub(super) const CREDENTIALS: &[i64] = &[
    libc::SYS_setuid,
    libc::SYS_setgid,
    libc::SYS_setreuid,
    libc::SYS_setregid,
    libc::SYS_setresuid,
    libc::SYS_setresgid,
    libc::SYS_setfsuid,
    libc::SYS_setfsgid,
    libc::SYS_setgroups,
    libc::SYS_capset,
];

/// The requests of ioctl that change what `chattr` does (ioctl_iflags(2)):
/// FS_IOC_SETFLAGS, FS_IOC32_SETFLAGS and FS_IOC_FSSETXATTR.
pub(super) const FLAG_REQUESTS: [u32; 3] = [0x4008_6602, 0x4004_6602, 0x401c_5820];

// Newer than the libc crate's list (include/uapi/asm-generic/unistd.h).
pub(super) const FCHMODAT2: i64 = 452;
pub(super) const SETXATTRAT: i64 = 463;
pub(super) const GETXATTRAT: i64 = 464;
pub(super) const LISTXATTRAT: i64 = 465;
pub(super) const REMOVEXATTRAT: i64 = 466;
pub(super) const FILE_GETATTR: i64 = 468;
pub(super) const FILE_SETATTR: i64 = 469;

/// What the rules of the filter that is added to a resumed run carry, so that its
/// stops can be told from those of the whole guest's.
pub(super) const IDENTITY: u16 = 1;
