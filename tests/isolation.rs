//! Surroundings that are unusual and must work, and what lies beyond /proc and capabilities.

mod support;

use support::kernel::{LANDLOCK_SCOPES, SEPARATION, kernel_has};
use support::{BOTH, EVERYWHERE, Outcome, Place, Run, User, contained, sbx_init, word};

/// U7
#[test]
fn a_proc_with_hidepid_is_no_obstacle() {
    for user in BOTH {
        let run = Run::new(user, Place::Standalone);
        let script = r#"mount -t proc -o hidepid=2 proc /proc; "$@""#;
        assert_eq!(run.prepared(script, ["cat", "/proc/2/comm"]).success(), "cat\n", "{user:?}");
    }
}

/// U7
#[test]
fn a_user_without_a_name_is_no_obstacle() {
    for user in BOTH {
        for more in [&[][..], &["--cap-add", "CAP_SYS_ADMIN"]] {
            let run = Run::new(user, Place::Bwrap).bwrap(more).bwrap(["--tmpfs", "/etc"]);
            assert_eq!(run.sh("test -e /etc/passwd || echo ran").success(), "ran\n", "{user:?}");
        }
    }
}

/// U7
#[test]
fn a_deleted_working_directory_is_no_obstacle() {
    for (user, place) in EVERYWHERE {
        let gone = r#"cd "$(mktemp -d)"; rmdir "$PWD"; exec "$@""#;
        let mut run = Run::new(user, place).before(["sh", "-c", gone, "sh"]);
        if place != Place::Standalone {
            let programs = sbx_init().parent().unwrap().to_owned();
            run = run.bwrap(["--tmpfs", "/tmp", "--ro-bind"]).bwrap([&programs, &programs]);
        }
        assert_eq!(run.run(["echo", "ran"]).success(), "ran\n", "{user:?} {place:?}");
    }
}

/// U7: in a chroot the kernel makes no user namespace, so only root gets in.
#[test]
fn a_chroot_works_for_root_and_is_refused_to_others() {
    // A directory that is no mount point, as the root of a mount namespace is.
    let script = r#"
        mount -t tmpfs none /mnt; mkdir -p /mnt/above /mnt/root/mnt/below
        for path in /*; do
            if test -L $path; then cp -P $path /mnt/root
            elif test -d $path -a $path != /mnt; then
                mkdir /mnt/root$path; mount --rbind $path /mnt/root$path
            fi
        done
        exec "$@""#;
    let chroot = |user: &str| {
        let mut command = contained();
        command.args(["sh", "-ec", script, "sh", "chroot", user, "/mnt/root"]);
        command.arg(sbx_init()).args(["sh", "-c", "readlink /proc/self; ls /mnt"]);
        Outcome::new(command.output().unwrap())
    };
    let root = chroot("--userspec=0:0");
    if !root.refused_without(SEPARATION) {
        // The root of the workload is the chroot's, not that of the mount namespace.
        assert_eq!(root.success(), "3\nbelow\n");
    }
    chroot("--userspec=1000:1000").refused("namespaces", &["chroot", "CAP_SYS_ADMIN"]);
}

/// U9
#[test]
fn a_sandbox_in_a_sandbox_works() {
    let inner = sbx_init().into_os_string().into_string().unwrap();
    for place in [Place::Standalone, Place::Bwrap, Place::BwrapSysAdmin] {
        let run = Run::new(User::Ordinary, place);
        let outcome = run.run([&*inner, &*inner, "ps", "ax", "-o", "pid=,comm="]);
        let rows: Vec<_> = outcome.success().lines().map(str::trim).collect();
        assert_eq!(rows, ["1 sbx-init", "2 ps"], "{place:?}");
    }
}

/// U9, U2
#[test]
fn a_sandbox_in_a_sandbox_of_root_is_refused_clearly() {
    let inner = sbx_init().into_os_string().into_string().unwrap();
    for place in [Place::Standalone, Place::Bwrap, Place::BwrapSysAdmin] {
        let outcome = Run::new(User::Root, place).run([&*inner, "echo", "started"]);
        outcome.refused("namespaces", &["CAP_SETFCAP"]);
    }
}

/// U9
#[test]
fn a_sandbox_in_one_without_user_namespaces_is_refused_clearly() {
    let inner = sbx_init().into_os_string().into_string().unwrap();
    let run = Run::new(User::Ordinary, Place::Standalone).options(["--deny", "userns"]);
    run.run([&*inner, "echo", "started"]).refused("namespaces", &["seccomp filter"]);
}

/// U9, D7: the kernel stacks 16 Landlock domains, and some 32 namespaces.
#[test]
fn a_sandbox_nested_too_deeply_is_refused() {
    let nested = |levels: usize| {
        let mut command = vec![sbx_init().into_os_string(); levels - 1];
        command.extend(["echo", "started"].map(Into::into));
        Run::new(User::Ordinary, Place::Standalone).run(command)
    };
    assert_eq!(nested(16).success(), "started\n");
    if !kernel_has(LANDLOCK_SCOPES) {
        return nested(40).refused("namespaces", &["32 levels"]);
    }
    let outcome = nested(17);
    assert_eq!((outcome.code, &*outcome.stdout), (125, ""), "{outcome:?}");
    assert!(outcome.stderr.contains("landlock_restrict_self"), "{outcome:?}");
}

/// A10
#[test]
fn a_workload_may_make_a_user_namespace() {
    for place in [Place::Standalone, Place::Bwrap, Place::BwrapSysAdmin] {
        let ordinary = Run::new(User::Ordinary, place);
        assert_eq!(ordinary.run(["unshare", "-Ur", "id", "-u"]).success(), "0\n", "{place:?}");
        // Mapping user id 0 takes CAP_SETFCAP, which root has lost: there is no map.
        let root = Run::new(User::Root, place);
        assert_eq!(root.run(["unshare", "-U", "id", "-u"]).success(), "65534\n", "{place:?}");
    }
}

/// A8
#[test]
fn a_workload_cannot_signal_the_group_it_was_started_in() {
    for (user, place) in EVERYWHERE {
        let bystander = r#"sleep 1000 & "$@"; kill -0 $! && echo alive"#;
        // A session of their own, lest a failure ends the tests.
        let run = Run::new(user, place).before(["setsid", "-w", "sh", "-c", bystander, "sh"]);
        // A domain stops signals to what is outside; the process group must do without.
        let old = run.clone().lacking(libc::SYS_landlock_create_ruleset, libc::ENOSYS);
        for (run, target) in [(&run, "0"), (&run, "-1"), (&old, "0"), (&old, "-1")] {
            let script = format!("sleep 1000 & trap '' TERM; kill -TERM {target}; wait; echo own");
            let outcome = run.sh(&script);
            assert_eq!(outcome.success(), "own\nalive\n", "{user:?} {place:?} {target}");
        }
    }
}

/// A12: keyrings know no namespaces, and a user's are open to each of his processes.
#[test]
fn the_callers_keys_are_out_of_reach_unless_allowed() {
    let attempt = word("attempt");
    for (user, place) in EVERYWHERE {
        let read = |options: &[&str]| {
            let run = Run::new(user, place).before([&*attempt, "session-key", "plant"]);
            run.options(options).run([&*attempt, "session-key", "read"]).success().to_owned()
        };
        assert_eq!(read(&[]), "EPERM\n", "{user:?} {place:?}");
        assert_eq!(read(&["--allow", "keys", "--deny", "kernel"]), "EPERM\n");
        assert_eq!(read(&["--allow", "keys"]), "ok secret\n", "{user:?} {place:?}");
    }
}
