//! The network policy where a filter of the container's refuses pidfd_getfd(2) and
//! process_vm_readv(2): the supervisor makes the sockets itself.

mod support;

use support::kernel::{LANDLOCK_SCOPES, WaitKillableRecv};
use support::{Outcome, Place, Run, User, beside_pod, many, tries, word};

const PROXY: &str = "127.0.0.1:3128";

fn refusing(at: Run) -> Run {
    at.lacking(libc::SYS_pidfd_getfd, libc::EPERM).lacking(libc::SYS_process_vm_readv, libc::EPERM)
}

fn ordinary() -> Run {
    refusing(Run::new(User::Ordinary, Place::Standalone))
}

fn run(at: &Run, command: &[&str]) -> Outcome {
    Outcome::of(&mut beside_pod(at.words(command)))
}

fn python(at: &Run, script: &str) -> Outcome {
    run(at, &["python3", "-B", "-c", script])
}

#[test]
fn exactly_the_listed_socket_is_reached() {
    for (user, isolation) in
        [(User::Root, "namespaces"), (User::Ordinary, "namespaces"), (User::Ordinary, "domain")]
    {
        let at = refusing(Run::new(user, Place::Standalone));
        let at = at.options(["--isolation", isolation, "--net-allow", PROXY]);
        let fetch = |address| run(&at, &[&word("attempt"), "fetch", address]);
        let allowed = fetch(PROXY);
        if isolation == "domain" && allowed.refused_without(LANDLOCK_SCOPES) {
            continue;
        }
        let expected = format!("ok GET / HTTP/1.0 at {PROXY}");
        assert_eq!(allowed.success().trim(), expected, "{user:?} {isolation}");
        for address in ["127.0.0.1:8080", "127.0.0.2:3128", "[::1]:3128"] {
            assert_eq!(fetch(address).success().trim(), "EACCES", "{address} {user:?} {isolation}");
        }
    }
}

/// C1, C2
#[test]
fn what_flips_reaches_no_other() {
    for what in ["address", "descriptor"] {
        let at = ordinary().options(["--net-allow", "127.0.0.1:*"]);
        let outcome = run(&at, &[&word("flip"), what, &tries().to_string()]);
        let words: Vec<_> = outcome.success().split_whitespace().collect();
        let count = |name| {
            let at = words.iter().position(|word| *word == name).unwrap();
            words[at + 1].parse::<u64>().unwrap()
        };
        assert_eq!(count("unlisted"), 0, "{what}: {words:?}");
        assert!(count("listed") > 0 && count("denied") > 0, "{what}: {words:?}");
    }
}

/// The supervisor's duplicate keeps neither a port, nor a connection, nor itself for ever.
#[test]
fn a_socket_that_is_closed_is_gone() {
    let script = r#"
import socket
server = socket.socket(); server.bind(("127.0.0.1", 7000)); server.listen()
client = socket.create_connection(("127.0.0.1", 7000))
served = server.accept()[0]
client.close()
print(served.recv(1))
for _ in range(3):
    bound = socket.socket(); bound.bind(("127.0.0.1", 7001)); bound.close()
for _ in range(2500):
    socket.socket().close()
print(len(socket.if_nameindex()) > 0)"#;
    for limit in ["1024", "128"] {
        let at = ordinary().before(["prlimit", &format!("--nofile={limit}")]);
        let at = at.options(["--net-allow", "127.0.0.1:7000"]);
        assert_eq!(python(&at, script).success(), "b''\nTrue\n", "{limit}");
    }
}

/// On one CPU the caller often goes on before the thread that has handed the socket over.
#[test]
fn a_port_is_free_as_soon_as_its_socket_is_closed() {
    let script = format!(
        r#"
import socket
for _ in range({}):
    bound = socket.socket(); bound.bind(("127.0.0.1", 7001)); bound.close()
print("each")"#,
        many(4000)
    );
    let at = ordinary().before(["taskset", "--cpu-list", "0"]);
    let at = at.options(["--net-allow", "127.0.0.1:7000"]);
    assert_eq!(python(&at, &script).success(), "each\n");
}

/// C17
#[test]
fn a_socket_that_cannot_be_handed_over_is_the_kernels_error() {
    let at = ordinary().options(["--net-allow", PROXY]);
    let words = ["tcp4", "descriptors=4", "tcp4", "use=0", "connect=127.0.0.1:3128"];
    let outcome = run(&at, &[&[&*word("socket")], &words[..]].concat());
    let expected = "descriptors=4 ok\ntcp4 EMFILE\nconnect=127.0.0.1:3128 ok\n";
    assert_eq!(outcome.success(), expected);
}

#[test]
fn a_settled_socket_answers_as_others_do() {
    let script = r#"
import errno, socket, os
def told(call):
    try:
        call()
        return "ok"
    except OSError as error:
        return errno.errorcode[error.errno]
server = socket.socket()
server.bind(("127.0.0.1", 7000))
print(told(server.listen), told(lambda: server.listen(5)))
client = socket.create_connection(("127.0.0.1", 7000))
print(told(client.listen), told(lambda: client.bind(("127.0.0.1", 7001))))
print(told(lambda: client.connect(("127.0.0.1", 7000))))
os.dup2(os.open("/dev/null", os.O_RDWR), client.fileno())
print(told(client.listen), told(lambda: client.bind(("127.0.0.1", 7001))))"#;
    let options = ["--net-allow", "127.0.0.1:7000"];
    let native = Run::new(User::Ordinary, Place::Standalone);
    let expected = "ok ok\nEINVAL EINVAL\nEISCONN\nENOTSOCK ENOTSOCK\n";
    for at in [native.clone(), native.options(options), ordinary().options(options)] {
        assert_eq!(python(&at, script).success(), expected, "{at:?}");
    }
}

#[test]
fn what_needs_the_callers_own_sockets_is_refused() {
    let udp = ordinary().options(["--net-allow", "udp://127.0.0.1:53"]);
    run(&udp, &["true"]).refused("plan", &["seccomp filter", "CAP_SYS_PTRACE"]);
    for proc in ["keep", "hide"] {
        let at = ordinary().options(["--net-none", "--proc", proc]);
        let outcome = run(&at, &["true"]);
        outcome.refused("plan", &[]);
        assert!(outcome.stderr.contains("--proc fresh"), "{outcome:?}");
    }
    let native =
        Run::new(User::Ordinary, Place::Standalone).options(["--net-allow", "udp://127.0.0.1:53"]);
    if !native.refused_without(WaitKillableRecv) {
        assert_eq!(run(&native, &["true"]).code, 0);
    }
}
