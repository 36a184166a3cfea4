//! The memory of another process.

use crate::sys;
use crate::{Error, Result, Tid};
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

/// An address in a guest, never to be followed here.
#[derive(Copy, Clone, Eq, PartialEq, Ord, PartialOrd, Hash, Debug)]
pub struct RemoteAddr(pub u64);

const PAGE: u64 = 4096;

/// The address space of the process that a task belongs to. Reads and writes
/// need no stop of it, but mean little without one.
#[derive(Copy, Clone, Debug)]
pub struct AddressSpace(Tid);

impl AddressSpace {
    /// The address space of a task.
    #[must_use]
    pub fn of(task: Tid) -> Self {
        Self(task)
    }

    /// Fills all of `into`.
    ///
    /// # Errors
    ///
    /// EFAULT if a page is not mapped readable; [`Error::Died`].
    pub fn read(&self, addr: RemoteAddr, into: &mut [u8]) -> Result<()> {
        let n = self.read_some(addr, into)?;
        if n < into.len() {
            return Err(self.fault("read the memory"));
        }
        Ok(())
    }

    /// Fills as much of `into` as is mapped from `addr` on, and says how much.
    ///
    /// # Errors
    ///
    /// EFAULT if the first page is not mapped readable; [`Error::Died`].
    pub fn read_some(&self, addr: RemoteAddr, into: &mut [u8]) -> Result<usize> {
        sys::memory::read(self.0.raw(), addr.0, into)
            .map_err(|e| Error::of_request("read the memory", self.0, e))
    }

    /// One number of the machine's byte order.
    ///
    /// # Errors
    ///
    /// As [`read`](Self::read).
    pub fn read_u64(&self, addr: RemoteAddr) -> Result<u64> {
        let mut bytes = [0; 8];
        self.read(addr, &mut bytes)?;
        Ok(u64::from_ne_bytes(bytes))
    }

    /// One number of the machine's byte order.
    ///
    /// # Errors
    ///
    /// As [`read`](Self::read).
    pub fn read_u32(&self, addr: RemoteAddr) -> Result<u32> {
        let mut bytes = [0; 4];
        self.read(addr, &mut bytes)?;
        Ok(u32::from_ne_bytes(bytes))
    }

    /// A string that ends with a zero byte, of at most `limit` bytes; most
    /// strings take one system call. `None` if no zero byte came before the
    /// limit.
    ///
    /// # Errors
    ///
    /// EFAULT if it runs into an unmapped page; [`Error::Died`].
    pub fn read_string(&self, addr: RemoteAddr, limit: usize) -> Result<Option<OsString>> {
        let mut bytes = Vec::new();
        let mut at = addr.0;
        while bytes.len() < limit {
            // A first piece of a few hundred bytes holds nearly every path; it
            // does not cross into a page that may not be mapped.
            let to_page_end = (PAGE - at % PAGE) as usize;
            let want = to_page_end.min(if bytes.is_empty() { 512 } else { 4096 });
            let start = bytes.len();
            bytes.resize(start + want, 0);
            self.read(RemoteAddr(at), &mut bytes[start..])?;
            if let Some(end) = bytes[start..].iter().position(|&b| b == 0) {
                bytes.truncate(start + end);
                return Ok(Some(OsString::from_vec(bytes)));
            }
            at += want as u64;
        }
        Ok(None)
    }

    /// Writes all of `from`.
    ///
    /// # Errors
    ///
    /// EFAULT if a page is not mapped writable; [`Error::Died`].
    pub fn write(&self, addr: RemoteAddr, from: &[u8]) -> Result<()> {
        sys::memory::write(self.0.raw(), addr.0, from)
            .map_err(|e| Error::of_request("write the memory", self.0, e))
    }

    fn fault(&self, step: &'static str) -> Error {
        Error::Refused {
            step,
            tid: self.0,
            source: std::io::Error::from_raw_os_error(libc::EFAULT),
        }
    }
}
