//! A directory for one test that every user can write to, removed at the end.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

pub struct Scratch(PathBuf);

impl Scratch {
    /// `name` is unique among the tests of one binary.
    pub fn new(name: &str) -> Self {
        let pid = std::process::id();
        let directory = std::env::temp_dir().join(format!("scratch-{pid}-{name}"));
        fs::create_dir(&directory).unwrap();
        fs::set_permissions(&directory, fs::Permissions::from_mode(0o777)).unwrap();
        Self(directory)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The path of a file in it, which need not exist.
    pub fn file(&self, name: &str) -> String {
        self.0.join(name).into_os_string().into_string().unwrap()
    }

    /// Writes a file.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> String {
        let path = self.file(name);
        if let Some(parent) = Path::new(&path).parent() {
            fs::create_dir_all(parent).unwrap();
        }
        fs::write(&path, content).unwrap();
        path
    }

    /// Writes a file of this mode that can be executed at once.
    pub fn executable(&self, name: &str, mode: u32, content: impl AsRef<[u8]>) -> String {
        // Not written by this process: a child that another test forks meanwhile would hold it
        // open for writing, and execve would answer ETXTBSY.
        let path = self.write(name, "");
        let mut cat = Command::new("sh")
            .args(["-c", "cat > \"$1\"", "sh", &path])
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        cat.stdin.take().unwrap().write_all(content.as_ref()).unwrap();
        assert!(cat.wait().unwrap().success());
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
