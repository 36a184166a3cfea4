//! Which paths count.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod folders;
mod properties;

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};

use forkmon::scope::{Error, Request, Scope};

/// A scope over folders that need not exist. Tables of paths follow, `in` or
/// `out`.
fn scope(change: impl FnOnce(&mut Request)) -> Scope {
    let mut request = Request {
        cwd: "/nowhere/project".into(),
        home: Some("/nowhere".into()),
        ..Request::default()
    };
    change(&mut request);
    Scope::new(&request).unwrap()
}

#[track_caller]
fn check(scope: &Scope, inside: &[&str], outside: &[&str]) {
    for path in inside {
        assert!(scope.contains(Path::new(path)), "{path} should be in");
    }
    for path in outside {
        assert!(!scope.contains(Path::new(path)), "{path} should be out");
    }
}

fn words(words: &[&str]) -> Vec<OsString> {
    words.iter().map(OsString::from).collect()
}

fn texts(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

#[test]
fn by_default_everything_under_the_root_counts() {
    let scope = scope(|_| {});
    assert_eq!(scope.root(), Path::new("/nowhere/project"));
    check(
        &scope,
        &[
            "/nowhere/project",
            "/nowhere/project/main.lua",
            "/nowhere/project/lib/deep/er/x",
            "/nowhere/project/.env",
            "/nowhere/project/.config/x",
        ],
        &[
            "/",
            "/nowhere",
            "/nowhere/other",
            "/nowhere/project2/main.lua",
            "/nowhere/projec",
            "/usr/lib/x",
            "/etc/passwd",
        ],
    );
}

#[test]
fn what_no_person_edits_is_out() {
    let scope = scope(|_| {});
    for name in [
        ".git",
        ".hg",
        ".jj",
        ".svn",
        "node_modules",
        ".venv",
        "venv",
        "site-packages",
        "__pycache__",
        "main.lua~",
        "x.tmp~",
        ".main.lua.swp",
        ".main.lua.swo",
        ".main.lua.swx",
        "4913",
        ".#main.lua",
        "#main.lua#",
        ".main.lua.kate-swp",
        ".goutputstream-ABC123",
        "main.lua___jb_tmp___",
        "main.lua___jb_old___",
    ] {
        let path = Path::new("/nowhere/project").join(name);
        assert!(!scope.contains(&path), "{name} should be out");
        assert!(
            !scope.contains(&path.join("a/b")),
            "{name}/a/b should be out"
        );
        assert!(!scope.may_contain_below(&path), "nothing below {name}");
        assert!(
            !scope.contains_name_in_listing(Path::new("/nowhere/project"), name.as_ref()),
            "{name} in a listing"
        );
    }
    check(
        &scope,
        &[
            "/nowhere/project/.gitignore",
            "/nowhere/project/.github/x",
            "/nowhere/project/git",
            "/nowhere/project/venvs",
            "/nowhere/project/movie.swp",
            "/nowhere/project/.swap",
            "/nowhere/project/49130",
            "/nowhere/project/#main.lua",
            "/nowhere/project/main#",
            "/nowhere/project/~main",
            "/nowhere/project/#",
        ],
        &[],
    );
}

#[test]
fn a_project_may_lie_inside_of_an_excluded_folder() {
    let scope = scope(|request| request.cwd = "/nowhere/node_modules/package".into());
    check(
        &scope,
        &["/nowhere/node_modules/package/index.js"],
        &["/nowhere/node_modules/package/node_modules/x.js"],
    );
}

#[test]
fn a_watched_path_is_added_wherever_it_is() {
    let scope = scope(|request| {
        request.watch = words(&["/elsewhere/lib", "../shared/one.txt", "./sub/../data"]);
    });
    check(
        &scope,
        &[
            "/elsewhere/lib",
            "/elsewhere/lib/a/b.lua",
            "/nowhere/shared/one.txt",
            "/nowhere/project/main.lua",
        ],
        &[
            "/elsewhere",
            "/elsewhere/library",
            "/elsewhere/lib/.git/HEAD",
            "/elsewhere/lib/a~",
            "/nowhere/shared/two.txt",
        ],
    );
    for dir in ["/", "/elsewhere", "/elsewhere/lib", "/nowhere/shared"] {
        assert!(scope.may_contain_below(Path::new(dir)), "{dir}");
    }
    for dir in ["/usr", "/elsewhere/other", "/elsewhere/lib/.git"] {
        assert!(!scope.may_contain_below(Path::new(dir)), "{dir}");
    }
}

#[test]
fn what_is_named_is_in_although_it_is_excluded() {
    let scope = scope(|request| {
        request.watch = words(&["node_modules/ours", ".git/HEAD", ".venv", "notes~"]);
    });
    check(
        &scope,
        &[
            "/nowhere/project/node_modules/ours/index.js",
            "/nowhere/project/node_modules/ours/node_modules/theirs/index.js",
            "/nowhere/project/.git/HEAD",
            "/nowhere/project/.venv/lib/python3/site-packages/a/__pycache__/a.pyc",
            "/nowhere/project/notes~",
        ],
        &[
            "/nowhere/project/node_modules/theirs/index.js",
            "/nowhere/project/node_modules/ours/.git/HEAD",
            "/nowhere/project/node_modules/ours/index.js~",
            "/nowhere/project/.git/config",
            "/nowhere/project/other~",
        ],
    );
    assert!(scope.may_contain_below(Path::new("/nowhere/project/node_modules")));
    assert!(!scope.may_contain_below(Path::new("/nowhere/project/node_modules/theirs")));
}

#[test]
fn a_watched_glob_is_about_the_working_folder() {
    let scope = scope(|request| {
        request.watch = words(&["/etc/*.conf", "../other/**/*.lua", "node_modules/*/x.js"]);
    });
    check(
        &scope,
        &[
            "/etc/a.conf",
            "/nowhere/other/b.lua",
            "/nowhere/other/deep/er/b.lua",
            "/nowhere/project/node_modules/a/x.js",
        ],
        &[
            "/etc/passwd",
            "/etc/deep/a.conf",
            "/nowhere/other/b.txt",
            "/nowhere/other/.git/b.lua",
            "/nowhere/project/node_modules/a/y.js",
            "/nowhere/project/node_modules/a/b/x.js",
        ],
    );
    assert!(scope.may_contain_below(Path::new("/etc")));
    assert!(!scope.may_contain_below(Path::new("/usr")));
}

#[test]
fn names_of_folders_are_not_taken_for_wildcards() {
    let scope = scope(|request| {
        request.cwd = "/nowhere/[a]{b}*".into();
        request.watch = words(&["node_modules/*.js"]);
        request.ignores = texts(&["out/*.o"]);
    });
    check(
        &scope,
        &[
            "/nowhere/[a]{b}*/main.c",
            "/nowhere/[a]{b}*/node_modules/a.js",
        ],
        &[
            "/nowhere/[a]{b}*/out/main.o",
            "/nowhere/ab/main.c",
            "/nowhere/ab/node_modules/a.js",
        ],
    );
}

#[test]
fn filters_and_extensions_narrow() {
    let scope = scope(|request| {
        request.filters = texts(&["Makefile", "conf/*.toml", "templates"]);
        request.extensions = texts(&["lua", ".json", "d.ts"]);
        request.watch = words(&["/elsewhere", "/etc/hosts"]);
    });
    check(
        &scope,
        &[
            "/nowhere/project/main.lua",
            "/nowhere/project/a/b.json",
            "/nowhere/project/a/types.d.ts",
            "/nowhere/project/Makefile",
            "/nowhere/project/a/Makefile",
            "/nowhere/project/conf/a.toml",
            "/nowhere/project/a/templates/page.html",
            "/elsewhere/x.lua",
            // Named exactly.
            "/etc/hosts",
        ],
        &[
            "/nowhere/project/main.c",
            "/nowhere/project/types.ts",
            "/nowhere/project/.lua",
            "/nowhere/project/conf/deep/a.toml",
            "/nowhere/project/a/conf/a.toml",
            "/nowhere/project/lua",
            "/elsewhere/x.c",
        ],
    );
    // A folder that does not pass may hold what does.
    assert!(scope.may_contain_below(Path::new("/nowhere/project/conf")));
}

#[test]
fn ignoring_wins() {
    let scope = scope(|request| {
        request.ignores = texts(&["build/", "*.log", "src/gen/**", "**/fix*/tmp", "/etc/hosts"]);
        request.extensions = texts(&["lua", "log"]);
        request.watch = words(&["/etc/hosts", "build/wanted.lua", "/elsewhere"]);
    });
    check(
        &scope,
        &[
            "/nowhere/project/src/a.lua",
            "/nowhere/project/sub/src/gen/a.lua",
            "/nowhere/project/builds/a.lua",
            "/elsewhere/a.lua",
        ],
        &[
            "/nowhere/project/build/a.lua",
            "/nowhere/project/build/wanted.lua",
            "/nowhere/project/a/build/b/a.lua",
            "/nowhere/project/a.log",
            "/nowhere/project/src/gen/a.lua",
            "/nowhere/project/x/fixtures/tmp/a.lua",
            "/elsewhere/a.log",
            "/elsewhere/build/a.lua",
            "/etc/hosts",
        ],
    );
    assert!(!scope.may_contain_below(Path::new("/nowhere/project/a/build")));
    assert!(scope.may_contain_below(Path::new("/nowhere/project")));
}

#[test]
fn ignoring_a_name_is_not_about_the_folders_above_the_project() {
    let scope = scope(|request| {
        request.cwd = "/tmp/build/project".into();
        request.ignores = texts(&["tmp", "build"]);
    });
    check(
        &scope,
        &["/tmp/build/project/a.lua"],
        &["/tmp/build/project/tmp/a.lua"],
    );
    for dir in ["/", "/tmp", "/tmp/build", "/tmp/build/project"] {
        assert!(scope.may_contain_below(Path::new(dir)), "{dir}");
    }
}

#[test]
fn patterns_replace_the_default() {
    let scope = scope(|request| {
        request.patterns = Some("%.lua$;;^/etc/.*%.conf$".into());
        request.watch = words(&["extra.txt"]);
        request.ignores = texts(&["secret.lua"]);
    });
    check(
        &scope,
        &[
            "/nowhere/project/main.lua",
            "/usr/share/lua/5.4/x.lua",
            "/nowhere/project/node_modules/x.lua",
            "/etc/a/b.conf",
            "/nowhere/project/extra.txt",
        ],
        &[
            "/nowhere/project/main.c",
            "/tmp/main.lua",
            "/nowhere/x.conf",
            "/nowhere/project/secret.lua",
            "/usr/secret.lua",
            "/proc/self/x.lua",
        ],
    );
    assert!(scope.may_contain_below(Path::new("/usr")));
    assert!(!scope.may_contain_below(Path::new("/tmp")));
}

#[test]
fn an_empty_pattern_variable_counts_as_unset() {
    let scope = scope(|request| request.patterns = Some(OsString::new()));
    check(&scope, &["/nowhere/project/main.c"], &["/usr/lib/x.lua"]);
}

#[test]
fn some_paths_are_never_in() {
    let scope = scope(|request| {
        request.cwd = "/".into();
        request.watch = words(&["/proc", "/dev/null", "/nowhere"]);
    });
    assert_eq!(scope.root(), Path::new("/"));
    check(
        &scope,
        &["/etc/hosts", "/dev/shm/project/x"],
        &[
            "/proc/self/maps",
            "/sys/kernel/x",
            "/dev/null",
            "/nowhere/.forkmon-1-abc",
            "/nowhere/.forkmon-1-abc/x",
            "/etc/.forkmon-1-abc/x",
        ],
    );
    assert!(!scope.may_contain_below(Path::new("/sys")));
}

#[test]
fn a_path_that_is_not_utf8_counts_as_others_do() {
    let scope = scope(|request| request.ignores = texts(&["*.log"]));
    let path = |bytes: &[u8]| PathBuf::from(OsString::from_vec(bytes.to_vec()));
    assert!(scope.contains(&path(b"/nowhere/project/\xff.lua")));
    assert!(!scope.contains(&path(b"/nowhere/project/\xff.log")));
    assert!(!scope.contains(&path(b"/nowhere/project/\xff~")));
}

#[test]
fn what_is_malformed_is_named() {
    let refused = |change: fn(&mut Request)| {
        let mut request = Request {
            cwd: "/nowhere/project".into(),
            ..Request::default()
        };
        change(&mut request);
        Scope::new(&request).unwrap_err()
    };
    let error = refused(|request| request.filters = texts(&["a[b"]));
    assert!(matches!(&error, Error::Glob { option: "--filter", glob, .. } if glob == "a[b"));
    let error = refused(|request| request.ignores = texts(&["/"]));
    assert!(matches!(
        error,
        Error::Glob {
            option: "--ignore",
            ..
        }
    ));
    let error = refused(|request| request.watch = words(&["a/{b"]));
    assert!(matches!(
        error,
        Error::Glob {
            option: "--watch",
            ..
        }
    ));
    let error = refused(|request| request.extensions = texts(&["*.lua"]));
    assert!(matches!(error, Error::Extension(_)));
    let error = refused(|request| request.patterns = Some("%.lua$;[a".into()));
    assert!(error.to_string().contains("FORKMON_FILTER"), "{error}");
    assert!(error.to_string().contains("\"[a\""), "{error}");
    let error = refused(|request| request.patterns = Some(";".into()));
    assert!(matches!(error, Error::NoPattern));
}
