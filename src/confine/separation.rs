//! What keeps the workload off the unfiltered helpers outside, should it find an old procfs, and
//! off the caller's keys.

use nix::errno::Errno;
use nix::sched::{CloneFlags, unshare};

use super::group::Grouped;
use crate::namespaces::id_map::{self, Procfs};
use crate::plan::{Plan, Route};
use crate::report::{Context, Error, Result, Stage, operation};
use crate::sys::privilege;
use crate::sys::process::{self, Change, Fork};

/// The process shares no session keyring, and no user namespace with helpers outside or will be
/// in a Landlock domain.
pub struct Separated(());

pub fn separate(_: Grouped, plan: &Plan, procfs: Option<Procfs>) -> Result<Separated> {
    leave_user_namespace(plan, procfs)?;
    if !plan.keys_denied {
        match privilege::join_new_session_keyring() {
            // No keys in this kernel, or an outer filter keeps the workload off them too.
            Ok(()) | Err(Errno::ENOSYS | Errno::EPERM) => {}
            Err(errno) => return Err(Error::new(Stage::Confine, operation::KEYRING, errno)),
        }
    }
    Ok(Separated(()))
}

/// On the direct route the helpers that the caller runs beside us are in the same user namespace,
/// and a process may read the memory of any dumpable one there: so a further one is made.
fn leave_user_namespace(plan: &Plan, procfs: Option<Procfs>) -> Result<()> {
    if plan.route == Route::Nested {
        return Ok(());
    }
    let enter = || match &procfs {
        Some(procfs) if plan.own_user_namespace => {
            unshare(CloneFlags::CLONE_NEWUSER).context(Stage::Confine, operation::SEPARATION)?;
            id_map::write_own(procfs, plan.ids)
        }
        _ => Err(Error::new(Stage::Confine, operation::SEPARATION, Errno::EPERM)),
    };
    // There is no way back out of a namespace whose maps a security module refuses: a child tries.
    // The domain does where it fails.
    if plan.domain.is_some() && !succeeds(enter)? {
        return Ok(());
    }
    enter()
}

/// Whether a child of this process can do it.
fn succeeds(attempt: impl Fn() -> Result<()>) -> Result<bool> {
    match process::fork(CloneFlags::empty()).context(Stage::Confine, operation::FORK)? {
        Fork::Child => process::exit(attempt().is_err().into()),
        Fork::Parent(child) => process::wait(Some(child), false)
            .map(|(_, change)| change == Change::Exited(0))
            .context(Stage::Confine, "waitid"),
    }
}
