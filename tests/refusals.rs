//! Where the boundary cannot be had: nothing starts, the status is 125, the hint names cause and
//! remedy, and the remedy works.

mod support;

use support::kernel::{Feature, LANDLOCK_SCOPES, MountSetattr, SEPARATION, kernel_has};
use support::{BOTH, Place, Run, STARTED, User};

fn works(run: &Run) {
    assert_eq!(run.run(STARTED).success(), "started\n");
}

/// Works, or is refused as it needs what this kernel lacks.
fn works_with(feature: Feature, run: &Run) {
    if !run.refused_without(feature) {
        works(run);
    }
}

/// A1, R6: bubblewrap covers parts of /proc for root, and a user namespace is given no other.
#[test]
fn a_covered_proc_is_refused() {
    let run =
        Run::new(User::Root, Place::Bwrap).bwrap(["--cap-drop", "ALL", "--cap-add", "CAP_SETFCAP"]);
    run.run(STARTED).refused("proc", &["covered", "CAP_SYS_ADMIN", "--proc hide", "--proc keep"]);
    works(&run.clone().bwrap(["--cap-add", "CAP_SYS_ADMIN"]));
    works(&run.clone().options(["--proc", "hide"]));
    works_with(MountSetattr, &run.options(["--proc", "keep"]));
}

/// U2
#[test]
fn root_without_cap_setfcap_is_refused() {
    let run = Run::new(User::Root, Place::Bwrap).bwrap(["--cap-drop", "ALL"]);
    run.run(STARTED).refused("namespaces", &["CAP_SETFCAP", "CAP_SYS_ADMIN", "ordinary user"]);
    works_with(SEPARATION, &run.clone().bwrap(["--cap-add", "CAP_SYS_ADMIN"]));
    let mapped = run.bwrap(["--cap-add", "CAP_SETFCAP"]);
    works_with(MountSetattr, &mapped.options(["--proc", "keep"]));
    works(&Run::new(User::Ordinary, Place::Bwrap).bwrap(["--cap-drop", "ALL"]));
}

/// U3
#[test]
fn disabled_user_namespaces_are_refused() {
    for user in BOTH {
        let run = Run::new(user, Place::Bwrap).bwrap([
            "--unshare-user",
            "--disable-userns",
            "--cap-drop",
            "ALL",
        ]);
        let hint = ["--disable-userns", "max_user_namespaces", "CAP_SYS_ADMIN"];
        run.run(STARTED).refused("namespaces", &hint);
        // bubblewrap makes a second user namespace for this, which root's covered /proc is locked in.
        let proc = if user == User::Root { "hide" } else { "fresh" };
        let direct = run.bwrap(["--cap-add", "CAP_SYS_ADMIN"]);
        works_with(SEPARATION, &direct.options(["--proc", proc]));
    }
}

/// U3, A1: who has CAP_SYS_ADMIN is not told to get it.
#[test]
fn a_hint_names_no_remedy_that_is_already_taken() {
    for more in [&["--unshare-user", "--disable-userns"][..], &["--remount-ro", "/proc"]] {
        for user in BOTH {
            let run = Run::new(user, Place::BwrapSysAdmin).bwrap(more);
            let outcome = run.run(STARTED);
            // That hint is to start it without.
            let separated = kernel_has(SEPARATION) || !outcome.stderr.contains("separate");
            if outcome.code == 125 && separated {
                assert!(
                    !outcome.stderr.contains("CAP_SYS_ADMIN"),
                    "{user:?} {more:?}: {outcome:?}"
                );
            }
        }
    }
}

/// U5
#[test]
fn a_missing_proc_is_refused() {
    let bare = |user| {
        let mut run = Run::new(user, Place::Bwrap).bwrap(["--tmpfs", "/"]);
        for path in
            ["/usr", "/bin", "/lib", "/lib64"].iter().filter(|p| std::fs::exists(p).unwrap())
        {
            run = run.bwrap(["--ro-bind", path, path]);
        }
        let programs = support::sbx_init().parent().unwrap().to_owned();
        run.bwrap(["--ro-bind"]).bwrap([&programs, &programs])
    };
    let hint = ["no", "/proc", "bwrap --proc /proc"];
    bare(User::Ordinary).run(STARTED).refused("namespaces", &hint);
    for user in BOTH {
        let run = bare(user).bwrap(["--cap-add", "CAP_SYS_ADMIN"]);
        works(&run.clone().bwrap(["--proc", "/proc"]));
        // Nor is there a user namespace then, whose maps are written in /proc.
        if run.refused_without(SEPARATION) {
            continue;
        }
        run.run(STARTED).refused("proc", &hint);
        // Other places of a procfs, which the global root could write to, are listed in /proc.
        let kept = run.options(["--proc", "keep"]);
        match user {
            User::Root => kept.run(STARTED).refused("proc", &hint),
            User::Ordinary => works(&kept),
        }
    }
}

/// U5
#[test]
fn a_read_only_proc_is_refused() {
    for user in BOTH {
        let run = Run::new(user, Place::Bwrap)
            .bwrap(["--cap-drop", "ALL", "--cap-add", "CAP_SETFCAP"])
            .options(["--proc", "hide"]);
        works(&run);
        let read_only = run.bwrap(["--remount-ro", "/proc"]);
        read_only.run(STARTED).refused("namespaces", &["read-only", "writable"]);
    }
}

/// U5: what the id maps are written to must be a procfs, whoever made the root file system.
#[test]
fn files_that_look_like_proc_are_not_written_to() {
    let script = r#"
        mount -t tmpfs none /mnt; mkdir /mnt/self
        for file in setgroups uid_map gid_map; do echo untouched >/mnt/self/$file; done
        chmod -R a+rwX /mnt
        "$@" || echo $?
        cat /mnt/self/*"#;
    for user in BOTH {
        for more in [&[][..], &["--cap-drop", "ALL", "--cap-add", "CAP_SETFCAP"]] {
            let run = Run::new(user, Place::Bwrap)
                .bwrap(more)
                .bwrap(["--bind", "/mnt", "/proc"])
                .options(["--proc", "keep"]);
            let outcome = run.prepared(script, STARTED);
            assert!(outcome.success().ends_with(&"untouched\n".repeat(3)), "{user:?}: {outcome:?}");
        }
    }
}

/// U4
#[test]
fn an_unmapped_user_is_refused() {
    for user in BOTH {
        let run = Run::new(user, Place::Standalone).before(["unshare", "-U", "--"]);
        run.run(STARTED).refused("namespaces", &["65534", "map"]);
    }
    works(&Run::new(User::Ordinary, Place::Standalone).before(["unshare", "-Uc", "--"]));
}

/// U9
#[test]
fn an_outer_filter_against_user_namespaces_is_refused() {
    let sbx_init = support::sbx_init();
    let script = format!(
        r#"mount -t tmpfs none /mnt; {} --print-filter userns --format bpf >/mnt/filter
        exec 9</mnt/filter; "$@""#,
        sbx_init.display()
    );
    for user in BOTH {
        let run = Run::new(user, Place::Bwrap).bwrap([
            "--seccomp",
            "9",
            "--cap-drop",
            "ALL",
            "--cap-add",
            "CAP_SETFCAP",
        ]);
        let hint = ["outer seccomp filter", "CAP_SYS_ADMIN"];
        run.prepared(&script, STARTED).refused("namespaces", &hint);
        let direct = run.bwrap(["--cap-add", "CAP_SYS_ADMIN"]);
        let outcome = direct.prepared(&script, STARTED);
        if !outcome.refused_without(SEPARATION) {
            assert_eq!(outcome.success(), "started\n", "{user:?}");
        }
    }
}

/// As under AppArmor's restriction: the user namespace is made, and the first write to its maps
/// fails, here because no file can be opened for writing.
fn without_writing(run: Run) -> Run {
    let writing = |call, index| format!("{call}:{index}&{}={}", libc::O_ACCMODE, libc::O_WRONLY);
    // What musl's open(3) calls there; other libraries and machines use openat(2).
    #[cfg(target_arch = "x86_64")]
    let run = run.lacking(writing(libc::SYS_open, 1), libc::EACCES);
    run.lacking(writing(libc::SYS_openat, 2), libc::EACCES)
}

/// U1: the Landlock domain separates the workload then.
#[test]
fn restricted_user_namespaces_are_refused() {
    for place in [Place::Standalone, Place::Bwrap] {
        let run = without_writing(Run::new(User::Ordinary, place));
        let hint = ["kernel.apparmor_restrict_unprivileged_userns", "CAP_SYS_ADMIN"];
        run.run(STARTED).refused("namespaces", &hint);
    }
}

/// U1
#[test]
fn the_remedy_for_restricted_user_namespaces_works() {
    for user in BOTH {
        works_with(SEPARATION, &without_writing(Run::new(user, Place::BwrapSysAdmin)));
    }
}

/// N11: found at the start, not by calls that fail.
#[test]
fn a_supervisor_that_may_not_read_is_refused() {
    let policy = ["--net-allow", "*:*"];
    for user in BOTH {
        let run = Run::new(user, Place::Standalone).options(policy);
        works(&run);
        let run = run.lacking(libc::SYS_process_vm_readv, libc::ENOSYS);
        run.run(STARTED).refused("plan", &["process_vm_readv", "outer filter"]);
    }
    // Yama's rules. What covers /proc/sys/kernel would forbid a new /proc in a user namespace.
    let own = Run::new(User::Root, Place::Standalone).options(policy);
    let alone = Run::domain(User::Ordinary, Place::Standalone).options(policy);
    let brokered = alone.clone().lacking(libc::SYS_pidfd_getfd, libc::EPERM);
    let mut rows = vec![(2, &own, true), (3, &own, false)];
    if !alone.refused_without(LANDLOCK_SCOPES) {
        rows.extend([(1, &alone, true), (2, &alone, false), (3, &alone, false)]);
        rows.extend([(1, &brokered, true), (2, &brokered, false), (3, &brokered, false)]);
    }
    for (scope, run, is_enough) in rows {
        let script = format!(
            r#"umask 022; mount -t tmpfs -o mode=755 none /proc/sys/kernel; mkdir /proc/sys/kernel/yama
            echo {scope} > /proc/sys/kernel/yama/ptrace_scope; exec "$@""#
        );
        let outcome = run.prepared(&script, STARTED);
        match is_enough {
            true => assert_eq!(outcome.success(), "started\n", "{scope}"),
            false => outcome.refused("plan", &["kernel.yama.ptrace_scope"]),
        }
    }
}

/// P14: an id of its own, as the limit counts all processes of the user.
#[test]
fn a_limit_of_processes_is_refused() {
    let limited = |processes: &str| {
        Run::new(User::Root, Place::Standalone).before(
            ["setpriv", "--reuid", "4242", "--regid", "4242", "--clear-groups", "prlimit"]
                .into_iter()
                .chain([&*format!("--nproc={processes}"), "--"]),
        )
    };
    limited("1").run(STARTED).refused("namespaces", &["RLIMIT_NPROC", "pids.max"]);
    limited("2").run(STARTED).refused("init", &["RLIMIT_NPROC", "pids.max"]);
    works(&limited("3"));
}

/// R6: each step that fails ends it.
#[test]
fn a_step_that_fails_starts_nothing() {
    for (call, stage) in [
        (libc::SYS_mount, "namespaces: make mounts private"),
        (libc::SYS_setpgid, "confine: setpgid"),
        (libc::SYS_landlock_restrict_self, "confine: landlock_restrict_self"),
        // Every one of the three processes makes these, and the first failure ends them all.
        (libc::SYS_capset, ""),
        (libc::SYS_close_range, ""),
    ] {
        let run = Run::new(User::Ordinary, Place::Standalone).lacking(call, libc::EPERM);
        // No step where there are no scopes to enforce.
        if call == libc::SYS_landlock_restrict_self && !kernel_has(LANDLOCK_SCOPES) {
            works(&run);
            continue;
        }
        let outcome = run.run(STARTED);
        assert_eq!((outcome.code, &*outcome.stdout), (125, ""), "{stage}: {outcome:?}");
        let line = format!("sbx-init: {stage}");
        assert!(outcome.stderr.lines().any(|l| l.starts_with(&line)), "{stage}: {outcome:?}");
    }
    // The drop of the bounding set, no_new_privs, and the filters themselves.
    for call in [
        format!("{}:0&4294967295={}", libc::SYS_prctl, libc::PR_CAPBSET_DROP),
        format!("{}:0&4294967295={}", libc::SYS_prctl, libc::PR_SET_SECUREBITS),
        format!("{}:0&4294967295={}", libc::SYS_prctl, libc::PR_SET_NO_NEW_PRIVS),
        format!("{}:0&4294967295={}", libc::SYS_prctl, libc::PR_SET_DUMPABLE),
        format!("{}:0&4294967295={}", libc::SYS_prctl, libc::PR_CAP_AMBIENT),
        format!("{}:0&4294967295={}", libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER),
    ] {
        let run = Run::new(User::Ordinary, Place::Standalone).lacking(&call, libc::EPERM);
        let outcome = run.run(STARTED);
        assert_eq!((outcome.code, &*outcome.stdout), (125, ""), "{call}: {outcome:?}");
    }
    let honest = Run::new(User::Ordinary, Place::Standalone);
    works(&honest.lacking(libc::SYS_getppid, libc::EPERM));
}
