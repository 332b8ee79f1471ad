//! The one-way channel from PID 1 and the workload process to the stub.
//!
//! A pair of packet sockets: each message is a tag byte and a value byte. The kernel adds the
//! sender's pid, translated into the stub's PID namespace: so the stub learns the workload's.

use std::mem::{MaybeUninit, size_of};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;

use nix::errno::Errno;
use nix::unistd::Pid;

use super::socket::set_option;

const STARTED: u8 = 1;
const STOPPED: u8 = 2;
const CONTINUED: u8 = 3;
const CONFINED: u8 = 4;

pub enum Message {
    /// The workload process is there, in its own process group, and about to exec.
    Started(Pid),
    /// It is confined, and execs now.
    Confined,
    /// The workload was stopped by this signal.
    Stopped(i32),
    /// It was continued.
    Continued,
}

pub struct Receiver(OwnedFd);
pub struct Sender(OwnedFd);

/// Room for one `struct ucred`, aligned as cmsghdr wants it.
#[repr(C, align(8))]
struct Control([u8; 32]);

pub fn pair() -> Result<(Receiver, Sender), Errno> {
    let mut fds = [0; 2];
    let kind = libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC;
    // SAFETY: the kernel writes two descriptors.
    Errno::result(unsafe { libc::socketpair(libc::AF_UNIX, kind, 0, fds.as_mut_ptr()) })?;
    // SAFETY: a new descriptor that nobody else owns.
    let receiver = unsafe { OwnedFd::from_raw_fd(fds[0]) };
    // SAFETY: as above.
    let sender = unsafe { OwnedFd::from_raw_fd(fds[1]) };
    set_option(&receiver, libc::SO_PASSCRED, &1i32)?;
    Ok((Receiver(receiver), Sender(sender)))
}

impl Sender {
    /// Says that this process is the workload's.
    pub fn started(&self) -> Result<(), Errno> {
        self.send([STARTED, 0])
    }

    /// Says that nothing but exec is left to do.
    pub fn confined(&self) -> Result<(), Errno> {
        self.send([CONFINED, 0])
    }

    /// Says that the workload was stopped by `signal`. EAGAIN: the stub, stopped itself, has not
    /// read earlier ones.
    pub fn stopped(&self, signal: i32) -> Result<(), Errno> {
        self.send([STOPPED, signal as u8])
    }

    /// Says that it was continued.
    pub fn continued(&self) -> Result<(), Errno> {
        self.send([CONTINUED, 0])
    }

    fn send(&self, message: [u8; 2]) -> Result<(), Errno> {
        let flags = libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT;
        // SAFETY: the kernel reads the two bytes.
        Errno::result(unsafe {
            libc::send(self.0.as_raw_fd(), message.as_ptr().cast(), message.len(), flags)
        })?;
        Ok(())
    }

    /// Whether the stub is still there to hear.
    pub fn connected(&self) -> Result<bool, Errno> {
        Ok(poll(self.0.as_fd(), 0)? & libc::POLLHUP == 0)
    }
}

impl AsRawFd for Sender {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

impl AsFd for Sender {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsFd for Receiver {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Receiver {
    /// Waits for the next message; none is left when every sender is gone.
    pub fn receive(&self) -> Result<Option<Message>, Errno> {
        let mut bytes = [0u8; 2];
        let mut iov = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
        let mut control = Control([0; 32]);
        // SAFETY: all zeroes is a valid msghdr; musl's has padding that must be zero.
        let mut message: libc::msghdr = unsafe { MaybeUninit::zeroed().assume_init() };
        message.msg_iov = &raw mut iov;
        message.msg_iovlen = 1;
        message.msg_control = control.0.as_mut_ptr().cast();
        message.msg_controllen = size_of::<Control>() as _;
        // SAFETY: message points to live buffers of the lengths it names.
        let length = Errno::result(unsafe {
            libc::recvmsg(self.0.as_raw_fd(), &mut message, libc::MSG_CMSG_CLOEXEC)
        })?;
        if length == 0 {
            return Ok(None);
        }
        match bytes[0] {
            STARTED => sender_of(&message).map(Message::Started).map(Some).ok_or(Errno::EPROTO),
            STOPPED => Ok(Some(Message::Stopped(bytes[1].into()))),
            CONTINUED => Ok(Some(Message::Continued)),
            CONFINED => Ok(Some(Message::Confined)),
            _ => Err(Errno::EPROTO),
        }
    }

    /// Whether a sender is left.
    pub fn connected(&self) -> Result<bool, Errno> {
        Ok(poll(self.as_fd(), 0)? & libc::POLLHUP == 0)
    }

    /// Whether a message waits, or no sender is left.
    pub fn ready(&self) -> Result<bool, Errno> {
        Ok(poll(self.as_fd(), libc::POLLIN)? != 0)
    }

    /// While this is on, the kernel sends SIGCONT to this process when [`Self::ready`] comes true:
    /// it continues even a process that blocks it.
    pub fn wake_stopped(&self, on: bool) -> Result<(), Errno> {
        let fd = self.0.as_raw_fd();
        let set = |command, value: libc::c_int| {
            // SAFETY: these commands take integers.
            Errno::result(unsafe { libc::fcntl(fd, command, value) }).map(drop)
        };
        set(libc::F_SETOWN, std::process::id() as libc::c_int)?;
        set(F_SETSIG, libc::SIGCONT)?;
        set(libc::F_SETFL, if on { libc::O_ASYNC } else { 0 })
    }
}

/// The pid that the kernel has put beside a received message.
fn sender_of(message: &libc::msghdr) -> Option<Pid> {
    // SAFETY: the kernel has filled msg_control and set its length.
    let entry = unsafe { libc::CMSG_FIRSTHDR(message) };
    // SAFETY: null, or the first header inside msg_control.
    let entry = unsafe { entry.as_ref() }?;
    if entry.cmsg_type != libc::SCM_CREDENTIALS {
        return None;
    }
    // SAFETY: the data follows the header.
    let data = unsafe { libc::CMSG_DATA(entry) };
    // SAFETY: the kernel wrote one ucred there.
    let credentials = unsafe { ptr::read_unaligned(data.cast::<libc::ucred>()) };
    Some(Pid::from_raw(credentials.pid))
}

/// fcntl(2): which signal O_ASYNC sends.
const F_SETSIG: libc::c_int = 10;

/// What holds of these events and of POLLHUP now.
fn poll(fd: BorrowedFd, events: libc::c_short) -> Result<libc::c_short, Errno> {
    let mut poll = libc::pollfd { fd: fd.as_raw_fd(), events, revents: 0 };
    // SAFETY: the kernel reads and writes one pollfd.
    Errno::result(unsafe { libc::poll(&mut poll, 1, 0) })?;
    Ok(poll.revents)
}
