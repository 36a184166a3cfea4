//! The projects that the oracle is asked about. Each is a folder of the same
//! name below `projects` that a person can run by hand with the command given
//! here.

use super::project::{Build, Definition};

const PDFLATEX: &[&str] = &["pdflatex", "-interaction=nonstopmode", "main.tex"];

/// The same date in each document.
const TEX: &[(&str, &str)] = &[
    ("SOURCE_DATE_EPOCH", "1700000000"),
    ("FORCE_SOURCE_DATE", "1"),
];

/// All projects.
pub const PROJECTS: &[Definition] = &[
    Definition {
        optional: &[
            ("override.txt", "scale @7@\n"),
            ("extra.lua", "return { name = 'extra @1@' }\n"),
        ],
        rewritten: &["state.txt", "log.txt"],
        outputs: &["report.txt", "part.txt"],
        ..Definition::new("lua", &["lua5.4", "main.lua"], &["lua5.4"], "main.lua")
    },
    Definition {
        optional: &[("hooks/late.lua", "print('late hook @5@')\n")],
        rewritten: &["table.bin"],
        ..Definition::new(
            "luajit",
            &["luajit", "main.lua"],
            &["luajit"],
            "lib/greeting.lua",
        )
    },
    Definition {
        optional: &[
            ("settings_local.py", "GREETING = 'local @4@'\n"),
            ("items/zeta.txt", "zeta @3@\n"),
        ],
        rewritten: &["counter.txt"],
        outputs: &["old.txt"],
        ..Definition::new("python", &["python3", "main.py"], &["python3"], "main.py")
    },
    Definition {
        optional: &[("local.json", "{ \"extra\": \"@8@\" }\n")],
        rewritten: &["history.log"],
        outputs: &["old/file"],
        ..Definition::new("node", &["node", "main.js"], &["node"], "lib/shapes.js")
    },
    Definition {
        optional: &[("plugins/zz.rb", "Plugins << 'zz @2@'\n")],
        rewritten: &["journal.txt"],
        ..Definition::new("ruby", &["ruby", "main.rb"], &["ruby"], "lib/greeting.rb")
    },
    Definition {
        optional: &[("local.pl", "$local = 'local @6@'; 1;\n")],
        rewritten: &["state.txt"],
        outputs: &["ledger.txt"],
        ..Definition::new("perl", &["perl", "main.pl"], &["perl"], "parts/first.pl")
    },
    Definition {
        optional: &[("override.h", "#define OVERRIDE \"@9@\"\n")],
        outputs: &["stale.txt"],
        ..Definition::new("tcc", &["tcc", "-run", "main.c"], &["tcc"], "lib/first.h")
    },
    Definition {
        build: Some(Build::Go),
        optional: &[("override.txt", "override @3@\n")],
        rewritten: &["ledger.txt"],
        outputs: &["stale.txt"],
        ..Definition::new("go", &["{built}"], &["go"], "config.txt")
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
            "config.txt",
        )
    },
    Definition {
        build: Some(Build::C),
        optional: &[("override.txt", "override @3@\n")],
        rewritten: &["records.bin"],
        outputs: &["stale.txt"],
        ..Definition::new("static_c", &["{built}"], &["cc"], "mapped.txt")
    },
    Definition {
        optional: &[("hook.sh", "echo hook '@5@'\n")],
        rewritten: &["log.txt"],
        outputs: &["out/errors"],
        ..Definition::new("dash", &["dash", "main.sh"], &["dash"], "main.sh")
    },
    Definition {
        optional: &[("hook.bash", "echo \"hook $((@5@ + 0))\"\n")],
        rewritten: &["list.txt"],
        ..Definition::new("bash", &["bash", "main.bash"], &["bash"], "main.bash")
    },
    Definition {
        outputs: &["lines.out"],
        ..Definition::new(
            "sed",
            &[
                "sed",
                "-n",
                "-f",
                "main.sed",
                "one.txt",
                "two.txt",
                "three.txt",
            ],
            &["sed"],
            "main.sed",
        )
    },
    Definition {
        optional: &[("more.txt", "more @4@\n")],
        outputs: &["stale.txt"],
        ..Definition::new(
            "awk",
            &["gawk", "-f", "main.awk", "one.txt", "two.txt", "three.txt"],
            &["gawk"],
            "main.awk",
        )
    },
    Definition {
        outputs: &["report.txt"],
        ..Definition::new(
            "sqlite",
            &[
                "sqlite3",
                "-batch",
                "work.db",
                ".read schema.sql",
                ".read load.sql",
                ".read report.sql",
            ],
            &["sqlite3"],
            "schema.sql",
        )
    },
    Definition {
        optional: &[("local.m4", "define(`LOCAL', `local @2@')dnl\n")],
        ..Definition::new("m4", &["m4", "main.m4"], &["m4"], "first.m4")
    },
    Definition {
        when_installed: true,
        environment: TEX,
        optional: &[("extra.tex", "Something more: @4@.\n")],
        outputs: &["main.out"],
        ..Definition::new("pdflatex", PDFLATEX, &["pdflatex"], "main.tex")
    },
    Definition {
        rewritten: &["total.txt"],
        ..Definition::new("threads", &["python3", "main.py"], &["python3"], "main.py")
    },
    Definition {
        optional: &[("stages/90-last.sh", "tr a-z A-Z\n")],
        ..Definition::new(
            "pipeline",
            &["dash", "main.sh"],
            &["dash", "sed"],
            "main.sh",
        )
    },
    Definition {
        optional: &[
            ("local.mk", "MARK := local @7@\n"),
            ("src/four.txt", "four @4@\n"),
        ],
        ..Definition::new("make", &["make"], &["make", "dash"], "config.mk")
    },
    Definition {
        rewritten: &[
            "data/place.txt",
            "data/rename.txt",
            "data/anew.txt",
            "data/backup.txt",
        ],
        ..Definition::new("rewriter", &["perl", "main.pl"], &["perl"], "style.conf")
    },
    Definition::new("script", &["bash", "main.bash"], &["bash"], "main.bash"),
    Definition {
        outputs: &["sums"],
        ..Definition::new(
            "stream",
            &["mawk", "-f", "main.awk", "long.txt", "other.txt"],
            &["mawk"],
            "long.txt",
        )
    },
    Definition {
        when_installed: true,
        environment: TEX,
        ..Definition::new("book", PDFLATEX, &["pdflatex"], "chapters/long.tex")
    },
    Definition {
        rewritten: &[
            "kept.dat",
            "old/deep/file",
            "old/other",
            "sparse.bin",
            "tree/inner.dat",
        ],
        ..Definition::new(
            "effects",
            &["python3", "main.py"],
            &["python3"],
            "steps/begin.txt",
        )
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
