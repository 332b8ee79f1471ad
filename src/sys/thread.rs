//! Threads, and how a call of theirs is interrupted.

use std::mem::MaybeUninit;
use std::ptr;

use nix::errno::Errno;
use nix::unistd::{Pid, getpid, gettid};

use super::signal::{self, Set};

/// What interrupts a blocking call of another thread of this process.
const WAKE: libc::c_int = libc::SIGUSR1;

/// Starts a thread that nobody waits for, with so many bytes of stack.
///
/// std's threads have names, results and guards, for some 10 kB of code.
pub fn spawn<T: Sync + 'static>(
    stack: usize,
    body: fn(&'static T),
    argument: &'static T,
) -> Result<(), Errno> {
    struct Start<T: 'static>(fn(&'static T), &'static T);
    extern "C" fn run<T: 'static>(start: *mut libc::c_void) -> *mut libc::c_void {
        // SAFETY: it was made by Box::into_raw below, for this thread alone.
        let Start(body, argument) = *unsafe { Box::from_raw(start.cast::<Start<T>>()) };
        body(argument);
        ptr::null_mut()
    }
    let failed =
        |number: libc::c_int| if number == 0 { Ok(()) } else { Err(Errno::from_raw(number)) };
    let mut attributes = MaybeUninit::uninit();
    // SAFETY: pthread_attr_init fills what it is given.
    failed(unsafe { libc::pthread_attr_init(attributes.as_mut_ptr()) })?;
    // SAFETY: it has succeeded.
    let mut attributes = unsafe { attributes.assume_init() };
    // SAFETY: takes the attributes and an integer.
    failed(unsafe { libc::pthread_attr_setstacksize(&mut attributes, stack) })?;
    // SAFETY: as above.
    failed(unsafe {
        libc::pthread_attr_setdetachstate(&mut attributes, libc::PTHREAD_CREATE_DETACHED)
    })?;
    let start = Box::into_raw(Box::new(Start(body, argument)));
    let mut thread = MaybeUninit::uninit();
    // SAFETY: run takes what start points to, which nobody else has.
    let number =
        unsafe { libc::pthread_create(thread.as_mut_ptr(), &attributes, run::<T>, start.cast()) };
    if number != 0 {
        // SAFETY: no thread has taken it.
        drop(unsafe { Box::from_raw(start) });
    }
    failed(number)
}

extern "C" fn nothing(_: libc::c_int) {}

/// Gives WAKE a handler that does nothing: without SA_RESTART, calls end with EINTR.
pub fn handle_wake() -> Result<(), Errno> {
    let handler: extern "C" fn(libc::c_int) = nothing;
    // SAFETY: all zeroes is a valid sigaction: no flags, an empty mask.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = handler as usize;
    // SAFETY: the handler touches nothing, so it may run at any point.
    Errno::result(unsafe { libc::sigaction(WAKE, &action, ptr::null_mut()) }).map(drop)
}

/// Leaves this thread WAKE only.
pub fn block_all_but_wake() -> Result<(), Errno> {
    signal::set_mask(Set::ALL.without(WAKE))
}

/// Carries out what must not be interrupted, where [`block_all_but_wake`] holds otherwise.
pub fn without_wake<T>(act: impl FnOnce() -> Result<T, Errno>) -> Result<T, Errno> {
    signal::set_mask(Set::ALL)?;
    let result = act();
    block_all_but_wake()?;
    result
}

/// The set with WAKE: for the threads that are not to be interrupted.
pub fn with_wake(set: Set) -> Set {
    set.with(WAKE)
}

/// Interrupts what a thread of this process blocks in. It may not block yet.
pub fn wake(thread: Pid) {
    // SAFETY: takes integers only. The thread may have ended.
    let _ = Errno::result(unsafe {
        libc::syscall(libc::SYS_tgkill, getpid().as_raw(), thread.as_raw(), WAKE)
    });
}

/// Sends a signal to a thread of any process.
pub fn raise(thread: Pid, signal: libc::c_int) -> Result<(), Errno> {
    // SAFETY: takes integers only.
    Errno::result(unsafe { libc::syscall(libc::SYS_tkill, thread.as_raw(), signal) }).map(drop)
}

/// Gives libc the id of this process's only thread, which a fork without libc's knowledge left at
/// the parent's. musl's locks tell their holder by it: a later thread with that number would be
/// taken for this one.
pub fn correct_cached_id(parent: Pid) {
    if cfg!(not(target_env = "musl")) {
        return;
    }
    // musl 1.2 keeps it in word 12, counted from 0, of what pthread_self() points to; on aarch64 in 8.
    const WORDS: usize = 13;
    // SAFETY: takes no argument.
    let descriptor = unsafe { libc::pthread_self() } as *mut libc::pid_t;
    for word in 0..WORDS {
        // SAFETY: musl's descriptor is larger than that.
        let cached = unsafe { descriptor.add(word) };
        // SAFETY: as above, and no other thread exists.
        if unsafe { cached.read() } == parent.as_raw() {
            // SAFETY: as above. musl's own fork stores there, too.
            return unsafe { cached.write(gettid().as_raw()) };
        }
    }
}
