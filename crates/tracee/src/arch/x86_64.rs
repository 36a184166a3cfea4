//! x86-64: registers, the system call instruction, audit numbers.

/// The machine's name as in `uname -m`.
pub const ARCHITECTURE: &str = "x86_64";

/// AUDIT_ARCH_X86_64 (`include/uapi/linux/audit.h`).
pub(crate) const AUDIT_ARCHITECTURE: u32 = 0xc000_003e;

/// The bit that marks a call of the x32 ABI, which has the same audit number.
pub(crate) const FOREIGN_CALL_BIT: Option<u32> = Some(0x4000_0000);

/// `syscall`.
pub(super) const SYSCALL_INSTRUCTION: &[u8] = &[0x0f, 0x05];

/// Bytes from a system call instruction to the one after it.
pub const SYSCALL_LENGTH: u64 = 2;

/// The registers as the kernel's NT_PRSTATUS note has them.
pub(crate) type RawRegisters = libc::user_regs_struct;

/// The general registers of a stopped thread, with its segment bases.
#[derive(Clone, Debug)]
pub struct Registers(pub(crate) RawRegisters);

/// What `orig_rax` holds outside of a system call.
const NO_CALL: u64 = u64::MAX;

impl Registers {
    /// The address of the next instruction.
    #[must_use]
    pub fn instruction_pointer(&self) -> u64 {
        self.0.rip
    }

    /// Sets the address of the next instruction.
    pub fn set_instruction_pointer(&mut self, to: u64) {
        self.0.rip = to;
    }

    /// The stack pointer.
    #[must_use]
    pub fn stack_pointer(&self) -> u64 {
        self.0.rsp
    }

    /// The number of the system call that the thread is in, if it is in one.
    #[must_use]
    pub fn call(&self) -> Option<u64> {
        (self.0.orig_rax as i64 >= 0).then_some(self.0.orig_rax)
    }

    /// Changes the number of the system call that the thread is about to make,
    /// or about to return from. `None` skips it, or makes the kernel forget
    /// that the thread was in one, so that it restarts nothing.
    pub fn set_call(&mut self, call: Option<u64>) {
        self.0.orig_rax = call.unwrap_or(NO_CALL);
    }

    /// What a system call returned, negative for an error.
    #[must_use]
    pub fn return_value(&self) -> i64 {
        self.0.rax as i64
    }

    /// Sets what the thread's system call seems to have returned.
    pub fn set_return_value(&mut self, value: i64) {
        self.0.rax = value as u64;
    }

    /// The six arguments of a system call.
    #[must_use]
    pub fn arguments(&self) -> [u64; 6] {
        let r = &self.0;
        [r.rdi, r.rsi, r.rdx, r.r10, r.r8, r.r9]
    }

    /// Sets one argument of a system call. An index over 5 changes nothing.
    pub fn set_argument(&mut self, index: usize, value: u64) {
        let r = &mut self.0;
        match index {
            0 => r.rdi = value,
            1 => r.rsi = value,
            2 => r.rdx = value,
            3 => r.r10 = value,
            4 => r.r8 = value,
            5 => r.r9 = value,
            _ => {}
        }
    }

    /// Makes the thread execute the system call instruction at `at` next.
    pub fn prepare_call(&mut self, at: u64, call: u64, arguments: [u64; 6]) {
        self.0.rip = at;
        self.0.rax = call;
        self.0.orig_rax = NO_CALL;
        for (index, value) in arguments.into_iter().enumerate() {
            self.set_argument(index, value);
        }
    }

    /// Makes the thread run [`BATCH`], which is at `code`, over the calls from
    /// `begin` to `end`.
    pub(crate) fn prepare_batch(&mut self, code: u64, begin: u64, end: u64) {
        self.0.rip = code;
        self.0.orig_rax = NO_CALL;
        self.0.rbx = begin;
        self.0.rbp = end;
    }

    /// Makes a thread that is at, in or just behind a system call instruction
    /// execute it, as `call`, once more.
    pub fn rewind_call(&mut self, call: u64) {
        self.0.rip -= SYSCALL_LENGTH;
        self.0.rax = call;
        self.0.orig_rax = NO_CALL;
    }
}

/// Makes calls from a table, whose entries are a number and six arguments, puts
/// each answer where the number was, and ends in a breakpoint. It keeps its place
/// in registers that system calls keep, and uses no stack.
///
/// ```text
///  0: cmp  %rbp, %rbx          18: mov 0x28(%rbx), %r8
///  3: je   2b                  1c: mov 0x30(%rbx), %r9
///  5: mov  (%rbx), %rax        20: syscall
///  8: mov  0x08(%rbx), %rdi    22: mov %rax, (%rbx)
///  c: mov  0x10(%rbx), %rsi    25: add $0x38, %rbx
/// 10: mov  0x18(%rbx), %rdx    29: jmp 0
/// 14: mov  0x20(%rbx), %r10    2b: int3
/// ```
pub(crate) const BATCH: &[u8] = &[
    0x48, 0x39, 0xeb, 0x74, 0x26, 0x48, 0x8b, 0x03, 0x48, 0x8b, 0x7b, 0x08, 0x48, 0x8b, 0x73, 0x10,
    0x48, 0x8b, 0x53, 0x18, 0x4c, 0x8b, 0x53, 0x20, 0x4c, 0x8b, 0x43, 0x28, 0x4c, 0x8b, 0x4b, 0x30,
    0x0f, 0x05, 0x48, 0x89, 0x03, 0x48, 0x83, 0xc3, 0x38, 0xeb, 0xd5, 0xcc,
];
