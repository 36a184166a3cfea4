//! The promise that stands above all others: nothing that a person wrote is ever lost,
//! whenever they save. A second thread saves all the time, by every way in which people
//! and editors do, while the journal undoes what the guest did to the same files. Every
//! save has bytes of its own; afterwards each lies at its path, or the person has saved
//! there again, or it is among what was kept.
//!
//! Only the guest's own calls and saves exclude each other: what the guest itself writes
//! over within its call is as lost as without a journal.
//!
//! `FORKMON_SEED=n` repeats a run's choices (not its timing), `FORKMON_ROUNDS=n` makes
//! it longer.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};

use common::{Guest, save_by_rename};

/// A generator whose choices the seed repeats (splitmix64).
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

/// What is not superseded yet of what was saved to each file.
type Ledger = Mutex<BTreeMap<&'static str, Vec<String>>>;

/// The files that both are at. `link` is a second name of `linked`, outside of the tree.
const FILES: [&str; 8] = [
    "new", "old", "log", "moved", "renamed", "one", "other", "linked",
];

struct Person<'a> {
    folder: PathBuf,
    link: PathBuf,
    chance: Chance,
    ledger: &'a Ledger,
    /// Held by whoever acts, except by an undo.
    turn: &'a Mutex<()>,
    saves: &'a AtomicU64,
}

impl Person<'_> {
    fn save_all_the_time(&mut self, until: &AtomicBool) {
        while !until.load(Ordering::Relaxed) {
            for _ in 0..self.chance.below(20_000) {
                std::hint::spin_loop();
            }
            let turn = self.turn.lock().unwrap();
            self.save();
            drop(turn);
        }
    }

    fn save(&mut self) {
        let number = self.saves.fetch_add(1, Ordering::Relaxed);
        let padding = "x".repeat(self.chance.below(200).try_into().unwrap());
        let bytes = format!("<save {number}>{padding}\n");
        let file = FILES[usize::try_from(self.chance.below(8)).unwrap()];
        let way = self.chance.below(4);
        let path = match file {
            "linked" => self.link.clone(),
            _ => self.folder.join(file),
        };
        // Only to a log, which the guest appends to as well.
        let appends = way == 0 && file == "log";
        let mut ledger = self.ledger.lock().unwrap();
        let saved = ledger.entry(file).or_default();
        if !appends {
            // It supersedes what was saved before, from now on at the latest.
            saved.clear();
        }
        saved.push(format!("<save {number}>"));
        drop(ledger);
        match way {
            _ if appends => {
                let mut options = OpenOptions::new();
                let mut log = options.append(true).create(true).open(path).unwrap();
                log.write_all(bytes.as_bytes()).unwrap();
            }
            _ if file == "linked" => in_place(&path, &bytes),
            0 | 1 => in_place(&path, &bytes),
            2 => save_by_rename(&path, &bytes),
            _ => {
                // An undo may have been faster with either.
                let _ = fs::remove_file(&path);
                in_place(&path, &bytes);
            }
        }
    }
}

/// In two steps, so that the file is half there for a moment.
fn in_place(path: &Path, bytes: &str) {
    let mut file = File::create(path).unwrap();
    let (first, second) = bytes.split_at(bytes.len() / 2);
    file.write_all(first.as_bytes()).unwrap();
    file.write_all(second.as_bytes()).unwrap();
}

/// The guest's part of one round, after a mark.
fn act(guest: &mut Guest, chance: &mut Chance, log: &mut File, round: u64) {
    let exists = |guest: &Guest, name: &str| guest.path(name).exists();
    for _ in 0..1 + chance.below(4) {
        match chance.below(9) {
            0 | 1 => guest.write("new", &format!("guest {round}")),
            2 => guest.write("old", &format!("guest {round}")),
            3 => writeln!(log, "guest {round}").unwrap(),
            4 => guest.append("log").write_all(b"guest\n").unwrap(),
            5 if exists(guest, "linked") => guest.append("linked").write_all(b"guest\n").unwrap(),
            6 if exists(guest, "moved") => guest.rename("moved", "renamed"),
            7 if exists(guest, "old") => guest.unlink("old"),
            8 if exists(guest, "one") && exists(guest, "other") => guest.exchange("one", "other"),
            _ => {}
        }
    }
}

/// The saves that a text has in it.
fn saves_in(text: &str) -> impl Iterator<Item = String> {
    let begun = text.split("<save ").skip(1);
    begun.filter_map(|rest| Some(format!("<save {}>", rest.split_once('>')?.0)))
}

fn at(guest: &Guest, link: &Path, file: &str) -> String {
    let read = |path: &Path| fs::read_to_string(path).unwrap_or_default();
    match file {
        "linked" => read(link),
        // A save meets the file under the one name or the other, as a rename goes.
        "moved" | "renamed" => read(&guest.path("moved")) + &read(&guest.path("renamed")),
        "one" | "other" => read(&guest.path("one")) + &read(&guest.path("other")),
        _ => read(&guest.path(file)),
    }
}

#[test]
fn no_save_at_any_moment_of_a_rewind_is_lost() {
    let number = |name: &str| std::env::var(name).ok()?.parse::<u64>().ok();
    let seed = number("FORKMON_SEED").unwrap_or_else(|| {
        let now = std::time::SystemTime::now();
        let since = now.duration_since(std::time::UNIX_EPOCH).unwrap();
        u64::from(since.subsec_nanos())
    });
    let rounds = number("FORKMON_ROUNDS").unwrap_or(300);
    println!("FORKMON_SEED={seed}");
    let mut chance = Chance(seed);
    let mut guest = Guest::new();
    let link = guest.base.path().join("link");
    for name in ["old", "log", "moved", "one", "other", "linked"] {
        guest.put(name, "before\n");
    }
    fs::hard_link(guest.path("linked"), &link).unwrap();
    let (ledger, turn) = (Ledger::default(), Mutex::default());
    let (saves, over) = (AtomicU64::new(0), AtomicBool::new(false));
    let mut person = Person {
        folder: guest.path(""),
        link: link.clone(),
        chance: Chance(chance.next()),
        ledger: &ledger,
        turn: &turn,
        saves: &saves,
    };
    let mut kept: BTreeSet<String> = BTreeSet::new();
    let mut lost = None;
    std::thread::scope(|scope| {
        scope.spawn(|| person.save_all_the_time(&over));
        for round in 0..rounds {
            let guests: MutexGuard<'_, ()> = turn.lock().unwrap();
            if !guest.path("log").exists() {
                guest.write("log", "");
            }
            let mut log = guest.append("log");
            let mark = guest.journal.mark();
            guest.hold(mark, &log, "log");
            act(&mut guest, &mut chance, &mut log, round);
            let held = log.metadata().unwrap();
            // The guest is killed, and its image has let go of the file.
            drop(log);
            guest.journal.released(held.dev(), held.ino());
            drop(guests);
            // Here saves come at any moment.
            let undo = guest.journal.undo_to(mark);
            let _turn = turn.lock().unwrap();
            for item in guest.journal.kept() {
                kept.extend(saves_in(&fs::read_to_string(&item.lies).unwrap()));
            }
            let ledger = ledger.lock().unwrap();
            for (file, saved) in &*ledger {
                let there = at(&guest, &link, file);
                let is_lost = |save: &&String| !there.contains(*save) && !kept.contains(*save);
                if let Some(save) = saved.iter().find(is_lost) {
                    lost = Some(format!("{save} of {file} in round {round}: {undo:#?}"));
                }
            }
            if lost.is_some() {
                break;
            }
        }
        over.store(true, Ordering::Relaxed);
    });
    assert_eq!(lost, None, "FORKMON_SEED={seed}");
    let saves = saves.into_inner();
    println!("{saves} saves in {rounds} rewinds, {} kept", kept.len());
    assert!(saves > rounds, "they have to be many: {saves}");
}
