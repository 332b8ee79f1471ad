//! The workload holds no capability, and gets none at execve.

mod support;

use support::kernel::SEPARATION;
use support::{EVERYWHERE, Outcome, Place, Run, User, contained, word};

const STATUS: &str = "grep -E '^(Cap...|NoNewPrivs|Seccomp):' /proc/self/status";

/// What /proc/self/status says, with this bounding set.
fn powerless(bounding: &str) -> String {
    let none = "0000000000000000";
    format!(
        "CapInh:\t{none}\nCapPrm:\t{none}\nCapEff:\t{none}\nCapBnd:\t{bounding}\nCapAmb:\t{none}\n\
         NoNewPrivs:\t1\nSeccomp:\t2\n"
    )
}

#[track_caller]
fn is_powerless(run: &Run) {
    // Through a shell: user id 0 might get capabilities at each execve.
    assert_eq!(run.sh(STATUS).success(), powerless("0000000000000000"));
    // Each bit and its lock, but for SECBIT_KEEP_CAPS, of which only the lock is set.
    assert_eq!(run.run([&*word("attempt"), "securebits"]).success(), "ok 0xef\n");
}

/// A4
#[test]
fn all_capability_sets_are_empty() {
    for (user, place) in EVERYWHERE {
        is_powerless(&Run::new(user, place));
    }
}

/// A4
#[test]
fn all_capability_sets_are_empty_whatever_bwrap_gave() {
    for user in [User::Root, User::Ordinary] {
        for more in [
            &["--cap-add", "ALL"][..],
            &["--cap-drop", "ALL", "--cap-add", "CAP_SYS_ADMIN", "--cap-add", "CAP_SETFCAP"],
            &["--cap-drop", "CAP_SETPCAP", "--cap-add", "CAP_SYS_ADMIN"],
        ] {
            is_powerless(&Run::new(user, Place::Bwrap).bwrap(more));
        }
        // Without it the workload of root has no user namespace of its own.
        let shared = Run::new(user, Place::BwrapSysAdmin).bwrap(["--cap-drop", "CAP_SETFCAP"]);
        if user == User::Ordinary || !shared.refused_without(SEPARATION) {
            is_powerless(&shared);
        }
    }
    is_powerless(&Run::new(User::Ordinary, Place::Bwrap).bwrap(["--cap-drop", "ALL"]));
}

/// A4
#[test]
fn inherited_ambient_capabilities_are_gone() {
    let ambient = ["--inh-caps", "+net_raw,+chown", "--ambient-caps", "+net_raw,+chown", "--"];
    let become_ordinary = ["setpriv", "--reuid", "1000", "--regid", "1000", "--clear-groups"];
    let before = become_ordinary.into_iter().chain(ambient);
    let run = Run::new(User::Root, Place::Standalone);
    is_powerless(&run.clone().before(before.clone()));
    let mut given = contained();
    given.args(before).args(["grep", "CapAmb", "/proc/self/status"]);
    assert_eq!(Outcome::new(given.output().unwrap()).success(), "CapAmb:\t0000000000002001\n");
    is_powerless(&run.before(["setpriv"].into_iter().chain(ambient)));
}

/// A4: the bounding set can only be emptied with CAP_SETPCAP, and it gives nothing by itself.
#[test]
fn a_bounding_set_that_cannot_be_emptied_gives_root_nothing() {
    let run = Run::new(User::Root, Place::Bwrap).bwrap([
        "--cap-drop",
        "ALL",
        "--cap-add",
        "CAP_SYS_ADMIN",
        "--cap-add",
        "CAP_NET_ADMIN",
    ]);
    if !run.refused_without(SEPARATION) {
        assert_eq!(run.sh(STATUS).success(), powerless("0000000000201000"));
    }
    let run = Run::new(User::Root, Place::Standalone).before([
        "setpriv",
        "--bounding-set",
        "-all,+sys_admin",
        "--",
    ]);
    if !run.refused_without(SEPARATION) {
        assert_eq!(run.sh(STATUS).success(), powerless("0000000000200000"));
    }
}

/// A4, U6: where a program file claims its capabilities effective, and the bounding set is empty,
/// the kernel does not execute it at all.
#[test]
fn setuid_and_file_capability_programs_give_nothing() {
    let script = r#"
        mount -t tmpfs none /mnt
        cp "$(command -v id)" /mnt/setuid; chmod 4755 /mnt/setuid
        for kind in p ep; do
            cp "$(command -v grep)" /mnt/$kind; setcap cap_net_admin,cap_chown=$kind /mnt/$kind
        done
        ordinary="setpriv --reuid 1000 --regid 1000 --clear-groups --"
        $ordinary /mnt/setuid -u
        $ordinary /mnt/p CapPrm /proc/self/status; $ordinary /mnt/ep CapEff /proc/self/status
        "$@""#;
    let inside = r#"/mnt/setuid -u; /mnt/p CapPrm /proc/self/status
        /mnt/ep CapEff /proc/self/status 2>/dev/null || echo "CapEff:	0000000000000000""#;
    for (user, place) in EVERYWHERE {
        let outcome = Run::new(user, place).prepared(script, ["sh", "-c", inside]);
        let own = if user == User::Root { "0" } else { "1000" };
        let (some, none) = ("0000000000001001", "0000000000000000");
        let expected = format!(
            "0\nCapPrm:\t{some}\nCapEff:\t{some}\n{own}\nCapPrm:\t{none}\nCapEff:\t{none}\n"
        );
        assert_eq!(outcome.success(), expected, "{user:?} {place:?}");
    }
}
