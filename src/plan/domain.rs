//! Which Landlock domain the workload gets: what was asked, and what this kernel can enforce.

use std::borrow::Cow;
use std::fs::File;
use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, NetPort, PathBeneath,
    Ruleset, RulesetAttr, RulesetCreated, RulesetCreatedAttr, RulesetError, Scope,
};
use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::stat::{FileStat, Mode, fstat, stat};
use nix::sys::statfs::{PROC_SUPER_MAGIC, fstatfs};

use crate::policy::{FileAccess, Rules, Scopes};
use crate::report::{Context, Error, Result, Stage, operation};

/// What keeps the workload from ptrace and signals of the helpers outside, were there no domain.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Separation {
    /// Namespaces of its own.
    Namespaces,
    /// A PID namespace, but a user namespace shared with unfiltered helpers: an old reference to
    /// their procfs would open their memory.
    SharedUserNamespace,
    /// Nothing.
    None,
}

/// A domain to be made. All of it can be enforced here.
pub struct Domain {
    files: BitFlags<AccessFs>,
    net: BitFlags<AccessNet>,
    scopes: BitFlags<Scope>,
    beneath: Vec<Beneath>,
    ports: Vec<(u16, AccessNet)>,
}

struct Beneath {
    path: PathBuf,
    open: File,
    access: BitFlags<AccessFs>,
}

pub struct Landlock {
    pub abi: u32,
    pub domain: Option<Domain>,
    /// What was asked for and this kernel cannot enforce: with `--best-effort` only.
    pub missing: Vec<String>,
}

/// What a kernel must have: the ABI, and the Linux version it came with.
struct Need {
    what: &'static str,
    abi: u32,
    linux: &'static str,
}

const fn need(what: &'static str, abi: u32, linux: &'static str) -> Need {
    Need { what, abi, linux }
}

// File rules hold only if all ways to change a file are covered, as in landrun. Moving files
// between directories (ABI 2) is denied by an older kernel, too.
const FILES: [Need; 3] = [
    need("file rules", 1, "5.13"),
    need("file rules against truncate(2)", 3, "6.2"),
    need("file rules against ioctl(2) of devices", FILES_ABI, "6.10"),
];
const FILES_ABI: u32 = 5;
const CONNECT_TCP: Need = need("--connect-tcp", 4, "6.7");
const BIND_TCP: Need = need("--bind-tcp", 4, "6.7");
/// The first with scopes.
pub const SCOPES_ABI: u32 = 6;
const SIGNAL: Need = need("--scope signal", SCOPES_ABI, "6.12");
const ABSTRACT_UNIX: Need = need("--scope abstract-unix", SCOPES_ABI, "6.12");
const ISOLATION: Need = need("--isolation domain", SCOPES_ABI, "6.12");

impl Need {
    fn lacking(&self, abi: u32) -> String {
        let found = match abi {
            0 => Cow::Borrowed("none, or has it switched off"),
            abi => format!("ABI {abi}").into(),
        };
        let Self { what, abi, linux } = self;
        format!("{what}: needs Landlock ABI {abi} (Linux {linux}), this kernel has {found}")
    }
}

fn refused(what: impl Into<Cow<'static, str>>) -> Error {
    Error::new(Stage::Plan, operation::LANDLOCK, what.into().into_owned())
}

impl Landlock {
    /// `abi` is that of this kernel: see [`crate::sys::landlock::abi`].
    pub fn plan(rules: &Rules, separation: Separation, abi: u32) -> Result<Self> {
        let alone = separation == Separation::None;
        let mut needs: Vec<&Need> = Vec::new();
        if !rules.files.is_empty() {
            needs.extend(&FILES);
        }
        needs.extend((!rules.connect_tcp.is_empty()).then_some(&CONNECT_TCP));
        needs.extend((!rules.bind_tcp.is_empty()).then_some(&BIND_TCP));
        needs.extend(rules.scopes.is_some_and(|asked| asked.signal).then_some(&SIGNAL));
        needs.extend(
            rules.scopes.is_some_and(|asked| asked.abstract_unix).then_some(&ABSTRACT_UNIX),
        );
        needs.extend(alone.then_some(&ISOLATION));

        let lacking: Vec<_> = needs.into_iter().filter(|need| need.abi > abi).collect();
        let worst = lacking.iter().max_by_key(|need| need.abi);
        // Without any domain there would be no isolation at all, which no one asked for.
        match worst {
            Some(need) if !rules.best_effort || (alone && abi == 0) => {
                return Err(refused(need.lacking(abi)));
            }
            _ => {}
        }
        let missing = lacking.iter().map(|need| need.lacking(abi)).collect();
        let domain = Domain::plan(rules, separation, abi)?;
        Ok(Self { abi, domain, missing })
    }
}

impl Domain {
    fn plan(rules: &Rules, separation: Separation, abi: u32) -> Result<Option<Self>> {
        let scopes = rules.scopes.unwrap_or(Scopes { signal: true, abstract_unix: true });
        if separation == Separation::None && !scopes.signal {
            let what = "--isolation domain needs signal";
            return Err(Error::new(Stage::Options, "--scope", what));
        }
        let mut domain = Self {
            files: BitFlags::EMPTY,
            net: BitFlags::EMPTY,
            scopes: BitFlags::EMPTY,
            beneath: Vec::new(),
            ports: Vec::new(),
        };
        if abi >= SCOPES_ABI {
            domain.scopes |= on(scopes.signal, Scope::Signal);
            domain.scopes |= on(scopes.abstract_unix, Scope::AbstractUnixSocket);
        }
        if abi >= CONNECT_TCP.abi {
            domain.add_ports(&rules.connect_tcp, AccessNet::ConnectTcp);
            domain.add_ports(&rules.bind_tcp, AccessNet::BindTcp);
        }
        // All are checked, also where the kernel enforces none.
        for (path, access) in &rules.files {
            domain.beneath.push(Beneath::new(path, rights(*access))?);
        }
        if !rules.files.is_empty() {
            domain.files = AccessFs::from_all(ABI::from(abi.min(FILES_ABI) as i32));
        }
        if domain.is_empty() && separation != Separation::Namespaces {
            domain.restrict_nothing(abi)?;
        }
        domain.beneath.iter_mut().for_each(|beneath| beneath.access &= domain.files);
        Ok((!domain.is_empty()).then_some(domain))
    }

    /// Keeps signals inside and restricts nothing else. Wherever a domain within it handles files,
    /// the kernel has each layer allow that they are moved, or none can be.
    pub fn of_signals() -> Result<Self> {
        Ok(Self {
            files: AccessFs::Refer.into(),
            net: BitFlags::EMPTY,
            scopes: Scope::Signal.into(),
            beneath: vec![Beneath::new(Path::new("/"), AccessFs::Refer.into())?],
            ports: Vec::new(),
        })
    }

    /// Fails if a rule names one of these files: another one will be mounted over it, which only a
    /// rule for its directory covers.
    pub fn check_not_covered(&self, paths: &[&str]) -> Result<()> {
        let same = |found: FileStat, other: FileStat| {
            (found.st_dev, found.st_ino) == (other.st_dev, other.st_ino)
        };
        for Beneath { path, open, .. } in &self.beneath {
            let found = fstat(open).map_err(|errno| failed(Stage::Plan, path, errno))?;
            if paths.iter().any(|covered| stat(*covered).is_ok_and(|other| same(found, other))) {
                let what = format!("{} will be covered by a generated file", path.display());
                return Err(Error::new(Stage::Plan, operation::COVERED, what));
            }
        }
        Ok(())
    }

    fn is_empty(&self) -> bool {
        self.files.is_empty() && self.net.is_empty() && self.scopes.is_empty()
    }

    fn add_ports(&mut self, ports: &[u16], access: AccessNet) {
        self.net |= on(!ports.is_empty(), access);
        self.ports.extend(ports.iter().map(|port| (*port, access)));
    }

    /// Every domain keeps ptrace and /proc/PID/mem of what is outside away, and one that handles
    /// file access mount(2), too. This one allows what it handles: to move files anywhere; before
    /// ABI 2, which could not allow that, to make block devices, which needs a capability.
    fn restrict_nothing(&mut self, abi: u32) -> Result<()> {
        self.files = match abi {
            0 => return Err(Error::new(Stage::Plan, operation::SEPARATION, Errno::EPERM)),
            1 => AccessFs::MakeBlock.into(),
            _ => AccessFs::Refer.into(),
        };
        self.beneath.push(Beneath::new(Path::new("/"), self.files)?);
        Ok(())
    }

    /// Makes the ruleset, in the process that will enter: it sees its own /proc, and there itself
    /// at /proc/self.
    pub fn create(self) -> Result<RulesetCreated> {
        // All of it was checked before: what fails is a system call, whose errno is still there.
        let failed =
            |_: RulesetError| Error::new(Stage::Confine, operation::LANDLOCK, Errno::last());
        let mut ruleset = Ruleset::default().set_compatibility(CompatLevel::HardRequirement);
        if !self.files.is_empty() {
            ruleset = ruleset.handle_access(self.files).map_err(failed)?;
        }
        if !self.net.is_empty() {
            ruleset = ruleset.handle_access(self.net).map_err(failed)?;
        }
        if !self.scopes.is_empty() {
            ruleset = ruleset.scope(self.scopes).map_err(failed)?;
        }
        let mut created = ruleset.create().map_err(failed)?;
        for Beneath { path, open, access } in &self.beneath {
            if access.is_empty() {
                continue;
            }
            // A rule stands for a file, not for a path: for the old /proc under the new one.
            let again = on_procfs(open)?.then(|| open_path(path, Stage::Confine)).transpose()?;
            let rule = PathBeneath::new(again.as_ref().unwrap_or(open), *access);
            created = created.add_rule(rule).map_err(failed)?;
        }
        for (port, access) in &self.ports {
            created = created.add_rule(NetPort::new(*port, *access)).map_err(failed)?;
        }
        Ok(created)
    }
}

impl Beneath {
    fn new(path: &Path, access: BitFlags<AccessFs>) -> Result<Self> {
        let open = open_path(path, Stage::Plan)?;
        let mode = fstat(&open).map_err(|errno| failed(Stage::Plan, path, errno))?.st_mode;
        let is_directory = mode & libc::S_IFMT == libc::S_IFDIR;
        // The kernel refuses rights of directories for anything else.
        let possible = match is_directory {
            true => BitFlags::all(),
            false => AccessFs::from_file(ABI::from(FILES_ABI as i32)),
        };
        Ok(Self { path: path.to_owned(), open, access: access & possible })
    }
}

fn on<T: Into<BitFlags<F>>, F: Access>(condition: bool, flag: T) -> BitFlags<F> {
    if condition { flag.into() } else { BitFlags::EMPTY }
}

/// What landrun allows with the option of the same name.
fn rights(access: FileAccess) -> BitFlags<AccessFs> {
    AccessFs::ReadFile
        | AccessFs::ReadDir
        | on(access.execute, AccessFs::Execute)
        | on(access.write, AccessFs::from_write(ABI::from(FILES_ABI as i32)))
}

fn failed(stage: Stage, path: &Path, errno: Errno) -> Error {
    Error::new(stage, format!("Landlock rule for {}", path.display()), errno)
}

fn open_path(path: &Path, stage: Stage) -> Result<File> {
    // Not with std's options: musl's O_ACCMODE has O_PATH in it, and std drops that.
    open(path, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())
        .map(File::from)
        .map_err(|errno| failed(stage, path, errno))
}

fn on_procfs(file: &File) -> Result<bool> {
    let found = fstatfs(file).context(Stage::Confine, "fstatfs")?;
    Ok(found.filesystem_type() == PROC_SUPER_MAGIC)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(paths: &[(&str, bool, bool)]) -> Rules {
        let rule =
            |&(path, write, execute): &(&str, _, _)| (path.into(), FileAccess { write, execute });
        Rules { files: paths.iter().map(rule).collect(), ..Rules::default() }
    }

    fn best_effort(rules: Rules) -> Rules {
        Rules { best_effort: true, ..rules }
    }

    fn plan(rules: &Rules, separation: Separation, abi: u32) -> Landlock {
        Landlock::plan(rules, separation, abi).unwrap()
    }

    #[track_caller]
    fn refused(rules: &Rules, separation: Separation, abi: u32, words: &[&str]) {
        let error = match Landlock::plan(rules, separation, abi) {
            Err(error) => error.to_string(),
            Ok(_) => panic!("ABI {abi} can do it"),
        };
        for word in words {
            assert!(error.contains(word), "{error}");
        }
    }

    #[test]
    fn scopes_are_on_where_the_kernel_has_them() {
        for abi in 0..6 {
            assert!(plan(&Rules::default(), Separation::Namespaces, abi).domain.is_none());
        }
        let domain = plan(&Rules::default(), Separation::Namespaces, 6).domain.unwrap();
        assert_eq!(domain.scopes, Scope::Signal | Scope::AbstractUnixSocket);
        // A domain that handles files would forbid mount(2).
        assert!(domain.files.is_empty() && domain.net.is_empty());
    }

    #[test]
    fn what_the_kernel_cannot_enforce_is_refused_with_both_abis() {
        let file = files(&[("/", false, false)]);
        let tcp = Rules { connect_tcp: vec![80], ..Rules::default() };
        let bind = Rules { bind_tcp: vec![80], ..Rules::default() };
        let scope = Scopes { signal: true, abstract_unix: false };
        let signal = Rules { scopes: Some(scope), ..Rules::default() };
        for (rules, needed, linux) in
            [(file, 5, "6.10"), (tcp, 4, "6.7"), (bind, 4, "6.7"), (signal, 6, "6.12")]
        {
            for separation in [Separation::Namespaces, Separation::SharedUserNamespace] {
                for abi in 1..needed {
                    let words =
                        [&*format!("ABI {needed} (Linux {linux})"), &*format!("has ABI {abi}")];
                    refused(&rules, separation, abi, &words);
                    let landlock = plan(&best_effort(rules.clone()), separation, abi);
                    assert!(landlock.missing.iter().any(|missing| missing.contains(words[0])));
                }
                refused(&rules, separation, 0, &["this kernel has none"]);
                let landlock = plan(&rules, separation, needed);
                assert!(landlock.missing.is_empty() && landlock.domain.is_some());
            }
        }
    }

    #[test]
    fn nothing_stands_in_for_a_domain_where_there_is_no_namespace() {
        let rules = best_effort(Rules::default());
        refused(&rules, Separation::None, 0, &["--isolation domain", "ABI 6", "none"]);
        refused(
            &Rules::default(),
            Separation::None,
            5,
            &["--isolation domain", "ABI 6", "has ABI 5"],
        );
        for abi in 1..6 {
            let landlock = plan(&rules, Separation::None, abi);
            assert!(!landlock.domain.unwrap().files.is_empty());
            assert!(landlock.missing[0].contains("--isolation domain"), "{:?}", landlock.missing);
        }
        let none = Rules { scopes: Some(Scopes { signal: false, abstract_unix: true }), ..rules };
        refused(&none, Separation::None, 7, &["--scope: ", "needs signal"]);
    }

    #[test]
    fn a_shared_user_namespace_needs_a_domain_and_an_old_kernels_will_do() {
        refused(&Rules::default(), Separation::SharedUserNamespace, 0, &["separate the workload"]);
        for (abi, access) in [(1, AccessFs::MakeBlock), (2, AccessFs::Refer), (5, AccessFs::Refer)]
        {
            let domain =
                plan(&Rules::default(), Separation::SharedUserNamespace, abi).domain.unwrap();
            assert_eq!(domain.files, BitFlags::from(access));
            assert_eq!(domain.beneath[0].access, BitFlags::from(access));
            assert_eq!(domain.beneath[0].path, Path::new("/"));
        }
    }

    #[test]
    fn rights_are_those_of_landrun_and_masked_for_what_is_no_directory() {
        let rules = files(&[("/", false, false), ("/", true, true), ("/dev/null", true, false)]);
        let domain = plan(&rules, Separation::Namespaces, 7).domain.unwrap();
        let access: Vec<_> = domain.beneath.iter().map(|beneath| beneath.access).collect();
        let read = AccessFs::ReadFile | AccessFs::ReadDir;
        let device: BitFlags<_> = AccessFs::WriteFile | AccessFs::Truncate | AccessFs::IoctlDev;
        assert_eq!(access, [read, AccessFs::from_all(ABI::V5), device | AccessFs::ReadFile]);
        assert_eq!(domain.files, AccessFs::from_all(ABI::V5));
    }

    #[test]
    fn a_missing_path_is_named_whatever_the_kernel_has() {
        let rules = best_effort(files(&[("/no/such/path", false, false)]));
        for abi in [0, 7] {
            refused(&rules, Separation::Namespaces, abi, &["/no/such/path", "ENOENT"]);
        }
    }
}
