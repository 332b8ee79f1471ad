//! The workload's seccomp filters.

use super::domain::Fenced;
use crate::report::{Context, Result, Stage, operation};
use crate::sys::seccomp::{self, SockFilter};

/// All programs are installed: what follows is close_range and execve only.
pub struct Filtered(());

pub fn install(_: Fenced, programs: &[&[SockFilter]]) -> Result<Filtered> {
    for program in programs {
        seccomp::install(program).context(Stage::Confine, operation::SECCOMP)?;
    }
    Ok(Filtered(()))
}
