//! Another process's memory.

use nix::errno::Errno;
use nix::unistd::Pid;

/// Fills `to` from these ranges of what a thread has, one behind the other: they hold as
/// much or more. All of it, or EFAULT.
pub fn gather(thread: Pid, ranges: &[(u64, usize)], to: &mut [u8]) -> Result<(), Errno> {
    let local = libc::iovec { iov_base: to.as_mut_ptr().cast(), iov_len: to.len() };
    let remote: Vec<_> = ranges
        .iter()
        .map(|(address, length)| libc::iovec { iov_base: *address as *mut _, iov_len: *length })
        .collect();
    // SAFETY: the kernel writes at most to.len() bytes to `to`; the other addresses are not ours.
    let length = Errno::result(unsafe {
        libc::process_vm_readv(
            thread.as_raw(),
            &local,
            1,
            remote.as_ptr(),
            remote.len() as libc::c_ulong,
            0,
        )
    })?;
    if length as usize == to.len() { Ok(()) } else { Err(Errno::EFAULT) }
}

/// Writes all of `from` to what a thread has at `address`, or fails.
pub fn write(thread: Pid, address: u64, from: &[u8]) -> Result<(), Errno> {
    let local = libc::iovec { iov_base: from.as_ptr().cast_mut().cast(), iov_len: from.len() };
    let remote = libc::iovec { iov_base: address as *mut libc::c_void, iov_len: from.len() };
    // SAFETY: the kernel reads from.len() bytes of `from`; the other address is not ours.
    let length = Errno::result(unsafe {
        libc::process_vm_writev(thread.as_raw(), &local, 1, &remote, 1, 0)
    })?;
    if length as usize == from.len() { Ok(()) } else { Err(Errno::EFAULT) }
}
