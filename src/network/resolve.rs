//! Names to addresses, once, before the workload runs: by the hosts file, else by std's resolver.
//!
//! In the static binary that is musl's. It knows no nsswitch.conf, and before 1.2.4 no TCP: of an
//! answer it takes what fits into 512 bytes, and of that 48 addresses. It asks the first three
//! servers of resolv.conf at the same time. Names are asked for with a dot at their end, so that
//! no search domain has a say; as such they are not in the hosts file, hence the look into it here.

use std::mem;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nix::errno::Errno;

use super::address::{Address, Endpoint};
use super::pins::Answer;
use super::socket::{Family, Socket};
use crate::confine::capabilities;
use crate::report::Stage;
use crate::sys::event::Event;
use crate::sys::thread::spawn;
use crate::sys::{errno, socket};

/// For all names together. For one that nobody answers musl waits 5 s, unless resolv.conf says
/// otherwise.
const DEADLINE: Duration = Duration::from_secs(10);
/// Names at the same time.
const THREADS: usize = 16;
/// getaddrinfo keeps its buffers there: 20 KiB in musl, more in glibc.
const STACK: usize = 256 << 10;
/// More servers musl does not ask.
const SERVERS: usize = 3;

type Addresses = Result<Vec<IpAddr>, String>;

/// Names that are being resolved, by a thread of their own: whoever wants the answers may hear of other
/// things meanwhile.
pub struct Resolution {
    names: Vec<String>,
    answers: Mutex<Vec<Answer>>,
    done: Event,
}

impl Resolution {
    /// It lives as long as this process, as the thread may.
    pub fn start(names: &[&str]) -> Result<&'static Self, Errno> {
        let names = names.iter().map(|name| (*name).to_owned()).collect();
        let answers = Mutex::new(Vec::new());
        let own = Box::leak(Box::new(Self { names, answers, done: Event::new()? }));
        spawn(STACK, Self::carry_out, own)?;
        Ok(own)
    }

    fn carry_out(&self) {
        // Without them there are no answers. One that could not drop its capabilities asks nobody.
        if capabilities::drop_held(Stage::Network).is_ok() {
            let answers = resolve(&self.names);
            *self.answers.lock().unwrap_or_else(PoisonError::into_inner) = answers;
        }
        self.done.set();
    }

    /// When [`Self::as_fd`] is readable.
    pub fn answers(&self) -> Vec<Answer> {
        mem::take(&mut self.answers.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl AsFd for Resolution {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.done.as_fd()
    }
}

/// Resolves each name, in the form of [`super::rule::name`]. A thread whose answer does not come
/// in time is left behind, and ends when the resolver gives up.
fn resolve(names: &[String]) -> Vec<Answer> {
    let file = std::fs::read("/etc/hosts").unwrap_or_default();
    let mut answers = Vec::with_capacity(names.len());
    let mut asked = Vec::new();
    for name in names.iter().cloned() {
        match in_file(&file, &name) {
            found if found.is_empty() => asked.push(name),
            found => answers.push((name, Ok(found))),
        }
    }
    if !asked.is_empty() {
        let servers = servers(&std::fs::read("/etc/resolv.conf").unwrap_or_default());
        match reach_one_of(&servers.unwrap_or_default()) {
            Ok(()) => answers.extend(in_parallel(asked, DEADLINE, absolute)),
            Err(error) => {
                let why = format!("no name server can be reached: {}", errno::text(error));
                answers.extend(asked.into_iter().map(|name| (name, Err(why.clone()))));
            }
        }
    }
    answers
}

fn absolute(name: &str) -> Addresses {
    let found = (format!("{name}."), 0).to_socket_addrs().map_err(|error| error.to_string())?;
    Ok(found.map(|address| address.ip()).collect())
}

/// The addresses of a name in a hosts file, see hosts(5).
fn in_file(file: &[u8], name: &str) -> Vec<IpAddr> {
    let address = |line: &[u8]| {
        let text = line.split(|byte| *byte == b'#').next()?;
        let mut words = str::from_utf8(text).ok()?.split_ascii_whitespace();
        let address = words.next()?.parse().ok()?;
        let is_name =
            |word: &str| word.strip_suffix('.').unwrap_or(word).eq_ignore_ascii_case(name);
        words.any(is_name).then_some(address)
    };
    file.split(|byte| *byte == b'\n').filter_map(address).collect()
}

/// The servers that resolv.conf(5) names, which is one on loopback if it names none; or nothing if
/// one of them is not understood.
fn servers(configuration: &[u8]) -> Option<Vec<SocketAddr>> {
    let value = |line: &str| {
        let mut words = line.split_ascii_whitespace();
        words.next().filter(|word| *word == "nameserver")?;
        Some(words.next()?.parse().ok().map(|ip: IpAddr| (ip, 53).into()))
    };
    let lines = str::from_utf8(configuration).ok()?.lines();
    let mut servers: Vec<_> = lines.filter_map(value).take(SERVERS).collect::<Option<_>>()?;
    if servers.is_empty() {
        servers.push((Ipv4Addr::LOCALHOST, 53).into());
    }
    Some(servers)
}

/// Whether a question could reach one of them, lest it waits in vain where there is no network.
fn reach_one_of(servers: &[SocketAddr]) -> Result<(), Errno> {
    servers.iter().map(|server| reach(*server)).reduce(Result::or).unwrap_or(Ok(()))
}

fn reach(server: SocketAddr) -> Result<(), Errno> {
    let (domain, family) = match server {
        SocketAddr::V4(_) => (libc::AF_INET, Family::V4),
        SocketAddr::V6(_) => (libc::AF_INET6, Family::V6),
    };
    let address = Endpoint { ip: server.ip(), port: server.port(), scope: 0 };
    let address = Address::Endpoint(address).encode(Socket::Udp(family)).ok_or(Errno::EINVAL)?;
    let socket = socket::create(domain, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0)?;
    socket::connect(&socket, address.bytes())?;
    if server.ip().is_loopback() {
        // If nobody is there, that has come back before the call returns.
        nix::unistd::write(&socket, &[])?;
        match socket::option(&socket, libc::SO_ERROR)? {
            0 => {}
            error => return Err(Errno::from_raw(error)),
        }
    }
    Ok(())
}

struct Work {
    names: Vec<String>,
    lookup: fn(&str) -> Addresses,
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    /// The number of the name to look up next.
    next: usize,
    answers: Vec<Answer>,
}

impl Work {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn carry_out(&self) {
        // Each thread has its own. One that could not drop them asks nobody.
        if capabilities::drop_held(Stage::Network).is_err() {
            return;
        }
        loop {
            let mut state = self.state();
            let number = state.next;
            state.next += 1;
            drop(state);
            let Some(name) = self.names.get(number) else { return };
            let answer = (self.lookup)(name);
            self.state().answers.push((name.clone(), answer));
            self.changed.notify_one();
        }
    }
}

/// Looks up every name. One without an answer when the deadline has passed is answered for.
fn in_parallel(
    names: Vec<String>,
    deadline: Duration,
    lookup: fn(&str) -> Addresses,
) -> Vec<Answer> {
    let state = Mutex::new(State { next: 0, answers: Vec::with_capacity(names.len()) });
    // A thread that is left behind still has it.
    let work: &Work = Box::leak(Box::new(Work { names, lookup, state, changed: Condvar::new() }));
    let count = work.names.len();
    let start = || spawn(STACK, Work::carry_out, work);
    let why = match start() {
        Ok(()) => {
            // Fewer than wanted do the same work.
            (1..count.min(THREADS)).for_each(|_| _ = start());
            let pending = |state: &mut State| state.answers.len() < count;
            drop(work.changed.wait_timeout_while(work.state(), deadline, pending));
            format!("no answer within {} s", deadline.as_secs())
        }
        Err(error) => format!("no thread to ask for it: {}", errno::text(error)),
    };
    let mut state = work.state();
    // What has not been begun is not begun any more.
    state.next = count;
    let mut answers = mem::take(&mut state.answers);
    for name in &work.names {
        if answers.iter().all(|(known, _)| known != name) {
            answers.push((name.clone(), Err(why.clone())));
        }
    }
    answers
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::sync::Barrier;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::thread;
    use std::time::Instant;

    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    fn names(count: usize) -> Vec<String> {
        (0..count).map(|number| format!("n{number}.example")).collect()
    }

    fn ips(texts: &[&str]) -> Vec<IpAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn each_name_gets_its_own_answer() {
        let lookup = |name: &str| match name {
            "n7.example" => Err("no such host".to_owned()),
            _ => {
                let number = name[1..].split('.').next().unwrap().parse().unwrap();
                Ok(vec![Ipv4Addr::new(192, 0, 2, number).into()])
            }
        };
        let mut answers = in_parallel(names(100), LONG, lookup);
        answers
            .sort_by_key(|answer| answer.0[1..].split('.').next().unwrap().parse::<u8>().unwrap());
        assert_eq!(answers.len(), 100);
        for (number, (name, answer)) in answers.into_iter().enumerate() {
            assert_eq!(name, format!("n{number}.example"));
            match number {
                7 => assert_eq!(answer, Err("no such host".into())),
                _ => assert_eq!(answer, Ok(ips(&[&format!("192.0.2.{number}")]))),
            }
        }
    }

    #[test]
    fn sixteen_names_are_asked_for_at_the_same_time_and_no_more() {
        static RUNNING: AtomicUsize = AtomicUsize::new(0);
        static MOST: AtomicUsize = AtomicUsize::new(0);
        // Passes only sixteen at a time.
        static TOGETHER: Barrier = Barrier::new(THREADS);
        let lookup = |_: &str| {
            MOST.fetch_max(RUNNING.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            TOGETHER.wait();
            RUNNING.fetch_sub(1, Ordering::SeqCst);
            Ok(ips(&["192.0.2.1"]))
        };
        let answers = in_parallel(names(4 * THREADS), LONG, lookup);
        assert!(answers.iter().all(|answer| answer.1.is_ok()));
        assert_eq!(MOST.load(Ordering::SeqCst), THREADS);
    }

    #[test]
    fn a_name_without_an_answer_does_not_hold_up_the_others() {
        static BEGUN: AtomicUsize = AtomicUsize::new(0);
        let lookup = |name: &str| {
            BEGUN.fetch_add(1, Ordering::SeqCst);
            if name != "n1.example" {
                loop {
                    thread::park();
                }
            }
            Ok(ips(&["192.0.2.1"]))
        };
        let start = Instant::now();
        let answers = in_parallel(names(40), Duration::from_secs(1), lookup);
        assert!(start.elapsed() < Duration::from_secs(30));
        assert_eq!(answers.len(), 40);
        for (name, answer) in answers {
            match name.as_str() {
                "n1.example" => assert_eq!(answer, Ok(ips(&["192.0.2.1"]))),
                _ => assert_eq!(answer, Err("no answer within 1 s".into())),
            }
        }
        assert_eq!(BEGUN.load(Ordering::SeqCst), THREADS + 1);
    }

    #[test]
    fn the_hosts_file_is_read_as_by_resolvers() {
        let file = b"127.0.0.1\tlocalhost\n\
            192.0.2.1 a.example alias # b.example\n\
            #192.0.2.9 a.example\n\
            2001:db8::1  A.Example.\n\
            \xff\xfe a.example\n\
            fe80::1%lo a.example\n\
            192.0.2.2\n\
            192.0.2.3 aa.example a.examplea\n\
            192.0.2.4 other a.example";
        assert_eq!(in_file(file, "a.example"), ips(&["192.0.2.1", "2001:db8::1", "192.0.2.4"]));
        assert_eq!(in_file(file, "alias"), ips(&["192.0.2.1"]));
        assert_eq!(in_file(file, "b.example"), ips(&[]));
        assert_eq!(in_file(b"", "a.example"), ips(&[]));
    }

    #[test]
    fn a_name_in_the_hosts_file_is_not_asked_for() {
        let (name, addresses) = resolve(&["localhost".to_owned()]).remove(0);
        assert_eq!(name, "localhost");
        assert!(addresses.unwrap().iter().any(IpAddr::is_loopback));
    }

    #[test]
    fn servers_are_those_of_the_configuration() {
        let text = b"# x\nsearch a.example\nnameserver 192.0.2.1\n nameserver\t2001:db8::1 # y\n\
            nameservers 192.0.2.3\nnameserver\noptions ndots:5\n";
        let expected = ips(&["192.0.2.1", "2001:db8::1"]).into_iter().map(|ip| (ip, 53).into());
        assert_eq!(servers(text), Some(expected.collect()));
        assert_eq!(servers(b""), Some(vec![(Ipv4Addr::LOCALHOST, 53).into()]));
        assert_eq!(servers(&b"nameserver 192.0.2.1\n".repeat(5)).unwrap().len(), SERVERS);
        assert_eq!(servers(b"nameserver fe80::1%eth0\nnameserver 192.0.2.1\n"), None);
    }

    #[test]
    fn a_server_that_nobody_is_behind_is_known_before_it_is_asked() {
        let bound = || UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let (listening, closed) = (bound(), bound());
        let server = listening.local_addr().unwrap();
        let nobody = closed.local_addr().unwrap();
        drop(closed);
        assert_eq!(reach(nobody), Err(Errno::ECONNREFUSED));
        assert!(reach(server).is_ok());
        assert!(reach_one_of(&[nobody, nobody]).is_err());
        assert!(reach_one_of(&[nobody, server]).is_ok() && reach_one_of(&[server, nobody]).is_ok());
        // A broadcast needs an option: as an address without a route, it fails at once.
        assert!(reach((Ipv4Addr::BROADCAST, 53).into()).is_err());
        assert!(reach_one_of(&[]).is_ok());
    }
}
