//! What this process may do here, found out by asking or by doing.

use std::fs::{self, File};
use std::io::{Read, Write};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{getpid, pipe2};

use crate::namespaces::Namespaces;
use crate::namespaces::id_map::{self, Procfs};
use crate::plan::Ids;
use crate::report::{Context, Error, Result, Stage, operation};
use crate::sys::process::{self, End, Fork};
use crate::sys::{memory, seccomp};

/// The value of a sysctl as this process sees it, if it can.
pub fn sysctl(name: &str) -> Option<i64> {
    let path = format!("/proc/sys/{}", name.replace('.', "/"));
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// Whether a user namespace can be made and the caller's ids mapped there. A child tries: there is
/// no way back out of one, and a security module may let it be made and then refuse the maps.
pub fn has_user_namespaces(ids: Ids) -> Result<bool> {
    let attempt = || {
        unshare(CloneFlags::CLONE_NEWUSER).context(Stage::Plan, operation::UNSHARE)?;
        id_map::write_own(&Procfs::Current, ids)
    };
    match process::fork(CloneFlags::empty()).context(Stage::Plan, operation::FORK)? {
        Fork::Child => process::exit(attempt().is_err().into()),
        Fork::Parent(child) => {
            process::end_of(child).map(|end| end == End::Exited(0)).context(Stage::Plan, "waitid")
        }
    }
}

/// Why these namespaces cannot be had here, if so. A child makes them and sets them up.
pub fn refusal(namespaces: &Namespaces) -> Result<Option<String>> {
    let (reader, writer) = pipe2(OFlag::O_CLOEXEC).context(Stage::Plan, "pipe2")?;
    let child = match namespaces.clone().fork() {
        Ok(Fork::Child) => {
            let Err(error) = namespaces.set_up() else { process::exit(0) };
            // Fails only if nobody is left to tell.
            let _ = File::from(writer).write_all(error.to_string().as_bytes());
            process::exit(1)
        }
        Ok(Fork::Parent(child)) => child,
        Err(error) => return Ok(Some(error.to_string())),
    };
    drop(writer);
    let mut refusal = String::new();
    let read = File::from(reader).read_to_string(&mut refusal);
    let end = process::end_of(child).context(Stage::Plan, "waitid")?;
    match (end, read) {
        (End::Exited(0), _) => Ok(None),
        (_, Ok(1..)) => Ok(Some(refusal)),
        _ => Ok(Some("namespaces: the attempt was killed".to_owned())),
    }
}

/// Fails unless this process may take duplicates of its descendants' sockets, which the answer to a call
/// of theirs needs.
pub fn can_duplicate_sockets() -> Result<()> {
    let own = process::pidfd(getpid()).context(Stage::Plan, "pidfd_open")?;
    match process::descriptor_of(&own, 0) {
        Ok(_) => Ok(()),
        Err(errno @ (Errno::EPERM | Errno::ENOSYS | Errno::EACCES)) => {
            Err(Error::new(Stage::Plan, operation::PIDFD_GETFD, errno))
        }
        Err(errno) => Err(Error::new(Stage::Plan, "pidfd_getfd", errno)),
    }
}

const PTRACE_SCOPE: &str = "kernel.yama.ptrace_scope";

/// Fails where Yama (Linux 3.4) lets nobody trace its descendants: to take duplicates of their
/// descriptors and to read their memory are the same to it. What a process may do to itself does not
/// tell. `privileged`: whether the supervisor has CAP_SYS_PTRACE over them.
pub fn may_trace(privileged: bool) -> Result<()> {
    match (sysctl(PTRACE_SCOPE), privileged) {
        (Some(scope @ 2), false) | (Some(scope @ 3..), _) => {
            let what = format!("{PTRACE_SCOPE} is {scope}");
            Err(Error::new(Stage::Plan, operation::TRACE, what))
        }
        _ => Ok(()),
    }
}

/// Fails unless there is process_vm_readv(2).
pub fn can_read_memory() -> Result<()> {
    let there = [0u8];
    memory::gather(getpid(), &[(there.as_ptr() as u64, 1)], &mut [0])
        .context(Stage::Plan, operation::READ_MEMORY)
}

/// Fails unless a call that the supervisor has received is never made again because of a signal: its
/// datagram would be sent twice.
pub fn can_send_once() -> Result<()> {
    match seccomp::can_wait_killable() {
        true => Ok(()),
        false => Err(Error::new(Stage::Plan, operation::WAIT_KILLABLE, Errno::EINVAL)),
    }
}
