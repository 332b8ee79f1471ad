//! The prebuilt binary is all that a newcomer needs beside bubblewrap.

mod support;

use std::path::Path;
use std::process::Command;

use support::scratch::Scratch;
use support::{Outcome, User, become_user, contained};

/// The README's first command, in a directory with these parts of the checkout only.
fn first_command(name: &str, parts: &[&str], user: User) -> Outcome {
    let scratch = Scratch::new(&format!("{name}-{user:?}"));
    let copied = Command::new("cp")
        .args(["-r", "--parents"])
        .args(parts)
        .arg(scratch.path())
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .status();
    assert!(copied.unwrap().success());
    let mut command = contained();
    command.args(become_user(user)).args(["env", "-i", "-C"]).arg(scratch.path());
    command.args(["PATH=/usr/bin:/bin", "scripts/run", "--", "id", "-u"]);
    Outcome::new(command.output().unwrap())
}

#[test]
fn the_first_command_needs_no_toolchain() {
    assert!(Path::new("/usr/bin/bwrap").exists(), "bubblewrap is not installed");
    let scripts = ["scripts/run", "scripts/require"];
    for (user, id) in [(User::Root, "0\n"), (User::Ordinary, "1000\n")] {
        let outcome = first_command("whole", &[&scripts[..], &["vendor"]].concat(), user);
        assert_eq!(outcome.success(), id);
        let outcome = first_command("lacking", &scripts, user);
        assert_eq!((outcome.code, &*outcome.stdout), (125, ""), "{outcome:?}");
    }
}
