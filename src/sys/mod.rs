//! The only unsafe code: what libc's and nix's safe functions do not offer.
//!
//! Each function is one system call, or one structure handed to it, behind a safe face.
#![allow(unsafe_code)]

pub mod channel;
pub mod descriptor;
#[cfg(not(test))]
mod entry;
pub mod errno;
pub mod event;
pub mod landlock;
pub mod memory;
pub mod mount;
pub mod notify;
pub mod privilege;
pub mod process;
pub mod seccomp;
pub mod signal;
pub mod socket;
pub mod terminal;
pub mod thread;
