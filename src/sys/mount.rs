//! mount_setattr(2), Linux 5.12.

use std::ffi::CStr;

use nix::errno::Errno;

use super::check;

/// Makes the mount at `path` and all mounts below it read-only.
pub fn set_read_only(path: &CStr) -> Result<(), Errno> {
    // struct mount_attr: attr_set, attr_clr, propagation, userns_fd.
    const MOUNT_ATTR_RDONLY: u64 = 1;
    const AT_RECURSIVE: libc::c_int = 0x8000;
    let attributes: [u64; 4] = [MOUNT_ATTR_RDONLY, 0, 0, 0];
    // SAFETY: path is a C string, and the kernel reads as many bytes of attributes as it is told.
    check(unsafe {
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
