//! socket(2): a socket that is not left to the kernel is made here, and handed in.

use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;

use super::Supervisor;
use super::caller::Caller;
use crate::sys::notify::{Call, Fault};
use crate::sys::{socket, thread};

/// `SOCK_TYPE_MASK` of linux/net.h: the rest are flags.
const TYPE: i32 = 0xf;

/// Makes a UDP socket that receives from allowed peers only, from its first packet on.
pub fn socket(supervisor: &Supervisor, caller: &Caller, call: &Call) -> Result<Option<i64>, Fault> {
    let [domain, kind, protocol, ..] = call.arguments.map(|argument| argument as i32);
    match (domain, kind & TYPE, protocol) {
        (libc::AF_INET | libc::AF_INET6, libc::SOCK_DGRAM, 0 | libc::IPPROTO_UDP) => {}
        // ICMP echo, for one, which no rule can name.
        _ => return Err(Errno::EACCES.into()),
    }
    // A socket belongs to the network namespace of who makes it.
    if !caller.shares_network()? {
        return Err(Errno::EACCES.into());
    }
    let socket = socket::create(domain, kind, protocol)?;
    socket::filter_for_good(&socket, &supervisor.policy.receive)?;
    hand_over(supervisor, call, socket, kind & libc::SOCK_CLOEXEC != 0)
}

/// Ends a call with the number under which the caller has the descriptor from now on.
pub fn hand_over(
    supervisor: &Supervisor,
    call: &Call,
    own: OwnedFd,
    close_on_exec: bool,
) -> Result<Option<i64>, Fault> {
    let hand = || supervisor.listener.hand_over(call.id, own.as_fd(), close_on_exec);
    thread::without_wake(hand).map_err(Fault::from)
}
