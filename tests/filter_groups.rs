//! The filter groups that `--deny` turns on, in a running workload.

mod support;

use support::{EVERYWHERE, Place, Run, User, probe, word};

fn plain() -> Run {
    Run::new(User::Ordinary, Place::Standalone)
}

fn denying(group: &str) -> Run {
    plain().options(["--deny", group])
}

fn attempt(run: &Run, words: &[&str]) -> String {
    let mut command = vec![word("attempt")];
    command.extend(words.iter().map(ToString::to_string));
    run.run(command).success().trim().to_owned()
}

/// A10
#[test]
fn user_namespaces_can_be_denied() {
    for (user, place) in EVERYWHERE {
        let run = Run::new(user, place).options(["--deny", "userns"]);
        let outcome = run.run(["unshare", "-U", "echo", "made"]);
        assert!(outcome.code != 0 && outcome.stdout.is_empty(), "{user:?} {place:?}: {outcome:?}");
        let free = Run::new(user, place).run(["unshare", "-U", "echo", "made"]);
        assert_eq!(free.success(), "made\n", "{user:?} {place:?}");
    }
    let run = denying("userns");
    let newuser = libc::CLONE_NEWUSER as u64;
    for high in [0, 1 << 32] {
        let with = |flags: u64| (newuser | flags | high).to_string();
        assert_eq!(run.call(libc::SYS_unshare, &[&with(0)]), "EPERM");
        assert_eq!(run.call(libc::SYS_unshare, &[&with(libc::CLONE_NEWNS as u64)]), "EPERM");
        assert_eq!(run.call(libc::SYS_clone, &[&with(libc::SIGCHLD as u64)]), "EPERM");
    }
    assert_eq!(run.call(libc::SYS_setns, &["-1", "0"]), "EPERM");
    assert_eq!(run.call(libc::SYS_clone3, &["0", "0"]), "ENOSYS");
    assert_eq!(plain().call(libc::SYS_setns, &["-1", "0"]), "EBADF");
    assert_eq!(plain().call(libc::SYS_clone3, &["0", "0"]), "EINVAL");
}

/// N10
#[test]
fn threads_and_processes_start_without_clone3() {
    for (user, place) in EVERYWHERE {
        let run = Run::new(user, place).options(["--deny", "userns"]);
        assert_eq!(attempt(&run, &["processes"]), "ok 1 2 3", "{user:?} {place:?}");
    }
    assert!(denying("userns").call(libc::SYS_unshare, &["0"]).starts_with("ok"));
}

/// A13
#[test]
fn kernel_interfaces_can_be_denied() {
    let run = denying("kernel");
    for call in [
        libc::SYS_bpf,
        libc::SYS_perf_event_open,
        libc::SYS_userfaultfd,
        libc::SYS_kexec_load,
        libc::SYS_init_module,
        libc::SYS_keyctl,
        libc::SYS_add_key,
        libc::SYS_request_key,
        libc::SYS_mount,
        libc::SYS_open_tree,
        libc::SYS_fsopen,
        libc::SYS_open_by_handle_at,
    ] {
        assert_eq!(run.call(call, &["-1", "-1", "-1"]), "EPERM", "{call}");
    }
    // Those that an ordinary user may try.
    for call in [libc::SYS_keyctl, libc::SYS_add_key, libc::SYS_userfaultfd] {
        assert_ne!(
            plain().options(["--allow", "keys"]).call(call, &["-1", "-1", "-1"]),
            "EPERM",
            "{call}"
        );
    }
}

/// A13
#[test]
fn debuggers_keep_the_personality_they_need() {
    let run = denying("kernel");
    let no_randomize = libc::ADDR_NO_RANDOMIZE.to_string();
    let executable = libc::READ_IMPLIES_EXEC.to_string();
    for allowed in ["0", &no_randomize, "0xffffffff"] {
        assert!(run.call(libc::SYS_personality, &[allowed]).starts_with("ok"), "{allowed}");
    }
    assert_eq!(run.call(libc::SYS_personality, &[&executable]), "EPERM");
    assert!(plain().call(libc::SYS_personality, &[&executable]).starts_with("ok"));
    let gdb = ["gdb", "-nx", "-q", "-batch", "-ex", "run", "/bin/true"];
    let outcome = run.run(gdb);
    assert!(outcome.success().contains("exited normally"), "{outcome:?}");
}

/// A13
#[test]
fn tracing_can_be_denied() {
    let reach = [&*word("reach"), "/proc", "child"];
    let calls = ["attach", "seize", "vm_readv", "getfd"];
    for (run, expected) in [(denying("trace"), "EPERM"), (plain(), "ok")] {
        let outcome = run.run(reach);
        for call in calls {
            let line = format!("{call} {expected}");
            assert!(outcome.success().lines().any(|l| l == line), "{line}: {outcome:?}");
        }
    }
    assert_eq!(denying("trace").call(libc::SYS_kcmp, &["2", "2", "0", "0", "0"]), "EPERM");
    assert_eq!(plain().call(libc::SYS_kcmp, &["2", "2", "0", "0", "0"]), "ok 0");
}

#[test]
fn limits_of_other_processes_can_be_denied() {
    let limits = ["prlimit", "--pid", "1", "--nofile=64"];
    assert_eq!((denying("limits").run(limits).code, plain().run(limits).code), (1, 0));
    assert_eq!(denying("limits").sh("ulimit -n 64; ulimit -n").success(), "64\n");
    // The new limits are at an address where nothing is, which the kernel finds before it looks for
    // the process.
    for (pid, new, expected) in
        [("1", "8", "EPERM"), ("-1", "8", "EPERM"), ("0", "8", "EFAULT"), ("2", "0", "ok 0")]
    {
        let arguments = [pid, "0", new, "0"];
        assert_eq!(denying("limits").call(libc::SYS_prlimit64, &arguments), expected, "{pid}");
    }
    assert_eq!(plain().call(libc::SYS_prlimit64, &["1", "0", "8", "0"]), "EFAULT");
}

/// PID 1 is of the same user. Nothing is at the addresses.
#[test]
fn scheduling_of_other_processes_can_be_denied() {
    // The kernel lets nobody change the priority of a process with more capabilities, and PID 1 drops
    // its own while the command starts.
    const SETTLED: &str = r#"until grep -q '^CapPrm:.0*$' /proc/1/status; do :; done; exec "$@""#;
    let run = denying("limits");
    for (call, arguments, denied, plainly) in [
        (libc::SYS_sched_setaffinity, &["1", "8", "8"][..], "EPERM", "EFAULT"),
        (libc::SYS_sched_setaffinity, &["0", "8", "8"], "EFAULT", "EFAULT"),
        (libc::SYS_sched_setscheduler, &["1", "5", "8"], "EPERM", "EFAULT"),
        (libc::SYS_sched_setscheduler, &["0", "5", "8"], "EFAULT", "EFAULT"),
        (libc::SYS_sched_setparam, &["1", "8"], "EPERM", "EFAULT"),
        (libc::SYS_sched_setattr, &["1", "8", "0"], "EPERM", "EFAULT"),
        (libc::SYS_setpriority, &["0", "1", "5"], "EPERM", "ok 0"),
        (libc::SYS_setpriority, &["1", "0", "5"], "EPERM", "ok 0"),
        (libc::SYS_setpriority, &["2", "0", "5"], "EPERM", "ok 0"),
        (libc::SYS_setpriority, &["0", "0", "5"], "ok 0", "ok 0"),
        // The lowest of the class IOPRIO_CLASS_BE.
        (libc::SYS_ioprio_set, &["1", "1", "0x4007"], "EPERM", "ok 0"),
        (libc::SYS_ioprio_set, &["2", "0", "0x4007"], "EPERM", "ok 0"),
        (libc::SYS_ioprio_set, &["1", "0", "0x4007"], "ok 0", "ok 0"),
    ] {
        assert_eq!(run.call(call, arguments), denied, "{call} {arguments:?}");
        let number = call.to_string();
        let probe = [&["sh", "-c", SETTLED, "sh", &*probe(), "call", &number], arguments];
        let outcome = plain().run(probe.concat());
        assert_eq!(outcome.success().trim(), plainly, "{call} {arguments:?}");
    }
}

/// A13
#[test]
fn programs_without_a_file_can_be_denied() {
    assert_eq!(attempt(&plain(), &["memory-program"]), "ok 0");
    let run = denying("memfd");
    assert_eq!(attempt(&run, &["memory-program"]), "EPERM");
    let empty_path = (libc::AT_EMPTY_PATH).to_string();
    let execveat = |flags| run.call(libc::SYS_execveat, &["-1", "0", "0", "0", flags]);
    assert_eq!(execveat(&empty_path), "EPERM");
    assert_eq!(execveat("0"), "EFAULT");
}

/// B7, C7
#[test]
fn all_but_tcp_can_be_denied() {
    let run = denying("udp");
    assert_eq!(attempt(&run, &["udp"]), "EPERM");
    assert_eq!(attempt(&run, &["fast-open"]), "EPERM");
    assert_eq!(attempt(&run, &["tcp"]), "ok hello");
    assert_eq!(attempt(&plain(), &["udp"]), "ok hello");
    assert_eq!(attempt(&plain(), &["fast-open"]), "ECONNREFUSED");
}

/// C7: what a Landlock rule needs beside it where UDP stays allowed.
#[test]
fn fast_open_can_be_denied_alone() {
    let run = denying("fast-open");
    let fast_open = libc::MSG_FASTOPEN.to_string();
    assert_eq!(attempt(&run, &["fast-open"]), "EPERM");
    assert_eq!(run.call(libc::SYS_sendmsg, &["-1", "0", &fast_open]), "EPERM");
    assert_eq!(run.call(libc::SYS_sendmmsg, &["-1", "0", "0", &fast_open]), "EPERM");
    assert_eq!(run.call(libc::SYS_sendmsg, &["-1", "0", "0"]), "EBADF");
    assert_eq!(attempt(&run, &["tcp"]), "ok hello");
    assert_eq!(attempt(&run, &["udp"]), "ok hello");
}

/// C6
#[test]
fn sending_elsewhere_than_the_address_says_can_be_denied() {
    let run = denying("reroute");
    for (run, expected) in [(&run, " EPERM"), (&plain(), " ok")] {
        let outcome = run.run([word("reroute")]);
        assert_eq!(outcome.success().lines().count(), 17);
        assert!(outcome.stdout.lines().all(|line| line.ends_with(expected)), "{outcome:#?}");
    }

    let dont_route = libc::MSG_DONTROUTE.to_string();
    for (run, expected) in [(&run, "EPERM"), (&plain(), "EBADF")] {
        assert_eq!(run.call(libc::SYS_sendto, &["-1", "0", "0", &dont_route]), expected);
        assert_eq!(run.call(libc::SYS_sendmsg, &["-1", "0", &dont_route]), expected);
        assert_eq!(run.call(libc::SYS_sendmmsg, &["-1", "0", "0", &dont_route]), expected);
    }

    let (socket, ip, ipv6) = (libc::SOL_SOCKET, libc::IPPROTO_IP, libc::IPPROTO_IPV6);
    for (level, option) in [
        (socket, libc::SO_REUSEADDR),
        (socket, libc::SO_ATTACH_FILTER),
        (ip, libc::IP_TOS),
        (ip, libc::IP_PKTINFO),
        (ip, libc::IP_MULTICAST_IF),
        (ipv6, libc::IPV6_V6ONLY),
        (ipv6, libc::IPV6_RECVPKTINFO),
        (libc::IPPROTO_TCP, libc::TCP_NODELAY),
    ] {
        let [level, option] = [level, option].map(|number| number.to_string());
        let result = run.call(libc::SYS_setsockopt, &["-1", &level, &option, "0", "0"]);
        assert_eq!(result, "EBADF", "{level} {option}");
    }
    assert_eq!(attempt(&run, &["tcp"]), "ok hello");
    assert_eq!(attempt(&run, &["udp"]), "ok hello");
}

/// What a locked socket filter does not keep out: an ICMP error of any host may quote anything.
#[test]
fn the_error_queue_can_be_kept_empty_and_errors_still_arrive() {
    let run = denying("icmp-errors");
    for address in ["127.0.0.1", "::1"] {
        assert_eq!(attempt(&run, &["error-queue", address]), "EAGAIN", "{address}");
        assert_eq!(attempt(&plain(), &["error-queue", address]), "ok hello", "{address}");
    }
    assert_eq!(attempt(&run, &["udp"]), "ok hello");
}

/// B9
#[test]
fn a_listener_of_the_workloads_own_can_be_denied_and_its_other_filters_work() {
    let new_listener = libc::SECCOMP_FILTER_FLAG_NEW_LISTENER;
    for (user, place) in EVERYWHERE {
        let run = Run::new(user, place).options(["--deny", "listener"]);
        let own_filter = |flags: u64| attempt(&run, &["own-filter", &flags.to_string()]);
        for other in [0, libc::SECCOMP_FILTER_FLAG_LOG, 1 << 32] {
            assert_eq!(own_filter(new_listener | other), "EPERM", "{user:?} {place:?} {other}");
        }
        for flags in [0, libc::SECCOMP_FILTER_FLAG_TSYNC, libc::SECCOMP_FILTER_FLAG_LOG] {
            let outcome = own_filter(flags);
            assert_eq!(outcome, "ok Err(ENOTTY) Err(EPERM)", "{user:?} {place:?} {flags}");
        }
    }
}

#[test]
fn a_group_that_is_added_takes_none_away() {
    let added = [
        "userns",
        "kernel",
        "trace",
        "limits",
        "memfd",
        "udp",
        "fast-open",
        "ulp",
        "reroute",
        "icmp-errors",
        "listener",
    ];
    for group in added {
        let run = denying(group);
        assert_eq!(run.call(libc::SYS_socket, &["1", "1", "0"]), "EPERM", "{group}");
        assert_eq!(run.call(libc::SYS_io_uring_setup, &["1", "0"]), "EPERM", "{group}");
        assert_eq!(attempt(&run, &["pair", "2"]), "EPERM", "{group}");
    }
    let all = denying(&added.join(","));
    assert_eq!(attempt(&all, &["tcp"]), "ok hello");
    assert_eq!(attempt(&all, &["processes"]), "ok 1 2 3");
}
