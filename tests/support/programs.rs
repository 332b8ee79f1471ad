//! Programs of the machine that a test runs.

use std::path::Path;

pub const PATH: &str = "/usr/local/bin:/usr/bin:/bin";

/// Fails and names what is missing: a copy that only root can reach does not count.
#[track_caller]
pub fn need(programs: &[&str]) {
    let missing: Vec<_> = programs
        .iter()
        .filter(|name| !PATH.split(':').any(|dir| Path::new(dir).join(name).exists()))
        .collect();
    assert!(missing.is_empty(), "not installed in {PATH}: {missing:?} (Debian: apt-get install)");
}
