//! sendto(2) with an address, sendmsg(2) and sendmmsg(2): each destination decides. What a message
//! is made of is copied once, and what was copied is sent.
//!
//! A plain send(2) and write(2) go to where the socket is connected, and are not seen here.

use nix::errno::Errno;

use super::Supervisor;
use super::caller::Caller;
use super::control::{self, Control};
use super::socket::Duplicate;
use super::watch::Seat;
use crate::network::address::{Address, Sockaddr};
use crate::network::decode;
use crate::network::socket::Socket;
use crate::sys::notify::{Call, Fault};
use crate::sys::socket;

/// `UIO_MAXIOV`: parts of a message, and messages of a call.
const MOST: usize = 1024;
/// `MAX_RW_COUNT`: what is longer is cut off.
const MOST_BYTES: usize = i32::MAX as usize & !0xfff;
/// No UDP packet is longer. A stream is copied in pieces of this.
const PIECE: usize = 64 << 10;
/// A packet between a pair of sockets. More than the default of SO_SNDBUF, which limits it, too.
const PACKET: usize = 256 << 10;

/// `struct msghdr`.
const HEADER: usize = 56;
/// `struct mmsghdr`: that, the count of bytes that were sent, padding.
const ENTRY: u64 = 64;
const SENT: u64 = HEADER as u64;

/// A message as the caller describes it, but for the data.
struct Message {
    /// None: to where the socket is connected.
    name: Option<Vec<u8>>,
    parts: Vec<Part>,
    control: Control,
}

/// Where a part of the data is, and its length.
type Part = (u64, usize);

pub struct Sending<'a> {
    pub supervisor: &'a Supervisor,
    pub call: &'a Call,
    pub seat: &'a Seat,
    pub may_block: bool,
}

impl Sending<'_> {
    pub fn sendto(&self, caller: &mut Caller) -> Result<i64, Fault> {
        let [fd, data, length, flags, name, name_length] = self.call.arguments;
        let socket = Duplicate::of(caller, fd as i32)?;
        let mut bytes = vec![0; decode::length(name_length)?];
        caller.read(name, &mut bytes)?;
        let parts = vec![(data, (length as usize).min(MOST_BYTES))];
        let message = Message { name: Some(bytes), parts, control: Control::default() };
        self.send(caller, &socket, &message, "sendto", flags as i32)
    }

    pub fn sendmsg(&self, caller: &mut Caller) -> Result<i64, Fault> {
        let [fd, header, flags, ..] = self.call.arguments;
        let socket = Duplicate::of(caller, fd as i32)?;
        let message = Message::read(caller, socket.kind, header)?;
        self.send(caller, &socket, &message, "sendmsg", flags as i32)
    }

    /// Once a message has been sent, what is wrong with a later one is for the next call to say.
    pub fn sendmmsg(&self, caller: &mut Caller) -> Result<i64, Fault> {
        let [fd, entries, count, flags, ..] = self.call.arguments;
        let socket = Duplicate::of(caller, fd as i32)?;
        let count = u64::from(count as u32).min(MOST as u64);
        for index in 0..count {
            let entry = entries.wrapping_add(index * ENTRY);
            match self.send_entry(caller, &socket, entry, flags as i32) {
                Ok(Whole(true)) => {}
                Ok(Whole(false)) => return Ok(index as i64 + 1),
                Err(fault) if index == 0 => return Err(fault),
                Err(_) => return Ok(index as i64),
            }
        }
        Ok(count as i64)
    }

    fn send_entry(
        &self,
        caller: &mut Caller,
        socket: &Duplicate,
        entry: u64,
        flags: i32,
    ) -> Result<Whole, Fault> {
        let message = Message::read(caller, socket.kind, entry)?;
        let sent = self.send(caller, socket, &message, "sendmmsg", flags)?;
        caller.write(entry.wrapping_add(SENT), &(sent as u32).to_ne_bytes())?;
        Ok(Whole(sent as usize == message.length()))
    }

    /// Sends a message, and returns how much of it.
    fn send(
        &self,
        caller: &mut Caller,
        socket: &Duplicate,
        message: &Message,
        name: &'static str,
        flags: i32,
    ) -> Result<i64, Fault> {
        let address = match &message.name {
            None => Address::Peer,
            Some(bytes) => decode::decode(decode::Call::Send, socket.kind, bytes)?,
        };
        let network = self.supervisor.policy.network()?;
        let decision = network.send(socket.kind, address, flags);
        let to = self.supervisor.policy.settle(decision, self.call, name, socket.kind, &address)?;

        let is_stream = socket.is_stream()?;
        let most = match socket.kind {
            _ if is_stream => MOST_BYTES,
            Socket::Unix => PACKET,
            _ => PIECE,
        };
        if message.length() > most {
            return Err(Errno::EMSGSIZE.into());
        }
        // The kernel would send from memory that is used again here. The answer is the one when
        // it has no room for that: without the option it ignores the flag.
        if flags & libc::MSG_ZEROCOPY != 0 && socket::option(socket, libc::SO_ZEROCOPY)? != 0 {
            return Err(Errno::ENOBUFS.into());
        }
        let piece = if is_stream { PIECE } else { most };
        let quiet = (flags | libc::MSG_NOSIGNAL) & !libc::MSG_ZEROCOPY;
        let sent = self.send_pieces(caller, socket, message, to, piece, quiet);
        // It would be raised here.
        if sent == Err(Errno::EPIPE.into()) && is_stream && flags & libc::MSG_NOSIGNAL == 0 {
            caller.raise(libc::SIGPIPE)?;
        }
        sent
    }

    fn send_pieces(
        &self,
        caller: &mut Caller,
        socket: &Duplicate,
        message: &Message,
        to: Option<Sockaddr>,
        piece: usize,
        flags: i32,
    ) -> Result<i64, Fault> {
        /// What is said about the end of the data.
        const AT_END: i32 = libc::MSG_OOB | libc::MSG_EOR;
        let to = to.as_ref().map_or(&[][..], Sockaddr::bytes);
        let blocks = flags & libc::MSG_DONTWAIT == 0 && socket.may_block()?;
        let length = message.length();
        let mut sent = 0;
        loop {
            let mut data = vec![0; piece.min(length - sent)];
            let is_last = sent + data.len() == length;
            let flags = if is_last { flags } else { flags & !AT_END };
            let control = if sent == 0 { message.control.bytes() } else { &[] };
            let copied = caller.gather(&message.parts_from(sent), &mut data);
            let act = |flags| socket::send(socket, to, &data, control, flags);
            let result = match copied.and_then(|()| act(flags | libc::MSG_DONTWAIT)) {
                // A connection that is to be made by the first send says EINPROGRESS.
                Err(Errno::EAGAIN | Errno::EINPROGRESS) if blocks && self.may_block => {
                    self.seat.block(&self.supervisor.watch, self.call, || act(flags))
                }
                result => result.map_err(Fault::from),
            };
            match result {
                Ok(more) => {
                    sent += more;
                    if sent == length || more < data.len() && !blocks {
                        return Ok(sent as i64);
                    }
                }
                Err(fault) if sent == 0 => return Err(fault),
                Err(_) => return Ok(sent as i64),
            }
        }
    }
}

/// Whether all of a message has been sent.
struct Whole(bool);

impl Message {
    fn read(caller: &mut Caller, socket: Socket, header: u64) -> Result<Self, Errno> {
        let mut bytes = [0; HEADER];
        caller.read(header, &mut bytes)?;
        let (words, _) = bytes.as_chunks();
        let [name, name_length, parts, count, control, control_length, _] =
            [0, 1, 2, 3, 4, 5, 6].map(|n: usize| u64::from_ne_bytes(words[n]));
        let name_length = decode::message_length(name_length as i32)?;
        let name = match name != 0 && name_length != 0 {
            true => Some(read(caller, name, name_length)?),
            false => None,
        };
        if count > MOST as u64 {
            return Err(Errno::EMSGSIZE);
        }
        let parts = parts_of(&read(caller, parts, count as usize * size_of::<[u64; 2]>())?)?;
        if control_length > control::LONGEST as u64 {
            return Err(Errno::ENOBUFS);
        }
        let control = read(caller, control, control_length as usize)?;
        let control = Control::new(caller, socket, &control)?;
        Ok(Self { name, parts, control })
    }

    fn length(&self) -> usize {
        self.parts.iter().map(|(_, length)| length).sum()
    }

    /// Where the data is but for its first bytes.
    fn parts_from(&self, mut skip: usize) -> Vec<Part> {
        let without = |(address, length): &Part| {
            let skipped = skip.min(*length);
            skip -= skipped;
            (address.wrapping_add(skipped as u64), length - skipped)
        };
        self.parts.iter().map(without).collect()
    }
}

fn read(caller: &Caller, address: u64, length: usize) -> Result<Vec<u8>, Errno> {
    let mut bytes = vec![0; length];
    caller.read(address, &mut bytes)?;
    Ok(bytes)
}

/// The `struct iovec`s in this memory, cut off after MOST_BYTES.
fn parts_of(bytes: &[u8]) -> Result<Vec<Part>, Errno> {
    let (words, _) = bytes.as_chunks();
    let (pairs, _) = words.as_chunks();
    let mut left = MOST_BYTES;
    let part = |[address, length]: &[[u8; 8]; 2]| {
        let length = i64::from_ne_bytes(*length);
        let length = usize::try_from(length).map_err(|_| Errno::EINVAL)?.min(left);
        left -= length;
        Ok((u64::from_ne_bytes(*address), length))
    };
    pairs.iter().map(part).collect()
}
