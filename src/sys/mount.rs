//! mount_setattr(2) of Linux 5.12, fsopen(2) and fsmount(2) of 5.2.

use std::ffi::CStr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::ptr;

use nix::errno::Errno;

/// Makes the mount at `path` and all mounts below it read-only.
pub fn set_read_only(path: &CStr) -> Result<(), Errno> {
    // struct mount_attr: attr_set, attr_clr, propagation, userns_fd.
    const MOUNT_ATTR_RDONLY: u64 = 1;
    const AT_RECURSIVE: libc::c_int = 0x8000;
    let attributes: [u64; 4] = [MOUNT_ATTR_RDONLY, 0, 0, 0];
    // SAFETY: path is a C string, and the kernel reads as many bytes of attributes as it is told.
    Errno::result(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            libc::AT_FDCWD,
            path.as_ptr(),
            AT_RECURSIVE,
            &attributes,
            size_of_val(&attributes),
        )
    })?;
    Ok(())
}

/// A procfs of this PID namespace that is mounted nowhere.
pub fn detached_procfs() -> Result<OwnedFd, Errno> {
    const FSOPEN_CLOEXEC: libc::c_uint = 1;
    const FSCONFIG_CMD_CREATE: libc::c_uint = 6;
    const FSMOUNT_CLOEXEC: libc::c_uint = 1;
    let kind = c"proc".as_ptr();
    // SAFETY: a C string.
    let context = Errno::result(unsafe { libc::syscall(libc::SYS_fsopen, kind, FSOPEN_CLOEXEC) })?;
    // SAFETY: a new descriptor that nobody else owns.
    let context = unsafe { OwnedFd::from_raw_fd(context as i32) };
    let (fd, none) = (context.as_raw_fd(), ptr::null::<u8>());
    // SAFETY: this command takes no key and no value.
    Errno::result(unsafe {
        libc::syscall(libc::SYS_fsconfig, fd, FSCONFIG_CMD_CREATE, none, none, 0)
    })?;
    // SAFETY: takes integers only.
    let mount = Errno::result(unsafe { libc::syscall(libc::SYS_fsmount, fd, FSMOUNT_CLOEXEC, 0) })?;
    // SAFETY: as above.
    Ok(unsafe { OwnedFd::from_raw_fd(mount as i32) })
}

/// Whether the working directory is in another mount namespace or outside the root: the kernel then
/// puts `(unreachable)` before its path, which libc hides.
pub fn working_directory_is_outside() -> bool {
    let mut path = [0u8; libc::PATH_MAX as usize];
    // SAFETY: the kernel writes at most as many bytes as path has.
    let result =
        Errno::result(unsafe { libc::syscall(libc::SYS_getcwd, path.as_mut_ptr(), path.len()) });
    result.is_ok() && path[0] != b'/'
}
