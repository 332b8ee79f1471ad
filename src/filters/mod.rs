//! The filters: which calls are denied and which the supervisor is asked about, as programs
//! compiled by `build.rs`.

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
enum Standard {
    Always,
    On,
    Off,
}

struct Group {
    name: &'static str,
    default: Standard,
    denies: &'static str,
    /// In the order of [`Arch`].
    programs: [&'static [SockFilter]; 2],
}

macro_rules! group {
    ($name:literal, $default:ident, $x86_64:ident, $aarch64:ident, $denies:literal) => {
        Group {
            name: $name,
            default: Standard::$default,
            denies: $denies,
            programs: [&compiled::$x86_64, &compiled::$aarch64],
        }
    };
}

const GROUPS: [Group; 16] = [
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
    group!("udp", Off, UDP_X86_64, UDP_AARCH64, "internet sockets but TCP; what fast-open denies"),
    group!(
        "fast-open",
        Off,
        FAST_OPEN_X86_64,
        FAST_OPEN_AARCH64,
        "TCP connections made by a send: MSG_FASTOPEN"
    ),
    group!("ulp", Off, ULP_X86_64, ULP_AARCH64, "TCP sockets made those of another protocol"),
    group!(
        "reroute",
        Off,
        REROUTE_X86_64,
        REROUTE_AARCH64,
        "sending elsewhere than addresses say: device, source route"
    ),
    group!(
        "icmp-errors",
        Off,
        ICMP_ERRORS_X86_64,
        ICMP_ERRORS_AARCH64,
        "reading what ICMP errors quote (setting IP_RECVERR does nothing)"
    ),
    group!("userns", Off, USERNS_X86_64, USERNS_AARCH64, "new user namespaces; setns"),
    group!(
        "kernel",
        Off,
        KERNEL_X86_64,
        KERNEL_AARCH64,
        "bpf, perf, userfaultfd, modules, keys, the mount API, ..."
    ),
    group!("trace", Off, TRACE_X86_64, TRACE_AARCH64, "ptrace and reading other processes"),
    group!(
        "limits",
        Off,
        LIMITS_X86_64,
        LIMITS_AARCH64,
        "limits, priority and affinity of other processes"
    ),
    group!("memfd", Off, MEMFD_X86_64, MEMFD_AARCH64, "executing what is in no file"),
    group!(
        "listener",
        Off,
        LISTENER_X86_64,
        LISTENER_AARCH64,
        "becoming a supervisor: SECCOMP_FILTER_FLAG_NEW_LISTENER"
    ),
];

/// All groups that are on where the caller says nothing, in one program.
const MERGED: [&[SockFilter]; 2] = [&compiled::DEFAULT_X86_64, &compiled::DEFAULT_AARCH64];

/// The programs that ask the supervisor about calls instead of denying them.
///
/// They are installed beside the groups: of all programs' answers the kernel takes the one that
/// allows least, and an errno allows less than a notification. So what a group denies stays denied
/// and never reaches the supervisor.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Notify {
    /// `listen`: Landlock's bind rules do not see that it takes a port where `bind` did not.
    Listen,
    /// `connect`, `bind`, `listen`.
    Tcp,
    /// These, each send that may have an address, and the creation of datagram sockets: the
    /// supervisor makes them, with a filter for what they receive. Never a plain `send`, nor any
    /// `recv`, `read` or `write`.
    Udp,
    /// As `Tcp`, and the creation of all internet sockets, for where pidfd_getfd is refused.
    BrokerTcp,
}

impl Notify {
    const ALL: [Self; 4] = [Self::Listen, Self::Tcp, Self::Udp, Self::BrokerTcp];

    /// Its name for `--print-filter`, and its programs in the order of [`Arch`].
    fn compiled(self) -> (&'static str, [&'static [SockFilter]; 2]) {
        use compiled as c;
        match self {
            Self::Listen => {
                ("notify-listen", [&c::NOTIFY_LISTEN_X86_64, &c::NOTIFY_LISTEN_AARCH64])
            }
            Self::Tcp => ("notify-tcp", [&c::NOTIFY_TCP_X86_64, &c::NOTIFY_TCP_AARCH64]),
            Self::Udp => ("notify-udp", [&c::NOTIFY_UDP_X86_64, &c::NOTIFY_UDP_AARCH64]),
            Self::BrokerTcp => {
                ("notify-broker-tcp", [&c::NOTIFY_BROKER_TCP_X86_64, &c::NOTIFY_BROKER_TCP_AARCH64])
            }
        }
    }

    pub fn program(self, arch: Arch) -> &'static [SockFilter] {
        self.compiled().1[arch as usize]
    }
}

/// What was asked of each group, in the order of [`GROUPS`]: on, off, or nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Groups([Option<bool>; GROUPS.len()]);

impl Groups {
    /// Turns the named group on or off, or says what is wrong with that.
    pub fn set(&mut self, name: &str, on: bool) -> Result<(), String> {
        let index = index(name)?;
        if GROUPS[index].default == Standard::Always && !on {
            return Err(format!("{name} is always denied"));
        }
        self.0[index] = Some(on);
        Ok(())
    }

    /// Turns a group on, unless it was asked to be off.
    pub fn suggest(&mut self, name: &str) {
        if let Ok(index) = index(name) {
            self.0[index].get_or_insert(true);
        }
    }

    /// Turns a group on, or gives the error if it was asked to be off; `of` says what needs it.
    pub fn require(&mut self, name: &str, of: &str) -> Result<(), String> {
        self.suggest(name);
        match self.contains(name) {
            true => Ok(()),
            false => Err(format!("{of} needs the group {name}: leave --allow {name} out")),
        }
    }

    pub fn contains(&self, name: &str) -> bool {
        index(name).is_ok_and(|index| self.effective()[index])
    }

    fn effective(&self) -> [bool; GROUPS.len()] {
        let mut effective = GROUPS.each_ref().map(|group| group.default != Standard::Off);
        for (on, asked) in effective.iter_mut().zip(self.0) {
            *on = asked.unwrap_or(*on);
        }
        effective
    }

    /// The programs to install: one for the default set, and one for each other group; without the
    /// whole default set, one for each.
    pub fn programs(&self) -> Vec<&'static [SockFilter]> {
        let arch = Arch::NATIVE as usize;
        let chosen = || GROUPS.iter().zip(self.effective());
        let merged = chosen().all(|(group, on)| on || group.default == Standard::Off);
        let single =
            chosen().filter(|(group, on)| *on && !(merged && group.default != Standard::Off));
        let mut programs = if merged { vec![MERGED[arch]] } else { Vec::new() };
        programs.extend(single.map(|(group, _)| group.programs[arch]));
        programs
    }
}

fn index(name: &str) -> Result<usize, String> {
    GROUPS.iter().position(|group| group.name == name).ok_or_else(|| {
        let names = GROUPS.each_ref().map(|group| group.name).join(", ");
        format!("expected one of {names}, not \"{name}\"")
    })
}

fn program(name: &str, arch: Arch) -> Result<&'static [SockFilter], String> {
    if name == "default" {
        return Ok(MERGED[arch as usize]);
    }
    if let Some(notify) = Notify::ALL.into_iter().find(|notify| notify.compiled().0 == name) {
        return Ok(notify.program(arch));
    }
    Ok(GROUPS[index(name)?].programs[arch as usize])
}

/// The text of `--list-filters`.
pub fn list() -> String {
    GROUPS.iter().fold(String::new(), |mut text, group| {
        let default = match group.default {
            Standard::Always => "always",
            Standard::On => "on",
            Standard::Off => "off",
        };
        let _ = writeln!(text, "{:<11} {default:<7} {}", group.name, group.denies);
        text
    })
}

/// The raw program of a group, of `default` or of a [`Notify`]: an array of `struct sock_filter`.
pub fn raw(name: &str, arch: Arch) -> Result<&'static [u8], String> {
    program(name, arch).map(seccomp::bytes)
}

/// The same for a reader.
pub fn readable(name: &str, arch: Arch) -> Result<String, String> {
    let name_of = |number: u32| {
        let numbered = |numbers: [i16; 2]| i64::from(numbers[arch as usize]) == i64::from(number);
        compiled::NAMES.iter().find(|(_, numbers)| numbered(*numbers)).map(|(name, _)| *name)
    };
    program(name, arch).map(|program| disassemble::disassemble(program, name_of))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_merged_program_is_longer_than_each_member_and_not_than_their_sum() {
        for (arch, merged) in MERGED.iter().enumerate() {
            let members: Vec<_> = GROUPS
                .iter()
                .filter(|group| group.default != Standard::Off)
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
    fn one_program_for_the_default_set_and_one_for_each_group_beside_it() {
        let mut groups = Groups::default();
        assert_eq!(groups.programs().len(), 1);
        groups.set("trace", true).unwrap();
        assert_eq!(groups.programs().len(), 2);
        groups.set("unix", false).unwrap();
        assert_eq!(groups.programs().len(), 5);
    }

    #[test]
    fn what_is_needed_cannot_be_allowed_and_what_is_suggested_can() {
        let mut groups = Groups::default();
        groups.set("udp", false).unwrap();
        groups.suggest("udp");
        assert!(!groups.contains("udp"));
        let message = groups.require("udp", "--this").unwrap_err();
        assert!(message.contains("--this") && message.contains("--allow udp"), "{message}");
        groups.require("trace", "--this").unwrap();
        assert!(groups.contains("trace"));
    }
}
