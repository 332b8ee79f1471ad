//! The workload's process group and signals.

use nix::errno::Errno;
use nix::unistd::{Pid, getpid, setpgid};

use crate::plan::Plan;
use crate::report::{Context, Error, Result, Stage};
use crate::sys::channel::Sender;
use crate::sys::signal::{self, Set};

/// The process leads a group of its own: kill(0, …) does not reach the group of the helpers
/// outside. It has default dispositions and an empty mask.
pub struct Grouped(());

pub fn lead_own(plan: &Plan, sender: &Sender) -> Result<Grouped> {
    // All signals are still blocked: SIGTTIN and SIGTTOU would stop this process here.
    let lent = plan.terminal.as_ref().filter(|terminal| terminal.is_ours());
    setpgid(Pid::from_raw(0), Pid::from_raw(0)).context(Stage::Confine, "setpgid")?;
    if let Some(terminal) = lent {
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
