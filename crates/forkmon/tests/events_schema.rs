//! Every event against the schema that other programs rely on, and the schema
//! against what it must refuse.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::path::PathBuf;
use std::time::{Duration, Instant};

use forkmon::events::{ChangeKind, ChangedPath, Event, Events, Reason, Shown, Span, line};
use jsonschema::Validator;
use serde_json::{Value, json};

const SCHEMA: &str = include_str!("../../../docs/events.schema.json");
const DOCUMENT: &str = include_str!("../../../docs/events.md");

fn schema() -> Validator {
    let schema: Value = serde_json::from_str(SCHEMA).unwrap();
    jsonschema::meta::validate(&schema).unwrap();
    jsonschema::validator_for(&schema).unwrap()
}

fn written(event: &Event) -> Value {
    let line = line(Duration::from_micros(12_345), 3, event).unwrap();
    assert_eq!(line.iter().filter(|byte| **byte == b'\n').count(), 1);
    assert_eq!(line.last(), Some(&b'\n'));
    serde_json::from_slice(&line).unwrap()
}

fn resume(from: Option<u64>, reason: Reason) -> Event {
    Event::Resume {
        from,
        path: Some("/p/main.lua".into()),
        kept_ms: Duration::from_micros(if from.is_some() { 1_020_500 } else { 0 }),
        latency_ms: Duration::from_micros(2_100),
        reason,
    }
}

/// At least one of every variant, of every kind and of every reason.
fn all_events() -> Vec<Event> {
    let kinds = [
        ChangeKind::Modified,
        ChangeKind::Created,
        ChangeKind::Removed,
        ChangeKind::Metadata,
    ];
    vec![
        Event::Start {
            pid: 4711,
            argv: vec!["lua".into(), "main.lua".into()],
        },
        Event::Checkpoint {
            id: 0,
            path: Some("/p/lib/b.lua".into()),
            cost_ms: Duration::from_nanos(912_345),
            processes: 1,
            threads: 11,
            resident_bytes: 1 << 40,
        },
        Event::Change {
            paths: kinds
                .into_iter()
                .map(|kind| ChangedPath {
                    path: "/p/main.lua".into(),
                    kind,
                })
                .collect(),
        },
        Event::Unchanged {
            paths: vec!["/p/a \"quoted\"\n.lua".into()],
        },
        resume(Some(7), Reason::Edit),
        resume(None, Reason::NoCheckpoint),
        resume(None, Reason::NotRestorable),
        resume(None, Reason::Effects),
        Event::Resume {
            from: None,
            path: None,
            kept_ms: Duration::ZERO,
            latency_ms: Duration::ZERO,
            reason: Reason::RestartRequested,
        },
        Event::Resume {
            from: Some(3),
            path: None,
            kept_ms: Duration::from_millis(5),
            latency_ms: Duration::from_millis(1),
            reason: Reason::ResumeRequested,
        },
        Event::Checkpoint {
            id: 1,
            path: None,
            cost_ms: Duration::from_millis(1),
            processes: 1,
            threads: 1,
            resident_bytes: 4096,
        },
        Event::Exit {
            code: Some(0),
            signal: None,
            shown: None,
        },
        Event::Exit {
            code: Some(0),
            signal: None,
            shown: Some(Shown {
                stdout: Span { from: 0, to: 12 },
                stderr: Span { from: 3, to: 3 },
            }),
        },
        Event::Exit {
            code: None,
            signal: Some(11),
            shown: None,
        },
        Event::Warning {
            code: "not-checkpointable".to_owned(),
            message: "the guest holds a connection".to_owned(),
        },
    ]
}

#[test]
fn every_event_fits_the_schema() {
    let schema = schema();
    for event in all_events() {
        let value = written(&event);
        if let Err(error) = schema.validate(&value) {
            panic!("{value} does not fit: {error}");
        }
        assert_eq!(value["event"], event.name());
        assert_eq!(value["run"], 3);
        assert_eq!(value["at_ms"], 12.345);
    }
}

#[test]
fn the_fields_are_those_that_were_promised() {
    let value = written(&resume(Some(7), Reason::Edit));
    assert_eq!(
        value,
        json!({
            "event": "resume", "at_ms": 12.345, "run": 3, "from": 7, "path": "/p/main.lua",
            "kept_ms": 1020.5, "latency_ms": 2.1, "reason": "edit",
        })
    );
    let value = written(&all_events()[1]);
    assert_eq!(
        value,
        json!({
            "event": "checkpoint", "at_ms": 12.345, "run": 3, "id": 0, "path": "/p/lib/b.lua",
            "cost_ms": 0.912, "processes": 1, "threads": 11,
            "resident_bytes": 1_099_511_627_776_u64,
        })
    );
}

#[test]
fn the_schema_refuses_what_is_wrong() {
    let schema = schema();
    for event in all_events() {
        let right = written(&event);
        let fields: Vec<String> = right.as_object().unwrap().keys().cloned().collect();
        for field in fields {
            let mut wrong = right.clone();
            wrong.as_object_mut().unwrap().remove(&field);
            // Only what `--output replay` adds may be missing.
            let optional = field == "shown";
            assert_eq!(
                schema.is_valid(&wrong),
                optional,
                "without {field}: {wrong}"
            );

            let mut wrong = right.clone();
            wrong[&field] = json!({ "other": "type" });
            assert!(!schema.is_valid(&wrong), "another type of {field}: {wrong}");
        }
        let mut wrong = right.clone();
        wrong["unheard_of"] = json!(1);
        assert!(!schema.is_valid(&wrong), "a further field: {wrong}");
    }
}

#[test]
fn the_schema_refuses_what_contradicts_itself() {
    let schema = schema();
    let restart = written(&resume(None, Reason::Effects));
    let resumed = written(&resume(Some(7), Reason::Edit));
    let ended = written(&Event::Exit {
        code: Some(0),
        signal: None,
        shown: None,
    });
    let changed = written(&all_events()[2]);
    let warned = written(all_events().last().unwrap());
    let wrong = [
        (&restart, "reason", json!("edit")),
        (&restart, "kept_ms", json!(1.5)),
        (&resumed, "reason", json!("no_checkpoint")),
        (&resumed, "path", json!(null)),
        (&resumed, "path", json!("relative/path")),
        (&resumed, "latency_ms", json!(-1)),
        (&resumed, "from", json!(1.5)),
        (&resumed, "event", json!("resumed")),
        (&resumed, "run", json!(-1)),
        (&resumed, "at_ms", json!("12 ms")),
        (&ended, "signal", json!(9)),
        (&ended, "code", json!(null)),
        (&ended, "code", json!(256)),
        (&changed, "paths", json!([])),
        (
            &changed,
            "paths",
            json!([{ "path": "/a", "kind": "touched" }]),
        ),
        (&changed, "paths", json!(["/a"])),
        (&warned, "code", json!("Not_Kebab")),
    ];
    for (right, field, value) in wrong {
        assert!(schema.is_valid(right), "{right}");
        let mut wrong = right.clone();
        wrong[field] = value;
        assert!(!schema.is_valid(&wrong), "{wrong}");
    }
}

#[test]
fn the_example_in_the_document_fits_the_schema() {
    let schema = schema();
    let example = DOCUMENT
        .split_once("```json\n")
        .and_then(|(_, rest)| rest.split_once("```"))
        .unwrap()
        .0;
    let mut last = 0.0;
    for line in example.lines() {
        let event: Value = serde_json::from_str(line).unwrap();
        schema
            .validate(&event)
            .unwrap_or_else(|error| panic!("{line}: {error}"));
        let at = event["at_ms"].as_f64().unwrap();
        assert!(at > last, "{line}");
        last = at;
    }
    assert!(last > 0.0, "the example is empty");
}

#[test]
fn the_document_names_every_event_field_and_word() {
    for event in all_events() {
        assert!(
            DOCUMENT.contains(&format!("### `{}`", event.name())),
            "{}",
            event.name()
        );
        for field in written(&event).as_object().unwrap().keys() {
            assert!(DOCUMENT.contains(&format!("`{field}`")), "{field}");
        }
        if let Event::Resume { reason, .. } = event {
            let reason = serde_json::to_value(reason).unwrap();
            let reason = reason.as_str().unwrap();
            assert!(DOCUMENT.contains(&format!("| `{reason}` |")), "{reason}");
        }
    }
}

#[test]
fn a_path_that_is_not_utf8_is_written_lossily() {
    use std::os::unix::ffi::OsStringExt as _;
    let path: PathBuf = std::ffi::OsString::from_vec(b"/p/\xff.lua".to_vec()).into();
    let value = written(&Event::Unchanged { paths: vec![path] });
    assert_eq!(value["paths"], json!(["/p/\u{fffd}.lua"]));
}

#[test]
fn lines_are_in_the_file_as_soon_as_they_are_emitted() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("events");
    std::fs::write(&path, "of an earlier forkmon\n").unwrap();
    let started = Instant::now();
    let mut events = Events::open(Some(&path), started).unwrap();
    assert!(events.are_wanted());
    let mut last = 0.0;
    for (run, event) in all_events().iter().enumerate() {
        events.emit(run as u64, event).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text.lines().count(), run + 1);
        assert!(text.ends_with('\n'));
        let value: Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
        assert_eq!(value["run"], run);
        let at = value["at_ms"].as_f64().unwrap();
        assert!(at >= last && at <= started.elapsed().as_secs_f64() * 1e3 + 0.001);
        last = at;
    }
}

#[test]
fn a_failing_file_is_told_once_and_then_given_up() {
    let mut events = Events::open(Some("/dev/full".as_ref()), Instant::now()).unwrap();
    let event = &all_events()[0];
    let error = events.emit(0, event).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::StorageFull);
    events.emit(0, event).unwrap();
    assert!(!events.are_wanted());
}

#[test]
fn without_a_file_nothing_is_written() {
    let mut events = Events::open(None, Instant::now()).unwrap();
    assert!(!events.are_wanted());
    events.emit(0, &all_events()[0]).unwrap();
}
