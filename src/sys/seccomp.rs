//! Seccomp filter programs.

use std::os::fd::{FromRawFd, OwnedFd};

use nix::errno::Errno;

/// One classic BPF instruction: `struct sock_filter` of linux/filter.h.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SockFilter {
    pub code: u16,
    pub jt: u8,
    pub jf: u8,
    pub k: u32,
}

/// Installs a program for this thread and what it will fork: needs no_new_privs.
pub fn install(program: &[SockFilter]) -> Result<(), Errno> {
    set_filter(program, 0).map(drop)
}

/// The same for a program that notifies. The calls arrive at the descriptor, which is close-on-exec.
///
/// From Linux 5.19 on a caller whose call has been received is interrupted by fatal signals only:
/// before, one with a handler ends the call, or has it made again.
pub fn install_notifier(program: &[SockFilter]) -> Result<OwnedFd, Errno> {
    let listen = libc::SECCOMP_FILTER_FLAG_NEW_LISTENER;
    let fd = match set_filter(program, listen | libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV) {
        Err(Errno::EINVAL) => set_filter(program, listen)?,
        result => result?,
    };
    // SAFETY: a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// Whether [`install_notifier`] keeps signals from received calls.
pub fn can_wait_killable() -> bool {
    let flags =
        libc::SECCOMP_FILTER_FLAG_NEW_LISTENER | libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV;
    let program = std::ptr::null::<libc::sock_fprog>();
    let operation = libc::SECCOMP_SET_MODE_FILTER;
    // SAFETY: flags that are known are looked at before the program, which is nowhere.
    Errno::result(unsafe { libc::syscall(libc::SYS_seccomp, operation, flags, program) })
        != Err(Errno::EINVAL)
}

fn set_filter(program: &[SockFilter], flags: libc::c_ulong) -> Result<libc::c_long, Errno> {
    let program = libc::sock_fprog {
        len: program.len().try_into().map_err(|_| Errno::EINVAL)?,
        filter: program.as_ptr().cast_mut().cast(),
    };
    let operation = libc::SECCOMP_SET_MODE_FILTER;
    // SAFETY: program points to len instructions, which the kernel copies and does not change.
    Errno::result(unsafe { libc::syscall(libc::SYS_seccomp, operation, flags, &program) })
}

/// The program as the kernel and `bwrap --seccomp` read it.
pub fn bytes(program: &[SockFilter]) -> &[u8] {
    // SAFETY: eight bytes each, without padding.
    unsafe { std::slice::from_raw_parts(program.as_ptr().cast(), size_of_val(program)) }
}
