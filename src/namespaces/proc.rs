//! The workload's /proc, and its working directory there.

use std::ffi::CStr;
use std::path::Path;

use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sys::stat::stat;
use nix::sys::statfs::{PROC_SUPER_MAGIC, statfs};
use nix::unistd::{chdir, geteuid};

use super::mountinfo;
use crate::plan::{Plan, Route};
use crate::policy::Proc;
use crate::report::{Context, Error, Result, Stage, operation};
use crate::sys::mount::set_read_only;

const NONE: Option<&str> = None;
const HARMLESS: MsFlags = MsFlags::MS_NOSUID.union(MsFlags::MS_NODEV).union(MsFlags::MS_NOEXEC);

/// Gives the workload the /proc that was asked for. This process must be in its PID namespace.
pub fn set_up(plan: &Plan) -> Result<()> {
    // The kernel asks no capability of the owner of a procfs entry: whatever the user namespaces
    // in between, the global root owns them all.
    let global_root = match stat("/proc") {
        Ok(root) => root.st_uid == geteuid().as_raw(),
        Err(_) => geteuid().is_root(),
    };
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
    let others = mountinfo::of_type("proc").context(Stage::Proc, "read mountinfo")?;
    for path in others.iter().filter(|path| path.to_bytes() != b"/proc") {
        match statfs(path.as_c_str()) {
            Ok(found) if found.filesystem_type() == PROC_SUPER_MAGIC => {
                make_read_only(path, Proc::Keep)?;
            }
            // Another mount hides it.
            Ok(_) | Err(Errno::ENOENT | Errno::ENOTDIR | Errno::EACCES) => {}
            Err(errno) => return Err(Error::new(Stage::Proc, "statfs", errno)),
        }
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

/// Makes these entries of /proc read-only.
fn protect_entries(proc: Proc) -> Result<()> {
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
