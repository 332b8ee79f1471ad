//! References to the caller's procfs from before: working directory, descriptors, other mounts.

mod support;

use support::kernel::{MountSetattr, SEPARATION};
use support::{EVERYWHERE, Place, Run, User, word};

const REFUSED: &str = "the caller's procfs";

/// A3, R3: a helper of the same user, dumpable and unfiltered, runs beside sbx-init.
#[test]
fn another_procfs_does_not_open_a_helper_beside_us() {
    let helper = r#"
        HELPER & helper=$!
        until grep -q '^CapPrm:.0*$' /proc/$helper/status; do :; done
        REACH /mnt $helper
        "$@" /mnt $helper"#;
    let helper = helper.replace("HELPER", &format!("{} wait-powerless", word("attempt")));
    let helper = helper.replace("REACH", &word("reach"));
    let nested_root = ["--cap-drop", "ALL", "--cap-add", "CAP_SETFCAP"];
    let separated: [(&str, i64); 3] = [
        ("as it is", libc::SYS_getppid),
        ("by a user namespace", libc::SYS_landlock_create_ruleset),
        ("by a domain", libc::SYS_unshare),
    ];
    for (user, more) in [
        (User::Root, &[][..]),
        (User::Root, &["--cap-add", "CAP_SYS_ADMIN"]),
        (User::Root, &nested_root),
        (User::Ordinary, &[]),
        (User::Ordinary, &["--cap-add", "CAP_SYS_ADMIN"]),
    ] {
        for (how, lacking) in separated {
            for userns in [false, true] {
                // Without unshare(2) the workload has no user namespace of its own either.
                if userns && lacking == libc::SYS_unshare {
                    continue;
                }
                let proc = if more == nested_root { "keep" } else { "fresh" };
                let run = Run::new(user, Place::Bwrap)
                    .bwrap(more)
                    .bwrap(["--proc", "/mnt"])
                    .lacking(lacking, libc::EPERM)
                    .options(["--proc", proc]);
                let direct = more != nested_root && (user, more) != (User::Ordinary, &[]);
                let by_domain = direct && lacking == libc::SYS_unshare;
                if by_domain && run.refused_without(SEPARATION)
                    || user == User::Root && run.refused_without(MountSetattr)
                {
                    continue;
                }
                let run = run.before(["sh", "-c", &helper, "sh"]);
                let command = [word("reach"), "userns".into()];
                let outcome = run.run(&command[..if userns { 2 } else { 1 }]);
                let context = format!("{user:?} {more:?} {how}, userns {userns}");
                let lines: Vec<_> = outcome.success().lines().collect();
                assert_eq!(lines.len(), 26, "{context}: {lines:?}");
                let ok = lines.iter().map(|line| line.ends_with(" ok"));
                // The helper's neighbours may; the workload may not.
                let expected = [[true; 13], [false; 13]].concat();
                assert_eq!(ok.collect::<Vec<_>>(), expected, "{context}: {lines:?}");
            }
        }
    }
}

/// A3: direct with neither a user namespace nor a domain.
#[test]
fn what_cannot_be_separated_from_helpers_is_refused() {
    for user in [User::Root, User::Ordinary] {
        let run = Run::new(user, Place::BwrapSysAdmin)
            .lacking(libc::SYS_unshare, libc::EPERM)
            .lacking(libc::SYS_landlock_create_ruleset, libc::ENOSYS);
        run.sh("echo started").refused("plan", &["user namespace", "Landlock"]);
    }
}

/// A3
#[test]
fn a_working_directory_in_proc_is_that_of_the_new_proc() {
    for (user, place) in EVERYWHERE {
        let run = Run::new(user, place).before(["sh", "-c", r#"cd /proc; exec "$@""#, "sh"]);
        let outcome = run.sh("pwd; cat 2/comm; stat -c %d . /proc");
        let lines: Vec<_> = outcome.success().lines().collect();
        assert_eq!(lines[..2], ["/proc", "sh"], "{user:?} {place:?}");
        assert_eq!(lines[2], lines[3], "{user:?} {place:?}");
        let hidden = run.options(["--proc", "hide"]).sh("ls -A .");
        assert_eq!(hidden.success(), "", "{user:?} {place:?}");
    }
}

/// A3: the process with the same number is another one, or there is none.
#[test]
fn a_working_directory_of_a_process_is_not_kept() {
    for (user, place) in EVERYWHERE {
        let go = r#"sleep 1000 & helper=$!; until grep -q sleep /proc/$helper/comm; do :; done
            cd /proc/$helper; "$@"; code=$?; exit $code"#;
        let run = Run::new(user, place).before(["sh", "-c", go, "sh"]);
        let outcome = run.sh("cat comm");
        assert!(!outcome.stdout.contains("sleep"), "{user:?} {place:?}: {outcome:?}");
        let hidden = run.options(["--proc", "hide"]).sh("cat comm");
        assert_eq!(hidden.code, 125, "{user:?} {place:?}: {hidden:?}");
        assert_eq!(hidden.stdout, "");
    }
}

/// A3
#[test]
fn a_working_directory_on_another_procfs_is_refused() {
    for user in [User::Root, User::Ordinary] {
        for more in [&[][..], &["--cap-add", "CAP_SYS_ADMIN"]] {
            let run = Run::new(user, Place::Bwrap).bwrap(more).bwrap(["--proc", "/mnt"]).before([
                "sh",
                "-c",
                r#"cd /mnt; exec "$@""#,
                "sh",
            ]);
            if user == User::Root && run.refused_without(MountSetattr) {
                continue;
            }
            let outcome = run.sh("echo started");
            assert_eq!((outcome.code, &*outcome.stdout), (125, ""), "{outcome:?}");
            assert!(outcome.stderr.starts_with("sbx-init: proc: working directory: "));
        }
    }
}

/// A3
#[test]
fn a_procfs_directory_is_not_handed_over() {
    let hand = word("hand");
    for (user, place) in EVERYWHERE {
        let run = Run::new(user, place);
        for fd in ["0", "2", "5"] {
            for path in ["/proc", "/proc/self", "/proc/self/fd"] {
                let run = run.clone().before([&*hand, path, fd]).options(["--keep-fd", fd]);
                let outcome = run.sh("echo started");
                assert_eq!((outcome.code, &*outcome.stdout), (125, ""), "{path}: {outcome:?}");
                // As descriptor 2 there is nowhere to say it.
                assert!(fd == "2" || outcome.stderr.contains("a directory"), "{path}: {outcome:?}");
            }
        }
        let honest = run.clone().before([&*hand, "/etc/passwd", "5"]).options(["--keep-fd", "5"]);
        assert_eq!(honest.sh("readlink /proc/self/fd/5").success(), "/etc/passwd\n");
        let closed = run.before([&*hand, "/proc", "5"]).sh("ls /proc/self/fd");
        assert_eq!(closed.success(), "0\n1\n2\n3\n", "{user:?} {place:?}");
    }
}

/// A3
#[test]
fn standard_input_may_be_a_file_of_proc() {
    for (user, place) in EVERYWHERE {
        let run = Run::new(user, place).before([&*word("hand"), "/proc/version", "0"]);
        assert!(run.run(["cat"]).success().starts_with("Linux version"), "{user:?} {place:?}");
    }
    let run = Run::new(User::Root, Place::Standalone).before([
        "sh",
        "-c",
        r#"exec "$@" >/proc/self/comm"#,
        "sh",
    ]);
    let outcome = run.sh("echo started >&2");
    assert_eq!(outcome.code, 125, "{outcome:?}");
    assert!(outcome.stderr.contains(REFUSED) && !outcome.stderr.contains("started"));
}

/// A3: as /proc/PID/root of a process outside leads to.
#[test]
fn a_working_directory_in_another_mount_namespace_is_refused() {
    let enter = |path: &str| {
        let script = format!(
            "unshare -m sleep 1000 >/dev/null 2>&1 &
            until [ $(readlink /proc/$!/ns/mnt) != $(readlink /proc/$$/ns/mnt) ]; do :; done
            cd {path}; exec \"$@\""
        );
        Run::new(User::Root, Place::Standalone).before(["sh", "-ec", &script, "sh"])
    };
    let outside = enter("/proc/$!/root/etc").sh("echo started");
    assert_eq!((outside.code, &*outside.stdout), (125, ""), "{outside:?}");
    assert!(outside.stderr.starts_with("sbx-init: plan: working directory: "), "{outside:?}");
    assert_eq!(enter("/etc").sh("pwd").success(), "/etc\n");
}
