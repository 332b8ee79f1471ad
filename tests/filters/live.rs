//! The programs in the kernel of this machine.

use std::ffi::OsString;
use std::sync::atomic::{AtomicU32, Ordering};

use nix::errno::Errno;

use super::bpf::{self, Data, Program};
use super::spec::{Arch, NOTIFY, denying};
use crate::compiled;
use crate::support::scratch::Scratch;
use crate::support::{BWRAP, Outcome, contained, probe};

/// Runs a command in a bubblewrap that installs these programs one by one, without sbx-init.
fn filtered<S: Into<OsString>>(
    programs: &[&[u8]],
    command: impl IntoIterator<Item = S>,
) -> Outcome {
    static RUNS: AtomicU32 = AtomicU32::new(0);
    let scratch = Scratch::new(&format!("filtered-{}", RUNS.fetch_add(1, Ordering::Relaxed)));
    let mut script = r#"exec "$@""#.to_owned();
    let mut options = vec![];
    for (fd, program) in (3..).zip(programs) {
        script += &format!(" {fd}<'{}'", scratch.write(&fd.to_string(), program));
        options.extend(["--add-seccomp-fd".to_owned(), fd.to_string()]);
    }
    let mut contained = contained();
    contained.args(["sh", "-c", &script, "sh"]).args(BWRAP).args(options).arg("--");
    contained.args(command.into_iter().map(Into::into));
    Outcome::new(contained.output().expect("timeout(1) is installed"))
}

/// A program that allows everything.
fn harmless() -> [u8; 8] {
    bpf::sock_filter(0x06, 0, 0, bpf::ALLOW)
}

/// Raw calls in one bubblewrap with these programs, each as `probe` reports it.
fn calls(programs: &[&[u8]], calls: &[String]) -> Vec<String> {
    let script: String = calls.iter().map(|call| format!("\"$0\" call {call}\n")).collect();
    let outcome = filtered(programs, ["sh", "-c", &script, &probe()]);
    let results: Vec<_> = outcome.success().lines().map(str::to_owned).collect();
    assert_eq!(results.len(), calls.len(), "{outcome:?}");
    results
}

/// A call by name, with its arguments behind it.
fn numbered(call: &str) -> String {
    let (name, arguments) = call.split_once(' ').unwrap();
    format!("{} {arguments}", Arch::NATIVE.number(name).unwrap())
}

/// For each program a call that it denies and one next to it that it lets through. Neither ends
/// so in a kernel without the filter: bad descriptors and addresses give other errors.
const CALLS: [(&str, &str, &str); 17] = [
    ("io-uring", "io_uring_enter -1", "epoll_create1 0"),
    ("families", "socket 40 1 0", "socket 1 2 0"),
    ("unix", "socket 1 1 0", "socketpair 1 1 0 0"),
    ("tty", "ioctl -1 0x5412", "ioctl -1 0x5413"),
    ("keys", "keyctl 0 0 0", "getpid 0"),
    ("udp", "socket 2 2 0", "socket 2 1 0"),
    ("fast-open", "sendto -1 0 0 0x20000000", "socket 2 2 0"),
    ("ulp", "setsockopt -1 6 31 0 0", "setsockopt -1 6 1 0 0"),
    ("reroute", "setsockopt -1 1 25 0 0", "setsockopt -1 1 2 0 0"),
    ("icmp-errors", "setsockopt -1 0 11 0 0", "setsockopt -1 0 8 0 0"),
    ("userns", "setns -1 0", "unshare 0x400"),
    ("kernel", "personality 8", "personality 0x40000"),
    ("trace", "pidfd_getfd -1 0 0", "pidfd_open 1 0"),
    ("limits", "prlimit64 1 7 8 0", "prlimit64 0 7 0 0"),
    ("memfd", "memfd_create 0 0", "execveat -1 0 0 0 0"),
    ("listener", "seccomp 1 8 0", "seccomp 1 0 0"),
    ("default", "socket 1 1 0", "socket 2 1 0"),
];

#[test]
fn the_kernel_takes_each_program_and_denies_with_it_what_it_would_else_do() {
    assert!(denying().eq(CALLS.map(|(group, ..)| group)));
    for (group, denied, allowed) in CALLS {
        let both = [numbered(denied), numbered(allowed)];
        let with = calls(&[&compiled(group, Arch::NATIVE)], &both);
        let without = calls(&[&harmless()], &both);
        let denial = if group == "icmp-errors" { "ok 0" } else { "EPERM" };
        assert_eq!(with[0], denial, "{group}");
        assert_ne!(without[0], denial, "{group}");
        assert_ne!(with[1], "EPERM", "{group}");
        assert_eq!(with[1], without[1], "{group}");
    }
}

/// Calls, each with the programs that notify it.
const NOTIFIED: [(&str, &[&str]); 21] = [
    ("listen -1 0", &NOTIFY),
    ("connect -1 0 0", NOTIFY_TCP),
    ("bind -1 0 0", NOTIFY_TCP),
    ("sendto -1 0 0 0 1 0", NOTIFY_UDP),
    ("sendto -1 0 0 0 0x100000000 0", NOTIFY_UDP),
    ("sendmsg -1 0 0", NOTIFY_UDP),
    ("sendmmsg -1 0 0 0", NOTIFY_UDP),
    ("socket 2 2 0", &["notify-udp", "notify-broker-tcp"]),
    ("socket 10 0x80802 17", &["notify-udp", "notify-broker-tcp"]),
    ("socket 2 1 0", &["notify-broker-tcp"]),
    ("socket 10 0x80801 6", &["notify-broker-tcp"]),
    ("setsockopt -1 0 50 0 0", &[]),
    ("socket 1 2 0", &[]),
    ("socket 16 3 0", &["notify-broker-tcp"]),
    ("sendto -1 0 0 0 0 16", &[]),
    ("recvfrom -1 0 0 0 1 1", &[]),
    ("recvmsg -1 0 0", &[]),
    ("recvmmsg -1 0 0 0 0", &[]),
    ("read -1 0 0", &[]),
    ("write -1 0 0", &[]),
    ("accept4 -1 0 0 0", &[]),
];
const NOTIFY_TCP: &[&str] = &["notify-tcp", "notify-udp", "notify-broker-tcp"];
const NOTIFY_UDP: &[&str] = &["notify-udp"];

/// Without a listener, a notification ends with ENOSYS: none of these calls does so by itself.
#[test]
fn the_kernel_takes_each_notify_program_and_notifies_these_calls_and_no_others() {
    let all = NOTIFIED.map(|(call, _)| numbered(call));
    let without = calls(&[&harmless()], &all);
    assert!(!without.iter().any(|result| result == "ENOSYS"), "{without:?}");
    for program in NOTIFY {
        let with = calls(&[&compiled(program, Arch::NATIVE)], &all);
        for (index, (call, by)) in NOTIFIED.iter().enumerate() {
            let expected = if by.contains(&program) { "ENOSYS" } else { &without[index] };
            assert_eq!(with[index], expected, "{program}: {call}");
        }
    }
}

/// No program hides another: an errno outranks a notification, whichever came first.
#[test]
fn a_call_that_a_group_denies_is_denied_and_not_notified() {
    let groups = ["families", "udp", "fast-open"].map(|group| compiled(group, Arch::NATIVE));
    let notify = ["notify-udp", "notify-broker-tcp"].map(|name| compiled(name, Arch::NATIVE));
    let [families, udp, fast_open] = groups.each_ref().map(Vec::as_slice);
    let [notify_udp, broker] = notify.each_ref().map(Vec::as_slice);
    let both = ["socket 2 3 255", "socket 2 2 0", "sendto -1 0 0 0x20000000 1", "socket 2 1 0"];
    let expected = ["EPERM", "EPERM", "EPERM", "ENOSYS"];
    let both = both.map(numbered);
    assert_eq!(calls(&[families, udp, fast_open, notify_udp, broker], &both), expected);
    assert_eq!(calls(&[notify_udp, broker, families, udp, fast_open], &both), expected);
    assert_eq!(calls(&[notify_udp, broker], &both), ["ENOSYS"; 4]);
    // IP_LOCAL_PORT_RANGE, which nobody is asked about.
    assert_eq!(calls(&[broker], &[numbered("setsockopt -1 0 51 0 0")]), ["EACCES"]);
}

#[test]
fn the_merged_program_lets_ordinary_programs_and_internet_sockets_work() {
    let program = compiled("default", Arch::NATIVE);
    assert_eq!(filtered(&[&program], ["true"]).code, 0);
    let results = calls(&[&program], &["socket 1 1 0", "socket 2 1 0"].map(numbered));
    assert_eq!(results[0], "EPERM");
    assert!(results[1].starts_with("ok "), "{results:?}");
}

/// Otherwise a program could pass here that no kernel loads, or loads as something else.
#[test]
fn the_kernel_refuses_what_the_loader_refuses() {
    for (what, instructions) in bpf::checks::malformed() {
        let outcome = filtered(&[instructions.as_flattened()], ["true"]);
        assert_ne!(outcome.code, 0, "{what}");
        assert!(outcome.stderr.contains("EINVAL"), "{what}: {outcome:?}");
    }
    assert_eq!(filtered(&[&harmless()], ["true"]).code, 0);
}

/// One program with most instructions that there are, on a few operands: the kernel answers with
/// the errno that the interpreter computes.
#[test]
fn the_kernel_and_the_interpreter_run_a_program_alike() {
    /// No architecture has such a call.
    const NR: u32 = 1000;
    let step = bpf::sock_filter;
    let load = |argument| step(0x20, 0, 0, 4 * Data::low_half(argument) as u32);
    let program = [
        step(0x20, 0, 0, 0),
        step(0x15, 1, 0, NR),
        step(0x06, 0, 0, bpf::ALLOW),
        load(0),
        step(0x02, 0, 0, 3),           // M[3] = A
        load(1),                       //
        step(0x07, 0, 0, 0),           // X = A
        step(0x60, 0, 0, 3),           // A = M[3]
        step(0x0c, 0, 0, 0),           // A += X
        step(0x24, 0, 0, 0x9e37_79b1), // A *= k
        step(0xac, 0, 0, 0),           // A ^= X
        step(0x34, 0, 0, 7),           // A /= k
        step(0x1c, 0, 0, 0),           // A -= X
        step(0x64, 0, 0, 5),           // A <<= k
        step(0x4c, 0, 0, 0),           // A |= X
        step(0x74, 0, 0, 3),           // A >>= k
        step(0x84, 0, 0, 0),           // A = -A
        step(0x25, 1, 0, 0xf000_0000), // A > k ?
        step(0x04, 0, 0, 77),          // A += k
        step(0x3d, 0, 1, 0),           // A >= X ?
        step(0x44, 0, 0, 0x0101),      // A |= k
        step(0x4d, 1, 0, 0),           // A & X ?
        step(0xa4, 0, 0, 0x5555),      // A ^= k
        step(0x05, 0, 0, 1),           // skip one
        step(0x06, 0, 0, 0),           //
        step(0x2c, 0, 0, 0),           // A *= X
        step(0x03, 0, 0, 15),          // M[15] = X
        step(0x61, 0, 0, 15),          // X = M[15]
        step(0x6c, 0, 0, 0),           // A <<= X
        step(0x14, 0, 0, 99),          // A -= k
        step(0x02, 0, 0, 0),           // M[0] = A
        step(0x81, 0, 0, 0),           // X = 64
        step(0x87, 0, 0, 0),           // A = X
        step(0x61, 0, 0, 0),           // X = M[0]
        step(0x0c, 0, 0, 0),           // A += X
        step(0x02, 0, 0, 0),           // M[0] = A
        load(2),                       //
        step(0x07, 0, 0, 0),           // X = A
        step(0x60, 0, 0, 0),           // A = M[0]
        step(0x7c, 0, 0, 0),           // A >>= X
        step(0x54, 0, 0, 0x1f),        // A &= k
        step(0x44, 0, 0, 0x0005_0000), // SECCOMP_RET_ERRNO
        step(0x16, 0, 0, 0),           // return A
    ];
    let operands =
        [(0, 0), (1, 33), (7, 3), (0xdead_beef, 0x1234_5678), (0xffff_ffff, 0x8000_0001)];
    let shifts = [0u64, 5, 10, 15, 20, 25, 30, 37];
    let arguments: Vec<_> =
        operands.iter().flat_map(|(a, b)| shifts.map(|shift| [*a, *b, shift, 0, 0, 0])).collect();
    let words = arguments.iter().map(|[a, b, shift, ..]| format!("{NR} {a} {b} {shift}"));
    let got = calls(&[program.as_flattened()], &words.collect::<Vec<_>>());

    let interpreted = Program::load(program.as_flattened()).unwrap();
    let expected = arguments.iter().map(|arguments| {
        let result = interpreted.run(&Data::new(NR, Arch::NATIVE.audit(), arguments));
        assert_eq!(result & 0xffff_0000, 0x0005_0000);
        match result as i32 & 0xffff {
            0 => "ok 0".to_owned(),
            errno => format!("{:?}", Errno::from_raw(errno)),
        }
    });
    assert_eq!(got, expected.collect::<Vec<_>>());
}

/// B4. On aarch64 there is no second gate that a 64-bit program can call through.
#[cfg(target_arch = "x86_64")]
mod i386 {
    use crate::support::{EVERYWHERE, Outcome, Run, contained, fixture};

    #[test]
    fn a_native_program_that_calls_through_the_i386_gate_is_killed() {
        let outcome = Outcome::new(contained().arg(fixture("int80")).output().unwrap());
        assert!(outcome.success().starts_with("pid "), "{outcome:?}");
        for (user, place) in EVERYWHERE {
            let outcome = Run::new(user, place).run([fixture("int80")]);
            assert_eq!(outcome.code, 128 + libc::SIGSYS, "{place:?} {outcome:?}");
            assert_eq!(outcome.stdout, "");
        }
    }
}
