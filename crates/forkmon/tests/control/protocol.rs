//! The words: what is written is read back, and nothing else is taken for it.

use forkmon::control::protocol::MAX_LINE;
use forkmon::control::{CheckpointStatus, JournalItem, Reply, Request, Status};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

fn requests() -> impl Strategy<Value = Request> {
    prop_oneof![
        Just(Request::Checkpoint),
        option::of(any::<u64>()).prop_map(|id| Request::Resume { id }),
        Just(Request::Restart),
        Just(Request::Wait),
        Just(Request::Status),
        Just(Request::Journal),
        Just(Request::Quit),
    ]
}

/// Numbers that JSON holds exactly.
fn times() -> impl Strategy<Value = f64> {
    any::<u32>().prop_map(|number| f64::from(number) / 8.0)
}

fn checkpoints() -> impl Strategy<Value = CheckpointStatus> {
    (
        any::<u64>(),
        option::of("\\PC{0,20}"),
        times(),
        times(),
        any::<u32>(),
        any::<u64>(),
        option::of(any::<u64>()),
    )
        .prop_map(
            |(id, path, age_ms, guest_ms, threads, resident_bytes, own_bytes)| CheckpointStatus {
                id,
                path: path.map(Into::into),
                age_ms,
                guest_ms,
                threads,
                resident_bytes,
                own_bytes,
            },
        )
}

fn items() -> impl Strategy<Value = JournalItem> {
    any::<(String, u64, u64, String, String, bool)>().prop_map(
        |(path, at_ms, size, why, lies, stays)| JournalItem {
            path: path.into(),
            at_ms,
            size,
            why,
            lies: lies.into(),
            stays,
        },
    )
}

fn replies() -> impl Strategy<Value = Reply> {
    let status = (
        any::<u64>(),
        any::<u32>(),
        option::of(any::<u32>()),
        any::<String>(),
        vec(any::<String>(), 0..4),
        vec(checkpoints(), 0..4),
    )
        .prop_map(|(run, pid, guest, root, argv, checkpoints)| Status {
            run,
            pid,
            guest,
            root: root.into(),
            argv,
            checkpoints,
        });
    prop_oneof![
        any::<u64>().prop_map(|id| Reply::Checkpoint { id }),
        (any::<u64>(), times()).prop_map(|(from, kept_ms)| Reply::Resumed { from, kept_ms }),
        Just(Reply::Restarted),
        (
            any::<u64>(),
            option::of(any::<i32>()),
            option::of(any::<i32>())
        )
            .prop_map(|(run, code, signal)| Reply::Settled { run, code, signal }),
        status.prop_map(Reply::Status),
        vec(items(), 0..4).prop_map(|items| Reply::Journal { items }),
        Just(Reply::Quitting),
        any::<(String, String)>().prop_map(|(code, message)| Reply::Refused { code, message }),
    ]
}

proptest! {
    #[test]
    fn a_request_comes_back_as_it_was(request in requests()) {
        let line = request.to_line();
        prop_assert_eq!(line.find('\n'), Some(line.len() - 1));
        prop_assert_eq!(Request::parse(line.as_bytes()).unwrap(), request);
        // The end of the line is no part of it.
        prop_assert_eq!(Request::parse(line.trim_end().as_bytes()).unwrap(), request);
    }

    #[test]
    fn a_reply_comes_back_as_it_was(reply in replies()) {
        let line = reply.to_line();
        prop_assert_eq!(line.find('\n'), Some(line.len() - 1));
        prop_assert_eq!(Reply::parse(line.as_bytes()).unwrap(), reply);
    }

    #[test]
    fn bytes_are_no_request(bytes in vec(any::<u8>(), 0..200)) {
        // JSON that chance makes is no object with a known action.
        prop_assert!(Request::parse(&bytes).is_err());
        let _ = Reply::parse(&bytes);
    }

    #[test]
    fn a_damaged_request_is_refused_or_another_whole_one(
        request in requests(),
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
    ) {
        let mut line = request.to_line().into_bytes();
        let at = at.index(line.len() - 1);
        line[at] = byte;
        if let Ok(read) = Request::parse(&line) {
            // Only a digit of an id, or space, can be exchanged.
            let is_same_action =
                std::mem::discriminant(&read) == std::mem::discriminant(&request);
            prop_assert!(is_same_action, "{read:?} from {:?}", String::from_utf8_lossy(&line));
        }
    }
}

#[test]
fn requests_are_written_as_documented() {
    let written = |request: Request| request.to_line();
    assert_eq!(
        written(Request::Checkpoint),
        "{\"action\":\"checkpoint\"}\n"
    );
    assert_eq!(
        written(Request::Resume { id: Some(3) }),
        "{\"action\":\"resume\",\"id\":3}\n"
    );
    assert_eq!(
        written(Request::Resume { id: None }),
        "{\"action\":\"resume\"}\n"
    );
    let read = |line: &str| Request::parse(line.as_bytes());
    assert_eq!(
        read(" { \"id\" : 3 , \"action\" : \"resume\" } \r\n").unwrap(),
        Request::Resume { id: Some(3) }
    );
    assert_eq!(
        read("{\"action\":\"quit\",\"id\":null}").unwrap(),
        Request::Quit
    );
}

#[test]
fn malformed_requests_are_refused() {
    for line in [
        "",
        "\n",
        "null",
        "checkpoint",
        "\"checkpoint\"",
        "[\"checkpoint\"]",
        "{}",
        "{\"action\":\"Checkpoint\"}",
        "{\"action\":\"destroy\"}",
        "{\"action\":3}",
        "{\"action\":\"checkpoint\"",
        "{\"action\":\"checkpoint\"}{}",
        "{\"action\":\"checkpoint\",\"action\":\"quit\"}",
        "{\"action\":\"checkpoint\",\"id\":3}",
        "{\"action\":\"checkpoint\",\"force\":true}",
        "{\"action\":\"resume\",\"id\":-1}",
        "{\"action\":\"resume\",\"id\":1.5}",
        "{\"action\":\"resume\",\"id\":\"3\"}",
        "{\"action\":\"resume\",\"id\":18446744073709551616}",
        "{\"action\":\"resume\",\"id\":1,\"id\":2}",
    ] {
        assert!(Request::parse(line.as_bytes()).is_err(), "{line}");
    }
    let deep = "[".repeat(MAX_LINE);
    assert!(Request::parse(deep.as_bytes()).is_err());
    let long = format!("{{\"action\":\"quit\"{}}}", " ".repeat(MAX_LINE));
    assert!(Request::parse(long.as_bytes()).is_err());
}

#[test]
fn a_path_that_is_not_utf_8_is_told_all_the_same() {
    use std::os::unix::ffi::OsStrExt as _;
    let mut status = super::harness::status();
    status.root = std::ffi::OsStr::from_bytes(b"/a\xff").into();
    status.checkpoints[0].path = Some(status.root.clone());
    let line = Reply::Status(status).to_line();
    assert_eq!(line.matches("/a\u{fffd}").count(), 2, "{line}");
}
