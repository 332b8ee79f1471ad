//! The filter groups that `--deny` turns on, in a running workload.

mod support;

use support::{EVERYWHERE, Place, Run, User, word};

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

#[test]
fn a_group_that_is_added_takes_none_away() {
    for group in ["userns", "kernel", "trace", "memfd", "udp"] {
        let run = denying(group);
        assert_eq!(run.call(libc::SYS_socket, &["1", "1", "0"]), "EPERM", "{group}");
        assert_eq!(run.call(libc::SYS_io_uring_setup, &["1", "0"]), "EPERM", "{group}");
        assert_eq!(attempt(&run, &["pair", "2"]), "EPERM", "{group}");
    }
    let all = "userns,kernel,trace,memfd,udp";
    assert_eq!(attempt(&denying(all), &["tcp"]), "ok hello");
    assert_eq!(attempt(&denying(all), &["processes"]), "ok 1 2 3");
}
