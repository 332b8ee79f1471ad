//! Signals: from the caller to the workload, and from the workload to its PID 1 and to outside.

mod support;

use std::io::{BufRead, BufReader, Lines};
use std::process::{Child, ChildStdout, Stdio};

use support::process::{kill, stub};
use support::{EVERYWHERE, Place, ROUTES, Run, User, fixture, many, probe};

/// Every signal but SIGKILL and SIGSTOP, which cannot be caught, and SIGCHLD.
fn catchable() -> impl Iterator<Item = i32> {
    (1..=64).filter(|n| ![libc::SIGKILL, libc::SIGSTOP, libc::SIGCHLD].contains(n))
}

/// The value with which a queued signal ends the recorder.
const END: i32 = 0x7e57;

/// A started run whose workload is the recorder.
struct Recorder {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    stub: u32,
}

impl Recorder {
    fn start(run: &Run) -> Self {
        let mut child = run.command([fixture("recorder")]).stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        assert_eq!(lines.next().expect("the recorder starts").unwrap(), "READY");
        let stub = stub(&child).expect("a stub");
        Self { child, lines, stub }
    }

    fn kill(&self, signal: i32) {
        kill(self.stub, signal);
    }

    #[allow(unsafe_code)]
    fn queue(&self, signal: i32, value: i32) {
        // siginfo_t: si_signo, si_errno, si_code, and from byte 16 on si_pid, si_uid, si_value.
        let mut info = [0i32; 32];
        (info[0], info[2], info[6]) = (signal, libc::SI_QUEUE, value);
        // SAFETY: the kernel reads 128 bytes of info.
        let sent =
            unsafe { libc::syscall(libc::SYS_rt_sigqueueinfo, self.stub, signal, info.as_ptr()) };
        assert_eq!(sent, 0);
    }

    /// What the recorder received up to the end, which this asks for. Nothing went to another
    /// member of its process group.
    fn finish(mut self) -> Vec<String> {
        // The last one of those that are pending.
        self.queue(64, END);
        let mut lines: Vec<String> = self.lines.by_ref().map(Result::unwrap).collect();
        assert_eq!(lines.pop().expect("the recorder ends").as_str(), "MEMBER 0000000000000000");
        assert_eq!(lines.pop().unwrap(), format!("64 {} {END} 0", libc::SI_QUEUE));
        assert_eq!(self.child.wait().unwrap().code(), Some(0));
        lines
    }
}

/// P7
#[test]
fn every_signal_is_forwarded_once_and_to_the_workload_alone() {
    for (user, place) in EVERYWHERE {
        let mut recorder = Recorder::start(&Run::new(user, place));
        for signal in catchable() {
            recorder.kill(signal);
            let line = recorder.lines.next().expect("a record").unwrap();
            assert_eq!(line, format!("{signal} 0 0 0"), "{user:?} {place:?}");
        }
        assert_eq!(recorder.finish(), [""; 0], "{user:?} {place:?}: more than was sent");
    }
}

#[test]
fn the_end_of_a_child_is_not_forwarded() {
    let recorder = Recorder::start(&Run::new(User::Ordinary, Place::Standalone));
    recorder.kill(libc::SIGCHLD);
    recorder.queue(libc::SIGCHLD, 1);
    assert_eq!(recorder.finish(), [""; 0]);
}

/// P7
#[test]
fn a_burst_of_queued_signals_arrives_whole_with_its_values() {
    const EACH: i32 = 20;
    for (user, place) in EVERYWHERE {
        let recorder = Recorder::start(&Run::new(user, place));
        // All of them are pending when the stub goes on.
        recorder.kill(libc::SIGSTOP);
        let mut expected = vec![];
        for value in 1..=EACH {
            // Several sends of one of the signals below are one to the kernel.
            for signal in 32..=64 {
                recorder.queue(signal, value);
                expected.push(format!("{signal} {} {value} 0", libc::SI_QUEUE));
            }
        }
        recorder.kill(libc::SIGCONT);
        let mut received = recorder.finish();
        received.retain(|line| *line != format!("{} 0 0 0", libc::SIGCONT));
        // The order is kept within each signal.
        expected.sort_by_key(|line| line[..2].parse::<i32>().unwrap());
        received.sort_by_key(|line| line[..2].parse::<i32>().unwrap());
        assert_eq!(received, expected, "{user:?} {place:?}");
    }
}

const CLEAN: &str = "SigBlk:\t0000000000000000\n\
                     SigIgn:\t0000000000000000\n\
                     SigCgt:\t0000000000000000\n";

fn caller(deeds: &[&str]) -> Vec<String> {
    let mut words = vec![fixture("caller").into_os_string().into_string().unwrap()];
    words.extend(deeds.iter().map(|deed| deed.to_string()));
    words.push("--".into());
    words
}

/// P3
#[test]
fn the_workload_starts_with_an_empty_mask_and_default_dispositions() {
    for (user, place) in EVERYWHERE {
        for deeds in [&[][..], &["block"], &["ignore"], &["ignore", "block"]] {
            let run = Run::new(user, place).before(caller(deeds));
            // Not grep, which catches SIGSEGV.
            let outcome = run.run(["cat", "/proc/self/status"]);
            assert!(outcome.success().contains(CLEAN), "{user:?} {place:?} {deeds:?} {outcome:?}");
        }
    }
}

/// P4
#[test]
fn a_caller_that_ignores_the_end_of_children_gets_the_exit_status() {
    for (user, place) in EVERYWHERE {
        let run = Run::new(user, place).before(caller(&["ignore"]));
        assert_eq!(run.sh("exit 7").code, 7, "{user:?} {place:?}");
        assert_eq!(run.sh("kill -9 $$").code, 137, "{user:?} {place:?}");
    }
}

/// P5
#[test]
fn what_the_caller_blocks_and_ignores_is_forwarded() {
    for (user, place) in EVERYWHERE {
        let run = Run::new(user, place).before(caller(&["ignore", "block"]));
        let mut recorder = Recorder::start(&run);
        for signal in [libc::SIGTERM, libc::SIGHUP, libc::SIGPIPE, libc::SIGALRM, 64] {
            recorder.kill(signal);
            let line = recorder.lines.next().expect("a record").unwrap();
            assert_eq!(line, format!("{signal} 0 0 0"), "{user:?} {place:?}");
        }
        assert_eq!(recorder.finish(), [""; 0], "{user:?} {place:?}");
    }
}

/// P6: pending from before the stub's first instruction.
#[test]
fn a_signal_that_waits_for_the_stub_ends_the_workload() {
    const BY_DEFAULT_IGNORED: [i32; 3] = [libc::SIGCONT, libc::SIGURG, libc::SIGWINCH];
    const STOPPING: [i32; 3] = [libc::SIGTSTP, libc::SIGTTIN, libc::SIGTTOU];
    for (user, place) in EVERYWHERE {
        for signal in catchable().filter(|n| !STOPPING.contains(n)) {
            // One for each default action everywhere, each signal at one place.
            let everywhere = [libc::SIGTERM, libc::SIGWINCH, 32, 64].contains(&signal);
            if !everywhere && (user, place) != (User::Ordinary, Place::Standalone) {
                continue;
            }
            let run =
                Run::new(user, place).before(caller(&["block", &format!("pending={signal}")]));
            let (command, code) = match BY_DEFAULT_IGNORED.contains(&signal) {
                true => (["sleep", "0"], 0),
                false => (["sleep", "1000"], 128 + signal),
            };
            let outcome = run.run(command);
            assert_eq!(outcome.code, code, "{user:?} {place:?} {signal}: {outcome:?}");
        }
    }
}

/// P6: at each system call of the stub, PID 1 and the workload's process until the workload runs.
#[test]
fn a_signal_during_the_start_ends_the_whole_sandbox() {
    // At its first calls the stub is just a program with default dispositions.
    for (user, place) in ROUTES {
        steps(user, place, libc::SIGTERM, &["signal 15", "status 143"]);
    }
    steps(User::Ordinary, Place::Standalone, 64, &["signal 64", "status 192"]);
}

/// P8
#[test]
fn a_stub_killed_during_the_start_takes_the_whole_sandbox_along() {
    for (user, place) in ROUTES {
        steps(user, place, libc::SIGKILL, &["signal 9"]);
    }
}

fn steps(user: User, place: Place, signal: i32, ends: &[&str]) {
    let steps = fixture("steps").into_os_string().into_string().unwrap();
    let stride = if signal == libc::SIGCONT { 1 } else { 8 / many(8) };
    let before = [steps, format!("{signal}/{stride}")];
    let outcome = Run::new(user, place).before(before).run(["sleep", "1000"]);
    let mut lines = outcome.success().lines();
    let calls: usize = lines.next().unwrap().strip_prefix("calls ").unwrap().parse().unwrap();
    assert!(calls > if signal == libc::SIGCONT { 10 } else { 50 }, "{outcome:?}");
    for line in lines {
        let end = line.rsplit_once(": ").unwrap().0;
        assert!(ends.contains(&end), "{user:?} {place:?} signal {signal}: {}", outcome.stdout);
    }
}

/// A7, A8
#[test]
fn what_the_workload_sends_to_pid_1_is_ignored() {
    let script =
        format!("for n in $(seq 1 64); do {} call {} 1 $n; done; exit 7", probe(), libc::SYS_kill);
    for (user, place) in EVERYWHERE {
        let outcome = Run::new(user, place).sh(&script);
        assert_eq!(outcome.code, 7, "{user:?} {place:?}: {outcome:?}");
        // EPERM where the workload is in a Landlock domain that ends above it.
        let lines: Vec<_> = outcome.stdout.lines().collect();
        assert_eq!(lines.len(), 64, "{user:?} {place:?}: {outcome:?}");
        assert!(lines.iter().all(|line| ["ok 0", "EPERM"].contains(line)), "{outcome:?}");
    }
}

/// A8: the sibling is in the process group and the session of the stub.
#[test]
fn no_kill_of_the_workload_reaches_a_sibling_of_the_stub() {
    const SIBLING: &str = r#"sleep 1000 & "$@"; code=$?; kill $! && wait $!; echo $code $?"#;
    for (user, place) in EVERYWHERE {
        let run = Run::new(user, place).before(["sh", "-c", SIBLING, "sh"]);
        for (script, code) in [
            ("kill -9 0", 137),
            ("kill -15 0", 143),
            ("kill -9 -1; exit 8", 8),
            ("kill -15 -1; exit 8", 8),
            ("kill -9 1; exit 8", 8),
            // Its own: it does reach what it may reach.
            ("sleep 1000 & kill -9 -1; wait $!; exit $?", 137),
        ] {
            let outcome = run.sh(script);
            // The sibling is ended by the signal that comes afterwards from outside.
            let lines: Vec<_> = outcome.success().lines().collect();
            assert_eq!(lines, [format!("{code} 143")], "{user:?} {place:?} {script}: {outcome:?}");
        }
    }
}

/// P11: without a terminal too, as the stub has stopped with the workload.
#[test]
fn a_workload_that_others_inside_stop_and_continue_runs_to_its_end() {
    for place in [Place::Standalone, Place::Bwrap] {
        let script = "(sleep 0.2; kill -CONT $$) & kill -STOP $$; exit 8";
        let outcome = Run::new(User::Ordinary, place).sh(script);
        assert_eq!(outcome.code, 8, "{place:?}: {outcome:?}");
    }
}

/// P11: at each system call of the stub and PID 1 from the stop signal on.
#[test]
fn a_workload_continued_while_it_is_being_stopped_runs_on() {
    for (user, place) in ROUTES {
        steps(user, place, libc::SIGCONT, &["status 143"]);
    }
}

/// P11
#[test]
fn a_workload_stopped_and_at_once_continued_by_the_caller_runs_on() {
    const SEND: &str = r#""$@" & for i in $(seq 200); do kill -TSTP $!; kill -CONT $!; done
                          kill -TERM $!; wait $!"#;
    let run = Run::new(User::Ordinary, Place::Standalone).before(["sh", "-c", SEND, "sh"]);
    assert_eq!(run.run(["sleep", "1000"]).code, 143);
}
