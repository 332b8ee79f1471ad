//! landlock_create_ruleset(2): which ABI this kernel has.

use std::ptr;

use nix::errno::Errno;

/// The Landlock ABI, 1 or greater; 0 where the kernel has none, or has it switched off.
pub fn abi() -> u32 {
    const LANDLOCK_CREATE_RULESET_VERSION: u32 = 1;
    let none = ptr::null::<u8>();
    // SAFETY: with this flag the kernel takes a null pointer of length 0.
    let version = Errno::result(unsafe {
        libc::syscall(
            libc::SYS_landlock_create_ruleset,
            none,
            0usize,
            LANDLOCK_CREATE_RULESET_VERSION,
        )
    });
    version.map_or(0, |version| version as u32)
}
