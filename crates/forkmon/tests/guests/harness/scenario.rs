//! The assertion at the heart: after an edit, the guest goes on from the
//! middle, and what it prints and leaves is what a fresh run would have.

use super::{Forkmon, Project, Save};

/// A guest, and the file that it reads late and the test edits.
///
/// The guest prints a line with the word `early` at its beginning, works for a
/// while, reads the late file and prints something that depends on it.
pub struct Scenario<'a> {
    project: Project,
    argv: Vec<&'a str>,
    late: &'a str,
    says_early: bool,
    may_refuse: bool,
}

impl<'a> Scenario<'a> {
    /// A guest on a project, whose late file is the last argument.
    pub fn new(project: Project, argv: &[&'a str], late: &'a str) -> Scenario<'a> {
        Scenario {
            project,
            argv: argv.to_vec(),
            late,
            says_early: true,
            may_refuse: false,
        }
    }

    /// The guest cannot be made to print something early.
    pub fn without_early_output(mut self) -> Self {
        self.says_early = false;
        self
    }

    /// The guest holds something that need not be restorable yet: then there is
    /// a warning that says so, and a full restart that is right.
    pub fn or_refused(mut self) -> Self {
        self.may_refuse = true;
        self
    }

    /// Runs the guest, then saves the late file once in place and once by
    /// rename, and requires a right resume each time.
    pub fn check(self, in_place: &str, by_rename: &str) {
        self.check_saves(&[(in_place, Save::InPlace), (by_rename, Save::ByRename)]);
    }

    /// The same with other ways of saving.
    pub fn check_saves(mut self, saves: &[(&str, Save)]) {
        let mut forkmon = self.project.watch(&self.argv);
        self.check_first_run(&mut forkmon);
        for (text, how) in saves {
            self.project.save(self.late, text, *how);
            self.check_resume(&mut forkmon, &format!("saved {how:?}"));
        }
        forkmon.finish();
    }

    fn check_first_run(&self, forkmon: &mut Forkmon) {
        let exit = forkmon.wait_exit();
        let fresh = self.project.fresh(&self.argv);
        if exit.output != fresh.stdout {
            forkmon.fail(&format!(
                "the first run did not print what a plain run does:\n{}",
                fresh.stdout
            ));
        }
        if self.says_early {
            assert!(fresh.stdout.contains("early"), "the guest must say `early`");
        }
    }

    fn check_resume(&self, forkmon: &mut Forkmon, when: &str) {
        let resume = forkmon.wait_resume();
        let exit = forkmon.wait_exit();
        let fresh = self.project.fresh(&self.argv);
        let refused = self.may_refuse && resume.from.is_none();
        if refused && forkmon.warnings().is_empty() {
            forkmon.fail(&format!("{when}: a full restart, and no warning said why"));
        }
        if resume.from.is_none() && !refused {
            forkmon.fail(&format!("{when}: a full restart: {}", resume.reason));
        }
        if resume.kept_ms <= 0.0 && !refused {
            forkmon.fail(&format!("{when}: no time was kept"));
        }
        if !fresh.stdout.ends_with(&exit.output) {
            forkmon.fail(&format!(
                "{when}: the output is not the end of a fresh run's:\n{}",
                fresh.stdout
            ));
        }
        if self.says_early && !refused && exit.output.contains("early") {
            forkmon.fail(&format!("{when}: the early part ran again"));
        }
        // A guest that fails on the late file may print nothing after it.
        if fresh.code == 0 && !fresh.stdout.is_empty() && exit.output.is_empty() {
            forkmon.fail(&format!("{when}: nothing was printed"));
        }
        // Together with what was printed before the checkpoint, it is a fresh
        // run's whole output.
        let before = &fresh.stdout[..fresh.stdout.len() - exit.output.len()];
        if !forkmon.output().starts_with(before) {
            forkmon.fail(&format!("{when}: {before:?} was never printed"));
        }
        let code = exit.code.or(exit.signal.map(|signal| 128 + signal));
        if code != Some(i64::from(fresh.code)) {
            forkmon.fail(&format!(
                "{when}: a fresh run ends with {}, this with {code:?}",
                fresh.code
            ));
        }
        let tree = self.project.tree();
        if tree != fresh.tree {
            forkmon.fail(&format!(
                "{when}: files differ:\n{tree:#?}\nin a fresh run:\n{:#?}",
                fresh.tree
            ));
        }
    }
}
