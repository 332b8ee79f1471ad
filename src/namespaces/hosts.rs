//! The files that name resolution reads, generated, mounted over the caller's.

use std::fs;

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use crate::network::hosts::PATHS;
use crate::report::{Context, Error, Result, Stage, operation};

const NONE: Option<&str> = None;
/// Where the file system that holds them is made. It stays mounted here for a moment only; this
/// process has its references to what is there.
const PLACE: &str = "/proc";

/// Mounts the texts over the files of [`PATHS`], all from a file system of our own: every other
/// place may be read-only.
pub fn mount_over(texts: [Vec<u8>; 4]) -> Result<()> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("none"), PLACE, Some("tmpfs"), flags, Some("mode=0755"))
        .context(Stage::Network, "mount tmpfs")?;
    for (index, (path, text)) in PATHS.iter().zip(texts).enumerate() {
        let own = format!("{PLACE}/{index}");
        fs::write(&own, text).map_err(|error| Error::new(Stage::Network, "write", error))?;
        match mount(Some(&*own), *path, NONE, MsFlags::MS_BIND, NONE) {
            Ok(()) => {}
            Err(Errno::ENOENT | Errno::ENOTDIR) if index > 0 => continue,
            Err(errno) => {
                let operation = format!("{}{path}", operation::MOUNT_OVER);
                return Err(Error::new(Stage::Network, operation, errno));
            }
        }
        let read_only = flags | MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
        mount(NONE, *path, NONE, read_only, NONE).context(Stage::Network, "remount")?;
    }
    umount2(PLACE, MntFlags::MNT_DETACH).context(Stage::Network, "umount")
}
