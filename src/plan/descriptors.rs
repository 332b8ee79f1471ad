//! What the caller hands over: descriptors and the working directory must not lead over the boundary.

use std::os::fd::RawFd;
use std::path::PathBuf;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::stat::{SFlag, fstat};
use nix::sys::statfs::{self, PROC_SUPER_MAGIC, fstatfs};

use crate::report::{Context, Error, Result, Stage};
use crate::sys::mount::working_directory_is_outside;
use crate::sys::{descriptor, socket};

/// The path of the working directory if it is on a procfs: a reference to the caller's procfs
/// would open the memory of the processes outside. One elsewhere must be below this root.
pub fn procfs_working_directory() -> Result<Option<PathBuf>> {
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

/// Refuses a descriptor of sbx-init's own that is not open, or that the workload would have, too: 0
/// to 2 are shared by whoever names them here.
pub fn check_own(fd: RawFd, option: &'static str, kept: &[RawFd]) -> Result<()> {
    let refuse = |what| Err(Error::new(Stage::Plan, format!("{option} {fd}"), what));
    match descriptor::inherited(fd) {
        None => refuse("is not open"),
        Some(_) if fd > 2 && kept.contains(&fd) => refuse("would be the command's, too"),
        Some(_) => Ok(()),
    }
}

const ANON_INODE_FS_MAGIC: statfs::FsType = statfs::FsType(0x0904_1934);

/// Refuses what would carry the workload over the boundary.
pub fn check(fd: RawFd, unix_denied: bool, network_restricted: bool) -> Result<()> {
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
    if kind == SFlag::S_IFSOCK && unix_denied && socket::can_reach_unix_paths(open) {
        return refuse("a unix socket that can be connected or sent to any path (--allow unix)");
    }
    if kind == SFlag::S_IFSOCK && network_restricted && socket::can_reach_any_host(open) {
        return refuse(
            "a socket that is neither TCP nor local, whose peers no network policy could see",
        );
    }
    if filesystem == ANON_INODE_FS_MAGIC && descriptor::is_ring(open) {
        return refuse("an io_uring instance works around the filters");
    }
    Ok(())
}
