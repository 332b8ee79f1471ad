//! Signals as the kernel numbers them, 1 to 64. libc's functions hide 32 to 34, its own.

use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr;

use nix::errno::Errno;

/// The kernel's signal set: bit n-1 is signal n, on both architectures.
#[derive(Clone, Copy)]
pub struct Set(u64);

impl Set {
    pub const EMPTY: Self = Self(0);
    pub const ALL: Self = Self(u64::MAX);

    pub const fn with(self, signal: i32) -> Self {
        Self(self.0 | 1 << (signal - 1))
    }

    pub const fn without(self, signal: i32) -> Self {
        Self(self.0 & !(1 << (signal - 1)))
    }

    pub const fn contains(self, signal: i32) -> bool {
        self.0 & (1 << (signal - 1)) != 0
    }
}

const SET_SIZE: usize = size_of::<Set>();

/// Makes `set` the mask of this thread; the kernel leaves SIGKILL and SIGSTOP out.
pub fn set_mask(set: Set) -> Result<(), Errno> {
    let none = ptr::null_mut::<Set>();
    // SAFETY: the kernel reads SET_SIZE bytes of set, which is as large.
    Errno::result(unsafe {
        libc::syscall(libc::SYS_rt_sigprocmask, libc::SIG_SETMASK, &set, none, SET_SIZE)
    })?;
    Ok(())
}

/// The signals that have been sent and not delivered, because they are blocked.
pub fn pending() -> Result<Set, Errno> {
    let mut set = Set::EMPTY;
    // SAFETY: the kernel writes SET_SIZE bytes to set, which is as large.
    Errno::result(unsafe { libc::syscall(libc::SYS_rt_sigpending, &mut set, SET_SIZE) })?;
    Ok(set)
}

/// Gives every signal its default disposition.
pub fn default_dispositions() -> Result<(), Errno> {
    // A zeroed struct sigaction (at most 32 bytes) is SIG_DFL, no flags, an empty mask.
    let default = [0u64; 4];
    let none = ptr::null_mut::<u64>();
    for signal in 1..=64 {
        if signal == libc::SIGKILL || signal == libc::SIGSTOP {
            continue;
        }
        // SAFETY: the kernel reads no more than the 32 bytes of default.
        Errno::result(unsafe {
            libc::syscall(libc::SYS_rt_sigaction, signal, &default, none, SET_SIZE)
        })?;
    }
    Ok(())
}

/// A descriptor that polls readable while one of the blocked signals of `set` is pending.
pub fn descriptor(set: Set) -> Result<OwnedFd, Errno> {
    let flags = libc::SFD_CLOEXEC | libc::SFD_NONBLOCK;
    // SAFETY: the kernel reads SET_SIZE bytes of set.
    let fd =
        Errno::result(unsafe { libc::syscall(libc::SYS_signalfd4, -1, &set, SET_SIZE, flags) })?;
    // SAFETY: a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// A signal taken from the pending ones, with what came along.
pub struct Signal(libc::siginfo_t);

impl Signal {
    pub fn number(&self) -> i32 {
        self.0.si_signo
    }

    /// Whether the kernel sent it because a descriptor is ready (`POLL_IN` to `POLL_HUP` of
    /// sigaction(2)).
    pub fn is_descriptor_event(&self) -> bool {
        (1..=6).contains(&self.0.si_code)
    }

    /// Takes the next pending one of the blocked signals of `set`.
    pub fn take(set: Set) -> Result<Option<Self>, Errno> {
        let mut info = MaybeUninit::<libc::siginfo_t>::zeroed();
        let now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: the kernel reads set and now and writes one siginfo_t.
        let result = Errno::result(unsafe {
            libc::syscall(libc::SYS_rt_sigtimedwait, &set, info.as_mut_ptr(), &now, SET_SIZE)
        });
        match result {
            // SAFETY: all zeroes is a valid siginfo_t, and the kernel has filled it.
            Ok(_) => Ok(Some(Self(unsafe { info.assume_init() }))),
            Err(Errno::EAGAIN | Errno::EINTR) => Ok(None),
            Err(errno) => Err(errno),
        }
    }

    /// Sends the same signal to the process behind `pidfd`, with the value that sigqueue(3) gave.
    pub fn forward(&self, pidfd: BorrowedFd) -> Result<(), Errno> {
        // The kernel lets nobody pass on a siginfo that claims to be its own or kill(2)'s.
        let info = if self.0.si_code == libc::SI_QUEUE { &raw const self.0 } else { ptr::null() };
        // SAFETY: the kernel reads one siginfo_t, or makes its own where the pointer is null.
        Errno::result(unsafe {
            libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), self.number(), info, 0)
        })?;
        Ok(())
    }
}
