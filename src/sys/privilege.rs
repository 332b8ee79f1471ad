//! Privilege switches that nix and caps lack.

use std::os::fd::{FromRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::stat::fstat;
use nix::unistd::{Uid, geteuid};

/// What a thread may do, and what of it goes through execve: capget(2), one bit a capability.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Capabilities {
    pub effective: u64,
    pub permitted: u64,
    pub inheritable: u64,
}

/// `struct __user_cap_header_struct`, for the calling thread.
#[repr(C)]
struct Header {
    version: u32,
    pid: i32,
}

/// `struct __user_cap_data_struct`: of two, the first has the lower halves.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Half {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

const VERSION_3: Header = Header { version: 0x2008_0522, pid: 0 };

/// Those of this thread.
pub fn capabilities() -> Result<Capabilities, Errno> {
    let (mut header, mut halves) = (VERSION_3, [Half::default(); 2]);
    // SAFETY: the kernel reads one header, and writes two structures for this version.
    Errno::result(unsafe { libc::syscall(libc::SYS_capget, &mut header, &mut halves) })?;
    let whole =
        |half: fn(&Half) -> u32| u64::from(half(&halves[1])) << 32 | u64::from(half(&halves[0]));
    Ok(Capabilities {
        effective: whole(|half| half.effective),
        permitted: whole(|half| half.permitted),
        inheritable: whole(|half| half.inheritable),
    })
}

pub fn set_capabilities(capabilities: Capabilities) -> Result<(), Errno> {
    let Capabilities { effective, permitted, inheritable } = capabilities;
    let half = |shift: u32| Half {
        effective: (effective >> shift) as u32,
        permitted: (permitted >> shift) as u32,
        inheritable: (inheritable >> shift) as u32,
    };
    let (mut header, halves) = (VERSION_3, [half(0), half(32)]);
    // SAFETY: the kernel reads one header, and two structures for this version.
    Errno::result(unsafe { libc::syscall(libc::SYS_capset, &mut header, &halves) })?;
    Ok(())
}

/// Empties the set that execve adds to the permitted one.
pub fn clear_ambient() -> Result<(), Errno> {
    let clear = libc::PR_CAP_AMBIENT_CLEAR_ALL as libc::c_ulong;
    // SAFETY: takes integers only.
    Errno::result(unsafe { libc::prctl(libc::PR_CAP_AMBIENT, clear, 0, 0, 0) }).map(drop)
}

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

/// Whether this process's user is the global root, however this user namespace numbers it: the owner
/// of the one inode that the kernel has made, when it booted, for anonymous files.
pub fn is_global_root() -> Result<bool, Errno> {
    // SAFETY: takes integers only.
    let fd = Errno::result(unsafe { libc::eventfd(0, libc::EFD_CLOEXEC) })?;
    // SAFETY: a new descriptor that nobody else owns.
    let anonymous = unsafe { OwnedFd::from_raw_fd(fd) };
    Ok(Uid::from_raw(fstat(&anonymous)?.st_uid) == geteuid())
}
