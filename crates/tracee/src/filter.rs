//! The seccomp filter: which system calls stop, which the kernel answers itself.
//!
//! A small builder of classic BPF (seccomp(2), `Documentation/networking/filter.rst`).
//! seccompiler and libseccomp kill calls of other architectures or cannot answer
//! with success, and both are needed here.

use crate::arch::{AUDIT_ARCHITECTURE, FOREIGN_CALL_BIT};

/// What the filter answers.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub enum Action {
    /// The call runs at no cost.
    Allow,
    /// The task stops before the call; the number comes with the stop.
    Trace(u16),
    /// The call does not run and answers with this error number; with 0 it
    /// answers success.
    Errno(u16),
}

/// A test of the low 32 bits of an argument.
#[derive(Copy, Clone, Eq, PartialEq, Debug)]
pub enum Condition {
    /// The argument has this value.
    Equal {
        /// Which argument, from 0.
        argument: u8,
        /// Its low 32 bits.
        value: u32,
    },
    /// The argument has at least one of these bits set.
    AnyBit {
        /// Which argument, from 0.
        argument: u8,
        /// The bits.
        mask: u32,
    },
    /// These bits of the argument have this value.
    Masked {
        /// Which argument, from 0.
        argument: u8,
        /// The bits that are looked at.
        mask: u32,
        /// What they are to be.
        value: u32,
    },
    /// All 64 bits of the argument are zero.
    Zero {
        /// Which argument, from 0.
        argument: u8,
    },
}

impl Condition {
    /// The argument, counted from 0, has this value in its low 32 bits.
    #[must_use]
    pub const fn equal(argument: u8, value: u32) -> Self {
        Self::Equal { argument, value }
    }
}

/// The answer to one system call, if all its conditions hold. Rules of one call
/// are tried in the order they were added in; without a match it is allowed.
#[derive(Clone, Debug)]
pub struct Rule {
    call: u32,
    conditions: Vec<Condition>,
    action: Action,
}

impl Rule {
    /// The same answer whatever the arguments are.
    #[must_use]
    pub fn always(call: i64, action: Action) -> Self {
        Self::when(call, &[], action)
    }

    /// An answer that depends on arguments.
    #[must_use]
    pub fn when(call: i64, conditions: &[Condition], action: Action) -> Self {
        Self {
            call: call as u32,
            conditions: conditions.to_vec(),
            action,
        }
    }
}

/// A list of rules, with the answer to calls of other architectures.
#[derive(Clone, Debug)]
pub struct Filter {
    rules: Vec<Rule>,
    foreign: Action,
}

/// A filter in the form that the kernel takes.
#[derive(Clone, Debug)]
pub struct Program(pub(crate) Vec<libc::sock_filter>);

impl Program {
    /// The instructions as the kernel reads them from memory, for a filter that
    /// is installed by an injected call.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        self.0
            .iter()
            .flat_map(|i| {
                let mut bytes = [0; 8];
                bytes[..2].copy_from_slice(&i.code.to_ne_bytes());
                bytes[2] = i.jt;
                bytes[3] = i.jf;
                bytes[4..].copy_from_slice(&i.k.to_ne_bytes());
                bytes
            })
            .collect()
    }

    /// The number of instructions.
    #[must_use]
    pub fn length(&self) -> usize {
        self.0.len()
    }
}

// `struct seccomp_data`: nr, arch, instruction_pointer, args[6].
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
const fn low(argument: u8) -> u32 {
    16 + 8 * argument as u32
}

fn instruction(code: u32, jt: u8, jf: u8, k: u32) -> libc::sock_filter {
    libc::sock_filter {
        code: code as u16,
        jt,
        jf,
        k,
    }
}

fn load(offset: u32) -> libc::sock_filter {
    instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, offset)
}

fn jump(test: u32, k: u32, jt: u8, jf: u8) -> libc::sock_filter {
    instruction(libc::BPF_JMP | test | libc::BPF_K, jt, jf, k)
}

fn answer(action: Action) -> libc::sock_filter {
    let value = match action {
        Action::Allow => libc::SECCOMP_RET_ALLOW,
        Action::Trace(data) => libc::SECCOMP_RET_TRACE | u32::from(data),
        Action::Errno(errno) => libc::SECCOMP_RET_ERRNO | u32::from(errno),
    };
    instruction(libc::BPF_RET | libc::BPF_K, 0, 0, value)
}

impl Filter {
    /// A filter that answers calls of other architectures (i386, x32) so, and
    /// allows all others.
    #[must_use]
    pub fn new(foreign: Action) -> Self {
        Self {
            rules: Vec::new(),
            foreign,
        }
    }

    /// Adds a rule. Calls that are added first are found first; the kernel
    /// remembers which calls are allowed whatever their arguments are and does
    /// not even ask the filter for them.
    pub fn add(&mut self, rule: Rule) -> &mut Self {
        self.rules.push(rule);
        self
    }

    /// The filter as BPF.
    #[must_use]
    pub fn compile(&self) -> Program {
        let mut program = vec![
            load(ARCHITECTURE),
            jump(libc::BPF_JEQ, AUDIT_ARCHITECTURE, 1, 0),
            answer(self.foreign),
            load(NUMBER),
        ];
        if let Some(bit) = FOREIGN_CALL_BIT {
            program.push(jump(libc::BPF_JSET, bit, 0, 1));
            program.push(answer(self.foreign));
        }
        let mut calls: Vec<u32> = Vec::new();
        for rule in &self.rules {
            if !calls.contains(&rule.call) {
                calls.push(rule.call);
            }
        }
        for call in calls {
            let mut block = Vec::new();
            for rule in self.rules.iter().filter(|r| r.call == call) {
                block.extend(compile_rule(rule));
            }
            block.push(answer(Action::Allow));
            // A block has a few instructions for each rule of one call, far
            // below the 255 that a jump can pass over.
            let over = u8::try_from(block.len()).unwrap_or(u8::MAX);
            program.push(jump(libc::BPF_JEQ, call, 0, over));
            program.extend(block);
        }
        program.push(answer(Action::Allow));
        Program(program)
    }
}

fn compile_rule(rule: &Rule) -> Vec<libc::sock_filter> {
    // Built from the end: each condition that fails jumps past what follows it.
    let mut tail = vec![answer(rule.action)];
    for condition in rule.conditions.iter().rev() {
        let over = u8::try_from(tail.len()).unwrap_or(u8::MAX);
        let mut head = match *condition {
            Condition::Equal { argument, value } => {
                vec![load(low(argument)), jump(libc::BPF_JEQ, value, 0, over)]
            }
            Condition::AnyBit { argument, mask } => {
                vec![load(low(argument)), jump(libc::BPF_JSET, mask, 0, over)]
            }
            Condition::Masked {
                argument,
                mask,
                value,
            } => vec![
                load(low(argument)),
                instruction(libc::BPF_ALU | libc::BPF_AND | libc::BPF_K, 0, 0, mask),
                jump(libc::BPF_JEQ, value, 0, over),
            ],
            Condition::Zero { argument } => vec![
                load(low(argument)),
                jump(libc::BPF_JEQ, 0, 0, over + 2),
                load(low(argument) + 4),
                jump(libc::BPF_JEQ, 0, 0, over),
            ],
        };
        head.extend(tail);
        tail = head;
    }
    tail
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs a program as the kernel would, on one call.
    fn run(program: &Program, architecture: u32, call: u32, arguments: [u64; 6]) -> u32 {
        let word = |offset: u32| match offset {
            NUMBER => call,
            ARCHITECTURE => architecture,
            _ => {
                let argument = arguments[(offset as usize - 16) / 8];
                if offset.is_multiple_of(8) {
                    argument as u32
                } else {
                    (argument >> 32) as u32
                }
            }
        };
        let (mut at, mut accumulator) = (0, 0);
        loop {
            let i = &program.0[at];
            at += 1;
            let code = u32::from(i.code);
            if code == libc::BPF_LD | libc::BPF_W | libc::BPF_ABS {
                accumulator = word(i.k);
            } else if code == libc::BPF_ALU | libc::BPF_AND | libc::BPF_K {
                accumulator &= i.k;
            } else if code & 7 == libc::BPF_RET {
                return i.k;
            } else {
                let holds = match code & 0xf0 {
                    libc::BPF_JEQ => accumulator == i.k,
                    libc::BPF_JSET => accumulator & i.k != 0,
                    other => panic!("jump {other:#x}"),
                };
                at += usize::from(if holds { i.jt } else { i.jf });
            }
        }
    }

    #[test]
    fn answers_by_call_argument_and_architecture() {
        let mut filter = Filter::new(Action::Trace(9));
        filter
            .add(Rule::when(
                libc::SYS_madvise,
                &[Condition::Equal {
                    argument: 2,
                    value: 10,
                }],
                Action::Errno(0),
            ))
            .add(Rule::when(
                libc::SYS_madvise,
                &[Condition::Equal {
                    argument: 2,
                    value: 18,
                }],
                Action::Errno(22),
            ))
            .add(Rule::when(
                libc::SYS_openat,
                &[
                    Condition::AnyBit {
                        argument: 2,
                        mask: 0x40,
                    },
                    Condition::Equal {
                        argument: 0,
                        value: 7,
                    },
                ],
                Action::Trace(2),
            ))
            .add(Rule::when(
                libc::SYS_sigaltstack,
                &[Condition::Zero { argument: 0 }],
                Action::Allow,
            ))
            .add(Rule::always(libc::SYS_sigaltstack, Action::Trace(3)))
            .add(Rule::when(
                libc::SYS_futex,
                &[Condition::Masked {
                    argument: 1,
                    mask: 0x7f,
                    value: 6,
                }],
                Action::Trace(4),
            ));
        let program = filter.compile();
        let native =
            |call: i64, arguments| run(&program, AUDIT_ARCHITECTURE, call as u32, arguments);
        let trace = |n: u32| libc::SECCOMP_RET_TRACE | n;
        assert_eq!(
            native(libc::SYS_madvise, [0, 0, 10, 0, 0, 0]),
            libc::SECCOMP_RET_ERRNO
        );
        assert_eq!(
            native(libc::SYS_madvise, [0, 0, 18, 0, 0, 0]),
            libc::SECCOMP_RET_ERRNO | 22
        );
        assert_eq!(
            native(libc::SYS_madvise, [0, 0, 4, 0, 0, 0]),
            libc::SECCOMP_RET_ALLOW
        );
        assert_eq!(native(libc::SYS_openat, [7, 0, 0x41, 0, 0, 0]), trace(2));
        assert_eq!(
            native(libc::SYS_openat, [7, 0, 1, 0, 0, 0]),
            libc::SECCOMP_RET_ALLOW
        );
        assert_eq!(
            native(libc::SYS_openat, [6, 0, 0x41, 0, 0, 0]),
            libc::SECCOMP_RET_ALLOW
        );
        assert_eq!(
            native(libc::SYS_sigaltstack, [0; 6]),
            libc::SECCOMP_RET_ALLOW
        );
        assert_eq!(
            native(libc::SYS_sigaltstack, [1 << 32, 0, 0, 0, 0, 0]),
            trace(3)
        );
        assert_eq!(native(libc::SYS_sigaltstack, [1, 0, 0, 0, 0, 0]), trace(3));
        assert_eq!(native(libc::SYS_futex, [0, 0x86, 0, 0, 0, 0]), trace(4));
        assert_eq!(
            native(libc::SYS_futex, [0, 0x89, 0, 0, 0, 0]),
            libc::SECCOMP_RET_ALLOW
        );
        assert_eq!(native(libc::SYS_read, [0; 6]), libc::SECCOMP_RET_ALLOW);
        assert_eq!(
            run(&program, 0x4000_0003, libc::SYS_read as u32, [0; 6]),
            trace(9)
        );
        assert_eq!(native(libc::SYS_read | 0x4000_0000, [0; 6]), trace(9));
    }
}
