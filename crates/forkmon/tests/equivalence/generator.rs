//! From a seed to what a person does: a sequence of steps, each of one or more
//! edits after which the outcome is compared. The same seed and project give the
//! same steps, wherever and however often.
//!
//! What can be edited in a file is marked in it: `@12@` is a number that may
//! become any other. In text files lines come and go, too. An edit need not make
//! sense to the program: whatever a fresh run makes of it is right.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use fastrand::Rng;

use super::edit::{Edit, Save};
use super::model::{Model, Node};
use super::project::Project;

/// Edits, each with the time since the one before it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    pub edits: Vec<(Duration, Edit)>,
}

impl fmt::Display for Step {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, (pause, edit)) in self.edits.iter().enumerate() {
            if number > 0 {
                write!(to, "; ")?;
            }
            if *pause > Duration::ZERO {
                write!(to, "{pause:?} later ")?;
            }
            write!(to, "{edit}")?;
        }
        Ok(())
    }
}

/// The longest time between two edits of a step: they often fall into the run
/// that the first one has led to.
const LONGEST_PAUSE_MS: u64 = 80;

/// The first `count` steps of a seed.
pub fn steps(project: &Project, seed: u64, count: usize) -> Vec<Step> {
    let mut person = Person {
        project,
        rng: Rng::with_seed(seed),
        model: project.start.clone(),
    };
    (0..count).map(|_| person.step()).collect()
}

struct Person<'a> {
    project: &'a Project,
    rng: Rng,
    /// The files as they will be.
    model: Model,
}

impl Person<'_> {
    fn step(&mut self) -> Step {
        if self.rng.u32(0..15) == 0
            && let Some(step) = self.output_and_input()
        {
            return step;
        }
        if self.rng.u32(0..15) == 0
            && let Some(step) = self.twice()
        {
            return step;
        }
        let count = match self.rng.u32(0..10) {
            0..=6 => 1,
            7..=8 => 2,
            _ => 3,
        };
        let mut edits = Vec::new();
        for number in 0..count {
            let edit = self.edit(number == 0);
            edit.note(&mut self.model);
            let pause = match self.rng.u32(0..3) {
                _ if number == 0 => 0,
                0 => 0,
                1 => self.rng.u64(0..10),
                _ => self.rng.u64(0..LONGEST_PAUSE_MS),
            };
            edits.push((Duration::from_millis(pause), edit));
        }
        Step { edits }
    }

    /// A change of something that the guest writes without having looked at it is
    /// no edit by itself. It counts for what follows from the next.
    fn output_and_input(&mut self) -> Option<Step> {
        let name = PathBuf::from(self.pick(self.project.definition.outputs)?);
        let digits = self.rng.usize(1..=8);
        let bytes = [b"by a person ", &self.number(digits)[..], b"\n"].concat();
        let output = match self.rng.u32(0..4) {
            0 if self.model.bytes(&name).is_some() => Edit::Append { name, bytes },
            _ => self.save(name, bytes),
        };
        let input = self.change_number(self.project.definition.first.into())?;
        let edits = [output, input].map(|edit| {
            edit.note(&mut self.model);
            (Duration::ZERO, edit)
        });
        Some(Step {
            edits: edits.into(),
        })
    }

    /// Two saves of one size within one tick of the clock that files are stamped by.
    fn twice(&mut self) -> Option<Step> {
        let name = self.editable(true)?;
        let mark = self.pick(&marks(self.model.bytes(&name)?))?;
        let how = self.pick(&[Save::InPlace, Save::Over, Save::ByRename])?;
        let mut edits = Vec::new();
        for _ in 0..2 {
            let mut bytes = self.model.bytes(&name)?.to_vec();
            let number = self.number(mark.len());
            bytes[mark.clone()].copy_from_slice(&number);
            let name = name.clone();
            let edit = Edit::Save { name, bytes, how };
            edit.note(&mut self.model);
            edits.push((Duration::ZERO, edit));
        }
        Some(Step { edits })
    }

    /// One edit. What the guest writes, too, is edited only if it has `ended`.
    fn edit(&mut self, ended: bool) -> Edit {
        if self.rng.u32(0..10) < 7
            && let Some(edit) = self.mend()
        {
            return edit;
        }
        loop {
            let found = match self.rng.u32(0..100) {
                0..=64 => self.change(ended),
                65..=69 => self.same(),
                70..=74 => self.make_optional(),
                75..=79 => self.remove(),
                80..=84 => self.revert(ended),
                85..=88 => self.add_to_folder(),
                89..=91 => self.rename(),
                92..=94 => self.mode(),
                95..=96 => self.touch(),
                _ => self.retarget(),
            };
            if let Some(edit) = found {
                return edit;
            }
        }
    }

    /// Whether the guest writes it, too, so that its time to be edited is when the
    /// guest has ended.
    fn is_written(&self, name: &Path) -> bool {
        self.project.definition.writes(name)
    }

    fn is_output(&self, name: &Path) -> bool {
        let mut outputs = self.project.definition.outputs.iter();
        outputs.any(|other| Path::new(other) == name)
    }

    fn is_optional(&self, name: &Path) -> bool {
        let mut optional = self.project.definition.optional.iter();
        optional.any(|(other, _)| Path::new(other) == name)
    }

    fn pick<T: Clone>(&mut self, all: &[T]) -> Option<T> {
        self.rng.choice(all).cloned()
    }

    /// A file that can be changed by its marks or its lines.
    fn editable(&mut self, ended: bool) -> Option<PathBuf> {
        let names: Vec<PathBuf> = self
            .model
            .files()
            .filter(|name| ended || !self.is_written(name))
            .filter(|name| !self.is_output(name))
            .filter(|name| {
                let bytes = self.model.bytes(name).unwrap_or_default();
                is_text(name) || !marks(bytes).is_empty()
            })
            .map(Path::to_path_buf)
            .collect();
        self.pick(&names)
    }

    /// A file that the guest does not write.
    fn any_file(&mut self) -> Option<PathBuf> {
        let names: Vec<PathBuf> = self
            .model
            .files()
            .filter(|name| !self.is_written(name))
            .map(Path::to_path_buf)
            .collect();
        self.pick(&names)
    }

    fn how(&mut self) -> Save {
        match self.rng.u32(0..12) {
            0..=3 => Save::InPlace,
            4..=7 => Save::ByRename,
            8 => Save::LikeVim,
            9 => Save::DeleteAndCreate,
            10 => Save::Over,
            _ => Save::InPieces(Duration::from_millis(self.rng.u64(0..20))),
        }
    }

    fn save(&mut self, name: PathBuf, bytes: Vec<u8>) -> Edit {
        let how = self.how();
        Edit::Save { name, bytes, how }
    }

    /// Other contents: of the same size, longer or shorter.
    fn change(&mut self, ended: bool) -> Option<Edit> {
        let name = self.editable(ended)?;
        let bytes = self.model.bytes(&name)?.to_vec();
        if is_text(&name) && self.rng.u32(0..3) == 0 {
            return Some(self.change_lines(name, &bytes));
        }
        self.change_number(name)
    }

    fn change_number(&mut self, name: PathBuf) -> Option<Edit> {
        let bytes = self.model.bytes(&name)?.to_vec();
        let mark = self.pick(&marks(&bytes))?;
        let old = &bytes[mark.clone()];
        let digits = match self.rng.u32(0..4) {
            0 => self.rng.usize(1..=8),
            _ => old.len(),
        };
        let number = self.number(digits);
        if number == old {
            return None;
        }
        let new = [&bytes[..mark.start], &number, &bytes[mark.end..]].concat();
        Some(self.save(name, new))
    }

    fn number(&mut self, digits: usize) -> Vec<u8> {
        let mut number = vec![self.rng.u8(b'1'..=b'9')];
        number.extend((1..digits).map(|_| self.rng.u8(b'0'..=b'9')));
        number
    }

    fn change_lines(&mut self, name: PathBuf, bytes: &[u8]) -> Edit {
        let mut lines: Vec<Vec<u8>> = bytes
            .split_inclusive(|byte| *byte == b'\n')
            .map(<[u8]>::to_vec)
            .collect();
        let digits = self.rng.usize(1..=4);
        let new = [b"line @", &self.number(digits)[..], b"@\n"].concat();
        match self.rng.u32(0..4) {
            0 => return Edit::Append { name, bytes: new },
            1 if !lines.is_empty() => {
                lines.remove(self.rng.usize(0..lines.len()));
            }
            2 if !lines.is_empty() => {
                let at = self.rng.usize(0..lines.len());
                lines[at] = new;
            }
            _ => lines.insert(self.rng.usize(0..=lines.len()), new),
        }
        self.save(name, lines.concat())
    }

    /// A save of the same bytes.
    fn same(&mut self) -> Option<Edit> {
        let name = self.any_file()?;
        let bytes = self.model.bytes(&name)?.to_vec();
        Some(self.save(name, bytes))
    }

    fn touch(&mut self) -> Option<Edit> {
        self.any_file().map(Edit::Touch)
    }

    fn mode(&mut self) -> Option<Edit> {
        let name = self.any_file()?;
        let mode = self.pick(&[0o644, 0o600, 0o755, 0o640])?;
        Some(Edit::Mode { name, mode })
    }

    fn make_optional(&mut self) -> Option<Edit> {
        let (name, text) = self.pick(self.project.definition.optional)?;
        let name = PathBuf::from(name);
        let missing = !self.model.nodes.contains_key(&name);
        missing.then(|| self.save(name, text.into()))
    }

    /// Mostly what need not be there; at times something that has to be.
    fn remove(&mut self) -> Option<Edit> {
        let name = self.any_file()?;
        let extra = self.is_optional(&name) || !self.project.start.nodes.contains_key(&name);
        (extra || self.rng.u32(0..6) == 0).then_some(Edit::Remove(name))
    }

    /// Brings something back that has to be there: few edits show anything while
    /// the program fails for want of it.
    fn mend(&mut self) -> Option<Edit> {
        let missing: Vec<PathBuf> = self
            .project
            .start
            .files()
            .filter(|name| !self.model.nodes.contains_key(*name))
            .map(Path::to_path_buf)
            .collect();
        let name = self.pick(&missing)?;
        let bytes = self.project.start.bytes(&name)?.to_vec();
        Some(self.save(name, bytes))
    }

    /// Makes a file what it was at first.
    fn revert(&mut self, ended: bool) -> Option<Edit> {
        let name = self.editable(ended)?;
        let first = self.project.start.bytes(&name)?.to_vec();
        let differs = self.model.bytes(&name) != Some(&first);
        differs.then(|| self.save(name, first))
    }

    /// A folder below the project's own with files in it.
    fn sibling(&mut self) -> Option<PathBuf> {
        let names: Vec<PathBuf> = self
            .model
            .files()
            .filter(|name| name.parent() != Some(Path::new("")))
            .filter(|name| is_text(name) && !self.is_written(name))
            .map(Path::to_path_buf)
            .collect();
        self.pick(&names)
    }

    fn new_name(&mut self, beside: &Path) -> PathBuf {
        let number = self.rng.u32(0..20);
        let extension = beside.extension().unwrap_or_default().to_string_lossy();
        beside.with_file_name(format!("new{number}.{extension}"))
    }

    /// A copy of a file beside it.
    fn add_to_folder(&mut self) -> Option<Edit> {
        let name = self.sibling()?;
        let bytes = self.model.bytes(&name)?.to_vec();
        let new = self.new_name(&name);
        (!self.model.nodes.contains_key(&new)).then(|| self.save(new, bytes))
    }

    fn rename(&mut self) -> Option<Edit> {
        let from = self.sibling()?;
        let to = self.new_name(&from);
        (!self.model.nodes.contains_key(&to)).then_some(Edit::Rename { from, to })
    }

    fn retarget(&mut self) -> Option<Edit> {
        let links: Vec<(PathBuf, PathBuf)> = self
            .model
            .nodes
            .iter()
            .filter_map(|(name, node)| match node {
                Node::Link(target) => Some((name.clone(), target.clone())),
                _ => None,
            })
            .collect();
        let (name, target) = self.pick(&links)?;
        let folder = name.parent()?.join(target.parent()?);
        let others: Vec<PathBuf> = self
            .model
            .files()
            .filter(|file| file.parent() == Some(&folder))
            .filter_map(|file| Some(target.with_file_name(file.file_name()?)))
            .filter(|other| *other != target)
            .collect();
        let target = self.pick(&others)?;
        Some(Edit::Retarget { name, target })
    }
}

/// Whether lines of a file may come and go without a thought.
fn is_text(name: &Path) -> bool {
    name.extension().is_some_and(|extension| extension == "txt")
}

/// Where the numbers between `@` are.
fn marks(bytes: &[u8]) -> Vec<std::ops::Range<usize>> {
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(start) = position(bytes, at) {
        let digits = bytes[start + 1..].iter().take_while(|b| b.is_ascii_digit());
        let end = start + 1 + digits.count();
        if end > start + 1 && bytes.get(end) == Some(&b'@') {
            found.push(start + 1..end);
            at = end + 1;
        } else {
            at = start + 1;
        }
    }
    found
}

fn position(bytes: &[u8], from: usize) -> Option<usize> {
    let found = bytes.get(from..)?.iter().position(|byte| *byte == b'@');
    found.map(|at| from + at)
}
