//! The decision about one call: a pure function of the policy, the socket and the address.

use std::net::IpAddr;

use nix::errno::Errno;

use super::address::{Address, Endpoint, Sockaddr};
use super::pins::Destinations;
use super::prefix::Ports;
use super::rule::{Bind, Protocol};
use super::socket::Socket;

/// What the supervisor decides by, frozen before the workload runs.
#[derive(PartialEq, Eq, Debug)]
pub struct Policy {
    pub destinations: Destinations,
    /// `--net-bind`; none: the default.
    pub binds: Option<Vec<Bind>>,
    /// `--connect-tcp` and `--bind-tcp`: the domain does not bind the supervisor.
    pub connect_tcp: Option<Ports>,
    pub bind_tcp: Option<Ports>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Decision {
    /// Make the call on the duplicate, with this address or with none.
    Allow(Option<Sockaddr>),
    Deny(Errno),
}

const DENIED: Decision = Decision::Deny(Errno::EACCES);
/// To other ports and to groups NETLINK_ROUTE sends with CAP_NET_ADMIN alone.
const KERNEL: Address = Address::Netlink { port: 0, groups: 0 };

fn allow_if(allowed: bool, socket: Socket, address: Address) -> Decision {
    if allowed { Decision::Allow(address.encode(socket)) } else { DENIED }
}

impl Policy {
    pub fn connect(&self, socket: Socket, address: Address) -> Decision {
        match (socket, address) {
            (Socket::Tcp(_) | Socket::Udp(_) | Socket::Netlink, Address::Disconnect) => {
                Decision::Allow(address.encode(socket))
            }
            (Socket::Tcp(_) | Socket::Udp(_), Address::Endpoint(endpoint)) => {
                allow_if(self.reaches(socket, endpoint), socket, address)
            }
            (Socket::Netlink, KERNEL) => Decision::Allow(address.encode(socket)),
            (Socket::Netlink, _) => Decision::Deny(Errno::EPERM),
            _ => DENIED,
        }
    }

    /// `flags` are those of the call. An address that is not given, or not read, is
    /// [`Address::Peer`]: connect has decided about it.
    pub fn send(&self, socket: Socket, address: Address, flags: i32) -> Decision {
        match (socket, address) {
            // A connect inside a send; the answer is that of a system without it.
            (Socket::Tcp(_), _) if flags & libc::MSG_FASTOPEN != 0 => {
                Decision::Deny(Errno::EOPNOTSUPP)
            }
            (Socket::Tcp(_) | Socket::Udp(_) | Socket::Unix | Socket::Netlink, Address::Peer) => {
                Decision::Allow(None)
            }
            (Socket::Udp(_), Address::Endpoint(endpoint)) => {
                allow_if(self.reaches(socket, endpoint), socket, address)
            }
            // Without its address, which is where an unconnected socket sends anyway: with one,
            // NETLINK_SKB_DST, the sender's capabilities count and not also the socket's owner's.
            (Socket::Netlink, KERNEL) => Decision::Allow(None),
            (Socket::Netlink, _) => Decision::Deny(Errno::EPERM),
            _ => DENIED,
        }
    }

    /// Ports below `unprivileged` (ip_unprivileged_port_start) are refused: the workload has no
    /// capability, and the supervisor's must not count.
    pub fn bind(&self, socket: Socket, address: Address, unprivileged: u16) -> Decision {
        let endpoint = match (socket, address) {
            (Socket::Netlink, Address::Netlink { .. }) => {
                return Decision::Allow(address.encode(socket));
            }
            (Socket::Tcp(_) | Socket::Udp(_), Address::Endpoint(endpoint)) => endpoint,
            _ => return DENIED,
        };
        let Endpoint { ip, port, .. } = endpoint;
        let is_client = ip.is_unspecified() && port == 0;
        let has_privilege = port == 0 || port >= unprivileged;
        let by_domain = !matches!(socket, Socket::Tcp(_)) || holds(&self.bind_tcp, port);
        let allowed = has_privilege && by_domain && (is_client || self.serves(ip, port));
        allow_if(allowed, socket, address)
    }

    /// `local` is the socket's own address: what getsockname says, decoded as for bind.
    ///
    /// A socket that is not bound but connecting has a local address too, and loses it when it
    /// disconnects: compare the name again after listen, and undo it by AF_UNSPEC if it has changed.
    pub fn listen(&self, socket: Socket, local: Address) -> Decision {
        match (socket, local) {
            (Socket::Tcp(_), Address::Endpoint(Endpoint { ip, port, .. })) => {
                if self.serves(ip, port) { Decision::Allow(None) } else { DENIED }
            }
            _ => DENIED,
        }
    }

    /// The option that would have to allow what was denied, or the sysctl.
    pub fn missed(&self, syscall: &str, socket: Socket, address: &Address) -> &'static str {
        let is_tcp = matches!(socket, Socket::Tcp(_));
        match (syscall, address) {
            ("bind" | "listen", Address::Endpoint(Endpoint { ip, port, .. })) => {
                match (holds(&self.bind_tcp, *port), self.serves(*ip, *port)) {
                    (false, _) if is_tcp => "--bind-tcp",
                    (_, true) => "net.ipv4.ip_unprivileged_port_start",
                    _ => "--net-bind",
                }
            }
            ("bind" | "listen", _) => "--net-bind",
            (_, Address::Endpoint(Endpoint { port, .. }))
                if is_tcp && !holds(&self.connect_tcp, *port) =>
            {
                "--connect-tcp"
            }
            _ => "--net-allow",
        }
    }

    fn reaches(&self, socket: Socket, Endpoint { ip, port, .. }: Endpoint) -> bool {
        let protocol = match socket {
            Socket::Tcp(_) if holds(&self.connect_tcp, port) => Protocol::Tcp,
            Socket::Udp(_) => Protocol::Udp,
            _ => return false,
        };
        self.destinations.allows(protocol, ip, port)
    }

    fn serves(&self, ip: IpAddr, port: u16) -> bool {
        match &self.binds {
            None => ip.is_loopback(),
            Some(binds) => {
                binds.iter().any(|bind| bind.addresses.contains(ip) && bind.ports.contains(port))
            }
        }
    }
}

/// A set that is not given holds every port.
fn holds(ports: &Option<Ports>, port: u16) -> bool {
    ports.as_ref().is_none_or(|ports| ports.contains(port))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::address::LENGTH_V4;
    use crate::network::decode::{Call, decode};
    use crate::network::pins::{Options, freeze};
    use crate::network::rule::{Pin, Rule};
    use crate::network::socket::Family::{V4, V6};
    use Socket::{Netlink, Other, Tcp, Udp, Unix};

    const SOCKETS: [Socket; 7] = [Tcp(V4), Tcp(V6), Udp(V4), Udp(V6), Netlink, Unix, Other];
    const IPS: &str = "0.0.0.0 127.0.0.1 127.0.0.2 10.0.0.1 192.0.2.1 192.0.2.2 169.254.169.254 \
        255.255.255.255 :: ::1 ::127.0.0.1 2001:db8::1 fe80::1 ff02::1";
    const PORTS: [u16; 9] = [0, 1, 53, 80, 443, 1023, 1024, 3128, 65535];

    fn policy(allow: &[&str], bind: Option<&[&str]>) -> Policy {
        let rules = allow.iter().map(|text| Rule::parse(text).unwrap()).collect();
        let pins = [Pin::parse("a.example=192.0.2.1,2001:db8::1").unwrap()];
        let binds = |texts: &[&str]| texts.iter().map(|text| Bind::parse(text).unwrap()).collect();
        Policy {
            destinations: freeze(rules, &pins, &[], Options::default()).unwrap().destinations,
            binds: bind.map(binds),
            connect_tcp: None,
            bind_tcp: None,
        }
    }

    fn endpoint(ip: &str, port: u16) -> Address {
        Address::Endpoint(Endpoint { ip: ip.parse().unwrap(), port, scope: 0 })
    }

    /// What `decide` allows of all addresses and ports above, each acted on as it was decided.
    fn allowed(socket: Socket, decide: impl Fn(Address) -> Decision) -> Vec<String> {
        let mut allowed = Vec::new();
        for (ip, port) in IPS.split(' ').flat_map(|ip| PORTS.map(|port| (ip, port))) {
            let address = endpoint(ip, port);
            match decide(address) {
                Decision::Allow(act) => {
                    assert_eq!(act, address.encode(socket));
                    allowed.push(format!("{ip} {port}"));
                }
                Decision::Deny(errno) => assert_eq!(errno, Errno::EACCES),
            }
        }
        allowed
    }

    #[test]
    fn exactly_the_listed_destinations_are_reached() {
        let policy = policy(
            &["a.example:80,443", "127.0.0.1:3128", "udp://a.example:53", "10.0.0.0/8:*"],
            None,
        );
        for socket in [Tcp(V4), Tcp(V6)] {
            let mut expected = vec!["127.0.0.1 3128".to_owned()];
            expected.extend(PORTS.map(|port| format!("10.0.0.1 {port}")));
            expected.extend(["192.0.2.1 80", "192.0.2.1 443"].map(String::from));
            expected.extend(["2001:db8::1 80", "2001:db8::1 443"].map(String::from));
            assert_eq!(allowed(socket, |address| policy.connect(socket, address)), expected);
        }
        for socket in [Udp(V4), Udp(V6)] {
            let expected = ["192.0.2.1 53", "2001:db8::1 53"];
            assert_eq!(allowed(socket, |address| policy.connect(socket, address)), expected);
            assert_eq!(allowed(socket, |address| policy.send(socket, address, 0)), expected);
        }
    }

    #[test]
    fn a_denial_names_the_option_that_would_allow_it() {
        let ports = |ports: &[u16]| Some(Ports::of(ports));
        let (connect_tcp, bind_tcp) = (ports(&[80]), ports(&[80, 8080]));
        let policy = Policy { connect_tcp, bind_tcp, ..policy(&["127.0.0.1:*"], None) };
        for (call, socket, ip, port, option) in [
            ("connect", Tcp(V4), "127.0.0.1", 443, "--connect-tcp"),
            ("connect", Tcp(V4), "127.0.0.2", 80, "--net-allow"),
            ("sendto", Udp(V4), "127.0.0.1", 443, "--net-allow"),
            ("bind", Tcp(V4), "127.0.0.1", 7000, "--bind-tcp"),
            ("bind", Udp(V4), "0.0.0.0", 7000, "--net-bind"),
            ("listen", Tcp(V6), "::", 8080, "--net-bind"),
            ("bind", Tcp(V4), "127.0.0.1", 80, "net.ipv4.ip_unprivileged_port_start"),
        ] {
            assert_eq!(
                policy.missed(call, socket, &endpoint(ip, port)),
                option,
                "{call} {ip}:{port}"
            );
        }
        assert_eq!(policy.missed("connect", Netlink, &KERNEL), "--net-allow");
        assert_eq!(policy.missed("bind", Unix, &Address::Disconnect), "--net-bind");
    }

    #[test]
    fn no_rule_reaches_nothing() {
        let policy = policy(&[], None);
        for socket in SOCKETS {
            let nothing: [&str; 0] = [];
            if socket != Netlink {
                assert_eq!(allowed(socket, |address| policy.connect(socket, address)), nothing);
                assert_eq!(allowed(socket, |address| policy.send(socket, address, 0)), nothing);
            }
        }
    }

    #[test]
    fn every_address_is_every_address() {
        let policy = policy(&["*:*"], None);
        for socket in [Tcp(V4), Tcp(V6)] {
            let all = allowed(socket, |address| policy.connect(socket, address));
            assert_eq!(all.len(), IPS.split(' ').count() * PORTS.len());
            assert_eq!(policy.connect(Udp(V4), endpoint("192.0.2.1", 53)), DENIED);
        }
    }

    #[test]
    fn a_loopback_proxy_is_that_address_under_every_spelling_and_no_other() {
        let policy = policy(&["127.0.0.1:3128"], None);
        let connect = |socket, ip: &str| {
            let address: IpAddr = ip.parse().unwrap();
            let bytes = match address {
                IpAddr::V4(ip) => [&[2, 0, 0x0c, 0x38][..], &ip.octets(), &[0; 8]].concat(),
                IpAddr::V6(ip) => {
                    [&[10, 0, 0x0c, 0x38, 0, 0, 0, 0][..], &ip.octets(), &[0; 4]].concat()
                }
            };
            policy.connect(socket, decode(Call::Connect, socket, &bytes).unwrap())
        };
        for (socket, ip) in [
            (Tcp(V4), "127.0.0.1"),
            (Tcp(V4), "0.0.0.0"),
            (Tcp(V6), "::ffff:127.0.0.1"),
            (Tcp(V6), "::ffff:0.0.0.0"),
        ] {
            assert_eq!(
                connect(socket, ip),
                Decision::Allow(endpoint("127.0.0.1", 3128).encode(socket))
            );
        }
        for (socket, ip) in [
            (Tcp(V4), "127.0.0.2"),
            (Tcp(V6), "::1"),
            (Tcp(V6), "::"),
            (Tcp(V6), "::127.0.0.1"),
            (Tcp(V6), "::ffff:0:127.0.0.1"),
            (Tcp(V6), "64:ff9b::127.0.0.1"),
            (Udp(V4), "127.0.0.1"),
            (Udp(V6), "::ffff:127.0.0.1"),
        ] {
            assert_eq!(connect(socket, ip), DENIED, "{socket:?} {ip}");
        }
    }

    #[test]
    fn a_client_disconnects_without_a_rule() {
        let policy = policy(&[], None);
        for socket in [Tcp(V4), Tcp(V6), Udp(V4), Udp(V6), Netlink] {
            let Decision::Allow(Some(act)) = policy.connect(socket, Address::Disconnect) else {
                panic!("{socket:?}");
            };
            assert_eq!(act.bytes(), [0; LENGTH_V4]);
        }
        assert_eq!(policy.connect(Unix, Address::Disconnect), DENIED);
        assert_eq!(policy.connect(Other, Address::Disconnect), DENIED);
    }

    #[test]
    fn a_connected_socket_sends_and_fast_open_does_not() {
        let policy = policy(&["*:*", "udp://*:*"], None);
        for socket in [Tcp(V4), Tcp(V6), Udp(V4), Udp(V6), Unix, Netlink] {
            assert_eq!(policy.send(socket, Address::Peer, libc::MSG_MORE), Decision::Allow(None));
        }
        assert_eq!(policy.send(Other, Address::Peer, 0), DENIED);
        for socket in [Tcp(V4), Tcp(V6)] {
            let fast = policy.send(socket, Address::Peer, libc::MSG_FASTOPEN | libc::MSG_MORE);
            assert_eq!(fast, Decision::Deny(Errno::EOPNOTSUPP));
        }
    }

    #[test]
    fn by_default_loopback_is_bound_and_any_address_without_a_port() {
        let policy = policy(&["*:*"], None);
        let mut expected = vec!["0.0.0.0 0".to_owned()];
        for ip in ["127.0.0.1", "127.0.0.2"] {
            expected.extend([0, 1024, 3128, 65535].map(|port| format!("{ip} {port}")));
        }
        expected.push(":: 0".into());
        expected.extend([0, 1024, 3128, 65535].map(|port| format!("::1 {port}")));
        for socket in [Tcp(V4), Tcp(V6), Udp(V4), Udp(V6)] {
            assert_eq!(allowed(socket, |address| policy.bind(socket, address, 1024)), expected);
        }
    }

    #[test]
    fn with_net_bind_what_is_listed_is_bound() {
        let policy = policy(&[], Some(&["0.0.0.0:3128", "10.0.0.0/8:80,1024", "[::1]:*"]));
        let expected = [
            "0.0.0.0 0",
            "0.0.0.0 3128",
            "10.0.0.1 1024",
            ":: 0",
            "::1 0",
            "::1 1024",
            "::1 3128",
            "::1 65535",
        ];
        for socket in [Tcp(V4), Tcp(V6), Udp(V4), Udp(V6)] {
            assert_eq!(allowed(socket, |address| policy.bind(socket, address, 1024)), expected);
        }
    }

    #[test]
    fn a_privileged_port_is_none_of_the_workloads() {
        let policy = policy(&[], Some(&["*:*"]));
        for (limit, port, is_allowed) in [
            (1024, 1023, false),
            (1024, 1024, true),
            (1024, 0, true),
            (1024, 1, false),
            (0, 1, true),
            (80, 80, true),
            (80, 79, false),
            (u16::MAX, 65534, false),
        ] {
            let decision = policy.bind(Tcp(V4), endpoint("127.0.0.1", port), limit);
            assert_eq!(decision != DENIED, is_allowed, "{limit} {port}");
        }
    }

    #[test]
    fn what_listens_is_bound_to_what_may_be_served() {
        let listens =
            |policy: &Policy, socket, ip, port| match policy.listen(socket, endpoint(ip, port)) {
                Decision::Allow(act) => {
                    assert_eq!(act, None);
                    true
                }
                decision => decision != DENIED,
            };
        let default = policy(&["*:*"], None);
        let listed = policy(&["*:*"], Some(&["0.0.0.0:8080", "127.0.0.1:80"]));
        for socket in [Tcp(V4), Tcp(V6)] {
            assert!(listens(&default, socket, "127.0.0.1", 40000));
            assert!(listens(&default, socket, "127.1.2.3", 80));
            assert!(listens(&default, socket, "::1", 40000));
            assert!(!listens(&default, socket, "0.0.0.0", 0));
            assert!(!listens(&default, socket, "0.0.0.0", 40000));
            assert!(!listens(&default, socket, "::", 0));
            assert!(!listens(&default, socket, "192.0.2.1", 40000));
            assert!(listens(&listed, socket, "0.0.0.0", 8080));
            assert!(listens(&listed, socket, "127.0.0.1", 80));
            assert!(!listens(&listed, socket, "0.0.0.0", 0));
            assert!(!listens(&listed, socket, "::", 8080));
            assert!(!listens(&listed, socket, "127.0.0.1", 40000));
        }
        let local = endpoint("127.0.0.1", 40000);
        assert_eq!(default.listen(Unix, local), DENIED);
        assert_eq!(default.listen(Other, local), DENIED);
    }

    #[test]
    fn the_domains_ports_hold_for_tcp() {
        let mut policy = policy(&["*:*", "udp://*:*"], Some(&["*:*"]));
        policy.connect_tcp = Some(Ports::parse("443").unwrap());
        policy.bind_tcp = Some(Ports::parse("8000-8010").unwrap());
        for (port, connects, binds) in
            [(443, true, false), (80, false, false), (8005, false, true), (0, false, false)]
        {
            let address = endpoint("192.0.2.1", port);
            assert_eq!(policy.connect(Tcp(V4), address) != DENIED, connects, "{port}");
            assert_eq!(policy.bind(Tcp(V4), address, 0) != DENIED, binds, "{port}");
            assert_ne!(policy.connect(Udp(V4), address), DENIED);
            assert_ne!(policy.bind(Udp(V4), address, 0), DENIED);
        }
    }

    #[test]
    fn netlink_talks_to_the_kernel_alone() {
        let policy = policy(&[], None);
        let act = KERNEL.encode(Netlink);
        assert_eq!(policy.connect(Netlink, KERNEL), Decision::Allow(act));
        assert_eq!(policy.send(Netlink, KERNEL, 0), Decision::Allow(None));
        for (port, groups) in [(1, 0), (0, 1), (7, 7)] {
            let address = Address::Netlink { port, groups };
            assert_eq!(policy.connect(Netlink, address), Decision::Deny(Errno::EPERM));
            assert_eq!(policy.send(Netlink, address, 0), Decision::Deny(Errno::EPERM));
            let act = address.encode(Netlink);
            assert_eq!(policy.bind(Netlink, address, 1024), Decision::Allow(act));
        }
    }

    #[test]
    fn what_is_unknown_or_of_another_kind_is_denied() {
        let policy = policy(&["*:*", "udp://*:*"], Some(&["*:*"]));
        let some = endpoint("127.0.0.1", 40000);
        for address in [some, KERNEL, Address::Disconnect, Address::Peer] {
            assert_eq!(policy.connect(Other, address), DENIED);
            assert_eq!(policy.bind(Other, address, 0), DENIED);
            assert_eq!(policy.send(Other, address, 0), DENIED);
            assert_eq!(policy.connect(Unix, address), DENIED);
            assert_eq!(policy.bind(Unix, address, 0), DENIED);
        }
        for address in [KERNEL, Address::Peer] {
            for socket in [Tcp(V4), Udp(V6)] {
                assert_eq!(policy.connect(socket, address), DENIED);
                assert_eq!(policy.bind(socket, address, 0), DENIED);
                assert_eq!(policy.listen(Tcp(V4), address), DENIED);
            }
        }
        assert_eq!(policy.bind(Tcp(V4), Address::Disconnect, 0), DENIED);
        assert_eq!(policy.bind(Netlink, some, 0), DENIED);
        assert_eq!(policy.send(Udp(V4), KERNEL, 0), DENIED);
        assert_eq!(policy.send(Tcp(V4), some, 0), DENIED);
    }
}
