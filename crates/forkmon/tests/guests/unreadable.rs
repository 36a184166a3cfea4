//! Programs that may be executed but not read: nobody may look into their processes.

use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use crate::harness::{Project, Save};
use crate::require_guest;

/// Long enough for a resume that nobody asked for to show.
const A_WHILE: Duration = Duration::from_millis(400);

/// A path that could not be read in the guest's memory was taken for one that the
/// kernel cannot read either, so that what the program read was not seen, and a
/// checkpoint after it was resumed.
#[test]
fn what_an_unreadable_program_reads_is_not_resumed_behind() {
    let perl = require_guest!("perl");
    let mut project = Project::new("unreadable")
        .file("data.txt", "data one\n")
        .file("late.txt", "late one\n");
    let hidden = project.beside().join("hidden");
    std::fs::copy("/bin/cat", &hidden).expect("a program can be copied");
    std::fs::set_permissions(&hidden, std::fs::Permissions::from_mode(0o111))
        .expect("a mode can be set");
    let guest = project.perl(&format!(
        "-e 'data.txt' or die; work(0.1); system('{}', 'data.txt') == 0 or die; work(0.2); \
         print slurp('late.txt'), \"\\n\"; work(0.1);",
        hidden.display()
    ));
    let argv = [perl.as_str(), &guest];
    // Root may read everything.
    let launch = project.launch(&argv);
    let mut forkmon = if rustix::process::geteuid().is_root() {
        require_guest!("setpriv");
        launch.by_another_user()
    } else {
        launch
    }
    .start();
    forkmon.wait_exit();
    forkmon.expect_quiet(A_WHILE);
    if !forkmon.warnings().contains(&"hidden-accesses".to_owned()) {
        forkmon.fail("a hidden program is not warned of");
    }
    // The first edit is not seen, as nobody could see that the file was read; the
    // next one leads to a run that has both.
    project.save("data.txt", "data two\n", Save::InPlace);
    project.save("late.txt", "late two\n", Save::InPlace);
    let resume = forkmon.wait_resume();
    assert_eq!(resume.from, None, "{resume:?}");
    let exit = forkmon.wait_exit();
    if exit.output != project.fresh(&argv).stdout {
        forkmon.fail("not as fresh");
    }
    forkmon.finish();
}
