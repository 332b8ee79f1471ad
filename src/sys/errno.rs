//! What errno says, of libc and of std.

use std::ffi::CStr;

use nix::errno::Errno;

/// What libc says of an errno.
pub fn text(errno: Errno) -> String {
    // SAFETY: takes an integer. The result lives until this thread asks again: in musl, for good.
    let text = unsafe { CStr::from_ptr(libc::strerror(errno as libc::c_int)) };
    text.to_string_lossy().into_owned()
}

/// What std got from the kernel: EIO where it got nothing.
pub fn of(error: &std::io::Error) -> Errno {
    Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO))
}
