//! The socket's place: what is trusted, what is replaced, what is removed.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;

use forkmon::control::place::{Folders, find};
use forkmon::control::{Place, Reply, Request, Server};

use super::harness::{Client, Ground, as_root, plausible, serve};

/// What goes wrong when a server is started.
#[track_caller]
fn refused(place: Place) -> String {
    let started = Server::start(place, drop);
    format!("{:#}", started.map(|_| "it listens").unwrap_err())
}

/// A socket that its process has left.
fn stale(path: &Path, mode: u32) {
    drop(UnixListener::bind(path).unwrap());
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn only_the_owner_can_reach_it_and_nothing_is_left() {
    let ground = Ground::new();
    let place = ground.place(4711);
    let (server, _) = serve(place.clone(), plausible);
    assert_eq!(server.path().parent().unwrap(), ground.sockets());
    let mode = |path: &Path| path.symlink_metadata().unwrap().mode() & 0o7777;
    assert_eq!(mode(&ground.sockets()), 0o700);
    assert_eq!(mode(place.path()), 0o600);
    assert!(place.path().as_os_str().len() < 108);
    drop(server);
    assert!(!ground.sockets().exists());
}

#[test]
fn a_runtime_folder_that_is_not_private_is_not_used() {
    let ground = Ground::new();
    let user = rustix::process::geteuid().as_raw();
    let in_temporary = ground.path(&format!("forkmon-{user}"));
    let folder = |runtime: Option<&Path>| {
        let folders = Folders {
            runtime: runtime.map(Path::to_owned),
            temporary: ground.path(""),
        };
        let place = Place::own(&folders, Path::new("/project"), 1);
        place.path().parent().unwrap().to_owned()
    };
    assert_eq!(folder(Some(&ground.path("run"))), ground.sockets());
    assert_eq!(folder(None), in_temporary);
    assert_eq!(folder(Some(Path::new("relative"))), in_temporary);
    assert_eq!(folder(Some(&ground.path("missing"))), in_temporary);
    // A socket's address has no room for it.
    let long = ground.path(&"l".repeat(100));
    std::fs::create_dir(&long).unwrap();
    std::fs::set_permissions(&long, std::fs::Permissions::from_mode(0o700)).unwrap();
    assert_eq!(folder(Some(&long)), in_temporary);
    ground.set_mode("run", 0o755);
    assert_eq!(folder(Some(&ground.path("run"))), in_temporary);
}

#[test]
fn a_folder_of_that_name_that_is_not_private_is_refused() {
    let ground = Ground::new();
    let place = ground.place(1);
    let folder = ground.sockets();

    std::fs::create_dir(ground.path("elsewhere")).unwrap();
    ground.set_mode("elsewhere", 0o700);
    symlink(ground.path("elsewhere"), &folder).unwrap();
    assert!(refused(place.clone()).contains("is not a folder"));
    std::fs::remove_file(&folder).unwrap();

    std::fs::write(&folder, "precious").unwrap();
    assert!(refused(place.clone()).contains("is not a folder"));
    assert_eq!(std::fs::read(&folder).unwrap(), b"precious");
    std::fs::remove_file(&folder).unwrap();

    std::fs::create_dir(&folder).unwrap();
    ground.set_mode("run/forkmon", 0o750);
    let told = refused(place.clone());
    assert!(told.contains("open to other users"), "{told}");
    assert!(told.contains("--control"), "no remedy: {told}");
    assert!(folder.exists());

    if as_root() {
        ground.set_mode("run/forkmon", 0o700);
        std::os::unix::fs::chown(&folder, Some(65534), Some(65534)).unwrap();
        assert!(refused(place).contains("belongs to another user"));
        let (found, errors) = find(&ground.folders(), &ground.path("project"));
        assert!(found.is_empty());
        assert_eq!(errors.len(), 1, "{errors:?}");
    }
}

#[test]
fn a_dead_socket_is_replaced_and_nothing_else_is() {
    let ground = Ground::new();
    let path = ground.path("control");
    let place = Place::named(&path).unwrap();

    stale(&path, 0o600);
    let (server, _) = serve(place.clone(), plausible);
    let answer = Client::connect(&path).ask(Request::Restart);
    assert_eq!(answer, Some(Reply::Restarted));

    // Another forkmon, alive.
    let told = refused(place.clone());
    assert!(told.contains("somebody listens"), "{told}");
    let answer = Client::connect(&path).ask(Request::Restart);
    assert_eq!(answer, Some(Reply::Restarted), "the first one is disturbed");
    drop(server);
    assert!(!path.exists());

    std::fs::write(&path, "precious").unwrap();
    let told = refused(place.clone());
    assert!(told.contains("is there already"), "{told}");
    assert_eq!(std::fs::read(&path).unwrap(), b"precious");
    std::fs::remove_file(&path).unwrap();

    // No socket of forkmon's is open to others.
    stale(&path, 0o755);
    refused(place.clone());
    assert!(path.exists());

    let link = ground.path("link");
    stale(&ground.path("dead"), 0o600);
    symlink(ground.path("dead"), &link).unwrap();
    refused(Place::named(&link).unwrap());
    assert!(link.symlink_metadata().unwrap().is_symlink());
    assert!(ground.path("dead").exists());
}

#[test]
fn a_place_that_cannot_be_is_refused_by_its_name() {
    let ground = Ground::new();
    let told = refused(Place::named(&ground.path("missing/control")).unwrap());
    assert!(told.contains("missing/control"), "{told}");
    let long = ground.path(&"l".repeat(200));
    let told = Place::named(&long).unwrap_err().to_string();
    assert!(told.contains("choose a shorter one"), "{told}");
}

#[test]
fn what_replaced_the_socket_is_left_alone() {
    let ground = Ground::new();
    let path = ground.path("control");
    let (server, _) = serve(Place::named(&path).unwrap(), plausible);
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, "precious").unwrap();
    drop(server);
    assert_eq!(std::fs::read(&path).unwrap(), b"precious");
}

#[test]
fn all_sockets_are_found_and_those_of_the_dead_are_removed() {
    let ground = Ground::new();
    let root = ground.path("project");
    let (_one, _) = serve(ground.place(std::process::id()), plausible);
    let (_two, _) = serve(ground.place(1), plausible);
    let elsewhere = Place::own(&ground.folders(), Path::new("/elsewhere"), 1);
    let (_three, _) = serve(elsewhere.clone(), plausible);
    // No process has an id this high, or gets it.
    let dead = ground.place(4_194_305);
    stale(dead.path(), 0o600);
    let other_file = ground.sockets().join("notes");
    std::fs::write(&other_file, "precious").unwrap();

    let (found, errors) = find(&ground.folders(), &root);
    assert!(errors.is_empty(), "{errors:?}");
    assert_eq!(found.len(), 3, "{found:?}");
    assert_eq!(found.iter().filter(|found| found.matches).count(), 2);
    assert!(!dead.path().exists());
    assert!(other_file.exists());
    let other = found.iter().find(|found| !found.matches).unwrap();
    assert_eq!(other.path, elsewhere.path());
    assert_eq!(other.pid, 1);
}

#[test]
fn a_socket_that_does_not_listen_yet_is_not_removed() {
    let ground = Ground::new();
    let place = ground.place(std::process::id());
    place.prepare().unwrap();
    stale(place.path(), 0o600);
    let (found, _) = find(&ground.folders(), &ground.path("project"));
    assert_eq!(found.len(), 1);
    assert!(place.path().exists());
}

/// The folder is removed by whoever finds it empty, and made again by whoever
/// needs it.
#[test]
fn many_that_come_and_go_do_not_disturb_each_other() {
    let ground = Ground::new();
    std::thread::scope(|scope| {
        for number in 0..8 {
            let ground = &ground;
            scope.spawn(move || {
                for round in 0..30 {
                    let (server, _) = serve(ground.place(number * 100 + round + 1), plausible);
                    let answer = Client::connect(server.path()).ask(Request::Restart);
                    assert_eq!(answer, Some(Reply::Restarted));
                }
            });
        }
    });
    assert!(!ground.sockets().exists());
}
