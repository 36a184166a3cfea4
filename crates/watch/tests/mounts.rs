//! Files and folders that are to be found under a second path by a bind mount.

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::{World, in_own_namespace, patient};

/// A bind mount; taken away before the temporary folder is removed.
struct Bind(PathBuf);

fn bind(from: &Path, to: &Path) -> Bind {
    let mounted = Command::new("mount")
        .arg("--bind")
        .args([from, to])
        .status()
        .is_ok_and(|status| status.success());
    assert!(
        mounted,
        "cannot mount {} on {}",
        from.display(),
        to.display()
    );
    Bind(to.to_owned())
}

impl Drop for Bind {
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
