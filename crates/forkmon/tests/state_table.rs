//! `docs/state.md` promises of each thing that the kernel holds for a guest that it
//! is brought back, and names the tests, or says by which code it is refused. A row
//! with neither is a promise that nobody keeps.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

fn checkout() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// All Rust sources below a folder.
fn sources(folder: &Path, into: &mut Vec<(PathBuf, String)>) {
    for entry in fs::read_dir(folder).expect("the checkout can be read") {
        let path = entry.expect("the checkout can be read").path();
        if path.is_dir() {
            sources(&path, into);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).expect("a source is a text");
            into.push((path, text));
        }
    }
}

/// Whether a file of this name has a test of this name, in whichever way it is
/// written.
fn has_test(tests: &[(PathBuf, String)], name: &str) -> bool {
    let Some((file, test)) = name.split_once("::") else {
        return false;
    };
    tests.iter().any(|(path, text)| {
        path.file_stem().is_some_and(|stem| stem == file)
            && (text.contains(&format!("fn {test}(")) || text.contains(&format!("    {test}: \"")))
    })
}

/// What stands in backticks.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

#[test]
fn each_row_names_its_tests_or_the_code_that_it_is_refused_with() {
    let document = fs::read_to_string(checkout().join("docs/state.md")).expect("it is there");
    let (mut code, mut tests) = (Vec::new(), Vec::new());
    for name in ["snapshot", "forkmon"] {
        sources(&checkout().join("crates").join(name).join("src"), &mut code);
        sources(
            &checkout().join("crates").join(name).join("tests"),
            &mut tests,
        );
    }
    let mut named = BTreeSet::new();
    let mut rows = 0;
    for line in document.lines().filter(|line| line.starts_with('|')) {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        if cells[0] == "what" || cells[0].starts_with("--") {
            continue;
        }
        rows += 1;
        assert_eq!(cells.len(), 3, "what, how, shown by: {line}");
        let mut kept = false;
        for name in quoted(cells[2]) {
            assert!(has_test(&tests, name), "there is no test {name}: {line}");
            named.insert(name.to_owned());
            kept = true;
        }
        for refusal in cells[1]
            .split("refused")
            .skip(1)
            .filter_map(|rest| quoted(rest).next())
        {
            let written = format!("\"{refusal}\"");
            assert!(
                code.iter().any(|(_, text)| text.contains(&written)),
                "nothing is refused with {refusal}: {line}"
            );
            kept = true;
        }
        assert!(kept, "neither a test nor a refusal: {line}");
    }
    assert!(rows >= 40, "only {rows} rows");
    // And the tests that freeze a fixture by hand each stand for a row.
    let by_hand = tests
        .iter()
        .find(|(path, _)| path.ends_with("guests/state.rs"))
        .map(|(_, text)| text)
        .expect("it is there");
    for line in by_hand
        .lines()
        .skip_while(|line| !line.starts_with("rows! {"))
    {
        if let Some((test, _)) = line.trim().split_once(": \"") {
            let name = format!("state::{test}");
            assert!(named.contains(&name), "no row names {name}");
        }
    }
}
