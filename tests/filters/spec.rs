//! What each filter group answers, written from its description in words and from the kernel's
//! headers. It must not be derived from `filters/` or `build.rs`: it is what they are tested by.

use std::str::FromStr;

use syscalls::{aarch64, x86_64};

pub type Args = [u64; 6];
/// What a group says about one system call. Ints and unsigned ints are the low half of a register.
type Rule = fn(&Args) -> Verdict;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    Allow,
    Errno(u16),
    Notify,
    KillProcess,
}

const EPERM: Verdict = Verdict::Errno(1);
const EACCES: Verdict = Verdict::Errno(13);
const ENOSYS: Verdict = Verdict::Errno(38);
const EPROTONOSUPPORT: Verdict = Verdict::Errno(93);

impl Verdict {
    /// The program's return value: `SECCOMP_RET_*`, with the errno in the low half.
    pub fn value(self) -> u32 {
        match self {
            Self::Allow => 0x7fff_0000,
            Self::Notify => 0x7fc0_0000,
            Self::Errno(errno) => 0x0005_0000 | u32::from(errno),
            Self::KillProcess => 0x8000_0000,
        }
    }

    fn allow_if(condition: bool) -> Self {
        if condition { Self::Allow } else { EPERM }
    }

    fn notify_if(condition: bool) -> Self {
        if condition { Self::Notify } else { Self::Allow }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Arch {
    X86_64,
    Aarch64,
}

impl Arch {
    pub const ALL: [Self; 2] = [Self::X86_64, Self::Aarch64];
    pub const NATIVE: Self =
        if cfg!(target_arch = "x86_64") { Self::X86_64 } else { Self::Aarch64 };

    pub fn name(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64",
            Self::Aarch64 => "aarch64",
        }
    }

    /// `AUDIT_ARCH_*`.
    pub fn audit(self) -> u32 {
        match self {
            Self::X86_64 => 0xc000_003e,
            Self::Aarch64 => 0xc000_00b7,
        }
    }

    pub fn number(self, call: &str) -> Option<u32> {
        let id = match self {
            Self::X86_64 => x86_64::Sysno::from_str(call).ok()?.id(),
            Self::Aarch64 => aarch64::Sysno::from_str(call).ok()?.id(),
        };
        Some(id as u32)
    }

    pub fn call(self, number: u32) -> Option<&'static str> {
        match self {
            Self::X86_64 => x86_64::Sysno::new(number as usize).map(|call| call.name()),
            Self::Aarch64 => aarch64::Sysno::new(number as usize).map(|call| call.name()),
        }
    }
}

/// Each group with its default, as `--list-filters` shows it.
pub const GROUPS: [(&str, &str); 16] = [
    ("io-uring", "always"),
    ("families", "on"),
    ("unix", "on"),
    ("tty", "on"),
    ("keys", "on"),
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
];

/// The groups, and the one program that stands for those which are on by default.
pub fn denying() -> impl Iterator<Item = &'static str> {
    GROUPS.into_iter().map(|(name, _)| name).chain(["default"])
}

/// The programs that ask the supervisor; `--list-filters` does not show them.
pub const NOTIFY: [&str; 4] = ["notify-listen", "notify-tcp", "notify-udp", "notify-broker-tcp"];

pub fn programs() -> impl Iterator<Item = &'static str> {
    denying().chain(NOTIFY)
}

const KERNEL: [&str; 39] = [
    "bpf",
    "perf_event_open",
    "userfaultfd",
    "kexec_load",
    "kexec_file_load",
    "init_module",
    "finit_module",
    "delete_module",
    "add_key",
    "request_key",
    "keyctl",
    "mount",
    "umount2",
    "pivot_root",
    "open_tree",
    "open_tree_attr",
    "move_mount",
    "fsopen",
    "fsconfig",
    "fsmount",
    "fspick",
    "mount_setattr",
    "chroot",
    "swapon",
    "swapoff",
    "acct",
    "reboot",
    "syslog",
    "quotactl",
    "quotactl_fd",
    "nfsservctl",
    "lookup_dcookie",
    "open_by_handle_at",
    "fanotify_init",
    "vhangup",
    "settimeofday",
    "clock_settime",
    "sethostname",
    "setdomainname",
];

/// What aarch64 never had.
const KERNEL_X86_64: [&str; 8] = [
    "create_module",
    "query_module",
    "get_kernel_syms",
    "iopl",
    "ioperm",
    "modify_ldt",
    "uselib",
    "_sysctl",
];

const TRACE: [&str; 5] = ["ptrace", "process_vm_readv", "process_vm_writev", "pidfd_getfd", "kcmp"];

/// The system calls that a group looks at.
fn rules(group: &str, arch: Arch) -> Vec<(&'static str, Rule)> {
    let denied = |calls: &[&'static str]| -> Vec<(&'static str, Rule)> {
        calls.iter().map(|call| (*call, (|_| EPERM) as Rule)).collect()
    };
    let notified = |calls: &[&'static str]| -> Vec<(&'static str, Rule)> {
        calls.iter().map(|call| (*call, (|_| Verdict::Notify) as Rule)).collect()
    };
    match group {
        "io-uring" => denied(&["io_uring_setup", "io_uring_enter", "io_uring_register"]),
        "families" => vec![("socket", families), ("socketpair", families)],
        "unix" => vec![("socket", unix_socket), ("socketpair", unix_pair)],
        "tty" => vec![("ioctl", tty)],
        "udp" => {
            let mut rules = rules("fast-open", arch);
            rules.extend([("socket", udp as Rule), ("socketpair", udp)]);
            rules
        }
        "fast-open" => vec![
            ("sendto", |args| fast_open(args[3])),
            ("sendmsg", |args| fast_open(args[2])),
            ("sendmmsg", |args| fast_open(args[3])),
        ],
        "ulp" => vec![("setsockopt", ulp)],
        "reroute" => vec![
            ("setsockopt", reroute),
            ("sendto", |args| dont_route(args[3])),
            ("sendmsg", |args| dont_route(args[2])),
            ("sendmmsg", |args| dont_route(args[3])),
        ],
        "icmp-errors" => vec![("setsockopt", icmp_errors)],
        "userns" => vec![
            ("unshare", new_user_namespace),
            ("clone", new_user_namespace),
            ("clone3", |_| ENOSYS),
            ("setns", |_| EPERM),
        ],
        "kernel" => {
            let mut rules = denied(&KERNEL);
            if arch == Arch::X86_64 {
                rules.extend(denied(&KERNEL_X86_64));
            }
            rules.push(("personality", personality));
            rules
        }
        "keys" => denied(&["add_key", "request_key", "keyctl"]),
        "trace" => denied(&TRACE),
        "limits" => {
            let mut rules: Vec<(_, Rule)> = vec![
                ("prlimit64", new_limit),
                // PRIO_PROCESS and IOPRIO_WHO_PROCESS.
                ("setpriority", |args| {
                    Verdict::allow_if((args[0] as u32, args[1] as u32) == (0, 0))
                }),
                ("ioprio_set", |args| {
                    Verdict::allow_if((args[0] as u32, args[1] as u32) == (1, 0))
                }),
            ];
            rules.extend(SCHEDULING.map(|call| (call, of_another as Rule)));
            rules
        }
        "memfd" => vec![("memfd_create", |_| EPERM), ("execveat", empty_path)],
        "listener" => vec![("seccomp", new_listener)],
        "default" => {
            let members = GROUPS.iter().filter(|(_, default)| *default != "off");
            members.flat_map(|(name, _)| rules(name, arch)).collect()
        }
        "notify-listen" => {
            let mut rules = notified(&["listen"]);
            rules.push(("setsockopt", port_range));
            rules
        }
        "notify-tcp" => {
            let mut rules = rules("notify-listen", arch);
            rules.extend(notified(&["connect", "bind"]));
            rules
        }
        "notify-udp" => {
            let mut rules = rules("notify-tcp", arch);
            rules.extend(notified(&["sendmsg", "sendmmsg"]));
            rules.extend([("sendto", send_to as Rule), ("socket", datagram_socket)]);
            rules
        }
        "notify-broker-tcp" => {
            let mut rules = rules("notify-tcp", arch);
            rules.push(("socket", brokered_socket));
            rules
        }
        _ => panic!("no group {group}"),
    }
}

/// The arguments that are pointers and compared with 0: all their bits count.
pub fn pointers(group: &str) -> &'static [usize] {
    match group {
        // The address of sendto.
        "notify-udp" => &[4],
        // The new limits of prlimit64.
        "limits" => &[2],
        _ => &[],
    }
}

const AF_UNIX: u32 = 1;
const AF_INET: u32 = 2;
const AF_INET6: u32 = 10;
const AF_NETLINK: u32 = 16;
const SOCK_STREAM: u32 = 1;
const SOCK_DGRAM: u32 = 2;
const SOCK_SEQPACKET: u32 = 5;
const IPPROTO_ICMP: u32 = 1;
const IPPROTO_TCP: u32 = 6;
const IPPROTO_UDP: u32 = 17;
const IPPROTO_ICMPV6: u32 = 58;
const IPPROTO_MPTCP: u32 = 262;
const NETLINK_ROUTE: u32 = 0;

/// Family, type without `SOCK_CLOEXEC` and `SOCK_NONBLOCK` (`SOCK_TYPE_MASK`), protocol.
fn socket(args: &Args) -> (u32, u32, u32) {
    (args[0] as u32, args[1] as u32 & 0xf, args[2] as u32)
}

fn families(args: &Args) -> Verdict {
    match socket(args) {
        (AF_UNIX, _, _) => Verdict::Allow,
        (AF_NETLINK, _, protocol) => Verdict::allow_if(protocol == NETLINK_ROUTE),
        (AF_INET | AF_INET6, SOCK_STREAM, IPPROTO_MPTCP) => EPROTONOSUPPORT,
        (AF_INET | AF_INET6, SOCK_STREAM, 0 | IPPROTO_TCP)
        | (AF_INET | AF_INET6, SOCK_DGRAM, 0 | IPPROTO_UDP)
        | (AF_INET, SOCK_DGRAM, IPPROTO_ICMP)
        | (AF_INET6, SOCK_DGRAM, IPPROTO_ICMPV6) => Verdict::Allow,
        _ => EPERM,
    }
}

fn unix_socket(args: &Args) -> Verdict {
    Verdict::allow_if(socket(args).0 != AF_UNIX)
}

/// A datagram pair can be connected to any path, and AF_UNIX takes SOCK_RAW for SOCK_DGRAM.
fn unix_pair(args: &Args) -> Verdict {
    let (family, kind, _) = socket(args);
    Verdict::allow_if(family != AF_UNIX || [SOCK_STREAM, SOCK_SEQPACKET].contains(&kind))
}

fn udp(args: &Args) -> Verdict {
    match socket(args) {
        (AF_INET | AF_INET6, SOCK_STREAM, 0 | IPPROTO_TCP) => Verdict::Allow,
        (AF_INET | AF_INET6, SOCK_STREAM, IPPROTO_MPTCP) => EPROTONOSUPPORT,
        (AF_INET | AF_INET6, _, _) => EPERM,
        _ => Verdict::Allow,
    }
}

const IPPROTO_IP: u32 = 0;
pub const IP_LOCAL_PORT_RANGE: u32 = 51;
pub const MSG_FASTOPEN: u32 = 0x2000_0000;
pub const MSG_DONTROUTE: u32 = 4;
pub const CLONE_NEWUSER: u32 = 0x1000_0000;
pub const AT_EMPTY_PATH: u32 = 0x1000;
pub const TIOCSTI: u32 = 0x5412;
pub const TIOCLINUX: u32 = 0x541c;
pub const ADDR_NO_RANDOMIZE: u32 = 0x4_0000;
pub const SECCOMP_SET_MODE_FILTER: u32 = 1;
pub const SECCOMP_FILTER_FLAG_NEW_LISTENER: u32 = 1 << 3;

/// From which ports the kernel chooses.
fn port_range(args: &Args) -> Verdict {
    match (args[1] as u32, args[2] as u32) {
        (IPPROTO_IP, IP_LOCAL_PORT_RANGE) => EACCES,
        _ => Verdict::Allow,
    }
}

const SCHEDULING: [&str; 4] =
    ["sched_setscheduler", "sched_setparam", "sched_setattr", "sched_setaffinity"];

fn of_another(args: &Args) -> Verdict {
    Verdict::allow_if(args[0] as u32 == 0)
}

/// Of another process than the caller, which is 0.
fn new_limit(args: &Args) -> Verdict {
    Verdict::allow_if(args[0] as u32 == 0 || args[2] == 0)
}

fn fast_open(flags: u64) -> Verdict {
    Verdict::allow_if(flags as u32 & MSG_FASTOPEN == 0)
}

fn ulp(args: &Args) -> Verdict {
    // SOL_TCP, TCP_ULP of linux/tcp.h.
    Verdict::allow_if((args[1] as u32, args[2] as u32) != (6, 31))
}

fn dont_route(flags: u64) -> Verdict {
    Verdict::allow_if(flags as u32 & MSG_DONTROUTE == 0)
}

/// Level and option, from asm-generic/socket.h, linux/in.h and linux/in6.h.
const REROUTING: [(u32, u32); 17] = [
    (SOL_SOCKET, 5),  // SO_DONTROUTE
    (SOL_SOCKET, 25), // SO_BINDTODEVICE
    (SOL_SOCKET, 62), // SO_BINDTOIFINDEX
    (SOL_IP, 4),      // IP_OPTIONS
    (SOL_IP, 50),     // IP_UNICAST_IF
    (SOL_IP, 35),     // IP_ADD_MEMBERSHIP
    (SOL_IP, 39),     // IP_ADD_SOURCE_MEMBERSHIP
    (SOL_IP, 42),     // MCAST_JOIN_GROUP
    (SOL_IP, 46),     // MCAST_JOIN_SOURCE_GROUP
    (SOL_IPV6, 42),   // MCAST_JOIN_GROUP
    (SOL_IPV6, 46),   // MCAST_JOIN_SOURCE_GROUP
    (SOL_IPV6, 20),   // IPV6_ADD_MEMBERSHIP
    (SOL_IPV6, 6),    // IPV6_2292PKTOPTIONS
    (SOL_IPV6, 50),   // IPV6_PKTINFO
    (SOL_IPV6, 57),   // IPV6_RTHDR
    (SOL_IPV6, 76),   // IPV6_UNICAST_IF
    (SOL_IPV6, 32),   // IPV6_FLOWLABEL_MGR
];
const SOL_SOCKET: u32 = 1;
const SOL_IP: u32 = 0;
const SOL_IPV6: u32 = 41;

fn reroute(args: &Args) -> Verdict {
    Verdict::allow_if(!REROUTING.contains(&(args[1] as u32, args[2] as u32)))
}

/// IP_RECVERR and IPV6_RECVERR: success, and nothing done.
fn icmp_errors(args: &Args) -> Verdict {
    match (args[1] as u32, args[2] as u32) {
        (SOL_IP, 11) | (SOL_IPV6, 25) => Verdict::Errno(0),
        _ => Verdict::Allow,
    }
}

fn new_user_namespace(args: &Args) -> Verdict {
    Verdict::allow_if(args[0] as u32 & CLONE_NEWUSER == 0)
}

fn tty(args: &Args) -> Verdict {
    Verdict::allow_if(![TIOCSTI, TIOCLINUX].contains(&(args[1] as u32)))
}

/// All ones asks for the current personality; debuggers turn address randomization off.
fn personality(args: &Args) -> Verdict {
    Verdict::allow_if([0, ADDR_NO_RANDOMIZE, u32::MAX].contains(&(args[0] as u32)))
}

fn empty_path(args: &Args) -> Verdict {
    Verdict::allow_if(args[4] as u32 & AT_EMPTY_PATH == 0)
}

fn new_listener(args: &Args) -> Verdict {
    let installs = args[0] as u32 == SECCOMP_SET_MODE_FILTER;
    Verdict::allow_if(!installs || args[1] as u32 & SECCOMP_FILTER_FLAG_NEW_LISTENER == 0)
}

/// Without an address it is send(2), on a connected socket.
fn send_to(args: &Args) -> Verdict {
    Verdict::notify_if(args[4] != 0)
}

fn datagram_socket(args: &Args) -> Verdict {
    Verdict::notify_if(matches!(socket(args), (AF_INET | AF_INET6, SOCK_DGRAM, _)))
}

fn brokered_socket(args: &Args) -> Verdict {
    Verdict::notify_if(matches!(socket(args), (AF_INET | AF_INET6 | AF_NETLINK, _, _)))
}

/// The rules of one program, by number.
pub struct Spec {
    arch: Arch,
    rules: Vec<Vec<Rule>>,
    /// The calls with a rule.
    pub calls: Vec<(u32, &'static str)>,
}

impl Spec {
    pub fn new(group: &str, arch: Arch) -> Self {
        let mut spec = Self { arch, rules: vec![vec![]; 1024], calls: vec![] };
        for (call, rule) in rules(group, arch) {
            let number = arch.number(call);
            let number = number.unwrap_or_else(|| panic!("{} has no {call}", arch.name()));
            spec.rules[number as usize].push(rule);
            if !spec.calls.contains(&(number, call)) {
                spec.calls.push((number, call));
            }
        }
        spec
    }

    pub fn looks_at(&self, nr: u32) -> bool {
        self.calls.iter().any(|(number, _)| *number == nr)
    }

    pub fn verdict(&self, nr: u32, audit_arch: u32, args: &Args) -> Verdict {
        if audit_arch != self.arch.audit() {
            return Verdict::KillProcess;
        }
        // The x32 ABI; -1 is what a tracer writes to skip a call.
        if self.arch == Arch::X86_64 && nr & 0x4000_0000 != 0 && nr != u32::MAX {
            return ENOSYS;
        }
        let rules = self.rules.get(nr as usize).map_or(&[][..], Vec::as_slice);
        let verdicts = rules.iter().map(|rule| rule(args));
        verdicts.into_iter().find(|verdict| *verdict != Verdict::Allow).unwrap_or(Verdict::Allow)
    }
}
