//! The only unsafe code: what libc's and nix's safe functions do not offer.
//!
//! Each function is one system call, or one structure handed to it, behind a safe face.
#![allow(unsafe_code)]

pub mod channel;
pub mod descriptor;
#[cfg(not(test))]
mod entry;
pub mod mount;
pub mod privilege;
pub mod process;
pub mod seccomp;
pub mod signal;
pub mod terminal;

use nix::errno::Errno;

/// The result of a raw system call, whose failure libc puts into `errno`.
fn check(result: libc::c_long) -> Result<libc::c_long, Errno> {
    Errno::result(result)
}
