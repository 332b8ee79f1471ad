//! Numbers, architectures and arguments at which filters have been wrong before.

use super::spec::{self, Arch, Args};

/// What the upper half of a register with an int can hold: the kernel never looks at it.
const HIGH: [u64; 4] = [0, 1 << 32, (u32::MAX as u64) << 32, 1 << 63];

/// Every number that a table could have, alone and with the bits that make it negative or x32.
pub fn numbers() -> impl Iterator<Item = u32> {
    let marked = |mark: u32| (0..1024).map(move |nr| nr | mark);
    let limits = [0x3fff_ffff, 0x7fff_ffff, 0xbfff_ffff, u32::MAX, u32::MAX - 1];
    [0, 0x4000_0000, 0x8000_0000, 0xc000_0000].into_iter().flat_map(marked).chain(limits)
}

/// i386, ARM, none, the other one, and everything one bit away.
pub fn foreign(arch: Arch) -> impl Iterator<Item = u32> {
    let known = [0x4000_0003, 0x4000_0028, 0, u32::MAX].into_iter();
    let both = Arch::ALL.into_iter().map(Arch::audit);
    let one_bit_away = (0..32).map(move |bit| arch.audit() ^ 1 << bit);
    known.chain(both).chain(one_bit_away).filter(move |other| *other != arch.audit())
}

/// A few for any call: each value that some group asks for, in every place.
pub fn few() -> impl Iterator<Item = Args> {
    let values = [0, 1, 2, 10, 16, 262, 1 << 32, 1 << 63, u64::MAX, u32::MAX.into()];
    let asked = [
        spec::MSG_FASTOPEN,
        spec::MSG_DONTROUTE,
        spec::CLONE_NEWUSER,
        spec::AT_EMPTY_PATH,
        spec::TIOCSTI,
        spec::TIOCLINUX,
        spec::ADDR_NO_RANDOMIZE,
        spec::SECCOMP_FILTER_FLAG_NEW_LISTENER,
    ];
    let sockets = [[1, 2, 0, 0, 0, 0], [2, 1, 262, 0, 0, 0], [2, 3, 255, 0, 0, 0]];
    let device = [0, 1, 25, 0, 0, 0];
    let listener = [1, spec::SECCOMP_FILTER_FLAG_NEW_LISTENER.into(), 0, 0, 0, 0];
    let same = values.into_iter().chain(asked.map(u64::from)).map(|value| [value; 6]);
    same.chain(sockets).chain([device, listener])
}

/// All that matters for a call that some group looks at.
pub fn many(call: &str, visit: &mut dyn FnMut(&Args)) {
    match call {
        "socket" | "socketpair" => sockets(visit),
        "sendto" => {
            flags(3, spec::MSG_FASTOPEN, visit);
            flags(3, spec::MSG_DONTROUTE, visit);
            pointer(4, visit);
        }
        "sendmmsg" | "sendmsg" => {
            let argument = if call == "sendmsg" { 2 } else { 3 };
            flags(argument, spec::MSG_FASTOPEN, visit);
            flags(argument, spec::MSG_DONTROUTE, visit);
        }
        "setsockopt" => {
            for level in (0..=64).chain([255, 263, 282]).chain(UNLIKELY) {
                for option in (0..=128).chain(UNLIKELY) {
                    pair([1, 2], [level, option], visit);
                }
            }
        }
        "clone" | "unshare" => flags(0, spec::CLONE_NEWUSER, visit),
        "execveat" => flags(4, spec::AT_EMPTY_PATH, visit),
        "seccomp" => {
            for operation in (0..=4).chain((3..32).map(|bit| 1 << bit)).chain([u32::MAX]) {
                for flags in sets(spec::SECCOMP_FILTER_FLAG_NEW_LISTENER) {
                    pair([0, 1], [operation, flags], visit);
                }
            }
        }
        "prlimit64" => {
            for pid in sets(1) {
                for high in HIGH {
                    pointer(2, &mut |arguments| {
                        let mut arguments = *arguments;
                        arguments[0] = high | u64::from(pid);
                        visit(&arguments);
                    });
                }
            }
        }
        "personality" => flags(0, spec::ADDR_NO_RANDOMIZE, visit),
        "ioctl" => {
            let near = |command| (0..32).map(move |bit| command ^ 1 << bit).chain([command]);
            let all = (0x5400..0x5500).chain(near(spec::TIOCSTI)).chain(near(spec::TIOCLINUX));
            all.for_each(|command| place(1, command, spec::TIOCSTI, visit));
        }
        _ => single_bits(visit),
    }
}

/// For calls whose arguments do not matter.
fn single_bits(visit: &mut dyn FnMut(&Args)) {
    for bit in 0..64 {
        for argument in 0..6 {
            let mut arguments = [0; 6];
            arguments[argument] = 1 << bit;
            visit(&arguments);
            visit(&arguments.map(|value| !value));
        }
    }
}

/// A pointer whose bits all count, among others that could be mistaken for it.
fn pointer(argument: usize, visit: &mut dyn FnMut(&Args)) {
    for value in (0..64).map(|bit| 1 << bit).chain([0, u64::MAX]) {
        for others in 0..64 {
            let mut arguments = [0, 1, 2, 3, 4, 5].map(|other| (others >> other & 1) * u64::MAX);
            arguments[argument] = value;
            visit(&arguments);
        }
    }
}

/// Sets of flags in one argument, with and without the wanted one.
fn flags(argument: usize, wanted: u32, visit: &mut dyn FnMut(&Args)) {
    sets(wanted).for_each(|value| place(argument, value, wanted, visit));
}

fn sets(wanted: u32) -> impl Iterator<Item = u32> {
    let some = (0..32).map(|bit| 1 << bit).chain([0, u32::MAX]);
    some.flat_map(move |set| [set, set | wanted, set & !wanted, set ^ 1])
}

/// Two arguments, the upper halves of their registers anything, among zeros or ones.
fn pair(places: [usize; 2], values: [u32; 2], visit: &mut dyn FnMut(&Args)) {
    for rest in [0, u64::MAX] {
        for choice in 0..4 {
            let mut arguments = [rest; 6];
            arguments[places[0]] = HIGH[choice] | u64::from(values[0]);
            arguments[places[1]] = HIGH[3 - choice] | u64::from(values[1]);
            visit(&arguments);
        }
    }
}

/// One argument, the upper half of its register anything, among others that could be mistaken
/// for it.
fn place(argument: usize, value: u32, wanted: u32, visit: &mut dyn FnMut(&Args)) {
    let others = [0, wanted.into(), u64::MAX];
    for combination in 0..3usize.pow(5) {
        for high in HIGH {
            let mut arguments = [0; 6];
            let mut rest = combination;
            for other in (0..6).filter(|other| *other != argument) {
                arguments[other] = others[rest % 3];
                rest /= 3;
            }
            arguments[argument] = high | u64::from(value);
            visit(&arguments);
        }
    }
}

const FLAGS: [u32; 4] = [0, 0o2000000, 0o4000, 0o2004000];
const UNLIKELY: [u32; 8] =
    [257, 0x1_0001, 0x1_0002, 0x1_0106, 0x7fff_ffff, 0x8000_0000, 0x8000_0002, u32::MAX];

/// Families, types and protocols: all of them with some upper halves, the likely ones with all.
fn sockets(visit: &mut dyn FnMut(&Args)) {
    let types = || (0..16).flat_map(|kind| FLAGS.map(|flags| kind | flags));
    let odd_types = || [0x11, 0x12, 0x101, 0x8000_0001, 0xffff_fff1, u32::MAX].into_iter();
    let mut turn = 0u32;
    for family in (0..=50).chain(UNLIKELY) {
        for kind in types().chain(odd_types()) {
            for protocol in (0..=300).chain(UNLIKELY) {
                // Upper halves by turns: a multiplicative hash, to be out of step with the loops.
                turn = turn.wrapping_add(0x9e37_79b9);
                let high = |shift: u32| HIGH[(turn >> shift) as usize % 4];
                visit(&arguments([family, kind, protocol], [high(30), high(28), high(26)]));
            }
        }
    }
    for family in [0, 1, 2, 10, 16, 17, 257, u32::MAX] {
        for kind in 0..16 {
            for protocol in [0, 1, 2, 6, 17, 58, 132, 136, 255, 256, 262, 0x1_0006, u32::MAX] {
                for choice in 0..64 {
                    let high = |place: u32| HIGH[choice >> (2 * place) & 3];
                    let kind = kind | FLAGS[(choice + kind as usize) % 4];
                    visit(&arguments([family, kind, protocol], [high(0), high(1), high(2)]));
                }
            }
        }
    }
}

fn arguments(low: [u32; 3], high: [u64; 3]) -> Args {
    // A pointer or rubbish behind them.
    let rest = u64::MAX;
    let [a, b, c] = low.map(u64::from);
    [a | high[0], b | high[1], c | high[2], rest, rest, rest]
}
