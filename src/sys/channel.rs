//! The one-way channel from PID 1 and the workload process to the stub.
//!
//! A pair of packet sockets: each message is a tag byte and a value byte. The workload's first
//! message carries its pidfd; the kernel adds its pid, translated into the stub's PID namespace.

use std::mem::{MaybeUninit, size_of};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;

use nix::errno::Errno;
use nix::unistd::Pid;

use super::process::own_pidfd;

const STARTED: u8 = 1;
const STOPPED: u8 = 2;

pub enum Message {
    /// The workload process is there, in its own process group, and about to exec.
    Started { pid: Pid, pidfd: OwnedFd },
    /// The workload was stopped by this signal.
    Stopped(i32),
}

pub struct Receiver(OwnedFd);
pub struct Sender(OwnedFd);

/// Room for one descriptor and one `struct ucred`, aligned as cmsghdr wants it.
#[repr(C, align(8))]
struct Control([u8; 64]);

pub fn pair() -> Result<(Receiver, Sender), Errno> {
    let mut fds = [0; 2];
    let kind = libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC;
    // SAFETY: the kernel writes two descriptors.
    Errno::result(unsafe { libc::socketpair(libc::AF_UNIX, kind, 0, fds.as_mut_ptr()) })?;
    // SAFETY: a new descriptor that nobody else owns.
    let receiver = unsafe { OwnedFd::from_raw_fd(fds[0]) };
    // SAFETY: as above.
    let sender = unsafe { OwnedFd::from_raw_fd(fds[1]) };
    let on: libc::c_int = 1;
    // SAFETY: the kernel reads one int.
    Errno::result(unsafe {
        libc::setsockopt(
            receiver.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PASSCRED,
            (&raw const on).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    })?;
    Ok((Receiver(receiver), Sender(sender)))
}

fn header(iov: &mut libc::iovec, control: &mut Control, length: usize) -> libc::msghdr {
    // SAFETY: all zeroes is a valid msghdr; musl's has padding that must be zero.
    let mut header: libc::msghdr = unsafe { MaybeUninit::zeroed().assume_init() };
    header.msg_iov = iov;
    header.msg_iovlen = 1;
    header.msg_control = control.0.as_mut_ptr().cast();
    header.msg_controllen = length as _;
    header
}

impl Sender {
    /// Says that this process is the workload's.
    pub fn started(&self) -> Result<(), Errno> {
        let pidfd = own_pidfd()?;
        let mut bytes = [STARTED, 0];
        let mut iov = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
        let mut control = Control([0; 64]);
        const FD_SIZE: u32 = size_of::<i32>() as u32;
        // SAFETY: plain arithmetic.
        let space = unsafe { libc::CMSG_SPACE(FD_SIZE) } as usize;
        let message = header(&mut iov, &mut control, space);
        // SAFETY: msg_control has room for at least one header.
        let entry = unsafe { libc::CMSG_FIRSTHDR(&message) };
        // SAFETY: plain arithmetic.
        let length = unsafe { libc::CMSG_LEN(FD_SIZE) };
        // SAFETY: entry points into control, which is aligned, large enough and borrowed here.
        let entry = unsafe { &mut *entry };
        entry.cmsg_level = libc::SOL_SOCKET;
        entry.cmsg_type = libc::SCM_RIGHTS;
        entry.cmsg_len = length as _;
        // SAFETY: the data of entry lies in control, behind its header.
        let data = unsafe { libc::CMSG_DATA(entry) };
        // SAFETY: `space` bytes were counted for one descriptor at that place.
        unsafe { ptr::write_unaligned(data.cast::<i32>(), pidfd.as_raw_fd()) };
        // SAFETY: message points to live buffers of the lengths it names.
        Errno::result(unsafe { libc::sendmsg(self.0.as_raw_fd(), &message, libc::MSG_NOSIGNAL) })?;
        Ok(())
    }

    /// Says that the workload was stopped by `signal`. Does not wait: EAGAIN means that the stub,
    /// stopped itself, has not read earlier ones.
    pub fn stopped(&self, signal: i32) -> Result<(), Errno> {
        let bytes = [STOPPED, signal as u8];
        let flags = libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT;
        // SAFETY: the kernel reads the two bytes.
        Errno::result(unsafe {
            libc::send(self.0.as_raw_fd(), bytes.as_ptr().cast(), bytes.len(), flags)
        })?;
        Ok(())
    }

    /// Whether the stub is still there to hear.
    pub fn connected(&self) -> Result<bool, Errno> {
        let mut poll = libc::pollfd { fd: self.0.as_raw_fd(), events: 0, revents: 0 };
        // SAFETY: the kernel reads and writes one pollfd.
        Errno::result(unsafe { libc::poll(&mut poll, 1, 0) })?;
        Ok(poll.revents & libc::POLLHUP == 0)
    }
}

impl AsRawFd for Sender {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
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
        let mut control = Control([0; 64]);
        let mut message = header(&mut iov, &mut control, size_of::<Control>());
        // SAFETY: message points to live buffers of the lengths it names.
        let length = Errno::result(unsafe {
            libc::recvmsg(self.0.as_raw_fd(), &mut message, libc::MSG_CMSG_CLOEXEC)
        })?;
        if length == 0 {
            return Ok(None);
        }
        let (mut pid, mut pidfd) = (None, None);
        // SAFETY: the kernel has filled msg_control and set its length.
        let mut entry = unsafe { libc::CMSG_FIRSTHDR(&message) };
        while !entry.is_null() {
            // SAFETY: entry points to a header inside control, as CMSG_FIRSTHDR and CMSG_NXTHDR
            // give no other.
            let kind = unsafe { (*entry).cmsg_type };
            // SAFETY: its data follows the header.
            let data = unsafe { libc::CMSG_DATA(entry) };
            match kind {
                libc::SCM_CREDENTIALS => {
                    // SAFETY: the kernel wrote one ucred.
                    let credentials = unsafe { ptr::read_unaligned(data.cast::<libc::ucred>()) };
                    pid = Some(Pid::from_raw(credentials.pid));
                }
                libc::SCM_RIGHTS => {
                    // SAFETY: `started` sends one descriptor.
                    let fd = unsafe { ptr::read_unaligned(data.cast::<i32>()) };
                    // SAFETY: the kernel made it for us.
                    pidfd = Some(unsafe { OwnedFd::from_raw_fd(fd) });
                }
                _ => {}
            }
            // SAFETY: message and entry are those of this loop.
            entry = unsafe { libc::CMSG_NXTHDR(&message, entry) };
        }
        match (bytes[0], pid, pidfd) {
            (STARTED, Some(pid), Some(pidfd)) => Ok(Some(Message::Started { pid, pidfd })),
            (STOPPED, _, None) => Ok(Some(Message::Stopped(bytes[1].into()))),
            _ => Err(Errno::EPROTO),
        }
    }
}
