//! The controlling terminal and its foreground process group.
//!
//! A group whose leader is outside this PID namespace reads as 0, which nix's types exclude; under
//! `bwrap --unshare-pid` that is the stub's own.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;
use nix::unistd::Pid;

pub struct Terminal(OwnedFd);

impl Terminal {
    /// The controlling terminal, if one of 0 to 2 is it. A caller that has redirected all three, as
    /// an agent with a terminal of its own does, keeps it as long as the workload does not ask.
    pub fn of_standard() -> Option<Self> {
        // SAFETY: takes an integer only. Any other terminal gives ENOTTY.
        (0..3).any(|fd| unsafe { libc::tcgetpgrp(fd) } >= 0).then(Self::open).flatten()
    }

    /// The controlling terminal of this session, if there is one.
    pub fn open() -> Option<Self> {
        let flags = OFlag::O_RDWR | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC | OFlag::O_NOCTTY;
        open("/dev/tty", flags, Mode::empty()).ok().map(Self)
    }

    /// The foreground process group.
    pub fn foreground(&self) -> Result<Pid, Errno> {
        // SAFETY: takes an integer only.
        Errno::result(unsafe { libc::tcgetpgrp(self.0.as_raw_fd()) }).map(Pid::from_raw)
    }

    /// Needs SIGTTOU blocked: a background process that changes the foreground is sent one.
    pub fn set_foreground(&self, group: Pid) -> Result<(), Errno> {
        // SAFETY: takes integers only.
        Errno::result(unsafe { libc::tcsetpgrp(self.0.as_raw_fd(), group.as_raw()) }).map(drop)
    }

    /// Whether this process is in the foreground group. Needs SIGTTIN blocked.
    ///
    /// The kernel checks this before it looks at the length: a background process that blocks
    /// SIGTTIN gets EIO. The open is non-blocking, as another reader may hold the terminal's lock.
    pub fn is_ours(&self) -> bool {
        nix::unistd::read(&self.0, &mut []) != Err(Errno::EIO)
    }
}

impl AsFd for Terminal {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
