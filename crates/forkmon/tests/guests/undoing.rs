//! Every call that changes files: what it did after a checkpoint is undone, down to
//! modes, attributes, links and times.
//!
//! The fixture makes one change if the late file says `do`, and tells mode, size and time
//! of the old file at its end.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use crate::harness::{Project, Save, Scenario, build_c};
use crate::require_guest;

/// Some old files, folders and links, with attributes.
fn project() -> Project {
    let project = Project::new("undoing")
        .file("late.txt", "do 1\n")
        .file("old.txt", "last week's text\n")
        .file("old/in.txt", "last week's, too\n")
        .folder("empty")
        .link("link", "old.txt");
    project.prepared(|root| {
        let path = |name| root.join(name);
        fs::hard_link(path("old.txt"), path("twin.txt")).expect("a link can be made");
        let mode = rustix::fs::Mode::from_raw_mode(0o600);
        rustix::fs::mkfifoat(rustix::fs::CWD, path("fifo"), mode).expect("a FIFO can be made");
        fs::set_permissions(path("empty"), fs::Permissions::from_mode(0o750))
            .expect("a mode can be set");
        for name in ["old.txt", "old", "empty"] {
            let flags = rustix::fs::XattrFlags::empty();
            rustix::fs::setxattr(path(name), "user.old", name.as_bytes(), flags)
                .expect("an attribute can be set");
        }
        for name in ["old.txt", "empty", "old"] {
            fs::File::open(path(name))
                .and_then(|file| file.set_modified(UNIX_EPOCH + Duration::from_secs(1_600_000_000)))
                .expect("a time can be set");
        }
    })
}

/// Checks one change, in both directions, saved in every way.
fn check(what: &str) {
    require_guest!("cc");
    let project = project();
    let program = build_c("effects.c", &project.beside(), &[]);
    Scenario::new(project, &[&program, what, "late.txt"], "late.txt").check_saves(&[
        ("leave it\n", Save::InPlace),
        ("do 2\n", Save::ByRename),
        ("do 3\n", Save::InPlace),
        ("leave it again\n", Save::LikeVim),
    ]);
}

macro_rules! changes {
    ($($test:ident: $($what:literal)+;)*) => {$(
        #[test]
        fn $test() {
            for what in [$($what),+] {
                check(what);
            }
        }
    )*};
}

changes! {
    modes: "chmod" "chmod-folder" "fchmod" "fchmodat" "fd-fchmod";
    times: "utime" "utimes" "utimensat" "futimens" "mtime-only";
    attributes: "setxattr" "setxattr-folder" "fsetxattr" "removexattr";
    removed_folders: "rmdir" "unlinkat" "remade";
    renamed_folders: "rename-folder" "rename-over" "rename-cross" "dirfd";
    exchanged_names: "exchange-folders" "exchange" "noreplace";
    files_that_get_a_name_late: "unnamed" "unnamed-before";
    nodes: "mkfifo" "mknod" "unlink-fifo" "bind";
    links: "link" "unlink-link" "through-link" "symlink";
    bytes_by_path: "excl" "append" "truncate" "ftruncate" "pwritev" "header";
    bytes_by_an_older_descriptor: "fd-ftruncate" "fd-write" "fd-extend" "fd-punch";
    holes: "punch" "fallocate";
    copies_in_the_kernel: "copy" "sendfile" "splice";
    bytes_through_memory: "map" "map-before";
}

#[test]
fn owners() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: only root can give files away");
        return;
    }
    for what in ["chown", "fchown", "lchown"] {
        check(what);
    }
}

/// A link to an open file itself is for root, or for its opener in newer kernels.
#[test]
fn a_name_for_an_open_file() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: only root may, before Linux 6.10");
        return;
    }
    check("unnamed-empty");
}

/// What the guest does to its own input's mode and time is no edit: it would be undone
/// and done again for ever.
#[test]
fn a_guest_that_touches_its_own_input_is_not_started_again() {
    let perl = require_guest!("perl");
    let mut project = Project::new("own-attributes")
        .file("late.txt", "one\n")
        .file("input.txt", "words\n");
    let guest = project.perl(
        "print 'mode ', (stat 'input.txt')[2] & 07777, \"\\n\"; work(0.1); \
         print slurp('input.txt'), \"\\n\"; chmod(0640, 'input.txt') or die; \
         utime(5, 6, 'input.txt') or die; print 'time ', (stat 'input.txt')[9], \"\\n\"; \
         work(0.1); print 'late ', slurp('late.txt'), \"\\n\";",
    );
    let argv = [perl.as_str(), &guest];
    let mut forkmon = project.watch(&argv);
    forkmon.wait_exit();
    for text in ["two\n", "three\n"] {
        project.save("late.txt", text, Save::InPlace);
        let resume = forkmon.wait_resume();
        assert!(resume.from.is_some(), "{resume:?}");
        assert!(resume.path.ends_with("late.txt"), "{resume:?}");
        let exit = forkmon.wait_exit();
        let fresh = project.fresh(&argv);
        assert!(fresh.stdout.ends_with(&exit.output), "{exit:?}");
        assert_eq!(project.tree(), fresh.tree);
    }
    // Its bytes are still an edit, from before it was looked at.
    project.save("input.txt", "other words\n", Save::InPlace);
    let resume = forkmon.wait_resume();
    assert!(resume.path.ends_with("input.txt"), "{resume:?}");
    assert_eq!(
        forkmon.wait_exit().output,
        project.fresh(&argv).stdout.replace("early 1\n", "")
    );
    assert_eq!(
        fs::metadata(project.path("input.txt"))
            .unwrap()
            .permissions()
            .mode()
            & 0o777,
        0o640
    );
    assert_eq!(forkmon.all("change").len(), 3);
    forkmon.finish();
}

/// A guest that stands in the folder that it removes would see where it lies: the
/// checkpoints before are not used, and it is said.
#[test]
fn a_folder_that_the_guest_works_in_is_removed_for_good() {
    let perl = require_guest!("perl");
    let mut project = Project::new("in-use")
        .file("late.txt", "one\n")
        .folder("folder");
    let guest = project.perl(
        "print 'late ', slurp('late.txt'), \"\\n\"; mkdir('folder'); chdir('folder') or die; \
         rmdir('../folder') or die; open(my $file, '>', 'x') and die; print \"$!\\n\";",
    );
    let argv = [perl.as_str(), &guest];
    let mut forkmon = project.watch(&argv);
    forkmon.wait_exit();
    project.save("late.txt", "two\n", Save::InPlace);
    let resume = forkmon.wait_resume();
    assert_eq!((resume.from, resume.reason.as_str()), (None, "effects"));
    assert_eq!(forkmon.wait_exit().output, project.fresh(&argv).stdout);
    assert_eq!(forkmon.warnings()[0], "effect");
    forkmon.finish();
}

fn is_there(root: &Path, name: &str) -> bool {
    fs::symlink_metadata(root.join(name)).is_ok()
}

#[test]
fn with_keep_everything_stays() {
    let perl = require_guest!("perl");
    let mut project = Project::new("keep")
        .file("late.txt", "do 1\n")
        .file("old.txt", "last week's\n");
    let guest = project.perl(
        "my $late = slurp('late.txt'); print \"late $late\\n\"; \
         if ($late =~ /^do/) { spew('old.txt', $late); spew('new.txt', $late); \
           open(my $log, '>>', 'log.txt') or die; print $log \"$late\\n\"; chmod(0600, 'old.txt'); }",
    );
    let mut forkmon = project
        .launch(&[perl.as_str(), &guest])
        .option("--effects=keep")
        .start();
    forkmon.wait_exit();
    for (text, log) in [("do 2\n", "do 1\ndo 2\n"), ("leave it\n", "do 1\ndo 2\n")] {
        project.save("late.txt", text, Save::InPlace);
        assert!(forkmon.wait_resume().from.is_some());
        forkmon.wait_exit();
        let read = |name: &str| fs::read_to_string(project.path(name)).unwrap();
        assert_eq!(read("log.txt"), log);
        assert_eq!(
            (read("old.txt").as_str(), read("new.txt").as_str()),
            ("do 2", "do 2")
        );
    }
    assert!(forkmon.warnings().is_empty(), "{:?}", forkmon.warnings());
    forkmon.finish();
    assert!(is_there(&project.root(), "new.txt"));
}

/// A file that does not fit: the checkpoints before it are not used, once it is said,
/// and the guest is not disturbed.
#[test]
fn what_does_not_fit_into_the_journal_is_said_once() {
    let perl = require_guest!("perl");
    let mut project = Project::new("journal-limit")
        .file("late.txt", "one\n")
        .file("old.txt", &"x".repeat(3000));
    let guest = project.perl(
        "print 'late ', slurp('late.txt'), \"\\n\"; open(my $old, '+<', 'old.txt') or die; \
         print $old 'yy'; close($old); print slurp('old.txt'), \"\\n\";",
    );
    let argv = [perl.as_str(), &guest];
    for (limit, resumes) in [("2KiB", false), ("4KiB", true)] {
        fs::write(project.path("old.txt"), "x".repeat(3000)).unwrap();
        let mut forkmon = project
            .launch(&argv)
            .option("--journal-limit")
            .option(limit)
            .start();
        forkmon.wait_exit();
        project.save("late.txt", &format!("for {limit}\n"), Save::InPlace);
        assert_eq!(forkmon.wait_resume().from.is_some(), resumes);
        assert!(
            project
                .fresh(&argv)
                .stdout
                .ends_with(&forkmon.wait_exit().output)
        );
        let said = forkmon.warnings();
        assert_eq!(
            said.first().map(String::as_str),
            (!resumes).then_some("effect")
        );
        forkmon.finish();
    }
}

/// What builds and scripts do to files, before and after the late file is read.
const PYTHON: &str = r#"
import os, shutil, struct, tempfile, time
print("early 1", flush=True)
def work(seconds):
    stop = time.process_time() + seconds
    while time.process_time() < stop:
        pass
os.mkdir('build')
with open('build/a.o', 'w') as made:
    made.write('object')
lock = os.open('run.lock', os.O_CREAT | os.O_EXCL | os.O_WRONLY)
log = open('log.txt', 'a')
log.write('started\n'); log.flush()
archive = open('archive.bin', 'w+b')
archive.write(b'HEAD????'); archive.flush()
work(0.3)
late = open('late.txt').read().strip()
print('late', late)
log.write(f'read {late}\n'); log.flush()
# A temporary folder, gone at once.
folder = tempfile.mkdtemp(dir='.')
with open(os.path.join(folder, 'scratch'), 'w') as scratch:
    scratch.write(late)
shutil.rmtree(folder)
# The header is patched when the rest is known.
archive.write(late.encode()); archive.seek(4)
archive.write(struct.pack('<I', len(late))); archive.close()
# A save as editors do it.
with open('config.new', 'w') as new:
    new.write(f'setting = {late}\n'); new.flush(); os.fsync(new.fileno())
os.replace('config.new', 'config.txt')
# Its own input, rewritten in place.
with open('counter.txt', 'r+') as counter:
    n = int(counter.read()); counter.seek(0); counter.write(str(n + len(late))); counter.truncate()
os.chmod('tool', 0o700 if len(late) % 2 else 0o555)
os.utime('stamp', (5, 6))
os.setxattr('tool', 'user.checked', late.encode())
if len(late) % 2:
    shutil.rmtree('cache')
    os.rmdir('empty')
    os.rename('sources', 'moved')
else:
    os.symlink('sources', 'current')
    os.link('counter.txt', 'build/counter')
    open('cache/more', 'w').write(late)
os.close(lock); os.remove('run.lock')
print('counter', open('counter.txt').read(), 'stamp', os.stat('stamp').st_mtime)
print(sorted(os.listdir('.')))
"#;

const SHELL: &str = r#"
echo "early 1"
mkdir -p build/deep
echo object > build/a.o
echo started >> log.txt
i=0; while [ $i -lt 150000 ]; do i=$((i + 1)); done
read -r late < late.txt
echo "late $late"
echo "read $late" >> log.txt
scratch=$(mktemp ./scratch.XXXXXX)
sort late.txt > "$scratch"
mv "$scratch" config.txt
expr "$(cat counter.txt)" + ${#late} > counter.new
cat counter.new > counter.txt
rm counter.new
chmod 700 tool
touch -d @6 stamp
case $late in
*o*) rm -r cache; rmdir empty; mv sources moved; ln -s moved current ;;
*) ln counter.txt build/counter; cp -p tool build/; echo more > cache/more; mkfifo pipe ;;
esac
sed -i "s/last/$late, last/" notes.txt
tail -n 1 log.txt
ls
"#;

fn builder(name: &str) -> Project {
    let project = Project::new(name)
        .file("late.txt", "one\n")
        .file("log.txt", "last week\n")
        .file("config.txt", "setting = none\n")
        .file("counter.txt", "100")
        .file("notes.txt", "last week's\n")
        .file("stamp", "")
        .file("sources/main.c", "int main;\n")
        .file("cache/a/b/c", "cached\n")
        .file("cache/d", "cached\n")
        .folder("empty")
        .program("tool", "#!/bin/true\n");
    project.prepared(|root| {
        let flags = rustix::fs::XattrFlags::empty();
        rustix::fs::setxattr(root.join("tool"), "user.made", b"here", flags)
            .expect("an attribute can be set");
    })
}

const SAVES: [(&str, Save); 5] = [
    ("four\n", Save::InPlace),
    ("seven\n", Save::ByRename),
    ("two\n", Save::LikeVim),
    ("five\n", Save::DeleteAndCreate),
    ("one\n", Save::InPlace),
];

#[test]
fn a_build_in_python() {
    let python = require_guest!("python3");
    let project = builder("build-python");
    let script = project.beside().join("build.py");
    fs::write(&script, PYTHON).unwrap();
    let script = script.to_str().unwrap().to_owned();
    Scenario::new(project, &[python.as_str(), &script], "late.txt").check_saves(&SAVES);
}

#[test]
fn a_script_of_the_shell() {
    for shell in ["dash", "bash"] {
        let shell = require_guest!(shell);
        let project = builder("build-shell");
        let script = project.beside().join("build.sh");
        fs::write(&script, SHELL).unwrap();
        let script = script.to_str().unwrap().to_owned();
        Scenario::new(project, &[shell.as_str(), &script], "late.txt").check_saves(&SAVES);
    }
}
