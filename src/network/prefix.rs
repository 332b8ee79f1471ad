//! Ranges of addresses and of ports.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use super::expected;

/// A range of addresses: the bits that are given and the mask that selects them. An IPv6 range
/// never contains IPv4 addresses: `::ffff:a.b.c.d` is written, and compared, as `a.b.c.d`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Prefix {
    Any,
    V4(u32, u32),
    V6(u128, u128),
}

impl Prefix {
    /// `ADDRESS` or `ADDRESS/LENGTH`, IPv6 as `[ADDRESS]`, `[ADDRESS]/LENGTH` or
    /// `[ADDRESS/LENGTH]`; or `*`.
    ///
    /// A zone (`fe80::1%eth0`) is refused: the number of an interface is another one in another
    /// network namespace. A link-local address means that address on every link.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text == "*" {
            return Ok(Self::Any);
        }
        let bracketed = text.strip_prefix('[').map(|inner| inner.split_once(']'));
        let (address, length) = match bracketed {
            None => halves(text),
            Some(Some((inner, ""))) => halves(inner),
            Some(Some((inner, rest))) if rest.starts_with('/') => (inner, Some(&rest[1..])),
            Some(_) => return Err(expected("[ADDRESS] or [ADDRESS]/LENGTH", text)),
        };
        if address.contains('%') {
            return Err(expected("an address without a zone", text));
        }
        if bracketed.is_some() {
            Self::v6(address.parse().map_err(|_| expected("an IPv6 address in [ ]", text))?, length)
        } else if address.contains(':') {
            return Err(expected("an IPv6 address in [ ]", text));
        } else {
            Self::v4(address.parse().map_err(|_| expected("an address", text))?, length)
        }
        .ok_or_else(|| {
            expected("a prefix length that leaves no bit of the address behind it", text)
        })
    }

    fn v4(address: Ipv4Addr, length: Option<&str>) -> Option<Self> {
        let length = length.map_or(Some(32), |digits| number(digits).filter(|bits| *bits <= 32))?;
        let mask = u32::MAX.checked_shl(32 - length).unwrap_or(0);
        let bits = address.to_bits();
        (bits & !mask == 0).then_some(Self::V4(bits, mask))
    }

    fn v6(address: Ipv6Addr, length: Option<&str>) -> Option<Self> {
        let length =
            length.map_or(Some(128), |digits| number(digits).filter(|bits| *bits <= 128))?;
        let mask = u128::MAX.checked_shl(128 - length).unwrap_or(0);
        let bits = address.to_bits();
        if bits & !mask != 0 {
            return None;
        }
        Some(match address.to_ipv4_mapped() {
            Some(v4) if length >= 96 => Self::V4(v4.to_bits(), mask as u32),
            _ => Self::V6(bits, mask),
        })
    }

    /// Whether a canonical address, see [`IpAddr::to_canonical`], is in it.
    pub fn contains(&self, address: IpAddr) -> bool {
        match (*self, address) {
            (Self::Any, _) => true,
            (Self::V4(bits, mask), IpAddr::V4(address)) => address.to_bits() & mask == bits,
            (Self::V6(bits, mask), IpAddr::V6(address)) => address.to_bits() & mask == bits,
            _ => false,
        }
    }
}

/// One address.
impl From<IpAddr> for Prefix {
    fn from(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Self::V4(address.to_bits(), u32::MAX),
            IpAddr::V6(address) => Self::V6(address.to_bits(), u128::MAX),
        }
    }
}

fn halves(text: &str) -> (&str, Option<&str>) {
    text.split_once('/').map_or((text, None), |(address, length)| (address, Some(length)))
}

/// Digits only, where std's parsers take a sign too.
pub fn number<T: FromStr>(text: &str) -> Option<T> {
    text.parse().ok().filter(|_| text.bytes().all(|byte| byte.is_ascii_digit()))
}

/// Ranges of ports, both ends included.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Ports(Vec<(u16, u16)>);

impl Ports {
    /// `443`, `80,443`, `8000-8010`, or `*`, which alone includes port 0.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text == "*" {
            return Ok(Self(vec![(0, u16::MAX)]));
        }
        let range = |part: &str| {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (first, last) = (number(first)?, number(last)?);
            (0 < first && first <= last).then_some((first, last))
        };
        let ranges = text.split(',').map(range).collect::<Option<_>>();
        ranges.map(Self).ok_or_else(|| expected("ports as in 443, 80,443, 8000-8010 or *", text))
    }

    /// Each of these.
    pub fn of(ports: &[u16]) -> Self {
        Self(ports.iter().map(|port| (*port, *port)).collect())
    }

    pub fn contains(&self, port: u16) -> bool {
        self.0.iter().any(|(first, last)| (*first..=*last).contains(&port))
    }

    pub fn iter(&self) -> impl Iterator<Item = u16> {
        self.ranges().flat_map(|(first, last)| first..=last)
    }

    /// The first and the last port of each range.
    pub fn ranges(&self) -> impl Iterator<Item = (u16, u16)> {
        self.0.iter().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contains(prefix: &str, address: &str) -> bool {
        Prefix::parse(prefix).unwrap().contains(address.parse::<IpAddr>().unwrap().to_canonical())
    }

    #[test]
    fn a_prefix_contains_its_first_and_last_address_and_none_beside_them() {
        for (prefix, first, last, below, above) in [
            ("10.0.0.0/8", "10.0.0.0", "10.255.255.255", "9.255.255.255", "11.0.0.0"),
            ("192.0.2.7", "192.0.2.7", "192.0.2.7", "192.0.2.6", "192.0.2.8"),
            ("192.0.2.6/31", "192.0.2.6", "192.0.2.7", "192.0.2.5", "192.0.2.8"),
            ("128.0.0.0/1", "128.0.0.0", "255.255.255.255", "127.255.255.255", "::"),
            ("[2001:db8::]/32", "2001:db8::", "2001:db8:ffff::ffff", "2001:db7::", "2001:db9::"),
            ("[2001:db8::/32]", "2001:db8::", "2001:db8:ffff::ffff", "2001:db7::", "2001:db9::"),
            ("[::1]", "::1", "::1", "::", "::2"),
            ("[fe80::]/10", "fe80::", "febf::1", "fe7f::1", "fec0::"),
        ] {
            assert!(contains(prefix, first) && contains(prefix, last), "{prefix}");
            assert!(!contains(prefix, below) && !contains(prefix, above), "{prefix}");
        }
    }

    #[test]
    fn every_length_of_both_families_selects_exactly_its_bits() {
        for length in 0..=32u32 {
            let prefix = Prefix::parse(&format!("0.0.0.0/{length}")).unwrap();
            for bit in 0..32 {
                let inside = bit < 32 - length;
                assert_eq!(prefix.contains(IpAddr::V4(Ipv4Addr::from_bits(1 << bit))), inside);
            }
        }
        for length in 0..=128u32 {
            let prefix = Prefix::parse(&format!("[::]/{length}")).unwrap();
            for bit in 0..128 {
                let inside = bit < 128 - length;
                assert_eq!(prefix.contains(IpAddr::V6(Ipv6Addr::from_bits(1 << bit))), inside);
            }
        }
    }

    #[test]
    fn every_address_of_one_family_is_none_of_the_other() {
        assert!(contains("0.0.0.0/0", "1.2.3.4") && !contains("0.0.0.0/0", "::1.2.3.4"));
        assert!(contains("[::]/0", "::1.2.3.4") && !contains("[::]/0", "1.2.3.4"));
        assert!(!contains("[::]/0", "::ffff:1.2.3.4"));
        assert!(contains("*", "1.2.3.4") && contains("*", "::1.2.3.4"));
    }

    #[test]
    fn a_mapped_address_is_an_ipv4_address() {
        assert_eq!(Prefix::parse("[::ffff:10.0.0.1]"), Prefix::parse("10.0.0.1"));
        assert_eq!(Prefix::parse("[::ffff:10.0.0.0]/104"), Prefix::parse("10.0.0.0/8"));
        assert_eq!(Prefix::parse("[::ffff:0:0]/96"), Prefix::parse("0.0.0.0/0"));
        assert_eq!(Prefix::from(IpAddr::V6("::ffff:10.0.0.1".parse().unwrap())), {
            Prefix::parse("10.0.0.1").unwrap()
        });
    }

    #[test]
    fn what_is_no_range_says_what_was_expected() {
        for (text, what) in [
            ("10.0.0.1/8", "prefix length"),
            ("10.0.0.0/33", "prefix length"),
            ("10.0.0.0/+8", "prefix length"),
            ("10.0.0.0/", "prefix length"),
            ("[2001:db8::1]/32", "prefix length"),
            ("[::]/129", "prefix length"),
            ("[::]/-1", "prefix length"),
            ("[fe80::1%eth0]", "without a zone"),
            ("fe80::1%1", "without a zone"),
            ("::1", "in [ ]"),
            ("[1.2.3.4]", "in [ ]"),
            ("[::1", "[ADDRESS]"),
            ("[::1]x", "[ADDRESS]"),
            ("[]", "in [ ]"),
            ("010.0.0.1", "an address"),
            ("10.0.1", "an address"),
            ("10.0.0.0/8/8", "prefix length"),
            ("", "an address"),
        ] {
            let error = Prefix::parse(text).unwrap_err();
            assert!(error.contains(what) && error.contains(&format!("{text:?}")), "{error}");
        }
    }

    #[test]
    fn ports_are_numbers_and_ranges() {
        let listed = |text| Ports::parse(text).unwrap().iter().collect::<Vec<_>>();
        assert_eq!(listed("443"), [443]);
        assert_eq!(listed("80,443"), [80, 443]);
        assert_eq!(listed("8000-8003,1"), [8000, 8001, 8002, 8003, 1]);
        assert_eq!(listed("65535-65535"), [65535]);
        assert_eq!(Ports::parse("*").unwrap().iter().count(), 65536);
        for text in ["80,443", "8000-8010", "*", "1,65535", "7"] {
            let ports = Ports::parse(text).unwrap();
            let mut listed = vec![false; 1 << 16];
            ports.iter().for_each(|port| listed[usize::from(port)] = true);
            for port in 0..=u16::MAX {
                assert_eq!(ports.contains(port), listed[usize::from(port)], "{text} {port}");
            }
        }
    }

    #[test]
    fn what_is_no_port_says_what_was_expected() {
        for text in [
            "", "0", "0-1", "65536", "2-1", "-", "1-", "-1", "+1", "1,,2", "1, 2", "http", "1-2-3",
            "*,1",
        ] {
            assert!(Ports::parse(text).unwrap_err().contains("ports as in"), "{text:?}");
        }
    }
}
