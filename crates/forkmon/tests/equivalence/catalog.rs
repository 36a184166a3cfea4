//! The projects that the oracle is asked about. Each is a folder of the same
//! name below `projects` that a person can run by hand with the command given
//! here.

use super::project::{Build, Definition};

/// All projects.
pub const PROJECTS: &[Definition] = &[
    Definition {
        optional: &[
            ("override.txt", "scale @7@\n"),
            ("extra.lua", "return { name = 'extra @1@' }\n"),
        ],
        rewritten: &["state.txt", "log.txt"],
        ..Definition::new("lua", &["lua5.4", "main.lua"], &["lua5.4"])
    },
    Definition {
        optional: &[
            ("settings_local.py", "GREETING = 'local @4@'\n"),
            ("items/zeta.txt", "zeta @3@\n"),
        ],
        rewritten: &["counter.txt"],
        outputs: &["old.txt"],
        ..Definition::new("python", &["python3", "main.py"], &["python3"])
    },
    Definition {
        build: Some(Build::Go),
        optional: &[("override.txt", "override @3@\n")],
        rewritten: &["ledger.txt"],
        outputs: &["stale.txt"],
        ..Definition::new("go", &["{built}"], &["go"])
    },
    Definition {
        build: Some(Build::Java),
        optional: &[("override.txt", "override @3@\n")],
        rewritten: &["ledger.txt"],
        outputs: &["stale.txt"],
        ..Definition::new(
            "jvm",
            &[
                "java",
                "-Xmx128m",
                "-Xshare:auto",
                "-XX:TieredStopAtLevel=1",
                "-XX:+UseSerialGC",
                "-cp",
                "{built}",
                "Main",
            ],
            &["java", "javac"],
        )
    },
    Definition {
        build: Some(Build::C),
        optional: &[("override.txt", "override @3@\n")],
        rewritten: &["records.bin"],
        outputs: &["stale.txt"],
        ..Definition::new("static_c", &["{built}"], &["cc"])
    },
    Definition {
        optional: &[("hook.sh", "echo hook '@5@'\n")],
        rewritten: &["log.txt"],
        ..Definition::new("dash", &["dash", "main.sh"], &["dash"])
    },
];

/// The project with this name.
///
/// # Panics
///
/// When there is none.
pub const fn find(name: &str) -> &'static Definition {
    let mut at = 0;
    while at < PROJECTS.len() {
        if is_same(PROJECTS[at].name, name) {
            return &PROJECTS[at];
        }
        at += 1;
    }
    panic!("it is not in the catalog")
}

const fn is_same(one: &str, other: &str) -> bool {
    let (one, other) = (one.as_bytes(), other.as_bytes());
    let mut at = 0;
    while at < one.len() && at < other.len() && one[at] == other[at] {
        at += 1;
    }
    at == one.len() && at == other.len()
}
