//! eventfd(2): one thread waits until another one says so.

use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::{read, write};

pub struct Event(OwnedFd);

impl Event {
    pub fn new() -> Result<Self, Errno> {
        // SAFETY: takes integers only.
        let fd =
            Errno::result(unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) })?;
        // SAFETY: a new descriptor that nobody else owns.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Ends the wait of another thread, or its next one.
    pub fn set(&self) {
        // Fails only if it is set so often that it cannot count.
        let _ = write(&self.0, &1u64.to_ne_bytes());
    }

    /// Waits until it is set, but not longer than that.
    pub fn wait(&self, timeout: PollTimeout) {
        let _ = poll(&mut [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)], timeout);
        let _ = read(&self.0, &mut [0; 8]);
    }
}

/// Readable when it is set.
impl AsFd for Event {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
