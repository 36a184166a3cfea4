//! Mode, owner, times and extended attributes come back, of files, folders and links,
//! where they are as the guest left them.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod common;

use std::fs::{self, File};
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::Path;
use std::time::{Duration, SystemTime};

use common::{Guest, save_in_place};
use journal::{Effect, Why};
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, XattrFlags};

/// What `stat` and the extended attributes say; the time of the last change is
/// nobody's to set.
#[derive(PartialEq, Debug)]
struct Seen {
    mode: u32,
    owner: (u32, u32),
    modified: (i64, i64),
    extended: Vec<(String, Vec<u8>)>,
}

fn seen(path: &Path) -> Seen {
    let found = fs::symlink_metadata(path).unwrap();
    let mut names = vec![0; 4096];
    let length = rustix::fs::llistxattr(path, &mut names).unwrap();
    let names = String::from_utf8(names[..length].to_vec()).unwrap();
    let mut extended: Vec<(String, Vec<u8>)> = names
        .split_terminator('\0')
        .map(|name| {
            let mut value = vec![0; 4096];
            let length = rustix::fs::lgetxattr(path, name, &mut value).unwrap();
            (name.to_owned(), value[..length].to_vec())
        })
        .collect();
    extended.sort();
    Seen {
        mode: found.mode(),
        owner: (found.uid(), found.gid()),
        modified: (found.mtime(), found.mtime_nsec()),
        extended,
    }
}

fn chmod(mode: u32) -> impl Fn(&Path) -> std::io::Result<()> {
    move |path| fs::set_permissions(path, fs::Permissions::from_mode(mode))
}

fn set(name: &'static str, value: &'static [u8]) -> impl Fn(&Path) -> std::io::Result<()> {
    move |path| {
        Ok(rustix::fs::setxattr(
            path,
            name,
            value,
            XattrFlags::empty(),
        )?)
    }
}

fn remove(name: &'static str) -> impl Fn(&Path) -> std::io::Result<()> {
    move |path| Ok(rustix::fs::removexattr(path, name)?)
}

fn touch(seconds: i64) -> impl Fn(&Path) -> std::io::Result<()> {
    move |path| {
        let time = Timespec {
            tv_sec: seconds,
            tv_nsec: 7,
        };
        let times = Timestamps {
            last_access: time,
            last_modification: time,
        };
        let flags = AtFlags::SYMLINK_NOFOLLOW;
        Ok(rustix::fs::utimensat(CWD, path, &times, flags)?)
    }
}

/// A file, a folder and a link, with some attributes.
fn prepared() -> Guest {
    let guest = Guest::new();
    guest.put("file", "old");
    fs::create_dir(guest.path("folder")).unwrap();
    std::os::unix::fs::symlink("nowhere", guest.path("link")).unwrap();
    for name in ["file", "folder"] {
        chmod(0o751)(&guest.path(name)).unwrap();
        set("user.old", b"value")(&guest.path(name)).unwrap();
    }
    for name in ["file", "folder", "link"] {
        touch(1_000_000_000)(&guest.path(name)).unwrap();
    }
    guest
}

/// An access control list, as the kernel takes it (`posix_acl_xattr.h`): version 2;
/// the owner, a user, the group, the mask, the others.
const LIST: &[u8] = &[
    2, 0, 0, 0, 1, 0, 7, 0, 255, 255, 255, 255, 2, 0, 6, 0, 1, 0, 0, 0, 4, 0, 5, 0, 255, 255, 255,
    255, 16, 0, 7, 0, 255, 255, 255, 255, 32, 0, 1, 0, 255, 255, 255, 255,
];

#[test]
fn each_change_is_undone() {
    type Call = Box<dyn Fn(&Path) -> std::io::Result<()>>;
    let both: [&[&str]; 2] = [&["file", "folder"], &["file", "folder", "link"]];
    let calls: [(&str, &[&str], Call); 7] = [
        ("chmod", both[0], Box::new(chmod(0o4640))),
        ("utimens", both[1], Box::new(touch(5))),
        ("setxattr", both[0], Box::new(set("user.new", b"x"))),
        ("another value", both[0], Box::new(set("user.old", b"y"))),
        ("removexattr", both[0], Box::new(remove("user.old"))),
        (
            "acl",
            both[0],
            Box::new(set("system.posix_acl_access", LIST)),
        ),
        (
            "all of it",
            both[0],
            Box::new(|path| {
                set("system.posix_acl_access", LIST)(path)?;
                chmod(0o2700)(path)?;
                remove("user.old")(path)?;
                touch(6)(path)
            }),
        ),
    ];
    for (what, names, call) in &calls {
        for name in *names {
            let mut guest = prepared();
            let path = guest.path(name);
            let before = seen(&path);
            let mark = guest.journal.mark();
            guest.change(name, false, call).unwrap();
            assert_ne!(seen(&path), before, "{what} of a {name}");
            let restored = guest.undo(mark);
            assert_eq!(seen(&path), before, "{what} of a {name}");
            assert_eq!(restored, [path], "{what} of a {name}");
        }
    }
}

#[test]
fn the_owner_is_undone() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: only root can give files away");
        return;
    }
    for name in ["file", "folder", "link"] {
        let mut guest = prepared();
        let path = guest.path(name);
        if name == "file" {
            // Given away, it loses the set-user-id bit.
            chmod(0o4755)(&path).unwrap();
        }
        let before = seen(&path);
        let mark = guest.journal.mark();
        let give = |path: &Path| std::os::unix::fs::lchown(path, Some(12), Some(34));
        guest.change(name, false, give).unwrap();
        assert_eq!(seen(&path).owner, (12, 34));
        guest.undo(mark);
        assert_eq!(seen(&path), before);
    }
}

#[test]
fn a_change_through_a_link_is_of_what_it_leads_to() {
    let mut guest = prepared();
    std::os::unix::fs::symlink("file", guest.path("alias")).unwrap();
    let before = seen(&guest.path("file"));
    let mark = guest.journal.mark();
    guest.change("alias", true, chmod(0o600)).unwrap();
    assert_ne!(seen(&guest.path("file")), before);
    guest.undo(mark);
    assert_eq!(seen(&guest.path("file")), before);
}

#[test]
fn a_change_through_a_descriptor_is_undone() {
    let mut guest = prepared();
    let file = File::open(guest.path("file")).unwrap();
    let nameless = File::open(guest.path("file")).unwrap();
    for (file, removed) in [(file, false), (nameless, true)] {
        let through = format!("/proc/self/fd/{}", file.as_raw_fd());
        let before_mode = file.metadata().unwrap().mode();
        if removed {
            fs::remove_file(guest.path("file")).unwrap();
        }
        let mark = guest.journal.mark();
        let effect = Effect::Attributes {
            path: through.clone().into(),
            follow: true,
            extended: false,
        };
        let (done, undoable) = guest.call(effect, || chmod(0o600)(Path::new(&through)));
        done.unwrap();
        undoable.unwrap();
        assert_ne!(file.metadata().unwrap().mode(), before_mode);
        guest.undo(mark);
        assert_eq!(file.metadata().unwrap().mode(), before_mode);
    }
}

/// Each mark has its own attributes, also where bytes were written in between: what a
/// build tool compares is the time.
#[test]
fn attributes_and_bytes_come_back_together() {
    let mut guest = prepared();
    let path = guest.path("file");
    let mut marks = Vec::new();
    for round in 0..4 {
        marks.push((guest.journal.mark(), seen(&path), guest.read("file")));
        guest.change("file", true, touch(round)).unwrap();
        guest.write("file", &format!("round {round}"));
        guest
            .change("file", true, chmod(0o600 + round as u32))
            .unwrap();
        guest.change("file", true, touch(round + 10)).unwrap();
        let file = guest.open_existing("file");
        guest.change("file", true, touch(round + 20)).unwrap();
        // After its time was set, by a descriptor from before.
        file.write_at(b"R", 0).unwrap();
    }
    for (mark, before, bytes) in marks.into_iter().rev() {
        guest.undo(mark);
        assert_eq!(seen(&path), before);
        assert_eq!(guest.read("file"), bytes);
    }
}

#[test]
fn what_a_forgotten_mark_had_is_not_needed() {
    let mut guest = prepared();
    let path = guest.path("file");
    let before = seen(&path);
    let start = guest.journal.mark();
    guest.change("file", true, chmod(0o600)).unwrap();
    let mark = guest.journal.mark();
    guest.change("file", true, chmod(0o640)).unwrap();
    guest.journal.forget(mark);
    guest.change("file", true, chmod(0o644)).unwrap();
    guest.undo(start);
    assert_eq!(seen(&path), before);
}

#[test]
fn a_folder_that_was_made_read_only_does_not_keep_what_is_in_it() {
    let mut guest = Guest::new();
    let mark = guest.journal.mark();
    guest.make_folder("new");
    guest.write("new/file", "bytes");
    guest.change("new", true, chmod(0o500)).unwrap();
    guest.undo(mark);
    assert!(guest.tree().is_empty());
}

#[test]
fn a_renamed_and_a_removed_file_have_their_attributes_again() {
    let mut guest = prepared();
    let before = seen(&guest.path("file"));
    let mark = guest.journal.mark();
    guest.change("file", true, chmod(0o600)).unwrap();
    guest.rename("file", "moved");
    guest.change("moved", true, set("user.new", b"x")).unwrap();
    guest.unlink("moved");
    guest.undo(mark);
    assert_eq!(seen(&guest.path("file")), before);
}

#[test]
fn what_somebody_else_set_since_stays() {
    for (name, call) in [("file", chmod(0o711)), ("folder", chmod(0o711))] {
        let mut guest = prepared();
        let path = guest.path(name);
        let mark = guest.journal.mark();
        guest.change(name, true, chmod(0o600)).unwrap();
        call(&path).unwrap();
        let undo = guest.journal.undo_to(mark);
        assert!(!undo.complete);
        assert!(matches!(undo.left[0].why, Why::Changed("mode")), "{undo:?}");
        assert_eq!(seen(&path).mode & 0o7777, 0o711);
    }
}

/// A later save decides what time a file has, and a fresh run finds that.
#[test]
fn the_time_of_a_persons_save_stays() {
    let mut guest = prepared();
    let path = guest.path("file");
    let mark = guest.journal.mark();
    guest.change("file", true, touch(5)).unwrap();
    save_in_place(&path, "person's");
    let saved = fs::metadata(&path).unwrap().modified().unwrap();
    guest.undo(mark);
    assert_eq!(fs::metadata(&path).unwrap().modified().unwrap(), saved);
    assert!(SystemTime::now().duration_since(saved).unwrap() < Duration::from_secs(60));
    assert_eq!(guest.read("file"), "person's");
}

#[test]
fn a_file_that_took_the_place_of_the_guests_is_not_touched() {
    let mut guest = prepared();
    let path = guest.path("file");
    let mark = guest.journal.mark();
    guest.change("file", true, chmod(0o600)).unwrap();
    fs::remove_file(&path).unwrap();
    File::create(&path).unwrap().write_all(b"new").unwrap();
    chmod(0o600)(&path).unwrap();
    guest.undo(mark);
    assert_eq!(seen(&path).mode & 0o7777, 0o600);
}

/// Whoever compares a file's state with an earlier one can tell the guest's own part.
#[test]
fn the_guests_own_changes_can_be_told() {
    let mut guest = prepared();
    let path = guest.path("file");
    assert_eq!(guest.journal.own_attributes(&path), None);
    let mark = guest.journal.mark();
    guest.change("file", true, chmod(0o600)).unwrap();
    guest.change("file", true, touch(5)).unwrap();
    let own = guest.journal.own_attributes(&path).unwrap();
    assert_eq!((own.before.mode, own.after.mode), (0o751, 0o600));
    assert_eq!(own.before.modified_ns, 1_000_000_000_000_000_007);
    assert_eq!(own.after.modified_ns, 5_000_000_007);
    assert!(!guest.journal.wrote(&path), "its bytes are not the guest's");
    guest.undo(mark);
    assert_eq!(guest.journal.own_attributes(&path), None);
}
