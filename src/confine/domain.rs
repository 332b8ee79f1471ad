//! The workload's Landlock domain: see [`crate::plan::domain`].

use landlock::{RulesetError, RulesetStatus};
use nix::errno::Errno;

use super::capabilities::Powerless;
use crate::plan::domain::Domain;
use crate::report::{Error, Result, Stage};

/// The process is in the domain, if there is one.
pub struct Fenced(());

pub fn enter(_: Powerless, domain: Option<Domain>) -> Result<Fenced> {
    if let Some(domain) = domain {
        restrict(domain, Stage::Confine)?;
    }
    Ok(Fenced(()))
}

/// Puts this thread, and what it will fork, into a domain.
pub fn restrict(domain: Domain, stage: Stage) -> Result<()> {
    const RESTRICT: &str = "landlock_restrict_self";
    // The crate gives prose; the errno of its system call is still there.
    let failed = |_: RulesetError| Error::new(stage, RESTRICT, Errno::last());
    let status = domain.create()?.restrict_self().map_err(failed)?;
    match status.ruleset {
        RulesetStatus::FullyEnforced => Ok(()),
        _ => Err(Error::new(stage, RESTRICT, "not all of it is enforced")),
    }
}
