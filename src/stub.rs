//! The stub: the process that the caller started. It stays in the caller's PID namespace, waits,
//! forwards signals, follows the workload's stops, and relays the exit status.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::CloneFlags;
use nix::sys::prctl;
use nix::sys::signal::{Signal as KnownSignal, kill, killpg};
use nix::unistd::{Pid, getpgid, getpgrp, getpid, getppid};

use crate::confine::capabilities;
use crate::init::{self, tree::Tree};
use crate::plan::{Level, Plan};
use crate::report::status::Status;
use crate::report::{Context, Error, FAILED, Result, Stage, operation};
use crate::sys::channel::{self, Message, Receiver};
use crate::sys::descriptor;
use crate::sys::process::{self, Change, End, Fork};
use crate::sys::signal::{self, Set, Signal};
use crate::sys::terminal::Terminal;

/// The first steps of the program, before the command line is read.
pub fn take_over_process() -> Result<()> {
    // What is sent from here on stays pending until the workload is there. A pending signal is
    // kept even if the caller ignores it; SIGCHLD ignored would make wait fail.
    signal::set_mask(Set::ALL).context(Stage::Stub, "block signals")?;
    signal::default_dispositions().context(Stage::Stub, "reset signals")?;
    descriptor::fill_standard().context(Stage::Stub, "open /dev/null")
}

/// Runs the workload and returns its exit status.
pub fn run(mut plan: Plan) -> Result<i32> {
    if plan.die_with_parent {
        die_with_parent()?;
    }
    // Before any process of the sandbox exists; PID 1 inherits it.
    prctl::set_dumpable(false).context(Stage::Stub, "PR_SET_DUMPABLE")?;
    let (receiver, sender) = channel::pair().context(Stage::Stub, "socketpair")?;
    let signals = signal::descriptor(Set::ALL).context(Stage::Stub, "signalfd")?;
    let status = Status::new(plan.report.fd);
    status.begin(&plan);

    let (fork, tree) = match &mut plan.level {
        Level::Namespaces(namespaces) => (namespaces.fork()?, None),
        Level::Domain => {
            // Adopts what the reaper leaves, should that be killed.
            let tree = Tree::adopt(Stage::Stub)?;
            let fork = process::fork(CloneFlags::empty());
            (fork.context(Stage::Stub, operation::FORK)?, Some(tree))
        }
    };
    let init = match fork {
        Fork::Child => {
            // The stub must hold the only one: PID 1 sees its end so.
            drop((receiver, signals, tree));
            init::run(plan, sender)
        }
        Fork::Parent(pid) => pid,
    };
    let terminal = plan.terminal.take();
    drop((plan, sender));

    let is_job = terminal.is_some();
    let mut stub = Stub { init, terminal, is_job, signals, receiver, tree, status, workload: None };
    let followed = stub.follow();
    if followed.is_err() {
        // Without the stub there is no sandbox. PID 1 takes everything with it.
        let _ = kill(init, KnownSignal::SIGKILL);
    }
    let end = process::end_of(init).context(Stage::Stub, "waitid")?;
    if let Some(tree) = stub.tree.take() {
        match (end, &stub.workload) {
            // The reaper has left the workload only. Other children are orphans of those that the
            // caller had.
            (End::Exited(code), Some(workload)) if code != FAILED => {
                process::end_of(workload.pid).context(Stage::Stub, "waitid").map(drop)?;
            }
            _ => tree.end(None, Stage::Stub)?,
        }
    }
    stub.take_terminal_back();
    followed?;
    match end {
        End::Exited(code) => {
            stub.status.ended(code);
            Ok(code)
        }
        End::Killed(signal) => {
            Err(Error::new(Stage::Init, "PID 1", format!("was ended by signal {signal}")))
        }
    }
}

/// Makes this process end when the thread that started it does.
fn die_with_parent() -> Result<()> {
    let parent = getppid();
    prctl::set_pdeathsig(KnownSignal::SIGKILL).context(Stage::Stub, "PR_SET_PDEATHSIG")?;
    if getppid() != parent {
        return Err(Error::new(Stage::Stub, "--die-with-parent", "the caller has ended"));
    }
    Ok(())
}

struct Workload {
    /// As the stub's PID namespace numbers it; also its process group.
    pid: Pid,
    /// Opened when it is first needed.
    pidfd: Option<OwnedFd>,
    stopped: bool,
}

struct Stub {
    /// PID 1 or the reaper.
    init: Pid,
    terminal: Option<Terminal>,
    /// Whether the caller handed the terminal over as one of 0 to 2: the stub's process group is a
    /// job there.
    is_job: bool,
    signals: OwnedFd,
    receiver: Receiver,
    /// Without a PID namespace.
    tree: Option<Tree>,
    status: Status,
    workload: Option<Workload>,
}

impl Stub {
    /// What the workload closes must not stay open here; errors still go to standard error.
    fn close_others(&self) -> Result<()> {
        let mut keep = vec![2, self.signals.as_raw_fd(), self.receiver.as_fd().as_raw_fd()];
        keep.extend(self.terminal.as_ref().map(|terminal| terminal.as_fd().as_raw_fd()));
        keep.extend(self.tree.as_ref().map(|tree| tree.as_raw_fd()));
        keep.extend(self.status.fd().map(|status| status.as_raw_fd()));
        keep.sort_unstable();
        descriptor::close_all_but(&keep).context(Stage::Stub, "close_range")
    }

    /// Serves signals and messages until PID 1 and the workload's process have closed the channel.
    fn follow(&mut self) -> Result<()> {
        capabilities::drop_held(Stage::Stub)?;
        self.close_others()?;
        loop {
            let mut fds = [
                PollFd::new(self.receiver.as_fd(), PollFlags::POLLIN),
                PollFd::new(self.signals.as_fd(), PollFlags::POLLIN),
            ];
            // Signals stay pending as long as there is nobody to send them to.
            let watched = if self.workload.is_some() { 2 } else { 1 };
            match poll(&mut fds[..watched], PollTimeout::NONE) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(errno) => return Err(Error::new(Stage::Stub, "poll", errno)),
            }
            let [message, signal] = fds.map(|fd| fd.any().unwrap_or(false));
            // Messages first: what a signal means depends on whether the workload is stopped.
            if message {
                match self.receiver.receive().context(Stage::Stub, "recvmsg")? {
                    None => return Ok(()),
                    Some(Message::Started(pid)) => {
                        self.workload = Some(Workload { pid, pidfd: None, stopped: false });
                    }
                    Some(Message::Confined) => {
                        self.workload
                            .iter()
                            .for_each(|workload| self.status.confined(workload.pid));
                    }
                    Some(Message::Stopped(signal)) => self.follow_stop(signal)?,
                    Some(Message::Continued) => {
                        self.workload.iter_mut().for_each(|workload| workload.stopped = false);
                    }
                }
            } else if signal {
                self.forward()?;
            }
        }
    }

    /// Passes one pending signal on to the workload.
    fn forward(&mut self) -> Result<()> {
        let Some(signal) = Signal::take(Set::ALL).context(Stage::Stub, "sigtimedwait")? else {
            return Ok(());
        };
        match signal.number() {
            libc::SIGCHLD => self.reap(),
            libc::SIGCONT => self.resume(&signal),
            _ => self.send(&signal),
        }
    }

    /// Reaps what is none of the sandbox's: as PID 1 of a container, this process adopts the orphans
    /// of everything that is executed there beside it.
    fn reap(&self) -> Result<()> {
        while let Some((pid, change)) = process::peek().context(Stage::Stub, "waitid")? {
            if pid == self.init && matches!(change, Change::Ended(_)) {
                break;
            }
            process::take(pid, change).context(Stage::Stub, "waitid")?;
        }
        Ok(())
    }

    fn send(&mut self, signal: &Signal) -> Result<()> {
        let Some(pidfd) = self.pidfd().context(Stage::Stub, "pidfd_open")? else { return Ok(()) };
        match signal.forward(pidfd) {
            // It has ended, and its status is on the way; or it blocks so many signals that the
            // kernel queues no more, which a sender of its own would be told.
            Ok(()) | Err(Errno::ESRCH | Errno::EAGAIN) => Ok(()),
            Err(errno) => Err(Error::new(Stage::Stub, "pidfd_send_signal", errno)),
        }
    }

    /// A reference to the workload, unless it has ended.
    fn pidfd(&mut self) -> std::result::Result<Option<BorrowedFd<'_>>, Errno> {
        let Some(workload) = &mut self.workload else { return Ok(None) };
        if workload.pidfd.is_none() {
            match process::pidfd(workload.pid) {
                // The pid is the workload's as long as PID 1 or the workload's own process holds
                // the channel: so it was when it was opened.
                Ok(pidfd) if self.receiver.connected()? => workload.pidfd = Some(pidfd),
                Ok(_) | Err(Errno::ESRCH) => {}
                Err(errno) => return Err(errno),
            }
        }
        Ok(workload.pidfd.as_ref().map(AsFd::as_fd))
    }

    /// Stops as the workload has been stopped by `signal`.
    fn follow_stop(&mut self, signal: i32) -> Result<()> {
        let Some(workload) = &mut self.workload else { return Ok(()) };
        workload.stopped = true;
        if matches!(signal, libc::SIGTTIN | libc::SIGTTOU) && self.lend_terminal() {
            // A shell gives the terminal to a running job without a word.
            return self.continue_workload();
        }
        // Others in the sandbox may continue the workload, or end it.
        self.receiver.wake_stopped(true).context(Stage::Stub, "fcntl")?;
        let stopped = self.stop(signal);
        self.receiver.wake_stopped(false).context(Stage::Stub, "fcntl")?;
        stopped
    }

    fn stop(&mut self, signal: i32) -> Result<()> {
        let this = getpid();
        // The caller's SIGCONT came after its stop signal. The next stop signal drops it, and does
        // so still if it comes between these two calls.
        let continued = Signal::take(Set::EMPTY.with(libc::SIGCONT));
        match continued.context(Stage::Stub, "sigtimedwait")? {
            Some(signal) if !signal.is_descriptor_event() => return self.resume(&signal),
            _ => {}
        }
        // Pending as long as it is blocked. A message that comes from here on sends SIGCONT, which
        // takes it away again.
        kill(this, KnownSignal::SIGTSTP).context(Stage::Stub, "kill")?;
        if self.receiver.ready().context(Stage::Stub, "poll")? {
            let _ = Signal::take(Set::EMPTY.with(libc::SIGTSTP));
            return Ok(());
        }
        if self.is_job {
            // The terminal would have stopped the whole job, and the shell waits for its first
            // process, which may be bubblewrap.
            kill(Pid::from_raw(0), KnownSignal::SIGTSTP).context(Stage::Stub, "kill")?;
        }
        signal::set_mask(Set::ALL.without(libc::SIGTSTP)).context(Stage::Stub, "unblock")?;
        signal::set_mask(Set::ALL).context(Stage::Stub, "block signals")?;
        if signal::pending().context(Stage::Stub, "sigpending")?.contains(libc::SIGCONT) {
            return Ok(());
        }
        // The kernel stops no orphaned process group at the terminal's request, as nobody would
        // continue it. Without us it would not have stopped the workload either.
        if self.is_job && signal == libc::SIGTSTP {
            return self.continue_workload();
        }
        kill(this, KnownSignal::SIGSTOP).context(Stage::Stub, "kill")
    }

    /// Makes the workload's process group the terminal's foreground one, if the stub's is.
    fn lend_terminal(&mut self) -> bool {
        if self.terminal.is_none() {
            self.terminal = Terminal::open();
        }
        match (&self.terminal, &self.workload) {
            (Some(terminal), Some(workload)) if terminal.is_ours() => {
                // The terminal may be hung up, or the group gone.
                terminal.set_foreground(workload.pid).is_ok()
            }
            _ => false,
        }
    }

    /// Has been continued: by a shell, if the job is in the foreground now.
    fn resume(&mut self, signal: &Signal) -> Result<()> {
        if self.terminal.is_some() {
            self.lend_terminal();
        }
        match &self.workload {
            Some(workload) if workload.stopped => self.continue_workload(),
            // The workload was continued by others, and woke us.
            _ if signal.is_descriptor_event() => Ok(()),
            _ => self.send(signal),
        }
    }

    /// The terminal stops all of a process group, so all of it is continued.
    fn continue_workload(&mut self) -> Result<()> {
        let Some(workload) = &mut self.workload else { return Ok(()) };
        workload.stopped = false;
        let group = getpgid(Some(workload.pid)).unwrap_or(workload.pid);
        let send = || {
            if group != workload.pid {
                // It has left its first group.
                kill(workload.pid, KnownSignal::SIGCONT)?;
            }
            killpg(workload.pid, KnownSignal::SIGCONT)
        };
        match send() {
            Ok(()) | Err(Errno::ESRCH) => Ok(()),
            Err(errno) => Err(Error::new(Stage::Stub, "kill", errno)),
        }
    }

    /// If the foreground process group died with the sandbox, puts the caller's in its place.
    fn take_terminal_back(&self) {
        let Some(terminal) = &self.terminal else { return };
        let own = getpgrp();
        // Group 0 is one outside this PID namespace: it cannot be named, and its shell does it.
        if own.as_raw() > 0
            && let Ok(group) = terminal.foreground()
            && group.as_raw() > 0
            && killpg(group, None) == Err(Errno::ESRCH)
        {
            // The terminal may be hung up.
            let _ = terminal.set_foreground(own);
        }
    }
}
