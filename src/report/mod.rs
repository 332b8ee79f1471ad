//! What is said about failure: one line `sbx-init: STAGE: OPERATION: ERROR`, then a hint if known.

pub mod events;
mod hint;
pub mod status;
pub use hint::operation;

use std::borrow::Cow;
use std::fmt::{self, Write as _};

use nix::errno::Errno;

use crate::sys::errno;

/// The exit status of every failure of sbx-init itself.
pub const FAILED: i32 = 125;
/// The command was found and cannot be executed.
pub const NOT_EXECUTABLE: i32 = 126;
/// The command was not found.
pub const NOT_FOUND: i32 = 127;

/// Where a failure happened. The names are stable: wrappers may match them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stage {
    /// The command line is wrong.
    Options,
    /// What the caller handed over cannot be used, or what was asked cannot be had here.
    Plan,
    /// The stub: terminal, signals, waiting.
    Stub,
    /// User, PID and mount namespace, id maps.
    Namespaces,
    /// The workload's /proc and working directory.
    Proc,
    /// PID 1.
    Init,
    /// The network policy: names, the hosts file.
    Network,
    /// The workload's capabilities, domain, filters and descriptors.
    Confine,
    /// The command itself.
    Exec,
}

impl Stage {
    const fn name(self) -> &'static str {
        match self {
            Self::Options => "options",
            Self::Plan => "plan",
            Self::Stub => "stub",
            Self::Namespaces => "namespaces",
            Self::Proc => "proc",
            Self::Init => "init",
            Self::Network => "network",
            Self::Confine => "confine",
            Self::Exec => "exec",
        }
    }
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Cause {
    Errno(Errno),
    Text(Cow<'static, str>),
}

impl From<Errno> for Cause {
    fn from(errno: Errno) -> Self {
        Self::Errno(errno)
    }
}

impl From<std::io::Error> for Cause {
    fn from(error: std::io::Error) -> Self {
        Self::Errno(errno::of(&error))
    }
}

impl From<String> for Cause {
    fn from(text: String) -> Self {
        Self::Text(text.into())
    }
}

impl From<&'static str> for Cause {
    fn from(text: &'static str) -> Self {
        Self::Text(text.into())
    }
}

/// Boxed: it is passed on in hundreds of places, and made in none that matters for speed.
#[derive(PartialEq, Eq, Debug)]
pub struct Error(Box<Failure>);

#[derive(PartialEq, Eq, Debug)]
struct Failure {
    stage: Stage,
    operation: Cow<'static, str>,
    cause: Cause,
    status: i32,
}

pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    pub fn new(
        stage: Stage,
        operation: impl Into<Cow<'static, str>>,
        cause: impl Into<Cause>,
    ) -> Self {
        Self::with(stage, operation.into(), cause.into())
    }

    /// One copy of this for all the places that can fail.
    #[cold]
    #[inline(never)]
    fn with(stage: Stage, operation: Cow<'static, str>, cause: Cause) -> Self {
        Self(Box::new(Failure { stage, operation, cause, status: FAILED }))
    }

    #[cold]
    #[inline(never)]
    fn of_call(stage: Stage, operation: &'static str, errno: Errno) -> Self {
        Self::with(stage, operation.into(), errno.into())
    }

    /// The command could not be executed: 126 or 127.
    pub fn command(command: String, errno: Errno, status: i32) -> Self {
        let mut error = Self::new(Stage::Exec, command, errno);
        error.0.status = status;
        error
    }

    /// Says it on standard error, in one write so that lines of several processes do not mix,
    /// and returns the exit status.
    pub fn print(&self) -> i32 {
        let hint = hint::hint(self).map_or(String::new(), |hint| format!("hint: {hint}\n"));
        let text = format!("sbx-init: {self}\n{hint}");
        say(&text);
        self.0.status
    }
}

/// Writes to standard error. Nobody is left to tell if that fails; the exit status still says it.
pub fn say(text: &str) {
    let _ = nix::unistd::write(std::io::stderr(), text.as_bytes());
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let Failure { stage, operation, cause, .. } = &*self.0;
        write!(f, "{}: ", stage.name())?;
        plain(f, operation)?;
        f.write_str(": ")?;
        match cause {
            // libc's text: nix has one of its own, for 5 kB.
            Cause::Errno(errno) => write!(f, "{errno:?}: {}", errno::text(*errno)),
            Cause::Text(text) => plain(f, text),
        }
    }
}

/// A word of the caller's must not make a line, or move the cursor.
fn plain(f: &mut fmt::Formatter, text: &str) -> fmt::Result {
    for char in text.chars() {
        match char.is_control() {
            true => write!(f, "{}", char.escape_default())?,
            false => f.write_char(char)?,
        }
    }
    Ok(())
}

/// Names the failed operation.
pub trait Context<T> {
    fn context(self, stage: Stage, operation: &'static str) -> Result<T>;
}

impl<T> Context<T> for std::result::Result<T, Errno> {
    fn context(self, stage: Stage, operation: &'static str) -> Result<T> {
        self.map_err(|errno| Error::of_call(stage, operation, errno))
    }
}
