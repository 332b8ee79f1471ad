//! Every process of the sandbox where no PID namespace ends them together.
//!
//! A child subreaper adopts whatever its descendants leave behind, however often they fork and
//! whatever session they are in: a process without children has no descendants.

use std::fs::{self, File};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::FileExt;
use std::path::Path;

use nix::errno::Errno;
use nix::sys::prctl;
use nix::sys::signal::{Signal, kill};
use nix::sys::statfs::{PROC_SUPER_MAGIC, statfs};
use nix::unistd::{Pid, getpid, getppid};

use crate::confine::domain::restrict;
use crate::plan::domain::Domain;
use crate::report::{Context, Error, Result, Stage, operation};
use crate::sys::{errno, process};

/// proc_pid_task_children(5), of the kernels with CONFIG_PROC_CHILDREN. It is complete as long as
/// no child is reaped while it is read.
const CHILDREN: &str = "/proc/thread-self/children";

pub struct Tree {
    children: File,
    /// Children that are none of the sandbox's: those that the caller had before it became sbx-init.
    foreign: Vec<Pid>,
    /// Signals of this process reach nothing but its descendants.
    enclosed: bool,
}

impl Tree {
    /// Whether this process can see its children, and by their right numbers.
    pub fn is_visible() -> Result<()> {
        let failed = |what: &'static str| Err(Error::new(Stage::Plan, operation::CHILDREN, what));
        if !statfs("/proc").is_ok_and(|found| found.filesystem_type() == PROC_SUPER_MAGIC) {
            return failed("there is no procfs at /proc");
        }
        let own = fs::read_link("/proc/self");
        if !own.is_ok_and(|own| own == Path::new(&getpid().to_string())) {
            return failed("the procfs at /proc is of another PID namespace");
        }
        open(Stage::Plan).map(drop)
    }

    /// Makes this process the one that adopts what its descendants leave behind. The children that
    /// it has already are left alone.
    pub fn adopt(stage: Stage) -> Result<Self> {
        prctl::set_child_subreaper(true).context(stage, "PR_SET_CHILD_SUBREAPER")?;
        let mut tree = Self { children: open(stage)?, foreign: Vec::new(), enclosed: false };
        tree.foreign = tree.children().context(stage, operation::CHILDREN)?;
        Ok(tree)
    }

    /// Puts this process and all that it will fork into a Landlock domain whose signals stay inside.
    pub fn enclose(&mut self) -> Result<()> {
        restrict(Domain::of_signals()?, Stage::Init)?;
        // The stub, of the same user, is the nearest that must be out of reach.
        self.enclosed = kill(getppid(), None) == Err(Errno::EPERM);
        let failed = || Error::new(Stage::Init, "landlock", "signals still get out");
        self.enclosed.then_some(()).ok_or_else(failed)
    }

    /// Kills all of them. `last` is left for whoever adopts it: a process that has ended, whose
    /// pid must not be used again yet.
    pub fn end(mut self, last: Option<Pid>, stage: Stage) -> Result<()> {
        self.foreign.extend(last);
        if self.enclosed {
            // All at once: one after the other, those that are left could fork faster than they
            // are killed. The kernel takes the caller out, and the domain all others.
            match kill(Pid::from_raw(-1), Signal::SIGKILL) {
                Ok(()) | Err(Errno::ESRCH) => {}
                Err(errno) => return Err(Error::new(stage, "kill", errno)),
            }
        }
        loop {
            // What is killed here cannot fork any more, and its children come next.
            let children = self.children().context(stage, operation::CHILDREN)?;
            if children.is_empty() {
                return Ok(());
            }
            for child in &children {
                match kill(*child, Signal::SIGKILL) {
                    Ok(()) | Err(Errno::ESRCH) => {}
                    Err(errno) => return Err(Error::new(stage, "kill", errno)),
                }
            }
            for child in children {
                process::end_of(child).context(stage, "waitid")?;
            }
        }
    }

    /// The children that are the sandbox's, zombies too.
    fn children(&self) -> std::result::Result<Vec<Pid>, Errno> {
        let mut text = Vec::new();
        let mut chunk = [0; 4096];
        loop {
            let length = self
                .children
                .read_at(&mut chunk, text.len() as u64)
                .map_err(|error| errno::of(&error))?;
            if length == 0 {
                break;
            }
            text.extend_from_slice(&chunk[..length]);
        }
        let pids = text
            .split(|byte| *byte == b' ')
            .filter_map(|word| std::str::from_utf8(word).ok()?.parse().ok().map(Pid::from_raw));
        Ok(pids.filter(|pid| !self.foreign.contains(pid)).collect())
    }
}

impl AsRawFd for Tree {
    fn as_raw_fd(&self) -> RawFd {
        self.children.as_raw_fd()
    }
}

fn open(stage: Stage) -> Result<File> {
    File::open(CHILDREN).map_err(|error| Error::new(stage, operation::CHILDREN, error))
}
