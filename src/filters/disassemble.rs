//! Filter programs for a reader: one instruction a line, names for what has one.

use std::fmt::Write;

use crate::sys::seccomp::SockFilter;

const OFFSET_NR: u32 = 0;
const OFFSET_ARCH: u32 = 4;
const OFFSET_ARGS: u32 = 16;

/// `name_of` gives the name of a system call's number, if it is known.
pub fn disassemble(
    program: &[SockFilter],
    name_of: impl Fn(u32) -> Option<&'static str>,
) -> String {
    let mut text = String::new();
    // What the accumulator holds, from the last load above: the programs have no other use of it.
    let mut loaded = u32::MAX;
    for (index, &SockFilter { code, jt, jf, k }) in program.iter().enumerate() {
        let to = |offset: u32| index + 1 + offset as usize;
        let _ = write!(text, "{index:4}: ");
        let _ = match u32::from(code) {
            0x20 => {
                loaded = k;
                match k {
                    OFFSET_NR => writeln!(text, "ld   nr"),
                    OFFSET_ARCH => writeln!(text, "ld   arch"),
                    _ if k >= OFFSET_ARGS => {
                        let half = if k % 8 == 0 { "low" } else { "high" };
                        writeln!(text, "ld   args[{}].{half}", (k - OFFSET_ARGS) / 8)
                    }
                    _ => writeln!(text, "ld   [{k}]"),
                }
            }
            0x54 => writeln!(text, "and  {k:#x}"),
            0x05 => writeln!(text, "ja   {}", to(k)),
            0x06 => match k & 0xffff_0000 {
                0x7fff_0000 => writeln!(text, "ret  ALLOW"),
                0x8000_0000 => writeln!(text, "ret  KILL_PROCESS"),
                0x7fc0_0000 => writeln!(text, "ret  USER_NOTIF"),
                0x0005_0000 if k & 0xffff == 0 => writeln!(text, "ret  ERRNO 0"),
                0x0005_0000 => {
                    writeln!(
                        text,
                        "ret  ERRNO {:?}",
                        nix::errno::Errno::from_raw((k & 0xffff) as i32)
                    )
                }
                _ => writeln!(text, "ret  {k:#x}"),
            },
            code => {
                let compare = match code {
                    0x15 => "jeq",
                    0x25 => "jgt",
                    0x35 => "jge",
                    0x45 => "jset",
                    _ => "?",
                };
                let _ = write!(text, "{compare:<4} {k:#x}");
                if let Some(name) = name_of(k).filter(|_| loaded == OFFSET_NR) {
                    let _ = write!(text, " {name}");
                }
                writeln!(text, ", {}, {}", to(jt.into()), to(jf.into()))
            }
        };
    }
    text
}
