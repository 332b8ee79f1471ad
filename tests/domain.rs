//! `--isolation domain` and `auto`: no namespace, and the same claims about lifetime, signals and
//! what is out of reach.

mod support;

use std::io::{BufRead, BufReader, Lines, Read};
use std::process::{Child, ChildStdout, Stdio};

use support::kernel::{LANDLOCK_SCOPES, Landlock, kernel_has};
use support::process::{descendants, kill, kill_group, parent, stub};
use support::{
    BOTH, COUNT, EVERYWHERE, Outcome, Place, Run, STARTED, UNTIL_ALL_GONE, User, contained, many,
    quote, word,
};

/// Everybody everywhere in both levels, if this kernel can; else asserts the refusal.
fn each() -> impl Iterator<Item = (Run, String)> {
    let is_refused = |(run, context): &(Run, String)| {
        context.ends_with("domain") && run.refused_without(LANDLOCK_SCOPES)
    };
    Run::each().filter(move |it| !is_refused(it))
}

/// Everybody everywhere, if this kernel can; else asserts the refusal.
fn everywhere() -> impl Iterator<Item = (Run, String)> {
    let can = |(user, place): &(User, Place)| {
        !Run::domain(*user, *place).run(["true"]).refused_without_domain()
    };
    let named = |(user, place)| (Run::domain(user, place), format!("{user:?} {place:?}"));
    EVERYWHERE.into_iter().filter(can).map(named)
}

fn in_shell(run: &Run, script: &str) -> Run {
    // A root's run has a step of its own before, which stays the first.
    run.clone().before(["sh", "-c", script, "sh"])
}

struct Started {
    child: Child,
    out: Lines<BufReader<ChildStdout>>,
}

impl Started {
    /// Waits until the run has printed this line.
    fn new<S: AsRef<std::ffi::OsStr>>(
        run: &Run,
        command: impl IntoIterator<Item = S>,
        line: &str,
    ) -> Self {
        let mut command = run.command(command);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut out = BufReader::new(child.stdout.take().unwrap()).lines();
        assert_eq!(out.next().map(Result::unwrap).as_deref(), Some(line));
        Self { child, out }
    }

    fn stub(&self) -> u32 {
        stub(&self.child).expect("a stub")
    }

    fn reaper(&self) -> u32 {
        descendants(self.stub())[0]
    }

    /// Standard output from here on; standard input has ended.
    fn rest(mut self) -> Vec<String> {
        drop(self.child.stdin.take());
        let rest = self.out.by_ref().map(Result::unwrap).collect();
        self.child.wait().unwrap();
        rest
    }
}

#[test]
fn no_namespace_is_made() {
    let links = "readlink /proc/self/ns/{user,pid,mnt,net,ipc,uts,cgroup}";
    for (run, context) in everywhere() {
        let script = format!("{links}; exec \"$@\"");
        let outcome = run.before(["bash", "-c", &script, "bash"]).run(["bash", "-c", links]);
        let lines: Vec<_> = outcome.success().lines().collect();
        assert_eq!(lines.len(), 14, "{context}: {outcome:?}");
        assert_eq!(lines[..7], lines[7..], "{context}");
    }
}

/// A4, R3
#[test]
fn the_workload_has_no_power() {
    for (run, context) in everywhere() {
        let outcome = run.sh("id -u; cat /proc/self/status");
        let user = if context.starts_with("Root") { "0" } else { "1000" };
        let status = outcome.success();
        assert!(status.starts_with(&format!("{user}\n")), "{context}");
        let field = |name: &str| {
            let prefix = format!("{name}:\t");
            status.lines().find_map(|line| line.strip_prefix(&prefix)).unwrap().to_owned()
        };
        for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
            assert_eq!(field(set), "0000000000000000", "{context}");
        }
        assert_eq!((&*field("NoNewPrivs"), &*field("Seccomp")), ("1", "2"), "{context}");
        assert_eq!(field("SigBlk"), "0000000000000000", "{context}");
    }
}

/// P9
#[test]
fn the_exit_status_is_the_commands() {
    for (run, context) in everywhere() {
        let codes = [("exit 0", 0), ("exit 3", 3), ("exit 255", 255), ("kill -9 $$", 137)];
        for (script, code) in codes.into_iter().chain([("kill -34 $$", 162)]) {
            assert_eq!(run.sh(script).code, code, "{context}: {script}");
        }
        let missing = run.run(["/no/such/program"]);
        assert_eq!((missing.code, &*missing.stdout), (127, ""), "{context}: {missing:?}");
        assert_eq!(run.run(["/etc/passwd"]).code, 126, "{context}");
    }
}

#[test]
fn standard_input_and_output_are_the_commands() {
    for (run, context) in everywhere() {
        let run = in_shell(&run, "echo text | \"$@\" 2>&1 | tr a-z A-Z");
        assert_eq!(run.sh("cat; echo error >&2").success(), "TEXT\nERROR\n", "{context}");
    }
}

/// P7
#[test]
fn signals_are_forwarded_to_the_command() {
    for (run, context) in everywhere() {
        let script =
            "trap 'echo heard; exit 9' TERM; echo up; while :; do sleep 1000 & wait $!; done";
        let started = Started::new(&in_shell(&run, UNTIL_ALL_GONE), ["sh", "-c", script], "up");
        kill(started.stub(), libc::SIGTERM);
        assert_eq!(started.rest(), ["heard", "status 9", "gone"], "{context}");
    }
}

/// P7: each once; the reaper keeps none.
#[test]
fn every_signal_arrives_once() {
    // Those for the stub alone are SIGKILL, SIGSTOP and SIGCHLD; SIGTSTP and SIGCONT it takes part in.
    let all = (1..=64).filter(|signal| ![9, 17, 18, 19, 20, 64].contains(signal));
    let all: Vec<i32> = all.chain([64]).collect();
    for (run, context) in everywhere() {
        let started = Started::new(&run, [word("recorder"), "64".to_owned()], "READY");
        let stub = started.stub();
        all.iter().for_each(|signal| kill(stub, *signal));
        let lines = started.rest();
        let number = |line: &String| line.split(' ').next()?.parse::<i32>().ok();
        let mut numbers: Vec<_> = lines.iter().filter_map(number).collect();
        numbers.sort_unstable();
        assert_eq!(numbers, all, "{context}");
    }
}

/// A2, A7, A8, R3: stub, reaper and a bystander, who is dumpable and not filtered.
#[test]
fn what_is_outside_is_out_of_reach() {
    let script = r#"HELPER & helper=$!
        until grep -q '^CapPrm:.0*$' /proc/$helper/status; do :; done
        "$@" $helper; code=$?; kill -0 $helper && echo alive; kill -9 $helper; exit $code"#;
    let script = script.replace("HELPER", &format!("{} wait-powerless", word("attempt")));
    for (run, context) in everywhere() {
        let inner = r#"helper=$0
            reaper=$PPID
            read -r _ _ _ stub _ < /proc/$reaper/stat
            for pid in $helper $reaper $stub; do
                REACH /proc $pid
                for signal in 0 9 15 19 18; do kill -$signal $pid 2>/dev/null && echo "signal ok"; done
            done
            kill -9 -- -$(cut -d' ' -f5 /proc/$stub/stat) 2>/dev/null && echo "group ok"
            echo end"#;
        let inner = inner.replace("REACH", &word("reach"));
        let outcome = in_shell(&run, &script).run(["sh", "-c", &inner]);
        let lines: Vec<_> = outcome.success().lines().collect();
        assert_eq!(lines.len(), 3 * 13 + 2, "{context}: {outcome:?}");
        assert_eq!(lines[39..], ["end", "alive"], "{context}");
        let reached: Vec<_> = lines.iter().filter(|line| line.ends_with(" ok")).collect();
        assert!(reached.is_empty(), "{context}: {reached:?}");
        // The honest use, but for what the group `trace` denies.
        let honest = run.run([&*word("reach"), "/proc", "child"]);
        for way in ["environ", "maps", "root", "cwd", "exe", "fd"] {
            let line = format!("{way} ok");
            assert!(honest.success().lines().any(|l| l == line), "{context} {way}: {honest:?}");
        }
    }
}

/// A9, and other ways in which one process of a user ends another.
#[test]
fn stub_and_reaper_cannot_be_ended_by_other_means() {
    let script = r#"reaper=$PPID; read -r _ _ _ stub _ < /proc/$reaper/stat
        for pid in $reaper $stub; do
            SCOPED reach outside $pid
            PROBE call PRLIMIT $pid 9 8 0
            PROBE call PRLIMIT $pid 0 8 0
        done"#;
    for (run, context) in everywhere() {
        let script = script.replace("SCOPED", &word("scoped")).replace("PROBE", &word("probe"));
        let script = script.replace("PRLIMIT", &libc::SYS_prlimit64.to_string());
        let outcome = in_shell(&run.options(["--allow", "unix"]), COUNT).sh(&script);
        let lines: Vec<_> = outcome.success().lines().collect();
        let each = ["inside ok", "connect ECONNREFUSED", "signal EPERM", "sigio none"];
        let each = each.into_iter().chain(["EPERM", "EPERM"]);
        let expected: Vec<_> = each.clone().chain(each).chain(["status 0"]).collect();
        assert_eq!(lines[..13], expected, "{context}: {outcome:?}");
    }
}

/// A8
#[test]
fn a_signal_to_everybody_stays_inside() {
    for (run, context) in everywhere() {
        let bystander = r#"sleep 1000 & "$@"; kill -0 $! && echo alive"#;
        let run = run.before(["setsid", "-w", "sh", "-c", bystander, "sh"]);
        for target in ["0", "-1"] {
            let script = format!("sleep 1000 & trap '' TERM; kill -TERM {target}; wait; echo own");
            assert_eq!(run.sh(&script).success(), "own\nalive\n", "{context} {target}");
        }
        let outcome = run.sh("kill -9 -1");
        assert_eq!(outcome.stdout, "alive\n", "{context}: {outcome:?}");
    }
}

#[test]
fn tracing_and_user_namespaces_are_denied_and_cannot_be_allowed() {
    for (run, context) in everywhere() {
        let clone = libc::CLONE_NEWUSER.to_string();
        assert_eq!(run.call(libc::SYS_unshare, &[&clone]), "EPERM", "{context}");
        assert_eq!(run.call(libc::SYS_setns, &["-1", "0"]), "EPERM", "{context}");
        assert_eq!(run.call(libc::SYS_clone3, &["0", "0"]), "ENOSYS", "{context}");
        assert_eq!(run.call(libc::SYS_ptrace, &["0", "0", "0", "0"]), "EPERM", "{context}");
        for group in ["trace", "limits", "userns"] {
            let outcome = run.clone().options(["--allow", group]).run(STARTED);
            assert_eq!((outcome.code, &*outcome.stdout), (125, ""), "{context}: {outcome:?}");
            let line = format!("--isolation domain needs the group {group}");
            assert!(outcome.stderr.contains(&line), "{outcome:?}");
        }
    }
}

#[test]
fn a_proc_of_its_own_is_refused() {
    for user in BOTH {
        for proc in ["fresh", "hide"] {
            let outcome =
                Run::domain(user, Place::Standalone).options(["--proc", proc]).run(STARTED);
            assert_eq!((outcome.code, &*outcome.stdout), (125, ""), "{outcome:?}");
            assert!(outcome.stderr.contains("needs namespaces"), "{outcome:?}");
        }
        let keep = Run::domain(user, Place::Standalone).options(["--proc", "keep"]).run(STARTED);
        if !keep.refused_without_domain() {
            assert_eq!(keep.success(), "started\n");
        }
    }
}

/// A6
#[test]
fn the_global_root_is_refused_where_proc_is_writable() {
    let root = Run::new(User::Root, Place::Standalone).options(["--isolation", "domain"]);
    root.run(STARTED).refused("plan", &["ordinary user", "read-only"]);
    // Each of them, as container engines make them read-only.
    let entries = ["sys", "sysrq-trigger", "irq", "bus", "fs"];
    let all: Vec<_> =
        entries.iter().filter(|e| std::fs::exists(format!("/proc/{e}")).unwrap()).collect();
    for missing in all.iter().map(Some).chain([None]) {
        let mut script = "set -e;".to_owned();
        for entry in all.iter().filter(|entry| Some(entry) != missing.as_ref()) {
            let path = format!("/proc/{entry}");
            script += &format!("mount --bind {path} {path}; mount -o remount,bind,ro {path};");
        }
        let outcome = root.prepared(&format!("{script} exec \"$@\""), STARTED);
        match missing {
            Some(entry) => {
                outcome.refused("plan", &["ordinary user"]);
                assert!(
                    outcome.stderr.contains(&format!("/proc/{entry} is writable")),
                    "{outcome:?}"
                );
            }
            None if outcome.refused_without_domain() => {}
            None => assert_eq!(outcome.success(), "started\n"),
        }
    }
}

/// P12, P13: in both levels.
#[test]
fn of_a_thousand_processes_none_is_left() {
    for (run, context) in each() {
        let first = if context.contains("Standalone") { "left probe" } else { "left bwrap" };
        let tree = [&*word("tree"), &many(1000).to_string(), "runners", "20", "end"];
        let outcome = in_shell(&run, COUNT).run(tree);
        let lines: Vec<_> = outcome.success().lines().collect();
        assert_eq!(lines, ["up", "status 0", first, "left sh"], "{context}");
    }
}

/// P12: at a limit each that is killed makes room for another one. A user of its own, as the limit
/// counts all processes of it.
#[test]
fn what_forks_faster_than_it_is_killed_is_ended() {
    for level in ["namespaces", "domain"] {
        let limited = ["setpriv", "--reuid", "4243", "--regid", "4243", "--clear-groups"];
        let limit = ["prlimit", "--nproc=600", "--"];
        let run = Run::new(User::Root, Place::Standalone).before(limited).before(limit);
        let run = in_shell(&run, COUNT).options(["--isolation", level]);
        let outcome = run.run([&*word("tree"), "10", "climbers", "8", "runners", "8", "end"]);
        if level == "domain" && !kernel_has(LANDLOCK_SCOPES) {
            assert!(outcome.stdout.contains("status 125"), "{outcome:?}");
            continue;
        }
        let lines: Vec<_> = outcome.success().lines().collect();
        assert_eq!(lines, ["up", "status 0", "left probe", "left sh"], "{level}");
    }
}

/// P8: each of the two ends the tree when the other one is killed.
#[test]
fn the_tree_ends_with_its_stub_and_with_its_reaper() {
    for (run, context) in everywhere() {
        for (victim, status) in [("stub", "status 137"), ("reaper", "status 125")] {
            let runners = if victim == "stub" { "20" } else { "2" };
            let tree = [&*word("tree"), &many(1000).to_string(), "runners", runners];
            let started = Started::new(&in_shell(&run, UNTIL_ALL_GONE), tree, "up");
            let pid = if victim == "stub" { started.stub() } else { started.reaper() };
            kill(pid, libc::SIGKILL);
            assert_eq!(started.rest(), [status, "gone"], "{context}: {victim}");
        }
    }
}

/// P8: the process above cannot be kept from seeing it by children that end faster than it takes
/// them: each search for one of them passes all that hold on. A user of its own, as in the one above.
#[test]
fn the_end_of_the_stub_is_seen_among_many_children() {
    let siblings = many(2000);
    for level in ["namespaces", "domain"] {
        let limited = ["setpriv", "--reuid", "4244", "--regid", "4244", "--clear-groups"];
        let limit = ["prlimit", &*format!("--nproc={}", siblings + 500), "--"];
        let run = Run::new(User::Root, Place::Standalone).before(limited).before(limit);
        let run = run.options(["--isolation", level, "--net-none"]);
        if level == "domain" && run.refused_without(LANDLOCK_SCOPES) {
            continue;
        }
        let tree = [&*word("tree"), "0", "siblings", &siblings.to_string(), "breeders", "4"];
        let started = Started::new(&in_shell(&run, UNTIL_ALL_GONE), tree, "up");
        kill(started.stub(), libc::SIGKILL);
        assert_eq!(started.rest(), ["status 137", "gone"], "{level}");
    }
}

/// P8: timeout(1) and a shell's `kill %1` signal the process group of the stub.
#[test]
fn the_tree_ends_with_the_stubs_process_group() {
    for (run, context) in everywhere() {
        let script = r#"set -m; { "$@"; } & wait $!; echo "status $?""#;
        let script = format!("{{ {script}; }} | cat; echo gone");
        let run = run.before(["bash", "-c", &script, "bash"]);
        let started = Started::new(&run, [&*word("tree"), "60"], "up");
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", started.stub())).unwrap();
        let group: u32 = stat.split(' ').nth(4).unwrap().parse().unwrap();
        kill_group(group, libc::SIGKILL);
        assert_eq!(started.rest().last().unwrap(), "gone", "{context}");
    }
}

/// P8: nobody is left to end its descendants, so it must have none.
#[test]
fn the_command_ends_where_stub_and_reaper_are_killed_at_once() {
    for (run, context) in everywhere() {
        let command = ["sh", "-c", "echo up; exec sleep 1000"];
        let started = Started::new(&in_shell(&run, UNTIL_ALL_GONE), command, "up");
        let (stub, reaper) = (started.stub(), started.reaper());
        kill(reaper, libc::SIGSTOP);
        kill(stub, libc::SIGKILL);
        kill(reaper, libc::SIGKILL);
        assert_eq!(started.rest(), ["status 137", "gone"], "{context}");
    }
}

/// P8
#[test]
fn the_tree_ends_with_the_caller_if_asked() {
    for (run, context) in everywhere() {
        let script = r#"{ sh -c '"$@"; :' sh "$@"; } | cat; echo gone"#;
        let run = in_shell(&run, script).options(["--die-with-parent"]);
        let started = Started::new(&run, [&*word("tree"), "60"], "up");
        kill(parent(started.stub()), libc::SIGKILL);
        assert_eq!(started.rest(), ["gone"], "{context}");
    }
}

/// P13
#[test]
fn children_of_the_caller_survive_with_theirs() {
    for (run, context) in everywhere() {
        // A child, and one that loses its parent to the stub while the workload runs: at a word of
        // the workload's, which then waits until the stub has reaped the parent.
        let script = r#"bash -c '
            sleep 1001 &
            exec 4> >(sleep 1002 & read -r go)
            exec "$@" $!' bash "$@"; echo "status $?"
            for p in /proc/[0-9]*; do
                case $(tr "\0" " " < "$p/cmdline") in "sleep 100"*) echo left;; esac
            done"#;
        let workload = r#"setsid sleep 1003 & echo go >&4
            while test -e /proc/$0; do :; done; exit 6"#;
        let outcome = in_shell(&run, script).options(["--keep-fd", "4"]).sh(workload);
        assert_eq!(outcome.success(), "status 6\nleft\nleft\n", "{context}: {outcome:?}");
    }
}

/// P13
#[test]
fn children_of_the_caller_survive_a_killed_reaper() {
    for (run, context) in everywhere() {
        let script = r#"{ sh -c 'sleep 1001 >&2 & exec "$@"' sh "$@"; echo "status $?"; } | cat
            for p in /proc/[0-9]*; do
                case $(tr "\0" " " < "$p/cmdline") in "sleep 100"*) echo left;; esac
            done"#;
        let command = ["sh", "-c", "setsid sleep 1002 & echo up; sleep 1003"];
        let started = Started::new(&in_shell(&run, script), command, "up");
        // The child that is not the sandbox's has no children.
        let reaper = descendants(started.stub())
            .into_iter()
            .find(|pid| !descendants(*pid).is_empty())
            .unwrap();
        kill(reaper, libc::SIGKILL);
        assert_eq!(started.rest(), ["status 125", "left"], "{context}");
    }
}

/// Whoever means the sandbox signals the stub.
#[test]
fn a_signal_to_the_reaper_does_not_end_it() {
    for (run, context) in everywhere() {
        let command = ["sh", "-c", "echo up; read -r x; exit 5"];
        let started = Started::new(&in_shell(&run, "\"$@\"; echo $?"), command, "up");
        let reaper = started.reaper();
        [1, 2, 3, 13, 14, 15, 20, 34].into_iter().for_each(|signal| kill(reaper, signal));
        assert_eq!(started.rest(), ["5"], "{context}");
    }
}

/// P13: whoever starts sbx-init as the first process of a container has no other.
#[test]
fn it_works_as_the_first_process() {
    for user in BOTH {
        let mut command = contained();
        command.args(["unshare", "-pfm", "--mount-proc", "--kill-child", "--"]);
        command.args(Run::domain(user, Place::Standalone).words([
            "sh",
            "-c",
            "setsid sleep 1000 & read -r _ _ _ stub _ < /proc/$PPID/stat; echo stub $stub; exit 4",
        ]));
        let outcome = Outcome::new(command.output().unwrap());
        if outcome.refused_without_domain() {
            continue;
        }
        assert_eq!((outcome.code, &*outcome.stdout), (4, "stub 1\n"), "{user:?}: {outcome:?}");
    }
}

/// P8: whatever the stub is killed at, nothing goes on.
#[test]
fn a_stub_killed_at_any_call_of_the_start_leaves_nothing() {
    let run = Run::domain(User::Ordinary, Place::Standalone);
    if run.refused_without(LANDLOCK_SCOPES) {
        return;
    }
    let mut command = contained();
    command.args(support::become_user(User::Ordinary));
    command.args([word("steps"), format!("9/{}", 8 / many(8))]);
    command.arg(support::sbx_init()).args(["--isolation", "domain"]);
    command.args(["sh", "-c", "sleep 0.05"]).env("SBX_TEST_LIMIT", "300");
    let outcome = Outcome::new(command.output().unwrap());
    assert!(!outcome.success().contains("running"), "{outcome:?}");
    let ends: Vec<_> = outcome.stdout.lines().skip(1).collect();
    assert!(ends.iter().any(|line| line.starts_with("signal 9: ")), "{outcome:?}");
}

/// P10, P11: in an interactive shell's terminal.
#[test]
fn job_control_is_the_shells() {
    for (run, context) in everywhere() {
        // It may come when the shell is about to read.
        let script = "trap 'echo int$((40+2)); exit' INT; echo up$((40+2))
            while read -r x; do echo got-$x-$((40+2)); done";
        let sandbox = format!("S={}", quote(&run.words(["sh", "-c", script])));
        #[rustfmt::skip]
        let steps = [
            "expect:P>", "send:eval \"$S\"; echo =$?=\n", "expect:up42",
            "send:one\n", "expect:got-one-42",
            "send:\x1a", "expect:Stopped", "expect:P>",
            "send:fg\n", "send:two\n", "expect:got-two-42",
            "send:\x03", "expect:int42", "expect:P>",
            "send:echo end$((40+2))\n", "expect:end42", "send:exit 0\n",
        ];
        let mut command = contained();
        command.arg(word("onpty")).args(steps).arg("--");
        command.args(["env", &sandbox, "PS1=P>", "bash", "--norc", "--noediting", "-i"]);
        let outcome = Outcome::new(command.output().unwrap());
        assert_eq!(outcome.code, 0, "{context}: {}\n{}", outcome.stdout, outcome.stderr);
    }
}

/// P10
#[test]
fn a_typed_interrupt_arrives_once() {
    for (run, context) in everywhere() {
        let steps =
            ["expect:READY\r\n", "send:\x03", "expect:2 128 0 0\r\n", "send:\x1c", "expect:MEMBER"];
        let mut command = contained();
        command.arg(word("onpty")).args(steps).arg("--");
        command.args(run.words([word("recorder"), "3".to_owned()]));
        let outcome = Outcome::new(command.output().unwrap());
        let records = outcome.stdout.replace("^C", "").replace("^\\", "").replace('\r', "");
        let expected = "READY\n2 128 0 0\n3 128 0 0\nMEMBER 0000000000000006\n";
        assert_eq!((outcome.code, &*records), (0, expected), "{context}");
    }
}

/// P11
#[test]
fn a_stop_of_the_command_stops_the_stub_and_back() {
    for (run, context) in everywhere() {
        let script = r#""$@" & stub=$!
            until grep -q '^State:.T' /proc/$stub/status; do :; done
            echo stopped; kill -CONT $stub; wait $stub; echo "status $?""#;
        let outcome = in_shell(&run, script).sh("kill -STOP $$; exit 8");
        assert_eq!(outcome.success(), "stopped\nstatus 8\n", "{context}: {outcome:?}");
    }
}

/// U1, U3, U5
#[test]
fn what_the_tree_cannot_be_seen_by_is_refused() {
    let run = Run::domain(User::Ordinary, Place::Bwrap);
    let hint = ["/proc", "thread-self/children"];
    let covered = run.clone().bwrap(["--tmpfs", "/proc"]).run(STARTED);
    covered.refused("plan", &hint);
    assert!(covered.stderr.contains("no procfs"), "{covered:?}");
    // The one of the PID namespace outside.
    let outer = run.bwrap(["--ro-bind", "/proc", "/proc"]).run(STARTED);
    outer.refused("plan", &hint);
    assert!(outer.stderr.contains("another PID namespace"), "{outer:?}");
}

#[test]
fn without_landlock_a_domain_is_refused_by_name() {
    for (user, place) in EVERYWHERE {
        for errno in [libc::ENOSYS, libc::EOPNOTSUPP] {
            for more in [&[][..], &["--best-effort"]] {
                let run = Run::domain(user, place).options(more);
                let run = run.lacking(libc::SYS_landlock_create_ruleset, errno);
                let outcome = run.run(STARTED);
                outcome.refused("plan", &["kernel"]);
                let line =
                    "--isolation domain: needs Landlock ABI 6 (Linux 6.12), this kernel has none";
                assert!(outcome.stderr.contains(line), "{outcome:?}");
            }
        }
    }
}

/// D4
#[test]
fn an_older_kernels_domain_is_refused_or_reported() {
    for abi in (1..6).filter(|abi| kernel_has(Landlock(*abi))) {
        for user in BOTH {
            let run = Run::domain(user, Place::Standalone).before([word("abi"), abi.to_string()]);
            run.run(STARTED).refused("plan", &["--best-effort"]);
            let run = run.options(["--best-effort"]);
            let outcome = run.run(STARTED);
            assert_eq!(outcome.success(), "started\n", "{outcome:?}");
            assert!(
                outcome.stderr.contains("not enforced: --isolation domain: needs"),
                "{outcome:?}"
            );
            // One after the other.
            let tree = in_shell(&run, COUNT).run([&*word("tree"), "300", "end"]);
            let lines: Vec<_> = tree.success().lines().take(2).collect();
            assert_eq!(lines, ["up", "status 0"], "{tree:?}");
            assert!(!tree.stdout.contains("left tree"), "{tree:?}");
        }
    }
}

/// The lines of --status-fd. `programs` has them read by a JSON parser.
fn status(run: &Run, script: &str) -> Vec<String> {
    let only = r#"exec 3>&1 1>&2; exec "$@""#;
    let outcome = in_shell(run, only).options(["--status-fd", "3"]).sh(script);
    outcome.stdout.lines().map(str::to_owned).collect()
}

/// The setup first, the pid when all is confined, the exit status last.
#[test]
fn the_status_is_json_and_in_order() {
    for (run, context) in each() {
        let lines = status(&run, "exit 7");
        let level = context.rsplit(' ').next().unwrap();
        let starts = [&*format!("{{\"isolation\":\"{level}\",\"landlock\":"), "{\"child-pid\":"];
        assert_eq!(lines.len(), 3, "{context}: {lines:?}");
        assert!(lines.iter().zip(starts).all(|(line, start)| line.starts_with(start)), "{lines:?}");
        assert_eq!(lines[2], "{\"exit-code\":7}", "{context}");
        let failed = status(&run.clone().options(["--keep-fd", "99"]), "exit 7");
        assert!(failed.is_empty(), "{context}: {failed:?}");
    }
    // A setup that fails has no pid to tell.
    let run = Run::new(User::Ordinary, Place::Standalone);
    let lines = status(&run.lacking(libc::SYS_setpgid, libc::EPERM), "exit 7");
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert_eq!(lines[1], "{\"exit-code\":125}", "{lines:?}");
}

/// The stub's own write must not become a signal for the workload.
#[test]
fn a_status_reader_that_has_gone_is_not_missed() {
    // A SIGPIPE that the stub owed to its write would be forwarded before this later signal.
    let outlives = |run: Run, script: &str, context: &str| {
        let workload =
            "trap 'echo alive; exit 0' TERM; echo up; while :; do sleep 1000 & wait; done";
        let run = run.before(["bash", "-c", script, "bash"]);
        let started = Started::new(&run, ["sh", "-c", workload], "up");
        kill(started.stub(), libc::SIGTERM);
        assert_eq!(started.rest(), ["alive", "status 0"], "{context}");
    };
    for (run, context) in each() {
        let script = r#"exec 3> >(:); wait $!; "$@"; echo "status $?""#;
        outlives(run.options(["--status-fd", "3"]), script, &context);
    }
    // Nor does what is said on standard error.
    let script = r#"exec 2> >(:); wait $!; "$@"; echo "status $?""#;
    let run = Run::new(User::Ordinary, Place::Standalone)
        .lacking(libc::SYS_landlock_create_ruleset, libc::ENOSYS)
        .options(["--best-effort", "--connect-tcp", "9"]);
    outlives(run, script, "standard error");
}

/// R6
#[test]
fn auto_takes_namespaces_where_they_can_be_had() {
    for (user, place) in EVERYWHERE {
        let run = Run::new(user, place).options(["--isolation", "auto"]);
        let lines = status(&run, "true");
        let start = "{\"isolation\":\"namespaces\",\"landlock\":";
        assert!(lines[0].starts_with(start), "{user:?} {place:?}: {lines:?}");
        assert_eq!(run.sh("readlink /proc/self").success(), "3\n", "{user:?} {place:?}");
    }
}

/// U1, U2, U3, U5: each with the hint where namespaces are asked for.
#[test]
fn auto_takes_a_domain_where_namespaces_are_refused() {
    let ordinary = |place| Run::new(User::Ordinary, place);
    let writing = |call, index| format!("{call}:{index}&{}={}", libc::O_ACCMODE, libc::O_WRONLY);
    let restricted = |run: Run| {
        #[cfg(target_arch = "x86_64")]
        let run = run.lacking(writing(libc::SYS_open, 1), libc::EACCES);
        run.lacking(writing(libc::SYS_openat, 2), libc::EACCES)
    };
    let covered = ["--cap-drop", "ALL", "--cap-add", "CAP_SETFCAP", "--remount-ro", "/proc"];
    let disabled = ["--unshare-user", "--disable-userns", "--cap-drop", "ALL"];
    // As user namespaces are switched off for all of the machine, in one of the test's own.
    let switched_off = r#"echo 0 >/proc/sys/user/max_user_namespaces; exec "$@""#;
    let limited = ordinary(Place::Standalone)
        .before(["unshare", "-Ur", "sh", "-ec", switched_off, "sh"])
        .before(["setpriv", "--bounding-set", "-all", "--inh-caps", "-all", "--no-new-privs"]);
    for (run, stage, hint, reason) in [
        (ordinary(Place::Bwrap).bwrap(disabled), "namespaces", "max_user_namespaces", "ENOSPC"),
        (limited, "namespaces", "max_user_namespaces", "ENOSPC"),
        (restricted(ordinary(Place::Standalone)), "namespaces", "apparmor", "setgroups: EACCES"),
        (restricted(ordinary(Place::Bwrap)), "namespaces", "apparmor", "setgroups: EACCES"),
        (Run::new(User::Root, Place::Bwrap).bwrap(covered), "namespaces", "read-only", "EROFS"),
        (
            ordinary(Place::Standalone).lacking(libc::SYS_mount, libc::EPERM),
            "namespaces",
            "",
            "make mounts private: EPERM",
        ),
    ] {
        run.run(STARTED).refused(stage, &[hint]);
        let auto = run.options(["--isolation", "auto"]);
        let outcome = auto.run(STARTED);
        if outcome.refused_without_domain() {
            continue;
        }
        assert_eq!(outcome.success(), "started\n", "{reason}: {outcome:?}");
        let lines = status(&auto, "true");
        let start = format!("{{\"isolation\":\"domain\",\"refused\":\"{stage}: ");
        assert!(lines[0].starts_with(&start) && lines[0].contains(reason), "{lines:?}");
        assert_eq!(auto.call(libc::SYS_ptrace, &["0", "0", "0", "0"]), "EPERM");
    }
}

/// R6: never less than either.
#[test]
fn auto_without_both_is_refused() {
    let run = Run::new(User::Ordinary, Place::Standalone)
        .lacking(libc::SYS_mount, libc::EPERM)
        .options(["--isolation", "auto"]);
    let bare = run.clone().lacking(libc::SYS_landlock_create_ruleset, libc::ENOSYS).run(STARTED);
    bare.refused("plan", &["kernel"]);
    assert!(bare.stderr.contains("--isolation domain"), "{bare:?}");
    let fresh = run.options(["--proc", "fresh"]).run(STARTED);
    assert_eq!((fresh.code, &*fresh.stdout), (125, ""), "{fresh:?}");
    // The global root has what no domain takes.
    let root = Run::new(User::Root, Place::Standalone)
        .lacking(libc::SYS_mount, libc::EPERM)
        .options(["--isolation", "auto"]);
    root.run(STARTED).refused("plan", &["ordinary user"]);
}

/// P13: no zombie is left to whoever adopts.
#[test]
fn nothing_is_left_unreaped() {
    for (run, context) in everywhere() {
        let run = run.before([&*word("family"), "adopt"]);
        let outcome = run.sh("setsid sleep 1000 & (sleep 1000 &); exit 4");
        assert_eq!((outcome.code, &*outcome.stdout), (4, "adopted 0\n"), "{context}: {outcome:?}");
    }
}

/// The rest of standard output that a started run leaves.
#[test]
fn a_reader_of_the_output_sees_its_end() {
    for (run, context) in everywhere() {
        let mut child = run
            .command(["sh", "-c", "setsid sleep 1000 & echo up"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut text = String::new();
        child.stdout.take().unwrap().read_to_string(&mut text).unwrap();
        assert_eq!((&*text, child.wait().unwrap().code()), ("up\n", Some(0)), "{context}");
    }
}
