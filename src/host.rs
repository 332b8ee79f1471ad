//! What this process may do here, found out by asking or by doing.

use caps::{CapSet, Capability};
use nix::sched::{CloneFlags, unshare};

use crate::namespaces::id_map::{self, Procfs};
use crate::plan::Ids;
use crate::report::{Context, Error, Result, Stage, operation};
use crate::sys::process::{self, End, Fork};

/// Whether this process can act with a capability.
pub fn holds(capability: Capability) -> Result<bool> {
    caps::has_cap(None, CapSet::Effective, capability)
        .map_err(|error| Error::new(Stage::Plan, "capget", error.to_string()))
}

/// Whether a user namespace can be made and the caller's ids mapped there. A child tries: there is
/// no way back out of one, and a security module may let it be made and then refuse the maps.
pub fn has_user_namespaces(ids: Ids) -> Result<bool> {
    let attempt = || {
        unshare(CloneFlags::CLONE_NEWUSER).context(Stage::Plan, operation::UNSHARE)?;
        id_map::write_own(&Procfs::Current, ids)
    };
    match process::fork(CloneFlags::empty()).context(Stage::Plan, operation::FORK)? {
        Fork::Child => process::exit(attempt().is_err().into()),
        Fork::Parent(child) => {
            process::end_of(child).map(|end| end == End::Exited(0)).context(Stage::Plan, "waitid")
        }
    }
}
