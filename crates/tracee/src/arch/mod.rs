//! What differs between machines: one file an architecture.
//!
//! Another architecture is one more file with the same names in it, and a
//! line here.

#[cfg(target_arch = "x86_64")]
mod x86_64;
#[cfg(target_arch = "x86_64")]
use x86_64::SYSCALL_INSTRUCTION;
#[cfg(target_arch = "x86_64")]
pub use x86_64::{ARCHITECTURE, Registers, SYSCALL_LENGTH};
#[cfg(target_arch = "x86_64")]
pub(crate) use x86_64::{AUDIT_ARCHITECTURE, BATCH, FOREIGN_CALL_BIT, RawRegisters};

#[cfg(not(target_arch = "x86_64"))]
compile_error!("tracee supports x86-64 only: add crates/tracee/src/arch/<machine>.rs");

/// Where in the kernel's vDSO image there is a system call instruction, as an
/// offset from its start. The image is the same in every process of the same
/// architecture, so that this one's own tells where the guest's is. `None` if
/// this process has no vDSO (booted with `vdso=0`).
#[must_use]
pub fn vdso_syscall_offset() -> Option<u64> {
    let maps = std::fs::read_to_string("/proc/self/maps").ok()?;
    let line = maps.lines().find(|line| line.ends_with("[vdso]"))?;
    let (start, rest) = line.split_once('-')?;
    let (end, _) = rest.split_once(' ')?;
    let start = u64::from_str_radix(start, 16).ok()?;
    let end = u64::from_str_radix(end, 16).ok()?;
    let mut image = vec![0; usize::try_from(end - start).ok()?];
    let own = rustix::process::getpid().as_raw_nonzero().get();
    let n = crate::sys::memory::read(own, start, &mut image).ok()?;
    image[..n]
        .windows(SYSCALL_INSTRUCTION.len())
        .position(|bytes| bytes == SYSCALL_INSTRUCTION)
        .map(|offset| offset as u64)
}
