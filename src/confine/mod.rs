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
use crate::notify::Handover;
use crate::plan::Plan;
use crate::report::{Context, Result, Stage};
use crate::sys::channel::Sender;
use crate::sys::process;
use crate::sys::signal::{self, Set};

/// What the workload's process is given: all of it was made before the fork.
pub struct Confinement {
    pub plan: Plan,
    /// Where the workload gets a user namespace of its own: the procfs to map it in.
    pub procfs: Option<Procfs>,
    /// Where the plan has calls that a supervisor decides about.
    pub handover: Option<Handover>,
}

/// Becomes the workload, or ends with the exit status for the reason why not.
pub fn run(mut confinement: Confinement, sender: &Sender) -> ! {
    let Err(error) = confine(&mut confinement, sender);
    // SIGPIPE, from a standard error that nobody reads, would change the exit status.
    let _ = signal::set_mask(Set::ALL);
    process::exit(error.print())
}

/// Whatever is still owned here at the end is closed by number: nothing is dropped.
fn confine(confinement: &mut Confinement, sender: &Sender) -> Result<Infallible> {
    let Confinement { plan, procfs, handover } = confinement;
    let grouped = group::lead_own(plan, sender)?;
    let separated = separation::separate(grouped, plan.ids, procfs.take())?;
    let powerless = capabilities::empty(separated)?;
    let fenced = domain::enter(powerless, plan.domain.take())?;
    let filtered = filters::install(fenced, plan, handover)?;
    if plan.report.fd.is_some() {
        sender.confined().context(Stage::Confine, "send")?;
    }
    let sealed = descriptors::close(filtered, &plan.keep_fds)?;
    exec::execute(sealed, &mut plan.program)
}
