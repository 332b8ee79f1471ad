//! Sockets where pidfd_getfd(2) is refused, as by the filters of container engines: the supervisor
//! makes them, hands them in, and keeps duplicates until they are connected or listening.
//!
//! A duplicate keeps a socket open that the workload has closed. One that is connected or listens is
//! therefore not kept; others that nobody has any more are looked for when one is in the way.

use std::fs::{self, DirEntry};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock};

use nix::errno::Errno;
use nix::sys::resource::{Resource, getrlimit};
use nix::sys::stat::fstat;

use super::Supervisor;
use super::caller::Caller;
use super::create;
use super::socket::Duplicate;
use crate::sys::errno;
use crate::sys::notify::{Call, Fault};
use crate::sys::socket::{self, State};

/// How many sockets that are neither connected nor listening are kept: what is looked at and done
/// meanwhile takes descriptors too.
fn most() -> usize {
    getrlimit(Resource::RLIMIT_NOFILE).map_or(0, |(soft, _)| soft.min(2048) as usize / 2)
}

#[derive(Default)]
pub struct Broker {
    kept: Mutex<Vec<Kept>>,
    /// Held by who hands a socket over, and has it open himself, when its caller may use it already.
    handing: RwLock<()>,
}

struct Kept {
    inode: u64,
    /// None: it listens.
    socket: Option<OwnedFd>,
    /// The workload has it.
    handed: bool,
    /// It is on its way, and will be settled without a further call.
    connecting: bool,
}

impl Broker {
    fn kept(&self) -> MutexGuard<'_, Vec<Kept>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes a TCP or route netlink socket: the filters leave no other one.
    pub fn create(
        &self,
        supervisor: &Supervisor,
        caller: &Caller,
        call: &Call,
    ) -> Result<Option<i64>, Fault> {
        let [domain, kind, protocol, ..] = call.arguments.map(|argument| argument as i32);
        // A socket belongs to the network namespace of who makes it.
        if !caller.shares_network()? {
            return Err(Errno::EACCES.into());
        }
        let own = socket::create(domain, kind, protocol)?;
        let inode = fstat(&own)?.st_ino;
        let (mut kept, most) = (self.kept(), most());
        if kept.len() >= most {
            drop(kept);
            self.drop_unused();
            kept = self.kept();
        }
        if kept.len() >= most {
            return Err(Errno::EMFILE.into());
        }
        // The caller may use it before this thread goes on.
        kept.push(Kept {
            inode,
            socket: Some(own.try_clone().map_err(|_| Errno::EMFILE)?),
            handed: false,
            connecting: false,
        });
        drop(kept);
        let _handing = self.handing.read();
        let result = create::hand_over(supervisor, call, own, kind & libc::SOCK_CLOEXEC != 0);
        let mut kept = self.kept();
        match result {
            Ok(_) => kept
                .iter_mut()
                .filter(|kept| kept.inode == inode)
                .for_each(|kept| kept.handed = true),
            Err(_) => kept.retain(|kept| kept.inode != inode),
        }
        result
    }

    /// A duplicate of the socket with this inode. EALREADY: it listens. EISCONN: it is not here, and so
    /// may be connected.
    pub fn duplicate(&self, inode: u64) -> Result<OwnedFd, Errno> {
        let kept = self.kept();
        let found = kept.iter().find(|kept| kept.inode == inode).ok_or(Errno::EISCONN)?;
        let socket = found.socket.as_ref().ok_or(Errno::EALREADY)?;
        socket.try_clone().map_err(|_| Errno::EMFILE)
    }

    /// Forgets a socket if a call has settled it; says whether it is about to be.
    pub fn settle(&self, socket: &Duplicate) -> Result<bool, Errno> {
        let inode = fstat(socket)?.st_ino;
        let mut kept = self.kept();
        match socket::state(socket) {
            State::Unconnected => return Ok(false),
            State::Connected => kept.retain(|kept| kept.inode != inode),
            State::Listening => {
                let own = kept.iter_mut().find(|kept| kept.inode == inode);
                own.into_iter().for_each(|kept| kept.socket = None);
            }
            State::Connecting => {
                let own = kept.iter_mut().find(|kept| kept.inode == inode);
                own.into_iter().for_each(|kept| kept.connecting = true);
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Forgets those that have settled on their way; says whether some are still on it.
    pub fn look(&self) -> bool {
        let mut kept = self.kept();
        kept.retain_mut(|kept| {
            if kept.connecting {
                let state = kept.socket.as_ref().map(socket::state);
                kept.connecting = state == Some(State::Connecting);
                return state != Some(State::Connected);
            }
            true
        });
        kept.iter().any(|kept| kept.connecting)
    }

    /// Forgets the sockets that no process has open any more. What is under way in a message is
    /// seen by nobody, and lost here.
    pub fn drop_unused(&self) {
        // What its caller has closed again at once is not open here any more after that.
        drop(self.handing.write());
        // One that is handed over while the others are looked for may have been missed.
        let handed = |kept: &&Kept| kept.handed;
        let mut unused: Vec<_> = self.kept().iter().filter(handed).map(|kept| kept.inode).collect();
        // So may one that a process leaves to its child and closes; hardly twice.
        for _ in 0..2 {
            let Some(open) = open_inodes() else { return };
            unused.retain(|inode| !open.contains(inode));
        }
        self.kept().retain(|kept| !unused.contains(&kept.inode));
    }
}

/// The inodes of the sockets that other processes here have open; None if they cannot be looked for.
fn open_inodes() -> Option<Vec<u64>> {
    let own = std::process::id();
    let mut inodes = Vec::new();
    for process in entries(Path::new("/proc"))? {
        let pid = process.file_name().to_str().and_then(|name| name.parse::<u32>().ok());
        if pid.is_none_or(|pid| pid == own) {
            continue;
        }
        for task in entries(&process.path().join("task"))? {
            for fd in entries(&task.path().join("fd"))? {
                inodes.extend(fs::read_link(fd.path()).ok().as_deref().and_then(inode));
            }
        }
    }
    Some(inodes)
}

/// What is in a directory; nothing if that has gone, or is of a process that is not dumpable.
fn entries(path: &Path) -> Option<Vec<DirEntry>> {
    match fs::read_dir(path).map_err(|error| errno::of(&error)) {
        Ok(found) => Some(found.flatten().collect()),
        Err(Errno::ENOENT | Errno::ESRCH | Errno::EACCES) => Some(Vec::new()),
        Err(_) => None,
    }
}

/// That of `socket:[INODE]`.
fn inode(link: &Path) -> Option<u64> {
    link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
}
