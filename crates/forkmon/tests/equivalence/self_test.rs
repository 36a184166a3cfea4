//! The oracle itself: that it sees every difference there can be, makes steps
//! fewer, and does the same from the same seed.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::time::Duration;

use super::catalog::find;
use super::edit::{Edit, Save};
use super::generator::{Step, steps};
use super::live::{Since, difference};
use super::manner::Manner;
use super::project::{Definition, Project};
use super::shrink::shrink;
use super::tally::Tally;
use super::tree::{Rename, Tree};
use super::trial::{Difference, play};

/// The project `dash`, with a forkmon that does not see what it should.
const BLIND: Definition = Definition {
    options: &["--ignore=second.sh"],
    ..*find("dash")
};

fn save(name: &str, text: &str) -> Step {
    let edit = Edit::Save {
        name: name.into(),
        bytes: text.into(),
        how: Save::ByRename,
    };
    Step {
        edits: vec![(Duration::ZERO, edit)],
    }
}

#[test]
fn a_forkmon_that_is_wrong_is_found_out() {
    let Some(project) = Project::prepare(&BLIND) else {
        return;
    };
    let manner = Manner::of(&project, 1);
    let steps = [
        save("data/list.txt", "alpha @7@\n"),
        save("parts/second.sh", "second=overlooked\n"),
        save("last.txt", "last @2@\n"),
    ];
    let mut tally = Tally::default();
    let found = play(&project, &manner, &steps, &mut tally, None).expect_err("it is wrong");
    assert_eq!(found.after, Some(1), "{found:?}");
    let told = found.what.concat();
    assert!(told.contains("overlooked"), "{told}");
    let (fewer, _) = shrink(&steps, found, Duration::from_secs(60), |fewer| {
        play(&project, &manner, fewer, &mut Tally::default(), None).err()
    });
    assert_eq!(fewer, steps[1..2]);
}

#[test]
fn steps_that_have_no_part_in_it_are_left_out() {
    let all: Vec<Step> = (0..40).map(|n| save("f", &n.to_string())).collect();
    let needed = [all[3].clone(), all[17].clone()];
    let fails = |steps: &[Step]| {
        let mut left = needed.iter();
        let mut next = left.next();
        for (number, step) in steps.iter().enumerate() {
            if Some(step) == next {
                next = left.next();
            }
            if next.is_none() {
                return Some(Difference {
                    after: Some(number),
                    what: Vec::new(),
                });
            }
        }
        None
    };
    let found = fails(&all).expect("both are there");
    let (fewer, found) = shrink(&all, found, Duration::from_secs(60), fails);
    assert_eq!(fewer, needed);
    assert_eq!(found.after, Some(1));
}

#[test]
fn a_seed_always_gives_the_same_steps_and_many_give_all_kinds() {
    let Some(project) = Project::prepare(find("lua")) else {
        return;
    };
    assert_eq!(steps(&project, 7, 50), steps(&project, 7, 50));
    assert_eq!(steps(&project, 7, 50)[..20], steps(&project, 7, 20));
    assert_ne!(steps(&project, 7, 50), steps(&project, 8, 50));
    let all = steps(&project, 7, 500);
    let edits: Vec<&Edit> = all
        .iter()
        .flat_map(|step| step.edits.iter().map(|(_, edit)| edit))
        .collect();
    let has = |what: &str, is: &dyn Fn(&Edit) -> bool| {
        assert!(edits.iter().any(|edit| is(edit)), "no {what}");
    };
    for how in [
        Save::InPlace,
        Save::Over,
        Save::ByRename,
        Save::LikeVim,
        Save::DeleteAndCreate,
    ] {
        has(
            "save",
            &|edit| matches!(edit, Edit::Save { how: this, .. } if *this == how),
        );
    }
    has("append", &|edit| matches!(edit, Edit::Append { .. }));
    has("remove", &|edit| matches!(edit, Edit::Remove(_)));
    has("rename", &|edit| matches!(edit, Edit::Rename { .. }));
    has("chmod", &|edit| matches!(edit, Edit::Mode { .. }));
    has("touch", &|edit| matches!(edit, Edit::Touch(_)));
    has("new file", &|edit| edit.name() == Path::new("override.txt"));
    has("edit of what the guest writes", &|edit| {
        edit.name() == Path::new("state.txt")
    });
    let pauses = all
        .iter()
        .any(|step| step.edits.iter().any(|(pause, _)| !pause.is_zero()));
    assert!(pauses, "no edit falls into a run");
}

/// A folder with one of everything.
fn sample() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("the temporary folder can be written");
    let path = |name: &str| folder.path().join(name);
    fs::create_dir(path("deep")).expect("a folder can be made");
    fs::write(path("deep/file"), "text").expect("a file can be made");
    fs::write(path("other"), "text").expect("a file can be made");
    symlink("deep/file", path("link")).expect("a link can be made");
    fs::hard_link(path("other"), path("same")).expect("a file can be linked");
    folder
}

#[test]
fn every_difference_of_two_trees_is_seen() {
    type Change = fn(&Path) -> std::io::Result<()>;
    let changes: [(&str, Change); 10] = [
        ("deep/file: differs at byte 1", |root| {
            fs::write(root.join("deep/file"), "tExt")
        }),
        ("deep/file: should have mode", |root| {
            fs::set_permissions(root.join("deep/file"), fs::Permissions::from_mode(0o4711))
        }),
        ("deep/file: should have attributes", |root| {
            let flags = rustix::fs::XattrFlags::CREATE;
            rustix::fs::setxattr(root.join("deep/file"), "user.mark", b"1", flags)?;
            Ok(())
        }),
        ("deep/file: is missing", |root| {
            fs::remove_file(root.join("deep/file"))
        }),
        ("new: should not be there", |root| {
            fs::write(root.join("new"), "")
        }),
        ("deep: should be a folder", |root| {
            fs::set_permissions(root.join("deep"), fs::Permissions::from_mode(0o700))
        }),
        ("link: should be a link", |root| {
            fs::remove_file(root.join("link"))?;
            symlink("other", root.join("link"))
        }),
        ("link: should be a link", |root| {
            fs::remove_file(root.join("link"))?;
            fs::write(root.join("link"), "text")
        }),
        ("should be names of one file", |root| {
            fs::remove_file(root.join("same"))?;
            fs::write(root.join("same"), "text")
        }),
        ("should not be names of one file", |root| {
            fs::remove_file(root.join("deep/file"))?;
            fs::hard_link(root.join("other"), root.join("deep/file"))
        }),
    ];
    let first = sample();
    let expected = Tree::of(first.path(), None).expect("it can be looked at");
    for (told, change) in changes {
        let other = sample();
        let same = Tree::of(other.path(), None).expect("it can be looked at");
        assert_eq!(same.differences(&expected), [] as [&str; 0]);
        change(other.path()).expect("it can be changed");
        let tree = Tree::of(other.path(), None).expect("it can be looked at");
        let differences = tree.differences(&expected).join("\n");
        assert!(differences.contains(told), "{told}: {differences}");
    }
}

#[test]
fn a_path_of_its_own_is_read_as_the_others() {
    let rename = Rename {
        from: Path::new("/tmp/plainly"),
        to: Path::new("/tmp/watched"),
    };
    let text = b"/tmp/plainly/x /tmp/plain /tmp/plainly";
    assert_eq!(
        rename.apply(text),
        b"/tmp/watched/x /tmp/plain /tmp/watched"
    );
}

#[test]
fn only_new_output_that_is_wrong_is_found_out() {
    let wrong = |since, before: &str, whole: &str, new: &str| {
        let (before, whole, new) = (before.as_bytes(), whole.as_bytes(), new.as_bytes());
        difference(since, before, whole, new).is_some()
    };
    assert!(!wrong(Since::Start, "", "a b c", "a b c"));
    assert!(wrong(Since::Start, "", "a b c", "b c"));
    assert!(!wrong(Since::Nothing, "a b c", "a b c", ""));
    assert!(wrong(Since::Nothing, "a b c", "a b c", "c"));
    assert!(!wrong(Since::OneEdit, "a b c", "a X c", "X c"));
    assert!(!wrong(Since::OneEdit, "a b c", "a X c", "a X c"));
    assert!(wrong(Since::OneEdit, "a b c", "a X c", " c"));
    assert!(wrong(Since::OneEdit, "a b c", "a X c", "X b"));
}
