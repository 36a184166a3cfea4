//! The ways in which editors and tools save one file, and what is delivered
//! for each: once, and never while half done.

mod common;

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::process::{Command, Stdio};
use std::sync::mpsc::channel;
use std::time::Instant;

use common::{DEADLINE, NEVER, World, ms, patient, put, save_by_rename, truncate};
use watch::{Options, Watcher};

#[test]
fn a_file_written_in_place_is_delivered_after_the_close_and_never_empty() {
    let world = World::new(patient());
    world.write("f", "one");
    let f = world.watch("f");
    let mut open = truncate(&f);
    world.settle();
    assert_eq!(world.count(&f), 0, "delivered while it was empty");
    put(&mut open, "half ");
    world.settle();
    assert_eq!(world.count(&f), 0, "delivered while it was half written");
    put(&mut open, "whole");
    drop(open);
    assert_eq!(world.wait_for(&f).as_deref(), Some(&b"half whole"[..]));
    world.settle();
    assert_eq!(world.count(&f), 1);
}

#[test]
fn a_file_that_is_never_closed_is_delivered_after_the_bound() {
    let world = World::new(Options {
        settle: ms(1),
        open_write_bound: ms(30),
    });
    world.write("f", "one");
    let f = world.watch("f");
    let mut open = truncate(&f);
    put(&mut open, "two");
    let written = Instant::now();
    assert_eq!(world.wait_for(&f).as_deref(), Some(&b"two"[..]));
    assert!(written.elapsed() >= ms(30));
    drop(open);
}

#[test]
fn a_file_replaced_by_rename_is_delivered_once() {
    let world = World::new(patient());
    world.write("f", "one");
    let f = world.watch("f");
    for text in ["two", "three"] {
        save_by_rename(&f, text);
        assert_eq!(world.wait_for(&f).as_deref(), Some(text.as_bytes()));
        world.settle();
        assert_eq!(world.touches(), std::slice::from_ref(&f));
        world.clear();
    }
}

#[test]
fn a_file_written_after_it_was_renamed_into_place_is_followed() {
    let world = World::new(patient());
    world.write("f", "one");
    let f = world.watch("f");
    save_by_rename(&f, "two");
    world.wait_for(&f);
    world.clear();
    world.write("f", "three");
    assert_eq!(world.wait_for(&f).as_deref(), Some(&b"three"[..]));
}

#[test]
fn the_backup_dance_of_vim_is_one_change() {
    let world = World::new(patient());
    world.write("f", "one");
    let f = world.watch("f");
    let backup = world.path("f~");
    fs::rename(&f, &backup).unwrap();
    let mut open = truncate(&f);
    world.settle();
    assert_eq!(world.count(&f), 0);
    put(&mut open, "two");
    drop(open);
    fs::remove_file(&backup).unwrap();
    assert_eq!(world.wait_for(&f).as_deref(), Some(&b"two"[..]));
    world.settle();
    assert_eq!(world.touches(), [f]);
}

#[test]
fn the_real_vim_is_one_change_whichever_way_it_saves() {
    let found = Command::new("vim")
        .arg("--version")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .status();
    if found.is_err() {
        eprintln!("skipped: vim is not installed");
        return;
    }
    for copy in ["no", "yes", "auto"] {
        let world = World::new(patient());
        world.write("f", "one\n");
        let f = world.watch("f");
        let status = Command::new("vim")
            .args(["-es", "-u", "NONE", "-i", "NONE"])
            .args(["-c", &format!("set backup writebackup backupcopy={copy}")])
            .args(["-c", "s/one/two/", "-c", "wq"])
            .arg(&f)
            .stdin(Stdio::null())
            .status()
            .unwrap();
        assert!(status.success(), "vim: {status}");
        assert_eq!(world.read("f"), "two\n");
        let content = world.wait_for(&f);
        assert_eq!(content.as_deref(), Some(&b"two\n"[..]), "backupcopy={copy}");
        world.settle();
        assert_eq!(world.touches(), [f], "backupcopy={copy}");
    }
}

#[test]
fn delete_and_create_again_is_one_change() {
    let world = World::new(patient());
    world.write("f", "one");
    let f = world.watch("f");
    fs::remove_file(&f).unwrap();
    world.write("f", "two");
    assert_eq!(world.wait_for(&f).as_deref(), Some(&b"two"[..]));
    world.settle();
    assert_eq!(world.touches(), [f]);
}

#[test]
fn a_deletion_is_delivered_soon_even_if_a_close_would_be_waited_for() {
    let world = World::new(patient());
    world.write("f", "one");
    let f = world.watch("f");
    let mut open = fs::File::options().append(true).open(&f).unwrap();
    put(&mut open, "more");
    fs::remove_file(&f).unwrap();
    assert_eq!(world.wait_for(&f), None);
    // What is written to the nameless file concerns nobody.
    world.clear();
    put(&mut open, "even more");
    drop(open);
    world.settle();
    assert!(world.touches().is_empty());
}

#[test]
fn a_deletion_leaves_time_for_the_file_to_come_back() {
    let world = World::new(patient());
    world.write("f", "one");
    let f = world.watch("f");
    let removed = Instant::now();
    fs::remove_file(&f).unwrap();
    assert_eq!(world.wait_for(&f), None);
    assert!(removed.elapsed() >= ms(50));
}

#[test]
fn a_hard_link_or_symbolic_link_under_the_name_is_not_waited_for() {
    let world = World::new(patient());
    world.write("other", "two");
    let (f, g) = (world.watch("f"), world.watch("g"));
    fs::hard_link(world.path("other"), &f).unwrap();
    assert_eq!(world.wait_for(&f).as_deref(), Some(&b"two"[..]));
    symlink("other", &g).unwrap();
    assert_eq!(world.wait_for(&g).as_deref(), Some(&b"two"[..]));
}

#[test]
fn a_new_file_is_delivered_when_it_is_closed() {
    let world = World::new(patient());
    let f = world.watch("f");
    let mut open = truncate(&f);
    world.settle();
    assert_eq!(world.count(&f), 0);
    put(&mut open, "one");
    drop(open);
    assert_eq!(world.wait_for(&f).as_deref(), Some(&b"one"[..]));
}

#[test]
fn attributes_alone_are_weak() {
    let world = World::new(patient());
    world.write("f", "one");
    let f = world.watch("f");
    fs::set_permissions(&f, fs::Permissions::from_mode(0o600)).unwrap();
    world.wait_for(&f);
    assert!(!world.seen.borrow()[0].touch(&f).unwrap().strong);
    world.clear();
    world.write("f", "two");
    world.wait_for(&f);
    assert!(world.seen.borrow()[0].touch(&f).unwrap().strong);
}

#[test]
fn with_no_settle_time_a_save_is_delivered_at_once() {
    let world = World::new(Options {
        settle: ms(0),
        open_write_bound: NEVER,
    });
    world.write("f", "one");
    let f = world.watch("f");
    save_by_rename(&f, "two");
    assert_eq!(world.wait_for(&f).as_deref(), Some(&b"two"[..]));
    let open = truncate(&f);
    world.settle();
    assert_eq!(world.count(&f), 1, "delivered while it was empty");
    drop(open);
    world.wait("the close", |seen| {
        seen.iter().filter(|seen| seen.touch(&f).is_some()).count() == 2
    });
}

#[test]
fn other_names_in_the_folder_touch_nothing() {
    let world = World::new(patient());
    world.write("f", "one");
    world.watch("f");
    world.write("f.swp", "noise");
    fs::rename(world.path("f.swp"), world.path("f~")).unwrap();
    fs::remove_file(world.path("f~")).unwrap();
    world.settle();
    assert!(world.touches().is_empty());
}

#[test]
fn a_burst_comes_as_few_batches_with_everything() {
    // So long that a busy machine does not pause the burst for it.
    let world = World::new(Options {
        settle: ms(500),
        open_write_bound: NEVER,
    });
    let names: Vec<_> = (0..200).map(|n| format!("f{n:03}")).collect();
    let mut paths = Vec::new();
    for name in &names {
        world.write(name, "one");
        paths.push(world.watch(name));
    }
    for name in &names {
        world.write(name, "two");
    }
    world.wait("all of them", |seen| {
        seen.iter()
            .map(|seen| seen.batch.touches.len())
            .sum::<usize>()
            >= 200
    });
    let mut touched = world.touches();
    touched.sort();
    assert_eq!(touched, paths);
    let batches = world.seen.borrow().len();
    assert!(batches <= 10, "{batches} batches");
}

#[test]
fn the_instants_of_a_touch_bracket_the_change() {
    let world = World::new(patient());
    world.write("f", "one");
    let f = world.watch("f");
    let recorded = loop {
        let asked = Instant::now();
        if world.watcher.drained_at() >= asked {
            break asked;
        }
    };
    save_by_rename(&f, "two");
    world.wait_for(&f);
    let seen = world.seen.borrow();
    let touch = seen[0].touch(&f).unwrap();
    assert!(touch.quiet_before >= recorded);
    assert!(touch.first_seen >= touch.quiet_before);
    assert!(world.watcher.drained_at() >= touch.quiet_before);
}

#[test]
fn the_first_event_is_noticed_before_the_path_settles() {
    let dir = tempfile::tempdir().unwrap();
    let f = dir.path().join("f");
    fs::write(&f, "one").unwrap();
    let (noticed, notices) = channel();
    let (send, batches) = channel();
    let watcher = Watcher::start_noticing(
        patient(),
        move |path: &std::path::Path| drop(noticed.send(path.to_owned())),
        move |batch| drop(send.send(batch)),
    )
    .unwrap();
    watcher.watch(&f).unwrap();
    let mut open = truncate(&f);
    assert_eq!(notices.recv_timeout(DEADLINE).unwrap(), f);
    assert!(batches.try_recv().is_err());
    put(&mut open, "two");
    drop(open);
    assert_eq!(batches.recv_timeout(DEADLINE).unwrap().touches[0].path, f);
    // The callbacks end with the watcher.
    drop(watcher);
    assert!(notices.recv().is_err(), "noticed twice in one burst");
    assert!(batches.recv().is_err());
}
