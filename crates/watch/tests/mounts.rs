//! Files and folders that are to be found under a second path by a bind mount,
//! and such that go with their file system.

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::{World, in_own_namespace, patient};

/// A mount; taken away before the temporary folder is removed.
struct Mount(PathBuf);

fn mount(how: &[&str], from: &Path, to: &Path) -> Mount {
    let mounted = Command::new("mount")
        .args(how)
        .args([from, to])
        .status()
        .is_ok_and(|status| status.success());
    assert!(
        mounted,
        "cannot mount {} on {}",
        from.display(),
        to.display()
    );
    Mount(to.to_owned())
}

fn bind(from: &Path, to: &Path) -> Mount {
    mount(&["--bind"], from, to)
}

impl Drop for Mount {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg(&self.0).status();
        assert!(unmounted.is_ok_and(|status| status.success()));
    }
}

#[test]
fn a_file_mounted_elsewhere_is_watched_itself() {
    in_own_namespace("a_file_mounted_elsewhere_is_watched_itself", "true", || {
        let world = World::new(patient());
        for dir in ["real", "bound"] {
            fs::create_dir(world.path(dir)).unwrap();
            world.write(&format!("{dir}/f"), dir);
        }
        let _bind = bind(&world.path("real/f"), &world.path("bound/f"));
        let f = world.watch("bound/f");
        world.write("real/f", "edited");
        assert_eq!(world.wait_for(&f).as_deref(), Some(&b"edited"[..]));
    });
}

#[test]
fn a_folder_mounted_elsewhere_is_the_same_under_both_paths() {
    in_own_namespace(
        "a_folder_mounted_elsewhere_is_the_same_under_both_paths",
        "true",
        || {
            let world = World::new(patient());
            fs::create_dir_all(world.path("real/sub")).unwrap();
            fs::create_dir(world.path("bound")).unwrap();
            world.write("real/f", "one");
            world.write("real/sub/g", "one");
            let _bind = bind(&world.path("real"), &world.path("bound"));
            let (bound, f) = (world.watch("bound"), world.watch("bound/f"));
            // This goes through the same folder, but needs less of it.
            let g = world.watch("real/sub/g");
            world.write("real/f", "two");
            assert_eq!(world.wait_for(&f).as_deref(), Some(&b"two"[..]));
            fs::write(world.path("bound/sub/g"), "two").unwrap();
            assert_eq!(world.wait_for(&g).as_deref(), Some(&b"two"[..]));
            fs::set_permissions(world.path("real"), fs::Permissions::from_mode(0o750)).unwrap();
            world.wait_for(&bound);
            world.clear();
            // A path that is given up leaves the other its watch.
            world.watcher.forget(|path| !path.ends_with("sub/g"));
            world.write("real/f", "three");
            assert_eq!(world.wait_for(&f).as_deref(), Some(&b"three"[..]));
        },
    );
}

#[test]
fn a_mounted_folder_itself_shows_its_attributes() {
    in_own_namespace(
        "a_mounted_folder_itself_shows_its_attributes",
        "true",
        || {
            let world = World::new(patient());
            for dir in ["real", "bound"] {
                fs::create_dir(world.path(dir)).unwrap();
            }
            let _bind = bind(&world.path("real"), &world.path("bound"));
            let bound = world.watch("bound");
            fs::set_permissions(world.path("real"), fs::Permissions::from_mode(0o750)).unwrap();
            world.wait_for(&bound);
        },
    );
}

#[test]
fn an_unmounted_file_system_touches_what_was_on_it() {
    in_own_namespace(
        "an_unmounted_file_system_touches_what_was_on_it",
        "true",
        || {
            let world = World::new(patient());
            fs::create_dir(world.path("dir")).unwrap();
            let mounted = mount(&["-t", "tmpfs"], Path::new("none"), &world.path("dir"));
            world.write("dir/f", "one");
            let f = world.watch("dir/f");
            drop(mounted);
            assert_eq!(world.wait_for(&f), None);
            world.clear();
            world.write("dir/f", "two");
            assert_eq!(world.wait_for(&f).as_deref(), Some(&b"two"[..]));
        },
    );
}
