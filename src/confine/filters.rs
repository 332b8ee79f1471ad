//! The workload's seccomp filters.

use super::domain::Fenced;
use crate::filters::Arch;
use crate::notify::Handover;
use crate::plan::Plan;
use crate::report::{Context, Result, Stage, operation};
use crate::sys::seccomp;

/// All programs are installed. What follows, the handover and the word to the stub included, they
/// let through.
pub struct Filtered(());

/// The one that notifies comes before the group that may deny further listeners, and after all that
/// calls what it notifies of: nobody answers before its listener is handed over.
pub fn install(_: Fenced, plan: &Plan, handover: &mut Option<Handover>) -> Result<Filtered> {
    let listener = match plan.notify {
        None => None,
        Some(notify) => Some(
            seccomp::install_notifier(notify.program(Arch::NATIVE))
                .context(Stage::Confine, operation::LISTENER)?,
        ),
    };
    for program in &plan.filters {
        seccomp::install(program).context(Stage::Confine, operation::SECCOMP)?;
    }
    if let (Some(listener), Some(handover)) = (listener, handover.take()) {
        handover.give(listener)?;
    }
    Ok(Filtered(()))
}
