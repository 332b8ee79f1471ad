//! Which addresses surprise as the answer to a name: those that lead to this machine, its link,
//! its site or its cloud. A name's owner, or whoever answers for it, could reach there through us.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// In the order of surprise.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Class {
    Public,
    Private,
    Reserved,
    Multicast,
    LinkLocal,
    Metadata,
    Unspecified,
    Loopback,
}

impl Class {
    pub fn name(self) -> &'static str {
        match self {
            Self::Public => "public",
            Self::Private => "private",
            Self::Reserved => "reserved",
            Self::Multicast => "multicast",
            Self::LinkLocal => "link-local",
            Self::Metadata => "cloud metadata",
            Self::Unspecified => "unspecified",
            Self::Loopback => "loopback",
        }
    }
}

/// The first entry that contains an address decides. Documentation networks are not here: nobody
/// is there.
const V4: &[(Ipv4Addr, u32, Class)] = &[
    (Ipv4Addr::new(0, 0, 0, 0), 8, Class::Unspecified),
    (Ipv4Addr::LOCALHOST, 8, Class::Loopback),
    (Ipv4Addr::new(169, 254, 169, 254), 32, Class::Metadata),
    // The credentials of containers and pods.
    (Ipv4Addr::new(169, 254, 170, 0), 24, Class::Metadata),
    (Ipv4Addr::new(169, 254, 0, 0), 16, Class::LinkLocal),
    // Of clouds that have it elsewhere: Azure's wire server, Alibaba, Oracle.
    (Ipv4Addr::new(168, 63, 129, 16), 32, Class::Metadata),
    (Ipv4Addr::new(100, 100, 100, 200), 32, Class::Metadata),
    (Ipv4Addr::new(192, 0, 0, 192), 32, Class::Metadata),
    (Ipv4Addr::new(10, 0, 0, 0), 8, Class::Private),
    (Ipv4Addr::new(172, 16, 0, 0), 12, Class::Private),
    (Ipv4Addr::new(192, 168, 0, 0), 16, Class::Private),
    // Carrier-grade NAT, RFC 6598, and benchmarks, RFC 2544: in use for overlay networks.
    (Ipv4Addr::new(100, 64, 0, 0), 10, Class::Private),
    (Ipv4Addr::new(198, 18, 0, 0), 15, Class::Private),
    // IETF protocol assignments, RFC 6890.
    (Ipv4Addr::new(192, 0, 0, 0), 24, Class::Reserved),
    (Ipv4Addr::new(224, 0, 0, 0), 4, Class::Multicast),
    // And the broadcast address.
    (Ipv4Addr::new(240, 0, 0, 0), 4, Class::Reserved),
];

const V6: &[(Ipv6Addr, u32, Class)] = &[
    (Ipv6Addr::UNSPECIFIED, 128, Class::Unspecified),
    (Ipv6Addr::LOCALHOST, 128, Class::Loopback),
    // Amazon's services to its machines, of which ::254 is the metadata; Google's metadata.
    (Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0), 32, Class::Metadata),
    (Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254), 128, Class::Metadata),
    (Ipv6Addr::new(0xfc00, 0, 0, 0, 0, 0, 0, 0), 7, Class::Private),
    // Site-local, deprecated by RFC 3879.
    (Ipv6Addr::new(0xfec0, 0, 0, 0, 0, 0, 0, 0), 10, Class::Private),
    // Translation to IPv4 inside a site, RFC 8215: to what is the site's matter.
    (Ipv6Addr::new(0x64, 0xff9b, 1, 0, 0, 0, 0, 0), 48, Class::Private),
    (Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0), 10, Class::LinkLocal),
    (Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0), 8, Class::Multicast),
];

/// Addresses that carry IPv4 ones are as surprising as those.
pub fn class(address: IpAddr) -> Class {
    match address.to_canonical() {
        IpAddr::V4(address) => v4(address),
        IpAddr::V6(address) => v6(address),
    }
}

fn v4(address: Ipv4Addr) -> Class {
    let beside = |net: &Ipv4Addr| address.to_bits() ^ net.to_bits();
    let listed = V4.iter().find(|(net, length, _)| beside(net) >> (32 - length) == 0);
    listed.map_or(Class::Public, |entry| entry.2)
}

fn v6(address: Ipv6Addr) -> Class {
    let beside = |net: &Ipv6Addr| address.to_bits() ^ net.to_bits();
    if let Some(entry) = V6.iter().find(|(net, length, _)| beside(net) >> (128 - length) == 0) {
        return entry.2;
    }
    let embedded = |a: u16, b: u16| v4(Ipv4Addr::from_bits(u32::from(a) << 16 | u32::from(b)));
    match address.segments() {
        // IPv4-compatible; translated, RFC 2765 and NAT64, RFC 6052; 6to4.
        [0, 0, 0, 0, 0, 0, a, b]
        | [0, 0, 0, 0, 0xffff, 0, a, b]
        | [0x64, 0xff9b, 0, 0, 0, 0, a, b]
        | [0x2002, a, b, ..] => embedded(a, b),
        // Teredo: a server, and a client with its bits inverted.
        [0x2001, 0, a, b, _, _, c, d] => embedded(a, b).max(embedded(!c, !d)),
        [0x2000..=0x3fff, ..] => Class::Public,
        _ => Class::Reserved,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Class::*;

    fn of(address: &str) -> Class {
        class(address.parse().unwrap())
    }

    #[test]
    fn ranges_end_where_they_should() {
        for (first, last, inside, below, above) in [
            ("0.0.0.0", "0.255.255.255", Unspecified, Reserved, Public),
            ("10.0.0.0", "10.255.255.255", Private, Public, Public),
            ("100.64.0.0", "100.100.100.199", Private, Public, Metadata),
            ("100.100.100.201", "100.127.255.255", Private, Metadata, Public),
            ("127.0.0.0", "127.255.255.255", Loopback, Public, Public),
            ("168.63.129.16", "168.63.129.16", Metadata, Public, Public),
            ("169.254.0.0", "169.254.169.253", LinkLocal, Public, Metadata),
            ("169.254.169.254", "169.254.169.254", Metadata, LinkLocal, LinkLocal),
            ("169.254.170.0", "169.254.170.255", Metadata, LinkLocal, LinkLocal),
            ("172.16.0.0", "172.31.255.255", Private, Public, Public),
            ("192.0.0.0", "192.0.0.191", Reserved, Public, Metadata),
            ("192.0.0.193", "192.0.0.255", Reserved, Metadata, Public),
            ("192.168.0.0", "192.168.255.255", Private, Public, Public),
            ("198.18.0.0", "198.19.255.255", Private, Public, Public),
            ("224.0.0.0", "239.255.255.255", Multicast, Public, Reserved),
            ("240.0.0.0", "255.255.255.255", Reserved, Multicast, Unspecified),
        ] {
            let bits = |text: &str| text.parse::<Ipv4Addr>().unwrap().to_bits();
            let class = |bits| v4(Ipv4Addr::from_bits(bits));
            assert_eq!((of(first), of(last)), (inside, inside), "{first}-{last}");
            assert_eq!(class(bits(first).wrapping_sub(1)), below, "below {first}");
            assert_eq!(class(bits(last).wrapping_add(1)), above, "above {last}");
        }
        for (address, class) in [
            ("::", Unspecified),
            ("::1", Loopback),
            ("fbff:ffff::", Reserved),
            ("fc00::", Private),
            ("fd00:ec1:ffff::", Private),
            ("fd00:ec2::254", Metadata),
            ("fd00:ec2::23", Metadata),
            ("fd00:ec3::", Private),
            ("fd20:ce::254", Metadata),
            ("fd20:ce::253", Private),
            ("fdff:ffff::", Private),
            ("fe00::", Reserved),
            ("fe80::", LinkLocal),
            ("febf:ffff::", LinkLocal),
            ("fec0::", Private),
            ("feff::", Private),
            ("ff00::", Multicast),
            ("ff02::1", Multicast),
            ("ffff:ffff::", Multicast),
            ("2000::", Public),
            ("2606:4700::1111", Public),
            ("3fff::", Public),
            ("4000::", Reserved),
            ("100::1", Reserved),
            ("1fff::", Reserved),
            ("64:ff9b:1::808:808", Private),
            ("64:ff9b:2::808:808", Reserved),
        ] {
            assert_eq!(of(address), class, "{address}");
        }
    }

    #[test]
    fn an_embedded_address_surprises_as_the_one_it_carries() {
        for (v4, class) in [
            ("127.0.0.1", Loopback),
            ("169.254.169.254", Metadata),
            ("10.1.2.3", Private),
            ("224.0.0.1", Multicast),
            ("93.184.216.34", Public),
        ] {
            let v4: Ipv4Addr = v4.parse().unwrap();
            let [a, b, c, d] = v4.octets();
            let teredo = !v4.to_bits();
            for text in [
                format!("::ffff:{v4}"),
                format!("::{v4}"),
                format!("::ffff:0:{v4}"),
                format!("64:ff9b::{v4}"),
                format!("2002:{a:02x}{b:02x}:{c:02x}{d:02x}::1"),
                format!("2001:0:808:808:0:0:{:x}:{:x}", teredo >> 16, teredo & 0xffff),
                format!("2001:0:{a:02x}{b:02x}:{c:02x}{d:02x}:0:0:f7f7:f7f7"),
            ] {
                assert_eq!(of(&text), class, "{text}");
            }
        }
        assert_eq!(of("::2"), Unspecified);
    }

    #[test]
    fn an_address_for_documentation_leads_nowhere_and_does_not_surprise() {
        for address in ["192.0.2.1", "198.51.100.1", "203.0.113.1", "2001:db8::1"] {
            assert_eq!(of(address), Public);
        }
    }
}
