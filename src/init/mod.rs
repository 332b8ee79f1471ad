//! PID 1 of the workload's PID namespace: sets the namespaces up, starts the workload, reaps, and
//! ends with it. The kernel then kills whatever is left in the namespace.

use std::os::fd::AsRawFd;

use nix::errno::Errno;
use nix::sched::CloneFlags;
use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::unistd::Pid;

use crate::confine::{self, capabilities};
use crate::namespaces::id_map::{self, Procfs};
use crate::namespaces::{mounts, proc};
use crate::plan::{Plan, Route};
use crate::report::{Context, Error, Result, Stage, operation};
use crate::sys::channel::Sender;
use crate::sys::descriptor;
use crate::sys::process::{self, Change, End, Fork};
use crate::sys::signal::{self, Set};

/// Runs as PID 1, and ends with the workload's exit status.
pub fn run(plan: Plan, sender: Sender) -> ! {
    process::exit(start(plan, sender).unwrap_or_else(|error| error.print()))
}

fn start(plan: Plan, sender: Sender) -> Result<i32> {
    end_with_stub(&sender)?;
    // The workload's own user namespace is mapped when this /proc may be covered.
    let held = match plan.route {
        Route::Nested => {
            id_map::write_own(&Procfs::Current, plan.ids)?;
            None
        }
        Route::Direct if plan.own_user_namespace => Some(Procfs::hold()?),
        Route::Direct => None,
    };
    mounts::make_private()?;
    proc::set_up(&plan)?;

    let workload = match process::fork(CloneFlags::empty()).context(Stage::Init, operation::FORK)? {
        Fork::Child => confine::run(plan, held, &sender),
        Fork::Parent(pid) => pid,
    };
    drop((plan, held));
    capabilities::drop_held(Stage::Init)?;
    // What the workload closes must not stay open here; errors still go to standard error.
    descriptor::close_all_but(&[2, sender.as_raw_fd()]).context(Stage::Init, "close_range")?;
    // With default dispositions the kernel drops whatever the workload sends to its PID 1.
    signal::set_mask(Set::EMPTY).context(Stage::Init, "unblock signals")?;
    reap(workload, &sender)
}

/// Makes the stub's end this process's too.
fn end_with_stub(sender: &Sender) -> Result<()> {
    prctl::set_pdeathsig(Signal::SIGKILL).context(Stage::Init, "PR_SET_PDEATHSIG")?;
    // It may have ended before; its pid is not visible here.
    match sender.connected().context(Stage::Init, "poll")? {
        true => Ok(()),
        false => Err(Error::new(Stage::Init, "stub", "has ended")),
    }
}

/// Reaps every child, adopted ones too, until the workload has ended; returns its exit status.
///
/// The workload itself is left to the kernel, which reaps it when it takes the namespace down: its
/// pid is not free for another process as long as this one holds the channel.
fn reap(workload: Pid, sender: &Sender) -> Result<i32> {
    loop {
        let (pid, change) = process::peek().context(Stage::Init, "waitid")?;
        match change {
            Change::Ended(End::Exited(code)) if pid == workload => return Ok(code),
            Change::Ended(End::Killed(signal)) if pid == workload => return Ok(128 + signal),
            _ => {}
        }
        // Before the stub hears of it: what it then does may lead to the next change.
        process::take(pid, change).context(Stage::Init, "waitid")?;
        let told = match change {
            Change::Stopped(signal) if pid == workload => sender.stopped(signal),
            Change::Continued if pid == workload => sender.continued(),
            _ => Ok(()),
        };
        match told {
            // The stub is stopped and has been told enough; or it is gone, and the signal that
            // ends this process on its way.
            Ok(()) | Err(Errno::EAGAIN | Errno::EPIPE | Errno::ECONNRESET) => {}
            Err(errno) => return Err(Error::new(Stage::Init, "send", errno)),
        }
    }
}
