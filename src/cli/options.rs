//! The one table of options, from which the parser and the help are made.

use std::ffi::OsString;
use std::os::fd::RawFd;

use crate::filters::Arch;
use crate::policy::{Isolation, Policy, Proc};

/// What was typed, option by option.
#[derive(Default)]
pub struct Typed {
    pub policy: Policy,
    /// Answer this instead of running anything.
    pub question: Option<Question>,
    pub print_filter: Option<String>,
    pub arch: Option<Arch>,
    pub format: Format,
    /// Read more arguments from this descriptor, now.
    pub splice: Option<RawFd>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Question {
    Help,
    Version,
    ListFilters,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Format {
    #[default]
    Asm,
    Bpf,
}

/// What an option does with its value; the error says what was expected.
pub enum Action {
    Flag(fn(&mut Typed)),
    Value(&'static str, fn(&mut Typed, &str) -> Result<(), String>),
}

pub struct Opt {
    pub name: &'static str,
    pub action: Action,
    pub help: &'static str,
}

use Action::{Flag, Value};

pub const OPTIONS: &[Opt] = &[
    Opt {
        name: "isolation",
        action: Value("namespaces", |typed, value| {
            typed.policy.isolation = one_of(value, &[("namespaces", Isolation::Namespaces)])?;
            Ok(())
        }),
        help: "new user, PID and mount namespaces (default)",
    },
    Opt {
        name: "proc",
        action: Value("fresh|keep|hide", |typed, value| {
            let values = [("fresh", Proc::Fresh), ("keep", Proc::Keep), ("hide", Proc::Hide)];
            typed.policy.proc = one_of(value, &values)?;
            Ok(())
        }),
        help: "/proc: a new one (default), the caller's, or none",
    },
    Opt {
        name: "deny",
        action: Value("GROUP[,...]", |typed, value| set_groups(typed, value, true)),
        help: "turn filter groups on (see --list-filters)",
    },
    Opt {
        name: "allow",
        action: Value("GROUP[,...]", |typed, value| set_groups(typed, value, false)),
        help: "turn filter groups off",
    },
    Opt {
        name: "keep-fd",
        action: Value("N[,...]", |typed, value| {
            for number in value.split(',') {
                typed.policy.keep_fds.push(descriptor(number)?);
            }
            Ok(())
        }),
        help: "descriptors that COMMAND keeps beyond 0 to 2",
    },
    Opt {
        name: "args",
        action: Value("FD", |typed, value| {
            typed.splice = Some(descriptor(value)?);
            Ok(())
        }),
        help: "read more arguments from FD, each ended by a NUL",
    },
    Opt {
        name: "die-with-parent",
        action: Flag(|typed| typed.policy.die_with_parent = true),
        help: "end when the caller's process ends",
    },
    Opt {
        name: "list-filters",
        action: Flag(|typed| typed.question = Some(Question::ListFilters)),
        help: "print the filter groups and their defaults",
    },
    Opt {
        name: "print-filter",
        action: Value("GROUP", |typed, value| {
            typed.print_filter = Some(value.to_owned());
            Ok(())
        }),
        help: "print a group's program; `default` is the merged one",
    },
    Opt {
        name: "arch",
        action: Value("x86_64|aarch64", |typed, value| {
            let arch = Arch::parse(value);
            typed.arch = Some(arch.ok_or_else(|| expected("x86_64 or aarch64", value))?);
            Ok(())
        }),
        help: "... for this architecture (default: this machine's)",
    },
    Opt {
        name: "format",
        action: Value("asm|bpf", |typed, value| {
            typed.format = one_of(value, &[("asm", Format::Asm), ("bpf", Format::Bpf)])?;
            Ok(())
        }),
        help: "... to read (default), or raw for bwrap --seccomp",
    },
    Opt {
        name: "help",
        action: Flag(|typed| typed.question = Some(Question::Help)),
        help: "print this",
    },
    Opt {
        name: "version",
        action: Flag(|typed| typed.question = Some(Question::Version)),
        help: "print the version",
    },
];

pub fn find(name: &str) -> Option<&'static Opt> {
    OPTIONS.iter().find(|option| option.name == name)
}

fn expected(what: &str, value: impl Into<OsString>) -> String {
    format!("expected {what}, not {:?}", value.into())
}

fn one_of<T: Copy>(value: &str, values: &[(&str, T)]) -> Result<T, String> {
    values.iter().find(|(name, _)| *name == value).map(|(_, value)| *value).ok_or_else(|| {
        let names: Vec<_> = values.iter().map(|(name, _)| *name).collect();
        expected(&names.join(" or "), value)
    })
}

fn descriptor(value: &str) -> Result<RawFd, String> {
    let digits = value.bytes().all(|byte| byte.is_ascii_digit());
    let number = value.parse().ok().filter(|_| digits);
    number.ok_or_else(|| expected("a file descriptor number", value))
}

fn set_groups(typed: &mut Typed, value: &str, on: bool) -> Result<(), String> {
    value.split(',').try_for_each(|name| typed.policy.groups.set(name, on))
}
