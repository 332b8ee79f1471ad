//! The harness itself: nothing runs as root outside of namespaces made for it.

mod support;

use std::fs;
use std::process::Command;

use support::kernel::{TABLE, kernel_has};
use support::{EVERYWHERE, Run, User, contained, fixture};

fn link(name: &str) -> String {
    fs::read_link(format!("/proc/self/ns/{name}")).unwrap().to_str().unwrap().to_owned()
}

/// Asks the guard, behind this command, to run something.
#[track_caller]
fn refused(command: &mut Command) {
    let guarded = ["contained", &link("pid"), &link("mnt"), "echo", "ran"];
    let output = command.args(guarded).output().unwrap();
    assert_eq!(output.status.code(), Some(124));
    assert!(output.stdout.is_empty());
}

#[test]
fn the_guard_refuses_to_run_in_the_namespaces_of_the_machine() {
    refused(&mut Command::new(fixture("probe")));
}

#[test]
fn the_guard_refuses_a_pid_namespace_without_a_mount_namespace() {
    refused(Command::new("unshare").args(["-pf", "--kill-child", "--"]).arg(fixture("probe")));
}

#[test]
fn a_contained_run_has_namespaces_of_its_own() {
    let output = contained().args(["readlink", "/proc/self/ns/pid", "/proc/self/ns/mnt"]).output();
    let text = String::from_utf8(output.unwrap().stdout).unwrap();
    assert_eq!(text.lines().count(), 2);
    assert!(!text.contains(&link("pid")) && !text.contains(&link("mnt")), "{text}");
}

#[test]
fn a_run_has_the_user_it_names() {
    for (user, place) in EVERYWHERE {
        let expected = if user == User::Root { "0\n" } else { "1000\n" };
        assert_eq!(Run::new(user, place).run(["id", "-u"]).success(), expected, "{place:?}");
    }
}

/// Otherwise a claim could turn into a refusal where it should be kept. A distribution may give an
/// older kernel more.
#[test]
fn a_kernel_has_what_its_version_brought() {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release.split(['.', '-']).map(|number| number.parse::<u32>().unwrap_or(0));
    let version = (numbers.next().unwrap(), numbers.next().unwrap());
    for row in TABLE {
        assert!(
            version < row.since || kernel_has(row.feature),
            "Linux {release} lacks {:?}: it is switched off",
            row.feature
        );
    }
}
