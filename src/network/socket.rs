//! What a socket is to the policy.

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Family {
    V4,
    V6,
}

/// What a socket is, by what it says itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Socket {
    Tcp(Family),
    Udp(Family),
    /// NETLINK_ROUTE.
    Netlink,
    /// One of a connected pair, or inherited: the filters leave no other AF_UNIX socket.
    Unix,
    /// Everything that no rule can name: ICMP echo, MPTCP, raw sockets, ...
    Other,
}

impl Socket {
    /// By SO_DOMAIN, SO_TYPE and SO_PROTOCOL.
    pub fn classify(domain: i32, kind: i32, protocol: i32) -> Self {
        let family = match domain {
            libc::AF_INET => Family::V4,
            libc::AF_INET6 => Family::V6,
            libc::AF_NETLINK if protocol == libc::NETLINK_ROUTE => return Self::Netlink,
            libc::AF_UNIX if matches!(kind, libc::SOCK_STREAM | libc::SOCK_SEQPACKET) => {
                return Self::Unix;
            }
            _ => return Self::Other,
        };
        match (kind, protocol) {
            (libc::SOCK_STREAM, libc::IPPROTO_TCP) => Self::Tcp(family),
            (libc::SOCK_DGRAM, libc::IPPROTO_UDP) => Self::Udp(family),
            _ => Self::Other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Family::{V4, V6};
    use Socket::{Netlink, Other, Tcp, Udp, Unix};

    #[test]
    fn a_socket_is_what_it_says_it_is() {
        for (options, socket) in [
            ((2, 1, 6), Tcp(V4)),
            ((10, 1, 6), Tcp(V6)),
            ((2, 2, 17), Udp(V4)),
            ((10, 2, 17), Udp(V6)),
            ((16, 2, 0), Netlink),
            ((16, 3, 0), Netlink),
            ((1, 1, 0), Unix),
            ((1, 5, 0), Unix),
            ((1, 2, 0), Other),   // a datagram pair
            ((2, 2, 1), Other),   // ICMP echo
            ((10, 2, 58), Other), // ICMPv6 echo
            ((2, 1, 262), Other), // MPTCP
            ((2, 1, 132), Other), // SCTP
            ((2, 1, 256), Other), // SMC
            ((2, 2, 136), Other), // UDP-Lite
            ((2, 3, 6), Other),   // raw
            ((2, 2, 6), Other),
            ((2, 1, 17), Other),
            ((16, 3, 16), Other), // generic netlink
            ((17, 3, 3), Other),  // packets
            ((40, 1, 0), Other),  // vsock
            ((43, 1, 0), Other),  // SMC
            ((0, 0, 0), Other),
        ] {
            let (domain, kind, protocol) = options;
            assert_eq!(Socket::classify(domain, kind, protocol), socket, "{options:?}");
        }
    }
}
