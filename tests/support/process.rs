//! Processes of a started run, and what they inherit. Each pid is as this PID namespace numbers it.

use std::fs;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};

/// The pids of a process's descendants, nearest first.
pub fn descendants(pid: u32) -> Vec<u32> {
    let mut found = vec![pid];
    let mut next = 0;
    while next < found.len() {
        if let Ok(tasks) = fs::read_dir(format!("/proc/{}/task", found[next])) {
            for task in tasks.flatten() {
                if let Ok(children) = fs::read_to_string(task.path().join("children")) {
                    found.extend(children.split_whitespace().map(|c| c.parse::<u32>().unwrap()));
                }
            }
        }
        next += 1;
    }
    found.remove(0);
    found
}

/// The pid of the stub among a started run's descendants: the first process named sbx-init.
pub fn stub(child: &Child) -> Option<u32> {
    descendants(child.id()).into_iter().find(|pid| is_named(*pid, "sbx-init"))
}

pub fn is_named(pid: u32, program: &str) -> bool {
    fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim_end() == program)
}

pub fn parent(pid: u32) -> u32 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    status.lines().find_map(|line| line.strip_prefix("PPid:\t")).unwrap().parse().unwrap()
}

/// Waits until a process has been reaped: no event tells of the end of another's child.
pub fn until_gone(pid: u32) {
    while fs::exists(format!("/proc/{pid}")).unwrap() {
        std::thread::yield_now();
    }
}

#[track_caller]
pub fn kill(pid: u32, signal: i32) {
    send(pid as i32, signal);
}

#[track_caller]
pub fn kill_group(group: u32, signal: i32) {
    send(-(group as i32), signal);
}

#[track_caller]
#[allow(unsafe_code)]
fn send(target: i32, signal: i32) {
    // SAFETY: takes integers only.
    assert_eq!(unsafe { libc::kill(target, signal) }, 0, "{target}");
}

/// Lets a command inherit a descriptor under this number. The descriptor stays open until the
/// command is started.
#[allow(unsafe_code)]
pub fn inherit(command: &mut Command, descriptor: impl AsFd, number: RawFd) {
    let own = descriptor.as_fd().as_raw_fd();
    // Nothing is duplicated where the number is the same, and FD_CLOEXEC stays.
    // SAFETY: dup2 and fcntl are async-signal-safe.
    unsafe {
        command.pre_exec(move || {
            match libc::dup2(own, number) == number && libc::fcntl(number, libc::F_SETFD, 0) == 0 {
                true => Ok(()),
                false => Err(std::io::Error::last_os_error()),
            }
        })
    };
}
