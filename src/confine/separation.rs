//! What keeps the workload off the unfiltered helpers outside, should it find an old procfs, and
//! off the caller's keys.

use nix::errno::Errno;
use nix::sched::{CloneFlags, unshare};

use super::group::Grouped;
use crate::namespaces::id_map::{self, Procfs};
use crate::plan::Plan;
use crate::report::{Context, Error, Result, Stage, operation};
use crate::sys::privilege;

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
    match procfs {
        Some(procfs) if plan.own_user_namespace => {
            unshare(CloneFlags::CLONE_NEWUSER).context(Stage::Namespaces, operation::UNSHARE)?;
            id_map::write_own(&procfs, plan.ids)
        }
        _ => Ok(()),
    }
}
