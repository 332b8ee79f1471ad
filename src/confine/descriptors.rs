//! The workload's descriptors.

use std::os::fd::RawFd;

use super::filters::Filtered;
use crate::report::{Context, Result, Stage};
use crate::sys::descriptor;

/// Nothing is open but 0 to 2 and what the caller asked to keep.
pub struct Sealed(());

/// `keep` is sorted. What was inherited goes through execve: it was not close-on-exec.
pub fn close(_: Filtered, keep: &[RawFd]) -> Result<Sealed> {
    descriptor::close_all_but(keep).context(Stage::Confine, "close_range")?;
    Ok(Sealed(()))
}
