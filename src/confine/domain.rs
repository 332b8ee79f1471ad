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
        const RESTRICT: &str = "landlock_restrict_self";
        // The crate gives prose; the errno of its system call is still there.
        let failed = |_: RulesetError| Error::new(Stage::Confine, RESTRICT, Errno::last());
        let status = domain.create()?.restrict_self().map_err(failed)?;
        if status.ruleset != RulesetStatus::FullyEnforced {
            return Err(Error::new(Stage::Confine, RESTRICT, "not all of it is enforced"));
        }
    }
    Ok(Fenced(()))
}
