//! The workload's /proc, and its working directory there.

use std::ffi::{CStr, OsStr};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::mount::{MsFlags, mount};
use nix::sys::stat::{Mode, stat};
use nix::sys::statfs::{PROC_SUPER_MAGIC, statfs};
use nix::sys::statvfs::FsFlags;
use nix::unistd::chdir;

use super::{Namespaces, Route, mountinfo};
use crate::policy::Proc;
use crate::report::{Context, Error, Result, Stage, operation};
use crate::sys::mount::{detached_procfs, set_read_only};
use crate::sys::privilege;

const NONE: Option<&str> = None;
const HARMLESS: MsFlags = MsFlags::MS_NOSUID.union(MsFlags::MS_NODEV).union(MsFlags::MS_NOEXEC);

/// Gives the workload the /proc that was asked for. This process must be in its PID namespace.
pub fn set_up(plan: &Namespaces) -> Result<()> {
    // The kernel asks the owner of a procfs entry for no capability, and it is the global root,
    // whatever the user namespaces in between.
    let global_root = privilege::is_global_root().context(Stage::Proc, "eventfd")?;
    if global_root {
        protect_others()?;
    }
    mount_proc(plan.proc).context(
        Stage::Proc,
        match plan.route {
            Route::Direct => operation::MOUNT_PROC_DIRECTLY,
            Route::Nested => operation::MOUNT_PROC,
        },
    )?;
    if global_root && plan.proc != Proc::Hide {
        protect_entries(plan.proc)?;
    }
    match &plan.reenter {
        Some(path) if plan.proc != Proc::Keep => enter_again(path),
        _ => Ok(()),
    }
}

fn is_procfs(path: &CStr) -> nix::Result<bool> {
    Ok(statfs(path)?.filesystem_type() == PROC_SUPER_MAGIC)
}

fn mount_proc(proc: Proc) -> nix::Result<()> {
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
}

/// Makes every procfs but the one at /proc read-only: another one in sight would be a way round
/// what [`protect_entries`] does there, and a pattern for a new one in namespaces that the
/// workload makes. Call it before /proc is covered.
fn protect_others() -> Result<()> {
    let procfs = match is_procfs(c"/proc") {
        Ok(true) => open("/proc", OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty()),
        _ => detached_procfs(),
    };
    let others = procfs
        .and_then(|procfs| mountinfo::of_type(&procfs, "proc"))
        .context(Stage::Proc, operation::MOUNTINFO)?;
    for path in others.iter().filter(|path| path.to_bytes() != b"/proc") {
        let protected = match statfs(path.as_c_str()) {
            // Many are already: bubblewrap covers parts of root's /proc so.
            Ok(found)
                if found.filesystem_type() == PROC_SUPER_MAGIC
                    && !found.flags().contains(FsFlags::ST_RDONLY) =>
            {
                make_read_only(path, true)
            }
            other => other.map(drop),
        };
        match protected {
            // EINVAL: another mount hides it, of a procfs that has a line of its own.
            Ok(()) | Err(Errno::ENOENT | Errno::ENOTDIR | Errno::EACCES | Errno::EINVAL) => {}
            Err(errno) => return Err(Error::new(Stage::Proc, operation::READ_ONLY, errno)),
        }
    }
    Ok(())
}

/// What is known to change the machine when the global root writes to it without a capability.
const HOST_ENTRIES: [&CStr; 11] = [
    c"/proc/sys",
    c"/proc/sysrq-trigger",
    c"/proc/irq",
    c"/proc/bus",
    c"/proc/fs",
    // Container engines leave the rest writable, or cover some of it.
    c"/proc/acpi",
    c"/proc/asound",
    c"/proc/driver",
    c"/proc/dynamic_debug",
    c"/proc/mtrr",
    c"/proc/scsi",
];
const MADE_READ_ONLY_BY_ENGINES: usize = 5;

/// What the caller should have made read-only where nothing can be mounted here, and has not.
pub fn writable_host_entry() -> Option<&'static Path> {
    let writable =
        |path: &CStr| statfs(path).is_ok_and(|found| !found.flags().contains(FsFlags::ST_RDONLY));
    let entry = HOST_ENTRIES[..MADE_READ_ONLY_BY_ENGINES].iter().find(|path| writable(path))?;
    Some(Path::new(OsStr::from_bytes(entry.to_bytes())))
}

/// Makes these entries of /proc read-only.
fn protect_entries(proc: Proc) -> Result<()> {
    for path in HOST_ENTRIES {
        // Recursive: a caller's /proc/sys may have binfmt_misc below it.
        match mount(Some(path), path, NONE, MsFlags::MS_BIND | MsFlags::MS_REC, NONE) {
            Ok(()) => make_read_only(path, proc == Proc::Keep)
                .context(Stage::Proc, operation::READ_ONLY)?,
            Err(Errno::ENOENT) => {}
            Err(errno) => return Err(Error::new(Stage::Proc, "bind in /proc", errno)),
        }
    }
    Ok(())
}

fn make_read_only(path: &CStr, with_submounts: bool) -> nix::Result<()> {
    match set_read_only(path) {
        // Before Linux 5.12. A remount reaches the topmost mount only.
        Err(Errno::ENOSYS) if !with_submounts => {
            let flags = HARMLESS | MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY;
            mount(NONE, path, NONE, flags, NONE)
        }
        result => result,
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
