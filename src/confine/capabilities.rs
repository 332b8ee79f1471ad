//! Capabilities: none, in all five sets, where CAP_SETPCAP lets the bounding set be emptied.

use caps::{CapSet, Capability};
use nix::errno::Errno;
use nix::sys::prctl;

use super::separation::Separated;
use crate::report::{Context, Error, Result, Stage};
use crate::sys::privilege;

/// No capability is held, and no_new_privs keeps it so over execve.
pub struct Powerless(());

/// Each bit with its lock, but for SECBIT_KEEP_CAPS, which stays off: no capabilities for user id
/// 0, none at a change of user ids, no ambient set (linux/securebits.h).
const SECUREBITS: libc::c_ulong = 0b1110_1111;

pub fn empty(_: Separated) -> Result<Powerless> {
    if caps::has_cap(None, CapSet::Effective, Capability::CAP_SETPCAP)
        .map_err(|_| failed(Stage::Confine, "capget"))?
    {
        privilege::empty_bounding_set().context(Stage::Confine, "PR_CAPBSET_DROP")?;
        privilege::add_securebits(SECUREBITS).context(Stage::Confine, "PR_SET_SECUREBITS")?;
    }
    drop_held(Stage::Confine)?;
    prctl::set_no_new_privs().context(Stage::Confine, "PR_SET_NO_NEW_PRIVS")?;
    // Without CAP_SETPCAP the bounding set may not be empty. It only limits what a program file or
    // user id 0 gives at execve, which is nothing as long as this holds.
    match prctl::get_no_new_privs() {
        Ok(true) => Ok(Powerless(())),
        _ => Err(Error::new(Stage::Confine, "no_new_privs", "is not set")),
    }
}

/// Empties the sets that a process acts with: ambient, effective, permitted, inheritable.
pub fn drop_held(stage: Stage) -> Result<()> {
    caps::clear(None, CapSet::Ambient).map_err(|_| failed(stage, "PR_CAP_AMBIENT"))?;
    // Clearing permitted clears effective too.
    caps::clear(None, CapSet::Permitted).map_err(|_| failed(stage, "capset"))?;
    caps::clear(None, CapSet::Inheritable).map_err(|_| failed(stage, "capset"))
}

/// caps gives prose; the errno of its system call is still there.
fn failed(stage: Stage, operation: &'static str) -> Error {
    Error::new(stage, operation, Errno::last())
}
