//! Reaping: every child is waited for, adopted ones too, until the workload has ended.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal as NixSignal, kill};
use nix::unistd::Pid;

use super::tree::Tree;
use crate::report::{Context, Error, Result, Stage};
use crate::sys::channel::Sender;
use crate::sys::process::{self, Change, End};
use crate::sys::signal::{Set, Signal};

pub struct Reaper {
    pub workload: Pid,
    /// Where the stub listens; its end is the stub's.
    pub sender: Sender,
    /// A signalfd(2) for SIGCHLD.
    pub changes: OwnedFd,
    /// Without a PID namespace.
    pub tree: Option<Tree>,
    /// Whether this process has threads that wait for the workload's memory.
    pub supervises: bool,
}

pub enum Event {
    /// The descriptor has become readable.
    Readable,
    /// The workload has ended, with this exit status.
    Ended(i32),
}

/// How many changes are taken before the stub is looked for.
const AT_ONCE: usize = 64;

enum Reaped {
    /// All that there was.
    All,
    /// Perhaps there is more.
    Some,
    /// The workload has ended, with this exit status.
    Workload(i32),
}

impl Reaper {
    /// Reaps until the workload has ended, and returns its exit status.
    pub fn run(mut self) -> Result<i32> {
        loop {
            if let Event::Ended(status) = self.wait(None)? {
                return self.end(Some(self.workload)).map(|()| status);
            }
        }
    }

    /// Reaps until the workload has ended or there is something to read. The stub's end is this
    /// process's, too.
    pub fn wait(&mut self, reader: Option<BorrowedFd>) -> Result<Event> {
        loop {
            let timeout = match self.reap()? {
                Reaped::All => PollTimeout::NONE,
                Reaped::Some => PollTimeout::ZERO,
                Reaped::Workload(status) => return Ok(Event::Ended(status)),
            };
            let mut fds = vec![
                PollFd::new(self.changes.as_fd(), PollFlags::POLLIN),
                PollFd::new(self.sender.as_fd(), PollFlags::empty()),
            ];
            fds.extend(reader.map(|reader| PollFd::new(reader, PollFlags::POLLIN)));
            match poll(&mut fds, timeout) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(errno) => return Err(Error::new(Stage::Init, "poll", errno)),
            }
            let ready = |index: usize| fds.get(index).and_then(PollFd::any).unwrap_or(false);
            let [stub, readable] = [1, 2].map(ready);
            if stub {
                self.end(None)?;
                return Err(Error::new(Stage::Init, "stub", "has ended"));
            }
            if readable {
                return Ok(Event::Readable);
            }
        }
    }

    /// Ends what no PID namespace ends.
    ///
    /// That ends with the last thread of its PID 1. One that waits for a page of a FUSE file cannot be
    /// killed as long as the file system's process lives, which may be the workload's own.
    fn end(&mut self, last: Option<Pid>) -> Result<()> {
        match self.tree.take() {
            Some(tree) => tree.end(last, Stage::Init),
            None if self.supervises => match kill(Pid::from_raw(-1), NixSignal::SIGKILL) {
                Ok(()) | Err(Errno::ESRCH) => Ok(()),
                Err(errno) => Err(Error::new(Stage::Init, "kill", errno)),
            },
            None => Ok(()),
        }
    }

    /// Takes what has happened to children: not all at once, as the workload may make more faster
    /// than this process takes them, and it must see the stub's end.
    ///
    /// The workload itself is left to whoever takes it after this process: its pid is not free for
    /// another process as long as this one holds the channel.
    fn reap(&mut self) -> Result<Reaped> {
        // Of those that came meanwhile the descriptor tells.
        Signal::take(Set::EMPTY.with(libc::SIGCHLD)).context(Stage::Init, "sigtimedwait")?;
        for _ in 0..AT_ONCE {
            let Some((pid, change)) = process::peek().context(Stage::Init, "waitid")? else {
                return Ok(Reaped::All);
            };
            match change {
                Change::Ended(End::Exited(code)) if pid == self.workload => {
                    return Ok(Reaped::Workload(code));
                }
                Change::Ended(End::Killed(signal)) if pid == self.workload => {
                    return Ok(Reaped::Workload(128 + signal));
                }
                _ => {}
            }
            // Before the stub hears of it: what it then does may lead to the next change.
            process::take(pid, change).context(Stage::Init, "waitid")?;
            let told = match change {
                Change::Stopped(signal) if pid == self.workload => self.sender.stopped(signal),
                Change::Continued if pid == self.workload => self.sender.continued(),
                _ => Ok(()),
            };
            match told {
                // The stub is stopped and has been told enough; or it is gone.
                Ok(()) | Err(Errno::EAGAIN | Errno::EPIPE | Errno::ECONNRESET) => {}
                Err(errno) => return Err(Error::new(Stage::Init, "send", errno)),
            }
        }
        Ok(Reaped::Some)
    }
}
