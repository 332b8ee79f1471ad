//! What will happen here: the policy, and what this process may do, as plain data.
//!
//! Everything that can be refused for a reason the caller can fix is refused here, before the
//! first step that cannot be taken back.

use std::ffi::{CString, OsString};
use std::os::fd::RawFd;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use caps::Capability;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::stat::{SFlag, fstat};
use nix::sys::statfs::{self, PROC_SUPER_MAGIC, fstatfs};
use nix::unistd::{Gid, Uid, getegid, geteuid, getgid, getuid};

use crate::confine::domain::{self, Domain};
use crate::confine::exec::Program;
use crate::host;
use crate::policy::{Isolation, Policy, Proc};
use crate::report::{Context, Error, Result, Stage, operation};
use crate::sys::descriptor;
use crate::sys::mount::working_directory_is_outside;
use crate::sys::seccomp::SockFilter;
use crate::sys::terminal::Terminal;

/// Where the right to new namespaces comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Route {
    /// CAP_SYS_ADMIN is inherited: no user namespace is needed, and a new one would be refused a
    /// fresh /proc where bubblewrap, as root, covered parts of the old one.
    Direct,
    /// A new user namespace gives it.
    Nested,
}

/// The ids of the caller, which are mapped to themselves.
#[derive(Clone, Copy, Debug)]
pub struct Ids {
    pub user: Uid,
    pub group: Gid,
}

pub struct Plan {
    pub route: Route,
    pub ids: Ids,
    pub proc: Proc,
    /// Where to go again when /proc has been mounted: set if the working directory is on a procfs.
    pub reenter: Option<PathBuf>,
    pub die_with_parent: bool,
    pub terminal: Option<Terminal>,
    /// Direct route only: whether the workload gets a further user namespace of its own.
    pub own_user_namespace: bool,
    pub domain: Option<Domain>,
    pub filters: Vec<&'static [SockFilter]>,
    /// What the workload keeps, 0 to 2 included, sorted.
    pub keep_fds: Vec<RawFd>,
    pub program: Program,
}

impl Plan {
    pub fn new(policy: Policy) -> Result<Self> {
        let Isolation::Namespaces = policy.isolation;
        let ids = Ids { user: geteuid(), group: getegid() };
        if ids.user != getuid() || ids.group != getgid() {
            let what = "real and effective ids differ: sbx-init must not be setuid or setgid";
            return Err(Error::new(Stage::Plan, "credentials", what));
        }

        let mut keep_fds = policy.keep_fds;
        keep_fds.extend(0..=2);
        keep_fds.sort_unstable();
        keep_fds.dedup();
        for fd in &keep_fds {
            check_descriptor(*fd, policy.groups.contains("unix"))?;
        }

        let route =
            if host::holds(Capability::CAP_SYS_ADMIN)? { Route::Direct } else { Route::Nested };
        let own_user_namespace = route == Route::Direct && host::has_user_namespaces(ids)?;
        let domain = domain::scoped()?;
        if route == Route::Direct && !own_user_namespace && domain.is_none() {
            return Err(Error::new(Stage::Plan, operation::SEPARATION, Errno::EPERM));
        }

        Ok(Self {
            route,
            ids,
            proc: policy.proc,
            reenter: procfs_working_directory()?,
            die_with_parent: policy.die_with_parent,
            terminal: Terminal::of_standard(),
            own_user_namespace,
            domain,
            filters: policy.groups.programs(),
            keep_fds,
            program: Program::new(policy.command.into_iter().map(c_string).collect::<Result<_>>()?),
        })
    }
}

fn c_string(word: OsString) -> Result<CString> {
    // argv cannot hold a NUL; what --args read is split at them.
    CString::new(word.into_vec())
        .map_err(|_| Error::new(Stage::Plan, "command", "an argument contains a NUL byte"))
}

/// The path of the working directory if it is on a procfs: a reference to the caller's procfs
/// would open the memory of the processes outside. One elsewhere must be below this root.
fn procfs_working_directory() -> Result<Option<PathBuf>> {
    if working_directory_is_outside() {
        let what = "is outside of what / shows here: start it from another directory";
        return Err(Error::new(Stage::Plan, "working directory", what));
    }
    match statfs::statfs(".") {
        // It may not be searched, so it leads nowhere.
        Err(Errno::EACCES) => return Ok(None),
        Ok(statfs) if statfs.filesystem_type() != PROC_SUPER_MAGIC => return Ok(None),
        result => result.context(Stage::Plan, "statfs .")?,
    };
    nix::unistd::getcwd().context(Stage::Plan, "getcwd").map(Some)
}

const ANON_INODE_FS_MAGIC: statfs::FsType = statfs::FsType(0x0904_1934);

/// Refuses what would carry the workload over the boundary.
fn check_descriptor(fd: RawFd, unix_denied: bool) -> Result<()> {
    let name = if fd > 2 { format!("--keep-fd {fd}") } else { format!("descriptor {fd}") };
    let refuse = |what| Err(Error::new(Stage::Plan, name, what));
    let Some(open) = descriptor::inherited(fd) else {
        return refuse("is not open");
    };
    let filesystem = fstatfs(open).context(Stage::Plan, "fstatfs")?.filesystem_type();
    let mode = fstat(open).context(Stage::Plan, "fstat")?.st_mode;
    let kind = SFlag::from_bits_truncate(mode) & SFlag::S_IFMT;
    if kind == SFlag::S_IFDIR {
        // It stays in the caller's mount namespace, with everything below and above it.
        return refuse("a directory leads to the caller's mounts: pass its path");
    }
    if filesystem == PROC_SUPER_MAGIC {
        // Standard input may well be `</proc/cpuinfo`. What is opened for reading can be opened
        // again for writing, through /proc/self/fd, if its mode permits that.
        let flags = fcntl(open, FcntlArg::F_GETFL).context(Stage::Plan, "F_GETFL")?;
        let read_only = OFlag::from_bits_truncate(flags) & OFlag::O_ACCMODE == OFlag::O_RDONLY;
        if fd > 2 || !read_only || mode & 0o222 != 0 || kind != SFlag::S_IFREG {
            return refuse("refers to the caller's procfs");
        }
    }
    if kind == SFlag::S_IFSOCK && unix_denied && descriptor::can_reach_unix_paths(open) {
        return refuse("a unix socket that can be connected or sent to any path (--allow unix)");
    }
    if filesystem == ANON_INODE_FS_MAGIC && descriptor::is_ring(open) {
        return refuse("an io_uring instance works around the filters");
    }
    Ok(())
}
