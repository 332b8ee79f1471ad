//! Processes: clone, wait, exec, exit.

use std::ffi::{CStr, CString, c_char};
use std::os::fd::{FromRawFd, OwnedFd};
use std::ptr;

use nix::errno::Errno;
use nix::sched::CloneFlags;
use nix::unistd::Pid;

use super::check;

unsafe extern "C" {
    static environ: *const *const c_char;
}

/// Which side of a fork runs.
pub enum Fork {
    Parent(Pid),
    Child,
}

/// Forks, the child in new namespaces. This process must have one thread only.
///
/// libc does not see this fork: its cached thread id is the parent's in the child.
pub fn fork(namespaces: CloneFlags) -> Result<Fork, Errno> {
    let flags = libc::c_long::from(namespaces.bits() | libc::SIGCHLD);
    // SAFETY: without CLONE_VM the child runs on a copy of the whole address space, and as there
    // is one thread only, no lock in that copy is held. A zero stack means: the same one. The
    // remaining arguments are unused with these flags, so their order, which the architectures
    // disagree on, is of no consequence.
    match check(unsafe { libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) })? {
        0 => Ok(Fork::Child),
        pid => Ok(Fork::Parent(Pid::from_raw(pid as libc::pid_t))),
    }
}

/// A reference to this process that stays right when its pid is used again.
pub fn own_pidfd() -> Result<OwnedFd, Errno> {
    // SAFETY: takes two integers.
    let fd = check(unsafe { libc::syscall(libc::SYS_pidfd_open, std::process::id(), 0) })?;
    // SAFETY: a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// A wait status as the kernel encodes it. nix's cannot express real-time signals.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Status(i32);

impl Status {
    /// The status a shell would give: the exit code, or 128 + the signal's number.
    pub fn exit_code(self) -> i32 {
        match self.signal() {
            Some(signal) => 128 + signal,
            None => libc::WEXITSTATUS(self.0),
        }
    }

    /// The signal that ended the process.
    pub fn signal(self) -> Option<i32> {
        libc::WIFSIGNALED(self.0).then(|| libc::WTERMSIG(self.0))
    }

    /// The signal that stopped the process, which lives on.
    pub fn stop_signal(self) -> Option<i32> {
        libc::WIFSTOPPED(self.0).then(|| libc::WSTOPSIG(self.0))
    }
}

/// Waits for a child (-1: any) to end or, with WUNTRACED in `options`, to stop.
pub fn wait(pid: i32, options: i32) -> Result<(Pid, Status), Errno> {
    let mut status = 0;
    loop {
        // SAFETY: status outlives the call.
        match Errno::result(unsafe { libc::waitpid(pid, &mut status, options) }) {
            Ok(pid) => return Ok((Pid::from_raw(pid), Status(status))),
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
    }
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
