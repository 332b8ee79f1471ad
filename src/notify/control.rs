//! The control messages of sendmsg(2): those that change neither where a packet goes to nor where
//! it comes from are passed on.

use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use nix::errno::Errno;

use super::caller::Caller;
use crate::network::socket::Socket;

/// Some three times of what SCM_MAX_FD descriptors take.
pub const LONGEST: usize = 16 << 10;
/// `SCM_MAX_FD` of net/scm.h.
const MOST_DESCRIPTORS: usize = 253;
/// `struct cmsghdr`: the length with the header, the level, the type. Each begins aligned as a word.
const HEADER: usize = 16;
const ALIGNMENT: usize = 8;

/// Levels and types for UDP. Not IP_PKTINFO, IP_RETOPTS, IPV6_RTHDR and their like, which choose
/// a device, a source or a route; nor SO_MARK, by which routes are chosen.
const DATAGRAM: [(i32, i32); 5] = [
    (libc::SOL_UDP, libc::UDP_SEGMENT),
    (libc::IPPROTO_IP, libc::IP_TOS),
    (libc::IPPROTO_IP, libc::IP_TTL),
    (libc::IPPROTO_IPV6, libc::IPV6_TCLASS),
    (libc::IPPROTO_IPV6, libc::IPV6_HOPLIMIT),
];
/// The type of a record, where the kernel encrypts: TLS_SET_RECORD_TYPE.
const STREAM: [(i32, i32); 1] = [(libc::SOL_TLS, 1)];
const RIGHTS: (i32, i32) = (libc::SOL_SOCKET, libc::SCM_RIGHTS);

struct Message<'a> {
    kind: (i32, i32),
    data: &'a [u8],
}

/// What goes along with the data, made here.
#[derive(Default)]
pub struct Control {
    bytes: Vec<u8>,
    /// Those that the bytes name.
    descriptors: Vec<OwnedFd>,
}

impl Control {
    /// Takes over the caller's. Its descriptors go by other numbers here. Credentials would be this
    /// process's.
    pub fn new(caller: &mut Caller, socket: Socket, bytes: &[u8]) -> Result<Self, Errno> {
        let mut control = Self::default();
        for Message { kind, data } in messages(bytes)? {
            match socket {
                Socket::Udp(_) if DATAGRAM.contains(&kind) => control.put(kind, data),
                Socket::Tcp(_) if STREAM.contains(&kind) => control.put(kind, data),
                Socket::Unix if kind == RIGHTS => {
                    let numbers = control.duplicate(caller, data)?;
                    control.put(kind, &numbers);
                }
                _ => return Err(Errno::EACCES),
            }
        }
        Ok(control)
    }

    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    fn duplicate(&mut self, caller: &mut Caller, data: &[u8]) -> Result<Vec<u8>, Errno> {
        let (numbers, _) = data.as_chunks();
        if self.descriptors.len() + numbers.len() > MOST_DESCRIPTORS {
            return Err(Errno::EINVAL);
        }
        let mut own = Vec::with_capacity(data.len());
        for number in numbers {
            let duplicate = caller.duplicate(RawFd::from_ne_bytes(*number))?;
            own.extend(duplicate.as_raw_fd().to_ne_bytes());
            self.descriptors.push(duplicate);
        }
        Ok(own)
    }

    fn put(&mut self, (level, kind): (i32, i32), data: &[u8]) {
        self.bytes.extend((HEADER + data.len()).to_ne_bytes());
        self.bytes.extend(level.to_ne_bytes());
        self.bytes.extend(kind.to_ne_bytes());
        self.bytes.extend(data);
        self.bytes.resize(self.bytes.len().next_multiple_of(ALIGNMENT), 0);
    }
}

/// Walks them as the kernel does: what is left and too short for a header is no message.
fn messages(mut bytes: &[u8]) -> Result<Vec<Message<'_>>, Errno> {
    let mut messages = Vec::new();
    while let Some((header, _)) = bytes.split_first_chunk::<HEADER>() {
        let [length @ .., l0, l1, l2, l3, k0, k1, k2, k3] = *header;
        let length = usize::from_ne_bytes(length);
        let data = bytes.get(HEADER..length).ok_or(Errno::EINVAL)?;
        let word = |bytes| i32::from_ne_bytes(bytes);
        messages.push(Message { kind: (word([l0, l1, l2, l3]), word([k0, k1, k2, k3])), data });
        bytes = bytes.get(length.next_multiple_of(ALIGNMENT)..).unwrap_or_default();
    }
    Ok(messages)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(length: usize, (level, kind): (i32, i32), data: &[u8]) -> Vec<u8> {
        [&length.to_ne_bytes()[..], &level.to_ne_bytes(), &kind.to_ne_bytes(), data].concat()
    }

    fn kinds(bytes: &[u8]) -> Result<Vec<(i32, i32, usize)>, Errno> {
        let each = |message: &Message| (message.kind.0, message.kind.1, message.data.len());
        messages(bytes).map(|messages| messages.iter().map(each).collect())
    }

    #[test]
    fn messages_are_found_one_behind_the_other() {
        let one = message(18, (17, 103), &[1, 2, 0, 0, 0, 0, 0, 0]);
        let two = message(20, (0, 1), &[0; 4]);
        assert_eq!(kinds(&[]), Ok(vec![]));
        assert_eq!(kinds(&[0xff; 15]), Ok(vec![]));
        assert_eq!(kinds(&one), Ok(vec![(17, 103, 2)]));
        assert_eq!(kinds(&[&one[..], &two].concat()), Ok(vec![(17, 103, 2), (0, 1, 4)]));
        assert_eq!(kinds(&[&two[..], &[0xff; 4 + 15]].concat()), Ok(vec![(0, 1, 4)]));
        assert_eq!(kinds(&message(16, (1, 1), &[])), Ok(vec![(1, 1, 0)]));
    }

    #[test]
    fn a_length_that_cannot_be_is_refused() {
        for length in [0, 1, 15, 21, 1 << 31, 1 << 32, usize::MAX, usize::MAX - 7] {
            assert_eq!(kinds(&message(length, (0, 1), &[0; 4])), Err(Errno::EINVAL), "{length}");
        }
    }

    #[test]
    fn what_is_put_is_found_again() {
        let mut control = Control::default();
        control.put((0, 1), &[1]);
        control.put(RIGHTS, &[0; 12]);
        assert_eq!(kinds(control.bytes()), Ok(vec![(0, 1, 1), (1, 1, 12)]));
        assert_eq!(control.bytes().len(), 24 + 32);
    }
}
