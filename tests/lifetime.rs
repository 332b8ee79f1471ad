//! Beginning and end: exit statuses, what may outlive what, orphans.

mod support;

use std::io::{BufRead, BufReader, Lines, Read};
use std::process::{Child, ChildStderr, ChildStdout, Stdio};

use support::process::{descendants, is_named, kill, parent, stub, until_gone};
use support::{COUNT, EVERYWHERE, Outcome, Place, Run, UNTIL_ALL_GONE, User, fixture, many};

/// Runs what follows to the end of all that holds its standard output, with a parent of the stub
/// that can be killed.
const WITH_PARENT: &str = r#"{ sh -c '"$@"; :' sh "$@"; } | cat; echo gone"#;

fn in_shell(user: User, place: Place, script: &str) -> Run {
    Run::new(user, place).before(["sh", "-c", script, "sh"])
}

/// Processes that hold on: in the background, in a session of their own, without their parent,
/// deaf to signals. The script goes on when they are there.
const FAMILY: &str = r#"
    sleep 1000 &
    setsid sleep 1000 &
    (setsid sh -c 'sleep 1000 & sleep 1000' &)
    deaf='for n in 1 2 3 6 10 12 13 14 15; do trap "" $n; done; echo deaf; while :; do sleep 1000; done'
    { sh -c "$deaf" & } | { read -r line; echo "$line"; }
"#;

/// A started run.
struct Started {
    child: Child,
    out: Lines<BufReader<ChildStdout>>,
    err: ChildStderr,
}

impl Started {
    /// Waits until the run has printed this line.
    fn new<const N: usize>(run: &Run, command: [&str; N], line: &str) -> Self {
        let mut child =
            run.command(command).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let out = BufReader::new(child.stdout.take().unwrap()).lines();
        let err = child.stderr.take().unwrap();
        let mut started = Self { child, out, err };
        started.expect(line);
        started
    }

    #[track_caller]
    fn expect(&mut self, line: &str) {
        assert_eq!(self.out.next().map(Result::unwrap).as_deref(), Some(line));
    }

    fn stub(&self) -> u32 {
        stub(&self.child).expect("a stub")
    }

    /// Standard output from here on, and standard error.
    fn finish(mut self) -> (Vec<String>, String) {
        let out = self.out.by_ref().map(Result::unwrap).collect();
        let mut err = String::new();
        self.err.read_to_string(&mut err).unwrap();
        self.child.wait().unwrap();
        (out, err)
    }
}

/// P9
#[test]
fn each_exit_code_is_passed_on() {
    let each = |user, place, codes: &[i32]| {
        let codes: Vec<_> = codes.iter().map(i32::to_string).collect();
        let script = format!("for i in {}; do \"$@\" \"exit $i\"; echo $?; done", codes.join(" "));
        let outcome = in_shell(user, place, &script).run(["sh", "-c"]);
        assert_eq!(outcome.success().lines().collect::<Vec<_>>(), codes, "{user:?} {place:?}");
    };
    for (user, place) in EVERYWHERE {
        each(user, place, &[0, 1, 2, 125, 126, 127, 128, 255]);
    }
    let step = 256 / many(256);
    each(User::Ordinary, Place::Standalone, &Vec::from_iter((0..256).step_by(step)));
}

/// P9: with a core dump where that is the default, in a directory that goes with the namespaces.
#[test]
fn death_by_each_signal_is_128_and_its_number() {
    // Ignored by default, or stopping.
    const HARMLESS: [i32; 8] = [17, 18, 19, 20, 21, 22, 23, 28];
    let each = |user, place, before: &str, signals: &[i32]| {
        let words: Vec<_> = signals.iter().map(i32::to_string).collect();
        let script = format!("{before}; for i in {}; do \"$@\" $i; echo $?; done", words.join(" "));
        let outcome = in_shell(user, place, &script).run(["sh", "-c", "kill -$0 $$"]);
        let expected: Vec<_> = signals.iter().map(|n| (128 + n).to_string()).collect();
        assert_eq!(outcome.success().lines().collect::<Vec<_>>(), expected, "{user:?} {place:?}");
    };
    for (user, place) in EVERYWHERE {
        each(user, place, "ulimit -c 0", &[1, 2, 9, 11, 13, 15, 32, 64]);
    }
    let all: Vec<_> = (1..=64).filter(|n| !HARMLESS.contains(n)).collect();
    let dumps = "mount -t tmpfs none /mnt && cd /mnt && ulimit -c $(ulimit -H -c) || exit 9";
    each(User::Root, Place::Standalone, dumps, &all);
}

/// P9
#[test]
fn what_cannot_be_run_has_its_own_status_and_one_line() {
    for (user, place) in EVERYWHERE {
        // A directory that may not be searched would count as EACCES, as with execvp(3).
        let run = Run::new(user, place).before(["env", "PATH=/usr/bin:/bin"]);
        for (command, code) in [("/nonexistent", 127), ("nonexistent", 127), ("/etc/passwd", 126)] {
            let outcome = run.run([command]);
            let lines = outcome.stderr.lines().filter(|line| !line.starts_with("hint: "));
            assert_eq!((outcome.code, lines.count()), (code, 1), "{outcome:?}");
            let start = format!("sbx-init: exec: {command}: ");
            assert!(outcome.stderr.starts_with(&start), "{outcome:?}");
        }
        run.clone().options(["--nonsense"]).run(["true"]).refused("options", &[]);
        assert_eq!(run.run(["true"]).code, 0);
    }
}

/// P12
#[test]
fn nothing_is_left_when_the_stub_has_ended() {
    for (user, place) in EVERYWHERE {
        let first = if place == Place::Standalone { "left probe" } else { "left bwrap" };
        for (end, code) in [("exit 5", 5), ("kill -9 $$", 137), ("exec /nonexistent", 127)] {
            let outcome = in_shell(user, place, COUNT).sh(&format!("{FAMILY} {end}"));
            let lines: Vec<_> = outcome.success().lines().collect();
            let expected = ["deaf", &format!("status {code}"), first, "left sh"];
            assert_eq!(lines, expected, "{user:?} {place:?} {end}");
        }
    }
}

/// P8
#[test]
fn the_sandbox_dies_with_its_stub() {
    for (user, place) in EVERYWHERE {
        let run = in_shell(user, place, UNTIL_ALL_GONE);
        let started = Started::new(&run, ["sh", "-c", &format!("{FAMILY} wait")], "deaf");
        kill(started.stub(), libc::SIGKILL);
        let (out, _) = started.finish();
        assert_eq!(out, ["status 137", "gone"], "{user:?} {place:?}");
    }
}

#[test]
fn a_killed_pid_1_is_reported_and_takes_everything_along() {
    for (user, place) in EVERYWHERE {
        let run = in_shell(user, place, COUNT);
        let started = Started::new(&run, ["sh", "-c", &format!("{FAMILY} wait")], "deaf");
        kill(descendants(started.stub())[0], libc::SIGKILL);
        let (out, err) = started.finish();
        let first = if place == Place::Standalone { "left probe" } else { "left bwrap" };
        assert_eq!(out, ["status 125", first, "left sh"], "{user:?} {place:?}");
        let lines: Vec<_> = err.lines().filter(|line| line.starts_with("sbx-init: ")).collect();
        assert_eq!(lines, ["sbx-init: init: PID 1: was ended by signal 9"], "{err}");
    }
}

#[test]
fn a_workload_killed_from_outside_is_137() {
    for (user, place) in EVERYWHERE {
        let run = in_shell(user, place, COUNT);
        let started = Started::new(&run, ["sh", "-c", &format!("{FAMILY} wait")], "deaf");
        kill(descendants(started.stub())[1], libc::SIGKILL);
        assert_eq!(started.finish().0[0], "status 137", "{user:?} {place:?}");
    }
}

/// P13
#[test]
fn orphans_are_reaped() {
    let family = fixture("family");
    let family = family.to_str().unwrap();
    for (user, place) in EVERYWHERE {
        let run = Run::new(user, place);
        assert_eq!(run.run([family, "orphans", "100"]).success(), "reaped\n");
        assert_eq!(run.run([family, "killed"]).success(), "reaped\n");
    }
    let run = Run::new(User::Ordinary, Place::Bwrap);
    assert_eq!(run.run([family, "orphans", &many(10_000).to_string()]).success(), "reaped\n");
}

/// P13: as after `sh -c 'helper & exec sbx-init …'`.
#[test]
fn children_that_the_stub_did_not_start_do_not_end_it() {
    for (user, place) in EVERYWHERE {
        // One ends before or at the start, one when this test ends it.
        let script = r#"sh -c '(exit 3) & sleep 1000 & exec "$@"' sh "$@"; echo "status $?""#;
        let workload = "trap 'exit 6' TERM; echo up; while :; do sleep 1000 & wait; done";
        let started = Started::new(&in_shell(user, place, script), ["sh", "-c", workload], "up");
        let stub = started.stub();
        let is_foreign = |pid: &u32| parent(*pid) == stub && is_named(*pid, "sleep");
        let child = loop {
            // The shell may not have become the program yet.
            if let Some(child) = descendants(stub).into_iter().find(is_foreign) {
                break child;
            }
        };
        kill(child, libc::SIGTERM);
        until_gone(child);
        kill(stub, libc::SIGTERM);
        assert_eq!(started.finish().0, ["status 6"], "{user:?} {place:?}");
    }
}

const DEED: &str = "trap 'echo heard' USR1; echo up; while :; do sleep 1000 & wait $!; done";

#[test]
fn the_sandbox_dies_with_the_caller_if_asked() {
    for (user, place) in EVERYWHERE {
        let run = in_shell(user, place, WITH_PARENT).options(["--die-with-parent"]);
        let started = Started::new(&run, ["sh", "-c", DEED], "up");
        kill(parent(started.stub()), libc::SIGKILL);
        assert_eq!(started.finish().0, ["gone"], "{user:?} {place:?}");
    }
}

#[test]
fn the_sandbox_outlives_the_caller_if_not_asked_otherwise() {
    for (user, place) in EVERYWHERE {
        let run = in_shell(user, place, WITH_PARENT);
        let mut started = Started::new(&run, ["sh", "-c", DEED], "up");
        let stub = started.stub();
        let caller = parent(stub);
        kill(caller, libc::SIGKILL);
        // Adopted when the caller is dead.
        while parent(stub) == caller {
            std::thread::yield_now();
        }
        kill(stub, libc::SIGUSR1);
        started.expect("heard");
        kill(stub, libc::SIGTERM);
        assert_eq!(started.finish().0, ["gone"], "{user:?} {place:?}");
    }
}

/// P14: with room for one process more each time, until there is enough. In bubblewrap's user
/// namespace nobody else counts.
#[test]
fn a_fork_that_fails_is_explained_and_leaves_nothing() {
    let limited = |limit: u32| {
        let script = format!("prlimit --nproc={limit} \"$@\"");
        let script = COUNT.replacen("\"$@\"", &script, 1);
        in_shell(User::Ordinary, Place::Bwrap, &script).run(["true"])
    };
    let mut stages = vec![];
    // Each more than once: what has just ended may still count, and hide where the next one fails.
    for attempt in 0..60 {
        let outcome = limited(1 + attempt / 3);
        let lines: Vec<_> = outcome.success().lines().collect();
        assert_eq!(lines[1..], ["left bwrap", "left sh"], "{outcome:?}");
        if lines[0] == "status 0" {
            break;
        }
        assert_eq!(lines[0], "status 125", "{outcome:?}");
        let stage = outcome.stderr.split(": ").nth(1).unwrap_or_default().to_owned();
        let outcome = Outcome { code: 125, stdout: String::new(), stderr: outcome.stderr };
        outcome.refused(&stage, &["RLIMIT_NPROC"]);
        stages.push(stage);
    }
    stages.sort();
    stages.dedup();
    assert_eq!(stages, ["init", "namespaces"]);
}

/// P14
#[test]
fn too_few_descriptors_are_explained() {
    let run = |limit: &str| {
        Run::new(User::Ordinary, Place::Standalone).before(["prlimit", limit]).run(["true"])
    };
    let outcome = run("--nofile=4");
    assert_eq!(outcome.code, 125, "{outcome:?}");
    assert!(outcome.stderr.contains("EMFILE"), "{outcome:?}");
    assert_eq!(run("--nofile=16").code, 0);
}
