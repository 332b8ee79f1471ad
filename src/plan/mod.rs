//! What will happen here: the policy, and what this process may do, as plain data.
//!
//! Everything that can be refused for a reason the caller can fix is refused here, before the
//! first step that cannot be taken back.

mod descriptors;
pub mod domain;

use std::ffi::{CString, OsString};
use std::os::fd::RawFd;
use std::os::unix::ffi::OsStringExt;

use caps::Capability;
use nix::unistd::{Gid, Uid, getegid, geteuid, getgid, getuid};

use crate::confine::capabilities;
use crate::confine::exec::Program;
use crate::filters::{Groups, Notify};
use crate::host;
use crate::init::tree::Tree;
use crate::namespaces::{Namespaces, Route, proc};
use crate::network::hosts;
use crate::network::prefix::Ports;
use crate::notify::Supervision;
use crate::policy::{self, Isolation, Network, Policy, Proc};
use crate::report::events::Events;
use crate::report::{Context, Error, Result, Stage, operation};
use crate::sys::seccomp::SockFilter;
use crate::sys::terminal::Terminal;
use crate::sys::{landlock, privilege};
use domain::{Domain, Landlock, Separation};

/// The ids of the caller, which are mapped to themselves.
#[derive(Clone, Copy, Debug)]
pub struct Ids {
    pub user: Uid,
    pub group: Gid,
}

/// How the workload is kept apart.
pub enum Level {
    Namespaces(Namespaces),
    /// No namespace: a Landlock domain with a signal scope.
    Domain,
}

/// What is told about the run before it begins.
pub struct Report {
    pub fd: Option<RawFd>,
    pub abi: u32,
    /// Why there are no namespaces, where the caller left the choice.
    pub refusal: Option<String>,
    /// What was asked for and cannot be enforced.
    pub missing: Vec<String>,
}

pub struct Plan {
    pub level: Level,
    pub ids: Ids,
    pub die_with_parent: bool,
    /// For PID 1 and the workload only as long as the stub's process group is in the foreground.
    pub terminal: Option<Terminal>,
    pub domain: Option<Domain>,
    pub filters: Vec<&'static [SockFilter]>,
    /// The calls that the supervisor decides about.
    pub notify: Option<Notify>,
    /// What a supervisor decides by, if there is one.
    pub supervision: Option<Supervision>,
    /// What the workload keeps, 0 to 2 included, sorted.
    pub keep_fds: Vec<RawFd>,
    pub program: Program,
    pub report: Report,
}

impl Plan {
    pub fn new(policy: Policy) -> Result<Self> {
        let ids = Ids { user: geteuid(), group: getegid() };
        if ids.user != getuid() || ids.group != getgid() {
            let what = "real and effective ids differ: sbx-init must not be setuid or setgid";
            return Err(Error::new(Stage::Plan, "credentials", what));
        }

        let (level, refusal) = level(&policy, ids)?;
        let mut groups = policy.groups;
        let conflict = |what| Error::new(Stage::Options, operation::NEEDED_GROUP, what);
        need_groups(&mut groups, &level, &policy).map_err(conflict)?;

        let mut keep_fds = policy.keep_fds;
        keep_fds.extend(0..=2);
        keep_fds.sort_unstable();
        keep_fds.dedup();
        for fd in &keep_fds {
            descriptors::check(*fd, groups.contains("unix"), policy.network.is_some())?;
        }
        if let Some(fd) = policy.status_fd {
            descriptors::check_own(fd, "--status-fd", &keep_fds)?;
        }
        if let Some(policy::Events::Descriptor(fd)) = policy.events {
            descriptors::check_own(fd, "--events-fd", &keep_fds)?;
        }

        let separation = match &level {
            Level::Domain => Separation::None,
            Level::Namespaces(namespaces) if namespaces.shares_user_namespace() => {
                Separation::SharedUserNamespace
            }
            Level::Namespaces(_) => Separation::Namespaces,
        };
        let Landlock { abi, domain, mut missing } =
            Landlock::plan(&policy.rules, separation, landlock::abi())?;
        if policy.network.as_ref().is_some_and(|network| network.hosts && network.has_names()) {
            match (&level, &domain) {
                (Level::Domain, _) => missing
                    .push("/etc/hosts with the pinned names: needs a mount namespace".to_owned()),
                (Level::Namespaces(_), Some(domain)) => domain.check_not_covered(&hosts::PATHS)?,
                (Level::Namespaces(_), None) => {}
            }
        }
        let ports = |ports: Vec<u16>| (!ports.is_empty()).then(|| Ports::of(&ports));
        let mut supervision = Supervision {
            network: policy.network,
            connect_tcp: ports(policy.rules.connect_tcp),
            bind_tcp: ports(policy.rules.bind_tcp),
            events: policy.events.map(events).transpose()?,
            brokered: false,
        };
        let notify = match &supervision.network {
            Some(network) if network.has_datagrams() => Some(Notify::Udp),
            Some(_) => Some(Notify::Tcp),
            None => supervision.bind_tcp.as_ref().map(|_| Notify::Listen),
        };
        let notify = match (notify, notify.map(|_| host::can_duplicate_sockets())) {
            (notify, None | Some(Ok(()))) => notify,
            (Some(Notify::Tcp), _) => {
                if matches!(&level, Level::Namespaces(own) if own.proc != Proc::Fresh) {
                    let what =
                        "pidfd_getfd is refused, and what stands in for it needs --proc fresh";
                    return Err(Error::new(Stage::Plan, "--proc", what));
                }
                supervision.brokered = true;
                Some(Notify::BrokerTcp)
            }
            (_, Some(Err(error))) => return Err(error),
        };
        if let Some(notify) = notify {
            let privileged =
                matches!(&level, Level::Namespaces(own) if !own.shares_user_namespace());
            host::may_trace(privileged)?;
            // The broker reads by way of /proc; listen points to nothing.
            if notify != Notify::Listen && !supervision.brokered {
                host::can_read_memory()?;
            }
        }
        if notify == Some(Notify::Udp) {
            host::can_send_once()?;
        }

        Ok(Self {
            level,
            ids,
            die_with_parent: policy.die_with_parent,
            terminal: Terminal::of_standard(),
            domain,
            filters: groups.programs(),
            notify,
            supervision: notify.map(|_| supervision),
            keep_fds,
            program: Program::new(policy.command.into_iter().map(c_string).collect::<Result<_>>()?),
            report: Report { fd: policy.status_fd, abi, refusal, missing },
        })
    }
}

/// The level of isolation; with it, if it was not the first choice, why that was refused.
fn level(policy: &Policy, ids: Ids) -> Result<(Level, Option<String>)> {
    let namespaces = || -> Result<Namespaces> {
        let direct = capabilities::holds(Capability::CAP_SYS_ADMIN, Stage::Plan)?;
        Ok(Namespaces {
            route: if direct { Route::Direct } else { Route::Nested },
            ids,
            proc: policy.proc.unwrap_or(Proc::Fresh),
            reenter: descriptors::procfs_working_directory()?,
            own_user_namespace: direct && host::has_user_namespaces(ids)?,
        })
    };
    match policy.isolation {
        Isolation::Namespaces => Ok((Level::Namespaces(namespaces()?), None)),
        Isolation::Domain => domain(policy).map(|level| (level, None)),
        Isolation::Auto => {
            let namespaces = namespaces()?;
            match host::refusal(&namespaces)? {
                None => Ok((Level::Namespaces(namespaces), None)),
                refusal => domain(policy).map(|level| (level, refusal)),
            }
        }
    }
}

/// What can only be had in namespaces is refused.
fn domain(policy: &Policy) -> Result<Level> {
    if matches!(policy.proc, Some(Proc::Fresh | Proc::Hide)) {
        let what =
            "a /proc of the workload's own needs namespaces: leave --proc out, or --proc keep";
        return Err(Error::new(Stage::Plan, "--isolation domain", what));
    }
    descriptors::procfs_working_directory()?;
    Tree::is_visible()?;
    if privilege::is_global_root().context(Stage::Plan, "eventfd")?
        && let Some(entry) = proc::writable_host_entry()
    {
        let what = format!("{} is writable, and no capability is asked for that", entry.display());
        return Err(Error::new(Stage::Plan, operation::GLOBAL_ROOT, what));
    }
    Ok(Level::Domain)
}

fn need_groups(
    groups: &mut Groups,
    level: &Level,
    policy: &Policy,
) -> std::result::Result<(), String> {
    if let Level::Domain = level {
        // Stub and reaper are in the workload's namespaces, and of its user.
        for group in ["trace", "limits", "userns"] {
            groups.require(group, "--isolation domain")?;
        }
        if !policy.rules.bind_tcp.is_empty() {
            // What outlives the supervisor for a moment must not take its place. As long as there is
            // one, another is refused anyway.
            groups.require("listener", "--bind-tcp with --isolation domain")?;
        }
    }
    let datagrams = policy.network.as_ref().is_some_and(Network::has_datagrams);
    if policy.network.is_some() {
        // What can be created can be reached, but for what the supervisor decides about.
        let own: &[_] = if datagrams { &["fast-open", "icmp-errors"] } else { &["udp"] };
        for group in ["families", "unix", "reroute", "listener", "limits"].iter().chain(own) {
            groups.require(group, "a network policy")?;
        }
        if datagrams && groups.contains("udp") {
            return Err("a udp:// rule needs UDP sockets: leave --deny udp out".to_owned());
        }
    }
    let rules = &policy.rules;
    for (ports, of) in [(&rules.connect_tcp, "--connect-tcp"), (&rules.bind_tcp, "--bind-tcp")] {
        // Landlock's rules know TCP, and neither its fast open, nor MPTCP, nor SMC.
        if !ports.is_empty() {
            for group in ["families", "fast-open", "ulp"] {
                groups.require(group, of)?;
            }
            if !datagrams {
                groups.suggest("udp");
            }
        }
    }
    Ok(())
}

fn events(events: policy::Events) -> Result<Events> {
    match events {
        policy::Events::Descriptor(fd) => Events::to_descriptor(fd),
        policy::Events::File(path) => Events::to_file(&path),
    }
}

fn c_string(word: OsString) -> Result<CString> {
    // argv cannot hold a NUL; what --args read is split at them.
    CString::new(word.into_vec())
        .map_err(|_| Error::new(Stage::Plan, "command", "an argument contains a NUL byte"))
}
