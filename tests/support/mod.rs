//! Runs sbx-init the way its users do: as root and as an ordinary user, standalone and in bwrap.
//!
//! Every run starts as root in a PID and mount namespace made for it, which the `probe` fixture
//! checks before it goes on: a wrong helper cannot signal or remount the machine.
#![allow(dead_code)]

pub mod kernel;
pub mod process;
pub mod programs;
pub mod scratch;

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;

/// The user that is not root: it needs no entry in /etc/passwd.
pub const ORDINARY: u32 = 1000;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum User {
    Root,
    Ordinary,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    Standalone,
    Bwrap,
    /// With `--cap-add CAP_SYS_ADMIN`: no user namespace is needed for PID and mount namespace.
    BwrapSysAdmin,
}

pub const BOTH: [User; 2] = [User::Root, User::Ordinary];

/// Everybody everywhere.
pub const EVERYWHERE: [(User, Place); 6] = [
    (User::Root, Place::Standalone),
    (User::Ordinary, Place::Standalone),
    (User::Root, Place::Bwrap),
    (User::Ordinary, Place::Bwrap),
    (User::Root, Place::BwrapSysAdmin),
    (User::Ordinary, Place::BwrapSysAdmin),
];

/// Each sequence of steps to the namespaces: for what is repeated too often to be done everywhere.
/// Nested; direct; direct as the global root.
pub const ROUTES: [(User, Place); 3] = [
    (User::Ordinary, Place::Standalone),
    (User::Ordinary, Place::BwrapSysAdmin),
    (User::Root, Place::Standalone),
];

/// How often to repeat what shows in numbers only: an emulated machine, which takes some thirty
/// times as long, does a sixteenth.
pub fn many(times: usize) -> usize {
    if std::env::var_os("SBX_TEST_EMULATED").is_some() { times.div_ceil(16) } else { times }
}

/// How often races are tried: $SBX_TEST_TRIES where everything takes longer.
pub fn tries() -> u64 {
    std::env::var("SBX_TEST_TRIES").map_or(100_000, |tries| tries.parse().unwrap())
}

/// A command that shows whether anything started.
pub const STARTED: [&str; 2] = ["echo", "started"];

/// A shell script that runs what follows; then prints its status and the other processes of this
/// PID namespace, which should be its first ones and this shell.
pub const COUNT: &str = r#""$@"; echo "status $?"
    for p in /proc/[0-9]*; do read -r name < "$p/comm" && echo "left $name"; done"#;

/// A shell script that runs what follows to the end of all that holds its standard output.
pub const UNTIL_ALL_GONE: &str = r#"{ "$@"; echo "status $?"; } | cat; echo gone"#;

/// Whether the tests are about the static program with musl and its resolver, not cargo's build.
pub fn is_release() -> bool {
    ["SBX_TEST_PROGRAMS", "SBX_TEST_RELEASE"].iter().any(|name| std::env::var_os(name).is_some())
}

/// Copies of the programs at a place that every user can read: a checkout may be private.
fn programs() -> &'static Path {
    static DIRECTORY: OnceLock<PathBuf> = OnceLock::new();
    DIRECTORY.get_or_init(|| {
        // A virtual machine has them ready, built for it.
        if let Some(directory) = std::env::var_os("SBX_TEST_PROGRAMS") {
            return directory.into();
        }
        let built = Path::new(env!("CARGO_BIN_EXE_sbx-init"));
        let examples = built.parent().unwrap().join("examples");
        // One directory a build of the programs: the test binaries run one after the other.
        let directory = std::env::temp_dir().join(format!("sbx-init-tests-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        fs::set_permissions(&directory, fs::Permissions::from_mode(0o755)).unwrap();
        let copy = |from: &Path| {
            let to = directory.join(from.file_name().unwrap());
            fs::copy(from, &to).unwrap_or_else(|e| panic!("{}: {e}", from.display()));
            fs::set_permissions(&to, fs::Permissions::from_mode(0o755)).unwrap();
        };
        copy(&std::env::var_os("SBX_TEST_RELEASE").map_or(built.into(), PathBuf::from));
        for entry in fs::read_dir(&examples).expect("run `cargo build --examples`, or scripts/test")
        {
            let path = entry.unwrap().path();
            // Cargo leaves NAME, NAME-HASH and NAME.d there.
            if !path.file_name().unwrap().to_string_lossy().contains(['-', '.']) {
                copy(&path);
            }
        }
        directory
    })
}

/// The path of sbx-init, readable for every user.
pub fn sbx_init() -> PathBuf {
    programs().join("sbx-init")
}

/// The path of a fixture of `tests/fixtures`.
pub fn fixture(name: &str) -> PathBuf {
    let path = programs().join(name);
    assert!(path.exists(), "{name} is not built: run `cargo build --examples`, or scripts/test");
    path
}

pub fn probe() -> String {
    fixture("probe").into_os_string().into_string().unwrap()
}

fn namespace(name: &str) -> OsString {
    fs::read_link(format!("/proc/self/ns/{name}")).unwrap().into_os_string()
}

/// A command that runs as root in a new PID and mount namespace, behind the check for that, and
/// is killed with all its descendants after a minute, or the seconds of $SBX_TEST_LIMIT.
pub fn contained() -> Command {
    assert!(nix::unistd::geteuid().is_root(), "these tests need root, to become other users");
    let limit = std::env::var("SBX_TEST_LIMIT").unwrap_or_else(|_| "60".to_owned());
    let mut command = Command::new("timeout");
    command
        .args(["--foreground", "-s", "KILL", &limit])
        .args(["unshare", "-pfm", "--mount-proc", "--kill-child", "--"])
        .arg(fixture("probe"))
        .arg("contained")
        .args([namespace("pid"), namespace("mnt")])
        // No namespace holds a process group: a kill(0, …) that gets out ends here.
        .process_group(0)
        .stdin(Stdio::null());
    command
}

/// A command, contained, in a network namespace of its own with the servers of the fixture `pod`.
pub fn beside_pod<S: AsRef<OsStr>>(words: impl IntoIterator<Item = S>) -> Command {
    let mut command = contained();
    command.arg(fixture("pod")).args(words);
    command
}

/// `setpriv …` to become the user: put in front of a command.
pub fn become_user(user: User) -> Vec<OsString> {
    match user {
        User::Root => vec![],
        User::Ordinary => {
            let id = ORDINARY.to_string();
            ["setpriv", "--reuid", &id, "--regid", &id, "--clear-groups", "--"]
                .map(Into::into)
                .into()
        }
    }
}

/// A bubblewrap that shows the whole machine read-only, with its own /dev, /proc and namespaces.
pub const BWRAP: [&str; 10] = [
    "bwrap",
    "--ro-bind",
    "/",
    "/",
    "--dev",
    "/dev",
    "--proc",
    "/proc",
    "--unshare-all",
    "--die-with-parent",
];

/// One run of sbx-init, described.
#[derive(Clone, Debug)]
pub struct Run {
    user: User,
    place: Place,
    bwrap: Vec<OsString>,
    before: Vec<OsString>,
    options: Vec<OsString>,
}

impl Run {
    pub fn new(user: User, place: Place) -> Self {
        Self { user, place, bwrap: vec![], before: vec![], options: vec![] }
    }

    /// With `--isolation domain`; for the global root where /proc is read-only, as it asks for that.
    pub fn domain(user: User, place: Place) -> Self {
        let run = Self::new(user, place).options(["--isolation", "domain"]);
        match (user, place) {
            (User::Ordinary, _) => run,
            (User::Root, Place::Standalone) => {
                let remount = "mount -o remount,bind,ro /proc; exec \"$@\"";
                run.before(["sh", "-ec", remount, "sh"])
            }
            (User::Root, _) => run.bwrap(["--remount-ro", "/proc"]),
        }
    }

    /// Everybody everywhere, in namespaces and in a domain.
    pub fn each() -> impl Iterator<Item = (Self, String)> {
        EVERYWHERE.into_iter().flat_map(|(user, place)| {
            [("namespaces", Self::new(user, place)), ("domain", Self::domain(user, place))]
                .map(|(level, run)| (run, format!("{user:?} {place:?} {level}")))
        })
    }

    /// Further arguments for bwrap.
    pub fn bwrap<S: AsRef<OsStr>>(mut self, arguments: impl IntoIterator<Item = S>) -> Self {
        self.bwrap.extend(arguments.into_iter().map(|a| a.as_ref().to_owned()));
        self
    }

    /// A command prefix between the user (and bwrap) and sbx-init, such as `sh -c '… exec "$@"' sh`.
    pub fn before<S: AsRef<OsStr>>(mut self, words: impl IntoIterator<Item = S>) -> Self {
        self.before.extend(words.into_iter().map(|a| a.as_ref().to_owned()));
        self
    }

    /// Options of sbx-init.
    pub fn options<S: AsRef<OsStr>>(mut self, options: impl IntoIterator<Item = S>) -> Self {
        self.options.extend(options.into_iter().map(|a| a.as_ref().to_owned()));
        self
    }

    /// The words from the user change on: `[setpriv …] [bwrap …] [before] sbx-init [options] COMMAND`.
    pub fn words<S: AsRef<OsStr>>(&self, command: impl IntoIterator<Item = S>) -> Vec<OsString> {
        let mut words = become_user(self.user);
        if self.place != Place::Standalone {
            words.extend(BWRAP.map(OsString::from));
            if self.place == Place::BwrapSysAdmin {
                words.extend(["--cap-add", "CAP_SYS_ADMIN"].map(OsString::from));
            }
            words.extend(self.bwrap.iter().cloned());
            words.push("--".into());
        }
        words.extend(self.before.iter().cloned());
        words.push(sbx_init().into());
        words.extend(self.options.iter().cloned());
        words.extend(command.into_iter().map(|a| a.as_ref().to_owned()));
        words
    }

    /// The whole command, contained, to be started by the test.
    pub fn command<S: AsRef<OsStr>>(&self, command: impl IntoIterator<Item = S>) -> Command {
        let mut contained = contained();
        contained.args(self.words(command));
        contained
    }

    /// Runs it to its end.
    pub fn run<S: AsRef<OsStr>>(&self, command: impl IntoIterator<Item = S>) -> Outcome {
        Outcome::of(&mut self.command(command))
    }

    /// Runs it as `"$@"` of a shell script that prepares the containing namespaces as root.
    pub fn prepared<S: AsRef<OsStr>>(
        &self,
        script: &str,
        command: impl IntoIterator<Item = S>,
    ) -> Outcome {
        let mut contained = contained();
        Outcome::of(contained.args(["sh", "-ec", script, "sh"]).args(self.words(command)))
    }

    /// Runs it as on a kernel, or behind a filter, where a system call fails with an errno.
    pub fn lacking(self, call: impl std::fmt::Display, errno: i32) -> Self {
        let fixture = fixture("lacking").into_os_string();
        self.before([fixture, call.to_string().into(), errno.to_string().into()])
    }

    /// One system call inside: see the fixture `probe`.
    pub fn call(&self, number: i64, arguments: &[&str]) -> String {
        let mut command = vec![probe(), "call".into(), number.to_string()];
        command.extend(arguments.iter().map(|a| a.to_string()));
        self.run(command).success().trim().to_owned()
    }

    /// Runs a shell script inside.
    pub fn sh(&self, script: &str) -> Outcome {
        self.run(["sh", "-c", script])
    }
}

/// What a run left.
#[derive(Debug)]
pub struct Outcome {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Outcome {
    /// Runs a command to its end.
    #[track_caller]
    pub fn of(command: &mut Command) -> Self {
        Self::new(command.output().expect("timeout(1) is installed"))
    }

    pub fn new(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// The standard output of a run that must have succeeded.
    #[track_caller]
    pub fn success(&self) -> &str {
        assert_eq!(self.code, 0, "{self:?}");
        &self.stdout
    }

    /// Asserts a failure of sbx-init itself: 125, one line of that stage, a hint with these words,
    /// and nothing from the command.
    #[track_caller]
    pub fn refused(&self, stage: &str, hint: &[&str]) {
        assert_eq!(self.code, 125, "{self:?}");
        assert!(self.stderr.starts_with(&format!("sbx-init: {stage}: ")), "{self:?}");
        assert_eq!(self.stderr.matches("sbx-init: ").count(), 1, "{self:?}");
        assert_eq!(self.stdout, "", "{self:?}");
        let line = self.stderr.lines().find(|line| line.starts_with("hint: ")).unwrap_or("");
        for word in hint {
            assert!(line.contains(word), "no {word:?} in the hint: {self:?}");
        }
    }
}

/// For a Landlock rule: where a dynamic program, its loader and its libraries are, and the fixtures.
pub fn executable_paths() -> String {
    let system = ["/usr", "/bin", "/lib", "/lib64"];
    let mut paths: Vec<_> = system.into_iter().filter(|p| std::fs::exists(p).unwrap()).collect();
    let fixtures = word("files");
    paths.push(fixtures.strip_suffix("/files").unwrap());
    paths.join(",")
}

/// The path of a fixture as a word of a command.
pub fn word(fixture_name: &str) -> String {
    fixture(fixture_name).into_os_string().into_string().unwrap()
}

/// Quotes words for a shell.
pub fn quote(words: &[OsString]) -> String {
    let quote = |word: &OsString| format!("'{}'", word.to_str().unwrap().replace('\'', r"'\''"));
    words.iter().map(quote).collect::<Vec<_>>().join(" ")
}
