//! Containers as Kubernetes makes them under the restricted Pod Security Standard, made by crun.
//!
//! User 1000, no capability in any set, no_new_privs, a container engine's default seccomp profile
//! and masked and read-only paths, a read-only root; own PID, mount, IPC and UTS namespaces, and the
//! network of the fixture `pod`. Everything in it is at /programs, and /data is writable.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};

use crate::support::scratch::Scratch;
use crate::support::{ORDINARY, Outcome, contained, fixture, sbx_init};

/// Whose default seccomp profile. Both allow Landlock and seccomp.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Engine {
    /// containerd's is made after it. No new namespaces, pidfd_getfd or process_vm_readv.
    Docker,
    /// CRI-O's is the same file. User namespaces, pidfd_getfd and process_vm_readv are allowed,
    /// io_uring is not.
    Podman,
}

pub const ENGINES: [Engine; 2] = [Engine::Docker, Engine::Podman];

impl Engine {
    fn profile(self) -> Value {
        let directory = std::env::var_os("SBX_TEST_PROFILES")
            .expect("SBX_TEST_PROFILES is what scripts/engine-profiles made: run scripts/test");
        let name = format!("{self:?}.json").to_lowercase();
        let path = Path::new(&directory).join(name);
        let text = fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        serde_json::from_slice(&text).unwrap()
    }

    /// Whether the profile lets a container without capabilities make a call, whatever its arguments.
    pub fn allows(self, call: &str) -> bool {
        rules(&self.profile()).any(|rule| {
            rule["action"] == "SCMP_ACT_ALLOW"
                && rule["args"].as_array().is_none_or(Vec::is_empty)
                && rule["names"].as_array().unwrap().contains(&call.into())
        })
    }
}

/// The rules of an engine's profile that apply here to a container without capabilities.
fn rules(profile: &Value) -> impl Iterator<Item = &Value> {
    let arch = json!(if cfg!(target_arch = "x86_64") { "amd64" } else { "arm64" });
    let list = |rule: &Value, when: &str, key: &str| rule[when][key].as_array().cloned();
    profile["syscalls"].as_array().unwrap().iter().filter(move |rule| {
        // `minKernel` is older than what the tests run on; `excludes` by capability always apply.
        list(rule, "includes", "caps").is_none_or(|caps| caps.is_empty())
            && list(rule, "includes", "arches").is_none_or(|it| it.is_empty() || it.contains(&arch))
            && list(rule, "excludes", "arches").is_none_or(|it| !it.contains(&arch))
    })
}

/// The `seccomp` of an OCI configuration.
fn seccomp(profile: &Value) -> Value {
    let machine = format!("SCMP_ARCH_{}", std::env::consts::ARCH.to_uppercase());
    let mut architectures = vec![json!(machine)];
    for entry in profile["archMap"].as_array().unwrap() {
        if entry["architecture"] == machine {
            architectures.extend(entry["subArchitectures"].as_array().unwrap().iter().cloned());
        }
    }
    let take = |from: &Value, keys: &[&str]| -> Value {
        let present = keys.iter().filter(|key| !from[**key].is_null());
        Value::Object(present.map(|key| (key.to_string(), from[*key].clone())).collect())
    };
    let mut seccomp = take(profile, &["defaultAction", "defaultErrnoRet"]);
    seccomp["architectures"] = architectures.into();
    seccomp["syscalls"] =
        rules(profile).map(|rule| take(rule, &["names", "action", "errnoRet", "args"])).collect();
    seccomp
}

/// What Docker, containerd and CRI-O cover with nothing.
const MASKED: [&str; 10] = [
    "/proc/asound",
    "/proc/acpi",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
];

/// What they make read-only.
const READ_ONLY: [&str; 5] =
    ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// The path of a program under test in the container.
pub fn program(name: &str) -> String {
    fixture(name);
    format!("/programs/{name}")
}

/// A bundle, of which each run is a container of its own.
pub struct Container {
    bundle: Scratch,
    configuration: Value,
    runs: AtomicUsize,
}

impl Container {
    /// `name` is unique among the tests of one binary.
    pub fn new(engine: Engine, name: &str) -> Self {
        let bundle = Scratch::new(&format!("{name}-{engine:?}"));
        bundle.write("rootfs/etc/resolv.conf", "nameserver 127.0.0.1\n");
        bundle.write("rootfs/etc/nsswitch.conf", "hosts: files dns\n");
        bundle.write("rootfs/etc/hosts", "127.0.0.1 localhost\n");
        let work = PathBuf::from(bundle.file("work"));
        fs::create_dir(&work).unwrap();
        std::os::unix::fs::chown(&work, Some(ORDINARY), Some(ORDINARY)).unwrap();

        let mount = |to: &str, kind: &str, options: &[&str]| json!({ "destination": to, "type": kind, "source": kind, "options": options });
        let bind = |from: &Path, to: &str, mode: &str| json!({ "destination": to, "type": "bind", "source": from, "options": ["rbind", mode] });
        let mut mounts = vec![
            mount("/proc", "proc", &[]),
            mount("/dev", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
            mount("/dev/pts", "devpts", &["nosuid", "noexec", "newinstance", "ptmxmode=0666"]),
            mount("/dev/shm", "tmpfs", &["nosuid", "noexec", "nodev", "mode=1777"]),
            mount("/dev/mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
            mount("/sys", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
            mount("/tmp", "tmpfs", &["nosuid", "nodev", "mode=1777"]),
            bind(sbx_init().parent().unwrap(), "/programs", "ro"),
            bind(&work, "/data", "rw"),
        ];
        for path in ["/usr", "/bin", "/sbin", "/lib", "/lib64"] {
            match fs::read_link(path) {
                Ok(to) => symlink(to, bundle.file(&format!("rootfs{path}"))).unwrap(),
                Err(_) if Path::new(path).exists() => mounts.push(bind(path.as_ref(), path, "ro")),
                Err(_) => {}
            }
        }
        let sets = ["bounding", "effective", "inheritable", "permitted", "ambient"];
        let capabilities: Value = sets.map(|set| (set.to_owned(), json!([]))).into_iter().collect();
        let namespaces = ["pid", "mount", "ipc", "uts"].map(|kind| json!({ "type": kind }));
        let configuration = json!({
            "ociVersion": "1.0.2",
            "root": { "path": "rootfs", "readonly": true },
            "mounts": mounts,
            "process": {
                "user": { "uid": ORDINARY, "gid": ORDINARY },
                "env": ["PATH=/usr/bin:/bin"],
                "cwd": "/data",
                "capabilities": capabilities,
                "noNewPrivileges": true,
            },
            "linux": {
                "namespaces": namespaces,
                "maskedPaths": MASKED,
                "readonlyPaths": READ_ONLY,
                "seccomp": seccomp(&engine.profile()),
            },
        });
        Self { bundle, configuration, runs: AtomicUsize::new(0) }
    }

    /// The host's path of a file in /data.
    pub fn work(&self, name: &str) -> PathBuf {
        self.bundle.path().join("work").join(name)
    }

    /// A container whose PID 1 is this command, contained, to be started by the test.
    pub fn command<S: AsRef<OsStr>>(&self, words: impl IntoIterator<Item = S>) -> Command {
        // crun refuses the hybrid hierarchy of some machines, though it is told to make no cgroup.
        const SCRIPT: &str = r#"
            mount -t tmpfs none /run
            mount -t cgroup2 -o ro none /sys/fs/cgroup
            exec "$1" crun --cgroup-manager=disabled --root /run/crun run --bundle "$2" --config "$3" pod"#;
        let words = words.into_iter().map(|word| word.as_ref().to_str().unwrap().to_owned());
        let mut configuration = self.configuration.clone();
        configuration["process"]["args"] = words.collect();
        let run = self.runs.fetch_add(1, Ordering::Relaxed);
        let file = self.bundle.write(&format!("{run}.json"), configuration.to_string());
        let mut command = contained();
        command.args(["sh", "-ec", SCRIPT, "sh"]).arg(fixture("pod"));
        command.arg(self.bundle.path()).arg(file);
        command
    }

    /// Runs one to its end.
    pub fn run<S: AsRef<OsStr>>(&self, words: impl IntoIterator<Item = S>) -> Outcome {
        Outcome::new(self.command(words).output().expect("timeout(1) is installed"))
    }
}
