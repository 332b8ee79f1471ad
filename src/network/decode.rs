//! What the bytes of an address mean to the kernel.
//!
//! Which of them count is decided per socket and call as in Linux' inet_bind, inet6_bind,
//! inet_stream_connect, inet_dgram_connect, udp_sendmsg, udpv6_sendmsg and netlink's; the errors
//! are theirs too. What they do not know is denied.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use nix::errno::Errno;

use super::address::{Address, Endpoint, LENGTH_NETLINK, LENGTH_V4};
use super::socket::{Family, Socket};

/// `sizeof(struct sockaddr_storage)`: the kernel reads no address longer than this.
pub const LONGEST: usize = 128;
/// A `struct sockaddr_in6` up to its scope: SIN6_LEN_RFC2133.
const SHORTEST_V6: usize = 24;

/// The length in a register of connect, bind or sendto: an `int`.
pub fn length(register: u64) -> Result<usize, Errno> {
    let length = usize::try_from(register as i32).ok();
    length.filter(|length| *length <= LONGEST).ok_or(Errno::EINVAL)
}

/// The `msg_namelen` of sendmsg and sendmmsg, of which the kernel cuts off what is too long.
/// Zero, or a null `msg_name`, is [`Address::Peer`].
pub fn message_length(field: i32) -> Result<usize, Errno> {
    usize::try_from(field).map(|length| length.min(LONGEST)).map_err(|_| Errno::EINVAL)
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Call {
    Connect,
    Bind,
    Send,
}

/// What the address of a call on this socket means; `bytes` is as long as the caller says.
pub fn decode(call: Call, socket: Socket, bytes: &[u8]) -> Result<Address, Errno> {
    if bytes.len() > LONGEST {
        return Err(Errno::EINVAL);
    }
    match socket {
        // tcp_sendmsg reads an address only with MSG_FASTOPEN.
        Socket::Tcp(_) if call == Call::Send => Ok(Address::Peer),
        Socket::Tcp(own) => internet(call, own, false, bytes),
        Socket::Udp(own) => internet(call, own, true, bytes),
        Socket::Netlink => netlink(call, bytes),
        Socket::Unix if call == Call::Send => Err(Errno::EISCONN),
        Socket::Unix | Socket::Other => Err(Errno::EACCES),
    }
}

fn internet(call: Call, own: Family, datagram: bool, bytes: &[u8]) -> Result<Address, Errno> {
    let family = family(bytes)?;
    if family == libc::AF_UNSPEC {
        match (call, own) {
            (Call::Connect, _) => return Ok(Address::Disconnect),
            (Call::Send, Family::V6) => return Ok(Address::Peer),
            _ => {}
        }
    }
    let endpoint = match own {
        Family::V4 => {
            let endpoint = v4(bytes)?;
            match (family, call) {
                (libc::AF_INET, _) | (libc::AF_UNSPEC, Call::Send) => endpoint,
                (libc::AF_UNSPEC, Call::Bind) if endpoint.ip.is_unspecified() => endpoint,
                _ => return Err(Errno::EAFNOSUPPORT),
            }
        }
        Family::V6 if family == libc::AF_INET && datagram && call != Call::Bind => v4(bytes)?,
        Family::V6 if family == libc::AF_INET6 => v6(bytes)?,
        Family::V6 if call == Call::Send || bytes.len() < SHORTEST_V6 => return Err(Errno::EINVAL),
        Family::V6 => return Err(Errno::EAFNOSUPPORT),
    };
    Ok(Address::Endpoint(if call == Call::Bind { endpoint } else { destination(endpoint) }))
}

fn family(bytes: &[u8]) -> Result<i32, Errno> {
    let family = bytes.first_chunk().ok_or(Errno::EINVAL)?;
    Ok(u16::from_ne_bytes(*family).into())
}

fn v4(bytes: &[u8]) -> Result<Endpoint, Errno> {
    let [_, _, p, q, a, b, c, d, ..] = *bytes.first_chunk::<LENGTH_V4>().ok_or(Errno::EINVAL)?;
    let ip = Ipv4Addr::new(a, b, c, d).into();
    Ok(Endpoint { ip, port: u16::from_be_bytes([p, q]), scope: 0 })
}

/// Without the flow label, which can stand for another destination: IPV6_FLOWLABEL_MGR.
fn v6(bytes: &[u8]) -> Result<Endpoint, Errno> {
    let (start, rest) = bytes.split_first_chunk::<SHORTEST_V6>().ok_or(Errno::EINVAL)?;
    let [_, _, p, q, _, _, _, _, ip @ ..] = *start;
    let ip = Ipv6Addr::from(ip);
    // Unicast fe80::/10; multicast of interface and link, ff_1 and ff_2. Elsewhere it is not read.
    let scoped = ip.is_unicast_link_local()
        || matches!(ip.octets(), [0xff, flags, ..] if matches!(flags & 15, 1 | 2));
    let scope = rest.first_chunk().filter(|_| scoped).map_or(0, |scope| u32::from_ne_bytes(*scope));
    Ok(Endpoint { ip: ip.to_canonical(), port: u16::from_be_bytes([p, q]), scope })
}

/// To connect, or send, to the unspecified address is to reach oneself: by the address that the
/// socket is bound to, if it is bound to an IPv4 one, says the kernel; by loopback, say we.
fn destination(endpoint: Endpoint) -> Endpoint {
    let ip = match endpoint.ip {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    Endpoint { ip, ..endpoint }
}

fn netlink(call: Call, bytes: &[u8]) -> Result<Address, Errno> {
    match family(bytes)? {
        libc::AF_UNSPEC if call == Call::Connect => Ok(Address::Disconnect),
        libc::AF_NETLINK => {
            let bytes = bytes.first_chunk::<LENGTH_NETLINK>().ok_or(Errno::EINVAL)?;
            let [_, _, _, _, p, q, r, s, groups @ ..] = *bytes;
            let (port, groups) = (u32::from_ne_bytes([p, q, r, s]), u32::from_ne_bytes(groups));
            Ok(Address::Netlink { port, groups })
        }
        _ => Err(Errno::EINVAL),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Call::{Bind, Connect, Send};
    use Family::{V4, V6};
    use Socket::{Netlink, Other, Tcp, Udp, Unix};

    const SOCKETS: [Socket; 7] = [Tcp(V4), Tcp(V6), Udp(V4), Udp(V6), Netlink, Unix, Other];
    const CALLS: [Call; 3] = [Connect, Bind, Send];

    fn sockaddr(family: i32, fields: &[(usize, &[u8])], length: usize) -> Vec<u8> {
        let mut bytes = vec![0; 2000];
        bytes[..2].copy_from_slice(&(family as u16).to_ne_bytes());
        for (offset, field) in fields {
            bytes[*offset..offset + field.len()].copy_from_slice(field);
        }
        bytes.truncate(length);
        bytes
    }

    fn in4(ip: &str, port: u16) -> Vec<u8> {
        let ip: Ipv4Addr = ip.parse().unwrap();
        sockaddr(2, &[(2, &port.to_be_bytes()), (4, &ip.octets())], 16)
    }

    fn in6(ip: &str, port: u16, scope: u32) -> Vec<u8> {
        let ip: Ipv6Addr = ip.parse().unwrap();
        let fields: [(usize, &[u8]); 4] = [
            (2, &port.to_be_bytes()),
            (4, &[0xff; 4]),
            (8, &ip.octets()),
            (24, &scope.to_ne_bytes()),
        ];
        sockaddr(10, &fields, 28)
    }

    fn endpoint(ip: &str, port: u16, scope: u32) -> Result<Address, Errno> {
        Ok(Address::Endpoint(Endpoint { ip: ip.parse().unwrap(), port, scope }))
    }

    /// What Linux 6.18 answers to each call on a new socket, by family and length, where all else
    /// of the address is zero: found out by making the calls. Below the length it is EINVAL.
    type Row = (&'static [Socket], Call, &'static [i32], usize, Result<(), Errno>);
    const ANY: &[i32] = &[];
    const LINUX: &[Row] = {
        use Errno::{EAFNOSUPPORT, EINVAL};
        &[
            (&[Tcp(V4), Tcp(V6), Udp(V4), Udp(V6), Netlink], Connect, &[0], 2, Ok(())),
            (&[Tcp(V4), Udp(V4), Udp(V6)], Connect, &[2], 16, Ok(())),
            (&[Tcp(V4), Udp(V4)], Connect, ANY, 16, Err(EAFNOSUPPORT)),
            (&[Tcp(V6), Udp(V6)], Connect, &[10], 24, Ok(())),
            (&[Tcp(V6), Udp(V6)], Connect, ANY, 24, Err(EAFNOSUPPORT)),
            (&[Tcp(V4), Udp(V4)], Bind, &[0, 2], 16, Ok(())),
            (&[Tcp(V4), Udp(V4)], Bind, ANY, 16, Err(EAFNOSUPPORT)),
            (&[Tcp(V6), Udp(V6)], Bind, &[10], 24, Ok(())),
            (&[Tcp(V6), Udp(V6)], Bind, ANY, 24, Err(EAFNOSUPPORT)),
            // EPIPE, for they are not connected: the address is not read.
            (&[Tcp(V4), Tcp(V6)], Send, ANY, 0, Ok(())),
            (&[Udp(V4)], Send, &[0, 2], 16, Ok(())),
            (&[Udp(V4)], Send, ANY, 16, Err(EAFNOSUPPORT)),
            // EDESTADDRREQ, for it is not connected: the address is not read.
            (&[Udp(V6)], Send, &[0], 2, Ok(())),
            (&[Udp(V6)], Send, &[2], 16, Ok(())),
            (&[Udp(V6)], Send, &[10], 24, Ok(())),
            (&[Udp(V6)], Send, ANY, 0, Err(EINVAL)),
            (&[Netlink], Connect, &[16], 12, Ok(())),
            (&[Netlink], Connect, ANY, 0, Err(EINVAL)),
            (&[Netlink], Bind, &[16], 12, Ok(())),
            (&[Netlink], Bind, ANY, 0, Err(EINVAL)),
            (&[Netlink], Send, &[16], 12, Ok(())),
            (&[Netlink], Send, ANY, 0, Err(EINVAL)),
        ]
    };

    #[test]
    fn families_and_lengths_are_taken_and_refused_as_by_the_kernel() {
        for (socket, call) in SOCKETS[..5].iter().flat_map(|s| CALLS.map(|call| (*s, call))) {
            for family in (0..=50).chain([255, 256, 65535]) {
                let fits = |row: &&Row| {
                    row.0.contains(&socket)
                        && row.1 == call
                        && (row.2 == ANY || row.2.contains(&family))
                };
                let (.., shortest, result) = *LINUX.iter().find(fits).unwrap();
                for length in (0..=130).chain([1000]) {
                    let expected = if (shortest..=128).contains(&length) {
                        result
                    } else {
                        Err(Errno::EINVAL)
                    };
                    let answer = decode(call, socket, &sockaddr(family, &[], length));
                    assert_eq!(
                        answer.map(|_| ()),
                        expected,
                        "{socket:?} {call:?} family {family} length {length}: {answer:?}"
                    );
                }
            }
        }
    }

    #[test]
    fn unix_and_unknown_sockets_have_no_address() {
        for family in 0..=50 {
            for length in 0..=LONGEST {
                let bytes = sockaddr(family, &[], length);
                for call in CALLS {
                    assert_eq!(decode(call, Other, &bytes), Err(Errno::EACCES));
                    let unix = if call == Send { Errno::EISCONN } else { Errno::EACCES };
                    assert_eq!(decode(call, Unix, &bytes), Err(unix));
                }
            }
        }
    }

    #[test]
    fn a_destination_is_one_that_the_bytes_name() {
        // xorshift64
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut random = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        };
        let mut decoded = 0;
        for family in (0..=50).chain([0x200, 0xa00, 65535]) {
            for length in 0..=130 {
                let mut bytes = sockaddr(family, &[], length);
                for byte in bytes.iter_mut().skip(2) {
                    *byte = random() as u8;
                }
                // Zeros, the mapped prefix and link-local addresses are rare in noise.
                let start: &[u8] = match random() % 5 {
                    0 => &[0; 16],
                    1 => &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff],
                    2 => &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0, 0, 0, 0],
                    3 => &[0xfe, 0x80],
                    _ => &[],
                };
                if let Some(place) = bytes.get_mut(8..8 + start.len()) {
                    place.copy_from_slice(start);
                }
                for (socket, call) in SOCKETS.iter().flat_map(|s| CALLS.map(|call| (*s, call))) {
                    let Ok(Address::Endpoint(found)) = decode(call, socket, &bytes) else {
                        continue;
                    };
                    decoded += 1;
                    assert_eq!(found.port.to_be_bytes(), bytes[2..4]);
                    let named = match (socket, family) {
                        (Tcp(V6) | Udp(V6), 10) => {
                            IpAddr::from(<[u8; 16]>::try_from(&bytes[8..24]).unwrap())
                        }
                        _ => IpAddr::from(<[u8; 4]>::try_from(&bytes[4..8]).unwrap()),
                    };
                    let named = named.to_canonical();
                    let oneself: IpAddr = if named.is_ipv4() {
                        [127, 0, 0, 1].into()
                    } else {
                        Ipv6Addr::LOCALHOST.into()
                    };
                    let is_oneself = named.is_unspecified() && call != Bind;
                    assert_eq!(found.ip, if is_oneself { oneself } else { named });
                    assert!(found.scope == 0 || found.scope.to_ne_bytes() == bytes[24..28]);
                }
            }
        }
        assert!(decoded > 1000, "{decoded}");
    }

    #[test]
    fn mapped_addresses_are_ipv4_addresses() {
        for socket in [Tcp(V6), Udp(V6)] {
            let bytes = in6("::ffff:192.0.2.1", 443, 7);
            assert_eq!(decode(Connect, socket, &bytes), endpoint("192.0.2.1", 443, 0));
            assert_eq!(decode(Bind, socket, &bytes), endpoint("192.0.2.1", 443, 0));
            let compatible = in6("::192.0.2.1", 443, 0);
            assert_eq!(decode(Connect, socket, &compatible), endpoint("::192.0.2.1", 443, 0));
        }
    }

    #[test]
    fn the_unspecified_address_is_loopback_but_for_bind() {
        for (call, udp, v4, v6) in [
            (Connect, Udp, "127.0.0.1", "::1"),
            (Send, Udp, "127.0.0.1", "::1"),
            (Bind, Udp, "0.0.0.0", "::"),
        ] {
            assert_eq!(decode(call, udp(V4), &in4("0.0.0.0", 9)), endpoint(v4, 9, 0));
            assert_eq!(decode(call, udp(V6), &in6("::", 9, 0)), endpoint(v6, 9, 0));
            assert_eq!(decode(call, udp(V6), &in6("::ffff:0.0.0.0", 9, 0)), endpoint(v4, 9, 0));
            if call != Send {
                assert_eq!(decode(call, Tcp(V4), &in4("0.0.0.0", 9)), endpoint(v4, 9, 0));
                assert_eq!(decode(call, Tcp(V6), &in6("::", 9, 0)), endpoint(v6, 9, 0));
                assert_eq!(decode(call, Tcp(V6), &in6("::ffff:0.0.0.0", 9, 0)), endpoint(v4, 9, 0));
            }
        }
        assert_eq!(decode(Connect, Udp(V6), &in4("0.0.0.0", 9)), endpoint("127.0.0.1", 9, 0));
        assert_eq!(decode(Connect, Tcp(V4), &in4("0.0.0.1", 9)), endpoint("0.0.0.1", 9, 0));
    }

    #[test]
    fn no_family_disconnects_binds_or_sends() {
        let none = sockaddr(0, &[(2, &53u16.to_be_bytes()), (4, &[192, 0, 2, 1])], 16);
        let zero = sockaddr(0, &[(2, &53u16.to_be_bytes())], 16);
        for socket in [Tcp(V4), Tcp(V6), Udp(V4), Udp(V6), Netlink] {
            assert_eq!(decode(Connect, socket, &none), Ok(Address::Disconnect));
            assert_eq!(decode(Connect, socket, &none[..2]), Ok(Address::Disconnect));
            assert_eq!(decode(Connect, socket, &none[..1]), Err(Errno::EINVAL));
        }
        assert_eq!(decode(Bind, Tcp(V4), &none), Err(Errno::EAFNOSUPPORT));
        assert_eq!(decode(Bind, Tcp(V4), &zero), endpoint("0.0.0.0", 53, 0));
        assert_eq!(decode(Send, Udp(V4), &none), endpoint("192.0.2.1", 53, 0));
        assert_eq!(decode(Send, Udp(V4), &none[..15]), Err(Errno::EINVAL));
        assert_eq!(decode(Send, Udp(V6), &none), Ok(Address::Peer));
    }

    #[test]
    fn an_ipv4_address_on_an_ipv6_socket_is_for_datagrams_alone() {
        let mut bytes = in4("192.0.2.1", 53);
        assert_eq!(decode(Connect, Udp(V6), &bytes), endpoint("192.0.2.1", 53, 0));
        assert_eq!(decode(Send, Udp(V6), &bytes), endpoint("192.0.2.1", 53, 0));
        assert_eq!(decode(Bind, Udp(V6), &bytes), Err(Errno::EINVAL));
        assert_eq!(decode(Connect, Tcp(V6), &bytes), Err(Errno::EINVAL));
        bytes.resize(28, 0);
        assert_eq!(decode(Bind, Udp(V6), &bytes), Err(Errno::EAFNOSUPPORT));
        assert_eq!(decode(Connect, Tcp(V6), &bytes), Err(Errno::EAFNOSUPPORT));
        assert_eq!(decode(Connect, Tcp(V4), &in6("::1", 53, 0)), Err(Errno::EAFNOSUPPORT));
    }

    #[test]
    fn a_scope_is_kept_only_where_each_link_has_its_own_addresses() {
        for (ip, scope) in [
            ("fe80::1", 7),
            ("febf::1", 7),
            ("ff02::fb", 7),
            ("ff01::1", 7),
            ("ff12::1", 7),
            ("ff05::1", 0),
            ("ff0e::1", 0),
            ("fec0::1", 0),
            ("2001:db8::1", 0),
            ("::1", 0),
        ] {
            let bytes = in6(ip, 53, 7);
            assert_eq!(decode(Send, Udp(V6), &bytes), endpoint(ip, 53, scope));
            assert_eq!(decode(Send, Udp(V6), &bytes[..27]), endpoint(ip, 53, 0));
        }
    }

    #[test]
    fn an_address_is_made_anew_in_the_form_of_the_socket() {
        let bytes = |address: Result<Address, Errno>, socket| {
            address.unwrap().encode(socket).map(|made| made.bytes().to_vec())
        };
        let mut dirty = in4("192.0.2.1", 443);
        dirty[8..].fill(0xee);
        dirty.resize(100, 0xee);
        let clean = Some(in4("192.0.2.1", 443));
        assert_eq!(bytes(decode(Connect, Tcp(V4), &dirty), Tcp(V4)), clean);

        let mut mapped = in6("::ffff:192.0.2.1", 443, 9);
        let address = decode(Connect, Tcp(V6), &mapped);
        mapped[4..8].fill(0);
        mapped[24..].fill(0);
        assert_eq!(bytes(address, Tcp(V6)), Some(mapped.clone()));
        assert_eq!(bytes(decode(Send, Udp(V6), &in4("192.0.2.1", 443)), Udp(V6)), Some(mapped));
    }

    #[test]
    fn a_netlink_address_is_a_port_and_groups() {
        let bytes = sockaddr(16, &[(2, &[0xee; 2]), (4, &[7, 0, 0, 0, 1, 2, 3, 4, 0xee])], 13);
        let address = Address::Netlink { port: 7, groups: 0x0403_0201 };
        for call in CALLS {
            assert_eq!(decode(call, Netlink, &bytes), Ok(address));
        }
    }

    #[test]
    fn a_length_is_an_int() {
        assert_eq!(length(0), Ok(0));
        assert_eq!(length(128), Ok(128));
        assert_eq!(length(129), Err(Errno::EINVAL));
        assert_eq!(length(0xffff_ffff), Err(Errno::EINVAL));
        assert_eq!(length(u64::MAX), Err(Errno::EINVAL));
        // The kernel looks at the low half only.
        assert_eq!(length(0xdead_beef_0000_0010), Ok(16));
        assert_eq!(message_length(16), Ok(16));
        assert_eq!(message_length(1000), Ok(128));
        assert_eq!(message_length(-1), Err(Errno::EINVAL));
    }
}
