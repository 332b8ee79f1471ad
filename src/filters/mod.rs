//! The filter groups: which calls are denied, as programs compiled by `build.rs`.

mod disassemble;

use std::fmt::Write;

use crate::sys::seccomp::{self, SockFilter};

mod compiled {
    use super::SockFilter;
    include!(concat!(env!("OUT_DIR"), "/filters.rs"));
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Arch {
    X86_64,
    Aarch64,
}

impl Arch {
    pub const NATIVE: Self = if cfg!(target_arch = "x86_64") {
        Self::X86_64
    } else if cfg!(target_arch = "aarch64") {
        Self::Aarch64
    } else {
        panic!("no filters for this architecture")
    };

    pub fn parse(name: &str) -> Option<Self> {
        match name {
            "x86_64" => Some(Self::X86_64),
            "aarch64" => Some(Self::Aarch64),
            _ => None,
        }
    }
}

/// Whether a group is on where the caller says nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Default {
    Always,
    On,
    Off,
}

struct Group {
    name: &'static str,
    default: Default,
    denies: &'static str,
    /// In the order of [`Arch`].
    programs: [&'static [SockFilter]; 2],
}

macro_rules! group {
    ($name:literal, $default:ident, $x86_64:ident, $aarch64:ident, $denies:literal) => {
        Group {
            name: $name,
            default: Default::$default,
            denies: $denies,
            programs: [&compiled::$x86_64, &compiled::$aarch64],
        }
    };
}

const GROUPS: [Group; 10] = [
    group!("io-uring", Always, IO_URING_X86_64, IO_URING_AARCH64, "io_uring"),
    group!(
        "families",
        On,
        FAMILIES_X86_64,
        FAMILIES_AARCH64,
        "sockets but TCP, UDP, ICMP echo, unix and route netlink"
    ),
    group!("unix", On, UNIX_X86_64, UNIX_AARCH64, "unix sockets but stream and seqpacket pairs"),
    group!("tty", On, TTY_X86_64, TTY_AARCH64, "input faked into a terminal: TIOCSTI, TIOCLINUX"),
    group!(
        "keys",
        On,
        KEYS_X86_64,
        KEYS_AARCH64,
        "the kernel's keyrings: add_key, request_key, keyctl"
    ),
    group!("udp", Off, UDP_X86_64, UDP_AARCH64, "internet sockets but TCP; TCP fast open"),
    group!("userns", Off, USERNS_X86_64, USERNS_AARCH64, "new user namespaces; setns"),
    group!(
        "kernel",
        Off,
        KERNEL_X86_64,
        KERNEL_AARCH64,
        "bpf, perf, userfaultfd, modules, keys, the mount API, ..."
    ),
    group!("trace", Off, TRACE_X86_64, TRACE_AARCH64, "ptrace and reading other processes"),
    group!("memfd", Off, MEMFD_X86_64, MEMFD_AARCH64, "executing what is in no file"),
];

/// All groups that are on where the caller says nothing, in one program.
const MERGED: [&[SockFilter]; 2] = [&compiled::DEFAULT_X86_64, &compiled::DEFAULT_AARCH64];

/// A set of groups, in the order of [`GROUPS`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Groups([bool; GROUPS.len()]);

impl std::default::Default for Groups {
    fn default() -> Self {
        Self(GROUPS.each_ref().map(|group| group.default != Default::Off))
    }
}

impl Groups {
    /// Turns the named group on or off, or says what is wrong with that.
    pub fn set(&mut self, name: &str, on: bool) -> Result<(), String> {
        let index = index(name)?;
        if GROUPS[index].default == Default::Always && !on {
            return Err(format!("{name} is always denied"));
        }
        self.0[index] = on;
        Ok(())
    }

    pub fn contains(&self, name: &str) -> bool {
        index(name).is_ok_and(|index| self.0[index])
    }

    /// The programs to install: one for the default set, else one each.
    pub fn programs(&self) -> Vec<&'static [SockFilter]> {
        let arch = Arch::NATIVE as usize;
        if *self == Self::default() {
            return vec![MERGED[arch]];
        }
        let chosen = GROUPS.iter().zip(self.0).filter(|(_, on)| *on);
        chosen.map(|(group, _)| group.programs[arch]).collect()
    }
}

fn index(name: &str) -> Result<usize, String> {
    GROUPS.iter().position(|group| group.name == name).ok_or_else(|| {
        let names = GROUPS.each_ref().map(|group| group.name).join(", ");
        format!("expected one of {names}, not {name:?}")
    })
}

fn program(name: &str, arch: Arch) -> Result<&'static [SockFilter], String> {
    if name == "default" {
        return Ok(MERGED[arch as usize]);
    }
    Ok(GROUPS[index(name)?].programs[arch as usize])
}

/// The text of `--list-filters`.
pub fn list() -> String {
    GROUPS.iter().fold(String::new(), |mut text, group| {
        let default = match group.default {
            Default::Always => "always",
            Default::On => "on",
            Default::Off => "off",
        };
        let _ = writeln!(text, "{:<9} {default:<7} {}", group.name, group.denies);
        text
    })
}

/// The raw program of a group, or of `default`: an array of `struct sock_filter`.
pub fn raw(name: &str, arch: Arch) -> Result<&'static [u8], String> {
    program(name, arch).map(seccomp::bytes)
}

/// The same for a reader.
pub fn readable(name: &str, arch: Arch) -> Result<String, String> {
    let names: &[(u32, &str)] = match arch {
        Arch::X86_64 => &compiled::NAMES_X86_64,
        Arch::Aarch64 => &compiled::NAMES_AARCH64,
    };
    program(name, arch).map(|program| disassemble::disassemble(program, names))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_merged_program_is_longer_than_each_member_and_not_than_their_sum() {
        for (arch, merged) in MERGED.iter().enumerate() {
            let members: Vec<_> = GROUPS
                .iter()
                .filter(|group| group.default != Default::Off)
                .map(|group| group.programs[arch].len())
                .collect();
            assert!(members.iter().all(|len| *len < merged.len()));
            assert!(merged.len() < members.iter().sum());
        }
    }

    #[test]
    fn what_is_always_denied_cannot_be_allowed() {
        let mut groups = Groups::default();
        assert!(groups.set("io-uring", false).is_err());
        assert!(groups.contains("io-uring"));
        assert!(groups.set("unix", false).is_ok());
        assert!(!groups.contains("unix"));
    }

    #[test]
    fn an_unknown_group_is_refused_with_the_known_ones() {
        let message = Groups::default().set("sockets", true).unwrap_err();
        assert!(message.contains("families") && message.contains("sockets"), "{message}");
    }

    #[test]
    fn one_program_for_the_default_set_and_one_each_otherwise() {
        let mut groups = Groups::default();
        assert_eq!(groups.programs().len(), 1);
        groups.set("trace", true).unwrap();
        assert_eq!(groups.programs().len(), 6);
    }
}
