//! The timeline by itself, at three lengths: measured by its own example.

use anyhow::Context as _;
use serde_json::Value;

use crate::Bench;
use crate::document::Table;
use crate::process::{command, complete};
use crate::project::field;
use crate::statistics::number;

const COLUMNS: [&str; 6] = [
    "record_ns",
    "knows_ns",
    "judge_ns",
    "checkpoint_due_ns",
    "resume_point_ns",
    "rewind_ns",
];

pub fn measure(bench: &Bench) -> anyhow::Result<String> {
    let rows: Value = serde_json::from_str(&complete(&mut command(&bench.options.scale))?)?;
    let rows = rows
        .as_array()
        .context("the timeline's example printed no list")?;
    let mut table = Table::new(&[
        "accesses",
        "record one, ns",
        "known already, ns",
        "judge an edit, ns",
        "checkpoint due, ns",
        "find where to resume, ns",
        "rewind by 100, ns",
    ]);
    let (Some(first), Some(last)) = (rows.first(), rows.last()) else {
        anyhow::bail!("the timeline's example printed nothing");
    };
    let mut growth = vec!["**100 × as long**".to_owned()];
    for name in COLUMNS {
        growth.push(format!(
            "**{} ×**",
            number(field(last, name)? / field(first, name)?)
        ));
    }
    table.row(growth);
    for row in rows {
        let mut cells = vec![field(row, "accesses")?.to_string()];
        for name in COLUMNS {
            cells.push(number(field(row, name)?));
        }
        table.row(cells);
    }
    Ok(table.into_text())
}
