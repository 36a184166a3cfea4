//! What the numbers were measured on.

use std::fs;
use std::process::Command;

use anyhow::Context as _;

use crate::Bench;
use crate::process::complete;

/// The load averages of 1, 5 and 15 minutes.
pub fn load() -> anyhow::Result<String> {
    let text = fs::read_to_string("/proc/loadavg")?;
    Ok(text
        .split_whitespace()
        .take(3)
        .collect::<Vec<_>>()
        .join(", "))
}

/// A list of facts, in Markdown.
pub fn describe(bench: &Bench, load_before: &str) -> anyhow::Result<String> {
    let processor = fs::read_to_string("/proc/cpuinfo")?;
    let model = processor
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "))
        .map_or("unknown", |(_, model)| model);
    let machine = if processor.contains(" hypervisor ") {
        ", a virtual machine"
    } else {
        ""
    };
    let memory = fs::read_to_string("/proc/meminfo")?;
    let memory: f64 = memory
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:")?.split_whitespace().next())
        .context("/proc/meminfo tells no MemTotal")?
        .parse()?;
    let cores = std::thread::available_parallelism()?;
    let uname = rustix::system::uname();
    let system = complete(
        Command::new("stat")
            .args(["--file-system", "--format=%T"])
            .arg(bench.scratch()),
    )?;
    let user = if rustix::process::getuid().is_root() {
        "root"
    } else {
        "an ordinary user"
    };
    let mut text = String::new();
    let mut fact = |name: &str, value: &str| text.push_str(&format!("- {name}: {value}\n"));
    fact("date", &bench.options.date);
    fact("processor", &format!("{model}, {cores} cores{machine}"));
    fact("memory", &format!("{:.1} GB", memory / 1e6));
    fact(
        "kernel",
        &format!("Linux {}", uname.release().to_string_lossy()),
    );
    fact("file system", system.trim());
    fact("run by", user);
    fact(
        "load averages",
        &format!("{load_before} before; {} after", load()?),
    );
    fact("versions", &versions().join("; "));
    Ok(text)
}

/// The first line that each program says of its version.
fn versions() -> Vec<String> {
    let programs: [(&str, &[&str]); 8] = [
        ("lua5.4", &["-v"]),
        ("/usr/bin/python3", &["--version"]),
        ("node", &["--version"]),
        ("ruby", &["--version"]),
        ("gcc", &["--version"]),
        ("pdflatex", &["--version"]),
        ("strace", &["--version"]),
        ("entr", &[]),
    ];
    programs
        .iter()
        .filter_map(|(program, arguments)| {
            let output = Command::new(program).args(*arguments).output().ok()?;
            let text = [output.stdout, output.stderr].concat();
            let text = String::from_utf8_lossy(&text).into_owned();
            let line = text.lines().next()?.trim();
            // A bare number says too little.
            Some(if line.starts_with('v') || line.starts_with("release") {
                format!("{program} {line}")
            } else {
                line.to_owned()
            })
        })
        .collect()
}
