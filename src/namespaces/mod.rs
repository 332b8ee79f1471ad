//! The new namespaces: who gets in, and what is mounted there.

pub mod id_map;
mod mountinfo;
pub mod mounts;
pub mod proc;

use nix::sched::CloneFlags;

use crate::plan::Route;

impl Route {
    /// What PID 1 is cloned with.
    pub fn namespaces(self) -> CloneFlags {
        let namespaces = CloneFlags::CLONE_NEWPID | CloneFlags::CLONE_NEWNS;
        match self {
            Self::Direct => namespaces,
            Self::Nested => namespaces | CloneFlags::CLONE_NEWUSER,
        }
    }
}
