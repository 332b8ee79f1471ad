//! The mounts of the new mount namespace.

use std::ffi::CStr;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns};
use nix::sys::stat::{Mode, stat};
use nix::unistd::{chdir, chroot, fchdir, geteuid, getpid};

use crate::policy::Proc;
use crate::report::{Context, Error, Result, Stage, operation};
use crate::sys::mount::set_read_only;
use crate::sys::process::pidfd;

const NONE: Option<&str> = None;
const HARMLESS: MsFlags = MsFlags::MS_NOSUID.union(MsFlags::MS_NODEV).union(MsFlags::MS_NOEXEC);

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
            private().context(Stage::Namespaces, "make mounts private")?;
            fchdir(&root).context(Stage::Namespaces, "fchdir")?;
            chroot(".").context(Stage::Namespaces, "chroot")?;
            fchdir(&working).context(Stage::Namespaces, "fchdir")
        }
        result => result.context(Stage::Namespaces, "make mounts private"),
    }
}

/// Gives the workload the /proc that was asked for. This process must be in its PID namespace.
pub fn set_up_proc(proc: Proc, reenter: Option<&Path>) -> Result<()> {
    match proc {
        Proc::Fresh => mount(Some("proc"), "/proc", Some("proc"), HARMLESS, NONE),
        Proc::Keep => Ok(()),
        Proc::Hide => {
            let empty = Some("mode=0555,nr_inodes=1");
            let flags = HARMLESS | MsFlags::MS_RDONLY;
            match mount(Some("none"), "/proc", Some("tmpfs"), flags, empty) {
                // There is nothing to hide.
                Err(Errno::ENOENT) => Ok(()),
                result => result,
            }
        }
    }
    .context(Stage::Proc, operation::MOUNT_PROC)?;

    if proc != Proc::Hide {
        protect_host(proc)?;
    }
    if let (Some(path), true) = (reenter, proc != Proc::Keep) {
        enter_again(path)?;
    }
    Ok(())
}

/// What changes the machine when the global root writes to it: the kernel asks for the owner and
/// for no capability. Other entries of this kind check a capability too.
const HOST_ENTRIES: [&CStr; 11] = [
    c"/proc/sys",
    c"/proc/sysrq-trigger",
    c"/proc/irq",
    c"/proc/bus",
    c"/proc/acpi",
    c"/proc/asound",
    c"/proc/driver",
    c"/proc/dynamic_debug",
    c"/proc/fs",
    c"/proc/mtrr",
    c"/proc/scsi",
];

/// Makes the writable parts of /proc read-only if this user is the global root: the owner of
/// a procfs, whatever the user namespaces in between.
fn protect_host(proc: Proc) -> Result<()> {
    match stat("/proc") {
        Ok(root) if root.st_uid == geteuid().as_raw() => {}
        Ok(_) | Err(Errno::ENOENT) => return Ok(()),
        Err(errno) => return Err(Error::new(Stage::Proc, "stat /proc", errno)),
    }
    for path in HOST_ENTRIES {
        // Recursive: a caller's /proc/sys may have binfmt_misc below it.
        match mount(Some(path), path, NONE, MsFlags::MS_BIND | MsFlags::MS_REC, NONE) {
            Ok(()) => make_read_only(path, proc)?,
            Err(Errno::ENOENT) => {}
            Err(errno) => return Err(Error::new(Stage::Proc, "bind in /proc", errno)),
        }
    }
    Ok(())
}

fn make_read_only(path: &CStr, proc: Proc) -> Result<()> {
    match set_read_only(path) {
        // Before Linux 5.12. A remount reaches the topmost mount only: all of it, if it is fresh.
        Err(Errno::ENOSYS) if proc == Proc::Fresh => {
            let flags = HARMLESS | MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY;
            mount(NONE, path, NONE, flags, NONE).context(Stage::Proc, "remount in /proc")
        }
        result => result.context(Stage::Proc, operation::READ_ONLY),
    }
}

/// Goes to the same path again, which is now below the new mount.
fn enter_again(path: &Path) -> Result<()> {
    chdir(path).context(Stage::Proc, "enter the working directory again")?;
    let (here, proc) = (stat("."), stat("/proc"));
    let here = here.context(Stage::Proc, "stat .")?;
    let proc = proc.context(Stage::Proc, "stat /proc")?;
    if here.st_dev != proc.st_dev {
        let what = "is on another procfs than /proc: start it from another directory";
        return Err(Error::new(Stage::Proc, "working directory", what));
    }
    Ok(())
}
