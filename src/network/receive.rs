//! What a datagram socket may receive, as a classic BPF program for SO_ATTACH_FILTER: packets from
//! the addresses and ports that it may send to.
//!
//! For UDP the kernel runs it with the UDP header as the packet, whatever extension headers there
//! are before it; the IP header is found through SKF_NET_OFF. An IPv6 socket gets IPv4 packets too.
//! The source is the one in the header, which recvfrom(2) names as the sender.

use super::pins::Destinations;
use super::prefix::{Ports, Prefix};
use super::rule::Protocol;
use crate::sys::seccomp::SockFilter;

/// BPF_MAXINSNS: the kernel takes no longer program.
const LONGEST: usize = 4096;

// Opcodes of linux/bpf_common.h.
const LD_W_ABS: u16 = 0x20;
const LD_H_ABS: u16 = 0x28;
const LD_B_ABS: u16 = 0x30;
const LD_MEM: u16 = 0x60;
const ST: u16 = 0x02;
const AND_K: u16 = 0x54;
const RSH_K: u16 = 0x74;
const JA: u16 = 0x05;
const JEQ_K: u16 = 0x15;
const JGT_K: u16 = 0x25;
const JGE_K: u16 = 0x35;
const RET_K: u16 = 0x06;

const SKF_NET_OFF: u32 = -0x0010_0000i32 as u32;
/// Where the source address is, and how many words it has.
const SOURCE_V4: (u32, u32) = (SKF_NET_OFF + 12, 1);
const SOURCE_V6: (u32, u32) = (SKF_NET_OFF + 8, 4);
/// In the UDP header.
const SOURCE_PORT: u32 = 0;

/// The whole packet, or nothing.
const ACCEPT: SockFilter = op(RET_K, 0, 0, u32::MAX);
const DROP: SockFilter = op(RET_K, 0, 0, 0);

const fn op(code: u16, jt: u8, jf: u8, k: u32) -> SockFilter {
    SockFilter { code, jt, jf, k }
}

/// Fails if that is too much for one program.
pub fn program(destinations: &Destinations) -> Result<Vec<SockFilter>, String> {
    let rules: Vec<_> = destinations.of(Protocol::Udp).collect();
    let [v4, v6] = [4, 6].map(|version| source_in(&rules, version));
    let mut program = vec![op(LD_B_ABS, 0, 0, SKF_NET_OFF), op(RSH_K, 0, 0, 4)];
    program.extend([op(JEQ_K, 0, 1, 4), op(JA, 0, 0, 3), op(JEQ_K, 1, 0, 6), DROP]);
    program.extend([op(JA, 0, 0, v4.len() as u32)]);
    program.extend(v4);
    program.extend(v6);
    match program.len() <= LONGEST {
        true => Ok(program),
        false => Err(format!("{} addresses are too many", rules.len())),
    }
}

/// Accepts or drops a packet of this IP version.
fn source_in(rules: &[(Prefix, &Ports)], version: u8) -> Vec<SockFilter> {
    // To load from the packet takes the kernel several steps, to load from memory one.
    let (offset, count) = if version == 4 { SOURCE_V4 } else { SOURCE_V6 };
    let keep = |word| [op(LD_W_ABS, 0, 0, offset + 4 * word), op(ST, 0, 0, word)];
    let mut code: Vec<_> = (0..count).flat_map(keep).collect();
    for (number, (_, ports)) in rules.iter().enumerate() {
        // Rules with the same ports stand together, behind the first of them.
        if rules[..number].iter().any(|(_, earlier)| earlier == ports) {
            continue;
        }
        let group = rules[number..].iter().filter(|(_, other)| other == ports);
        let addresses: Vec<_> =
            group.filter_map(|(prefix, _)| words(*prefix, version)).map(is_source).collect();
        if addresses.is_empty() {
            continue;
        }
        let from = from_ports(ports);
        // A jump to the ports behind each address, and one over them behind the last one.
        let mut left = addresses.iter().map(|tests| tests.len() + 1).sum::<usize>() + 1;
        for tests in addresses {
            let length = tests.len() as u8;
            // Conditional jumps are relative and short: each ends at the next address.
            code.extend(tests.into_iter().zip(0..).map(|(test, at)| match test.code {
                JEQ_K => SockFilter { jf: length - at, ..test },
                _ => test,
            }));
            left -= usize::from(length) + 1;
            code.push(op(JA, 0, 0, left as u32));
        }
        code.push(op(JA, 0, 0, from.len() as u32));
        code.extend(from);
    }
    code.push(DROP);
    code
}

/// The words of the source address with their bits and masks, the last and most telling one first.
/// None: the prefix has no address of that IP version.
fn words(prefix: Prefix, version: u8) -> Option<Vec<(u32, u32, u32)>> {
    match (prefix, version) {
        (Prefix::Any, _) => Some(vec![]),
        (Prefix::V4(bits, mask), 4) => Some(vec![(0, bits, mask)]),
        (Prefix::V6(bits, mask), 6) => {
            let word = |n: u32| (n, (bits >> (96 - 32 * n)) as u32, (mask >> (96 - 32 * n)) as u32);
            Some((0..4).rev().map(word).collect())
        }
        _ => None,
    }
}

/// Goes on behind itself if all words are as given. The other way out is to be filled in.
fn is_source(words: Vec<(u32, u32, u32)>) -> Vec<SockFilter> {
    let mut code = Vec::new();
    for (word, bits, mask) in words.into_iter().filter(|(.., mask)| *mask != 0) {
        code.push(op(LD_MEM, 0, 0, word));
        if mask != u32::MAX {
            code.push(op(AND_K, 0, 0, mask));
        }
        code.push(op(JEQ_K, 0, 0, bits));
    }
    code
}

/// Accepts what comes from one of the ports, and goes on behind itself otherwise.
fn from_ports(ports: &Ports) -> Vec<SockFilter> {
    let mut code = vec![op(LD_H_ABS, 0, 0, SOURCE_PORT)];
    for (first, last) in ports.ranges() {
        code.extend([op(JGE_K, 0, 2, first.into()), op(JGT_K, 1, 0, last.into()), ACCEPT]);
    }
    code
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;
    use crate::network::pins::{Options, freeze};
    use crate::network::rule::Rule;

    fn destinations(rules: &[&str]) -> Destinations {
        let rules = rules.iter().map(|text| Rule::parse(text).unwrap()).collect();
        freeze(rules, &[], &[], Options::default()).unwrap().destinations
    }

    /// Whether a packet from there passes, as the kernel would run the program.
    fn passes(program: &[SockFilter], ip: IpAddr, port: u16) -> bool {
        let mut network = [0; 40];
        match ip {
            IpAddr::V4(ip) => {
                network[0] = 0x45;
                network[12..16].copy_from_slice(&ip.octets());
            }
            IpAddr::V6(ip) => {
                network[0] = 0x60;
                network[8..24].copy_from_slice(&ip.octets());
            }
        }
        run(program, &network, port)
    }

    fn run(program: &[SockFilter], network: &[u8], port: u16) -> bool {
        let byte = |at: u32| u32::from(network[at.wrapping_sub(SKF_NET_OFF) as usize]);
        let (mut value, mut at, mut memory) = (0, 0, [0; 4]);
        loop {
            let SockFilter { code, jt, jf, k } = program[at];
            at += 1;
            let jump = |holds| usize::from(if holds { jt } else { jf });
            match code {
                LD_B_ABS => value = byte(k),
                LD_W_ABS => value = (0..4).fold(0, |word, n| word << 8 | byte(k + n)),
                LD_H_ABS if k == SOURCE_PORT => value = port.into(),
                LD_MEM => value = memory[k as usize],
                ST => memory[k as usize] = value,
                AND_K => value &= k,
                RSH_K => value >>= k,
                JA => at += k as usize,
                JEQ_K => at += jump(value == k),
                JGT_K => at += jump(value > k),
                JGE_K => at += jump(value >= k),
                RET_K => return k != 0,
                _ => panic!("{code:#x}"),
            }
        }
    }

    const IPS: &str = "0.0.0.0 127.0.0.1 127.0.0.2 10.0.0.1 10.255.255.255 11.0.0.0 192.0.2.1 \
        192.0.2.2 255.255.255.255 :: ::1 ::2 2001:db8::1 2001:db8:0:1::1 2001:db9:: fe80::1 \
        2001:db8:1:2:3:4:5:6 2001:db8:1:2:3:4:5:7 2001:db8:1:2:3:4:6:6 2001:db8:1:2:3:5:5:6";
    const PORTS: [u16; 9] = [0, 1, 52, 53, 54, 443, 8000, 8010, 65535];

    #[test]
    fn what_may_be_sent_to_may_be_received_from() {
        for rules in [
            &[][..],
            &["127.0.0.1:53"],
            &["udp://127.0.0.1:53"],
            &["udp://[::1]:53"],
            &["udp://*:53"],
            &["udp://*:*"],
            &["udp://0.0.0.0/0:*", "udp://[2001:db8::]/32:443"],
            &["udp://[::]/0:*"],
            &["udp://10.0.0.0/8:1-53,8000-8010", "udp://192.0.2.1:*", "udp://192.0.2.2:443"],
            &["udp://10.0.0.0/8:53", "udp://10.0.0.1:443", "udp://127.0.0.1:53", "udp://[::2]:53"],
            &["udp://[2001:db8:1:2:3:4:5:6]:53,443", "udp://[2001:db8::]/47:54", "127.0.0.1:1"],
        ] {
            let destinations = destinations(rules);
            let program = program(&destinations).unwrap();
            for (ip, port) in IPS.split(' ').flat_map(|ip| PORTS.map(|port| (ip, port))) {
                let ip = ip.parse().unwrap();
                let expected = destinations.allows(Protocol::Udp, ip, port);
                assert_eq!(passes(&program, ip, port), expected, "{rules:?} {ip} {port}");
            }
        }
    }

    #[test]
    fn what_is_neither_ipv4_nor_ipv6_is_dropped() {
        let program = program(&destinations(&["udp://*:*"])).unwrap();
        for version in 0..16 {
            let passes = run(&program, &[version << 4; 40], 53);
            assert_eq!(passes, matches!(version, 4 | 6), "{version}");
        }
    }

    #[test]
    fn hundreds_of_addresses_fit_and_more_are_refused_with_their_number() {
        let many = |count: u32| {
            let texts: Vec<_> =
                (0..count).map(|n| format!("udp://[2001:db8::{n:x}:1]:53")).collect();
            destinations(&texts.iter().map(String::as_str).collect::<Vec<_>>())
        };
        let program = program(&many(400)).unwrap();
        assert!(passes(&program, "2001:db8::18f:1".parse().unwrap(), 53));
        assert!(!passes(&program, "2001:db8::190:1".parse().unwrap(), 53));
        assert!(super::program(&many(500)).unwrap_err().contains("500 addresses"));
    }
}
