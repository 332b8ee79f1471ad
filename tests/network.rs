//! The network policy for TCP: what may be reached, and that calls are otherwise as without us.
//!
//! Each run has a network namespace of its own, with the servers of the fixture `pod`.

mod support;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::unistd::pipe2;
use serde_json::Value;

use support::kernel::{
    LANDLOCK_SCOPES, MountSetattr, PidfdThread, TCP_RULES, WaitKillableRecv, kernel_has,
};
use support::process::{descendants, inherit, kill, stub};
use support::scratch::Scratch;
use support::{
    EVERYWHERE, ORDINARY, Outcome, Place, Run, UNTIL_ALL_GONE, User, become_user, beside_pod,
    contained, fixture, tries, word,
};

const PROXY: &str = "127.0.0.1:3128";
const OTHER_PORT: &str = "127.0.0.1:8080";
const OTHER_ADDRESS: &str = "127.0.0.2:3128";

fn run(run: &Run, command: &[&str]) -> Outcome {
    Outcome::of(&mut beside_pod(run.words(command)))
}

/// In bubblewrap the network of outside.
fn everywhere() -> impl Iterator<Item = Run> {
    EVERYWHERE.into_iter().map(|(user, place)| Run::new(user, place).bwrap(["--share-net"]))
}

fn ordinary() -> Run {
    Run::new(User::Ordinary, Place::Standalone)
}

fn allowing(targets: &[&str]) -> Run {
    targets.iter().fold(ordinary(), |run, target| run.options(["--net-allow", target]))
}

/// The fixture `socket`, with the words of a text.
fn sockets(at: &Run, words: &str) -> String {
    let program = word("socket");
    let words: Vec<&str> = std::iter::once(&*program).chain(words.split(' ')).collect();
    run(at, &words).success().to_owned()
}

fn without_us(words: &str) -> String {
    let mut command = become_user(User::Ordinary);
    command.push(fixture("socket").into());
    command.extend(words.split(' ').map(Into::into));
    Outcome::of(&mut beside_pod(command)).success().to_owned()
}

/// What one connect says.
fn connect(at: &Run, family: &str, address: &str) -> String {
    let text = sockets(at, &format!("{family} connect={address}"));
    text.trim().rsplit(' ').next().unwrap().to_owned()
}

fn fetch(at: &Run, address: &str) -> String {
    run(at, &[&word("attempt"), "fetch", address]).success().trim().to_owned()
}

fn calls(at: &Run, words: &[&str]) -> String {
    let program = word("calls");
    let words: Vec<&str> = std::iter::once(&*program).chain(words.iter().copied()).collect();
    run(at, &words).success().trim().to_owned()
}

// What may be reached.

/// D-8
#[test]
fn exactly_the_listed_socket_is_reached() {
    for at in everywhere() {
        let at = at.options(["--net-allow", PROXY]);
        assert_eq!(fetch(&at, PROXY), format!("ok GET / HTTP/1.0 at {PROXY}"), "{at:?}");
        for address in [OTHER_PORT, OTHER_ADDRESS, "192.0.2.1:3128", "[::1]:3128"] {
            assert_eq!(fetch(&at, address), "EACCES", "{address} {at:?}");
        }
    }
}

#[test]
fn without_a_namespace_too() {
    for (user, place) in [
        (User::Ordinary, Place::Standalone),
        (User::Ordinary, Place::Bwrap),
        (User::Ordinary, Place::BwrapSysAdmin),
    ] {
        let at = Run::new(user, place).bwrap(["--share-net"]).options([
            "--isolation",
            "domain",
            "--net-allow",
            PROXY,
        ]);
        let outcome = run(&at, &[&word("attempt"), "fetch", PROXY]);
        if outcome.refused_without_domain() {
            continue;
        }
        assert_eq!(outcome.success().trim(), format!("ok GET / HTTP/1.0 at {PROXY}"), "{at:?}");
        for address in [OTHER_PORT, OTHER_ADDRESS] {
            assert_eq!(fetch(&at, address), "EACCES", "{address} {at:?}");
        }
    }
}

#[test]
fn in_the_network_namespace_that_bubblewrap_makes() {
    let at = Run::new(User::Ordinary, Place::Bwrap).options(["--net-allow", "127.0.0.1:7000"]);
    let words = "tcp4 bind=127.0.0.1:7000 listen=5 tcp4 connect=127.0.0.1:7000 tcp4 bind=127.0.0.1:7001 \
                 listen=5 tcp4 connect=127.0.0.1:7001";
    let lines = sockets(&at, words);
    assert!(lines.contains("connect=127.0.0.1:7000 ok"), "{lines}");
    assert!(lines.ends_with("connect=127.0.0.1:7001 EACCES\n"), "{lines}");
}

#[test]
fn a_policy_without_destinations_reaches_nothing() {
    for at in everywhere() {
        let at = at.options(["--net-none"]);
        for address in [PROXY, OTHER_PORT, OTHER_ADDRESS] {
            assert_eq!(fetch(&at, address), "EACCES", "{address} {at:?}");
        }
    }
}

#[test]
fn whatever_becomes_of_proc() {
    for at in everywhere() {
        for proc in ["keep", "hide"] {
            let at = at.clone().options(["--proc", proc, "--net-allow", PROXY]);
            let outcome = run(&at, &[&word("attempt"), "fetch", PROXY]);
            if outcome.stderr.contains("mount_setattr") && outcome.refused_without(MountSetattr) {
                continue;
            }
            assert_eq!(outcome.success().trim(), format!("ok GET / HTTP/1.0 at {PROXY}"), "{at:?}");
            assert_eq!(fetch(&at, OTHER_PORT), "EACCES", "{at:?}");
        }
    }
    // A procfs of its own is refused where the caller's is covered in part.
    let covered = Run::new(User::Root, Place::Bwrap)
        .bwrap(["--share-net", "--cap-drop", "ALL", "--cap-add", "CAP_SETFCAP"])
        .options(["--net-allow", PROXY]);
    for proc in ["keep", "hide"] {
        let outcome = run(&covered.clone().options(["--proc", proc]), &["echo", "started"]);
        if outcome.stderr.contains("mount_setattr") && outcome.refused_without(MountSetattr) {
            continue;
        }
        outcome.refused("proc", &["supervisor", "--proc fresh"]);
        assert!(outcome.stderr.contains("EPERM"), "{outcome:?}");
    }
}

/// C15: Landlock's rules do not bind the supervisor.
#[test]
fn landlocks_ports_hold_beside_the_destinations() {
    let both = |port: &str, target: &str| {
        ordinary().options(["--connect-tcp", port, "--net-allow", target])
    };
    let at = both("3128", "127.0.0.1:*");
    if at.refused_without(TCP_RULES) {
        return;
    }
    assert_eq!(connect(&at, "tcp4", PROXY), "ok");
    assert_eq!(connect(&at, "tcp4", OTHER_PORT), "EACCES");
    assert_eq!(connect(&at, "tcp4", OTHER_ADDRESS), "EACCES");
    assert_eq!(connect(&both("8080", PROXY), "tcp4", PROXY), "EACCES");

    let at = ordinary().options(["--bind-tcp", "7000", "--net-bind", "127.0.0.1:7000-7001"]);
    assert!(sockets(&at, "tcp4 bind=127.0.0.1:7000 listen=1").ends_with("listen=1 ok\n"));
    assert_eq!(
        sockets(&at, "tcp4 bind=127.0.0.1:7001 listen=1"),
        "bind=127.0.0.1:7001 EACCES\nlisten=1 EACCES\n"
    );
}

// Point 1.

/// C1, C2: numbers of the fixture `flip`, by name.
fn flip(at: &Run, what: &str) -> impl Fn(&str) -> u64 + use<> {
    let outcome = run(at, &[&word("flip"), what, &tries().to_string()]);
    let words: Vec<String> = outcome.success().split_whitespace().map(Into::into).collect();
    eprintln!("{what}: {words:?}");
    move |name| words[words.iter().position(|word| word == name).unwrap() + 1].parse().unwrap()
}

#[test]
fn an_address_that_flips_reaches_no_other() {
    let count = flip(&allowing(&["127.0.0.1:*"]), "address");
    assert_eq!(count("unlisted"), 0);
    assert!(count("listed") > 0 && count("denied") > 0);
}

#[test]
fn a_port_that_flips_reaches_no_other() {
    let count = flip(&allowing(&["127.0.0.1:7001"]), "port");
    assert_eq!(count("unlisted"), 0);
    assert!(count("listed") > 0 && count("denied") > 0);
}

#[test]
fn a_family_that_flips_hides_no_address() {
    let count = flip(&allowing(&["127.0.0.1:*"]), "family");
    assert_eq!((count("listed"), count("unlisted")), (0, 0));
    assert!(count("denied") > 0);
}

#[test]
fn a_descriptor_that_is_swapped_reaches_no_other() {
    let count = flip(&allowing(&["127.0.0.1:*"]), "descriptor");
    assert_eq!(count("unlisted"), 0);
    assert!(count("listed") > 0 && count("denied") > 0);
}

#[test]
fn a_descriptor_that_is_swapped_does_not_listen_elsewhere() {
    let count = flip(&allowing(&["127.0.0.1:*"]), "listen");
    assert_eq!(count("elsewhere"), 0);
    assert!(count("listening") > 0 && count("denied") > 0);
}

// Point 2.

/// C5, C6
#[test]
fn an_address_is_what_the_kernel_would_make_of_it() {
    let at = allowing(&[OTHER_PORT]);
    for (family, address, expected) in [
        ("tcp4", "127.0.0.1:8080", "ok"),
        ("tcp6", "[::ffff:127.0.0.1]:8080", "ok"),
        ("tcp4", "0.0.0.0:8080", "ok"),
        ("tcp6", "[::ffff:0.0.0.0]:8080", "ok"),
        ("tcp4", "127.0.0.1:8080/128", "ok"),
        ("tcp6", "[::ffff:127.0.0.1%7]:8080", "ok"),
        ("tcp6", "[::ffff:127.0.0.1]:8080/24", "ok"),
        ("tcp4", "127.0.0.2:8080", "EACCES"),
        ("tcp4", "0.0.0.0:3128", "EACCES"),
        ("tcp6", "[::ffff:127.0.0.2]:3128", "EACCES"),
        ("tcp6", "[::ffff:127.0.0.1]:3128", "EACCES"),
        ("tcp6", "[::]:8080", "EACCES"),
        ("tcp6", "[::1]:8080", "EACCES"),
        ("tcp6", "[::127.0.0.1]:8080", "EACCES"),
        ("tcp6", "[::ffff:0:127.0.0.1]:8080", "EACCES"),
        ("tcp6", "[64:ff9b::127.0.0.1]:8080", "EACCES"),
        ("tcp6", "[2002:7f00:1::]:8080", "EACCES"),
        ("tcp6", "[fe80::7f00:1%1]:8080", "EACCES"),
        // AF_UNIX, AF_NETLINK, AF_VSOCK and none of them, on a TCP socket.
        ("tcp4", "x:01001f907f0000010000000000000000", "EAFNOSUPPORT"),
        ("tcp4", "x:10001f907f0000010000000000000000", "EAFNOSUPPORT"),
        ("tcp4", "x:28001f907f0000010000000000000000", "EAFNOSUPPORT"),
        ("tcp4", "x:ffff1f907f0000010000000000000000", "EAFNOSUPPORT"),
    ] {
        assert_eq!(connect(&at, family, address), expected, "{family} {address}");
    }
}

/// Words for the fixture `socket` that give the same lines with and without a policy that allows
/// everything.
const SAME: &[&str] = &[
    // Connected, again, elsewhere; who is where.
    "tcp4 connect=127.0.0.1:8080 name peer connect=127.0.0.1:8080 connect=127.0.0.1:3128 send=x",
    "tcp6 connect=[::ffff:127.0.0.1]:8080 name peer",
    "tcp6 bind=[::1]:7000 listen=5 tcp6 connect=[::1]:7000 peer use=0 accept tcp6 connect=[::]:7000 peer",
    "tcp4 connect=0.0.0.0:8080 peer",
    // As event loops do it.
    "tcp4 nonblock connect=127.0.0.1:8080 poll connect=127.0.0.1:8080 connect=127.0.0.1:8080 peer",
    "tcp4 nonblock connect=127.0.0.1:1 poll connect=127.0.0.1:8080 poll",
    "tcp4 bind=127.0.0.1:7000 listen=0 tcp4 connect=127.0.0.1:7000 tcp4 nonblock connect=127.0.0.1:7000 \
     connect=127.0.0.1:7000 connect=127.0.0.1:8080 name peer",
    // A time limit, and the same call again.
    "tcp4 bind=127.0.0.1:7000 listen=0 tcp4 connect=127.0.0.1:7000 tcp4 timeout connect=127.0.0.1:7000 \
     connect=127.0.0.1:7000 nonblock connect=127.0.0.1:7000",
    // A connect in progress that a blocking one waits for.
    "tcp4 bind=127.0.0.1:7000 listen=5 tcp4 nonblock connect=127.0.0.1:7000 block connect=127.0.0.1:7000 \
     connect=127.0.0.1:7000",
    // Nobody there, no way there.
    "tcp4 connect=127.0.0.1:1 connect=127.0.0.1:8080",
    "tcp4 connect=192.0.2.1:80 tcp4 connect=224.0.0.1:80 tcp4 connect=255.255.255.255:80 tcp6 \
     connect=[2001:db8::1]:80 tcp6 connect=[ff02::1]:80 tcp6 connect=[fe80::1]:80 tcp4 connect=127.0.0.1:0",
    // Disconnected, in the lengths that do it.
    "tcp4 connect=127.0.0.1:8080 connect=unspec peer connect=127.0.0.1:3128 peer",
    "tcp4 connect=127.0.0.1:8080 connect=x:0000 peer tcp4 connect=127.0.0.1:8080 connect=x:00 peer",
    "tcp4 connect=unspec name tcp6 connect=unspec name route connect=unspec",
    "tcp4 bind=127.0.0.1:7000 listen=5 connect=unspec name listen=5 name",
    "tcp4 bind=127.0.0.1:7000 listen=5 connect=127.0.0.1:8080",
    // Lengths and pointers.
    "tcp4 connect=127.0.0.1:8080/15 connect=127.0.0.1:8080/1 connect=127.0.0.1:8080/0 \
     connect=127.0.0.1:8080/-1 connect=127.0.0.1:8080/129 connect=127.0.0.1:8080/2147483647 \
     connect=127.0.0.1:8080/-2147483648 connect=127.0.0.1:8080/17 peer",
    "tcp6 connect=[::1]:1/23 connect=[::1]:1/16 connect=[::1]:1/24 connect=[::1]:1/2",
    "tcp4 connect=@0/16 connect=@1/16 connect=@1/0 connect=@1/129 connect=@ffffffffffffffff/16 \
     connect=@ffff800000000000/16 bind=@0/16 bind=@1/0 bind=@1/129",
    // Families on sockets of others.
    "tcp4 connect=[::1]:8080 connect=[::ffff:127.0.0.1]:8080 tcp6 connect=127.0.0.1:8080",
    "tcp4 bind=[::1]:7000 tcp6 bind=127.0.0.1:7000 tcp4 bind=unspec name",
    // What is no socket.
    "none connect=127.0.0.1:8080 bind=127.0.0.1:0 listen=1 connect=@0/16 connect=@0/129",
    "pipe connect=127.0.0.1:8080 bind=127.0.0.1:0 listen=1",
    // Bound, again, in use, nowhere.
    "tcp4 bind=127.0.0.1:7000 name bind=127.0.0.1:7001 tcp4 bind=127.0.0.1:7000 bind=192.0.2.1:0 tcp4 \
     bind=127.0.0.1:80 tcp4 bind=0.0.0.0:0 name",
    "tcp6 bind=[::1]:7000 name tcp6 bind=[::ffff:127.0.0.1]:7001 name tcp6 bind=[fe80::1%1]:7000",
    "tcp4 bind=127.0.0.1:7000 listen=5 listen=6 tcp4 connect=127.0.0.1:7000 listen=5 use=0 accept",
    "route bind=x:100000000000000000000000 name connect=x:100000000000000000000000 bind=x:1000",
];

/// N3, C4, C12
#[test]
fn a_policy_that_allows_all_changes_nothing() {
    let all = ["--net-allow", "*:*", "--net-bind", "*:*"];
    let native: Vec<String> = SAME.iter().map(|words| without_us(words)).collect();
    for (words, native) in SAME.iter().zip(&native) {
        assert_eq!(sockets(&ordinary().options(all), words), *native, "{words}");
    }
    let domain = ordinary().options(all).options(["--isolation", "domain"]);
    if !domain.refused_without(LANDLOCK_SCOPES) {
        for (words, native) in SAME.iter().zip(&native) {
            assert_eq!(sockets(&domain, words), *native, "{words}");
        }
    }
}

// Point 3.

/// C13
#[test]
fn a_connect_that_hangs_delays_nobody_else() {
    let at = allowing(&["127.0.0.1:*"]);
    for hanging in ["1", "10", "100"] {
        assert_eq!(calls(&at, &["beside", hanging, "64"]), "all connected", "{hanging}");
    }
}

/// C12, N14: beyond so many EAGAIN, and what does not block is served still.
#[test]
fn what_hangs_is_bounded() {
    let at = allowing(&["127.0.0.1:*"]);
    let mut child = spawn(&at, &[&word("calls"), "many", "300"]);
    assert_eq!(line(&mut child), "hanging 255, then Err(EINPROGRESS)");
    let init = descendants(stub(&child).unwrap())[0];
    let status = fs::read_to_string(format!("/proc/{init}/status")).unwrap();
    let field = |name: &str| -> u64 {
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    };
    // The pool, its watch and the reaper.
    assert!(field("Threads:") <= 258, "{status}");
    assert!(field("VmRSS:") < 16 << 10, "{status}");
    let descriptors = fs::read_dir(format!("/proc/{init}/fd")).unwrap().count();
    assert!(descriptors < 3 * 256, "{descriptors}");
    drop(child.stdin.take());
    assert!(child.wait().unwrap().success());
}

// Point 4.

/// N1, N2
#[test]
fn a_handled_signal_interrupts_a_connect() {
    let at = allowing(&["127.0.0.1:*"]);
    for by in ["thread", "process", "alarm"] {
        assert_eq!(calls(&at, &["interrupted", by]), "EINTR soon", "{by}");
    }
}

/// N1
#[test]
fn a_connect_goes_on_after_a_handler_that_wants_it() {
    let at = allowing(&["127.0.0.1:*"]);
    for by in ["thread", "process"] {
        assert_eq!(calls(&at, &["restarted", by]), "Ok(()), handled 3", "{by}");
    }
}

#[test]
fn a_signal_that_another_thread_takes_interrupts_nothing() {
    assert_eq!(calls(&allowing(&["127.0.0.1:*"]), &["undisturbed"]), "Ok(())");
}

#[test]
fn a_process_in_a_connect_can_be_stopped_and_continued() {
    let at = allowing(&["127.0.0.1:*"]);
    for of in ["process", "thread"] {
        assert_eq!(calls(&at, &["stopped", of]), "exit 7", "{of}");
    }
}

#[test]
fn a_process_in_a_connect_can_be_ended() {
    let at = allowing(&["127.0.0.1:*"]);
    // Those that end a process at once, and those that would dump core.
    for signal in [libc::SIGTERM, libc::SIGKILL, libc::SIGQUIT, libc::SIGABRT, libc::SIGXCPU] {
        let ended = calls(&at, &["ended", &signal.to_string()]);
        assert_eq!(ended, format!("signal {signal}"));
    }
}

/// C8
#[test]
fn the_threads_of_killed_callers_are_free_again() {
    assert_eq!(calls(&allowing(&["127.0.0.1:*"]), &["killed", "4"]), "served 4 rounds");
}

// Point 5.

/// C9
#[test]
fn a_thread_with_its_own_descriptors_is_served_with_those() {
    for at in everywhere() {
        let at = at.options(["--net-allow", OTHER_PORT]);
        let text = calls(&at, &["own-table", "8080"]);
        match kernel_has(PidfdThread) {
            true => assert_eq!(text, "Ok(()), own Ok(8080), other Err(ENOTCONN)", "{at:?}"),
            false => {
                assert_eq!(text, "Err(EACCES), own Err(ENOTCONN), other Err(ENOTCONN)", "{at:?}")
            }
        }
        let denied = calls(&at, &["own-table", "3128"]);
        assert_eq!(denied, "Err(EACCES), own Err(ENOTCONN), other Err(ENOTCONN)", "{at:?}");
    }
}

/// C10, N12
#[test]
fn processes_in_namespaces_of_their_own_are_served() {
    for at in everywhere() {
        let at = at.options(["--net-allow", PROXY]);
        for flags in ["-U", "-Upf"] {
            let inside = |address: &str| {
                let outcome =
                    run(&at, &["unshare", flags, "--", &word("attempt"), "fetch", address]);
                outcome.success().trim().to_owned()
            };
            assert_eq!(inside(PROXY), format!("ok GET / HTTP/1.0 at {PROXY}"), "{flags} {at:?}");
            assert_eq!(inside(OTHER_PORT), "EACCES", "{flags} {at:?}");
        }
    }
}

/// C11
#[test]
fn a_process_that_is_not_dumpable_is_served_or_denied() {
    for at in everywhere() {
        let at = at.options(["--net-allow", OTHER_PORT]);
        let served = calls(&at, &["not-dumpable", "8080"]);
        assert!(["Ok(())", "Err(EACCES)"].contains(&&*served), "{served} {at:?}");
        assert_eq!(calls(&at, &["not-dumpable", "3128"]), "Err(EACCES)", "{at:?}");
    }
    // The supervisor keeps the capability that it needs in a user namespace of its own.
    for place in [Place::Standalone, Place::Bwrap] {
        let at = Run::new(User::Ordinary, place).bwrap(["--share-net"]);
        let at = at.options(["--net-allow", OTHER_PORT]);
        assert_eq!(calls(&at, &["not-dumpable", "8080"]), "Ok(())", "{place:?}");
    }
    let at = allowing(&[OTHER_PORT]).options(["--isolation", "domain"]);
    if !at.refused_without(LANDLOCK_SCOPES) {
        assert_eq!(calls(&at, &["not-dumpable", "8080"]), "Err(EACCES)");
    }
}

/// P15: the kernel looks for the right to trace in a user namespace that has the file's owner.
#[test]
fn a_program_that_may_be_executed_and_not_read_is_served_or_denied() {
    let scratch = Scratch::new("unreadable");
    let program = scratch.executable("attempt", 0o111, fs::read(fixture("attempt")).unwrap());
    let at = allowing(&[PROXY]);
    let fetch = |address| run(&at, &[&program, "fetch", address]).success().trim().to_owned();
    assert_eq!((&*fetch(PROXY), &*fetch(OTHER_PORT)), ("EACCES", "EACCES"));
    std::os::unix::fs::chown(&program, Some(ORDINARY), Some(ORDINARY)).unwrap();
    assert_eq!(fetch(PROXY), format!("ok GET / HTTP/1.0 at {PROXY}"));
    assert_eq!(fetch(OTHER_PORT), "EACCES");
}

// Point 7.

const DESCRIPTORS: &str = r#"for d in /proc/[0-9]*/fd; do ls -l "$d" 2> /dev/null; done
    (ls -l /proc/self/fd/; exec sh -c 'ls -l /proc/self/fd/')"#;

#[test]
fn the_listener_and_the_events_are_not_visible_inside() {
    let scratch = Scratch::new("visible");
    for at in everywhere() {
        let directory = scratch.path().to_str().unwrap();
        let events = scratch.file("events");
        let at = at.bwrap(["--bind", directory, directory]).options([
            "--net-allow",
            PROXY,
            "--events",
            &events,
        ]);
        let outcome = run(&at, &["sh", "-c", DESCRIPTORS]);
        let text = outcome.success();
        assert!(text.contains(" -> "), "{text}");
        assert!(!text.contains("seccomp") && !text.contains("events"), "{text}");
        let _ = fs::remove_file(events);
    }
    // From outside, as root, the supervisor's is visible by that name.
    let mut child = spawn(&allowing(&[PROXY]), &["sh", "-c", "echo ready; read line || :"]);
    assert_eq!(line(&mut child), "ready");
    let tree = descendants(stub(&child).unwrap());
    let has_listener = |pid: &u32| {
        let links = fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
        links.flatten().any(|link| {
            fs::read_link(link.path())
                .is_ok_and(|link| link.to_string_lossy().contains("seccomp notify"))
        })
    };
    assert_eq!(tree.iter().map(has_listener).collect::<Vec<_>>(), [true, false]);
    drop(child.stdin.take());
    assert!(child.wait().unwrap().success());
}

/// B9
#[test]
fn the_workload_becomes_no_supervisor() {
    for at in everywhere() {
        let at = at.options(["--net-allow", PROXY]);
        let own_filter = |flags: i64| {
            let flags = flags.to_string();
            run(&at, &[&word("attempt"), "own-filter", &flags]).success().to_owned()
        };
        assert_eq!(own_filter(libc::SECCOMP_FILTER_FLAG_NEW_LISTENER as i64), "EPERM\n", "{at:?}");
        assert!(own_filter(0).starts_with("ok"), "{at:?}");
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Victim {
    Stub,
    /// PID 1, or the reaper.
    Init,
}

/// R5
#[test]
fn the_end_of_the_supervisor_or_the_stub_is_the_end_of_all() {
    let mut places = vec![allowing(&["127.0.0.1:*"])];
    places.push(
        Run::new(User::Ordinary, Place::BwrapSysAdmin)
            .bwrap(["--share-net"])
            .options(["--net-allow", "127.0.0.1:*"]),
    );
    let domain = allowing(&["127.0.0.1:*"]).options(["--isolation", "domain"]);
    if !domain.refused_without(LANDLOCK_SCOPES) {
        places.push(domain);
    }
    for at in places {
        // With a parent that does not end with the stub, and all that is contained with it.
        let at = at.before(["sh", "-c", UNTIL_ALL_GONE, "sh"]);
        for victim in [Victim::Init, Victim::Stub] {
            let mut child = spawn(&at, &[&word("calls"), "hang"]);
            assert_eq!(line(&mut child), "hanging");
            let stub = stub(&child).unwrap();
            let init = descendants(stub)[0];
            let pid = if victim == Victim::Init { init } else { stub };
            let start = Instant::now();
            kill(pid, libc::SIGKILL);
            // Every process of the sandbox holds its standard output.
            let mut rest = String::new();
            child.stdout.take().unwrap().read_to_string(&mut rest).unwrap();
            // A second, on a machine that may be busy.
            assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
            child.wait().unwrap();
            let status = if victim == Victim::Init { 125 } else { 137 };
            assert_eq!(rest, format!("status {status}\ngone\n"), "{victim:?} {at:?}");
        }
    }
}

/// A thread that asks again and again for calls that nobody can make any more would never leave the
/// only CPU to its equals.
#[test]
fn the_supervisor_rests_when_the_workload_has_ended() {
    for level in ["namespaces", "domain"] {
        let at = ordinary().options(["--isolation", level, "--net-none"]);
        if level == "domain" && at.refused_without(LANDLOCK_SCOPES) {
            continue;
        }
        for _ in 0..10 {
            let mut command = contained();
            command.args(["chrt", "-f", "1", "taskset", "1"]).args(at.words(["true"]));
            assert_eq!(Outcome::of(&mut command).success(), "");
        }
    }
}

/// Waits until each thread of a process is in a state that `is` knows by its line of
/// `/proc/PID/task/TID/FILE`.
fn until(pid: u32, file: &str, is: impl Fn(&str) -> bool) {
    let all = || {
        let threads = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
        threads
            .flatten()
            .all(|thread| fs::read_to_string(thread.path().join(file)).is_ok_and(|line| is(&line)))
    };
    while !all() {
        std::thread::yield_now();
    }
}

#[test]
fn a_supervisor_that_is_stopped_is_waited_for() {
    let connect = (libc::SYS_connect, "tcp4 connect=127.0.0.1:8080");
    let bind = "tcp4 bind=127.0.0.1:7000 listen=1";
    let any = allowing(&["127.0.0.1:*"]);
    let mut places = vec![(any.clone(), connect), (any, (libc::SYS_bind, bind))];
    let domain = ordinary().options(["--isolation", "domain"]);
    if !domain.refused_without(LANDLOCK_SCOPES) {
        places.push((domain.clone().options(["--net-allow", "127.0.0.1:*"]), connect));
        places.push((domain.options(["--bind-tcp", "7000"]), (libc::SYS_listen, bind)));
    }
    for (at, (call, words)) in places {
        let script = format!("echo ready; read line; exec {} {words}", word("socket"));
        let mut child = spawn(&at, &["sh", "-c", &script]);
        assert_eq!(line(&mut child), "ready");
        let [init, workload] = descendants(stub(&child).unwrap())[..] else { panic!("{at:?}") };
        kill(init, libc::SIGSTOP);
        until(init, "stat", |line| line.rsplit(") ").next().unwrap().starts_with('T'));
        child.stdin.take().unwrap().write_all(b"go\n").unwrap();
        until(workload, "syscall", |line| line.starts_with(&format!("{call} ")));
        kill(init, libc::SIGCONT);
        let mut rest = String::new();
        child.stdout.take().unwrap().read_to_string(&mut rest).unwrap();
        assert!(rest.trim().ends_with(" ok") && child.wait().unwrap().success(), "{rest} {at:?}");
    }
}

/// The hook of tests/planted.rs is in no other build than its own; in a virtual machine this is the
/// release.
#[test]
fn no_call_makes_the_supervisor_panic() {
    let text = sockets(&allowing(&["127.0.0.1:*"]), "tcp4 listen=4711 connect=127.0.0.1:8080");
    assert_eq!(text, "listen=4711 EACCES\nconnect=127.0.0.1:8080 ok\n");
}

fn spawn(at: &Run, command: &[&str]) -> Child {
    let mut command = beside_pod(at.words(command));
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
    command.spawn().unwrap()
}

/// The next line that a run prints.
#[track_caller]
fn line(child: &mut Child) -> String {
    // One byte at a time: what follows is for others to read.
    let mut text = vec![];
    let mut byte = [0];
    let out = child.stdout.as_mut().unwrap();
    while out.read(&mut byte).unwrap() == 1 && byte != *b"\n" {
        text.push(byte[0]);
    }
    String::from_utf8(text).unwrap()
}

/// A flood of the signal by which the supervisor interrupts its own threads changes nothing.
#[test]
fn signals_to_the_supervisor_disturb_nothing() {
    let script = r#"
        (trap '' USR1; while kill -USR1 1; do :; done 2> /dev/null) &
        flood=$!
        "$1" beside 10 64; result=$?
        kill -KILL $flood; wait $flood 2> /dev/null
        exit $result"#;
    let at = allowing(&["127.0.0.1:*"]);
    for _ in 0..3 {
        let outcome = run(&at, &["bash", "-c", script, "bash", &word("calls")]);
        assert_eq!(outcome.success(), "all connected\n");
    }
}

// bind, listen, netlink.

#[test]
fn loopback_may_be_bound_and_listened_on_and_nothing_else() {
    for at in everywhere() {
        let at = at.options(["--net-none"]);
        for (words, last) in [
            ("tcp4 bind=127.0.0.1:7000 listen=1", "listen=1 ok"),
            ("tcp4 bind=127.0.0.9:7000 listen=1", "listen=1 ok"),
            ("tcp6 bind=[::1]:7000 listen=1", "listen=1 ok"),
            ("tcp6 bind=[::ffff:127.0.0.1]:7000 listen=1", "listen=1 ok"),
            ("tcp4 bind=127.0.0.1:0 listen=1", "listen=1 ok"),
            ("tcp4 bind=0.0.0.0:0", "bind=0.0.0.0:0 ok"),
            ("tcp6 bind=[::]:0", "bind=[::]:0 ok"),
            ("tcp4 bind=0.0.0.0:0 listen=1", "listen=1 EACCES"),
            ("tcp6 bind=[::]:0 listen=1", "listen=1 EACCES"),
            ("tcp4 listen=1", "listen=1 EACCES"),
            ("tcp6 listen=1", "listen=1 EACCES"),
            ("tcp4 bind=0.0.0.0:7000", "bind=0.0.0.0:7000 EACCES"),
            ("tcp6 bind=[::]:7000", "bind=[::]:7000 EACCES"),
            ("tcp4 bind=192.0.2.1:0", "bind=192.0.2.1:0 EACCES"),
            ("tcp6 bind=[::ffff:0.0.0.0]:7000", "bind=[::ffff:0.0.0.0]:7000 EACCES"),
        ] {
            let text = sockets(&at, words);
            assert_eq!(text.lines().last(), Some(last), "{words} {at:?}");
        }
    }
}

#[test]
fn what_is_listed_may_be_bound_and_listened_on() {
    let at = ordinary().options(["--net-bind", "0.0.0.0:7000"]);
    for (words, last) in [
        ("tcp4 bind=0.0.0.0:7000 listen=1", "listen=1 ok"),
        ("tcp4 bind=0.0.0.0:0", "bind=0.0.0.0:0 ok"),
        ("tcp4 bind=0.0.0.0:0 listen=1", "listen=1 EACCES"),
        ("tcp4 bind=127.0.0.1:7000", "bind=127.0.0.1:7000 EACCES"),
        ("tcp4 bind=0.0.0.0:7001", "bind=0.0.0.0:7001 EACCES"),
        ("tcp6 bind=[::]:7000", "bind=[::]:7000 EACCES"),
    ] {
        assert_eq!(sockets(&at, words).lines().last(), Some(last), "{words}");
    }
}

/// C15: the supervisor's privilege does not count.
#[test]
fn a_privileged_port_needs_the_callers_privilege() {
    for at in everywhere() {
        let at = at.options(["--net-bind", "*:*"]);
        for (words, last) in [
            ("tcp4 bind=127.0.0.1:1023", "bind=127.0.0.1:1023 EACCES"),
            ("tcp4 bind=0.0.0.0:443", "bind=0.0.0.0:443 EACCES"),
            ("tcp6 bind=[::1]:1", "bind=[::1]:1 EACCES"),
            ("tcp4 bind=127.0.0.1:1024", "bind=127.0.0.1:1024 ok"),
        ] {
            assert_eq!(sockets(&at, words).lines().last(), Some(last), "{words} {at:?}");
        }
    }
}

/// D2
#[test]
fn a_socket_that_was_connected_does_not_listen_elsewhere() {
    let at = allowing(&["127.0.0.1:*"]);
    let last = |words: &str| sockets(&at, words).lines().last().unwrap().to_owned();
    // Its last address is loopback's, and it is bound to that again.
    let words = "tcp4 connect=127.0.0.1:8080 connect=unspec listen=1 name";
    let text = sockets(&at, words);
    assert!(text.contains("listen=1 EACCES") || text.contains("name ok 127.0.0.1"), "{text}");
    assert!(
        last("tcp4 bind=0.0.0.0:0 connect=127.0.0.1:8080 connect=unspec listen=1")
            .contains("EACCES")
    );
    let words = "tcp6 connect=[::ffff:127.0.0.1]:8080 connect=unspec listen=1 name";
    let text = sockets(&at, words);
    assert!(
        text.contains("listen=1 EACCES") || text.contains("name ok ::ffff:127.0.0.1 "),
        "{text}"
    );
    assert_eq!(calls(&at, &["listen-trick"]), "elsewhere 0");
}

/// N7
#[test]
fn route_netlink_is_served() {
    for at in everywhere() {
        let at = at.options(["--net-none"]);
        let outcome = run(&at, &[&word("attempt"), "interfaces"]);
        assert_eq!(outcome.success(), "ok some\n", "{at:?}");
    }
}

/// R1, D1
#[test]
fn only_tcp_sockets_are_left() {
    let at = allowing(&["*:*"]);
    assert_eq!(sockets(&at, "udp4"), "udp4 EPERM\n");
    assert_eq!(run(&at, &[&word("attempt"), "fast-open"]).success(), "EPERM\n");
    assert_eq!(run(&at, &[&word("attempt"), "unix-server", "/tmp/never"]).success(), "EPERM\n");
    for (user, place) in EVERYWHERE {
        let at = Run::new(user, place).options(["--net-allow", "*:*", "--allow", "unix"]);
        run(&at, &["true"]).refused("options", &["leave one of them out"]);
    }
    // A connected pair stays one.
    let pair = sockets(&at, "pair connect=x:01002f746d702f78 bind=x:01002f746d702f78 send=x");
    assert!(
        pair.contains("bind=x:01002f746d702f78 EACCES") && pair.ends_with("send=x ok\n"),
        "{pair}"
    );
}

/// C6
#[test]
fn no_option_sends_elsewhere_than_the_address_says() {
    let outcome = run(&allowing(&["*:*"]), &[&word("reroute"), "stream"]);
    assert_eq!(outcome.success().lines().count(), 17);
    assert!(outcome.stdout.lines().all(|line| line.ends_with(" EPERM")), "{outcome:?}");
}

// Events.

fn events(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).expect(line)).collect()
}

#[test]
fn each_denial_is_an_event() {
    let scratch = Scratch::new("events");
    let directory = scratch.path().to_str().unwrap();
    for at in everywhere() {
        let file = scratch.file("events");
        let at = at.bwrap(["--bind", directory, directory]).options([
            "--net-allow",
            PROXY,
            "--events",
            &file,
        ]);
        let words = "tcp4 connect=127.0.0.1:3128 tcp4 connect=127.0.0.2:3128 tcp6 \
                     connect=[::ffff:127.0.0.1]:8080 tcp6 connect=[fe80::1%1]:80 tcp4 bind=0.0.0.0:7000 listen=1 \
                     connect=unspec";
        sockets(&at, words);
        let events = events(&fs::read_to_string(&file).unwrap());
        let told: Vec<_> = events
            .iter()
            .map(|event| {
                let text = |key: &str| event[key].as_str().unwrap().to_owned();
                [text("syscall"), text("destination"), text("rule")].join(" ")
            })
            .collect();
        let expected = [
            "connect 127.0.0.2:3128 --net-allow",
            "connect 127.0.0.1:8080 --net-allow",
            "connect [fe80::1%1]:80 --net-allow",
            "bind 0.0.0.0:7000 --net-bind",
            "listen 0.0.0.0:0 --net-bind",
        ];
        assert_eq!(told, expected, "{at:?}");
        let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs_f64();
        for event in &events {
            assert_eq!(event["pid"], 2, "{at:?}");
            assert!((now - event["time"].as_f64().unwrap()).abs() < 600.0, "{event}");
            assert_eq!(event.as_object().unwrap().len(), 5, "{event}");
        }
        fs::remove_file(file).unwrap();
    }
}

/// A descriptor of the test's own for events, as number 9.
fn with_events(run: &Run, command: &[&str], descriptor: impl AsFd) -> Command {
    let mut command = beside_pod(run.words(command));
    inherit(&mut command, descriptor, 9);
    command
}

#[test]
fn events_that_nobody_reads_block_nothing_and_are_counted() {
    let (reader, writer) = pipe2(OFlag::O_CLOEXEC).unwrap();
    fcntl(&writer, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).unwrap();
    while nix::unistd::write(&writer, &[b'\n'; 512]).is_ok() {}
    // As others use the same end, it blocks for them.
    fcntl(&writer, FcntlArg::F_SETFL(OFlag::empty())).unwrap();

    let script = r#""$1" tcp4 connect=127.0.0.1:1 connect=127.0.0.1:2 connect=127.0.0.1:3
        echo denied; read line; "$1" tcp4 connect=127.0.0.1:4 connect=127.0.0.1:5"#;
    let at = ordinary().options(["--net-none", "--events-fd", "9"]);
    let mut command = with_events(&at, &["sh", "-c", script, "sh", &word("socket")], &writer);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    for port in 1..=3 {
        assert_eq!(line(&mut child), format!("connect=127.0.0.1:{port} EACCES"));
    }
    assert_eq!(line(&mut child), "denied");
    drop(writer);
    let mut reader = BufReader::new(std::fs::File::from(reader));
    // The filling, to its last byte.
    let mut filling = vec![0; 65536];
    reader.read_exact(&mut filling).unwrap();
    assert!(filling.iter().all(|byte| *byte == b'\n'));
    child.stdin.take().unwrap().write_all(b"go\n").unwrap();
    let mut lines = reader.lines();
    let event: Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
    assert_eq!((&event["destination"], &event["dropped"]), (&"127.0.0.1:4".into(), &3.into()));
    let event: Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
    assert_eq!((&event["destination"], &event["dropped"]), (&"127.0.0.1:5".into(), &Value::Null));
    assert!(child.wait().unwrap().success());
}

/// The limits of a process of one's own user may be lowered, whatever else keeps it off.
#[test]
fn the_supervisor_cannot_be_silenced_by_limits() {
    let scratch = Scratch::new("limits");
    let directory = scratch.path().to_str().unwrap();
    let script = r#"for limit in fsize nofile as cpu; do prlimit --pid 1 --$limit=0:0 2> /dev/null; echo $?; done
        prlimit --pid 1 --nofile > /dev/null && (ulimit -n 100; "$1" tcp4 connect=127.0.0.1:1)"#;
    for at in everywhere() {
        let events = scratch.file("events");
        let at =
            at.bwrap(["--bind", directory, directory]).options(["--net-none", "--events", &events]);
        let outcome = run(&at, &["sh", "-c", script, "sh", &word("socket")]);
        let expected = "1\n1\n1\n1\nconnect=127.0.0.1:1 EACCES\n";
        assert_eq!(outcome.success(), expected, "{at:?} {outcome:?}");
        assert_eq!(fs::read_to_string(&events).unwrap().lines().count(), 1, "{at:?}");
        fs::remove_file(events).unwrap();
    }
}

#[test]
fn a_reader_of_events_that_has_gone_is_not_missed() {
    let (reader, writer) = pipe2(OFlag::O_CLOEXEC).unwrap();
    drop(reader);
    let at = ordinary().options(["--net-none", "--events-fd", "9"]);
    let program = word("socket");
    let words = [&*program, "tcp4", "connect=127.0.0.1:1", "connect=127.0.0.1:2"];
    let outcome = Outcome::of(&mut with_events(&at, &words, &writer));
    assert_eq!(outcome.success().lines().count(), 2);
    assert!(outcome.success().lines().all(|line| line.ends_with("EACCES")), "{outcome:?}");
}

/// Events and the output of the command at the same place of one file.
#[test]
fn events_in_a_file_that_others_write_to_overwrite_nothing() {
    let scratch = Scratch::new("log");
    let log = scratch.write("log", "");
    let script = format!("exec \"$@\" > {log} 2>&1");
    let at = ordinary().before(["sh", "-c", &script, "sh"]);
    fs::set_permissions(&log, PermissionsExt::from_mode(0o666)).unwrap();
    let at = at.options(["--net-none", "--events-fd", "2"]);
    let words = [&word("socket"), "tcp4", "connect=127.0.0.1:1", "connect=127.0.0.1:2"];
    assert_eq!(run(&at, &words).code, 0);
    let text = fs::read_to_string(&log).unwrap();
    let (told, said): (Vec<_>, Vec<_>) = text.lines().partition(|line| line.starts_with('{'));
    assert_eq!(said, ["connect=127.0.0.1:1 EACCES", "connect=127.0.0.1:2 EACCES"], "{text}");
    let told: Vec<_> = events(&told.join("\n"));
    assert_eq!(told.len(), 2);
    assert_eq!(told[1]["destination"], "127.0.0.1:2");
}

#[test]
fn the_command_cannot_write_events() {
    let at = ordinary().options(["--net-none", "--events-fd", "9", "--keep-fd", "9"]);
    let null = fs::File::options().write(true).open("/dev/null").unwrap();
    let outcome = Outcome::of(&mut with_events(&at, &["true"], &null));
    outcome.refused("plan", &[]);
    assert!(outcome.stderr.contains("--events-fd 9"), "{outcome:?}");
}

#[test]
fn what_cannot_listen_says_so_as_without_us() {
    let at = allowing(&["udp://127.0.0.1:53"]);
    if run(&at, &["true"]).refused_without(WaitKillableRecv) {
        return;
    }
    let words = "udp4 bind=127.0.0.1:7000 listen=1";
    assert_eq!(sockets(&at, words), without_us(words));
    assert!(sockets(&at, words).ends_with("listen=1 EOPNOTSUPP\n"));
}
