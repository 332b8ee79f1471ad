//! Ends a blocked call as a signal, or the caller's end, would end it natively.
//!
//! With SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV (Linux 5.19) the caller of a call that has been received
//! is interrupted by SIGKILL only, and by what the kernel makes one of at once: no call is carried
//! out twice, but neither does alarm(2) end one, nor SIGTSTP stop or SIGQUIT end a process. No event
//! tells that a signal waits for another process, so its state is looked at, as long as a call blocks.

use std::ffi::OsString;
use std::fs::File;
use std::io::Read;
use std::os::fd::{OwnedFd, RawFd};
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex, PoisonError};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat, readlinkat};
use nix::poll::PollTimeout;
use nix::sys::stat::{Mode, fstatat};
use nix::unistd::{Pid, gettid};

use super::Supervisor;
use super::broker::Broker;
use crate::report::{Context, Result, Stage};
use crate::sys::event::Event;
use crate::sys::notify::{Call, Fault, Listener};
use crate::sys::process;
use crate::sys::signal::{self, Set};
use crate::sys::thread::{block_all_but_wake, spawn, wake};

/// How soon a blocked call is ended: callers count on less than 100 ms.
const PERIOD_MS: u8 = 25;
/// Looks without a blocked call before the watch sleeps until there is one.
const IDLE_LOOKS: u32 = 40;
const STACK: usize = 64 << 10;

pub struct Watch {
    /// A procfs that numbers threads as this process does.
    procfs: OwnedFd,
    seats: Mutex<Vec<Arc<Seat>>>,
    begun: Mutex<bool>,
    sleeping: AtomicBool,
    blocked: Event,
}

/// Where a supervisor thread says that a call of its blocks.
pub struct Seat {
    thread: Pid,
    /// The blocked call: 0 for none.
    call: AtomicU64,
    caller: AtomicU32,
    /// The call to be ended, and how: [`ENDED`] or [`RESTARTED`].
    ended: AtomicU64,
    way: AtomicU8,
    /// The call during which a signal was seen that may be another thread's.
    suspected: AtomicU64,
}

const ENDED: u8 = 1;
const RESTARTED: u8 = 2;

/// What a thread's status says about the end of its call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Verdict {
    GoesOn,
    /// A signal waits for this thread.
    Interrupted,
    /// A signal waits for any thread of the process that does not block it.
    Suspected,
}

fn watch(supervisor: &'static Supervisor) {
    // It looks at its own pace, whatever signals are sent to this process.
    match signal::set_mask(Set::ALL).context(Stage::Init, "sigprocmask") {
        Ok(()) => supervisor.watch.look(supervisor),
        Err(error) => process::exit(error.print()),
    }
}

impl Watch {
    pub fn new(procfs: OwnedFd) -> Result<Self> {
        let blocked = Event::new().context(Stage::Init, "eventfd")?;
        Ok(Self {
            procfs,
            seats: Mutex::default(),
            begun: Mutex::new(false),
            sleeping: AtomicBool::new(false),
            blocked,
        })
    }

    /// Starts the thread that looks, unless it is there. Without it no call may block.
    pub fn begin(supervisor: &'static Supervisor) -> std::result::Result<(), Errno> {
        let mut begun = supervisor.watch.begun.lock().unwrap_or_else(PoisonError::into_inner);
        if !*begun {
            spawn(STACK, watch, supervisor)?;
            *begun = true;
        }
        Ok(())
    }

    fn look(&self, supervisor: &Supervisor) {
        let mut idle = 0;
        loop {
            // Said before the last look, so that no call begins to block unseen.
            let is_last = idle == IDLE_LOOKS;
            self.sleeping.store(is_last, SeqCst);
            let mut seats = self.seats.lock().unwrap_or_else(PoisonError::into_inner).clone();
            seats.retain(|seat| seat.call.load(SeqCst) != 0);
            seats.iter().for_each(|seat| self.look_at(seat, &supervisor.listener));
            let connecting = supervisor.broker.as_ref().is_some_and(Broker::look);
            let rests = seats.is_empty() && !connecting;
            let sleeps = rests && is_last;
            // A wait of its own length is not to be cut short.
            self.sleeping.store(sleeps, SeqCst);
            self.blocked.wait(if sleeps { PollTimeout::NONE } else { PERIOD_MS.into() });
            idle = if rests && !sleeps { idle + 1 } else { 0 };
        }
    }

    fn look_at(&self, seat: &Seat, listener: &Listener) {
        let (call, caller) = (seat.call.load(SeqCst), seat.caller.load(SeqCst));
        if call == 0 {
            return;
        }
        let way = match listener.is_waiting(call) {
            Ok(true) => match self.verdict(Pid::from_raw(caller as i32)) {
                Verdict::GoesOn => {
                    seat.suspected.store(0, SeqCst);
                    None
                }
                Verdict::Interrupted => Some(RESTARTED),
                // Threads that run have taken it by the next look.
                Verdict::Suspected if seat.suspected.swap(call, SeqCst) != call => None,
                Verdict::Suspected => Some(ENDED),
            },
            // Killed: its thread here must not stay blocked for it.
            _ => Some(ENDED),
        };
        // What was looked at is the caller's only if that still waits.
        if let Some(way) = way
            && seat.call.load(SeqCst) == call
        {
            seat.way.store(way, SeqCst);
            seat.ended.store(call, SeqCst);
            wake(seat.thread);
        }
    }

    fn verdict(&self, thread: Pid) -> Verdict {
        let status = |thread| Status::parse(&self.status_of(thread)?);
        let Some(own) = status(thread) else { return Verdict::GoesOn };
        if own.leader == thread.as_raw() {
            return verdict(&own, None);
        }
        match status(Pid::from_raw(own.leader)) {
            Some(leader) => verdict(&own, Some(&leader)),
            None => Verdict::GoesOn,
        }
    }

    /// What a link of that procfs says.
    pub fn link(&self, path: &str) -> std::result::Result<OsString, Errno> {
        readlinkat(&self.procfs, path)
    }

    /// Has the watch look as long as there is something to see.
    pub fn look_again(&self) {
        if self.sleeping.load(SeqCst) {
            self.blocked.set();
        }
    }

    /// The first port that needs no privilege: 1024 where the sysctl (Linux 4.11) is not shown.
    pub fn unprivileged_port(&self) -> u16 {
        let text = read(&self.procfs, "sys/net/ipv4/ip_unprivileged_port_start");
        text.and_then(|text| text.trim().parse().ok()).unwrap_or(1024)
    }

    /// The inode of the socket that a thread has open under this number.
    pub fn inode(&self, thread: Pid, fd: RawFd) -> std::result::Result<u64, Errno> {
        let path = format!("{thread}/fd/{fd}");
        match fstatat(&self.procfs, &*path, AtFlags::empty()) {
            Ok(found) if found.st_mode & libc::S_IFMT != libc::S_IFSOCK => Err(Errno::ENOTSOCK),
            Ok(found) => Ok(found.st_ino),
            Err(Errno::ENOENT) => Err(Errno::EBADF),
            Err(_) => Err(Errno::EACCES),
        }
    }

    /// Fills `to` from a thread's memory: all of it, or EFAULT.
    pub fn read_memory(
        &self,
        thread: Pid,
        address: u64,
        to: &mut [u8],
    ) -> std::result::Result<(), Errno> {
        let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC;
        let memory = openat(&self.procfs, &*format!("{thread}/mem"), flags, Mode::empty());
        let memory = File::from(memory.map_err(|_| Errno::EACCES)?);
        memory.read_exact_at(to, address).map_err(|_| Errno::EFAULT)
    }

    /// The proc_pid_status(5) of a thread.
    pub fn status_of(&self, thread: Pid) -> Option<String> {
        read(&self.procfs, &format!("{thread}/status"))
    }
}

/// The text of a file of a procfs.
pub fn read(procfs: &OwnedFd, path: &str) -> Option<String> {
    let file = openat(procfs, path, OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty()).ok()?;
    let mut text = String::new();
    File::from(file).read_to_string(&mut text).ok()?;
    Some(text)
}

/// What counts of a proc_pid_status(5).
#[derive(Clone, Copy, Default)]
struct Status {
    /// The first thread of the process.
    leader: i32,
    /// `T`: by a signal, which stops all threads of a process; `Z`: it has ended.
    state: char,
    pending: u64,
    shared: u64,
    blocked: u64,
    ignored: u64,
}

impl Status {
    fn parse(text: &str) -> Option<Self> {
        let field = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name))?;
            Some(line.trim_start_matches(':').trim())
        };
        let set = |name| u64::from_str_radix(field(name)?, 16).ok();
        Some(Self {
            leader: field("Tgid")?.parse().ok()?,
            state: field("State")?.chars().next()?,
            pending: set("SigPnd")?,
            shared: set("ShdPnd")?,
            blocked: set("SigBlk")?,
            ignored: set("SigIgn")?,
        })
    }
}

/// Whether a signal interrupts the call of a thread that is not its process's `leader`, or is that.
///
/// The kernel restarts a call that ends with ERESTARTSYS, or reports EINTR if a handler does not want
/// that; but only for the thread that it has told to look for signals. Of those for the process it
/// tells the leader, unless that blocks them. What is ignored by default is never pending.
fn verdict(own: &Status, leader: Option<&Status>) -> Verdict {
    let deliverable = !(own.blocked | own.ignored);
    let shared = own.shared & deliverable;
    if own.pending & deliverable != 0 {
        return Verdict::Interrupted;
    }
    match leader {
        None if shared != 0 => Verdict::Interrupted,
        // It has taken the signal, and the whole process is told.
        Some(Status { state: 'T', .. }) => Verdict::Interrupted,
        Some(leader) if leader.state == 'Z' && shared != 0 => Verdict::Suspected,
        Some(leader) if shared & leader.blocked != 0 => Verdict::Suspected,
        _ => Verdict::GoesOn,
    }
}

impl Seat {
    /// For this thread.
    pub fn take(watch: &Watch) -> Result<Arc<Self>> {
        block_all_but_wake().context(Stage::Init, "sigprocmask")?;
        let seat = Arc::new(Self {
            thread: gettid(),
            call: AtomicU64::new(0),
            caller: AtomicU32::new(0),
            ended: AtomicU64::new(0),
            way: AtomicU8::new(0),
            suspected: AtomicU64::new(0),
        });
        watch.seats.lock().unwrap_or_else(PoisonError::into_inner).push(seat.clone());
        Ok(seat)
    }

    pub fn leave(watch: &Watch, seat: &Arc<Self>) {
        let mut seats = watch.seats.lock().unwrap_or_else(PoisonError::into_inner);
        seats.retain(|other| !Arc::ptr_eq(other, seat));
    }

    /// Carries out what may block, and can be begun again when it was interrupted.
    pub fn block<T>(
        &self,
        watch: &Watch,
        call: &Call,
        act: impl Fn() -> std::result::Result<T, Errno>,
    ) -> std::result::Result<T, Fault> {
        self.caller.store(call.thread, SeqCst);
        self.call.store(call.id, SeqCst);
        watch.look_again();
        let result = loop {
            if self.ended.load(SeqCst) == call.id {
                break Err(match self.way.load(SeqCst) {
                    RESTARTED => Fault::RESTART,
                    _ => Errno::EINTR.into(),
                });
            }
            match act() {
                Err(Errno::EINTR) => {}
                result => break result.map_err(Fault::from),
            }
        };
        self.call.store(0, SeqCst);
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HUP: u64 = 1;
    const ALRM: u64 = 1 << 13;

    fn waiting(pending: u64, shared: u64) -> Status {
        Status { state: 'S', pending, shared, ..Status::default() }
    }

    #[test]
    fn a_signal_that_is_neither_blocked_nor_ignored_interrupts() {
        for (status, expected) in [
            (waiting(0, 0), Verdict::GoesOn),
            (waiting(ALRM, 0), Verdict::Interrupted),
            (waiting(0, ALRM), Verdict::Interrupted),
            (Status { blocked: ALRM, ..waiting(ALRM, ALRM) }, Verdict::GoesOn),
            (Status { ignored: ALRM, ..waiting(ALRM, ALRM) }, Verdict::GoesOn),
            (Status { blocked: HUP, ..waiting(ALRM, 0) }, Verdict::Interrupted),
        ] {
            assert_eq!(verdict(&status, None), expected);
        }
    }

    #[test]
    fn a_signal_for_the_process_is_its_leaders_unless_that_blocks_it() {
        let leader = waiting(0, ALRM);
        let blocking = Status { blocked: ALRM, ..leader };
        let ended = Status { state: 'Z', ..leader };
        for (own, leader, expected) in [
            (waiting(0, ALRM), leader, Verdict::GoesOn),
            (waiting(ALRM, 0), leader, Verdict::Interrupted),
            (waiting(0, ALRM), blocking, Verdict::Suspected),
            (waiting(0, HUP), blocking, Verdict::GoesOn),
            (Status { blocked: ALRM, ..waiting(0, ALRM) }, blocking, Verdict::GoesOn),
            (waiting(0, ALRM), ended, Verdict::Suspected),
            (waiting(0, 0), ended, Verdict::GoesOn),
        ] {
            assert_eq!(verdict(&own, Some(&leader)), expected);
        }
    }

    #[test]
    fn a_process_that_stops_stops_with_all_its_threads() {
        let stopped = Status { state: 'T', ..waiting(0, 0) };
        assert_eq!(verdict(&waiting(0, 0), Some(&stopped)), Verdict::Interrupted);
    }

    #[test]
    fn a_status_is_read_whole_or_not_at_all() {
        let text = "Name:\tx\nState:\tS (sleeping)\nTgid:\t7\nPid:\t8\nSigPnd:\t0000000000000001\n\
                    ShdPnd:\t0000000000002000\nSigBlk:\t8000000000000000\nSigIgn:\t0000000000000004\n";
        let Status { leader, state, pending, shared, blocked, ignored } =
            Status::parse(text).unwrap();
        assert_eq!((leader, state, pending, shared), (7, 'S', HUP, ALRM));
        assert_eq!((blocked, ignored), (1 << 63, 4));
        for field in ["State", "Tgid", "SigPnd", "ShdPnd", "SigBlk", "SigIgn"] {
            assert!(Status::parse(&text.replace(field, "Other")).is_none(), "{field}");
        }
        assert!(Status::parse(&text.replace("0000000000002000", "zz")).is_none());
    }
}
