//! What the caller asked for, as plain data.

use std::ffi::OsString;
use std::os::fd::RawFd;
use std::path::PathBuf;

use crate::filters::Groups;
use crate::network::pins::Options;
use crate::network::rule::{Bind, Pin, Protocol, Rule, Target};

/// How the workload is kept apart.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Isolation {
    /// User, PID and mount namespace.
    #[default]
    Namespaces,
    /// A Landlock domain with scopes, and no namespace.
    Domain,
    /// Namespaces, or where they cannot be had, a domain.
    Auto,
}

/// What the workload finds at /proc.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Proc {
    /// A new procfs of its own PID namespace.
    Fresh,
    /// The caller's.
    Keep,
    /// An empty read-only directory.
    Hide,
}

/// What a Landlock file rule allows at a path and below it: always reading, as landrun does.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct FileAccess {
    pub write: bool,
    pub execute: bool,
}

/// What a Landlock domain keeps its members from reaching outside of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Scopes {
    pub signal: bool,
    pub abstract_unix: bool,
}

/// What Landlock allows. A kind of access without any rule is not restricted.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Rules {
    pub files: Vec<(PathBuf, FileAccess)>,
    pub connect_tcp: Vec<u16>,
    pub bind_tcp: Vec<u16>,
    /// None: what this kernel has.
    pub scopes: Option<Scopes>,
    /// Go on without what this kernel cannot enforce, and report it.
    pub best_effort: bool,
}

/// What may be reached: nothing but what a rule names.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Network {
    pub allow: Vec<Rule>,
    pub bind: Vec<Bind>,
    pub pins: Vec<Pin>,
    pub names: Options,
    /// Whether the workload finds the names in a hosts file of its own.
    pub hosts: bool,
}

impl Network {
    pub fn has_names(&self) -> bool {
        self.allow.iter().any(|rule| matches!(rule.target, Target::Name(_)))
    }

    /// Whether datagrams may be sent anywhere.
    pub fn has_datagrams(&self) -> bool {
        self.allow.iter().any(|rule| rule.protocol == Protocol::Udp)
    }
}

/// Where each denied call is reported.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Events {
    Descriptor(RawFd),
    File(PathBuf),
}

#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Policy {
    pub isolation: Isolation,
    /// None: [`Proc::Fresh`] with namespaces, [`Proc::Keep`] without.
    pub proc: Option<Proc>,
    pub rules: Rules,
    /// None: the network is not restricted.
    pub network: Option<Network>,
    pub events: Option<Events>,
    pub groups: Groups,
    /// Descriptors beyond 2 that the workload keeps.
    pub keep_fds: Vec<RawFd>,
    pub die_with_parent: bool,
    /// Where JSON lines about the run are written.
    pub status_fd: Option<RawFd>,
    /// The command and its arguments: never empty.
    pub command: Vec<OsString>,
}
