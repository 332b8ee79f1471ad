//! The new namespaces: who gets in, and what is mounted there.

pub mod hosts;
pub mod id_map;
mod mountinfo;
pub mod mounts;
pub mod proc;

use std::path::PathBuf;

use nix::errno::Errno;
use nix::sched::CloneFlags;

use crate::plan::Ids;
use crate::policy::Proc;
use crate::report::{Context, Result, Stage, operation};
use crate::sys::process::{self, Fork};
use id_map::Procfs;

/// Where the right to new namespaces comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Route {
    /// CAP_SYS_ADMIN is inherited: no user namespace is needed, and a new one would be refused a
    /// fresh /proc where bubblewrap, as root, covered parts of the old one.
    Direct,
    /// A new user namespace gives it.
    Nested,
}

#[derive(Clone)]
pub struct Namespaces {
    pub route: Route,
    pub ids: Ids,
    pub proc: Proc,
    /// Where to go again when /proc has been mounted: set if the working directory is on a procfs.
    pub reenter: Option<PathBuf>,
    /// Direct route only: whether the workload gets a further user namespace of its own.
    pub own_user_namespace: bool,
}

impl Namespaces {
    /// Whether unfiltered helpers outside are in the workload's user namespace.
    pub fn shares_user_namespace(&self) -> bool {
        self.route == Route::Direct && !self.own_user_namespace
    }

    /// Forks PID 1 into new namespaces.
    pub fn fork(&mut self) -> Result<Fork> {
        let namespaces = CloneFlags::CLONE_NEWPID | CloneFlags::CLONE_NEWNS;
        let nested = namespaces | CloneFlags::CLONE_NEWUSER;
        let fork = match self.route {
            Route::Direct => match process::fork(namespaces) {
                // The capability is one of a user namespace above this one's.
                Err(Errno::EPERM) => {
                    self.route = Route::Nested;
                    process::fork(nested)
                }
                fork => fork,
            },
            Route::Nested => process::fork(nested),
        };
        fork.context(Stage::Namespaces, operation::CLONE)
    }

    /// Sets the namespaces up, as their PID 1. Gives the procfs that the workload's own user
    /// namespace is mapped in: /proc may be covered then.
    pub fn set_up(&self) -> Result<Option<Procfs>> {
        let held = match self.route {
            Route::Nested => {
                id_map::write_own(&Procfs::Current, self.ids)?;
                None
            }
            Route::Direct if self.own_user_namespace => Some(Procfs::hold()?),
            Route::Direct => None,
        };
        mounts::make_private()?;
        proc::set_up(self)?;
        Ok(held)
    }
}
