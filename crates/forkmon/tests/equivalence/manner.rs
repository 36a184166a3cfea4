//! How forkmon is started: options that must make no difference to the outcome,
//! and whether both output streams are one, as in a terminal. Chosen by the seed.

use std::fmt;

use fastrand::Rng;

use super::project::Project;

/// The options of one trial.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manner {
    /// Options of `forkmon run`.
    pub options: Vec<&'static str>,
    /// Standard output and standard error are one pipe.
    pub joined: bool,
    /// Only new output is shown after a resume.
    pub live: bool,
    /// Every checkpoint is allowed, so that edits do resume.
    pub generous: bool,
}

impl Manner {
    /// The manner of a seed.
    pub fn of(project: &Project, seed: u64) -> Manner {
        let name = project.definition.name.bytes().map(u64::from);
        // Another one than that of the steps, and than that of other projects.
        let mut rng = Rng::with_seed(seed.wrapping_mul(1000).wrapping_add(name.sum()));
        // Messages would stand between the guest's lines.
        let mut options = vec!["--quiet"];
        let mut often = |tenths: u32| rng.u32(0..10) < tenths;
        let joined = often(3);
        let live = !joined && often(2);
        options.push(if live {
            "--output=live"
        } else {
            "--output=replay"
        });
        // What a checkpoint costs is measured in real time, which others on the
        // machine make longer: with this, the next one is always allowed.
        let generous = often(8);
        if generous {
            options.push("--budget=100%");
        }
        if often(2) {
            options.push("--max-checkpoints=3");
        }
        if often(2) {
            options.push("--within-file=off");
        }
        if often(1) {
            // A dropped run is asked to end, and may do something about it.
            options.push("--stop-signal=TERM");
        }
        if often(2) {
            options.push("--delay=0ms");
        } else if often(1) {
            options.push("--delay=40ms");
        }
        Manner {
            options,
            joined,
            live,
            generous,
        }
    }
}

impl fmt::Display for Manner {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        let joined = if self.joined { " 2>&1" } else { "" };
        write!(to, "{}{joined}", self.options.join(" "))
    }
}
