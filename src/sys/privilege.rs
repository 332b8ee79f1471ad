//! Privilege switches that nix and caps lack.

use nix::errno::Errno;

use super::check;

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

/// Leaves the caller's session keyring for a new, empty one.
pub fn join_new_session_keyring() -> Result<(), Errno> {
    const KEYCTL_JOIN_SESSION_KEYRING: libc::c_int = 1;
    let anonymous = std::ptr::null::<libc::c_char>();
    // SAFETY: a null name is allowed.
    check(unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, anonymous) })?;
    Ok(())
}
