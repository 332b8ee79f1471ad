//! The workload's process group and signals.

use nix::errno::Errno;
use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::unistd::{Pid, getpid, setpgid};

use crate::plan::{Level, Plan};
use crate::report::{Context, Error, Result, Stage};
use crate::sys::channel::Sender;
use crate::sys::signal::{self, Set};

/// The process leads a group of its own: kill(0, …) does not reach the group of the helpers
/// outside. It has default dispositions and an empty mask.
pub struct Grouped(());

pub fn lead_own(plan: &Plan, sender: &Sender) -> Result<Grouped> {
    if let Level::Domain = plan.level {
        die_with_reaper(sender)?;
    }
    setpgid(Pid::from_raw(0), Pid::from_raw(0)).context(Stage::Confine, "setpgid")?;
    if let Some(terminal) = &plan.terminal {
        // All signals are still blocked: SIGTTOU would stop this process here.
        match terminal.set_foreground(getpid()) {
            // Hung up, or given to another session meanwhile.
            Ok(()) | Err(Errno::ENOTTY | Errno::ENXIO | Errno::EIO) => {}
            Err(errno) => return Err(Error::new(Stage::Confine, "tcsetpgrp", errno)),
        }
    }
    // From here on the stub forwards. Dispositions are the stub's: the default ones.
    sender.started().context(Stage::Confine, "sendmsg")?;
    signal::set_mask(Set::EMPTY).context(Stage::Confine, "unblock signals")?;
    Ok(Grouped(()))
}

/// Should stub and reaper be killed at once, nobody is left to end what is left; this process ends
/// at least. A PID namespace ends with its PID 1 anyway.
fn die_with_reaper(sender: &Sender) -> Result<()> {
    prctl::set_pdeathsig(Signal::SIGKILL).context(Stage::Confine, "PR_SET_PDEATHSIG")?;
    // Both may have ended before.
    match sender.connected().context(Stage::Confine, "poll")? {
        true => Ok(()),
        false => Err(Error::new(Stage::Confine, "stub", "has ended")),
    }
}
