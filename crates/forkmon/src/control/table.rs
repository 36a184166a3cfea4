//! The state of a forkmon as text for people: who runs, and its checkpoints as
//! a table.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use bytesize::ByteSize;

use super::{CheckpointStatus, Status};
use crate::messages::{Color, Messages, human};

/// The columns with numbers; what a checkpoint stands before comes last.
const HEADS: [&str; 6] = ["ID", "AT", "AGE", "THREADS", "MEMORY", "SHARE"];

/// Between two columns.
const GAP: &str = "  ";

/// The lines to show, none longer than `width` characters, if it is known.
#[must_use]
pub fn lines(status: &Status, width: Option<usize>) -> Vec<String> {
    let shown = Messages::new(Color::Never, false, &status.root);
    let guest = match status.guest {
        Some(pid) => format!("process {pid}"),
        None => "ended".to_owned(),
    };
    let mut lines = vec![
        format!("forkmon {}: {}", status.pid, command(&shown, &status.argv)),
        format!("project {}", shown.path(&status.root)),
        format!(
            "run {}, {guest}, {}",
            status.run,
            match status.checkpoints.len() {
                0 => "no checkpoint".to_owned(),
                1 => "1 checkpoint".to_owned(),
                count => format!("{count} checkpoints"),
            }
        ),
    ];
    if !status.checkpoints.is_empty() {
        lines.push(String::new());
        lines.extend(table(&shown, &status.checkpoints));
    }
    for line in &mut lines {
        if let Some(width) = width {
            shorten(line, width);
        }
    }
    lines
}

fn table(shown: &Messages, checkpoints: &[CheckpointStatus]) -> Vec<String> {
    let cells: Vec<[String; 6]> = checkpoints.iter().map(numbers).collect();
    let mut widths = HEADS.map(str::len);
    for row in &cells {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let row = |cells: [&str; 6], last: &str| {
        let mut line = String::new();
        for (cell, width) in cells.iter().zip(widths) {
            // Writing to a String cannot fail.
            let _ = write!(line, "{cell:>width$}{GAP}");
        }
        line.push_str(last);
        line
    };
    let head = row(HEADS, "BEFORE");
    let rows = checkpoints.iter().zip(&cells).map(|(checkpoint, cells)| {
        let place = match &checkpoint.path {
            Some(path) => shown.path(path),
            None => "(between accesses)".to_owned(),
        };
        row(cells.each_ref().map(String::as_str), &place)
    });
    std::iter::once(head).chain(rows).collect()
}

fn numbers(checkpoint: &CheckpointStatus) -> [String; 6] {
    let bytes = |count| ByteSize::b(count).to_string();
    [
        checkpoint.id.to_string(),
        milliseconds(checkpoint.guest_ms),
        milliseconds(checkpoint.age_ms),
        checkpoint.threads.to_string(),
        bytes(checkpoint.resident_bytes),
        checkpoint.own_bytes.map_or("-".to_owned(), bytes),
    ]
}

/// A time from a reply, which may hold any number.
fn milliseconds(time: f64) -> String {
    Duration::try_from_secs_f64(time / 1e3).map_or("-".to_owned(), human)
}

fn command(shown: &Messages, argv: &[String]) -> String {
    let words: Vec<String> = argv
        .iter()
        // Made printable as paths are; only the project root is shortened in it.
        .map(|word| shown.path(Path::new(word)))
        .collect();
    words.join(" ")
}

fn shorten(line: &mut String, width: usize) {
    if line.chars().count() > width && width > 0 {
        *line = line.chars().take(width - 1).collect();
        line.push('…');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status() -> Status {
        Status {
            run: 3,
            pid: 4711,
            guest: Some(4720),
            root: "/home/u/project".into(),
            argv: vec!["python3".to_owned(), "app.py".to_owned()],
            checkpoints: vec![
                CheckpointStatus {
                    id: 0,
                    path: Some("/home/u/project/app.py".into()),
                    age_ms: 61_000.0,
                    guest_ms: 2.1,
                    threads: 1,
                    resident_bytes: 9 << 20,
                    own_bytes: Some(120 << 10),
                },
                CheckpointStatus {
                    id: 12,
                    path: None,
                    age_ms: 318.0,
                    guest_ms: 1_020.0,
                    threads: 20,
                    resident_bytes: 104 << 20,
                    own_bytes: None,
                },
            ],
        }
    }

    #[test]
    fn numbers_stand_under_each_other_and_the_place_comes_last() {
        let expected = [
            "forkmon 4711: python3 app.py",
            "project /home/u/project",
            "run 3, process 4720, 2 checkpoints",
            "",
            "ID      AT         AGE  THREADS     MEMORY      SHARE  BEFORE",
            " 0  2.1 ms  1 min 01 s        1    9.0 MiB  120.0 KiB  app.py",
            "12  1.02 s      318 ms       20  104.0 MiB          -  (between accesses)",
        ];
        assert_eq!(lines(&status(), Some(80)), expected);
    }

    #[test]
    fn no_line_is_longer_than_the_terminal_is_wide() {
        let mut status = status();
        status.argv.push("ü".repeat(300));
        status.checkpoints[0].path = Some(format!("/{}", "x".repeat(300)).into());
        status.checkpoints[0].age_ms = f64::NAN;
        for width in [1, 40, 80] {
            for line in lines(&status, Some(width)) {
                assert!(line.chars().count() <= width, "{line}");
            }
        }
        assert!(lines(&status, None).iter().any(|line| line.len() > 300));
    }

    #[test]
    fn what_is_told_of_moves_no_cursor() {
        let mut status = status();
        status.argv.push("\u{1b}[2J\n".to_owned());
        status.checkpoints[0].path = Some("/a\nb\u{1b}".into());
        for line in lines(&status, None) {
            assert!(!line.chars().any(char::is_control), "{line:?}");
        }
    }
}
