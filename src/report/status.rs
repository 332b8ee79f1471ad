//! What `--status-fd` says: one JSON object a line, with bubblewrap's keys and some more.

use std::fmt::Write as _;
use std::os::fd::{AsFd, BorrowedFd, RawFd};

use nix::errno::Errno;
use nix::unistd::Pid;

use crate::plan::{Level, Plan};
use crate::sys::descriptor;
use crate::sys::signal::{Set, Signal};

/// The lines for whoever reads the descriptor. A reader that has gone is not missed.
pub struct Status(Option<BorrowedFd<'static>>);

impl Status {
    pub fn new(fd: Option<RawFd>) -> Self {
        Self(fd.and_then(descriptor::inherited))
    }

    pub fn fd(&self) -> Option<BorrowedFd<'static>> {
        self.0
    }

    /// Which boundary is about to be made: `isolation`, `refused` (why there are no namespaces, under
    /// `--isolation auto`), `landlock` (the ABI, 0 for none), `missing` (what is not enforced).
    ///
    /// Without a status descriptor what is missing is said on standard error.
    pub fn begin(&self, plan: &Plan) {
        let report = &plan.report;
        if self.0.is_none() {
            let lines =
                report.missing.iter().map(|what| format!("sbx-init: not enforced: {what}\n"));
            write(std::io::stderr(), &lines.collect::<String>());
            return;
        }
        let isolation = match plan.level {
            Level::Namespaces(_) => "namespaces",
            Level::Domain => "domain",
        };
        let mut line = format!("{{\"isolation\":\"{isolation}\"");
        if let Some(refusal) = &report.refusal {
            let _ = write!(line, ",\"refused\":{}", Quoted(refusal));
        }
        let _ = write!(line, ",\"landlock\":{},\"missing\":[", report.abi);
        for (index, missing) in report.missing.iter().enumerate() {
            let comma = if index > 0 { "," } else { "" };
            let _ = write!(line, "{comma}{}", Quoted(missing));
        }
        self.write(line + "]}\n");
    }

    /// The workload is confined: its pid, as the stub's PID namespace numbers it.
    pub fn confined(&self, workload: Pid) {
        self.write(format!("{{\"child-pid\":{workload}}}\n"));
    }

    pub fn ended(&self, code: i32) {
        self.write(format!("{{\"exit-code\":{code}}}\n"));
    }

    fn write(&self, line: String) {
        self.0.iter().for_each(|fd| write(fd, &line));
    }
}

/// Writes in one piece, so that lines of several processes do not mix.
fn write(to: impl AsFd, text: &str) {
    if !text.is_empty() && nix::unistd::write(to, text.as_bytes()) == Err(Errno::EPIPE) {
        // The stub would forward the signal that came along.
        let _ = Signal::take(Set::EMPTY.with(libc::SIGPIPE));
    }
}

/// A JSON string.
struct Quoted<'a>(&'a str);

impl std::fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.write_char('"')?;
        for char in self.0.chars() {
            match char {
                '"' | '\\' => write!(f, "\\{char}")?,
                '\0'..='\x1f' => write!(f, "\\u{:04x}", char as u32)?,
                _ => f.write_char(char)?,
            }
        }
        f.write_char('"')
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_are_quoted_as_json_wants_it() {
        assert_eq!(Quoted("a\"b\\c\n\u{e9}").to_string(), "\"a\\\"b\\\\c\\u000a\u{e9}\"");
    }
}
