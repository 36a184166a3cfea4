//! Lua and LuaJIT: the smallest real guests.

use crate::harness::{Project, Save, Scenario};
use crate::require_guest;

const MAIN: &str = r#"
io.stdout:setvbuf("line")
package.path = "./?.lua"
print("early 1")
require("lib.work")(0.25)
print("after the work")
local late = require("lib.late")
print("late " .. late)
"#;

const WORK: &str = r#"
return function(seconds)
  local clock, x = os.clock, 0
  local stop = clock() + seconds
  while clock() < stop do
    for i = 1, 10000 do x = (x * 31 + i) % 1000003 end
  end
end
"#;

fn project() -> Project {
    Project::new("lua")
        .file("main.lua", MAIN)
        .file("lib/work.lua", WORK)
        .file("lib/late.lua", "return 'one'\n")
}

const SAVES: [(&str, Save); 4] = [
    ("return 'two'\n", Save::InPlace),
    ("return 'three, which is longer'\n", Save::ByRename),
    ("return 'four'\n", Save::LikeVim),
    ("return 'five'\n", Save::DeleteAndCreate),
];

#[test]
fn lua_resumes_before_a_module_that_it_read_late() {
    let lua = require_guest!("lua5.4");
    Scenario::new(project(), &[lua.as_str(), "main.lua"], "lib/late.lua").check_saves(&SAVES);
}

#[test]
fn luajit_resumes_before_a_module_that_it_read_late() {
    let luajit = require_guest!("luajit");
    Scenario::new(project(), &[luajit.as_str(), "main.lua"], "lib/late.lua").check_saves(&SAVES);
}

#[test]
fn a_crash_and_a_syntax_error_are_not_the_end() {
    let lua = require_guest!("lua5.4");
    Scenario::new(project(), &[lua.as_str(), "main.lua"], "lib/late.lua").check_saves(&[
        ("return = 'no Lua'\n", Save::InPlace),
        ("return 'right again'\n", Save::InPlace),
        ("error('a crash')\n", Save::ByRename),
        ("os.exit(7)\n", Save::InPlace),
        ("return 'right at last'\n", Save::ByRename),
    ]);
}

#[test]
fn the_checkpoint_stands_before_the_first_touch_of_the_file() {
    let lua = require_guest!("lua5.4");
    let mut project = project();
    let mut forkmon = project.watch(&[lua.as_str(), "main.lua"]);
    forkmon.wait_exit();
    project.save("lib/late.lua", "return 'two'\n", Save::InPlace);
    let resume = forkmon.wait_resume();
    assert_eq!(resume.path, project.path("lib/late.lua"));
    let from = resume.from.expect("a checkpoint was worth it");
    let checkpoint = forkmon
        .all("checkpoint")
        .into_iter()
        .find(|event| event.number("id") == from as f64)
        .expect("every checkpoint was told")
        .clone();
    assert_eq!(
        checkpoint.text("path"),
        project.path("lib/late.lua").to_str().unwrap()
    );
    assert_eq!(checkpoint.number("processes"), 1.0);
    assert_eq!(checkpoint.number("threads"), 1.0);
    assert!(checkpoint.number("resident_bytes") > 100_000.0);
    assert!(
        resume.kept_ms > 200.0,
        "the early quarter of a second was kept: {resume:?}"
    );
    forkmon.wait_exit();
    forkmon.finish();
}

#[test]
fn an_edit_of_the_main_file_starts_again() {
    let lua = require_guest!("lua5.4");
    let mut project = project();
    let argv = [lua.as_str(), "main.lua"];
    let mut forkmon = project.watch(&argv);
    forkmon.wait_exit();
    let edited = MAIN.replace("early 1", "early 2");
    project.save("main.lua", &edited, Save::ByRename);
    let resume = forkmon.wait_resume();
    assert!(
        resume.kept_ms < 200.0,
        "the work cannot have been kept: {resume:?}"
    );
    let exit = forkmon.wait_exit();
    assert!(exit.output.contains("early 2"), "{exit:?}");
    assert!(project.fresh(&argv).stdout.ends_with(&exit.output));
    // From then on it resumes as before.
    project.save("lib/late.lua", "return 'two'\n", Save::InPlace);
    assert!(forkmon.wait_resume().from.is_some());
    assert_eq!(forkmon.wait_exit().output, "late two\n");
    forkmon.finish();
}

/// Under the default budget, whatever else the machine does meanwhile: a guest
/// that works for a second is worth a checkpoint or two.
#[test]
fn the_default_budget_is_enough_for_a_guest_that_works_for_a_second() {
    let lua = require_guest!("lua5.4");
    let main = MAIN.replace("(0.25)", "(1.0)");
    let mut project = project().file("main.lua", &main);
    let argv = [lua.as_str(), "main.lua"];
    let mut forkmon = project.launch(&argv).default_budget().start();
    forkmon.wait_exit();
    project.save("lib/late.lua", "return 'two'\n", Save::InPlace);
    let resume = forkmon.wait_resume();
    assert!(
        resume.from.is_some() && resume.kept_ms > 900.0,
        "{resume:?}"
    );
    assert_eq!(forkmon.wait_exit().output, "late two\n");
    forkmon.finish();
}
