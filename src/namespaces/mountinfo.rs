//! Where file systems are mounted: /proc/self/mountinfo, proc_pid_mountinfo(5).

use std::ffi::CString;
use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;

use crate::sys::errno;

/// The mount points of this type that this process can see, by this procfs.
pub fn of_type(procfs: &OwnedFd, kind: &str) -> Result<Vec<CString>, Errno> {
    let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC;
    let mut table = Vec::new();
    File::from(openat(procfs, "self/mountinfo", flags, Mode::empty())?)
        .read_to_end(&mut table)
        .map_err(|error| errno::of(&error))?;
    Ok(parse(&table, kind.as_bytes()))
}

/// A line is: six fields, the fifth the mount point, then optional ones, a `-`, then the type.
fn parse(table: &[u8], kind: &[u8]) -> Vec<CString> {
    let point = |line: &[u8]| {
        let mut fields = line.split(|byte| *byte == b' ');
        let point = fields.nth(4)?;
        fields.nth(1 + fields.clone().skip(1).position(|field| field == b"-")?)?;
        (fields.next()? == kind).then(|| CString::new(unescape(point)).ok())?
    };
    table.split(|byte| *byte == b'\n').filter_map(point).collect()
}

/// Space, tab, newline and backslash are written as a backslash and three octal digits.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&first, tail)) = rest.split_first() {
        match (first, tail) {
            (b'\\', [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', ..]) => {
                bytes.push((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'));
                rest = &tail[3..];
            }
            _ => {
                bytes.push(first);
                rest = tail;
            }
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_points_are_found_by_type_and_unescaped() {
        let table = b"21 1 0:20 / /proc rw,nosuid shared:12 - proc proc rw\n\
            22 1 0:21 / /sys rw - sysfs sysfs rw\n\
            23 1 0:22 / /a\\040b\\134c ro shared:1 master:2 - proc none rw\n\
            24 1 0:23 / /proc-like rw - tmpfs proc rw\n\
            25 1 0:24 / /plain rw - proc proc rw\n";
        assert_eq!(
            parse(table, b"proc"),
            [c"/proc".into(), c"/a b\\c".into(), c"/plain".to_owned()]
        );
        assert_eq!(parse(b"nonsense\n\n1 2 3 - proc", b"proc"), Vec::<CString>::new());
    }
}
