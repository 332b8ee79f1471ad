//! The platform mode: sbx-init as the entry point of a container under the restricted Pod Security
//! Standard, with the command line of `examples/kubernetes/pod.yaml`.
//!
//! Everything is tried in the same container without sbx-init too, and under the default seccomp
//! profiles of two kinds of engine.

mod support;

#[path = "support/oci.rs"]
mod oci;

use std::fs;
use std::io::{BufRead, BufReader, Lines};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use oci::{Container, ENGINES, Engine, program};
use serde_json::Value;
use support::Outcome;
use support::process::{kill, stub};

const MANIFEST: &str = include_str!("../examples/kubernetes/pod.yaml");

/// The agent's entry point in the manifest, with the path that sbx-init has here and options added.
fn entry_point(more: &[&str]) -> Vec<String> {
    let line = MANIFEST.lines().find_map(|line| line.trim().strip_prefix("command: "));
    let mut words: Vec<String> = serde_json::from_str(line.expect("a command")).unwrap();
    assert_eq!(words.pop().as_deref(), Some("--"));
    assert!(words[0].ends_with("/sbx-init"), "{words:?}");
    words[0] = program("sbx-init");
    words.extend(more.iter().map(|word| word.to_string()));
    words.push("--".into());
    words
}

/// The pod of a test, in which each run is a container.
struct Pod(Container);

impl Pod {
    /// One for each engine.
    fn each(name: &str) -> impl Iterator<Item = (Engine, Self)> {
        ENGINES.into_iter().map(move |engine| (engine, Self(Container::new(engine, name))))
    }

    /// Runs the command as the container's own entry point.
    fn plain(&self, command: &[&str]) -> Outcome {
        self.0.run(command)
    }

    /// Runs it behind the manifest's entry point.
    fn sandboxed(&self, command: &[&str]) -> Outcome {
        self.with(&[], command)
    }

    /// The same, with more options.
    fn with(&self, more: &[&str], command: &[&str]) -> Outcome {
        let words = entry_point(more);
        self.0.run(words.iter().map(String::as_str).chain(command.iter().copied()))
    }
}

/// What `attempt` says without and with sbx-init.
#[track_caller]
fn attempts(name: &str, deed: &[&str], plain: &str, sandboxed: &str) {
    let attempt = program("attempt");
    let command: Vec<&str> = [&*attempt].into_iter().chain(deed.iter().copied()).collect();
    for (engine, pod) in Pod::each(name) {
        assert_eq!(pod.plain(&command).success(), plain, "{engine:?}");
        assert_eq!(pod.sandboxed(&command).success(), sandboxed, "{engine:?}");
    }
}

#[test]
fn the_container_is_restricted_as_the_manifest_says() {
    let asked = [
        "runAsNonRoot: true",
        "runAsUser: 1000",
        "runAsGroup: 1000",
        "type: RuntimeDefault",
        "allowPrivilegeEscalation: false",
        "readOnlyRootFilesystem: true",
        "drop: [\"ALL\"]",
    ];
    for line in asked {
        assert!(MANIFEST.lines().any(|found| found.trim() == line), "{line}");
    }
    let none = "0000000000000000";
    let mut expected = vec!["Uid:\t1000\t1000\t1000\t1000".to_owned()];
    expected.push("Gid:\t1000\t1000\t1000\t1000".into());
    expected.extend(["Inh", "Prm", "Eff", "Bnd", "Amb"].map(|set| format!("Cap{set}:\t{none}")));
    expected.extend(["NoNewPrivs:\t1".into(), "Seccomp:\t2".into()]);
    for (engine, pod) in Pod::each("restricted") {
        let outcome = pod.plain(&["cat", "/proc/self/status"]);
        for line in &expected {
            assert!(outcome.success().lines().any(|found| found == line), "{line}: {outcome:?}");
        }
        for file in ["/file", "/etc/file", "/proc/sys/kernel/core_pattern"] {
            let outcome = pod.plain(&["sh", "-c", "echo >$0", file]);
            assert!(outcome.stderr.contains("Read-only file system"), "{engine:?} {outcome:?}");
        }
        assert_eq!(pod.plain(&["cat", "/proc/keys"]).success(), "", "{engine:?}");
    }
}

/// What the engines differ in, and what they agree on.
#[test]
fn the_container_has_the_engines_seccomp_profile() {
    const CALLS: [(&str, i64, &[&str], &str); 8] = [
        ("landlock_restrict_self", libc::SYS_landlock_restrict_self, &["-1"], "EBADF"),
        ("seccomp", libc::SYS_seccomp, &["1"], "EFAULT"),
        ("ptrace", libc::SYS_ptrace, &["16", "-1"], "ESRCH"),
        ("unshare", libc::SYS_unshare, &["0x10000000"], "ok 0"),
        ("clone3", libc::SYS_clone3, &[], "EINVAL"),
        ("pidfd_getfd", libc::SYS_pidfd_getfd, &["-1"], "EBADF"),
        ("process_vm_readv", libc::SYS_process_vm_readv, &["1"], "ok 0"),
        ("io_uring_enter", libc::SYS_io_uring_enter, &["-1"], "EBADF"),
    ];
    for (engine, pod) in Pod::each("profile") {
        assert!(engine.allows("landlock_restrict_self") && engine.allows("seccomp"));
        for (name, number, arguments, native) in CALLS {
            let (probe, number) = (program("probe"), number.to_string());
            let outcome = pod.plain(&[&[&*probe, "call", &number], arguments].concat());
            let refused = ["EPERM\n", "ENOSYS\n"].contains(&outcome.success());
            assert_eq!(refused, !engine.allows(name), "{engine:?} {name} {outcome:?}");
            assert!(refused || outcome.stdout.trim() == native, "{engine:?} {name} {outcome:?}");
        }
    }
}

#[test]
fn the_proxy_is_reached() {
    const DOWNLOAD: &str = "import urllib.request as r; \
        print(r.urlopen('http://site.example/page').read().decode().strip())";
    let proxy = "http_proxy=http://127.0.0.1:3128";
    let command = ["env", proxy, "/usr/bin/python3", "-c", DOWNLOAD];
    for (engine, pod) in Pod::each("proxy") {
        // The name is the proxy's to resolve.
        let page = "GET http://site.example/page HTTP/1.1 at 127.0.0.1:3128\n";
        assert_eq!(pod.plain(&command).success(), page, "{engine:?}");
        assert_eq!(pod.sandboxed(&command).success(), page, "{engine:?}");
    }
}

#[test]
fn no_other_tcp_port_is_reached() {
    let answer = "ok GET / HTTP/1.0 at 127.0.0.1:8080\n";
    attempts("port", &["fetch", "127.0.0.1:8080"], answer, "EACCES\n");
}

/// D3: Landlock knows no addresses.
#[test]
fn the_proxys_port_is_reached_at_any_address() {
    let answer = "ok GET / HTTP/1.0 at 127.0.0.2:3128\n";
    attempts("address", &["fetch", "127.0.0.2:3128"], answer, answer);
}

/// C7, D1: not even to the proxy's port.
#[test]
fn fast_open_is_refused() {
    // Nobody listens there.
    attempts("fast-open", &["fast-open"], "ECONNREFUSED\n", "EPERM\n");
}

#[test]
fn udp_is_refused() {
    attempts("udp", &["echo", "127.0.0.1:5000"], "ok hello\n", "EPERM\n");
}

/// D-7: neither over UDP nor over TCP, and at once.
#[test]
fn names_are_not_resolved() {
    for (engine, pod) in Pod::each("names") {
        for options in ["RES_OPTIONS=", "RES_OPTIONS=use-vc"] {
            let resolve = ["env", options, "getent", "ahosts", "site.example"];
            assert!(pod.plain(&resolve).success().contains("192.0.2.1 "), "{engine:?} {options}");
            let start = Instant::now();
            let outcome = pod.sandboxed(&resolve);
            let text = &outcome.stdout;
            // getent: the key was not found.
            assert_eq!((outcome.code, &**text), (2, ""), "{engine:?} {options}: {outcome:?}");
            // A resolver that waits for an answer waits five seconds.
            assert!(start.elapsed() < Duration::from_secs(4), "{:?}", start.elapsed());
        }
        let local = pod.sandboxed(&["getent", "ahosts", "localhost"]);
        assert!(local.success().contains("127.0.0.1 "), "{engine:?} {local:?}");
    }
}

#[test]
fn unix_sockets_are_refused() {
    attempts("unix", &["unix-server", "/data/socket"], "ok hello\n", "EPERM\n");
}

/// The containers of a pod share its network namespace, and with it the abstract unix sockets.
#[test]
fn abstract_unix_sockets_outside_are_out_of_reach_even_if_unix_sockets_are_allowed() {
    let fetch = [&*program("attempt"), "fetch", "@pod"];
    let own = [&*program("attempt"), "unix-server", "/data/socket"];
    for (engine, pod) in Pod::each("abstract") {
        let answer = "ok GET / HTTP/1.0 at @pod\n";
        assert_eq!(pod.plain(&fetch).success(), answer, "{engine:?}");
        assert_eq!(pod.sandboxed(&fetch).success(), "EPERM\n", "{engine:?}");
        let unix = ["--allow=unix"];
        assert_eq!(pod.with(&unix, &fetch).success(), "EPERM\n", "{engine:?}");
        assert_eq!(pod.with(&unix, &own).success(), "ok hello\n", "{engine:?}");
        let unscoped = ["--allow=unix", "--scope=signal"];
        assert_eq!(pod.with(&unscoped, &fetch).success(), answer, "{engine:?}");
    }
}

/// The stub is the container's PID 1, the reaper its only child.
const SUPERVISORS: [&str; 2] = ["1", "2"];

#[test]
fn the_supervisors_cannot_be_signalled() {
    let script = format!(
        "cat /proc/1/comm /proc/2/comm
        for pid in 1 2; do for signal in 0 1 9 15 18 19; do PROBE call {kill} $pid $signal; done; done
        sleep 1000 & PROBE call {kill} $! 9; exit 7",
        kill = libc::SYS_kill
    );
    let script = script.replace("PROBE", &program("probe"));
    let plain = format!("sleep 1000 & exec {} call {} $! 9", program("probe"), libc::SYS_kill);
    for (engine, pod) in Pod::each("signals") {
        assert_eq!(pod.plain(&["sh", "-c", &plain]).success(), "ok 0\n", "{engine:?}");
        let outcome = pod.sandboxed(&["sh", "-c", &script]);
        assert_eq!(outcome.code, 7, "{engine:?} {outcome:?}");
        let lines: Vec<_> = outcome.stdout.lines().collect();
        assert_eq!(lines[..2], ["sbx-init"; 2], "{engine:?}");
        assert_eq!(lines[2..14], ["EPERM"; 12], "{engine:?}");
        assert_eq!(lines[14..], ["ok 0"], "{engine:?}: its own");
        for (script, code) in [
            ("kill -9 -1; exit 8", 8),
            ("kill -9 0; exit 8", 137),
            ("sleep 1000 & kill -9 -1; wait $!; exit $?", 137),
        ] {
            let outcome = pod.sandboxed(&["sh", "-c", script]);
            assert_eq!(outcome.code, code, "{engine:?} {script}: {outcome:?}");
        }
    }
}

#[test]
fn the_supervisors_cannot_be_traced_or_read() {
    let reach = program("reach");
    for (engine, pod) in Pod::each("trace") {
        let plain = pod.plain(&[&reach, "/proc", "child"]);
        let ways = plain.success();
        assert!(ways.contains("attach ok\n") && ways.contains("mem ok\n"), "{ways}");
        for supervisor in SUPERVISORS {
            let outcome = pod.sandboxed(&[&reach, "/proc", supervisor]);
            let lines: Vec<_> = outcome.success().lines().collect();
            assert_eq!(lines.len(), ways.lines().count(), "{lines:?}");
            let refused = |line: &&str| line.ends_with(" EACCES") || line.ends_with(" EPERM");
            assert!(lines.iter().all(refused), "{engine:?} {supervisor}: {lines:?}");
        }
        // Nor can the command trace its own; what else it may do to them, it may here.
        let outcome = pod.sandboxed(&[&reach, "/proc", "child"]);
        assert_eq!(outcome.success().lines().count(), ways.lines().count(), "{outcome:?}");
        for (line, plain) in outcome.success().lines().zip(ways.lines()) {
            let (way, result) = line.split_once(' ').unwrap();
            let traces = ["attach", "seize", "vm_readv", "getfd"].contains(&way);
            assert!(if traces { result == "EPERM" } else { line == plain }, "{engine:?} {line}");
        }
    }
}

/// The kernel kills a process that is at its RLIMIT_CPU, and both of them at once would leave the
/// tree alone. Their user may lower it, whatever the domain.
#[test]
fn the_supervisors_limits_cannot_be_lowered() {
    for (engine, pod) in Pod::each("limits") {
        let limit = |pid| ["prlimit", "--pid", pid, "--cpu=1000"];
        assert_eq!(pod.plain(&limit("1")).code, 0, "{engine:?}");
        for supervisor in SUPERVISORS {
            assert_eq!(pod.sandboxed(&limit(supervisor)).code, 1, "{engine:?} {supervisor}");
        }
        let own = pod.sandboxed(&["sh", "-c", "ulimit -t 1000; ulimit -t"]);
        assert_eq!(own.success(), "1000\n", "{engine:?}");
    }
}

/// Podman's profile refuses it too, with ENOSYS.
#[test]
fn io_uring_is_refused() {
    for (engine, pod) in Pod::each("io-uring") {
        for (name, number) in [
            ("io_uring_setup", libc::SYS_io_uring_setup),
            ("io_uring_enter", libc::SYS_io_uring_enter),
            ("io_uring_register", libc::SYS_io_uring_register),
        ] {
            let (probe, number) = (program("probe"), number.to_string());
            let command = [&*probe, "call", &number, "-1", "0"];
            let plain = pod.plain(&command).success().to_owned();
            // What the kernel says, or what the filter does.
            let filtered = ["ENOSYS\n", "EPERM\n"].contains(&&*plain);
            assert_eq!(filtered, !engine.allows(name), "{engine:?} {name} {plain}");
            assert_eq!(pod.sandboxed(&command).success(), "EPERM\n", "{engine:?} {name}");
        }
    }
}

/// Docker's profile refuses them too.
#[test]
fn new_user_namespaces_are_refused() {
    for (engine, pod) in Pod::each("userns") {
        let (probe, flag) = (program("probe"), libc::CLONE_NEWUSER.to_string());
        let unshare = [&*probe, "call", &libc::SYS_unshare.to_string(), &flag];
        let plain = if engine.allows("unshare") { "ok 0\n" } else { "EPERM\n" };
        assert_eq!(pod.plain(&unshare).success(), plain, "{engine:?}");
        assert_eq!(pod.sandboxed(&unshare).success(), "EPERM\n", "{engine:?}");
        let clone = [&*probe, "call", &libc::SYS_clone.to_string(), &flag];
        assert_eq!(pod.sandboxed(&clone).success(), "EPERM\n", "{engine:?}");
        let clone3 = [&*probe, "call", &libc::SYS_clone3.to_string(), "0", "0"];
        assert_eq!(pod.sandboxed(&clone3).success(), "ENOSYS\n", "{engine:?}");
        // What is no user namespace, through either call.
        let processes = [&*program("attempt"), "processes"];
        assert_eq!(pod.sandboxed(&processes).success(), "ok 1 2 3\n", "{engine:?}");
    }
}

#[test]
fn the_exit_status_is_the_commands() {
    for (engine, pod) in Pod::each("status") {
        for (script, code) in [("exit 0", 0), ("exit 7", 7), ("kill -9 $$", 137)] {
            assert_eq!(pod.sandboxed(&["sh", "-c", script]).code, code, "{engine:?} {script}");
        }
        assert_eq!(pod.sandboxed(&["/nonexistent"]).code, 127, "{engine:?}");
        assert_eq!(pod.sandboxed(&["/etc/hosts"]).code, 126, "{engine:?}");
    }
}

/// The container's own end would take all with it: here its PID 1 lives on.
#[test]
fn nothing_is_left_when_the_command_has_ended() {
    const LIST: &str = r#""$@"; echo /proc/[0-9]*"#;
    // In the background, in a session of its own, without its parent, deaf.
    const FAMILY: &str = r#"sleep 1000 & (setsid sh -c 'sleep 1000 & sleep 1000' &)
        { sh -c 'trap "" 1 2 15; echo deaf; while :; do sleep 1000; done' & } | { read -r line; echo $line; }"#;
    let family = ["sh", "-c", FAMILY];
    for (engine, pod) in Pod::each("left") {
        let count = |words: &[&str]| {
            let outcome = pod.0.run([&["sh", "-c", LIST, "sh"], words].concat());
            let words: Vec<_> = outcome.success().split_whitespace().collect();
            assert_eq!(words[..2], ["deaf", "/proc/1"], "{engine:?} {outcome:?}");
            words.len() - 2
        };
        assert!(count(&family) >= 3, "{engine:?}");
        let words = entry_point(&[]);
        let words: Vec<&str> = words.iter().map(String::as_str).chain(family).collect();
        assert_eq!(count(&words), 0, "{engine:?}");
    }
}

/// A container whose command is the recorder, which has started and ends at SIGTERM.
struct Recorder {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    /// The container's PID 1.
    stub: u32,
}

impl Recorder {
    fn start(pod: &Pod) -> Self {
        let mut words = entry_point(&[]);
        words.extend([program("recorder"), "15".into()]);
        let mut child = pod.0.command(words).stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        assert_eq!(lines.next().expect("the recorder starts").unwrap(), "READY");
        let stub = stub(&child).expect("a stub");
        Self { child, lines, stub }
    }

    /// What the recorder says from here on, and the container's exit status.
    fn finish(mut self) -> (Vec<String>, Option<i32>) {
        kill(self.stub, libc::SIGTERM);
        (self.lines.map(Result::unwrap).collect(), self.child.wait().unwrap().code())
    }
}

/// What the kubelet sends to the container's PID 1, where the kernel drops a signal without a
/// handler.
#[test]
fn a_termination_signal_reaches_the_command() {
    for (engine, pod) in Pod::each("termination") {
        // The stub is in the command's PID namespace.
        let lines = ["15 0 0 1", "MEMBER 0000000000000000"].map(String::from).to_vec();
        assert_eq!(Recorder::start(&pod).finish(), (lines, Some(0)), "{engine:?}");
    }
}

/// P13: `kubectl exec` leaves its orphans to the container's PID 1.
#[test]
fn orphans_from_outside_the_sandbox_are_reaped() {
    // Until this test closes the pipe.
    const LEAVE: &str = "exec 3<&0; cat <&3 &";
    for (engine, pod) in Pod::each("orphans") {
        let recorder = Recorder::start(&pod);
        let children = || {
            let path = format!("/proc/{pid}/task/{pid}/children", pid = recorder.stub);
            fs::read_to_string(path).unwrap().split_whitespace().count()
        };
        assert_eq!(children(), 1, "{engine:?}");
        let enter = ["-t", &recorder.stub.to_string(), "-p", "sh", "-c"].map(String::from);
        let mut parent =
            Command::new("nsenter").args(enter).arg(LEAVE).stdin(Stdio::piped()).spawn().unwrap();
        let pipe = parent.stdin.take();
        assert!(parent.wait().unwrap().success());
        assert_eq!(children(), 2, "{engine:?}: adopted");
        drop(pipe);
        // No event tells of the end of another's child.
        let start = Instant::now();
        while children() > 1 {
            assert!(start.elapsed() < Duration::from_secs(10), "{engine:?}: left as a zombie");
            thread::sleep(Duration::from_millis(1));
        }
        assert_eq!(recorder.finish().1, Some(0), "{engine:?}");
    }
}

/// As in the README of the example.
#[test]
fn file_rules_hold() {
    let rules = ["--rox=/usr,/programs", "--ro=/etc", "--rw=/data,/dev/null"];
    for (engine, pod) in Pod::each("files") {
        let script = "#!/bin/sh\necho ran\n";
        let tool = "cat >/data/tool; chmod 755 /data/tool; /data/tool";
        let write = format!("printf '{script}' | {{ {tool}; }}");
        for (command, plain, sandboxed) in [
            ("cat /etc/hosts >/dev/null", 0, 0),
            ("echo x >/data/file", 0, 0),
            ("echo x >/tmp/file", 0, 2),
            ("ls /", 0, 2),
            ("cat /proc/self/status", 0, 1),
            (&write, 0, 126),
        ] {
            let command = ["sh", "-c", command];
            assert_eq!(pod.plain(&command).code, plain, "{engine:?} {command:?}");
            assert_eq!(pod.with(&rules, &command).code, sandboxed, "{engine:?} {command:?}");
        }
        assert_eq!(fs::read_to_string(pod.0.work("file")).unwrap(), "x\n");
        let missing = pod.with(&["--ro=/missing"], &["echo", "started"]);
        missing.refused("plan", &[]);
        assert!(missing.stderr.contains("/missing"), "{missing:?}");
    }
}

/// Docker's profile refuses the namespaces, Podman's allows them, but the masked paths keep the
/// kernel from giving a procfs.
#[test]
fn auto_takes_the_domain_and_says_so() {
    for (engine, pod) in Pod::each("auto") {
        let script = r#"exec "$@" 3>/data/status"#;
        let entry = entry_point(&["--isolation=auto", "--status-fd=3"]);
        let words = ["sh", "-c", script, "sh"].into_iter().chain(entry.iter().map(String::as_str));
        let deed = [&*program("attempt"), "fetch", "127.0.0.1:8080"];
        let outcome = pod.0.run(words.chain(deed));
        assert_eq!(outcome.success(), "EACCES\n", "{engine:?}");
        let status = fs::read_to_string(pod.0.work("status")).unwrap();
        let lines: Vec<Value> =
            status.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines.len(), 3, "{engine:?} {status}");
        assert_eq!(lines[0]["isolation"], "domain", "{engine:?} {status}");
        assert!(lines[1]["child-pid"].is_u64(), "{engine:?} {status}");
        assert_eq!(lines[2]["exit-code"], 0, "{engine:?} {status}");
    }
}

#[test]
fn namespaces_are_refused_with_a_hint_at_the_domain() {
    for (engine, pod) in Pod::each("namespaces") {
        let outcome = pod.with(&["--isolation=namespaces"], &["echo", "started"]);
        let stage = if engine.allows("unshare") { "proc" } else { "namespaces" };
        outcome.refused(stage, &["--isolation domain"]);
    }
}
