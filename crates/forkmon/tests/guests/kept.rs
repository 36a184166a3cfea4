//! Nothing that a person wrote is ever lost: what a rewind takes away can be had back by
//! `forkmon ctl journal`, and what may be somebody's outlives forkmon, however it ends.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;

use crate::harness::{Forkmon, Project, Save};
use crate::require_guest;
use crate::state::ctl_done;

/// What `ctl journal` lists.
fn journal(socket: &Path) -> Vec<Value> {
    let reply: Value = serde_json::from_str(&ctl_done(socket, &["journal", "--json"])).unwrap();
    assert_eq!(reply["reply"], "journal");
    reply["items"].as_array().unwrap().clone()
}

fn lies(item: &Value) -> PathBuf {
    item["lies"].as_str().unwrap().into()
}

/// The folders with what has outlived a forkmon of this project.
fn keeps(project: &Project) -> Vec<PathBuf> {
    let own = project.home().join(".local/state/forkmon");
    let Ok(folders) = fs::read_dir(own) else {
        return Vec::new();
    };
    folders.map(|folder| folder.unwrap().path()).collect()
}

/// All bytes in them but for the lists.
fn kept_bytes(project: &Project) -> Vec<String> {
    let mut kept = Vec::new();
    for keep in keeps(project) {
        assert_eq!(
            fs::metadata(&keep).unwrap().permissions().mode() & 0o7777,
            0o700
        );
        for file in fs::read_dir(keep).unwrap() {
            let path = file.unwrap().path();
            if !path.ends_with("list.txt") {
                kept.push(fs::read_to_string(path).unwrap());
            }
        }
    }
    kept.sort();
    kept
}

/// A guest that makes one file and writes another one, if the late file says so.
fn writing(name: &str) -> (Project, String, PathBuf) {
    let project = Project::new(name)
        .file("late.txt", "do 1\n")
        .file("old.txt", "last week's\n");
    let guest = project.perl(
        "my $late = slurp('late.txt'); print \"late $late\\n\"; \
         if ($late =~ /^do/) { spew('new.txt', $late); spew('old.txt', $late) }",
    );
    let socket = project.beside().join("socket");
    (project, guest, socket)
}

fn start(project: &Project, guest: &str, perl: &str, socket: &Path) -> Forkmon {
    let mut forkmon = project
        .launch(&[perl, guest])
        .option("--control")
        .option(socket)
        .start();
    forkmon.wait_exit();
    forkmon
}

#[test]
fn what_a_rewind_took_away_can_be_had_back() {
    let perl = require_guest!("perl");
    let (mut project, guest, socket) = writing("had-back");
    let mut forkmon = start(&project, &guest, perl.as_str(), &socket);
    assert!(journal(&socket).is_empty());
    project.save("late.txt", "leave it\n", Save::InPlace);
    forkmon.wait_exit();
    let items = journal(&socket);
    let mut found: Vec<(&str, String)> = items
        .iter()
        .map(|item| {
            assert_eq!(item["stays"], false);
            let name = item["path"].as_str().unwrap().rsplit('/').next().unwrap();
            (name, fs::read_to_string(lies(item)).unwrap())
        })
        .collect();
    found.sort();
    assert_eq!(
        found,
        [
            ("new.txt", "do 1".to_owned()),
            ("old.txt", "do 1".to_owned())
        ]
    );
    let told = ctl_done(&socket, &["journal"]);
    assert_eq!(told.lines().count(), 4, "{told}");
    assert!(told.contains(lies(&items[0]).to_str().unwrap()), "{told}");
    forkmon.finish();
    assert!(items.iter().all(|item| !lies(item).exists()));
    assert!(keeps(&project).is_empty(), "nothing of it is anybody's");
}

/// A person saves the guest's output, and the guest writes over that.
#[test]
fn what_a_person_wrote_and_the_guest_wrote_over_outlives_forkmon() {
    let perl = require_guest!("perl");
    for killed in [false, true] {
        let (mut project, guest, socket) = writing("outlives");
        let mut forkmon = start(&project, &guest, perl.as_str(), &socket);
        project.save("new.txt", "a person wrote this\n", Save::InPlace);
        project.save("old.txt", "and this\n", Save::ByRename);
        project.save("late.txt", "do 2\n", Save::InPlace);
        forkmon.wait_output("late do 2\n");
        forkmon.wait_exit();
        let read = |name: &str| fs::read_to_string(project.path(name)).unwrap();
        assert_eq!(
            (read("new.txt").as_str(), read("old.txt").as_str()),
            ("do 2", "do 2")
        );
        let listed = journal(&socket);
        let listed: Vec<_> = listed.iter().filter(|item| item["stays"] == true).collect();
        assert!(!listed.is_empty());
        if killed {
            forkmon.signal(Signal::KILL);
            assert_eq!(forkmon.wait_end(), 137);
            forkmon.check_nothing_left();
        } else {
            forkmon.press_ctrl_c();
            forkmon.wait_end();
            let messages = forkmon.messages();
            let keep = keeps(&project);
            let keep = keep[0].file_name().unwrap().to_str().unwrap();
            assert!(messages.contains(keep), "{messages}");
        }
        drop(forkmon);
        let kept = kept_bytes(&project);
        for bytes in ["a person wrote this\n", "and this\n"] {
            assert!(kept.iter().any(|kept| kept == bytes), "{bytes}: {kept:?}");
        }
    }
}

/// Saves without end, by every way, each with bytes of its own.
struct Person<'a> {
    folder: PathBuf,
    link: PathBuf,
    chance: u64,
    /// By file, what is not superseded.
    ledger: &'a Mutex<BTreeMap<&'static str, Vec<String>>>,
    saves: &'a AtomicU64,
}

/// How often a person saves around each rewind.
const SAVES_A_ROUND: u32 = 40;

const FILES: [&str; 5] = ["new.txt", "old.txt", "log.txt", "moved.txt", "linked.txt"];

impl Person<'_> {
    fn below(&mut self, bound: u64) -> u64 {
        self.chance = self.chance.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.chance;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }

    fn save(&mut self) {
        let number = self.saves.fetch_add(1, Ordering::Relaxed);
        let token = format!("<save {number}>");
        let bytes = format!(
            "{token}{}\n",
            "x".repeat(usize::try_from(number % 90).unwrap())
        );
        let file = FILES[usize::try_from(self.below(5)).unwrap()];
        let way = self.below(4);
        let path = match file {
            "linked.txt" => self.link.clone(),
            _ => self.folder.join(file),
        };
        // Only to a log, which the guest appends to as well.
        let appends = way == 0 && file == "log.txt";
        let mut ledger = self.ledger.lock().unwrap();
        let saved = ledger.entry(file).or_default();
        if !appends {
            saved.clear();
        }
        saved.push(token);
        drop(ledger);
        match way {
            _ if appends => {
                let mut options = OpenOptions::new();
                let mut log = options.append(true).create(true).open(path).unwrap();
                log.write_all(bytes.as_bytes()).unwrap();
            }
            1 if file != "linked.txt" => {
                let temporary = path.with_extension("saving");
                fs::write(&temporary, bytes).unwrap();
                fs::rename(temporary, path).unwrap();
            }
            2 if file != "linked.txt" => {
                // A rewind may have been faster.
                let _ = fs::remove_file(&path);
                fs::write(path, bytes).unwrap();
            }
            _ => fs::write(path, bytes).unwrap(),
        }
    }
}

/// Saves at random moments of rewinds, while the guest waits at a gate: each of them is
/// where it was put, superseded by a later one, or listed by `ctl journal`.
#[test]
fn no_save_during_rewinds_is_lost() {
    let perl = require_guest!("perl");
    let number = |name: &str| std::env::var(name).ok()?.parse::<u64>().ok();
    let seed = number("FORKMON_SEED").unwrap_or_else(|| u64::from(std::process::id()));
    let rounds = number("FORKMON_ROUNDS").unwrap_or(12);
    println!("FORKMON_SEED={seed}");
    let mut project = Project::new("saves")
        .file("late.txt", "0\n")
        .file("old.txt", "last week's\n")
        .file("log.txt", "last week's\n")
        .file("moved.txt", "last week's\n")
        .file("linked.txt", "last week's\n");
    let socket = project.beside().join("socket");
    let gate = project.beside().join("gate");
    let link = project.beside().join("link");
    fs::hard_link(project.path("linked.txt"), &link).unwrap();
    let guest = project.perl(&format!(
        "open(my $log, '>>', 'log.txt') or die; select((select($log), $| = 1)[0]); work(0.1); \
         my $late = slurp('late.txt'); print \"late $late\\n\"; \
         select(undef, undef, undef, 0.001) until -e '{}'; \
         print $log \"guest $late\\n\"; spew('new.txt', $late); \
         open(my $old, '>>', 'old.txt') or die; print $old $late; close($old); \
         open(my $linked, '>>', 'linked.txt') or die; print $linked $late; close($linked); \
         rename('moved.txt', 'renamed.txt') if -e 'moved.txt';",
        gate.display()
    ));
    fs::write(&gate, "").unwrap();
    let mut forkmon = start(&project, &guest, perl.as_str(), &socket);
    let (ledger, saves) = (Mutex::default(), AtomicU64::new(0));
    let mut person = Person {
        folder: project.root(),
        link: link.clone(),
        chance: seed,
        ledger: &ledger,
        saves: &saves,
    };
    let mut resumes = 0;
    let mut round = 0;
    // With bad luck none of the saves is late enough for a rewind to be whole.
    while round < rounds || resumes == 0 && round < 5 * rounds {
        round += 1;
        fs::remove_file(&gate).unwrap();
        let before = forkmon.all("resume").len();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let first = Instant::now() + Duration::from_micros(person.below(20_000));
                while Instant::now() < first {
                    std::hint::spin_loop();
                }
                for _ in 0..SAVES_A_ROUND {
                    for _ in 0..person.below(100_000) {
                        std::hint::spin_loop();
                    }
                    person.save();
                }
            });
            // A rewind in the midst of them; others follow.
            project.save("late.txt", &format!("{round}\n"), Save::InPlace);
        });
        forkmon.wait_output(&format!("late {round}\n"));
        // Now the guest may write, and nobody else does.
        fs::write(&gate, "").unwrap();
        forkmon.settle(&socket);
        let new = &forkmon.all("resume")[before..];
        resumes += new
            .iter()
            .filter(|event| !event.value["from"].is_null())
            .count();
        let listed: Vec<String> = journal(&socket)
            .iter()
            .filter(|item| item["stays"] == true)
            .map(|item| fs::read_to_string(lies(item)).unwrap())
            .collect();
        let read = |path: &Path| fs::read_to_string(path).unwrap_or_default();
        for (file, saved) in &*ledger.lock().unwrap() {
            let there = match *file {
                "linked.txt" => read(&link),
                "moved.txt" => read(&project.path(file)) + &read(&project.path("renamed.txt")),
                _ => read(&project.path(file)),
            };
            for save in saved {
                let found = there.contains(save) || listed.iter().any(|kept| kept.contains(save));
                if !found {
                    forkmon.fail(&format!(
                        "{save} of {file} is lost in round {round} (FORKMON_SEED={seed}): {there:?}"
                    ));
                }
            }
        }
    }
    let saves = saves.into_inner();
    println!("{saves} saves in {round} rewinds, {resumes} of them resumes");
    assert!(
        saves > rounds && resumes > 0,
        "{saves} saves, {resumes} resumes"
    );
    forkmon.press_ctrl_c();
    forkmon.wait_end();
    drop(forkmon);
    let kept: BTreeSet<String> = kept_bytes(&project).into_iter().collect();
    let read = |path: &Path| fs::read_to_string(path).unwrap_or_default();
    for (file, saved) in ledger.into_inner().unwrap() {
        let there = read(&project.path(file)) + &read(&link) + &read(&project.path("renamed.txt"));
        for save in saved {
            let found = there.contains(&save) || kept.iter().any(|kept| kept.contains(&save));
            assert!(
                found,
                "{save} of {file} has not outlived forkmon (FORKMON_SEED={seed})"
            );
        }
    }
}

/// Where the journal can only lie in a folder that the guest lists, it does not see it.
#[test]
fn the_guest_does_not_see_the_journals_folders() {
    let perl = require_guest!("perl");
    let Ok(other) = tempfile::tempdir_in("/dev/shm") else {
        eprintln!("SKIPPED: /dev/shm is not writable");
        return;
    };
    let old = other.path().join("old");
    fs::write(&old, "last week's\n").unwrap();
    let mut project = Project::new("unseen").file("late.txt", "one\n");
    let guest = project.perl(&format!(
        "my $late = slurp('late.txt'); print \"late $late\\n\"; spew('{0}', $late); \
         unlink('{0}.new'); spew('{0}.new', $late); \
         opendir(my $folder, '/dev/shm') or die; \
         my @seen = grep {{ index($_, \".forkmon-@{{[getppid]}}-\") == 0 }} readdir($folder); \
         print scalar(@seen), \" seen\\n\";",
        old.display()
    ));
    let mut forkmon = project.watch(&[perl.as_str(), &guest]);
    assert!(forkmon.wait_exit().output.ends_with("0 seen\n"));
    let prefix = format!(".forkmon-{}-", forkmon.pid());
    let is_there = || {
        let mut names = fs::read_dir("/dev/shm")
            .unwrap()
            .map(|entry| entry.unwrap().file_name());
        names.any(|name| name.to_string_lossy().starts_with(&prefix))
    };
    assert!(is_there(), "it lies there all the same");
    project.save("late.txt", "two\n", Save::InPlace);
    assert!(forkmon.wait_resume().from.is_some());
    assert!(forkmon.wait_exit().output.ends_with("0 seen\n"));
    forkmon.finish();
    assert!(!is_there());
}

/// A log that both append to by descriptors that stay open is left as it is; one that
/// somebody only reads is not.
#[test]
fn what_is_appended_to_an_open_log_stays() {
    let perl = require_guest!("perl");
    for reads in [false, true] {
        let mut project = Project::new("open-log").file("late.txt", "one\n");
        let guest = project.perl(
            "use IO::Handle; open(my $log, '>>', 'log') or die; $log->autoflush; \
             print $log \"start\\n\"; work(0.1); my $late = slurp('late.txt'); \
             print $log \"$late\\n\"; print \"late $late\\n\"; sleep 1 while 1;",
        );
        let mut forkmon = project.watch(&[perl.as_str(), &guest]);
        forkmon.wait_output("late one\n");
        let how = OpenOptions::new().read(reads).append(!reads).clone();
        let mut log = how.open(project.path("log")).unwrap();
        if !reads {
            writeln!(log, "a person wrote this").unwrap();
        }
        project.save("late.txt", "two\n", Save::InPlace);
        let resume = forkmon.wait_resume();
        assert_eq!(resume.from.is_some(), reads, "{resume:?}");
        forkmon.wait_output("late two\n");
        let there = fs::read_to_string(project.path("log")).unwrap();
        forkmon.finish();
        if reads {
            assert_eq!(there, "start\ntwo\n");
        } else {
            assert_eq!(there, "start\none\na person wrote this\nstart\ntwo\n");
        }
        assert!(keeps(&project).is_empty());
    }
}
