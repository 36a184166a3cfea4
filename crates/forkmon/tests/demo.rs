//! The tour from its beginning to its end, as a new user sees it.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::process::{Command, Output};

/// The demo with a temporary folder of its own, and what it left there.
fn demo(words: &[&str]) -> (Output, Vec<String>, tempfile::TempDir) {
    let temp = tempfile::tempdir().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_forkmon"))
        .arg("demo")
        .args(words)
        .env("TMPDIR", temp.path())
        // None of these is to reach the forkmon that is shown.
        .env("FORKMON_FILTER", "%.nothing$")
        .env("FORKMON_QUIET", "1")
        .output()
        .unwrap();
    let left = std::fs::read_dir(temp.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    (output, left, temp)
}

#[test]
fn the_tour_shows_a_resume_and_leaves_nothing() {
    let (output, left, _temp) = demo(&[]);
    let told = String::from_utf8(output.stdout).unwrap();
    let errors = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(0), "{told}\n{errors}");
    assert_eq!(errors, "");
    assert!(told.contains("times as fast"), "{told}");
    assert!(told.contains("resumed from before it"), "{told}");
    // Loaded once by the first run; the resumed one began behind it.
    assert_eq!(told.matches("loaded routes.txt").count(), 1, "{told}");
    assert_eq!(told.matches("loaded greeting.txt").count(), 2, "{told}");
    assert_eq!(left, Vec::<String>::new());
}

#[test]
fn the_project_can_be_kept() {
    let (output, left, temp) = demo(&["--keep"]);
    let told = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{told}");
    assert_eq!(left.len(), 1, "{left:?}");
    let project = temp.path().join(&left[0]).join("project");
    assert!(told.contains(&*project.to_string_lossy()), "{told}");
    assert!(project.join("greeting.txt").exists());
}
