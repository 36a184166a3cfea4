//! Paths whose way changes: folders exchanged, links retargeted, names that
//! appear, several names of one file.

mod common;

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use common::{World, brisk, patient, save_by_rename};

#[test]
fn a_folder_exchanged_by_rename_touches_all_below_and_is_followed() {
    let world = World::new(patient());
    for dir in ["dir", "new"] {
        fs::create_dir_all(world.path(dir).join("sub")).unwrap();
        world.write(&format!("{dir}/f"), dir);
        world.write(&format!("{dir}/sub/g"), dir);
    }
    let (f, g) = (world.watch("dir/f"), world.watch("dir/sub/g"));
    fs::rename(world.path("dir"), world.path("old")).unwrap();
    fs::rename(world.path("new"), world.path("dir")).unwrap();
    assert_eq!(world.wait_for(&f).as_deref(), Some(&b"new"[..]));
    assert_eq!(world.wait_for(&g).as_deref(), Some(&b"new"[..]));
    world.clear();
    // The old tree concerns nobody any more, the new one does.
    world.write("old/sub/g", "noise");
    world.settle();
    assert!(world.touches().is_empty());
    world.write("dir/sub/g", "newer");
    assert_eq!(world.wait_for(&g).as_deref(), Some(&b"newer"[..]));
}

#[test]
fn two_folders_exchanged_at_once_are_followed() {
    let world = World::new(patient());
    for dir in ["a", "b"] {
        fs::create_dir(world.path(dir)).unwrap();
        world.write(&format!("{dir}/f"), dir);
    }
    let (a, b) = (world.watch("a/f"), world.watch("b/f"));
    rustix::fs::renameat_with(
        rustix::fs::CWD,
        world.path("a"),
        rustix::fs::CWD,
        world.path("b"),
        rustix::fs::RenameFlags::EXCHANGE,
    )
    .unwrap();
    assert_eq!(world.wait_for(&a).as_deref(), Some(&b"b"[..]));
    assert_eq!(world.wait_for(&b).as_deref(), Some(&b"a"[..]));
    world.clear();
    world.write("a/f", "a2");
    assert_eq!(world.wait_for(&a).as_deref(), Some(&b"a2"[..]));
    world.settle();
    assert_eq!(world.count(&b), 0);
}

#[test]
fn a_removed_folder_touches_all_below_and_so_does_its_return() {
    let world = World::new(brisk());
    fs::create_dir_all(world.path("dir/sub")).unwrap();
    world.write("dir/sub/f", "one");
    let f = world.watch("dir/sub/f");
    fs::remove_dir_all(world.path("dir")).unwrap();
    assert_eq!(world.wait_for(&f), None);
    world.clear();
    fs::create_dir_all(world.path("dir/sub")).unwrap();
    world.write("dir/sub/f", "two");
    world.wait("the new file", |_| {
        world.last_content(&f).as_deref() == Some(b"two")
    });
}

#[test]
fn a_missing_path_in_missing_folders_is_seen_however_fast_it_appears() {
    let world = World::new(brisk());
    let mut expected = Vec::new();
    for n in 0..50 {
        expected.push(world.watch(&format!("{n}/b/c/f")));
    }
    for n in 0..50 {
        fs::create_dir_all(world.path(&format!("{n}/b/c"))).unwrap();
        world.write(&format!("{n}/b/c/f"), "one");
    }
    for f in &expected {
        world.wait("the new file", |_| {
            world.last_content(f).as_deref() == Some(b"one")
        });
    }
    world.clear();
    world.write("7/b/c/f", "two");
    assert_eq!(world.wait_for(&expected[7]).as_deref(), Some(&b"two"[..]));
}

#[test]
fn a_path_through_a_file_is_seen_when_the_file_becomes_a_folder() {
    let world = World::new(brisk());
    world.write("a", "a file");
    let f = world.watch("a/f");
    fs::remove_file(world.path("a")).unwrap();
    fs::create_dir(world.path("a")).unwrap();
    world.write("a/f", "one");
    world.wait("the new file", |_| {
        world.last_content(&f).as_deref() == Some(b"one")
    });
}

#[test]
fn a_retargeted_symbolic_link_touches_what_goes_through_it() {
    let world = World::new(patient());
    for dir in ["v1", "v2"] {
        fs::create_dir(world.path(dir)).unwrap();
        world.write(&format!("{dir}/f"), dir);
    }
    symlink("v1", world.path("current")).unwrap();
    let f = world.watch("current/f");
    symlink(world.path("v2"), world.path("next")).unwrap();
    fs::rename(world.path("next"), world.path("current")).unwrap();
    assert_eq!(world.wait_for(&f).as_deref(), Some(&b"v2"[..]));
    world.clear();
    world.write("v1/f", "noise");
    world.settle();
    assert!(world.touches().is_empty());
    world.write("v2/f", "v2 edited");
    assert_eq!(world.wait_for(&f).as_deref(), Some(&b"v2 edited"[..]));
}

#[test]
fn the_target_of_a_chain_of_links_is_watched() {
    let world = World::new(brisk());
    fs::create_dir_all(world.path("deep/er")).unwrap();
    fs::create_dir(world.path("links")).unwrap();
    world.write("deep/er/real", "one");
    symlink("../deep/er", world.path("links/b")).unwrap();
    symlink("links/b/real", world.path("a")).unwrap();
    let a = world.watch("a");
    world.write("deep/er/real", "two");
    assert_eq!(world.wait_for(&a).as_deref(), Some(&b"two"[..]));
    world.clear();
    fs::rename(world.path("deep"), world.path("gone")).unwrap();
    assert_eq!(world.wait_for(&a), None);
    world.clear();
    fs::create_dir_all(world.path("deep/er")).unwrap();
    save_by_rename(&world.path("deep/er/real"), "three");
    world.wait("the new target", |_| {
        world.last_content(&a).as_deref() == Some(b"three")
    });
}

#[test]
fn links_in_a_circle_are_missing_until_the_circle_is_broken() {
    let world = World::new(patient());
    symlink("b", world.path("a")).unwrap();
    symlink("a", world.path("b")).unwrap();
    let a = world.watch("a");
    save_by_rename(&world.path("b"), "one");
    assert_eq!(world.wait_for(&a).as_deref(), Some(&b"one"[..]));
}

#[test]
fn a_path_with_dots_depends_on_every_folder_that_it_names() {
    let world = World::new(patient());
    fs::create_dir_all(world.path("a/b")).unwrap();
    world.write("a/f", "one");
    let f = world.watch("a/b/.././f");
    fs::write(world.path("a/f"), "two").unwrap();
    assert_eq!(world.wait_for(&f).as_deref(), Some(&b"two"[..]));
    world.clear();
    fs::remove_dir(world.path("a/b")).unwrap();
    assert_eq!(world.wait_for(&f), None);
}

#[test]
fn a_write_through_another_hard_link_is_seen() {
    let world = World::new(patient());
    fs::create_dir(world.path("elsewhere")).unwrap();
    world.write("elsewhere/g", "one");
    fs::hard_link(world.path("elsewhere/g"), world.path("f")).unwrap();
    let f = world.watch("f");
    world.write("elsewhere/g", "two");
    assert_eq!(world.wait_for(&f).as_deref(), Some(&b"two"[..]));
    world.clear();
    // Once the name stands for another file, the old one is of no interest.
    save_by_rename(&f, "three");
    world.wait_for(&f);
    world.clear();
    world.write("elsewhere/g", "noise");
    world.settle();
    assert!(world.touches().is_empty());
}

#[test]
fn two_names_of_one_file_are_both_touched() {
    let world = World::new(patient());
    world.write("f", "one");
    fs::hard_link(world.path("f"), world.path("g")).unwrap();
    let (f, g) = (world.watch("f"), world.watch("g"));
    world.write("f", "two");
    assert_eq!(world.wait_for(&f).as_deref(), Some(&b"two"[..]));
    assert_eq!(world.wait_for(&g).as_deref(), Some(&b"two"[..]));
}

#[test]
fn a_listing_is_touched_by_new_and_removed_names_only() {
    let world = World::new(patient());
    fs::create_dir(world.path("dir")).unwrap();
    world.write("dir/a", "one");
    let dir = world.path("dir");
    world.watcher.watch_listing(&dir).unwrap();
    world.write("dir/a", "two");
    world.settle();
    assert!(world.touches().is_empty());
    for step in 0..4 {
        match step {
            0 => drop(world.write("dir/b", "new")),
            1 => fs::rename(world.path("dir/b"), world.path("c")).unwrap(),
            2 => fs::rename(world.path("c"), world.path("dir/d")).unwrap(),
            _ => fs::remove_file(world.path("dir/d")).unwrap(),
        }
        world.wait_for(&dir);
        world.clear();
    }
    // Also of the folder that takes its place.
    fs::rename(&dir, world.path("old")).unwrap();
    fs::create_dir(&dir).unwrap();
    world.wait_for(&dir);
    world.settle();
    world.clear();
    world.write("dir/e", "new");
    world.wait_for(&dir);
}

#[test]
fn a_folder_itself_is_not_touched_by_its_names() {
    let world = World::new(patient());
    fs::create_dir(world.path("dir")).unwrap();
    world.write("dir/f", "one");
    let dir = world.watch("dir");
    world.watch("dir/f");
    world.write("dir/g", "new");
    world.settle();
    assert!(world.touches().is_empty());
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o700)).unwrap();
    world.wait_for(&dir);
    assert!(world.seen.borrow().iter().all(|seen| {
        seen.batch
            .touches
            .iter()
            .all(|touch| touch.path.ends_with(".sentinel-0") || !touch.strong)
    }));
    // What it contains may have become visible or hidden by that.
    world.wait_for(&world.path("dir/f"));
}

#[test]
fn a_missing_listing_is_touched_when_the_folder_appears_and_fills() {
    let world = World::new(patient());
    let dir = world.path("a/dir");
    world.watcher.watch_listing(&dir).unwrap();
    fs::create_dir_all(&dir).unwrap();
    world.wait_for(&dir);
    world.settle();
    world.clear();
    world.write("a/dir/f", "new");
    world.wait_for(&dir);
}

#[test]
fn a_path_and_its_listing_can_both_be_watched() {
    let world = World::new(patient());
    fs::create_dir(world.path("dir")).unwrap();
    let dir = world.watch("dir");
    world.write("dir/a", "new");
    world.settle();
    assert!(world.touches().is_empty());
    world.watcher.watch_listing(&dir).unwrap();
    world.write("dir/b", "new");
    world.wait_for(&dir);
}

#[test]
fn a_file_in_a_folder_that_may_not_be_read_is_watched_itself() {
    // Root may read every folder, so for root this shows nothing special.
    let world = World::new(patient());
    fs::create_dir(world.path("dir")).unwrap();
    world.write("dir/f", "one");
    let search = |mode| {
        fs::set_permissions(world.path("dir"), fs::Permissions::from_mode(mode)).unwrap();
    };
    search(0o300);
    let f = world.watch("dir/f");
    world.write("dir/f", "two");
    assert_eq!(world.wait_for(&f).as_deref(), Some(&b"two"[..]));
    world.clear();
    // Held open, the old inode stays when its name goes to another file.
    let held = fs::File::open(&f).unwrap();
    save_by_rename(&f, "three");
    assert_eq!(world.wait_for(&f).as_deref(), Some(&b"three"[..]));
    let strong = world.seen.borrow().iter().any(|seen| {
        let touch = seen.touch(&f);
        touch.is_some_and(|touch| touch.strong)
    });
    assert!(strong);
    drop(held);
    world.settle();
    world.clear();
    world.write("dir/f", "four");
    assert_eq!(world.wait_for(&f).as_deref(), Some(&b"four"[..]));
    // Once it may be read, it is watched as any other.
    search(0o700);
    world.settle();
    world.clear();
    fs::remove_file(&f).unwrap();
    assert_eq!(world.wait_for(&f), None);
    world.clear();
    world.write("dir/f", "five");
    assert_eq!(world.wait_for(&f).as_deref(), Some(&b"five"[..]));
}

#[test]
fn a_forgotten_path_gives_its_watches_back() {
    let world = World::new(patient());
    fs::create_dir_all(world.path("a/b")).unwrap();
    fs::create_dir_all(world.path("c")).unwrap();
    symlink("../a/b", world.path("c/link")).unwrap();
    world.write("c/f", "one");
    fs::hard_link(world.path("c/f"), world.path("c/g")).unwrap();
    world.watch("c/f");
    let before = world.watcher.watch_count();
    let away = [world.watch("c/link/x"), world.watch("a/missing/y")];
    world.watcher.watch_listing(&world.path("a/b")).unwrap();
    assert!(world.watcher.watch_count() > before);
    world
        .watcher
        .forget(|path| !away.iter().any(|other| other == path) && !path.ends_with("a/b"));
    assert_eq!(world.watcher.watch_count(), before);
    world.write("a/b/x", "noise");
    world.settle();
    assert!(world.touches().is_empty());
    world.write("c/g", "two");
    world.wait_for(&world.path("c/f"));
    // It can be watched again.
    world.clear();
    let x = world.watch("c/link/x");
    world.write("a/b/x", "one");
    world.wait_for(&x);
    world.watcher.forget(|_| false);
    assert!(world.watcher.watch_count() <= 1, "only the root may stay");
}

#[test]
fn a_relative_path_is_refused_and_odd_ones_are_not() {
    let world = World::new(patient());
    assert!(matches!(
        world.watcher.watch(Path::new("relative")),
        Err(watch::Error::NotAbsolute { .. })
    ));
    let long = "x".repeat(300);
    for odd in ["/", "//", "/..", "/proc/self/mounts", "/dev/null", "/x//y/"] {
        world.watcher.watch(Path::new(odd)).unwrap();
    }
    world.watch(&long);
    world.watch("with\nnewline and \u{1F980}");
    let f = world.watch("./f//");
    world.write("f", "one");
    world.wait("f", |seen| seen.iter().any(|seen| seen.touch(&f).is_some()));
}
