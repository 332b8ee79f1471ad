//! Sockets: what they are, and the calls on them.

use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::ptr;

use nix::errno::Errno;

use super::seccomp::SockFilter;

/// An address as the kernel writes and reads it: `struct sockaddr` of any family.
pub struct Address {
    bytes: [u8; size_of::<libc::sockaddr_storage>()],
    length: libc::socklen_t,
}

impl Address {
    fn of(
        get: impl FnOnce(*mut libc::sockaddr, *mut libc::socklen_t) -> libc::c_int,
    ) -> Result<Self, Errno> {
        let mut bytes = [0; size_of::<libc::sockaddr_storage>()];
        let mut length = bytes.len() as libc::socklen_t;
        Errno::result(get(bytes.as_mut_ptr().cast(), &raw mut length))?;
        Ok(Self { bytes, length })
    }

    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..(self.length as usize).min(self.bytes.len())]
    }
}

/// The address that a socket is bound to.
pub fn name(socket: impl AsFd) -> Result<Address, Errno> {
    let fd = socket.as_fd().as_raw_fd();
    // SAFETY: Address::of gives a buffer and its length.
    Address::of(|address, length| unsafe { libc::getsockname(fd, address, length) })
}

fn peer(socket: impl AsFd) -> Result<Address, Errno> {
    let fd = socket.as_fd().as_raw_fd();
    // SAFETY: as above.
    Address::of(|address, length| unsafe { libc::getpeername(fd, address, length) })
}

/// `kind` with its flags, to which close-on-exec is added.
pub fn create(domain: i32, kind: i32, protocol: i32) -> Result<OwnedFd, Errno> {
    // SAFETY: takes integers only.
    let fd = unsafe { libc::socket(domain, kind | libc::SOCK_CLOEXEC, protocol) };
    // SAFETY: a new descriptor that nobody else owns.
    Errno::result(fd).map(|fd| unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Lets the socket receive only what the program returns non-zero for; nobody can take it away again.
pub fn filter_for_good(socket: impl AsFd, program: &[SockFilter]) -> Result<(), Errno> {
    let program = libc::sock_fprog {
        len: program.len().try_into().map_err(|_| Errno::EINVAL)?,
        filter: program.as_ptr().cast_mut().cast(),
    };
    // The kernel copies the instructions that it points to and does not change them.
    set_option(&socket, libc::SO_ATTACH_FILTER, &program)?;
    set_option(&socket, libc::SO_LOCK_FILTER, &1i32)
}

/// Sets an option of the level SOL_SOCKET to a value of the type that it has.
pub(super) fn set_option<T>(socket: impl AsFd, name: libc::c_int, value: &T) -> Result<(), Errno> {
    let length = size_of::<T>() as libc::socklen_t;
    let fd = socket.as_fd().as_raw_fd();
    // SAFETY: the kernel reads length bytes of value.
    let result =
        unsafe { libc::setsockopt(fd, libc::SOL_SOCKET, name, (&raw const *value).cast(), length) };
    Errno::result(result).map(drop)
}

pub fn bind(socket: impl AsFd, address: &[u8]) -> Result<(), Errno> {
    let (bytes, length) = (address.as_ptr().cast(), address.len() as libc::socklen_t);
    // SAFETY: the kernel reads length bytes of an address that has as many.
    Errno::result(unsafe { libc::bind(socket.as_fd().as_raw_fd(), bytes, length) }).map(drop)
}

pub fn connect(socket: impl AsFd, address: &[u8]) -> Result<(), Errno> {
    let (bytes, length) = (address.as_ptr().cast(), address.len() as libc::socklen_t);
    // SAFETY: as for bind.
    Errno::result(unsafe { libc::connect(socket.as_fd().as_raw_fd(), bytes, length) }).map(drop)
}

/// sendmsg(2), to where the socket is connected if there is no address.
pub fn send(
    socket: impl AsFd,
    address: &[u8],
    data: &[u8],
    control: &[u8],
    flags: i32,
) -> Result<usize, Errno> {
    let pointer = |bytes: &[u8]| match bytes {
        [] => ptr::null_mut(),
        bytes => bytes.as_ptr().cast_mut().cast::<libc::c_void>(),
    };
    let mut part = libc::iovec { iov_base: pointer(data), iov_len: data.len() };
    // SAFETY: all zeroes is a valid msghdr. What pads it in musl's is part of the kernel's lengths.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_name = pointer(address);
    message.msg_namelen = address.len() as libc::socklen_t;
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = pointer(control);
    message.msg_controllen = control.len() as _;
    let fd = socket.as_fd().as_raw_fd();
    // musl's own function copies control messages, and not many.
    // SAFETY: the kernel reads as many bytes of each as there are.
    let sent =
        Errno::result(unsafe { libc::syscall(libc::SYS_sendmsg, fd, &raw const message, flags) })?;
    Ok(sent as usize)
}

/// Sends what there is room for, and raises no SIGPIPE.
pub fn send_now(socket: impl AsFd, bytes: &[u8]) -> Result<usize, Errno> {
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    let fd = socket.as_fd().as_raw_fd();
    // SAFETY: the kernel reads so many bytes.
    let sent = Errno::result(unsafe { libc::send(fd, bytes.as_ptr().cast(), bytes.len(), flags) })?;
    Ok(sent as usize)
}

pub fn listen(socket: impl AsFd, backlog: i32) -> Result<(), Errno> {
    // SAFETY: takes integers only.
    Errno::result(unsafe { libc::listen(socket.as_fd().as_raw_fd(), backlog) }).map(drop)
}

/// Takes a TCP socket back to where it is neither connected nor listening: connect(2), AF_UNSPEC.
pub fn disconnect(socket: impl AsFd) -> Result<(), Errno> {
    connect(socket, &[0; size_of::<libc::sockaddr>()])
}

/// An option of the level SOL_SOCKET whose value is an int.
pub fn option(socket: impl AsFd, name: libc::c_int) -> Result<libc::c_int, Errno> {
    let mut value: libc::c_int = 0;
    let mut length = size_of_val(&value) as libc::socklen_t;
    // SAFETY: the kernel writes at most length bytes to value.
    Errno::result(unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            name,
            (&raw mut value).cast(),
            &raw mut length,
        )
    })?;
    Ok(value)
}

/// Whether the descriptor is a unix socket whose peer can still be chosen. A connected or listening
/// one is not, a datagram one always is.
pub fn can_reach_unix_paths(socket: impl AsFd) -> bool {
    let socket = socket.as_fd();
    if option(socket, libc::SO_DOMAIN).is_ok_and(|domain| domain != libc::AF_UNIX) {
        return false;
    }
    let kind = option(socket, libc::SO_TYPE);
    let stream = matches!(kind, Ok(libc::SOCK_STREAM | libc::SOCK_SEQPACKET));
    !(stream && (option(socket, libc::SO_ACCEPTCONN) == Ok(1) || peer(socket).is_ok()))
}

/// How far a socket is on its way.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// It can be connected, or listen.
    Unconnected,
    Connecting,
    Listening,
    /// It is connected, or was.
    Connected,
}

/// That of a TCP socket; others are unconnected.
pub fn state(socket: impl AsFd) -> State {
    // `tcpi_state`, the first byte of struct tcp_info: numbers of net/tcp_states.h.
    const SYN_SENT: u8 = 2;
    const SYN_RECV: u8 = 3;
    const CLOSE: u8 = 7;
    const LISTEN: u8 = 10;
    let mut first = 0u8;
    let mut length: libc::socklen_t = 1;
    // SAFETY: the kernel writes at most length bytes to first.
    let result = Errno::result(unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            (&raw mut first).cast(),
            &raw mut length,
        )
    });
    match (result, first) {
        (Err(_), _) | (_, CLOSE) => State::Unconnected,
        (_, SYN_SENT | SYN_RECV) => State::Connecting,
        (_, LISTEN) => State::Listening,
        _ => State::Connected,
    }
}

/// Whether packets from the descriptor can be for, and packets to it from, anybody: all but those of
/// TCP sockets, which must be connected (a send on an SCTP one connects), and of those that stay on
/// this host.
pub fn can_reach_any_host(socket: impl AsFd) -> bool {
    let [domain, kind, protocol] =
        [libc::SO_DOMAIN, libc::SO_TYPE, libc::SO_PROTOCOL].map(|name| option(&socket, name));
    !matches!(
        (domain, kind, protocol),
        (Ok(libc::AF_UNIX | libc::AF_NETLINK), ..)
            | (
                Ok(libc::AF_INET | libc::AF_INET6),
                Ok(libc::SOCK_STREAM),
                Ok(libc::IPPROTO_TCP | libc::IPPROTO_MPTCP),
            )
    )
}
