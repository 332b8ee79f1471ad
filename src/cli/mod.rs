//! The command line: `sbx-init [OPTIONS] [--] COMMAND [ARG]…`.

mod options;

use std::ffi::OsString;
use std::fmt::Write;
use std::fs::File;
use std::io::Read;
use std::os::fd::RawFd;
use std::os::unix::ffi::OsStringExt;

use lexopt::{Arg, Parser};
use options::{Action, Format, OPTIONS, Question, Typed};

use crate::filters::{self, Arch};
use crate::network::pins;
use crate::policy::{Network, Policy};
use crate::report::{Cause, Error, Result, Stage};
use crate::sys::descriptor;

#[derive(PartialEq, Debug)]
pub enum Request {
    Run(Box<Policy>),
    /// Print this and run nothing.
    Print(Vec<u8>),
}

/// More than the kernel would take as arguments: E2BIG comes at 6 MiB.
const ARGS_LIMIT: u64 = 8 << 20;

fn wrong(subject: impl Into<String>, what: impl Into<String>) -> Error {
    Error::new(Stage::Options, subject.into(), what.into())
}

/// Reads the arguments that follow the program's name in `arguments`. Parsing stops at the first
/// word that is no option.
pub fn parse(arguments: Vec<OsString>) -> Result<Request> {
    let mut typed = Typed::default();
    let mut parser = Parser::from_args(arguments.into_iter().skip(1));
    loop {
        let argument = match parser.next() {
            Ok(Some(argument)) => argument,
            Ok(None) => break,
            Err(error) => return Err(unexpected(error)),
        };
        match argument {
            Arg::Value(command) => {
                typed.policy.command.push(command);
                // Fails only inside a cluster of short options, and there are none.
                typed.policy.command.extend(parser.raw_args().map_err(unexpected)?);
                break;
            }
            Arg::Short(letter) => {
                return Err(wrong(format!("-{letter}"), "no such option; --help lists them"));
            }
            Arg::Long(name) => {
                let Some(option) = options::find(name) else {
                    return Err(wrong(format!("--{name}"), "no such option; --help lists them"));
                };
                match option.action {
                    Action::Flag(apply) => {
                        if parser.optional_value().is_some() {
                            return Err(wrong(format!("--{}", option.name), "expected no value"));
                        }
                        apply(&mut typed);
                    }
                    Action::Value(form, apply) => {
                        let subject = || format!("--{}", option.name);
                        let value = parser
                            .value()
                            .map_err(|_| wrong(subject(), format!("expected {form}")))?;
                        let value = value.to_str().ok_or_else(|| {
                            wrong(subject(), format!("expected {form}, and no bytes beyond UTF-8"))
                        })?;
                        apply(&mut typed, value).map_err(|what| wrong(subject(), what))?;
                    }
                }
            }
        }
        if let Some(question) = typed.question {
            return Ok(Request::Print(answer(question).into_bytes()));
        }
        if let Some(fd) = typed.splice.take() {
            let mut spliced = read_arguments(fd)?;
            spliced.extend(parser.raw_args().map_err(unexpected)?);
            parser = Parser::from_args(spliced);
        }
    }
    finish(typed)
}

fn finish(typed: Typed) -> Result<Request> {
    if let Some(group) = typed.print_filter {
        let arch = typed.arch.unwrap_or(Arch::NATIVE);
        return match typed.format {
            Format::Bpf => filters::raw(&group, arch).map(<[u8]>::to_vec),
            Format::Asm => filters::readable(&group, arch).map(String::into_bytes),
        }
        .map(Request::Print)
        .map_err(|what| wrong("--print-filter", what));
    }
    if typed.arch.is_some() || typed.format != Format::default() {
        return Err(wrong("--arch and --format", "expected together with --print-filter"));
    }
    if typed.policy.command.is_empty() {
        return Err(wrong("COMMAND", "expected a command to run; --help shows the options"));
    }
    let network = network(typed.network)?;
    if typed.policy.events.is_some() && network.is_none() {
        return Err(wrong(
            "--events and --events-fd",
            "expected together with --net-allow, --net-none or --net-bind",
        ));
    }
    Ok(Request::Run(Box::new(Policy { network, ..typed.policy })))
}

/// The network policy, if one of the options that make one is there.
fn network(typed: options::Network) -> Result<Option<Network>> {
    let options::Network { allow, bind, pins, names, none, no_hosts } = typed;
    if none && !allow.is_empty() {
        return Err(wrong("--net-none", "contradicts --net-allow"));
    }
    if !none && allow.is_empty() && bind.is_empty() {
        let more = [
            ("--pin", !pins.is_empty()),
            ("--dns-private", names.private),
            ("--dns-optional", names.optional),
            ("--no-pin-hosts", no_hosts),
        ];
        return match more.iter().find(|(_, typed)| *typed) {
            Some((option, _)) => Err(wrong(*option, "expected together with --net-allow")),
            None => Ok(None),
        };
    }
    pins::check(&allow, &pins).map_err(|what| wrong("--pin", what))?;
    Ok(Some(Network { allow, bind, pins, names, hosts: !no_hosts }))
}

fn unexpected(error: lexopt::Error) -> Error {
    match error {
        lexopt::Error::UnexpectedValue { option, .. } => wrong(option, "expected no value"),
        _ => wrong("arguments", "cannot be read"),
    }
}

/// Reads NUL-separated arguments to the end of a descriptor.
fn read_arguments(fd: RawFd) -> Result<Vec<OsString>> {
    let failed =
        |cause: Cause| Error::new(Stage::Options, format!("--args: descriptor {fd}"), cause);
    let inherited = descriptor::inherited(fd).ok_or_else(|| failed("is not open".into()))?;
    // A copy of its own, so that one of 0 to 2 stays open; what is beyond is closed before exec.
    let copy = inherited.try_clone_to_owned().map_err(|error| failed(error.into()))?;
    let mut bytes = Vec::new();
    let length = File::from(copy)
        .take(ARGS_LIMIT + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| failed(error.into()))?;
    if length as u64 > ARGS_LIMIT {
        return Err(failed("more than 8 MiB of arguments".into()));
    }
    // The last argument may lack its NUL.
    if bytes.last() == Some(&0) {
        bytes.pop();
    } else if bytes.is_empty() {
        return Ok(Vec::new());
    }
    Ok(bytes.split(|byte| *byte == 0).map(|word| OsString::from_vec(word.to_vec())).collect())
}

fn answer(question: Question) -> String {
    match question {
        Question::Help => help(),
        Question::Version => {
            format!("sbx-init {} ({})\n", env!("CARGO_PKG_VERSION"), std::env::consts::ARCH)
        }
        Question::ListFilters => filters::list(),
    }
}

fn help() -> String {
    let mut text = String::from(
        "sbx-init [OPTIONS] [--] COMMAND [ARG]...\n\
         Runs COMMAND behind an inner boundary that it cannot touch.\n\n",
    );
    let mut forms = String::new();
    for (option, next) in OPTIONS.iter().zip(OPTIONS.iter().skip(1).map(Some).chain([None])) {
        let _ = write!(forms, "--{}", option.name);
        match (&option.action, next.map(|next| &next.action)) {
            // Said once for all of a line.
            (Action::Value(form, _), Some(Action::Value(same, _)))
                if option.help.is_empty() && form == same => {}
            (Action::Value(form, _), _) => _ = write!(forms, " {form}"),
            (Action::Flag(_), _) => {}
        }
        if option.help.is_empty() {
            forms.push_str(", ");
            continue;
        }
        // Help that does not fit beside the options stands below them.
        match forms.len() {
            0..=39 => _ = writeln!(text, "  {forms:<39} {}", option.help),
            _ => _ = writeln!(text, "  {forms}\n  {:39} {}", "", option.help),
        }
        forms.clear();
    }
    text.push_str("\nExit: COMMAND's or 128+signal; 127 not found; 126 not executable; 125 own.\n");
    text
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStrExt;

    use super::*;
    use crate::policy::{FileAccess, Proc, Scopes};

    fn parse_words(words: &[&str]) -> Result<Request> {
        parse(std::iter::once("sbx-init").chain(words.iter().copied()).map(Into::into).collect())
    }

    fn run(words: &[&str]) -> Policy {
        match parse_words(words) {
            Ok(Request::Run(policy)) => *policy,
            other => panic!("{words:?}: {other:?}"),
        }
    }

    fn message(words: &[&str]) -> String {
        match parse_words(words) {
            Err(error) => error.to_string(),
            Ok(other) => panic!("{words:?}: {other:?}"),
        }
    }

    #[test]
    fn a_command_alone_is_the_default_policy() {
        let policy = run(&["true"]);
        assert_eq!(policy, Policy { command: vec!["true".into()], ..Policy::default() });
    }

    #[test]
    fn parsing_stops_at_the_command() {
        assert_eq!(run(&["sh", "--proc", "-c"]).command, ["sh", "--proc", "-c"]);
        assert_eq!(run(&["--", "--proc", "x"]).command, ["--proc", "x"]);
        assert_eq!(run(&["--proc", "hide", "--", "a", "--", "b"]).command, ["a", "--", "b"]);
        assert_eq!(run(&["-", "a"]).command, ["-", "a"]);
    }

    #[test]
    fn values_stand_behind_a_space_or_an_equals_sign() {
        assert_eq!(run(&["--proc", "hide", "a"]).proc, Some(Proc::Hide));
        assert_eq!(run(&["--proc=keep", "a"]).proc, Some(Proc::Keep));
        assert_eq!(run(&["--keep-fd", "3,5", "--keep-fd=9", "a"]).keep_fds, [3, 5, 9]);
    }

    #[test]
    fn landlock_rules_add_up() {
        let rules = run(&[
            "--ro=/a,/b",
            "--rwx",
            "/c",
            "--connect-tcp",
            "80,443",
            "--connect-tcp=0",
            "--scope=none",
            "a",
        ])
        .rules;
        let access = |write, execute| FileAccess { write, execute };
        assert_eq!(
            rules.files,
            [
                ("/a".into(), access(false, false)),
                ("/b".into(), access(false, false)),
                ("/c".into(), access(true, true))
            ]
        );
        assert_eq!((&*rules.connect_tcp, &*rules.bind_tcp), (&[80, 443, 0][..], &[][..]));
        assert_eq!(rules.scopes, Some(Scopes { signal: false, abstract_unix: false }));
    }

    #[test]
    fn arguments_are_bytes() {
        let bytes = std::ffi::OsStr::from_bytes(b"\xff\xfe=\x80");
        let request = parse(vec!["sbx-init".into(), "echo".into(), bytes.into()]).unwrap();
        let Request::Run(policy) = request else { panic!() };
        assert_eq!(policy.command[1], bytes);
    }

    #[test]
    fn bad_input_names_the_option_and_what_was_expected() {
        for (words, parts) in [
            (&[][..], &["COMMAND", "expected a command"][..]),
            (&["--proc"], &["--proc", "expected fresh|keep|hide"]),
            (&["--proc", "new", "a"], &["--proc", "expected fresh or keep or hide", "new"]),
            (&["--isolation", "vm", "a"], &["--isolation", "namespaces", "vm"]),
            (&["--deny", "sockets", "a"], &["--deny", "families", "sockets"]),
            (&["--allow", "io-uring", "a"], &["--allow", "always denied"]),
            (&["--keep-fd", "x", "a"], &["--keep-fd", "file descriptor number", "x"]),
            (&["--keep-fd", "+3", "a"], &["--keep-fd", "file descriptor number"]),
            (&["--keep-fd", "3,,4", "a"], &["--keep-fd", "file descriptor number"]),
            (&["--keep-fd", "99999999999", "a"], &["--keep-fd", "file descriptor number"]),
            (&["--die-with-parent=yes", "a"], &["--die-with-parent", "expected no value"]),
            (&["--prok", "a"], &["--prok", "no such option"]),
            (&["-x", "a"], &["-x", "no such option"]),
            (&["--print-filter", "none"], &["--print-filter", "families", "none"]),
            (&["--ro", "/a,,/b", "a"], &["--ro", "expected paths", "/a,,/b"]),
            (&["--connect-tcp", "http", "a"], &["--connect-tcp", "port numbers", "http"]),
            (&["--bind-tcp", "65536", "a"], &["--bind-tcp", "65535"]),
            (&["--scope", "ptrace", "a"], &["--scope", "abstract-unix or none", "ptrace"]),
            (&["--scope", "none,signal", "a"], &["--scope", "none,signal"]),
            (&["--arch", "arm", "a"], &["--arch", "aarch64", "arm"]),
            (&["--format", "bpf", "a"], &["--format", "--print-filter"]),
        ] {
            let message = message(words);
            assert!(message.starts_with("options: "), "{words:?}: {message}");
            for part in parts {
                assert!(message.contains(part), "{words:?}: {message}");
            }
        }
    }

    #[test]
    fn help_fits_a_screen_and_names_every_option() {
        let help = help();
        assert!(help.lines().count() <= 24, "{help}");
        assert!(help.lines().all(|line| line.len() <= 80), "{help}");
        for option in OPTIONS {
            let named = |end| help.contains(&format!("--{}{end}", option.name));
            assert!(named(' ') || named(','), "{}", option.name);
        }
    }
}
