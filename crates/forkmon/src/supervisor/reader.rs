//! How a program reads its files: which ones are known to read them in pieces, and by
//! which calls it shows.
//!
//! A pure table. What is made of the pieces is `pieces`' concern.

use crate::cli::WithinFile;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use tracee::{Action, Condition, Filter, Program, RemoteAddr, Rule, SyscallStop};

/// How a program reads.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub(super) struct Reader {
    /// The numbers of the open files whose reads are to be seen; none: of all.
    numbers: &'static [u32],
    /// What it takes back by a seek it forgets.
    pub(super) gives_back: bool,
    /// What it has read of a file before the file got one of those numbers.
    pub(super) head: u64,
    /// A read that gets less than it asked for tells it that the file ends there; to
    /// others only one that gets nothing does.
    pub(super) short_is_end: bool,
    /// It asks for a file's size and times only to find it, if it reads it then.
    pub(super) looks_before_reading: bool,
}

impl Reader {
    /// A shell moves its script out of the way, and input that is redirected into a
    /// command to its standard input. Nothing else that it reads is seen, since its
    /// children would have to be watched for it as well.
    const SHELL: Self = Self {
        numbers: &[0, 10, 255],
        gives_back: true,
        // `check_binary_file` in bash's `general.c`.
        head: 80,
        short_is_end: false,
        looks_before_reading: false,
    };

    /// A program that reads through the C library, or as it does.
    const STREAM: Self = Self {
        numbers: &[],
        gives_back: false,
        head: 0,
        short_is_end: false,
        looks_before_reading: false,
    };

    /// TeX looks for each file in many places before it opens it.
    const TEX: Self = Self {
        looks_before_reading: true,
        ..Self::STREAM
    };

    /// A program that nothing is known of.
    const UNKNOWN: Self = Self {
        short_is_end: true,
        ..Self::STREAM
    };

    /// How the program at a path reads, if it may be resumed within files.
    pub(super) fn of(program: &OsStr, choice: WithinFile) -> Option<Self> {
        let name = program.as_bytes().rsplit(|&byte| byte == b'/').next()?;
        // Without its version, as in lua5.4 or luajit-2.1.
        let letters = name.iter().take_while(|byte| byte.is_ascii_lowercase());
        let known = match (&name[..letters.count()], name) {
            (b"bash" | b"dash", _) => Some(Self::SHELL),
            (b"tex" | b"etex" | b"pdftex" | b"xetex", _) => Some(Self::TEX),
            (b"lua" | b"luajit" | b"tcc" | b"sed" | b"mawk", _) | (_, b"m4") => Some(Self::STREAM),
            _ => None,
        };
        match choice {
            WithinFile::Off => None,
            WithinFile::Auto => known,
            WithinFile::On => known.or(Some(Self::UNKNOWN)),
        }
    }

    /// Whether each of its reads is seen, under whatever number it has the file open.
    pub(super) fn is_complete(&self) -> bool {
        self.numbers.is_empty()
    }

    /// The filter that stops it at its reads.
    pub(super) fn filter(&self) -> Program {
        let mut filter = Filter::new(Action::Allow);
        let trace = Action::Trace(READS);
        if !self.is_complete() {
            // A byte at a time is read from a pipe or a terminal, and very often; of a
            // file it shows in the place where the next read begins.
            let one_byte = Condition::equal(2, 1);
            filter.add(Rule::when(libc::SYS_read, &[one_byte], Action::Allow));
            // This asks where it is, and does not go there.
            let here = [
                Condition::Zero { argument: 1 },
                Condition::equal(2, libc::SEEK_CUR as u32),
            ];
            filter.add(Rule::when(libc::SYS_lseek, &here, Action::Allow));
        }
        for (call, number, which) in READING {
            if self.is_complete() {
                filter.add(Rule::when(*call, which, trace));
            }
            for known in self.numbers {
                let mut conditions = vec![Condition::equal(*number, *known)];
                conditions.extend(*which);
                filter.add(Rule::when(*call, &conditions, trace));
            }
        }
        if self.is_complete() {
            filter.add(Rule::always(libc::SYS_fstat, trace));
        } else {
            for (call, number) in CLOSING {
                filter.add(Rule::when(*call, &[Condition::equal(*number, 0)], trace));
            }
        }
        filter.compile()
    }
}

/// The calls by which a program learns what is in an open file, or where it ends; which
/// of their arguments is its number, and what else makes them such calls.
const READING: &[(i64, u8, &[Condition])] = &[
    (libc::SYS_read, 0, &[]),
    (libc::SYS_readv, 0, &[]),
    (libc::SYS_pread64, 0, &[]),
    (libc::SYS_preadv, 0, &[]),
    (libc::SYS_preadv2, 0, &[]),
    (libc::SYS_lseek, 0, &[]),
    (
        libc::SYS_mmap,
        4,
        &[Condition::Masked {
            argument: 3,
            mask: libc::MAP_ANONYMOUS as u32,
            value: 0,
        }],
    ),
    (libc::SYS_sendfile, 1, &[]),
    (libc::SYS_copy_file_range, 0, &[]),
    (libc::SYS_splice, 0, &[]),
    (
        libc::SYS_ioctl,
        0,
        &[Condition::equal(1, libc::FIONREAD as u32)],
    ),
];

/// The calls by which a shell puts something else in the place of its standard input,
/// and which of their arguments is the number.
const CLOSING: &[(i64, u8)] = &[
    (libc::SYS_close, 0),
    (libc::SYS_dup2, 1),
    (libc::SYS_dup3, 1),
];

/// What the rules of these filters carry, so that their stops can be told from others.
pub(super) const READS: u16 = 2;

/// What a call does with an open file.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub(super) struct Reading {
    /// The file's number.
    pub(super) fd: i32,
    pub(super) what: Reads,
}

/// What it learns.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub(super) enum Reads {
    /// So many of the next bytes.
    Next(u64),
    /// The next bytes, into pieces of memory that are listed there.
    Vector { at: RemoteAddr, count: u64 },
    /// So many bytes from a place on.
    At(u64, u64),
    /// Nothing; the next read begins elsewhere.
    Seek { offset: i64, whence: i32 },
    /// Its size, among others.
    Size,
    /// Whatever is in it.
    All,
    /// Nothing; it is not open under that number any more.
    Closes,
}

/// What a call that such a filter stopped does.
pub(super) fn decode(stop: &SyscallStop) -> Option<Reading> {
    let a = &stop.arguments;
    let call = stop.call as i64;
    let reading = READING.iter().map(|(call, number, _)| (*call, *number));
    let others = [(libc::SYS_fstat, 0)]
        .into_iter()
        .chain(CLOSING.iter().copied());
    let (_, number) = reading.chain(others).find(|(known, _)| *known == call)?;

    let what = match call {
        libc::SYS_read => Reads::Next(a[2]),
        libc::SYS_readv => Reads::Vector {
            at: RemoteAddr(a[1]),
            count: a[2],
        },
        libc::SYS_pread64 => Reads::At(a[3], a[2]),
        libc::SYS_lseek => Reads::Seek {
            offset: a[1] as i64,
            whence: a[2] as i32,
        },
        libc::SYS_fstat => Reads::Size,
        libc::SYS_close | libc::SYS_dup2 | libc::SYS_dup3 => Reads::Closes,
        _ => Reads::All,
    };
    Some(Reading {
        fd: a[usize::from(number)] as i32,
        what,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(program: &str, choice: WithinFile) -> Option<Reader> {
        Reader::of(OsStr::new(program), choice)
    }

    #[test]
    fn programs_are_known_without_their_versions() {
        for (program, reader) in [
            ("/usr/bin/bash", Some(Reader::SHELL)),
            ("/bin/dash", Some(Reader::SHELL)),
            ("/usr/bin/lua5.4", Some(Reader::STREAM)),
            ("/opt/luajit-2.1.0-beta3", Some(Reader::STREAM)),
            ("/usr/bin/m4", Some(Reader::STREAM)),
            ("/usr/bin/pdftex", Some(Reader::TEX)),
            ("/usr/bin/python3.11", None),
            ("/usr/bin/luahbtex", None),
            ("/usr/bin/m68k", None),
        ] {
            assert_eq!(known(program, WithinFile::Auto), reader, "{program}");
            assert_eq!(known(program, WithinFile::Off), None);
        }
        assert_eq!(
            known("/usr/bin/python3", WithinFile::On),
            Some(Reader::UNKNOWN)
        );
    }

    #[test]
    fn a_filter_fits_where_it_is_passed_to_the_kernel() {
        for reader in [Reader::SHELL, Reader::STREAM] {
            assert!(reader.filter().bytes().len() < 2000);
        }
    }
}
