//! Calls that a filter hands over, decided about and carried out on the caller's behalf.
//!
//! Each is copied once, decided about as copied, and carried out on a duplicate of the caller's
//! socket. None is ever left to the kernel: it would read again what was checked here.

mod broker;
mod caller;
mod connect;
mod control;
mod create;
mod handover;
mod listen;
mod pool;
mod prepare;
mod send;
mod socket;
mod watch;

use std::os::fd::OwnedFd;
use std::sync::Arc;

use nix::errno::Errno;

pub use handover::Handover;
pub use prepare::Prepared;

use crate::network::address::{Address, Sockaddr};
use crate::network::decide::{self, Decision};
use crate::network::prefix::Ports;
use crate::network::socket::Socket;
use crate::policy::Network;
use crate::report::events::{Denied, Events};
use crate::report::{Context, Result, Stage};
use crate::sys::notify::{Call, Fault, Listener};
use crate::sys::seccomp::SockFilter;
use crate::sys::thread;
use broker::Broker;
use caller::{Caller, Last};
use pool::Pool;
use send::Sending;
use socket::Duplicate;
use watch::{Seat, Watch};

/// What the plan leaves to the supervisor.
pub struct Supervision {
    pub network: Option<Network>,
    pub connect_tcp: Option<Ports>,
    pub bind_tcp: Option<Ports>,
    pub events: Option<Events>,
    /// Whether pidfd_getfd(2) is refused.
    pub brokered: bool,
}

/// What the supervisor decides by.
pub struct Policy {
    /// None: only what Landlock's rules leave open is decided about.
    network: Option<decide::Policy>,
    /// Landlock's rule for bind(2), which `listen` could get around.
    bind_tcp: Option<Ports>,
    /// What datagram sockets may receive.
    receive: Vec<SockFilter>,
    /// Whether the supervisor makes the sockets.
    brokered: bool,
    events: Option<Events>,
}

impl Policy {
    fn network(&self) -> std::result::Result<&decide::Policy, Errno> {
        self.network.as_ref().ok_or(Errno::EACCES)
    }

    /// The address to make the call with, if it is made with one, or its errno; what is denied is
    /// reported.
    fn settle(
        &self,
        decision: Decision,
        call: &Call,
        name: &'static str,
        socket: Socket,
        address: &Address,
    ) -> std::result::Result<Option<Sockaddr>, Errno> {
        match decision {
            Decision::Allow(to) => Ok(to),
            Decision::Deny(errno) => {
                self.report(call, name, socket, address);
                Err(errno)
            }
        }
    }

    fn report(&self, call: &Call, syscall: &'static str, socket: Socket, destination: &Address) {
        if let (Some(events), Some(network)) = (&self.events, &self.network) {
            let rule = network.missed(syscall, socket, destination);
            events.denied(&Denied { syscall, thread: call.thread, destination, rule });
        }
    }
}

pub struct Supervisor {
    listener: Listener,
    policy: Policy,
    pool: Pool,
    watch: Watch,
    /// Where descriptors of the workload's cannot be duplicated.
    broker: Option<Broker>,
}

impl Supervisor {
    /// Starts to serve, for as long as this process lives. `procfs` numbers threads as this process
    /// does.
    pub fn start(listener: Listener, policy: Policy, procfs: OwnedFd) -> Result<()> {
        thread::handle_wake().context(Stage::Init, "sigaction")?;
        let watch = Watch::new(procfs)?;
        let broker = policy.brokered.then(Broker::default);
        let supervisor =
            Box::leak(Box::new(Self { listener, policy, pool: Pool::default(), watch, broker }));
        // It also looks after brokered sockets that connect without blocking.
        if supervisor.broker.is_some() {
            Watch::begin(supervisor).context(Stage::Init, "start the watch")?;
        }
        pool::start(supervisor)
    }

    /// The result to answer with: none if that has been done.
    fn carry_out(
        &self,
        call: &Call,
        work: &mut Work,
        may_block: bool,
    ) -> std::result::Result<Option<i64>, Fault> {
        #[cfg(feature = "planted-panic")]
        assert!(call.number != libc::SYS_listen as i32 || call.arguments[1] != 4711, "planted");
        let mut caller = Caller::new(self, call, &mut work.last)?;
        let sending = Sending { supervisor: self, call, seat: &work.seat, may_block };
        match call.number.into() {
            libc::SYS_connect => connect::connect(self, &mut caller, call, &work.seat, may_block)?,
            libc::SYS_bind => connect::bind(self, &mut caller, call)?,
            libc::SYS_listen => listen::listen(self, &mut caller, call)?,
            libc::SYS_socket => match &self.broker {
                Some(broker) => return broker.create(self, &caller, call),
                None => return create::socket(self, &caller, call),
            },
            libc::SYS_sendto => return sending.sendto(&mut caller).map(Some),
            libc::SYS_sendmsg => return sending.sendmsg(&mut caller).map(Some),
            libc::SYS_sendmmsg => return sending.sendmmsg(&mut caller).map(Some),
            _ => return Err(Errno::EACCES.into()),
        }
        Ok(Some(0))
    }

    /// After a call that connects or listens. The watch goes on as long as a brokered socket is
    /// connecting.
    fn settle(&self, socket: &Duplicate) -> std::result::Result<(), Errno> {
        if let Some(broker) = &self.broker
            && broker.settle(socket)?
        {
            self.watch.look_again();
        }
        Ok(())
    }
}

/// What a supervisor thread has for itself.
struct Work {
    seat: Arc<Seat>,
    last: Option<Last>,
}
