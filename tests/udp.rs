//! The network policy for UDP: where datagrams go to and come from, and that calls are otherwise as
//! without us.
//!
//! Each run has a network namespace of its own, with the servers of the fixtures `pod` and `sink`.

mod support;

use std::net::UdpSocket;

use support::kernel::{LANDLOCK_SCOPES, WaitKillableRecv, kernel_has};
use support::process::inherit;
use support::programs::{PATH, need};
use support::scratch::Scratch;
use support::{
    EVERYWHERE, Outcome, Place, Run, User, become_user, beside_pod, fixture, tries, word,
};

const LISTED: &str = "127.0.0.1:7001";
const LISTED_V6: &str = "[::1]:7001";
const OTHER_ADDRESS: &str = "127.0.0.2:7001";
const OTHER_PORT: &str = "127.0.0.1:7002";

/// Runs a command beside the servers. Each sink's counts stand on standard error.
fn beside<S: AsRef<std::ffi::OsStr>>(words: impl IntoIterator<Item = S>) -> Outcome {
    let mut command = beside_pod([fixture("sink")]);
    command.args([LISTED, LISTED_V6, OTHER_ADDRESS, OTHER_PORT, "--"]).args(words);
    Outcome::of(&mut command)
}

fn run(at: &Run, command: &[&str]) -> Outcome {
    beside(at.words(command))
}

fn datagram(at: &Run, words: &str) -> Outcome {
    let program = word("datagram");
    let outcome = run(at, &[&[&*program], &*words.split(' ').collect::<Vec<_>>()].concat());
    outcome.success();
    outcome
}

fn without_us(words: &str) -> Outcome {
    let mut command = become_user(User::Ordinary);
    command.push(fixture("datagram").into());
    command.extend(words.split(' ').map(Into::into));
    let outcome = beside(command);
    outcome.success();
    outcome
}

/// How many datagrams a sink has got, and how many different ones.
fn got(outcome: &Outcome, address: &str) -> (u64, u64) {
    let begin = format!("sink {address} got ");
    let line = outcome.stderr.lines().find_map(|line| line.strip_prefix(&begin));
    let (all, different) = line.unwrap().split_once(" different ").unwrap();
    (all.parse().unwrap(), different.parse().unwrap())
}

fn plain() -> Run {
    Run::new(User::Ordinary, Place::Standalone)
}

fn allowing(at: Run) -> Run {
    [LISTED, LISTED_V6]
        .iter()
        .fold(at, |at, address| at.options(["--net-allow", &format!("udp://{address}")]))
}

/// The policy, where the kernel can keep it; the test is over where it cannot.
macro_rules! policy {
    () => {{
        let at = allowing(plain());
        if at.refused_without(WaitKillableRecv) {
            return;
        }
        at
    }};
}

// Where datagrams go to.

#[test]
fn exactly_the_listed_destinations_are_sent_to() {
    let _ = policy!();
    for (user, place) in EVERYWHERE {
        let at = allowing(Run::new(user, place).bwrap(["--share-net"]));
        let outcome =
            datagram(&at, &format!("each {LISTED} {OTHER_ADDRESS} {OTHER_PORT} {LISTED_V6}"));
        let expect = |address: &str, is_listed: bool| {
            for call in ["sendto", "sendmsg", "sendmmsg", "connect", "send"] {
                let begin = format!("{call} {address} ");
                let line = outcome.stdout.lines().find_map(|line| line.strip_prefix(&begin));
                let denied = matches!(line.unwrap(), "EACCES" | "EDESTADDRREQ");
                assert_eq!(!denied, is_listed, "{user:?} {place:?} {call} {address} {outcome:?}");
            }
        };
        expect(LISTED, true);
        expect(LISTED_V6, true);
        expect(OTHER_ADDRESS, false);
        expect(OTHER_PORT, false);
        assert_eq!(got(&outcome, LISTED).0, 4);
        assert_eq!(got(&outcome, LISTED_V6).0, 4);
        assert_eq!(got(&outcome, OTHER_ADDRESS).0, 0);
        assert_eq!(got(&outcome, OTHER_PORT).0, 0);
    }
}

#[test]
fn without_a_namespace_too() {
    let _ = policy!();
    for place in [Place::Standalone, Place::Bwrap, Place::BwrapSysAdmin] {
        let at = Run::new(User::Ordinary, place)
            .bwrap(["--share-net"])
            .options(["--isolation", "domain"]);
        let at = allowing(at);
        if at.refused_without(LANDLOCK_SCOPES) {
            continue;
        }
        let outcome = datagram(&at, &format!("each {LISTED} {OTHER_ADDRESS}"));
        assert_eq!(got(&outcome, LISTED).0, 4, "{outcome:?}");
        assert_eq!(got(&outcome, OTHER_ADDRESS).0, 0, "{outcome:?}");
    }
}

/// C4, C5
#[test]
fn every_spelling_of_an_address_is_that_address() {
    let at = policy!();
    for allowed in
        ["0.0.0.0:7001", "unspec=127.0.0.1:7001", "v6=[::ffff:127.0.0.1]:7001", "v6=127.0.0.1:7001"]
    {
        let outcome = datagram(&at, &format!("each {allowed}"));
        assert_eq!(got(&outcome, LISTED).0, 4, "{outcome:?}");
    }
    for denied in ["unspec=127.0.0.2:7001", "v6=[::ffff:127.0.0.2]:7001", "v6=127.0.0.2:7001"] {
        let outcome = datagram(&at, &format!("each {denied}"));
        assert_eq!(got(&outcome, OTHER_ADDRESS).0, 0, "{outcome:?}");
        assert!(outcome.stdout.contains("EACCES"), "{outcome:?}");
    }
}

/// C1, C2
#[test]
fn a_destination_that_changes_meanwhile_reaches_no_other_one() {
    let at = policy!();
    for (what, call) in [
        ("address", "sendto"),
        ("address", "sendmsg"),
        ("port", "sendmmsg"),
        ("descriptor", "sendmsg"),
        ("family", "sendto"),
    ] {
        let outcome = datagram(&at, &format!("flip {what} {call} {}", tries()));
        eprintln!("{what} {call}: {}", outcome.stdout.trim());
        assert_eq!(got(&outcome, OTHER_ADDRESS).0, 0, "{what} {call}");
        assert_eq!(got(&outcome, OTHER_PORT).0, 0, "{what} {call}");
        assert!(!outcome.stdout.contains("denied 0\n"), "{what} {call}");
        // The honest half has been sent.
        assert_eq!(got(&outcome, LISTED).0 > 0, what != "family", "{what} {call}");
    }
}

/// C16
#[test]
fn messages_are_sent_up_to_the_first_that_is_denied() {
    let at = policy!();
    let words = format!("many {LISTED} {OTHER_ADDRESS}");
    let denied = ["third", "first"];
    let lines = |outcome: &Outcome| -> Vec<String> {
        let is_own = |line: &&str| !denied.iter().any(|name| line.starts_with(name));
        outcome.stdout.lines().filter(is_own).map(Into::into).collect()
    };
    let outcome = datagram(&at, &words);
    assert_eq!(lines(&outcome), lines(&without_us(&words)));
    for line in ["third 2", "third [5, 5, 99, 99]", "first EACCES", "first [99, 99]"] {
        assert!(outcome.stdout.lines().any(|own| own == line), "{line}: {outcome:?}");
    }
    assert_eq!(got(&outcome, OTHER_ADDRESS).0, 0);
}

/// C6
#[test]
fn control_messages_that_reroute_are_refused() {
    let at = policy!();
    let harmless = ["UDP_SEGMENT", "IP_TOS", "IP_TTL", "IPV6_TCLASS", "IPV6_HOPLIMIT", "left over"];
    for address in [LISTED, LISTED_V6] {
        let outcome = datagram(&at, &format!("control {address}"));
        let native = without_us(&format!("control {address}"));
        assert_eq!(outcome.stdout.lines().count(), native.stdout.lines().count());
        for (line, without) in outcome.stdout.lines().zip(native.stdout.lines()) {
            let (name, result) = line.rsplit_once(' ').unwrap();
            match name {
                // More than is looked at.
                "long" => assert_eq!(result, "ENOBUFS", "{address}"),
                "bad length" => assert_eq!(line, without, "{address}"),
                _ if harmless.contains(&name) => assert_eq!(line, without, "{address}"),
                _ => assert!(result == "EACCES" && line != without, "{line}, without us {without}"),
            }
        }
    }
}

// Where they come from.

#[test]
fn datagrams_of_others_never_arrive() {
    let at = policy!();
    for address in [LISTED, LISTED_V6] {
        let outcome = datagram(&at, &format!("receive {address}"));
        assert_eq!(outcome.stdout, format!("got \"all from {address}\"\nthen EAGAIN\n"));
    }
    // They are sent: the others' answers come first.
    let native = without_us(&format!("receive {LISTED}"));
    let other = format!("got \"all from {OTHER_ADDRESS}\"\n");
    assert!(native.stdout.contains(&other), "{native:?}");
}

#[test]
fn the_receive_filter_stays() {
    let at = policy!();
    let outcome = datagram(&at, &format!("unlock {LISTED}"));
    let answer = format!("got \"all from {LISTED}\"");
    let lines: Vec<_> = outcome.stdout.lines().collect();
    let expected = [
        "detach EPERM",
        "attach EPERM",
        "reuseport EPERM",
        "unlock EPERM",
        "detach EPERM",
        &answer,
    ];
    assert_eq!(lines, expected);
}

/// One that is inherited has no filter.
#[test]
fn a_datagram_socket_from_outside_is_refused() {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    for policy in ["udp://127.0.0.1:7001", "127.0.0.1:7001"] {
        let at = plain().options(["--net-allow", policy, "--keep-fd", "7"]);
        let mut command = at.command(["echo", "started"]);
        inherit(&mut command, &socket, 7);
        let outcome = Outcome::of(&mut command);
        outcome.refused("plan", &[]);
        assert!(outcome.stderr.contains("--keep-fd 7"), "{outcome:?}");
    }
}

// As without us.

#[test]
fn sockets_are_made_as_asked() {
    let at = policy!();
    let outcome = datagram(&at, "create");
    let mut native: Vec<String> = without_us("create").stdout.lines().map(Into::into).collect();
    // ICMP echo, which may be denied without us, too.
    for line in native.iter_mut().filter(|line| line.contains(" 2 ")) {
        *line = format!("{} EACCES", line.rsplit_once(' ').unwrap().0);
    }
    assert_eq!(outcome.stdout.lines().collect::<Vec<_>>(), native);
}

/// C12
#[test]
fn lengths_and_addresses_have_the_kernels_limits_and_errors() {
    let at = policy!();
    let words = format!("limits {LISTED}");
    let (outcome, native) = (datagram(&at, &words), without_us(&words));
    assert_eq!(outcome.stdout, native.stdout);
    assert_eq!(got(&outcome, LISTED), got(&native, LISTED));
}

/// Point 4, N1
#[test]
fn each_datagram_is_delivered_once_in_a_storm_of_signals() {
    let at = policy!();
    for restart in ["restart", "no-restart"] {
        let outcome = datagram(&at, &format!("storm {LISTED} 5000 {restart}"));
        assert_eq!(got(&outcome, LISTED), (5000, 5000), "{restart}");
    }
}

#[test]
fn a_stream_that_blocks_in_a_storm_of_signals_loses_and_doubles_nothing() {
    let at = policy!();
    for restart in ["restart", "no-restart"] {
        assert_eq!(datagram(&at, &format!("stream-storm {restart}")).stdout, "same true\n");
    }
}

#[test]
fn a_stream_takes_all_that_it_would() {
    let at = policy!();
    assert_eq!(datagram(&at, "stream").stdout, without_us("stream").stdout);
}

/// C14
#[test]
fn descriptors_pass_through_a_pair_of_sockets() {
    let at = policy!();
    let outcome = datagram(&at, "rights");
    assert_eq!(outcome.stdout, without_us("rights").stdout);
    assert!(outcome.stdout.contains("throughthrough"), "{outcome:?}");
}

/// N4
#[test]
fn a_broken_pipe_signals_who_has_called() {
    let at = policy!();
    let outcome = datagram(&at, "pipe");
    assert_eq!(outcome.stdout, without_us("pipe").stdout);
    assert!(
        outcome.stdout.contains("unix 1 signals\nunix quiet EPIPE\nunix quiet 0"),
        "{outcome:?}"
    );
}

// What is refused at the start.

#[test]
fn what_would_open_the_policy_is_no_option() {
    for group in ["reroute", "icmp-errors", "fast-open", "families", "unix", "listener"] {
        let outcome = run(&allowing(plain()).options(["--allow", group]), &["true"]);
        outcome.refused("options", &[]);
        assert!(outcome.stderr.contains(group), "{outcome:?}");
    }
    run(&allowing(plain()).options(["--deny", "udp"]), &["true"]).refused("options", &[]);
}

#[test]
fn more_addresses_than_a_filter_has_room_for_are_refused() {
    let _ = policy!();
    let rules = |count: u32| -> Vec<String> {
        let rule = |n| ["--net-allow".to_owned(), format!("udp://[2001:db8::{n:x}:1]:53")];
        (0..count).flat_map(rule).collect()
    };
    let outcome = run(&plain().options(rules(600)), &["echo", "started"]);
    outcome.refused("network", &["net.core.optmem_max"]);
    assert!(outcome.stderr.contains("600 addresses"), "{outcome:?}");
    assert_eq!(run(&plain().options(rules(150)), &["echo", "started"]).success(), "started\n");
}

/// Before Linux 5.19 a signal makes a call be made again.
#[test]
fn without_the_kernels_help_to_send_once_it_is_refused() {
    if kernel_has(WaitKillableRecv) {
        return assert!(run(&policy!(), &["true"]).code == 0);
    }
    run(&allowing(plain()), &["true"]).refused("plan", &["Linux 5.19"]);
}

// Programs.

/// A program of the machine.
#[track_caller]
fn program(at: &Run, words: &[&str]) -> Outcome {
    need(&words[..1]);
    run(&at.clone().before(["env", &format!("PATH={PATH}")]), words)
}

const DNS_CLIENT: &str = "
import socket, struct
query = struct.pack('>6H', 7, 0x100, 1, 0, 0, 0) + b'\\1a\\7example\\0' + struct.pack('>2H', 1, 1)
client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
client.settimeout(20)
client.sendto(query, ('127.0.0.1', 53))
print('.'.join(str(byte) for byte in client.recv(512)[-4:]))
try:
    client.sendto(query, ('127.0.0.2', 53))
except PermissionError as error:
    print(error.errno)
";

fn resolving(at: Run) -> Run {
    at.options(["--net-allow", "udp://127.0.0.1:53", "--net-allow", "udp://127.0.0.1:5000"])
}

#[test]
fn python_asks_a_name_server() {
    let at = resolving(plain());
    if at.refused_without(WaitKillableRecv) {
        return;
    }
    let outcome = program(&at, &["python3", "-c", DNS_CLIENT]);
    assert_eq!(outcome.success(), "192.0.2.1\n13\n", "{outcome:?}");
}

#[test]
fn python_passes_descriptors_to_its_children() {
    let at = resolving(plain());
    if at.refused_without(WaitKillableRecv) {
        return;
    }
    let script = "
import os, socket
near, far = socket.socketpair()
if os.fork() == 0:
    socket.send_fds(near, [b'with'], [1])
    os._exit(0)
text, fds, _, _ = socket.recv_fds(far, 10, 1)
os.write(fds[0], text + b'\\n')
";
    assert_eq!(program(&at, &["python3", "-c", script]).success(), "with\n");
}

const LOOK_UP: &str = "
import socket, sys
for _, kind, _, _, address in socket.getaddrinfo(sys.argv[1].encode(), 80):
    print(address[0], kind.name)
";

/// N6: getaddrinfo connects a datagram socket to each address that it has found.
#[test]
fn libcs_resolver_finds_names_and_its_probes_are_no_violations() {
    let scratch = Scratch::new("resolver");
    let events = scratch.write("events", "");
    std::fs::set_permissions(&events, std::os::unix::fs::PermissionsExt::from_mode(0o666)).unwrap();
    scratch.write("resolv.conf", "nameserver 127.0.0.1\n");
    let conf = scratch.file("resolv.conf");
    let script = format!(
        "[ -e /etc/resolv.conf ] || touch /etc/resolv.conf; mount --bind {conf} /etc/resolv.conf; exec \"$@\""
    );
    let at = |allow: &[&str]| {
        let at = plain().options(["--events", &events]);
        allow.iter().fold(at, |at, target| at.options(["--net-allow", target]))
    };
    let resolve = |at: &Run, name: &str| {
        let mut command = beside_pod(["sh", "-ec", &script, "sh"]);
        Outcome::of(command.args(at.words(["/usr/bin/python3", "-c", LOOK_UP, name])))
    };
    let with = at(&["udp://127.0.0.1:53"]);
    if !with.refused_without(WaitKillableRecv) {
        let outcome = resolve(&with, "a.example");
        assert!(outcome.success().starts_with("192.0.2.1 "), "{outcome:?}");
        let outcome = resolve(&with, "localhost");
        assert!(outcome.success().contains("STREAM"), "{outcome:?}");
    }
    // A datagram socket does not exist there.
    let without = at(&["127.0.0.1:53"]);
    assert!(resolve(&without, "localhost").success().contains("STREAM"));
    let outcome = resolve(&without, "a.example");
    assert!(outcome.stderr.contains("gaierror"), "{outcome:?}");
    assert_eq!(std::fs::read_to_string(&events).unwrap(), "");
}

#[test]
fn a_denied_send_is_reported() {
    let _ = policy!();
    let scratch = Scratch::new("events");
    let events = scratch.file("events");
    let at = allowing(plain()).options(["--events", &events]);
    datagram(&at, &format!("each {OTHER_ADDRESS}"));
    let text = std::fs::read_to_string(&events).unwrap();
    for call in ["sendto", "sendmsg", "sendmmsg"] {
        let line = text.lines().find(|line| line.contains(&format!("\"syscall\":\"{call}\"")));
        assert!(line.is_some_and(|line| line.contains(OTHER_ADDRESS)), "{text}");
    }
    assert_eq!(text.lines().count(), 3, "{text}");
}
