//! The oracle: after every edit, is what forkmon leaves what a fresh run would?
//!
//! Each project below `projects` is run under the real forkmon while a person,
//! made from a seed, edits its files. After each step, what was printed, the exit
//! status and the whole tree of files are compared with those of the bare program,
//! run from the beginning on the files as the person has made them by then.
//!
//! ```text
//!  seed ──► generator ──► steps ──┬──► model ──► plain run ──► outcome ┐
//!                                 └──► files ──► forkmon ────► outcome ┴──► equal?
//! ```
//!
//! A difference prints the seed and the steps, made fewer, and is repeated by
//! `FORKMON_EQUIVALENCE_SEED` and `FORKMON_EQUIVALENCE_STEPS`. What is marked as
//! editable in a project, and what edits there are, stands in `generator`.

mod catalog;
mod edit;
mod generator;
mod live;
mod manner;
mod model;
mod oracle;
mod plain;
mod project;
mod self_test;
mod session;
mod shrink;
mod site;
mod soak;
mod tally;
mod tree;
mod trial;

// What reads events, finds guests and looks for processes is the same as in the
// tests with guests; each of the two uses a part of it.
#[path = "../guests/harness/event.rs"]
#[expect(dead_code, reason = "the tests with guests use all of it")]
mod event;
#[path = "../guests/harness/guest.rs"]
#[expect(dead_code, reason = "the tests with guests use all of it")]
mod guest;
#[path = "../guests/harness/processes.rs"]
#[expect(dead_code, reason = "the tests with guests use all of it")]
mod processes;

/// How long anything is waited for in a part that is shared with the tests with
/// guests.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(60);

/// A test for each project of the catalog.
macro_rules! projects {
    ($($name:ident),* $(,)?) => {
        $(
            #[test]
            fn $name() {
                oracle::ask(stringify!($name));
            }
        )*

        #[test]
        fn every_project_is_tested() {
            let tested = [$(stringify!($name)),*];
            let known: Vec<&str> = catalog::PROJECTS.iter().map(|one| one.name).collect();
            assert_eq!(known, tested);
        }
    };
}

projects! {
    lua,
    luajit,
    python,
    node,
    ruby,
    perl,
    tcc,
    go,
    jvm,
    static_c,
    dash,
    bash,
    sed,
    awk,
    sqlite,
    m4,
    pdflatex,
    threads,
    pipeline,
    make,
    rewriter,
    script,
    stream,
    book,
    effects,
}
