//! What the caller asked for, as plain data.

use std::ffi::OsString;
use std::os::fd::RawFd;

use crate::filters::Groups;

/// How the workload is kept apart.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Isolation {
    /// User, PID and mount namespace.
    #[default]
    Namespaces,
}

/// What the workload finds at /proc.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Proc {
    /// A new procfs of its own PID namespace.
    #[default]
    Fresh,
    /// The caller's.
    Keep,
    /// An empty read-only directory.
    Hide,
}

#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Policy {
    pub isolation: Isolation,
    pub proc: Proc,
    pub groups: Groups,
    /// Descriptors beyond 2 that the workload keeps.
    pub keep_fds: Vec<RawFd>,
    pub die_with_parent: bool,
    /// The command and its arguments: never empty.
    pub command: Vec<OsString>,
}
