//! The workload's /proc: PID 1 is closed, the caller's processes are out of sight, and the global
//! root cannot change the machine through it.

mod support;

use support::kernel::{MountSetattr, SEPARATION};
use support::{EVERYWHERE, Outcome, Place, Run, User, word};

/// Each kind of run, on this kernel and as on one without Landlock, which would cover up what
/// else keeps the workload away.
fn each_way() -> impl Iterator<Item = (User, String, Run)> {
    EVERYWHERE.into_iter().flat_map(|(user, place)| {
        let run = Run::new(user, place);
        let old = run.clone().lacking(libc::SYS_landlock_create_ruleset, libc::ENOSYS);
        let context = format!("{user:?} {place:?}");
        let context_of_old = format!("{context}, no Landlock");
        [(user, context, run), (user, context_of_old, old)]
    })
}

/// Root in a user namespace, as a bubblewrap of an ordinary user or without CAP_SYS_ADMIN is.
fn nested_root() -> Run {
    Run::new(User::Root, Place::Bwrap).bwrap(["--cap-drop", "ALL", "--cap-add", "CAP_SETFCAP"])
}

const WAYS: usize = 13;

#[track_caller]
fn all_ok(outcome: &Outcome, context: &str) {
    let lines: Vec<_> = outcome.success().lines().collect();
    assert_eq!(lines.len(), WAYS, "{context}: {lines:?}");
    assert!(lines.iter().all(|line| line.ends_with(" ok")), "{context}: {lines:?}");
}

#[track_caller]
fn all_refused(outcome: &Outcome, context: &str) {
    let lines: Vec<_> = outcome.success().lines().collect();
    assert_eq!(lines.len(), WAYS, "{context}: {lines:?}");
    let refused = |line: &str| line.ends_with(" EACCES") || line.ends_with(" EPERM");
    assert!(lines.iter().all(|line| refused(line)), "{context}: {lines:?}");
}

/// A7
#[test]
fn the_command_is_pid_2_and_sees_only_pid_1_beside_it() {
    for (user, place) in EVERYWHERE {
        let outcome = Run::new(user, place).sh("ps ax -o pid=,ppid=,comm=; echo $$");
        let rows: Vec<Vec<_>> =
            outcome.success().lines().map(|row| row.split_whitespace().collect()).collect();
        let expected = [&["1", "0", "sbx-init"][..], &["2", "1", "sh"], &["3", "2", "ps"], &["2"]];
        assert_eq!(rows, expected, "{user:?} {place:?}");
    }
}

/// A2, A7, R4
#[test]
fn pid_1_is_closed_to_the_command() {
    for (_, context, run) in each_way() {
        all_refused(&run.run([&*word("reach"), "/proc", "1"]), &context);
        all_ok(&run.run([&*word("reach"), "/proc", "child"]), &context);
    }
}

/// A7, A10
#[test]
fn pid_1_is_closed_to_a_user_namespace_of_the_commands_own() {
    for (_, context, run) in each_way() {
        all_refused(&run.run([&*word("reach"), "userns", "/proc", "1"]), &context);
        all_ok(&run.run([&*word("reach"), "userns", "/proc", "child"]), &context);
    }
}

/// R4: what root may, its capabilities allow, so the observer is an ordinary user.
#[test]
fn the_stub_and_pid_1_are_closed_to_their_user_outside() {
    let script = r#"
        mkfifo -m 666 /mnt/up /mnt/down
        "$@" & run=$!
        read ready </mnt/up
        set -- $(pgrep -x sbx-init)
        test $# = 2
        for pid; do setpriv --reuid 1000 --regid 1000 --clear-groups REACH /proc $pid; done
        echo go >/mnt/down
        wait $run"#;
    let script = format!("mount -t tmpfs none /mnt; {}", script.replace("REACH", &word("reach")));
    let run = Run::new(User::Ordinary, Place::Standalone);
    let outcome = run.prepared(&script, ["sh", "-c", "echo x >/mnt/up; read x </mnt/down"]);
    let lines: Vec<_> = outcome.success().lines().collect();
    assert_eq!(lines.len(), 2 * WAYS, "{lines:?}");
    assert!(lines.iter().all(|line| !line.ends_with(" ok")), "{lines:?}");
}

/// A5
#[test]
fn nothing_uncovers_the_callers_proc() {
    let marked = r#"sleep 1000 & until grep -q sleep /proc/$!/comm; do :; done; exec "$@""#;
    let mut runs: Vec<_> = each_way().collect();
    let hidden = nested_root().options(["--proc", "hide"]);
    runs.push((User::Root, "nested root, hidden".into(), hidden));
    for (user, context, run) in runs {
        let run = run.before(["sh", "-c", marked, "sh"]);
        let outcome = run.run([&*word("attempt"), "reveal"]);
        let lines: Vec<_> = outcome.success().lines().collect();
        assert!(!lines.iter().any(|line| line.contains("sleep")), "{context}: {lines:?}");
        assert_eq!(lines.iter().filter(|line| line.contains("Err(")).count(), 10, "{lines:?}");
        assert!(lines.contains(&"tmpfs Ok(0)"), "{context}: {lines:?}");
        let keep = run.options(["--proc", "keep"]);
        if user == User::Root && keep.refused_without(MountSetattr) {
            continue;
        }
        let keep = keep.run([&*word("attempt"), "reveal"]);
        assert!(keep.success().contains("process sleep"), "{context}: {keep:?}");
    }
}

/// U8
#[test]
fn mounts_do_not_leak_out() {
    let script = r#"
        mount --make-rshared /
        wc -l </proc/self/mountinfo
        "$@"
        wc -l </proc/self/mountinfo"#;
    for user in [User::Root, User::Ordinary] {
        for proc in ["fresh", "keep", "hide"] {
            let run = Run::new(user, Place::Standalone).options(["--proc", proc]);
            if user == User::Root && proc == "keep" && run.refused_without(MountSetattr) {
                continue;
            }
            let outcome = run.prepared(script, ["true"]);
            let counts: Vec<_> = outcome.success().lines().collect();
            assert_eq!(counts.len(), 2, "{outcome:?}");
            assert_eq!(counts[0], counts[1], "{user:?} {proc}");
        }
    }
}

#[test]
fn a_hidden_proc_is_an_empty_read_only_directory() {
    for (user, place) in EVERYWHERE {
        let run = Run::new(user, place).options(["--proc", "hide"]);
        let outcome = run.sh("ls -A /proc; mkdir /proc/x 2>/dev/null || echo refused");
        assert_eq!(outcome.success(), "refused\n", "{user:?} {place:?}");
    }
}

#[test]
fn a_kept_proc_is_the_callers() {
    for (user, place) in EVERYWHERE {
        let run = Run::new(user, place).options(["--proc", "keep"]);
        if user == User::Root && run.refused_without(MountSetattr) {
            continue;
        }
        let run = run.before(["sh", "-c", r#"stat -c %d /proc; exec "$@""#, "sh"]);
        let outcome = run.sh("stat -c %d /proc");
        let devices: Vec<_> = outcome.success().lines().collect();
        assert_eq!(devices[0], devices[1], "{user:?} {place:?}");
        let fresh = run.options(["--proc", "fresh"]).sh("stat -c %d /proc");
        let devices: Vec<_> = fresh.success().lines().collect();
        assert_ne!(devices[0], devices[1], "{user:?} {place:?}");
    }
}

/// Names what of a procfs beyond the process directories its owner can open for writing, but for
/// what everybody may (the triggers of /proc/pressure); writes nothing.
const WRITABLE: &str = r#"
    for path in $(find "$0" -regex "$0/[0-9].*" -prune -o -type f -perm /220 ! -perm -2 -print); do
        (: >>$path) 2>/dev/null && echo $path
    done; :"#;

/// A6
#[test]
fn the_global_root_cannot_write_what_changes_the_machine() {
    for (place, proc) in [
        (Place::Standalone, "fresh"),
        (Place::Standalone, "keep"),
        (Place::Bwrap, "fresh"),
        (Place::Bwrap, "keep"),
        (Place::BwrapSysAdmin, "fresh"),
        (Place::BwrapSysAdmin, "keep"),
    ] {
        let run = Run::new(User::Root, place).options(["--proc", proc]);
        if proc == "keep" && run.refused_without(MountSetattr) {
            continue;
        }
        let outcome = run.run(["sh", "-c", WRITABLE, "/proc"]);
        assert_eq!(outcome.success(), "", "{place:?} {proc}");
        let refused = run.sh("(: >>/proc/sys/kernel/core_pattern) 2>&1 || :");
        assert!(refused.success().contains("Read-only file system"), "{place:?} {proc}");
        let honest = "echo 7 >/proc/self/oom_score_adj; echo name >/proc/self/comm
            cat /proc/self/oom_score_adj; cat /proc/sys/kernel/ostype";
        assert_eq!(run.sh(honest).success(), "7\nLinux\n", "{place:?} {proc}");
    }
    let nested = nested_root().options(["--proc", "keep"]);
    if !nested.refused_without(MountSetattr) {
        assert_eq!(nested.run(["sh", "-c", WRITABLE, "/proc"]).success(), "");
    }
}

/// A6: standard input may be a file of /proc, which its link in /proc/self/fd opens anew.
#[test]
fn the_global_root_cannot_write_a_sysctl_that_is_its_standard_input() {
    for place in [Place::Standalone, Place::BwrapSysAdmin] {
        let redirect = r#"exec "$@" </proc/sys/kernel/core_pattern"#;
        let run = Run::new(User::Root, place).before(["sh", "-c", redirect, "sh"]);
        let outcome = run.sh("(: >>/proc/self/fd/0) 2>/dev/null && echo writable");
        assert!(!outcome.stdout.contains("writable"), "{place:?}: {outcome:?}");
    }
}

/// A6, A3
#[test]
fn the_global_root_cannot_write_through_another_procfs() {
    let script = r#"mount -t tmpfs none /mnt; mkdir /mnt/old; mount -t proc proc /mnt/old; "$@""#;
    let run = Run::new(User::Root, Place::Standalone);
    let outcome = run.prepared(script, ["sh", "-c", WRITABLE, "/mnt/old"]);
    assert_eq!(outcome.stdout.lines().count(), 0, "{:.400}", outcome.stdout);
}

/// A6, A3: a procfs that is nowhere covered lets a user namespace mount another such.
#[test]
fn the_global_root_gets_no_writable_procfs_by_another_in_sight() {
    let script = r#"mount -t tmpfs none /mnt; mkdir /mnt/old; mount -t proc proc /mnt/old; "$@""#;
    let attack = [&*word("attempt"), "new-proc", "sys/kernel/core_pattern"];
    let outcome = Run::new(User::Root, Place::Standalone).prepared(script, attack);
    assert!(!outcome.stdout.contains("writable"), "{outcome:?}");
}

/// A6, A10
#[test]
fn the_global_root_gets_no_writable_procfs_in_namespaces_of_its_own() {
    let attack = [&*word("attempt"), "new-proc", "sys/kernel/core_pattern"];
    for place in [Place::Standalone, Place::Bwrap, Place::BwrapSysAdmin] {
        for proc in ["fresh", "keep", "hide"] {
            let run = Run::new(User::Root, place).options(["--proc", proc]);
            if proc == "keep" && run.refused_without(MountSetattr) {
                continue;
            }
            let outcome = run.run(attack);
            assert_eq!(outcome.success(), "mount EPERM\nok \n", "{place:?} {proc}");
        }
        let remount = Run::new(User::Root, place).run([&*word("attempt"), "remount", "/proc/sys"]);
        assert_eq!(remount.success(), "EPERM\n", "{place:?}");
    }
    let honest = [&*word("attempt"), "new-proc", "self/comm"];
    let outcome = Run::new(User::Ordinary, Place::Standalone).run(honest);
    assert_eq!(outcome.success(), "writable\nok \n");
}

/// A6: who is the global root does not depend on what is at /proc.
#[test]
fn the_global_root_cannot_write_sysctls_where_no_procfs_was_before() {
    let before = |script: &str| {
        let script = format!("mount -t proc proc /mnt; {script}; exec \"$@\"");
        Run::new(User::Root, Place::Standalone).before(["sh", "-ec", &script, "sh"])
    };
    const APPEND: &str = "for p in /proc /mnt; do
        test -d $p/sys || continue
        if (: >>$p/sys/kernel/core_pattern) 2>/dev/null; then echo $p writable; else echo $p; fi
    done";
    for covered in ["mount -t tmpfs -o uid=1000 none /proc", "mount -t tmpfs none /proc", "true"] {
        let run = before(covered);
        // Without /proc the workload gets no user namespace of its own.
        if covered != "true" && run.refused_without(SEPARATION) || run.refused_without(MountSetattr)
        {
            continue;
        }
        assert_eq!(run.sh(APPEND).success(), "/proc\n/mnt\n", "{covered}");
        let hidden = run.options(["--proc", "hide"]).sh(APPEND);
        assert_eq!(hidden.success(), "/mnt\n", "{covered}");
    }
}

/// A6: the same procfs twice, one over the other.
#[test]
fn a_procfs_below_another_one_is_no_obstacle() {
    let run = Run::new(User::Root, Place::BwrapSysAdmin).bwrap(["--bind", "/proc", "/proc"]);
    if run.refused_without(MountSetattr) {
        return;
    }
    assert_eq!(run.sh("echo ran").success(), "ran\n");
}
