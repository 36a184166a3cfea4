//! Many system calls in one go.
//!
//! Each call that a [`Remote`](crate::Remote) makes costs a stop. Where many are to
//! be made in a process that its tracer has to itself, a copy that is being built,
//! a routine is mapped into it that makes one call after the other from a table,
//! and stops the thread at the end.
//!
//! That stop is a breakpoint's SIGTRAP, which the kernel forces: see `remote` on
//! what has to hold for it. A thread in a batch blocks all other signals.

use crate::arch::{self, Registers};
use crate::memory::{AddressSpace, RemoteAddr};
use crate::stop::{Event, RawSignal, Stopped, Tid};
use crate::{Error, Remote, Result, Tracer};
use std::io;

/// An argument of a call.
#[derive(Copy, Clone, Debug)]
pub enum Argument<'a> {
    /// A number, or an address in the process.
    Value(u64),
    /// Bytes, whose address the call is given.
    Bytes(&'a [u8]),
}

/// Calls to be made one after the other.
#[derive(Clone, Default, Debug)]
pub struct Calls {
    names: Vec<&'static str>,
    /// The number and six arguments of each; of bytes, where they begin in `data`.
    table: Vec<[u64; WORDS]>,
    /// Which arguments, by call and index, are such beginnings.
    beginnings: Vec<(usize, usize)>,
    data: Vec<u8>,
}

/// The number, and six arguments. The answer takes the place of the number.
const WORDS: usize = 7;

const ENTRY: u64 = 8 * WORDS as u64;

const PAGE: u64 = 4096;

impl Calls {
    /// Adds a call with up to six arguments.
    pub fn add(&mut self, name: &'static str, number: i64, arguments: &[Argument<'_>]) {
        let mut entry = [0; WORDS];
        entry[0] = number as u64;
        for (index, argument) in arguments.iter().enumerate().take(WORDS - 1) {
            entry[1 + index] = match argument {
                Argument::Value(value) => *value,
                Argument::Bytes(bytes) => {
                    self.beginnings.push((self.table.len(), 1 + index));
                    let begin = self.data.len();
                    self.data.extend_from_slice(bytes);
                    // Structures are aligned to what is in them.
                    self.data.resize(self.data.len().next_multiple_of(8), 0);
                    begin as u64
                }
            };
        }
        self.names.push(name);
        self.table.push(entry);
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    /// The room that they take in the process, in bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        ENTRY * self.table.len() as u64 + self.data.len() as u64
    }

    /// The bytes to be put at an address.
    fn at(&self, place: RemoteAddr) -> Vec<u8> {
        let data = place.0 + ENTRY * self.table.len() as u64;
        let mut table = self.table.clone();
        for (call, index) in &self.beginnings {
            table[*call][*index] += data;
        }
        let words = table.into_iter().flatten().flat_map(u64::to_ne_bytes);
        words.chain(self.data.iter().copied()).collect()
    }

    /// Makes them one by one, each with a stop of its own.
    ///
    /// # Errors
    ///
    /// The first call's that fails; [`Error::Died`].
    pub fn make_each(&self, remote: &mut Remote<'_>) -> Result<()> {
        for (call, entry) in self.table.iter().enumerate() {
            let mut arguments = [0; WORDS - 1];
            arguments.copy_from_slice(&entry[1..]);
            let begins = |index: usize| self.beginnings.contains(&(call, 1 + index));
            if (0..arguments.len()).any(begins) {
                let at = remote.scratch()?.0.0;
                remote.memory().write(RemoteAddr(at), &self.data)?;
                for (index, argument) in arguments.iter_mut().enumerate() {
                    if begins(index) {
                        *argument += at;
                    }
                }
            }
            remote.call(self.names[call], entry[0] as i64, &arguments)?;
        }
        Ok(())
    }
}

/// Calls that were put into a process.
#[derive(Debug)]
pub struct Placed<'c> {
    calls: &'c Calls,
    at: RemoteAddr,
}

/// The routine, and room for tables, in the memory of a process.
#[derive(Debug)]
pub struct Routine {
    code: RemoteAddr,
    length: u64,
    used: u64,
}

impl Routine {
    /// Maps it, with so much room.
    ///
    /// # Errors
    ///
    /// When memory cannot be mapped or made executable; [`Error::Died`].
    pub fn map(remote: &mut Remote<'_>, room: u64) -> Result<Self> {
        let length = PAGE + room.next_multiple_of(PAGE);
        let writable = (libc::PROT_READ | libc::PROT_WRITE) as u64;
        let private = (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS) as u64;
        let arguments = [0, length, writable, private, u64::MAX, 0];
        let code = RemoteAddr(remote.call("mmap", libc::SYS_mmap, &arguments)?);
        let routine = Self {
            code,
            length,
            used: 0,
        };
        let executable = (libc::PROT_READ | libc::PROT_EXEC) as u64;
        let made = remote.memory().write(code, arch::BATCH).and_then(|()| {
            remote.call("mprotect", libc::SYS_mprotect, &[code.0, PAGE, executable])
        });
        match made {
            Ok(_) => Ok(routine),
            Err(error) => {
                routine.unmap(remote)?;
                Err(error)
            }
        }
    }

    /// Removes it again.
    ///
    /// # Errors
    ///
    /// [`Error::Died`].
    pub fn unmap(self, remote: &mut Remote<'_>) -> Result<()> {
        remote.call("munmap", libc::SYS_munmap, &[self.code.0, self.length])?;
        Ok(())
    }

    /// Puts calls into its room, each beside what was put there before.
    ///
    /// # Errors
    ///
    /// [`Error::Died`]; ENOMEM if there is no room left.
    pub fn place<'c>(&mut self, memory: AddressSpace, all: &'c [Calls]) -> Result<Vec<Placed<'c>>> {
        let begin = self.code.0 + PAGE + self.used;
        let mut bytes = Vec::new();
        let mut placed = Vec::with_capacity(all.len());
        for calls in all {
            let at = RemoteAddr(begin + bytes.len() as u64);
            bytes.extend(calls.at(at));
            placed.push(Placed { calls, at });
        }
        self.used += bytes.len() as u64;
        if PAGE + self.used > self.length {
            return Err(Error::Call {
                call: "a batch of calls",
                tid: Tid::new(0),
                source: io::Error::from_raw_os_error(libc::ENOMEM),
            });
        }
        memory.write(RemoteAddr(begin), &bytes)?;
        Ok(placed)
    }

    /// Lets a stopped task make its calls. It is at their end when
    /// [`finish`](Self::finish) answers. `registers` are any that suit a thread of
    /// the process.
    ///
    /// # Errors
    ///
    /// [`Error::Died`].
    pub fn begin(&self, task: Stopped, registers: &Registers, calls: &Placed<'_>) -> Result<()> {
        let mut registers = registers.clone();
        let end = calls.at.0 + ENTRY * calls.calls.table.len() as u64;
        registers.prepare_batch(self.code.0, calls.at.0, end);
        task.set_registers(&registers)?;
        task.resume(None)
    }

    /// Waits until a task has made its calls.
    ///
    /// # Errors
    ///
    /// [`Error::Died`]; [`Error::Unexpected`] if it got a signal that cannot be
    /// blocked.
    pub fn finish(&self, tracer: &mut Tracer, tid: Tid) -> Result<Stopped> {
        loop {
            let (stopped, event) = tracer.wait_for(tid, None)?;
            match event {
                Event::Signal(RawSignal(libc::SIGTRAP)) => return Ok(stopped),
                // A filter's stop, or that of a clone, is one on the way.
                Event::Seccomp | Event::Child { .. } | Event::Interrupted => {
                    stopped.resume(None)?
                }
                other => {
                    return Err(Error::Unexpected {
                        tid,
                        what: format!("{other:?} while it made calls for its tracer"),
                    });
                }
            }
        }
    }
}

impl Placed<'_> {
    /// The answers to the calls of a task that has made them.
    ///
    /// # Errors
    ///
    /// The first call's that failed; [`Error::Died`].
    pub fn answers(&self, task: &Stopped) -> Result<Vec<u64>> {
        let mut table = vec![0; self.calls.table.len() * ENTRY as usize];
        AddressSpace::of(task.tid()).read(self.at, &mut table)?;
        let entries = table.chunks_exact(ENTRY as usize).zip(&self.calls.names);
        entries
            .map(|(entry, name)| {
                let value = i64::from_ne_bytes(std::array::from_fn(|byte| entry[byte]));
                if (-4095..0).contains(&value) {
                    return Err(Error::Call {
                        call: name,
                        tid: task.tid(),
                        source: io::Error::from_raw_os_error(-value as i32),
                    });
                }
                Ok(value as u64)
            })
            .collect()
    }
}
