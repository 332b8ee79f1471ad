//! listen(2): the address that the socket is bound to decides.

use nix::errno::Errno;

use super::caller::Caller;
use super::socket::Duplicate;
use super::{Policy, Supervisor};
use crate::network::address::{Address, Endpoint};
use crate::network::decide::Decision;
use crate::network::decode;
use crate::network::socket::Socket;
use crate::sys::notify::Call;
use crate::sys::socket::{self, State};

/// Listens on the caller's socket, if it is bound to where that is allowed.
pub fn listen(supervisor: &Supervisor, caller: &mut Caller, call: &Call) -> Result<(), Errno> {
    let policy = &supervisor.policy;
    let [fd, backlog, ..] = call.arguments.map(|argument| argument as i32);
    let socket = match Duplicate::of(caller, fd) {
        Err(Errno::EALREADY) => return Ok(()),
        Err(Errno::EISCONN) => return Err(Errno::EINVAL),
        socket => socket?,
    };
    caller.check_waiting()?;
    // Landlock's rules are about TCP only; port 0 in one stands for any that the kernel chooses.
    let any_port = policy.bind_tcp.as_ref().is_some_and(|ports| ports.contains(0));
    match (socket.kind, &policy.network) {
        (Socket::Tcp(_), None) if any_port => return socket::listen(&socket, backlog),
        (Socket::Tcp(_), _) => {}
        (_, None) => return socket::listen(&socket, backlog),
        (Socket::Udp(_) | Socket::Netlink, Some(_)) => return Err(Errno::EOPNOTSUPP),
        (_, Some(_)) => return Err(Errno::EACCES),
    }
    let name = socket::name(&socket)?;
    let local = decode::decode(decode::Call::Bind, socket.kind, name.bytes())?;
    if !policy.may_listen(&socket, local) {
        policy.report(call, "listen", socket.kind, &local);
        return Err(Errno::EACCES);
    }
    // One that was connected and then disconnected has no port any more and shows its last one;
    // listen(2) would choose another. It is bound to that here: one that is bound cannot be again.
    match socket::bind(&socket, name.bytes()) {
        Ok(()) => {}
        // Nor one that is connected, which listen(2) would refuse, unless it is disconnected before.
        Err(Errno::EINVAL)
            if matches!(socket::state(&socket), State::Unconnected | State::Listening)
                && socket::name(&socket)?.bytes() == name.bytes() => {}
        Err(errno) => return Err(errno),
    }
    socket::listen(&socket, backlog)?;
    // Disconnected by another thread meanwhile. No caller chooses the port that it listens on until
    // here: that option is denied.
    if socket::name(&socket)?.bytes() != name.bytes() {
        socket::disconnect(&socket)?;
        return Err(Errno::EACCES);
    }
    supervisor.settle(&socket)
}

impl Policy {
    fn may_listen(&self, socket: &Duplicate, local: Address) -> bool {
        let Address::Endpoint(Endpoint { port: bound @ 1.., .. }) = local else { return false };
        let by_domain =
            self.bind_tcp.as_ref().is_none_or(|ports| ports.contains(bound) || ports.contains(0));
        let by_network = self
            .network
            .as_ref()
            .is_none_or(|network| matches!(network.listen(socket.kind, local), Decision::Allow(_)));
        by_domain && by_network
    }
}
