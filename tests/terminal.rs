//! A terminal of its own for each test: signals typed at it, job control, who is in the foreground.

mod support;

use std::ffi::OsString;

use support::{EVERYWHERE, Outcome, Place, Run, User, contained, fixture, quote};

/// Plays the steps at a new terminal whose session is led by the words' process.
fn play(steps: &[&str], words: &[OsString]) -> Outcome {
    let mut command = contained();
    command.arg(fixture("onpty")).args(steps).arg("--").args(words);
    Outcome::new(command.output().unwrap())
}

/// Plays the steps at an interactive shell's terminal, between its first prompt, `P>`, and its end.
/// `$S` is the sandbox with the script as workload. No text that is expected may stand in what is
/// typed or in a script, which the terminal or the shell shows: hence `$((40+2))`.
#[track_caller]
fn play_in_shell(run: &Run, script: &str, steps: &[&str]) -> Outcome {
    let mut all = vec!["expect:P>"];
    all.extend(steps);
    all.extend(["expect:P>", "send:echo end$((40+2))\n", "expect:end42", "send:exit 0\n"]);
    let sandbox = format!("S={}", quote(&run.words(["sh", "-c", script])));
    let words = ["env", &sandbox, "PS1=P>", "bash", "--norc", "--noediting", "-i"];
    let outcome = play(&all, &words.map(OsString::from));
    // The shell warns of stopped jobs, and needs a second `exit`, if something is left.
    assert_eq!(outcome.code, 0, "{sandbox}\n{}\n{}", outcome.stdout, outcome.stderr);
    outcome
}

/// P10
#[test]
fn a_typed_interrupt_arrives_once() {
    for (user, place) in EVERYWHERE {
        let recorder = fixture("recorder").into_os_string();
        let words = Run::new(user, place).words([recorder, "3".into()]);
        // SI_KERNEL is 128: it came from the terminal.
        // All of the line: a typed signal discards what the terminal has not shown yet.
        let line = "expect:2 128 0 0\r\n";
        let steps = ["expect:READY\r\n", "send:\x03", line, "send:\x1c", "expect:MEMBER"];
        let outcome = play(&steps, &words);
        assert_eq!(outcome.code, 0, "{user:?} {place:?}: {outcome:?}");
        // Behind the two, the terminal shows what was typed.
        let records = outcome.stdout.replace("^C", "").replace("^\\", "").replace('\r', "");
        let expected = "READY\n2 128 0 0\n3 128 0 0\nMEMBER 0000000000000006\n";
        assert_eq!(records, expected, "{user:?} {place:?}");
    }
}

#[test]
fn a_typed_interrupt_ends_the_job_of_an_interactive_shell() {
    for (user, place) in EVERYWHERE {
        let script = "trap 'echo once$((40+2)); exit 9' INT; echo up$((40+2)); while :; do :; done";
        let steps = ["send:eval \"$S\"; echo =$?=\n", "expect:up42", "send:\x03", "expect:=9="];
        let outcome = play_in_shell(&Run::new(user, place), script, &steps);
        assert_eq!(outcome.stdout.matches("once42").count(), 1, "{outcome:?}");
    }
}

#[test]
fn a_change_of_the_window_size_arrives() {
    for (user, place) in EVERYWHERE {
        let recorder = fixture("recorder").into_os_string();
        let words = Run::new(user, place).words([recorder, libc::SIGWINCH.to_string().into()]);
        let outcome = play(&["expect:READY", "rows:33", "expect:28 128"], &words);
        assert_eq!(outcome.code, 0, "{user:?} {place:?}: {outcome:?}");
    }
}

/// Prints the process group of the workload and the foreground one, as it sees them.
const GROUPS: &str = "read -r a b c d group e f foreground g < /proc/self/stat
                      echo groups:$group:$foreground:";

#[test]
fn the_workload_leads_the_foreground_group_if_the_caller_is_in_it() {
    for (user, place) in EVERYWHERE {
        let steps = ["send:eval \"$S\"\n", "expect:groups:2:2:"];
        play_in_shell(&Run::new(user, place), GROUPS, &steps);
        let outcome = play(&[], &Run::new(user, place).words(["sh", "-c", GROUPS]));
        assert!(outcome.stdout.contains("groups:2:2:"), "{user:?} {place:?}: {outcome:?}");
    }
}

#[test]
fn the_workload_stays_in_the_background_with_the_caller() {
    for (user, place) in EVERYWHERE {
        // The foreground group is one outside.
        let steps = ["send:eval \"$S &\" 2>/dev/null; wait\n", "expect:groups:2:0:"];
        play_in_shell(&Run::new(user, place), GROUPS, &steps);
    }
}

const ASK: &str = "echo up$((40+2)); read -r x; echo got-$x-$((40+2))";

/// P11
#[test]
fn a_job_stopped_by_the_terminal_goes_on_in_the_foreground() {
    for (user, place) in EVERYWHERE {
        #[rustfmt::skip]
        let steps = [
            "send:eval \"$S\"\n", "expect:up42", "send:\x1a", "expect:Stopped", "expect:P>",
            "send:fg\n", "send:hello\n", "expect:got-hello-42",
        ];
        play_in_shell(&Run::new(user, place), ASK, &steps);
    }
}

/// Starts no process after `up`: one that is stopped between vfork and exec keeps its parent from
/// stopping, with and without a sandbox.
const FOR_EVER: &str = "sleep 1000 & echo up$((40+2)); while :; do wait $!; done";

/// P11
#[test]
fn a_job_is_stopped_and_continued_again_and_again() {
    let script = format!("trap 'echo again$((40+2))' CONT; {FOR_EVER}");
    for (user, place) in EVERYWHERE {
        let mut steps = vec!["send:eval \"$S\"\n", "expect:up42"];
        for _ in 0..5 {
            steps.extend(["send:\x1a", "expect:Stopped", "expect:P>"]);
            steps.extend(["send:fg\n", "expect:again42"]);
        }
        steps.push("send:\x03");
        play_in_shell(&Run::new(user, place), &script, &steps);
    }
}

/// P11
#[test]
fn a_stopped_job_goes_on_in_the_background() {
    let script = format!("trap 'echo again$((40+2)); exit' CONT; {FOR_EVER}");
    for (user, place) in EVERYWHERE {
        #[rustfmt::skip]
        let steps = [
            "send:eval \"$S\"\n", "expect:up42", "send:\x1a", "expect:Stopped", "expect:P>",
            "send:bg\n", "expect:again42", "send:wait\n",
        ];
        play_in_shell(&Run::new(user, place), &script, &steps);
    }
}

/// P11
#[test]
fn a_workload_that_stops_itself_stops_its_job() {
    let script = "echo up$((40+2)); kill -STOP $$; echo back$((40+2))";
    for (user, place) in EVERYWHERE {
        #[rustfmt::skip]
        let steps = [
            "send:eval \"$S\"\n", "expect:up42", "expect:Stopped", "expect:P>",
            "send:fg\n", "expect:back42",
        ];
        play_in_shell(&Run::new(user, place), script, &steps);
    }
}

const UNTIL_STOPPED: &str =
    "send:while jobs | grep -q Running; do sleep 0.05; done; jobs | sed s/ed/ed$((40+2))/\n";

/// P11
#[test]
fn a_background_job_that_reads_the_terminal_stops_and_reads_in_the_foreground() {
    for (user, place) in EVERYWHERE {
        #[rustfmt::skip]
        let steps = [
            "send:eval \"$S &\"\n", "expect:up42", UNTIL_STOPPED, "expect:Stopped42", "expect:P>",
            "send:fg\n", "send:hello\n", "expect:got-hello-42",
        ];
        play_in_shell(&Run::new(user, place), ASK, &steps);
    }
}

/// P11: the shell sends a job that runs no SIGCONT when it gives it the terminal.
#[test]
fn a_running_background_job_reads_when_it_has_come_to_the_foreground() {
    let script = "trap go=1 USR1; echo up$((40+2)); while [ -z \"$go\" ]; do sleep 0.01; done
                  read -r x; echo got-$x-$((40+2))";
    for user in [User::Root, User::Ordinary] {
        #[rustfmt::skip]
        let steps = [
            "send:eval \"$S &\"\n", "expect:up42",
            "send:{ sleep 0.5; kill -USR1 $!; } & fg %1\n", "send:hello\n", "expect:got-hello-42",
        ];
        play_in_shell(&Run::new(user, Place::Standalone), script, &steps);
    }
}

/// P11
#[test]
fn an_interactive_shell_inside_has_jobs_of_its_own() {
    for (user, place) in EVERYWHERE {
        let script = "PS1='in>' exec bash --norc --noediting -i";
        #[rustfmt::skip]
        let steps = [
            "send:eval \"$S\"\n", "expect:in>",
            "send:sh -c 'echo up$((40+2)); exec sleep 1000'\n", "expect:up42",
            "send:\x1a", "expect:Stopped", "expect:in>",
            "send:bg\n", "expect:in>", "send:jobs\n", "expect:Running", "expect:in>",
            "send:kill %1; wait\n", "expect:in>",
            "send:sh -c 'echo up$((40+2)); exec sleep 1000'\n", "expect:up42",
            "send:\x03", "expect:in>",
            "send:echo in$((40+2))\n", "expect:in42", "send:exit\n",
        ];
        play_in_shell(&Run::new(user, place), script, &steps);
    }
}

/// P11: a script without job control, to which nothing else gives the terminal back. Not so in
/// bubblewrap: there the script's process group has no number that could be named.
#[test]
fn a_script_has_the_terminal_back_after_the_sandbox() {
    for user in [User::Root, User::Ordinary] {
        let script = "\"$@\"; echo up$((40+2)); read -r x; echo got-$x-$((40+2))";
        let mut words: Vec<OsString> = ["sh", "-c", script, "sh"].map(Into::into).into();
        words.extend(Run::new(user, Place::Standalone).words(["true"]));
        let outcome = play(&["expect:up42", "send:hello\n"], &words);
        assert!(outcome.stdout.contains("got-hello-42"), "{user:?}: {outcome:?}");
    }
}

/// A caller with a terminal of its own that runs commands with redirected descriptors keeps the
/// terminal; a command that asks on it gets it all the same.
#[test]
fn a_caller_that_redirects_everything_keeps_its_terminal() {
    let quiet = "\"$@\" </dev/null >/dev/null 2>&1";
    for (user, place) in EVERYWHERE {
        let script = format!("{quiet}; echo up$((40+2)); read -r x; echo got-$x-$((40+2))");
        let mut words: Vec<OsString> = ["sh", "-c", &script, "sh"].map(Into::into).into();
        words.extend(Run::new(user, place).words(["true"]));
        let outcome = play(&["expect:up42", "send:hello\n"], &words);
        assert!(outcome.stdout.contains("got-hello-42"), "{user:?} {place:?}: {outcome:?}");

        let mut words: Vec<OsString> = ["sh", "-c", quiet, "sh"].map(Into::into).into();
        let ask = "exec 2>/dev/tty; echo up$((40+2)) >&2; read -r x </dev/tty; echo got-$x- >&2";
        words.extend(Run::new(user, place).words(["sh", "-c", ask]));
        let outcome = play(&["expect:up42", "send:hello\n"], &words);
        assert!(outcome.stdout.contains("got-hello-"), "{user:?} {place:?}: {outcome:?}");
    }
}

#[test]
fn without_a_terminal_nothing_is_missed() {
    for (user, place) in EVERYWHERE {
        let outcome =
            Run::new(user, place).before(["setsid", "-w"]).sh(&format!("{GROUPS}; exit 3"));
        assert_eq!(outcome.code, 3, "{outcome:?}");
        // -1: no terminal.
        assert_eq!(outcome.stdout, "groups:2:-1:\n", "{outcome:?}");
    }
}
