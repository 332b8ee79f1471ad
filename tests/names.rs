//! What names mean is frozen at the start, and the workload finds exactly that.
//!
//! Each run has a network namespace of its own with the name server of the fixture `pod`, and files in
//! /etc that lead there.

mod support;

use std::process::Command;
use std::time::{Duration, Instant};

use support::kernel::{FILE_RULES, LANDLOCK_SCOPES, kernel_has};
use support::{
    EVERYWHERE, Outcome, Place, Run, User, beside_pod, executable_paths, is_release, word,
};

/// Covers /etc with a copy of what programs need there, changed as `$CHANGE` says, and runs what follows.
const PREPARE: &str = r#"
    mount -t tmpfs -o mode=755 none /mnt
    for file in alternatives group host.conf java* ld.so.cache ld.so.conf ld.so.conf.d passwd ssl; do
      for path in /etc/$file; do [ ! -e "$path" ] || cp -a "$path" /mnt/; done
    done
    echo 'nameserver 127.0.0.1
    options timeout:1 attempts:2' > /mnt/resolv.conf
    echo 'passwd: files
    hosts: files dns' > /mnt/nsswitch.conf
    echo '127.0.0.1 localhost callers' > /mnt/hosts
    cd /mnt; eval "$CHANGE"; cd /
    mount --bind /mnt /etc
    exec "$@""#;

fn prepared(change: &str) -> Command {
    let mut command = beside_pod(["sh", "-ec", PREPARE, "sh"]);
    command.env("CHANGE", change);
    command
}

fn changed(run: &Run, change: &str, command: &[&str]) -> Outcome {
    Outcome::of(prepared(change).args(run.words(command)))
}

fn run(run: &Run, command: &[&str]) -> Outcome {
    changed(run, ":", command)
}

fn everywhere() -> impl Iterator<Item = Run> {
    EVERYWHERE.into_iter().map(|(user, place)| Run::new(user, place).bwrap(["--share-net"]))
}

fn allowing(targets: &[&str]) -> Run {
    let run = Run::new(User::Ordinary, Place::Standalone);
    targets.iter().fold(run, |run, target| run.options(["--net-allow", target]))
}

fn lookup(at: &Run, name: &str) -> String {
    run(at, &[&word("attempt"), "lookup", name]).success().trim().to_owned()
}

const MANY: &str = "ok 192.0.2.1 192.0.2.2 192.0.2.3 192.0.2.4 192.0.2.5 192.0.2.6 192.0.2.7 192.0.2.8 \
                    2001:db8::1 2001:db8::2 2001:db8::3 2001:db8::4 2001:db8::5 2001:db8::6 \
                    2001:db8::7 2001:db8::8";

/// D-3
#[test]
fn the_workload_finds_exactly_the_pins() {
    for at in everywhere() {
        let at = at.options(["--net-allow", "many.test:80", "--net-allow", "ALIAS.test.:443"]);
        assert_eq!(lookup(&at, "many.test"), MANY, "{at:?}");
        assert_eq!(lookup(&at, "alias.test"), "ok 192.0.2.7 2001:db8::7", "{at:?}");
        assert_eq!(lookup(&at, "localhost"), "ok 127.0.0.1 ::1", "{at:?}");
    }
}

/// D-7, N6
#[test]
fn a_name_that_is_not_pinned_fails_at_once() {
    for at in everywhere() {
        let at = at.options(["--net-allow", "many.test:80"]);
        for name in ["other.test", "first.test", "other", "callers"] {
            assert_eq!(lookup(&at, name), "ok nothing soon", "{name} {at:?}");
        }
    }
    // Which exists, outside.
    let at = Run::new(User::Ordinary, Place::Standalone);
    assert_eq!(lookup(&at, "other.test"), "ok 192.0.2.1");
}

/// D-9
#[test]
fn later_answers_change_nothing() {
    let script = r#"for n in 1 2 3; do "$1" lookup rotate.test; done"#;
    let at = allowing(&["rotate.test:80"]);
    let outcome = run(&at, &["sh", "-c", script, "sh", &word("attempt")]);
    let lines: Vec<_> = outcome.success().lines().collect();
    assert_eq!(lines.len(), 3);
    assert!(lines.iter().all(|line| *line == lines[0]), "{lines:?}");
    let free = Run::new(User::Ordinary, Place::Standalone);
    let outcome = run(&free, &["sh", "-c", script, "sh", &word("attempt")]);
    let lines: Vec<_> = outcome.success().lines().collect();
    assert!(lines[0] != lines[1] && lines[1] != lines[2], "{lines:?}");
}

/// D-5
#[test]
fn an_answer_that_needs_tcp_is_taken() {
    let at = allowing(&["large.test:80"]);
    if is_release() {
        // Some of it, or a refusal: never an endless start.
        let outcome = run(&at, &["true"]);
        if outcome.code != 0 {
            outcome.refused("network", &["--pin"]);
        }
        return;
    }
    let found = lookup(&at, "large.test");
    assert_eq!(found.split(' ').count(), 1 + 120, "{found}");
}

/// Only what is pinned is reached, and by each of its addresses.
#[test]
fn a_name_allows_its_addresses_and_ports_alone() {
    // There is no way to these addresses here: the kernel says so where the policy lets it.
    let connect = |words: &str| {
        let program = word("socket");
        let words: Vec<&str> = std::iter::once(&*program).chain(words.split(' ')).collect();
        let outcome = run(&allowing(&["alias.test:80"]), &words);
        outcome.success().trim().rsplit(' ').next().unwrap().to_owned()
    };
    assert_eq!(connect("tcp4 connect=192.0.2.7:80"), "ENETUNREACH");
    assert_eq!(connect("tcp6 connect=[2001:db8::7]:80"), "ENETUNREACH");
    assert_eq!(connect("tcp6 connect=[::ffff:192.0.2.7]:80"), "ENETUNREACH");
    assert_eq!(connect("tcp4 connect=192.0.2.7:443"), "EACCES");
    assert_eq!(connect("tcp4 connect=192.0.2.8:80"), "EACCES");
}

/// D-6
#[test]
fn a_name_that_surprises_is_refused() {
    for (name, own, class) in [
        ("loopback.test", "127.0.0.1", "loopback"),
        ("private.test", "10.0.0.0/8", "private"),
        ("metadata.test", "169.254.169.254", "metadata"),
        ("mapped.test", "127.0.0.1", "loopback"),
        ("mixed.test", "127.0.0.0/8", "loopback"),
    ] {
        let rule = format!("{name}:3128");
        let outcome = run(&allowing(&[&rule]), &["true"]);
        outcome.refused("network", &["--pin"]);
        assert!(outcome.stderr.contains(class), "{outcome:?}");
        // Nor because of a rule for another port, or of the caller's wish to go on.
        let other = allowing(&[&rule, &format!("{own}:1")]).options(["--dns-optional"]);
        run(&other, &["true"]).refused("network", &["--pin"]);
        let allowed = allowing(&[&rule, &format!("{own}:3128")]);
        assert!(lookup(&allowed, name).starts_with("ok "), "{name}");
    }
    let as_private =
        |name: &str| run(&allowing(&[&format!("{name}:80")]).options(["--dns-private"]), &["true"]);
    as_private("private.test").success();
    for (name, class) in [("loopback.test", "loopback"), ("link-local.test", "link-local")] {
        let outcome = as_private(name);
        outcome.refused("network", &["--pin"]);
        assert!(outcome.stderr.contains(class), "{outcome:?}");
    }
    // A name by which a service of this machine is meant, in earnest.
    let at = allowing(&["loopback.test:3128", "127.0.0.1:3128"]);
    let outcome = run(&at, &[&word("attempt"), "fetch", "loopback.test:3128"]);
    assert_eq!(outcome.success(), "ok GET / HTTP/1.0 at 127.0.0.1:3128\n");
    assert_eq!(run(&at, &[&word("attempt"), "fetch", "loopback.test:8080"]).success(), "EACCES\n");
}

/// D-2
#[test]
fn a_name_without_an_address_is_fatal_or_reported() {
    for name in ["missing.test", "empty.test", "silent.test"] {
        let at = allowing(&[&format!("{name}:80"), "many.test:80"]);
        let start = Instant::now();
        let outcome = run(&at, &["true"]);
        outcome.refused("network", &["--pin", "--dns-optional"]);
        assert!(outcome.stderr.contains(name), "{outcome:?}");
        assert!(start.elapsed() < Duration::from_secs(30), "{:?}", start.elapsed());
        let at = at.options(["--dns-optional"]);
        let outcome = run(&at, &[&word("attempt"), "lookup", "many.test"]);
        assert_eq!(outcome.success().trim(), MANY);
        let line = format!("sbx-init: not resolved: {name}: ");
        assert!(outcome.stderr.starts_with(&line), "{outcome:?}");
        assert_eq!(outcome.stderr.lines().count(), 1, "{outcome:?}");
        assert_eq!(lookup(&at, name), "ok nothing soon");
    }
}

/// D-3: not even the caller's files are found where no name means anything.
#[test]
fn where_no_name_means_anything_none_is_found() {
    let at = allowing(&["missing.test:80"]).options(["--dns-optional"]);
    assert_eq!(lookup(&at, "callers"), "ok nothing soon");
    assert_eq!(lookup(&at, "localhost"), "ok 127.0.0.1 ::1");
}

/// D-3: a rule stands for the file that will be covered, one for its directory for what covers it.
#[test]
fn a_landlock_rule_for_a_generated_file_is_refused() {
    let at = allowing(&["many.test:80"]).options(["--rox", &executable_paths()]);
    if !kernel_has(FILE_RULES) {
        assert!(run(&at, &["true"]).refused_without(FILE_RULES));
        return;
    }
    assert_eq!(lookup(&at.clone().options(["--ro", "/etc"]), "many.test"), MANY);
    for file in ["/etc/hosts", "/etc/nsswitch.conf", "/etc/resolv.conf"] {
        let at = at.clone().options(["--ro", file]);
        run(&at, &["true"]).refused("plan", &["directory", "--no-pin-hosts"]);
        assert_eq!(run(&at.options(["--no-pin-hosts"]), &["true"]).success(), "");
    }
}

/// P6
#[test]
fn a_signal_ends_what_waits_for_a_name_server() {
    let wait = ["timeout", "--preserve-status", "-s", "TERM", "1"];
    let mut runs = vec![Run::new(User::Ordinary, Place::Standalone)];
    let domain = Run::domain(User::Ordinary, Place::Standalone);
    if !domain.refused_without(LANDLOCK_SCOPES) {
        runs.push(domain);
    }
    for run in runs {
        let at = run.before(wait).options(["--net-allow", "silent.test:80"]);
        let outcome = changed(&at, ":", &["true"]);
        assert_eq!(outcome.code, 128 + libc::SIGTERM, "{outcome:?}");
        assert!(!outcome.stderr.contains("silent.test"), "{outcome:?}");
    }
}

/// D-10
#[test]
fn a_caller_that_resolved_outside_needs_no_network() {
    let pins = ["--net-allow", "far.test:80", "--pin", "far.test=192.0.2.9,2001:db8::9"];
    for (user, place) in EVERYWHERE {
        let at = Run::new(user, place).options(pins);
        // Not even a name server that answers.
        let silence = "echo 'nameserver 192.0.2.99' > resolv.conf";
        for (name, expected) in
            [("far.test", "ok 192.0.2.9 2001:db8::9"), ("many.test", "ok nothing soon")]
        {
            let outcome = changed(&at, silence, &[&word("attempt"), "lookup", name]);
            assert_eq!(outcome.success().trim(), expected, "{user:?} {place:?}");
        }
    }
    // A pin wins over what the server says.
    let at = allowing(&["many.test:80"]).options(["--pin", "many.test=192.0.2.99"]);
    assert_eq!(lookup(&at, "many.test"), "ok 192.0.2.99");
}

#[test]
fn the_callers_files_can_be_kept() {
    let at = allowing(&["alias.test:80"]).options(["--no-pin-hosts"]);
    let outcome = run(&at, &["cat", "/etc/hosts", "/etc/resolv.conf"]);
    assert!(outcome.success().starts_with("127.0.0.1 localhost callers\n"), "{outcome:?}");
    assert!(outcome.success().contains("nameserver 127.0.0.1\n"), "{outcome:?}");
    // What the name means is frozen all the same.
    let program = word("socket");
    let outcome = run(&at, &[&program, "tcp4", "connect=192.0.2.7:80", "connect=192.0.2.8:80"]);
    assert_eq!(
        outcome.success(),
        "connect=192.0.2.7:80 ENETUNREACH\nconnect=192.0.2.8:80 EACCES\n"
    );
}

/// N5: getaddrinfo names ::1 first.
#[test]
fn a_denied_address_is_passed_over_for_an_allowed_one() {
    for at in everywhere() {
        let at = at.options(["--net-allow", "127.0.0.1:3128"]);
        let outcome = run(&at, &[&word("attempt"), "fetch", "localhost:3128"]);
        assert_eq!(outcome.success(), "ok GET / HTTP/1.0 at 127.0.0.1:3128\n", "{at:?}");
    }
}

#[test]
fn without_a_mount_namespace_the_report_says_what_is_missing() {
    let at = allowing(&["many.test:80"]).options(["--isolation", "domain"]);
    let outcome = run(&at, &["cat", "/etc/hosts"]);
    if outcome.refused_without_domain() {
        return;
    }
    assert_eq!(outcome.success(), "127.0.0.1 localhost callers\n");
    assert!(outcome.stderr.contains("not enforced: /etc/hosts"), "{outcome:?}");
    let outcome = run(&at.clone().options(["--status-fd", "2"]), &["true"]);
    assert!(outcome.stderr.contains(r#""missing":["/etc/hosts with"#), "{outcome:?}");
    // Addresses and ports count as everywhere.
    let outcome =
        run(&at, &[&word("socket"), "tcp4", "connect=192.0.2.7:80", "connect=192.0.2.9:80"]);
    assert_eq!(
        outcome.success(),
        "connect=192.0.2.7:80 ENETUNREACH\nconnect=192.0.2.9:80 EACCES\n"
    );
}

/// D-4
#[test]
fn links_and_missing_files_mislead_nobody() {
    let at = allowing(&["alias.test:80"]);
    for change in [
        "mv hosts elsewhere; ln -s elsewhere hosts",
        "mv hosts elsewhere; ln -s elsewhere second; ln -s /etc/second hosts",
        "mv resolv.conf elsewhere; ln -s ../etc/elsewhere resolv.conf",
        "mv nsswitch.conf elsewhere; ln -s elsewhere nsswitch.conf",
        "rm nsswitch.conf",
        "echo 'hosts: mymachines resolve [!UNAVAIL=return] files dns' > nsswitch.conf",
        ": > hosts",
        "chmod 400 hosts nsswitch.conf",
    ] {
        for (name, expected) in
            [("alias.test", "ok 192.0.2.7 2001:db8::7"), ("other.test", "ok nothing soon")]
        {
            let outcome = changed(&at, change, &[&word("attempt"), "lookup", name]);
            assert_eq!(outcome.success().trim(), expected, "{change}");
        }
    }
    for change in ["rm hosts", "rm hosts; ln -s nowhere hosts"] {
        changed(&at, change, &["true"]).refused("network", &["/etc/hosts", "--no-pin-hosts"]);
    }
    let pinned = at.options(["--pin", "alias.test=192.0.2.7"]);
    let outcome = changed(&pinned, "rm resolv.conf", &[&word("attempt"), "lookup", "alias.test"]);
    assert_eq!(outcome.success().trim(), "ok 192.0.2.7");
}

/// Every way to change or uncover a file, and what it then says.
const TAMPER: &str = r#"
    file=$1; before=$(cat "$file")
    try() { "$@" > /dev/null 2>&1 && echo "done: $*"; }
    attack() {
      try sh -c "echo '192.0.2.66 alias.test' >> $file"
      try chmod 666 "$file"; try rm -f "$file"; try mv "$file" "$file.old"
      try umount "$file"; try umount -l "$file"; try mount -o remount,bind,rw "$file"
      [ "$before" = "$(cat "$file")" ] || echo "changed"
    }
    attack
    unshare -Urm true || exit 3
    export file before
    unshare -Urm sh -c "$(printf '%s\n' 'try() { "$@" > /dev/null 2>&1 && echo "done: $*"; }
      try umount "$file"; try umount -l "$file"; try mount -o remount,bind,rw "$file"
      [ "$before" = "$(cat "$file")" ] || echo changed')"
    echo end"#;

#[test]
fn the_generated_files_cannot_be_changed() {
    for (user, place) in [
        (User::Ordinary, Place::Standalone),
        (User::Ordinary, Place::Bwrap),
        (User::Ordinary, Place::BwrapSysAdmin),
    ] {
        let at =
            Run::new(user, place).bwrap(["--share-net"]).options(["--net-allow", "alias.test:80"]);
        for file in ["/etc/hosts", "/etc/resolv.conf", "/etc/nsswitch.conf"] {
            let outcome = run(&at, &["sh", "-c", TAMPER, "sh", file]);
            assert_eq!(outcome.success(), "end\n", "{file} {at:?} {}", outcome.stderr);
        }
    }
    let at = Run::new(User::Root, Place::Standalone).options(["--net-allow", "alias.test:80"]);
    let script = r#"for way in "umount /etc/hosts" "mount -o remount,bind,rw /etc/hosts" "rm -f /etc/hosts" \
        "chmod 600 /etc/hosts"; do $way 2> /dev/null && echo "$way"; done
        echo 192.0.2.66 alias.test >> /etc/hosts || echo end"#;
    assert_eq!(run(&at, &["sh", "-c", script]).success(), "end\n");
}

/// Nothing of them is left where they were made, nor outside.
#[test]
fn the_generated_files_are_nowhere_else() {
    let at = allowing(&["alias.test:80"]);
    assert!(run(&at, &["cat", "/etc/hosts"]).success().contains("192.0.2.7 alias.test"));
    // They are made in a file system that is mounted there meanwhile, by the names 0, 1 and so on.
    let script = "grep ' /proc .* - tmpfs ' /proc/self/mountinfo; test ! -e /proc/0; echo $?";
    assert_eq!(run(&at, &["sh", "-c", script]).success(), "0\n");
    let mut outside = prepared(":");
    outside.args(["sh", "-c", r#""$@"; cat /etc/hosts"#, "sh"]).args(at.words(["true"]));
    assert_eq!(Outcome::of(&mut outside).success(), "127.0.0.1 localhost callers\n");
}
