//! Privilege switches that nix and caps lack.

use std::os::fd::{FromRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::stat::fstat;
use nix::unistd::Uid;

/// Removes every capability this kernel knows from the bounding set: needs CAP_SETPCAP.
pub fn empty_bounding_set() -> Result<(), Errno> {
    for capability in 0..=63 as libc::c_ulong {
        // SAFETY: takes integers only.
        match Errno::result(unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) }) {
            Ok(_) => {}
            // Beyond the last one.
            Err(Errno::EINVAL) if capability > 0 => return Ok(()),
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

/// Sets these securebits beside those that are set (see capabilities(7)): needs CAP_SETPCAP.
pub fn add_securebits(bits: libc::c_ulong) -> Result<(), Errno> {
    // SAFETY: takes integers only.
    let now = Errno::result(unsafe { libc::prctl(libc::PR_GET_SECUREBITS, 0, 0, 0, 0) })?;
    // SAFETY: as above.
    Errno::result(unsafe {
        libc::prctl(libc::PR_SET_SECUREBITS, now as libc::c_ulong | bits, 0, 0, 0)
    })?;
    Ok(())
}

/// How this user namespace numbers the global root: the owner of the one inode that the kernel has
/// made, when it booted, for anonymous files.
pub fn global_root() -> Result<Uid, Errno> {
    // SAFETY: takes integers only.
    let fd = Errno::result(unsafe { libc::eventfd(0, libc::EFD_CLOEXEC) })?;
    // SAFETY: a new descriptor that nobody else owns.
    let anonymous = unsafe { OwnedFd::from_raw_fd(fd) };
    Ok(Uid::from_raw(fstat(&anonymous)?.st_uid))
}
