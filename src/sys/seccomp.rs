//! Seccomp filter programs.

use nix::errno::Errno;

use super::check;

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
    let program = libc::sock_fprog {
        len: program.len().try_into().map_err(|_| Errno::EINVAL)?,
        filter: program.as_ptr().cast_mut().cast(),
    };
    // SAFETY: program points to len instructions, which the kernel copies and does not change.
    check(unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &program) })?;
    Ok(())
}

/// The program as the kernel and `bwrap --seccomp` read it.
pub fn bytes(program: &[SockFilter]) -> &[u8] {
    // SAFETY: eight bytes each, without padding.
    unsafe { std::slice::from_raw_parts(program.as_ptr().cast(), size_of_val(program)) }
}
