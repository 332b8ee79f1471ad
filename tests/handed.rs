//! Sockets and rings that are inherited.

mod support;

use support::{EVERYWHERE, Place, Run, User, word};

fn handed(run: &Run, kind: &str, fd: &str) -> Run {
    run.clone().before([&*word("hand"), kind, fd])
}

/// B2: a datagram socket, connected or not, can be sent to any path.
#[test]
fn a_unix_datagram_socket_is_not_handed_over() {
    for (user, place) in EVERYWHERE {
        let run = Run::new(user, place);
        for kind in ["datagram", "datagram-pair"] {
            for (fd, options) in [("0", &[][..]), ("5", &["--keep-fd", "5"])] {
                let run = handed(&run, kind, fd).options(options);
                let outcome = run.run(["echo", "started"]);
                assert_eq!((outcome.code, &*outcome.stdout), (125, ""), "{kind}: {outcome:?}");
                assert!(outcome.stderr.contains("--allow unix"), "{outcome:?}");
            }
        }
        let allowed = handed(&run, "datagram-pair", "0").options(["--allow", "unix"]);
        assert_eq!(allowed.run(["head", "-c5"]).success(), "hello", "{user:?} {place:?}");
    }
}

/// B2: Node's standard streams are stream sockets.
#[test]
fn a_connected_unix_socket_is_standard_input() {
    for (user, place) in EVERYWHERE {
        for kind in ["stream-pair", "seqpacket-pair"] {
            let run = handed(&Run::new(user, place), kind, "0");
            assert_eq!(run.run(["head", "-c5"]).success(), "hello", "{user:?} {place:?} {kind}");
        }
    }
}

/// B2, N8: what is not connected yet can be connected to any path.
#[test]
fn an_unconnected_unix_socket_reaches_no_path() {
    let script = r#"
        mount -t tmpfs none /mnt
        SERVE /mnt/socket & server=$!
        until test -S /mnt/socket; do :; done
        chmod 777 /mnt /mnt/socket
        "$@"; code=$?
        kill $server
        exit $code"#;
    let serve = "python3 -c 'import socket,sys
s=socket.socket(socket.AF_UNIX); s.bind(sys.argv[1]); s.listen(); s.accept(); s.accept()'";
    let script = script.replace("SERVE", serve);
    let connect = [&*word("attempt"), "connect", "0", "/mnt/socket"];
    for user in [User::Root, User::Ordinary] {
        let run = handed(&Run::new(user, Place::Standalone), "stream", "0");
        let outcome = run.prepared(&script, connect);
        assert!(!outcome.stdout.contains("connected"), "{user:?}: {outcome:?}");
        let allowed = run.options(["--allow", "unix"]).prepared(&script, connect);
        assert_eq!(allowed.success(), "ok connected\n", "{user:?}");
    }
}

/// P1, B6
#[test]
fn a_ring_is_closed_or_refused() {
    for (user, place) in EVERYWHERE {
        let run = handed(&Run::new(user, place), "ring", "5");
        assert_eq!(run.sh("ls /proc/self/fd").success(), "0\n1\n2\n3\n", "{user:?} {place:?}");
        let kept = run.options(["--keep-fd", "5"]).run(["echo", "started"]);
        assert_eq!((kept.code, &*kept.stdout), (125, ""), "{kept:?}");
        assert!(kept.stderr.contains("io_uring"), "{kept:?}");
        let input = handed(&Run::new(user, place), "ring", "0").run(["echo", "started"]);
        assert_eq!((input.code, &*input.stdout), (125, ""), "{input:?}");
    }
}

/// B6: a ring whose kernel thread polls needs no system call, so a filter that came after it
/// proves nothing.
#[test]
fn a_ring_is_refused_where_a_filter_forbids_to_ask() {
    for errno in [libc::EPERM, libc::ENOSYS] {
        let run = handed(&Run::new(User::Ordinary, Place::Standalone), "ring", "5")
            .lacking(libc::SYS_io_uring_register, errno)
            .options(["--keep-fd", "5"]);
        let outcome = run.run(["echo", "started"]);
        assert_eq!((outcome.code, &*outcome.stdout), (125, ""), "{outcome:?}");
    }
}
