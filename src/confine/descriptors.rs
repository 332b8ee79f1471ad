//! The workload's descriptors.

use std::os::fd::RawFd;

use super::filters::Filtered;
use crate::report::{Context, Result, Stage};
use crate::sys::descriptor;

/// Nothing is open but 0 to 2 and what the caller asked to keep.
pub struct Sealed(());

/// `keep` is sorted.
pub fn close(_: Filtered, keep: &[RawFd]) -> Result<Sealed> {
    descriptor::close_others(keep).context(Stage::Confine, "close_range")?;
    for fd in keep {
        descriptor::keep_over_exec(*fd).context(Stage::Confine, "F_SETFD")?;
    }
    Ok(Sealed(()))
}
