//! The new mount namespace.

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns};
use nix::sys::stat::Mode;
use nix::unistd::{chroot, fchdir, getpid};

use crate::report::{Context, Result, Stage, operation};
use crate::sys::process::pidfd;

const NONE: Option<&str> = None;

/// Keeps what is mounted from here on out of the caller's mount namespace.
pub fn make_private() -> Result<()> {
    let private = || mount(NONE, "/", NONE, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NONE);
    match private() {
        // In a chroot / is no mount point. Joining the mount namespace, even one's own, leaves it.
        Err(Errno::EINVAL) => {
            let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
            let directory = |path| open(path, flags, Mode::empty());
            let root = directory("/").context(Stage::Namespaces, "open /")?;
            let working = directory(".").context(Stage::Namespaces, "open .")?;
            let own = pidfd(getpid()).context(Stage::Namespaces, "pidfd_open")?;
            setns(own, CloneFlags::CLONE_NEWNS).context(Stage::Namespaces, "setns")?;
            private().context(Stage::Namespaces, operation::PRIVATE)?;
            fchdir(&root).context(Stage::Namespaces, "fchdir")?;
            chroot(".").context(Stage::Namespaces, "chroot")?;
            fchdir(&working).context(Stage::Namespaces, "fchdir")
        }
        result => result.context(Stage::Namespaces, operation::PRIVATE),
    }
}
