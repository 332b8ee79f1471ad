//! The caller's socket, as it is when a call is carried out.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};

use super::caller::Caller;
use crate::network::socket::Socket;
use crate::sys::socket::option;

/// A duplicate of a socket of the caller's, and what it is.
pub struct Duplicate {
    socket: OwnedFd,
    pub kind: Socket,
}

impl Duplicate {
    pub fn of(caller: &mut Caller, fd: RawFd) -> Result<Self, Errno> {
        let socket = caller.duplicate(fd)?;
        // What is no socket says ENOTSOCK here, as it would to the call.
        let domain = option(&socket, libc::SO_DOMAIN)?;
        let kind = option(&socket, libc::SO_TYPE)?;
        let kind = Socket::classify(domain, kind, option(&socket, libc::SO_PROTOCOL)?);
        Ok(Self { socket, kind })
    }

    pub fn is_stream(&self) -> Result<bool, Errno> {
        Ok(option(&self.socket, libc::SO_TYPE)? == libc::SOCK_STREAM)
    }

    pub fn may_block(&self) -> Result<bool, Errno> {
        let flags = fcntl(&self.socket, FcntlArg::F_GETFL)?;
        Ok(!OFlag::from_bits_retain(flags).contains(OFlag::O_NONBLOCK))
    }
}

impl AsFd for Duplicate {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
