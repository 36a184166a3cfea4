//! The document that the tables stand in, and how a table is written.
//!
//! A table stands between `<!-- bench:NAME -->` and `<!-- /bench:NAME -->`; all
//! else is prose and is left as it is.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

/// A Markdown document with marked tables.
pub struct Document {
    path: PathBuf,
    text: String,
}

impl Document {
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        Ok(Self {
            path: path.to_owned(),
            text: fs::read_to_string(path)
                .with_context(|| format!("cannot read {}", path.display()))?,
        })
    }

    /// Replaces what stands between the marks of a table.
    pub fn replace(&mut self, name: &str, table: &str) -> anyhow::Result<()> {
        let begin = format!("<!-- bench:{name} -->\n");
        let end = format!("<!-- /bench:{name} -->");
        let from = self.text.find(&begin).map(|at| at + begin.len());
        let to = self.text.find(&end);
        let (Some(from), Some(to)) = (from, to) else {
            anyhow::bail!("{} has no marks for {name}", self.path.display());
        };
        anyhow::ensure!(from <= to, "the marks for {name} are in the wrong order");
        self.text
            .replace_range(from..to, &format!("\n{}\n\n", table.trim()));
        Ok(())
    }

    pub fn write(&self) -> anyhow::Result<()> {
        fs::write(&self.path, &self.text)
            .with_context(|| format!("cannot write {}", self.path.display()))
    }
}

/// A Markdown table that grows row by row; numbers are set to the right.
pub struct Table {
    text: String,
}

impl Table {
    /// The first column holds names, the others numbers.
    pub fn new(columns: &[&str]) -> Self {
        let mut table = Self {
            text: String::new(),
        };
        table.row(columns.iter().map(|c| (*c).to_owned()));
        let rules = (0..columns.len()).map(|n| if n == 0 { "---" } else { "---:" }.to_owned());
        table.row(rules);
        table
    }

    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.text.push('|');
        for cell in cells {
            self.text.push_str(&format!(" {cell} |"));
        }
        self.text.push('\n');
    }

    pub fn into_text(self) -> String {
        self.text
    }
}
