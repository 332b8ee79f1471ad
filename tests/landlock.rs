//! Landlock rules: files, TCP ports, scopes; what they do not cover and other filters must.

mod support;

use support::kernel::{FILE_RULES, LANDLOCK_SCOPES, Landlock, TCP_RULES, kernel_has};
use support::scratch::Scratch;
use support::{BOTH, EVERYWHERE, Outcome, Place, Run, User, executable_paths, fixture, word};

/// Shows a directory of the test's in bubblewrap, writable.
fn shown(run: Run, scratch: &Scratch) -> Run {
    run.bwrap(["--bind"]).bwrap([scratch.path(), scratch.path()])
}

fn files(run: &Run, deeds: &[String]) -> Outcome {
    let mut command = vec![word("files")];
    command.extend_from_slice(deeds);
    run.run(command)
}

/// Runs a deed of the `tcp` fixture where there is a loopback device and nobody else.
fn tcp(run: &Run, deed: &str) -> Outcome {
    let script = format!("exec {} loopback \"$@\"", word("tcp"));
    run.clone()
        .bwrap(["--share-net"])
        .prepared(&script, [&*word("tcp")].into_iter().chain(deed.split(' ')))
}

#[track_caller]
fn answers(run: &Run, context: &str, expected: &[(&str, &str)]) {
    for (deed, answer) in expected {
        let outcome = tcp(run, deed);
        if outcome.refused_without(TCP_RULES) {
            return;
        }
        assert_eq!(outcome.success().trim(), *answer, "{context}: {deed}: {outcome:?}");
    }
}

#[test]
fn each_file_rule_allows_what_it_says_and_nothing_else() {
    const ACCESS: [&str; 5] = ["none", "ro", "rox", "rw", "rwx"];
    // 1 where the right is needed: none, ro, rox, rw, rwx.
    const DEEDS: [(&str, &str); 17] = [
        ("stat:file", "11111"),
        ("path:file", "11111"),
        ("read:file", "01111"),
        ("list:", "01111"),
        ("execute:program", "00101"),
        ("write:file", "00011"),
        ("append:file", "00011"),
        ("cut-open:file", "00011"),
        ("cut:file", "00011"),
        ("create:new", "00011"),
        ("unlink:new", "00011"),
        ("mkdir:directory", "00011"),
        ("rmdir:directory", "00011"),
        ("fifo:fifo", "00011"),
        ("socket:socket", "00011"),
        ("symlink:symlink", "00011"),
        ("rename:file:file2", "00011"),
    ];
    for (index, (run, context)) in Run::each().enumerate() {
        let scratch = Scratch::new(&format!("rules-{index}"));
        let mut deeds = vec![];
        let mut expected = String::new();
        let mut run = shown(run, &scratch).options(["--rox", &executable_paths()]);
        for (column, access) in ACCESS.into_iter().enumerate() {
            let directory = scratch.file(access);
            scratch.executable(&format!("{access}/program"), 0o755, "#!/bin/sh\n");
            scratch.write(&format!("{access}/file"), "text");
            for name in ["", "/file"] {
                open_to_all(&format!("{directory}{name}"));
            }
            if access != "none" {
                run = run.options([format!("--{access}"), directory.clone()]);
            }
            for (deed, allowed) in DEEDS {
                let (name, files) = deed.split_once(':').unwrap();
                let paths = files.split(':').map(|file| format!("{directory}/{file}"));
                deeds.push(format!("{name}:{}", paths.collect::<Vec<_>>().join(":")));
                let ok = &allowed[column..=column] == "1";
                // What was not made cannot be removed; the kernel says so first.
                let answer = match name {
                    _ if ok => "ok",
                    "unlink" | "rmdir" => "ENOENT",
                    _ => "EACCES",
                };
                expected += &format!("{name} {answer}\n");
            }
        }
        let outcome = files(&run, &deeds);
        if outcome.refused_without(FILE_RULES) {
            continue;
        }
        assert_eq!(outcome.success(), expected, "{context}: {outcome:?}");
    }
}

fn open_to_all(path: &str) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o777)).unwrap();
}

/// D6: else a file would become executable in its new place.
#[test]
fn a_file_is_moved_only_where_it_gains_nothing() {
    for (index, (run, context)) in Run::each().enumerate() {
        let scratch = Scratch::new(&format!("moves-{index}"));
        for name in ["a/1", "a/2", "a/3", "a/4", "a/5", "rwx/6", "ro/7"] {
            scratch.write(name, "");
            open_to_all(&scratch.file(name));
        }
        let [a, b, rwx, ro] = ["a", "b", "rwx", "ro"].map(|name| scratch.file(name));
        std::fs::create_dir(&b).unwrap();
        [&a, &b, &rwx, &ro].into_iter().for_each(|path| open_to_all(path));
        let run = shown(run, &scratch)
            .options(["--rox", &executable_paths(), "--rw", &format!("{a},{b}"), "--rwx", &rwx])
            .options(["--ro", &ro]);
        let moves = [
            (format!("rename:{a}/1:{b}/1"), "ok"),
            (format!("link:{a}/2:{b}/2"), "ok"),
            (format!("rename:{a}/3:{rwx}/3"), "EXDEV"),
            (format!("link:{a}/3:{rwx}/3"), "EXDEV"),
            (format!("rename:{a}/4:{ro}/4"), "EACCES"),
            (format!("link:{a}/4:{ro}/4"), "EACCES"),
            (format!("rename:{rwx}/6:{a}/6"), "ok"),
            (format!("rename:{ro}/7:{a}/7"), "EACCES"),
            (format!("link:{ro}/7:{a}/7"), "EXDEV"),
        ];
        let outcome = files(&run, &moves.clone().map(|(deed, _)| deed));
        if outcome.refused_without(FILE_RULES) {
            continue;
        }
        let got = outcome.success().lines().map(|line| line.split(' ').nth(1).unwrap());
        for ((deed, expected), got) in moves.iter().zip(got) {
            // The order of two refusals is the kernel's.
            let refused = ["EXDEV", "EACCES"];
            let same = got == *expected || refused.contains(expected) && refused.contains(&got);
            assert!(same, "{context}: {deed}: {got}, not {expected}");
        }
        assert_eq!(outcome.success().lines().count(), moves.len());
    }
}

/// D6
#[test]
fn what_is_no_directory_has_rules_too() {
    for (index, (run, context)) in Run::each().enumerate() {
        let scratch = Scratch::new(&format!("single-{index}"));
        let [file, other] = ["file", "other"].map(|name| scratch.write(name, "text"));
        [&file, &other].into_iter().for_each(|path| open_to_all(path));
        let run = shown(run, &scratch).options(["--rox", &executable_paths()]);
        let run = run.options(["--rw", &format!("/dev/null,{file}"), "--ro", "/dev/zero"]);
        let deeds = [
            ("write:/dev/null", "ok"),
            // It takes the call, and is no terminal.
            ("ioctl:/dev/null", "ENOTTY"),
            ("read:/dev/zero", "ok"),
            ("write:/dev/zero", "EACCES"),
            ("ioctl:/dev/zero", "EACCES"),
            ("read:/dev/full", "EACCES"),
            // Allowed, and there is none.
            ("read:/dev/tty", "EACCES"),
            (&format!("cut:{file}"), "ok"),
            (&format!("read:{other}"), "EACCES"),
            (&format!("list:{}", scratch.path().display()), "EACCES"),
        ];
        let outcome = files(&run, &deeds.map(|(deed, _)| deed.to_owned()));
        if outcome.refused_without(FILE_RULES) {
            continue;
        }
        let got: Vec<_> = outcome.success().lines().map(|l| l.split(' ').nth(1).unwrap()).collect();
        assert_eq!(got, deeds.map(|(_, answer)| answer), "{context}: {outcome:?}");
        let outcome = files(&run.options(["--rw", "/dev/tty"]), &["read:/dev/tty".to_owned()]);
        assert_eq!(outcome.success(), "read ENXIO\n", "{context}: {outcome:?}");
    }
}

#[test]
fn a_rule_for_a_link_is_one_for_what_it_leads_to() {
    let scratch = Scratch::new("links");
    let file = scratch.write("real/file", "text");
    let [link, real] = ["link", "real"].map(|name| scratch.file(name));
    std::os::unix::fs::symlink(&real, &link).unwrap();
    let run = Run::new(User::Ordinary, Place::Standalone).options(["--rox", &executable_paths()]);
    let deeds = [format!("read:{file}"), format!("read:{link}/file")];
    let outcome = files(&run.clone().options(["--ro", &link]), &deeds);
    if outcome.refused_without(FILE_RULES) {
        return;
    }
    assert_eq!(outcome.success(), "read ok\nread ok\n");
    assert_eq!(files(&run, &deeds).success(), "read EACCES\nread EACCES\n");
}

/// Nobody has the other end: open(2) would wait for it.
#[test]
fn a_rule_for_a_fifo_waits_for_nobody() {
    let scratch = Scratch::new("fifo");
    let fifo = scratch.file("fifo");
    nix::unistd::mkfifo(&*fifo, nix::sys::stat::Mode::empty()).unwrap();
    open_to_all(&fifo);
    let run = Run::new(User::Ordinary, Place::Standalone).options(["--rox", &executable_paths()]);
    // For both directions, which waits for nobody either.
    let opens = |rule| run.clone().options([rule, &*fifo]).sh(&format!("exec 3<>{fifo}; echo $?"));
    let outcome = opens("--rw");
    if outcome.refused_without(FILE_RULES) {
        return;
    }
    assert_eq!(outcome.success(), "0\n");
    for rule in ["--ro", "--rox"] {
        let outcome = opens(rule);
        assert!(outcome.stderr.contains("Permission denied"), "{rule}: {outcome:?}");
    }
}

/// P15: nor may it be opened for a rule.
#[test]
fn a_program_that_may_be_executed_and_not_read_can_be_allowed() {
    let scratch = Scratch::new("unreadable");
    let content = std::fs::read(fixture("attempt")).unwrap();
    let program = scratch.executable("attempt", 0o111, content);
    for (run, context) in Run::each() {
        let run = shown(run, &scratch).options(["--rox", &executable_paths()]);
        let command = [&*program, "processes"];
        let outcome = run.clone().options(["--rox", &program]).run(command);
        if outcome.refused_without(FILE_RULES) {
            continue;
        }
        assert_eq!(outcome.success(), "ok 1 2 3\n", "{context}: {outcome:?}");
        assert_eq!(run.run(command).code, 126, "{context}");
    }
}

/// A rule stands for a file, and the workload's /proc is made after the caller's was seen.
#[test]
fn a_rule_for_proc_is_one_for_the_workloads_proc() {
    let version = |run: &Run, path: &str, name: &str| {
        let run = run.clone().options(["--rox", &executable_paths(), "--ro", path]);
        files(&run, &[format!("read:{name}")])
    };
    for (run, context) in Run::each() {
        for (rule, name, expected) in [
            ("/proc", "/proc/self/comm", "ok"),
            ("/proc", "/proc/version", "ok"),
            ("/proc/version", "/proc/version", "ok"),
            ("/proc/version", "/proc/self/comm", "EACCES"),
            ("/proc/self", "/proc/self/comm", "ok"),
            ("/proc/self", "/proc/thread-self/comm", "ok"),
            ("/proc/self", "/proc/version", "EACCES"),
            ("/proc/sys/kernel", "/proc/sys/kernel/ostype", "ok"),
            ("/proc/sys/kernel", "/proc/sys/vm/swappiness", "EACCES"),
        ] {
            let outcome = version(&run, rule, name);
            if outcome.refused_without(FILE_RULES) {
                break;
            }
            let line = format!("read {expected}\n");
            assert_eq!(outcome.success(), line, "{context}: {rule} {name}: {outcome:?}");
        }
    }
    // Neither PID 1 nor the reaper is what /proc/self means.
    let run = Run::new(User::Ordinary, Place::Standalone);
    let outcome = version(&run, "/proc/self", "/proc/1/comm");
    if !outcome.refused_without(FILE_RULES) {
        assert_eq!(outcome.success(), "read EACCES\n");
        let hidden = run.options(["--proc", "hide"]);
        let hidden = hidden.options(["--rox", &executable_paths(), "--ro", "/proc"]);
        assert_eq!(hidden.sh("ls -A /proc").success(), "");
        let gone = hidden.options(["--ro", "/proc/version"]).sh("echo started");
        assert_eq!((gone.code, &*gone.stdout), (125, ""), "{gone:?}");
        assert!(gone.stderr.contains("/proc/version: ENOENT"), "{gone:?}");
    }
}

/// R6
#[test]
fn a_path_that_cannot_be_looked_up_is_named() {
    let scratch = Scratch::new("private");
    let file = scratch.write("private/file", "");
    let private = scratch.file("private");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o700);
    std::fs::set_permissions(&private, mode).unwrap();
    for option in ["--ro", "--rox", "--rw", "--rwx"] {
        for more in [&[][..], &["--best-effort"], &["--isolation", "domain"]] {
            let run = Run::new(User::Ordinary, Place::Standalone).options(more);
            for (path, errno) in [("/no/such/path", "ENOENT"), (&file, "EACCES")] {
                let outcome =
                    run.clone().options(["--rox", &executable_paths(), option, path]).sh("true");
                let line = format!("sbx-init: plan: Landlock rule for {path}: {errno}");
                // What the kernel lacks is found first.
                let refused = !more.contains(&"--best-effort") && !kernel_has(FILE_RULES)
                    || more.contains(&"domain") && !kernel_has(LANDLOCK_SCOPES);
                if refused {
                    outcome.refused("plan", &["--best-effort"]);
                } else {
                    assert_eq!(outcome.code, 125, "{outcome:?}");
                    assert!(outcome.stderr.starts_with(&line), "{line}: {outcome:?}");
                }
            }
        }
    }
    let root = Run::new(User::Root, Place::Standalone);
    let outcome = root.options(["--rox", &executable_paths(), "--ro", &file]).run(["cat", &file]);
    if !outcome.refused_without(FILE_RULES) {
        assert_eq!(outcome.success(), "");
    }
}

/// D6
#[test]
fn a_program_needs_its_interpreter_and_its_loader() {
    let scratch = Scratch::new("interpreter");
    let script = scratch.executable("script", 0o755, "#!/bin/sh\necho ran\n");
    for user in BOTH {
        let run = Run::new(user, Place::Standalone).options(["--rox", &script]);
        let outcome = run.run([&*script]);
        if outcome.refused_without(FILE_RULES) {
            continue;
        }
        assert_eq!((outcome.code, &*outcome.stdout), (126, ""), "{outcome:?}");
        let line = format!("sbx-init: exec: {script}: EACCES");
        assert!(outcome.stderr.starts_with(&line), "{outcome:?}");
        let run = run.options(["--rox", &executable_paths()]);
        assert_eq!(run.run([&*script]).success(), "ran\n");
    }
}

/// D1
#[test]
fn tcp_goes_where_a_rule_says() {
    let rules = ["--connect-tcp", "9", "--bind-tcp", "50001"];
    for (run, context) in Run::each() {
        let run = run.options(rules);
        // Nobody listens there: what is allowed is answered by the network.
        answers(
            &run,
            &context,
            &[
                ("connect 127.0.0.1 9", "ECONNREFUSED"),
                ("connect 127.0.0.1 10", "EACCES"),
                ("connect ::1 10", "EACCES"),
                ("connect-mapped 9", "ECONNREFUSED"),
                ("connect-mapped 10", "EACCES"),
                ("connect 127.0.0.1 0", "EACCES"),
                ("connect-bound 50001 9", "ECONNREFUSED"),
                ("connect-bound 50001 10", "EACCES"),
                ("bind 127.0.0.1 50001", "ok 50001"),
                ("bind 0.0.0.0 50002", "EACCES"),
                ("bind :: 50002", "EACCES"),
                ("bind 127.0.0.1 0", "EACCES"),
            ],
        );
    }
    for (run, context) in Run::each() {
        let served = tcp(&run, "serve 127.0.0.1 0");
        if context.ends_with("domain") && served.refused_without_domain() {
            continue;
        }
        assert_eq!(served.success(), "ok hello\n", "{context}: {served:?}");
    }
}

/// D2
#[test]
fn what_listens_is_bound_by_a_rule() {
    for (run, context) in Run::each() {
        let one = run.clone().options(["--bind-tcp", "50001,50002"]);
        answers(
            &one,
            &context,
            &[
                ("listen 127.0.0.1 50001", "ok listens"),
                ("listen :: 50002", "ok listens"),
                ("serve 127.0.0.1 50001", "ok hello"),
                ("listen-unbound 0.0.0.0", "EACCES"),
                ("listen-unbound ::", "EACCES"),
            ],
        );
        // With 0 the kernel chooses the port, of any socket.
        let any = run.clone().options(["--bind-tcp", "0"]);
        answers(
            &any,
            &context,
            &[
                ("listen-unbound 0.0.0.0", "ok listens"),
                ("listen-unbound ::", "ok listens"),
                ("serve 127.0.0.1 0", "ok hello"),
                ("listen 127.0.0.1 50001", "EACCES"),
            ],
        );
        // A rule for connect alone says nothing about it.
        let connect = run.options(["--connect-tcp", "9"]);
        answers(&connect, &context, &[("listen-unbound 0.0.0.0", "ok listens")]);
    }
}

/// D2
#[test]
fn a_socket_that_was_connected_does_not_listen_elsewhere() {
    for (run, context) in Run::each() {
        // It is bound to the port that its name shows, if that may be.
        let same = "ok Err(EINVAL) Ok(\"listens\") same";
        let allowed = run.clone().options(["--bind-tcp", "50001,40000"]);
        answers(&allowed, &context, &[("disconnect 50001 40000", same)]);
        let none = "ok Err(EACCES) Err(EACCES) same";
        let denied = run.clone().options(["--bind-tcp", "50001"]);
        answers(&denied, &context, &[("disconnect 50001 40000", none)]);
        // Else the kernel's choice could be any.
        answers(&denied, &context, &[("choose 40000", "EACCES")]);
        answers(&run.options(["--connect-tcp", "9"]), &context, &[("choose 40000", "ok chosen")]);
    }
    let run = Run::new(User::Ordinary, Place::Standalone).options(["--bind-tcp", "50001,40000"]);
    answers(&run, "", &[("race 50001 40000 40001", "ok 0 wrong")]);
}

/// D2, C2, C9, C10, C11
#[test]
fn the_callers_own_socket_is_looked_at() {
    for user in BOTH {
        for (level, run) in [
            ("namespaces", Run::new(user, Place::Standalone)),
            ("domain", Run::domain(user, Place::Standalone)),
        ] {
            let run = run.options(["--bind-tcp", "50001"]);
            let context = format!("{user:?} {level}");
            let threads = match kernel_has(support::kernel::PidfdThread) {
                true => "ok Err(EACCES) false false, Ok(()) true false",
                // Its descriptors cannot be told from its process's, so nothing is served.
                false => "ok Err(EACCES) false false, Err(EACCES) false false",
            };
            // In a user namespace that PID 1 has made or owns, it may trace such a caller.
            let owned = level == "namespaces";
            let undumpable = if owned { "ok listens" } else { "EACCES" };
            answers(
                &run,
                &context,
                &[
                    ("own-table 50001", threads),
                    ("swap 50001", "ok 0 wrong, some right"),
                    ("killed 50001", "ok listens"),
                    ("interrupted 50001", "ok listens"),
                    ("undumpable 50001", undumpable),
                ],
            );
            if level == "namespaces" && kernel_has(TCP_RULES) {
                let outcome = tcp(&run, "pid-namespace 50001");
                let expected = "ok Err(EACCES) Ok(\"listens\")";
                assert_eq!(outcome.success().trim(), expected, "{context}: {outcome:?}");
            }
        }
    }
}

/// D1: each way to a TCP connection, or to another protocol, that Landlock's rules do not see.
#[test]
fn what_tcp_rules_do_not_cover_is_refused() {
    for (run, context) in Run::each() {
        for rule in ["--connect-tcp", "--bind-tcp"] {
            let run = run.clone().options([rule, "9"]);
            for call in ["sendto", "sendmsg", "sendmmsg"] {
                answers(&run, &context, &[(&format!("fast-open {call} 10"), "EPERM")]);
            }
        }
        let run = run.options(["--connect-tcp", "9"]);
        let socket = |run: &Run, family: i32, kind: i32, protocol: i32| {
            let arguments = [family, kind, protocol].map(|number| number.to_string());
            run.call(libc::SYS_socket, &arguments.each_ref().map(String::as_str))
        };
        if !kernel_has(TCP_RULES) {
            continue;
        }
        for (family, kind, protocol, expected) in [
            (libc::AF_INET, libc::SOCK_STREAM, 262, "EPROTONOSUPPORT"),
            (libc::AF_INET6, libc::SOCK_STREAM, 262, "EPROTONOSUPPORT"),
            (libc::AF_INET, libc::SOCK_STREAM, libc::IPPROTO_SCTP, "EPERM"),
            (libc::AF_INET, libc::SOCK_SEQPACKET, libc::IPPROTO_SCTP, "EPERM"),
            (libc::AF_INET, libc::SOCK_STREAM, 256, "EPERM"),
            (43, libc::SOCK_STREAM, 0, "EPERM"),
            (libc::AF_INET, libc::SOCK_DGRAM, 0, "EPERM"),
            (libc::AF_INET6, libc::SOCK_DGRAM, 0, "EPERM"),
            (libc::AF_INET, libc::SOCK_STREAM, 0, "ok 3"),
            (libc::AF_INET6, libc::SOCK_STREAM, libc::IPPROTO_TCP, "ok 3"),
        ] {
            let got = socket(&run, family, kind, protocol);
            assert_eq!(got, expected, "{context}: {family} {kind} {protocol}");
        }
        let udp = run.options(["--allow", "udp"]);
        assert_eq!(socket(&udp, libc::AF_INET, libc::SOCK_DGRAM, 0), "ok 3", "{context}");
        answers(&udp, &context, &[("fast-open sendto 10", "EPERM")]);
    }
}

/// D1
#[test]
fn what_tcp_rules_need_cannot_be_allowed() {
    for group in ["families", "fast-open"] {
        for rule in ["--connect-tcp", "--bind-tcp"] {
            for user in BOTH {
                let run = Run::new(user, Place::Standalone).options([rule, "9", "--allow", group]);
                let outcome = run.sh("echo started");
                assert_eq!((outcome.code, &*outcome.stdout), (125, ""), "{outcome:?}");
                assert!(outcome.stderr.contains(&format!("{rule} needs the group {group}")));
            }
        }
    }
}

/// B8
#[test]
fn a_workload_beside_a_supervisor_may_add_filters_and_no_listener() {
    let attempt = word("attempt");
    for (run, context) in Run::each() {
        let run = run.options(["--bind-tcp", "9"]);
        let listener = run.run([&*attempt, "own-filter", "8"]);
        if listener.refused_without(TCP_RULES) {
            continue;
        }
        // In a domain it is not the supervisor alone that keeps it off.
        let expected = if context.ends_with("domain") { "EPERM\n" } else { "EBUSY\n" };
        assert_eq!(listener.success(), expected, "{context}");
        let filter = run.run([&*attempt, "own-filter", "0"]);
        assert!(filter.success().starts_with("ok "), "{context}: {filter:?}");
    }
    let allowed = ["--isolation", "domain", "--bind-tcp", "9", "--allow", "listener"];
    let outcome = Run::new(User::Ordinary, Place::Standalone).options(allowed).run(["true"]);
    assert_eq!(outcome.code, 125, "{outcome:?}");
    assert!(outcome.stderr.contains("needs the group listener"), "{outcome:?}");
}

/// U9
#[test]
fn a_bind_rule_without_the_means_is_refused() {
    for user in BOTH {
        let run = Run::new(user, Place::Standalone).options(["--bind-tcp", "9"]);
        for errno in [libc::EPERM, libc::ENOSYS] {
            let outcome = run.clone().lacking(libc::SYS_pidfd_getfd, errno).sh("echo started");
            if !outcome.refused_without(TCP_RULES) {
                outcome.refused("plan", &["CAP_SYS_PTRACE", "--bind-tcp"]);
            }
        }
        let nested = Run::new(user, Place::Standalone).before([&*word("abi"), "7"]);
        if kernel_has(Landlock(7)) {
            let outcome = nested.clone().options(["--bind-tcp", "9"]).sh("echo started");
            outcome.refused("confine", &["listener", "Linux allows one"]);
            let honest = nested.options(["--connect-tcp", "9"]).sh("echo started");
            assert_eq!(honest.success(), "started\n");
        }
    }
}

/// A helper of the same user beside sbx-init, with an abstract unix socket; the workload is told its
/// pid. A keeper in bubblewrap, as its PID namespace is the same.
const HELPER: &str = r#"
    HAND & helper=$!
    until grep -q @sbx-outside /proc/net/unix; do :; done
    "$@" $helper; code=$?
    kill -0 $helper && echo alive
    kill -9 $helper
    exit $code"#;

fn beside_helper(run: Run) -> Run {
    let server = format!("{} serve-abstract sbx-outside", word("scoped"));
    run.before(["sh", "-c", &HELPER.replace("HAND", &server), "sh"])
}

/// A PID namespace of its own hides the pid, so signals are looked at in a domain.
#[test]
fn scopes_keep_signals_and_abstract_sockets_inside() {
    for (user, place) in EVERYWHERE {
        for (scope, signal, connected) in [
            (&[][..], "EPERM", "EPERM"),
            (&["--scope", "signal,abstract-unix"], "EPERM", "EPERM"),
            (&["--scope", "signal"], "EPERM", "ok"),
        ] {
            let run = Run::domain(user, place).options(scope).options(["--allow", "unix"]);
            if run.refused_without(LANDLOCK_SCOPES) {
                continue;
            }
            let outcome = beside_helper(run).run([&*word("scoped"), "reach", "sbx-outside"]);
            let expected =
                format!("inside ok\nconnect {connected}\nsignal {signal}\nsigio none\nalive\n");
            assert_eq!(outcome.success(), expected, "{user:?} {place:?} {scope:?}: {outcome:?}");
        }
        for (scope, connected) in [("none", "ok"), ("signal", "ok"), ("abstract-unix", "EPERM")] {
            let run = Run::new(user, place).options(["--scope", scope, "--allow", "unix"]);
            if scope != "none" && run.refused_without(LANDLOCK_SCOPES) {
                continue;
            }
            let run = beside_helper(run);
            // Not in bubblewrap's network namespace, but in ours.
            let outcome = run.run([&*word("scoped"), "reach", "sbx-outside"]);
            let connect = format!("connect {connected}\n");
            assert!(
                outcome.success().contains(&connect),
                "{user:?} {place:?} {scope}: {outcome:?}"
            );
        }
    }
}

#[test]
fn a_domain_is_refused_without_the_signal_scope() {
    for scope in ["none", "abstract-unix"] {
        let run = Run::new(User::Ordinary, Place::Standalone);
        let outcome = run.options(["--isolation", "domain", "--scope", scope]).sh("echo started");
        assert_eq!((outcome.code, &*outcome.stdout), (125, ""), "{outcome:?}");
        if !outcome.refused_without_domain() {
            assert!(outcome.stderr.contains("needs signal"), "{outcome:?}");
        }
    }
}

/// As if the kernel had this ABI.
fn with_abi(run: &Run, abi: u32) -> Run {
    run.clone().before([word("abi"), abi.to_string()])
}

/// D4
#[test]
fn what_an_older_kernel_cannot_enforce_is_refused_or_reported() {
    for (user, place) in EVERYWHERE {
        for (abi, options, lacking) in [
            (
                1,
                &["--ro", "/"][..],
                &[
                    "file rules against truncate(2): needs Landlock ABI 3 (Linux 6.2)",
                    "file rules against ioctl(2) of devices: needs Landlock ABI 5 (Linux 6.10)",
                ][..],
            ),
            (3, &["--ro", "/"], &["file rules against ioctl(2) of devices: needs Landlock ABI 5"]),
            (2, &["--connect-tcp", "9"], &["--connect-tcp: needs Landlock ABI 4 (Linux 6.7)"]),
            (5, &["--scope", "signal"], &["--scope signal: needs Landlock ABI 6 (Linux 6.12)"]),
            (5, &["--scope", "abstract-unix"], &["--scope abstract-unix: needs Landlock ABI 6"]),
        ] {
            if !kernel_has(Landlock(abi)) {
                continue;
            }
            let run =
                Run::new(user, place).options(options).options(["--rox", &executable_paths()]);
            let run =
                if options[0] == "--ro" { run } else { Run::new(user, place).options(options) };
            let run = with_abi(&run, abi);
            let outcome = run.sh("echo started");
            outcome.refused("plan", &["--best-effort"]);
            let found = format!("this kernel has ABI {abi}");
            assert!(outcome.stderr.contains(&found), "{outcome:?}");
            let outcome = run.options(["--best-effort"]).sh("echo started");
            assert_eq!(outcome.success(), "started\n", "{outcome:?}");
            let lines: Vec<_> = outcome.stderr.lines().collect();
            assert_eq!(lines.len(), lacking.len(), "{outcome:?}");
            for (line, what) in lines.iter().zip(lacking) {
                let start = format!("sbx-init: not enforced: {what}");
                assert!(line.starts_with(&start), "{outcome:?}");
            }
        }
        // Nothing at all: without Landlock, or with it switched off.
        for errno in [libc::ENOSYS, libc::EOPNOTSUPP] {
            let run = Run::new(user, place).lacking(libc::SYS_landlock_create_ruleset, errno);
            let run = run.options(["--connect-tcp", "9"]);
            let outcome = run.sh("echo started");
            outcome.refused("plan", &["--best-effort"]);
            assert!(outcome.stderr.contains("this kernel has none"), "{outcome:?}");
            // On the direct route a user namespace separates the workload.
            let outcome = run.options(["--best-effort"]).sh("echo started");
            assert_eq!(outcome.success(), "started\n", "{outcome:?}");
            assert!(outcome.stderr.contains("not enforced: --connect-tcp"), "{outcome:?}");
        }
    }
}

/// D4: what there is holds.
#[test]
fn with_best_effort_the_rest_is_enforced() {
    let scratch = Scratch::new("rest");
    let file = scratch.write("file", "text");
    open_to_all(&file);
    for user in BOTH {
        let run = Run::new(user, Place::Standalone)
            .options(["--best-effort", "--rox", &executable_paths(), "--ro", &file])
            .options(["--connect-tcp", "9"]);
        let run = if kernel_has(Landlock(2)) { with_abi(&run, 2) } else { run };
        let deeds = ["read", "write", "cut"].map(|deed| format!("{deed}:{file}"));
        let outcome = files(&run, &deeds);
        let write = if kernel_has(Landlock(1)) { "EACCES" } else { "ok" };
        let expected = format!("read ok\nwrite {write}\ncut ok\n");
        assert_eq!(outcome.success(), expected, "{user:?}: {outcome:?}");
        assert!(outcome.stderr.contains("not enforced: file rules"), "{user:?}: {outcome:?}");
        // The filters that stand beside a TCP rule do not need Landlock.
        let udp = run.call(libc::SYS_socket, &["2", "2", "0"]);
        assert_eq!(udp, "EPERM", "{user:?}");
        std::fs::write(&file, "text").unwrap();
    }
}

/// D4
#[test]
fn the_report_names_what_is_missing() {
    let report = |run: Run| {
        let run = run.before(["sh", "-c", "exec 3>&1; exec \"$@\"", "sh"]);
        run.options(["--status-fd", "3", "--best-effort"]).run(["true"])
    };
    if kernel_has(Landlock(2)) {
        let run = Run::new(User::Ordinary, Place::Standalone).options(["--connect-tcp", "9"]);
        let outcome = report(with_abi(&run, 2));
        let line = outcome.success().lines().next().unwrap();
        let expected = "{\"isolation\":\"namespaces\",\"landlock\":2,\"missing\":[\"--connect-tcp: \
            needs Landlock ABI 4 (Linux 6.7), this kernel has ABI 2\"]}";
        assert_eq!((line, &*outcome.stderr), (expected, ""));
    }
    let outcome = report(Run::new(User::Ordinary, Place::Standalone));
    assert!(outcome.success().lines().next().unwrap().ends_with(",\"missing\":[]}"));
}

/// A3, R3: on the direct route without a user namespace of the workload's own, an older kernel's
/// domain separates it, and forbids nothing that it is not made for.
#[test]
fn a_domain_for_separation_restricts_nothing_else() {
    let scratch = Scratch::new("separated");
    let [a, b] = ["a", "b"].map(|name| scratch.file(name));
    for directory in [&a, &b] {
        std::fs::create_dir(directory).unwrap();
        open_to_all(directory);
    }
    for abi in [1, 2, 5, 6].into_iter().filter(|abi| kernel_has(Landlock(*abi))) {
        for user in BOTH {
            let run = shown(Run::new(user, Place::BwrapSysAdmin), &scratch);
            let run = with_abi(&run, abi).lacking(libc::SYS_unshare, libc::EPERM);
            let deeds = [
                format!("create:{a}/file"),
                format!("rename:{a}/file:{b}/file"),
                format!("cut:{b}/file"),
                format!("unlink:{b}/file"),
            ];
            let outcome = files(&run, &deeds);
            let moved = if abi == 1 { "EXDEV" } else { "ok" };
            let rest = if abi == 1 { "ENOENT" } else { "ok" };
            let expected = format!("create ok\nrename {moved}\ncut {rest}\nunlink {rest}\n");
            assert_eq!(outcome.success(), expected, "{user:?} ABI {abi}: {outcome:?}");
            let _ = std::fs::remove_file(format!("{a}/file"));
        }
    }
}

/// D7: in a domain the reaper takes one of the 16 layers, too.
#[test]
fn too_many_domains_are_refused() {
    let nested = |levels: usize| {
        let mut command = vec![];
        for _ in 1..levels {
            command.push(support::sbx_init().into_os_string());
            command.extend(["--isolation", "domain"].map(Into::into));
        }
        command.extend(["echo", "started"].map(Into::into));
        Run::domain(User::Ordinary, Place::Standalone).run(command)
    };
    if nested(1).refused_without_domain() {
        return;
    }
    assert_eq!(nested(8).success(), "started\n");
    let outcome = nested(9);
    assert_eq!((outcome.code, &*outcome.stdout), (125, ""), "{outcome:?}");
    assert!(outcome.stderr.contains("landlock_restrict_self"), "{outcome:?}");
}
