//! Compiles `filters/*.json` into BPF programs for both architectures, whatever the host.
//!
//! Each file is one group. Its named filters are compiled by seccompiler one by one and joined
//! into one program, in which a call that one filter does not match goes on to the next. In front
//! stands what seccompiler 0.5 lacks: see [`prologue`].

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::{env, fs};

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch, sock_filter,
};
use serde::Deserialize;

/// The groups that are merged into `default`: those of the table in `src/filters/mod.rs` that are
/// on by default, which a unit test compares with this list.
const DEFAULT: [&str; 4] = ["io-uring", "families", "unix", "tty"];

// seccompiler's JSON form. Its own front end does not know the numbers of the newest system
// calls, so names are looked up in the `syscalls` tables instead.
type Group = BTreeMap<String, Filter>;

#[derive(Deserialize, Clone)]
#[serde(deny_unknown_fields)]
struct Filter {
    mismatch_action: SeccompAction,
    match_action: SeccompAction,
    filter: Vec<Rule>,
}

#[derive(Deserialize, Clone)]
#[serde(deny_unknown_fields)]
struct Rule {
    syscall: String,
    #[serde(default)]
    args: Vec<Condition>,
    #[serde(default, rename = "comment")]
    _comment: String,
}

#[derive(Deserialize, Clone)]
#[serde(deny_unknown_fields)]
struct Condition {
    index: u8,
    #[serde(rename = "type")]
    length: SeccompCmpArgLen,
    op: SeccompCmpOp,
    val: u64,
    #[serde(default, rename = "comment")]
    _comment: String,
}

struct Arch {
    name: &'static str,
    target: TargetArch,
    /// `AUDIT_ARCH_*` of linux/audit.h.
    audit: u32,
    number: fn(&str) -> Option<i64>,
    x32: bool,
}

const ARCHS: [Arch; 2] = [
    Arch {
        name: "x86_64",
        target: TargetArch::x86_64,
        audit: 0xc000_003e,
        number: |name| Some(name.parse::<syscalls::x86_64::Sysno>().ok()?.id().into()),
        x32: true,
    },
    Arch {
        name: "aarch64",
        target: TargetArch::aarch64,
        audit: 0xc000_00b7,
        number: |name| Some(name.parse::<syscalls::aarch64::Sysno>().ok()?.id().into()),
        x32: false,
    },
];

// Opcodes of linux/bpf_common.h, return values of linux/seccomp.h, offsets of struct seccomp_data.
const LD_W_ABS: u16 = 0x20;
const JMP_JA: u16 = 0x05;
const JMP_JEQ_K: u16 = 0x15;
const JMP_JSET_K: u16 = 0x45;
const RET_K: u16 = 0x06;
const RET_KILL_PROCESS: u32 = 0x8000_0000;
const RET_ERRNO: u32 = 0x0005_0000;
const RET_ALLOW: u32 = 0x7fff_0000;
const OFFSET_NR: u32 = 0;
const OFFSET_ARCH: u32 = 4;
const ENOSYS: u32 = 38;

const fn op(code: u16, jt: u8, jf: u8, k: u32) -> sock_filter {
    sock_filter { code, jt, jf, k }
}

/// A call of another architecture (i386 `int 0x80`, AArch32) has other numbers: it ends the
/// process. The x32 calls of x86_64 have bit 30 set: the kernel's answer without x32, ENOSYS.
/// A tracer that skips a call sets the number to -1, whose result must be the tracer's.
fn prologue(arch: &Arch) -> BpfProgram {
    let mut program = vec![
        op(LD_W_ABS, 0, 0, OFFSET_ARCH),
        op(JMP_JEQ_K, 1, 0, arch.audit),
        op(RET_K, 0, 0, RET_KILL_PROCESS),
    ];
    if arch.x32 {
        program.extend([
            op(LD_W_ABS, 0, 0, OFFSET_NR),
            op(JMP_JEQ_K, 2, 0, u32::MAX),
            op(JMP_JSET_K, 0, 1, 0x4000_0000),
            op(RET_K, 0, 0, RET_ERRNO | ENOSYS),
        ]);
    }
    program
}

/// seccompiler's program without its own three instructions of architecture check, and with each
/// `ret ALLOW` made a jump behind its end.
fn body(filter: &Filter, arch: &Arch, file: &str) -> BpfProgram {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = BTreeMap::new();
    for rule in &filter.filter {
        assert!(
            ARCHS.iter().any(|arch| (arch.number)(&rule.syscall).is_some()),
            "{file}: no architecture has a system call {}",
            rule.syscall
        );
        let Some(number) = (arch.number)(&rule.syscall) else { continue };
        let known = rules.contains_key(&number);
        let chain = rules.entry(number).or_default();
        assert!(
            !known || !(chain.is_empty() || rule.args.is_empty()),
            "{file}: {} is denied with and without conditions",
            rule.syscall
        );
        if !rule.args.is_empty() {
            let conditions = rule.args.iter().map(|c| {
                SeccompCondition::new(c.index, c.length.clone(), c.op.clone(), c.val).unwrap()
            });
            chain.push(SeccompRule::new(conditions.collect()).unwrap());
        }
    }
    assert_eq!(filter.mismatch_action, SeccompAction::Allow, "{file}: a group denies, no more");
    let compiled: BpfProgram =
        SeccompFilter::new(rules, SeccompAction::Allow, filter.match_action.clone(), arch.target)
            .and_then(TryInto::try_into)
            .unwrap_or_else(|error| panic!("{file}: {error}"));

    let mut body = compiled[3..].to_vec();
    let end = body.len();
    for (index, instruction) in body.iter_mut().enumerate() {
        if instruction.code == RET_K && instruction.k == RET_ALLOW {
            *instruction = op(JMP_JA, 0, 0, (end - index - 1) as u32);
        }
    }
    body
}

fn program(groups: &[&Group], arch: &Arch, file: &str) -> BpfProgram {
    let mut program = prologue(arch);
    for filter in groups.iter().flat_map(|group| group.values()) {
        program.extend(body(filter, arch, file));
    }
    program.push(op(RET_K, 0, 0, RET_ALLOW));
    program
}

fn main() {
    println!("cargo::rerun-if-changed=filters");
    println!("cargo::rerun-if-changed=build.rs");

    let mut files: Vec<_> = fs::read_dir("filters").unwrap().map(|e| e.unwrap().path()).collect();
    files.sort();
    let mut groups: BTreeMap<String, Group> = BTreeMap::new();
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        let group =
            serde_json::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
        groups.insert(file.file_stem().unwrap().to_str().unwrap().to_owned(), group);
    }

    let mut out = String::new();
    let mut names: BTreeMap<String, ()> = BTreeMap::new();
    for arch in &ARCHS {
        let mut emit = |name: &str, members: &[&Group]| {
            let constant = name.replace('-', "_").to_uppercase();
            let program = program(members, arch, name);
            writeln!(
                out,
                "pub static {constant}_{}: [SockFilter; {}] = [",
                arch.name.to_uppercase(),
                program.len()
            )
            .unwrap();
            for sock_filter { code, jt, jf, k } in program {
                writeln!(
                    out,
                    "    SockFilter {{ code: {code:#x}, jt: {jt}, jf: {jf}, k: {k:#x} }},"
                )
                .unwrap();
            }
            out.push_str("];\n");
        };
        for (name, group) in &groups {
            emit(name, &[group]);
        }
        emit("default", &DEFAULT.map(|name| &groups[name]));
        for rule in groups.values().flat_map(|g| g.values()).flat_map(|f| &f.filter) {
            names.insert(rule.syscall.clone(), ());
        }
    }
    // The names that the disassembly shows.
    for arch in &ARCHS {
        let known: Vec<_> =
            names.keys().filter_map(|n| Some(((arch.number)(n)?, n.as_str()))).collect();
        writeln!(
            out,
            "pub static NAMES_{}: [(u32, &str); {}] = {known:?};",
            arch.name.to_uppercase(),
            known.len()
        )
        .unwrap();
    }
    let path = Path::new(&env::var_os("OUT_DIR").unwrap()).join("filters.rs");
    fs::write(path, out).unwrap();
}
