//! How the listener gets from the workload, which opens it, to the process above.
//!
//! Both share one descriptor table until the workload has opened it. Then the workload takes a table
//! of its own, writes the number to a pipe, and waits until it may go on: no call is needed that the
//! filter could trap.

use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::process;

use nix::fcntl::OFlag;
use nix::unistd::{pipe2, read, write};

use crate::init::reap::{Event, Reaper};
use crate::report::{Context, FAILED, Result, Stage};
use crate::sys::descriptor;
use crate::sys::notify::Listener;

pub struct Handover {
    /// Read end, write end: the listener's number.
    number: (OwnedFd, OwnedFd),
    /// Read end, write end: a byte lets the workload go on.
    go: (OwnedFd, OwnedFd),
}

impl Handover {
    pub fn new() -> Result<Self> {
        let pipe = || pipe2(OFlag::O_CLOEXEC).context(Stage::Init, "pipe2");
        Ok(Self { number: pipe()?, go: pipe()? })
    }

    /// The workload's side: waits until the supervisor serves. What it closes from here on is
    /// closed for itself only.
    pub fn give(self, listener: OwnedFd) -> Result<()> {
        descriptor::take_own_table().context(Stage::Confine, "close_range")?;
        let (number, (go, supervisors_end)) = (self.number.1, self.go);
        drop(supervisors_end);
        write(number, &listener.as_raw_fd().to_ne_bytes()).context(Stage::Confine, "write")?;
        drop(listener);
        match read(go, &mut [0]).context(Stage::Confine, "read")? {
            1 => Ok(()),
            // The process above has said why, or the stub says that it was killed.
            _ => process::exit(FAILED),
        }
    }

    /// The other side: waits for the listener. None: the workload has ended before.
    pub fn receive(&self, reaper: &mut Reaper) -> Result<Option<Listener>> {
        match reaper.wait(Some(self.number.0.as_fd()))? {
            Event::Ended(_) => Ok(None),
            Event::Readable => {
                let mut number = [0; size_of::<RawFd>()];
                read(&self.number.0, &mut number).context(Stage::Init, "read")?;
                Ok(Some(Listener::from_number(RawFd::from_ne_bytes(number))))
            }
        }
    }

    /// Lets the workload exec.
    pub fn release(&self) -> Result<()> {
        write(&self.go.1, &[1]).map(drop).context(Stage::Init, "write")
    }

    /// What [`Self::release`] needs.
    pub fn as_raw_fd(&self) -> RawFd {
        self.go.1.as_raw_fd()
    }
}
