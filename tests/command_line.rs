//! The command line of the real program, to the byte.

mod support;

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::process::{Command, Output, Stdio};

use support::scratch::Scratch;
use support::{EVERYWHERE, Outcome, Place, Run, User, contained, probe, sbx_init};

/// Shows each argument as hexadecimal bytes, a line each.
const SHOW: &str = "for word; do printf %s \"$word\" | od -An -v -tx1 | tr -d ' \\n'; echo; done";

fn show() -> [&'static str; 4] {
    ["sh", "-c", SHOW, "sh"]
}

fn hex(words: &[&[u8]]) -> String {
    let line = |word: &&[u8]| word.iter().map(|b| format!("{b:02x}")).collect::<String>() + "\n";
    words.iter().map(line).collect()
}

fn standalone() -> Run {
    // An element of the caller's PATH that may not be searched would make a missing command EACCES.
    Run::new(User::Ordinary, Place::Standalone).before(["env", "PATH=/usr/bin:/bin"])
}

/// Runs sbx-init where it starts nothing.
fn ask<S: AsRef<OsStr>>(words: impl IntoIterator<Item = S>) -> Output {
    Command::new(sbx_init()).args(words).stdin(Stdio::null()).output().unwrap()
}

#[test]
fn a_command_alone_needs_no_separator() {
    for (user, place) in EVERYWHERE {
        let run = Run::new(user, place);
        assert_eq!(run.run(["echo", "a", "b"]).success(), "a b\n");
        assert_eq!(run.run(["--", "echo", "a", "--", "b"]).success(), "a -- b\n");
    }
}

#[test]
fn options_stop_at_the_first_word() {
    let run = standalone().options(["--proc=hide"]);
    let words = ["--proc", "--help", "-x", "--", "--keep-fd=9"];
    assert_eq!(run.run(["echo"].iter().chain(&words)).success(), words.join(" ") + "\n");
    // After the separator even what looks like an option is the command.
    let outcome = standalone().run(["--", "--version"]);
    assert_eq!(outcome.code, 127, "{outcome:?}");
    assert!(outcome.stderr.starts_with("sbx-init: exec: --version: "), "{outcome:?}");
}

#[test]
fn arguments_and_environment_are_passed_byte_for_byte() {
    // The harness carries text, so the shell in between makes the bytes.
    let script = "X=$(printf '\\200=\\377') exec \"$@\" \"$(printf '\\377\\200\\n\\001\\302')\" ''";
    let inside = format!("set -- \"$@\" \"$X\"; {SHOW}");
    for (user, place) in EVERYWHERE {
        let run = Run::new(user, place).before(["sh", "-c", script, "sh"]);
        let outcome = run.run(["sh", "-c", &inside, "sh"]);
        assert_eq!(outcome.success(), hex(&[b"\xff\x80\n\x01\xc2", b"", b"\x80=\xff"]));
    }
}

#[test]
fn a_command_may_have_any_bytes_in_its_name() {
    let scratch = Scratch::new("name");
    let script = "cd \"$1\" && shift && cp /bin/echo \"$(printf '\\377\\200')\" &&
        PATH=\"$PWD:$PATH\" exec \"$@\" \"$(printf '\\377\\200')\" ran";
    let directory = scratch.path().to_str().unwrap();
    let outcome = standalone().before(["sh", "-c", script, "sh", directory]).run([""; 0]);
    assert_eq!(outcome.success(), "ran\n");
}

/// Runs sbx-init with `bytes` to be read from descriptor 9, and `words` as its command line.
fn with_args(bytes: &[u8], words: &[&str]) -> Outcome {
    let scratch = Scratch::new(&format!("args-{:?}", std::thread::current().id()));
    let file = scratch.write("args", bytes);
    standalone().before(["sh", "-c", "exec 9<\"$0\" \"$@\"", &file]).run(words)
}

fn nul_separated(words: &[&str]) -> Vec<u8> {
    words.join("\0").into_bytes()
}

#[test]
fn arguments_are_read_from_a_descriptor() {
    let command = nul_separated(&["--proc", "hide", "--", show()[0], show()[1], show()[2], "sh"]);
    let with = |more: &[u8]| with_args(&[&command[..], more].concat(), &["--args", "9"]);
    assert_eq!(with(b"\0a").success(), hex(&[b"a"]));
    assert_eq!(with(b"\0a\0").success(), hex(&[b"a"]));
    assert_eq!(with(b"\0a\0\0").success(), hex(&[b"a", b""]));
    assert_eq!(with(b"\0\0\0a b\n\0\xff\x80").success(), hex(&[b"", b"", b"a b\n", b"\xff\x80"]));
    assert_eq!(with(b"").success(), "");
    // The words that follow on the command line come behind.
    let spliced = nul_separated(&["--proc=hide", show()[0], show()[1], show()[2], "sh", "first"]);
    let outcome = with_args(&spliced, &["--args", "9", "--proc", "last"]);
    assert_eq!(outcome.success(), hex(&[b"first", b"--proc", b"last"]));
    let outcome = with_args(b"--proc\0", &["--args=9", "hide", "ls", "/proc"]);
    assert_eq!(outcome.success(), "");
}

#[test]
fn an_argument_read_from_a_descriptor_may_be_the_empty_command() {
    let outcome = with_args(b"\0", &["--args", "9"]);
    assert_eq!(outcome.code, 127, "{outcome:?}");
}

#[test]
fn a_descriptor_without_arguments_adds_none() {
    assert_eq!(with_args(b"", &["--args", "9", "echo", "a"]).success(), "a\n");
    with_args(b"", &["--args", "9"]).refused("options", &[]);
}

#[test]
fn arguments_from_a_descriptor_may_name_another() {
    let scratch = Scratch::new("nested");
    let first = scratch.write("first", b"--args\08\0a");
    let second = scratch.write("second", b"--\0echo\0b");
    let script = format!("exec 8<{second} 9<{first} \"$@\"");
    let run = standalone().before(["sh", "-c", &script, "sh"]).options(["--args", "9"]);
    assert_eq!(run.run(["c"]).success(), "b a c\n");
    // The same descriptor has been read to its end.
    assert_eq!(with_args(b"--args\09\0echo\0a", &["--args", "9"]).success(), "a\n");
}

#[test]
fn arguments_are_read_from_standard_input() {
    let scratch = Scratch::new("stdin");
    let file = scratch.write("args", b"cat");
    let run = standalone().before(["sh", "-c", "exec \"$@\" <\"$0\"", &file]);
    assert_eq!(run.options(["--args", "0"]).run([""; 0]).success(), "");
}

#[test]
fn arguments_that_cannot_be_read_are_refused() {
    let refused = |redirection: &str, words: &[&str]| {
        let script = format!("exec \"$@\" {redirection}");
        let run = standalone().before(["sh", "-c", &script, "sh"]).options(words);
        let outcome = run.run(["echo", "ran"]);
        outcome.refused("options", &[]);
        assert!(outcome.stderr.starts_with("sbx-init: options: --args: "), "{outcome:?}");
        assert_eq!(outcome.stderr.lines().count(), 1, "{outcome:?}");
    };
    refused("9>&-", &["--args", "9"]);
    refused("9</", &["--args", "9"]);
    refused("9>/dev/null", &["--args", "9"]);
    refused("9</dev/zero", &["--args", "9"]);
    for number in ["", "-1", "x", "9x", " 9", "4294967305", "99999999999999999999"] {
        refused("9</dev/null", &["--args", number]);
    }
}

#[test]
fn a_long_argument_list_arrives_whole() {
    // The kernel takes 128 KiB in one argument and, by default, a quarter of 8 MiB in all.
    let words: Vec<String> = (0..16).map(|n| format!("{n:x}").repeat(64 << 10)).collect();
    let command = ["sh", "-c", "printf %s \"$@\" | md5sum; echo $#", "sh"].map(str::to_owned);
    let all = command.iter().chain(&words);
    let expected = Command::new("sh").args(all.clone().skip(1)).output().unwrap().stdout;
    assert_eq!(
        Run::new(User::Root, Place::Standalone).run(all.clone()).success().as_bytes(),
        expected
    );
    let bytes = all.clone().cloned().collect::<Vec<_>>().join("\0");
    assert_eq!(with_args(bytes.as_bytes(), &["--args", "9"]).success().as_bytes(), expected);
}

#[test]
fn bad_input_is_one_line_and_starts_nothing() {
    let scratch = Scratch::new("bad");
    let marker = scratch.file("marker");
    for (options, parts) in [
        (&["--proc"][..], &["--proc", "expected fresh"][..]),
        (&["--proc=new"], &["--proc", "expected fresh", "new"]),
        (&["--proc="], &["--proc", "expected fresh"]),
        (&["--isolation", "vm"], &["--isolation", "expected namespaces", "vm"]),
        (&["--deny", "sockets"], &["--deny", "expected one of", "sockets"]),
        (&["--deny", ""], &["--deny", "expected one of"]),
        (&["--allow", "io-uring"], &["--allow", "always denied"]),
        (&["--keep-fd", "x"], &["--keep-fd", "expected a file descriptor", "x"]),
        (&["--keep-fd=-1"], &["--keep-fd", "expected a file descriptor"]),
        (&["--keep-fd", "3,"], &["--keep-fd", "expected a file descriptor"]),
        (&["--die-with-parent=1"], &["--die-with-parent", "expected no value"]),
        (&["--arch", "x86_64"], &["--arch", "expected", "--print-filter"]),
        (&["--print-filter", "none"], &["--print-filter", "expected one of", "none"]),
        (&["--no-such"], &["--no-such", "--help"]),
        (&["--Proc", "hide"], &["--Proc", "--help"]),
        (&["-c"], &["-c", "--help"]),
        (&["--proc", "a\nb"], &["--proc", "expected fresh"]),
    ] {
        let words = options.iter().copied();
        // An option that lacks its value stands last.
        let last = options == ["--proc"];
        let command = if last { vec![] } else { vec!["touch", &marker] };
        let outcome = standalone().run(words.chain(command));
        assert_eq!(outcome.code, 125, "{options:?}: {outcome:?}");
        outcome.refused("options", &[]);
        assert_eq!(outcome.stderr.lines().count(), 1, "{outcome:?}");
        assert!(outcome.stderr.ends_with('\n'), "{outcome:?}");
        assert!(!outcome.stderr.trim_end().contains(char::is_control), "{outcome:?}");
        for part in parts {
            assert!(outcome.stderr.contains(part), "no {part:?}: {outcome:?}");
        }
        assert!(!fs::exists(&marker).unwrap(), "{options:?}");
    }
    assert_eq!(standalone().run(["touch", &marker]).code, 0);
    assert!(fs::exists(&marker).unwrap());
}

#[test]
fn no_command_is_refused() {
    for words in [&[][..], &["--"], &["--proc", "hide"], &["--proc", "hide", "--"]] {
        let outcome = standalone().run(words);
        outcome.refused("options", &[]);
        assert!(outcome.stderr.contains("COMMAND: expected"), "{outcome:?}");
    }
}

#[test]
fn a_value_that_is_no_text_is_refused() {
    let value = OsStr::from_bytes(b"fre\xff");
    let output = Outcome::new(ask(["--proc".as_ref(), value, "true".as_ref()]));
    output.refused("options", &[]);
    let option = Outcome::new(ask([OsStr::from_bytes(b"--\xff\xfe"), "true".as_ref()]));
    option.refused("options", &[]);
    let short = Outcome::new(ask([OsStr::from_bytes(b"-\xff\xfe"), "true".as_ref()]));
    short.refused("options", &[]);
}

const OPTIONS: [&str; 30] = [
    "--isolation",
    "--proc",
    "--deny",
    "--allow",
    "--ro",
    "--rox",
    "--rw",
    "--rwx",
    "--connect-tcp",
    "--bind-tcp",
    "--scope",
    "--best-effort",
    "--net-allow",
    "--net-none",
    "--net-bind",
    "--pin",
    "--no-pin-hosts",
    "--dns-private",
    "--dns-optional",
    "--status-fd",
    "--events-fd",
    "--events",
    "--keep-fd",
    "--args",
    "--die-with-parent",
    "--list-filters",
    "--print-filter",
    "--arch",
    "--help",
    "--version",
];

#[test]
fn help_names_each_option_and_fits_a_screen() {
    let outcome = Outcome::new(ask(["--help"]));
    let text = outcome.success();
    assert!(text.lines().count() <= 24, "{text}");
    assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
    for option in OPTIONS {
        let named = |end| text.contains(&format!("{option}{end}"));
        assert!(named(' ') || named(','), "{option}: {text}");
    }
    assert_eq!(outcome.stderr, "");
}

#[test]
fn a_question_takes_no_value() {
    for question in ["--help", "--version", "--list-filters"] {
        let outcome = Outcome::new(ask([format!("{question}=1")]));
        outcome.refused("options", &[]);
        assert!(outcome.stderr.contains("expected no value"), "{outcome:?}");
    }
}

#[test]
fn a_question_is_answered_instead_of_running_the_command() {
    let scratch = Scratch::new("question");
    let marker = scratch.file("marker");
    for question in ["--help", "--version", "--list-filters", "--print-filter=default"] {
        let outcome = standalone().run([question, "touch", &marker]);
        assert!(!outcome.success().is_empty());
        assert!(!fs::exists(&marker).unwrap(), "{question}");
    }
}

#[test]
fn an_answer_that_cannot_be_written_is_a_failure() {
    for question in ["--help", "--version", "--list-filters", "--print-filter=default"] {
        let full = fs::File::options().write(true).open("/dev/full").unwrap();
        let (reader, closed) = io::pipe().unwrap();
        drop(reader);
        for (stdout, error) in
            [(Stdio::from(full), "No space left"), (closed.into(), "Broken pipe")]
        {
            let mut child = Command::new(sbx_init());
            let child = child.arg(question).stdout(stdout).stderr(Stdio::piped()).spawn().unwrap();
            let outcome = Outcome::new(child.wait_with_output().unwrap());
            assert_eq!(outcome.code, 125, "{question}: {outcome:?}");
            assert!(outcome.stderr.contains(error), "{question}: {outcome:?}");
        }
    }
}

#[test]
fn the_version_is_the_packages() {
    let outcome = Outcome::new(ask(["--version"]));
    let arch = std::env::consts::ARCH;
    let expected = format!("sbx-init {} ({arch})\n", env!("CARGO_PKG_VERSION"));
    assert_eq!(outcome.success(), expected);
}

fn groups() -> Vec<String> {
    let list = Outcome::new(ask(["--list-filters"]));
    list.success().lines().map(|l| l.split_whitespace().next().unwrap().to_owned()).collect()
}

#[test]
fn the_list_of_filters_has_each_group_with_its_default() {
    let list = Outcome::new(ask(["--list-filters"]));
    let defaults: Vec<(&str, &str)> = list
        .success()
        .lines()
        .map(|line| {
            let mut words = line.split_whitespace();
            (words.next().unwrap(), words.next().unwrap())
        })
        .collect();
    for expected in [
        ("io-uring", "always"),
        ("families", "on"),
        ("unix", "on"),
        ("tty", "on"),
        ("udp", "off"),
        ("fast-open", "off"),
        ("ulp", "off"),
        ("reroute", "off"),
        ("icmp-errors", "off"),
        ("userns", "off"),
        ("kernel", "off"),
        ("trace", "off"),
        ("limits", "off"),
        ("memfd", "off"),
        ("listener", "off"),
    ] {
        assert!(defaults.contains(&expected), "{expected:?}: {defaults:?}");
    }
}

#[test]
fn every_filter_can_be_printed_for_both_architectures() {
    for group in groups().iter().map(String::as_str).chain(["default", "notify-tcp"]) {
        for (arch, audit) in [("x86_64", 0xc000_003e_u32), ("aarch64", 0xc000_00b7)] {
            let print = |format| {
                let output = ask(["--print-filter", group, "--arch", arch, "--format", format]);
                assert!(output.status.success(), "{group} {arch} {format}");
                output.stdout
            };
            // struct sock_filter: u16 code, u8 jt, u8 jf, u32 k. The first two instructions load
            // the architecture and compare it.
            let raw = print("bpf");
            assert_eq!(raw.len() % 8, 0);
            assert_eq!(raw[..8], [0x20, 0, 0, 0, 4, 0, 0, 0], "{group} {arch}");
            assert_eq!(raw[12..16], audit.to_le_bytes(), "{group} {arch}");
            let text = String::from_utf8(print("asm")).unwrap();
            assert_eq!(text.lines().count(), raw.len() / 8, "{group} {arch}");
            assert!(text.contains("ld   arch") && text.contains("ret  ALLOW"), "{text}");
        }
    }
    let native = ask(["--print-filter", "default"]).stdout;
    let arch = std::env::consts::ARCH;
    assert_eq!(native, ask(["--print-filter=default", "--format=asm", "--arch", arch]).stdout);
}

#[test]
fn bubblewrap_takes_a_printed_filter() {
    let scratch = Scratch::new("filter");
    let raw = ask(["--print-filter", "default", "--format", "bpf"]).stdout;
    let file = scratch.write("filter", raw);
    let socket = syscalls::Sysno::socket.id().to_string();
    let call = |family: &str| {
        let script = format!("exec bwrap --ro-bind / / --seccomp 9 \"$@\" 9<{file}");
        let mut command = contained();
        command.args(["sh", "-c", &script, "sh", &probe(), "call", &socket, family, "1", "0"]);
        Outcome::new(command.output().unwrap()).success().to_owned()
    };
    assert_eq!(call("1"), "EPERM\n");
    assert!(call("2").starts_with("ok "));
}

#[test]
fn it_answers_to_the_name_apply_seccomp() {
    let scratch = Scratch::new("other-name");
    let directory = scratch.path().to_str().unwrap();
    for (user, place) in EVERYWHERE {
        for make in ["cp", "ln -s"] {
            let link = scratch.file("apply-seccomp");
            let _ = fs::remove_file(&link);
            let words: Vec<&str> = make.split(' ').collect();
            let made = Command::new(words[0]).args(&words[1..]).arg(sbx_init()).arg(&link).status();
            assert!(made.unwrap().success());
            // How the sandbox runtime calls it: the shell and its command, and the name that a
            // multiplexed program would be asked for in the environment.
            let script = "shift; ARGV0=apply-seccomp exec \"$0\" \"$@\"";
            let outcome = Run::new(user, place)
                .bwrap(["--ro-bind", directory, directory])
                .before(["sh", "-c", script, &link])
                .run(["sh", "-c", "echo \"$ARGV0 $$ $1\"", "sh", "word"]);
            assert_eq!(outcome.success(), "apply-seccomp 2 word\n", "{make} {user:?} {place:?}");
        }
    }
}

#[test]
fn an_empty_command_is_not_found() {
    for (user, place) in EVERYWHERE {
        let outcome = Run::new(user, place).run([""]);
        assert_eq!(outcome.code, 127, "{outcome:?}");
        assert!(outcome.stderr.starts_with("sbx-init: exec: : "), "{outcome:?}");
    }
}

#[test]
fn an_error_has_a_stage_an_operation_and_a_cause() {
    for (options, command, start) in [
        (&["--no-such"][..], "true", "sbx-init: options: --no-such: "),
        (&["--keep-fd", "99"], "true", "sbx-init: plan: --keep-fd 99: "),
        (&[], "/no/such", "sbx-init: exec: /no/such: ENOENT: "),
        (&[], "/etc", "sbx-init: exec: /etc: EACCES: "),
    ] {
        let outcome = standalone().options(options).run([command]);
        assert!(outcome.stderr.starts_with(start), "{outcome:?}");
        assert!(outcome.stderr.trim_end().len() > start.len(), "{outcome:?}");
        let lines = outcome.stderr.lines().filter(|line| !line.starts_with("hint: "));
        assert_eq!(lines.count(), 1, "{outcome:?}");
    }
}

#[test]
fn a_word_cannot_forge_a_line_of_the_error() {
    let words = ["no\nhint: such", "no\x1b[2Jsuch", "no\rsuch", "--no\nsuch", "--\x1b[2J", "-\n"];
    for word in words {
        let outcome = standalone().run([word]);
        assert_eq!(outcome.code, if word.starts_with('-') { 125 } else { 127 }, "{outcome:?}");
        assert_eq!(outcome.stderr.lines().count(), 1, "{outcome:?}");
        assert!(!outcome.stderr.trim_end().contains(char::is_control), "{outcome:?}");
    }
}

#[test]
fn no_program_name_at_all_is_no_crash() {
    // The kernel makes an empty argv one empty string.
    let words: [OsString; 0] = [];
    let mut command = Command::new(sbx_init());
    std::os::unix::process::CommandExt::arg0(&mut command, "");
    Outcome::new(command.args(words).output().unwrap()).refused("options", &[]);
}
