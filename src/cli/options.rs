//! The one table of options, from which the parser and the help are made.

use std::os::fd::RawFd;

use crate::filters::Arch;
use crate::network::prefix::number;
use crate::network::rule::{Bind, Pin, Rule};
use crate::network::{expected, pins};
use crate::policy::{Events, FileAccess, Isolation, Policy, Proc, Scopes};

/// What was typed, option by option.
#[derive(Default)]
pub struct Typed {
    pub policy: Policy,
    pub network: Network,
    /// Answer this instead of running anything.
    pub question: Option<Question>,
    pub print_filter: Option<String>,
    pub arch: Option<Arch>,
    pub format: Format,
    /// Read more arguments from this descriptor, now.
    pub splice: Option<RawFd>,
}

/// The options of the network policy, of which each can be the first.
#[derive(Default)]
pub struct Network {
    pub allow: Vec<Rule>,
    pub bind: Vec<Bind>,
    pub pins: Vec<Pin>,
    pub names: pins::Options,
    pub none: bool,
    pub no_hosts: bool,
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
    /// Empty: that of the next option, on whose line this one stands.
    pub help: &'static str,
}

use Action::{Flag, Value};

pub const OPTIONS: &[Opt] = &[
    Opt {
        name: "isolation",
        action: Value("namespaces|domain|auto", |typed, value| {
            let values = [
                ("namespaces", Isolation::Namespaces),
                ("domain", Isolation::Domain),
                ("auto", Isolation::Auto),
            ];
            typed.policy.isolation = one_of(value, &values)?;
            Ok(())
        }),
        help: "default namespaces; domain: Landlock",
    },
    Opt {
        name: "proc",
        action: Value("fresh|keep|hide", |typed, value| {
            let values = [("fresh", Proc::Fresh), ("keep", Proc::Keep), ("hide", Proc::Hide)];
            typed.policy.proc = Some(one_of(value, &values)?);
            Ok(())
        }),
        help: "/proc: new (default), caller's, none",
    },
    Opt {
        name: "deny",
        action: Value("GROUP[,...]", |typed, value| set_groups(typed, value, true)),
        help: "",
    },
    Opt {
        name: "allow",
        action: Value("GROUP[,...]", |typed, value| set_groups(typed, value, false)),
        help: "turn filter groups on or off",
    },
    Opt {
        name: "ro",
        action: Value("PATH[,...]", |typed, value| add_files(typed, value, false, false)),
        help: "",
    },
    Opt {
        name: "rox",
        action: Value("PATH[,...]", |typed, value| add_files(typed, value, false, true)),
        help: "",
    },
    Opt {
        name: "rw",
        action: Value("PATH[,...]", |typed, value| add_files(typed, value, true, false)),
        help: "",
    },
    Opt {
        name: "rwx",
        action: Value("PATH[,...]", |typed, value| add_files(typed, value, true, true)),
        help: "files: all read, x execute, w write",
    },
    Opt {
        name: "connect-tcp",
        action: Value("PORT[,...]", |typed, value| {
            add_ports(&mut typed.policy.rules.connect_tcp, value)
        }),
        help: "",
    },
    Opt {
        name: "bind-tcp",
        action: Value("PORT[,...]", |typed, value| {
            add_ports(&mut typed.policy.rules.bind_tcp, value)
        }),
        help: "the only TCP ports; also no UDP",
    },
    Opt {
        name: "scope",
        action: Value("signal,abstract-unix|none", |typed, value| {
            typed.policy.rules.scopes = Some(scopes(value)?);
            Ok(())
        }),
        help: "what stays inside (default: both)",
    },
    Opt {
        name: "best-effort",
        action: Flag(|typed| typed.policy.rules.best_effort = true),
        help: "go on without what Landlock lacks",
    },
    Opt {
        name: "net-allow",
        action: Value("[udp://]TARGET:PORTS", |typed, value| {
            typed.network.allow.push(Rule::parse(value)?);
            Ok(())
        }),
        help: "only these destinations, names pinned",
    },
    Opt { name: "net-none", action: Flag(|typed| typed.network.none = true), help: "" },
    Opt {
        name: "net-bind",
        action: Value("ADDR:PORTS", |typed, value| {
            typed.network.bind.push(Bind::parse(value)?);
            Ok(())
        }),
        help: "no destination; what may be bound",
    },
    Opt {
        name: "pin",
        action: Value("NAME=ADDR[,...]", |typed, value| {
            typed.network.pins.push(Pin::parse(value)?);
            Ok(())
        }),
        help: "",
    },
    Opt {
        name: "no-pin-hosts",
        action: Flag(|typed| typed.network.no_hosts = true),
        help: "a name's addresses; keep /etc/hosts",
    },
    Opt { name: "dns-private", action: Flag(|typed| typed.network.names.private = true), help: "" },
    Opt {
        name: "dns-optional",
        action: Flag(|typed| typed.network.names.optional = true),
        help: "names may be private; or unresolved",
    },
    Opt {
        name: "keep-fd",
        action: Value("N[,...]", |typed, value| {
            for number in value.split(',') {
                typed.policy.keep_fds.push(descriptor(number)?);
            }
            Ok(())
        }),
        help: "descriptors COMMAND keeps beyond 0-2",
    },
    Opt {
        name: "args",
        action: Value("FD", |typed, value| {
            typed.splice = Some(descriptor(value)?);
            Ok(())
        }),
        help: "more arguments from FD, NUL-separated",
    },
    Opt {
        name: "die-with-parent",
        action: Flag(|typed| typed.policy.die_with_parent = true),
        help: "end when the caller's thread ends",
    },
    Opt {
        name: "status-fd",
        action: Value("N", |typed, value| {
            typed.policy.status_fd = Some(descriptor(value)?);
            Ok(())
        }),
        help: "setup, child-pid, exit-code as JSON",
    },
    Opt {
        name: "events-fd",
        action: Value("N", |typed, value| {
            set_events(typed, Events::Descriptor(descriptor(value)?))
        }),
        help: "",
    },
    Opt {
        name: "events",
        action: Value("FILE", |typed, value| set_events(typed, Events::File(value.into()))),
        help: "each denied network call, as JSON",
    },
    Opt {
        name: "list-filters",
        action: Flag(|typed| typed.question = Some(Question::ListFilters)),
        help: "",
    },
    Opt {
        name: "print-filter",
        action: Value("GROUP", |typed, value| {
            typed.print_filter = Some(value.to_owned());
            Ok(())
        }),
        help: "list the groups; print one's program",
    },
    Opt {
        name: "arch",
        action: Value("x86_64|aarch64", |typed, value| {
            let arch = Arch::parse(value);
            typed.arch = Some(arch.ok_or_else(|| expected("x86_64 or aarch64", value))?);
            Ok(())
        }),
        help: "",
    },
    Opt {
        name: "format",
        action: Value("asm|bpf", |typed, value| {
            typed.format = one_of(value, &[("asm", Format::Asm), ("bpf", Format::Bpf)])?;
            Ok(())
        }),
        help: "asm: to read, bpf: for bwrap --seccomp",
    },
    Opt { name: "help", action: Flag(|typed| typed.question = Some(Question::Help)), help: "" },
    Opt {
        name: "version",
        action: Flag(|typed| typed.question = Some(Question::Version)),
        help: "print this, or the version",
    },
];

pub fn find(name: &str) -> Option<&'static Opt> {
    OPTIONS.iter().find(|option| option.name == name)
}

fn one_of<T: Copy>(value: &str, values: &[(&str, T)]) -> Result<T, String> {
    values.iter().find(|(name, _)| *name == value).map(|(_, value)| *value).ok_or_else(|| {
        let names: Vec<_> = values.iter().map(|(name, _)| *name).collect();
        expected(&names.join(" or "), value)
    })
}

fn descriptor(value: &str) -> Result<RawFd, String> {
    number(value).ok_or_else(|| expected("a file descriptor number", value))
}

/// A path cannot contain a comma.
fn add_files(typed: &mut Typed, value: &str, write: bool, execute: bool) -> Result<(), String> {
    for path in value.split(',') {
        if path.is_empty() {
            return Err(expected("paths", value));
        }
        typed.policy.rules.files.push((path.into(), FileAccess { write, execute }));
    }
    Ok(())
}

fn add_ports(ports: &mut Vec<u16>, value: &str) -> Result<(), String> {
    for port in value.split(',') {
        ports.push(number(port).ok_or_else(|| expected("port numbers up to 65535", value))?);
    }
    Ok(())
}

fn scopes(value: &str) -> Result<Scopes, String> {
    let mut scopes = Scopes { signal: false, abstract_unix: false };
    for name in value.split(',').filter(|_| value != "none") {
        match name {
            "signal" => scopes.signal = true,
            "abstract-unix" => scopes.abstract_unix = true,
            _ => return Err(expected("signal, abstract-unix or none", value)),
        }
    }
    Ok(scopes)
}

fn set_events(typed: &mut Typed, events: Events) -> Result<(), String> {
    match typed.policy.events.replace(events) {
        None => Ok(()),
        Some(_) => Err("expected one of --events and --events-fd, once".to_owned()),
    }
}

fn set_groups(typed: &mut Typed, value: &str, on: bool) -> Result<(), String> {
    value.split(',').try_for_each(|name| typed.policy.groups.set(name, on))
}
