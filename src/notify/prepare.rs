//! What is made for the supervisor: before the workload is forked, and before it execs.

use std::fs;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;

use super::watch::read;
use super::{Policy, Supervision};
use crate::namespaces::hosts;
use crate::network::pins::{self, Answer, Destinations};
use crate::network::resolve::Resolution;
use crate::network::{decide, hosts as files, receive};
use crate::plan::Level;
use crate::policy::{Network, Proc};
use crate::report::{Context, Error, Result, Stage, operation, say};
use crate::sys::mount::detached_procfs;
use crate::sys::seccomp::SockFilter;
use crate::sys::socket;

pub struct Prepared {
    pub supervision: Supervision,
    /// One that numbers threads as this process does.
    pub procfs: OwnedFd,
    /// Whether there is a mount namespace for a hosts file.
    can_mount: bool,
}

impl Prepared {
    /// In the namespaces that have been set up.
    pub fn new(supervision: Supervision, level: &Level) -> Result<Self> {
        let (own, can_mount) = match level {
            Level::Namespaces(namespaces) => (namespaces.proc == Proc::Fresh, true),
            Level::Domain => (true, false),
        };
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let procfs = match own {
            true => open("/proc", flags, Mode::empty()).context(Stage::Init, "open /proc")?,
            false => detached_procfs().context(Stage::Proc, operation::OWN_PROC)?,
        };
        Ok(Self { supervision, procfs, can_mount })
    }

    /// The descriptors that the supervisor needs.
    pub fn descriptors(&self) -> Vec<RawFd> {
        let mut fds = vec![self.procfs.as_raw_fd()];
        fds.extend(self.supervision.events.as_ref().map(|events| events.as_raw_fd()));
        fds
    }

    /// Begins to resolve the names, if there are any to be asked for.
    pub fn resolve(&self) -> Result<Option<&'static Resolution>> {
        let wanted = match &self.supervision.network {
            Some(network) => pins::wanted(&network.allow, &network.pins),
            None => Vec::new(),
        };
        let started = (!wanted.is_empty()).then(|| Resolution::start(&wanted)).transpose();
        started.context(Stage::Network, operation::PIN)
    }

    /// Freezes what the names mean, and lets the workload find it.
    pub fn policy(&mut self, answers: &[Answer]) -> Result<Policy> {
        let supervision = &mut self.supervision;
        let datagrams = supervision.network.as_ref().is_some_and(Network::has_datagrams);
        let network = match supervision.network.take() {
            None => None,
            Some(network) => Some(decide::Policy {
                binds: (!network.bind.is_empty()).then(|| network.bind.clone()),
                destinations: freeze(network, answers, &self.procfs, self.can_mount)?,
                connect_tcp: supervision.connect_tcp.take(),
                bind_tcp: supervision.bind_tcp.clone(),
            }),
        };
        let receive = match &network {
            Some(network) if datagrams => receive_filter(&network.destinations)?,
            _ => Vec::new(),
        };
        Ok(Policy {
            network,
            receive,
            bind_tcp: supervision.bind_tcp.take(),
            brokered: supervision.brokered,
            events: supervision.events.take(),
        })
    }
}

/// The program that datagram sockets are made with.
fn receive_filter(destinations: &Destinations) -> Result<Vec<SockFilter>> {
    let too_much = |what| Error::new(Stage::Network, operation::RECEIVE_FILTER, what);
    let program = receive::program(destinations).map_err(too_much)?;
    // A socket has room for less where net.core.optmem_max says so.
    let socket = socket::create(libc::AF_INET, libc::SOCK_DGRAM, 0);
    let filtered = socket.and_then(|socket| socket::filter_for_good(socket, &program));
    filtered.context(Stage::Network, operation::RECEIVE_FILTER)?;
    Ok(program)
}

fn freeze(
    network: Network,
    answers: &[Answer],
    procfs: &OwnedFd,
    can_mount: bool,
) -> Result<Destinations> {
    let failed = |what: String| Error::new(Stage::Network, operation::PIN, what);
    let wants_hosts = network.hosts && network.has_names();
    let Network { allow, pins, names: options, .. } = network;
    let frozen = pins::freeze(allow, &pins, answers, options).map_err(failed)?;
    for (name, why) in frozen.unresolved {
        say(&format!("sbx-init: not resolved: {name}: {why}\n"));
    }
    if wants_hosts && can_mount {
        let own = read(procfs, "sys/kernel/hostname").unwrap_or_default();
        let nsswitch = fs::read("/etc/nsswitch.conf").unwrap_or_default();
        hosts::mount_over(files::texts(&frozen.names, own.trim(), &nsswitch))?;
    }
    Ok(frozen.destinations)
}
