//! What the running kernel has. A claim that it cannot keep becomes the refusal in the table, which
//! the test then asserts in the claim's place:
//!
//!     if run.refused_without(MountSetattr) { continue; }

use std::os::fd::{FromRawFd, OwnedFd};

use nix::errno::Errno;

use super::{Outcome, Run};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Feature {
    /// Landlock with this ABI or a later one.
    Landlock(u32),
    MountSetattr,
    /// pidfd_open(2) of a thread that is no process.
    PidfdThread,
    /// Seccomp notifications that only a fatal signal interrupts.
    WaitKillableRecv,
}
pub use Feature::{Landlock, MountSetattr, PidfdThread, WaitKillableRecv};

/// Rules for files, strictly: the last right that they need is for ioctl(2) of devices.
pub const FILE_RULES: Feature = Landlock(5);
pub const TCP_RULES: Feature = Landlock(4);
/// Signals and abstract unix sockets.
pub const LANDLOCK_SCOPES: Feature = Landlock(6);
/// What separates the workload on the direct route where it gets no user namespace of its own.
pub const SEPARATION: Feature = Landlock(1);

pub struct Row {
    pub feature: Feature,
    /// The Linux version that brought it.
    pub since: (u32, u32),
    /// How a run that cannot do without it is refused: the stage, and words of the hint.
    refusal: Option<(&'static str, &'static [&'static str])>,
}

const fn row(feature: Feature, since: (u32, u32)) -> Row {
    Row { feature, since, refusal: None }
}

impl Row {
    const fn refused(self, stage: &'static str, hint: &'static [&'static str]) -> Self {
        Self { refusal: Some((stage, hint)), ..self }
    }
}

/// What every hint about Landlock's rules offers.
const BEST_EFFORT: &[&str] = &["--best-effort"];

pub const TABLE: [Row; 7] = [
    row(MountSetattr, (5, 12)).refused("proc", &["--proc keep", "Linux 5.12", "--proc fresh"]),
    row(SEPARATION, (5, 13)).refused("plan", &["user namespace", "Landlock", "Linux 5.13"]),
    row(WaitKillableRecv, (5, 19)).refused("plan", &["Linux 5.19"]),
    row(TCP_RULES, (6, 7)).refused("plan", BEST_EFFORT),
    row(PidfdThread, (6, 9)),
    row(FILE_RULES, (6, 10)).refused("plan", BEST_EFFORT),
    row(LANDLOCK_SCOPES, (6, 12)).refused("plan", BEST_EFFORT),
];

/// Whether the running kernel has it, found out by doing.
pub fn kernel_has(feature: Feature) -> bool {
    match feature {
        Landlock(abi) => {
            const LANDLOCK_CREATE_RULESET_VERSION: usize = 1;
            let arguments = [0, 0, LANDLOCK_CREATE_RULESET_VERSION];
            call(libc::SYS_landlock_create_ruleset, arguments).is_ok_and(|found| found >= abi)
        }
        // Attributes of no size at all are too small.
        MountSetattr => call(libc::SYS_mount_setattr, [0; 3]) == Err(Errno::EINVAL),
        PidfdThread => {
            const PIDFD_THREAD: usize = libc::O_EXCL as usize;
            let pidfd = call(libc::SYS_pidfd_open, [std::process::id() as usize, PIDFD_THREAD, 0]);
            pidfd.map(owned).is_ok()
        }
        // The flags are looked at before the program, which is nowhere.
        WaitKillableRecv => {
            let flags = libc::SECCOMP_FILTER_FLAG_NEW_LISTENER
                | libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV;
            let mode = libc::SECCOMP_SET_MODE_FILTER as usize;
            call(libc::SYS_seccomp, [mode, flags as usize, 0]) == Err(Errno::EFAULT)
        }
    }
}

#[allow(unsafe_code)]
fn call(number: libc::c_long, [a, b, c]: [usize; 3]) -> Result<u32, Errno> {
    // SAFETY: what would be a pointer is null.
    Errno::result(unsafe { libc::syscall(number, a, b, c, 0, 0) }).map(|result| result as u32)
}

#[allow(unsafe_code)]
fn owned(fd: u32) -> OwnedFd {
    // SAFETY: a new descriptor that nobody else owns.
    unsafe { OwnedFd::from_raw_fd(fd as i32) }
}

impl Run {
    /// Whether the kernel lacks what this run needs: asserts then that it is refused.
    #[track_caller]
    pub fn refused_without(&self, feature: Feature) -> bool {
        !kernel_has(feature) && self.run(["echo", "started"]).refused_without(feature)
    }
}

impl Outcome {
    /// The same for a run with `--isolation domain`.
    #[track_caller]
    pub fn refused_without_domain(&self) -> bool {
        self.refused_without(LANDLOCK_SCOPES)
    }

    /// The same for a run that has ended.
    #[track_caller]
    pub fn refused_without(&self, feature: Feature) -> bool {
        if kernel_has(feature) {
            return false;
        }
        let row = TABLE.iter().find(|row| row.feature == feature);
        let (stage, hint) = row.and_then(|row| row.refusal).expect("a refusal in the table");
        self.refused(stage, hint);
        true
    }
}
