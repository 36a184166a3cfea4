//! The command line and the environment: what they mean, and what is said of
//! those that cannot be followed. No guest is run here.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use forkmon::cli::{CtlAction, Mode, parse};
use forkmon::config::{Config, Environment};
use forkmon::keys::When;
use forkmon::messages::Color;
use forkmon::{input, output};

fn surroundings() -> Environment {
    Environment {
        cwd: "/nowhere/project".into(),
        home: Some("/nowhere".into()),
        memory: 8 << 30,
        ..Environment::default()
    }
}

fn try_config(words: &[&str], environment: &Environment) -> Result<Config, String> {
    let typed = ["forkmon"].iter().chain(words);
    match parse(typed).map_err(|refused| refused.to_string())? {
        Mode::Run(args) => Config::new(&args, environment).map_err(|error| format!("{error:#}")),
        other => panic!("{words:?} is {other:?}"),
    }
}

#[track_caller]
fn config(words: &[&str]) -> Config {
    try_config(words, &surroundings()).unwrap()
}

#[track_caller]
fn command(words: &[&str]) -> Vec<OsString> {
    config(words).command
}

#[track_caller]
fn refused(words: &[&str]) -> String {
    let told = try_config(words, &surroundings()).unwrap_err();
    assert_eq!(told.lines().count(), 1, "{told}");
    told
}

#[test]
fn output_and_input_are_as_asked() {
    let replay = config(&["--output", "replay", "--output-limit=1MiB", "x"]).output;
    assert_eq!((replay.mode, replay.limit), (output::Mode::Replay, 1 << 20));
    for (typed, expected) in [
        ("--clear", output::Clear::Screen),
        ("--clear=screen", output::Clear::Screen),
        ("--clear=all", output::Clear::All),
    ] {
        // The next word is the command's, not the option's.
        let config = config(&[typed, "all"]);
        assert_eq!(config.output.clear, Some(expected), "{typed}");
        assert_eq!(config.command, ["all"]);
    }
    for (typed, expected) in [
        ("inherit", input::Mode::Inherit),
        ("replay", input::Mode::Replay),
        ("null", input::Mode::Null),
    ] {
        assert_eq!(config(&["--stdin", typed, "x"]).stdin, Some(expected));
    }
}

/// Nobody goes back in a run that is not watched: it has forkmon's own streams.
#[test]
fn once_carries_nothing() {
    let config = |words: &[&str]| config(&[words, &["--once", "x"]].concat());
    assert_eq!(config(&[]).stdin, Some(input::Mode::Inherit));
    assert_eq!(config(&["--stdin", "null"]).stdin, Some(input::Mode::Null));
    assert_eq!(
        config(&["--output", "replay"]).output.mode,
        output::Mode::Live
    );
}

#[test]
fn the_defaults_are_those_that_are_documented() {
    let config = config(&["lua", "main.lua"]);
    assert_eq!(config.command, ["lua", "main.lua"]);
    assert_eq!(config.cwd, Path::new("/nowhere/project"));
    assert_eq!(config.scope.root(), Path::new("/nowhere/project"));
    assert!(!config.once);
    assert_eq!(config.delay, Duration::from_millis(5));
    assert_eq!(config.ignore_delay, Duration::ZERO);
    assert!((config.budget - 0.05).abs() < 1e-12);
    assert_eq!(config.max_checkpoints, 32);
    assert_eq!(config.max_memory, 2 << 30);
    assert_eq!(config.stdin, None);
    assert_eq!(config.output.mode, output::Mode::Live);
    assert_eq!(config.output.clear, None);
    assert_eq!(config.output.limit, 16 << 20);
    assert_eq!(config.stop_signal, None);
    assert_eq!(config.stop_timeout, Duration::from_secs(3));
    assert_eq!(config.events, None);
    assert_eq!(config.control, None);
    assert_eq!(config.keys, When::Auto);
    assert!(!config.quiet);
    assert_eq!(config.color, Color::Auto);
}

#[test]
fn every_option_has_its_meaning() {
    let config = config(&[
        "run",
        "-w",
        "/a",
        "--watch",
        "*.x",
        "-f",
        "*.lua",
        "-e",
        "c,h",
        "-i",
        "gen",
        "--once",
        "--delay",
        "1s",
        "--budget",
        "12.5%",
        "--max-checkpoints",
        "7",
        "--max-memory",
        "512MiB",
        "--stop-signal",
        "TERM",
        "--stop-timeout",
        "250ms",
        "--events",
        "out/events",
        "--control",
        "out/socket",
        "--keys",
        "on",
        "-q",
        "--color",
        "always",
        "lua",
        "-q",
        "--delay",
    ]);
    assert_eq!(config.command, ["lua", "-q", "--delay"]);
    assert!(config.once && config.quiet);
    assert_eq!(config.delay, Duration::from_secs(1));
    assert!((config.budget - 0.125).abs() < 1e-12);
    assert_eq!(config.max_checkpoints, 7);
    assert_eq!(config.max_memory, 512 << 20);
    assert_eq!(config.stop_signal, Some(15));
    assert_eq!(config.stop_timeout, Duration::from_millis(250));
    assert_eq!(
        config.events,
        Some(PathBuf::from("/nowhere/project/out/events"))
    );
    assert_eq!(
        config.control,
        Some(PathBuf::from("/nowhere/project/out/socket"))
    );
    assert_eq!(config.keys, When::On);
    assert_eq!(config.color, Color::Always);
    let is_in = |path: &str| config.scope.contains(Path::new(path));
    assert!(is_in("/a/b.lua") && is_in("/a/b.c") && is_in("/nowhere/project/b.h"));
    assert!(!is_in("/a/b.x") && !is_in("/nowhere/project/gen/b.c"));
}

#[test]
fn the_word_run_may_be_left_out() {
    assert_eq!(command(&["lua", "main.lua"]), ["lua", "main.lua"]);
    assert_eq!(command(&["run", "lua", "main.lua"]), ["lua", "main.lua"]);
    assert_eq!(command(&["--once", "lua", "main.lua"]), ["lua", "main.lua"]);
    assert!(config(&["--once", "lua"]).once);
}

#[test]
fn from_the_command_on_everything_is_its_own() {
    for front in [
        &["run"][..],
        &[],
        &["--"],
        &["run", "--"],
        &["-q"],
        &["-q", "--"],
    ] {
        let own = [
            "lua", "-e", "x", "--help", "--", "--once", "-V", "demo", "run",
        ];
        let words: Vec<&str> = front.iter().chain(&own).copied().collect();
        assert_eq!(command(&words), own, "{words:?}");
        assert!(!config(&words).once);
    }
}

#[test]
fn a_command_called_like_a_subcommand_can_be_run() {
    for word in ["demo", "run", "__guardian", "help"] {
        assert_eq!(command(&["run", "--", word]), [word]);
        assert_eq!(command(&["run", word]), [word]);
        assert_eq!(command(&["--", word, "x"]), [word, "x"]);
        assert_eq!(command(&["--once", "--", word]), [word]);
    }
    assert_eq!(command(&["help"]), ["help"]);
    let told = refused(&["--once", "run", "lua"]);
    assert!(
        told.contains("forkmon run [OPTIONS]") && told.contains("-- run"),
        "{told}"
    );
}

#[test]
fn subcommands_are_recognised() {
    let mode = |words: &[&str]| parse(["forkmon"].iter().chain(words)).unwrap();
    assert!(matches!(mode(&["demo"]), Mode::Demo(args) if !args.keep));
    assert!(matches!(mode(&["demo", "--keep"]), Mode::Demo(args) if args.keep));
    let ctl = mode(&["ctl", "resume", "3", "--socket", "/x"]);
    assert!(matches!(
        ctl,
        Mode::Ctl(args) if args.socket.as_deref() == Some(Path::new("/x"))
            && matches!(args.action, CtlAction::Resume { id: Some(3) })
    ));
    let late = refused(&["--quiet", "ctl", "status"]);
    assert!(late.contains("forkmon ctl [OPTIONS]"), "{late}");
    assert!(matches!(mode(&["__guardian"]), Mode::Guardian));
    let guest = mode(&["__demo-guest", "/x"]);
    assert!(matches!(guest, Mode::DemoGuest(args) if args.dir == Path::new("/x")));
}

#[test]
fn no_command_is_refused_with_an_example() {
    for words in [&[][..], &["run"], &["--once"], &["run", "--once"], &["--"]] {
        let told = refused(words);
        assert!(
            told.contains("COMMAND") && told.contains("forkmon demo"),
            "{words:?}: {told}"
        );
    }
}

#[test]
fn wrong_values_are_refused_with_the_option_and_the_remedy() {
    for (words, option, remedy) in [
        (&["--delay", "5"][..], "--delay", "5ms"),
        (&["--delay", "0"], "--delay", "0ms"),
        (&["--delay", "fast"], "--delay", "5ms"),
        (&["--delay", ""], "--delay", "5ms"),
        (&["--delay=-5ms"], "--delay", "5ms"),
        (&["--stop-timeout", "3"], "--stop-timeout", "3s"),
        (&["--budget", "much"], "--budget", "5%"),
        (&["--budget=-1"], "--budget", "5%"),
        (&["--budget", "NaN"], "--budget", "5%"),
        (&["--budget", "inf%"], "--budget", "5%"),
        (
            &["--max-checkpoints", "0"],
            "--max-checkpoints",
            "from 1 on",
        ),
        (
            &["--max-checkpoints", "3.5"],
            "--max-checkpoints",
            "from 1 on",
        ),
        (&["--max-memory", "512"], "--max-memory", "512MiB"),
        (&["--max-memory", "512 apples"], "--max-memory", "512MiB"),
        (
            &["--max-memory", "99999999999999999999PB"],
            "--max-memory",
            "512MiB",
        ),
        (&["--max-memory", "NaNMB"], "--max-memory", "512MiB"),
        (&["--stop-signal", "WINK"], "--stop-signal", "TERM"),
        (&["--stop-signal", "0"], "--stop-signal", "TERM"),
        (&["--stop-signal", "65"], "--stop-signal", "TERM"),
        (&["--color", "sometimes"], "--color", "always"),
        (&["--frobnicate"], "--frobnicate", "forkmon --help"),
        (&["--events"], "--events", "FILE"),
        (&["-f", "a[b"], "--filter", "a[b"),
        (&["-i", "a[b"], "--ignore", "a[b"),
        (&["-w", "{a"], "--watch", "{a"),
        (&["-e", "*.lua"], "--exts", "lua,json"),
    ] {
        let words: Vec<&str> = words.iter().chain(&["lua"]).copied().collect();
        let words = if words[0] == "--events" {
            &words[..1]
        } else {
            &words
        };
        let told = refused(words);
        assert!(told.contains(option), "{words:?}: {told}");
        assert!(told.contains(remedy), "{words:?}: {told}");
    }
}

#[test]
fn values_may_be_written_in_several_ways() {
    for (typed, expected) in [
        ("0ms", 0),
        ("5ms", 5),
        ("1s", 1000),
        ("1s 500ms", 1500),
        ("2m", 120_000),
    ] {
        assert_eq!(
            config(&["--delay", typed, "x"]).delay,
            Duration::from_millis(expected),
            "{typed}"
        );
    }
    for (typed, expected) in [
        ("5%", 0.05),
        ("5", 0.05),
        ("0", 0.0),
        ("0.5 %", 0.005),
        ("1000%", 10.0),
    ] {
        let budget = config(&["--budget", typed, "x"]).budget;
        assert!((budget - expected).abs() < 1e-12, "{typed}: {budget}");
    }
    for (typed, expected) in [
        ("2GB", 2_000_000_000),
        ("512MiB", 512 << 20),
        ("1.5GiB", 3 << 29),
        ("64 kb", 64_000),
        ("100M", 100_000_000),
    ] {
        assert_eq!(
            config(&["--max-memory", typed, "x"]).max_memory,
            expected,
            "{typed}"
        );
    }
    for (typed, expected) in [
        ("TERM", 15),
        ("SIGTERM", 15),
        ("sigint", 2),
        ("9", 9),
        ("HUP", 1),
        ("64", 64),
    ] {
        assert_eq!(
            config(&["--stop-signal", typed, "x"]).stop_signal,
            Some(expected),
            "{typed}"
        );
    }
}

#[test]
fn the_c_tool_s_environment_keeps_its_meaning() {
    let environment = Environment {
        filter: Some("%.lua$".into()),
        quiet: Some("".into()),
        no_colors: Some("1".into()),
        restart_delay: Some("50".into()),
        ignore_delay: Some("200".into()),
        ..surroundings()
    };
    let config = try_config(&["lua"], &environment).unwrap();
    assert!(config.scope.contains(Path::new("/usr/share/x.lua")));
    assert!(!config.scope.contains(Path::new("/nowhere/project/x.c")));
    assert!(config.quiet);
    assert_eq!(config.color, Color::Never);
    assert_eq!(config.delay, Duration::from_millis(50));
    assert_eq!(config.ignore_delay, Duration::from_millis(200));
    // Options win.
    let words = ["--delay", "7ms", "--color", "always", "lua"];
    let config = try_config(&words, &environment).unwrap();
    assert_eq!(config.delay, Duration::from_millis(7));
    assert_eq!(config.color, Color::Always);
}

#[test]
fn a_wrong_environment_is_refused_by_name() {
    let told = |change: fn(&mut Environment)| {
        let mut environment = surroundings();
        change(&mut environment);
        try_config(&["lua"], &environment).unwrap_err()
    };
    let text = told(|environment| environment.restart_delay = Some("fast".into()));
    assert!(
        text.contains("FORKMON_RESTART_DELAY") && text.contains("fast"),
        "{text}"
    );
    let text = told(|environment| environment.ignore_delay = Some("-1".into()));
    assert!(
        text.contains("FORKMON_IGNORE_DELAY") && text.contains("milliseconds"),
        "{text}"
    );
    let text = told(|environment| environment.filter = Some("%.lua$;(a".into()));
    assert!(
        text.contains("FORKMON_FILTER") && text.contains("(a"),
        "{text}"
    );
}

/// The program itself, with nothing of the C tool's in its environment.
fn forkmon(words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_forkmon"));
    command.args(words);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("FORKMON_") {
            command.env_remove(name);
        }
    }
    command
}

fn told(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[test]
fn own_failures_are_one_line_and_status_125() {
    for words in [
        &[][..],
        &["--frobnicate"],
        &["--delay", "5", "true"],
        &["demo", "--fast"],
        &["run", "--color", "green", "true"],
        &["--events", "/nowhere/at/all", "true"],
        &["-f", "a[b", "true"],
    ] {
        let output = forkmon(words).output().unwrap();
        assert_eq!(output.status.code(), Some(125), "{words:?}");
        let told = told(&output);
        assert_eq!(told.lines().count(), 1, "{words:?}: {told}");
        assert!(told.starts_with("[forkmon] error: "), "{words:?}: {told}");
        assert!(output.stdout.is_empty());
    }
}

#[test]
fn a_malformed_pattern_is_an_error_at_start_that_names_it() {
    let output = forkmon(&["true"])
        .env("FORKMON_FILTER", "%.lua$;[a-z")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(125));
    let told = told(&output);
    assert!(
        told.contains("FORKMON_FILTER") && told.contains("[a-z"),
        "{told}"
    );
    assert_eq!(told.lines().count(), 1, "{told}");
}

#[test]
fn help_and_version_are_no_failures() {
    for (words, parts) in [
        (
            &["--help"][..],
            &["Examples:", "FORKMON_FILTER", "--stop-timeout", "Scope:"][..],
        ),
        (&["-h"], &["Examples:", "--watch", "demo"]),
        (&["run", "--help"], &["Examples:", "--max-memory"]),
        (&["demo", "--help"], &["--keep"]),
        (
            &["--version"],
            &[concat!("forkmon ", env!("CARGO_PKG_VERSION"))],
        ),
        (&["-V"], &["forkmon "]),
    ] {
        let output = forkmon(words).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{words:?}");
        assert!(output.stderr.is_empty(), "{words:?}: {}", told(&output));
        let text = String::from_utf8(output.stdout).unwrap();
        for part in parts {
            assert!(text.contains(part), "{words:?} lacks {part}:\n{text}");
        }
        assert!(!text.contains("__guardian"), "{text}");
    }
}

/// `wait` and `journal` were missing from most of the lists of what can be asked for.
#[test]
fn every_list_of_actions_is_complete() {
    let said = |words: &[&str]| {
        let output = forkmon(words).output().unwrap();
        String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap()
    };
    let help = said(&["ctl", "--help"]);
    let commands = help.split("Commands:").nth(1).unwrap();
    let actions: Vec<&str> = commands
        .lines()
        .skip(1)
        .take_while(|line| line.starts_with("  "))
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    assert!(
        actions.len() >= 7 && actions.contains(&"journal"),
        "{actions:?}"
    );
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let read = |name: &str| std::fs::read_to_string(folder.join(name)).unwrap();
    let usage = help.lines().find(|line| line.starts_with("Usage:"));
    for (place, text) in [
        ("forkmon ctl", said(&["ctl"])),
        ("forkmon -h", said(&["-h"])),
        ("forkmon --help", said(&["--help"])),
        ("the usage of ctl", usage.unwrap().to_owned()),
        ("README.md", read("README.md")),
        ("docs/control.md", read("docs/control.md")),
        ("remedy.rs", read("crates/forkmon/src/supervisor/remedy.rs")),
    ] {
        for action in &actions {
            assert!(text.contains(action), "{place} lacks {action}");
        }
    }
}

#[test]
fn a_program_that_cannot_be_started_is_told_of_with_the_remedy() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("main.py"), "print(1)\n").unwrap();
    for (words, status, remedy) in [
        (&["python3 main.py"][..], 127, "leave the quotes away"),
        (&["main.py"], 127, "write `./main.py`, or `python3 main.py`"),
        (&["./main.py"], 126, "chmod +x ./main.py"),
        (&["."], 127, "folder"),
        (&["./"], 126, "folder"),
        (&["--clear", "all", "true"], 127, "--clear=all"),
        (&["help"], 127, "forkmon --help"),
        (&["wait"], 127, "forkmon ctl wait"),
    ] {
        let output = forkmon(words)
            .current_dir(dir.path())
            .env("PATH", "/nowhere")
            .output()
            .unwrap();
        let told = told(&output);
        assert_eq!(output.status.code(), Some(status), "{words:?}: {told}");
        assert!(
            told.starts_with("[forkmon] error: cannot start the program: "),
            "{told}"
        );
        assert!(told.contains(remedy), "{words:?}: {told}");
        assert_eq!(told.lines().count(), 1, "{told}");
    }
}

#[test]
fn colours_are_where_they_are_wanted() {
    let colored = |command: &mut Command| {
        let output = command.output().unwrap();
        assert_eq!(output.status.code(), Some(125));
        told(&output).contains('\u{1b}')
    };
    // Standard error is a pipe here.
    assert!(!colored(&mut forkmon(&["--frobnicate"])));
    assert!(!colored(
        forkmon(&["--frobnicate"]).env("FORKMON_NO_COLORS", "1")
    ));
}

#[test]
fn the_demo_s_guest_computes_from_its_files_only() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
    write("rounds.txt", "3\n");
    write("index.txt", "a.txt\nb.txt\n");
    write("a.txt", "one\n");
    write("b.txt", "two\n");
    let run = || {
        let output = forkmon(&["__demo-guest"]).arg(dir.path()).output().unwrap();
        assert!(output.status.success(), "{}", told(&output));
        String::from_utf8(output.stdout).unwrap()
    };
    let first = run();
    assert_eq!(first, run());
    let lines: Vec<&str> = first.lines().collect();
    assert_eq!(lines[..2], ["loaded a.txt: one", "loaded b.txt: two"]);
    assert!(lines[2].starts_with("result "), "{first}");
    write("b.txt", "three\n");
    let second = run();
    assert_eq!(second.lines().next(), Some("loaded a.txt: one"));
    assert_ne!(second.lines().last(), first.lines().last());
}
