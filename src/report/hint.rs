//! The table of hints: what a failure most likely means here, and what to change.

use nix::errno::Errno;
use nix::sys::statvfs::{FsFlags, statvfs};

use super::{Cause, Error, Stage};
use crate::host::sysctl;

/// Operations that the table knows; their callers use the same names.
pub mod operation {
    pub const CLONE: &str = "clone";
    pub const UNSHARE: &str = "unshare";
    pub const SETGROUPS: &str = "setgroups";
    pub const UID_MAP: &str = "uid_map";
    pub const GID_MAP: &str = "gid_map";
    pub const MOUNTINFO: &str = "read mountinfo";
    pub const MOUNT_PROC: &str = "mount /proc";
    pub const MOUNT_PROC_DIRECTLY: &str = "mount /proc without a user namespace";
    pub const SEPARATION: &str = "separate the workload";
    pub const READ_ONLY: &str = "mount_setattr";
    pub const FORK: &str = "fork";
    pub const PIN: &str = "pin names";
    pub const PRIVATE: &str = "make mounts private";
    /// Followed by the path.
    pub const MOUNT_OVER: &str = "mount over ";
    pub const RECEIVE_FILTER: &str = "receive filter";
    pub const OWN_PROC: &str = "make a /proc for the supervisor";
    pub const SECCOMP: &str = "seccomp";
    pub const LISTENER: &str = "seccomp listener";
    pub const LANDLOCK: &str = "landlock";
    pub const COVERED: &str = "landlock rule";
    pub const PIDFD_GETFD: &str = "pidfd_getfd for the supervisor";
    pub const TRACE: &str = "trace the workload for the supervisor";
    pub const READ_MEMORY: &str = "process_vm_readv for the supervisor";
    pub const WAIT_KILLABLE: &str = "udp:// rules";
    pub const GLOBAL_ROOT: &str = "--isolation domain as the global root";
    pub const CHILDREN: &str = "see the children";
    pub const NEEDED_GROUP: &str = "filter groups";
}
use operation::*;

const APPARMOR: &str = "kernel.apparmor_restrict_unprivileged_userns";
const CLONE_SYSCTL: &str = "kernel.unprivileged_userns_clone";

const APPARMOR_HINT: &str = "AppArmor restricts unprivileged user namespaces: \
    set sysctl kernel.apparmor_restrict_unprivileged_userns=0, or give sbx-init's path an AppArmor \
    profile with `userns,`, or start it with CAP_SYS_ADMIN (bwrap --cap-add CAP_SYS_ADMIN), or choose \
    --isolation domain";
const READ_ONLY_PROC: &str = "/proc is read-only here: mount a writable one (bwrap --proc /proc)";

fn proc_is_read_only() -> bool {
    statvfs("/proc").is_ok_and(|found| found.flags().contains(FsFlags::ST_RDONLY))
}

fn unshare_hint(errno: Errno) -> Option<&'static str> {
    Some(match errno {
        Errno::ENOSPC | Errno::EUSERS => {
            "no more namespaces are allowed here (bwrap --disable-userns, sysctl \
             user.max_user_namespaces, or 32 levels): lift that, or start it with CAP_SYS_ADMIN \
             (bwrap --cap-add CAP_SYS_ADMIN), or choose --isolation domain"
        }
        Errno::EAGAIN => {
            "no more processes are allowed: raise RLIMIT_NPROC (ulimit -u) or the cgroup's pids.max"
        }
        Errno::EPERM if sysctl(CLONE_SYSCTL) == Some(0) => {
            "user namespaces are switched off for ordinary users: set sysctl \
             kernel.unprivileged_userns_clone=1, or start it with CAP_SYS_ADMIN, or choose \
             --isolation domain"
        }
        Errno::EPERM | Errno::EACCES if sysctl(APPARMOR) == Some(1) => APPARMOR_HINT,
        Errno::EPERM if nix::unistd::geteuid().as_raw() == 65534 => {
            "the caller's user id has no mapping in its user namespace (it shows as 65534): map it"
        }
        Errno::EPERM | Errno::EACCES => {
            "a user namespace is refused here: by an outer seccomp filter (container engines), a \
             chroot, an id without mapping or a security module; allow it there, or start it with \
             CAP_SYS_ADMIN (bwrap --cap-add CAP_SYS_ADMIN), or choose --isolation domain"
        }
        Errno::EINVAL | Errno::ENOSYS => {
            "this kernel was built without user, PID or mount namespaces: choose --isolation domain"
        }
        _ => return None,
    })
}

/// The hint line for an error, from its stage, operation and errno, and from what the host says.
pub fn hint(error: &Error) -> Option<&'static str> {
    let errno = match error.0.cause {
        Cause::Errno(errno) => errno,
        Cause::Text(_) => Errno::UnknownErrno,
    };
    Some(match (error.0.stage, &*error.0.operation, errno) {
        (Stage::Namespaces, CLONE | UNSHARE, errno) => return unshare_hint(errno),
        (_, FORK, Errno::EAGAIN) => {
            return unshare_hint(Errno::EAGAIN);
        }
        (Stage::Namespaces, SETGROUPS, Errno::EACCES | Errno::EPERM)
        | (Stage::Namespaces, UID_MAP | GID_MAP, Errno::EACCES) => APPARMOR_HINT,
        // The one rule that a map of one's own id can break.
        (Stage::Namespaces, UID_MAP, Errno::EPERM) => {
            "mapping user id 0 needs CAP_SETFCAP since Linux 5.12: start it as an ordinary user, \
             or with CAP_SETFCAP or CAP_SYS_ADMIN (bwrap --cap-add)"
        }
        (Stage::Namespaces, SETGROUPS | UID_MAP | GID_MAP, Errno::EROFS) => READ_ONLY_PROC,
        (Stage::Namespaces, SETGROUPS | UID_MAP | GID_MAP, Errno::ENOENT | Errno::ENOTDIR)
        | (Stage::Proc, MOUNTINFO, _) => "there is no /proc here: mount one (bwrap --proc /proc)",
        (Stage::Proc, MOUNT_PROC | MOUNT_PROC_DIRECTLY, Errno::EPERM | Errno::EROFS)
            if proc_is_read_only() =>
        {
            READ_ONLY_PROC
        }
        (Stage::Proc, MOUNT_PROC, Errno::EPERM) => {
            "the caller's /proc is partly covered by other mounts (bubblewrap as root, container \
             engines), and in a user namespace the kernel then gives no new one: start it with \
             CAP_SYS_ADMIN (bwrap --cap-add CAP_SYS_ADMIN), or choose --proc hide, --proc keep or \
             --isolation domain"
        }
        (Stage::Proc, MOUNT_PROC_DIRECTLY, Errno::EPERM) => {
            "the caller's /proc is partly covered by mounts that came with its user namespace, \
             and the kernel then gives no new one: choose --proc hide or --proc keep"
        }
        (Stage::Namespaces, PRIVATE, Errno::EPERM | Errno::EACCES) => {
            "mount(2) is refused here, by a seccomp filter or a Landlock domain outside: allow it \
             there, or choose --isolation domain"
        }
        (Stage::Proc, MOUNT_PROC | MOUNT_PROC_DIRECTLY, Errno::ENOENT | Errno::ENOTDIR) => {
            "there is no directory /proc here: create it (bwrap --proc /proc), or choose --proc keep"
        }
        (Stage::Proc, READ_ONLY, Errno::ENOSYS) => {
            "as the global root, --proc keep and any further procfs need Linux 5.12: choose --proc \
             fresh or hide, and unmount the others"
        }
        (Stage::Plan, SEPARATION, _) => {
            "with CAP_SYS_ADMIN inherited the workload needs a user namespace of its own or a \
             Landlock domain (Linux 5.13, where it is switched on): allow user namespaces (as root \
             with CAP_SETFCAP), or start it without CAP_SYS_ADMIN"
        }
        (Stage::Network, PIN, _) => {
            "names are resolved once, here: give the addresses of an unresolved one (--pin NAME=ADDR) \
             or go on without it (--dns-optional); allow private ones (--dns-private), or others by a \
             rule of their own"
        }
        (Stage::Network, operation, Errno::ENOENT | Errno::ENOTDIR)
            if operation.starts_with(MOUNT_OVER) =>
        {
            "there is no /etc/hosts here to cover: make an empty one (bwrap --ro-bind-data FD \
             /etc/hosts), or choose --no-pin-hosts"
        }
        (Stage::Network, RECEIVE_FILTER, Errno::ENOMEM | Errno::UnknownErrno) => {
            "the udp:// rules and what their names mean make more addresses than a socket has room \
             for: allow a network in their place, or raise sysctl net.core.optmem_max"
        }
        (Stage::Proc, OWN_PROC, _) => {
            "the supervisor needs a /proc of its PID namespace, and the caller's, partly covered, \
             allows no other: choose --proc fresh, or leave out what needs a supervisor"
        }
        (Stage::Plan, LANDLOCK, _) => {
            "choose a kernel that has it, leave out what needs it, or take --best-effort, which goes on \
             and reports what is missing"
        }
        (Stage::Plan, COVERED, _) => {
            "a rule stands for a file, not for a path: name the directory that it is in, behind any \
             link, or leave the files alone (--no-pin-hosts)"
        }
        (Stage::Plan, PIDFD_GETFD, _) => {
            "an outer seccomp filter forbids it (container engines, unless CAP_SYS_PTRACE is added), \
             and without it the supervisor has no hold of the sockets that it decides about: allow it \
             there, leave udp:// rules out, or use --bind-tcp together with a network policy only"
        }
        (Stage::Plan, TRACE, _) => {
            "the supervisor needs its workload's sockets and memory: set sysctl kernel.yama.ptrace_scope \
             to 0 or 1 (with namespaces, 2), or leave out what needs a supervisor"
        }
        (Stage::Plan, READ_MEMORY, _) => {
            "the supervisor reads the addresses that its workload's calls point to: allow \
             process_vm_readv in the outer filter, take a kernel with CONFIG_CROSS_MEMORY_ATTACH, or \
             leave out what needs a supervisor"
        }
        (Stage::Plan, WAIT_KILLABLE, _) => {
            "before Linux 5.19 a signal has a supervised call made again, and its datagram would be \
             sent twice: choose a later kernel, or rules for TCP"
        }
        (Stage::Plan, GLOBAL_ROOT, _) => {
            "start it as an ordinary user, or with a /proc whose sys, sysrq-trigger, irq, bus and fs \
             are read-only (container engines), or with namespaces"
        }
        (Stage::Plan, CHILDREN, _) => {
            "without a PID namespace all processes are ended by way of /proc/thread-self/children: \
             mount a /proc of this PID namespace, on a kernel with CONFIG_PROC_CHILDREN"
        }
        (Stage::Exec, _, Errno::EACCES) => {
            "it, its interpreter or loader may not be executed: by its mode, by a mount with noexec, or \
             as no --rox or --rwx covers all of them"
        }
        (Stage::Options, NEEDED_GROUP, _) => {
            "what that group denies would be a way around the other option: leave one of them out"
        }
        (Stage::Confine, LISTENER, Errno::EBUSY | Errno::EPERM) => {
            "a sandbox outside has a seccomp listener, and Linux allows one: start it outside of that, or \
             leave out what needs a supervisor"
        }
        (Stage::Confine, SECCOMP | LISTENER, Errno::EINVAL | Errno::ENOSYS) => {
            "this kernel was built without CONFIG_SECCOMP_FILTER"
        }
        _ => return None,
    })
}
