//! What keeps the workload off the unfiltered helpers outside, should it find an old procfs.

use nix::sched::{CloneFlags, unshare};

use super::group::Grouped;
use crate::namespaces::id_map::{self, Procfs};
use crate::plan::Ids;
use crate::report::{Context, Result, Stage, operation};

/// The process shares no user namespace with helpers outside, or will be in a Landlock domain.
pub struct Separated(());

/// `procfs` is given where the workload gets a user namespace of its own: on the direct route the
/// helpers that the caller runs beside us are in the same one, where a process may read the memory
/// of any that is dumpable.
pub fn separate(_: Grouped, ids: Ids, procfs: Option<Procfs>) -> Result<Separated> {
    if let Some(procfs) = procfs {
        unshare(CloneFlags::CLONE_NEWUSER).context(Stage::Namespaces, operation::UNSHARE)?;
        id_map::write_own(&procfs, ids)?;
    }
    Ok(Separated(()))
}
