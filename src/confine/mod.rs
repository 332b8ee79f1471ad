//! The workload's process between fork and exec: every power and every reference is taken away.
//!
//! Each step takes the proof of the one before and gives its own, so that no step can be left out
//! or moved, and [`exec`] is reached through all of them only.

pub mod capabilities;
mod descriptors;
pub mod domain;
pub mod exec;
mod filters;
mod group;
mod separation;

use std::convert::Infallible;

use crate::namespaces::id_map::Procfs;
use crate::plan::Plan;
use crate::report::Result;
use crate::sys::channel::Sender;
use crate::sys::process;
use crate::sys::signal::{self, Set};

/// Becomes the workload, or ends with the exit status for the reason why not.
pub fn run(plan: Plan, procfs: Option<Procfs>, sender: &Sender) -> ! {
    let Err(error) = confine(plan, procfs, sender);
    // SIGPIPE, from a standard error that nobody reads, would change the exit status.
    let _ = signal::set_mask(Set::ALL);
    process::exit(error.print())
}

fn confine(plan: Plan, procfs: Option<Procfs>, sender: &Sender) -> Result<Infallible> {
    let grouped = group::lead_own(&plan, sender)?;
    let separated = separation::separate(grouped, &plan, procfs)?;
    let powerless = capabilities::empty(separated)?;
    let fenced = domain::enter(powerless, plan.domain)?;
    let filtered = filters::install(fenced, &plan.filters)?;
    drop(plan.terminal);
    let sealed = descriptors::close(filtered, &plan.keep_fds)?;
    exec::execute(sealed, plan.program)
}
