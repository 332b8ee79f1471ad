//! Seccomp user notification: seccomp_unotify(2).

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// The descriptor through which the calls arrive that a filter hands over.
pub struct Listener(OwnedFd);

/// A call that waits for its answer: `struct seccomp_notif` of linux/seccomp.h.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub struct Call {
    pub id: u64,
    /// The calling thread, as the PID namespace of the receiver numbers it: 0 if it does not.
    pub thread: u32,
    flags: u32,
    pub number: i32,
    arch: u32,
    instruction_pointer: u64,
    pub arguments: [u64; 6],
}

/// `struct seccomp_notif_resp`.
#[repr(C)]
struct Answer {
    id: u64,
    value: i64,
    error: i32,
    flags: u32,
}

/// `struct seccomp_notif_addfd`.
#[repr(C)]
struct Handed {
    id: u64,
    flags: u32,
    own: RawFd,
    number: u32,
    number_flags: u32,
}

/// How a call fails.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fault(i32);

impl Fault {
    /// The kernel's own ERESTARTSYS: EINTR, or the same call again if the handler has SA_RESTART. Only
    /// for a caller that a signal waits for: any other one would see the number.
    pub const RESTART: Self = Self(512);
}

impl From<Errno> for Fault {
    fn from(errno: Errno) -> Self {
        Self(errno as i32)
    }
}

const fn ioctl(direction: u32, number: u32, size: usize) -> u32 {
    direction << 30 | (size as u32) << 16 | (b'!' as u32) << 8 | number
}
const RECV: u32 = ioctl(3, 0, size_of::<Call>());
const SEND: u32 = ioctl(3, 1, size_of::<Answer>());
const ID_VALID: u32 = ioctl(1, 2, size_of::<u64>());
const ADDFD: u32 = ioctl(1, 3, size_of::<Handed>());

impl Listener {
    /// Takes the one that a process with the same descriptor table has opened and left to this one.
    pub fn from_number(fd: RawFd) -> Self {
        // SAFETY: that process has a table of its own now, so nobody else here owns the descriptor.
        Self(unsafe { OwnedFd::from_raw_fd(fd) })
    }

    /// Takes the next call, and waits for one. None: what was there has ended meanwhile.
    pub fn receive(&self) -> Result<Option<Call>, Errno> {
        // The kernel refuses a buffer that is not zero.
        let mut call = Call::default();
        match self.ioctl(RECV, (&raw mut call).cast()) {
            Ok(()) => Ok(Some(call)),
            Err(Errno::ENOENT | Errno::EINTR) => Ok(None),
            Err(errno) => Err(errno),
        }
    }

    /// Whether the caller still waits: if so, what its pid was looked up for until now was the
    /// caller, and what its memory was read for had not been overwritten by another program.
    pub fn is_waiting(&self, id: u64) -> Result<bool, Errno> {
        let mut id = id;
        match self.uninterrupted(ID_VALID, (&raw mut id).cast()) {
            Ok(()) => Ok(true),
            Err(Errno::ENOENT) => Ok(false),
            Err(errno) => Err(errno),
        }
    }

    /// Ends the call with this result.
    pub fn answer(&self, id: u64, result: Result<i64, Fault>) -> Result<(), Errno> {
        let (value, error) = match result {
            Ok(value) => (value, 0),
            Err(Fault(number)) => (0, -number),
        };
        let mut answer = Answer { id, value, error, flags: 0 };
        match self.uninterrupted(SEND, (&raw mut answer).cast()) {
            // It has ended meanwhile.
            Err(Errno::ENOENT) => Ok(()),
            result => result,
        }
    }

    /// Puts a duplicate of `own` into the caller's descriptor table, and ends the call with its
    /// number; before Linux 5.14, the number is returned and the call still to be ended.
    ///
    /// Not to be interrupted by a signal: the kernel may have taken the answer and not the descriptor.
    pub fn hand_over(
        &self,
        id: u64,
        own: BorrowedFd,
        close_on_exec: bool,
    ) -> Result<Option<i64>, Errno> {
        const SECCOMP_ADDFD_FLAG_SEND: u32 = 2;
        let number_flags = if close_on_exec { libc::O_CLOEXEC as u32 } else { 0 };
        let own = own.as_raw_fd();
        let hand = |flags| {
            let mut handed = Handed { id, flags, own, number: 0, number_flags };
            self.ioctl_result(ADDFD, (&raw mut handed).cast())
        };
        match hand(SECCOMP_ADDFD_FLAG_SEND) {
            Ok(_) => Ok(None),
            Err(Errno::EINVAL) => hand(0).map(|number| Some(number.into())),
            Err(errno) => Err(errno),
        }
    }

    /// The kernel waits for a lock there, interruptibly, when several threads ask at once.
    fn uninterrupted(&self, request: u32, argument: *mut libc::c_void) -> Result<(), Errno> {
        loop {
            match self.ioctl(request, argument) {
                Err(Errno::EINTR) => {}
                result => return result,
            }
        }
    }

    fn ioctl(&self, request: u32, argument: *mut libc::c_void) -> Result<(), Errno> {
        self.ioctl_result(request, argument).map(drop)
    }

    /// Whether nobody is left who could call. Since Linux 6.11 to receive fails at once then.
    pub fn is_abandoned(&self) -> bool {
        let mut fds = [PollFd::new(self.0.as_fd(), PollFlags::empty())];
        let _ = poll(&mut fds, PollTimeout::ZERO);
        fds[0].revents().is_some_and(|found| found.contains(PollFlags::POLLHUP))
    }

    fn ioctl_result(&self, request: u32, argument: *mut libc::c_void) -> Result<i32, Errno> {
        // SAFETY: each request reads and writes one structure of the size that is part of its
        // number, which argument points to.
        Errno::result(unsafe { libc::ioctl(self.0.as_raw_fd(), request as _, argument) })
    }
}

impl AsRawFd for Listener {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}
