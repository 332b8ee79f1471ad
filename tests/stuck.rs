//! Calls with memory that never comes: a page of a FUSE file, whose server is the workload's own.
//! Nothing interrupts what waits for it, until that server has ended.

mod support;

use std::fs;
use std::io::{BufRead, BufReader, Lines, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Stdio};

use support::process::{descendants, kill, stub};
use support::scratch::Scratch;
use support::{Place, Run, UNTIL_ALL_GONE, User, beside_pod, word};

/// Puts the device of FUSE, which every user may open as on a desktop, and an empty file into the
/// directory that comes first, and goes on with what follows.
const WITH_FUSE: &str = r#"mount -t tmpfs none "$1"; mknod -m 666 "$1/fuse" c 10 229; : > "$1/page"
    shift; exec "$@""#;

/// A run of the fixture `stuck`, and what becomes of it.
struct Started {
    child: Child,
    input: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
    _directory: Scratch,
}

impl Started {
    /// `name` is unique among the tests.
    fn new(name: &str, deed: &str) -> Self {
        let directory = Scratch::new(name);
        let at = directory.path().to_str().unwrap();
        let words = Run::new(User::Ordinary, Place::Standalone)
            .before(["sh", "-c", UNTIL_ALL_GONE, "sh"])
            .options(["--net-allow", "127.0.0.1:*"])
            .words([&*word("stuck"), at, deed]);
        let mut command = beside_pod(["sh", "-ec", WITH_FUSE, "sh", at]);
        command.args(words).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let input = child.stdin.take().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, input, lines, _directory: directory }
    }

    /// Started, and stuck.
    fn stuck(name: &str, deed: &str) -> Self {
        let mut started = Self::new(name, deed);
        assert_eq!(started.lines.next().unwrap().unwrap(), "stuck");
        started
    }

    fn stub(&self) -> u32 {
        stub(&self.child).unwrap()
    }

    /// What is printed from here on.
    fn rest(mut self) -> Vec<String> {
        let rest = self.lines.map(Result::unwrap).collect();
        self.child.wait().unwrap();
        rest
    }
}

/// Waits until a thread of a process is in connect(2).
fn until_connecting(pid: u32) {
    let connecting = |thread: PathBuf| {
        let call = format!("{} ", libc::SYS_connect);
        fs::read_to_string(thread.join("syscall")).is_ok_and(|line| line.starts_with(&call))
    };
    let threads = || fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten();
    while !threads().any(|thread| connecting(thread.path())) {
        std::thread::yield_now();
    }
}

/// C13
#[test]
fn the_end_of_the_stub_ends_the_server_that_a_connect_waits_for() {
    let started = Started::stuck("stub", "connect");
    kill(started.stub(), libc::SIGKILL);
    assert_eq!(started.rest(), ["status 137", "gone"]);
}

#[test]
fn the_end_of_the_command_ends_the_server_that_a_connect_waits_for() {
    let mut started = Started::stuck("command", "connect");
    started.input.write_all(b"\n").unwrap();
    assert_eq!(started.rest(), ["status 7", "gone"]);
}

#[test]
fn the_end_of_the_stub_ends_the_server_whose_client_holds_the_lock_of_a_socket() {
    let started = Started::stuck("locked", "locked");
    let stub = started.stub();
    until_connecting(descendants(stub)[0]);
    kill(stub, libc::SIGKILL);
    assert_eq!(started.rest(), ["status 137", "gone"]);
}

#[test]
fn others_connect_while_one_is_stuck_and_it_goes_on_when_the_page_comes() {
    let all = ["others have connected", "Ok(())", "status 0", "gone"];
    assert_eq!(Started::new("beside", "beside").rest(), all);
}
