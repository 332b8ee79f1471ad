//! The grammar of `--net-allow`, `--net-bind` and `--pin`.

use std::net::IpAddr;

use super::expected;
use super::prefix::{Ports, Prefix};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Protocol {
    Tcp,
    Udp,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Target {
    /// As [`name`] gives it.
    Name(String),
    Addresses(Prefix),
}

/// What may be connected, or sent, to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Rule {
    pub protocol: Protocol,
    pub target: Target,
    pub ports: Ports,
}

impl Rule {
    /// `[tcp://|udp://]TARGET:PORTS`; TARGET is a host name or what [`Prefix::parse`] takes.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (protocol, rest) = match text.strip_prefix("udp://") {
            Some(rest) => (Protocol::Udp, rest),
            None => (Protocol::Tcp, text.strip_prefix("tcp://").unwrap_or(text)),
        };
        if rest.split_once(':').is_some_and(|(_, rest)| rest.starts_with("//")) {
            return Err(expected("tcp:// or udp://", text));
        }
        let (target, ports) = split(rest, "TARGET:PORTS")?;
        let ports = Ports::parse(ports)?;
        let target = match Prefix::parse(target) {
            Ok(prefix) => {
                // connect(2) takes the unspecified address for loopback.
                let unspecified = [Prefix::V4(0, u32::MAX), Prefix::V6(0, u128::MAX)];
                if unspecified.contains(&prefix) {
                    return Err(expected("a destination, as 127.0.0.1 or [::1]", target));
                }
                Target::Addresses(prefix)
            }
            Err(error) if target.contains(['/', ':', '[']) => return Err(error),
            Err(_) => Target::Name(name(target)?),
        };
        Ok(Self { protocol, target, ports })
    }
}

/// What may be bound, and listened on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Bind {
    pub addresses: Prefix,
    pub ports: Ports,
}

impl Bind {
    /// `ADDR:PORTS`; ADDR is what [`Prefix::parse`] takes.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (addresses, ports) = split(text, "ADDR:PORTS")?;
        Ok(Self { addresses: Prefix::parse(addresses)?, ports: Ports::parse(ports)? })
    }
}

/// The addresses of a name, in place of what DNS would say.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Pin {
    /// As [`name`] gives it.
    pub name: String,
    /// Canonical, and never none.
    pub addresses: Vec<IpAddr>,
}

impl Pin {
    /// `NAME=ADDR[,ADDR]…`, IPv6 without brackets or with.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (own, addresses) = text.split_once('=').ok_or_else(|| expected("NAME=ADDR", text))?;
        let address = |part: &str| {
            let inner = part.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
            match inner {
                Some(inner) => inner.parse().map(IpAddr::V6),
                None => part.parse::<IpAddr>(),
            }
            .map(|address| address.to_canonical())
            .map_err(|_| expected("an address", part))
        };
        let addresses = addresses.split(',').map(address).collect::<Result<_, _>>()?;
        Ok(Self { name: name(own)?, addresses })
    }
}

fn split<'a>(text: &'a str, form: &str) -> Result<(&'a str, &'a str), String> {
    match text.rsplit_once(':') {
        Some((target, ports)) if !target.is_empty() && !ports.contains(']') => Ok((target, ports)),
        _ => Err(expected(form, text)),
    }
}

/// RFC 1035: 255 bytes with a length before each label and the root's at the end.
const LONGEST_NAME: usize = 253;
const LONGEST_LABEL: usize = 63;

/// The one form of a host name: lower case, no dot at its end.
///
/// Underscores are taken, for they are in use. A name whose last label is a number is refused:
/// inet_aton(3), and so many a resolver, takes `127.1`, `0x7f.1` and `2130706433` for addresses.
pub(super) fn name(text: &str) -> Result<String, String> {
    if text.contains('*') {
        return Err(expected("a name without *; a proxy can allow names by pattern", text));
    }
    if !text.is_ascii() {
        return Err(expected("a name in ASCII, xn--...", text));
    }
    let name = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
    let last = name.rsplit('.').next().unwrap_or_default();
    let hexadecimal =
        last.strip_prefix("0x").map(|rest| rest.bytes().all(|b| b.is_ascii_hexdigit()));
    if hexadecimal.unwrap_or_else(|| last.bytes().all(|byte| byte.is_ascii_digit())) {
        return Err(expected("a host name or an address", text));
    }
    if name.len() > LONGEST_NAME || !name.split('.').all(is_label) {
        return Err(expected("a host name", text));
    }
    Ok(name)
}

fn is_label(label: &str) -> bool {
    (1..=LONGEST_LABEL).contains(&label.len())
        && !label.starts_with('-')
        && !label.ends_with('-')
        && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(text: &str) -> Rule {
        Rule::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    fn named(text: &str) -> String {
        match rule(text).target {
            Target::Name(name) => name,
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn a_rule_is_a_protocol_a_target_and_ports() {
        assert_eq!(
            rule("udp://example.com:53,443"),
            Rule {
                protocol: Protocol::Udp,
                target: Target::Name("example.com".into()),
                ports: Ports::parse("53,443").unwrap(),
            }
        );
        assert_eq!(rule("example.com:443"), rule("tcp://example.com:443"));
        for (text, addresses) in [
            ("127.0.0.1:3128", "127.0.0.1"),
            ("10.0.0.0/8:443", "10.0.0.0/8"),
            ("[2001:db8::1]:443", "[2001:db8::1]"),
            ("[2001:db8::]/32:443", "[2001:db8::]/32"),
            ("[2001:db8::/32]:443", "[2001:db8::]/32"),
            ("[::ffff:127.0.0.1]:443", "127.0.0.1"),
            ("0.0.0.0/0:*", "0.0.0.0/0"),
            ("*:443", "*"),
        ] {
            let prefix = Prefix::parse(addresses).unwrap();
            assert_eq!(rule(text).target, Target::Addresses(prefix), "{text}");
        }
    }

    #[test]
    fn names_are_of_one_form() {
        assert_eq!(named("Example.COM.:443"), "example.com");
        assert_eq!(named("localhost:1"), "localhost");
        assert_eq!(named("_srv.a-b.x--y.1and1.de:1"), "_srv.a-b.x--y.1and1.de");
        assert_eq!(named("1.2.3.4.in-addr.arpa:1"), "1.2.3.4.in-addr.arpa");
        assert_eq!(named("deadbeef:1"), "deadbeef");
        assert_eq!(named("0xfg:1"), "0xfg");
        let label = "a".repeat(63);
        let longest = format!("{label}.{label}.{label}.{}", &label[..61]);
        assert_eq!(named(&format!("{longest}.:1")), longest);
    }

    #[test]
    fn what_is_no_name_is_refused() {
        let label = "a".repeat(63);
        for name in [
            "",
            ".",
            "..",
            "a..b",
            ".a",
            "a..",
            "-a",
            "a-",
            "a.-b.c",
            "a b",
            "a\nb",
            "a\0b",
            "a@b",
            "a,b",
            "a=b",
            "a%b",
            &format!("{label}a"),
            &format!("{label}.{label}.{label}.{}", &label[..62]),
        ] {
            let text = format!("{name}:443");
            assert!(Rule::parse(&text).is_err(), "{text:?}");
            assert!(Pin::parse(&format!("{name}=192.0.2.1")).is_err(), "{name:?}");
        }
    }

    #[test]
    fn a_wildcard_name_needs_a_proxy() {
        for text in ["*.example.com:443", "udp://*.example.com:443", "ex*mple.com:443", "**:1"] {
            let error = Rule::parse(text).unwrap_err();
            assert!(error.contains("proxy"), "{error}");
        }
        assert!(Pin::parse("*.example.com=192.0.2.1").unwrap_err().contains("proxy"));
        assert!(Pin::parse("*=192.0.2.1").unwrap_err().contains("proxy"));
    }

    #[test]
    fn a_number_that_is_no_address_is_no_name() {
        for text in [
            "127.1",
            "0x7f.1",
            "2130706433",
            "0x7f000001",
            "017700000001",
            "127.0.0.1.",
            "256.0.0.1",
            "1.2.3.4.5",
            "127.0.0.01",
            "0x",
            "a.0x",
            "0X7F.0X1",
            "example.1",
            "00",
        ] {
            let error = Rule::parse(&format!("{text}:80")).unwrap_err();
            assert!(error.contains("a host name or an address"), "{error}");
        }
    }

    #[test]
    fn the_unspecified_address_is_no_destination() {
        for text in ["0.0.0.0:80", "[::]:80", "[::ffff:0.0.0.0]:80", "0.0.0.0/32:80", "[::]/128:80"]
        {
            assert!(Rule::parse(text).unwrap_err().contains("127.0.0.1"), "{text}");
        }
    }

    #[test]
    fn a_bad_rule_says_what_was_expected() {
        for (text, what) in [
            ("", "TARGET:PORTS"),
            ("example.com", "TARGET:PORTS"),
            (":443", "TARGET:PORTS"),
            ("[::1]", "TARGET:PORTS"),
            ("tcp://:1", "TARGET:PORTS"),
            ("https://example.com", "tcp:// or udp://"),
            ("https://example.com:443", "tcp:// or udp://"),
            ("TCP://example.com:1", "tcp:// or udp://"),
            ("tcp://udp://example.com:1", "tcp:// or udp://"),
            ("example.com:", "ports"),
            ("example.com:https", "ports"),
            ("example.com/path:443", "an address"),
            ("example.com/24:443", "an address"),
            ("::1:443", "in [ ]"),
            ("2001:db8::1:443", "in [ ]"),
            ("[fe80::1%eth0]:443", "zone"),
            ("bücher.example:443", "xn--"),
            ("10.1.0.0/8:443", "prefix length"),
        ] {
            let error = Rule::parse(text).unwrap_err();
            assert!(error.starts_with("expected ") && error.contains(what), "{text}: {error}");
        }
    }

    #[test]
    fn a_bind_rule_takes_addresses_alone() {
        let parsed = Bind::parse("0.0.0.0:8080").unwrap();
        assert_eq!(parsed.addresses, Prefix::V4(0, u32::MAX));
        assert_eq!(parsed.ports, Ports::parse("8080").unwrap());
        assert_eq!(Bind::parse("*:*").unwrap().addresses, Prefix::Any);
        assert_eq!(Bind::parse("[::1]:1-9").unwrap().addresses, Prefix::V6(1, u128::MAX));
        for text in ["localhost:80", "tcp://127.0.0.1:80", "127.0.0.1", "127.0.0.1:0", "::1:80"] {
            assert!(Bind::parse(text).unwrap_err().starts_with("expected "), "{text}");
        }
    }

    #[test]
    fn a_pin_is_a_name_and_addresses_in_their_order() {
        let pin = Pin::parse("Example.com.=192.0.2.1,2001:db8::1,[2001:db8::2],::ffff:192.0.2.3");
        let addresses = ["192.0.2.1", "2001:db8::1", "2001:db8::2", "192.0.2.3"];
        assert_eq!(
            pin.unwrap(),
            Pin {
                name: "example.com".into(),
                addresses: addresses.map(|address| address.parse().unwrap()).into(),
            }
        );
        for (text, what) in [
            ("example.com", "NAME=ADDR"),
            ("example.com=", "an address"),
            ("example.com=192.0.2.1,", "an address"),
            ("example.com=[192.0.2.1]", "an address"),
            ("example.com=192.0.2.0/24", "an address"),
            ("example.com=fe80::1%1", "an address"),
            ("example.com=127.1", "an address"),
            ("=192.0.2.1", "a host name"),
        ] {
            assert!(Pin::parse(text).unwrap_err().contains(what), "{text}");
        }
    }
}
