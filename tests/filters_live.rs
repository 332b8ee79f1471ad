//! The filters that are on by default, in a running workload.

mod support;

use libc::{
    AF_INET, AF_INET6, AF_NETLINK, AF_UNIX, SOCK_DGRAM, SOCK_RAW, SOCK_SEQPACKET, SOCK_STREAM,
};
use support::{EVERYWHERE, Place, Run, User, word};

fn ordinary() -> Run {
    Run::new(User::Ordinary, Place::Standalone)
}

fn socket(run: &Run, family: i32, kind: i32, protocol: i32) -> String {
    let arguments = [family, kind, protocol].map(|number| number.to_string());
    run.call(libc::SYS_socket, &arguments.each_ref().map(String::as_str))
}

fn attempt(run: &Run, words: &[&str]) -> String {
    let mut command = vec![word("attempt")];
    command.extend(words.iter().map(ToString::to_string));
    run.run(command).success().trim().to_owned()
}

/// B1
#[test]
fn a_unix_socket_is_refused_and_a_connected_pair_is_not() {
    for (user, place) in EVERYWHERE {
        let run = Run::new(user, place);
        for kind in [SOCK_STREAM, SOCK_DGRAM, SOCK_SEQPACKET, SOCK_STREAM | libc::SOCK_CLOEXEC] {
            assert_eq!(socket(&run, AF_UNIX, kind, 0), "EPERM", "{user:?} {place:?} {kind}");
        }
        for kind in [SOCK_STREAM, SOCK_SEQPACKET] {
            let kind = kind.to_string();
            assert_eq!(attempt(&run, &["pair", &kind]), "ok hello", "{user:?} {place:?} {kind}");
        }
    }
}

/// B1
#[test]
fn a_datagram_socketpair_cannot_reach_a_path() {
    let flags = libc::SOCK_CLOEXEC;
    for kind in [SOCK_DGRAM, SOCK_RAW, SOCK_DGRAM | flags, SOCK_RAW | flags] {
        let kind = kind.to_string();
        assert_eq!(attempt(&ordinary(), &["pair", &kind]), "EPERM", "{kind}");
        let allowed = ordinary().options(["--allow", "unix"]);
        assert_eq!(attempt(&allowed, &["pair", &kind]), "ok hello", "{kind}");
    }
    let kind = (SOCK_STREAM | flags).to_string();
    assert_eq!(attempt(&ordinary(), &["pair", &kind]), "ok hello");
}

/// N8
#[test]
fn unix_sockets_work_where_they_are_allowed() {
    let script = r#"mount -t tmpfs none /mnt; chmod 1777 /mnt; "$@""#;
    let server = [&*word("attempt"), "unix-server", "/mnt/socket"];
    for user in [User::Root, User::Ordinary] {
        let run = Run::new(user, Place::Standalone);
        assert_eq!(run.prepared(script, server).success(), "EPERM\n");
        let allowed = run.options(["--allow", "unix"]);
        assert_eq!(allowed.prepared(script, server).success(), "ok hello\n");
    }
}

/// B5: the kernel takes the low half of an int argument.
#[test]
fn the_high_half_of_an_argument_hides_nothing() {
    let run = ordinary();
    let high = |number: i32| format!("{:#x}", (1u64 << 32) | number as u64);
    let (unix, stream, datagram) = (high(AF_UNIX), high(SOCK_STREAM), high(SOCK_DGRAM));
    assert_eq!(run.call(libc::SYS_socket, &[&unix, &stream, "0"]), "EPERM");
    assert_eq!(run.call(libc::SYS_socketpair, &[&unix, &datagram, "0", "0"]), "EPERM");
    let inet = high(AF_INET);
    assert!(run.call(libc::SYS_socket, &[&inet, &stream, &high(0)]).starts_with("ok "));
}

/// B6
#[test]
fn io_uring_is_refused() {
    for (user, place) in EVERYWHERE {
        let run = Run::new(user, place);
        assert_eq!(run.call(libc::SYS_io_uring_setup, &["1", "0"]), "EPERM");
        assert_eq!(run.call(libc::SYS_io_uring_enter, &["-1", "0"]), "EPERM");
        assert_eq!(run.call(libc::SYS_io_uring_register, &["-1", "0"]), "EPERM");
    }
}

/// B7, N7: with the group off the kernel's answer is another one, where it lets ordinary users.
#[test]
fn other_socket_families_are_refused() {
    const SMC: i32 = 43;
    let run = ordinary();
    let off = ordinary().options(["--allow", "families"]);
    for family in [libc::AF_VSOCK, libc::AF_ALG, SMC, libc::AF_TIPC, libc::AF_CAN, libc::AF_RDS] {
        assert_eq!(socket(&run, family, SOCK_STREAM, 0), "EPERM", "{family}");
        assert_ne!(socket(&off, family, SOCK_STREAM, 0), "EPERM", "{family}");
    }
    assert_eq!(socket(&run, libc::AF_PACKET, SOCK_RAW, 0), "EPERM");
    assert_eq!(socket(&run, AF_NETLINK, SOCK_RAW, libc::NETLINK_AUDIT), "EPERM");
    assert_eq!(socket(&run, AF_NETLINK, SOCK_RAW, libc::NETLINK_KOBJECT_UEVENT), "EPERM");
    assert!(socket(&off, AF_NETLINK, SOCK_RAW, libc::NETLINK_KOBJECT_UEVENT).starts_with("ok"));
    assert!(socket(&run, AF_NETLINK, SOCK_RAW, libc::NETLINK_ROUTE).starts_with("ok"));
}

/// B7, N9
#[test]
fn other_internet_protocols_are_refused() {
    let run = ordinary();
    let off = ordinary().options(["--allow", "families"]);
    for family in [AF_INET, AF_INET6] {
        assert_eq!(socket(&run, family, SOCK_RAW, libc::IPPROTO_TCP), "EPERM");
        for (kind, protocol) in [
            (SOCK_STREAM, libc::IPPROTO_SCTP),
            (SOCK_SEQPACKET, libc::IPPROTO_SCTP),
            (SOCK_DGRAM, libc::IPPROTO_UDPLITE),
        ] {
            assert_eq!(socket(&run, family, kind, protocol), "EPERM", "{family} {protocol}");
            assert_ne!(socket(&off, family, kind, protocol), "EPERM", "{family} {protocol}");
        }
        let mptcp = socket(&run, family, SOCK_STREAM, libc::IPPROTO_MPTCP);
        assert_eq!(mptcp, "EPROTONOSUPPORT");
        for (kind, protocol) in [
            (SOCK_STREAM, 0),
            (SOCK_STREAM, libc::IPPROTO_TCP),
            (SOCK_STREAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK, 0),
            (SOCK_DGRAM, 0),
            (SOCK_DGRAM, libc::IPPROTO_UDP),
        ] {
            assert!(socket(&run, family, kind, protocol).starts_with("ok"), "{family} {protocol}");
        }
    }
}

/// N7
#[test]
fn the_internet_works() {
    for (user, place) in EVERYWHERE {
        let run = Run::new(user, place);
        assert_eq!(attempt(&run, &["tcp"]), "ok hello", "{user:?} {place:?}");
        assert_eq!(attempt(&run, &["udp"]), "ok hello", "{user:?} {place:?}");
        assert_eq!(attempt(&run, &["interfaces"]), "ok some", "{user:?} {place:?}");
    }
}

/// A11: the kernel takes the low half of the command; with the group off it answers ENOTTY, EIO
/// (sysctl dev.tty.legacy_tiocsti) or does it.
#[test]
fn input_cannot_be_faked_into_a_terminal() {
    // As numbers, since the type of libc's constants differs between C libraries.
    const TIOCSTI: u64 = 0x5412;
    const TIOCLINUX: u64 = 0x541c;
    const TIOCGWINSZ: u64 = 0x5413;
    for command in [TIOCSTI, TIOCLINUX] {
        for high in [0, 1 << 32, 0x8000_0000 << 32, 0xffff_ffff << 32] {
            let number = (command | high).to_string();
            for (user, place) in [(User::Ordinary, Place::Standalone), (User::Root, Place::Bwrap)] {
                let run = Run::new(user, place);
                assert_eq!(attempt(&run, &["terminal", &number]), "EPERM", "{number}");
            }
            let allowed = ordinary().options(["--allow", "tty"]);
            assert_ne!(attempt(&allowed, &["terminal", &number]), "EPERM", "{number}");
        }
    }
    let window_size = TIOCGWINSZ.to_string();
    assert_eq!(attempt(&ordinary(), &["terminal", &window_size]), "ok done");
}

/// B3: what is refused is refused with an errno, not with a signal; -1 is a tracer's.
#[cfg(target_arch = "x86_64")]
#[test]
fn x32_calls_do_not_exist() {
    const X32: i64 = 0x4000_0000;
    for number in [libc::SYS_getpid, libc::SYS_socket, libc::SYS_io_uring_setup] {
        assert_eq!(ordinary().call(X32 | number, &["1", "1", "0"]), "ENOSYS");
    }
    assert_eq!(ordinary().call(-1, &[]), "ENOSYS");
    assert!(ordinary().call(libc::SYS_getpid, &[]).starts_with("ok"));
}

/// B8
#[test]
fn a_workload_may_add_filters_of_its_own() {
    let new_listener = libc::SECCOMP_FILTER_FLAG_NEW_LISTENER.to_string();
    let all_threads = libc::SECCOMP_FILTER_FLAG_TSYNC.to_string();
    for (user, place) in EVERYWHERE {
        for flags in ["0", &new_listener, &all_threads] {
            let outcome = attempt(&Run::new(user, place), &["own-filter", flags]);
            assert_eq!(outcome, "ok Err(ENOTTY) Err(EPERM)", "{user:?} {place:?} {flags}");
        }
    }
}
