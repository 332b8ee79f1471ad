//! The supervisor's threads. Each receives a call, carries it out and answers; whoever receives one
//! makes sure that another thread waits for the next, so a call that blocks delays nobody else.

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use nix::errno::Errno;

use super::watch::{Seat, Watch};
use super::{Supervisor, Work};
use crate::report::{Context, Result, Stage};
use crate::sys::thread::spawn;

/// More calls than this at once are not served. Each thread costs two descriptors and some 12 kB.
const MOST: usize = 256;
/// How many threads wait when nothing is to be done: starting one takes longer than most calls.
const SPARE: usize = 2;
const STACK: usize = 64 << 10;

#[derive(Default)]
pub struct Pool {
    all: AtomicUsize,
    waiting: AtomicUsize,
}

/// Starts the first thread. The others, and the watch, come with the first call, as many commands make
/// none: where no more threads are allowed then, what would block fails with EAGAIN.
pub fn start(supervisor: &'static Supervisor) -> Result<()> {
    add(supervisor).context(Stage::Init, "start a supervisor thread")
}

fn add(supervisor: &'static Supervisor) -> std::result::Result<(), Errno> {
    let pool = &supervisor.pool;
    let number = pool.all.fetch_add(1, SeqCst);
    pool.waiting.fetch_add(1, SeqCst);
    let started = match number < MOST {
        true => spawn(STACK, work, supervisor),
        false => Err(Errno::EAGAIN),
    };
    if started.is_err() {
        pool.all.fetch_sub(1, SeqCst);
        pool.waiting.fetch_sub(1, SeqCst);
    }
    started
}

fn work(supervisor: &'static Supervisor) {
    // Without its supervisor there is no sandbox: the end of this process is the workload's.
    if let Err(error) = serve(supervisor) {
        crate::sys::process::exit(error.print());
    }
}

fn serve(supervisor: &'static Supervisor) -> Result<()> {
    let pool = &supervisor.pool;
    let mut work = Work { seat: Seat::take(&supervisor.watch)?, last: None };
    loop {
        let call =
            supervisor.listener.receive().context(Stage::Init, "SECCOMP_IOCTL_NOTIF_RECV")?;
        let Some(call) = call else {
            match supervisor.listener.is_abandoned() {
                false => continue,
                true => return Ok(()),
            }
        };
        // The last one must not block: it answers with EAGAIN instead.
        let another_waits = pool.waiting.fetch_sub(1, SeqCst) > 1 || add(supervisor).is_ok();
        let may_block = another_waits && Watch::begin(supervisor).is_ok();
        let result = supervisor.carry_out(&call, &mut work, may_block);
        if let Some(result) = result.transpose() {
            supervisor
                .listener
                .answer(call.id, result)
                .context(Stage::Init, "SECCOMP_IOCTL_NOTIF_SEND")?;
        }
        // Counted only if it stays: whoever receives meanwhile would rely on it.
        let stays = |waiting| (waiting < SPARE).then_some(waiting + 1);
        if pool.waiting.fetch_update(SeqCst, SeqCst, stays).is_err() {
            pool.all.fetch_sub(1, SeqCst);
            Seat::leave(&supervisor.watch, &work.seat);
            return Ok(());
        }
    }
}
