//! connect(2) and bind(2): the address decides.

use nix::errno::Errno;

use super::Supervisor;
use super::caller::Caller;
use super::socket::Duplicate;
use super::watch::Seat;
use crate::network::address::Address;
use crate::network::decide::Decision;
use crate::network::decode::{self, LONGEST};
use crate::network::socket::Socket;
use crate::sys::notify::{Call, Fault};
use crate::sys::socket;

/// Connects the caller's socket, or disconnects it.
pub fn connect(
    supervisor: &Supervisor,
    caller: &mut Caller,
    call: &Call,
    seat: &Seat,
    may_block: bool,
) -> Result<(), Fault> {
    let (socket, address) = arguments(caller, call, decode::Call::Connect)?;
    let network = supervisor.policy.network()?;
    let decision = network.connect(socket.kind, address);
    // It sends nothing: getaddrinfo asks for a source address by it, for each that it has found.
    if let (Decision::Deny(errno), Socket::Udp(_)) = (decision, socket.kind) {
        return Err(errno.into());
    }
    let to = supervisor.policy.settle(decision, call, "connect", socket.kind, &address)?;
    let to = to.ok_or(Errno::EACCES)?;
    caller.check_waiting()?;
    let connect = || socket::connect(&socket, to.bytes());
    let result = match socket.may_block()? {
        false => connect().map_err(Fault::from),
        true if may_block => seat.block(&supervisor.watch, call, connect),
        true => Err(Errno::EAGAIN.into()),
    };
    supervisor.settle(&socket)?;
    result
}

pub fn bind(supervisor: &Supervisor, caller: &mut Caller, call: &Call) -> Result<(), Errno> {
    let policy = &supervisor.policy;
    let (socket, address) = arguments(caller, call, decode::Call::Bind)?;
    let decision =
        policy.network()?.bind(socket.kind, address, supervisor.watch.unprivileged_port());
    let to = policy.settle(decision, call, "bind", socket.kind, &address)?.ok_or(Errno::EACCES)?;
    caller.check_waiting()?;
    match (socket::bind(&socket, to.bytes()), &supervisor.broker) {
        // By one that the workload has closed, it may be.
        (Err(Errno::EADDRINUSE), Some(broker)) => {
            broker.drop_unused();
            caller.check_waiting()?;
            socket::bind(&socket, to.bytes())
        }
        (result, _) => result,
    }
}

/// The socket and the address of connect and bind, each looked at once.
fn arguments(
    caller: &mut Caller,
    call: &Call,
    kind: decode::Call,
) -> Result<(Duplicate, Address), Errno> {
    let [fd, address, length, ..] = call.arguments;
    let socket = Duplicate::of(caller, fd as i32).map_err(|errno| match (errno, kind) {
        (Errno::EISCONN | Errno::EALREADY, decode::Call::Bind) => Errno::EINVAL,
        (Errno::EALREADY, _) => Errno::EISCONN,
        _ => errno,
    })?;
    let mut bytes = [0; LONGEST];
    let bytes = &mut bytes[..decode::length(length)?];
    caller.read(address, bytes)?;
    let address = decode::decode(kind, socket.kind, bytes)?;
    Ok((socket, address))
}
