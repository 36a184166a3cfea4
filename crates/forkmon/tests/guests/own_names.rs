//! Names that the guest itself gives to what others wrote or will write: folders that it
//! makes, files that it links.

use crate::harness::{Project, Save};
use crate::require_guest;

/// Runs a Perl guest to its end, makes an edit, and compares what follows with a fresh
/// run.
fn check(mut project: Project, body: &str, edit: fn(&mut Project)) {
    let perl = require_guest!("perl");
    let guest = project.perl(body);
    let argv = [perl.as_str(), &guest];
    let mut forkmon = project.watch(&argv);
    forkmon.wait_exit();
    edit(&mut project);
    forkmon.wait_resume();
    let exit = forkmon.wait_exit();
    let fresh = project.fresh(&argv);
    if !fresh.stdout.ends_with(&exit.output) || project.tree() != fresh.tree {
        forkmon.fail(&format!("not as fresh: {exit:?}, but {fresh:#?}"));
    }
    forkmon.finish();
}

/// A run from behind the making of the folder goes on as if it had not been there,
/// where a fresh one finds it.
#[test]
fn a_file_that_is_put_into_a_folder_of_the_guests_own() {
    check(
        Project::new("into-own"),
        "print mkdir('out') ? 'made' : 'there', \"\\n\"; work(0.2); \
         print slurp('out/late.txt'), \"\\n\"; work(0.1);",
        |project| project.create("out/late.txt", "one\n"),
    );
}

/// The link was left where it was, as somebody had written to its file (by the other
/// name), and the guest could not make it again.
#[test]
fn a_file_that_is_edited_by_its_first_name() {
    check(
        Project::new("linked").file("late.txt", "one\n"),
        "-e 'late.txt' or die; work(0.2); link('late.txt', 'out.txt') or print \"no link\\n\"; \
         print slurp('out.txt'), \"\\n\"; work(0.1);",
        |project| project.save("late.txt", "two\n", Save::InPlace),
    );
}

/// A checkpoint that holds an output open was taken for the guest at it, so that
/// somebody's write to it after the guest's end counted as the guest's.
#[test]
fn an_output_that_is_edited_while_a_checkpoint_holds_it_open() {
    let perl = require_guest!("perl");
    let mut project = Project::new("held-open").file("late.txt", "one\n");
    let guest = project.perl(
        "print -e 'out.txt' ? 'there' : 'missing', \"\\n\"; work(0.1); \
         open(my $out, '>', 'out.txt') or die; work(0.2); \
         print slurp('late.txt'), \"\\n\"; work(0.1);",
    );
    let argv = [perl.as_str(), &guest];
    let mut forkmon = project.watch(&argv);
    forkmon.wait_exit();
    project.save("late.txt", "two\n", Save::InPlace);
    assert!(forkmon.wait_resume().from.is_some());
    assert_eq!(forkmon.wait_exit().output, "two\n");
    project.create("out.txt", "somebody's\n");
    forkmon.wait_resume();
    let exit = forkmon.wait_exit();
    let fresh = project.fresh(&argv);
    if !fresh.stdout.ends_with(&exit.output) || !exit.output.contains("there") {
        forkmon.fail(&format!("not as fresh: {exit:?}, but {fresh:#?}"));
    }
    forkmon.finish();
}
