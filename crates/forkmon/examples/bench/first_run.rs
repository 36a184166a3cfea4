//! What the first run costs under observation, against none and against strace
//! with the same calls.

use std::fs;
use std::path::Path;

use anyhow::Context as _;
use serde_json::Value;

use crate::Bench;
use crate::calls;
use crate::document::Table;
use crate::process::{command, complete};
use crate::project::Project;
use crate::statistics::{Samples, number, ratio};

/// The calls that forkmon's filter stops whatever their arguments are. Those
/// that it stops for some arguments only (mmap, fcntl, ...) strace cannot tell
/// apart, so they are left out in its favour.
const CALLS: &str = "openat,newfstatat,stat,lstat,open,access,readlink,getdents64,statx,openat2,\
    creat,faccessat,faccessat2,readlinkat,getdents,getxattr,lgetxattr,listxattr,llistxattr,\
    inotify_add_watch,execve,execveat,chdir,fchdir,truncate,unlink,unlinkat,rmdir,mkdir,mkdirat,\
    mknod,mknodat,symlink,symlinkat,rename,renameat,renameat2,link,linkat,chmod,fchmod,fchmodat,\
    chown,lchown,fchown,fchownat,utime,utimes,utimensat,futimesat,setxattr,lsetxattr,fsetxattr,\
    removexattr,lremovexattr,fremovexattr,bind,shmat,setitimer,alarm,timer_create,seccomp,ptrace,\
    unshare,setns,chroot,pivot_root,mount";

struct Case {
    name: &'static str,
    program: &'static str,
    arguments: &'static [&'static str],
    lay_out: fn(&Project) -> anyhow::Result<()>,
}

const CASES: [Case; 5] = [
    Case {
        name: "Python, many imports",
        program: "/usr/bin/python3",
        arguments: &["imports.py"],
        lay_out: |project| project.write("imports.py", IMPORTS),
    },
    Case {
        name: "Ruby, start",
        program: "ruby",
        arguments: &["empty.rb"],
        lay_out: |project| project.write("empty.rb", ""),
    },
    Case {
        name: "Node.js, start",
        program: "node",
        arguments: &["empty.js"],
        lay_out: |project| project.write("empty.js", ""),
    },
    Case {
        name: "gcc, four files",
        program: "gcc",
        arguments: &["-O1", "-o", "sum", "one.c", "two.c", "three.c", "main.c"],
        lay_out: |project| {
            for name in ["one", "two", "three"] {
                project.write(&format!("{name}.c"), &source(name, "return n + 1;"))?;
            }
            project.write(
                "main.c",
                "#include <stdio.h>\nint one(int), two(int), three(int);\n\
                 int main(void) { printf(\"%d\\n\", one(two(three(1)))); return 0; }\n",
            )
        },
    },
    Case {
        name: "pdflatex",
        program: "pdflatex",
        arguments: &["-interaction=batchmode", "paper.tex"],
        lay_out: |project| project.write("paper.tex", PAPER),
    },
];

const IMPORTS: &str = "import asyncio, argparse, concurrent.futures, csv, ctypes, dataclasses, \
    decimal, difflib, email.message, email.mime.text, http.server, http.cookiejar, json, \
    logging.config, multiprocessing.pool, pdb, pydoc, sqlite3, tarfile, tempfile, unittest.mock, \
    urllib.request, xml.dom.minidom, xmlrpc.client, zipfile\n";

const PAPER: &str = "\\documentclass{article}\n\\usepackage{graphicx}\n\\usepackage{amsmath}\n\
    \\begin{document}\nA formula: $a^2 + b^2 = c^2$.\n\\newpage More.\n\\end{document}\n";

fn source(name: &str, body: &str) -> String {
    format!(
        "#include <stdio.h>\n#include <stdlib.h>\n#include <string.h>\nint {name}(int n) {{ {body} }}\n"
    )
}

impl Case {
    fn words(&self) -> Vec<String> {
        std::iter::once(&self.program)
            .chain(self.arguments)
            .map(|word| (*word).to_owned())
            .collect()
    }
}

pub fn measure(bench: &Bench) -> anyhow::Result<String> {
    let mut table = Table::new(&[
        "guest",
        "forkmon ÷ bare",
        "strace ÷ bare",
        "forkmon's extra ÷ strace's",
        "bare, ms",
        "`forkmon --once`, ms",
        "strace, ms",
        "stops",
        "calls per stop",
    ]);
    for case in &CASES {
        if command(case.program).arg("--version").output().is_err() {
            let mut cells = vec![format!(
                "{} (skipped: {} is missing)",
                case.name, case.program
            )];
            cells.resize(9, "–".to_owned());
            table.row(cells);
            continue;
        }
        table.row(compare(bench, case)?);
    }
    Ok(table.into_text())
}

fn compare(bench: &Bench, case: &Case) -> anyhow::Result<Vec<String>> {
    let project = Project::new(bench, &format!("first-run-{}", case.name))?;
    (case.lay_out)(&project)?;
    let words = case.words();
    let forkmon = bench
        .options
        .forkmon
        .to_str()
        .context("forkmon's path is not UTF-8")?;
    let calls = format!("trace={CALLS}");
    let prefixes: [&[&str]; 3] = [
        &[],
        &[forkmon, "--once", "--quiet", "--"],
        &[
            "strace",
            "-f",
            "--seccomp-bpf",
            "-qq",
            "-o",
            "/dev/null",
            "-e",
            &calls,
        ],
    ];
    let mut samples: [Samples; 3] = Default::default();
    // The first round only warms the caches up.
    for round in 0..=bench.repetitions(15, 3) {
        for (prefix, samples) in prefixes.iter().zip(&mut samples) {
            let line: Vec<&str> = prefix
                .iter()
                .copied()
                .chain(words.iter().map(String::as_str))
                .collect();
            let time = hyperfine(bench, project.folder(), &line.join(" "))?;
            if round > 0 {
                samples.add(time * 1e3);
            }
        }
    }
    let [bare, observed, traced] = &samples;
    let (bare_time, own, theirs) = (bare.median(), observed.median(), traced.median());
    let counted = calls::count(bench, &project, &[], &words)?;
    Ok(vec![
        case.name.to_owned(),
        ratio(own, bare_time),
        ratio(theirs, bare_time),
        number((own - bare_time) / (theirs - bare_time)),
        bare.to_string(),
        observed.to_string(),
        traced.to_string(),
        counted.stops.to_string(),
        number(counted.calls as f64 / counted.stops as f64),
    ])
}

/// Lets hyperfine time one run of a command line; in seconds.
fn hyperfine(bench: &Bench, folder: &Path, line: &str) -> anyhow::Result<f64> {
    let result = bench.scratch().join("hyperfine.json");
    complete(
        command("hyperfine")
            .args(["--shell=none", "--runs=1", "--style=none", "--export-json"])
            .arg(&result)
            .arg(line)
            .current_dir(folder),
    )?;
    let result: Value = serde_json::from_slice(&fs::read(result)?)?;
    result["results"][0]["times"][0]
        .as_f64()
        .context("hyperfine told no time")
}
