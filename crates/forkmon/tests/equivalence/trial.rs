//! One project, one sequence of steps: play them under forkmon and compare what
//! follows from each with a plain run.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use super::generator::Step;
use super::live::{self, Since};
use super::manner::Manner;
use super::model::{Model, Node};
use super::plain::{Outcome, Plain};
use super::project::Project;
use super::session::{Printed, Session, Settled};
use super::site::{Side, Site};
use super::tally::Tally;
use super::tree::{Tree, first_difference};

/// Forkmon was wrong.
#[derive(Clone, Debug)]
pub struct Difference {
    /// After which step; none before the first.
    pub after: Option<usize>,
    /// What is different, in lines.
    pub what: Vec<String>,
}

/// Plays steps one after another.
///
/// # Errors
///
/// The first difference. What forkmon told, and both trees, are then in the
/// folder, if one is given.
pub fn play(
    project: &Project,
    manner: &Manner,
    steps: &[Step],
    tally: &mut Tally,
    keep: Option<&Path>,
) -> Result<(), Difference> {
    let site = Site::new(project.definition.name).unwrap_or_else(|error| {
        panic!("cannot make a temporary folder: {error}");
    });
    let mut trial = Trial {
        project,
        plain: Plain::new(project, manner, &site),
        site: &site,
        model: project.start.clone(),
        before: Vec::new(),
    };
    let root = site.root(Side::Watched);
    trial.model.write(&root).unwrap_or_else(|error| {
        panic!("cannot write {}: {error}", root.display());
    });
    let mut session = match Session::start(project, manner, &site) {
        Ok(session) => session,
        Err(error) => panic!("{error}"),
    };
    let played = trial.play(&mut session, steps, tally);
    if let (Err(_), Some(folder)) = (&played, keep) {
        trial.keep(&mut session, folder);
    }
    played
}

struct Trial<'a> {
    project: &'a Project,
    plain: Plain<'a>,
    site: &'a Site,
    model: Model,
    /// What a fresh run would have printed before the last step.
    before: Vec<u8>,
}

impl Trial<'_> {
    fn play(
        &mut self,
        session: &mut Session,
        steps: &[Step],
        tally: &mut Tally,
    ) -> Result<(), Difference> {
        let differs = |after, what| Difference { after, what };
        let compared = self.compare(session, None);
        compared.map_err(|what| differs(None, what))?;
        for (number, step) in steps.iter().enumerate() {
            let seen = session.events().len();
            self.make(session, step);
            let compared = self.compare(session, Some((step, seen)));
            tally.add(step, &session.events()[seen..]);
            compared.map_err(|what| differs(Some(number), what))?;
        }
        let ended = session.end();
        ended.map_err(|what| differs(steps.len().checked_sub(1), vec![what]))
    }

    /// Does what the person does.
    fn make(&mut self, session: &mut Session, step: &Step) {
        let root = self.site.root(Side::Watched);
        for (pause, edit) in &step.edits {
            if *pause > Duration::ZERO {
                session.pass(*pause);
            }
            if !edit.note(&mut self.model) {
                continue;
            }
            if let Err(error) = edit.make(&root) {
                panic!("cannot {edit}: {error}");
            }
            self.read_back(edit.name(), &root);
        }
    }

    /// Who edits a file that the guest has written, edits what the guest has left:
    /// its mode stays, and what is added to stays, too.
    fn read_back(&mut self, name: &Path, root: &Path) {
        let path = root.join(name);
        if self.project.definition.writes(name)
            && let (Ok(bytes), Ok(found)) = (fs::read(&path), fs::metadata(&path))
        {
            let mode = found.permissions().mode() & 0o7777;
            let node = Node::File { bytes, mode };
            self.model.nodes.insert(name.into(), node);
        }
    }

    /// Waits for what follows from all edits so far, and compares it. The last of
    /// them are those of a step, which began when there were so many events.
    fn compare(
        &mut self,
        session: &mut Session,
        last: Option<(&Step, usize)>,
    ) -> Result<(), Vec<String>> {
        let settled = session.settle().map_err(|what| vec![what])?;
        let root = self.site.root(Side::Watched);
        let tree = Tree::of(&root, None).unwrap_or_else(|error| {
            panic!("cannot look at {}: {error}", root.display());
        });
        let outcome = self.plain.outcome(&self.model);
        let expected = outcome.unwrap_or_else(|error| panic!("cannot run it plainly: {error}"));
        let mut what = differences(expected, &settled, &tree);
        if let Printed::New(new) = &settled.printed {
            let since = last.map_or(Since::Start, |(step, seen)| {
                Since::step(step, &session.events()[seen..])
            });
            what.extend(live::difference(since, &self.before, &expected.stdout, new));
        }
        self.before.clone_from(&expected.stdout);
        session.looked_at();
        if what.is_empty() { Ok(()) } else { Err(what) }
    }

    fn keep(&self, session: &mut Session, folder: &Path) {
        let kept = fs::create_dir_all(folder).and_then(|()| session.keep(folder));
        let kept = kept.and_then(|()| {
            for (side, name) in [(Side::Watched, "watched"), (Side::Plain, "plain")] {
                copy(&self.site.root(side), &folder.join(name))?;
            }
            Ok(())
        });
        if let Err(error) = kept {
            eprintln!(
                "cannot keep what was found in {}: {error}",
                folder.display()
            );
        }
    }
}

fn differences(expected: &Outcome, settled: &Settled, tree: &Tree) -> Vec<String> {
    let mut what = Vec::new();
    if settled.status != expected.status {
        what.push(format!(
            "exit status {}, should be {}",
            settled.status, expected.status
        ));
    }
    if let Printed::Whole { stdout, stderr } = &settled.printed {
        for (name, wanted, got) in [
            ("standard output", &expected.stdout, stdout),
            ("standard error", &expected.stderr, stderr),
        ] {
            if wanted != got {
                what.push(format!("{name} {}", first_difference(wanted, got)));
            }
        }
    }
    what.extend(tree.differences(&expected.tree));
    what
}

/// Copies files and folders, for a person to look at.
fn copy(from: &Path, to: &Path) -> std::io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let to = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &to)?;
        } else if entry.file_type()?.is_file() {
            fs::copy(entry.path(), to)?;
        }
    }
    Ok(())
}
