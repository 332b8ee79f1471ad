//! The thread that made a call: its descriptors and its memory.

use std::os::fd::{OwnedFd, RawFd};

use nix::errno::Errno;
use nix::unistd::Pid;

use super::Supervisor;
use crate::sys::notify::Call;
use crate::sys::{memory, process, thread};

pub struct Caller<'a> {
    supervisor: &'a Supervisor,
    call: &'a Call,
    thread: Pid,
    last: &'a mut Option<Last>,
}

/// The caller of the last call that a supervisor thread has served: often that of the next one, too.
pub struct Last {
    thread: Pid,
    task: OwnedFd,
}

impl<'a> Caller<'a> {
    pub fn new(
        supervisor: &'a Supervisor,
        call: &'a Call,
        last: &'a mut Option<Last>,
    ) -> Result<Self, Errno> {
        match call.thread as libc::pid_t {
            pid @ 1.. => Ok(Self { supervisor, call, thread: Pid::from_raw(pid), last }),
            // Of a PID namespace that is not below this one.
            _ => Err(Errno::EACCES),
        }
    }

    /// Duplicates a descriptor of the caller's. What the result is and is used for stays the same,
    /// whatever the caller does to its descriptor meanwhile.
    pub fn duplicate(&mut self, fd: RawFd) -> Result<OwnedFd, Errno> {
        if let Some(broker) = &self.supervisor.broker {
            let inode = self.supervisor.watch.inode(self.thread, fd)?;
            self.check_waiting()?;
            return broker.duplicate(inode);
        }
        // A reference to a thread that lives is to the one that has its number now.
        if let Some(last) = self.last.as_ref().filter(|last| last.thread == self.thread) {
            match process::descriptor_of(&last.task, fd) {
                Err(Errno::ESRCH) => {}
                result => return denied_if_not_permitted(result),
            }
        }
        *self.last = None;
        let task = match process::pidfd_of_thread(self.thread) {
            Ok(task) => task,
            // Before Linux 6.9 only a process can be referred to, and the thread may have left its
            // descriptor table by the next call.
            Err(Errno::EINVAL) => {
                let task = process::pidfd(self.leader_with_the_same_descriptors()?)?;
                self.check_waiting()?;
                return denied_if_not_permitted(process::descriptor_of(&task, fd));
            }
            Err(errno) => return Err(errno),
        };
        // The number was the caller's when the reference was taken, if it still waits now.
        self.check_waiting()?;
        let result = process::descriptor_of(&task, fd);
        *self.last = Some(Last { thread: self.thread, task });
        denied_if_not_permitted(result)
    }

    /// Fills `to` from the caller's memory, once.
    pub fn read(&self, address: u64, to: &mut [u8]) -> Result<(), Errno> {
        self.gather(&[(address, to.len())], to)
    }

    /// Fills `to` from parts of the caller's memory, once.
    pub fn gather(&self, parts: &[(u64, usize)], to: &mut [u8]) -> Result<(), Errno> {
        match (memory::gather(self.thread, parts, to), parts) {
            // Refused where pidfd_getfd is. The file asks for the same right.
            (Err(Errno::EPERM | Errno::ENOSYS), [(address, _)])
                if self.supervisor.broker.is_some() =>
            {
                self.supervisor.watch.read_memory(self.thread, *address, to)?;
            }
            (result, _) => denied_if_not_permitted(result)?,
        }
        self.check_waiting()
    }

    /// Writes to the caller's memory.
    pub fn write(&self, address: u64, from: &[u8]) -> Result<(), Errno> {
        self.check_waiting()?;
        denied_if_not_permitted(memory::write(self.thread, address, from))
    }

    /// Sends the calling thread a signal that its call raises.
    pub fn raise(&self, signal: i32) -> Result<(), Errno> {
        self.check_waiting()?;
        thread::raise(self.thread, signal)
    }

    /// Whether the thread is in this process's network namespace.
    pub fn shares_network(&self) -> Result<bool, Errno> {
        let of = |task: &str| self.supervisor.watch.link(&format!("{task}/ns/net"));
        let same = denied_if_not_permitted(of(&self.thread.to_string()))? == of("self")?;
        self.check_waiting()?;
        Ok(same)
    }

    /// Whatever was looked up by the caller's number was the caller's, if it still waits.
    pub fn check_waiting(&self) -> Result<(), Errno> {
        match self.supervisor.listener.is_waiting(self.call.id)? {
            true => Ok(()),
            // Nobody will see this.
            false => Err(Errno::EINTR),
        }
    }

    /// The leader of the thread's process, which is asked instead, if both have one descriptor table.
    fn leader_with_the_same_descriptors(&self) -> Result<Pid, Errno> {
        let status = self.supervisor.watch.status_of(self.thread).ok_or(Errno::EACCES)?;
        let line = status.lines().find_map(|line| line.strip_prefix("Tgid:"));
        let leader = line.and_then(|line| line.trim().parse().ok()).ok_or(Errno::EACCES)?;
        let leader = Pid::from_raw(leader);
        let same = leader == self.thread
            || denied_if_not_permitted(process::share_descriptors(self.thread, leader))?;
        if same { Ok(leader) } else { Err(Errno::EACCES) }
    }
}

/// The caller is not dumpable, or an outer filter forbids to ask.
fn denied_if_not_permitted<T>(result: Result<T, Errno>) -> Result<T, Errno> {
    result.map_err(|errno| if errno == Errno::EPERM { Errno::EACCES } else { errno })
}
