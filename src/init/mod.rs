//! The process above the workload: sets the boundary up, starts the workload, reaps, and ends with
//! it. With namespaces it is their PID 1, and the kernel then kills whatever is left there; without,
//! it does that itself.

pub mod reap;
pub mod tree;

use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, AsRawFd, RawFd};

use nix::sched::CloneFlags;
use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::unistd::{Pid, setpgid};

use crate::confine::{self, Confinement, capabilities};
use crate::namespaces::Route;
use crate::notify::{Handover, Prepared, Supervisor};
use crate::plan::domain::SCOPES_ABI;
use crate::plan::{Level, Plan};
use crate::report::{Context, Error, Result, Stage, operation};
use crate::sys::channel::Sender;
use crate::sys::process::{self, Fork};
use crate::sys::signal::{self, Set};
use crate::sys::terminal::Terminal;
use crate::sys::{descriptor, thread};
use reap::{Event, Reaper};
use tree::Tree;

/// Runs as PID 1, or as the reaper, and ends with the workload's exit status.
pub fn run(plan: Plan, sender: Sender) -> ! {
    process::exit(start(plan, sender).unwrap_or_else(|error| error.print()))
}

fn start(mut plan: Plan, sender: Sender) -> Result<i32> {
    let (procfs, tree) = match &plan.level {
        Level::Namespaces(namespaces) => {
            end_with_stub(&sender)?;
            (namespaces.set_up()?, None)
        }
        Level::Domain => (None, Some(adopt(plan.report.abi)?)),
    };
    let nested =
        matches!(&plan.level, Level::Namespaces(namespaces) if namespaces.route == Route::Nested);
    // With default dispositions the kernel drops whatever the workload sends to its PID 1: all but the
    // signal that interrupts a supervisor's threads. SIGCHLD is polled for. A reaper is no PID 1.
    let blocked = if tree.is_some() { Set::ALL } else { Set::EMPTY.with(libc::SIGCHLD) };
    let changes = Set::EMPTY.with(libc::SIGCHLD);
    let changes = signal::descriptor(changes).context(Stage::Init, "signalfd")?;
    let supervision = plan.supervision.take();
    let prepared = supervision.map(|asked| Prepared::new(asked, &plan.level)).transpose()?;
    let handover = prepared.as_ref().map(|_| Handover::new()).transpose()?;
    // The kernel answers those of the stub's process group.
    plan.terminal = plan.terminal.take().filter(Terminal::is_ours);
    if tree.is_some() {
        leave_group()?;
    }

    // The listener that the workload opens must appear here, too.
    let shared = match handover {
        Some(_) => CloneFlags::CLONE_FILES,
        None => CloneFlags::empty(),
    };
    let workload = match process::fork(shared).context(Stage::Init, operation::FORK)? {
        Fork::Child => {
            // To drop it would close it for the parent, too.
            std::mem::forget(prepared);
            confine::run(Confinement { plan, procfs, handover }, &sender)
        }
        Fork::Parent(pid) => pid,
    };
    // As long as the table is shared, these are the workload's to close.
    std::mem::forget((plan, procfs));
    let mut keep = vec![2, sender.as_raw_fd(), changes.as_raw_fd()];
    keep.extend(tree.as_ref().map(|tree| tree.as_raw_fd()));
    let mut reaper = Reaper { workload, sender, changes, tree, supervises: false };
    match prepared.zip(handover) {
        None => {
            capabilities::drop_held(Stage::Init)?;
            close_all_but(keep)?;
        }
        Some((prepared, handover)) => {
            supervise(prepared, handover, &mut reaper, keep, nested)?;
        }
    }
    signal::set_mask(thread::with_wake(blocked)).context(Stage::Init, "unblock signals")?;
    reaper.run()
}

/// Takes the listener over and starts the supervisor; then the workload may go on.
fn supervise(
    mut prepared: Prepared,
    handover: Handover,
    reaper: &mut Reaper,
    mut keep: Vec<RawFd>,
    nested: bool,
) -> Result<()> {
    // None: the workload has ended, now or below.
    let Some(listener) = handover.receive(reaper)? else { return Ok(()) };
    keep.extend([handover.as_raw_fd(), listener.as_raw_fd()]);
    keep.extend(prepared.descriptors());
    // But for one, its ends are closed by number.
    let handover = ManuallyDrop::new(handover);
    close_all_but(keep)?;
    let answers = match prepared.resolve()? {
        None => Vec::new(),
        Some(resolution) => match reaper.wait(Some(resolution.as_fd()))? {
            Event::Ended(_) => return Ok(()),
            Event::Readable => resolution.answers(),
        },
    };
    // Mounts a hosts file.
    let policy = prepared.policy(&answers)?;
    match nested {
        true => capabilities::drop_held_but_trace(Stage::Init)?,
        // It would hold in the caller's user namespace.
        false => capabilities::drop_held(Stage::Init)?,
    }
    reaper.supervises = true;
    if reaper.tree.is_none() {
        // The stub's end is seen by its channel: what has to be done then is more than to die.
        prctl::set_pdeathsig(None).context(Stage::Init, "PR_SET_PDEATHSIG")?;
    }
    Supervisor::start(listener, policy, prepared.procfs)?;
    handover.release()
}

/// Keeps what this process needs of the descriptors that the workload may close. Errors still go to
/// standard error.
fn close_all_but(mut keep: Vec<RawFd>) -> Result<()> {
    keep.sort_unstable();
    descriptor::close_all_but(&keep).context(Stage::Init, "close_range")
}

/// Prepares for the end of all that this process will fork.
fn adopt(abi: u32) -> Result<Tree> {
    let mut tree = Tree::adopt(Stage::Init)?;
    if abi >= SCOPES_ABI {
        tree.enclose()?;
    }
    Ok(tree)
}

/// What kills the stub's process group, as timeout(1) and the `kill %1` of a shell do, must not kill
/// the one that ends all the others then.
fn leave_group() -> Result<()> {
    let own = Pid::from_raw(0);
    setpgid(own, own).context(Stage::Init, "setpgid")
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
