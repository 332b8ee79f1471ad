//! Capabilities: none, in all five sets, where CAP_SETPCAP lets the bounding set be emptied.

// Its sets are hash sets: 7 kB of code, and a call for random numbers.
use caps::Capability;
use nix::sys::prctl;

use super::separation::Separated;
use crate::report::{Context, Error, Result, Stage};
use crate::sys::privilege::{self, Capabilities};

/// No capability is held, and no_new_privs keeps it so over execve.
pub struct Powerless(());

/// Each bit with its lock, but for SECBIT_KEEP_CAPS, which stays off: no capabilities for user id
/// 0, none at a change of user ids, no ambient set (linux/securebits.h).
const SECUREBITS: libc::c_ulong = 0b1110_1111;

pub fn empty(_: Separated) -> Result<Powerless> {
    if holds(Capability::CAP_SETPCAP, Stage::Confine)? {
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
    drop_held_but(0, stage)
}

/// The same, but keeps the capability to trace, if it is held: a process of the workload's that is
/// not dumpable would else have no call served.
pub fn drop_held_but_trace(stage: Stage) -> Result<()> {
    drop_held_but(Capability::CAP_SYS_PTRACE.bitmask(), stage)
}

fn drop_held_but(kept: u64, stage: Stage) -> Result<()> {
    privilege::clear_ambient().context(stage, "PR_CAP_AMBIENT")?;
    let held = match kept {
        0 => 0,
        _ => privilege::capabilities().context(stage, "capget")?.permitted & kept,
    };
    let left = Capabilities { effective: held, permitted: held, inheritable: 0 };
    privilege::set_capabilities(left).context(stage, "capset")
}

/// Whether this process can act with a capability.
pub fn holds(capability: Capability, stage: Stage) -> Result<bool> {
    let held = privilege::capabilities().context(stage, "capget")?;
    Ok(held.effective & capability.bitmask() != 0)
}
