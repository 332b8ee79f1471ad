//! Descriptors: the workload has standard input, output and error, what was asked for, and no more.

mod support;

use std::io::{Read, Write};
use std::process::{Command, Stdio};

use support::scratch::Scratch;
use support::{EVERYWHERE, Outcome, Place, Run, User, fixture};

fn deed() -> String {
    fixture("descriptors").into_os_string().into_string().unwrap()
}

fn shell(script: &str) -> [String; 4] {
    ["sh".into(), "-c".into(), format!("{script}; exec \"$@\""), "sh".into()]
}

/// P1, B2, B6
#[test]
fn what_the_caller_leaks_is_closed() {
    for (user, place) in EVERYWHERE {
        let run = Run::new(user, place).before([&deed(), "leak"]);
        let outcome = run.run([&deed(), "list"]);
        assert_eq!(outcome.success(), "open 0 1 2\nproc 0 1 2\n", "{user:?} {place:?}");
    }
}

/// P1
#[test]
fn kept_descriptors_and_only_these_stay_open() {
    // 3, 42 and 43 are unix sockets of pairs, 999 is an O_PATH one, 1000 a TCP socket, 1023 memory.
    for (options, open) in [
        (&["--keep-fd", "42,1000", "--keep-fd=43,999"][..], "0 1 2 42 43 999 1000"),
        (&["--keep-fd", "43,42,43,0,1,2"], "0 1 2 42 43"),
        (&["--keep-fd", "1023"], "0 1 2 1023"),
        (&["--keep-fd", "3,1023"], "0 1 2 3 1023"),
    ] {
        for (user, place) in EVERYWHERE {
            let run = Run::new(user, place).before([&deed(), "leak"]).options(options);
            let outcome = run.run([&deed(), "list"]);
            assert_eq!(outcome.success(), format!("open {open}\nproc {open}\n"), "{options:?}");
        }
    }
}

#[test]
fn a_kept_descriptor_can_be_used() {
    for (user, place) in EVERYWHERE {
        let run = Run::new(user, place).before(shell("exec 3</proc/version 7>&1"));
        let outcome = run.options(["--keep-fd", "7"]).sh("echo kept >&7; exec 2>&1; cat <&3");
        assert!(outcome.stdout.starts_with("kept\n"), "{user:?} {place:?}: {outcome:?}");
        assert!(!outcome.stdout.contains("Linux") && outcome.code != 0, "{outcome:?}");
    }
}

/// P1
#[test]
fn a_closed_descriptor_cannot_be_kept() {
    for number in ["3", "9", "1000", "2147483647"] {
        let run = Run::new(User::Root, Place::Standalone).options(["--keep-fd", number]);
        let outcome = run.sh("echo ran");
        outcome.refused("plan", &[]);
        assert!(outcome.stderr.contains(&format!("--keep-fd {number}: ")), "{outcome:?}");
    }
}

/// P2
#[test]
fn missing_standard_descriptors_are_dev_null() {
    for (user, place) in EVERYWHERE {
        for closed in 0..8 {
            let redirections: String =
                (0..3).filter(|fd| closed & 1 << fd != 0).map(|fd| format!(" {fd}>&-")).collect();
            let run = Run::new(user, place).before(shell(&format!("exec{redirections}")));
            let child = run
                .command([&deed(), "nulls"])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn();
            let outcome = Outcome::new(child.unwrap().wait_with_output().unwrap());
            assert_eq!(outcome.code, closed, "closed:{redirections}: {outcome:?}");
        }
    }
}

/// P1, P2
#[test]
fn what_sbx_init_opens_itself_cannot_be_kept() {
    let run = Run::new(User::Ordinary, Place::Standalone)
        .before(shell("exec 0>&- 1>&- 2>&-"))
        .options(["--keep-fd", "3"]);
    assert_eq!(run.run([&deed(), "nulls"]).code, 125);
}

/// P1
#[test]
fn a_pipe_ends_when_the_workload_closes_it() {
    for (user, place) in EVERYWHERE {
        let run =
            Run::new(user, place).before([&deed(), "watch", "kept"]).options(["--keep-fd", "7"]);
        let outcome = run.sh("printf k >&7; read line; exec 7>&-; read line; exit 5");
        assert_eq!(outcome.code, 5, "{user:?} {place:?}: {outcome:?}");
    }
}

/// P1
#[test]
fn a_pipe_that_is_not_kept_ends_while_the_workload_runs() {
    for (user, place) in EVERYWHERE {
        let run = Run::new(user, place).before([&deed(), "watch", "leaked"]);
        let outcome = run.sh("read line; exit 5");
        assert_eq!(outcome.code, 5, "{user:?} {place:?}: {outcome:?}");
    }
}

#[test]
fn standard_input_output_and_error_pass_through() {
    for (user, place) in EVERYWHERE {
        let mut child = Run::new(user, place)
            .command(["sh", "-c", "cat; echo to stderr >&2"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(b"to stdin\n").unwrap();
        let outcome = Outcome::new(child.wait_with_output().unwrap());
        assert_eq!(outcome.success(), "to stdin\n");
        assert_eq!(outcome.stderr, "to stderr\n");
    }
}

#[test]
fn much_output_arrives_whole() {
    const SIZE: usize = 64 << 20;
    let mut child = Run::new(User::Ordinary, Place::Bwrap)
        .command(["head", "-c", &SIZE.to_string(), "/dev/zero"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut total = 0;
    let mut chunk = vec![1; 1 << 16];
    loop {
        match child.stdout.as_mut().unwrap().read(&mut chunk).unwrap() {
            0 => break,
            length => {
                assert!(chunk[..length].iter().all(|byte| *byte == 0));
                total += length;
            }
        }
    }
    assert!(child.wait().unwrap().success());
    assert_eq!(total, SIZE);
}

/// A3, A6
#[test]
fn a_directory_handed_over_does_not_lead_to_the_callers_proc() {
    // A mount namespace does not change where an open directory stands: below it, or above it,
    // are the mounts of the caller. `sleep` is a process that only the caller's /proc shows.
    let attack = "for link in 0 7; do for up in . .. ../..; do
        cat /proc/self/fd/$link/$up/proc/[0-9]*/comm | grep -x sleep
        cd /proc/self/fd/$link/$up && test -w proc/sys/kernel/core_pattern && echo writable
        done; done 2>/dev/null; echo end";
    for place in [Place::Standalone, Place::Bwrap, Place::BwrapSysAdmin] {
        for user in [User::Root, User::Ordinary] {
            for (redirection, options) in
                [("</", &[][..]), ("</usr", &[]), ("7</", &["--keep-fd", "7"])]
            {
                let before = shell(&format!("sleep 60 >&- 2>&- & exec {redirection}"));
                let outcome = Run::new(user, place).before(before).options(options).sh(attack);
                if outcome.code == 125 {
                    outcome.refused("plan", &[]);
                } else {
                    let honest = "end\n";
                    assert_eq!(outcome.stdout, honest, "{redirection} {user:?} {place:?}");
                }
            }
        }
    }
}

/// A3
#[test]
fn the_callers_procfs_cannot_be_handed_over() {
    for (redirection, options) in [
        ("</proc", &[][..]),
        ("</proc/self/fd", &[]),
        ("<>/proc/self/comm", &[]),
        ("7</proc", &["--keep-fd", "7"]),
        ("7</proc/self/status", &["--keep-fd", "7"]),
    ] {
        for (user, place) in EVERYWHERE {
            let before = shell(&format!("exec {redirection}"));
            let outcome = Run::new(user, place).before(before).options(options).sh("echo ran");
            outcome.refused("plan", &[]);
            let directory = outcome.stderr.contains("a directory");
            assert!(directory || outcome.stderr.contains("procfs"), "{outcome:?}");
        }
    }
    // Its data may be read, and what is not kept does not matter.
    let run =
        Run::new(User::Ordinary, Place::Standalone).before(shell("exec </proc/version 7</proc"));
    assert!(run.run(["cat"]).success().starts_with("Linux "));
}

fn socket(kind: &str, place: Place, options: &[&str]) -> Outcome {
    let scratch = Scratch::new(&format!("socket-{kind}-{place:?}-{}", options.len()));
    let path = scratch.file("listener");
    let directory = scratch.path().to_str().unwrap();
    Run::new(User::Ordinary, place)
        .bwrap(["--bind", directory, directory])
        .before([&deed(), "socket", kind, &path])
        .options(options)
        .run([&deed(), "connect", &path])
}

/// B2
#[test]
fn a_unix_datagram_socket_as_standard_input_is_refused() {
    for place in [Place::Standalone, Place::Bwrap] {
        socket("datagram", place, &[]).refused("plan", &[]);
        assert_eq!(socket("datagram", place, &["--allow", "unix"]).success(), "reached\n");
    }
}

/// B2
#[test]
fn an_unconnected_unix_socket_as_standard_input_is_refused() {
    for kind in ["stream", "seqpacket"] {
        socket(kind, Place::Standalone, &[]).refused("plan", &[]);
    }
    assert_eq!(socket("stream", Place::Standalone, &["--allow", "unix"]).success(), "reached\n");
}

/// B2
#[test]
fn a_connected_unix_socket_as_standard_input_works_and_leads_nowhere_else() {
    for place in [Place::Standalone, Place::Bwrap] {
        assert_eq!(socket("pair", place, &[]).success(), "");
        let scratch = Scratch::new(&format!("pair-{place:?}"));
        let directory = scratch.path().to_str().unwrap();
        let outcome = Run::new(User::Ordinary, place)
            .bwrap(["--bind", directory, directory])
            .before([&deed(), "socket", "pair", &scratch.file("listener")])
            .sh("read line; echo $line");
        assert_eq!(outcome.success(), "honest\n");
    }
}

/// P14
#[test]
fn with_few_descriptors_the_command_runs_or_has_not_been_started() {
    let mut worked = false;
    for limit in 4..=24 {
        let scratch = Scratch::new(&format!("limit-{limit}"));
        let marker = scratch.file("marker");
        let run = Run::new(User::Ordinary, Place::Standalone)
            .before(shell(&format!("ulimit -n {limit}")));
        let outcome = run.run(["touch", &marker]);
        let ran = std::path::Path::new(&marker).exists();
        // 127: the dynamic linker of a debugging build, which comes before the program.
        let expected: &[i32] = if ran { &[0] } else { &[125, 127] };
        assert!(expected.contains(&outcome.code), "{limit}: {outcome:?}");
        assert!(ran || outcome.stderr.contains("EMFILE") || outcome.code == 127);
        worked |= ran;
        assert!(ran || !worked, "{limit}: fewer were enough: {outcome:?}");
    }
    assert!(worked);
}

#[test]
fn resource_limits_are_the_callers() {
    let keeps = |user, place, limit: &str| {
        let run = Run::new(user, place).before([
            "prlimit",
            &format!("--nofile={limit}"),
            "--core=0",
            "--stack=8192000",
        ]);
        let limits = run.run(["sh", "-c", "ulimit -Sn; ulimit -Hn; ulimit -c; ulimit -s"]);
        assert_eq!(limits.success(), format!("{limit}\n{limit}\n0\n8000\n"));
    };
    for (user, place) in EVERYWHERE {
        keeps(user, place, "16");
        keeps(user, place, "1024");
    }
    let most = Command::new("sh").args(["-c", "ulimit -Hn"]).output().map(Outcome::new).unwrap();
    keeps(User::Ordinary, Place::Standalone, most.success().trim());
}

#[test]
fn the_fixture_sees_what_is_open() {
    // Without sbx-init: so that the lists above can be believed.
    let output =
        Command::new(deed()).args(["leak", &deed(), "list"]).output().map(Outcome::new).unwrap();
    assert!(output.success().starts_with("open 0 1 2 3 4 "), "{output:?}");
    assert!(output.stdout.contains(" 999 1000 1022 1023\nproc "), "{output:?}");
}
