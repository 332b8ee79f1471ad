//! The id maps of a new user namespace: the caller's own ids, mapped to themselves.
//!
//! user_namespaces(7): a process may map its own user id without privilege, and its own group id
//! once setgroups(2) is denied for good.

use std::os::fd::OwnedFd;

use nix::errno::Errno;
use nix::fcntl::{OFlag, open, openat};
use nix::sys::prctl;
use nix::sys::stat::Mode;
use nix::sys::statfs::{PROC_SUPER_MAGIC, fstatfs};
use nix::unistd::write;

use crate::plan::Ids;
use crate::report::{Context, Result, Stage, operation};

/// The procfs whose /proc/self is this process: one of its PID namespace or of any above it.
pub enum Procfs {
    /// What is at /proc.
    Current,
    /// What was at /proc when this reference was taken.
    Held(OwnedFd),
}

impl Procfs {
    /// Takes a reference to what is at /proc.
    pub fn hold() -> Result<Self> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        open("/proc", flags, Mode::empty()).map(Self::Held).context(Stage::Namespaces, "open /proc")
    }

    /// Writes to a file of /proc/self, in one write as the maps demand.
    fn put(&self, path: &str, text: &str, operation: &'static str) -> Result<()> {
        let flags = OFlag::O_WRONLY | OFlag::O_CLOEXEC;
        let file = match self {
            Self::Current => open(path, flags, Mode::empty()),
            Self::Held(procfs) => openat(procfs, &path["/proc/".len()..], flags, Mode::empty()),
        };
        file.and_then(|file| match fstatfs(&file)?.filesystem_type() {
            PROC_SUPER_MAGIC => write(&file, text.as_bytes()),
            // A directory that looks like one.
            _ => Err(Errno::ENOENT),
        })
        .map(drop)
        .context(Stage::Namespaces, operation)
    }
}

/// Maps the caller's ids in the user namespace that this process has just entered, and leaves the
/// process non-dumpable.
pub fn write_own(procfs: &Procfs, ids: Ids) -> Result<()> {
    // The files of a non-dumpable process belong to root. So would those of a program file that
    // may be executed and not read.
    prctl::set_dumpable(true).context(Stage::Namespaces, "PR_SET_DUMPABLE")?;
    let (user, group) = (ids.user, ids.group);
    procfs.put("/proc/self/setgroups", "deny", operation::SETGROUPS)?;
    procfs.put("/proc/self/uid_map", &format!("{user} {user} 1"), operation::UID_MAP)?;
    procfs.put("/proc/self/gid_map", &format!("{group} {group} 1"), operation::GID_MAP)?;
    prctl::set_dumpable(false).context(Stage::Namespaces, "PR_SET_DUMPABLE")
}
