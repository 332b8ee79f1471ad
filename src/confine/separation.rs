//! What keeps the workload off the unfiltered helpers outside, should it find an old procfs.

use nix::errno::Errno;
use nix::sched::{CloneFlags, unshare};

use super::group::Grouped;
use crate::namespaces::id_map::{self, Procfs};
use crate::plan::{Plan, Route};
use crate::report::{Error, Result, Stage, operation};

/// The process shares no user namespace with helpers outside, or will be in a Landlock domain.
pub struct Separated(());

/// On the direct route the helpers that the caller runs beside us are in the same user namespace,
/// and a process may read the memory of any dumpable one there: so a further one is made.
pub fn separate(_: Grouped, plan: &Plan, procfs: Option<Procfs>) -> Result<Separated> {
    if plan.route == Route::Nested {
        return Ok(Separated(()));
    }
    let unshared = match &procfs {
        Some(_) if plan.own_user_namespace => unshare(CloneFlags::CLONE_NEWUSER),
        _ => Err(Errno::EPERM),
    };
    match (unshared, procfs) {
        (Ok(()), Some(procfs)) => id_map::write_own(&procfs, plan.ids)?,
        (Err(errno), _) if plan.domain.is_none() => {
            return Err(Error::new(Stage::Confine, operation::SEPARATION, errno));
        }
        _ => {}
    }
    Ok(Separated(()))
}
