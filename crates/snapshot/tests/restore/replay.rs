//! A fixture's run, and three more from its checkpoint, side by side.

use crate::driver::{Driver, Reached};
use tracee::End;

/// What was to be seen of a fixture: the run that the checkpoint was taken of
/// first, then its copies.
pub struct Runs {
    /// The run that the checkpoint was taken of.
    pub live: Vec<String>,
    /// The runs of its copies.
    pub copies: Vec<Vec<String>>,
}

impl Runs {
    /// All runs must be the same, and say this among other things.
    #[track_caller]
    pub fn assert_same(&self, lines: &[&str]) {
        for line in lines {
            assert!(
                self.live.iter().any(|l| l == line),
                "no line {line:?}: {:#?}",
                self.live
            );
        }
        for copy in &self.copies {
            assert_eq!(*copy, self.live);
        }
    }
}

/// Runs a fixture to its end, and three times more from its checkpoint. `heard`
/// gets every line while the fixture goes on.
pub fn replay(driver: &mut Driver, heard: &mut dyn FnMut(&str)) -> Runs {
    let mut before = Vec::new();
    let Reached::Checkpoint(task) = driver.run(&mut |line| before.push(line.to_owned())) else {
        panic!("no checkpoint: {before:?}");
    };
    let mut image = driver.freeze(task).unwrap();
    let mut run = |driver: &mut Driver, which: &str| {
        let mut lines = Vec::new();
        let reached = driver.run(&mut |line| {
            lines.push(line.to_owned());
            heard(line);
        });
        assert!(
            matches!(reached, Reached::Stop | Reached::End(End::Exited(0))),
            "{which}: {reached:?}: {lines:#?}"
        );
        lines
    };
    // The first copy is made while the live run goes on; one more is killed before
    // it is used.
    driver.prepare(&mut image);
    let live = run(driver, "the live run");
    let copies = (0..3)
        .map(|nth| {
            if nth == 2 {
                let copy = driver.prepare(&mut image);
                tracee::kill_task(copy, libc::SIGKILL);
            }
            driver.resume(&mut image).unwrap();
            run(driver, &format!("copy {nth}"))
        })
        .collect();
    driver.discard(image);
    Runs { live, copies }
}
