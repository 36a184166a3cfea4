//! Scopes over folders that are there: marks of a project, symbolic links, odd names.

use std::path::PathBuf;

use forkmon::scope::{Request, Scope, project_root};

use crate::words;

/// A folder with a project in it, without symbolic links in its name.
struct Tree {
    _dir: tempfile::TempDir,
    top: PathBuf,
}

impl Tree {
    fn with(folders: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let top = dir.path().canonicalize().unwrap();
        for folder in folders {
            std::fs::create_dir_all(top.join(folder)).unwrap();
        }
        Self { _dir: dir, top }
    }

    fn root_from(&self, cwd: &str, home: &str) -> PathBuf {
        project_root(&self.top.join(cwd), Some(&self.top.join(home)))
    }
}

#[test]
fn the_root_is_the_nearest_marked_folder() {
    let tree = Tree::with(&["u/.git", "u/a/.hg", "u/a/b/c", "u/d/e", "u/f/.jj", "u/g"]);
    assert_eq!(tree.root_from("u/a/b/c", "home"), tree.top.join("u/a"));
    assert_eq!(tree.root_from("u/d/e", "home"), tree.top.join("u"));
    assert_eq!(tree.root_from("u/f", "home"), tree.top.join("u/f"));
    // A work tree of git has a file in place of the folder.
    std::fs::write(tree.top.join("u/d/.git"), "gitdir: elsewhere").unwrap();
    assert_eq!(tree.root_from("u/d/e", "home"), tree.top.join("u/d"));
    std::fs::write(tree.top.join("u/g/forkmon.toml"), "").unwrap();
    assert_eq!(tree.root_from("u/g", "home"), tree.top.join("u/g"));
}

#[test]
fn the_home_folder_is_never_found_as_the_root() {
    let tree = Tree::with(&["u/.git", "u/a/b"]);
    assert_eq!(tree.root_from("u/a/b", "u"), tree.top.join("u/a/b"));
    // Also where $HOME goes by a symbolic link.
    std::os::unix::fs::symlink("u", tree.top.join("link")).unwrap();
    assert_eq!(tree.root_from("u/a/b", "link"), tree.top.join("u/a/b"));
}

#[test]
fn names_by_symbolic_links_count_as_well() {
    let tree = Tree::with(&["real/.git", "real/sub", "outside/lib"]);
    std::os::unix::fs::symlink("real", tree.top.join("link")).unwrap();
    std::os::unix::fs::symlink("outside", tree.top.join("other")).unwrap();
    let scope = Scope::new(&Request {
        cwd: tree.top.join("real/sub"),
        cwd_by_name: Some(tree.top.join("link/sub")),
        watch: vec![tree.top.join("other/lib").into()],
        ..Request::default()
    })
    .unwrap();
    assert_eq!(scope.root(), tree.top.join("real"));
    for path in [
        "real/a",
        "link/a",
        "link/sub/a",
        "other/lib/a",
        "outside/lib/a",
    ] {
        assert!(scope.contains(&tree.top.join(path)), "{path}");
    }
    for path in ["other/a", "outside/a", "a"] {
        assert!(!scope.contains(&tree.top.join(path)), "{path}");
    }
}

#[test]
fn a_stale_pwd_is_not_believed() {
    let tree = Tree::with(&["real/.git", "stale"]);
    let scope = Scope::new(&Request {
        cwd: tree.top.join("real"),
        cwd_by_name: Some(tree.top.join("stale")),
        ..Request::default()
    })
    .unwrap();
    assert!(!scope.contains(&tree.top.join("stale/a")));
}

#[test]
fn a_file_with_wildcards_in_its_name_is_that_file() {
    let tree = Tree::with(&["project/.git", "pages"]);
    std::fs::write(tree.top.join("pages/[id].js"), "").unwrap();
    let scope = Scope::new(&Request {
        cwd: tree.top.join("project"),
        watch: words(&["../pages/[id].js"]),
        ..Request::default()
    })
    .unwrap();
    assert!(scope.contains(&tree.top.join("pages/[id].js")));
    assert!(!scope.contains(&tree.top.join("pages/i.js")));
}
