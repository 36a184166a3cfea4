//! One line of the events file, read by the words of `docs/events.md` alone.
//!
//! Each line is checked against the JSON schema that users are given, so that
//! every test with a guest also tests the schema.

use std::path::PathBuf;
use std::sync::LazyLock;

use serde_json::Value;

use super::guest::place;

/// One event as it was read.
#[derive(Clone, Debug)]
pub struct Event {
    /// What happened: `start`, `checkpoint`, `change`, ….
    pub name: String,
    /// The number of the run that it belongs to.
    pub run: u64,
    /// The whole object.
    pub value: Value,
    /// How many bytes the guest had printed by the time this was read.
    pub printed: usize,
}

/// An `exit` event, with what the guest printed since the one before.
#[derive(Clone, Debug)]
pub struct Exit {
    /// The exit status, if the guest exited.
    pub code: Option<i64>,
    /// The signal, if one ended the guest.
    pub signal: Option<i64>,
    /// What the guest printed since the exit before.
    pub output: String,
}

/// A `resume` event.
#[derive(Clone, Debug)]
pub struct Resume {
    /// The checkpoint that was resumed, or nothing for a full restart.
    pub from: Option<u64>,
    /// The edited file that decided it; empty if it was asked for.
    pub path: PathBuf,
    /// How much of the guest's time was kept.
    pub kept_ms: f64,
    /// Why from there.
    pub reason: String,
}

static SCHEMA: LazyLock<jsonschema::Validator> = LazyLock::new(|| {
    let path = place("FORKMON_TEST_SCHEMA", "../../docs/events.schema.json");
    let text = std::fs::read_to_string(&path).expect("the schema can be read");
    let schema: Value = serde_json::from_str(&text).expect("the schema is JSON");
    jsonschema::validator_for(&schema).expect("the schema is a JSON schema")
});

impl Event {
    /// Reads one line of the events file.
    ///
    /// # Panics
    ///
    /// When the line is not an event by the schema.
    pub fn parse(line: &str, printed: usize) -> Event {
        let value: Value = serde_json::from_str(line)
            .unwrap_or_else(|error| panic!("an event line is not JSON ({error}): {line}"));
        let faults: Vec<String> = SCHEMA.iter_errors(&value).map(|e| e.to_string()).collect();
        assert!(
            faults.is_empty(),
            "an event breaks the schema: {faults:?}: {line}"
        );
        let name = value["event"].as_str().expect("an event has a name").into();
        let run = value["run"].as_u64().expect("an event has a run");
        assert!(value["at_ms"].is_number(), "an event has a time: {line}");
        Event {
            name,
            run,
            value,
            printed,
        }
    }

    /// A field that is a string.
    pub fn text(&self, field: &str) -> &str {
        self.value[field]
            .as_str()
            .unwrap_or_else(|| panic!("no text `{field}` in {}", self.value))
    }

    /// A field that is a number.
    pub fn number(&self, field: &str) -> f64 {
        self.value[field]
            .as_f64()
            .unwrap_or_else(|| panic!("no number `{field}` in {}", self.value))
    }

    /// The names, without their folders, of the paths of a `change` or an
    /// `unchanged`, sorted.
    pub fn names(&self) -> Vec<String> {
        let paths = self.value["paths"].as_array().cloned().unwrap_or_default();
        let mut names: Vec<String> = paths
            .iter()
            .filter_map(|entry| entry.as_str().or_else(|| entry["path"].as_str()))
            .map(|path| path.rsplit('/').next().unwrap_or(path).to_owned())
            .collect();
        names.sort();
        names
    }

    /// The kind of change that a `change` event names for the file called so.
    pub fn kind_of(&self, name: &str) -> Option<String> {
        let paths = self.value["paths"].as_array()?;
        let entry = paths.iter().find(|entry| {
            entry["path"]
                .as_str()
                .is_some_and(|path| path.ends_with(name))
        })?;
        entry["kind"].as_str().map(str::to_owned)
    }

    /// This event as a resume.
    pub fn as_resume(&self) -> Resume {
        assert_eq!(self.name, "resume");
        Resume {
            from: self.value["from"].as_u64(),
            path: PathBuf::from(self.value["path"].as_str().unwrap_or_default()),
            kept_ms: self.number("kept_ms"),
            reason: self.text("reason").into(),
        }
    }
}
