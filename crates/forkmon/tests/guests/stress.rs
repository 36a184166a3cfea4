//! Many edits, in an order that only a seed decides, one after the other and
//! while the guest runs: the last output and files are those of a fresh run.

use std::time::Duration;

use crate::harness::{Project, Save};
use crate::require_guest;

/// A small generator of numbers that look random, the same for each seed.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }

    fn way(&mut self) -> Save {
        let ways = [
            Save::InPlace,
            Save::ByRename,
            Save::LikeVim,
            Save::DeleteAndCreate,
        ];
        ways[self.below(4) as usize]
    }
}

const COUNT: u64 = 6;

/// A guest that reads some files with work between them, writes others, and
/// says at the end what it has read in all.
fn guest(name: &str) -> (Project, String) {
    let mut project = Project::new(name)
        .file("log.txt", "last week's\n")
        .file("out-2.txt", "last week's\n");
    for number in 0..COUNT {
        project = project.file(&format!("in-{number}.txt"), "old\n");
    }
    let guest = project.perl(
        "my $all = ''; open(my $log, '>>', 'log.txt') or die; $log->autoflush; \
         for my $n (0 .. 5) { \
           my $text = slurp(\"in-$n.txt\"); $all .= \" $text\"; print \"$n $text\\n\"; print $log \"$n $text\\n\"; \
           spew(\"out-$n.txt\", $text) unless $text =~ /[05]$/; unlink('out-2.txt') if $text =~ /7$/; \
           work(0.03) } \
         print \"all$all\\n\"; exit(length($all) % 3);",
    );
    (project, guest)
}

#[test]
fn many_edits_one_after_the_other_are_each_as_if_fresh() {
    let perl = require_guest!("perl");
    let (mut project, guest) = guest("many-edits");
    let argv = [perl.as_str(), &guest];
    let mut forkmon = project.watch(&argv);
    forkmon.wait_exit();
    let mut numbers = Numbers(0x5eed_0001);
    let mut kept = 0;
    for round in 0..25 {
        let name = format!("in-{}.txt", numbers.below(COUNT));
        project.save(&name, &format!("round {round}\n"), numbers.way());
        let resume = forkmon.wait_resume();
        kept += u32::from(resume.from.is_some());
        let exit = forkmon.wait_exit();
        let fresh = project.fresh(&argv);
        let tree = project.tree();
        if !fresh.stdout.ends_with(&exit.output)
            || exit.code != Some(i64::from(fresh.code))
            || tree != fresh.tree
        {
            forkmon.fail(&format!(
                "round {round}, {name}: {exit:?} {tree:#?}\nbut fresh {fresh:#?}"
            ));
        }
    }
    assert!(
        kept >= 23,
        "only {kept} of 25 edits resumed from a checkpoint"
    );
    forkmon.finish();
}

#[test]
fn edits_while_the_guest_runs_end_as_if_fresh() {
    let perl = require_guest!("perl");
    for seed in [0x5eed_0002, 0x5eed_0003, 0x5eed_0004] {
        let (mut project, guest) = guest("any-time");
        let argv = [perl.as_str(), &guest];
        let mut forkmon = project.watch(&argv);
        forkmon.wait_event("start");
        let mut numbers = Numbers(seed);
        for round in 0..30 {
            let name = format!("in-{}.txt", numbers.below(COUNT));
            project.save(&name, &format!("round {round}\n"), numbers.way());
            // This is no waiting for anything: the edits are to come at any
            // moment of the guest's life.
            std::thread::sleep(Duration::from_millis(numbers.below(60)));
        }
        project.save("in-3.txt", "the last\n", Save::ByRename);
        let fresh = project.fresh(&argv);
        let last = fresh
            .stdout
            .lines()
            .last()
            .expect("it says what it read")
            .to_owned();
        forkmon.wait_output(&format!("{last}\n"));
        let exit = forkmon.wait_exit();
        let tree = project.tree();
        if exit.code != Some(i64::from(fresh.code)) || tree != fresh.tree {
            forkmon.fail(&format!(
                "seed {seed:x}: {exit:?} {tree:#?}\nbut fresh {fresh:#?}"
            ));
        }
        // And from there on it goes on as usual.
        project.save("in-5.txt", "after all\n", Save::InPlace);
        forkmon.wait_resume();
        let exit = forkmon.wait_exit();
        assert!(
            project.fresh(&argv).stdout.ends_with(&exit.output),
            "{exit:?}"
        );
        forkmon.finish();
    }
}
