//! The frozen set: rules and what their names meant at the start make the list of destinations.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::class::{Class, class};
use super::prefix::{Ports, Prefix};
use super::rule::{Pin, Protocol, Rule, Target};

/// What a name was resolved to, or why it was not.
pub type Answer = (String, Result<Vec<IpAddr>, String>);

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Options {
    /// `--dns-private`: names may mean private addresses.
    pub private: bool,
    /// `--dns-optional`: names may mean nothing.
    pub optional: bool,
}

#[derive(PartialEq, Eq, Debug)]
pub struct Pins {
    /// Each name once, with its addresses in the order they came in.
    pub names: Vec<(String, Vec<IpAddr>)>,
    /// Names that mean nothing, and why.
    pub unresolved: Vec<(String, String)>,
    pub destinations: Destinations,
}

/// What may be reached.
#[derive(PartialEq, Eq, Debug)]
pub struct Destinations {
    rules: Vec<Rule>,
    /// Addresses, and the number of the rule that gave them.
    entries: Vec<(Prefix, usize)>,
}

impl Destinations {
    /// `ip` is canonical.
    pub fn allows(&self, protocol: Protocol, ip: IpAddr, port: u16) -> bool {
        self.entries.iter().any(|(prefix, rule)| {
            let rule = &self.rules[*rule];
            rule.protocol == protocol && prefix.contains(ip) && rule.ports.contains(port)
        })
    }

    /// The addresses of a protocol, with their ports.
    pub fn of(&self, protocol: Protocol) -> impl Iterator<Item = (Prefix, &Ports)> {
        let entries = self.entries.iter().map(|(prefix, rule)| (*prefix, &self.rules[*rule]));
        entries.filter(move |(_, rule)| rule.protocol == protocol).map(|(p, rule)| (p, &rule.ports))
    }
}

/// RFC 6761: `localhost`, and what ends in it, is loopback and not to be asked for.
fn is_loopback(name: &str) -> bool {
    name.strip_suffix("localhost").is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

/// What is wrong with a pin.
pub fn check(rules: &[Rule], pins: &[Pin]) -> Result<(), String> {
    for Pin { name, .. } in pins {
        if is_loopback(name) {
            return Err(format!("{name} is loopback by definition"));
        }
        if !rules.iter().any(|rule| matches!(&rule.target, Target::Name(own) if own == name)) {
            return Err(format!("{name} is in no --net-allow"));
        }
    }
    Ok(())
}

/// The names to resolve, each once.
pub fn wanted<'a>(rules: &'a [Rule], pins: &[Pin]) -> Vec<&'a str> {
    let mut names = Vec::new();
    for rule in rules {
        if let Target::Name(name) = &rule.target
            && !names.contains(&name.as_str())
        {
            names.push(name.as_str());
        }
    }
    names.retain(|name| !is_loopback(name) && pins.iter().all(|pin| pin.name != *name));
    names
}

/// Freezes what the names mean; `answers` are to what is [`wanted`].
pub fn freeze(
    rules: Vec<Rule>,
    pins: &[Pin],
    answers: &[Answer],
    options: Options,
) -> Result<Pins, String> {
    let mut names: Vec<(String, Vec<IpAddr>)> = Vec::new();
    let mut unresolved = Vec::new();
    let mut entries = Vec::new();
    for (number, rule) in rules.iter().enumerate() {
        let name = match &rule.target {
            Target::Addresses(prefix) => {
                entries.push((*prefix, number));
                continue;
            }
            Target::Name(name) => name,
        };
        let addresses = match meaning(name, pins, answers) {
            Ok(addresses) => addresses,
            Err(reason) => {
                if unresolved.iter().all(|(known, _)| known != name) {
                    unresolved.push((name.clone(), reason));
                }
                continue;
            }
        };
        for address in &addresses {
            let class = class(*address);
            let expected = class == Class::Public
                || class == Class::Private && options.private
                || class == Class::Loopback && is_loopback(name);
            if expected {
                entries.push(((*address).into(), number));
            } else if !allowed_itself(&rules, rule, *address) {
                return Err(refusal(name, *address, class));
            }
        }
        if names.iter().all(|(known, _)| known != name) {
            names.push((name.clone(), addresses));
        }
    }
    if !unresolved.is_empty() && !options.optional {
        let each: Vec<_> = unresolved.iter().map(|(name, why)| format!("{name}: {why}")).collect();
        return Err(each.join("; "));
    }
    Ok(Pins { names, unresolved, destinations: Destinations { rules, entries } })
}

/// The addresses of a name: at least one, canonical, each once, in order. A pin wins over DNS.
fn meaning(name: &str, pins: &[Pin], answers: &[Answer]) -> Result<Vec<IpAddr>, String> {
    if is_loopback(name) {
        return Ok(vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]);
    }
    let pinned = pins.iter().filter(|pin| pin.name == name).flat_map(|pin| &pin.addresses);
    let mut found: Vec<_> = pinned.copied().collect();
    if found.is_empty() {
        let answer = answers.iter().find(|answer| answer.0 == name);
        found = answer.map_or_else(|| Err("was not resolved".into()), |answer| answer.1.clone())?;
    }
    let mut addresses = Vec::with_capacity(found.len());
    for address in found {
        let address = address.to_canonical();
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    if addresses.is_empty() { Err("has no address".into()) } else { Ok(addresses) }
}

/// Whether rules that name addresses allow all that `rule` would allow for this one.
fn allowed_itself(rules: &[Rule], rule: &Rule, address: IpAddr) -> bool {
    let own = |own: &Rule| {
        own.protocol == rule.protocol
            && matches!(&own.target, Target::Addresses(prefix) if prefix.contains(address))
    };
    let own: Vec<_> = rules.iter().filter(|rule| own(rule)).collect();
    rule.ports.iter().all(|port| own.iter().any(|rule| rule.ports.contains(port)))
}

fn refusal(name: &str, address: IpAddr, class: Class) -> String {
    let or = if class == Class::Private { " or --dns-private" } else { "" };
    let class = class.name();
    format!("{name} is {address}, a {class} address: allow that with a rule of its own{or}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use Protocol::{Tcp, Udp};

    fn rules(texts: &[&str]) -> Vec<Rule> {
        texts.iter().map(|text| Rule::parse(text).unwrap()).collect()
    }

    fn pins(texts: &[&str]) -> Vec<Pin> {
        texts.iter().map(|text| Pin::parse(text).unwrap()).collect()
    }

    fn ips(texts: &[&str]) -> Vec<IpAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn answer(name: &str, addresses: &[&str]) -> Answer {
        (name.into(), Ok(ips(addresses)))
    }

    const STRICT: Options = Options { private: false, optional: false };
    const PRIVATE: Options = Options { private: true, optional: false };
    const OPTIONAL: Options = Options { private: false, optional: true };

    fn freeze_one(texts: &[&str], addresses: &[&str], options: Options) -> Result<Pins, String> {
        freeze(rules(texts), &[], &[answer("a.example", addresses)], options)
    }

    fn allowed(pins: &Pins, protocol: Protocol, ip: &str, port: u16) -> bool {
        pins.destinations.allows(protocol, ip.parse().unwrap(), port)
    }

    #[test]
    fn a_name_means_all_its_addresses_and_nothing_beside_them() {
        let pins =
            freeze_one(&["a.example:443"], &["192.0.2.1", "2001:db8::1", "192.0.2.1"], STRICT)
                .unwrap();
        assert_eq!(pins.names, [("a.example".into(), ips(&["192.0.2.1", "2001:db8::1"]))]);
        assert!(allowed(&pins, Tcp, "192.0.2.1", 443));
        assert!(allowed(&pins, Tcp, "2001:db8::1", 443));
        assert!(!allowed(&pins, Tcp, "192.0.2.2", 443));
        assert!(!allowed(&pins, Tcp, "2001:db8::2", 443));
        assert!(!allowed(&pins, Tcp, "192.0.2.1", 444));
        assert!(!allowed(&pins, Udp, "192.0.2.1", 443));
    }

    #[test]
    fn a_mapped_address_is_the_ipv4_address() {
        let mapped = ["::ffff:192.0.2.1", "192.0.2.1"];
        let pins = freeze_one(&["a.example:443"], &mapped, STRICT).unwrap();
        assert_eq!(pins.names, [("a.example".into(), ips(&["192.0.2.1"]))]);
        assert!(allowed(&pins, Tcp, "192.0.2.1", 443));
    }

    #[test]
    fn the_rule_that_allows_is_known() {
        let texts = ["10.0.0.0/8:80", "udp://a.example:53", "a.example:443", "[2001:db8::]/32:*"];
        let pins = freeze_one(&texts, &["192.0.2.1"], STRICT).unwrap();
        assert!(allowed(&pins, Tcp, "10.9.9.9", 80));
        assert!(allowed(&pins, Udp, "192.0.2.1", 53));
        assert!(allowed(&pins, Tcp, "192.0.2.1", 443));
        assert!(allowed(&pins, Tcp, "2001:db8:1::1", 9));
        assert!(!allowed(&pins, Tcp, "192.0.2.1", 53));
        assert!(!allowed(&pins, Udp, "10.9.9.9", 80));
        let udp: Vec<_> = pins.destinations.of(Udp).collect();
        assert_eq!(udp, [(Prefix::parse("192.0.2.1").unwrap(), &Ports::parse("53").unwrap())]);
    }

    #[test]
    fn a_surprising_address_is_refused() {
        for address in [
            "127.0.0.1",
            "::1",
            "::ffff:127.0.0.1",
            "0.0.0.0",
            "::",
            "10.0.0.1",
            "100.64.0.1",
            "192.168.1.1",
            "169.254.1.1",
            "169.254.169.254",
            "fd00:ec2::254",
            "fd00::1",
            "fe80::1",
            "224.0.0.1",
            "ff02::1",
            "255.255.255.255",
            "64:ff9b::7f00:1",
            "2002:7f00:1::",
        ] {
            let error = freeze_one(&["a.example:80"], &["192.0.2.1", address], STRICT).unwrap_err();
            assert!(error.contains("a.example is ") && error.contains("own"), "{error}");
            let optional = freeze_one(&["a.example:80"], &[address], OPTIONAL);
            assert_eq!(optional, freeze_one(&["a.example:80"], &[address], STRICT));
        }
    }

    #[test]
    fn private_addresses_alone_are_opened_by_the_option() {
        for (address, is_private) in [
            ("10.0.0.1", true),
            ("172.16.0.1", true),
            ("192.168.1.1", true),
            ("100.64.0.1", true),
            ("fd00::1", true),
            ("64:ff9b::a00:1", true),
            ("127.0.0.1", false),
            ("169.254.169.254", false),
            ("100.100.100.200", false),
            ("fd00:ec2::254", false),
            ("fe80::1", false),
            ("0.0.0.0", false),
            ("64:ff9b::a9fe:a9fe", false),
        ] {
            let strict = freeze_one(&["a.example:80"], &[address], STRICT).unwrap_err();
            assert_eq!(strict.contains("--dns-private"), is_private, "{strict}");
            let pins = freeze_one(&["a.example:80"], &[address], PRIVATE);
            assert_eq!(pins.is_ok(), is_private, "{address}");
            if let Ok(pins) = pins {
                assert!(allowed(&pins, Tcp, address, 80));
                assert!(!allowed(&pins, Tcp, address, 81));
            }
        }
    }

    #[test]
    fn a_rule_of_its_own_opens_an_address_and_what_it_says_alone() {
        for own in ["127.0.0.1:80", "127.0.0.0/8:1-100", "0.0.0.0/0:80", "*:*"] {
            let pins = freeze_one(&["a.example:80", own], &["127.0.0.1"], STRICT).unwrap();
            assert_eq!(pins.names, [("a.example".into(), ips(&["127.0.0.1"]))]);
            assert!(allowed(&pins, Tcp, "127.0.0.1", 80), "{own}");
        }
        for texts in [
            &["a.example:80", "127.0.0.1:3128"][..],
            &["a.example:80,81", "127.0.0.1:80"],
            &["a.example:*", "127.0.0.1:1-65535"],
            &["a.example:80", "udp://127.0.0.1:80"],
            &["udp://a.example:80", "127.0.0.1:80"],
            &["a.example:80", "127.0.0.2:80"],
            &["a.example:80", "[::]/0:80"],
            &["a.example:80", "localhost:80"],
        ] {
            assert!(freeze_one(texts, &["127.0.0.1"], STRICT).is_err(), "{texts:?}");
        }
        let split = ["a.example:80,81", "127.0.0.1:80", "127.0.0.0/24:81"];
        assert!(freeze_one(&split, &["127.0.0.1"], STRICT).is_ok());
    }

    #[test]
    fn localhost_is_loopback_by_definition() {
        let texts = ["localhost:3000", "udp://app.localhost:53"];
        assert!(wanted(&rules(&texts), &[]).is_empty());
        let lie = [answer("localhost", &["192.0.2.1"])];
        let frozen = freeze(rules(&texts), &[], &lie, STRICT).unwrap();
        assert!(allowed(&frozen, Tcp, "127.0.0.1", 3000));
        assert!(allowed(&frozen, Tcp, "::1", 3000));
        assert!(allowed(&frozen, Udp, "127.0.0.1", 53));
        assert!(!allowed(&frozen, Tcp, "192.0.2.1", 3000));
        assert!(!allowed(&frozen, Tcp, "127.0.0.2", 3000));
        assert_eq!(frozen.names[0], ("localhost".into(), ips(&["127.0.0.1", "::1"])));
        assert_eq!(frozen.names[1], ("app.localhost".into(), ips(&["127.0.0.1", "::1"])));
        assert!(check(&rules(&texts), &pins(&["localhost=192.0.2.1"])).is_err());
        assert_eq!(wanted(&rules(&["notlocalhost:1"]), &[]), vec!["notlocalhost"]);
    }

    #[test]
    fn a_pin_wins_over_dns_and_surprises_alike() {
        let texts = rules(&["a.example:443", "b.example:443", "a.example:80", "127.0.0.1:1"]);
        let pinned = pins(&["a.example=192.0.2.1", "a.example=2001:db8::1,192.0.2.1"]);
        assert_eq!(wanted(&texts, &pinned), vec!["b.example"]);
        let answers = [answer("a.example", &["192.0.2.9"]), answer("b.example", &["192.0.2.2"])];
        let frozen = freeze(texts.clone(), &pinned, &answers, STRICT).unwrap();
        assert_eq!(frozen.names[0], ("a.example".into(), ips(&["192.0.2.1", "2001:db8::1"])));
        assert_eq!(frozen.names[1], ("b.example".into(), ips(&["192.0.2.2"])));
        assert_eq!(frozen.names.len(), 2);
        assert!(allowed(&frozen, Tcp, "192.0.2.1", 443));
        assert!(allowed(&frozen, Tcp, "192.0.2.1", 80));
        assert!(!allowed(&frozen, Tcp, "192.0.2.9", 443));
        let private = pins(&["a.example=10.0.0.1", "b.example=192.0.2.2"]);
        assert!(freeze(texts.clone(), &private, &[], STRICT).is_err());
        assert!(freeze(texts, &private, &[], PRIVATE).is_ok());
    }

    #[test]
    fn a_pin_that_no_rule_uses_is_an_error() {
        let rules = rules(&["a.example:443"]);
        let error = check(&rules, &pins(&["b.example=192.0.2.1"]));
        assert_eq!(error, Err("b.example is in no --net-allow".into()));
    }

    #[test]
    fn a_name_without_an_address_is_fatal_unless_optional() {
        let texts =
            ["a.example:443", "b.example:443", "c.example:443", "d.example:1", "a.example:1"];
        let answers = [
            ("a.example".into(), Err("no such host".into())),
            answer("b.example", &[]),
            answer("c.example", &["192.0.2.1"]),
        ];
        let error = freeze(rules(&texts), &[], &answers, STRICT).unwrap_err();
        assert_eq!(
            error,
            "a.example: no such host; b.example: has no address; d.example: was not resolved"
        );
        let frozen = freeze(rules(&texts), &[], &answers, OPTIONAL).unwrap();
        let unresolved: Vec<_> = frozen.unresolved.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(unresolved, ["a.example", "b.example", "d.example"]);
        assert_eq!(frozen.names, [("c.example".into(), ips(&["192.0.2.1"]))]);
        assert!(allowed(&frozen, Tcp, "192.0.2.1", 443));
    }

    #[test]
    fn each_name_is_wanted_once() {
        let texts = rules(&["a.example:1", "udp://A.example.:2", "b.example:3", "192.0.2.1:4"]);
        assert_eq!(wanted(&texts, &[]), vec!["a.example", "b.example"]);
    }

    #[test]
    fn no_rule_allows_nothing() {
        let frozen = freeze(vec![], &[], &[], STRICT).unwrap();
        assert!(!allowed(&frozen, Tcp, "127.0.0.1", 80));
        assert!(!allowed(&frozen, Udp, "::1", 53));
    }
}
