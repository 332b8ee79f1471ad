//! What `--events-fd` and `--events` say: one JSON object a line for each denied address.
//!
//! `time` (seconds since 1970), `syscall`, `pid` (the calling thread, as the sandbox numbers it),
//! `destination`, `rule` (the option, or the sysctl, that would have to allow it). Connecting a datagram socket is
//! no line, as it sends nothing and resolvers try it on whatever they find. A reader that does not keep up
//! loses lines; the next one that gets through says how many in `dropped`.

use std::fmt::Display;
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::stat::fstat;
use nix::unistd::write;

use super::{Cause, Error, Result, Stage};
use crate::sys::{descriptor, socket};

/// What one run writes to a regular file at most: nobody else limits that.
const LARGEST: usize = 16 << 20;

pub struct Events {
    out: File,
    written: Mutex<Written>,
}

struct Written {
    dropped: u64,
    /// How many bytes may follow.
    room: usize,
}

/// What was denied.
pub struct Denied<'a> {
    pub syscall: &'static str,
    pub thread: u32,
    pub destination: &'a dyn Display,
    pub rule: &'static str,
}

impl Events {
    /// Appends to a file, which is made if it is missing.
    pub fn to_file(path: &Path) -> Result<Self> {
        let opened = File::options()
            .append(true)
            .create(true)
            .mode(0o600)
            .custom_flags(libc::O_NONBLOCK)
            .open(path);
        let failed = |error: std::io::Error| {
            Error::new(Stage::Plan, format!("--events {}", path.display()), error)
        };
        opened.map(Self::new).map_err(failed)
    }

    /// Writes to what the caller handed over, without changing how it blocks for others.
    pub fn to_descriptor(fd: RawFd) -> Result<Self> {
        let failed = |cause: Cause| Error::new(Stage::Plan, format!("--events-fd {fd}"), cause);
        let inherited = descriptor::inherited(fd).ok_or_else(|| failed("is not open".into()))?;
        // A pipe or a terminal may block: an open file description of our own does not. A regular
        // file never does, and needs the caller's, which has the offset that others write at.
        let kind = fstat(inherited).map_err(|errno| failed(errno.into()))?.st_mode & libc::S_IFMT;
        let own = match kind {
            libc::S_IFREG => None,
            _ => File::options()
                .append(true)
                .custom_flags(libc::O_NONBLOCK)
                .open(format!("/proc/self/fd/{fd}"))
                .ok(),
        };
        // A socket cannot be opened, nor is there anything to open without a /proc.
        match own {
            Some(own) => Ok(Self::new(own)),
            None => {
                let copy = inherited.try_clone_to_owned().map_err(|error| failed(error.into()))?;
                Ok(Self::new(copy.into()))
            }
        }
    }

    fn new(out: File) -> Self {
        let is_file = out.metadata().is_ok_and(|found| found.is_file());
        let room = if is_file { LARGEST } else { usize::MAX };
        Self { out, written: Mutex::new(Written { dropped: 0, room }) }
    }

    /// Never waits.
    pub fn denied(&self, denied: &Denied) {
        let Denied { syscall, thread, destination, rule } = denied;
        let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        let lost = match written.dropped {
            0 => String::new(),
            lost => format!(",\"dropped\":{lost}"),
        };
        let line = format!(
            "{{\"time\":{}.{:03},\"syscall\":\"{syscall}\",\"pid\":{thread},\
             \"destination\":\"{destination}\",\"rule\":\"{rule}\"{lost}}}\n",
            time.as_secs(),
            time.subsec_millis(),
        );
        // A pipe that polls writable takes a line whole: it is shorter than PIPE_BUF.
        let mut fds = [PollFd::new(self.out.as_fd(), PollFlags::POLLOUT)];
        let ready = line.len() <= written.room
            && poll(&mut fds, PollTimeout::ZERO) == Ok(1)
            && fds[0].revents().is_some_and(|found| found == PollFlags::POLLOUT);
        // A socket may have less room, and no description of its own that does not block.
        let write = || match socket::send_now(&self.out, line.as_bytes()) {
            Err(Errno::ENOTSOCK) => write(&self.out, line.as_bytes()),
            result => result,
        };
        let length = ready.then(write).and_then(|result| result.ok()).unwrap_or(0);
        written.room -= length;
        match length == line.len() {
            true => written.dropped = 0,
            false => written.dropped += 1,
        }
    }
}

impl AsRawFd for Events {
    fn as_raw_fd(&self) -> RawFd {
        self.out.as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::memfd::{MFdFlags, memfd_create};
    use std::os::unix::fs::FileExt;

    #[test]
    fn a_file_takes_whole_lines_and_no_more_than_it_has_room_for() {
        let file = File::from(memfd_create(c"events", MFdFlags::empty()).unwrap());
        let events = Events::new(file.try_clone().unwrap());
        assert_eq!(events.written.lock().unwrap().room, LARGEST);
        events.written.lock().unwrap().room = 250;
        let rule = "--net-allow";
        for _ in 0..5 {
            events.denied(&Denied { syscall: "connect", thread: 2, destination: &"a", rule });
        }
        let mut text = [0; 1000];
        let length = file.read_at(&mut text, 0).unwrap();
        let text = std::str::from_utf8(&text[..length]).unwrap();
        assert!(length <= 250 && text.ends_with("}\n") && text.lines().count() > 1, "{text}");
        assert_eq!(events.written.lock().unwrap().dropped, 5 - text.lines().count() as u64);
    }
}
