//! The workload's Landlock domain.

use landlock::{
    CompatLevel, Compatible, Ruleset, RulesetAttr, RulesetCreated, RulesetError, RulesetStatus,
    Scope,
};

use super::capabilities::Powerless;
use crate::report::{Error, Result, Stage};

/// The process is in the domain, if this kernel has one.
pub struct Fenced(());

/// A domain without rules: it takes signals and abstract unix sockets of everything outside away,
/// and with them, as every domain does, ptrace and /proc/PID/mem. It handles no file access, which
/// would forbid mount(2) and so break containers inside.
pub struct Domain(RulesetCreated);

/// None where the kernel has no scopes: they came with ABI 6, Linux 6.12.
pub fn scoped() -> Result<Option<Domain>> {
    let failed = |error: RulesetError| Error::new(Stage::Plan, "landlock", error.to_string());
    let scopes = Scope::Signal | Scope::AbstractUnixSocket;
    match Ruleset::default().set_compatibility(CompatLevel::HardRequirement).scope(scopes) {
        Ok(ruleset) => ruleset.create().map(|created| Some(Domain(created))).map_err(failed),
        Err(RulesetError::Scope(_)) => Ok(None),
        Err(error) => Err(failed(error)),
    }
}

pub fn enter(_: Powerless, domain: Option<Domain>) -> Result<Fenced> {
    if let Some(Domain(ruleset)) = domain {
        let failed = |what: String| Error::new(Stage::Confine, "landlock_restrict_self", what);
        let status = ruleset.restrict_self().map_err(|error| failed(error.to_string()))?;
        if status.ruleset != RulesetStatus::FullyEnforced {
            return Err(failed("not all of it is enforced".into()));
        }
    }
    Ok(Fenced(()))
}
