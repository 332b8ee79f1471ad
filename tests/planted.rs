//! A thread of the supervisor that panics ends everything.
//!
//! $SBX_TEST_PLANTED is a build of sbx-init in which one does when it is told to: the feature
//! `planted-panic`, which no other build has.

mod support;

use std::ffi::OsString;
use std::fs;

use support::kernel::LANDLOCK_SCOPES;
use support::scratch::Scratch;
use support::{COUNT, Outcome, Place, Run, User, beside_pod, sbx_init, word};

/// Others hang in the background, in a session of their own; then the call that panics.
const SCRIPT: &str = r#"setsid "$1" hang > /dev/null & "$2" tcp4 listen=4711; echo goes on"#;

fn panic_in(program: &str, options: &[&str]) -> Outcome {
    let run = Run::new(User::Ordinary, Place::Standalone)
        .options(["--net-allow", "127.0.0.1:*"])
        .options(options);
    let words: Vec<OsString> = run
        .words(["sh", "-c", SCRIPT, "sh", &word("calls"), &word("socket")])
        .into_iter()
        .map(|word| if word == sbx_init() { program.into() } else { word })
        .collect();
    // The containing PID namespace shows all that is left, not the workload's own.
    Outcome::of(beside_pod(["sh", "-c", COUNT, "sh"]).args(words))
}

#[test]
fn a_panic_of_a_supervisor_thread_ends_everything() {
    let planted = std::env::var_os("SBX_TEST_PLANTED").expect("SBX_TEST_PLANTED: run scripts/test");
    let scratch = Scratch::new("planted");
    let planted = scratch.executable("sbx-init", 0o755, fs::read(planted).unwrap());
    let ordinary = sbx_init().into_os_string().into_string().unwrap();
    let mut levels = vec![&["--isolation", "namespaces"][..]];
    let domain = Run::domain(User::Ordinary, Place::Standalone);
    if !domain.refused_without(LANDLOCK_SCOPES) {
        levels.push(&["--isolation", "domain"]);
    }
    // What runs when all is over: the harness.
    let left = |outcome: &Outcome, status: &str| {
        let (_, rest) = outcome.stdout.split_once(status).unwrap_or_else(|| panic!("{outcome:?}"));
        let mut rest: Vec<_> = rest.lines().map(str::to_owned).collect();
        rest.sort();
        rest == ["left pod", "left probe", "left sh"]
    };
    for options in levels {
        let outcome = panic_in(&planted, options);
        assert!(left(&outcome, "status 125\n"), "{outcome:?}");
        // The kernel closes the listener before it ends the rest: the call may see that, and nothing
        // else, in between.
        assert!(
            !outcome.stdout.contains("EACCES") && !outcome.stdout.contains("ok"),
            "{outcome:?}"
        );
        assert!(outcome.stderr.contains("planted"), "{outcome:?}");
        assert!(
            outcome.stderr.contains("sbx-init: init: PID 1: was ended by signal"),
            "{outcome:?}"
        );
        // A build like any other has no such hook.
        let outcome = panic_in(&ordinary, options);
        assert!(outcome.stdout.starts_with("listen=4711 EACCES\ngoes on\n"), "{outcome:?}");
        assert!(left(&outcome, "status 0\n"), "{outcome:?}");
    }
}
