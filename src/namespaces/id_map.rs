//! The id maps of a new user namespace: the caller's own ids, mapped to themselves.
//!
//! user_namespaces(7): a process may map its own user id without privilege, and its own group id
//! once setgroups(2) is denied for good.

use std::os::fd::OwnedFd;

use nix::errno::Errno;
use nix::fcntl::{OFlag, open, openat};
use nix::sys::prctl;
use nix::sys::stat::Mode;
use nix::unistd::write;

use crate::plan::Ids;
use crate::report::{Context, Result, Stage, operation};

/// A reference to the caller's /proc, taken before it is covered. /proc/self in it is right for a
/// process of any PID namespace below.
pub struct Procfs(OwnedFd);

impl Procfs {
    pub fn open() -> Result<Self> {
        open("/proc", OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())
            .map(Self)
            .context(Stage::Namespaces, operation::OPEN_PROC)
    }

    fn put(&self, path: &str, text: &str) -> std::result::Result<(), Errno> {
        let file = openat(&self.0, path, OFlag::O_WRONLY | OFlag::O_CLOEXEC, Mode::empty())?;
        write(&file, text.as_bytes()).map(drop)
    }
}

/// Maps the caller's ids in the user namespace that this process has just entered, and leaves the
/// process non-dumpable.
pub fn write_own(procfs: &Procfs, ids: Ids) -> Result<()> {
    // The files of a non-dumpable process belong to root. So would those of a program file that
    // may be executed and not read.
    prctl::set_dumpable(true).context(Stage::Namespaces, "PR_SET_DUMPABLE")?;
    let (user, group) = (ids.user, ids.group);
    procfs.put("self/setgroups", "deny").context(Stage::Namespaces, operation::SETGROUPS)?;
    procfs
        .put("self/uid_map", &format!("{user} {user} 1"))
        .context(Stage::Namespaces, operation::UID_MAP)?;
    procfs
        .put("self/gid_map", &format!("{group} {group} 1"))
        .context(Stage::Namespaces, operation::GID_MAP)?;
    prctl::set_dumpable(false).context(Stage::Namespaces, "PR_SET_DUMPABLE")
}
