//! File descriptors by number: what was inherited, and what is left open.

use std::os::fd::{AsRawFd, BorrowedFd, RawFd};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl, open};
use nix::sys::stat::Mode;

use super::check;

/// Borrows a descriptor that the caller of this program handed over, if it is open.
///
/// Nothing in this program closes an inherited descriptor before the last use of the result.
pub fn inherited(fd: RawFd) -> Option<BorrowedFd<'static>> {
    // SAFETY: F_GETFD takes no pointer.
    if unsafe { libc::fcntl(fd, libc::F_GETFD) } < 0 {
        return None;
    }
    // SAFETY: it is open, and stays so as said above.
    Some(unsafe { BorrowedFd::borrow_raw(fd) })
}

/// Opens /dev/null on those of 0 to 2 that are missing: what is opened next would be the
/// workload's standard input or output.
pub fn fill_standard() -> Result<(), Errno> {
    for fd in 0..3 {
        if inherited(fd).is_none() {
            // The lowest free number is fd, as those below are open. It is left open for good.
            std::mem::forget(open("/dev/null", OFlag::O_RDWR, Mode::empty())?);
        }
    }
    Ok(())
}

/// Lets an inherited descriptor through execve.
pub fn keep_over_exec(fd: RawFd) -> Result<(), Errno> {
    fcntl(inherited(fd).ok_or(Errno::EBADF)?, FcntlArg::F_SETFD(FdFlag::empty())).map(drop)
}

/// Closes every descriptor from 3 on but those of `keep`, which is sorted.
pub fn close_others(keep: &[RawFd]) -> Result<(), Errno> {
    let mut first = 3u32;
    for &fd in keep.iter().filter(|&&fd| fd >= 3) {
        let fd = fd as u32;
        if fd > first {
            close_range(first, fd - 1)?;
        }
        first = fd + 1;
    }
    close_range(first, u32::MAX)
}

fn close_range(first: u32, last: u32) -> Result<(), Errno> {
    // SAFETY: closes by number. Owners of these descriptors are not used any more: the callers
    // are about to exec, or keep what they own.
    check(unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) })?;
    Ok(())
}

/// Whether the descriptor is an io_uring instance: for any other file the kernel answers
/// EOPNOTSUPP, and this operation with no room for an answer has no effect on a ring.
pub fn is_ring(fd: BorrowedFd) -> bool {
    const IORING_REGISTER_PROBE: u32 = 8;
    // SAFETY: a null array of no entries.
    let result = check(unsafe {
        libc::syscall(libc::SYS_io_uring_register, fd.as_raw_fd(), IORING_REGISTER_PROBE, 0, 0)
    });
    // ENOSYS, EPERM: there are no rings here, or an outer filter forbids their use too.
    !matches!(result, Err(Errno::EOPNOTSUPP | Errno::ENOSYS | Errno::EPERM))
}

/// Whether the descriptor is a unix socket that takes a destination with each datagram.
pub fn is_unix_datagram(fd: BorrowedFd) -> bool {
    option(fd, libc::SO_DOMAIN) == Ok(libc::AF_UNIX)
        && option(fd, libc::SO_TYPE) == Ok(libc::SOCK_DGRAM)
}

fn option(fd: BorrowedFd, name: libc::c_int) -> Result<libc::c_int, Errno> {
    let mut value: libc::c_int = 0;
    let mut length = size_of_val(&value) as libc::socklen_t;
    // SAFETY: the kernel writes at most length bytes to value.
    Errno::result(unsafe {
        libc::getsockopt(
            fd.as_raw_fd(),
            libc::SOL_SOCKET,
            name,
            (&raw mut value).cast(),
            &raw mut length,
        )
    })?;
    Ok(value)
}
