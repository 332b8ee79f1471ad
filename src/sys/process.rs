//! Processes: clone, wait, exec, exit.

use std::ffi::{CStr, CString, c_char};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;

use nix::errno::Errno;
use nix::sched::CloneFlags;
use nix::unistd::{Pid, gettid};

use super::thread;

unsafe extern "C" {
    static environ: *const *const c_char;
}

/// Which side of a fork runs.
pub enum Fork {
    Parent(Pid),
    Child,
}

/// Forks, the child in new namespaces, or sharing what these flags name. This process must have one
/// thread only.
pub fn fork(flags: CloneFlags) -> Result<Fork, Errno> {
    let parent = gettid();
    let flags = libc::c_long::from(flags.bits() | libc::SIGCHLD);
    // SAFETY: without CLONE_VM the child runs on a copy of the whole address space, and as there
    // is one thread only, no lock in that copy is held. A zero stack means: the same one. The
    // remaining arguments are unused with these flags, so their order, which the architectures
    // disagree on, is of no consequence.
    match Errno::result(unsafe {
        libc::syscall(libc::SYS_clone, flags, 0usize, 0usize, 0usize, 0usize)
    })? {
        0 => {
            thread::correct_cached_id(parent);
            Ok(Fork::Child)
        }
        pid => Ok(Fork::Parent(Pid::from_raw(pid as libc::pid_t))),
    }
}

/// A reference to a process that stays right when its pid is used again.
pub fn pidfd(pid: Pid) -> Result<OwnedFd, Errno> {
    pidfd_open(pid, 0)
}

/// The same to a thread. EINVAL before Linux 6.9.
pub fn pidfd_of_thread(thread: Pid) -> Result<OwnedFd, Errno> {
    const PIDFD_THREAD: libc::c_int = libc::O_EXCL;
    pidfd_open(thread, PIDFD_THREAD)
}

fn pidfd_open(pid: Pid, flags: libc::c_int) -> Result<OwnedFd, Errno> {
    // SAFETY: takes two integers.
    let fd = Errno::result(unsafe { libc::syscall(libc::SYS_pidfd_open, pid.as_raw(), flags) })?;
    // SAFETY: a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// A duplicate of a descriptor of another process or thread: needs the right to trace it.
pub fn descriptor_of(task: &OwnedFd, fd: RawFd) -> Result<OwnedFd, Errno> {
    // SAFETY: takes integers only.
    let fd =
        Errno::result(unsafe { libc::syscall(libc::SYS_pidfd_getfd, task.as_raw_fd(), fd, 0) })?;
    // SAFETY: a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// Whether two threads have one descriptor table: needs the right to trace them.
pub fn share_descriptors(one: Pid, other: Pid) -> Result<bool, Errno> {
    const KCMP_FILES: libc::c_int = 2;
    // SAFETY: takes integers only.
    let order = Errno::result(unsafe {
        libc::syscall(libc::SYS_kcmp, one.as_raw(), other.as_raw(), KCMP_FILES, 0, 0)
    })?;
    Ok(order == 0)
}

/// How a process ended. nix's type cannot express real-time signals.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    Exited(i32),
    Killed(i32),
}

/// What happened to a child.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Change {
    Ended(End),
    Stopped(i32),
    Continued,
}

/// What has happened to any child, if anything. It stays waitable: one that ended keeps its pid.
pub fn peek() -> Result<Option<(Pid, Change)>, Errno> {
    let any = libc::WEXITED | libc::WSTOPPED | libc::WCONTINUED;
    wait(libc::P_ALL, 0, any | libc::WNOWAIT | libc::WNOHANG)
}

/// Takes what [`peek`] has shown: reaps the child if it has ended.
pub fn take(pid: Pid, change: Change) -> Result<(), Errno> {
    let event = match change {
        Change::Ended(_) => libc::WEXITED,
        Change::Stopped(_) => libc::WSTOPPED,
        Change::Continued => libc::WCONTINUED,
    };
    match wait(libc::P_PID, pid.as_raw(), event | libc::WNOHANG) {
        // It has ended meanwhile, which the next peek shows.
        Err(Errno::ECHILD) if event != libc::WEXITED => Ok(()),
        result => result.map(drop),
    }
}

/// Waits until a child has ended, and reaps it.
pub fn end_of(pid: Pid) -> Result<End, Errno> {
    loop {
        if let Some((_, Change::Ended(end))) = wait(libc::P_PID, pid.as_raw(), libc::WEXITED)? {
            return Ok(end);
        }
    }
}

/// None with WNOHANG only, where nothing has happened.
fn wait(kind: libc::idtype_t, id: i32, options: i32) -> Result<Option<(Pid, Change)>, Errno> {
    let mut info = MaybeUninit::<libc::siginfo_t>::zeroed();
    loop {
        let id = id as libc::id_t;
        // SAFETY: the kernel writes one siginfo_t.
        match Errno::result(unsafe { libc::waitid(kind, id, info.as_mut_ptr(), options) }) {
            Ok(_) => break,
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    // SAFETY: all zeroes is a valid siginfo_t, and the kernel has filled it.
    let info = unsafe { info.assume_init() };
    // SAFETY: waitid fills the fields of a SIGCHLD.
    let (pid, status) = unsafe { (info.si_pid(), info.si_status()) };
    if pid == 0 {
        return Ok(None);
    }
    let change = match info.si_code {
        libc::CLD_EXITED => Change::Ended(End::Exited(status)),
        libc::CLD_KILLED | libc::CLD_DUMPED => Change::Ended(End::Killed(status)),
        libc::CLD_CONTINUED => Change::Continued,
        _ => Change::Stopped(status),
    };
    Ok(Some((Pid::from_raw(pid), change)))
}

/// Ends this process at once; PID 1's end takes its whole PID namespace with it.
pub fn exit(code: i32) -> ! {
    // SAFETY: no destructor or buffer of ours has to run.
    unsafe { libc::_exit(code) }
}

/// A NULL-terminated argument vector, built before the fork so that exec allocates nothing.
pub struct Arguments {
    pointers: Vec<*const c_char>,
    owned: Vec<CString>,
}

impl Arguments {
    pub fn new(owned: Vec<CString>) -> Self {
        let pointers =
            owned.iter().map(|s| s.as_ptr()).chain(std::iter::once(ptr::null())).collect();
        Self { pointers, owned }
    }

    /// Puts another argument in the place of one.
    pub fn replace(&mut self, index: usize, with: CString) {
        self.pointers[index] = with.as_ptr();
        self.owned[index] = with;
    }
}

/// Replaces this process by the program at `path`, with the environment it has; returns why not.
pub fn execute(path: &CStr, arguments: &Arguments) -> Errno {
    // SAFETY: nothing changes the environment: there is one thread, and no setenv in this program.
    let environment = unsafe { environ };
    // SAFETY: both vectors are NULL-terminated arrays of C strings that are alive here.
    unsafe { libc::execve(path.as_ptr(), arguments.pointers.as_ptr(), environment) };
    Errno::last()
}
