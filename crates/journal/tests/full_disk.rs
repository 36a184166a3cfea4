//! A file system without room: nobody's bytes are lost for it.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod common;

use std::io::Write;
use std::path::Path;
use std::process::Command;

use common::{Guest, begin, kept, save_in_place};

/// What had been taken away filled the disk, and there was no room for what was to be put
/// back, or to be kept.
#[test]
fn a_full_disk_costs_nobody_their_bytes() {
    on_small_disk("a_full_disk_costs_nobody_their_bytes", |disk| {
        let base = tempfile::tempdir_in(disk).unwrap();
        let mut guest = Guest::on(base, |_| ());
        let original = "original\n".repeat(30_000);
        guest.put("old", &original);
        let mark = begin(&mut guest);
        guest.write("old", "short");
        guest.write("out", "guest's");
        save_in_place(&guest.path("out"), &"person's\n".repeat(10_000));
        guest.write("out", "guest's");
        let mut fill = guest.create("fill");
        while fill.write_all(&[b'x'; 4096]).is_ok() {}
        drop(fill);
        let _ = guest.journal.undo_to(mark);
        assert_eq!(guest.read("old"), original);
        guest.write("out", "guest's");
        let mut fill = guest.create("fill");
        while fill.write_all(&[b'x'; 4096]).is_ok() {}
        drop(fill);
        assert_eq!(kept(guest), ["person's\n".repeat(10_000)]);
    });
}

/// Set in the child of [`on_small_disk`].
const DISK: &str = "JOURNAL_TEST_DISK";

/// Runs the body of a test in a child that has a file system of one megabyte. Skipped,
/// visibly, where no user namespace can be made.
fn on_small_disk(name: &str, body: impl FnOnce(&Path)) {
    if let Some(disk) = std::env::var_os(DISK) {
        body(Path::new(&disk));
        eprintln!("the body was run");
        return;
    }
    let disk = tempfile::tempdir().unwrap();
    let script = "mount -t tmpfs -o size=1m none \"$0\" && echo entered && exec \"$@\"";
    let child = Command::new("unshare")
        .args(["--user", "--map-root-user", "--mount", "sh", "-c", script])
        .arg(disk.path())
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture", "--test-threads=1"])
        .env(DISK, disk.path())
        .output();
    let Ok(child) = child else {
        eprintln!("skipped: unshare is not installed");
        return;
    };
    let output = String::from_utf8_lossy(&child.stdout).into_owned()
        + &String::from_utf8_lossy(&child.stderr);
    if !output.starts_with("entered") {
        eprintln!("skipped: no user namespace can be made here: {output}");
        return;
    }
    assert!(child.status.success(), "{output}");
    assert!(output.contains("the body was run"), "{output}");
}
