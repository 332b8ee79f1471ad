//! The C entry point, in place of std's runtime, which ignores SIGPIPE, installs fault handlers
//! and runs before signals can be blocked.

use std::ffi::{CStr, OsString, c_char, c_int};
use std::os::unix::ffi::OsStringExt;

// SAFETY: libc calls `main` once, with this signature; the symbol is defined nowhere else.
#[unsafe(no_mangle)]
extern "C" fn main(argc: c_int, argv: *const *const c_char) -> c_int {
    let arguments = (0..usize::try_from(argc).unwrap_or(0))
        .map(|index| {
            // SAFETY: argv has argc elements.
            let element = unsafe { argv.add(index) };
            // SAFETY: the kernel has filled each of them.
            let argument = unsafe { *element };
            // SAFETY: each points to a NUL-terminated string that lives as long as the process.
            let argument = unsafe { CStr::from_ptr(argument) };
            OsString::from_vec(argument.to_bytes().to_vec())
        })
        .collect();
    crate::run(arguments)
}
