//! File descriptors by number: what was inherited, and what is left open.

use std::os::fd::{AsRawFd, BorrowedFd, RawFd};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;

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

/// Closes every descriptor but those of `keep`, which is sorted.
pub fn close_all_but(keep: &[RawFd]) -> Result<(), Errno> {
    let mut first = 0;
    for fd in keep.iter().map(|fd| *fd as u32) {
        if fd > first {
            close_range(first, fd - 1, 0)?;
        }
        first = fd + 1;
    }
    close_range(first, u32::MAX, 0)
}

/// Ends the sharing of a descriptor table, and closes nothing. unshare(2) would do as well, and is
/// denied by the filters of container engines.
pub fn take_own_table() -> Result<(), Errno> {
    const CLOSE_RANGE_UNSHARE: u32 = 2;
    close_range(u32::MAX, u32::MAX, CLOSE_RANGE_UNSHARE)
}

fn close_range(first: u32, last: u32, flags: u32) -> Result<(), Errno> {
    // SAFETY: closes by number. Owners of these descriptors are not used any more: the callers
    // are about to exec, or keep what they own.
    Errno::result(unsafe { libc::syscall(libc::SYS_close_range, first, last, flags) })?;
    Ok(())
}

/// Whether the descriptor is an io_uring instance. For any other file the kernel answers
/// EOPNOTSUPP, and this operation with no room for an answer has no effect on a ring.
pub fn is_ring(fd: BorrowedFd) -> bool {
    const IORING_REGISTER_PROBE: u32 = 8;
    // SAFETY: a null array of no entries.
    let result = Errno::result(unsafe {
        libc::syscall(libc::SYS_io_uring_register, fd.as_raw_fd(), IORING_REGISTER_PROBE, 0usize, 0)
    });
    match result {
        Err(Errno::EOPNOTSUPP) => false,
        // An outer filter forbids to ask. A ring may be older than that filter.
        Err(Errno::ENOSYS | Errno::EPERM | Errno::EACCES) => {
            let link = std::fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd()));
            link.map_or(true, |link| link.as_os_str() == "anon_inode:[io_uring]")
        }
        _ => true,
    }
}
