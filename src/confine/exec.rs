//! The command: found along PATH and executed, as execvp(3) does.

use std::convert::Infallible;
use std::env;
use std::ffi::{CStr, CString};
use std::os::unix::ffi::OsStringExt;

use nix::errno::Errno;

use super::descriptors::Sealed;
use crate::report::{Error, NOT_EXECUTABLE, NOT_FOUND, Result};
use crate::sys::process::{self, Arguments};

const SHELL: &CStr = c"/bin/sh";
/// What execvp uses if PATH is not set.
const DEFAULT_PATH: &[u8] = b"/bin:/usr/bin";

/// Everything that execve needs, allocated before the fork.
pub struct Program {
    name: CString,
    /// The paths to try, in order.
    candidates: Vec<CString>,
    arguments: Arguments,
    /// For a script without `#!`: the shell, the script's path to be put in, its arguments.
    script: Arguments,
}

impl Program {
    /// `command` is the name and its arguments: at least one word.
    pub fn new(command: Vec<CString>) -> Self {
        let name = command[0].clone();
        let path = env::var_os("PATH").map_or_else(|| DEFAULT_PATH.to_vec(), OsStringExt::into_vec);
        let mut script = vec![SHELL.to_owned()];
        script.extend(command.iter().cloned());
        Self {
            candidates: candidates(&name, &path),
            name,
            arguments: Arguments::new(command),
            script: Arguments::new(script),
        }
    }
}

/// A name with a slash is a path. An empty element of PATH is the working directory.
fn candidates(name: &CStr, path: &[u8]) -> Vec<CString> {
    let bytes = name.to_bytes();
    if bytes.is_empty() || bytes.contains(&b'/') {
        return vec![name.to_owned()];
    }
    let join = |directory: &[u8]| match directory {
        [] => bytes.to_vec(),
        directory => [directory, b"/", bytes].concat(),
    };
    // Neither the environment nor an argument contains a NUL.
    path.split(|byte| *byte == b':').filter_map(|dir| CString::new(join(dir)).ok()).collect()
}

/// Returns only if the command cannot be executed: the error carries 126 or 127.
pub fn execute(_: Sealed, program: &mut Program) -> Result<Infallible> {
    let searched = !program.name.to_bytes().contains(&b'/');
    let (mut error, mut denied) = (Errno::ENOENT, false);
    for path in std::mem::take(&mut program.candidates) {
        error = process::execute(&path, &program.arguments);
        if error == Errno::ENOEXEC {
            program.script.replace(1, path);
            error = process::execute(SHELL, &program.script);
        }
        match error {
            // It may be further on. EACCES is remembered, and reported before the others.
            Errno::EACCES if searched => denied = true,
            Errno::ENOENT | Errno::ENOTDIR | Errno::ENAMETOOLONG if searched => {}
            Errno::ENODEV | Errno::ESTALE | Errno::ETIMEDOUT if searched => {}
            errno => return Err(failure(&program.name, errno)),
        }
    }
    Err(failure(&program.name, if denied { Errno::EACCES } else { error }))
}

fn failure(name: &CStr, errno: Errno) -> Error {
    let status = match errno {
        Errno::ENOENT | Errno::ENOTDIR | Errno::ENAMETOOLONG => NOT_FOUND,
        _ => NOT_EXECUTABLE,
    };
    Error::command(name.to_string_lossy().into_owned(), errno, status)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(name: &CStr, path: &[u8]) -> Vec<String> {
        candidates(name, path).into_iter().map(|path| path.into_string().unwrap()).collect()
    }

    #[test]
    fn a_name_is_looked_up_in_each_directory() {
        assert_eq!(paths(c"sh", b"/usr/bin:/bin"), ["/usr/bin/sh", "/bin/sh"]);
        assert_eq!(paths(c"sh", b":/bin"), ["sh", "/bin/sh"]);
        assert_eq!(paths(c"sh", b""), ["sh"]);
    }

    #[test]
    fn a_path_is_not_looked_up() {
        assert_eq!(paths(c"./sh", b"/usr/bin"), ["./sh"]);
        assert_eq!(paths(c"", b"/usr/bin"), [""]);
    }
}
