//! What rewinds have taken away as text for people: two lines a file, the second of
//! which is where it lies, to be copied from the screen.

use std::fmt::Write as _;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytesize::ByteSize;

use super::JournalItem;
use crate::messages::{Color, Messages, human};

/// All items; what may be somebody's is marked.
#[must_use]
pub fn text(items: &[JournalItem], now: SystemTime) -> String {
    let shown = Messages::new(Color::Never, false, Path::new("/"));
    let mut text = String::new();
    for item in items {
        let at = UNIX_EPOCH + Duration::from_millis(item.at_ms);
        let age = now.duration_since(at).unwrap_or_default();
        let stays = if item.stays { ", and it stays" } else { "" };
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "{}  {}, {} ago: {}{stays}\n  {}",
            shown.path(&item.path),
            ByteSize::b(item.size),
            human(age),
            shown.path(Path::new(&item.why)),
            shown.path(&item.lies),
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item() -> JournalItem {
        JournalItem {
            path: "/project/out.txt".into(),
            at_ms: 5_000,
            size: 2048,
            why: "the program had made it, and that was undone".to_owned(),
            lies: "/tmp/.forkmon-1/7".into(),
            stays: false,
        }
    }

    #[test]
    fn each_file_has_its_place_on_a_line_of_its_own() {
        let kept = JournalItem {
            stays: true,
            ..item()
        };
        let now = UNIX_EPOCH + Duration::from_secs(7);
        assert_eq!(
            text(&[item(), kept], now),
            "/project/out.txt  2.0 KiB, 2.00 s ago: the program had made it, and that was undone\n  \
             /tmp/.forkmon-1/7\n\
             /project/out.txt  2.0 KiB, 2.00 s ago: the program had made it, and that was undone, \
             and it stays\n  /tmp/.forkmon-1/7\n"
        );
        assert_eq!(text(&[], now), "");
    }

    #[test]
    fn what_is_told_of_moves_no_cursor() {
        let odd = JournalItem {
            path: "/a\nb\u{1b}[2J".into(),
            ..item()
        };
        let text = text(&[odd], SystemTime::now());
        assert_eq!(text.lines().count(), 2);
        assert!(!text.contains('\u{1b}'));
    }
}
