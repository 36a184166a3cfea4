//! Random effects, random marks, random undos: the tree is always exactly that of
//! the mark, and whatever an image holds open is the same inode.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod common;

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use common::{Guest, Tree};
use journal::Mark;
use proptest::prelude::*;

#[derive(Clone, Debug)]
enum Step {
    Write(usize),
    Append(usize),
    Truncate(usize),
    OpenAndKeep(usize),
    WriteKept(u8),
    CloseKept,
    Unlink(usize),
    Rename(usize, usize),
    Exchange(usize, usize),
    Link(usize, usize),
    SymbolicLink(usize),
    Pipe(usize),
    Chmod(usize, u32),
    Touch(usize, u64),
    MakeFolder(usize),
    RemoveFolder(usize),
    MoveFolder(usize, usize),
    Mark,
    Forget(prop::sample::Index),
    Undo(prop::sample::Index),
}

const NAMES: [&str; 6] = ["a", "b", "c", "one/a", "one/b", "two/a"];
const FOLDERS: [&str; 3] = ["one", "two", "three"];

fn step() -> impl Strategy<Value = Step> {
    let (name, folder) = (0..NAMES.len(), 0..FOLDERS.len());
    prop_oneof![
        4 => name.clone().prop_map(Step::Write),
        2 => name.clone().prop_map(Step::Append),
        1 => name.clone().prop_map(Step::Truncate),
        4 => name.clone().prop_map(Step::OpenAndKeep),
        5 => any::<u8>().prop_map(Step::WriteKept),
        1 => Just(Step::CloseKept),
        3 => name.clone().prop_map(Step::Unlink),
        3 => (name.clone(), name.clone()).prop_map(|(a, b)| Step::Rename(a, b)),
        1 => (name.clone(), name.clone()).prop_map(|(a, b)| Step::Exchange(a, b)),
        1 => (name.clone(), name.clone()).prop_map(|(a, b)| Step::Link(a, b)),
        1 => name.clone().prop_map(Step::SymbolicLink),
        1 => name.clone().prop_map(Step::Pipe),
        1 => (name.clone(), 0o600..0o700_u32).prop_map(|(n, mode)| Step::Chmod(n, mode)),
        1 => (name, 0..1000_u64).prop_map(|(n, time)| Step::Touch(n, time)),
        1 => folder.clone().prop_map(Step::MakeFolder),
        2 => folder.clone().prop_map(Step::RemoveFolder),
        2 => (folder.clone(), folder).prop_map(|(a, b)| Step::MoveFolder(a, b)),
        3 => Just(Step::Mark),
        1 => any::<prop::sample::Index>().prop_map(Step::Forget),
        4 => any::<prop::sample::Index>().prop_map(Step::Undo),
    ]
}

/// A checkpoint: the tree at the mark, and the files that its image holds open.
struct Point {
    mark: Mark,
    tree: Tree,
    open: Vec<File>,
}

struct Run {
    guest: Guest,
    points: Vec<Point>,
    open: Vec<File>,
}

impl Run {
    fn new() -> Run {
        let guest = Guest::new();
        std::fs::create_dir(guest.path("one")).unwrap();
        for name in ["a", "b", "one/a"] {
            guest.put(name, "old");
        }
        let mut run = Run {
            guest,
            points: Vec::new(),
            open: Vec::new(),
        };
        run.mark();
        run.guest.make_folder("two");
        run
    }

    fn mark(&mut self) {
        let mark = self.guest.journal.mark();
        for file in &self.open {
            use std::os::fd::AsRawFd;
            let fd = format!("/proc/self/fd/{}", file.as_raw_fd());
            let path = std::fs::read_link(&fd).unwrap();
            self.guest
                .journal
                .hold(mark, fd.as_ref(), &path, false)
                .unwrap();
        }
        let open = self.open.iter().map(|file| file.try_clone().unwrap());
        self.points.push(Point {
            mark,
            tree: self.guest.tree(),
            open: open.collect(),
        });
    }

    fn undo(&mut self, index: usize) {
        self.open.clear();
        self.points.truncate(index + 1);
        let point = &self.points[index];
        self.guest.undo(point.mark);
        assert_eq!(self.guest.tree(), point.tree);
        let open = point.open.iter().map(|file| file.try_clone().unwrap());
        self.open = open.collect();
    }

    fn is_file(&self, name: &str) -> bool {
        let found = std::fs::symlink_metadata(self.guest.path(name));
        found.is_ok_and(|found| found.is_file())
    }

    fn exists(&self, name: &str) -> bool {
        std::fs::symlink_metadata(self.guest.path(name)).is_ok()
    }

    fn is_empty(&self, name: &str) -> bool {
        let names = std::fs::read_dir(self.guest.path(name));
        names.is_ok_and(|mut names| names.next().is_none())
    }

    fn step(&mut self, count: usize, step: &Step) {
        let bytes = format!("{count}").repeat(count);
        let parent = |name: &str| match name.split_once('/') {
            Some((folder, _)) => !self.guest.path(folder).is_dir(),
            None => false,
        };
        match *step {
            Step::Write(n) if parent(NAMES[n]) => {}
            Step::Write(n) if self.is_file(NAMES[n]) || !self.exists(NAMES[n]) => {
                self.guest.write(NAMES[n], &bytes);
            }
            Step::Append(n) if self.is_file(NAMES[n]) => {
                self.guest
                    .append(NAMES[n])
                    .write_all(bytes.as_bytes())
                    .unwrap();
            }
            Step::Truncate(n) if self.is_file(NAMES[n]) => self.guest.truncate(NAMES[n], 2),
            Step::OpenAndKeep(n) if self.is_file(NAMES[n]) => {
                let file = self.guest.open_existing(NAMES[n]);
                self.open.push(file);
            }
            Step::WriteKept(at) => {
                if let Some(file) = self.open.last() {
                    file.write_at(bytes.as_bytes(), at.into()).unwrap();
                }
            }
            Step::CloseKept if self.points.len() == 1 => drop(self.open.pop()),
            Step::Unlink(n) if self.exists(NAMES[n]) => self.guest.unlink(NAMES[n]),
            Step::Rename(a, b) if a != b && self.exists(NAMES[a]) && !parent(NAMES[b]) => {
                self.guest.rename(NAMES[a], NAMES[b]);
            }
            Step::Exchange(a, b) if self.exists(NAMES[a]) && self.exists(NAMES[b]) => {
                self.guest.exchange(NAMES[a], NAMES[b]);
            }
            Step::Link(a, b)
                if self.is_file(NAMES[a]) && !self.exists(NAMES[b]) && !parent(NAMES[b]) =>
            {
                self.guest.link(NAMES[a], NAMES[b]);
            }
            Step::SymbolicLink(n) if !self.exists(NAMES[n]) && !parent(NAMES[n]) => {
                self.guest.symbolic_link("nowhere", NAMES[n]);
            }
            Step::Pipe(n) if !self.exists(NAMES[n]) && !parent(NAMES[n]) => {
                self.guest.make_fifo(NAMES[n]);
            }
            Step::Chmod(n, mode) if self.is_file(NAMES[n]) => {
                let mode = std::fs::Permissions::from_mode(mode);
                let set = |path: &Path| std::fs::set_permissions(path, mode);
                self.guest.change(NAMES[n], true, set).unwrap();
            }
            Step::Touch(n, time) if self.is_file(NAMES[n]) => {
                let time = UNIX_EPOCH + Duration::from_secs(time);
                let set = |path: &Path| File::open(path)?.set_modified(time);
                self.guest.change(NAMES[n], true, set).unwrap();
            }
            Step::MakeFolder(n) if !self.exists(FOLDERS[n]) => self.guest.make_folder(FOLDERS[n]),
            Step::RemoveFolder(n) if self.is_empty(FOLDERS[n]) => {
                self.guest.remove_folder(FOLDERS[n]).unwrap();
            }
            Step::MoveFolder(a, b)
                if a != b
                    && self.exists(FOLDERS[a])
                    && (!self.exists(FOLDERS[b]) || self.is_empty(FOLDERS[b])) =>
            {
                self.guest.rename(FOLDERS[a], FOLDERS[b]);
            }
            Step::Mark => self.mark(),
            Step::Forget(index) => {
                let index = index.index(self.points.len());
                if index > 0 {
                    let point = self.points.remove(index);
                    self.guest.journal.forget(point.mark);
                }
            }
            Step::Undo(index) => {
                let index = index.index(self.points.len());
                self.undo(index);
                if index == 0 {
                    self.guest.make_folder("two");
                }
            }
            _ => {}
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_mark_can_be_gone_back_to(
        steps in prop::collection::vec(step(), 1..60),
        last in any::<prop::sample::Index>(),
    ) {
        let mut run = Run::new();
        for (count, step) in steps.iter().enumerate() {
            run.step(count, step);
        }
        run.undo(last.index(run.points.len()));
        run.undo(0);
        prop_assert_eq!(run.guest.stored(), 0);
    }
}
