//! The one form of an address, and its bytes as we make them.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use super::socket::{Family, Socket};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Endpoint {
    /// Never a mapped one; the unspecified address only where one is bound.
    pub ip: IpAddr,
    pub port: u16,
    /// The interface, for the addresses of which each link has its own; else 0.
    pub scope: u32,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Address {
    Endpoint(Endpoint),
    /// connect with AF_UNSPEC.
    Disconnect,
    /// A send without an address, or with one that the kernel does not read: to where the socket
    /// is connected.
    Peer,
    Netlink {
        port: u32,
        groups: u32,
    },
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Self::Endpoint(Endpoint { ip, port, scope: 0 }) => {
                write!(f, "{}", SocketAddr::new(*ip, *port))
            }
            Self::Endpoint(Endpoint { ip, port, scope }) => write!(f, "[{ip}%{scope}]:{port}"),
            Self::Netlink { port, groups } => write!(f, "netlink:{port}:{groups:#x}"),
            Self::Disconnect | Self::Peer => f.write_str("none"),
        }
    }
}

/// `sizeof(struct sockaddr_in)`.
pub const LENGTH_V4: usize = 16;
/// `sizeof(struct sockaddr_in6)`.
const LENGTH_V6: usize = 28;
/// `sizeof(struct sockaddr_nl)`.
pub const LENGTH_NETLINK: usize = 12;

/// The bytes of an address, made here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Sockaddr {
    bytes: [u8; LENGTH_V6],
    length: usize,
}

impl Sockaddr {
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }

    fn new(family: i32, length: usize) -> Self {
        let mut bytes = [0; LENGTH_V6];
        bytes[..2].copy_from_slice(&(family as u16).to_ne_bytes());
        Self { bytes, length }
    }

    fn put(mut self, offset: usize, field: &[u8]) -> Self {
        self.bytes[offset..offset + field.len()].copy_from_slice(field);
        self
    }
}

impl Address {
    /// The address in the form that this socket takes; none for [`Address::Peer`].
    pub fn encode(self, socket: Socket) -> Option<Sockaddr> {
        Some(match self {
            Self::Peer => return None,
            Self::Disconnect => Sockaddr::new(libc::AF_UNSPEC, LENGTH_V4),
            Self::Netlink { port, groups } => Sockaddr::new(libc::AF_NETLINK, LENGTH_NETLINK)
                .put(4, &port.to_ne_bytes())
                .put(8, &groups.to_ne_bytes()),
            Self::Endpoint(Endpoint { ip, port, scope }) => match (ip, socket) {
                (IpAddr::V4(ip), Socket::Tcp(Family::V4) | Socket::Udp(Family::V4)) => {
                    Sockaddr::new(libc::AF_INET, LENGTH_V4).put(4, &ip.octets())
                }
                (ip, _) => {
                    let ip = match ip {
                        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
                        IpAddr::V6(ip) => ip,
                    };
                    Sockaddr::new(libc::AF_INET6, LENGTH_V6)
                        .put(8, &ip.octets())
                        .put(24, &scope.to_ne_bytes())
                }
            }
            .put(2, &port.to_be_bytes()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Family::{V4, V6};
    use Socket::{Netlink, Tcp, Udp};

    fn bytes(address: Address, socket: Socket) -> Vec<u8> {
        address.encode(socket).unwrap().bytes().to_vec()
    }

    fn endpoint(ip: &str, port: u16, scope: u32) -> Address {
        Address::Endpoint(Endpoint { ip: ip.parse().unwrap(), port, scope })
    }

    #[test]
    fn an_ipv4_address_has_the_form_of_the_socket() {
        let address = endpoint("192.0.2.1", 0x1234, 0);
        for socket in [Tcp(V4), Udp(V4)] {
            let expected = [2, 0, 0x12, 0x34, 192, 0, 2, 1, 0, 0, 0, 0, 0, 0, 0, 0];
            assert_eq!(bytes(address, socket), expected);
        }
        for socket in [Tcp(V6), Udp(V6)] {
            let mapped = bytes(address, socket);
            assert_eq!(mapped[..8], [10, 0, 0x12, 0x34, 0, 0, 0, 0]);
            assert_eq!(mapped[8..24], [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255, 192, 0, 2, 1]);
            assert_eq!(mapped[24..], [0; 4]);
        }
    }

    #[test]
    fn an_ipv6_address_has_its_scope_and_no_flow_label() {
        let made = bytes(endpoint("fe80::1", 0x1234, 0x0403_0201), Tcp(V6));
        assert_eq!(made[..8], [10, 0, 0x12, 0x34, 0, 0, 0, 0]);
        assert_eq!(made[8..24], [0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
        assert_eq!(made[24..], [1, 2, 3, 4]);
    }

    #[test]
    fn an_ipv6_address_on_an_ipv4_socket_is_left_to_the_kernel_to_refuse() {
        assert_eq!(bytes(endpoint("::1", 1, 0), Tcp(V4))[..2], [10, 0]);
    }

    #[test]
    fn the_rest_has_its_own_form() {
        assert_eq!(bytes(Address::Disconnect, Tcp(V6)), [0; 16]);
        assert_eq!(Address::Peer.encode(Udp(V6)), None);
        let netlink = Address::Netlink { port: 7, groups: 0x0403_0201 };
        assert_eq!(bytes(netlink, Netlink), [16, 0, 0, 0, 7, 0, 0, 0, 1, 2, 3, 4]);
    }
}
