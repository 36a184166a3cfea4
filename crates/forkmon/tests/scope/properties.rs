//! What holds of any rules and any paths.

use std::path::PathBuf;

use forkmon::scope::{Request, Scope};
use proptest::prelude::*;

/// Few names, so that rules and paths meet.
fn name() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![
        "a",
        "b",
        "x.lua",
        "x.c",
        ".git",
        "node_modules",
        "y~",
        "tmp",
        "nowhere",
        "project",
    ])
}

fn path() -> impl Strategy<Value = PathBuf> {
    let below = prop::collection::vec(name(), 0..6);
    let top = prop::sample::select(vec!["/", "/nowhere/project", "/nowhere", "/tmp", "/proc"]);
    (top, below).prop_map(|(top, below)| {
        below
            .into_iter()
            .fold(top.into(), |path: PathBuf, name| path.join(name))
    })
}

fn glob() -> impl Strategy<Value = String> {
    let part = prop_oneof![4 => name(), 1 => Just("*"), 1 => Just("**"), 1 => Just("*.lua"), 1 => Just("..")];
    prop::collection::vec(part, 1..4).prop_map(|parts| parts.join("/"))
}

fn request() -> impl Strategy<Value = Request> {
    let globs = || prop::collection::vec(glob(), 0..3);
    let cwd = prop::sample::select(vec![
        "/nowhere/project",
        "/nowhere/project/a",
        "/tmp/b",
        "/",
    ]);
    let patterns = prop::option::weighted(0.3, prop::sample::select(vec!["%.lua$", "a/b;^/tmp"]));
    (cwd, globs(), globs(), globs(), patterns).prop_map(
        |(cwd, watch, filters, ignores, patterns)| Request {
            cwd: cwd.into(),
            watch: watch.into_iter().map(Into::into).collect(),
            filters,
            ignores,
            patterns: patterns.map(Into::into),
            ..Request::default()
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    /// A tree that is known to be out holds nothing that is in.
    #[test]
    fn nothing_is_in_below_a_folder_that_holds_nothing(request in request(), path in path()) {
        // A glob may be refused, like one with three stars in a row.
        let Ok(scope) = Scope::new(&request) else { return Ok(()) };
        if scope.contains(&path) {
            for dir in path.ancestors().skip(1) {
                prop_assert!(scope.may_contain_below(dir), "{dir:?} of {path:?}");
            }
        }
    }

    /// A further -w only ever adds.
    #[test]
    fn watching_more_never_takes_away(request in request(), more in glob(), path in path()) {
        let mut wider = request.clone();
        wider.watch.push(more.into());
        let (Ok(scope), Ok(wider)) = (Scope::new(&request), Scope::new(&wider)) else {
            return Ok(());
        };
        if scope.contains(&path) {
            prop_assert!(wider.contains(&path));
        }
    }

    /// A further -i only ever takes away, and takes all below with it.
    #[test]
    fn ignoring_more_never_adds(request in request(), more in glob(), path in path()) {
        let mut narrower = request.clone();
        narrower.ignores.push(more);
        let (Ok(scope), Ok(narrower)) = (Scope::new(&request), Scope::new(&narrower)) else {
            return Ok(());
        };
        if narrower.contains(&path) {
            prop_assert!(scope.contains(&path));
        }
    }
}
